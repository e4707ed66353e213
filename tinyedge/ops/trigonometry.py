"""Trigonometric and hyperbolic functions, and their inverses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import also, public
from tinyedge.ops.arithmetic import mul
from tinyedge.ops.promotion import as_floating, float_dtype, floats, prepared, require_tensors, unary
from tinyedge.tensor import Tensor, call


class Tan(Elementwise):
    signature = "()->()"
    domain = {"x": (-1.4, 1.4)}
    saves = ("y",)
    kernel_forward = {"y": "tan(x)"}
    kernel_backward = {"dx": "dy * (1 + y * y)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.tan(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (dy * (1 + y * y),)


@public(method=True, inplace=True)
def tan(input: Tensor) -> Tensor:
    """Tangent.

    Units:  radians.
    """
    return unary(Tan, input)


class Asin(Elementwise):
    signature = "()->()"
    domain = {"x": (-0.9, 0.9)}
    saves = ("x",)
    kernel_forward = {"y": "asin(x)"}
    kernel_backward = {"dx": "dy / sqrt((1 - x) * (1 + x))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.arcsin(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / np.sqrt((1 - x) * (1 + x)),)


@public(method=True, inplace=True)
def asin(input: Tensor) -> Tensor:
    """Inverse sine; NaN outside [-1, 1].

    Units:  radians.
    """
    return unary(Asin, input)


arcsin = also("arcsin", asin)


class Acos(Elementwise):
    signature = "()->()"
    domain = {"x": (-0.9, 0.9)}
    saves = ("x",)
    kernel_forward = {"y": "acos(x)"}
    kernel_backward = {"dx": "-dy / sqrt((1 - x) * (1 + x))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.arccos(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (-dy / np.sqrt((1 - x) * (1 + x)),)


@public(method=True, inplace=True)
def acos(input: Tensor) -> Tensor:
    """Inverse cosine; NaN outside [-1, 1].

    Units:  radians.
    """
    return unary(Acos, input)


arccos = also("arccos", acos)


class Atan(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "atan(x)"}
    kernel_backward = {"dx": "dy / (1 + x * x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.arctan(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / (1 + x * x),)


@public(method=True, inplace=True)
def atan(input: Tensor) -> Tensor:
    """Inverse tangent.

    Units:  radians.
    """
    return unary(Atan, input)


arctan = also("arctan", atan)


class Sinh(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "sinh(x)"}
    kernel_backward = {"dx": "dy * cosh(x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.sinh(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * np.cosh(x),)


@public(method=True, inplace=True)
def sinh(input: Tensor) -> Tensor:
    """Hyperbolic sine."""
    return unary(Sinh, input)


class Cosh(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "cosh(x)"}
    kernel_backward = {"dx": "dy * sinh(x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.cosh(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * np.sinh(x),)


@public(method=True, inplace=True)
def cosh(input: Tensor) -> Tensor:
    """Hyperbolic cosine."""
    return unary(Cosh, input)


class Asinh(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "asinh(x)"}
    kernel_backward = {"dx": "dy / sqrt(x * x + 1)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.arcsinh(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / np.sqrt(x * x + 1),)


@public(method=True, inplace=True)
def asinh(input: Tensor) -> Tensor:
    """Inverse hyperbolic sine."""
    return unary(Asinh, input)


arcsinh = also("arcsinh", asinh)


class Acosh(Elementwise):
    signature = "()->()"
    domain = {"x": (1.1, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "acosh(x)"}
    kernel_backward = {"dx": "dy / sqrt((x - 1) * (x + 1))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.arccosh(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / np.sqrt((x - 1) * (x + 1)),)


@public(method=True, inplace=True)
def acosh(input: Tensor) -> Tensor:
    """Inverse hyperbolic cosine; NaN below 1."""
    return unary(Acosh, input)


arccosh = also("arccosh", acosh)


class Atanh(Elementwise):
    signature = "()->()"
    domain = {"x": (-0.9, 0.9)}
    saves = ("x",)
    kernel_forward = {"y": "atanh(x)"}
    kernel_backward = {"dx": "dy / ((1 - x) * (1 + x))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.arctanh(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / ((1 - x) * (1 + x)),)


@public(method=True, inplace=True)
def atanh(input: Tensor) -> Tensor:
    """Inverse hyperbolic tangent; NaN outside [-1, 1]."""
    return unary(Atanh, input)


arctanh = also("arctanh", atanh)


class Atan2(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "atan2(a, b)"}
    kernel_backward = {
        "da": "WHERE(a == 0 && b == 0, 0, dy * (b / hypot(a, b) / hypot(a, b)))",
        "db": "WHERE(a == 0 && b == 0, 0, -dy * (a / hypot(a, b) / hypot(a, b)))",
    }

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.arctan2(a, b)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        length = np.where((a == 0) & (b == 0), np.inf, np.hypot(a, b))
        return (dy * (b / length / length), -dy * (a / length / length))


@public(method=True, inplace=True)
def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (``other``, ``input``), in all four quadrants.

    Units:  radians.
    """
    require_tensors("atan2", input, other)
    return call(Atan2, *prepared("atan2", (input, other), float_dtype("atan2", input, other)))


arctan2 = also("arctan2", atan2)


class Hypot(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("a", "b", "y")
    kernel_forward = {"y": "hypot(a, b)"}
    kernel_backward = {"da": "dy * (a / y)", "db": "dy * (b / y)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.hypot(a, b)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any, y: Any) -> Any:
        return (dy * (a / y), dy * (b / y))


@public(method=True, inplace=True)
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """``sqrt(input ** 2 + other ** 2)`` without overflow."""
    require_tensors("hypot", input, other)
    return call(Hypot, *floats("hypot", input, other))


@public(method=True, inplace=True)
def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians.

    Shapes: any; returns the same.
    """
    return mul(as_floating(input), math.pi / 180)  # composed


@public(method=True, inplace=True)
def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees.

    Shapes: any; returns the same.
    """
    return mul(as_floating(input), 180 / math.pi)  # composed
