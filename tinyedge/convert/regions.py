"""Ops of detectors that sample regions of images: where these lie is read on the host, and gets no gradient."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, Ints, ints
from tinyedge.convert.tensorflow_handlers import TENSORFLOW
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.tensor import Tensor, tensor

FARTHEST = 2**16
"""Pixels from the image's corner: of a region in a wrong file, the points could fill the memory."""

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
        weights = np.zeros((bins, size), np.float32)
        rows = np.repeat(np.arange(bins), len(self.low) // bins)
        np.add.at(weights, (rows, self.low), np.where(self.counts, 1 - self.part, 0))
        np.add.at(weights, (rows, self.high), np.where(self.counts, self.part, 0))
        return weights


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


def _checked(call: str, x: Tensor, regions: Array, images: Array, bins: Ints) -> tuple[Array, list[int]]:
    whole = x.ndim == 4 and min(x.shape[2:]) > 0 and min(bins) > 0 and regions.ndim == 2 and regions.shape[1] == 4
    if not whole or images.shape != regions.shape[:1]:
        raise ShapeError(call, "images (n, c, h, w), regions (k, 4) and their images (k,)",
                         f"got {x.shape}, {regions.shape} and {images.shape}")  # fmt: skip
    if not (np.abs(regions) <= FARTHEST).all() or max(bins) > FARTHEST:
        raise ShapeError(call, f"regions and results of at most {FARTHEST} pixels", "got others")
    numbers = [int(image) for image in images]
    if any(not 0 <= image < x.shape[0] for image in numbers):
        raise ShapeError(call, f"an image of {x.shape[0]} for each region", f"got {sorted({*numbers})}")
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
    rois, numbers = _checked("RoiAlign", x, rois * np.float32(scale), images, (*bins, max(ratio, 1) * max(bins)))
    ends = rois - np.float32(0.5 if half else 0)
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
    rows, columns = (np.stack([samples[k].matrix(x.shape[2 + k], bins[k]) for samples in found]) for k in (0, 1))
    counts = [len(samples[0].low) * len(samples[1].low) // math.prod(bins) for samples in found]
    return _sampled(x, images, rows / np.array(counts, np.float32)[:, None, None], columns)


def _sampled(x: Tensor, images: list[int], rows: Array, columns: Array) -> Tensor:
    """Regions as products with what rows and columns of their images weigh: some regions of one image at once.

    Shapes: x (n, c, h, w); rows (k, a, h); columns (k, b, w); returns (k, c, a, b).
    """
    _, channels, height, width = x.shape
    deep = rows.shape[1]
    most = max(AT_ONCE // max(channels * deep * width, 1), 1)
    results: list[Tensor] = []
    start = 0
    while start < len(images):
        end = start + 1
        while end < len(images) and end - start < most and images[end] == images[start]:
            end += 1
        high = tensor(rows[start:end].reshape(-1, height), dtype=x.dtype, device=x.backend)
        wide = tensor(columns[start:end].transpose(0, 2, 1)[:, None], dtype=x.dtype, device=x.backend)
        y = ops.matmul(high, x[images[start]]).reshape((channels, end - start, deep, width))
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


@TENSORFLOW.op("CropAndResize", host=("boxes", "images", "size"))
def crop_and_resize(
    x: Tensor, boxes: Array, images: Array, size: Array, *, nearest: int = 0, beyond: float = 0.0
) -> Tensor:
    """TensorFlow's: regions in parts of the images' sizes, sampled at points whose outer ones are the corners."""
    crop = ints(size)
    boxes, numbers = _checked("CropAndResize", x, boxes, images, crop if len(crop) == 2 else (0, 0))
    if not numbers:
        return ops.zeros((0, x.shape[1], *crop), dtype=x.dtype, device=x.backend)
    weights, inside = [], []
    for k in (0, 1):
        length, count = x.shape[2 + k], crop[k]
        first, last = boxes[:, k] * np.float32(length - 1), boxes[:, 2 + k] * np.float32(length - 1)
        step = (last - first) / np.float32(max(count - 1, 1))
        at = first[:, None] + np.arange(count, dtype=np.float32) * step[:, None]
        at = at if count > 1 else (np.float32(0.5) * (first + last))[:, None]
        counts = (at >= 0) & (at <= length - 1)
        at = np.where(counts, at, 0)
        low = np.floor(at + (0.5 if nearest else 0)).astype(np.int64)
        part = np.zeros_like(at) if nearest else at - low
        samples = Samples(low.ravel(), np.minimum(low + 1, length - 1).ravel(), part.ravel(), counts.ravel())
        weights.append(samples.matrix(length, at.size).reshape(len(boxes), count, length))
        inside.append(counts)
    y = _sampled(x, numbers, *weights)
    outside = ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])
    return y + tensor(outside * np.float32(beyond), dtype=x.dtype, device=x.backend) if beyond else y


__all__: list[str] = []
