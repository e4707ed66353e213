"""ONNX's ops on the host: shape arithmetic and constants, in NumPy, with the arguments of their handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from tinyedge.convert.build import folded_size
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, Ints, cast_array, ints
from tinyedge.convert.onnx_shapes import reshaped_to, slices, split_sizes, unsqueezed


class _Pointwise:
    """An elementwise op whose result is an array of the inputs' type, or of ``bool``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *inputs: Array) -> Array:
        folded_size(np.broadcast_shapes(*[x.shape for x in inputs]))
        return np.asarray(self.function(*inputs))


def _divided(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not b.all():
        raise ValueError("an integer is divided by 0")
    quotient = np.abs(a) // np.abs(b)
    return np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divided, "Neg": np.negative, "Abs": np.abs,
    "Floor": np.floor, "Ceil": np.ceil, "Sqrt": np.sqrt, "Not": np.logical_not, "And": np.logical_and,
    "Or": np.logical_or, "Equal": np.equal, "Greater": np.greater, "Less": np.less, "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal, "Where": np.where, "Identity": np.array,
}  # fmt: skip
for _name, _function in _FUNCTIONS.items():
    ONNX.on_host(_name)(_Pointwise(_function))


def _folded(function: Callable[..., Any], inputs: Sequence[Array]) -> Array:
    folded_size(np.broadcast_shapes(*[x.shape for x in inputs]))
    return np.asarray(reduce(function, inputs))


@ONNX.on_host("Max")
def max(*inputs: Array) -> Array:
    return _folded(np.maximum, inputs)


@ONNX.on_host("Min")
def min(*inputs: Array) -> Array:
    return _folded(np.minimum, inputs)


@ONNX.on_host("Mod")
def mod(a: Array, b: Array, *, fmod: int = 0) -> Array:
    if a.dtype.kind != "f" and not b.all():
        raise ValueError("an integer is divided by 0")
    folded_size(np.broadcast_shapes(a.shape, b.shape))
    return np.asarray(np.fmod(a, b) if fmod else np.mod(a, b))


@ONNX.on_host("Cast")
def cast(x: Array, *, to: int, saturate: int = 1, round_mode: str = "up") -> Array:
    return cast_array(x, to)


@ONNX.on_host("Reshape")
def reshape(x: Array, shape: Array, *, allowzero: int = 0) -> Array:
    return x.reshape(reshaped_to(x.shape, ints(shape), allowzero))


@ONNX.on_host("Squeeze")
def squeeze(x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, None if axes is None else ints(axes))


@ONNX.on_host("Unsqueeze")
def unsqueeze(x: Array, axes: Array) -> Array:
    return x.reshape(unsqueezed(x.shape, ints(axes)))


@ONNX.on_host("Transpose")
def transpose(x: Array, *, perm: Ints | None = None) -> Array:
    return np.transpose(x, perm)


@ONNX.on_host("Concat")
def concat(*inputs: Array, axis: int) -> Array:
    folded_size((sum(x.size for x in inputs),))
    return np.concatenate(inputs, axis)


@ONNX.on_host("Split")
def split(x: Array, split: Array | None = None, *, axis: int = 0, num_outputs: int = 0, count: int) -> Any:
    sizes = split_sizes(x.shape[axis], None if split is None else ints(split), count)
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


@ONNX.on_host("Slice")
def slice_(x: Array, *given: Array | None, starts: Ints = (), ends: Ints = (), axes: Ints | None = None) -> Array:
    steps: Ints | None = None
    if given:
        parts = [None if part is None else ints(part) for part in given]
        parts += [None] * (4 - len(parts))
        starts, ends, axes, steps = parts[0] or (), parts[1] or (), parts[2], parts[3]
    return x[tuple(slices(x.shape, starts, ends, axes, steps))]


@ONNX.on_host("Gather")
def gather(x: Array, indices: Array, *, axis: int = 0) -> Array:
    folded_size((indices.size, x.size // (x.shape[axis] or 1)))
    return np.take(x, indices, axis)


@ONNX.on_host("Expand")
def expand(x: Array, shape: Array) -> Array:
    sizes = folded_size(np.broadcast_shapes(x.shape, ints(shape)))
    return np.array(np.broadcast_to(x, sizes))


@ONNX.on_host("Tile")
def tile(x: Array, repeats: Array) -> Array:
    folded_size([size * times for size, times in zip(x.shape, ints(repeats), strict=True)])
    return np.tile(x, ints(repeats))


@ONNX.on_host("Range")
def range_(start: Array, limit: Array, delta: Array) -> Array:
    first, end, step = (part.item() for part in (start, limit, delta))
    count = int(np.maximum(np.ceil((end - first) / step), 0))
    folded_size((count,))
    return np.asarray(first + np.arange(count) * step, start.dtype)


@ONNX.on_host("ConstantOfShape")
def constant_of_shape(shape: Array, *, value: Array | None = None) -> Array:
    number: Any = np.float32(0) if value is None else value.reshape(-1)[0]
    return np.full(folded_size(ints(shape)), number)


@ONNX.op("Range", host=("start", "limit", "delta"))
def range_on_device(start: Array, limit: Array, delta: Array) -> Array:
    return range_(start, limit, delta)


@ONNX.op("ConstantOfShape", host=("shape",))
def constant_on_device(shape: Array, *, value: Array | None = None) -> Array:
    return constant_of_shape(shape, value=value)


class _Reduced:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(
        self, x: Array, axes: Array | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Array:
        if noop_with_empty_axes and (axes is None or not axes.size):
            return x
        dims = None if axes is None or not axes.size else ints(axes)
        return np.asarray(self.function(x, axis=dims, keepdims=bool(keepdims))).astype(x.dtype)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceProd": np.prod, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min,
}  # fmt: skip
for _name, _function in _REDUCTIONS.items():
    ONNX.on_host(_name)(_Reduced(_function))


__all__: list[str] = []
