"""ONNX's ops that put elements at places, sample, and choose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, Ints, dtype_of, ints
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor

REDUCTIONS = {"none": None, "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _placed(x: Tensor, axis: int, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction not in REDUCTIONS:
        raise ArgumentError("ScatterElements", f"a reduction of {', '.join(REDUCTIONS)}", f"got {reduction!r}")
    name = REDUCTIONS[reduction]
    if name is None:
        return ops.scatter(x, axis, indices, updates)
    return ops.scatter_reduce(x, axis, indices, updates, name)


@ONNX.op("ScatterElements", "Scatter")
def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError("ScatterElements", f"an axis of {x.ndim} dims", f"got {axis}")
    indices = indices.to(dtypes.int64)
    return _placed(x, axis, ops.where(indices < 0, indices + x.shape[axis], indices), updates, reduction)


@ONNX.op("ScatterND")
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    depth = indices.shape[-1]
    if not 0 < depth <= x.ndim or updates.shape != (*indices.shape[:-1], *x.shape[depth:]):
        raise ShapeError(
            "ScatterND", "updates for each index", f"got {updates.shape} and {indices.shape} for {x.shape}"
        )
    sizes, rest = x.shape[:depth], math.prod(x.shape[depth:])
    flat = indices.to(dtypes.int64).reshape((-1, depth))
    place = ops.zeros_like(flat[:, 0])
    for number, size in enumerate(sizes):
        index = flat[:, number]
        place = place * size + ops.where(index < 0, index + size, index)
    table = x.reshape((math.prod(sizes), rest))
    wide = ops.broadcast_to(ops.unsqueeze(place, 1), (place.shape[0], rest))
    return _placed(table, 0, wide, updates.reshape((place.shape[0], rest)), reduction).reshape(x.shape)


@ONNX.op("GridSample", since=16)
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return F.grid_sample(x, grid, mode, padding_mode, bool(align_corners))


@ONNX.op("AffineGrid", since=20, host=("size",))
def affine_grid(theta: Tensor, size: Array, *, align_corners: int = 0) -> Tensor:
    return F.affine_grid(theta, ints(size), bool(align_corners))


@ONNX.op("Col2Im", since=18, host=("image_shape", "block_shape"))
def col2im(
    x: Tensor,
    image_shape: Array,
    block_shape: Array,
    *,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    size, kernel = ints(image_shape), ints(block_shape)
    if len(size) != 2 or len(kernel) != 2:
        raise ArgumentError("Col2Im", "images of two dims", f"got {size}")
    top, left, bottom, right = pads or (0, 0, 0, 0)
    whole = (size[0] + top + bottom, size[1] + left + right)
    y = F.fold(x, whole, kernel, dilations or 1, 0, strides or 1)
    return y[:, :, top : top + size[0], left : left + size[1]]


@ONNX.op("CumProd", since=26, host=("axis",))
def cum_prod(x: Tensor, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    dim = int(axis.item()) % max(x.ndim, 1)
    y = ops.flip(x, (dim,)) if reverse else x
    y = ops.cumprod(y, dim).to(x.dtype)
    if exclusive:
        head = ops.ones_like(ops.narrow(y, dim, 0, 1))
        y = ops.cat([head, ops.narrow(y, dim, 0, x.shape[dim] - 1)], dim)
    return ops.flip(y, (dim,)) if reverse else y


@ONNX.op("EyeLike")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    if x.ndim != 2:
        raise ShapeError("EyeLike", "an input of 2 dims", f"got {x.shape}")
    kind = x.dtype if dtype is None else dtype_of(dtype)
    return tensor(np.eye(x.shape[0], x.shape[1], k), device=x.backend).to(kind)


@ONNX.op("ReverseSequence", host=("lengths",))
def reverse_sequence(x: Tensor, lengths: Array, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    if {batch_axis, time_axis} != {0, 1} or lengths.shape != (x.shape[batch_axis],):
        raise ShapeError("ReverseSequence", "a length for each sample, axes 0 and 1", f"got {lengths.shape}")
    times = np.arange(x.shape[time_axis])
    index = np.where(times < lengths[:, None], lengths[:, None] - 1 - times, times)  # (samples, times)
    index = index if batch_axis == 0 else index.T
    index = np.clip(index, 0, max(x.shape[time_axis] - 1, 0)).reshape(*index.shape, *(1,) * (x.ndim - 2))
    return ops.gather(x, time_axis, tensor(np.broadcast_to(index, x.shape).astype(np.int64), device=x.backend))


@ONNX.op("CenterCropPad", since=18, host=("shape",))
def center_crop_pad(x: Tensor, shape: Array, *, axes: Ints | None = None) -> Tensor:
    places = tuple(range(x.ndim)) if axes is None else tuple(axis % x.ndim for axis in axes)
    pads = [(0, 0)] * x.ndim
    for place, wanted in zip(places, ints(shape), strict=True):
        size = x.shape[place]
        if wanted < size:
            x = ops.narrow(x, place, (size - wanted) // 2, wanted)
        else:
            pads[place] = (wanted - size) // 2, wanted - size - (wanted - size) // 2
    return F.pad(x, [pad for pair in reversed(pads) for pad in pair])


@ONNX.op("Compress", since=9, host=("condition",))
def compress(x: Tensor, condition: Array, *, axis: int | None = None) -> Tensor:
    if axis is None:
        x, axis = x.reshape((-1,)), 0
    places = np.flatnonzero(condition)
    if len(places) and places[-1] >= x.shape[axis]:
        raise ShapeError("Compress", f"a condition of at most {x.shape[axis]}", f"got {condition.shape}")
    return ops.index_select(x, axis, tensor(places.astype(np.int64), device=x.backend))


@ONNX.op("NonZero", since=9, host=("x",))
def non_zero(x: Array) -> Array:
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)


@ONNX.op("Unique", since=11, host=("x",))
def unique(x: Array, *, axis: int | None = None, sorted: int = 1, count: int) -> Any:
    """The different values, or slices along an axis; where each was first, which each is, and how many there are."""
    if axis is not None and not -x.ndim <= axis < x.ndim:
        raise ShapeError("Unique", f"an axis of {x.ndim} dims", f"got {axis}")
    found, first, which, counts = np.unique(x, True, True, True, axis=axis)
    which = which.reshape(-1)
    if not sorted:
        order = np.argsort(first, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        found = np.take(found, order, axis or 0)
        first, which, counts = first[order], place[which], counts[order]
    results = (found, *(part.astype(np.int64) for part in (first, which, counts)))
    return results[:count] if count > 1 else found


@ONNX.op("Det", since=11)
def det(x: Tensor) -> Tensor:
    return ops.det(x)


__all__: list[str] = []
