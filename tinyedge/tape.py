"""Slots, Steps and Tapes: what was computed from what, and the walk back through it.

A Slot is a value's place: its dtype, shape, strides and offset in a Storage, and the Step that wrote it. A Step is one
op call, forward or backward; running it asks the backend to prepare and launch it. A Tape is steps in order. Autograd
keeps, of each step, only what its gradients are computed from, and the edges to the steps before it; the Tape that
leads to a value is gathered from those edges.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

import numpy as np
import numpy.typing as npt

from tinyedge import shapes
from tinyedge.dtypes import DType
from tinyedge.errors import ArgumentError, AutogradError, BackendError, ShapeError, TinyedgeError
from tinyedge.op import BACKWARD, FORWARD, Layout, Op, Spec, registry
from tinyedge.shapes import Shape

if TYPE_CHECKING:
    from tinyedge.kernels.spec import Device, KernelSpec

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

MAX_ELEMENTS = shapes.MAX_ELEMENTS


_serial = count()


def next_number() -> int:
    """A number above that of every storage and step so far."""
    return next(_serial)


class Memory:
    """Bytes on a device, and the most there ever were since the last reset.

    ``allocated_bytes`` are those of tensors and arenas that are alive. ``reserved_bytes`` are those that the driver
    holds for them: also what is kept for reuse, the rest of slabs, and small tables for kernels; not programs.
    """

    def __init__(self) -> None:
        self.allocated_bytes = 0
        self.peak_bytes = 0
        self.reserved_bytes = 0
        self.peak_reserved_bytes = 0

    def add(self, nbytes: int) -> None:
        self.allocated_bytes += nbytes
        if self.allocated_bytes > self.peak_bytes:
            self.peak_bytes = self.allocated_bytes

    def remove(self, nbytes: int) -> None:
        self.allocated_bytes -= nbytes

    def reserve(self, nbytes: int) -> None:
        """The driver gave so many bytes more."""
        self.reserved_bytes += nbytes
        if self.reserved_bytes > self.peak_reserved_bytes:
            self.peak_reserved_bytes = self.reserved_bytes

    def unreserve(self, nbytes: int) -> None:
        """So many bytes went back to the driver."""
        self.reserved_bytes -= nbytes

    def reset_peak(self) -> None:
        self.peak_bytes = self.allocated_bytes
        self.peak_reserved_bytes = self.reserved_bytes


class MemorySpace:
    """Where storages lie: what a backend gives for memory."""

    name: str = ""
    description: str = ""
    device: Any = None  # a Device: what kernels are written for; None where a step is run as a whole
    largest_bytes: int | None = None  # the most that it gives in one piece; None: whatever there is
    counts_to: int | None = None  # elements of one piece that its kernels can tell apart; None: any number

    def __init__(self) -> None:
        self.memory = Memory()

    def __repr__(self) -> str:
        return f"<Backend {self.name}: {self.description}>"

    def check_dtype(self, dtype: DType) -> None:
        """Raise DtypeError if values of ``dtype`` cannot be kept here."""

    def allocate(self, nbytes: int) -> Any:
        """A buffer of at least ``nbytes`` bytes, its contents undefined."""
        raise NotImplementedError

    def reserve(self, nbytes: int) -> Any:
        """The same for a value, which may be a part of a buffer that it shares with others."""
        return self.allocate(nbytes)

    def release(self, buffer: Any, nbytes: int) -> None:
        """Called when the last view of ``buffer`` is gone; a program may use it again for its next result."""

    def trim(self) -> None:
        """Give back to the device what was released and is kept for reuse."""

    def write(self, storage: Storage, array: np.ndarray[Any, Any]) -> None:
        """Fill ``storage`` with the bytes of a contiguous array."""
        raise NotImplementedError

    def read(self, slot: Slot) -> np.ndarray[Any, Any]:
        """The values of a contiguous slot, after all that was launched before."""
        raise NotImplementedError

    def finish(self) -> None:
        """Wait until everything launched so far is done."""


class Storage:
    """Bytes on a backend, shared by every view of them. ``version`` counts the changes made in place.

    ``alone``: they are no part of a larger buffer. ``holds``: what comes from the host, and so they are real in a
    rehearsal too.
    """

    __slots__ = (
        "__weakref__",
        "backend",
        "bounds",
        "buffer",
        "deferred",
        "history",
        "nbytes",
        "number",
        "renewed",
        "torn",
        "version",
    )

    def __init__(self, backend: MemorySpace, nbytes: int, alone: bool = False, holds: bool = False) -> None:
        self.backend = backend
        self.nbytes = 0  # so that __del__ is right if the allocation fails
        self.buffer: Any = None
        deferred = self.deferred = modes.deferred
        if holds or not is_rehearsal():
            if deferred is not None and not alone and not holds:
                self.buffer = deferred.take(backend, nbytes)
            else:
                self.buffer = backend.allocate(nbytes) if alone else backend.reserve(nbytes)
            backend.memory.add(nbytes)
        self.nbytes = nbytes
        self.torn = False  # a gradient to which only a part of a backward pass was added
        self.number = next_number()  # storages and steps are numbered together, in the order in which they were made
        self.version = 0
        # Of integers from the host, at version 0: the least, the next to it, the one below the largest, the largest.
        self.bounds: tuple[int, int, int, int] | None = None
        self.history = 0  # those changes that autograd recorded: views made before one have a stale history
        self.renewed = 0  # the version at which all of it was last filled with other values: zeroed, or copied into

    @classmethod
    def over(cls, backend: MemorySpace, buffer: Any) -> Storage:
        """A storage over memory that belongs to somebody else."""
        self = object.__new__(cls)
        self.backend, self.buffer, self.nbytes, self.deferred, self.torn = backend, buffer, 0, None, False
        self.number, self.version, self.history, self.bounds, self.renewed = next_number(), 0, 0, None, 0
        return self

    @classmethod
    def again(cls, backend: MemorySpace, buffer: Any, nbytes: int) -> Storage:
        """A storage in the memory of one that is gone, which somebody kept."""
        self = cls.over(backend, buffer)
        self.nbytes = nbytes
        backend.memory.add(nbytes)
        return self

    def __reduce__(self) -> NoReturn:
        raise ArgumentError(
            "pickle or deepcopy", "tensors", "got a slot or a storage, a tensor's memory", "Use the tensor."
        )

    def __del__(self) -> None:
        if self.nbytes and self.buffer is not None:
            self.backend.memory.remove(self.nbytes)
            if self.deferred is None or not self.deferred.give(self.backend, self.buffer, self.nbytes):
                self.backend.release(self.buffer, self.nbytes)


_leaf_changes = 0


def leaf_changes() -> int:
    """Another number after a tensor got another slot, flag or gradient: what was learnt of leaves is true until then.

    New values in the same place are no such change.
    """
    return _leaf_changes


def note_leaf_change() -> None:
    """To be called after each such change, of a tensor that others may know already."""
    global _leaf_changes
    _leaf_changes = next_number()


class Minibatch:
    """Samples that were counted, and wait in the gradients of ``leaves()`` for the update by their mean."""

    def leaves(self) -> Iterable[Slot]:
        raise NotImplementedError

    def counted(self) -> str:
        """How many they are, as an error says it."""
        raise NotImplementedError


_minibatches: weakref.WeakSet[Minibatch] = weakref.WeakSet()


def note_minibatch(minibatch: Minibatch, waits: bool) -> None:
    """To be called when samples wait from now on, and when none do any more."""
    (_minibatches.add if waits else _minibatches.discard)(minibatch)


def require_no_minibatch(call: str, leaves: Iterable[Slot]) -> None:
    """Refuse to drop gradients in which counted samples wait: the mean would be taken of those that are left."""
    if not _minibatches:
        return
    dropped = {id(leaf) for leaf in leaves if leaf.requires_grad and leaf.gradient() is not None}
    for minibatch in _minibatches:
        if any(id(leaf) in dropped for leaf in minibatch.leaves()):
            raise ArgumentError(
                call,
                "it must not drop samples that wait for their update",
                minibatch.counted(),
                "Leave it out (each update clears the gradients), or call the optimizer's flush() or discard() first.",
            )


class Slot:
    """A value's place on a tape: a typed, strided view of a Storage."""

    __slots__ = (
        "__weakref__",
        "cleared",
        "contiguous",
        "dtype",
        "grad",
        "history",
        "index",
        "key",
        "number",
        "numel",
        "offset",
        "requires_grad",
        "shape",
        "step",
        "storage",
        "strides",
    )

    def __init__(self, storage: Storage, dtype: DType, layout: Layout) -> None:
        self.storage = storage
        self.dtype = dtype
        self.shape, self.strides, self.offset = layout
        self.number = next_number()
        self.numel = prod(self.shape)
        self.contiguous = shapes.is_contiguous(self.shape, self.strides)
        self.key: tuple[Any, ...] = (dtype, self.shape, self.strides)
        self.history = storage.history
        self.requires_grad = False
        self.grad: Slot | None = None  # of a leaf: where its gradient is summed; ``gradient()`` if there is one
        self.cleared = -1  # of a gradient: the version at which an update left it empty
        self.step: Step | None = None  # that wrote it; None for a leaf
        self.index = 0  # which of the step's outputs it is

    def keep_gradient(self, gradient: Slot | None) -> None:
        """Let this leaf's gradient be summed there from now on."""
        self.grad = gradient
        note_leaf_change()

    def gradient(self) -> Slot | None:
        """This leaf's gradient; None also where an update cleared its memory, and nothing was added since.

        That memory is filled with zeros and stays, so that what adds to it, in programs too, finds it where it was.
        """
        found = self.grad
        return None if found is None or found.cleared == found.storage.version else found

    def clear(self) -> None:
        """Say of a gradient, whose memory is filled with zeros, that it is empty: none, until something is added."""
        self.cleared = self.storage.version

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    @property
    def is_leaf(self) -> bool:
        return self.step is None

    @property
    def spec(self) -> Spec:
        return Spec(self.dtype, self.shape)

    @property
    def extent_bytes(self) -> int:
        """Bytes from the start of the storage to the end of the last element."""
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        return (last + 1) * self.dtype.itemsize if self.numel else 0

    def alias(self, layout: Layout | None = None) -> Slot:
        """Another place in the same storage, without history."""
        return Slot(self.storage, self.dtype, layout or Layout(self.shape, self.strides, self.offset))

    def layout(self) -> Layout:
        return Layout(self.shape, self.strides, self.offset)


class SlotHolder:
    """What the user holds of a slot; see ``Tensor``."""

    __slots__ = ()

    _slot: Slot


class Value:
    """A Python number where an op takes a tensor: passed to the kernel by value."""

    __slots__ = ("dtype", "key", "number")

    shape: Shape = ()
    numel = 1
    requires_grad = False

    def __init__(self, number: float, dtype: DType) -> None:
        self.number = number
        self.dtype = dtype
        self.key = ("value", dtype)

    @property
    def spec(self) -> Spec:
        return Spec(self.dtype, ())


Read = Slot | Value | None
Saved = dict[str, tuple[Read, int]]  # what backward needs, by name, with the version that it had
Edge = tuple["Step | None", int, "Slot | None"]  # the step and output that made an input; or the leaf itself


class Step:
    """One op call, forward or backward.

    ``slots`` maps names to what is read (inputs; or ``dy`` and what was saved) and then to what is written. After a
    forward step ran, autograd keeps ``saved``, ``edges`` and ``input_specs`` and lets the rest go.
    """

    __slots__ = (
        "accumulate",
        "attrs",
        "direction",
        "edges",
        "input_specs",
        "number",
        "op",
        "output_specs",
        "reads",
        "saved",
        "scalars",
        "slots",
        "writes",
    )

    def __init__(
        self,
        op: type[Op],
        direction: str,
        attrs: Mapping[str, Any],
        scalars: Mapping[str, float],
        slots: dict[str, Any],
        reads: tuple[str, ...],
        writes: tuple[str, ...],
        accumulate: frozenset[str] = frozenset(),
    ) -> None:
        self.op = op
        self.direction = direction
        self.attrs = attrs
        self.scalars = scalars
        self.slots = slots
        self.reads = reads
        self.writes = writes
        self.accumulate = accumulate
        self.number = next_number()
        self.edges: tuple[Edge | None, ...] = ()
        self.saved: Saved | Postponed | None = None
        self.input_specs: tuple[Spec | None, ...] = ()
        self.output_specs: tuple[Spec, ...] = ()

    def __repr__(self) -> str:
        return f"<Step {self.number}: {self.op.name} {self.direction}>"

    def over(self, slots: dict[str, Any]) -> Step:
        """The same call over other slots, without history."""
        return Step(self.op, self.direction, self.attrs, self.scalars, slots, self.reads, self.writes, self.accumulate)

    @property
    def backend(self) -> Any:
        """Where it runs."""
        return self.slots[self.writes[0]].storage.backend

    def kernels(self, device: Device) -> list[KernelSpec]:
        """The kernels that carry it out on ``device``; none for what has no elements."""
        if not any(slot.numel for slot in self.written()):
            return []
        device = device.limited(self.op.name, self.direction)
        specs = (self.op.kernels_forward if self.direction == FORWARD else self.op.kernels_backward)(self, device)
        return [spec for spec in specs if 0 not in spec.global_size]

    def read_names(self) -> list[str]:
        """The names of the reads that are present."""
        return [name for name in self.reads if self.slots[name] is not None]

    def read(self) -> list[Any]:
        return [self.slots[name] for name in self.read_names()]

    def written(self) -> list[Slot]:
        return [self.slots[name] for name in self.writes]

    def is_value(self, name: str) -> bool:
        """Whether the read ``name`` is a number passed by value."""
        return isinstance(self.slots[name], Value)

    def wants(self, name: str) -> bool:
        """Whether ``name`` is written by this step: backward steps write only the gradients that are needed."""
        return name in self.writes

    def signature(self) -> tuple[Any, ...]:
        """All that its kernels and their geometry depend on: steps of one signature share prepared kernels."""
        slots = self.slots
        return (
            self.op,
            self.direction,
            tuple(self.attrs.items()),
            tuple([None if slots[name] is None else slots[name].key for name in self.reads]),
            self.writes,
            tuple([slots[name].key for name in self.writes]),
        )

    def forget(self) -> None:
        """Let go of what was saved for backward: the graph was walked."""
        self.saved = None


class Tape:
    """Steps in the order in which they ran."""

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = list(steps)

    @classmethod
    def leading_to(cls, slots: Sequence[Slot], since: int = 0) -> Tape:
        """The differentiable steps from which ``slots`` were computed, but for those with numbers below ``since``."""
        found: dict[int, Step] = {}
        pending = [slot.step for slot in slots if slot.step is not None]
        while pending:
            step = pending.pop()
            if step.number in found or step.number < since:
                continue
            found[step.number] = step
            pending += [edge[0] for edge in step.edges if edge is not None and edge[0] is not None]
        return cls([found[number] for number in sorted(found)])

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __reversed__(self) -> Iterator[Step]:
        return reversed(self.steps)


class Effect:
    """Something that a recorded call did on the host beside launching steps, and that a replay does again."""

    steps: range = range(0)  # the recorded steps whose numbers it gives

    def leaves(self) -> Iterable[Slot]:
        """What it changes beside, which must be the same in each call."""
        return ()

    def fits(self) -> bool:
        """Whether it would launch the same steps now as when it was recorded."""
        return True

    def recorded(self) -> None:
        """Called when the recorded call is over."""

    def before(self) -> Sequence[Mapping[str, float]]:
        """Called, in order, before anything is launched: the numbers of ``steps``."""
        return ()

    def after(self) -> None:
        """Called, in order, when everything is launched."""

    def undo(self) -> None:
        """Called, in reverse order, if something was refused after ``before``."""

    def restorer(self) -> Callable[[], None]:
        """What puts back all that it changes to how it is now."""
        raise NotImplementedError


class Recorder:
    """Who is told what runs in this thread, while it is set by ``recording``.

    Unless it ``runs``, this is a rehearsal: nothing is allocated, nothing launched, and no value is there.
    """

    runs = True

    def before(self, step: Step) -> None:
        """``step`` is about to be launched."""

    def step(self, step: Step) -> None:
        """``step`` was launched; its slots are still all there."""

    def upload(self, storage: Storage) -> None:
        """``storage`` was filled from the host."""

    def backward(self, steps: Tape) -> None:
        """A walk back through ``steps`` begins."""

    def checked(self, storage: Storage, check: Callable[[Storage], None]) -> None:
        """``check`` was made of what is known of ``storage``."""

    def draw(self, generator: Any) -> None:
        """A ``Generator`` is about to be drawn from."""

    def leaf_gradient(self, leaf: Slot) -> None:
        """The gradient of ``leaf`` is about to be added to, or to begin."""

    def gradient_seen(self, leaf: Slot) -> None:
        """Somebody looks whether ``leaf`` has a gradient."""

    def gradient_set(self, leaf: Slot, gradient: Slot | None) -> None:
        """``gradient`` is about to take the place of that of ``leaf``."""

    def effect(self, effect: Effect, run: Callable[[], None], undo: Callable[[], None]) -> None:
        """``run`` an effect, which ``undo`` takes back; a replay does ``effect`` instead."""
        run()

    def once(self) -> None:
        """What happens now sets something up, and will not happen in another call."""

    def forbid(self, call: str, reason: str) -> None:
        """Something is about to happen that a replay would not do again."""


class Postponed:
    """In the place of what a step saved: it will be there when backward asks for it."""

    def values(self) -> Saved:
        """What the step would have saved."""
        raise NotImplementedError

    def held(self) -> list[Slot]:
        """What it needs of the call for that."""
        return []

    def forget(self) -> None:
        """Let go of what was made for ``values`` and not taken."""


class Region:
    """A part of a forward pass that has a say in what happens inside, while it is set by ``within``."""

    def called(self, op: type[Op], reads: Sequence[Read], attrs: Mapping[str, Any], scalars: Mapping[str, Any]) -> None:
        """``op`` is called with this."""

    def uploaded(self, values: npt.NDArray[Any]) -> None:
        """A tensor is made of ``values`` of the host."""

    def linked(self, step: Step) -> None:
        """``step`` has got its edges, and what it saved."""

    def once(self, make: Callable[[], T]) -> T:
        """What ``make`` returns, or returned when the same was computed before."""
        return make()

    def may_change(self, storage: Storage) -> bool:
        """Whether ``storage`` may be changed in place; if not, the change is left out."""
        return True


class Deferred:
    """Launches that are held back until all of them are prepared: memory is there, and kernels are built.

    What its steps made and dropped is used again by later steps, which run later. Until the launches are out, nobody
    else may have that memory.
    """

    LARGER = 1.5
    """How much larger than asked for memory may be that is used again."""

    def __init__(self) -> None:
        self.launches: list[Callable[[], Any]] = []
        self.gone = 0  # so many of them are out
        self.adds_from: int | None = None  # the first that adds to a gradient which was there before
        self._free: dict[
            tuple[MemorySpace, bool], dict[int, list[Any]]
        ] = {}  # by whether each is a buffer by itself; by size
        self._kept: list[Any] = []  # what launches read, and nobody else may hold
        self._closed = False

    def take(self, backend: MemorySpace, nbytes: int, alone: bool = False) -> Any:
        """Memory for a value that a step makes; ``alone`` if it must not be a part of a larger buffer."""
        there = self._free.get((backend, alone))
        if there:
            buffers = there.get(nbytes)
            if not buffers:
                near = [size for size, found in there.items() if found and nbytes <= size <= self.LARGER * nbytes]
                buffers = there[min(near)] if near else None
            if buffers:
                return buffers.pop()
        return backend.allocate(nbytes) if alone else backend.reserve(nbytes)

    def give(self, backend: MemorySpace, buffer: Any, nbytes: int, alone: bool = False) -> bool:
        """Take back what ``take`` gave; False if the launches are out, and it can go to whoever asks."""
        if self._closed:
            return False
        self._free.setdefault((backend, alone), {}).setdefault(nbytes, []).append(buffer)
        return True

    def add(self, launch: Callable[[], Any]) -> None:
        self.launches.append(launch)

    def keep(self, value: Any) -> None:
        """Hold ``value`` until the launches are out."""
        self._kept.append(value)

    def add_step(self, step: Step) -> None:
        backend = step.backend
        scratch: list[tuple[Any, int]] = []

        def allocate(nbytes: int) -> Any:
            scratch.append((self.take(backend, nbytes, alone=True), nbytes))
            return scratch[-1][0]

        launches = backend.prepare(step, allocate)
        self.launches.append(partial(backend.launch, launches))
        for buffer, nbytes in scratch:
            self.give(backend, buffer, nbytes, alone=True)

    def launch(self) -> None:
        """Launch what was added since the last time."""
        while self.gone < len(self.launches):
            self.launches[self.gone]()
            self.gone += 1

    def close(self) -> None:
        self._closed = True
        self._free.clear()
        self._kept.clear()
        self.launches.clear()


class Setting:
    """What a mode is set to by ``owner``, a context manager, and what it was set to before."""

    __slots__ = ("before", "owner", "value")

    def __init__(self, value: Any, before: Setting | None = None, owner: object = None) -> None:
        self.value = value
        self.before = before
        self.owner = owner


class _Modes(threading.local):
    grad = Setting(True)
    anomaly = Setting(False)
    backend = Setting(None)  # that tensors are made on, in the place of the process' default
    recorder: Recorder | None = None
    deferred: Deferred | None = None
    regions: tuple[Region, ...] = ()  # the innermost last


modes = _Modes()


class Switch(Generic[T]):
    """Context manager: ``mode``, an attribute of this thread's modes, is ``value`` inside.

    A class and no generator, and one plain store each way: an interrupt comes before the store, or when the block has
    begun.
    """

    __slots__ = ("_before", "_mode", "_value")

    def __init__(self, mode: str, value: T) -> None:
        self._mode = mode
        self._value = value

    def __enter__(self) -> T:
        self._before = getattr(modes, self._mode)
        modes.__dict__[self._mode] = self._value
        return self._value

    def __exit__(self, *exc: object) -> None:
        modes.__dict__[self._mode] = self._before


class ModeContext:
    """Base of what sets one of this thread's modes for a block, or for each call of a function that it decorates.

    One of them may be shared by threads, and entered again inside itself: what to go back to is kept by the thread. A
    block that ends puts its mode back to what it was before, whatever blocks inside left it at.
    """

    mode: str  # the attribute of the thread's modes, a Setting

    def value(self) -> Any:
        """What the mode is set to inside."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        setting = Setting(self.value(), getattr(modes, self.mode), self)
        modes.__dict__[self.mode] = setting  # one store, so that an interrupt comes before it, or inside the block
        return setting.value

    def __exit__(self, *exc: object) -> None:
        mine = modes.__dict__
        # No get(): after a call Python would deliver an interrupt, before the mode is put back.
        setting = mine[self.mode] if self.mode in mine else None  # noqa: SIM401
        while setting is not None and setting.owner is not self:
            setting = setting.before
        if setting is not None:
            mine[self.mode] = setting.before

    def __call__(self, function: Function) -> Function:
        if iscoroutinefunction(function) or isasyncgenfunction(function):
            raise ArgumentError(
                type(self).__name__,
                "a function or a generator function to decorate",
                f"{function.__qualname__} is a coroutine, and others run while it waits",
                "Use a with block inside that awaits nothing.",
            )
        wrapped = self._generator(function) if isgeneratorfunction(function) else self._function(function)
        return cast("Function", wraps(function)(wrapped))

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return call

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The mode is set while the generator runs, and not while it waits."""

        def call(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            resume: Callable[[], Any] = partial(next, generator)
            while True:
                try:
                    with self:
                        item = resume()
                except StopIteration as stop:
                    return stop.value
                try:
                    resume = partial(generator.send, (yield item))
                except GeneratorExit:
                    with self:
                        generator.close()
                    raise
                except BaseException as error:
                    resume = partial(generator.throw, error)

        return call


def recording(recorder: Recorder) -> Switch[Recorder]:
    """Tell ``recorder`` what runs in this thread inside the ``with`` block."""
    return Switch("recorder", recorder)


def recorder() -> Recorder | None:
    """Who is told what runs in this thread."""
    return modes.recorder


def is_recording() -> bool:
    """Whether a recorder is told what runs in this thread."""
    return modes.recorder is not None


def is_rehearsal() -> bool:
    """Whether what runs in this thread is only told to a recorder."""
    return modes.recorder is not None and not modes.recorder.runs


class deferring(Switch[Deferred]):
    """Hold back what this thread launches inside the ``with`` block, at the end of which it must have been launched."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("deferred", Deferred())

    def __exit__(self, *exc: object) -> None:
        modes.deferred = self._before
        self._value.close()


def seen_gradient(leaf: Slot) -> Slot | None:
    """The gradient of ``leaf``; a recorder is told that somebody looks at it."""
    if modes.recorder is not None:
        modes.recorder.gradient_seen(leaf)
    return leaf.gradient()


def set_gradient(leaf: Slot, gradient: Slot | None) -> None:
    """Let ``gradient`` take the place of that of ``leaf``; a recorder is told."""
    if modes.recorder is not None:
        modes.recorder.gradient_set(leaf, gradient)
    leaf.keep_gradient(gradient)


def deferred_launches() -> Deferred:
    """Where launches of this thread are held back."""
    assert modes.deferred is not None
    return modes.deferred


@contextmanager
def not_deferring() -> Iterator[None]:
    """Launch at once inside the ``with`` block: what does not depend on what is held back."""
    before, modes.deferred = modes.deferred, None
    try:
        yield
    finally:
        modes.deferred = before


def launch_deferred() -> None:
    """Launch what is held back, since a value is about to be read."""
    if modes.deferred is not None:
        modes.deferred.launch()


def uploaded(storage: Storage, values: npt.NDArray[Any]) -> None:
    """Tell a recorder and the regions that ``storage`` was filled with ``values`` from the host."""
    for region in modes.regions:
        region.uploaded(values)
    if modes.deferred is not None:
        modes.deferred.keep(storage)
    if modes.recorder is not None:
        modes.recorder.upload(storage)


def checked(storage: Storage, check: Callable[[Storage], None]) -> None:
    """Tell a recorder that ``check`` was made of what is known of ``storage``."""
    if modes.recorder is not None:
        modes.recorder.checked(storage, check)


def will_draw(generator: Any) -> None:
    """Tell a recorder that a ``Generator`` is about to be drawn from."""
    if modes.recorder is not None:
        modes.recorder.draw(generator)


def forbid_in_recording(call: str, reason: str) -> None:
    """Let a recorder refuse ``call``, whose effect a replay would not repeat."""
    if modes.recorder is not None:
        modes.recorder.forbid(call, reason)


def within(*regions: Region) -> Switch[tuple[Region, ...]]:
    """Let these, the innermost last, and no others be the regions of what runs in this thread."""
    return Switch("regions", regions)


def regions() -> tuple[Region, ...]:
    """The regions of what runs in this thread, the innermost last."""
    return modes.regions


def once(make: Callable[[], T]) -> T:
    """What ``make`` returns, random numbers for instance; the same again where a forward pass is computed again."""
    for region in modes.regions:
        make = partial(region.once, make)
    return make()


def may_change(storage: Storage) -> bool:
    """Whether a change of ``storage`` in place is to be made: one that was made before is not made again."""
    return all(region.may_change(storage) for region in modes.regions)


def is_grad_enabled() -> bool:
    """Whether op calls are recorded for backward in this thread."""
    enabled: bool = modes.grad.value
    return enabled


def grad_setting() -> Setting:
    """Whether they are, and what set it so."""
    return modes.grad


def set_grad_setting(setting: Setting) -> None:
    modes.grad = setting


def is_checking_anomalies() -> bool:
    """Whether ``detect_anomaly`` is on in this thread."""
    checking: bool = modes.anomaly.value
    return checking


def chosen_backend() -> MemorySpace | None:
    """The backend that ``use_backend`` chose in this thread."""
    chosen: MemorySpace | None = modes.backend.value
    return chosen


def new_slot(backend: MemorySpace, dtype: DType, shape: Shape, holds: bool = False) -> Slot:
    """A contiguous slot with storage of its own, not yet written; in a rehearsal it has no memory unless it ``holds``
    what comes from the host.
    """
    numel = prod(shape)
    if numel > MAX_ELEMENTS:
        raise ShapeError("tensor", f"at most {MAX_ELEMENTS} elements", f"{shape} has {numel}")
    backend.check_dtype(dtype)
    storage = Storage(backend, numel * dtype.itemsize, holds=holds)
    return Slot(storage, dtype, Layout(shape, shapes.contiguous_strides(shape), 0))


_inferred: dict[Any, tuple[Spec, ...]] = {}


def _infer(op: type[Op], reads: Sequence[Read], attrs: Mapping[str, Any]) -> tuple[Spec, ...]:
    key = (op, tuple([None if r is None else r.key for r in reads]), tuple(attrs.items()))
    specs = _inferred.get(key)
    if specs is None:
        if len(_inferred) > 4096:
            _inferred.clear()
        specs = _inferred[key] = op.infer(*(None if r is None else r.spec for r in reads), **attrs)
    return specs


_kept: dict[Any, tuple[str, ...]] = {}


def _saves_for(op: type[Op], needed: tuple[bool, ...]) -> tuple[str, ...]:
    kept = _kept.get((op, needed))
    if kept is None:
        names = frozenset(name for name, wanted in zip(op.inputs, needed, strict=True) if wanted)
        kept = _kept[op, needed] = op.saves_for(names)
    return kept


def record(
    op: type[Op],
    reads: Sequence[Read],
    attrs: Mapping[str, Any] | None = None,
    scalars: Mapping[str, float] | None = None,
    backend: MemorySpace | None = None,
) -> tuple[Slot, ...]:
    """Call ``op``: infer, allocate, run, and link the outputs to their step if a gradient may be asked for."""
    attrs, scalars = attrs or {}, scalars or {}
    tracked = False
    for read in reads:
        if type(read) is Slot:
            if backend is None:
                backend = read.storage.backend
            elif read.storage.backend is not backend:
                raise BackendError(
                    op.name,
                    "all tensors must be on one backend",
                    f"got {backend.name} and {read.storage.backend.name}",
                    f'Move one, e.g. x.to("{backend.name}").',
                )
            if read.requires_grad:
                tracked = True
                if read.history != read.storage.history and modes.grad.value:
                    raise AutogradError(
                        op.name,
                        "the history of each input must be current",
                        f"an input of shape {read.shape} shares memory with a tensor that was changed in place later",
                        "Take the view again after the change, or use the out-of-place form.",
                    )
    for region in modes.regions:
        region.called(op, reads, attrs, scalars)
    tracked = tracked and modes.grad.value and bool(op.differentiable)
    if op.is_view:
        source = reads[0]
        assert isinstance(source, Slot)
        out = source.alias(op.view(source.layout(), **attrs))
        if tracked:
            link(op, reads, (out,), attrs)
        return (out,)
    assert backend is not None
    specs = _infer(op, reads, attrs)
    outs = tuple([new_slot(backend, dtype, shape) for dtype, shape in specs])
    slots: dict[str, Any] = dict(zip(op.inputs, reads, strict=True))
    slots.update(zip(op.outputs, outs, strict=True))
    step = Step(op, FORWARD, attrs, scalars, slots, op.inputs, op.outputs)
    launch_step(step)
    if tracked:
        kept = _saves_for(op, tuple([read is not None and read.requires_grad for read in reads]))
        saved: Saved = {
            name: (slot := slots[name], version_of(slot)) if name in kept else (None, 0) for name in op.saves
        }
        for name in op.outputs:  # without its history, which is this step: a cycle would keep the memory
            if saved.get(name, (None, 0))[0] is not None:
                saved[name] = (slots[name].alias(), version_of(slots[name]))
        step.saved = saved
        step.slots = {}
        _link(step, reads, outs)
    return outs


def execute(step: Step) -> None:
    """Prepare and launch a step; then tell whoever records."""
    recorder, deferred = modes.recorder, modes.deferred
    if recorder is not None:
        recorder.before(step)
    if recorder is None or recorder.runs:
        if deferred is None:
            backend = step.backend
            backend.launch(backend.prepare(step))
        else:
            deferred.add_step(step)
    if recorder is not None:
        recorder.step(step)


def launch_step(step: Step) -> None:
    """Run a step, after the reads that its kernels cannot walk as they lie were made contiguous."""
    for name in step.reads:
        slot = step.slots[name]
        if type(slot) is Slot and not slot.contiguous and not step.op.walks(slot.strides):
            step.slots[name] = contiguous_copy(slot)
    if any(slot.numel for slot in step.written()):
        execute(step)


def version_of(slot: Slot | Value | None) -> int:
    return slot.storage.version if isinstance(slot, Slot) else 0


def link(op: type[Op], reads: Sequence[Read], outs: tuple[Slot, ...], attrs: Mapping[str, Any]) -> None:
    """Give ``outs`` the history of a step that runs no kernel of its own, if a gradient may be asked for."""
    if modes.grad.value and any(isinstance(read, Slot) and read.requires_grad for read in reads):
        step = Step(op, FORWARD, attrs, {}, {}, (), ())
        step.saved = {}
        _link(step, reads, outs)


def keep_saved(step: Step, storage: Storage) -> None:
    """Copy what ``step`` saved of ``storage``, which is about to be changed."""
    saved = step.saved
    if not isinstance(saved, dict):
        return
    for name, (slot, _) in saved.items():
        if isinstance(slot, Slot) and slot.storage is storage:
            saved[name] = (contiguous_copy(slot), 0)


def _link(step: Step, reads: Sequence[Read], outs: tuple[Slot, ...]) -> None:
    step.edges = tuple(edge_to(read) if isinstance(read, Slot) and read.requires_grad else None for read in reads)
    step.input_specs = tuple(None if read is None else read.spec for read in reads)
    step.output_specs = tuple(out.spec for out in outs)
    for index, out in enumerate(outs):
        if out.dtype.is_floating_point and step.op.outputs[index] not in step.op.hidden:
            out.requires_grad = True
            out.step = step
            out.index = index
    for region in reversed(modes.regions):
        region.linked(step)


def contiguous_copy(slot: Slot) -> Slot:
    """A contiguous copy, outside autograd."""
    copy = registry["clone"]
    out = new_slot(slot.storage.backend, slot.dtype, slot.shape)
    launch_step(Step(copy, FORWARD, {}, {}, {"x": slot, "y": out}, ("x",), ("y",)))
    return out


def write_into(source: Slot | Value, target: Slot, accumulate: bool = False) -> None:
    """Copy ``source`` into ``target``, or add it there; any strides on both sides, ``source`` broadcasts."""
    if target.numel == 0 or not may_change(target.storage):
        return
    if isinstance(source, Slot) and source.storage is target.storage and source.layout() != target.layout():
        source = contiguous_copy(source)  # the two may overlap
    for region in modes.regions:
        region.called(registry["clone"], (source, target), {"accumulate": accumulate}, {})
    names: frozenset[str] = frozenset(("dx",)) if accumulate else frozenset()
    execute(Step(registry["clone"], BACKWARD, {}, {}, {"dy": source, "dx": target}, ("dy",), ("dx",), names))
    target.storage.version += 1


def mark_torn(gradients: Sequence[Slot], error: BaseException, first: int) -> None:
    """Say of gradients that a part of a sample may have been added to them, and the rest not, because of ``error``.

    That is so only if the ``first`` launch that adds to one was carried out, as far as the backend says.
    """
    if not gradients or (isinstance(error, Exception) and getattr(error, "launched", first + 1) <= first):
        return
    for gradient in gradients:
        gradient.storage.torn = True
    note_leaf_change()
    text = "The sample was added to the gradients in part: an optimizer refuses them until discard()."
    if isinstance(error, TinyedgeError):
        error.remedy = f"{text} {error.remedy}"
    elif hasattr(error, "add_note"):
        error.add_note(text)


class Gradient:
    """A gradient on its way: ``owned`` if its storage is nobody else's, so that more may be added in place."""

    __slots__ = ("owned", "slot")

    def __init__(self, slot: Slot, owned: bool) -> None:
        self.slot = slot
        self.owned = owned


class Walk:
    """The reverse walk: gradients on their way to the steps before, and to the leaves.

    ``boundary`` are leaves, by id, whose gradients stay with the walk, as do those of steps that are not walked.
    """

    def __init__(self, boundary: Collection[int] = (), retain_graph: bool = False) -> None:
        self.boundary = boundary
        self.retain_graph = retain_graph
        self.pending: dict[tuple[int, int], Gradient] = {}
        self.leaves: dict[int, tuple[Slot, Slot]] = {}  # each, and where its gradient will be when the walk is over

    @staticmethod
    def key(edge: Edge) -> tuple[int, int]:
        """The step and output that an edge comes from, by number; or the leaf."""
        step, index, leaf = edge
        return (-1, id(leaf)) if step is None else (step.number, index)

    def _is_pending(self, edge: Edge) -> bool:
        return edge[2] is None or id(edge[2]) in self.boundary

    def target(self, edge: Edge, spec: Spec, backend: MemorySpace) -> tuple[Slot, bool]:
        """Where a kernel shall put the gradient of ``edge``, and whether it shall add to what is there."""
        leaf = edge[2]
        if leaf is not None and not self._is_pending(edge):
            return self.leaf_target(leaf, spec, backend)
        key = self.key(edge)
        there = self.pending.get(key)
        if there is None:
            there = self.pending[key] = Gradient(new_slot(backend, spec.dtype, spec.shape), True)
            return there.slot, False
        if not there.owned:
            self.pending[key] = there = Gradient(contiguous_copy(there.slot), True)
        return there.slot, True

    def leaf_target(self, leaf: Slot, spec: Spec, backend: MemorySpace) -> tuple[Slot, bool]:
        known = self.leaves.get(id(leaf))
        if known is not None:
            return known[1], True
        if modes.recorder is not None:
            modes.recorder.leaf_gradient(leaf)
        adds = leaf.grad is not None
        if adds and modes.deferred is not None and modes.deferred.adds_from is None:
            modes.deferred.adds_from = len(modes.deferred.launches)
        target = leaf.grad if leaf.grad is not None else new_slot(backend, spec.dtype, spec.shape)
        self.leaves[id(leaf)] = leaf, target
        return target, adds

    def deliver(self, edge: Edge, slot: Slot, spec: Spec, owned: bool) -> None:
        """Pass on a gradient that is already computed: as it is if it is the first, else added."""
        leaf = edge[2]
        if leaf is None or self._is_pending(edge):
            key = self.key(edge)
            if key not in self.pending:
                self.pending[key] = Gradient(slot, owned and slot.contiguous)
                return
        elif (
            leaf.grad is None
            and id(leaf) not in self.leaves
            and owned
            and slot.contiguous
            and slot.nbytes == slot.storage.nbytes
            and modes.recorder is None  # a replay may find a gradient there, to which a kernel must add
        ):
            self.leaves[id(leaf)] = leaf, slot
            return
        target, accumulate = self.target(edge, spec, slot.storage.backend)
        write_into(slot, target, accumulate)

    def finish(self, deferred: Deferred) -> None:
        """Launch what the walk consists of, and let the leaves have their gradients."""
        there = [gradient for leaf, gradient in self.leaves.values() if leaf.grad is gradient]
        with _finishing:  # what two threads add to one leaf is added in turn
            try:
                deferred.launch()
            except BaseException as error:
                error.__dict__["launched"] = deferred.gone
                mark_torn(there, error, deferred.adds_from or 0)
                raise
            for gradient in there:
                gradient.storage.version += 1
            for leaf, gradient in self.leaves.values():
                if leaf.grad is None:
                    leaf.keep_gradient(gradient)
                elif leaf.grad is not gradient:  # another thread was faster
                    write_into(gradient, leaf.grad, accumulate=True)
            deferred.launch()


_finishing = threading.RLock()


class OwnBackward(Step):
    """A step whose gradients do not come from its op: it walks back by itself."""

    __slots__ = ()

    def walk_back(self, walk: Walk, gradients: Sequence[Gradient | None]) -> None:
        """Turn the gradients of the outputs into those of the inputs, and pass these on."""
        raise NotImplementedError

    def walk_alone(self) -> bool:
        """Do all of a walk back from the only output, with a gradient of 1, if nothing else takes part; then forget."""
        return False


def edge_to(slot: Slot) -> Edge:
    """What a step that reads ``slot`` keeps of it for backward."""
    return slot.step, slot.index, slot if slot.step is None else None


def backward(root: Slot, gradient: Slot | None, retain_graph: bool = False) -> None:
    """Walk the tape that leads to ``root`` once in reverse, adding gradients into the leaves; None stands for ones.

    Everything is checked, allocated and built before the first launch: what fails until then changes nothing. If the
    device refuses a launch in the middle, the gradients that were added to are marked as ``torn``.
    """
    plain = gradient is None and not retain_graph and modes.recorder is None and modes.deferred is None
    if plain and isinstance(root.step, OwnBackward) and root.step.walk_alone():
        return
    steps = Tape.leading_to([root])
    if modes.recorder is not None:
        modes.recorder.backward(steps)
    with deferring() as deferred:
        if gradient is None:
            gradient = new_slot(root.storage.backend, root.dtype, root.shape)
            write_into(Value(1.0, root.dtype), gradient)
        walk = Walk(retain_graph=retain_graph)
        walk.deliver(edge_to(root), gradient, root.spec, owned=False)
        walk_back(walk, steps)
        walk.finish(deferred)
    if not retain_graph:
        for step in steps:
            step.forget()


def walk_back(walk: Walk, steps: Tape) -> None:
    """Turn the gradients with which ``walk`` begins into those that ``steps`` were computed from."""
    for step in reversed(steps):
        gradients = [walk.pending.pop((step.number, index), None) for index in range(len(step.output_specs))]
        if any(item is not None for item in gradients):
            if isinstance(step, OwnBackward):
                step.walk_back(walk, gradients)
            else:
                step_back(walk, step, gradients)


def require_saved(step: Step) -> None:
    if step.saved is None:
        raise AutogradError(
            "backward",
            "each recorded graph can be walked once",
            f"what {step.op.name} saved was already freed",
            "Call backward(retain_graph=True) the first time, or compute the loss again.",
        )


def step_back(walk: Walk, step: Step, gradients: Sequence[Gradient | None]) -> None:
    """Turn the gradients of a step's outputs into those of its inputs, and pass these on."""
    op = step.op
    require_saved(step)
    slots: dict[str, Any] = {"d" + name: None if g is None else g.slot for name, g in zip(op.outputs, gradients)}
    dy = next(gradient for gradient in gradients if gradient is not None)
    kernels: list[tuple[str, Edge, Spec]] = []
    views: list[tuple[Edge, Spec, Slot]] = []
    for index, (edge, spec) in enumerate(zip(step.edges, step.input_specs, strict=True)):
        if edge is None or spec is None:
            continue
        layout = op.gradient_view(index, dy.slot.layout(), spec.shape, step.attrs)
        if layout is not None and spec.dtype is dy.slot.dtype:
            views.append((edge, spec, dy.slot.alias(layout)))
        elif op.scatters:
            _scatter(walk, step, dy.slot, edge, spec)
        elif op.inputs[index] in op.differentiable:
            kernels.append((op.inputs[index], edge, spec))
    if kernels:
        _run_backward(walk, step, slots, kernels, dy.slot.storage.backend)
    for edge, spec, slot in views:
        walk.deliver(edge, slot, spec, owned=dy.owned and len(views) == 1)


def _run_backward(
    walk: Walk, step: Step, slots: dict[str, Any], wanted: list[tuple[str, Edge, Spec]], backend: MemorySpace
) -> None:
    """Run the op's backward, its gradients stored or added where they belong."""
    op = step.op
    kept = step.saved.values() if isinstance(step.saved, Postponed) else step.saved
    assert kept is not None
    for name, (saved, version) in kept.items():
        if version_of(saved) != version:
            raise AutogradError(
                "backward",
                f"what {op.name} saved for its gradient must not change",
                f"its {name!r} of shape {saved.shape if saved is not None else ()} was changed in place afterwards "
                f"(version {version_of(saved)}, saved at {version})",
                "Use the out-of-place form, or change a clone().",
            )
        slots[name] = saved
    reads = tuple(slots)
    writes: list[str] = []
    accumulate: list[str] = []
    taken: set[Any] = set()
    again: list[tuple[Edge, Slot, Spec]] = []
    for name, edge, spec in wanted:
        identity: Any = id(edge[2]) if edge[0] is None else (edge[0].number, edge[1])
        if identity in taken:  # one tensor in two places of one call: its two gradients may not race in one kernel
            target, adds = new_slot(backend, spec.dtype, spec.shape), False
            again.append((edge, target, spec))
        else:
            target, adds = walk.target(edge, spec, backend)
            taken.add(identity)
        slots["d" + name] = target
        writes.append("d" + name)
        if adds:
            accumulate.append("d" + name)
    launch_step(Step(op, BACKWARD, step.attrs, step.scalars, slots, reads, tuple(writes), frozenset(accumulate)))
    for edge, target, spec in again:
        walk.deliver(edge, target, spec, owned=True)


def _scatter(walk: Walk, step: Step, dy: Slot, edge: Edge, spec: Spec) -> None:
    """The gradient of a view: ``dy`` in the same view of it, and zeros where that does not reach."""
    target, accumulate = walk.target(edge, spec, dy.storage.backend)
    covers = dy.numel == target.numel
    if not accumulate and not covers:
        write_into(Value(0, spec.dtype), target)
    view = target.alias(step.op.view(target.layout(), **step.attrs))
    write_into(dy, view, accumulate=accumulate or not covers)
