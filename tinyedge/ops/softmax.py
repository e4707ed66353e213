"""Softmax and its logarithm."""

from __future__ import annotations

from math import prod
from random import Random
from typing import Any, ClassVar

import numpy as np

from tinyedge import dtypes, shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.errors import DtypeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.promotion import floating
from tinyedge.ops.rows import row_launch, shared_rows
from tinyedge.tensor import Tensor, call

# Softmax


class Softmax(Op):
    """Exponentials along one axis, divided by their sum."""

    signature = "(...,k,...)->(...,k,...)"
    operations = 5  # maximum, difference, exponential, sum, quotient
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    saves = ("y",)
    logarithm = False
    errors: ClassVar[tuple[ErrorSample, ...]] = (
        ErrorSample(lambda te: te.softmax(te.full((2, 3), 1), 1), DtypeError, "floating-point"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        assert inputs[0] is not None
        return (inputs[0],)

    @classmethod
    def _kernel(cls, step: Step, device: Device, kernel: str, buffers: tuple[str, ...]) -> list[KernelSpec]:
        slot = step.slots["y"]
        dim = step.attrs["dim"]
        shape = slot.shape or (1,)
        length, inner = shape[dim], prod(shape[dim + 1 :])
        rows = prod(shape[:dim]) * inner
        global_size, local_size, walk = row_launch(device, rows, length, inner == 1)
        return [
            KernelSpec(
                kernel,
                "softmax.cl.jinja",
                buffers,
                global_size,
                local_size,
                {"rows": rows, "length": length, "step": inner},
                constants={"real": slot.dtype.ctype, "logarithm": cls.logarithm, "strided": inner != 1, **walk},
                hooked=buffers,
                in_place={buffers[-1]: buffers[:-1]},
                **shared_rows(slot.dtype.ctype, walk),
            )
        ]

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, "softmax_forward", ("x", "y"))

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, "softmax_backward", ("dy", "y", "dx"))

    @staticmethod
    def forward(x: Any, *, dim: int) -> Any:
        if not x.ndim:
            return np.exp(x - x)  # NaN of NaN and of infinities
        e = np.exp(x - x.max(axis=dim, keepdims=True, initial=-np.inf))
        return e / e.sum(axis=dim, keepdims=True)

    @staticmethod
    def backward(dy: Any, y: Any, *, dim: int) -> Any:
        if not y.ndim:
            return (y * (dy - dy * y),)
        return (y * (dy - (dy * y).sum(axis=dim, keepdims=True)),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 17, 70)) for _ in range(random.randint(0, 3)))
        return Sample((shape,), {"dim": random.randrange(max(len(shape), 1))})


class LogSoftmax(Softmax):
    """The logarithm of ``Softmax``, without its underflow."""

    signature = "(...,k,...)->(...,k,...)"
    operations = 5
    logarithm = True
    errors = ()

    @staticmethod
    def forward(x: Any, *, dim: int) -> Any:
        if not x.ndim:
            return x - x
        shifted = x - x.max(axis=dim, keepdims=True, initial=-np.inf)
        return shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))

    @staticmethod
    def backward(dy: Any, y: Any, *, dim: int) -> Any:
        if not y.ndim:
            return (dy - np.exp(y) * dy,)
        return (dy - np.exp(y) * dy.sum(axis=dim, keepdims=True),)


def _along(op: type[Softmax], name: str, input: Tensor, dim: int | None, dtype: Any) -> Tensor:
    if isinstance(input, Tensor) and dtype is not None:
        input = input.to(dtypes.resolve(dtype, name))
    input = floating(name, input)
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
    return call(op, input, dim=shapes.normalize_axis(name, dim, input.ndim))


@public(functional=True, space="special")
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """``exp(input) / sum(exp(input))`` along ``dim``; with ``dtype``, after conversion to that.

    Without ``dim`` it is 0 for 0, 1 or 3 dims, else 1, as PyTorch has it: better give it.

    Shapes: any; returns the same.
    Saves:  the result.
    Errors: AxisError if there is no such dim; DtypeError unless the input is floating point.
    """
    return _along(Softmax, "softmax", input, dim, dtype)


@public(functional=True, space="special")
def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """``log(softmax(input, dim))`` without underflow; with ``dtype``, after conversion to that.

    Shapes: any; returns the same.
    Saves:  the result.
    Errors: as ``softmax``.
    """
    return _along(LogSoftmax, "log_softmax", input, dim, dtype)


@public(functional=True)
def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """``softmax(-input, dim)``.

    Shapes: any; returns the same.
    Errors: as ``softmax``.
    """
    return _along(Softmax, "softmin", functions["neg"](input), dim, dtype)
