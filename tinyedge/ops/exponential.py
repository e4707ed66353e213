"""Exponentials and logarithms other than ``exp`` and ``log``, each exact where the obvious formula would cancel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import public
from tinyedge.ops.arithmetic import div, mul
from tinyedge.ops.promotion import (
    Operand,
    as_floating,
    as_operand,
    float_dtype,
    floats,
    prepared,
    require_tensors,
    unary,
)
from tinyedge.ops.selection import clamp, where
from tinyedge.tensor import Tensor, call


class Expm1(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("y",)
    kernel_forward = {"y": "expm1(x)"}
    kernel_backward = {"dx": "dy * (y + 1)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.expm1(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (dy * (y + 1),)


@public(method=True, inplace=True, space="special")
def expm1(input: Tensor) -> Tensor:
    """``exp(input) - 1``, exact near 0."""
    return unary(Expm1, input)


class Exp2(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("y",)
    kernel_forward = {"y": "exp2(x)"}
    kernel_backward = {"dx": "dy * y * (real)0.69314718055994531"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.exp2(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (dy * y * math.log(2),)


@public(method=True, inplace=True, space="special")
def exp2(input: Tensor) -> Tensor:
    """2 to the power of each element."""
    return unary(Exp2, input)


class Log1p(Elementwise):
    signature = "()->()"
    domain = {"x": (-0.9, 8.0)}
    saves = ("x",)
    kernel_forward = {"y": "log1p(x)"}
    kernel_backward = {"dx": "dy / (x + 1)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.log1p(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / (x + 1),)


@public(method=True, inplace=True, space="special")
def log1p(input: Tensor) -> Tensor:
    """``log(1 + input)``, exact near 0."""
    return unary(Log1p, input)


class Log2(Elementwise):
    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    saves = ("x",)
    kernel_forward = {"y": "log2(x)"}
    kernel_backward = {"dx": "dy / (x * (real)0.69314718055994531)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.log2(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / (x * math.log(2)),)


@public(method=True, inplace=True)
def log2(input: Tensor) -> Tensor:
    """Logarithm to base 2."""
    return unary(Log2, input)


class Log10(Elementwise):
    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    saves = ("x",)
    kernel_forward = {"y": "log10(x)"}
    kernel_backward = {"dx": "dy / (x * (real)2.3025850929940457)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.log10(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / (x * math.log(10)),)


@public(method=True, inplace=True)
def log10(input: Tensor) -> Tensor:
    """Logarithm to base 10."""
    return unary(Log10, input)


class Erfc(Elementwise):
    signature = "()->()"
    domain = {"x": (-3.0, 3.0)}
    saves = ("x",)
    kernel_forward = {"y": "erfc(x)"}
    kernel_backward = {"dx": "dy * (real)-1.1283791670955126 * exp(-x * x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.vectorize(math.erfc, otypes=[x.dtype])(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * (-2 / math.sqrt(math.pi)) * np.exp(-x * x),)


@public(method=True, inplace=True, space="special")
def erfc(input: Tensor) -> Tensor:
    """``1 - erf(input)``, exact where that is small."""
    return unary(Erfc, input)


class Logaddexp(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("a", "b")
    # Equal operands may be infinite, and their difference NaN.
    kernel_forward = {
        "y": "WHERE(a == b, a + (real)0.69314718055994531, WHERE(a > b, a, b) + log1p(exp(-fabs(a - b))))"
    }
    kernel_backward = {"da": "dy / (1 + exp(b - a))", "db": "dy / (1 + exp(a - b))"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.logaddexp(a, b)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        return (dy / (1 + np.exp(b - a)), dy / (1 + np.exp(a - b)))


@public(method=True)
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """``log(exp(input) + exp(other))`` without overflow."""
    require_tensors("logaddexp", input, other)
    return call(Logaddexp, *floats("logaddexp", input, other))


@public(method=True)
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """``log2(2 ** input + 2 ** other)`` without overflow.

    Shapes: input and other broadcast; returns what they broadcast to.
    """
    require_tensors("logaddexp2", input, other)
    a, b = (mul(as_floating(item), math.log(2)) for item in (input, other))
    return div(logaddexp(a, b), math.log(2))  # composed


class Xlogy(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (0.1, 8.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "WHERE(b != b, b, WHERE(a == 0, 0, a * log(b)))"}
    kernel_backward = {"da": "WHERE(a == 0 && b <= 0, 0, dy * log(b))", "db": "dy * a / b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.where(np.isnan(b), b, np.where(a == 0, 0, a * np.log(b)))

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        return (np.where((a == 0) & (b <= 0), 0, dy * np.log(b)), dy * a / b)


@public(method=True, inplace=True, space="special")
def xlogy(input: Operand, other: Operand) -> Tensor:
    """``input * log(other)``, and 0 where ``input`` is 0."""
    items = [as_operand("xlogy", item) for item in (input, other)]
    if not isinstance(items[0], Tensor):
        require_tensors("xlogy", items[1])
    return call(Xlogy, *prepared("xlogy", items, float_dtype("xlogy", *items)))


class Logit(Elementwise):
    signature = "()->()"
    domain = {"x": (0.05, 0.95)}
    saves = ("x",)
    kernel_forward = {"y": "log(x / (1 - x))"}
    kernel_backward = {"dx": "WHERE(x < 0 || x > 1, NAN, dy / (x * (1 - x)))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.log(x / (1 - x))

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (np.where((x < 0) | (x > 1), np.nan, dy / (x * (1 - x))),)


@public(method=True, inplace=True, space="special")
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """``log(input / (1 - input))``, the inverse of ``sigmoid``; with ``eps``, of input limited to [eps, 1 - eps]."""
    if eps is None:
        return unary(Logit, input)
    x = clamp(as_floating(input), None, 1 - eps)
    # Above 0.5 the limits are the wrong way round, and the lower one comes first.
    return unary(Logit, clamp(x, eps) if eps <= 0.5 else where(input < eps, eps, x))
