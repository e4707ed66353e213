"""Elementwise ops: arithmetic, comparisons, and activations, with broadcasting and PyTorch's type promotion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import numpy as np

from tinyedge import dtypes, shapes
from tinyedge.autograd.op import Elementwise, public
from tinyedge.dtypes import INTEGER, DType, bool_, fitting, float32, int8, int16, int32, int64, uint8
from tinyedge.errors import ArgumentError, BackendError, DtypeError, NumberRangeError, ShapeError, ZeroDivisorError
from tinyedge.ir.spec import Device, KernelSpec, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec, Value
from tinyedge.kernels.lowering import pointwise_kernel
from tinyedge.tensor import Number, Tensor, as_tensor, call, full

Operand = Tensor | Number

# Type promotion


def result_dtype(call_name: str, operands: Sequence[Any]) -> DType:
    """The dtype in which operands meet, by PyTorch's rule.

    Tensors with dims decide; 0-d tensors count only if they are of a higher category (bool < integer < floating
    point), and Python numbers only if theirs is higher still.
    """
    levels: list[DType | None] = [None, None, None]
    for operand in operands:
        if isinstance(operand, Tensor):
            level, dtype = (0 if operand.shape else 1), operand.dtype
        else:
            level, dtype = 2, dtypes.of_number(operand)
        there = levels[level]
        levels[level] = dtype if there is None else dtypes.promote(there, dtype)
    result: DType | None = None
    for found in levels:
        if found is not None and (result is None or dtypes.category(found) > dtypes.category(result)):
            result = found
    assert result is not None, call_name
    return result


def prepared(call_name: str, operands: Sequence[Any], dtype: DType | None = None) -> list[Tensor | Value]:
    """Operands as an op takes them: tensors of one dtype, numbers by value."""
    items = [_operand(call_name, operand) for operand in operands]
    wanted = dtype or result_dtype(call_name, items)
    if not any(isinstance(item, Tensor) for item in items):
        items[0] = full((), items[0], dtype=wanted)
    return [
        item.to(wanted) if isinstance(item, Tensor) else Value(fitting(call_name, item, wanted), wanted)
        for item in items
    ]


def compared(call_name: str, a: Any, b: Any) -> list[Tensor | Value]:
    """Operands of a comparison, which is right for any int64: where a number does not fit, it is made in int64."""
    items = [_operand(call_name, a), _operand(call_name, b)]
    dtype = result_dtype(call_name, items)
    if dtype.limits is not None:
        low, high = dtype.limits
        if not all(isinstance(item, Tensor) or low <= item <= high for item in items):
            dtype = int64
    return prepared(call_name, items, dtype)


def numbers(call_name: str, *operands: Any) -> DType:
    """The dtype in which operands meet, for calls that bools have no meaning in."""
    dtype = result_dtype(call_name, [_operand(call_name, operand) for operand in operands])
    if dtype is bool_:
        raise DtypeError(call_name, "numbers", "got bool", "Convert it first, e.g. with .to(te.int64).")
    return dtype


def _operand(call_name: str, operand: Any) -> Any:
    if isinstance(operand, Tensor):
        return operand
    if isinstance(operand, (bool, int, float)):
        return operand
    if isinstance(operand, (np.generic,)) or (isinstance(operand, np.ndarray) and operand.ndim == 0):
        return operand.item()
    raise DtypeError(call_name, "tensors and numbers", f"got {type(operand).__name__}", "Convert it with te.tensor.")


def _tensors(call_name: str, *operands: Any) -> None:
    """Refuse numbers where PyTorch takes tensors alone."""
    for operand in operands:
        if not isinstance(operand, Tensor):
            raise DtypeError(call_name, "a tensor", f"got {type(operand).__name__}", "Convert it with te.tensor.")


def _floating(x: Tensor) -> Tensor:
    return x if x.dtype.is_floating_point else x.to(float32)


def unary(op: type[Elementwise], x: Tensor, floating: bool = True, **scalars: float) -> Tensor:
    if not isinstance(x, Tensor):
        raise DtypeError(op.name, "a tensor", f"got {type(x).__name__}", "Convert it with te.tensor.")
    if x.dtype is bool_ and not floating and "b" not in op.kinds:
        raise DtypeError(op.name, "numbers", "got bool", "Convert it first, e.g. with .to(te.int64).")
    return call(op, _floating(x) if floating else x, scalars=scalars)


class SavedMask(Elementwise):
    """Base of the saved masks: on which side of its op's corners a value lies, as a small integer that lies there too.

    So the backward of that op is right as it is for the mask.
    """

    result = int8
    operations = 0


# Copies and conversions


class Clone(Elementwise):
    signature = "()->()"
    kinds = "bif"
    operations = 0
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "x"}
    kernel_backward = {"dx": "dy"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x

    @staticmethod
    def backward(dy: Any) -> Any:
        return (dy,)


@public
def clone(input: Tensor) -> Tensor:
    """A contiguous copy with its own memory; the gradient flows through."""
    return call(Clone, input)


class Cast(Elementwise):
    signature = "()->()"
    kinds = "bif"
    operations = 0
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "x"}
    kernel_backward = {"dx": "dy"}

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        assert inputs[0] is not None
        return (Spec(attrs["dtype"], inputs[0].shape),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        dtype = step.attrs["dtype"]
        if dtype is bool_:
            return [pointwise_kernel(step, device, {"y": "x != 0"})]
        if dtype.category == INTEGER and step.slots["x"].dtype.is_floating_point:
            # No map in floats, as which it could be inlined: C leaves undefined what does not fit.
            # Of NaN some devices make another number than 0.
            text = f"convert_{dtype.ctype}_sat(x == x ? x : 0)"
            return [replace(pointwise_kernel(step, device, {"y": text}), pointwise=None)]
        return [pointwise_kernel(step, device, {"y": "x"})]

    @staticmethod
    def forward(x: Any, *, dtype: DType) -> Any:
        return x != 0 if dtype is bool_ else dtypes.convert(x, dtype)

    @staticmethod
    def backward(dy: Any, *, dtype: DType) -> Any:
        return (dy,)

    @classmethod
    def sample_attrs(cls, random: Random) -> dict[str, Any]:
        return {"dtype": random.choice((float32, int32, int64, int16, int8, uint8, bool_))}


@public
def cast(input: Tensor, dtype: Any) -> Tensor:
    """``input`` converted to ``dtype``.

    On the way to integers floats are truncated towards zero; those beyond the ends become the nearest end, and NaN 0.
    Integers wrap around; on the way to floats they are rounded to the nearest.
    """
    wanted = dtypes.resolve(dtype, "cast")
    return input if wanted is input.dtype else call(Cast, input, dtype=wanted)


# Arithmetic


class Add(Elementwise):
    signature = "(),()->()"
    kinds = "if"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel_forward = {"y": "a + b"}
    kernel_integer = {"y": "(word)a + (word)b"}
    kernel_backward = {"da": "dy", "db": "dy"}
    errors = (
        ErrorSample(lambda te: te.zeros(2, 3) + te.zeros(2, 4), ShapeError, "broadcast"),
        ErrorSample(lambda te: te.add(te.zeros(2), "1"), DtypeError, "tensors and numbers"),
        ErrorSample(
            lambda te: te.tensor(1.0, device="numpy") + te.tensor(1.0, device="opencl"), BackendError, "one backend"
        ),
    )

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a + b

    @staticmethod
    def backward(dy: Any) -> Any:
        return (dy, dy)


@public
def add(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """``input + alpha * other``, broadcast."""
    if alpha != 1:
        other = mul(other, alpha)
    a, b = prepared("add", (input, other))
    if a.dtype is bool_:
        return call(LogicalOr, a, b)
    return call(Add, a, b)


class Sub(Elementwise):
    signature = "(),()->()"
    kinds = "if"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel_forward = {"y": "a - b"}
    kernel_integer = {"y": "(word)a - (word)b"}
    kernel_backward = {"da": "dy", "db": "-dy"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a - b

    @staticmethod
    def backward(dy: Any) -> Any:
        return (dy, -dy)


@public
def sub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """``input - alpha * other``, broadcast."""
    if alpha != 1:
        other = mul(other, alpha)
    a, b = prepared("sub", (input, other))
    if a.dtype is bool_:
        raise DtypeError("sub", "numbers", "got two bools", "Use ~ or te.ne on booleans.")
    return call(Sub, a, b)


class Mul(Elementwise):
    signature = "(),()->()"
    kinds = "bif"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "a * b"}
    kernel_integer = {"y": "(word)a * (word)b"}
    kernel_backward = {"da": "dy * b", "db": "dy * a"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a * b

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        return (dy * b, dy * a)


@public
def mul(input: Operand, other: Operand) -> Tensor:
    """``input * other``, broadcast."""
    return call(Mul, *prepared("mul", (input, other)))


class Div(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (0.5, 4.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "a / b"}
    kernel_backward = {"da": "dy / b", "db": "-dy * (a / b / b)"}  # b * b may overflow where this does not

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a / b

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        return (dy / b, -dy * (a / b / b))


@public
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``, broadcast; integers give float32. ``rounding_mode`` is None, "floor" or "trunc".

    With a rounding mode integers stay integers, and are divided as such; by an element that is 0 they give 0.

    Errors: ZeroDivisorError if integers are divided by the number 0 with a rounding mode.
    """
    items = [_operand("div", item) for item in (input, other)]
    if rounding_mode is not None:
        return _rounded_quotient("div", items, rounding_mode)
    dtype = result_dtype("div", items)
    return call(Div, *prepared("div", items, dtype if dtype.is_floating_point else float32))


def _rounded_quotient(call_name: str, items: list[Any], rounding_mode: str) -> Tensor:
    if rounding_mode not in ("floor", "trunc"):
        raise ArgumentError(call_name, 'rounding_mode must be None, "floor" or "trunc"', f"got {rounding_mode!r}")
    dtype = numbers(call_name, *items)
    if dtype.is_floating_point:
        return call(FloorQuotient if rounding_mode == "floor" else TruncQuotient, *prepared(call_name, items, dtype))
    _nonzero(call_name, items[1])
    return call(FloorDivide if rounding_mode == "floor" else TruncDivide, *prepared(call_name, items, dtype))


def _nonzero(call_name: str, divisor: Any) -> None:
    """Refuse the number 0 as the divisor of integers. Elements that are 0 nobody sees before the device divides."""
    if not isinstance(divisor, Tensor) and divisor == 0:
        raise ZeroDivisorError(
            call_name, "a divisor of integers that is not 0", "got 0", "Divide floats, which gives infinity or NaN."
        )


@public
def floor_divide(input: Operand, other: Operand) -> Tensor:
    """``floor(input / other)``, broadcast; integers stay integers. Its gradients are zeros.

    Errors: as ``div``.
    """
    return _rounded_quotient("floor_divide", [_operand("floor_divide", item) for item in (input, other)], "floor")


SAFE = "(b == 0 || b == -1 ? 1 : b)"
"""A divisor with which no device traps: integers by 0, and the least one by -1, are C's undefined behaviour."""


class IntegerDivision(Elementwise):
    """Base of the quotients of integers. By 0 they are 0, and the least integer by -1 wraps around to itself."""

    kinds = "i"
    domain = {"a": (-9, 9), "b": (-9, 9)}


def _whole(a: Any, b: Any, quotient: Any) -> Any:
    """``quotient`` of integers where NumPy does not warn, 0 where the divisor is 0."""
    zero = b == 0
    return np.where(zero, 0, quotient(a, np.where(zero, 1, b).astype(b.dtype))).astype(np.result_type(a, b))


class FloorDivide(IntegerDivision):
    signature = "(),()->()"
    kernel_forward = {
        "y": f"b == 0 ? 0 : b == -1 ? 0 - (word)a"
        f" : a / {SAFE} - (a % {SAFE} != 0 && (a % {SAFE} < 0) != (b < 0) ? 1 : 0)"
    }

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return _whole(a, b, np.floor_divide)


class TruncDivide(IntegerDivision):
    signature = "(),()->()"
    kernel_forward = {"y": f"b == 0 ? 0 : b == -1 ? 0 - (word)a : a / {SAFE}"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        floor = _whole(a, b, np.floor_divide)
        return floor + ((_whole(a, b, np.fmod) != 0) & ((a < 0) != (b < 0)))


# Floats are divided as Python and PyTorch do it: fmod is exact, and all else follows from it, so that quotient and
# remainder fit each other. The rounding of a / b alone may be more than a whole b.
_DIFFER = "fmod(a, b) != 0 && (fmod(a, b) < 0) != (b < 0)"
_REMAINDER = f"WHERE({_DIFFER}, fmod(a, b) + b, fmod(a, b))"
_QUOTIENT = f"((a - fmod(a, b)) / b - WHERE({_DIFFER}, (real)1, (real)0))"  # whole, but for rounding
_FLOOR_QUOTIENT = (
    f"WHERE(b == 0, a / b, floor({_QUOTIENT}) + WHERE({_QUOTIENT} - floor({_QUOTIENT}) > (real)0.5, (real)1, (real)0))"
)


class FloorQuotient(Elementwise):
    """The quotient of floats, rounded down."""

    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (0.5, 4.0)}
    kernel_forward = {"y": _FLOOR_QUOTIENT}
    kernel_backward = {"da": "(real)0", "db": "(real)0"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.floor_divide(a, b)

    @staticmethod
    def backward(dy: Any) -> Any:
        return (np.zeros_like(dy), np.zeros_like(dy))


class TruncQuotient(Elementwise):
    """The quotient of floats without its fraction."""

    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (0.5, 4.0)}
    kernel_forward = {"y": "trunc(a / b)"}
    kernel_backward = {"da": "(real)0", "db": "(real)0"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.trunc(a / b)

    @staticmethod
    def backward(dy: Any) -> Any:
        return (np.zeros_like(dy), np.zeros_like(dy))


class Remainder(Elementwise):
    signature = "(),()->()"
    kinds = "if"
    domain = {"a": (-4.0, 4.0), "b": (0.5, 4.0)}
    saves = ("a", "b")
    kernel_forward = {"y": _REMAINDER}
    kernel_backward = {"da": "dy", "db": f"-dy * {_FLOOR_QUOTIENT}"}

    # C's remainder has the sign of the dividend.
    kernel_integer = {"y": f"a % {SAFE} + (a % {SAFE} != 0 && (a % {SAFE} < 0) != (b < 0) ? b : 0)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.mod(a, b) if a.dtype.kind == "f" else _whole(a, b, np.mod)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        return (dy, -dy * np.floor_divide(a, b))


@public
def remainder(input: Operand, other: Operand) -> Tensor:
    """``input - other * floor(input / other)``, as Python's ``%``; of integers by an element that is 0 it is 0.

    Errors: ZeroDivisorError if integers are divided by the number 0.
    """
    if not isinstance(other, Tensor):
        _tensors("remainder", input)
    return _remainder(Remainder, "remainder", input, other)


def _remainder(op: type[Elementwise], call_name: str, input: Operand, other: Operand) -> Tensor:
    dtype = numbers(call_name, input, other)
    a, b = _operand(call_name, input), _operand(call_name, other)
    if not dtype.is_floating_point:
        _nonzero(call_name, b)
    return call(op, *prepared(call_name, (a, b), dtype))


class Fmod(Elementwise):
    signature = "(),()->()"
    kinds = "if"
    domain = {"a": (-4.0, 4.0), "b": (0.5, 4.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "fmod(a, b)"}
    kernel_backward = {"da": "dy", "db": "-dy * trunc(a / b)"}
    kernel_integer = {"y": f"b == 0 ? 0 : a % {SAFE}"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.fmod(a, b) if a.dtype.kind == "f" else _whole(a, b, np.fmod)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        return (dy, -dy * np.trunc(a / b))


@public
def fmod(input: Operand, other: Operand) -> Tensor:
    """``input - other * trunc(input / other)``, with the sign of ``input``; as C's ``fmod``.

    Errors: as ``remainder``.
    """
    return _remainder(Fmod, "fmod", input, other)


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


@public
def floor(input: Tensor) -> Tensor:
    """The largest integer not above each element. Its gradient is zeros."""
    return unary(Floor, input)


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


@public
def trunc(input: Tensor) -> Tensor:
    """Each element without its fraction. Its gradient is zeros."""
    return unary(Trunc, input)


class Neg(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "-x"}
    kernel_integer = {"y": "0 - (word)x"}
    kernel_backward = {"dx": "-dy"}

    @staticmethod
    def forward(x: Any) -> Any:
        return -x

    @staticmethod
    def backward(dy: Any) -> Any:
        return (-dy,)


@public
def neg(input: Tensor) -> Tensor:
    """``-input``."""
    if input.dtype is bool_:
        raise DtypeError("neg", "numbers", "got bool", "Use ~ on booleans.")
    return unary(Neg, input, floating=False)


class AbsMask(SavedMask):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"side": "WHERE(x < 0, -1, WHERE(x > 0, 1, 0))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return (x > 0).astype(np.int8) - (x < 0).astype(np.int8)


class Abs(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    saved_masks = {"x": AbsMask}
    kernel_forward = {"y": "WHERE(x < 0, -x, x)"}
    kernel_integer = {"y": "abs(x)"}
    kernel_backward = {"dx": "WHERE(x < 0, -dy, WHERE(x > 0, dy, 0))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.abs(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (np.where(x < 0, -dy, np.where(x > 0, dy, 0)),)


@public
def abs(input: Tensor) -> Tensor:
    """Absolute value; its gradient at 0 is 0."""
    return unary(Abs, input, floating=False)


class Sign(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    kernel_forward = {"y": "WHERE(x > 0, 1, WHERE(x < 0, -1, 0))"}
    kernel_backward = {"dx": "(real)0"}

    @staticmethod
    def forward(x: Any) -> Any:
        return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)

    @staticmethod
    def backward(dy: Any) -> Any:
        return (np.zeros_like(dy),)


@public
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1. Its gradient is zeros."""
    return clone(input) if input.dtype is bool_ else unary(Sign, input, floating=False)


class Pow(Elementwise):
    signature = "(),()->()"
    domain = {"a": (0.25, 3.0), "b": (-3.0, 3.0)}
    saves = ("a", "b", "y")
    kernel_forward = {"y": "pow(a, b)"}
    kernel_backward = {
        "da": "WHERE(b == 0, 0, dy * b * pow(a, b - 1))",
        "db": "WHERE(a == 0, WHERE(b >= 0, 0, dy * y * log(a)), dy * y * log(a))",
    }
    rtol = 1e-4  # OpenCL allows pow an error of 16 units in the last place

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.power(a, b)

    @staticmethod
    def backward(dy: Any, a: Any, b: Any, y: Any) -> Any:
        da = np.where(b == 0, 0, dy * b * np.power(a, b - 1))
        db = np.where((a == 0) & (b >= 0), 0, dy * y * np.log(a))
        return (da, db)


@public
def pow(input: Operand, exponent: Operand) -> Tensor:
    """``input ** exponent``, broadcast. Of integers it is exact, and wraps around.

    An integer to an element that is negative is 1 / y without its fraction: 0 unless ``input`` is 1 or -1.

    Errors: ArgumentError if the exponent of integers is a negative number.
    """
    items = [_operand("pow", item) for item in (input, exponent)]
    dtype = numbers("pow", *items)
    if isinstance(items[0], Tensor) and not isinstance(items[1], Tensor):
        x, power = items[0].to(dtype), items[1]
        if power == 2:
            return square(x)
        if power == 1:
            return clone(x)
        if dtype.is_floating_point and power == 0.5:
            return sqrt(x)
        if dtype.is_floating_point and power == -1:
            return reciprocal(x)
    if dtype.is_floating_point:
        return call(Pow, *prepared("pow", items, dtype))
    return _integer_pow(items, dtype)


class IntegerPow(Op):
    """Integers by squaring: inputs of one shape, or a number."""

    signature = "(...),(...)->(...)"
    kinds = "i"
    domain = {"a": (-9, 9), "b": (-9, 9)}

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        a, b = inputs
        assert a is not None
        assert b is not None
        return (a if a.shape else b,)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        count = step.slots["y"].numel
        template = "integer_pow.cl.jinja"
        return [KernelSpec(cls.name, template, ("a", "b", "y"), *grid(count, device.group()), sizes={"count": count})]

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        sign = np.where(a == -1, 1 - 2 * (b & 1), np.where(a == 1, 1, 0))
        return np.where(b < 0, sign, np.power(a, np.where(b < 0, 0, b).astype(b.dtype))).astype(a.dtype)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((0, 1, 2, 3, 17)) for _ in range(random.randint(0, 3)))
        return Sample((shape, shape))


def _integer_pow(items: list[Any], dtype: DType) -> Tensor:
    base, exponent = items
    if not isinstance(exponent, Tensor) and exponent < 0:
        raise ArgumentError(
            "pow", "an exponent of integers that is not negative", f"got {exponent}", "Convert with .float() first."
        )
    if isinstance(base, Tensor) and isinstance(exponent, Tensor) and base.shape != exponent.shape:
        shape = shapes.broadcast("pow", base.shape, exponent.shape)
        items = [base.expand(shape), exponent.expand(shape)]
    return call(IntegerPow, *prepared("pow", items, dtype))


class Square(Elementwise):
    signature = "()->()"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "x * x"}
    kernel_integer = {"y": "(word)x * (word)x"}
    kernel_backward = {"dx": "2 * dy * x"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x * x

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (2 * dy * x,)


@public
def square(input: Tensor) -> Tensor:
    """``input * input``."""
    return unary(Square, input.to(int64) if input.dtype is bool_ else input, floating=False)


class Reciprocal(Elementwise):
    signature = "()->()"
    domain = {"x": (0.5, 4.0)}
    saves = ("y",)
    kernel_forward = {"y": "1 / x"}
    kernel_backward = {"dx": "-dy * y * y"}

    @staticmethod
    def forward(x: Any) -> Any:
        return 1 / x

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (-dy * y * y,)


@public
def reciprocal(input: Tensor) -> Tensor:
    """``1 / input``."""
    return unary(Reciprocal, input)


class Exp(Elementwise):
    signature = "()->()"
    domain = {"x": (-8.0, 8.0)}
    saves = ("y",)
    kernel_forward = {"y": "exp(x)"}
    kernel_backward = {"dx": "dy * y"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.exp(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (dy * y,)


@public
def exp(input: Tensor) -> Tensor:
    """e to the power of each element."""
    return unary(Exp, input)


class Log(Elementwise):
    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    saves = ("x",)
    kernel_forward = {"y": "log(x)"}
    kernel_backward = {"dx": "dy / x"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.log(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy / x,)


@public
def log(input: Tensor) -> Tensor:
    """Natural logarithm."""
    return unary(Log, input)


class Sqrt(Elementwise):
    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    saves = ("y",)
    kernel_forward = {"y": "sqrt(x)"}
    kernel_backward = {"dx": "dy / (2 * y)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.sqrt(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (dy / (2 * y),)


@public
def sqrt(input: Tensor) -> Tensor:
    """Square root."""
    return unary(Sqrt, input)


class Rsqrt(Elementwise):
    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    saves = ("y",)
    kernel_forward = {"y": "1 / sqrt(x)"}
    kernel_backward = {"dx": "(real)-0.5 * dy * y * y * y"}

    @staticmethod
    def forward(x: Any) -> Any:
        return 1 / np.sqrt(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (-0.5 * dy * y * y * y,)


@public
def rsqrt(input: Tensor) -> Tensor:
    """``1 / sqrt(input)``."""
    return unary(Rsqrt, input)


class Sin(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "sin(x)"}
    kernel_backward = {"dx": "dy * cos(x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.sin(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * np.cos(x),)


@public
def sin(input: Tensor) -> Tensor:
    """Sine. Units: radians."""
    return unary(Sin, input)


class Cos(Elementwise):
    signature = "()->()"
    domain = {"x": (-4.0, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "cos(x)"}
    kernel_backward = {"dx": "-dy * sin(x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.cos(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (-dy * np.sin(x),)


@public
def cos(input: Tensor) -> Tensor:
    """Cosine. Units: radians."""
    return unary(Cos, input)


class Erf(Elementwise):
    signature = "()->()"
    domain = {"x": (-3.0, 3.0)}
    saves = ("x",)
    kernel_forward = {"y": "erf(x)"}
    kernel_backward = {"dx": "dy * (real)1.1283791670955126 * exp(-x * x)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return _erf(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * (2 / math.sqrt(math.pi)) * np.exp(-x * x),)


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


@public
def erf(input: Tensor) -> Tensor:
    """The error function."""
    return unary(Erf, input)


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


@public
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two, broadcast; NaN wins; equal elements share the gradient."""
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


@public
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two, broadcast; NaN wins; equal elements share the gradient."""
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


@public
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """``input`` limited to [min, max]; either may be None. Outside, the gradient goes to the limit."""
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
    """``input`` where ``condition`` is true, else ``other``; all three broadcast."""
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


@public
def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """``input`` with ``value``, a number or a 0-d tensor, where ``mask`` is true; the dtype stays input's.

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


@public
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


@public
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


@public
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


@public
def le(input: Tensor, other: Operand) -> Tensor:
    """``input <= other``, element by element."""
    _tensors("le", input)
    return call(Le, *compared("le", input, other))


@public
def gt(input: Tensor, other: Operand) -> Tensor:
    """``input > other``, element by element."""
    _tensors("gt", input)
    return call(Lt, *compared("gt", other, input))


@public
def ge(input: Tensor, other: Operand) -> Tensor:
    """``input >= other``, element by element."""
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


@public
def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero."""
    return unary(LogicalNot, input, floating=False)


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


@public
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


@public
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


@public
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


@public
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


@public
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


@public
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


@public
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * sigmoid(input)``. Source: Elfwing et al., arXiv:1702.03118."""
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


@public
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


@public
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


@public
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * relu6(input + 3) / 6``. Source: Howard et al., arXiv:1905.02244."""
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


@public
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * input)) / beta``; the identity above ``threshold``."""
    return unary(Softplus, input, beta=beta, threshold=threshold)
