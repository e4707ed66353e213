"""Values and the memory they lie in: Slot (a typed, strided view), Storage (bytes), MemorySpace (a backend's memory).

In: a backend's buffers. Out: what steps read and write. Storages and steps are numbered in one sequence, so that
numbers tell what is older. A Storage's ``version`` counts changes in place, by which backward finds stale saved values.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count
from math import prod
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tinyedge import shapes
from tinyedge.dtypes import DType, uint8
from tinyedge.errors import ArgumentError
from tinyedge.ir.modes import modes
from tinyedge.shapes import Shape

_serial = count()


def next_number() -> int:
    """A number greater than that of every storage and step so far."""
    return next(_serial)


class Memory:
    """Counts the bytes in use on a device, and their peak since the last reset.

    ``allocated_bytes`` belong to tensors and arenas that are alive. ``reserved_bytes`` are what the driver holds for
    them: also buffers kept for reuse, unused parts of slabs, and small tables for kernels; but not built programs.
    """

    def __init__(self) -> None:
        self.allocated_bytes = 0
        self.peak_bytes = 0
        self.reserved_bytes = 0
        self.peak_reserved_bytes = 0

    def add(self, nbytes: int) -> None:
        """Count ``nbytes`` that came into use."""
        self.allocated_bytes += nbytes
        if self.allocated_bytes > self.peak_bytes:
            self.peak_bytes = self.allocated_bytes

    def remove(self, nbytes: int) -> None:
        """Count ``nbytes`` that are no longer in use."""
        self.allocated_bytes -= nbytes

    def reserve(self, nbytes: int) -> None:
        """Count ``nbytes`` more that the driver gave."""
        self.reserved_bytes += nbytes
        if self.reserved_bytes > self.peak_reserved_bytes:
            self.peak_reserved_bytes = self.reserved_bytes

    def unreserve(self, nbytes: int) -> None:
        """Count ``nbytes`` that were returned to the driver."""
        self.reserved_bytes -= nbytes

    def reset_peak(self) -> None:
        """Let the peaks begin from what is in use now."""
        self.peak_bytes = self.allocated_bytes
        self.peak_reserved_bytes = self.reserved_bytes


class MemorySpace:
    """The memory side of a backend: it allocates, copies in and out, and counts bytes."""

    name: str = ""
    description: str = ""
    device: Any = None  # a Device: what kernels are written for; None where a step is run as a whole
    largest_bytes: int | None = None  # the most that it gives in one piece; None: whatever there is
    counts_to: int | None = None  # elements of one piece that its kernels can tell apart; None: any number

    def __init__(self) -> None:
        self.memory = Memory()
        self.inferred: dict[Any, Any] = {}  # of calls that were made here, by dispatch

    def __repr__(self) -> str:
        return f"<Backend {self.name}: {self.description}>"

    def check_dtype(self, dtype: DType) -> None:
        """Raise DtypeError if this backend cannot store values of ``dtype``."""

    def allocate(self, nbytes: int) -> Any:
        """A buffer of at least ``nbytes`` bytes, with undefined contents."""
        raise NotImplementedError

    def reserve(self, nbytes: int) -> Any:
        """Memory for one value: a buffer, or a part of a slab that small values share."""
        return self.allocate(nbytes)

    def release(self, buffer: Any, nbytes: int) -> None:
        """Called when the last view of ``buffer`` is gone; a program may use the buffer again for its next result."""

    def trim(self) -> None:
        """Return memory that is kept for reuse to the device."""

    def write(self, storage: Storage, array: np.ndarray[Any, Any]) -> None:
        """Fill ``storage`` with the bytes of a contiguous array."""
        raise NotImplementedError

    def read(self, slot: Slot) -> np.ndarray[Any, Any]:
        """The values of a contiguous slot, after everything that was launched before."""
        raise NotImplementedError

    def finish(self) -> None:
        """Wait until everything launched so far has finished."""


class Family:
    """Tensors that autograd takes for views of each other: all in a storage, but for what was detached, and its views.

    ``history`` counts the changes in place that autograd recorded: a slot made before one of them is stale. ``current``
    is what all of the storage holds since the last of them, if that is known.
    """

    __slots__ = ("current", "history")

    def __init__(self) -> None:
        self.history = 0
        self.current: Current | None = None


class Storage(Family):
    """Bytes on a backend, shared by all views of them. ``version`` counts the changes made in place.

    ``alone``: the bytes must be a buffer of their own, not a part of a slab. ``holds``: they come from the host, and so
    are allocated in abstract tracing too.
    """

    __slots__ = (
        "__weakref__",
        "backend",
        "bounds",
        "buffer",
        "deferred",
        "handles",
        "nbytes",
        "number",
        "recorded",
        "renewed",
        "torn",
        "version",
    )

    def __init__(self, backend: MemorySpace, nbytes: int, alone: bool = False, holds: bool = False) -> None:
        self.backend = backend
        self.nbytes = 0  # so that __del__ is right if the allocation fails
        self.buffer: Any = None
        deferred, told = modes.deferred, modes.recorder
        self.deferred = deferred
        # What is empty costs nothing, and kernels may get it as an argument though no step ever fills it.
        if holds or told is None or told.allocates or (alone and told.runs) or not nbytes:
            if deferred is not None and not alone and not holds:
                self.buffer = deferred.take(backend, nbytes)
            else:
                self.buffer = backend.allocate(nbytes) if alone else backend.reserve(nbytes)
            backend.memory.add(nbytes)
        self.nbytes = nbytes
        self.torn = False  # a gradient to which only a part of a backward pass was added
        self.number = next(_serial)  # storages and steps are numbered together, in the order in which they were made
        self.version = 0
        self.handles: list[Any] | None = None  # weak references to tensors that were taken from the leaf of it
        # For integers from the host, at version 0: the two smallest and the two largest values, for bounds checks; and
        # 0, if that is among the others.
        self.bounds: tuple[int, ...] | None = None
        self.history = self.recorded = 0  # ``recorded`` counts the changes of all families in it
        self.current: Current | None = None
        self.renewed = 0  # the version at which all of it was last overwritten: zeroed, or copied into
        if self.buffer is None and told is not None and told.runs and told.holding is not None:
            told.holding.postpone(self)

    @classmethod
    def over(cls, backend: MemorySpace, buffer: Any) -> Storage:
        """A storage over memory that it does not own."""
        self = object.__new__(cls)
        self.backend, self.buffer, self.nbytes, self.deferred, self.torn = backend, buffer, 0, None, False
        self.number, self.version, self.bounds, self.renewed = next(_serial), 0, None, 0
        self.history, self.recorded, self.current, self.handles = 0, 0, None, None
        return self

    @classmethod
    def again(cls, backend: MemorySpace, buffer: Any, nbytes: int) -> Storage:
        """A storage in the kept memory of one that is gone."""
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
    """A number that changes when any leaf tensor gets another slot, ``requires_grad`` flag or gradient buffer. What was
    learnt about leaves stays true as long as it does not change. New values in the same place do not change it.
    """
    return _leaf_changes


def note_leaf_change() -> None:
    """Must be called after each such change of a tensor that others may have looked at."""
    global _leaf_changes
    _leaf_changes = next(_serial)


class Extent(NamedTuple):
    """A contiguous array's size, and what a slot over all of it holds."""

    dtype: DType
    shape: Shape
    strides: Shape
    numel: int
    nbytes: int
    key: tuple[Any, ...]


@lru_cache(maxsize=8192)
def extent_of(dtype: DType, shape: Shape) -> Extent:
    numel, strides = prod(shape), shapes.contiguous_strides(shape)
    return Extent(dtype, shape, strides, numel, numel * dtype.itemsize, (dtype, shape, strides))


class Slot:
    """A value's place: a typed, strided view of a Storage."""

    __slots__ = (
        "__weakref__",
        "cleared",
        "contiguous",
        "dtype",
        "family",
        "grad",
        "history",
        "hooks",
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
        self.number = next(_serial)
        self.numel = prod(self.shape)
        self.contiguous = shapes.is_contiguous(self.shape, self.strides)
        self.key: tuple[Any, ...] = (dtype, self.shape, self.strides)
        self.family: Family = storage
        self.history = storage.history
        self.requires_grad = False
        self.grad: Slot | None = None  # of a leaf: the buffer of its gradient; ``gradient()`` says whether there is one
        self.cleared = -1  # of a gradient: the version at which an update cleared it
        self.step: Any = None  # the Step that wrote it; None for a leaf
        self.index = 0  # the number of that step's output
        self.hooks: Any = None  # of a leaf: its Hooks

    @classmethod
    def whole(cls, storage: Storage, extent: Extent) -> Slot:
        """All of a new storage, in C order: what ``Slot(...)`` makes, with nothing to compute."""
        self = object.__new__(cls)
        self.storage = self.family = storage
        self.dtype, self.shape, self.strides, self.numel, _, self.key = extent
        self.offset = self.history = self.index = 0
        self.number = next(_serial)
        self.contiguous = True
        self.requires_grad = False
        self.grad = self.step = self.hooks = None
        self.cleared = -1
        return self

    def keep_gradient(self, gradient: Slot | None) -> None:
        """Use ``gradient`` as this leaf's gradient buffer from now on."""
        self.grad = gradient
        note_leaf_change()

    def gradient(self) -> Slot | None:
        """This leaf's gradient; None also if an update cleared it, and nothing was added since.

        A cleared buffer is filled with zeros and kept, so that later additions, also by programs, find it at the same
        place.
        """
        found = self.grad
        return None if found is None or found.cleared == found.storage.version else found

    def clear(self) -> None:
        """Mark a gradient buffer, which was filled with zeros, as holding no gradient until something is added."""
        self.cleared = self.storage.version

    @property
    def nbytes(self) -> int:
        """The bytes of its elements, without gaps between them."""
        dtype = self.dtype
        return self.numel * dtype.stored.itemsize if dtype.blocks is None else dtype.nbytes_of(self.numel)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded step wrote it."""
        return self.step is None

    @property
    def spec(self) -> Spec:
        return Spec(self.dtype, self.shape)

    @property
    def extent_bytes(self) -> int:
        """Bytes from the start of the storage to the end of the last element."""
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        return self.dtype.nbytes_of(last + 1) if self.numel else 0

    def alias(self, layout: Layout | None = None) -> Slot:
        """Another view of the same storage, without history."""
        other = Slot(self.storage, self.dtype, layout or Layout(self.shape, self.strides, self.offset))
        if self.family is not self.storage:
            other.family, other.history = self.family, self.family.history
        return other

    def detached(self) -> Slot:
        """Another view of the same storage, in a family of its own."""
        other = Slot(self.storage, self.dtype, Layout(self.shape, self.strides, self.offset))
        other.family, other.history = Family(), 0
        return other

    def within(self, storage: Storage) -> Slot:
        """The same view of another storage, without history. What follows from the layout is not computed again."""
        other = object.__new__(Slot)
        other.storage, other.dtype, other.key, other.contiguous = storage, self.dtype, self.key, self.contiguous
        other.shape, other.strides, other.offset, other.numel = self.shape, self.strides, self.offset, self.numel
        other.number, other.family, other.history = next(_serial), storage, storage.history
        other.requires_grad, other.grad, other.cleared, other.step, other.index = False, None, -1, None, 0
        other.hooks = None
        return other

    def as_bytes(self) -> Slot:
        """The memory of a quantised value, which is always the whole of its storage, as bytes."""
        assert not self.offset
        return Slot(self.storage, uint8, Layout((self.extent_bytes,), (1,), 0))

    def layout(self) -> Layout:
        return Layout(self.shape, self.strides, self.offset)


class SlotHolder:
    """What the user holds of a slot; see ``Tensor``."""

    __slots__ = ()

    _slot: Slot


class Value:
    """A Python number where an op takes a tensor: it is passed to the kernel by value."""

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


class Spec(NamedTuple):
    """A value's type: dtype and shape, without its place in memory."""

    dtype: DType
    shape: Shape


class Current(NamedTuple):
    """What a family's storage holds since a change in place: a step's output, or values without a history."""

    step: Any
    output: int
    spec: Spec


class Layout(NamedTuple):
    """A view's place inside a buffer; strides and offset in elements."""

    shape: Shape
    strides: Shape
    offset: int
