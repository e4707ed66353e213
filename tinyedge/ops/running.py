"""Along one dim, in order: what was the largest, the smallest, or the sum of exponentials up to each place."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.registry import public
from tinyedge.dtypes import bool_, int64, uint8
from tinyedge.errors import AxisError, DtypeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import ErrorSample, Op, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.movement import reshape
from tinyedge.ops.reduce import ValuesIndices
from tinyedge.ops.scan import Scan
from tinyedge.tensor import Tensor, call, call_all


class Logcumsumexp(Scan):
    signature = "(...,k,...)->(...,k,...)"
    kinds = "f"
    saves = ("x", "y")
    errors = (ErrorSample(lambda te: te.logcumsumexp(te.zeros(2, 3), 2), AxisError, "[-2, 1]"),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "logcumsumexp", ("x", "y"))

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "logcumsumexp_backward", ("dy", "x", "y", "dx"))

    @staticmethod
    def forward(x: Any, *, dim: int) -> Any:
        return np.logaddexp.accumulate(x, axis=dim)

    @staticmethod
    def backward(dy: Any, x: Any, y: Any, *, dim: int) -> tuple[Any, ...]:
        x, y, dy = (np.moveaxis(item, dim, 0) for item in (x, y, dy))
        dx = np.empty_like(dy)
        after = np.zeros_like(dy[0])
        for k in reversed(range(len(x))):
            if k < len(x) - 1:
                after = np.where(y[k] == y[k + 1], after, after * np.exp(y[k] - y[k + 1]))
            after = after + dy[k]
            dx[k] = np.where(y[k] == -np.inf, 0, np.where(x[k] == y[k], after, after * np.exp(x[k] - y[k])))
        return (np.moveaxis(dx, 0, dim),)


class CumulativeExtreme(Scan):
    """Base of Cummax and Cummin: the extreme up to each place, and the last place where it stands."""

    outputs = ("y", "index")
    saves = ("index",)
    largest: ClassVar[bool] = True

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        return x, Spec(int64, x.shape)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        element = step.slots["x"].dtype.ctype
        return cls.kernel(step, device, "cumextreme", ("x", "y", "index"), largest=cls.largest, element=element)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "cumextreme_backward", ("dy", "index", "dx"))

    @classmethod
    def running(cls, x: Any, dim: int) -> tuple[Any, Any]:
        x = np.moveaxis(x, dim, 0)
        y, index = np.empty_like(x), np.zeros(x.shape, np.int64)
        for k in range(len(x)):
            before = x[0] if k == 0 else y[k - 1]
            taken = (x[k] >= before if cls.largest else x[k] <= before) | (x[k] != x[k])
            y[k] = np.where(taken, x[k], before)
            index[k] = np.where(taken, k, 0 if k == 0 else index[k - 1])
        return np.moveaxis(y, 0, dim), np.moveaxis(index, 0, dim)

    @staticmethod
    def backward(dy: Any, dindex: Any, index: Any, *, dim: int) -> tuple[Any, ...]:
        dx = np.zeros_like(dy)
        own = np.indices(index.shape, sparse=True)
        np.add.at(dx, (*own[:dim], index, *own[dim + 1 :]), dy)
        return (dx,)


class Cummax(CumulativeExtreme):
    signature = "(...,k,...)->(...,k,...),(...,k,...)"

    @staticmethod
    def forward(x: Any, *, dim: int) -> Any:
        return Cummax.running(x, dim)


class Cummin(CumulativeExtreme):
    signature = "(...,k,...)->(...,k,...),(...,k,...)"
    largest = False

    @staticmethod
    def forward(x: Any, *, dim: int) -> Any:
        return Cummin.running(x, dim)


@public(method=True)
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """The logarithm of the sum of the exponentials up to each place of ``dim``, without overflow.

    Shapes: any; returns the same.
    Saves:  input and result.
    Errors: AxisError if there is no such dim; DtypeError for integers: convert with .float().
    """
    if not isinstance(input, Tensor) or not input.is_floating_point():
        found = input.dtype.name if isinstance(input, Tensor) else type(input).__name__
        raise DtypeError("logcumsumexp", "a floating-point tensor", f"got {found}", "Convert it with .float().")
    axis = shapes.normalize_axis("logcumsumexp", dim, input.ndim)
    if not input.ndim:
        return input.clone()
    return call(Logcumsumexp, input, dim=axis)


def _extreme(op: type[Op], input: Tensor, dim: int) -> ValuesIndices:
    if not isinstance(input, Tensor):
        raise DtypeError(op.name, "a tensor", f"got {type(input).__name__}", "Convert it with te.tensor.")
    axis = shapes.normalize_axis(op.name, dim, input.ndim)
    source = input.to(uint8) if input.dtype is bool_ else input
    values, indices = call_all(op, source if input.ndim else reshape(source, (1,)), dim=axis)
    if not input.ndim:
        values, indices = reshape(values, ()), reshape(indices, ())
    return ValuesIndices(values.to(input.dtype), indices)


@public(method=True)
def cummax(input: Tensor, dim: int) -> ValuesIndices:
    """(values, indices) of the largest element up to each place of ``dim``: of equal ones the last; NaN wins.

    Shapes: any; returns two of the same, the indices int64.
    Saves:  the indices.
    Errors: AxisError if there is no such dim.
    """
    return _extreme(Cummax, input, dim)


@public(method=True)
def cummin(input: Tensor, dim: int) -> ValuesIndices:
    """(values, indices) of the smallest element up to each place of ``dim``: of equal ones the last; NaN wins.

    Shapes: any; returns two of the same, the indices int64.
    Saves:  the indices.
    Errors: AxisError if there is no such dim.
    """
    return _extreme(Cummin, input, dim)
