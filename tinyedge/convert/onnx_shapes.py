"""ONNX's ops that move, pick and make values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, Ints, dtype_of, ints
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor


def axis_of(call: str, axis: int, rank: int) -> int:
    """An axis counted from the front. Errors: ShapeError."""
    if not -rank <= axis < rank:
        raise ShapeError(call, f"an axis of {rank} dims", f"got {axis}")
    return axis % rank


def reshaped_to(shape: Sequence[int], wanted: Ints, allowzero: int) -> Ints:
    """ONNX's shape: 0 keeps a dim's length."""
    if allowzero:
        return wanted
    if any(size == 0 and n >= len(shape) for n, size in enumerate(wanted)):
        raise ShapeError("Reshape", f"zeros for dims of {tuple(shape)} only", f"got {wanted}")
    return tuple(shape[n] if size == 0 else size for n, size in enumerate(wanted))


@ONNX.op("Identity", passes=True)
def identity(x: Tensor) -> Tensor:
    return x


@ONNX.on_host("If")
@ONNX.op("If", host=("condition",), passes=True)
def chosen(condition: Array, *values: Any) -> Any:
    """What the branch that is taken computed; the other one computed nothing."""
    return values[0 if bool(condition.reshape(())) else 1]


@ONNX.op("Loop", host=("most", "condition"))
def loop(most: Array | None, condition: Array | None, *values: Any) -> Any:
    raise NotImplementedError  # a GraphModel repeats the body


@ONNX.op("Cast", since=6, passes=True)
def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(dtype_of(to))


@ONNX.op("CastLike", passes=True)
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(like.dtype)


@ONNX.op("Reshape", since=5, host=("shape",), passes=True)
def reshape(x: Tensor, shape: Array, *, allowzero: int = 0) -> Tensor:
    return x.reshape(reshaped_to(x.shape, ints(shape), allowzero))


@ONNX.op("Flatten", passes=True)
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@ONNX.op("Transpose", passes=True)
def transpose(x: Tensor, *, perm: Ints | None = None) -> Tensor:
    return ops.permute(x, tuple(range(x.ndim))[::-1] if perm is None else perm)


@ONNX.op("Squeeze", host=("axes",), became_inputs=("axes",), passes=True)
def squeeze(x: Tensor, axes: Array | None = None) -> Tensor:
    dims = (
        [n for n, size in enumerate(x.shape) if size == 1]
        if axes is None
        else [axis_of("Squeeze", a, x.ndim) for a in ints(axes)]
    )
    if any(x.shape[dim] != 1 for dim in dims):
        raise ShapeError("Squeeze", "axes of length 1", f"got {dims} of {x.shape}")
    return x.reshape(tuple(size for n, size in enumerate(x.shape) if n not in dims))


@ONNX.op("Unsqueeze", host=("axes",), became_inputs=("axes",), passes=True)
def unsqueeze(x: Tensor, axes: Array) -> Tensor:
    return x.reshape(unsqueezed(x.shape, ints(axes)))


def unsqueezed(shape: Sequence[int], axes: Ints) -> Ints:
    """The shape with dims of length 1 put in at ``axes``."""
    rank = len(shape) + len(axes)
    places = {axis_of("Unsqueeze", axis, rank) for axis in axes}
    if len(places) < len(axes):
        raise ShapeError("Unsqueeze", "different axes", f"got {axes}")
    sizes = iter(shape)
    return tuple(1 if n in places else next(sizes) for n in range(rank))


@ONNX.op("Concat", since=4, passes=True)
def concat(*inputs: Tensor, axis: int) -> Tensor:
    return ops.cat(inputs, axis)


def split_sizes(size: int, split: Ints | None, count: int) -> Ints:
    """The lengths of the parts: the last one is shorter if they are not given and do not fit."""
    if split is None:
        each = -(-size // count)
        split = tuple(min(each, max(size - n * each, 0)) for n in range(count))
    if sum(split) != size or len(split) != count or min(split) < 0:
        raise ShapeError("Split", f"{count} parts of {size} in all", f"got {split}")
    return split


@ONNX.op("Split", host=("split",), became_inputs=("split",), passes=True)
def split(x: Tensor, split: Array | None = None, *, axis: int = 0, num_outputs: int = 0, count: int) -> Any:
    axis = axis_of("Split", axis, x.ndim)
    sizes = split_sizes(x.shape[axis], None if split is None else ints(split), count)
    return tuple(ops.split(x, sizes, axis))


def slices(shape: Sequence[int], starts: Ints, ends: Ints, axes: Ints | None, steps: Ints | None) -> list[slice]:
    """ONNX's slices as NumPy's, normal ones: ends are clamped, negative steps walk down."""
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ShapeError("Slice", "as many starts, ends, axes and steps, none 0", f"got {starts, ends, axes, steps}")
    found = [slice(0, size, 1) for size in shape]
    for start, end, axis, step in zip(starts, ends, axes, steps):
        axis = axis_of("Slice", axis, len(shape))
        size = shape[axis]
        start, end = (value + size if value < 0 else value for value in (start, end))
        if step > 0:
            found[axis] = slice(min(max(start, 0), size), min(max(end, 0), size), step)
        else:
            start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
            found[axis] = slice(start, None if end < 0 else end, step)
    return found


@ONNX.op("Slice", passes=True)
def old_slice(x: Tensor, *, starts: Ints, ends: Ints, axes: Ints | None = None) -> Tensor:
    return _sliced(x, slices(x.shape, starts, ends, axes, None))


@ONNX.op("Slice", since=10, host=("starts", "ends", "axes", "steps"), passes=True)
def slice_(x: Tensor, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Tensor:
    return _sliced(
        x,
        slices(
            x.shape,
            ints(starts),
            ints(ends),
            None if axes is None else ints(axes),
            None if steps is None else ints(steps),
        ),
    )


def _sliced(x: Tensor, parts: Sequence[slice]) -> Tensor:
    for dim, part in enumerate(parts):
        if part.step < 0:  # the same elements upwards, and then turned round
            last = -1 if part.stop is None else part.stop
            count = max(-(-(part.start - last) // -part.step), 0)
            first = part.start + (count - 1) * part.step
            part = slice(first, part.start + 1, -part.step) if count else slice(0, 0, 1)
            index = (*[slice(None)] * dim, part)
            x = ops.flip(x[index], (dim,))
        elif part != slice(0, x.shape[dim], 1):
            index = (*[slice(None)] * dim, part)
            x = x[index]
    return x


@ONNX.op("Gather", trained=("x",))
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis = axis_of("Gather", axis, x.ndim)
    indices = indices.to(dtypes.int64)
    indices = ops.where(indices < 0, indices + x.shape[axis], indices)
    if axis == 0 and x.ndim == 2:
        return F.embedding(indices, x)
    picked = ops.index_select(x, axis, indices.reshape((-1,)))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@ONNX.op("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis = axis_of("GatherElements", axis, x.ndim)
    indices = indices.to(dtypes.int64)
    return ops.gather(x, axis, ops.where(indices < 0, indices + x.shape[axis], indices))


@ONNX.op("GatherND")
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    depth = indices.shape[-1]
    if not 0 <= batch_dims < min(x.ndim, indices.ndim) or depth + batch_dims > x.ndim:
        raise ShapeError("GatherND", "indices that fit the data", f"got {indices.shape} for {x.shape}")
    batch, sizes, rest = x.shape[:batch_dims], x.shape[batch_dims : batch_dims + depth], x.shape[batch_dims + depth :]
    flat = indices.to(dtypes.int64).reshape((math.prod(batch), -1, depth))
    place = ops.zeros_like(flat[:, :, 0])
    for number, size in enumerate(sizes):
        index = flat[:, :, number]
        place = place * size + ops.where(index < 0, index + size, index)
    if batch:
        lead = ops.arange(math.prod(batch), device=x.backend).reshape((-1, 1))
        place = place + lead * math.prod(sizes)
    table = x.reshape((math.prod(batch) * math.prod(sizes), *rest))
    picked = ops.index_select(table, 0, place.reshape((-1,)))
    return picked.reshape((*indices.shape[:-1], *rest))


@ONNX.op("Expand", host=("shape",))
def expand(x: Tensor, shape: Array) -> Tensor:
    return ops.broadcast_to(x, np.broadcast_shapes(x.shape, ints(shape)))


@ONNX.op("Tile", since=6, host=("repeats",))
def tile(x: Tensor, repeats: Array) -> Tensor:
    return ops.tile(x, ints(repeats))


def pad_pairs(rank: int, pads: Ints, axes: Ints | None) -> list[tuple[int, int]]:
    """Before and after each dim."""
    places = tuple(range(rank)) if axes is None else tuple(axis_of("Pad", axis, rank) for axis in axes)
    if len(pads) != 2 * len(places):
        raise ShapeError("Pad", f"{2 * len(places)} pads", f"got {len(pads)}")
    pairs = [(0, 0)] * rank
    for place, before, after in zip(places, pads, pads[len(places) :]):
        pairs[place] = before, after
    return pairs


def _padded(x: Tensor, pairs: list[tuple[int, int]], mode: str, value: float | None) -> Tensor:
    """Padding before and after each dim, of ``value`` or of elements of ``x``."""
    if mode == "constant":
        return F.pad(x, [pad for pair in reversed(pairs) for pad in pair], value=0.0 if value is None else value)
    if mode not in ("edge", "reflect", "wrap"):
        raise ArgumentError("Pad", "mode constant, edge, reflect or wrap", f"got {mode!r}")
    for dim, (before, after) in enumerate(pairs):
        if before or after:
            around = max(before, 0), max(after, 0)
            index = np.pad(np.arange(x.shape[dim]), around, mode=mode)  # type: ignore[call-overload]
            index = index[max(-before, 0) : len(index) - max(-after, 0)]
            x = ops.index_select(x, dim, tensor(index, device=x.backend))
    return x


@ONNX.op("Pad", since=2)
def old_pad(x: Tensor, *, mode: str = "constant", pads: Ints, value: float = 0.0) -> Tensor:
    return _padded(x, pad_pairs(x.ndim, pads, None), mode, value)


@ONNX.op("Pad", since=11, host=("pads", "constant_value", "axes"))
def pad(
    x: Tensor, pads: Array, constant_value: Array | None = None, axes: Array | None = None, *, mode: str = "constant"
) -> Tensor:
    pairs = pad_pairs(x.ndim, ints(pads), None if axes is None else ints(axes))
    return _padded(x, pairs, mode, None if constant_value is None or not constant_value.size else constant_value.item())


@ONNX.op("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    return F.pixel_shuffle(x, blocksize) if mode == "CRD" else ops.depth_to_space(x, blocksize)


@ONNX.op("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    return F.pixel_unshuffle(x, blocksize) if mode == "CRD" else ops.space_to_depth(x, blocksize)


@ONNX.op("Shape", makes_host=True)
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Array:
    return np.array(x.shape[start:end], np.int64)


@ONNX.op("Size", makes_host=True)
def size(x: Tensor) -> Array:
    return np.array(math.prod(x.shape), np.int64)


@ONNX.op("Trilu", host=("k",))
def trilu(x: Tensor, k: Array | None = None, *, upper: int = 1) -> Tensor:
    diagonal = 0 if k is None else int(k.item())
    return ops.triu(x, diagonal) if upper else ops.tril(x, diagonal)


@ONNX.op("OneHot", since=9, host=("depth",))
def one_hot(indices: Tensor, depth: Array, values: Tensor, *, axis: int = -1) -> Tensor:
    count = int(depth.item())
    axis = axis_of("OneHot", axis, indices.ndim + 1)
    indices = indices.to(dtypes.int64)
    wanted = ops.unsqueeze(ops.where(indices < 0, indices + count, indices), axis)
    classes = ops.arange(count, device=indices.backend).reshape((-1, *(1,) * (indices.ndim - axis)))
    return ops.where(wanted == classes, values[1], values[0])


__all__ = ["axis_of", "pad_pairs", "reshaped_to", "slices", "split_sizes", "unsqueezed"]
