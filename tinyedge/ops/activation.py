"""Activations that are one smooth expression everywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.promotion import floating, unary
from tinyedge.ops.unary import erf_of
from tinyedge.tensor import Tensor


class Tanh(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("y",)
    kernel_forward = {"y": "tanh(x)"}
    kernel_backward = {"dx": "dy * (1 - y * y)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.tanh(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (dy * (1 - y * y),)


@public(method=True, inplace=True, functional=True, module="Tanh")
def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return unary(Tanh, input)


class Sigmoid(Elementwise):
    signature = "()->()"
    domain = {"x": (-8.0, 8.0)}
    saves = ("y",)
    kernel_forward = {"y": "1 / (1 + exp(-x))"}
    kernel_backward = {"dx": "dy * y * (1 - y)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (dy * y * (1 - y),)


@public(method=True, inplace=True, functional=True, module="Sigmoid")
def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + exp(-input))``."""
    return unary(Sigmoid, input)


class Silu(Elementwise):
    signature = "()->()"
    domain = {"x": (-8.0, 8.0)}
    saves = ("x",)
    kernel_forward = {"y": "x / (1 + exp(-x))"}
    kernel_backward = {"dx": "dy / (1 + exp(-x)) * (1 + x * (1 - 1 / (1 + exp(-x))))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x / (1 + np.exp(-x))

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        s = 1 / (1 + np.exp(-x))
        return (dy * s * (1 + x * (1 - s)),)


@public(functional=True, module="SiLU")
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * sigmoid(input)``.

    Source: Elfwing et al., arXiv:1702.03118.
    """
    result = unary(Silu, input)
    return input._assign("silu_", result) if inplace else result


class Gelu(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "x * (real)0.5 * (1 + erf(x * (real)0.70710678118654752))"}
    kernel_backward = {
        "dx": "dy * ((real)0.5 * (1 + erf(x * (real)0.70710678118654752))"
        " + x * (real)0.39894228040143268 * exp((real)-0.5 * x * x))"
    }

    @staticmethod
    def forward(x: Any) -> Any:
        return x * 0.5 * (1 + erf_of(x / math.sqrt(2)))

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        cdf = 0.5 * (1 + erf_of(x / math.sqrt(2)))
        pdf = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return (dy * (cdf + x * pdf),)


class GeluTanh(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "x * (real)0.5 * (1 + tanh((real)0.79788456080286536 * (x + (real)0.044715 * x * x * x)))"}
    kernel_backward = {
        "dx": "dy * ((real)0.5 * (1 + tanh((real)0.79788456080286536 * (x + (real)0.044715 * x * x * x)))"
        " + x * (real)0.5 * (1 - tanh((real)0.79788456080286536 * (x + (real)0.044715 * x * x * x))"
        " * tanh((real)0.79788456080286536 * (x + (real)0.044715 * x * x * x)))"
        " * (real)0.79788456080286536 * (1 + (real)0.134145 * x * x))"
    }

    @staticmethod
    def forward(x: Any) -> Any:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return (dy * (0.5 * (1 + inner) + 0.5 * x * (1 - inner**2) * slope),)


@public(functional=True, module="GELU")
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``input * Phi(input)``, with the normal distribution function; or its tanh approximation.

    Errors: ArgumentError if ``approximate`` is not "none" or "tanh".
    Source: Hendrycks and Gimpel, arXiv:1606.08415.
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError("gelu", 'approximate must be "none" or "tanh"', f"got {approximate!r}")
    return unary(Gelu if approximate == "none" else GeluTanh, input)


class Softplus(Elementwise):
    signature = "()->()"
    domain = {"x": (-8.0, 8.0)}
    saves = ("x",)
    scalars = {"beta": "real", "threshold": "real"}
    choices = {"beta": (1.0, 2.0), "threshold": (20.0,)}
    kernel_forward = {"y": "WHERE(x * beta > threshold, x, log1p(exp(x * beta)) / beta)"}
    kernel_backward = {"dx": "WHERE(x * beta > threshold, dy, dy / (1 + exp(-x * beta)))"}

    @staticmethod
    def forward(x: Any, *, beta: float, threshold: float) -> Any:
        return np.where(x * beta > threshold, x, np.log1p(np.exp(x * beta)) / beta)

    @staticmethod
    def backward(dy: Any, x: Any, *, beta: float, threshold: float) -> Any:
        return (np.where(x * beta > threshold, dy, dy / (1 + np.exp(-x * beta))),)


@public(functional=True, module="Softplus")
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * input)) / beta``; the identity above ``threshold``."""
    return unary(Softplus, input, beta=beta, threshold=threshold)


class Mish(Elementwise):
    signature = "()->()"
    domain = {"x": (-8.0, 8.0)}
    saves = ("x",)
    # tanh(log(1 + e)) = n / (n + 2) with e = exp(x), n = e (e + 2): no cancellation, and 1 to the last place above 20.
    kernel_forward = {"y": "WHERE(x > 20, x, x * (exp(x) * (exp(x) + 2) / (exp(x) * (exp(x) + 2) + 2)))"}
    kernel_backward = {
        "dx": "WHERE(x > 20, dy, dy * (exp(x) * (exp(x) + 2) / (exp(x) * (exp(x) + 2) + 2)"
        " + x * 4 * (exp(x) / (exp(x) * (exp(x) + 2) + 2)) * ((1 + exp(x)) / (exp(x) * (exp(x) + 2) + 2))))"
    }

    @staticmethod
    def forward(x: Any) -> Any:
        return x * np.tanh(np.logaddexp(0, x))

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        t = np.tanh(np.logaddexp(0, x))
        return (np.where(x > 20, dy, dy * (t + x * (1 - t * t) / (1 + np.exp(-x)))),)


@public(functional=True, module="Mish")
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * tanh(softplus(input))``.

    Source: Misra, arXiv:1908.08681.
    """
    result = unary(Mish, floating("mish", input))
    return input._assign("mish_", result) if inplace else result


class Tanhshrink(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "x - tanh(x)"}
    kernel_backward = {"dx": "dy * tanh(x) * tanh(x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x - np.tanh(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * np.tanh(x) * np.tanh(x),)


@public(functional=True, module="Tanhshrink")
def tanhshrink(input: Tensor) -> Tensor:
    """``input - tanh(input)``."""
    return unary(Tanhshrink, input)


class Softsign(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "x / (1 + fabs(x))"}
    kernel_backward = {"dx": "dy / (1 + fabs(x)) / (1 + fabs(x))"}  # a square might overflow

    @staticmethod
    def forward(x: Any) -> Any:
        return x / (1 + np.abs(x))

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / (1 + np.abs(x)) / (1 + np.abs(x)),)


@public(functional=True, module="Softsign")
def softsign(input: Tensor) -> Tensor:
    """``input / (1 + abs(input))``."""
    return unary(Softsign, input)


class Logsigmoid(Elementwise):
    signature = "()->()"
    domain = {"x": (-8.0, 8.0)}
    saves = ("x",)
    kernel_forward = {"y": "WHERE(x < 0, x, 0) - log1p(exp(-fabs(x)))"}
    kernel_backward = {"dx": "dy / (1 + exp(x))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return -np.logaddexp(0, -x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / (1 + np.exp(x)),)


@public(functional=True, module="LogSigmoid")
def logsigmoid(input: Tensor) -> Tensor:
    """``log(sigmoid(input))`` without underflow.

    Shapes: any; returns the same.
    """
    return unary(Logsigmoid, floating("logsigmoid", input))


@public(functional=True, module="GLU")
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of ``input`` along ``dim`` times the sigmoid of the second.

    Shapes: any of at least one dim; returns it with half the length in ``dim``.
    Errors: ShapeError if that is odd, or there is no dim.
    Source: Dauphin et al., arXiv:1612.08083.
    """
    x = floating("glu", input)
    if not x.ndim:
        raise ShapeError("glu", "a tensor of at least one dim", "got a 0-d tensor")
    axis = shapes.normalize_axis("glu", dim, x.ndim)
    size = x.shape[axis]
    if size % 2:
        raise ShapeError("glu", f"an even length in dim {dim}", f"it is {size} of {x.shape}")
    if not size:
        return x
    a, b = functions["split"](x, size // 2, axis)
    result: Tensor = a * sigmoid(b)  # composed
    return result
