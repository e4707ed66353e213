"""Activations."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import public
from tinyedge.errors import ArgumentError
from tinyedge.ops.promotion import SavedMask, unary
from tinyedge.ops.unary import _erf
from tinyedge.tensor import Tensor

# Activations


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


@public(method=True, functional=True, module="Tanh")
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


@public(method=True, functional=True, module="Sigmoid")
def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + exp(-input))``."""
    return unary(Sigmoid, input)


class ReluMask(SavedMask):
    signature = "()->()"
    domain = {"y": (-1.0, 4.0)}
    kernel_forward = {"side": "WHERE(y <= 0, 0, 1)"}

    @staticmethod
    def forward(y: Any) -> Any:
        return np.logical_not(y <= 0).astype(np.int8)


class Relu(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    saves = ("y",)
    saved_masks = {"y": ReluMask}
    kernel_forward = {"y": "WHERE(x <= 0, 0, x)"}  # so that NaN stays NaN
    kernel_backward = {"dx": "WHERE(y <= 0, 0, dy)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.maximum(x, 0)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (np.where(y <= 0, 0, dy),)


@public(method=True, inplace=True, functional=True, module="ReLU")
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(input, 0)``."""
    return input.relu_() if inplace else unary(Relu, input, floating=False)


class Relu6Mask(SavedMask):
    signature = "()->()"
    domain = {"y": (-1.0, 7.0)}
    kernel_forward = {"side": "WHERE(y <= 0, 0, WHERE(y >= 6, 6, 1))"}

    @staticmethod
    def forward(y: Any) -> Any:
        return np.where(y <= 0, 0, np.where(y >= 6, 6, 1)).astype(np.int8)


class Relu6(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-2.0, 8.0)}
    saves = ("y",)
    saved_masks = {"y": Relu6Mask}
    kernel_forward = {"y": "WHERE(x <= 0, 0, WHERE(x >= 6, 6, x))"}
    kernel_backward = {"dx": "WHERE(y <= 0, 0, WHERE(y >= 6, 0, dy))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.minimum(np.maximum(x, 0), 6)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (np.where((y <= 0) | (y >= 6), 0, dy),)


@public(functional=True, module="ReLU6")
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """``min(max(input, 0), 6)``."""
    result = unary(Relu6, input, floating=False)
    return input._assign("relu6_", result) if inplace else result


class LeakyReluMask(SavedMask):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"side": "WHERE(x > 0, 1, 0)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return (x > 0).astype(np.int8)


class LeakyRelu(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    saved_masks = {"x": LeakyReluMask}
    scalars = {"negative_slope": "real"}
    kernel_forward = {"y": "WHERE(x > 0, x, x * negative_slope)"}
    kernel_backward = {"dx": "WHERE(x > 0, dy, dy * negative_slope)"}

    @staticmethod
    def forward(x: Any, *, negative_slope: float) -> Any:
        return np.where(x > 0, x, x * negative_slope)

    @staticmethod
    def backward(dy: Any, x: Any, *, negative_slope: float) -> Any:
        return (np.where(x > 0, dy, dy * negative_slope),)

    @classmethod
    def sample_attrs(cls, random: Random) -> dict[str, Any]:
        return {"negative_slope": random.choice((0.01, 0.5, 0.0))}


@public(functional=True, module="LeakyReLU")
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``input`` where positive, else ``negative_slope * input``."""
    result = unary(LeakyRelu, input, negative_slope=negative_slope)
    return input._assign("leaky_relu_", result) if inplace else result


class Elu(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    scalars = {"alpha": "real"}
    kernel_forward = {"y": "WHERE(x > 0, x, alpha * expm1(x))"}
    kernel_backward = {"dx": "WHERE(x > 0, dy, dy * alpha * exp(x))"}

    @staticmethod
    def forward(x: Any, *, alpha: float) -> Any:
        return np.where(x > 0, x, alpha * np.expm1(x))

    @staticmethod
    def backward(dy: Any, x: Any, *, alpha: float) -> Any:
        return (np.where(x > 0, dy, dy * alpha * np.exp(x)),)

    @classmethod
    def sample_attrs(cls, random: Random) -> dict[str, Any]:
        return {"alpha": random.choice((1.0, 0.5))}


@public(functional=True, module="ELU")
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` where positive, else ``alpha * (exp(input) - 1)``."""
    result = unary(Elu, input, alpha=alpha)
    return input._assign("elu_", result) if inplace else result


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
        return x * 0.5 * (1 + _erf(x / math.sqrt(2)))

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        cdf = 0.5 * (1 + _erf(x / math.sqrt(2)))
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


class HardsigmoidMask(SavedMask):
    signature = "()->()"
    domain = {"x": (-5.0, 5.0)}
    kernel_forward = {"side": "WHERE(x <= -3, -3, WHERE(x >= 3, 3, 0))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.where(x <= -3, -3, np.where(x >= 3, 3, 0)).astype(np.int8)


class Hardsigmoid(Elementwise):
    signature = "()->()"
    domain = {"x": (-5.0, 5.0)}
    saves = ("x",)
    saved_masks = {"x": HardsigmoidMask}
    kernel_forward = {"y": "WHERE(x <= -3, 0, WHERE(x >= 3, 1, x / 6 + (real)0.5))"}
    kernel_backward = {"dx": "WHERE(x <= -3, 0, WHERE(x >= 3, 0, dy / 6))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.minimum(np.maximum(x + 3, 0), 6) / 6

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (np.where((x <= -3) | (x >= 3), 0, dy / 6),)


@public(functional=True, module="Hardsigmoid", shown="")
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``relu6(input + 3) / 6``."""
    result = unary(Hardsigmoid, input)
    return input._assign("hardsigmoid_", result) if inplace else result


class Hardswish(Elementwise):
    signature = "()->()"
    domain = {"x": (-5.0, 5.0)}
    saves = ("x",)
    kernel_forward = {"y": "WHERE(x <= -3, 0, WHERE(x >= 3, x, x * (x + 3) / 6))"}
    kernel_backward = {"dx": "WHERE(x <= -3, 0, WHERE(x < 3, dy * (x / 3 + (real)0.5), dy))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x * np.minimum(np.maximum(x + 3, 0), 6) / 6

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (np.where(x <= -3, 0, np.where(x < 3, dy * (x / 3 + 0.5), dy)),)


@public(functional=True, module="Hardswish", shown="")
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * relu6(input + 3) / 6``.

    Source: Howard et al., arXiv:1905.02244.
    """
    result = unary(Hardswish, input)
    return input._assign("hardswish_", result) if inplace else result


class Softplus(Elementwise):
    signature = "()->()"
    domain = {"x": (-8.0, 8.0)}
    saves = ("x",)
    scalars = {"beta": "real", "threshold": "real"}
    kernel_forward = {"y": "WHERE(x * beta > threshold, x, log1p(exp(x * beta)) / beta)"}
    kernel_backward = {"dx": "WHERE(x * beta > threshold, dy, dy / (1 + exp(-x * beta)))"}

    @staticmethod
    def forward(x: Any, *, beta: float, threshold: float) -> Any:
        return np.where(x * beta > threshold, x, np.log1p(np.exp(x * beta)) / beta)

    @staticmethod
    def backward(dy: Any, x: Any, *, beta: float, threshold: float) -> Any:
        return (np.where(x * beta > threshold, dy, dy / (1 + np.exp(-x * beta))),)

    @classmethod
    def sample_attrs(cls, random: Random) -> dict[str, Any]:
        return {"beta": random.choice((1.0, 2.0)), "threshold": 20.0}


@public(functional=True, module="Softplus")
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * input)) / beta``; the identity above ``threshold``."""
    return unary(Softplus, input, beta=beta, threshold=threshold)
