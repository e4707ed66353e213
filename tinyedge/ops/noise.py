"""Dropout of whole channels and with kept moments, and draws by Gumbel's noise."""

from __future__ import annotations

import math
import warnings
from typing import cast

import numpy as np

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.promotion import floating
from tinyedge.ops.random import default_generator, dropout
from tinyedge.ops.scatter import scatter
from tinyedge.ops.softmax import softmax
from tinyedge.ops.with_gradient import WithGradient
from tinyedge.tensor import Tensor, call, full, tensor

NEGATIVE = -1.7580993408473766
"""What SELU tends to: what alpha dropout puts in the place of an element."""


def _mask(x: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    """1 with probability 1 - p, else 0."""
    ones = full(shape, 1, dtype=x.dtype, device=x.backend)
    return cast("Tensor", functions["ne"](dropout(ones, p), 0)).to(x.dtype)


def _checked(name: str, input: Tensor, p: float) -> Tensor:
    x = floating(name, input)
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(name, "p must be in [0, 1]", f"got {p}")
    return x


def _channels(name: str, x: Tensor) -> tuple[int, ...]:
    if x.ndim < 2:
        raise ShapeError(name, "an input (batch, channels, ...)", f"got {x.shape}")
    return (*x.shape[:2], *(1,) * (x.ndim - 2))


def _alpha(x: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    if p == 1:
        return x * 0
    kept = _mask(x, p, shape)
    scale = 1 / math.sqrt((1 - p) * (1 + p * NEGATIVE**2))
    return x * (kept * scale) + ((1 - kept) * (NEGATIVE * scale) - NEGATIVE * p * scale)


@public(functional=True)
def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Elements replaced by SELU's lower end with probability ``p``, and then mean and variance as they were.

    Shapes: any; returns the same.
    Errors: ArgumentError if p is outside [0, 1].
    Source: Klambauer et al., arXiv:1706.02515.
    """
    x = _checked("alpha_dropout", input, p)
    result = _alpha(x, p, x.shape) if training and p else input
    return input._assign("alpha_dropout_", result) if inplace else result


@public(functional=True)
def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """As ``alpha_dropout``, of whole channels.

    Shapes: (batch, channels, ...); returns the same.
    Errors: ArgumentError if p is outside [0, 1]; ShapeError for less than 2 dims.
    """
    x = _checked("feature_alpha_dropout", input, p)
    result = _alpha(x, p, _channels("feature_alpha_dropout", x)) if training and p else input
    return input._assign("feature_alpha_dropout_", result) if inplace else result


def _of_channels(name: str, input: Tensor, p: float, training: bool, inplace: bool, spatial: int) -> Tensor:
    x = _checked(name, input, p)
    if x.ndim not in (spatial + 1, spatial + 2):
        if spatial == 1:
            raise ShapeError(name, "an input of 2 or 3 dims", f"got {x.shape}")
        warnings.warn(f"{name}: an input of {spatial + 1} or {spatial + 2} dims was expected", stacklevel=3)
    if not training or p == 0:
        return input
    is_single = spatial != 2 and x.ndim == spatial + 1
    shape = (x.shape[0], *(1,) * (x.ndim - 1)) if is_single else _channels(name, x)
    result = x * 0 if p == 1 else x * (_mask(x, p, shape) * (1 / (1 - p)))
    return input._assign(f"{name}_", result) if inplace else result


@public(functional=True)
def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels become 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    Shapes: (batch, channels, length) or (channels, length); returns the same.
    Errors: ArgumentError if p is outside [0, 1]; ShapeError for other dims.
    """
    return _of_channels("dropout1d", input, p, training, inplace, 1)


@public(functional=True)
def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels become 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    As in PyTorch, the first two dims are batch and channels, also of an input of 3 dims.

    Shapes: (batch, channels, height, width); returns the same.
    Errors: ArgumentError if p is outside [0, 1]; ShapeError for less than 2 dims.
    """
    return _of_channels("dropout2d", input, p, training, inplace, 2)


@public(functional=True)
def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels become 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    Shapes: (batch, channels, depth, height, width) or without batch; returns the same.
    Errors: ArgumentError if p is outside [0, 1]; ShapeError for less than 2 dims.
    """
    return _of_channels("dropout3d", input, p, training, inplace, 3)


@public(functional=True)
def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """The softmax of ``logits`` with Gumbel's noise: draws of classes through which a gradient flows.

    With ``hard`` one is 1 and the others 0; the gradient is that of the softmax. The noise comes from the host.

    Shapes: any; returns the same.
    Errors: AxisError if there is no such dim; CaptureError inside te.compile.
    Source: Jang et al., arXiv:1611.01144.
    """
    x = floating("gumbel_softmax", logits)
    uniform = default_generator.uniform(x.shape) + 2.0**-25
    noise = tensor(-np.log(-np.log(uniform)), dtype=x.dtype, device=x.backend)
    soft = softmax((x + noise) / tau, dim)
    if not hard:
        return soft
    index = functions["argmax"](soft.detach(), dim, True)
    drawn = scatter(full(x.shape, 0, dtype=x.dtype, device=x.backend), dim, index, 1.0)
    return call(WithGradient, drawn, soft)
