"""Program: the compiled form of a recording, as launches with their arguments bound, which a call enqueues (a replay).

In: a Recording. ``Program.__init__`` is the compiler's driver: it rewrites and fuses the steps, plans the arena, forms
the launch groups. Out: ``__call__`` binds what differs from the last call (arguments, results, gradients, random
numbers) and enqueues the launches, with no Python for each op. If its results are differentiable, a Program has two
parts, forward and backward; its Node in the graph replays the second one.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn, cast

from tinyedge import config, report
from tinyedge.autograd.deferral import deferred_launches, not_deferring
from tinyedge.autograd.dispatch import contiguous_copy, edge_to, new_slot, write_into
from tinyedge.autograd.hooks import any_hooked
from tinyedge.autograd.interrupts import held_back
from tinyedge.autograd.minibatch import mark_torn
from tinyedge.autograd.recorder import Effect
from tinyedge.autograd.scope import T
from tinyedge.autograd.walk import Gradient, OwnBackward, Walk, require_saved
from tinyedge.backends import Backend, default_backend
from tinyedge.backends.base import GroupsLimited, Lowered
from tinyedge.compiler import rewrite
from tinyedge.compiler.arenas import Arena, Arenas, Lease
from tinyedge.compiler.assemble import assemble
from tinyedge.compiler.binding import Binding, Part
from tinyedge.compiler.describe import lowered
from tinyedge.compiler.draws import Draws, States
from tinyedge.compiler.gradients import Gradients
from tinyedge.compiler.leaves import Leaf
from tinyedge.compiler.record import Recording, Trace, bytes_of
from tinyedge.compiler.results import ResultPlace, Results
from tinyedge.dtypes import DType, bool_, float32, uint8
from tinyedge.errors import ArgumentError, AutogradError, BackendError, CaptureError, OutOfMemoryError
from tinyedge.ir.kernel import BufferId
from tinyedge.ir.launch import LaunchGroup, single
from tinyedge.ir.program import ProgramSpec
from tinyedge.ir.step import FORWARD, Edge, Op, Step
from tinyedge.ir.values import Layout, Slot, Storage, next_number
from tinyedge.ir.values import Value as NumberValue
from tinyedge.ops.random import Draw, Generator
from tinyedge.report.program import Profile
from tinyedge.shapes import Shape, contiguous_strides
from tinyedge.tensor import Tensor, map_tensors, tensors_in

MOST_TRIES = 16
"""Attempts to prepare a program: each lowers kernels for smaller work-groups, usually half as large."""


Again = Callable[[tuple[int, ...]], "tuple[Program, list[Tensor]]"]
"""Given the results for which gradients come: a program for such calls, and the arguments of this call."""


class _Replay(Op):
    """The op that a Node stands for in the graph: the replay of a program."""

    name = "a compiled function"


_NOTHING: dict[str, Any] = {}
_version_of = attrgetter("version")


class Node(OwnBackward):
    """A call of a compiled function in the graph: its backward replays the second part of the program."""

    __slots__ = ("again", "draws", "held", "inputs", "lease", "leaves", "program", "seen", "versions")

    op = _Replay
    direction = FORWARD
    attrs = scalars = slots = _NOTHING
    reads = writes = ()
    accumulate = frozenset()

    def __init__(self, program: Program, lease: Lease, leaves: list[Slot]) -> None:
        # The rest of a Step's attributes, the same for all nodes, are the class's: a call makes one before its launch.
        self.number = next_number()
        self.hooks = None
        self.program = program
        self.lease = lease
        self.saved = {}
        self.leaves = leaves
        self.output_specs, self.input_specs = program.root_specs, program.input_specs
        self.inputs: Sequence[Edge] = ()
        self.held: Sequence[tuple[int, Slot]] = ()  # what backward reads of this call alone, by storage number
        self.versions: Sequence[int] = ()  # of what backward reads: what is the same for every call, and ``held``
        self.again: Again | None = None  # makes the program for gradients of other results
        self.seen: Sequence[tuple[Storage, int]] = ()  # what the call read
        self.draws: Sequence[tuple[Draw, dict[str, float]]] = ()

    @property
    def edges(self) -> tuple[Edge, ...]:
        return (*self.inputs, *[edge_to(leaf) for leaf in self.leaves])

    @edges.setter
    def edges(self, edges: tuple[Edge | None, ...]) -> None:
        """Ignored: the edges are computed when somebody asks."""

    def walk_back(self, walk: Walk, gradients: Sequence[Gradient | None]) -> None:
        require_saved(self)
        self.program.walk_back(self, walk, gradients)

    def walk_alone(self) -> bool:
        if self.saved is None or not self.program.walks_alone or any_hooked(self.leaves):
            return False
        self.program.walk_alone(self)
        self.forget()
        return True

    def forget(self) -> None:
        super().forget()
        self.lease.end()
        self.held = self.versions = self.draws = self.seen = ()
        self.again = None


class Program:
    """The launches of a compiled function, in order, with their arguments bound.

    ``peak_bytes`` is the memory that a call needs in addition to what exists outside of it (parameters, gradients,
    arguments): the arena, and the results and random numbers, which are new tensors at every call. It is known before
    ``prepare``, which allocates the arena and builds the kernels.
    """

    def __reduce__(self) -> NoReturn:
        raise ArgumentError(
            "pickle or copy", "an object that is not bound to a device's memory", f"got the Program {self.name}",
            "Copy or pickle the function, and compile it again.",
        )  # fmt: skip

    def __init__(
        self,
        recording: Recording,
        arguments: list[Tensor],
        result: Any,
        trace: Trace | None = None,
        arenas: Arenas | None = None,
    ) -> None:
        self.name = recording.name
        self._arenas = arenas or Arenas()
        self._arenas.enter(self)
        self._arena_of: weakref.ref[Arena] | None = None  # to which the temporaries are bound
        self.ends_with: list[weakref.ref[Any]] = []  # held by the guard key; when one is gone, the program is dropped
        self.wanted = () if trace is None else trace.wanted
        backends = {step.backend for step in recording.steps}
        if len(backends) > 1:
            names = " and ".join(sorted(backend.name for backend in backends))
            raise CaptureError(f"te.compile({self.name})", "steps on one backend", f"it runs on {names}")
        self.backend: Backend = backends.pop() if backends else default_backend()
        self.lock = self._arenas.lock
        self._leaves: list[Leaf] = []  # leaves whose gradients are read or added to
        needs, ends = [], []
        for use in recording.leaves.values():
            gradient = use.before if use.before is not None or use.replaced else use.leaf.grad
            if gradient is not None and (use.summed or use.observed):
                self._leaves.append(Leaf(use.leaf, gradient, use.before is not None))
            if use.observed:
                needs.append((weakref.ref(use.leaf), use.existed))
            if use.replaced:
                ends.append((weakref.ref(use.leaf), use.leaf.grad))
        self._needs = needs  # the leaves that must have gradients before the call, and those that must have none
        self._draws = Draws(recording)
        # Tensors of random numbers are further arguments: each call makes its own.
        drawn = [Tensor._wrap(each.slot) for each in recording.drawn_tensors]
        self._drawn_bytes = sum(each.nbytes for each in drawn)
        # The leaves of the second part, with their gradients in the recording.
        self._later = [Leaf(s, g, s.grad is g) for s, g in trace.leaves] if trace is not None else []
        self._gradient_bytes = sum(leaf.nbytes for leaf in dict.fromkeys(l.slot for l in [*self._leaves, *self._later]))
        lying = Counter(leaf.number for leaf in self._leaves)
        self._together = [leaf for leaf in self._leaves if lying[leaf.number] > 1]
        given = {id(tensor._slot): position for position, tensor in enumerate(arguments)}
        # Each call has its own arguments.
        self._given = [(leaf, given[id(leaf.slot)]) for leaf in self._leaves if id(leaf.slot) in given]
        updated = [leaf for effect in recording.effects for leaf in effect.leaves()]
        if any(id(leaf) in given for leaf in [*[refer() for refer, _ in (*needs, *ends)], *updated]):
            recording.forbid("the gradient of an argument", "each call has its own arguments, and their gradients")
        owned = {leaf.number for leaf in [*self._leaves, *self._later]}
        inside = {number: made.nbytes for number, made in recording.made.items() if number not in owned}
        results = {tensor._slot.storage.number for tensor in tensors_in(result)}
        results |= {end.storage.number for _, end in ends if end is not None}
        results -= {leaf.number for leaf in self._leaves}
        seeds = [] if trace is None else trace.seeds
        passed = {gradient.storage.number for _, gradient in trace.inputs} if trace is not None else set()
        passed -= {seed.storage.number for seed in seeds}

        def make(dtype: DType, shape: Shape) -> Slot:
            slot = Slot(Storage.over(self.backend, None), dtype, Layout(shape, contiguous_strides(shape), 0))
            inside[slot.storage.number] = slot.nbytes
            return slot

        # Both rewrite the steps from the first of backward on by themselves, so the border stays where it is.
        first = len(recording.steps) if recording.first_backward is None else recording.first_backward
        kept = results | passed
        forward, backward = recording.steps[:first], recording.steps[first:]
        if config.fuses():
            backward = rewrite.norm_gradients(forward, backward, make)
        unseen = {number: nbytes for number, nbytes in inside.items() if number not in kept}
        forward, backward = rewrite.saved_masks(forward, backward, unseen, make)
        recorded = [*forward, *backward]
        self._outputs = {number: nbytes for number, nbytes in inside.items() if number in results}
        self._passed = {number: nbytes for number, nbytes in inside.items() if number in passed}
        self._returned: dict[int, weakref.ref[Storage]] = {}  # for each result: what the last call returned
        arguments = [*arguments, *drawn]
        self._arguments = [t._slot.storage.number for t in arguments]
        begins = {t._slot.storage.number: t._slot.offset for t in reversed(arguments)}
        begins |= {leaf.number: leaf.offset for leaf in [*self._leaves, *self._later]}
        begins |= {seed.storage.number: seed.offset for seed in seeds}
        self._seeds = [seed.storage.number for seed in seeds]
        # The first argument in each storage. Others move with it, since the guard key contains their relative offsets.
        self._first_in: dict[int, int] = {}
        for position, number in enumerate(self._arguments):
            self._first_in.setdefault(number, position)
        self._checks = [(self._first_in[n], check) for n, check in recording.checks if n in self._first_in]
        movable = {*inside, *owned, *self._arguments, *self._seeds}
        self.binding = Binding(self.name, self.backend, movable, begins)
        self._gradients = Gradients(self._leaves, self.binding, self.backend)
        self._later_gradients = Gradients(self._later, self.binding, self.backend)
        moving = (*self._arguments, *owned, *self._outputs, *self._passed, *self._seeds)
        self._roots = [] if trace is None else [root.spec for root in trace.roots]
        roots = {} if trace is None else {id(root): k for k, root in enumerate(trace.roots)}
        places: dict[int, ResultPlace] = {}

        def place_of(tensor: Tensor) -> ResultPlace:
            if id(tensor) not in places:
                places[id(tensor)] = self._result_place(recording, tensor, given, roots)
            return places[id(tensor)]

        self._result = map_tensors(result, place_of)
        self._inputs = (
            [
                (source, ResultPlace(gradient.storage.number, self.binding.moved(gradient)))
                for source, gradient in trace.inputs
            ]
            if trace is not None
            else []
        )
        # What the leaves have afterwards instead of their gradients: nothing, or the gradient at that place.
        self._ends = [
            (refer, None if end is None else ResultPlace(end.storage.number, self.binding.moved(end)))
            for refer, end in ends
        ]
        self.temporary: dict[BufferId, int] = {
            self.binding.storages[number].number: nbytes for number, nbytes in inside.items() if number not in kept
        }
        steps = [self._own(step) for step in recorded]
        mine = {id(old): own for old, own in zip(recorded, steps, strict=True)}
        for effect in recording.effects:
            effect.recorded()
        # What is done on the host, and the steps whose numbers each gives.
        self._effects = [(e, [mine[id(recording.steps[k])].number for k in e.steps]) for e in recording.effects]
        walked_back = steps[len(forward) :]
        border = walked_back[0].number if walked_back else steps[-1].number + 1 if steps else 0
        assembled = assemble(steps, self.temporary, self.backend, border, trace is not None)
        self.plan, self.kernels, self.launches = assembled.plan, assembled.kernels, assembled.launches
        self._saved_bytes = assembled.saved_bytes(self.temporary)
        self._cut, self._cut_kernels = assembled.cut, assembled.cut_kernels
        self.lowered: list[Lowered] = []
        self._changed: dict[int, Storage] = {}  # what exists outside and is changed by a call
        self._changed_arguments: set[int] = set()
        self.steps = {step.number: step for kernel in self.kernels for step in kernel.steps()}
        for old, own in zip(recorded, steps, strict=True):
            if own.number in self.steps:
                self._note_writes(old, own, own.number >= border and trace is not None)
        self._random = [step for step in self.steps.values() if isinstance(step.scalars, Draw)]
        if any(launch.is_persistent for launch in self.launches):
            self.binding.keep_apart([*self.steps.values()])
        self._has_draws = bool(self._draws)
        self.binding.lay_out(self.temporary, self.plan.where, moving, [*self._leaves, *self._later])
        self._spec: ProgramSpec | None = None
        self._one: Slot | None = None  # the gradient with which backward begins
        # They give slots, as a program is dropped with the leaves for which it was recorded.
        self._later_slots = cast("list[Callable[[], Slot]]", [weakref.ref(leaf.slot) for leaf in self._later])
        self.root_specs = tuple(self._roots)
        self.input_specs = (
            *[place.slot.spec for _, place in self._inputs], *[leaf.slot.spec for leaf in self._later]
        )  # fmt: skip
        self.walks_alone = len(self._roots) == 1 and self.wanted == (0,) and not self._inputs
        self._read_later = set().union(*[kernel.reads() for kernel in self.kernels[self._cut_kernels :]])
        later = [slot for step in self.steps.values() if step.number >= border for slot in step.read()]
        movable = {storage.number for storage in self.binding.storages.values()}
        self._fixed_later = list(
            dict.fromkeys(
                slot.storage
                for slot in later
                if isinstance(slot, Slot)
                and slot.storage.number in self._read_later
                and slot.storage.number not in movable
            )
        )

        def is_read_later(number: int) -> bool:
            return self.binding.storages[number].number in self._read_later

        self._held_arguments = [(number, at) for number, at in self._first_in.items() if is_read_later(number)]
        self._held_results = [number for number in self._outputs if is_read_later(number)]
        self._held_gradients = [leaf for leaf in self._leaves if is_read_later(leaf.number)]

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena, which all temporaries and scratch memory share."""
        return self.plan.arena_bytes

    @property
    def peak_bytes(self) -> int:
        return self.plan.arena_bytes + sum(self._outputs.values()) + self._drawn_bytes

    @property
    def largest_bytes(self) -> int:
        """Of the memory that a call needs, the largest piece: a chunk of the arena, or a result."""
        return max([*self.plan.chunks, *self._outputs.values(), *self._passed.values()])

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients that a call adds to, which exist outside."""
        return self._gradient_bytes

    @property
    def saved_bytes(self) -> int:
        """Bytes of the temporaries that are saved for backward: written before its first step, and read after it."""
        return self._saved_bytes

    def __repr__(self) -> str:
        counts = f"{len(self.kernels)} kernels in {len(self.launches)} launches"
        return f"<Program {self.name}: {counts}, {self.peak_bytes} bytes>"

    @property
    def spec(self) -> ProgramSpec:
        """Its launches as plain data, which can be printed, compared, saved and loaded.

        Errors: BackendError on a backend that has no kernels.
        """
        self.prepare()
        if self._spec is None:
            raise BackendError(
                f"the spec of {self.name}", "a program of kernels", f"it was recorded on {self.backend.name}",
                "Compile it on an OpenCL device.",
            )  # fmt: skip
        return self._spec

    def places(self) -> list[Slot]:
        """For each of ``spec.outside``, in order: where it lay at the last call."""
        return list(self.binding.layout.places.outside)

    def written(self) -> list[Slot]:
        """What the launches write outside of the arena, where it lay at the last call."""
        slots = [slot for step in self.steps.values() for slot in step.written()]
        return [
            self.binding.layout.now(slot) for slot in slots if slot.numel and slot.storage.number not in self.temporary
        ]

    def _roles(self) -> dict[int, str]:
        """What the storages that move are in a call, by number."""
        mine = {number: storage.number for number, storage in self.binding.storages.items()}
        roles = {mine[number]: f"memory {k}" for k, number in enumerate(self._passed)}
        for role, numbers in (
            ("input gradient", [place.number for _, place in self._inputs]), ("result", [*self._outputs]),
            ("seed", self._seeds), ("gradient", [leaf.number for leaf in (*self._leaves, *self._later)]),
            ("argument", self._arguments),
        ):  # fmt: skip
            roles |= {mine[number]: f"{role} {k}" for k, number in reversed([*enumerate(numbers)]) if number in mine}
        return roles

    @property
    def is_bound(self) -> bool:
        """Whether its arguments are bound: it was replayed, and still holds the arguments of the last call."""
        return not self.kernels or bool(
            self.binding.parts and self.binding.parts[0].is_bound and not self.binding.parts[0].stale
        )

    @property
    def bound_kernels(self) -> int:
        """How many of its kernels have their arguments bound: those of backward only after a backward."""
        return (
            len(self.kernels)
            if self.binding.parts[1].is_bound and not self.binding.parts[1].stale
            else self._cut_kernels
        )

    def bound(self) -> list[Lowered]:
        """The launches of these kernels."""
        return self.lowered if self.bound_kernels == len(self.kernels) else self.lowered[: self._cut]

    def explain(self, repeats: int = 10) -> str:
        """A table of the kernels in order: the ops fused in each, its geometry, time (as for ``profile``), the bytes
        that it moves, its FLOPs, and its offset in the arena; then lines on memory, times, and launches.

        Before the first replay, which is the function's second call, there are no times.
        """
        self.prepare()
        return report.explain(self, repeats)

    def profile(self, repeats: int = 10) -> Profile:
        """A table (``str``) of the kernels' times by the device's own clock, the slowest first, and its rows.

        The program is replayed with the arguments of the last call; results, gradients and versions do not change.

        Errors: CaptureError before the first replay, which is the function's second call.
        """
        return report.profile(self, repeats)

    def chart(self, path: str | Path) -> None:
        """Draw into a .png or .svg which part of the arena is in use during which kernels, and by what.

        Errors: MissingPackageError without matplotlib.
        """
        report.chart(self, path)

    def changed_by(self, arguments: list[Tensor]) -> list[Storage]:
        """The storages outside that a call with these arguments changes, without gradients."""
        given = {number: t._slot.storage for number, t in zip(self._arguments, arguments, strict=False)}
        changed = [given[number] for number in self._changed_arguments if number in given]
        return [*self._changed.values(), *changed]

    def fits(self) -> bool:
        """Whether it can be replayed now.

        It cannot if other leaves have gradients than in the recording, if gradients that shared a storage do not any
        more, or, with persistent kernels, if gradients have come to share one.
        """
        if self.binding.keeps_apart and self._gradients.has_changed:
            found = [(leaf.number, leaf.grad) for leaf in self._leaves]
            lying = {(number, gradient.storage.number) for number, gradient in found if gradient is not None}
            if len({now for _, now in lying}) < len(lying):
                return False
        if any_hooked(leaf.refer() for leaf in self._leaves):
            return False
        if not (self._effects or self._needs or self._together):
            return True
        if not all(effect.fits() for effect, _ in self._effects):
            return False
        for refer, needed in self._needs:
            slot = refer()
            if slot is None or (slot.gradient() is not None) != needed:
                return False
        return all(
            (gradient := leaf.grad) is not None
            and (gradient.storage.number, gradient.offset) == (leaf.number, leaf.offset)
            for leaf in self._together
        )

    def take_leaves(self, arguments: list[Tensor]) -> None:
        """Let those arguments that have gradients be the leaves."""
        for leaf, position in self._given:
            leaf.slot = arguments[position]._slot

    @property
    def effects(self) -> list[Effect]:
        """What a call does on the host."""
        return [effect for effect, _ in self._effects]

    @property
    def generators(self) -> list[Generator]:
        """The generators from which a call draws random numbers."""
        return self._draws.generators

    def gradients(self) -> list[Any]:
        """The gradients of the leaves, on the host."""
        return [self.backend.read(leaf.grad) for leaf in self.leaves() if leaf.grad is not None]

    def leaves(self) -> list[Slot]:
        """The leaves whose gradients it reads or changes."""
        found = dict.fromkeys([leaf.slot for leaf in self._leaves])
        return [*found, *[leaf for refer, _ in self._ends if (leaf := refer()) is not None and leaf not in found]]

    # Compilation

    def prepare(self) -> None:
        """Build the kernels and allocate the arena, if that was not done yet.

        Errors: OutOfMemoryError.
        """
        with self.lock:
            if not self.lowered:
                self.backend.trim()  # memory that an earlier eager call left; the arena could use none of it
                self._move_in(self._lease().arena)
                self._spec, self.lowered = self._lower(self.launches[: self._cut], self.launches[self._cut :])
                self.binding.parts = [Part(self.lowered[: self._cut]), Part(self.lowered[self._cut :])]

    def _lease(self) -> Lease:
        """An arena that nobody else uses; that of the last call, if it is free."""
        return self._arenas.take(
            self.backend, self.plan.chunks, lambda sizes: self._allocated(partial(self._made, sizes)), self._arena
        )

    def _made(self, sizes: Sequence[int]) -> Arena:
        return Arena(self.backend, [Storage(self.backend, nbytes, alone=True) for nbytes in sizes])

    @property
    def _arena(self) -> Arena | None:
        return None if self._arena_of is None else self._arena_of()

    def _move_in(self, arena: Arena) -> None:
        """Let every temporary lie in ``arena``."""
        if self._arena is arena:
            return
        self._arena_of = weakref.ref(arena)
        self.binding.let_arena_be([chunk.buffer for chunk in arena.chunks])

    def leave(self, arena: Arena) -> None:
        if self._arena is arena:
            self._arena_of = None
            self.binding.let_arena_be([])

    def _allocated(self, allocate: Callable[[], T]) -> T:
        """The result of ``allocate``; if there is no room for it, an error that says what it was for."""
        try:
            return allocate()
        except OutOfMemoryError as error:
            raise self._refused(error) from error

    def _refused(self, error: OutOfMemoryError) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"te.compile({self.name})",
            f"{self.peak_bytes} bytes in addition to the model: {self.arena_bytes} for the arena "
            f"({len(self.plan.intervals)} buffers, of which at most {self.saved_bytes} bytes are saved for backward), "
            f"{self.peak_bytes - self.arena_bytes} for results",
            f"{error.call}: {error.expected}, but {error.got}",
            f"Nothing was changed. {error.remedy}",
        )

    def _own(self, step: Step) -> Step:
        """The step, with its movable slots on storages of the program."""
        slots = {}
        for name, slot in step.slots.items():
            slots[name] = self.binding.moved(slot) if isinstance(slot, Slot) else slot
        own = step.over(slots)
        if isinstance(own.scalars, Draw):  # the graph of the recorded call keeps its own
            own.scalars = self._draws.twin(own.scalars)
        return own

    def _note_writes(self, old: Step, own: Step, later: bool) -> None:
        for name in own.writes:
            storage = old.slots[name].storage
            for leaf in self._later if later else self._leaves:
                if leaf.number == storage.number and leaf.first_write is None:
                    leaf.first_write = (own, name)
            if storage.number in self._arguments:
                self._changed_arguments.add(storage.number)
            elif storage.number not in self.binding.storages and not later:
                self._changed[storage.number] = storage

    def _lower(
        self, launches: Sequence[LaunchGroup], later: Sequence[LaunchGroup] = ()
    ) -> tuple[ProgramSpec | None, list[Lowered]]:
        sizes = {place: interval.nbytes for place, interval in self.plan.intervals.items()}
        parts = launches, later
        return lowered(self.name, self.backend, self.plan.chunks, parts, self.binding.layout, sizes, self._roles())

    def each_alone(self) -> list[Lowered]:
        """A launch for each kernel alone, bound to what the program is bound to."""
        _, launches = self._lower([single(kernel) for kernel in self.kernels[: self.bound_kernels]])
        for each in launches:
            each.bind(self.binding.layout.places)
        return launches

    def _result_place(
        self, recording: Recording, tensor: Tensor, given: dict[int, int], roots: dict[int, int]
    ) -> ResultPlace:
        slot = tensor._slot
        number = slot.storage.number
        if id(slot) in given:
            return ResultPlace(number, self.binding.moved(slot), same=given[id(slot)])
        if slot.number < recording.first_number and (slot.requires_grad or number not in self.binding.storages):
            return ResultPlace(number, self.binding.moved(slot), same=weakref.ref(tensor), outside=slot)
        if id(slot) in roots:
            return ResultPlace(number, self.binding.moved(slot), root=roots[id(slot)])
        history = None
        if recording.made_history(slot):
            assert slot.step is not None
            history = Step(slot.step.op, FORWARD, {}, {}, {}, (), ())
            history.output_specs = slot.step.output_specs
        elif slot.requires_grad and slot.is_leaf:
            recording.forbid("a leaf that is returned", "a replay would not compute its gradient; return its clone()")
        return ResultPlace(number, self.binding.moved(slot), history=history)

    # A call (a replay)

    def set_scalars(self, scalars: Iterable[Mapping[str, float]]) -> None:
        """Set the scalars of the steps, all of which were kept, in the order in which they were recorded."""
        with self.lock:
            for number, new in zip(sorted(self.steps), scalars, strict=True):
                self.binding.renumber(self.steps[number], new)

    def let_go(self) -> None:
        """Stop holding the arguments of the last call: the next call binds its own, even if they are the same."""
        with self.lock:
            for number in self._arguments:
                self.binding.point(number, None)

    @property
    def has_several_roots(self) -> bool:
        """Whether several results are differentiable, so that gradients may come for some of them only."""
        return len(self._roots) > 1

    def __call__(
        self, arguments: list[Tensor], again: Again | None = None, numbers: Sequence[Mapping[str, float]] | None = None
    ) -> Any:
        """Replay: enqueue the launches, and return the results as new tensors. ``numbers`` are the scalars of each draw
        of random numbers; without them new ones are drawn.

        Errors: OutOfMemoryError, with nothing changed. All memory is allocated before the first launch. If the device
                still refuses a launch, for memory that the kernel itself needs, the first replay is undone.
        """
        if not self.lowered:
            self.prepare()
        for position, check in self._checks:
            if position < len(arguments):
                check(arguments[position]._slot.storage)
        with self.lock:  # the lock of all programs of the function, since they share an arena
            arena = None if self._arena_of is None else self._arena_of()
            lease = self._arenas.take_again(arena) if self._roots else None
            if lease is None and (self._roots or not self._arenas.is_free(arena)):
                lease = self._lease()
                self._move_in(lease.arena)
            fresh = self._new_results()
            self.take_leaves(arguments)
            moved = self._gradients.moved(bool(self._given))
            begun = self._allocated(partial(self._gradients.begun, moved)) if moved else {}
            states = self._draws.states() if self._has_draws else []
            if self._has_draws:
                arguments = self._with_drawn(arguments, numbers, states)
            self._point_at_arguments(arguments)
            for number, storage in fresh.items():
                if storage.buffer is not self.binding.storages[number].buffer:
                    self.binding.point(number, storage.buffer)
                self._returned[number] = weakref.ref(storage)
            if self._effects:
                with self._effects_undone():
                    self._launch_safely(arguments, moved, begun, states)
            else:
                self._launch_safely(arguments, moved, begun, states)
            node = None
            if self._roots:
                assert lease is not None
                node = Node(self, lease, [refer() for refer in self._later_slots])
            elif lease is not None:
                lease.end()
            found = Results(self, arguments, fresh, node)
            only = self._result
            if type(only) is ResultPlace and only.same is None:
                result = found.new(only)
            else:
                result = map_tensors(only, found.tensor, ResultPlace)
            if node is not None:
                self._link(node, arguments, fresh)
                if again is not None:
                    node.again = again
                    node.seen = [(storage, storage.version) for storage in self._seen_by(arguments)]
            for refer_leaf, end in self._ends:
                if (slot := refer_leaf()) is not None and (end is not None or slot.grad is not None):
                    slot.keep_gradient(None if end is None else found.slot(end))
            for effect, _ in self._effects:
                effect.after()
            return result

    def _launch_safely(
        self,
        arguments: list[Tensor],
        moved: list[Leaf],
        begun: dict[int, Slot],
        states: States,
    ) -> None:
        """Launch, and count versions. If the device refuses, the first replay is undone; later, gradients are torn."""
        if not self.binding.parts[0].has_run:
            with self._undone_if_refused(arguments, states):
                self._launch(moved, begun)
            self._count_changes(arguments, moved, begun)
            return
        try:
            self._launch(moved, begun)
            self._count_changes(arguments, moved, begun)
        except BaseException as error:
            first = self._gradients.first_launch(self.launches[: self._cut])
            mark_torn(self._gradients.present(), error, first)
            raise

    def _launch(self, moved: list[Leaf], begun: dict[int, Slot]) -> None:
        """Bind what changed, and enqueue. Leaves in ``moved`` have another gradient than before, or get a new one."""
        self._gradients.bind(moved, begun)
        self._enqueue(self.binding.parts[0])

    def _count_changes(self, arguments: list[Tensor], moved: list[Leaf], begun: dict[int, Slot]) -> None:
        self._gradients.count(moved, begun)
        if self._changed or self._changed_arguments:
            for storage in self.changed_by(arguments):
                storage.version += 1

    def _enqueue(self, part: Part) -> None:
        self.binding.bind(part)
        self.backend.launch(part.launches)

    # Backward of a call

    def _link(self, node: Node, arguments: list[Tensor], fresh: Mapping[int, Storage]) -> None:
        """Let ``node`` hold what its backward needs of this call."""
        if self._inputs:
            node.inputs = [edge_to(arguments[s]._slot) if isinstance(s, int) else s for s, _ in self._inputs]
        held: list[tuple[int, Slot]] = []
        for number, position in self._held_arguments:
            slot = arguments[position]._slot
            held.append((number, slot.alias() if slot.requires_grad else slot))
        for number in self._held_results:
            held.append((number, Slot(fresh[number], bool_, Layout((), (), 0))))
        for leaf in self._held_gradients:
            if (gradient := leaf.grad) is not None:
                held.append((leaf.number, gradient.alias()))
        node.held = held
        node.versions = list(map(_version_of, [*self._fixed_later, *[slot.storage for _, slot in held]]))
        if self._has_draws:
            node.draws = self._draws.now()

    def _seen_by(self, arguments: list[Tensor]) -> Iterator[Storage]:
        """The storages from outside that a call reads."""
        yield from (argument._slot.storage for argument in arguments)
        moving = {storage.number for storage in self.binding.storages.values()}
        for step in self.steps.values():
            for slot in step.read():
                if isinstance(slot, Slot) and slot.storage.number not in moving:
                    yield slot.storage

    def walk_back(self, node: Node, walk: Walk, gradients: Sequence[Gradient | None]) -> None:
        """Prepare the backward of a call: replay the second part, with the gradients of its results."""
        given = tuple(k for k, gradient in enumerate(gradients) if gradient is not None)
        if given != self.wanted:
            other = self._for_others(node, given)
            other.program.walk_back(other, walk, gradients)
            return
        self._require_unchanged(node)
        seeds = [g.slot if g.slot.contiguous else contiguous_copy(g.slot) for g in gradients if g is not None]
        targets = [walk.leaf_target(leaf.slot, leaf.slot.spec, self.backend) for leaf in self._later]
        fresh = {number: Storage(self.backend, nbytes) for number, nbytes in self._passed.items()}
        lease = self._copied(node.lease.arena) if walk.retain_graph else node.lease
        deferred = deferred_launches()
        deferred.add(partial(self._launch_back, node, lease, seeds, targets, fresh))
        counts = Counter(place.number for _, place in self._inputs)
        for edge, (_, place) in zip(node.edges, self._inputs, strict=False):
            assert edge is not None
            shape, strides, offset = place.slot.layout()
            if place.number in fresh:
                slot = place.slot.within(fresh[place.number])
            else:  # a view of a given gradient
                seed = seeds[self._seeds.index(place.number)]
                slot = Slot(seed.storage, place.slot.dtype, Layout(shape, strides, offset + seed.offset))
            walk.deliver(edge, slot, slot.spec, place.number in fresh and counts[place.number] == 1)

    def _require_unchanged(self, node: Node) -> None:
        storages = [*self._fixed_later, *[slot.storage for _, slot in node.held]]
        if list(map(_version_of, storages)) == node.versions:
            return
        storage, version = next(pair for pair in zip(storages, node.versions) if pair[0].version != pair[1])
        raise AutogradError(
            "backward",
            f"values that te.compile({self.name}) saved for backward must not change",
            f"{storage.nbytes} bytes were changed in place afterwards (version {storage.version}, saved at {version})",
            "Use the out-of-place form, or change a clone().",
        )

    def walk_alone(self, node: Node) -> None:
        """The whole backward of a call whose only result is a loss, and whose gradients all belong to leaves."""
        self._require_unchanged(node)
        with self.lock:
            if self._one is None:
                self._one = new_slot(self.backend, self.root_specs[0].dtype, self.root_specs[0].shape)
                write_into(NumberValue(1.0, self._one.dtype), self._one)
            moved = self._later_gradients.moved()
            begun = self._allocated(partial(self._later_gradients.begun, moved)) if moved else {}
            try:
                self._point_as_at(node, node.lease, (self._one,))
                self._later_gradients.bind(moved, begun)
                self._enqueue(self.binding.parts[1])
                self._later_gradients.count(moved, begun)
            except BaseException as error:
                first = self._later_gradients.first_launch(self.launches[self._cut :])
                mark_torn(self._later_gradients.present(), error, first)
                raise

    def _point_as_at(self, node: Node, lease: Lease, seeds: Sequence[Slot]) -> None:
        """Bind the second part to what ``node`` holds of its call."""
        self._move_in(lease.arena)
        for number, slot in node.held:
            if number in self.binding.offsets:
                if not self.binding.is_at(number, slot):
                    self.binding.point_at(number, slot)
            else:
                self.binding.point(number, slot.storage.buffer)
        for number, seed in zip(self._seeds, seeds, strict=True):
            if not self.binding.is_at(number, seed):
                self.binding.point_at(number, seed)
        for draw, numbers in node.draws:
            if draw != numbers:
                draw.update(numbers)
                for step in self._random:
                    self.binding.renumber(step, step.scalars)

    def _for_others(self, node: Node, given: tuple[int, ...]) -> Node:
        """The node of the same call for gradients of the results ``given``, by replaying another program's forward."""
        changes = self._changed or self._changed_arguments or self._ends or self._effects
        if node.again is None or changes or any(storage.version != version for storage, version in node.seen):
            raise AutogradError(
                "backward",
                f"gradients for the results of te.compile({self.name}) that its program covers: {list(self.wanted)} of "
                f"{len(self._roots)} that require one",
                f"they came for {list(given)}, and the call cannot be repeated for these, because it changes something",
                "Return the others with detach(), or let the function return only results that need gradients.",
            )
        with not_deferring():
            program, arguments = node.again(given)
            return program.node_of(arguments, [numbers for _, numbers in node.draws])

    def node_of(self, arguments: list[Tensor], numbers: Sequence[Mapping[str, float]]) -> Node:
        """The node of a replay with these random numbers, whose results nobody uses."""
        results = tensors_in(self(arguments, numbers=numbers))
        return next(r._slot.step for r in results if isinstance(r._slot.step, Node))

    def _launch_back(
        self,
        node: Node,
        lease: Lease,
        seeds: Sequence[Slot],
        targets: Sequence[tuple[Slot, bool]],
        fresh: Mapping[int, Storage],
    ) -> None:
        with self.lock, not_deferring():  # what a gradient is filled with before is not held back until after
            self._point_as_at(node, lease, seeds)
            for number, storage in fresh.items():
                self.binding.point(number, storage.buffer)
            for leaf, (gradient, adds) in zip(self._later, targets, strict=True):
                self._later_gradients.bind_to(leaf, gradient, adds)
            self._later_gradients.forget()
            self._enqueue(self.binding.parts[1])
            if lease is not node.lease:
                lease.end()

    def _copied(self, arena: Arena) -> Lease:
        """Another arena with the same in it: backward writes over what was saved."""
        copy = self._arenas.take(self.backend, arena.sizes, self._made, None)
        for nbytes, old, new in zip(self.plan.chunks, arena.chunks, copy.arena.chunks, strict=False):
            words = nbytes // 4
            for dtype, layout in (
                (float32, Layout((words,), (1,), 0)),
                (uint8, Layout((nbytes % 4,), (1,), 4 * words)),
            ):
                write_into(Slot(old, dtype, layout), Slot(new, dtype, layout))
        return copy

    # Binding: what changes from call to call

    def _new_results(self) -> dict[int, Storage]:
        """Storages for the results. If nobody holds the last call's result any more, its memory is used again.

        Launches are bound to that memory already.
        """
        found: dict[int, Storage] = {}
        for number, nbytes in self._outputs.items():
            before = self._returned.get(number)
            if before is None or before() is not None:
                found[number] = self._allocated(partial(Storage, self.backend, nbytes))
            else:
                found[number] = Storage.again(self.backend, self.binding.storages[number].buffer, nbytes)
        return found

    def outside(self, place: ResultPlace, arguments: list[Tensor]) -> Slot:
        """Where a result that is no new tensor lies."""
        shape, strides, offset = place.slot.layout()
        offset += self.binding.shift(place.number)
        return Slot(self._storage_of(place, arguments), place.slot.dtype, Layout(shape, strides, offset))

    def _storage_of(self, place: ResultPlace, arguments: list[Tensor]) -> Storage:
        for leaf in self._leaves:
            if leaf.number == place.number and (gradient := leaf.grad) is not None:
                return gradient.storage
        for number, argument in zip(self._arguments, arguments, strict=True):
            if number == place.number:
                return argument._slot.storage
        return place.slot.storage

    @contextmanager
    def _undone_if_refused(self, arguments: list[Tensor], states: States) -> Iterator[None]:
        """Copy what the first launch changes outside to the host, until the device has done it; undo it if refused."""
        changed = self.changed_by(arguments)
        changed += [gradient.storage for gradient in self._gradients.present()]
        before = [(storage, bytes_of(storage)) for storage in dict.fromkeys(changed) if storage.nbytes]
        try:
            yield
            self.backend.finish()
        except BaseException as error:
            for storage, values in before:
                self.backend.write(storage, values)
            self._draws.restore(states)
            if isinstance(error, OutOfMemoryError):
                raise self._refused(error) from error
            raise
        self.binding.parts[0].has_run = True

    @contextmanager
    def _effects_undone(self) -> Iterator[None]:
        """Do the effects on the host first, and take them back if the launches are refused. Ctrl-C waits."""
        done: list[Effect] = []
        with held_back():
            try:
                for effect, steps in self._effects:
                    done.append(effect)
                    for number, new in zip(steps, effect.before(), strict=True):
                        self.binding.renumber(self.steps[number], new)
                yield
            except BaseException:
                for effect in reversed(done):
                    effect.undo()
                raise

    def steps_done(self, error: BaseException) -> list[int]:
        """The positions of the recorded steps that a call which raised ``error`` carried out nonetheless.

        After the first replay, which is undone, a device may still refuse a launch that follows others.
        """
        launched: int = getattr(error, "launched", 0) if self.binding.parts[0].has_run else 0
        waiting = {s.number for launch in self.launches[launched:] for k in launch.kernels for s in k.steps()}
        return [position for position, number in enumerate(sorted(self.steps)) if number not in waiting]

    def _point_at_arguments(self, arguments: list[Tensor]) -> None:
        for number, position in self._first_in.items():
            slot = arguments[position]._slot
            if not self.binding.is_at(number, slot):
                self.binding.point_at(number, slot)

    def _with_drawn(
        self, arguments: list[Tensor], numbers: Sequence[Mapping[str, float]] | None, states: States
    ) -> list[Tensor]:
        """``arguments``, and the tensors of random numbers, all of which are drawn here; if refused, none is."""
        try:
            self._draws.renew(numbers)
            found = [*arguments, *self._draws.tensors()]
            for position, check in self._checks:
                if position >= len(arguments):
                    check(found[position]._slot.storage)
        except BaseException:
            self._draws.restore(states)
            raise
        for step in self._random:
            self.binding.renumber(step, step.scalars)
        return found


def prepared(program: Program, again: Callable[[], Program]) -> Program:
    """``program``, prepared. If the device runs its kernels only in smaller work-groups, which shows when they are
    built, it is compiled again by ``again``.
    """
    for _ in range(MOST_TRIES):
        with suppress(GroupsLimited):
            program.prepare()
            return program
        program = again()
    program.prepare()
    return program
