"""ONNX's random ops. They draw from tinyedge's generator: a file's seed says nothing of the numbers of a runtime."""

from __future__ import annotations

from tinyedge import dtypes, ops
from tinyedge.convert.build import folded_size
from tinyedge.convert.onnx_registry import ONNX, Ints, dtype_of
from tinyedge.tensor import Tensor


def _drawn(x: Tensor | None, shape: Ints, dtype: dtypes.DType, normal: bool, first: float, second: float) -> Tensor:
    device = None if x is None else x.backend
    draw = ops.randn if normal else ops.rand
    y = draw(shape, device=device)
    y = y * second + first if normal else y * (second - first) + first
    return y.to(dtype)


@ONNX.op("RandomNormal")
def random_normal(
    *, shape: Ints, dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Tensor:
    return _drawn(None, folded_size(shape), dtype_of(dtype), True, mean, scale)


@ONNX.op("RandomUniform")
def random_uniform(
    *, shape: Ints, dtype: int = 1, low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Tensor:
    return _drawn(None, folded_size(shape), dtype_of(dtype), False, low, high)


@ONNX.op("RandomNormalLike")
def random_normal_like(
    x: Tensor, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Tensor:
    return _drawn(x, x.shape, x.dtype if dtype is None else dtype_of(dtype), True, mean, scale)


@ONNX.op("RandomUniformLike")
def random_uniform_like(
    x: Tensor, *, dtype: int | None = None, low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Tensor:
    return _drawn(x, x.shape, x.dtype if dtype is None else dtype_of(dtype), False, low, high)


@ONNX.op("Bernoulli", since=15)
def bernoulli(x: Tensor, *, dtype: int | None = None, seed: float | None = None) -> Tensor:
    y = ops.rand(x.shape, device=x.backend) < x
    return y.to(x.dtype if dtype is None else dtype_of(dtype))


__all__: list[str] = []
