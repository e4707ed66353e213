"""Ops of MediaPipe's networks that are none of TFLite's: what is cut out of an image by landmarks, landmarks that are
brought back, and pools that say where the largest element was.
"""

from __future__ import annotations

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert import windows
from tinyedge.convert.onnx_registry import Ints
from tinyedge.convert.tensorflow_handlers import TENSORFLOW
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor


@TENSORFLOW.op("CropOfLandmarks")
def crop_of_landmarks(
    x: Tensor, *, left: int, right: int, subset: Ints, target: float, size: Ints, scale: tuple[float, float]
) -> Tensor:
    """A matrix that takes places in a crop of ``size`` (width, height) to places in the image: the crop lies around the
    landmarks ``subset``, ``scale`` times as large, turned so that the line from ``left`` to ``right`` has the angle
    ``target``.

    Shapes: x (1, landmarks, 3); returns (1, 4, 4).
    """
    if x.ndim != 3 or x.shape[0] != 1 or x.shape[2] != 3 or max(left, right, *subset) >= x.shape[1]:
        raise ShapeError("Landmarks2TransformMatrix", "(1, landmarks, 3) with those that it names", f"got {x.shape}")
    line = x[0, right] - x[0, left]
    angle = target - ops.atan2(line[1], line[0])
    cos, sin = ops.cos(angle), ops.sin(angle)
    chosen = x[0].index_select(0, tensor(np.array(subset), device=x.backend))
    across, down = chosen[:, 0] * cos - chosen[:, 1] * sin, chosen[:, 0] * sin + chosen[:, 1] * cos
    ends = [(ops.amin(part), ops.amax(part)) for part in (across, down)]
    widths = [(high - low) * scale[k] / float(size[k]) for k, (low, high) in enumerate(ends)]
    middle = [(low + high) / 2.0 for low, high in ends]
    center = middle[0] * cos + middle[1] * sin, middle[1] * cos - middle[0] * sin
    a, b, c, d = cos * widths[0], sin * widths[1], -sin * widths[0], cos * widths[1]
    half = float(size[0]) / 2.0, float(size[1]) / 2.0
    zero, one = ops.zeros_like(a), ops.ones_like(a)
    rows = [
        a, b, zero, center[0] - a * half[0] - b * half[1],
        c, d, zero, center[1] - c * half[0] - d * half[1],
        zero, zero, one, zero, zero, zero, zero, one,
    ]  # fmt: skip
    return ops.stack(rows).reshape((1, 4, 4))


def _matrix(name: str, matrix: Tensor) -> Tensor:
    if matrix.shape != (1, 4, 4):
        raise ShapeError(name, "a matrix (1, 4, 4)", f"got {matrix.shape}")
    return matrix[0]


@TENSORFLOW.op("TransformPoints")
def transform_points(x: Tensor, matrix: Tensor) -> Tensor:
    """Landmarks where a matrix takes them. Shapes: x (1, landmarks, 2 or 3); matrix (1, 4, 4); returns x's."""
    rows = _matrix("TransformLandmarks", matrix)
    if x.ndim != 3 or x.shape[2] not in (2, 3):
        raise ShapeError("TransformLandmarks", "landmarks (1, count, 2), or 3", f"got {x.shape}")
    y = ops.matmul(x[..., :2], ops.transpose(rows[:2, :2], 0, 1)) + rows[:2, 3]
    return y if x.shape[2] == 2 else ops.cat([y, x[..., 2:]], 2)


@TENSORFLOW.op("CropByMatrix")
def crop_by_matrix(x: Tensor, matrix: Tensor, *, size: Ints) -> Tensor:
    """A crop of an image: each of its pixels lies where the matrix takes its middle, between four of the image; what
    lies outside is 0.

    Shapes: x (1, channels, height, width); matrix (1, 4, 4); size (height, width); returns (1, channels, *size).
    """
    rows = _matrix("TransformTensorBilinear", matrix)
    if x.ndim != 4 or x.shape[0] != 1:
        raise ShapeError("TransformTensorBilinear", "one image", f"got {x.shape}")
    places = np.stack(np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5), -1).astype(np.float32)
    grid = tensor(places, dtype=matrix.dtype, device=x.backend)
    at = ops.matmul(grid, ops.transpose(rows[:2, :2], 0, 1)) + rows[:2, 3]  # in the image, pixel k from k to k + 1
    whole = tensor(np.array(x.shape[:1:-1], np.float32), dtype=matrix.dtype, device=x.backend)
    y = F.grid_sample(x, ops.unsqueeze(at * 2.0 / whole - 1.0, 0), mode="bilinear", align_corners=False)
    inside = ops.logical_and(at >= 0.5, at <= whole - 0.5)
    return y * ops.logical_and(inside[..., 0], inside[..., 1]).to(y.dtype)


@TENSORFLOW.op("MaxPoolPlaces")
def max_pool_places(x: Tensor, *, kernel_shape: Ints, strides: Ints, auto_pad: str, counts: str) -> tuple[Tensor, ...]:
    """The largest elements, and where they are. ``counts`` says in what: "window", 0.1 more than the place in the
    window as a float; "image", the place in an image with its channels last; "batch", that in all images.
    """
    kernel = windows.per_dim("MaxPoolWithArgmax", "ksize", kernel_shape, 2, 1)
    stride = windows.per_dim("MaxPoolWithArgmax", "strides", strides, 2, 1)
    if x.ndim != 4:
        raise ShapeError("MaxPoolWithArgmax", "images", f"got {x.shape}")
    around = windows.resolved_pads("MaxPoolWithArgmax", x.shape[2:], kernel, stride, (1, 1), None, auto_pad)
    wide = windows.padded(x, around, -np.inf)
    y, found = F.max_pool2d(wide, kernel, stride, return_indices=True)
    row = ops.div(found, wide.shape[3], rounding_mode="floor")
    column = found - row * wide.shape[3]
    if counts == "window":
        down, across = (
            (ops.arange(y.shape[2 + dim], device=x.backend) * stride[dim]).reshape((-1, 1) if dim == 0 else (1, -1))
            for dim in (0, 1)
        )
        places = (row - down) * kernel[1] + (column - across)
        return y, places.to(y.dtype) + 0.1
    samples, channels, height, width = x.shape
    places = (row - around[0][0]) * width + (column - around[1][0])
    places = places * channels + ops.arange(channels, device=x.backend).reshape((1, -1, 1, 1))
    if counts == "batch":
        begins = ops.arange(samples, device=x.backend) * (height * width * channels)
        places = places + begins.reshape((-1, 1, 1, 1))
    return y, places


@TENSORFLOW.op("MaxUnpoolWindows")
def max_unpool_windows(x: Tensor, places: Tensor, *, kernel_shape: Ints, strides: Ints) -> Tensor:
    """Each element at its place in a window as MaxPoolPlaces counts it, and zeros elsewhere."""
    kernel = windows.per_dim("MaxUnpooling2D", "ksize", kernel_shape, 2, 1)
    stride = windows.per_dim("MaxUnpooling2D", "strides", strides, 2, 1)
    if x.ndim != 4 or places.shape != x.shape:
        raise ShapeError("MaxUnpooling2D", "images, and a place for each element", f"got {x.shape}, {places.shape}")
    if any(step < long for step, long in zip(stride, kernel)):
        raise ArgumentError("MaxUnpooling2D", "windows that do not overlap", f"got {kernel} and strides {stride}")
    samples, channels = x.shape[:2]
    sizes = [size * long for size, long in zip(x.shape[2:], kernel)]
    starts = [max((n - 1) * s + k - size, 0) // 2 for n, s, k, size in zip(x.shape[2:], stride, kernel, sizes)]
    index = ops.floor(places.detach()).to(dtypes.int64)
    row = ops.div(index, kernel[1], rounding_mode="floor")
    column = index - row * kernel[1]
    down, across = (
        (ops.arange(x.shape[2 + dim], device=x.backend) * stride[dim] - starts[dim]).reshape(
            (-1, 1) if dim == 0 else (1, -1)
        )
        for dim in (0, 1)
    )
    row, column = row + down, column + across
    inside = ops.logical_and(ops.logical_and(row >= 0, row < sizes[0]), ops.logical_and(column >= 0, column < sizes[1]))
    flat = ops.where(inside, row * sizes[1] + column, ops.zeros_like(row)).reshape((samples, channels, -1))
    values = (x * inside.to(x.dtype)).reshape((samples, channels, -1))
    empty = ops.zeros(samples, channels, sizes[0] * sizes[1], dtype=x.dtype, device=x.backend)
    return ops.scatter_add(empty, 2, flat, values).reshape((samples, channels, *sizes))


__all__: list[str] = []
