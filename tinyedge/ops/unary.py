"""Functions of one number: signs, roots, exponentials, sine and cosine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import also, public
from tinyedge.dtypes import bool_, int64
from tinyedge.errors import DtypeError
from tinyedge.ops.arithmetic import clone
from tinyedge.ops.promotion import SavedMask, unary
from tinyedge.tensor import Tensor


class Neg(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "-x"}
    kernel_integer = {"y": "0 - (word)x"}
    kernel_backward = {"dx": "-dy"}

    @staticmethod
    def forward(x: Any) -> Any:
        return -x

    @staticmethod
    def backward(dy: Any) -> Any:
        return (-dy,)


@public(method=True, inplace=True, operators=("__neg__",))
def neg(input: Tensor) -> Tensor:
    """``-input``.

    Errors: DtypeError of bools: use ~.
    """
    if input.dtype is bool_:
        raise DtypeError("neg", "numbers", "got bool", "Use ~ on booleans.")
    return unary(Neg, input, floating=False)


negative = also("negative", neg)


@public(method=True)
def positive(input: Tensor) -> Tensor:
    """``input`` itself.

    Shapes: any; returns the same.
    Errors: DtypeError of bools.
    """
    if input.dtype is bool_:
        raise DtypeError("positive", "numbers", "got bool", "Convert it first, e.g. with .to(te.int64).")
    return input


class AbsMask(SavedMask):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"mask": "WHERE(x < 0, -1, WHERE(x > 0, 1, 0))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return (x > 0).astype(np.int8) - (x < 0).astype(np.int8)


class Abs(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    saved_masks = {"x": AbsMask}
    kernel_forward = {"y": "WHERE(x < 0, -x, x)"}
    kernel_integer = {"y": "abs(x)"}
    kernel_backward = {"dx": "WHERE(x < 0, -dy, WHERE(x > 0, dy, dy * 0))"}  # NaN stays NaN

    @staticmethod
    def forward(x: Any) -> Any:
        return np.abs(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (np.where(x < 0, -dy, np.where(x > 0, dy, dy * 0)),)


@public(method=True, inplace=True, operators=("__abs__",))
def abs(input: Tensor) -> Tensor:
    """Absolute value; its gradient at 0 is 0.

    Errors: DtypeError of bools.
    """
    return unary(Abs, input, floating=False)


absolute = also("absolute", abs)


class Sign(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "WHERE(x > 0, 1, WHERE(x < 0, -1, 0))"}
    kernel_backward = {"dx": "(real)0"}

    @staticmethod
    def forward(x: Any) -> Any:
        return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)

    @staticmethod
    def backward(dy: Any) -> Any:
        return (np.zeros_like(dy),)


@public(method=True, inplace=True)
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1. Its gradient is zeros."""
    return clone(input) if input.dtype is bool_ else unary(Sign, input, floating=False)


sgn = also("sgn", sign)


class Square(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "x * x"}
    kernel_integer = {"y": "(word)x * (word)x"}
    kernel_backward = {"dx": "2 * dy * x"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x * x

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (2 * dy * x,)


@public(method=True, inplace=True)
def square(input: Tensor) -> Tensor:
    """``input * input``."""
    return unary(Square, input.to(int64) if input.dtype is bool_ else input, floating=False)


class Reciprocal(Elementwise):
    signature = "()->()"
    domain = {"x": (0.5, 4.0)}
    saves = ("y",)
    kernel_forward = {"y": "1 / x"}
    kernel_backward = {"dx": "-dy * y * y"}

    @staticmethod
    def forward(x: Any) -> Any:
        return 1 / x

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (-dy * y * y,)


@public(method=True, inplace=True)
def reciprocal(input: Tensor) -> Tensor:
    """``1 / input``."""
    return unary(Reciprocal, input)


class Exp(Elementwise):
    signature = "()->()"
    domain = {"x": (-8.0, 8.0)}
    saves = ("y",)
    kernel_forward = {"y": "exp(x)"}
    kernel_backward = {"dx": "dy * y"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.exp(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (dy * y,)


@public(method=True, inplace=True)
def exp(input: Tensor) -> Tensor:
    """e to the power of each element."""
    return unary(Exp, input)


class Log(Elementwise):
    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    saves = ("x",)
    kernel_forward = {"y": "log(x)"}
    kernel_backward = {"dx": "dy / x"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.log(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / x,)


@public(method=True, inplace=True)
def log(input: Tensor) -> Tensor:
    """Natural logarithm."""
    return unary(Log, input)


class Sqrt(Elementwise):
    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    saves = ("y",)
    kernel_forward = {"y": "sqrt(x)"}
    kernel_backward = {"dx": "dy / (2 * y)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.sqrt(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (dy / (2 * y),)


@public(method=True, inplace=True)
def sqrt(input: Tensor) -> Tensor:
    """Square root."""
    return unary(Sqrt, input)


class Rsqrt(Elementwise):
    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    saves = ("y",)
    kernel_forward = {"y": "1 / sqrt(x)"}
    kernel_backward = {"dx": "(real)-0.5 * dy * y * y * y"}

    @staticmethod
    def forward(x: Any) -> Any:
        return 1 / np.sqrt(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (-0.5 * dy * y * y * y,)


@public(method=True, inplace=True)
def rsqrt(input: Tensor) -> Tensor:
    """``1 / sqrt(input)``."""
    return unary(Rsqrt, input)


class Sin(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "sin(x)"}
    kernel_backward = {"dx": "dy * cos(x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.sin(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * np.cos(x),)


@public(method=True, inplace=True)
def sin(input: Tensor) -> Tensor:
    """Sine.

    Units:  radians.
    """
    return unary(Sin, input)


class Cos(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "cos(x)"}
    kernel_backward = {"dx": "-dy * sin(x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.cos(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (-dy * np.sin(x),)


@public(method=True, inplace=True)
def cos(input: Tensor) -> Tensor:
    """Cosine.

    Units:  radians.
    """
    return unary(Cos, input)


class Erf(Elementwise):
    signature = "()->()"
    domain = {"x": (-3.0, 3.0)}
    saves = ("x",)
    kernel_forward = {"y": "erf(x)"}
    kernel_backward = {"dx": "dy * (real)1.1283791670955126 * exp(-x * x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return erf_of(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * (2 / math.sqrt(math.pi)) * np.exp(-x * x),)


def erf_of(x: Any) -> Any:
    """NumPy: the error function, which it lacks."""
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


@public(method=True, inplace=True, space="special")
def erf(input: Tensor) -> Tensor:
    """The error function."""
    return unary(Erf, input)
