"""Arithmetic: copies and casts, sums, products, quotients and powers, with PyTorch's gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from tinyedge import dtypes
from tinyedge.autograd import recorder
from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import also, public
from tinyedge.dtypes import INTEGER, DType, bool_, float32, int8, int16, int32, int64, uint8
from tinyedge.errors import ArgumentError, BackendError, DtypeError, ShapeError, ZeroDivisorError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import ErrorSample, Step
from tinyedge.ir.values import Spec, Storage
from tinyedge.kernels.lowering import pointwise_kernel
from tinyedge.ops.comparison import LogicalOr
from tinyedge.ops.promotion import Operand, as_operand, numbers, prepared, require_tensors, result_dtype
from tinyedge.tensor import Number, Tensor, blocks_of, call, of_blocks
from tinyedge.tensor.memory_format import check_memory_format

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


@public(method=True)
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A contiguous copy with its own memory; the gradient flows through. ``memory_format`` changes nothing."""
    check_memory_format("clone", memory_format)
    if input.dtype.blocks is not None:
        return of_blocks(call(Clone, blocks_of("clone", input)), input.dtype, input.shape)
    return call(Clone, input)


class Copy(Elementwise):
    """Values stored in memory that is there, or added to what it holds: see ``write_into``."""

    signature = "()->()"
    kinds = "bif"
    operations = 0
    domain = {"x": (-4.0, 4.0)}
    accumulates = True
    kernel_forward = {"y": "x"}

    @staticmethod
    def forward(x: Any) -> Any:
        return x


class Cast(Elementwise):
    signature = "()->()"
    kinds = "bif"
    operations = 0
    domain = {"x": (-4.0, 4.0)}
    choices = {"dtype": (float32, int32, int64, int16, int8, uint8, bool_)}
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


@public(method=True, inplace=True, operators=("__add__", "__radd__", "__iadd__"))
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


@public(method=True, inplace=True, operators=("__sub__", "__rsub__", "__isub__"))
def sub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """``input - alpha * other``, broadcast.

    Errors: DtypeError of two bools.
    """
    if alpha != 1:
        other = mul(other, alpha)
    a, b = prepared("sub", (input, other))
    if a.dtype is bool_:
        raise DtypeError("sub", "numbers", "got two bools", "Use ~ or te.ne on booleans.")
    return call(Sub, a, b)


subtract = also("subtract", sub)


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


@public(method=True, inplace=True, operators=("__mul__", "__rmul__", "__imul__"))
def mul(input: Operand, other: Operand) -> Tensor:
    """``input * other``, broadcast."""
    return call(Mul, *prepared("mul", (input, other)))


multiply = also("multiply", mul)


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


@public(method=True, inplace=True, operators=("__truediv__", "__rtruediv__", "__itruediv__"))
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``, broadcast; integers give float32. ``rounding_mode`` is None, "floor" or "trunc".

    With a rounding mode integers stay integers, and are divided as such.

    Errors: ZeroDivisorError if integers are divided with a rounding mode by the number 0, or by a tensor from the host
            that contains it. By a 0 that was computed they give 0: to look for it would be to wait for the device.
    """
    items = [as_operand("div", item) for item in (input, other)]
    if rounding_mode is not None:
        return _rounded_quotient("div", items, rounding_mode)
    dtype = result_dtype("div", items)
    return call(Div, *prepared("div", items, dtype if dtype.is_floating_point else float32))


divide = also("divide", div)


@public(method=True, inplace=True)
def true_divide(input: Operand, other: Operand) -> Tensor:
    """``input / other``, broadcast; integers give float32.

    Shapes: input and other broadcast; returns what they broadcast to.
    """
    return div(input, other)


def _rounded_quotient(call_name: str, items: list[Any], rounding_mode: str) -> Tensor:
    if rounding_mode not in ("floor", "trunc"):
        raise ArgumentError(call_name, 'rounding_mode must be None, "floor" or "trunc"', f"got {rounding_mode!r}")
    dtype = numbers(call_name, *items)
    if dtype.is_floating_point:
        return call(FloorQuotient if rounding_mode == "floor" else TruncQuotient, *prepared(call_name, items, dtype))
    _nonzero(call_name, items[1])
    return call(FloorDivide if rounding_mode == "floor" else TruncDivide, *prepared(call_name, items, dtype))


def _nonzero(call_name: str, divisor: Any) -> None:
    """Refuse 0 as the divisor of integers, where the host knows it. To see what a device computed is to wait for it."""

    def refuse(got: str) -> NoReturn:
        raise ZeroDivisorError(
            call_name, "a divisor of integers that is not 0", got, "Divide floats, which gives infinity or NaN."
        )

    def check(storage: Storage) -> None:
        if storage.bounds is not None and not storage.version and 0 in storage.bounds:
            refuse("an element of it is 0")

    if not isinstance(divisor, Tensor):
        if divisor == 0:
            refuse("got 0")
        return
    slot = divisor._slot
    if slot.nbytes == slot.storage.nbytes:  # else it may be a part without it
        check(slot.storage)
        recorder.checked(slot.storage, check)


@public(method=True, inplace=True, operators=("__floordiv__", "__rfloordiv__", "__ifloordiv__"))
def floor_divide(input: Operand, other: Operand) -> Tensor:
    """``floor(input / other)``, broadcast; integers stay integers. Its gradients are zeros.

    Shapes: input and other broadcast; returns what they broadcast to.
    Errors: as ``div``.
    """
    return _rounded_quotient("floor_divide", [as_operand("floor_divide", item) for item in (input, other)], "floor")


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


@public(method=True, inplace=True, operators=("__mod__", "__rmod__", "__imod__"))
def remainder(input: Operand, other: Operand) -> Tensor:
    """``input - other * floor(input / other)``, as Python's ``%``.

    Errors: ZeroDivisorError if integers are divided by the number 0, or by a tensor from the host that contains it. By
            a 0 that was computed the remainder is 0.
    """
    if not isinstance(other, Tensor):
        require_tensors("remainder", input)
    return _remainder(Remainder, "remainder", input, other)


def _remainder(op: type[Elementwise], call_name: str, input: Operand, other: Operand) -> Tensor:
    dtype = numbers(call_name, input, other)
    a, b = as_operand(call_name, input), as_operand(call_name, other)
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


@public(method=True, inplace=True)
def fmod(input: Operand, other: Operand) -> Tensor:
    """``input - other * trunc(input / other)``, with the sign of ``input``; as C's ``fmod``.

    Errors: as ``remainder``.
    """
    require_tensors("fmod", input)
    return _remainder(Fmod, "fmod", input, other)
