"""Dropout that keeps mean and variance, and draws by Gumbel's noise."""

from __future__ import annotations

import math
from math import prod
from typing import Any, cast

import numpy as np

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.promotion import floating
from tinyedge.ops.random import Words, drawn, dropout, uniform_of
from tinyedge.ops.scatter import scatter
from tinyedge.ops.softmax import softmax
from tinyedge.ops.with_gradient import with_gradient
from tinyedge.tensor import Tensor, full

Array = np.ndarray[Any, Any]

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


@public(functional=True)
def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """The softmax of ``logits`` with Gumbel's noise: draws of classes through which a gradient flows.

    With ``hard`` one is 1 and the others 0; the gradient is that of the softmax.

    The logits with noise are divided by ``tau``: the smaller it is, the nearer a draw is to a single 1. ``eps`` changes
    nothing.

    Shapes: any; returns the same.
    Errors: AxisError if there is no such dim.
    Source: Jang et al., arXiv:1611.01144.
    """
    x = floating("gumbel_softmax", logits)
    shape = x.shape

    def make(words: Words) -> Array:
        return np.asarray(-np.log(-np.log(uniform_of(words, shape) + 2.0**-25)))

    noise = drawn(None, prod(shape), make, x.dtype, x.backend)
    soft = softmax((x + noise) / tau, dim)
    if not hard:
        return soft
    index = functions["argmax"](soft.detach(), dim, True)
    chosen = scatter(full(x.shape, 0, dtype=x.dtype, device=x.backend), dim, index, 1.0)
    return with_gradient(chosen, soft, "through")
