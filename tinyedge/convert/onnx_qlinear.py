"""ONNX Runtime's ops on integers with scales, as its static quantisation writes them where a network has no
QuantizeLinear: each computed with floats, in the units of the file's integers, cut off where these end.
"""

from __future__ import annotations

from typing import Any

from tinyedge import dtypes, ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_layers import average_pool, gemm
from tinyedge.convert.onnx_quantised import QGEMM, QLINEAR, dequantize, quantize
from tinyedge.convert.onnx_registry import ONNX, Ints
from tinyedge.convert.onnx_shapes import axis_of
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor

ENDS = ("x_scale", "x_zero", "y_scale", "y_zero")
BOTH = ("a_scale", "a_zero", "b_scale", "b_zero", "y_scale", "y_zero")


@ONNX.op(QLINEAR["Add"], host=BOTH)
def qlinear_add(
    a: Tensor, a_scale: Array, a_zero: Array | None, b: Tensor, b_scale: Array, b_zero: Array | None, y_scale: Array,
    y_zero: Array | None = None,
) -> Tensor:  # fmt: skip
    return quantize(dequantize(a, a_scale, a_zero) + dequantize(b, b_scale, b_zero), y_scale, y_zero)


@ONNX.op(QLINEAR["Mul"], host=BOTH)
def qlinear_mul(
    a: Tensor, a_scale: Array, a_zero: Array | None, b: Tensor, b_scale: Array, b_zero: Array | None, y_scale: Array,
    y_zero: Array | None = None,
) -> Tensor:  # fmt: skip
    return quantize(dequantize(a, a_scale, a_zero) * dequantize(b, b_scale, b_zero), y_scale, y_zero)


@ONNX.op(QLINEAR["Sigmoid"], host=ENDS)
def qlinear_sigmoid(
    x: Tensor, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None
) -> Tensor:
    return quantize(ops.sigmoid(dequantize(x, x_scale, x_zero)), y_scale, y_zero)


@ONNX.op(QLINEAR["LeakyRelu"], host=ENDS)
def qlinear_leaky_relu(
    x: Tensor, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None, *,
    alpha: float = 0.01,
) -> Tensor:  # fmt: skip
    return quantize(F.leaky_relu(dequantize(x, x_scale, x_zero), alpha), y_scale, y_zero)


@ONNX.op(QLINEAR["Softmax"], host=ENDS)
def qlinear_softmax(
    x: Tensor, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None, *, axis: int = -1,
    opset: int,
) -> Tensor:  # fmt: skip
    axis = axis_of("QLinearSoftmax", axis, x.ndim)
    if opset < 13 and axis != x.ndim - 1:
        raise ArgumentError("QLinearSoftmax", "the last axis, before opset 13", f"got {axis}")
    return quantize(F.softmax(dequantize(x, x_scale, x_zero), axis), y_scale, y_zero)


def _images(name: str, x: Tensor, channels_last: int) -> Tensor:
    if channels_last:
        raise ArgumentError(name, "images whose channels come first", "they come last")
    return x


@ONNX.op(QLINEAR["GlobalAveragePool"], host=ENDS)
def qlinear_global_average_pool(
    x: Tensor, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None, *,
    channels_last: int = 0,
) -> Tensor:  # fmt: skip
    x = dequantize(_images("QLinearGlobalAveragePool", x, channels_last), x_scale, x_zero)
    if x.ndim < 3:
        raise ShapeError("QLinearGlobalAveragePool", "a dim besides batch and channels", f"got {x.shape}")
    return quantize(ops.mean(x, tuple(range(2, x.ndim)), True), y_scale, y_zero)


@ONNX.op(QLINEAR["AveragePool"], host=ENDS)
def qlinear_average_pool(
    x: Tensor,
    x_scale: Array,
    x_zero: Array | None,
    y_scale: Array,
    y_zero: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    y = average_pool(
        dequantize(_images("QLinearAveragePool", x, channels_last), x_scale, x_zero), auto_pad=auto_pad,
        ceil_mode=ceil_mode, count_include_pad=count_include_pad, kernel_shape=kernel_shape, pads=pads,
        strides=strides,
    )  # fmt: skip
    return quantize(y, y_scale, y_zero)


@ONNX.op(QLINEAR["Concat"], host=("y_scale", "y_zero"))
def qlinear_concat(y_scale: Array, y_zero: Array, *parts: Any, axis: int) -> Tensor:
    """``parts``: tensors, each with its scale and its zero point."""
    if not parts or len(parts) % 3:
        raise ArgumentError("QLinearConcat", "tensors, each with a scale and a zero point", f"got {len(parts)} inputs")
    rows = [
        (x.to(_real(x)) - zero.to(_real(x)).reshape(())) * scale.reshape(())
        for x, scale, zero in zip(parts[0::3], parts[1::3], parts[2::3])
    ]
    return quantize(ops.cat(rows, axis_of("QLinearConcat", axis, rows[0].ndim)), y_scale, y_zero)


def _real(x: Tensor) -> dtypes.DType:
    """The type in which integers, and what they stand for, are computed with."""
    return x.dtype if x.is_floating_point() else dtypes.float32


def _qgemm(
    a: Tensor, b: Tensor, c: Tensor | None, y_scale: Array | None, y_zero: Array | None, alpha: float, turn_a: int,
    turn_b: int,
) -> Tensor:  # fmt: skip
    y = gemm(a, b, c, alpha=alpha, transA=turn_a, transB=turn_b)
    return y if y_scale is None else quantize(y, y_scale, y_zero)


@ONNX.op(f"{QGEMM}OfWeight", host=BOTH, trained=("b", "c"))
def qgemm_of_weight(
    a: Tensor,
    a_scale: Array,
    a_zero: Array | None,
    b: Tensor,
    b_scale: Array,
    b_zero: Array | None,
    c: Tensor | None = None,
    y_scale: Array | None = None,
    y_zero: Array | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """The weight and the bias stand in the file, and are what their integers stand for by now."""
    return _qgemm(dequantize(a, a_scale, a_zero), b, c, y_scale, y_zero, alpha, transA, transB)


@ONNX.op(QGEMM, host=BOTH)
def qgemm(
    a: Tensor,
    a_scale: Array,
    a_zero: Array | None,
    b: Tensor,
    b_scale: Array,
    b_zero: Array | None,
    c: Tensor | None = None,
    y_scale: Array | None = None,
    y_zero: Array | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    if c is not None:
        raise ArgumentError("QGemm", "a bias only beside a weight that stands in the file", "the weight is computed")
    b = dequantize(b, b_scale, b_zero, axis=0 if transB else 1)
    return _qgemm(dequantize(a, a_scale, a_zero), b, None, y_scale, y_zero, alpha, transA, transB)


__all__: list[str] = []
