"""Divisors of integers."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import DtypeError
from tinyedge.ir.spec import Device, KernelSpec, grid
from tinyedge.ir.step import Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.promotion import prepared, require_tensors
from tinyedge.tensor import Tensor, call


class Gcd(Op):
    """The greatest common divisor of integers, or with the attribute ``multiple`` the least common multiple."""

    signature = "(),()->()"
    kinds = "i"
    domain = {"a": (-40, 40), "b": (-40, 40)}
    operations = 8

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        a, b = inputs
        assert a is not None
        assert b is not None
        return (a,)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        slot = step.slots["y"]
        return [
            KernelSpec(
                "gcd", "gcd.cl.jinja", ("a", "b", "y"), *grid(slot.numel, device.group()), {"count": slot.numel},
                constants={**step.attrs, "element": slot.dtype.ctype}, hooked=("a", "b", "y"),
            )
        ]  # fmt: skip

    @staticmethod
    def forward(a: Any, b: Any, *, multiple: bool) -> Any:
        return (np.lcm if multiple else np.gcd)(a, b)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 17)) for _ in range(random.randint(0, 3)))
        return Sample((shape, shape), {"multiple": random.random() < 0.5})


def _divisors(name: str, input: Tensor, other: Tensor, multiple: bool) -> Tensor:
    require_tensors(name, input, other)
    a, b = prepared(name, (input, other))
    if a.dtype.limits is None:
        raise DtypeError(name, "integers", f"got {a.dtype.name}", "Convert them with .long().")
    return call(Gcd, *functions["broadcast_tensors"](a, b), multiple=multiple)


@public(method=True, inplace=True)
def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor of integers.

    Shapes: input and other broadcast; returns what they broadcast to.
    Errors: DtypeError of floats and bools.
    """
    return _divisors("gcd", input, other, False)


@public(method=True, inplace=True)
def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple of integers.

    Shapes: input and other broadcast; returns what they broadcast to.
    Errors: DtypeError of floats and bools.
    """
    return _divisors("lcm", input, other, True)
