"""Rounding: to whole numbers, and what is left of that."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import also, public
from tinyedge.errors import DtypeError
from tinyedge.ops.arithmetic import clone, div, mul
from tinyedge.ops.promotion import floating, unary
from tinyedge.tensor import Tensor


def _rounded(op: type[Elementwise], input: Tensor) -> Tensor:
    """Integers are whole already."""
    whole = isinstance(input, Tensor) and not input.dtype.is_floating_point
    return clone(input) if whole and input.dtype.category else unary(op, input, floating=False)


class Floor(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "floor(x)"}
    kernel_backward = {"dx": "(real)0"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.floor(x)

    @staticmethod
    def backward(dy: Any) -> Any:
        return (np.zeros_like(dy),)


@public(method=True, inplace=True)
def floor(input: Tensor) -> Tensor:
    """The largest integer not above each element. Its gradient is zeros."""
    return _rounded(Floor, input)


class Ceil(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "ceil(x)"}
    kernel_backward = {"dx": "(real)0"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.ceil(x)

    @staticmethod
    def backward(dy: Any) -> Any:
        return (np.zeros_like(dy),)


@public(method=True, inplace=True)
def ceil(input: Tensor) -> Tensor:
    """The smallest integer not below each element. Its gradient is zeros."""
    return _rounded(Ceil, input)


class Trunc(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "trunc(x)"}
    kernel_backward = {"dx": "(real)0"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.trunc(x)

    @staticmethod
    def backward(dy: Any) -> Any:
        return (np.zeros_like(dy),)


@public(method=True, inplace=True)
def trunc(input: Tensor) -> Tensor:
    """Each element without its fraction. Its gradient is zeros."""
    return _rounded(Trunc, input)


fix = also("fix", trunc)


class Round(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "rint(x)"}
    kernel_backward = {"dx": "(real)0"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.rint(x)

    @staticmethod
    def backward(dy: Any) -> Any:
        return (np.zeros_like(dy),)


@public(method=True, inplace=True, space="special")
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest multiple of ``10 ** -decimals``, of two the even one. Its gradient is zeros.

    Errors: DtypeError of integers with ``decimals``.
    """
    if decimals == 0:
        return _rounded(Round, input)
    floating("round", input)
    factor = 10.0 ** (decimals if decimals > 0 else -decimals)
    if decimals > 0:
        return div(unary(Round, mul(input, factor)), factor)  # composed
    return mul(unary(Round, div(input, factor)), factor)  # composed


class Frac(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "x - trunc(x)"}
    kernel_backward = {"dx": "dy"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x - np.trunc(x)

    @staticmethod
    def backward(dy: Any) -> Any:
        return (dy,)


@public(method=True, inplace=True)
def frac(input: Tensor) -> Tensor:
    """``input - trunc(input)``, with the sign of ``input``.

    Errors: DtypeError of integers.
    """
    if isinstance(input, Tensor) and not input.dtype.is_floating_point:
        raise DtypeError("frac", "a floating-point tensor", f"got {input.dtype.name}", "Convert it with .float().")
    return unary(Frac, input)
