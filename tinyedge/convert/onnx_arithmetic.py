"""ONNX's elementwise ops, activations and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

from tinyedge import dtypes, ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, Ints, ints
from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": ops.abs, "Neg": ops.neg, "Sqrt": ops.sqrt, "Exp": ops.exp, "Log": ops.log, "Sin": ops.sin, "Cos": ops.cos,
    "Tan": ops.tan, "Asin": ops.asin, "Acos": ops.acos, "Atan": ops.atan, "Sinh": ops.sinh, "Cosh": ops.cosh,
    "Asinh": ops.asinh, "Acosh": ops.acosh, "Atanh": ops.atanh, "Tanh": ops.tanh, "Sigmoid": ops.sigmoid,
    "Floor": ops.floor, "Ceil": ops.ceil, "Round": ops.round, "Sign": ops.sign, "Erf": ops.erf, "Not": ops.logical_not,
    "Reciprocal": ops.reciprocal, "IsNaN": ops.isnan, "BitwiseNot": ops.bitwise_not, "Relu": ops.relu,
    "Softsign": F.softsign, "HardSwish": F.hardswish, "Mish": F.mish,
}  # fmt: skip
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": ops.logical_and, "Or": ops.logical_or, "Xor": ops.logical_xor, "Equal": ops.eq, "Greater": ops.gt,
    "Less": ops.lt, "GreaterOrEqual": ops.ge, "LessOrEqual": ops.le, "BitwiseAnd": ops.bitwise_and,
    "BitwiseOr": ops.bitwise_or, "BitwiseXor": ops.bitwise_xor,
}  # fmt: skip


def _enter_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    ONNX.op(name)(_Plain1(function))


class _Plain1:
    """A handler without attributes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Plain2:
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a, b)


for _name, _function in UNARY.items():
    _enter_unary(_name, _function)
for _name, _pair in BINARY.items():
    ONNX.op(_name, since=7)(_Plain2(_pair))


@ONNX.op("Add", since=7, weights=True)
def add(a: Tensor, b: Tensor) -> Tensor:
    return ops.add(a, b)


@ONNX.op("Sub", since=7, weights=True)
def sub(a: Tensor, b: Tensor) -> Tensor:
    return ops.sub(a, b)


@ONNX.op("Mul", since=7, weights=True)
def mul(a: Tensor, b: Tensor) -> Tensor:
    return ops.mul(a, b)


@ONNX.op("Div", since=7, weights=True)
def div(a: Tensor, b: Tensor) -> Tensor:
    return ops.div(a, b) if a.is_floating_point() else ops.div(a, b, rounding_mode="trunc")


@ONNX.op("Pow", since=7)
def pow(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return ops.pow(a, b.to(a.dtype))
    return ops.pow(a.to(dtypes.float32), b.to(dtypes.float32)).to(a.dtype) if b.is_floating_point() else ops.pow(a, b)


@ONNX.op("Mod")
def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    return ops.fmod(a, b) if fmod else ops.remainder(a, b)


@ONNX.op("BitShift")
def bit_shift(a: Tensor, b: Tensor, *, direction: str) -> Tensor:
    return ops.bitwise_left_shift(a, b) if direction == "LEFT" else ops.bitwise_right_shift(a, b)


@ONNX.op("Sum", since=6, weights=True)
def sum(*inputs: Tensor) -> Tensor:
    return reduce(ops.add, inputs)


@ONNX.op("Mean", since=6)
def mean(*inputs: Tensor) -> Tensor:
    return ops.div(reduce(ops.add, inputs), len(inputs))


@ONNX.op("Max", since=6)
def max(*inputs: Tensor) -> Tensor:
    return reduce(ops.maximum, inputs)


@ONNX.op("Min", since=6)
def min(*inputs: Tensor) -> Tensor:
    return reduce(ops.minimum, inputs)


@ONNX.op("Where", since=9)
def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return ops.where(condition, a, b)


@ONNX.op("IsInf")
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    if detect_negative and detect_positive:
        return ops.isinf(x)
    found = ops.isneginf(x) if detect_negative else ops.isposinf(x)
    return found if detect_negative or detect_positive else ops.logical_and(found, ops.logical_not(found))


# Activations


@ONNX.op("LeakyRelu", since=6)
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


@ONNX.op("PRelu", since=7, trained=("slope",))
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    place = slope.ndim - (x.ndim - 1)  # of the channels' dim
    if x.ndim > 1 and place >= 0 and slope.numel() == slope.shape[place] == x.shape[1] > 1:
        return F.prelu(x, slope.reshape((-1,)))  # a slope for each channel
    return ops.where(x > 0, x, x * slope)


@ONNX.op("Elu", since=6)
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@ONNX.op("Selu", since=6)
def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    return F.elu(x, alpha) * gamma


@ONNX.op("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


@ONNX.op("HardSigmoid", since=6)
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return ops.clamp(x * alpha + beta, 0.0, 1.0)


@ONNX.op("Softplus")
def softplus(x: Tensor) -> Tensor:
    return F.softplus(x)


@ONNX.op("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.threshold(x, alpha, 0.0)


@ONNX.op("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    above, below = (x > lambd).to(x.dtype), (x < -lambd).to(x.dtype)
    return (x - bias) * above + (x + bias) * below


@ONNX.op("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


@ONNX.op("Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return x * ops.sigmoid(x * alpha)


@ONNX.op("Clip", since=6, host=("min", "max"), became_inputs=("min", "max"))
def clip(x: Tensor, min: Array | None = None, max: Array | None = None) -> Tensor:
    low, high = (None if bound is None else bound.item() for bound in (min, max))
    if low == 0 and high == 6:
        return F.relu6(x)
    return x if low is None and high is None else ops.clamp(x, low, high)


def _flat_softmax(function: Callable[..., Tensor], x: Tensor, axis: int) -> Tensor:
    """Before opset 13: over all dims from ``axis`` on."""
    axis = axis + x.ndim if axis < 0 else axis
    rows = math.prod(x.shape[:axis])
    return function(x.reshape((rows, -1 if x.numel() else math.prod(x.shape[axis:]))), dim=1).reshape(x.shape)


@ONNX.op("Softmax")
def old_softmax(x: Tensor, *, axis: int = 1) -> Tensor:
    return _flat_softmax(ops.softmax, x, axis)


@ONNX.op("Softmax", since=13)
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return ops.softmax(x, dim=axis)


@ONNX.op("LogSoftmax")
def old_log_softmax(x: Tensor, *, axis: int = 1) -> Tensor:
    return _flat_softmax(ops.log_softmax, x, axis)


@ONNX.op("LogSoftmax", since=13)
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return ops.log_softmax(x, dim=axis)


# Reductions


def _axes(x: Tensor, axes: Array | None, keep_all: int) -> tuple[int, ...] | None:
    """The dims to reduce; None for none at all."""
    if axes is not None and axes.size:
        return ints(axes)
    return None if keep_all else tuple(range(x.ndim))


class _Reduction:
    """A handler of one reduction, over axes that were an attribute once."""

    def __init__(self, function: Callable[..., Tensor], before: Callable[[Tensor], Tensor] | None = None) -> None:
        self.function = function
        self.before = before

    def __call__(
        self, x: Tensor, axes: Array | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        dims = _axes(x, axes, noop_with_empty_axes)
        if dims is None:
            return self.before(x) if self.before is not None else x
        x = self.before(x) if self.before is not None else x
        return self.function(x, dims, bool(keepdims)) if dims else x


def _total(x: Tensor, dims: Ints, keepdim: bool) -> Tensor:
    return ops.sum(x, dims, keepdim).to(x.dtype)


def _product(x: Tensor, dims: Ints, keepdim: bool) -> Tensor:
    dtype = x.dtype
    for dim in sorted((dim % x.ndim for dim in dims), reverse=True):
        x = ops.prod(x, dim, keepdim)
    return x.to(dtype)


def _mean(x: Tensor, dims: Ints, keepdim: bool) -> Tensor:
    if x.is_floating_point():
        return ops.mean(x, dims, keepdim)
    count = math.prod(x.shape[dim] for dim in dims)
    return ops.div(ops.sum(x, dims, keepdim), count, rounding_mode="trunc").to(x.dtype)


def _extreme(function: Callable[..., Tensor], empty: str, x: Tensor, dims: Ints, keepdim: bool) -> Tensor:
    if x.dtype is dtypes.bool_:
        return (ops.any if empty == "-inf" else ops.all)(x, dims, keepdim)
    if x.numel() == 0 and x.is_floating_point():
        shape = [1 if n in {d % x.ndim for d in dims} else size for n, size in enumerate(x.shape)]
        y = ops.broadcast_to(x.sum() + float(empty), shape)
        return y if keepdim else ops.squeeze(y, dims)
    return function(x, dims, keepdim)


def _norm(x: Tensor, dims: Ints, keepdim: bool) -> Tensor:
    return ops.sqrt(
        ops.sum(x * x, dims, keepdim).to(dtypes.float32) if not x.is_floating_point() else ops.sum(x * x, dims, keepdim)
    ).to(x.dtype)


def _log_sum(x: Tensor, dims: Ints, keepdim: bool) -> Tensor:
    return ops.log(ops.sum(x, dims, keepdim))


def _log_sum_exp(x: Tensor, dims: Ints, keepdim: bool) -> Tensor:
    return ops.logsumexp(x, dims, keepdim)


REDUCTIONS: dict[str, _Reduction] = {
    "ReduceSum": _Reduction(_total),
    "ReduceMean": _Reduction(_mean),
    "ReduceMax": _Reduction(partial(_extreme, ops.amax, "-inf")),
    "ReduceMin": _Reduction(partial(_extreme, ops.amin, "inf")),
    "ReduceProd": _Reduction(_product),
    "ReduceL1": _Reduction(_total, ops.abs),
    "ReduceL2": _Reduction(_norm),
    "ReduceSumSquare": _Reduction(_total, ops.square),
    "ReduceLogSum": _Reduction(_log_sum),
    "ReduceLogSumExp": _Reduction(_log_sum_exp),
}
for _name, _reduction in REDUCTIONS.items():
    ONNX.op(_name, host=("axes",), became_inputs=("axes",))(_reduction)


class _ArgExtreme:
    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def __call__(self, x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if not select_last_index:
            return self.function(x, axis, bool(keepdims))
        return self.function(ops.flip(x, (axis,)), axis, bool(keepdims)) * -1 + (x.shape[axis] - 1)


ONNX.op("ArgMax")(_ArgExtreme(ops.argmax))
ONNX.op("ArgMin")(_ArgExtreme(ops.argmin))


@ONNX.op("CumSum", host=("axis",))
def cum_sum(x: Tensor, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    dim = int(axis.item())
    y = ops.flip(x, (dim,)) if reverse else x
    summed = ops.cumsum(y, dim).to(x.dtype)
    y = summed - y if exclusive and not x.is_floating_point() else summed
    if exclusive and x.is_floating_point():  # without a subtraction, which rounds
        dim = dim % x.ndim
        head = ops.zeros_like(ops.narrow(summed, dim, 0, 1))
        y = ops.cat([head, ops.narrow(summed, dim, 0, x.shape[dim] - 1)], dim)
    return ops.flip(y, (dim,)) if reverse else y


@ONNX.op("Einsum", since=12)
def einsum(*inputs: Tensor, equation: str) -> Tensor:
    return ops.einsum(equation, *inputs)


@ONNX.op("TopK", host=("k",), became_inputs=("k",))
def top_k(x: Tensor, k: Array, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    if k.size != 1:
        raise ArgumentError("TopK", "one number k", f"got {k.size}")
    found = ops.topk(x, int(k.item()), axis, bool(largest), True)
    return found.values, found.indices


@ONNX.op("Hardmax", since=13)
def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    places = ops.argmax(x, axis, True)
    return ops.scatter(ops.zeros_like(x), axis, places, 1.0)


__all__ = ["BINARY", "REDUCTIONS", "UNARY"]
