"""Choosing between elements: maximum and minimum, clamp, where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import public
from tinyedge.dtypes import bool_, fitting
from tinyedge.errors import ArgumentError, DtypeError, NumberRangeError, ShapeError
from tinyedge.ir.step import ErrorSample, Op
from tinyedge.ir.values import Spec, Value
from tinyedge.ops.promotion import Operand, SavedMask, _operand, _tensors, numbers, prepared, result_dtype
from tinyedge.tensor import Tensor, as_tensor, call


class Maximum(Elementwise):
    signature = "(),()->()"
    kinds = "bif"
    errors = (
        ErrorSample(lambda te: te.maximum(te.tensor([1, 2]), 2), DtypeError, "a tensor, but got int"),
        ErrorSample(lambda te: te.maximum(2, te.tensor([1, 2])), DtypeError, "a tensor, but got int"),
        ErrorSample(lambda te: te.minimum(te.tensor([1, 2]), 2), DtypeError, "a tensor, but got int"),
        ErrorSample(lambda te: te.minimum(2, te.tensor([1, 2])), DtypeError, "a tensor, but got int"),
        ErrorSample(lambda te: te.max(2, te.tensor([1, 2])), DtypeError, "a tensor, but got int"),
        ErrorSample(lambda te: te.min(2, 3), DtypeError, "a tensor, but got int"),
        ErrorSample(lambda te: te.logical_and(te.tensor([1, 2]), 2), DtypeError, "a tensor, but got int"),
        ErrorSample(lambda te: te.logical_or(2, te.tensor([1, 2])), DtypeError, "a tensor, but got int"),
        ErrorSample(lambda te: te.remainder(2, 3), DtypeError, "a tensor, but got int"),
    )
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "WHERE(a != a, a, WHERE(a > b, a, b))"}
    kernel_backward = {
        "da": "WHERE(a == b, dy / 2, WHERE(a < b, 0, dy))",
        "db": "WHERE(a == b, dy / 2, WHERE(b < a, 0, dy))",
    }

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.maximum(a, b)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        half = np.where(a == b, dy / 2, dy)
        return (np.where(a < b, 0, half), np.where(b < a, 0, half))


@public(method=True)
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two, broadcast; NaN wins; equal elements share the gradient.

    Errors: DtypeError for numbers: use clamp.
    """
    _tensors("maximum", input, other)
    return call(Maximum, *prepared("maximum", (input, other)))


class Minimum(Elementwise):
    signature = "(),()->()"
    kinds = "bif"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "WHERE(a != a, a, WHERE(a < b, a, b))"}
    kernel_backward = {
        "da": "WHERE(a == b, dy / 2, WHERE(a > b, 0, dy))",
        "db": "WHERE(a == b, dy / 2, WHERE(b > a, 0, dy))",
    }

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.minimum(a, b)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        half = np.where(a == b, dy / 2, dy)
        return (np.where(a > b, 0, half), np.where(b > a, 0, half))


@public(method=True)
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two, broadcast; NaN wins; equal elements share the gradient.

    Errors: DtypeError for numbers: use clamp.
    """
    _tensors("minimum", input, other)
    return call(Minimum, *prepared("minimum", (input, other)))


class ClampMask(SavedMask):
    signature = "(),(),()->()"
    domain = {"x": (-4.0, 4.0), "low": (-2.0, 0.5), "high": (0.0, 2.0)}
    kernel_forward = {"side": "WHERE(x < low, -1, WHERE(x > high, 1, 0))"}

    @staticmethod
    def forward(x: Any, low: Any, high: Any) -> Any:
        return np.where(x < low, -1, np.where(x > high, 1, 0)).astype(np.int8)


class Clamp(Elementwise):
    signature = "(),(),()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0), "low": (-2.0, 0.5), "high": (0.0, 2.0)}
    saves = ("x", "low", "high")
    saved_masks = {"x": ClampMask, "low": 0, "high": 0}
    kernel_forward = {"y": "WHERE(x != x, x, WHERE(WHERE(x < low, low, x) > high, high, WHERE(x < low, low, x)))"}
    kernel_backward = {
        "dx": "WHERE(x < low, 0, WHERE(x > high, 0, dy))",
        "dlow": "WHERE(low < high, WHERE(x < low, dy, 0), 0)",
        "dhigh": "WHERE(x > high, dy, WHERE(high < low, dy, 0))",
    }

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (spec,) = super().infer(*inputs, **attrs)
        assert inputs[0] is not None
        return (Spec(inputs[0].dtype, spec.shape),)

    @classmethod
    def saved_masks_for(cls, needed: frozenset[str]) -> Mapping[str, type[Op] | float]:
        return cls.saved_masks if needed == {"x"} else {}  # the gradients of the limits compare these

    @staticmethod
    def forward(x: Any, low: Any, high: Any) -> Any:
        return np.minimum(np.maximum(x, low), high)

    @staticmethod
    def backward(dy: Any, x: Any, low: Any, high: Any) -> Any:
        below, above = x < low, x > high
        return (
            np.where(below | above, 0, dy),
            np.where((low < high) & below, dy, 0),
            np.where(above | (high < low), dy, 0),
        )


@public(method=True, inplace=True)
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """``input`` limited to [min, max]; either may be None. Outside, the gradient goes to the limit.

    Errors: ArgumentError if both are None.
    """
    if min is None and max is None:
        raise ArgumentError("clamp", "at least one of min and max", "got neither")
    given = [item for item in (input, min, max) if item is not None]
    dtype = numbers("clamp", *given)
    lowest, highest = dtype.limits or (-math.inf, math.inf)
    limits = (input, lowest if min is None else min, highest if max is None else max)
    return call(Clamp, *prepared("clamp", limits, dtype))


# Choices and comparisons


class Where(Elementwise):
    signature = "(),(),()->()"
    kinds = "bif"
    errors = (
        ErrorSample(
            lambda te: te.masked_fill(te.zeros(2), te.tensor(True), te.zeros(1)), ShapeError, "a number or a 0-d tensor"
        ),
        ErrorSample(
            lambda te: te.masked_fill(te.tensor([1, 2]), te.tensor(True), float("inf")),
            NumberRangeError,
            "an integer in",
        ),
        ErrorSample(lambda te: te.masked_fill(te.zeros(2), te.tensor([1, 0]), 1.0), DtypeError, "a bool condition"),
    )
    operations = 0
    domain = {"condition": (0, 1), "a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("condition",)
    kernel_forward = {"y": "WHERE(condition, a, b)"}
    kernel_backward = {"da": "WHERE(condition, dy, 0)", "db": "WHERE(condition, 0, dy)"}

    @staticmethod
    def forward(condition: Any, a: Any, b: Any) -> Any:
        return np.where(condition, a, b)

    @staticmethod
    def backward(dy: Any, condition: Any) -> Any:
        return (np.where(condition, dy, 0), np.where(condition, 0, dy))


@public
def where(condition: Tensor, input: Operand, other: Operand) -> Tensor:
    """``input`` where ``condition`` is true, else ``other``; all three broadcast.

    Errors: DtypeError unless ``condition`` is bool.
    """
    return _where("where", condition, input, other)


def _where(call_name: str, condition: Tensor, input: Operand, other: Operand) -> Tensor:
    condition = as_tensor(condition)
    if condition.dtype is not bool_:
        raise DtypeError(call_name, "a bool condition", f"got {condition.dtype.name}", "Compare first, e.g. x > 0.")
    items = [_operand(call_name, item) for item in (input, other)]
    dtype = result_dtype(call_name, items)
    a, b = (
        item.to(dtype) if isinstance(item, Tensor) else Value(fitting(call_name, item, dtype), dtype) for item in items
    )
    return call(Where, condition, a, b)


@public(method=True)
def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """``input`` with ``value``, a number or a 0-d tensor, where ``mask`` is true; the dtype stays input's.

    Shapes: input and mask broadcast; returns what they broadcast to.
    Errors: ShapeError if ``value`` has dims; DtypeError unless ``mask`` is bool; for a number that does not fit.
    """
    value = _operand("masked_fill", value)
    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError("masked_fill", "a number or a 0-d tensor as value", f"it has shape {value.shape}")
        value = value.to(input.dtype)
    else:
        value = fitting("masked_fill", value, input.dtype)
    return _where("masked_fill", mask, value, input)
