"""Shape arithmetic on tuples: broadcasting, strides, and the geometry of sliding windows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod

from tinyedge.errors import ArgumentError, AxisError, NumberRangeError, ShapeError

Shape = tuple[int, ...]

INT_MAX = 2**31 - 1
"""The largest size, stride or offset: kernels index with 32-bit ints, since small devices are slow with longer ones."""

MAX_ELEMENTS = INT_MAX + 1 - 2**16
"""Of one value. Work-items behind its end count on for as much as a work-group takes, of vectors of 16 at most."""


@lru_cache(maxsize=8192)
def contiguous_strides(shape: Shape) -> Shape:
    """Strides, in elements, of a C-ordered array."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)


@lru_cache(maxsize=8192)
def is_contiguous(shape: Shape, strides: Shape) -> bool:
    """Whether the elements lie in C order without gaps; strides of axes of length one do not matter."""
    if 0 in shape:
        return True
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def broadcast(call: str, *shapes: Shape) -> Shape:
    """The shape that all ``shapes`` broadcast to, by NumPy's rule."""
    rank = max((len(shape) for shape in shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if size != 1:
                if result[axis] not in (1, size):
                    raise ShapeError(
                        call,
                        "expected shapes that broadcast (equal sizes, or 1, from the right)",
                        "got " + " and ".join(str(shape) for shape in shapes),
                        "Reshape or expand one of them.",
                    )
                result[axis] = size
    return tuple(result)


def broadcast_strides(shape: Shape, strides: Shape, target: Shape) -> Shape:
    """Strides that read an array of ``shape`` as if it were ``target``: 0 along each repeated axis."""
    lead = len(target) - len(shape)
    return (0,) * lead + tuple(
        0 if size == 1 and wanted != 1 else stride
        for size, stride, wanted in zip(shape, strides, target[lead:], strict=True)
    )


def collapse(shape: Shape, *strides: Shape) -> tuple[Shape, tuple[Shape, ...]]:
    """The fewest axes that walk the same elements in the same order, for several arrays at once."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if sizes and all(step[-1] == stride[axis] * size for step, stride in zip(steps, strides, strict=True)):
            sizes[-1] *= size
            for step, stride in zip(steps, strides, strict=True):
                step[-1] = stride[axis]
        else:
            sizes.append(size)
            for step, stride in zip(steps, strides, strict=True):
                step.append(stride[axis])
    return tuple(sizes), tuple(tuple(step) for step in steps)


def view_strides(shape: Shape, strides: Shape, target: Shape) -> Shape | None:
    """Strides under which ``target`` shows the same elements in the same order; None if that needs a copy."""
    if is_contiguous(shape, strides):
        return contiguous_strides(target)
    if prod(shape) == 0:
        return contiguous_strides(target)
    sizes, (steps,) = collapse(shape, strides)
    result: list[int] = []
    remaining = list(zip(sizes, steps, strict=True))
    size, step = 1, 1
    for wanted in reversed(target):
        if wanted == 1:
            result.append(step)
            continue
        if size == 1:
            if not remaining:
                return None
            size, step = remaining.pop()
        if size % wanted:
            return None
        result.append(step)
        size //= wanted
        step *= wanted
    return tuple(reversed(result))


def normalize_axis(call: str, axis: int, rank: int) -> int:
    """``axis`` counted from the front; a 0-d tensor has the axes 0 and -1, as in PyTorch."""
    limit = max(rank, 1)
    if not -limit <= axis < limit:
        raise AxisError(call, f"dim must be in [{-limit}, {limit - 1}]", f"got {axis}")
    return axis % limit


def normalize_axes(call: str, axes: int | Iterable[int] | None, rank: int) -> tuple[int, ...]:
    """Several axes, counted from the front and sorted; None and the empty tuple mean all of them."""
    if axes is None:
        return tuple(range(rank))
    if isinstance(axes, int):
        axes = (axes,)
    result = tuple(sorted(normalize_axis(call, int(axis), rank) for axis in axes))
    if len(set(result)) != len(result):
        raise ArgumentError(call, "each dim may appear once", f"got dim={tuple(axes)}")
    return (result if rank else ()) or tuple(range(rank))


def reduced(shape: Shape, axes: Sequence[int], keepdim: bool) -> Shape:
    """The shape that is left when ``axes`` are reduced."""
    if keepdim:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def infer_reshape(call: str, numel: int, target: Sequence[int]) -> Shape:
    """``target`` with its one -1 filled in."""
    sizes = tuple(int(size) for size in target)
    unknown = [axis for axis, size in enumerate(sizes) if size == -1]
    known = prod(size for size in sizes if size != -1)
    if len(unknown) > 1 or any(size < -1 for size in sizes):
        raise ShapeError(call, "sizes must be at least 0, with at most one -1", f"got {sizes}")
    if unknown:
        if known == 0 or numel % known:
            raise ShapeError(call, f"the {numel} elements must fill {sizes}", f"{numel} is not a multiple of {known}")
        sizes = tuple(numel // known if size == -1 else size for size in sizes)
    elif known != numel:
        raise ShapeError(call, f"the input has {numel} elements", f"{sizes} has {known}")
    return sizes


def pair(call: str, name: str, value: int | Sequence[int], minimum: int = 0) -> tuple[int, int]:
    """An int, or two, as (height, width)."""
    first, second = repeated(call, name, value, 2, minimum)
    return first, second


def repeated(call: str, name: str, value: int | Sequence[int], count: int, minimum: int | None = 0) -> Shape:
    """An int for each of ``count`` dims, or as many as there are dims."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) == 1:
        values = values * count
    least = -INT_MAX if minimum is None else minimum
    if len(values) != count or not all(isinstance(item, int) and item >= least for item in values):
        wanted = "an int" + ("", ", or two,", ", or three,")[count - 1]
        bound = "" if minimum is None else f" of at least {minimum}"
        raise ArgumentError(call, f"{name} must be {wanted}{bound}", f"got {value!r}")
    if max(values) > INT_MAX:
        raise NumberRangeError(call, f"{name} of at most {INT_MAX}: kernels count with 32-bit ints", f"got {value!r}")
    return values


def window_outputs(
    size: int, window: int, stride: int, before: int, after: int, dilation: int, ceil: bool = False
) -> int:
    """How many positions a sliding window takes along one axis.

    With ``ceil``, a last window that starts inside the input or its leading padding counts, though it hangs over the
    end.
    """
    span = size + before + after - dilation * (window - 1) - 1
    if ceil:
        return min(-(-span // stride) + 1, -(-(size + before) // stride))
    return span // stride + 1
