"""New tensors from sizes and numbers, and the triangles of matrices."""

from __future__ import annotations

import math
from random import Random
from typing import Any, ClassVar

import numpy as np

from tinyedge import dtypes
from tinyedge.autograd.dispatch import MAX_ELEMENTS, new_slot
from tinyedge.autograd.registry import public
from tinyedge.backends import Backend
from tinyedge.dtypes import DType, float32, int64
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.shapes import Shape
from tinyedge.tensor import Number, Tensor, call, full, tensor
from tinyedge.tensor.host import backend_named, filled
from tinyedge.tensor.memory_format import check_memory_format, check_placement
from tinyedge.tensor.memory_format import layout as Layout

Array = np.ndarray[Any, Any]
Target = str | Backend | None


def sizes(call_name: str, size: tuple[Any, ...], named: Any = None) -> Shape:
    """``zeros(2, 3)``, ``zeros((2, 3))`` and ``zeros(size=(2, 3))`` are the same."""
    if named is not None:
        if size:
            raise ArgumentError(call_name, "the size once", f"got {size} and size={named}")
        size = (named,)
    if len(size) == 1 and not hasattr(size[0], "__index__"):
        size = tuple(size[0])
    shape = tuple(int(length) for length in size)
    if any(length < 0 for length in shape):
        raise ShapeError(call_name, "sizes of at least 0", f"got {shape}")
    return shape


def _float(call_name: str, dtype: Any) -> DType:
    return float32 if dtype is None else dtypes.resolve(dtype, call_name)


@public
def zeros(
    *shape: Any,
    size: Any = None,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor of zeros, float32 unless told otherwise.

    Shapes: ``zeros(2, 3)`` and ``zeros((2, 3))`` return (2, 3).
    Errors: ShapeError if a size is negative.
    """
    check_placement("zeros", layout, pin_memory)
    return full(
        sizes("zeros", shape, size), 0, dtype=_float("zeros", dtype), device=device, requires_grad=requires_grad
    )


@public
def ones(
    *shape: Any,
    size: Any = None,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor of ones, float32 unless told otherwise.

    Shapes: as ``zeros``.
    Errors: as ``zeros``.
    """
    check_placement("ones", layout, pin_memory)
    return full(sizes("ones", shape, size), 1, dtype=_float("ones", dtype), device=device, requires_grad=requires_grad)


@public
def empty(
    *shape: Any,
    size: Any = None,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """A tensor that nobody has written yet: its values are whatever was there.

    Shapes: as ``zeros``.
    Errors: as ``zeros``.
    """
    check_placement("empty", layout, pin_memory)
    check_memory_format("empty", memory_format)
    backend = backend_named(device)
    result = Tensor._wrap(new_slot(backend, _float("empty", dtype), sizes("empty", shape, size)))
    return result.requires_grad_() if requires_grad else result


@public
def zeros_like(
    input: Tensor,
    *,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """``zeros`` with the shape, dtype and device of ``input``; ``memory_format`` changes nothing.

    Shapes: any; returns the same.
    """
    check_placement("zeros_like", layout, pin_memory)
    check_memory_format("zeros_like", memory_format)
    return full_like(input, 0, dtype=dtype, device=device, requires_grad=requires_grad)


@public
def ones_like(
    input: Tensor,
    *,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """``ones`` with the shape, dtype and device of ``input``; ``memory_format`` changes nothing.

    Shapes: any; returns the same.
    """
    check_placement("ones_like", layout, pin_memory)
    check_memory_format("ones_like", memory_format)
    return full_like(input, 1, dtype=dtype, device=device, requires_grad=requires_grad)


@public
def full_like(
    input: Tensor, fill_value: Number, *, dtype: Any = None, device: Target = None, requires_grad: bool = False,
    layout: Layout | None = None, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """``full`` with the shape, dtype and device of ``input``; ``memory_format`` changes nothing.

    Shapes: any; returns the same.
    Errors: NumberRangeError if the dtype does not hold ``fill_value``.
    """
    check_placement("full_like", layout, pin_memory)
    check_memory_format("full_like", memory_format)
    dtype, device = dtype or input.dtype, device or input.backend
    wanted = dtypes.resolve(dtype, "full_like")
    result = Tensor._wrap(filled("full_like", input.shape, fill_value, wanted, backend_named(device)))
    return result.requires_grad_() if requires_grad else result


@public
def empty_like(
    input: Tensor,
    *,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """``empty`` with the shape, dtype and device of ``input``; ``memory_format`` changes nothing.

    Shapes: any; returns the same.
    """
    check_placement("empty_like", layout, pin_memory)
    check_memory_format("empty_like", memory_format)
    dtype, device = dtype or input.dtype, device or input.backend
    return empty(input.shape, dtype=dtype, device=device, requires_grad=requires_grad)


@public
def arange(
    start: Number,
    end: Number | None = None,
    step: Number = 1,
    *,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
) -> Tensor:
    """start, start + step, ... before ``end``: int64 if all three are integers, else float32.

    ``arange(end)`` starts from 0.

    Shapes: returns (n,) with n = ceil((end - start) / step).
    Errors: ArgumentError unless all are finite, and ``step`` leads from start to end. ShapeError if there are too many.
    """
    check_placement("arange", layout, pin_memory)
    if end is None:
        start, end = 0, start
    if not all(map(math.isfinite, (start, end, step))):
        raise ArgumentError("arange", "finite numbers", f"got {start}, {end}, step {step}")
    if step == 0 or (end - start) * math.copysign(1, step) < 0:
        raise ArgumentError("arange", "a step that leads from start to end", f"got {start}, {end}, step {step}")
    whole = all(isinstance(item, (int, np.integer)) for item in (start, end, step))
    wanted = dtypes.resolve(dtype or (int64 if whole else float32), "arange")
    count = int(-(-(end - start) // step) if whole else math.ceil((end - start) / step))
    if count > MAX_ELEMENTS:
        raise ShapeError("arange", f"at most {MAX_ELEMENTS} elements", f"there are {count}")
    for item in (start, start + step * (count - 1)) if count else ():
        dtypes.fitting("arange", item, wanted)
    if wanted.is_floating_point:
        start, step = float(start), float(step)
    elif not whole:  # each is converted, before they are added
        start, step = int(start), int(step)
    values = start + step * np.arange(count)
    return tensor(values, dtype=wanted, device=device, requires_grad=requires_grad)


@public
def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
) -> Tensor:
    """``steps`` numbers from ``start`` to ``end``, both included, at equal distances.

    Shapes: start and end are numbers, or (); returns (steps,).
    Errors: ArgumentError if steps < 0. ShapeError if start or end has dims.
    """
    check_placement("linspace", layout, pin_memory)
    if not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ArgumentError("linspace", "steps must be an int of at least 0", f"got {steps}")
    for end_point in (start, end):
        if isinstance(end_point, Tensor) and end_point.ndim:
            raise ShapeError("linspace", "numbers or 0-d tensors as start and end", f"one has shape {end_point.shape}")
    wanted = _float("linspace", dtype)
    if not wanted.is_floating_point:
        start, end = int(start), int(end)
    return tensor(np.linspace(start, end, steps), dtype=wanted, device=device, requires_grad=requires_grad)


@public
def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
) -> Tensor:
    """``steps`` powers of ``base``, their exponents from ``start`` to ``end`` at equal distances.

    Shapes: start and end are numbers, or (); returns (steps,).
    Errors: as ``linspace``.
    """
    check_placement("logspace", layout, pin_memory)
    if not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ArgumentError("logspace", "steps must be an int of at least 0", f"got {steps}")
    for end_point in (start, end):
        if isinstance(end_point, Tensor) and end_point.ndim:
            raise ShapeError("logspace", "numbers or 0-d tensors as start and end", f"one has shape {end_point.shape}")
    wanted = _float("logspace", dtype)
    first, last = float(start), float(end)
    if not wanted.is_floating_point:
        first, last = float(int(first)), float(int(last))
    exponents = np.linspace(first, last, steps)
    return tensor(float(base) ** exponents, dtype=wanted, device=device, requires_grad=requires_grad)


@public
def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix, m = n if it is left out; zeros elsewhere.

    Shapes: returns (n, m).
    """
    check_placement("eye", layout, pin_memory)
    rows, columns = sizes("eye", (n, n if m is None else m))
    return tensor(np.eye(rows, columns), dtype=_float("eye", dtype), device=device, requires_grad=requires_grad)


class Triangle(Op):
    """Base of the two triangles of a matrix."""

    lower: ClassVar[bool] = True
    domain = {"x": (-4.0, 4.0)}
    kinds = "bif"
    differentiable = ("x",)

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        if len(x.shape) < 2:
            raise ShapeError(cls.name, "an input of at least 2 dims", f"got {x.shape}")
        return (x,)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "x", "y")

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "dy", "dx")

    @classmethod
    def kernel(cls, step: Step, device: Device, source: str, target: str) -> list[KernelSpec]:
        slot = step.slots[target]
        sizes = {"rows": slot.shape[-2], "columns": slot.shape[-1], **step.attrs, "count": slot.numel}
        return [
            KernelSpec(
                cls.name,
                "triangle.cl.jinja",
                (source, target),
                *grid(slot.numel, device.group()),
                sizes=sizes,
                constants={"source": source, "target": target, "lower": cls.lower},
                hooked=(source, target),
            )
        ]

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5, 17)) for _ in range(random.randint(2, 4)))
        return Sample((shape,), {"diagonal": random.randint(-6, 6)})


class Tril(Triangle):
    signature = "(...,m,n)->(...,m,n)"
    operations = 0
    errors = (ErrorSample(lambda te: te.tril(te.zeros(3)), ShapeError, "at least 2"),)

    @staticmethod
    def forward(x: Array, *, diagonal: int) -> Array:
        return np.tril(x, diagonal)

    @staticmethod
    def backward(dy: Array, *, diagonal: int) -> tuple[Array]:
        return (np.tril(dy, diagonal),)


@public(method=True, inplace=True)
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrices in the last two dims with zeros above a diagonal: the main one, or that many to its right.

    Shapes: input (..., n, m); returns the same.
    Errors: ShapeError if the input has less than 2 dims.
    """
    return call(Tril, input, diagonal=_diagonal("tril", input, diagonal))


class Triu(Triangle):
    signature = "(...,m,n)->(...,m,n)"
    operations = 0
    lower = False
    errors = (ErrorSample(lambda te: te.triu(te.zeros(3)), ShapeError, "at least 2"),)

    @staticmethod
    def forward(x: Array, *, diagonal: int) -> Array:
        return np.triu(x, diagonal)

    @staticmethod
    def backward(dy: Array, *, diagonal: int) -> tuple[Array]:
        return (np.triu(dy, diagonal),)


@public(method=True, inplace=True)
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrices in the last two dims with zeros below a diagonal: the main one, or that many to its right.

    Shapes: input (..., n, m); returns the same.
    Errors: ShapeError if the input has less than 2 dims.
    """
    return call(Triu, input, diagonal=_diagonal("triu", input, diagonal))


def _diagonal(call_name: str, input: Tensor, diagonal: int) -> int:
    """``diagonal``, at most one beyond the corners, so that it fits into an int of the device."""
    if input.ndim < 2:
        raise ShapeError(call_name, "an input of at least 2 dims", f"got {input.shape}")
    return min(max(int(diagonal), -input.shape[-2]), input.shape[-1])
