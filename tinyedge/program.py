"""A Program: recorded steps as launches with their arguments bound, which a call enqueues.

The plan gives every temporary a place in one arena. A call points the launches at its arguments, its results and the
gradients that there are, and enqueues them, with no Python for each op.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from tinyedge import config, fusion, report, rewrite
from tinyedge.backends import Backend, default_backend
from tinyedge.backends.base import Lowered, Origin, Placement
from tinyedge.chain import Shared, alone, chain
from tinyedge.containers import NO_CONTAINERS, contents, is_container, rebuilt
from tinyedge.dtypes import DType
from tinyedge.errors import CaptureError, OutOfMemoryError
from tinyedge.op import Layout
from tinyedge.ops.random import Draw, Generator
from tinyedge.plan import Action, make_plan, needed_actions
from tinyedge.recording import Recording, bytes_of
from tinyedge.shapes import Shape, contiguous_strides
from tinyedge.tape import Slot, Step, Storage, T, leaf_changes, new_slot, write_into
from tinyedge.tape import Value as NumberValue
from tinyedge.tensor import Tensor

ALIGNMENT = 256
"""Of the blocks in an arena, in bytes: what vector loads like on every device."""

SLACK = (6, 4, 2, 0)
"""Kernels of a chain between two uses of the same bytes: those that share none can run at the same time. With 6 the
longest path of waits in MobileNet v1 and v2, ResNet-18 and the transformer is as if nothing shared memory; with 2
nearly.
"""


class _Leaf:
    """A parameter (or another leaf) whose gradient a program computes, and the memory in which it does."""

    def __init__(self, slot: Slot, had_gradient: bool) -> None:
        assert slot.grad is not None
        self.slot = slot
        self.number, self.offset = slot.grad.storage.number, slot.grad.offset
        self.stored_first = not had_gradient  # the recording begins the gradient anew, and need not find zeros
        self.first_write: tuple[Step, str] | None = None
        self.adds_to: weakref.ref[Slot] | None = None  # the gradient to which the launches are bound, if they add to it

    def is_bound(self) -> bool:
        """Whether the launches add to the gradient that it has now."""
        return self.adds_to is not None and (gradient := self.adds_to()) is not None and self.slot.grad is gradient


class _Place(NamedTuple):
    """Where a result lies."""

    number: int
    slot: Slot


class Program:
    """Launches with their arguments bound, in order: what one call of a compiled function does.

    ``peak_bytes`` is the memory that a call needs beside what lives outside of it (parameters, gradients, arguments):
    the arena, and the results, which are new tensors at every call. It is known before ``prepare``, which allocates
    the arena and builds the kernels.
    """

    def __init__(self, recording: Recording, arguments: list[Tensor], result: Any) -> None:
        self.name = recording.name
        backends = {step.backend for step in recording.steps}
        if len(backends) > 1:
            names = " and ".join(sorted(backend.name for backend in backends))
            raise CaptureError(f"te.compile({self.name})", "steps on one backend", f"it runs on {names}")
        self.backend: Backend = backends.pop() if backends else default_backend()
        self._lock = threading.Lock()
        self._leaves = [_Leaf(slot, had) for slot, had in recording.leaves.values() if slot.grad is not None]
        self._gradients: list[weakref.ref[Storage]] = []  # of the leaves, where the launches are bound to them
        self._seen = -1  # of the changes of leaves, when all gradients were where the launches are bound to
        lying = Counter(leaf.number for leaf in self._leaves)
        self._together = [leaf for leaf in self._leaves if lying[leaf.number] > 1]
        given = {id(tensor._slot): position for position, tensor in enumerate(arguments)}
        # Each call has its own arguments.
        self._given = [(leaf, given[id(leaf.slot)]) for leaf in self._leaves if id(leaf.slot) in given]
        owned = {leaf.number for leaf in self._leaves}
        inside = {number: made.nbytes for number, made in recording.made.items() if number not in owned}
        results = {tensor._slot.storage.number for tensor in tensors_in(result)}

        def make(dtype: DType, shape: Shape) -> Slot:
            slot = Slot(Storage.over(self.backend, None), dtype, Layout(shape, contiguous_strides(shape), 0))
            inside[slot.storage.number] = slot.nbytes
            return slot

        # Both rewrite what follows the first step of backward by itself, so that it stays the border.
        first = len(recording.steps) if recording.first_backward is None else recording.first_backward
        forward, backward = recording.steps[:first], recording.steps[first:]
        if config.fuses():
            backward = rewrite.norm_gradients(forward, backward, make)
        unseen = {number: nbytes for number, nbytes in inside.items() if number not in results}
        forward, backward = rewrite.stand_ins(forward, backward, unseen, make)
        recorded = [*forward, *backward]
        self._outputs = {number: nbytes for number, nbytes in inside.items() if number in results}
        self._returned: dict[int, weakref.ref[Storage]] = {}  # of each, what the last call returned
        self._arguments = [t._slot.storage.number for t in arguments]
        self._recorded_offsets = {t._slot.storage.number: t._slot.offset for t in reversed(arguments)}
        self._recorded_offsets |= {leaf.number: leaf.offset for leaf in self._leaves}
        # The first argument in each storage. The others move with it: how they lie to each other is their kind.
        self._first_in: dict[int, int] = {}
        for position, number in enumerate(self._arguments):
            self._first_in.setdefault(number, position)
        self._checks = [(self._first_in[n], check) for n, check in recording.checks if n in self._first_in]
        movable = {*inside, *owned, *self._arguments}
        self._storages = {number: Storage.over(self.backend, None) for number in sorted(movable)}
        self._moving = {self._storages[number].number for number in (*self._arguments, *owned, *self._outputs)}
        self._result = map_tensors(
            result, lambda tensor: _Place(tensor._slot.storage.number, self._moved(tensor._slot))
        )
        self._temporary: dict[fusion.Place, int] = {
            self._storages[number].number: nbytes for number, nbytes in inside.items() if number not in results
        }
        steps = [self._own(step) for step in recorded]
        kernels = fusion.kernels_of(steps, self.backend.device)
        if config.fuses():
            kernels = self._needed(fusion.fuse(self._needed(kernels), self._temporary))
            kernels = fusion.place_beside(kernels, lambda group: self.backend.shares_launch(group, self._temporary))
        chains = config.fuses() and self.backend.device is not None and self.backend.device.chains
        self.plan = make_plan(*self._actions(kernels), ALIGNMENT, SLACK if chains else (0,))
        self.kernels = [kernels[number] for number in self.plan.kept]
        self.launches = [self._shared(run) for run in self._runs()]
        walked_back = steps[len(forward) :]
        self._forward = [not walked_back or kernel.step.number < walked_back[0].number for kernel in kernels]
        self._lowered: list[Lowered] = []
        self._takers: dict[Origin, list[Lowered]] = defaultdict(list)  # the launches that depend on each
        self._changed: dict[int, Storage] = {}  # what outlives a call, and is changed by it
        self._changed_arguments: set[int] = set()
        self._steps = {step.number: step for kernel in self.kernels for step in kernel.steps()}
        for old, own in zip(recorded, steps, strict=True):
            if own.number in self._steps:
                self._note_writes(old, own)
        self._random = [step for step in self._steps.values() if isinstance(step.scalars, Draw)]
        self._offsets = {**self._recorded_offsets}  # of each argument in its storage, at the last call
        self._chained = any(launch.is_chain for launch in self.launches)
        self._pointed: list[Storage] = []  # what lies elsewhere than at the last call
        self._owners: dict[Any, int] = {}  # of the memory outside of the arena, if launches are chained
        if self._chained:
            slots = [slot for step in self._steps.values() for slot in step.slots.values() if isinstance(slot, Slot)]
            self._owners = {s.storage.buffer: s.storage.number for s in slots if s.storage.buffer is not None}
        self._written = {slot.storage.number for step in self._steps.values() for slot in step.written()}
        self._stale: set[Origin] = set()  # what changed since the launches were bound
        self._launches: list[Any] = []
        self._place()
        self._ran = False

    @property
    def arena_bytes(self) -> int:
        """The bytes that all temporaries and scratch memory share."""
        return self.plan.arena_bytes

    @property
    def peak_bytes(self) -> int:
        return self.plan.arena_bytes + sum(self._outputs.values())

    @property
    def gradient_bytes(self) -> int:
        """The gradients that a call adds to, which live outside."""
        return sum(leaf.slot.nbytes for leaf in self._leaves)

    @property
    def saved_bytes(self) -> int:
        """The temporaries that wait for backward: written before its first step, and read after it."""
        lifetimes = [block for key, block in self.plan.lifetimes.items() if key in self._temporary]
        return sum(b.nbytes for b in lifetimes if self._forward[b.first] and not self._forward[b.last])

    def __repr__(self) -> str:
        counts = f"{len(self.kernels)} kernels in {len(self.launches)} launches"
        return f"<Program {self.name}: {counts}, {self.peak_bytes} bytes>"

    @property
    def is_bound(self) -> bool:
        """Whether it could be launched as it is: it was replayed, and still holds the arguments of the last call."""
        return not self.kernels or bool(self._launches and not self._stale)

    def explain(self, repeats: int = 10) -> str:
        """A table of the launches in order: the ops that are fused in each, its kernel and geometry, how long it takes
        as for ``profile``, the bytes that it moves, its FLOPs, its place in memory; and a line on memory.

        Before the first replay, which is the function's second call, it has no times, and says so.
        """
        self.prepare()
        return report.explain(self, repeats)

    def profile(self, repeats: int = 10) -> report.Profile:
        """How long each launch takes, by the device's own clock: a table (``str``), the longest first, and its rows.

        The launches are replayed with the arguments of the last call; results, gradients and versions stay.

        Errors: CaptureError before the first replay, which is the function's second call.
        """
        return report.profile(self, repeats)

    def chart(self, path: str | Path) -> None:
        """Draw which part of the arena is taken during which launches, and by what, into a .png or .svg.

        Errors: MissingPackageError without matplotlib.
        """
        report.chart(self, path)

    def changed_by(self, arguments: list[Tensor]) -> list[Storage]:
        """What a call with these arguments changes outside, but for gradients."""
        given = {number: t._slot.storage for number, t in zip(self._arguments, arguments, strict=True)}
        return [*self._changed.values(), *(given[number] for number in self._changed_arguments)]

    def fits(self) -> bool:
        """Whether it can be replayed: gradients that are parts of one memory cannot be moved one by one, and kernels of
        a chain do not wait for each other where gradients have become such parts since.
        """
        if self._chained and leaf_changes() != self._seen:
            found = [(leaf.number, leaf.slot.grad) for leaf in self._leaves]
            lying = {(number, gradient.storage.number) for number, gradient in found if gradient is not None}
            if len({now for _, now in lying}) < len(lying):
                return False
        return all(
            (gradient := leaf.slot.grad) is not None
            and (gradient.storage.number, gradient.offset) == (leaf.number, leaf.offset)
            for leaf in self._together
        )

    def take_leaves(self, arguments: list[Tensor]) -> None:
        """Let the arguments that have gradients be the leaves."""
        for leaf, position in self._given:
            leaf.slot = arguments[position]._slot

    @property
    def generators(self) -> list[Generator]:
        """Those from which a call draws random numbers."""
        return list({id(draw.generator): draw.generator for draw in self._draws()}.values())

    def gradients(self) -> list[Any]:
        """The gradients of the leaves, on the host."""
        return [self.backend.read(leaf.slot.grad) for leaf in self._leaves if leaf.slot.grad is not None]

    # Making it

    def prepare(self) -> None:
        """Build the kernels and allocate the arena, if that was not done yet.

        Errors: OutOfMemoryError.
        """
        with self._lock:
            if not self._lowered:
                self.backend.trim()  # of an eager call before; the arena could use none of it
                arena = self._allocated(lambda: Storage(self.backend, self.plan.arena_bytes, alone=True))
                for storage in self._storages.values():
                    if storage.number in self._temporary:
                        storage.buffer = arena.buffer
                self._arena = arena
                self._scratch = {place: (arena.buffer, offset) for place, offset in self.plan.offsets.items()}
                self._lowered = self._lower(self.launches)
                for lowered in self._lowered:
                    for origin in lowered.origins():
                        self._takers[origin].append(lowered)

    def _allocated(self, allocate: Callable[[], T]) -> T:
        """What ``allocate`` gives; if there is no room for it, an error that says what for."""
        try:
            return allocate()
        except OutOfMemoryError as error:
            raise self._refused(error) from error

    def _refused(self, error: OutOfMemoryError) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"te.compile({self.name})",
            f"{self.peak_bytes} bytes beside the model: {self.arena_bytes} for all that lives inside "
            f"({len(self.plan.lifetimes)} blocks, at most {self.saved_bytes} bytes of them kept for backward), "
            f"{self.peak_bytes - self.arena_bytes} for results",
            f"{error.call}: {error.expected}, but {error.got}",
            f"Nothing was changed. {error.remedy}",
        )

    def _actions(self, kernels: Sequence[fusion.Kernel]) -> tuple[list[Action], dict[fusion.Place, int]]:
        """What each kernel does to memory, and the bytes of the temporary places."""
        actions = [
            Action(frozenset(kernel.reads()), frozenset(kernel.writes()), frozenset(kernel.may_replace()))
            for kernel in kernels
        ]
        return actions, {**self._temporary, **{place: n for kernel in kernels for place, n in kernel.scratch().items()}}

    def _needed(self, kernels: Sequence[fusion.Kernel]) -> list[fusion.Kernel]:
        return [kernels[number] for number in needed_actions(*self._actions(kernels))]

    def _own(self, step: Step) -> Step:
        """The step, with its movable slots on storages of the program."""
        slots = {}
        for name, slot in step.slots.items():
            slots[name] = self._moved(slot) if isinstance(slot, Slot) else slot
        return step.over(slots)

    def _moved(self, slot: Slot) -> Slot:
        """The same place, without history, on a storage of the program if it is movable."""
        return Slot(self._storages.get(slot.storage.number, slot.storage), slot.dtype, slot.layout())

    def _note_writes(self, old: Step, own: Step) -> None:
        for name in own.writes:
            storage = old.slots[name].storage
            for leaf in self._leaves:
                if leaf.number == storage.number and leaf.first_write is None:
                    leaf.first_write = (own, name)
            if storage.number in self._arguments:
                self._changed_arguments.add(storage.number)
            elif storage.number not in self._storages:
                self._changed[storage.number] = storage

    def _place(self) -> None:
        """Let every temporary be a part of the arena: an offset, since OpenCL's sub-buffers are slow on some GPUs."""
        for step in self._steps.values():
            for slot in step.slots.values():
                if isinstance(slot, Slot) and slot.storage.number in self.plan.offsets:
                    slot.offset += self.plan.offsets[slot.storage.number] // slot.dtype.itemsize

    def _lower(self, launches: Sequence[Shared]) -> list[Lowered]:
        return self.backend.lower_all(launches, Placement(self._temporary, self.plan.offsets, self._moving))

    def each_alone(self) -> list[Lowered]:
        """A launch for each kernel, bound to what the program is bound to."""
        launches = self._lower([alone(kernel) for kernel in self.kernels])
        for lowered in launches:
            lowered.bind(self._scratch)
        return launches

    def _runs(self) -> list[Sequence[fusion.Kernel]]:
        if config.fuses():
            return self.backend.chains(self.kernels, self._temporary)
        return [[kernel] for kernel in self.kernels]

    def _shared(self, run: Sequence[fusion.Kernel]) -> Shared:
        sizes = {place: lifetime.nbytes for place, lifetime in self.plan.lifetimes.items()}
        return alone(run[0]) if len(run) == 1 else chain(run, sizes, self.plan.offsets)

    # A call

    def set_scalars(self, scalars: Iterable[Mapping[str, float]]) -> None:
        """Let these be the numbers of the steps, which were all kept, in the order in which they were recorded."""
        with self._lock:
            for number, new in zip(sorted(self._steps), scalars, strict=True):
                step = self._steps[number]
                if step.scalars != new:
                    step.scalars = new
                    self._stale.add(("step", number))

    def let_go(self) -> None:
        """Hold the arguments of the last call no longer: the next call binds its own, even if they are the same."""
        with self._lock:
            for number in self._arguments:
                self._point(number, None)

    def __call__(self, arguments: list[Tensor]) -> Any:
        """Launch everything; the results as new tensors.

        Errors: OutOfMemoryError, with all as it was. Memory is there before the first launch; a device that refuses a
                launch none the less, for what a kernel needs itself, does so the first time, which is undone.
        """
        if not self._lowered:
            self.prepare()
        for position, check in self._checks:
            check(arguments[position]._slot.storage)
        with self._lock:
            fresh = self._allocated(self._new_results)
            self.take_leaves(arguments)
            moved = self._moved_gradients()
            absent = [leaf.slot for leaf in moved if leaf.slot.grad is None]
            gradients: dict[int, Slot] = {}
            if absent:
                made = self._allocated(lambda: [new_slot(self.backend, slot.dtype, slot.shape) for slot in absent])
                gradients = {id(slot): gradient for slot, gradient in zip(absent, made, strict=True)}
            self._point_at_arguments(arguments)
            for number, storage in fresh.items():
                self._point(number, storage.buffer)
                self._returned[number] = weakref.ref(storage)
            if self._ran:
                self._launch(moved, gradients, absent)
            else:
                with self._undone_if_refused(arguments, absent):
                    self._launch(moved, gradients, absent)
            for storage in self.changed_by(arguments):
                storage.version += 1
            for refer in self._gradients:
                if (gradient := refer()) is not None:
                    gradient.version += 1

            def renewed(place: _Place) -> Tensor:
                storage = fresh.get(place.number) or self._outside(place, arguments)
                shape, strides, offset = place.slot.layout()
                offset += self._offsets.get(place.number, 0) - self._recorded_offsets.get(place.number, 0)
                return Tensor._wrap(Slot(storage, place.slot.dtype, Layout(shape, strides, offset)))

            return map_tensors(self._result, renewed, _Place)

    def _launch(self, moved: list[_Leaf], gradients: dict[int, Slot], absent: list[Slot]) -> None:
        """Bind what changed, and enqueue. Of the leaves whose gradients ``moved``, some get new ``gradients``."""
        if moved:
            for leaf in moved:
                self._point_at_gradient(leaf, gradients.get(id(leaf.slot)))
            found = [leaf.slot.grad for leaf in self._leaves if leaf.slot.grad is not None]
            self._gradients = [weakref.ref(gradient.storage) for gradient in found]
        if self._chained and self._pointed:
            self._require_apart(absent)
        self._pointed.clear()
        if self._random:
            self._draw()
        if self._stale or not self._launches:
            self._bind()
        self.backend.launch(self._launches)

    def _new_results(self) -> dict[int, Storage]:
        """Storages for what is returned: in the memory of the call before, where nobody holds its result any more.

        That is still bound, so that the launches need not be told.
        """
        return {
            number: Storage(self.backend, nbytes)
            if (before := self._returned.get(number)) is None or before() is not None
            else Storage.again(self.backend, self._storages[number].buffer, nbytes)
            for number, nbytes in self._outputs.items()
        }

    def _outside(self, place: _Place, arguments: list[Tensor]) -> Storage:
        """The memory of a result that is no new one."""
        for leaf in self._leaves:
            if leaf.number == place.number and leaf.slot.grad is not None:
                return leaf.slot.grad.storage
        for number, argument in zip(self._arguments, arguments, strict=True):
            if number == place.number:
                return argument._slot.storage
        return place.slot.storage

    def _moved_gradients(self) -> list[_Leaf]:
        """The leaves whose gradients the launches are not bound to."""
        changes = leaf_changes()
        if changes == self._seen and not self._given:
            return []
        moved = [leaf for leaf in self._leaves if not leaf.is_bound()]
        # Gradients of some other model may have moved. What is begun anew now is added to at the next call.
        self._seen = -1 if moved else changes
        return moved

    @contextmanager
    def _undone_if_refused(self, arguments: list[Tensor], absent: list[Slot]) -> Iterator[None]:
        """Launch for the first time: what that changes outside is kept on the host until the device has done it."""
        changed = self.changed_by(arguments)
        changed += [leaf.slot.grad.storage for leaf in self._leaves if leaf.slot.grad is not None]
        before = [(storage, bytes_of(storage)) for storage in dict.fromkeys(changed) if storage.nbytes]
        states = [(generator, generator.get_state()) for generator in self.generators]
        try:
            yield
            self.backend.finish()
        except OutOfMemoryError as error:
            for storage, values in before:
                self.backend.write(storage, values)
            for slot in absent:
                slot.keep_gradient(None)
            for generator, state in states:
                generator.set_state(state)
            raise self._refused(error) from error
        self._ran = True

    def _point(self, number: int, buffer: Any) -> None:
        """Let the storage ``number`` be ``buffer`` from now on."""
        storage = self._storages[number]
        if storage.buffer is not buffer:
            if self._chained and self._owners.get(storage.buffer) == storage.number:
                del self._owners[storage.buffer]
            self._pointed.append(storage)
            storage.buffer = buffer
            self._stale.add(("storage", storage.number))

    def _require_apart(self, absent: list[Slot]) -> None:
        """Kernels of a chain may run at the same time, unless the recording showed that they touch the same memory.

        ``absent`` are the leaves that had no gradient before the call, and have none if it is refused.
        """
        for storage in self._pointed:
            owner = self._owners.setdefault(storage.buffer, storage.number)
            if owner != storage.number and not self._written.isdisjoint((owner, storage.number)):
                for slot in absent:
                    slot.keep_gradient(None)
                raise CaptureError(
                    f"te.compile({self.name})",
                    "memory that a call changes is reached in one way only, as at its first call",
                    "an argument or a gradient lies in the memory of another one, or of a parameter",
                    "Pass a copy (clone), or set TINYEDGE_CHAIN=0.",
                )

    def _point_at(self, number: int, slot: Slot) -> None:
        """Let the storage ``number`` be that of ``slot``, which may lie elsewhere there than the slot before."""
        self._point(number, slot.storage.buffer)
        shift = slot.offset - self._offsets[number]
        if shift:  # so does every view of it
            self._offsets[number] = slot.offset
            storage = self._storages[number]
            for step in self._steps.values():
                for view in step.slots.values():
                    if isinstance(view, Slot) and view.storage is storage:
                        view.offset += shift
            self._stale.add(("storage", storage.number))

    def _point_at_arguments(self, arguments: list[Tensor]) -> None:
        for number, position in self._first_in.items():
            slot = arguments[position]._slot
            if slot.storage.buffer is not self._storages[number].buffer or slot.offset != self._offsets[number]:
                self._point_at(number, slot)

    def _point_at_gradient(self, leaf: _Leaf, new: Slot | None) -> None:
        """Compute into the leaf's gradient, or into ``new`` if it has none."""
        adds = new is None
        leaf.adds_to = None if leaf.slot.grad is None else weakref.ref(leaf.slot.grad)
        if new is not None:
            leaf.slot.keep_gradient(new)
            if not leaf.stored_first:
                write_into(NumberValue(0, leaf.slot.dtype), new)
        assert leaf.slot.grad is not None
        self._point_at(leaf.number, leaf.slot.grad)
        if leaf.stored_first and leaf.first_write is not None:
            step, name = leaf.first_write
            if adds != (name in step.accumulate):
                step.accumulate = step.accumulate ^ {name}
                self._stale.add(("step", step.number))

    def _draws(self) -> list[Draw]:
        return list({id(step.scalars): cast("Draw", step.scalars) for step in self._random}.values())

    def _draw(self) -> None:
        """New random numbers: forward and backward of one call of dropout share one set of scalars."""
        for draw in self._draws():
            draw.renew()
        for step in self._random:
            self._stale.add(("step", step.number))

    def _bind(self) -> None:
        if not self._launches:
            for lowered in self._lowered:
                lowered.bind(self._scratch)
            self._launches = [lowered.launcher() for lowered in self._lowered]
        for origin in self._stale:
            for lowered in self._takers[origin]:
                lowered.rebind(origin)
        self._stale.clear()


def tensors_in(value: Any, above: tuple[int, ...] = ()) -> list[Tensor]:
    """The tensors in nested tuples, lists, mappings and dataclasses, in order. ``above`` is what it is in."""
    if isinstance(value, Tensor):
        return [value]
    kind = type(value)
    if kind is tuple or kind is list:
        items: Iterable[Any] = value
    elif kind is dict:
        items = value.values()
    elif kind in NO_CONTAINERS or not is_container(kind):
        return []
    else:
        items = [item for _, item in contents(value)]
    if id(value) in above:
        return []
    above = (*above, id(value))
    found: list[Tensor] = []
    for item in items:
        if isinstance(item, Tensor):
            found.append(item)
        elif type(item) not in NO_CONTAINERS:
            found += tensors_in(item, above)
    return found


def map_tensors(value: Any, function: Callable[[Any], Any], leaf: type = Tensor) -> Any:
    """``value`` with each tensor replaced; what is in no container stays itself."""
    return _mapped(value, function, leaf, {})


def _mapped(value: Any, function: Callable[[Any], Any], leaf: type, known: dict[int, Any]) -> Any:
    kind = type(value)
    if issubclass(kind, leaf):
        return function(value)
    if kind in NO_CONTAINERS:
        return value
    if kind is tuple:
        return tuple([_mapped(item, function, leaf, known) for item in value])
    if id(value) in known:
        return known[id(value)]
    if kind is list or kind is dict:
        new: Any = kind()
        known[id(value)] = new
        if kind is list:
            new += [_mapped(item, function, leaf, known) for item in value]
        else:
            new.update({key: _mapped(item, function, leaf, known) for key, item in value.items()})
        return new
    if not is_container(kind):
        return value
    return rebuilt(value, lambda item: _mapped(item, function, leaf, known), known)
