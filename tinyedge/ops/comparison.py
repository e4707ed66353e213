"""Comparisons and logic: bool results, no gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import also, public
from tinyedge.dtypes import bool_
from tinyedge.errors import DtypeError
from tinyedge.ir.step import ErrorSample
from tinyedge.ops.promotion import Operand, compared, prepared, require_tensors, unary
from tinyedge.tensor import Tensor, call


def _compare_number(name: str, te: Any) -> Any:
    return getattr(te, name)(2, te.tensor([1, 2]))


class Comparison(Elementwise):
    """Base of the comparisons: bool results, no gradient."""

    kinds = "bif"
    result = bool_


class Eq(Comparison):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    errors = tuple(
        ErrorSample(partial(_compare_number, name), DtypeError, "a tensor, but got int")
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
    )
    kernel_forward = {"y": "a == b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a == b


@public(method=True, inplace=True)
def eq(input: Tensor, other: Operand) -> Tensor:
    """``input == other``, element by element."""
    require_tensors("eq", input)
    return call(Eq, *compared("eq", input, other))


class Ne(Comparison):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel_forward = {"y": "a != b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a != b


@public(method=True, inplace=True)
def ne(input: Tensor, other: Operand) -> Tensor:
    """``input != other``, element by element."""
    require_tensors("ne", input)
    return call(Ne, *compared("ne", input, other))


not_equal = also("not_equal", ne)


class Lt(Comparison):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel_forward = {"y": "a < b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a < b


@public(method=True, inplace=True, operators=("__lt__",))
def lt(input: Tensor, other: Operand) -> Tensor:
    """``input < other``, element by element."""
    require_tensors("lt", input)
    return call(Lt, *compared("lt", input, other))


less = also("less", lt)


class Le(Comparison):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel_forward = {"y": "a <= b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a <= b


@public(method=True, inplace=True, operators=("__le__",))
def le(input: Tensor, other: Operand) -> Tensor:
    """``input <= other``, element by element."""
    require_tensors("le", input)
    return call(Le, *compared("le", input, other))


less_equal = also("less_equal", le)


@public(method=True, inplace=True, operators=("__gt__",))
def gt(input: Tensor, other: Operand) -> Tensor:
    """``input > other``, element by element.

    Shapes: input and other broadcast; returns what they broadcast to.
    """
    require_tensors("gt", input)
    return call(Lt, *compared("gt", other, input))


greater = also("greater", gt)


@public(method=True, inplace=True, operators=("__ge__",))
def ge(input: Tensor, other: Operand) -> Tensor:
    """``input >= other``, element by element.

    Shapes: input and other broadcast; returns what they broadcast to.
    """
    require_tensors("ge", input)
    return call(Le, *compared("ge", other, input))


greater_equal = also("greater_equal", ge)


class LogicalOr(Comparison):
    signature = "(),()->()"
    domain = {"a": (-1.0, 1.0), "b": (-1.0, 1.0)}
    kernel_forward = {"y": "(a != 0) || (b != 0)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.logical_or(a, b)


@public(method=True, inplace=True)
def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Whether either is nonzero."""
    require_tensors("logical_or", input, other)
    return call(LogicalOr, *prepared("logical_or", (input, other)))


class LogicalAnd(Comparison):
    signature = "(),()->()"
    domain = {"a": (-1.0, 1.0), "b": (-1.0, 1.0)}
    kernel_forward = {"y": "(a != 0) && (b != 0)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.logical_and(a, b)


@public(method=True, inplace=True)
def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Whether both are nonzero."""
    require_tensors("logical_and", input, other)
    return call(LogicalAnd, *prepared("logical_and", (input, other)))


class LogicalXor(Comparison):
    signature = "(),()->()"
    domain = {"a": (-1.0, 1.0), "b": (-1.0, 1.0)}
    kernel_forward = {"y": "(a != 0) != (b != 0)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.logical_xor(a, b)


@public(method=True, inplace=True)
def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Whether one is nonzero and the other is zero."""
    require_tensors("logical_xor", input, other)
    return call(LogicalXor, *prepared("logical_xor", (input, other)))


class LogicalNot(Comparison):
    signature = "()->()"
    domain = {"x": (-1.0, 1.0)}
    kernel_forward = {"y": "x == 0"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.logical_not(x)


@public(method=True, inplace=True)
def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero."""
    return unary(LogicalNot, input, floating=False)


class Isnan(Comparison):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "x != x"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.isnan(x)


@public(method=True)
def isnan(input: Tensor) -> Tensor:
    """Whether each element is NaN."""
    return unary(Isnan, input, floating=False)


class Isinf(Comparison):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "x == INFINITY || x == -INFINITY"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.isinf(x)


@public(method=True)
def isinf(input: Tensor) -> Tensor:
    """Whether each element is infinite."""
    return unary(Isinf, input, floating=False)


class Isposinf(Comparison):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "x == INFINITY"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x == np.inf


@public(method=True)
def isposinf(input: Tensor) -> Tensor:
    """Whether each element is positive infinity."""
    return unary(Isposinf, input, floating=False)


class Isneginf(Comparison):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "x == -INFINITY"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x == -np.inf


@public(method=True)
def isneginf(input: Tensor) -> Tensor:
    """Whether each element is negative infinity."""
    return unary(Isneginf, input, floating=False)


class Isfinite(Comparison):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "x - x == 0"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.isfinite(x)


@public(method=True)
def isfinite(input: Tensor) -> Tensor:
    """Whether each element is neither infinite nor NaN."""
    return unary(Isfinite, input, floating=False)


class Signbit(Comparison):
    signature = "()->()"
    kinds = "f"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "signbit(x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.signbit(x)


@public(method=True)
def signbit(input: Tensor) -> Tensor:
    """Whether each element is negative, also of -0.0."""
    require_tensors("signbit", input)
    return unary(Signbit, input) if input.dtype.is_floating_point else lt(input, 0)
