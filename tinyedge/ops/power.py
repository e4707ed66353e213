"""Powers of floats, and of integers by squaring."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import public
from tinyedge.dtypes import DType
from tinyedge.errors import ArgumentError
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
