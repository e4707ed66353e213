"""ONNX's Resize: where each output lies in the input, and what the elements around it weigh."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tinyedge import ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, Floats, Ints, ints
from tinyedge.convert.onnx_shapes import axis_of
from tinyedge.convert.windows import resize_mode
from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor


class Sampling(NamedTuple):
    """How outputs come from the elements around them, in ONNX's words. ``inside``: elements outside have no weight.
    ``crops`` has the ends of the part that is resized, by dim; beyond the image there is ``beyond``. Outputs lie at one
    of so many ``places`` between two elements, if the number is given.
    """

    mode: str
    transformation: str
    nearest: str = "floor"
    cubic: float = -0.75
    inside: bool = False
    antialias: bool = False
    crops: Mapping[int, tuple[float, float]] = {}
    beyond: float = 0.0
    places: int = 0


@ONNX.op("Upsample", host=("scales",), became_inputs=("scales",))
def upsample(x: Tensor, scales: Array, *, mode: str = "nearest") -> Tensor:
    factors = tuple(float(scale) for scale in scales.reshape(-1))
    sizes = tuple(math.floor(n * scale) for n, scale in zip(x.shape, factors, strict=True))
    return resized(x, sizes, factors, Sampling(mode, "asymmetric"))


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
    places = tuple(range(x.ndim)) if axes is None else tuple(axis_of("Resize", axis, x.ndim) for axis in axes)
    how = Sampling(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a, bool(exclude_outside), bool(antialias),
        beyond=extrapolation_value,
    )  # fmt: skip
    if how.transformation == "tf_crop_and_resize":
        how = how._replace(crops=_crops(roi, sizes, places))
    if antialias and mode not in ("linear", "cubic"):
        raise ArgumentError("Resize", "antialias with mode linear or cubic", f"got {mode!r}")
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
    return resized(x, tuple(wanted), tuple(factors), how)


def _crops(roi: Array | None, sizes: Array | None, places: Ints) -> dict[int, tuple[float, float]]:
    """The ends of the part that is resized, by dim, as shares of the dim."""
    if roi is None or roi.size != 2 * len(places) or sizes is None or not sizes.size:
        raise ArgumentError(
            "Resize", "a roi with two ends for each dim, and sizes, with tf_crop_and_resize",
            f"got a roi of {0 if roi is None else roi.size} numbers, and {'no sizes' if sizes is None else 'sizes'}",
        )  # fmt: skip
    ends = roi.reshape(2, -1).astype(np.float64)
    return {place: (float(ends[0, n]), float(ends[1, n])) for n, place in enumerate(places)}


def _coordinates(size: int, outputs: int, scale: float, transformation: str, crop: tuple[float, float] | None) -> Any:
    """Where in the input each output lies."""
    at = np.arange(outputs, dtype=np.float64)
    if crop is not None:
        first, last = crop[0] * (size - 1), crop[1] * (size - 1)
        return first + at * ((last - first) / (outputs - 1)) if outputs > 1 else at + (first + last) / 2
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


def _kernel(distance: Any, mode: str, a: float) -> Any:
    """The weight of an element at a distance, by a triangle or by a cubic spline."""
    if mode == "linear":
        return np.maximum(1 - distance, 0)
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _matrix(size: int, scale: float, at: Any, how: Sampling) -> Any:
    """The weights of the inputs (size) for each output (outputs) along one dim. With antialias, where the result is
    smaller, the kernel is as much wider.
    """
    width = min(scale, 1.0) if how.antialias else 1.0
    reach = math.ceil((1 if how.mode == "linear" else 2) / width)
    places = np.floor(at)[:, None] + np.arange(1 - reach, reach + 1)
    weights = _kernel(np.abs(places - at[:, None]) * width, how.mode, how.cubic)
    if how.inside:
        weights = np.where((places < 0) | (places >= size), 0.0, weights)
    if how.inside or how.antialias:
        weights = weights / weights.sum(1, keepdims=True)
    found = np.zeros((len(at), size))
    rows = np.broadcast_to(np.arange(len(at))[:, None], places.shape)
    np.add.at(found, (rows, np.clip(places, 0, size - 1).astype(np.int64)), weights)
    return found


def _interpolated(x: Tensor, sizes: Ints, factors: Floats, dims: list[int], how: Sampling) -> Tensor | None:
    """By ``F.interpolate``, where it samples so."""
    if how.mode not in ("linear", "cubic") or x.ndim not in (3, 4, 5) or not dims or min(dims) < 2:
        return None
    if (
        how.inside
        or how.antialias
        or how.crops
        or how.places
        or (how.mode == "cubic" and (x.ndim != 4 or how.cubic != -0.75))
    ):
        return None
    exact = all(abs(sizes[n] - x.shape[n] * factors[n]) < 1e-4 for n in dims)
    aligned, half = how.transformation == "align_corners", how.transformation == "half_pixel"
    half = half or (how.transformation == "pytorch_half_pixel" and min(sizes[2:]) > 1)
    if not aligned and not (half and exact):
        return None
    return F.interpolate(x, sizes[2:], mode=resize_mode(x.ndim - 2, how.mode), align_corners=aligned)


def resized(x: Tensor, sizes: Ints, factors: Floats, how: Sampling) -> Tensor:
    """``x`` with each dim resized; a dim whose factor is 1 stays, if it is not cropped."""
    dims = [n for n, (size, factor) in enumerate(zip(sizes, factors)) if size != x.shape[n] or factor != 1.0]
    dims = sorted({*dims, *(n for n, ends in how.crops.items() if ends != (0.0, 1.0))})
    if how.transformation == "align_corners" and any(abs(sizes[n] - x.shape[n] * factors[n]) > 1e-4 for n in dims):
        raise ArgumentError(
            "Resize", "sizes that the scales give without rounding, with align_corners", f"got {factors}"
        )
    y = _interpolated(x, sizes, factors, dims, how)
    if y is not None:
        return y
    for dim in dims:
        size, outputs = x.shape[dim], sizes[dim]
        at = _coordinates(size, outputs, factors[dim], how.transformation, how.crops.get(dim))
        if how.places:
            at = np.floor(at) + np.rint((at - np.floor(at)) * how.places) / how.places
        if how.mode == "nearest":
            x = _repeated(x, dim, np.clip(_nearest(at, how.nearest), 0, size - 1).astype(np.int64))
        elif how.mode in ("linear", "cubic"):
            matrix = tensor(_matrix(size, factors[dim], at, how).astype(np.float32), device=x.backend).to(x.dtype)
            x = ops.movedim(ops.matmul(ops.movedim(x, dim, -1), matrix.t()), -1, dim)
        else:
            raise ArgumentError("Resize", "mode nearest, linear or cubic", f"got {how.mode!r}")
        outside = (at < 0) | (at > size - 1)
        if dim in how.crops and outside.any():
            shape = [-1 if n == dim else 1 for n in range(x.ndim)]
            beyond = tensor(outside.reshape(shape), device=x.backend)
            x = ops.where(beyond, ops.full_like(x, how.beyond), x)
    return x


def _repeated(x: Tensor, dim: int, index: Any) -> Tensor:
    size = x.shape[dim]
    times = len(index) // size if size else 0
    if times and len(index) == times * size and np.array_equal(index, np.repeat(np.arange(size), times)):
        return ops.repeat_interleave(x, times, dim)
    return ops.index_select(x, dim, tensor(index, device=x.backend))


__all__ = ["Sampling", "resized"]
