"""Choosing between elements: maximum and minimum, clamp, where."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import also, functions, public
from tinyedge.dtypes import bool_, fitting
from tinyedge.errors import ArgumentError, DtypeError, NumberRangeError, ShapeError
from tinyedge.ir.step import ErrorSample
from tinyedge.ir.values import Spec, Value
from tinyedge.ops.arithmetic import add, clone, div, mul
from tinyedge.ops.promotion import (
    Operand,
    SavedMask,
    as_operand,
    float_dtype,
    numbers,
    prepared,
    require_tensors,
    result_dtype,
)
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
    require_tensors("maximum", input, other)
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
    require_tensors("minimum", input, other)
    return call(Minimum, *prepared("minimum", (input, other)))


class ClampMask(SavedMask):
    signature = "(),(),()->()"
    domain = {"x": (-4.0, 4.0), "low": (-2.0, 0.5), "high": (0.0, 2.0)}
    kernel_forward = {"mask": "WHERE(x == x && !(x <= low) && !(x >= high), 0, 2)"}

    @staticmethod
    def forward(x: Any, low: Any, high: Any) -> Any:
        return np.where(np.isnan(x) | (x <= low) | (x >= high), 2, 0).astype(np.int8)


class Clamp(Elementwise):
    """With numbers as limits, of which NaN is none. As in PyTorch, the gradient at a limit is 0."""

    signature = "(),(),()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0), "low": (-2.0, 0.5), "high": (0.0, 2.0)}
    saves = ("x", "low", "high")
    saved_masks = {"x": ClampMask, "low": -1, "high": 1}
    kernel_forward = {"y": "WHERE(x != x, x, WHERE(WHERE(x < low, low, x) > high, high, WHERE(x < low, low, x)))"}
    kernel_backward = {"dx": "WHERE(x == x && !(x <= low) && !(x >= high), dy, 0)"}

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (spec,) = super().infer(*inputs, **attrs)
        assert inputs[0] is not None
        return (Spec(inputs[0].dtype, spec.shape),)

    @staticmethod
    def forward(x: Any, low: Any, high: Any) -> Any:
        raised = np.where(x < low, low, x)
        return np.where(raised > high, high, raised)

    @staticmethod
    def backward(dy: Any, x: Any, low: Any, high: Any) -> Any:
        return (np.where(np.isnan(x) | (x <= low) | (x >= high), 0, dy),)


class ClampBetween(Elementwise):
    """With tensors as limits. As in PyTorch, a limit that the input equals gets half of the gradient."""

    signature = "(),(),()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0), "low": (-2.0, 0.5), "high": (0.0, 2.0)}
    saves = ("x", "low", "high")
    kernel_forward = {"y": "WHERE(x != x, x, WHERE(WHERE(x < low, low, x) > high, high, WHERE(x < low, low, x)))"}
    kernel_backward = {
        "dx": "WHERE(x < low || x > high || high < low, 0, WHERE((x == low || x == high) && low < high, dy / 2, dy))",
        "dlow": "WHERE(x < low && !(high < low), dy, WHERE(x == low && low < high, dy / 2, 0))",
        "dhigh": "WHERE(x > high || high < low, dy, WHERE(x == high && low < high, dy / 2, 0))",
    }

    @staticmethod
    def forward(x: Any, low: Any, high: Any) -> Any:
        return np.minimum(np.maximum(x, low), high)

    @staticmethod
    def backward(dy: Any, x: Any, low: Any, high: Any) -> Any:
        crossed, apart = high < low, low < high
        tie = ((x == low) | (x == high)) & apart
        return (
            np.where((x < low) | (x > high) | crossed, 0, np.where(tie, dy / 2, dy)),
            np.where((x < low) & ~crossed, dy, np.where((x == low) & apart, dy / 2, 0)),
            np.where((x > high) | crossed, dy, np.where((x == high) & apart, dy / 2, 0)),
        )


@public(method=True, inplace=True)
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """``input`` limited to [min, max]; either may be None. Outside, the gradient goes to the limit.

    At a number that it equals the gradient is 0; with a tensor it is shared.

    Errors: ArgumentError if both are None.
    """
    if min is None and max is None:
        raise ArgumentError("clamp", "at least one of min and max", "got neither")
    given = [item for item in (input, min, max) if item is not None]
    bools = len(given) == 2 and all(isinstance(item, Tensor) and item.dtype is bool_ for item in given)
    dtype = bool_ if bools else numbers("clamp", *given)
    if len(given) == 2 and isinstance(given[1], Tensor):  # then equal elements share the gradient
        return call(Minimum if min is None else Maximum, *prepared("clamp", given, dtype))
    lowest, highest = dtype.limits or (math.nan, math.nan)
    limits = (input, lowest if min is None else min, highest if max is None else max)
    op = ClampBetween if isinstance(min, Tensor) or isinstance(max, Tensor) else Clamp
    return call(op, *prepared("clamp", limits, dtype))


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
def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Tensor:
    """``input`` where ``condition`` is true, else ``other``; all three broadcast.

    ``where(condition)`` is ``nonzero(condition, as_tuple=True)``.

    Errors: DtypeError unless ``condition`` is bool; ArgumentError for one of input and other without the other one.
    """
    if input is None and other is None:
        return functions["nonzero"](condition, as_tuple=True)  # type: ignore[no-any-return]  # a tuple, as in PyTorch
    if input is None or other is None:
        raise ArgumentError("where", "input and other, or none of them", "got one")
    return _where("where", condition, input, other)


def _where(call_name: str, condition: Tensor, input: Operand, other: Operand) -> Tensor:
    condition = as_tensor(condition)
    if condition.dtype is not bool_:
        raise DtypeError(call_name, "a bool condition", f"got {condition.dtype.name}", "Compare first, e.g. x > 0.")
    items = [as_operand(call_name, item) for item in (input, other)]
    dtype = result_dtype(call_name, items)
    a, b = (
        item.to(dtype) if isinstance(item, Tensor) else Value(fitting(call_name, item, dtype), dtype) for item in items
    )
    return call(Where, condition, a, b)


@public(method=True, inplace=True)
def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """``input`` with ``value``, a number or a 0-d tensor, where ``mask`` is true; the dtype stays input's.

    Shapes: input and mask broadcast; returns what they broadcast to.
    Errors: ShapeError if ``value`` has dims; DtypeError unless ``mask`` is bool; for a number that does not fit.
    """
    value = as_operand("masked_fill", value)
    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError("masked_fill", "a number or a 0-d tensor as value", f"it has shape {value.shape}")
        value = value.to(input.dtype)
    else:
        value = fitting("masked_fill", value, input.dtype)
    return _where("masked_fill", mask, value, input)


# Of PyTorch's two ways to see NaN, the one that does not pass it on


class Fmax(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "WHERE(a >= b || b != b, a, b)"}
    kernel_backward = {
        "da": "WHERE(a == b, dy / 2, WHERE(a < b, 0, dy))",
        "db": "WHERE(a == b, dy / 2, WHERE(b < a, 0, dy))",
    }

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.fmax(a, b)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        half = np.where(a == b, dy / 2, dy)
        return (np.where(a < b, 0, half), np.where(b < a, 0, half))


@public(method=True)
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two, broadcast; NaN loses; equal elements share the gradient."""
    require_tensors("fmax", input, other)
    items = prepared("fmax", (input, other))
    return call(Fmax if items[0].dtype.is_floating_point else Maximum, *items)


class Fmin(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "WHERE(a <= b || b != b, a, b)"}
    kernel_backward = {
        "da": "WHERE(a == b, dy / 2, WHERE(a > b, 0, dy))",
        "db": "WHERE(a == b, dy / 2, WHERE(b > a, 0, dy))",
    }

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.fmin(a, b)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        half = np.where(a == b, dy / 2, dy)
        return (np.where(a > b, 0, half), np.where(b > a, 0, half))


@public(method=True)
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two, broadcast; NaN loses; equal elements share the gradient."""
    require_tensors("fmin", input, other)
    items = prepared("fmin", (input, other))
    return call(Fmin if items[0].dtype.is_floating_point else Minimum, *items)


@public(method=True, inplace=True)
def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """``input``, or ``min`` where that is larger; see ``clamp``.

    Shapes: input and min broadcast; returns what they broadcast to.
    """
    require_tensors("clamp_min", input)
    return clamp(input, min)


@public(method=True, inplace=True)
def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """``input``, or ``max`` where that is smaller; see ``clamp``.

    Shapes: input and max broadcast; returns what they broadcast to.
    """
    require_tensors("clamp_max", input)
    return clamp(input, None, max)


clip = also("clip", clamp)


class NanToNum(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    scalars = {"instead": "real", "highest": "real", "lowest": "real"}
    choices = {"instead": (0.0, 2.0), "highest": (3.0,), "lowest": (-3.0,)}
    kernel_forward = {"y": "WHERE(x != x, instead, WHERE(x == INFINITY, highest, WHERE(x == -INFINITY, lowest, x)))"}
    kernel_backward = {"dx": "WHERE(x - x == 0, dy, 0)"}

    @staticmethod
    def forward(x: Any, *, instead: float, highest: float, lowest: float) -> Any:
        return np.where(np.isnan(x), instead, np.where(x == np.inf, highest, np.where(x == -np.inf, lowest, x)))

    @staticmethod
    def backward(dy: Any, x: Any, *, instead: float, highest: float, lowest: float) -> Any:
        return (np.where(np.isfinite(x), dy, 0),)


@public(method=True, inplace=True)
def nan_to_num(
    input: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """``input`` with ``nan`` in the place of NaN, ``posinf`` and ``neginf`` in those of the infinities.

    By default these are 0 and the largest and least finite numbers.
    """
    require_tensors("nan_to_num", input)
    if not input.dtype.is_floating_point:
        return clone(input)
    most = input.dtype.largest
    scalars = {
        "instead": 0.0 if nan is None else float(nan),
        "highest": most if posinf is None else float(posinf),
        "lowest": -most if neginf is None else float(neginf),
    }
    return call(NanToNum, input, scalars=scalars)


class Lerp(Elementwise):
    signature = "(),(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0), "weight": (-0.5, 1.5)}
    saves = ("a", "b", "weight")
    rtol = 1e-4  # dweight is a sum of differences
    kernel_forward = {"y": "WHERE(fabs(weight) < (real)0.5, a + weight * (b - a), b - (b - a) * (1 - weight))"}
    kernel_backward = {"da": "dy * (1 - weight)", "db": "dy * weight", "dweight": "dy * (b - a)"}

    @staticmethod
    def forward(a: Any, b: Any, weight: Any) -> Any:
        return np.where(np.abs(weight) < 0.5, a + weight * (b - a), b - (b - a) * (1 - weight))

    @staticmethod
    def backward(dy: Any, a: Any, b: Any, weight: Any) -> Any:
        return (dy * (1 - weight), dy * weight, dy * (b - a))


@public(method=True, inplace=True)
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """``input + weight * (end - input)``, exact at both ends.

    Errors: DtypeError unless all tensors are of one floating-point type.
    """
    require_tensors("lerp", input, end)
    given = [item for item in (input, end, weight) if isinstance(item, Tensor) and (item is not weight or item.ndim)]
    if not input.dtype.is_floating_point or any(item.dtype is not input.dtype for item in given):
        names = ", ".join(item.dtype.name for item in given)
        raise DtypeError("lerp", "tensors of one floating-point type", f"got {names}", "Convert them with .to().")
    return call(Lerp, *prepared("lerp", (input, end, as_operand("lerp", weight)), input.dtype))


@public(method=True, inplace=True)
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``.

    Shapes: input, tensor1 and tensor2 broadcast; returns what they broadcast to.
    """
    require_tensors("addcmul", input, tensor1, tensor2)
    if not numbers("addcmul", input, tensor1, tensor2).is_floating_point:
        value = int(value)
    return add(input, mul(tensor1, tensor2), alpha=value)  # composed


@public(method=True, inplace=True)
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``.

    Shapes: input, tensor1 and tensor2 broadcast; returns what they broadcast to.
    Errors: DtypeError if both are integers.
    """
    require_tensors("addcdiv", input, tensor1, tensor2)
    if not (tensor1.dtype.is_floating_point or tensor2.dtype.is_floating_point):
        raise DtypeError(
            "addcdiv", "a floating-point tensor1 or tensor2",
            f"got {tensor1.dtype.name} and {tensor2.dtype.name}", "Convert one with .float().",
        )  # fmt: skip
    return add(input, div(tensor1, tensor2), alpha=value)  # composed


class Copysign(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("a", "y")
    kernel_forward = {"y": "copysign(a, b)"}
    kernel_backward = {"da": "WHERE(a == 0, 0, dy * (y / a))", "db": "(real)0"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.copysign(a, b)

    @staticmethod
    def backward(dy: Any, a: Any, y: Any) -> Any:
        return (np.where(a == 0, 0, dy * (y / a)), np.zeros_like(dy))


@public(method=True, inplace=True)
def copysign(input: Tensor, other: Operand) -> Tensor:
    """``input`` with the sign of ``other``, also of -0.0."""
    require_tensors("copysign", input)
    items = [as_operand("copysign", item) for item in (input, other)]
    return call(Copysign, *prepared("copysign", items, float_dtype("copysign", *items)))


@public(method=True, inplace=True)
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where ``input`` is negative, 1 where it is positive, and ``values`` where it is 0. It has no gradient.

    Shapes: input and values broadcast; returns what they broadcast to.
    Errors: DtypeError unless both are of one dtype.
    """
    require_tensors("heaviside", input, values)
    if input.dtype is not values.dtype:
        found = f"got {input.dtype.name} and {values.dtype.name}"
        raise DtypeError("heaviside", "two tensors of one dtype", found, "Convert one with .to().")
    return where(input == 0, values.detach(), (input > 0).to(input.dtype))  # composed
