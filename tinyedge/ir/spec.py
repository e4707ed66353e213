"""What an op says about one kernel, without a device and without memory.

An op's ``kernels_forward`` and ``kernels_backward`` return KernelSpecs; a backend renders their source, builds it,
and binds the buffers of a step to it. Sizes are arguments of the kernel, so that a new shape does not cost a build;
constants choose the source, so each set of them is built once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from tinyedge.shapes import Shape

MAX_RANK = 8
"""The longest table (shape, strides) that a kernel takes, after axes were merged."""


LOCAL_ALIGNMENT = 16
"""Of an array in local memory, in bytes: what vectors of four floats need."""

C_BYTES = {"char": 1, "uchar": 1, "short": 2, "int": 4, "uint": 4, "long": 8, "float": 4, "double": 8}
"""OpenCL C's types, and the bytes of one."""


@dataclass(frozen=True)
class Device:
    """What a lowering may know of the device that it writes for."""

    kind: str  # "cpu" or "gpu"
    vector_width: int  # floats that one work-item should load at once when it streams
    native_width: int  # floats in one of its vector registers
    compute_units: int
    max_work_group: int
    local_bytes: int
    group_items: int = 64  # in a group of a kernel that can choose; every kernel here is right with 64
    order: str = ""  # how groups of one launch may wait for each other (see shared.ORDERS); "": not at all
    tuned: Mapping[Any, Any] = field(default_factory=dict, compare=False)  # the tile measured best for a product
    limits: dict[tuple[str, str], int] = field(default_factory=dict, compare=False)
    """By op and direction: the most work-items in a group with which it runs the kernels, if those are fewer."""

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"

    @property
    def persistent(self) -> bool:
        """Whether kernels that depend on each other can share a launch: those whose groups are of ``group_items``."""
        return bool(self.order)

    def limited(self, op: str, direction: str) -> Device:
        """The device as the kernels of an op find it."""
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
    """Memory that lives from the first kernel of a step to the last."""

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


@dataclass(frozen=True)
class Pointwise:
    """What a pointwise kernel computes: for each output its C expression over the inputs at the same place of
    ``shape``.

    It computes in the floats ``ctype``; bools and small integers are converted as they are loaded and stored.
    ``strides`` of each input and output walk ``shape``, 0 where an operand is repeated. ``sizes`` are further ints that
    the expressions mention.
    """

    shape: Shape
    expressions: Mapping[str, str]
    inputs: tuple[str, ...]
    values: tuple[str, ...]  # inputs that are numbers
    strides: Mapping[str, Shape]
    sizes: Mapping[str, int]
    ctype: str


@dataclass(frozen=True)
class KernelSpec:
    """One kernel of a step.

    ``kernel`` is its function name, and the Jinja variable that picks its part of ``template``. ``buffers`` names
    slots of the step (or scratch) in argument order. ``sizes`` are passed as ints; ``scalars`` are named numbers of
    the step that may change from call to call, with their C types; ``tables`` are short int lists (shapes, strides)
    in constant memory. ``hooked`` names the buffers that the kernel touches through their hooks alone, by the index of
    an element in the buffer, and of those that it writes, each element once: there a plan may inline other ops.
    ``runs`` gives, for some of them, a length: the kernel says HOLD_x(i) in a scope where it touches only elements of
    one aligned run of so many, that of i; what is the same for all of the run is loaded there, once.
    ``in_place`` gives, for some that it writes, those of the same layout of which it reads an element for the last time
    in the work-item that stores the one at that place, and before: the two may have the same bytes.
    ``pointwise`` says that the kernel is pointwise, and can be inlined.
    ``local`` is the memory that a group's work-items share. ``grouped`` says that it matters which work-items make a
    group: they share memory, meet at barriers, or ask for the group's number.
    ``is_heavy`` says that its work-items take so many registers that kernels which share its launch would suffer.
    ``flops`` is its part of ``Op.flops``, where a step's kernels differ in kind; None: a share of what is left.
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
    flops: int | None = None
    is_heavy: bool = False

    @property
    def local_bytes(self) -> int:
        """Of local memory, each array from a multiple of LOCAL_ALIGNMENT on."""
        return sum(round_up(array.nbytes, LOCAL_ALIGNMENT) for array in self.local)


@dataclass(frozen=True)
class Operand:
    """An operand as its template sees it.

    ``kind`` is read, write, accumulate (a gradient) or scratch, which are buffers; value, scalar or size, which are
    numbers; or inlined, which is no argument: blocks stand at its hooks. Those in the arena of a program share one
    argument: what costs a driver most in a launch is its buffers.
    """

    name: str
    ctype: str
    kind: str
    in_arena: bool = False


def round_up(value: int, multiple: int) -> int:
    """The least multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


def power_of_two(value: int) -> int:
    """The least power of two that is at least ``value``."""
    return 1 << max(value - 1, 0).bit_length()


def grid(count: int, group: int) -> tuple[tuple[int], tuple[int]]:
    """Global and local size of a one-dimensional launch of at least ``count`` work-items."""
    group = min(group, max(count, 1))
    return (round_up(max(count, 1), group),), (group,)
