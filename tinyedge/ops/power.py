"""Powers of floats, of integers by squaring, and of two; the neighbours of a float."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import DType, float32, float64, int32
from tinyedge.errors import ArgumentError, DtypeError
from tinyedge.ir.spec import Device, KernelSpec, grid
from tinyedge.ir.step import Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.arithmetic import clone
from tinyedge.ops.promotion import Operand, as_operand, numbers, prepared, require_tensors
from tinyedge.ops.unary import reciprocal, sqrt, square
from tinyedge.tensor import Tensor, call


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


@public(method=True, inplace=True, operators=("__pow__", "__rpow__", "__ipow__"))
def pow(input: Operand, exponent: Operand) -> Tensor:
    """``input ** exponent``, broadcast. Of integers it is exact, and wraps around.

    An integer to an element that is negative is 1 / y without its fraction: 0 unless ``input`` is 1 or -1.

    Errors: ArgumentError if the exponent of integers is a negative number.
    """
    items = [as_operand("pow", item) for item in (input, exponent)]
    if not isinstance(items[1], Tensor):
        require_tensors("pow", items[0])
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


@public(method=True, inplace=True)
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """``input * 2 ** other``.

    Shapes: input and other broadcast; returns what they broadcast to.
    """
    require_tensors("ldexp", input, other)
    result: Tensor = input * functions["exp2"](other)  # composed
    return result


@public(method=True, inplace=True)
def float_power(input: Operand, exponent: Operand) -> Tensor:
    """``input ** exponent`` in float64, whatever the operands are.

    Shapes: input and exponent broadcast; returns what they broadcast to.
    Errors: DtypeError on a device without float64.
    """
    items = [item.to("float64") if isinstance(item, Tensor) else item for item in (input, exponent)]
    if not any(isinstance(item, Tensor) for item in items):
        require_tensors("float_power", input)
    result: Tensor = functions["pow"](*items)
    return result


class Mantissa(Elementwise):
    signature = "()->()"
    domain = {"x": (-40.0, 40.0)}
    saves = ("x",)
    kernel_forward = {"y": "WHERE(x == 0 || isinf(x) || isnan(x), x, ldexp(x, -ilogb(x) - 1))"}
    kernel_backward = {"dx": "WHERE(x == 0 || isinf(x) || isnan(x), dy, ldexp(dy, -ilogb(x) - 1))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.frexp(x)[0]

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (np.ldexp(dy, -np.where(np.isfinite(x), np.frexp(x)[1], 0)),)


class Exponent(Elementwise):
    signature = "()->()"
    domain = {"x": (-40.0, 40.0)}
    result = int32
    kernel_forward = {"y": "WHERE(x == 0 || isinf(x) || isnan(x), 0, ilogb(x) + 1)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.where(np.isfinite(x), np.frexp(x)[1], 0).astype(np.int32)


class Frexp(NamedTuple):
    """What ``frexp`` returns."""

    mantissa: Tensor
    exponent: Tensor


@public(method=True)
def frexp(input: Tensor) -> Frexp:
    """``input`` as ``mantissa * 2 ** exponent``, where the mantissa's size is in [0.5, 1), or it is 0, inf or NaN.

    Shapes: any; returns two of the same, the second int32.
    Errors: DtypeError of integers.
    """
    require_tensors("frexp", input)
    if not input.is_floating_point():
        raise DtypeError("frexp", "floats", f"got {input.dtype.name}", "Convert them with .float().")
    return Frexp(call(Mantissa, input), call(Exponent, input))


class Nextafter(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel_forward = {"y": "nextafter(a, b)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.nextafter(a, b)


@public(method=True, inplace=True)
def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The float next to ``input`` on the side of ``other``. It has no gradient.

    Shapes: input and other broadcast; returns what they broadcast to.
    Errors: DtypeError unless they are float32 or float64.
    """
    require_tensors("nextafter", input, other)
    items = prepared("nextafter", (input, other))
    if items[0].dtype not in (float32, float64):  # those of 16 bits are computed with as float32
        raise DtypeError("nextafter", "float32 or float64", f"got {items[0].dtype.name}", "Convert with .float().")
    return call(Nextafter, *items)
