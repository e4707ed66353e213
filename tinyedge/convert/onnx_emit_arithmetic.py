"""Elementwise ops, reductions and the like as ONNX's nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.onnx_emit import CONVERTERS, Emitter, Unwritable, V, emits
from tinyedge.dtypes import DType

UNARY = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan",
    "atanh": "Atanh", "bitwise_not": "BitwiseNot", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "erf": "Erf",
    "exp": "Exp", "floor": "Floor", "hardswish": "HardSwish", "isnan": "IsNaN", "log": "Log", "mish": "Mish",
    "neg": "Neg", "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round", "sigmoid": "Sigmoid",
    "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "softsign": "Softsign", "sqrt": "Sqrt", "root_of_squares": "Sqrt",
    "tan": "Tan", "tanh": "Tanh", "selu": "Selu",
}  # fmt: skip
BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "bitwise_and": "BitwiseAnd",
          "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor", "trunc_divide": "Div"}  # fmt: skip
COMPARISONS = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual"}
LOGICAL = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}
ON_BOOLS = {"BitwiseAnd": "And", "BitwiseOr": "Or", "BitwiseXor": "Xor", "BitwiseNot": "Not"}


def _unary(op: str) -> Callable[[Emitter, V], Any]:
    return lambda b, x: b.node(ON_BOOLS.get(op, op) if x.dtype is dtypes.bool_ else op, x)


def _binary(op: str) -> Callable[[Emitter, V, V], Any]:
    def convert(b: Emitter, x: V, y: V) -> Any:
        name = ON_BOOLS.get(op, op) if b.out[0].dtype is dtypes.bool_ else op
        return b.node(name, *b.like_out(x, y))

    return convert


def together(b: Emitter, *values: V) -> list[V]:
    """The values in the dtype that all of them have, or the widest."""
    kinds = [value.dtype for value in values if value.shape or value.dtype.is_floating_point] or [values[0].dtype]
    widest = max(kinds, key=lambda dtype: (dtype.category, dtype.itemsize))
    return [b.as_dtype(value, widest) for value in values]


def _comparison(op: str) -> Callable[[Emitter, V, V], Any]:
    return lambda b, x, y: b.node(op, *together(b, x, y))


def _truth(b: Emitter, x: V) -> str:
    return x.name if x.dtype is dtypes.bool_ else b.cast(x, dtypes.bool_)


def _logical(op: str) -> Callable[[Emitter, V, V], Any]:
    return lambda b, x, y: b.node(op, _truth(b, x), _truth(b, y))


CONVERTERS.update({name: _unary(op) for name, op in UNARY.items()})
CONVERTERS.update({name: _binary(op) for name, op in BINARY.items()})
CONVERTERS.update({name: _comparison(op) for name, op in COMPARISONS.items()})
CONVERTERS.update({name: _logical(op) for name, op in LOGICAL.items()})


def number(b: Emitter, value: Any, dtype: DType | None = None) -> str:
    """A number, or an array, in the dtype of the result."""
    return b.const(value, dtype or b.out[0].dtype)


@emits("ne")
def ne(b: Emitter, x: V, y: V) -> Any:
    return b.node("Not", b.node("Equal", *together(b, x, y)))


@emits("logical_not")
def logical_not(b: Emitter, x: V) -> Any:
    return b.node("Not", _truth(b, x))


@emits("cast")
def cast(b: Emitter, x: V, dtype: DType) -> Any:
    return b.cast(x, dtype)


@emits("where")
def where(b: Emitter, condition: V, x: V, y: V) -> Any:
    chosen = _truth(b, condition)
    if b.out[0].dtype is not dtypes.bool_:
        return b.node("Where", chosen, *b.like_out(x, y))
    one, other = b.node("And", chosen, _truth(b, x)), b.node("And", b.node("Not", chosen), _truth(b, y))
    return b.node("Or", one, other)  # runtimes have no Where of bools


@emits("pow")
def pow(b: Emitter, x: V, y: V) -> Any:
    return b.node("Pow", *b.like_out(x, y))


@emits("maximum")
def maximum(b: Emitter, x: V, y: V) -> Any:
    return b.node("Max", *b.like_out(x, y))


@emits("minimum")
def minimum(b: Emitter, x: V, y: V) -> Any:
    return b.node("Min", *b.like_out(x, y))


def _skipping(op: str) -> Callable[[Emitter, V, V], Any]:
    """The extreme of two, where NaN is none."""

    def convert(b: Emitter, x: V, y: V) -> Any:
        x, y = b.like_out(x, y)
        if not x.dtype.is_floating_point:
            return b.node(op, x, y)
        one = b.node("Where", b.node("IsNaN", x), y, x)
        other = b.node("Where", b.node("IsNaN", y), x, y)
        return b.node(op, one, other)

    return convert


CONVERTERS.update({"fmax": _skipping("Max"), "fmin": _skipping("Min")})


@emits("fmod")
def fmod(b: Emitter, x: V, y: V) -> Any:
    return b.node("Mod", *b.like_out(x, y), fmod=1)


@emits("remainder")
def remainder(b: Emitter, x: V, y: V) -> Any:
    x, y = b.like_out(x, y)
    if not x.dtype.is_floating_point:
        return b.node("Mod", x, y)
    rest = b.node("Mod", x, y, fmod=1)
    zero = number(b, 0)
    is_other = b.node("And", b.node("Not", b.node("Equal", rest, zero)),
                      b.node("Xor", b.node("Less", rest, zero), b.node("Less", y, zero)))  # fmt: skip
    return b.node("Where", is_other, b.node("Add", rest, y), rest)


@emits("floor_divide")
def floor_divide(b: Emitter, x: V, y: V) -> Any:
    x, y = b.like_out(x, y)
    quotient, zero = b.node("Div", x, y), number(b, 0)
    rest = b.node("Sub", x, b.node("Mul", quotient, y))  # not Mod, which runtimes compute in floating point
    is_lower = b.node("And", b.node("Not", b.node("Equal", rest, zero)),
                      b.node("Xor", b.node("Less", rest, zero), b.node("Less", y, zero)))  # fmt: skip
    return b.node("Where", is_lower, b.node("Sub", quotient, number(b, 1)), quotient)


@emits("floor_quotient")
def floor_quotient(b: Emitter, x: V, y: V) -> Any:
    x, y = b.like_out(x, y)
    whole = b.node("Round", b.node("Div", b.node("Sub", x, remainder(b, x, y)), y))
    return b.node("Where", b.node("Equal", y, number(b, 0)), b.node("Div", x, y), whole)


def _truncated(b: Emitter, x: Any) -> str:
    return str(b.node("Mul", b.node("Sign", x), b.node("Floor", b.node("Abs", x))))


@emits("trunc")
def trunc(b: Emitter, x: V) -> Any:
    return _truncated(b, x) if x.dtype.is_floating_point else b.node("Identity", x)


@emits("frac")
def frac(b: Emitter, x: V) -> Any:
    return b.node("Sub", x, _truncated(b, x))


@emits("trunc_quotient")
def trunc_quotient(b: Emitter, x: V, y: V) -> Any:
    return _truncated(b, b.node("Div", *b.like_out(x, y)))


@emits("hypot")
def hypot(b: Emitter, x: V, y: V) -> Any:
    x, y = b.like_out(x, y)
    return b.node("Sqrt", b.node("Add", b.node("Mul", x, x), b.node("Mul", y, y)))


@emits("lerp")
def lerp(b: Emitter, x: V, y: V, weight: V) -> Any:
    x, y, weight = b.like_out(x, y, weight)
    return b.node("Add", x, b.node("Mul", weight, b.node("Sub", y, x)))


@emits("square")
def square(b: Emitter, x: V) -> Any:
    return b.node("Mul", x, x)


@emits("rsqrt")
def rsqrt(b: Emitter, x: V) -> Any:
    return b.node("Reciprocal", b.node("Sqrt", x))


@emits("exp2")
def exp2(b: Emitter, x: V) -> Any:
    return b.node("Pow", number(b, 2), x)


@emits("expm1")
def expm1(b: Emitter, x: V) -> Any:
    """By ``tanh(x / 2) * (exp(x) + 1)``, which keeps small results."""
    half = b.node("Tanh", b.node("Mul", x, number(b, 0.5)))
    near = b.node("Mul", half, b.node("Add", b.node("Exp", x), number(b, 1)))
    is_near = b.node("Less", b.node("Abs", x), number(b, 1))
    return b.node("Where", is_near, near, b.node("Sub", b.node("Exp", x), number(b, 1)))


@emits("log1p")
def log1p(b: Emitter, x: V) -> Any:
    """By ``2 atanh(x / (x + 2))`` for small ``x``."""
    near = b.node("Mul", b.node("Atanh", b.node("Div", x, b.node("Add", x, number(b, 2)))), number(b, 2))
    is_near = b.node("Less", b.node("Abs", x), number(b, 0.5))
    return b.node("Where", is_near, near, b.node("Log", b.node("Add", x, number(b, 1))))


@emits("log2")
def log2(b: Emitter, x: V) -> Any:
    return b.node("Mul", b.node("Log", x), number(b, 1 / math.log(2)))


@emits("log10")
def log10(b: Emitter, x: V) -> Any:
    return b.node("Mul", b.node("Log", x), number(b, 1 / math.log(10)))


@emits("logit")
def logit(b: Emitter, x: V) -> Any:
    return b.node("Log", b.node("Div", x, b.node("Sub", number(b, 1), x)))


@emits("erfc")
def erfc(b: Emitter, x: V) -> Any:
    return b.node("Sub", number(b, 1), b.node("Erf", x))


@emits("isinf")
def isinf(b: Emitter, x: V) -> Any:
    return b.node("IsInf", _wide(b, x))


@emits("isposinf")
def isposinf(b: Emitter, x: V) -> Any:
    return b.node("IsInf", _wide(b, x), detect_negative=0)


@emits("isneginf")
def isneginf(b: Emitter, x: V) -> Any:
    return b.node("IsInf", _wide(b, x), detect_positive=0)


@emits("isfinite")
def isfinite(b: Emitter, x: V) -> Any:
    x = _wide(b, x)
    return b.node("Not", b.node("Or", b.node("IsInf", x), b.node("IsNaN", x)))


def _wide(b: Emitter, x: V) -> V:
    """IsInf is of float32 and float64."""
    return b.as_dtype(x, x.dtype.computes if x.dtype.is_floating_point else dtypes.float32)


@emits("nan_to_num")
def nan_to_num(b: Emitter, x: V, instead: float, highest: float, lowest: float) -> Any:
    y = b.node("Where", b.node("IsNaN", x), number(b, instead), x)
    y = b.node("Where", b.node("IsInf", _wide(b, x), detect_negative=0), number(b, highest), y)
    return b.node("Where", b.node("IsInf", _wide(b, x), detect_positive=0), number(b, lowest), y)


@emits("clamp", "clamp_between")
def clamp(b: Emitter, x: V, low: V | None = None, high: V | None = None) -> Any:
    bounds = [None if bound is None else b.like_out(bound)[0] for bound in (low, high)]
    if all(bound is None or not bound.shape for bound in bounds):
        return b.node("Clip", x, *bounds)
    y: Any = x if bounds[0] is None else b.node("Max", x, bounds[0])
    return y if bounds[1] is None else b.node("Min", y, bounds[1])


@emits("at_least")
def at_least(b: Emitter, x: V, least: float) -> Any:
    return b.node("Max", x, number(b, least))


# Activations


@emits("leaky_relu")
def leaky_relu(b: Emitter, x: V, negative_slope: float) -> Any:
    return b.node("LeakyRelu", x, alpha=float(negative_slope))


@emits("elu")
def elu(b: Emitter, x: V, alpha: float) -> Any:
    return b.node("Elu", x, alpha=float(alpha))


@emits("celu")
def celu(b: Emitter, x: V, alpha: float) -> Any:
    if x.dtype is dtypes.float32:
        return b.node("Celu", x, alpha=float(alpha))
    low = b.node("Mul", b.node("Sub", b.node("Exp", b.node("Div", x, number(b, alpha))), number(b, 1)),
                 number(b, alpha))  # fmt: skip
    return b.node("Add", b.node("Max", x, number(b, 0)), b.node("Min", low, number(b, 0)))


@emits("relu6")
def relu6(b: Emitter, x: V) -> Any:
    return b.node("Clip", x, number(b, 0), number(b, 6))


@emits("hardtanh")
def hardtanh(b: Emitter, x: V, low: float, high: float) -> Any:
    return b.node("Clip", x, number(b, low), number(b, high))


@emits("hardsigmoid")
def hardsigmoid(b: Emitter, x: V) -> Any:
    return b.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@emits("hardshrink")
def hardshrink(b: Emitter, x: V, lambd: float) -> Any:
    return b.node("Shrink", x, lambd=float(lambd), bias=0.0)


@emits("softshrink")
def softshrink(b: Emitter, x: V, lambd: float) -> Any:
    return b.node("Shrink", x, lambd=float(lambd), bias=float(lambd))


@emits("tanhshrink")
def tanhshrink(b: Emitter, x: V) -> Any:
    return b.node("Sub", x, b.node("Tanh", x))


@emits("threshold")
def threshold(b: Emitter, x: V, edge: float, value: float) -> Any:
    return b.node("Where", b.node("LessOrEqual", x, number(b, edge)), number(b, value), x)


@emits("silu")
def silu(b: Emitter, x: V) -> Any:
    return b.node("Mul", x, b.node("Sigmoid", x))


@emits("gelu")
def gelu(b: Emitter, x: V) -> Any:
    part = b.node("Add", b.node("Erf", b.node("Div", x, number(b, math.sqrt(2)))), number(b, 1))
    return b.node("Mul", b.node("Mul", x, part), number(b, 0.5))


@emits("gelu_tanh")
def gelu_tanh(b: Emitter, x: V) -> Any:
    cube = b.node("Mul", b.node("Mul", b.node("Mul", x, x), x), number(b, 0.044715))
    inner = b.node("Mul", b.node("Add", x, cube), number(b, math.sqrt(2 / math.pi)))
    return b.node("Mul", b.node("Mul", x, b.node("Add", b.node("Tanh", inner), number(b, 1))), number(b, 0.5))


@emits("softplus")
def softplus(b: Emitter, x: V, beta: float, threshold: float) -> Any:
    scaled = b.node("Mul", x, number(b, beta)) if beta != 1 else x.name
    soft = b.node("Softplus", scaled)
    soft = b.node("Div", soft, number(b, beta)) if beta != 1 else soft
    return b.node("Where", b.node("Greater", scaled, number(b, threshold)), x, soft)


@emits("logsigmoid")
def logsigmoid(b: Emitter, x: V) -> Any:
    return b.node("Neg", b.node("Softplus", b.node("Neg", x)))


@emits("prelu")
def prelu(b: Emitter, x: V, weight: V) -> Any:
    return b.node("Where", b.node("Greater", x, number(b, 0)), x, b.node("Mul", *b.like_out(weight, x)))


def _softmax(op: str) -> Callable[[Emitter, V, int], Any]:
    def convert(b: Emitter, x: V, dim: int) -> Any:
        if x.shape:
            return b.node(op, x, axis=dim)
        return b.node("Squeeze", b.node(op, b.node("Unsqueeze", x, b.const([0])), axis=0), b.const([0]))

    return convert


CONVERTERS.update(softmax=_softmax("Softmax"), log_softmax=_softmax("LogSoftmax"))


# Reductions


def _reduction(op: str) -> Callable[..., Any]:
    def convert(b: Emitter, x: V, axes: tuple[int, ...]) -> Any:
        if not axes:
            return b.node("Identity", *b.like_out(x))
        if x.dtype is dtypes.bool_ and op in ("ReduceMax", "ReduceMin"):
            return b.cast(b.node(op, b.cast(x, dtypes.int32), b.const(axes), keepdims=1), dtypes.bool_)
        x = b.like_out(x)[0] if b.out[0].dtype.itemsize > x.dtype.itemsize or x.dtype is dtypes.bool_ else x
        y = b.node(op, x, b.const(axes), keepdims=1)
        return b.cast(y, b.out[0].dtype) if x.dtype is not b.out[0].dtype else y

    return convert


CONVERTERS.update(
    sum=_reduction("ReduceSum"), mean=_reduction("ReduceMean"), amax=_reduction("ReduceMax"),
    amin=_reduction("ReduceMin"), max_of_all=_reduction("ReduceMax"), min_of_all=_reduction("ReduceMin"),
)  # fmt: skip


def _indexed(kind: str) -> Callable[..., Any]:
    def convert(b: Emitter, x: V, axis: int) -> Any:
        if not x.shape:
            return b.node("Identity", x), b.const(0)
        index = b.node(f"Arg{kind}", x, axis=axis, keepdims=1)
        return b.node(f"Reduce{kind}", x, b.const([axis]), keepdims=1), index

    return convert


CONVERTERS.update(max_with_index=_indexed("Max"), min_with_index=_indexed("Min"))


@emits("cumsum")
def cumsum(b: Emitter, x: V, dim: int) -> Any:
    return b.node("CumSum", *b.like_out(x), b.const(dim)) if x.shape else b.node("Identity", *b.like_out(x))


@emits("sort")
def sort(b: Emitter, x: V, dim: int, descending: bool) -> Any:
    if not x.shape:
        return b.node("Identity", x), b.const(0)
    length = b.length(x.name, dim) if x.varies(dim) else b.const([x.shape[dim]])
    return b.node("TopK", x, length, axis=dim, largest=int(descending), sorted=1, count=2)


@emits("norm_scale")
def norm_scale(b: Emitter, weight: V, gamma: V, var: V, eps: float) -> Any:
    root = b.node("Sqrt", b.node("Add", var, number(b, eps)))
    return b.node("Mul", weight, b.node("Div", gamma, root))


@emits("norm_shift")
def norm_shift(b: Emitter, bias: V, mean: V, gamma: V, var: V, eps: float) -> Any:
    root = b.node("Sqrt", b.node("Add", var, number(b, eps)))
    return b.node("Sub", bias, b.node("Mul", mean, b.node("Div", gamma, root)))


@emits("atan2")
def atan2(b: Emitter, y: V, x: V) -> Any:
    """By quadrants; an angle of two zeros is 0 here, with their signs lost."""
    y, x = b.like_out(y, x)
    zero, pi = number(b, 0), number(b, np.pi)
    flat = b.node("Equal", x, zero)
    angle = b.node("Atan", b.node("Div", y, b.node("Where", flat, number(b, 1), x)))
    turn = b.node("Where", b.node("Less", y, zero), b.node("Neg", pi), pi)
    angle = b.node("Add", angle, b.node("Where", b.node("Less", x, zero), turn, zero))
    return b.node("Where", flat, b.node("Mul", b.node("Sign", y), number(b, np.pi / 2)), angle)


@emits("logaddexp")
def logaddexp(b: Emitter, x: V, y: V) -> Any:
    x, y = b.like_out(x, y)
    far = b.node("Neg", b.node("Abs", b.node("Sub", x, y)))
    same = b.node("Equal", x, y)  # infinities too, whose difference is NaN
    soft = b.node("Softplus", b.node("Where", same, number(b, 0), far))
    return b.node("Add", b.node("Max", x, y), soft)


@emits("xlogy")
def xlogy(b: Emitter, x: V, y: V) -> Any:
    x, y = b.like_out(x, y)
    return b.node("Where", b.node("And", b.node("Equal", x, number(b, 0)), b.node("Not", b.node("IsNaN", y))),
                  number(b, 0), b.node("Mul", x, b.node("Log", y)))  # fmt: skip


@emits("xlog1py")
def xlog1py(b: Emitter, x: V, y: V) -> Any:
    x, y = b.like_out(x, y)
    return b.node("Where", b.node("And", b.node("Equal", x, number(b, 0)), b.node("Not", b.node("IsNaN", y))),
                  number(b, 0), b.node("Mul", x, log1p(b, y)))  # fmt: skip


@emits("signbit")
def signbit(b: Emitter, x: V) -> Any:
    zero = b.const(0, x.dtype)
    below = b.node("Less", x, zero)
    if not x.dtype.is_floating_point:
        return below
    is_minus_zero = b.node("And", b.node("Equal", x, zero), b.node("Less", b.node("Reciprocal", x), zero))
    return b.node("Or", is_minus_zero, below)


@emits("copysign")
def copysign(b: Emitter, x: V, y: V) -> Any:
    x, y = b.like_out(x, y)
    size = b.node("Abs", x)
    return b.node("Where", signbit(b, y), b.node("Neg", size), size)


@emits("sinc")
def sinc(b: Emitter, x: V) -> Any:
    at_zero = b.node("Equal", x, number(b, 0))
    angle = b.node("Mul", b.node("Where", at_zero, number(b, 1), x), number(b, np.pi))
    return b.node("Where", at_zero, number(b, 1), b.node("Div", b.node("Sin", angle), angle))


def refuse_if(condition: bool, text: str) -> None:
    """Errors: Unwritable."""
    if condition:
        raise Unwritable(text)


__all__ = ["number", "refuse_if", "together"]
