"""Ops of detectors that sample regions of images: where they lie is read on the host, and gets no gradient."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, Ints, ints
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor

AT_ONCE = 2**22
"""Elements of what is computed between two products, for so many regions together."""


class Samples(NamedTuple):
    """Points along a dim: the elements before and behind each, and how much the latter weighs; whether it counts."""

    low: Array
    high: Array
    part: Array
    counts: Array

    def matrix(self, size: int, bins: int) -> Array:
        """(bins, size): the sum over each bin's points, linear between elements."""
        weights = np.zeros((len(self.low), size), np.float32)
        rows = np.arange(len(self.low))
        np.add.at(weights, (rows, self.low), np.where(self.counts, 1 - self.part, 0))
        np.add.at(weights, (rows, self.high), np.where(self.counts, self.part, 0))
        return np.asarray(weights.reshape(bins, -1, size).sum(1))


def _samples(start: float, length: float, bins: int, ratio: int, size: int) -> Samples:
    """The points of a region along a dim, ``ratio`` in a bin, or as many as the bin is long."""
    each = ratio if ratio > 0 else max(math.ceil(length / bins), 1)
    step = np.float32(length / bins)
    inner = (np.arange(each, dtype=np.float32) + np.float32(0.5)) * step / np.float32(each)
    at = (np.float32(start) + np.arange(bins, dtype=np.float32)[:, None] * step + inner).reshape(-1)
    counts = (at >= -1) & (at <= size)
    at = np.maximum(np.where(counts, at, 0), 0)
    low = np.minimum(at.astype(np.int64), size - 1)
    part = np.where(low >= size - 1, 0, at - low).astype(np.float32)
    return Samples(low, np.minimum(low + 1, size - 1), part, counts)


def _checked(x: Tensor, regions: Array, images: Array, bins: Ints) -> tuple[Array, list[int]]:
    whole = x.ndim == 4 and min(x.shape[2:]) > 0 and min(bins) > 0 and regions.ndim == 2 and regions.shape[1] == 4
    if not whole or images.shape != regions.shape[:1]:
        raise ShapeError("RoiAlign", "images (n, c, h, w), regions (k, 4) and their images (k,)",
                         f"got {x.shape}, {regions.shape} and {images.shape}")  # fmt: skip
    if not np.isfinite(regions).all() or np.abs(regions).max(initial=0) > 1e6:
        raise ShapeError("RoiAlign", "regions of at most a million pixels", "got others")
    numbers = [int(image) for image in images]
    if any(not 0 <= image < x.shape[0] for image in numbers):
        raise ShapeError("RoiAlign", f"an image of {x.shape[0]} for each region", f"got {sorted({*numbers})}")
    return regions.astype(np.float32), numbers


@ONNX.op("RoiAlign", since=10, host=("rois", "batch_indices"))
def roi_align_10(
    x: Tensor,
    rois: Array,
    batch_indices: Array,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    size = (output_height, output_width)
    return _roi_align(x, rois, batch_indices, mode, size, sampling_ratio, spatial_scale, False)


@ONNX.op("RoiAlign", since=16, host=("rois", "batch_indices"))
def roi_align(
    x: Tensor,
    rois: Array,
    batch_indices: Array,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    half = coordinate_transformation_mode == "half_pixel"
    if not half and coordinate_transformation_mode != "output_half_pixel":
        raise ArgumentError("RoiAlign", "half_pixel or output_half_pixel", f"got {coordinate_transformation_mode!r}")
    size = (output_height, output_width)
    return _roi_align(x, rois, batch_indices, mode, size, sampling_ratio, spatial_scale, half)


def _roi_align(
    x: Tensor, rois: Array, images: Array, mode: str, bins: Ints, ratio: int, scale: float, half: bool
) -> Tensor:
    if mode not in ("avg", "max"):
        raise ArgumentError("RoiAlign", "mode avg or max", f"got {mode!r}")
    rois, numbers = _checked(x, rois, images, bins)
    ends = rois * np.float32(scale) - np.float32(0.5 if half else 0)
    lengths = ends[:, 2:] - ends[:, :2]
    lengths = lengths if half else np.maximum(lengths, 1)
    found = [
        [_samples(float(ends[n, 1 - k]), float(lengths[n, 1 - k]), bins[k], ratio, x.shape[2 + k]) for k in (0, 1)]
        for n in range(len(rois))
    ]
    if not found:
        return ops.zeros((0, x.shape[1], *bins), dtype=x.dtype, device=x.backend)
    return _largest(x, numbers, found, bins) if mode == "max" else _means(x, numbers, found, bins)


def _means(x: Tensor, images: list[int], found: list[list[Samples]], bins: Ints) -> Tensor:
    """As products with what each row and each column weighs: some regions of one image at once."""
    _, channels, height, width = x.shape
    most = max(AT_ONCE // (channels * bins[0] * width), 1)
    results: list[Tensor] = []
    start = 0
    while start < len(images):
        end = start + 1
        while end < len(images) and end - start < most and images[end] == images[start]:
            end += 1
        rows, columns = (
            np.stack([samples[k].matrix(x.shape[2 + k], bins[k]) for samples in found[start:end]]) for k in (0, 1)
        )
        counts = [len(samples[0].low) * len(samples[1].low) // math.prod(bins) for samples in found[start:end]]
        rows = rows / np.array(counts, np.float32)[:, None, None]
        high = tensor(rows.reshape(-1, height), dtype=x.dtype, device=x.backend)
        wide = tensor(columns.transpose(0, 2, 1)[:, None], dtype=x.dtype, device=x.backend)
        y = ops.matmul(high, x[images[start]]).reshape((channels, end - start, bins[0], width))
        results.append(ops.matmul(ops.transpose(y, 0, 1), wide))
        start = end
    return ops.cat(results, 0)


def _largest(x: Tensor, images: list[int], found: list[list[Samples]], bins: Ints) -> Tensor:
    """Of the elements around each point, times what they weigh, the largest one."""
    n, channels, height, width = x.shape
    table = ops.permute(x, (0, 2, 3, 1)).reshape((n * height * width, channels))
    results = []
    for image, (down, right) in zip(images, found):
        each = [len(part.low) // size for part, size in zip((down, right), bins)]
        corners = []
        for y, a in ((down.low, 1 - down.part), (down.high, down.part)):
            for z, b in ((right.low, 1 - right.part), (right.high, right.part)):
                counts = down.counts[:, None] & right.counts
                corners.append((np.where(counts, y[:, None] * width + z, 0), np.where(counts, a[:, None] * b, 0)))
        places, weights = (
            np.stack([corner[k] for corner in corners], -1).reshape(bins[0], each[0], bins[1], each[1], 4)
            for k in (0, 1)
        )
        places, weights = (part.transpose(0, 2, 1, 3, 4).reshape(math.prod(bins), -1) for part in (places, weights))
        index = tensor(places.reshape(-1) + image * height * width, dtype=dtypes.int64, device=x.backend)
        picked = ops.index_select(table, 0, index).reshape((*weights.shape, channels))
        most = ops.amax(picked * tensor(weights[..., None], dtype=x.dtype, device=x.backend), 1)
        results.append(ops.permute(most, (1, 0)).reshape((channels, *bins)))
    return ops.stack(results)


@ONNX.op("MaxUnpool", since=9, host=("output_shape",))
def max_unpool(
    x: Tensor,
    indices: Tensor,
    output_shape: Array | None = None,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Indices are places in the whole output, before it gets ``output_shape`` by zeros behind."""
    rank = x.ndim - 2
    strides, pads = strides or (1,) * rank, pads or (0,) * (2 * rank)
    sizes = tuple((n - 1) * strides[k] - pads[k] - pads[k + rank] + kernel_shape[k] for k, n in enumerate(x.shape[2:]))
    shape = (*x.shape[:2], *sizes)
    wanted = shape if output_shape is None else ints(output_shape)
    if min(shape) < 0 or len(wanted) != len(shape) or any(size < least for size, least in zip(wanted, shape)):
        raise ShapeError("MaxUnpool", f"an output of at least {shape}", f"got {wanted}")
    flat: Any = ops.zeros((math.prod(shape),), dtype=x.dtype, device=x.backend)
    flat = ops.scatter(flat, 0, indices.to(dtypes.int64).reshape((-1,)), x.reshape((-1,)))
    more = [(0, size - least) for size, least in zip(wanted, shape)]
    return F.pad(flat.reshape(shape), [pad for pair in reversed(more) for pad in pair])


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


__all__: list[str] = []
