"""Comparisons and logic: bool results, no gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import public
from tinyedge.dtypes import bool_
from tinyedge.errors import DtypeError
from tinyedge.ir.step import ErrorSample
from tinyedge.ops.promotion import Operand, _tensors, compared, prepared, unary
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


@public(method=True)
def eq(input: Tensor, other: Operand) -> Tensor:
    """``input == other``, element by element."""
    _tensors("eq", input)
    return call(Eq, *compared("eq", input, other))


class Ne(Comparison):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel_forward = {"y": "a != b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a != b


@public(method=True)
def ne(input: Tensor, other: Operand) -> Tensor:
    """``input != other``, element by element."""
    _tensors("ne", input)
    return call(Ne, *compared("ne", input, other))


class Lt(Comparison):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel_forward = {"y": "a < b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a < b


@public(method=True, operators=("__lt__",))
def lt(input: Tensor, other: Operand) -> Tensor:
    """``input < other``, element by element."""
    _tensors("lt", input)
    return call(Lt, *compared("lt", input, other))


class Le(Comparison):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel_forward = {"y": "a <= b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a <= b


@public(method=True, operators=("__le__",))
def le(input: Tensor, other: Operand) -> Tensor:
    """``input <= other``, element by element."""
    _tensors("le", input)
    return call(Le, *compared("le", input, other))


@public(method=True, operators=("__gt__",))
def gt(input: Tensor, other: Operand) -> Tensor:
    """``input > other``, element by element.

    Shapes: input and other broadcast; returns what they broadcast to.
    """
    _tensors("gt", input)
    return call(Lt, *compared("gt", other, input))


@public(method=True, operators=("__ge__",))
def ge(input: Tensor, other: Operand) -> Tensor:
    """``input >= other``, element by element.

    Shapes: input and other broadcast; returns what they broadcast to.
    """
    _tensors("ge", input)
    return call(Le, *compared("ge", other, input))


class LogicalOr(Comparison):
    signature = "(),()->()"
    domain = {"a": (-1.0, 1.0), "b": (-1.0, 1.0)}
    kernel_forward = {"y": "(a != 0) || (b != 0)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.logical_or(a, b)


@public
def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Whether either is nonzero."""
    _tensors("logical_or", input, other)
    return call(LogicalOr, *prepared("logical_or", (input, other)))


class LogicalAnd(Comparison):
    signature = "(),()->()"
    domain = {"a": (-1.0, 1.0), "b": (-1.0, 1.0)}
    kernel_forward = {"y": "(a != 0) && (b != 0)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.logical_and(a, b)


@public
def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Whether both are nonzero."""
    _tensors("logical_and", input, other)
    return call(LogicalAnd, *prepared("logical_and", (input, other)))


class LogicalNot(Comparison):
    signature = "()->()"
    domain = {"x": (-1.0, 1.0)}
    kernel_forward = {"y": "x == 0"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.logical_not(x)


@public(method=True)
def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero."""
    return unary(LogicalNot, input, floating=False)
