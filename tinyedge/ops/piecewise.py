"""Activations that are given piece by piece: another expression, mostly a line, on each side of a corner."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.promotion import SavedMask, floating, unary
from tinyedge.tensor import Tensor, call


class ReluMask(SavedMask):
    signature = "()->()"
    domain = {"y": (-1.0, 4.0)}
    kernel_forward = {"mask": "WHERE(y <= 0, 0, 1)"}

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
    kernel_forward = {"mask": "WHERE(y <= 0, 0, WHERE(y >= 6, 6, 1))"}

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
    kernel_forward = {"mask": "WHERE(x > 0, 1, 0)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return (x > 0).astype(np.int8)


class LeakyRelu(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    saved_masks = {"x": LeakyReluMask}
    scalars = {"negative_slope": "real"}
    choices = {"negative_slope": (0.01, 0.5, 0.0)}
    kernel_forward = {"y": "WHERE(x > 0, x, x * negative_slope)"}
    kernel_backward = {"dx": "WHERE(x > 0, dy, dy * negative_slope)"}

    @staticmethod
    def forward(x: Any, *, negative_slope: float) -> Any:
        return np.where(x > 0, x, x * negative_slope)

    @staticmethod
    def backward(dy: Any, x: Any, *, negative_slope: float) -> Any:
        return (np.where(x > 0, dy, dy * negative_slope),)


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
    choices = {"alpha": (1.0, 0.5)}
    kernel_forward = {"y": "WHERE(x > 0, x, alpha * expm1(x))"}
    kernel_backward = {"dx": "WHERE(x > 0, dy, dy * alpha * exp(x))"}

    @staticmethod
    def forward(x: Any, *, alpha: float) -> Any:
        return np.where(x > 0, x, alpha * np.expm1(x))

    @staticmethod
    def backward(dy: Any, x: Any, *, alpha: float) -> Any:
        return (np.where(x > 0, dy, dy * alpha * np.exp(x)),)


@public(functional=True, module="ELU")
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` where positive, else ``alpha * (exp(input) - 1)``."""
    result = unary(Elu, input, alpha=alpha)
    return input._assign("elu_", result) if inplace else result


class HardsigmoidMask(SavedMask):
    signature = "()->()"
    domain = {"x": (-5.0, 5.0)}
    kernel_forward = {"mask": "WHERE(x <= -3, -3, WHERE(x >= 3, 3, 0))"}

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


class Celu(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    scalars = {"alpha": "real"}
    choices = {"alpha": (1.0, 0.5)}
    kernel_forward = {"y": "WHERE(x > 0, x, alpha * expm1(x / alpha))"}
    kernel_backward = {"dx": "WHERE(x <= 0, dy * exp(x / alpha), dy)"}

    @staticmethod
    def forward(x: Any, *, alpha: float) -> Any:
        return np.where(x > 0, x, alpha * np.expm1(x / alpha))

    @staticmethod
    def backward(dy: Any, x: Any, *, alpha: float) -> Any:
        return (np.where(x <= 0, dy * np.exp(x / alpha), dy),)


@public(functional=True, module="CELU")
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` where positive, else ``alpha * (exp(input / alpha) - 1)``.

    Errors: ArgumentError if alpha is 0.
    Source: Barron, arXiv:1704.07483.
    """
    if alpha == 0:
        raise ArgumentError("celu", "alpha must not be 0", "got 0", "The limit is relu.")
    result = unary(Celu, floating("celu", input), alpha=alpha)
    return input._assign("celu_", result) if inplace else result


class Selu(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "WHERE(x > 0, x * (real)1.0507009873554805, (real)1.7580993408473769 * expm1(x))"}
    kernel_backward = {"dx": "WHERE(x <= 0, dy * (real)1.7580993408473769 * exp(x), dy * (real)1.0507009873554805)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(x))

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * SELU_SCALE * np.where(x <= 0, SELU_ALPHA * np.exp(x), 1),)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


@public(functional=True, module="SELU")
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """``elu`` with the alpha, and times the factor, that keep mean 0 and variance 1.

    Source: Klambauer et al., arXiv:1706.02515.
    """
    result = unary(Selu, floating("selu", input))
    return input._assign("selu_", result) if inplace else result


class Prelu(Elementwise):
    signature = "(),()->()"
    domain = {"x": (-4.0, 4.0), "weight": (-1.0, 1.0)}
    saves = ("x", "weight")
    kernel_forward = {"y": "WHERE(x > 0, x, weight * x)"}
    kernel_backward = {"dx": "WHERE(x > 0, dy, dy * weight)", "dweight": "WHERE(x > 0, 0, dy * x)"}

    @staticmethod
    def forward(x: Any, weight: Any) -> Any:
        return np.where(x > 0, x, weight * x)

    @staticmethod
    def backward(dy: Any, x: Any, weight: Any) -> Any:
        return (np.where(x > 0, dy, dy * weight), np.where(x > 0, 0, dy * x))


@public(method=True, functional=True)
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """``input`` where positive, else ``weight * input``, with one weight, or one for each channel.

    Shapes: input (batch, channels, ...); weight (), (1,) or (channels,); returns input's.
    Errors: ShapeError if there is another number of weights; DtypeError unless both are of one floating-point type.
    Source: He et al., arXiv:1502.01852.
    """
    x, slope = floating("prelu", input), floating("prelu", weight)
    if x.dtype is not slope.dtype:
        raise DtypeError(
            "prelu",
            f"a weight of {x.dtype.name}, as the input is",
            f"got {slope.dtype.name}",
            "Convert it with .to(dtype).",
        )
    count = slope.numel()
    if slope.ndim > 1:
        raise ShapeError("prelu", "a weight of at most one dim", f"it has shape {slope.shape}")
    if count != 1:
        channels = x.shape[1] if x.ndim > 1 else 1
        if count != channels or not x.ndim:
            raise ShapeError("prelu", f"one weight, or {channels}, one a channel", f"got {count} for {x.shape}")
        slope = functions["reshape"](slope, (count, *(1,) * (x.ndim - 2)))
    elif slope.ndim > x.ndim:
        slope = functions["reshape"](slope, ())
    return call(Prelu, x, slope)


class Hardtanh(Elementwise):
    signature = "()->()"
    domain = {"x": (-3.0, 3.0)}
    saves = ("x",)
    scalars = {"low": "real", "high": "real"}
    choices = {"low": (-1.0, -0.5), "high": (1.0, 2.0)}
    kernel_forward = {"y": "WHERE(x < low, low, WHERE(x > high, high, x))"}
    kernel_backward = {"dx": "WHERE(x <= low, 0, WHERE(x >= high, 0, dy))"}

    @staticmethod
    def forward(x: Any, *, low: float, high: float) -> Any:
        return np.clip(x, low, high)

    @staticmethod
    def backward(dy: Any, x: Any, *, low: float, high: float) -> Any:
        return (np.where((x <= low) | (x >= high), 0, dy),)


@public(functional=True, module="Hardtanh")
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` limited to [min_val, max_val]; at both and beyond them the gradient is 0.

    Errors: ArgumentError if min_val is larger than max_val.
    """
    if min_val > max_val:
        raise ArgumentError("hardtanh", "min_val must not be larger than max_val", f"got {min_val} and {max_val}")
    if isinstance(input, Tensor) and not input.dtype.is_floating_point:
        result = functions["clamp"](input, int(min_val), int(max_val))
    else:
        result = unary(Hardtanh, input, low=float(min_val), high=float(max_val))
    return input._assign("hardtanh_", result) if inplace else result


class Hardshrink(Elementwise):
    signature = "()->()"
    domain = {"x": (-3.0, 3.0)}
    saves = ("x",)
    scalars = {"lambd": "real"}
    choices = {"lambd": (0.5, 1.0)}
    kernel_forward = {"y": "WHERE(x >= -lambd && x <= lambd, 0, x)"}
    kernel_backward = {"dx": "WHERE(x >= -lambd && x <= lambd, 0, dy)"}

    @staticmethod
    def forward(x: Any, *, lambd: float) -> Any:
        return np.where((x >= -lambd) & (x <= lambd), 0, x)

    @staticmethod
    def backward(dy: Any, x: Any, *, lambd: float) -> Any:
        return (np.where((x >= -lambd) & (x <= lambd), 0, dy),)


@public(method=True, functional=True)
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``input``, but 0 within [-lambd, lambd]."""
    return unary(Hardshrink, floating("hardshrink", input), lambd=float(lambd))


class Softshrink(Elementwise):
    signature = "()->()"
    domain = {"x": (-3.0, 3.0)}
    saves = ("x",)
    scalars = {"lambd": "real"}
    choices = {"lambd": (0.5, 1.0)}
    kernel_forward = {"y": "WHERE(x > lambd, x - lambd, WHERE(x < -lambd, x + lambd, x * 0))"}  # so that NaN stays NaN
    kernel_backward = {"dx": "WHERE(x >= -lambd && x <= lambd, 0, dy)"}

    @staticmethod
    def forward(x: Any, *, lambd: float) -> Any:
        return x - np.clip(x, -lambd, lambd)

    @staticmethod
    def backward(dy: Any, x: Any, *, lambd: float) -> Any:
        return (np.where((x >= -lambd) & (x <= lambd), 0, dy),)


@public(functional=True)
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``input`` brought nearer to 0 by ``lambd``, and 0 within [-lambd, lambd].

    Errors: ArgumentError if lambd is negative.
    """
    if lambd < 0:
        raise ArgumentError("softshrink", "lambd must be at least 0", f"got {lambd}")
    return unary(Softshrink, floating("softshrink", input), lambd=float(lambd))


class Threshold(Elementwise):
    signature = "()->()"
    domain = {"x": (-3.0, 3.0)}
    saves = ("x",)
    scalars = {"edge": "real", "value": "real"}
    choices = {"edge": (0.5, -1.0), "value": (0.0, 2.0)}
    kernel_forward = {"y": "WHERE(x <= edge, value, x)"}  # so that NaN stays NaN
    kernel_backward = {"dx": "WHERE(x <= edge, 0, dy)"}

    @staticmethod
    def forward(x: Any, *, edge: float, value: float) -> Any:
        return np.where(x <= edge, value, x)

    @staticmethod
    def backward(dy: Any, x: Any, *, edge: float, value: float) -> Any:
        return (np.where(x <= edge, 0, dy),)


@public(functional=True, module="Threshold", arguments="threshold, value, inplace")
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """``input`` where it is above ``threshold``, else ``value``."""
    if isinstance(input, Tensor) and not input.dtype.is_floating_point:
        result = functions["where"](input > threshold, input, type(value)(value)).to(input.dtype)
    else:
        result = unary(Threshold, input, edge=float(threshold), value=float(value))
    return input._assign("threshold_", result) if inplace else result


@public(functional=True)
def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """``leaky_relu`` with, in training, a slope for each element that is drawn from [lower, upper), else their mean.

    Shapes: any; returns the same.
    Errors: ArgumentError if lower is larger than upper.
    Source: Xu et al., arXiv:1505.00853.
    """
    if lower > upper:
        raise ArgumentError("rrelu", "lower must not be larger than upper", f"got {lower} and {upper}")
    if training:
        slope = lower + (upper - lower) * functions["rand_like"](input)
        result = functions["where"](input <= 0, input * slope, input)  # composed
    else:
        result = unary(LeakyRelu, floating("rrelu", input), negative_slope=(lower + upper) / 2)
    return input._assign("rrelu_", result) if inplace else result
