"""KernelSpec: what an op says about one kernel, as data, without a device's handles and without memory.

In: an op's ``kernels_forward`` and ``kernels_backward`` return KernelSpecs. Out: a backend renders their OpenCL C,
builds it, and binds the buffers of a step. Sizes are arguments of the kernel, so that a new shape needs no new build
(unless a program specialises shapes); ``constants`` choose the source, so each set of them is built once. What
scheduling needs to know about a kernel is stated here: work-group size, hooks for fusion, in-place reuse, register
weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from tinyedge.shapes import Shape

MAX_RANK = 8
"""The most axes of a table (shape, strides) that a kernel takes, after axes were merged."""


LOCAL_ALIGNMENT = 16
"""Of an array in local memory, in bytes: what vectors of four floats need."""

C_BYTES = {"char": 1, "uchar": 1, "short": 2, "int": 4, "uint": 4, "long": 8, "float": 4, "double": 8}
"""OpenCL C's types, and the bytes of each."""


@dataclass(frozen=True)
class Device:
    """What a lowering may know of the device for which it writes kernels."""

    kind: str  # "cpu" or "gpu"
    vector_width: int  # floats that one work-item should load at once when it streams memory
    native_width: int  # floats in one vector register
    compute_units: int
    max_work_group: int
    local_bytes: int
    group_items: int = 64  # work-group size of kernels that can choose; every kernel is correct with 64
    order: str = ""  # how work-groups synchronise in a persistent kernel (a key of persistent.ORDERS); "": they cannot
    tuned: Mapping[Any, Any] = field(default_factory=dict, compare=False)  # tuning cache: the fastest tile by product
    limits: dict[tuple[str, str], int] = field(default_factory=dict, compare=False)
    """By op and direction: the largest work-group that the device runs these kernels with, where that is less."""

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"

    @property
    def persistent(self) -> bool:
        """Whether dependent kernels can share a launch (a persistent kernel), if their groups have ``group_items``."""
        return bool(self.order)

    def limited(self, op: str, direction: str) -> Device:
        """The device as the lowering of an op must take it, with that op's work-group limit."""
        limit = self.limits.get((op, direction))
        return self if limit is None or limit >= self.max_work_group else replace(self, max_work_group=max(limit, 1))

    def group(self) -> int:
        """A work-group size that this device takes."""
        size = self.group_items
        while size > self.max_work_group:
            size //= 2
        return max(size, 1)


@dataclass(frozen=True)
class Scratch:
    """Scratch memory: it lives from the first kernel of a step to the last."""

    name: str
    ctype: str
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * C_BYTES[self.ctype]


@dataclass(frozen=True)
class LocalArray:
    """Memory that the work-items of a group share, as the kernel's text names it."""

    name: str
    ctype: str  # a vector, too
    extents: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        scalar = self.ctype.rstrip("0123456789")
        return int(self.ctype[len(scalar) :] or 1) * C_BYTES[scalar] * prod(self.extents)


def local_bytes_of(arrays: Iterable[LocalArray]) -> int:
    """Bytes of local memory, each array from a multiple of LOCAL_ALIGNMENT on."""
    return sum(round_up(array.nbytes, LOCAL_ALIGNMENT) for array in arrays)


@dataclass(frozen=True)
class Pointwise:
    """A pointwise kernel's computation: for each output a C expression over the inputs' elements.

    It computes in the float type ``ctype``; bools and small integers are converted at loads and stores. ``strides`` of
    each operand walk ``shape``, and are 0 where an operand is broadcast. ``sizes`` are further ints that the
    expressions mention.
    """

    shape: Shape
    expressions: Mapping[str, str]
    inputs: tuple[str, ...]
    values: tuple[str, ...]  # inputs that are Python numbers
    strides: Mapping[str, Shape]
    sizes: Mapping[str, int]
    ctype: str


@dataclass(frozen=True)
class KernelSpec:
    """One kernel of a step, as data.

    ``kernel``: the function's name, and the Jinja variable that picks its part of ``template``.
    ``buffers``: names of slots of the step (or of scratch memory), in argument order.
    ``global_size``, ``local_size``: the geometry of the launch, in work-items.
    ``sizes``: arguments of type int. ``scalars``: numbers that may change from call to call, with their C types.
    ``tables``: short lists of ints (shapes, strides) in constant memory. ``constants``: they choose the source.
    ``hooked``: buffers that the kernel accesses only through LOAD_x and STORE_x, by element index, and stores once per
        element. There the compiler may inline pointwise ops as prologues and epilogues.
    ``runs``: for some of these, a run length. Within the scope of HOLD_x(i) the kernel touches only the aligned run
        that contains element i, so a prologue loads an operand that is constant over the run only once.
    ``in_place``: for an output, the inputs of the same layout that may share its bytes, since a work-item reads an
        element of them for the last time before it stores the output's element at the same place.
    ``pointwise``: the kernel is pointwise, and can be inlined into others.
    ``local``: the memory that the work-items of a group share. ``grouped``: it matters which work-items make a group,
        since they share memory, meet at barriers, or ask for the group's number.
    ``is_heavy``: its work-items use so many registers that it would slow down other kernels of a persistent kernel.
    ``reports``: the call in whose name the kernel reports an index outside its range; "" if it reports none.
    ``flops``: its part of ``Op.flops``, where the kernels of a step differ in kind; None: a share of the remainder.
    """

    kernel: str
    template: str
    buffers: tuple[str, ...]
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    scalars: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    scratch: tuple[Scratch, ...] = ()
    hooked: tuple[str, ...] = ()
    runs: Mapping[str, int] = field(default_factory=dict)
    in_place: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pointwise: Pointwise | None = None
    local: tuple[LocalArray, ...] = ()
    grouped: bool = False
    reports: str = ""
    flops: int | None = None
    is_heavy: bool = False

    @property
    def local_bytes(self) -> int:
        return local_bytes_of(self.local)

    @property
    def has_double(self) -> bool:
        """Whether it computes with doubles, whatever its buffers hold: ``constants["real"]`` is what it computes in."""
        ctypes = {item.ctype for item in self.scratch} | {array.ctype.rstrip("0123456789") for array in self.local}
        return "double" in (self.constants.get("real"), *ctypes, *self.scalars.values())


@dataclass(frozen=True)
class Operand:
    """An argument of a kernel, as its template sees it.

    ``kind`` is read, write, accumulate (a gradient) or scratch for buffers; value, scalar or size for numbers; inlined
    for what is no argument, because a block computes it. All operands ``in_arena`` share one buffer argument, because
    buffers are the most expensive part of a launch for a driver. ``packed``: the format of its elements in memory,
    where that is not ``ctype``.
    """

    name: str
    ctype: str
    kind: str
    in_arena: bool = False
    packed: str = ""


def round_up(value: int, multiple: int) -> int:
    """The least multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


def even_share(total: int, most: int, unit: int) -> int:
    """The size of blocks of at most ``most``, in whole units but at least one, so that ``total`` takes blocks that are
    nearly equal.
    """
    most = max(most // unit * unit, unit)
    return min(most, round_up(-(-total // -(-total // most)), unit))


def power_of_two(value: int) -> int:
    """The least power of two that is at least ``value``."""
    return 1 << max(value - 1, 0).bit_length()


def lines_grid(lines: int, columns: int, group: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Global and local size of a launch with a work-item for each element of ``lines`` lines: none divides to find its
    line, and short lines share a work-group.
    """
    across = min(group, max(columns, 1))
    local = (across, min(max(group // across, 1), max(lines, 1)))
    return (round_up(columns, local[0]), round_up(lines, local[1])), local


def grid(count: int, group: int) -> tuple[tuple[int], tuple[int]]:
    """Global and local size of a one-dimensional launch of at least ``count`` work-items."""
    group = min(group, max(count, 1))
    return (round_up(max(count, 1), group),), (group,)
