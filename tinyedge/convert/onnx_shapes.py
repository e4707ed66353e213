"""ONNX's ops that move, pick and make values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, Floats, Ints, dtype_of, ints
from tinyedge.convert.windows import resize_mode
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor


def _axis(call: str, axis: int, rank: int) -> int:
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
        else [_axis("Squeeze", a, x.ndim) for a in ints(axes)]
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
    places = {_axis("Unsqueeze", axis, rank) for axis in axes}
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
    axis = _axis("Split", axis, x.ndim)
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
        axis = _axis("Slice", axis, len(shape))
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
    axis = _axis("Gather", axis, x.ndim)
    indices = indices.to(dtypes.int64)
    indices = ops.where(indices < 0, indices + x.shape[axis], indices)
    if axis == 0 and x.ndim == 2:
        return F.embedding(indices, x)
    picked = ops.index_select(x, axis, indices.reshape((-1,)))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@ONNX.op("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis = _axis("GatherElements", axis, x.ndim)
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
    places = tuple(range(rank)) if axes is None else tuple(_axis("Pad", axis, rank) for axis in axes)
    if len(pads) != 2 * len(places):
        raise ShapeError("Pad", f"{2 * len(places)} pads", f"got {len(pads)}")
    pairs = [(0, 0)] * rank
    for place, before, after in zip(places, pads, pads[len(places) :]):
        pairs[place] = before, after
    return pairs


def _padded(x: Tensor, pairs: list[tuple[int, int]], mode: str, value: float | None) -> Tensor:
    if mode in ("constant", "edge", "reflect"):
        name = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}[mode]
        if mode == "constant":
            return F.pad(x, [pad for pair in reversed(pairs) for pad in pair], value=0.0 if value is None else value)
        return _by_index(x, pairs, name)
    if mode == "wrap":
        return _by_index(x, pairs, mode)
    raise ArgumentError("Pad", "mode constant, edge, reflect or wrap", f"got {mode!r}")


def _by_index(x: Tensor, pairs: list[tuple[int, int]], mode: str) -> Tensor:
    """Padding of any dims by elements of ``x``: the last dims of images and volumes by F.pad, others dim by dim."""
    inner = {"replicate": "edge", "reflect": "reflect", "wrap": "wrap"}[mode]
    for dim, (before, after) in enumerate(pairs):
        if before or after:
            size = x.shape[dim]
            head, tail = max(before, 0), max(after, 0)
            index = np.pad(np.arange(size), (head, tail), mode=inner)  # type: ignore[call-overload]
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
    axis = _axis("OneHot", axis, indices.ndim + 1)
    indices = indices.to(dtypes.int64)
    wanted = ops.unsqueeze(ops.where(indices < 0, indices + count, indices), axis)
    classes = ops.arange(count, device=indices.backend).reshape((-1, *(1,) * (indices.ndim - axis)))
    return ops.where(wanted == classes, values[1], values[0])


# Resizing


@ONNX.op("Upsample", host=("scales",), became_inputs=("scales",))
def upsample(x: Tensor, scales: Array, *, mode: str = "nearest") -> Tensor:
    factors = tuple(float(scale) for scale in scales.reshape(-1))
    sizes = tuple(math.floor(n * scale) for n, scale in zip(x.shape, factors, strict=True))
    return resized(x, sizes, factors, mode, "asymmetric", "floor", -0.75)


@ONNX.op("Resize", since=10, host=("scales",))
def resize_10(x: Tensor, scales: Array, *, mode: str = "nearest") -> Tensor:
    return upsample(x, scales, mode=mode)


@ONNX.op("Resize", since=11, host=("roi", "scales", "sizes"))
def resize(
    x: Tensor,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    antialias: int = 0,
    axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    places = tuple(range(x.ndim)) if axes is None else tuple(_axis("Resize", axis, x.ndim) for axis in axes)
    if antialias or coordinate_transformation_mode == "tf_crop_and_resize":
        raise ArgumentError("Resize", "no antialias and no crop", "the file asks for one")
    factors, wanted = [1.0] * x.ndim, list(x.shape)
    if sizes is not None and sizes.size:
        given = ints(sizes)
        ratios = [size / x.shape[place] for place, size in zip(places, given, strict=True)]
        if keep_aspect_ratio_policy != "stretch":
            ratio = (min if keep_aspect_ratio_policy == "not_larger" else max)(ratios)
            ratios, given = [ratio] * len(ratios), tuple(math.floor(x.shape[p] * ratio + 0.5) for p in places)
        for place, size, ratio in zip(places, given, ratios):
            wanted[place], factors[place] = size, ratio
    elif scales is not None and scales.size:
        for place, scale in zip(places, scales.reshape(-1).tolist(), strict=True):
            wanted[place], factors[place] = math.floor(x.shape[place] * scale), float(scale)
    else:
        raise ArgumentError("Resize", "scales or sizes", "got neither")
    return resized(
        x, tuple(wanted), tuple(factors), mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a,
        bool(exclude_outside),
    )  # fmt: skip


def _coordinates(size: int, outputs: int, scale: float, transformation: str) -> Any:
    """Where in the input each output lies."""
    at = np.arange(outputs, dtype=np.float64)
    if transformation == "align_corners":
        return at * ((size - 1) / (outputs - 1)) if outputs > 1 else at * 0
    if transformation == "asymmetric":
        return at / scale
    if transformation == "pytorch_half_pixel" and outputs == 1:
        return at * 0
    if transformation in ("half_pixel", "pytorch_half_pixel"):
        return (at + 0.5) / scale - 0.5
    if transformation == "half_pixel_symmetric":
        adjustment = outputs / (scale * size)
        return size / 2 * (1 - adjustment) + (at + 0.5) / scale - 0.5
    if transformation == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    raise ArgumentError("Resize", "a known coordinate_transformation_mode", f"got {transformation!r}")


def _nearest(at: Any, mode: str) -> Any:
    rounding: dict[str, Callable[[Any], Any]] = {
        "round_prefer_floor": lambda v: np.ceil(v - 0.5), "round_prefer_ceil": lambda v: np.floor(v + 0.5),
        "floor": np.floor, "ceil": np.ceil,
    }  # fmt: skip
    if mode not in rounding:
        raise ArgumentError("Resize", "a known nearest_mode", f"got {mode!r}")
    return rounding[mode](at)


def _near(distance: Any, a: float) -> Any:
    """The cubic kernel within a distance of 1."""
    return ((a + 2) * distance - (a + 3)) * distance * distance + 1


def _far(distance: Any, a: float) -> Any:
    """The cubic kernel beyond a distance of 1."""
    return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a


def _matrix(size: int, outputs: int, scale: float, transformation: str, mode: str, a: float, inside: bool) -> Any:
    """The weights of the inputs (size) for each output (outputs) along one dim."""
    at = _coordinates(size, outputs, scale, transformation)
    floor = np.floor(at)
    part = at - floor
    if mode == "linear":
        taps = {0: 1 - part, 1: part}
    else:
        taps = {-1: _far(part + 1, a), 0: _near(part, a), 1: _near(1 - part, a), 2: _far(2 - part, a)}
    weights = np.zeros((outputs, size))
    for offset, weight in taps.items():
        if inside:
            weight = np.where((floor + offset < 0) | (floor + offset >= size), 0.0, weight)
        np.add.at(weights, (np.arange(outputs), np.clip(floor + offset, 0, size - 1).astype(np.int64)), weight)
    return weights / weights.sum(1, keepdims=True) if inside else weights


def resized(
    x: Tensor,
    sizes: Ints,
    factors: Floats,
    mode: str,
    transformation: str,
    nearest_mode: str,
    a: float,
    inside: bool = False,
) -> Tensor:
    """``x`` with each dim resized; a dim whose factor is 1 stays. ``inside``: elements outside have no weight."""
    dims = [n for n, (size, factor) in enumerate(zip(sizes, factors)) if size != x.shape[n] or factor != 1.0]
    if transformation == "align_corners" and any(abs(sizes[n] - x.shape[n] * factors[n]) > 1e-4 for n in dims):
        raise ArgumentError(
            "Resize", "sizes that the scales give without rounding, with align_corners", f"got {factors}"
        )
    if mode in ("linear", "cubic") and x.ndim in (3, 4, 5) and all(dim >= 2 for dim in dims) and dims:
        exact = all(abs(sizes[n] - x.shape[n] * factors[n]) < 1e-4 for n in dims)
        aligned = transformation == "align_corners"
        whole = transformation == "half_pixel" or (transformation == "pytorch_half_pixel" and min(sizes[2:]) > 1)
        if not inside and (mode == "linear" or (x.ndim == 4 and a == -0.75)) and (aligned or (whole and exact)):
            return F.interpolate(x, sizes[2:], mode=resize_mode(x.ndim - 2, mode), align_corners=aligned)
    for dim in dims:
        if mode == "nearest":
            places = _nearest(_coordinates(x.shape[dim], sizes[dim], factors[dim], transformation), nearest_mode)
            index = np.clip(places, 0, x.shape[dim] - 1).astype(np.int64)
            x = _repeated(x, dim, index)
        elif mode in ("linear", "cubic"):
            weights = _matrix(x.shape[dim], sizes[dim], factors[dim], transformation, mode, a, inside)
            matrix = tensor(weights.astype(np.float32), device=x.backend).to(x.dtype)
            x = ops.movedim(ops.matmul(ops.movedim(x, dim, -1), matrix.t()), -1, dim)
        else:
            raise ArgumentError("Resize", "mode nearest, linear or cubic", f"got {mode!r}")
    return x


def _repeated(x: Tensor, dim: int, index: Any) -> Tensor:
    size = x.shape[dim]
    times = len(index) // size if size else 0
    if times and len(index) == times * size and np.array_equal(index, np.repeat(np.arange(size), times)):
        return ops.repeat_interleave(x, times, dim)
    return ops.index_select(x, dim, tensor(index, device=x.backend))


__all__ = ["pad_pairs", "reshaped_to", "resized", "slices", "split_sizes", "unsqueezed"]
