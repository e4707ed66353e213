"""Program: the compiled form of a recording, as launches with their arguments bound, which a call enqueues (a replay).

In: a Recording, which ``assemble`` turns into launch groups, and ``describe`` into a ProgramSpec. Out: ``__call__``
binds what differs from the last call (arguments, results, gradients, random numbers) and enqueues the launches, with no
Python for each op. If its results are differentiable, a Program has two parts, forward and backward (``backward``).
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tinyedge import report
from tinyedge.autograd.hooks import any_hooked
from tinyedge.autograd.interrupts import held_back
from tinyedge.autograd.minibatch import mark_torn
from tinyedge.autograd.recorder import Effect
from tinyedge.autograd.scope import T
from tinyedge.backends import Backend, default_backend
from tinyedge.backends.base import GroupsLimited, Lowered
from tinyedge.compiler.arenas import Arena, Arenas, Lease
from tinyedge.compiler.assemble import assemble, rewritten
from tinyedge.compiler.backward import Again, Walkable
from tinyedge.compiler.binding import Binding
from tinyedge.compiler.describe import lowered
from tinyedge.compiler.draws import Draws, States
from tinyedge.compiler.gradients import Ends, Gradients
from tinyedge.compiler.leaves import Leaf, LeavesFound, leaves_of
from tinyedge.compiler.record import Recording, Trace, bytes_of
from tinyedge.compiler.results import ResultPlace, Results, place_of_result
from tinyedge.containers import with_leaves
from tinyedge.errors import ArgumentError, BackendError, CaptureError, OutOfMemoryError
from tinyedge.ir.kernel import BufferId
from tinyedge.ir.launch import LaunchGroup, single
from tinyedge.ir.program import ProgramSpec
from tinyedge.ir.step import Step
from tinyedge.ir.values import Layout, Slot, Storage
from tinyedge.ops.random import Draw, Generator
from tinyedge.report.program import Profile
from tinyedge.tensor import Tensor, map_tensors, tensors_in

MOST_TRIES = 16
"""Attempts to prepare a program: each lowers kernels for smaller work-groups, usually half as large."""


def _backend_of(recording: Recording) -> Backend:
    """The backend of all steps. Errors: CaptureError if there are several."""
    backends = {step.backend for step in recording.steps}
    if len(backends) > 1:
        names = " and ".join(sorted(backend.name for backend in backends))
        raise CaptureError(
            f"te.compile({recording.name})", "steps on one backend", f"it runs on {names}",
            "Move its arguments and parameters to one of them with .to(device).",
        )  # fmt: skip
    return backends.pop() if backends else default_backend()


class Program(Walkable):
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
        self.name, self.marks, self.calls_users = recording.name, recording.marks, recording.calls_users
        self._arenas = arenas or Arenas()
        self.ends_with: list[weakref.ref[Any]] = []  # held by the guard key; when one is gone, the program is dropped
        self.wanted = () if trace is None else trace.wanted
        self.backend = _backend_of(recording)
        self.lock = self._arenas.lock
        found = leaves_of(recording, trace)
        self._leaves = found.leaves
        self._later = found.later
        self._needs = found.needs
        given = {id(tensor._slot): position for position, tensor in enumerate(arguments)}
        self._begin_leaves(recording, given, found)

        seeds = [] if trace is None else trace.seeds
        owned = {leaf.number for leaf in [*self._leaves, *self._later]}
        inside = {number: made.nbytes for number, made in recording.made.items() if number not in owned}
        results = {tensor._slot.storage.number for tensor in tensors_in(result)}
        results |= {end.storage.number for _, end in found.ends if end is not None}
        results -= {leaf.number for leaf in self._leaves}
        passed = {gradient.storage.number for _, gradient in trace.inputs} if trace is not None else set()
        passed -= {seed.storage.number for seed in seeds}
        kept = results | passed
        forward, backward = rewritten(recording, inside, kept, self.backend)
        self._outputs = {number: nbytes for number, nbytes in inside.items() if number in results}
        self._passed = {number: nbytes for number, nbytes in inside.items() if number in passed}

        # Tensors of random numbers are further arguments: each call makes its own.
        self._draws = Draws(recording)
        self._has_draws = bool(self._draws)
        drawn = [Tensor._wrap(each.slot) for each in recording.drawn_tensors]
        self._drawn_bytes = sum(each.nbytes for each in drawn)
        self._begin_binding(recording, [*arguments, *drawn], seeds, {*inside, *owned})
        places_of_ends, returned = self._begin_results(recording, result, arguments, given, trace, found.ends)
        self.temporary: dict[BufferId, int] = {
            self.binding.storages[number].number: nbytes for number, nbytes in inside.items() if number not in kept
        }
        self._begin_launches(recording, forward, backward, trace is not None)
        slots = [slot for step in self.steps.values() for slot in step.slots.values() if isinstance(slot, Slot)]
        touched = {slot.storage.number for slot in slots}
        read = [l for l in self._leaves if l.number in returned or self.binding.storages[l.number].number in touched]
        self._ends = Ends(places_of_ends, read)
        moving = (*self._arguments, *owned, *self._outputs, *self._passed, *self._seeds)
        self.binding.lay_out(self.temporary, self.plan.where, moving, [*self._leaves, *self._later])
        self._begin_backward()

    def _begin_leaves(self, recording: Recording, given: Mapping[int, int], found: LeavesFound) -> None:
        """Find the leaves that are arguments, and those whose gradients share a storage. ``given``: the positions of
        the arguments, by their slots' ids.
        """
        self._gradient_bytes = sum(leaf.nbytes for leaf in dict.fromkeys(l.slot for l in [*self._leaves, *self._later]))
        lying = Counter(leaf.number for leaf in self._leaves)
        self._together = [leaf for leaf in self._leaves if lying[leaf.number] > 1]
        # Each call has its own arguments.
        self._given = [(leaf, given[id(leaf.slot)]) for leaf in self._leaves if id(leaf.slot) in given]
        updated = [leaf for effect in recording.effects for leaf in effect.leaves()]
        if any(id(leaf) in given for leaf in [*[refer() for refer, _ in (*found.needs, *found.ends)], *updated]):
            recording.forbid("the gradient of an argument", "each call has its own arguments, and their gradients")

    def _begin_binding(
        self, recording: Recording, arguments: Sequence[Tensor], seeds: Sequence[Slot], made: Collection[int]
    ) -> None:
        """Find out what may lie elsewhere at each call. ``made``: the numbers of the storages that the call makes, and
        of the leaves' gradients.
        """
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
        self.binding = Binding(self.name, self.backend, {*made, *self._arguments, *self._seeds}, begins)
        self._arenas.enter(self.binding)
        self._gradients = Gradients(self._leaves, self.binding, self.backend, recording.known)
        self._later_gradients = Gradients(self._later, self.binding, self.backend)

    def _begin_results(
        self,
        recording: Recording,
        result: Any,
        arguments: Sequence[Tensor],
        given: Mapping[int, int],
        trace: Trace | None,
        ends: Sequence[tuple[weakref.ref[Slot], Slot | None]],
    ) -> tuple[list[tuple[weakref.ref[Slot], ResultPlace | None]], set[int]]:
        """Find where the results lie, and the gradients of what was computed before. Returns what the leaves have
        afterwards instead of their gradients, nothing or the gradient at that place; and the numbers of the results'
        storages.
        """
        self._returned: dict[int, weakref.ref[Storage]] = {}  # for each result: what the last call returned
        self._roots, self._others = ([], []) if trace is None else ([root.spec for root in trace.roots], trace.others)
        roots = {} if trace is None else {id(root): k for k, root in enumerate(trace.roots)}
        places: dict[int, ResultPlace] = {}

        def place_of(tensor: Tensor) -> ResultPlace:
            if id(tensor) not in places:
                places[id(tensor)] = place_of_result(recording, tensor, arguments, given, roots, self.binding)
            return places[id(tensor)]

        def place_at(slot: Slot) -> ResultPlace:
            return ResultPlace(slot.storage.number, self.binding.moved(slot))

        self._result = with_leaves(result, place_of, Tensor, {**self.marks})
        self._inputs = [] if trace is None else [(source, place_at(gradient)) for source, gradient in trace.inputs]
        places_of_ends = [(refer, None if end is None else place_at(end)) for refer, end in ends]
        return places_of_ends, {place.number for place in places.values()}

    def _begin_launches(
        self, recording: Recording, forward: Sequence[Step], backward: Sequence[Step], has_two_parts: bool
    ) -> None:
        """Compile the steps."""
        recorded = [*forward, *backward]
        steps = [self._own(step) for step in recorded]
        mine = {id(old): own for old, own in zip(recorded, steps, strict=True)}
        for effect in recording.effects:
            effect.recorded()
        # What is done on the host, and the steps whose numbers each gives.
        self._effects = [(e, [mine[id(recording.steps[k])].number for k in e.steps]) for e in recording.effects]
        walked_back = steps[len(forward) :]
        self.border = walked_back[0].number if walked_back else steps[-1].number + 1 if steps else 0
        assembled = assemble(steps, self.temporary, self.backend, self.border, has_two_parts)
        self.plan, self.kernels, self.launches = assembled.plan, assembled.kernels, assembled.launches
        self._saved_bytes = assembled.saved_bytes(self.temporary)
        self._cut, self._cut_kernels = assembled.cut, assembled.cut_kernels
        self.lowered: list[Lowered] = []
        self._spec: ProgramSpec | None = None
        self._changed: dict[int, Storage] = {}  # what exists outside and is changed by a call
        self._changed_arguments: set[int] = set()
        self.steps = {step.number: step for kernel in self.kernels for step in kernel.steps()}
        for old, own in zip(recorded, steps, strict=True):
            if own.number in self.steps:
                self._note_writes(old, own, own.number >= self.border and has_two_parts)
        self._random = [step for step in self.steps.values() if isinstance(step.scalars, Draw)]
        if any(launch.is_persistent for launch in self.launches):
            cut = self._cut_kernels
            parts = self.kernels[:cut], self.kernels[cut:]
            self.binding.keep_apart(*[[step for kernel in part for step in kernel.steps()] for part in parts])

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

    def gradient_places(self) -> list[tuple[Slot, int]]:
        """Each leaf whose gradient a call adds to, and the number of the gradient's storage in its steps."""
        return [(leaf.slot, self.binding.storages[leaf.number].number) for leaf in [*self._leaves, *self._later]]

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

        Before the first replay, which is the function's second call at the latest, there are no times.
        """
        self.prepare()
        return report.explain(self, repeats)

    def profile(self, repeats: int = 10) -> Profile:
        """A table (``str``) of the kernels' times by the device's own clock, the slowest first, and its rows.

        The program is replayed with the arguments of the last call; results, gradients and versions do not change.

        Errors: CaptureError before the first replay, which is the function's second call at the latest.
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

    def fits(self, arguments: Sequence[Tensor]) -> bool:
        """Whether it can be replayed now.

        It cannot if other leaves have gradients than in the recording, or if gradients lie otherwise.
        """
        if self._leaves:
            self.take_leaves(arguments)
            if not self._gradients.lie_apart(arguments, bool(self._given)):
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

    def take_leaves(self, arguments: Sequence[Tensor]) -> None:
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
        return [*found, *[leaf for leaf in self._ends.leaves() if leaf not in found]]

    # Compilation

    def prepare(self) -> None:
        """Build the kernels and allocate the arena, if that was not done yet.

        Errors: OutOfMemoryError.
        """
        with self.lock:
            if not self.lowered:
                self.backend.trim()  # memory that an earlier eager call left; the arena could use none of it
                self.binding.move_in(self._lease().arena)
                self._spec, self.lowered = self._lower(self.launches[: self._cut], self.launches[self._cut :])
                self.binding.begin_parts(self.lowered[: self._cut], self.lowered[self._cut :])

    def _lease(self) -> Lease:
        """An arena that nobody else uses; that of the last call, if it is free."""

        def make(sizes: Sequence[int]) -> Arena:
            return self.allocated(partial(Arena.new, self.backend, sizes))

        return self._arenas.take(self.backend, self.plan.chunks, make, self.binding.arena)

    def allocated(self, allocate: Callable[[], T]) -> T:
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

    # A call (a replay)

    def set_scalars(self, scalars: Iterable[Mapping[str, float]]) -> None:
        """Set the scalars of the steps, all of which were kept, in the order in which they were recorded."""
        with self.lock:
            for number, new in zip(sorted(self.steps), scalars, strict=True):
                self.binding.renumber(self.steps[number], new)

    def let_go(self) -> None:
        """Stop holding the arguments of the last call: the next call binds its own, even if they are the same."""
        with self.lock:
            self.calls += 1
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
        binding = self.binding
        for position, check in self._checks:
            if position < len(arguments):
                check(arguments[position]._slot.storage)
        with self.lock:  # the lock of all programs of the function, since they share an arena
            self.calls += 1
            arena = binding.arena
            lease = self._arenas.take_again(arena) if self._roots else None
            if lease is None and (self._roots or not self._arenas.is_free(arena)):
                lease = self._lease()
                binding.move_in(lease.arena)
            fresh = self._new_results()
            self.take_leaves(arguments)
            moved = self._gradients.moved(bool(self._given))
            begun = self.allocated(partial(self._gradients.begun, moved)) if moved else {}
            states = self._draws.states() if self._has_draws else []
            if self._has_draws:
                arguments = self._with_drawn(arguments, numbers, states)
            binding.follow(self._first_in, arguments)
            for number, storage in fresh.items():
                if storage.buffer is not binding.storages[number].buffer:
                    binding.point(number, storage.buffer)
                self._returned[number] = weakref.ref(storage)
            if self._effects:
                with self._effects_undone():
                    self._launch_safely(arguments, moved, begun, states)
            else:
                self._launch_safely(arguments, moved, begun, states)
            node = None
            if self._roots:
                assert lease is not None
                node = self.node(lease, arguments, fresh)
                if again is not None:
                    node.again = again
                    node.seen = [(storage, storage.version) for storage in self._seen_by(arguments)]
            elif lease is not None:
                lease.end()
            found = Results(self, arguments, fresh, node)
            only = self._result
            if type(only) is ResultPlace and only.same is None:
                result = found.new(only)
            else:
                result = map_tensors(only, found.tensor, ResultPlace)
            self._ends.finish(found.slot)
            for effect, _ in self._effects:
                effect.after()
            return result

    def _seen_by(self, arguments: list[Tensor]) -> Iterator[Storage]:
        """The storages from outside that a call reads."""
        yield from (argument._slot.storage for argument in arguments)
        moving = {storage.number for storage in self.binding.storages.values()}
        for step in self.steps.values():
            for slot in step.read():
                if isinstance(slot, Slot) and slot.storage.number not in moving:
                    yield slot.storage

    @property
    def is_repeatable(self) -> bool:
        return not (self._changed or self._changed_arguments or self._ends.places or self._effects or self._leaves)

    def _launch_safely(
        self,
        arguments: list[Tensor],
        moved: list[Leaf],
        begun: dict[int, Slot],
        states: States,
    ) -> None:
        """Launch, and count versions. If the device refuses, the first replay is undone; later, gradients are torn."""
        part = self.binding.parts[0]
        if not part.has_run:
            with self._undone_if_refused(arguments, states):
                self._gradients.bind(moved, begun)
                self.binding.launch(part)
            self._count_changes(arguments, moved, begun)
            return
        if moved:
            self._gradients.bind(moved, begun)
        try:
            self.binding.launch(part)
            self._count_changes(arguments, moved, begun)
        except BaseException as error:
            lost = self._ends.overwritten
            first = self._gradients.first_launch(self.launches[: self._cut], lost)
            mark_torn([*self._gradients.added_to(begun), *lost.values()], error, first)
            raise

    def _count_changes(self, arguments: list[Tensor], moved: list[Leaf], begun: dict[int, Slot]) -> None:
        self._gradients.count(moved, begun)
        self._ends.count()
        if self._changed or self._changed_arguments:
            for storage in self.changed_by(arguments):
                storage.version += 1

    # Binding: what changes from call to call

    def _new_results(self) -> dict[int, Storage]:
        """Storages for the results. If nobody holds the last call's result any more, its memory is used again.

        Launches are bound to that memory already.
        """
        self._ends.choose(self._outputs)
        found = {number: gradient.storage for number, gradient in self._ends.overwritten.items()}
        for number, nbytes in self._outputs.items():
            if number in found:
                continue
            before = self._returned.get(number)
            if before is None or before() is not None:
                found[number] = self.allocated(partial(Storage, self.backend, nbytes))
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
        changed += [gradient.storage for gradient in self._gradients.there()]
        changed += [gradient.storage for gradient in self._ends.overwritten.values()]
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
