"""Along one dim, in order: running sums and products, sorting, and what is chosen by rank."""

from __future__ import annotations

import math
from math import prod
from random import Random
from typing import Any, ClassVar

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.registry import public
from tinyedge.dtypes import bool_, int64, resolve, uint8
from tinyedge.errors import AxisError, DtypeError, IndexRangeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid, power_of_two
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Slot, Spec
from tinyedge.ops.movement import narrow, reshape, select
from tinyedge.ops.reduce import ValuesIndices
from tinyedge.tensor import Tensor, call, call_all


def _lines(slot: Slot, dim: int) -> dict[str, int]:
    """How the lines along ``dim`` lie, as the templates know it."""
    return {"length": slot.shape[dim], "inner": prod(slot.shape[dim + 1 :])}


LONG = 512
"""From this length on, a line of few is worth three kernels in the place of one."""


class Scan(Op):
    """Base of the running sums and products along the attribute ``dim``; integers give int64."""

    domain = {"x": (-2.0, 2.0)}
    kinds = "if"
    differentiable = ("x",)
    atol = 1e-5  # sums in different orders

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        return (Spec(x.dtype if x.dtype.is_floating_point else int64, x.shape),)

    @classmethod
    def kernel(
        cls, step: Step, device: Device, kernel: str, buffers: tuple[str, ...], **constants: Any
    ) -> list[KernelSpec]:
        slot = step.slots[buffers[-1]]
        sizes = _lines(slot, step.attrs["dim"])
        count = slot.numel // sizes["length"]
        own = {"element": slot.dtype.ctype, "source": buffers[0], "target": buffers[-1]}
        constants = own | {"product": kernel == "cumprod", "backwards": False} | constants
        launch = grid(count, device.group())
        if kernel in ("cumsum", "cumprod") and sizes["length"] >= LONG and count < 64 * device.compute_units:
            return cls._in_chunks(device, buffers, sizes, count, constants)
        sizes["count"] = count
        return [KernelSpec(kernel, "scan.cl.jinja", buffers, *launch, sizes, constants=constants)]

    @classmethod
    def _in_chunks(
        cls, device: Device, buffers: tuple[str, ...], sizes: dict[str, int], lines: int, constants: dict[str, Any]
    ) -> list[KernelSpec]:
        chunk = power_of_two(math.isqrt(sizes["length"]))
        chunks = -(-sizes["length"] // chunk)
        scratch = (Scratch("totals", constants["element"], lines * chunks),)
        source, target = buffers
        sizes = {**sizes, "chunk": chunk, "chunks": chunks}

        def kernel(name: str, names: tuple[str, ...], count: int) -> KernelSpec:
            own = {"chunks": chunks} if name == "scan_offsets" else sizes
            return KernelSpec(
                name, "scan.cl.jinja", names, *grid(count, device.group()), {**own, "count": count}, scratch=scratch,
                constants=constants,
            )  # fmt: skip

        return [
            kernel("scan_totals", (source, "totals"), lines * chunks),
            kernel("scan_offsets", ("totals",), lines),
            kernel("scan_apply", (source, "totals", target), lines * chunks),
        ]

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5, 17)) for _ in range(random.randint(1, 3)))
        dim = random.randrange(len(shape))
        if random.random() < 0.2:
            shape = (*shape[:dim], 150, *shape[dim + 1 :])
        elif random.random() < 0.1:
            shape = (*(min(n, 2) for n in shape[:dim]), 700, *(min(n, 2) for n in shape[dim + 1 :]))
        return Sample((shape,), {"dim": dim})


class Cumsum(Scan):
    signature = "(...,k,...)->(...,k,...)"
    errors = (ErrorSample(lambda te: te.cumsum(te.zeros(2, 3), 2), AxisError, "[-2, 1]"),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "cumsum", ("x", "y"), backwards=False)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "cumsum", ("dy", "dx"), backwards=True)

    @staticmethod
    def forward(x: Any, *, dim: int) -> Any:
        return x.cumsum(axis=dim, dtype=np.float64).astype(x.dtype) if x.dtype.kind == "f" else x.cumsum(axis=dim)

    @staticmethod
    def backward(dy: Any, *, dim: int) -> tuple[Any, ...]:
        return (np.flip(np.flip(dy, dim).cumsum(axis=dim, dtype=np.float64), dim).astype(dy.dtype),)


class Cumprod(Scan):
    signature = "(...,k,...)->(...,k,...)"
    domain = {"x": (0.5, 1.5)}
    saves = ("x", "y")
    rtol = 1e-4  # products of up to 150 factors
    errors = (ErrorSample(lambda te: te.cumprod(te.zeros(2, 3), 2), AxisError, "[-2, 1]"),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "cumprod", ("x", "y"))

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "cumprod_backward", ("dy", "x", "y", "dx"))

    @staticmethod
    def forward(x: Any, *, dim: int) -> Any:
        return x.cumprod(axis=dim)

    @staticmethod
    def backward(dy: Any, x: Any, y: Any, *, dim: int) -> tuple[Any, ...]:
        x, y, dy = (np.moveaxis(item, dim, 0) for item in (x, y, dy))
        dx = np.empty_like(dy)
        after = np.zeros_like(dy[0])
        for k in reversed(range(len(x))):
            after = after + dy[k]
            dx[k] = after * (y[k - 1] if k else 1)
            after = after * x[k]
        return (np.moveaxis(dx, 0, dim),)


def _scan(op: type[Op], input: Tensor, dim: int, dtype: Any) -> Tensor:
    if not isinstance(input, Tensor):
        raise DtypeError(op.name, "a tensor", f"got {type(input).__name__}", "Convert it with te.tensor.")
    axis = shapes.normalize_axis(op.name, dim, input.ndim)
    if dtype is not None:
        input = input.to(dtype)
    wanted = None if dtype is None else resolve(dtype, op.name)
    if input.dtype is bool_:
        input = input.to(uint8)
    shape = input.shape
    y = call(op, input if shape else reshape(input, (1,)), dim=axis)
    y = y if shape else reshape(y, ())
    return y if wanted is None else y.to(wanted)


@public(method=True, inplace=True)
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The sums of the elements up to each place of ``dim``; bools and integers give int64.

    Shapes: any; returns the same.
    Errors: AxisError if there is no such dim.

    >>> te.cumsum(te.tensor([1.0, 2.0, 3.0]), 0).tolist()
    [1.0, 3.0, 6.0]
    """
    return _scan(Cumsum, input, dim, dtype)


@public(method=True, inplace=True)
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The products of the elements up to each place of ``dim``; bools and integers give int64.

    Shapes: any; returns the same.
    Saves:  input and result.
    Errors: AxisError if there is no such dim.
    """
    return _scan(Cumprod, input, dim, dtype)


RUN = 16
"""Elements that are ranked by comparing each with each, before runs of them are merged."""


class Sort(Op):
    """Sorted along the attribute ``dim``, and from where each element came. Stable; NaN is the largest."""

    signature = "(...,k,...)->(...,k,...),(...,k,...)"
    operations = 8
    domain = {"x": (-4.0, 4.0)}
    kinds = "if"
    outputs = ("y", "index")
    differentiable = ("x",)
    saves = ("index",)
    errors: ClassVar[tuple[ErrorSample, ...]] = (
        ErrorSample(lambda te: te.sort(te.zeros(2, 3), 2), AxisError, "[-2, 1]"),
        ErrorSample(lambda te: te.topk(te.zeros(2, 3), 4), IndexRangeError, "[0, 3]"),
        ErrorSample(lambda te: te.kthvalue(te.zeros(2, 3), 0), IndexRangeError, "[1, 3]"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        return x, Spec(int64, x.shape)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        slot = step.slots["x"]
        sizes = {"count": slot.numel, **_lines(slot, step.attrs["dim"])}
        scratch = (Scratch("places", "int", slot.numel), Scratch("merged", "int", slot.numel))
        constants = {"element": slot.dtype.ctype, "descending": step.attrs["descending"]}
        launch = grid(slot.numel, device.group())

        def kernel(name: str, buffers: tuple[str, ...], run: int, source: str, target: str) -> KernelSpec:
            runs = {"run": run} if run else {}
            return KernelSpec(
                name, "sort.cl.jinja", buffers, *launch, {**sizes, **runs}, scratch=scratch,
                constants={**constants, "source": source, "target": target},
            )  # fmt: skip

        source, target, run = "places", "merged", RUN
        kernels = [kernel("sort_start", ("x", source), run, "", source)]
        while run < sizes["length"]:
            kernels.append(kernel("sort_merge", ("x", source, target), run, source, target))
            source, target, run = target, source, 2 * run
        kernels.append(kernel("sort_store", ("x", source, "y", "index"), 0, source, ""))
        return kernels

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        slot = step.slots["dx"]
        sizes = {"count": slot.numel, **_lines(slot, step.attrs["dim"])}
        return [
            KernelSpec(
                "sort_backward", "sort.cl.jinja", ("dy", "index", "dx"), *grid(slot.numel, device.group()), sizes
            )
        ]

    @staticmethod
    def forward(x: Any, *, dim: int, descending: bool) -> Any:
        if descending:  # stable from the other end: the last of equal ones comes first there
            index = x.shape[dim] - 1 - np.flip(np.argsort(np.flip(x, dim), axis=dim, kind="stable"), dim)
        else:
            index = np.argsort(x, axis=dim, kind="stable")
        return np.take_along_axis(x, index, dim), index

    @staticmethod
    def backward(dy: Any, dindex: Any, index: Any, *, dim: int, descending: bool) -> tuple[Any, ...]:
        dx = np.empty_like(dy)
        np.put_along_axis(dx, index, dy, dim)
        return (dx,)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 7)) for _ in range(random.randint(1, 3)))
        dim = random.randrange(len(shape))
        if random.random() < 0.5:
            shape = (*shape[:dim], random.choice((16, 17, 40, 150)), *shape[dim + 1 :])
        return Sample((shape,), {"dim": dim, "descending": random.random() < 0.5})


def _sorted(name: str, input: Tensor, dim: int, descending: bool) -> ValuesIndices:
    """Of a tensor of at least one dim."""
    if not isinstance(input, Tensor):
        raise DtypeError(name, "a tensor", f"got {type(input).__name__}", "Convert it with te.tensor.")
    axis = shapes.normalize_axis(name, dim, input.ndim)
    source = input.to(uint8) if input.dtype is bool_ else input
    values, indices = call_all(Sort, source if input.ndim else reshape(source, (1,)), dim=axis, descending=descending)
    return ValuesIndices(values.to(input.dtype), indices)


@public(method=True)
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesIndices:
    """(values, indices) in order along ``dim``; equal elements keep their order, and NaN is the largest.

    ``descending``: the largest first. ``stable`` changes nothing, since the order is stable anyway.

    Shapes: any; returns two of the same, the indices int64.
    Saves:  the indices.
    Errors: AxisError if there is no such dim.

    >>> te.sort(te.tensor([3.0, 1.0, 2.0])).indices.tolist()
    [1, 2, 0]
    """
    values, indices = _sorted("sort", input, dim, bool(descending))
    if not input.ndim:
        return ValuesIndices(reshape(values, ()), reshape(indices, ()))
    return ValuesIndices(values, indices)


@public(method=True)
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices that ``sort`` returns.

    ``descending``: the largest first. ``stable`` changes nothing, since the order is stable anyway.

    Shapes: any; returns the same, int64.
    Errors: AxisError if there is no such dim.
    """
    return sort(input.detach(), dim, descending).indices


@public(method=True)
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
    """(values, indices) of the ``k`` largest (or smallest) along ``dim``, in order; of equal ones, the first.

    ``sorted`` changes nothing: they are in order anyway.

    Shapes: (..., n, ...) gives two of (..., k, ...), the indices int64.
    Errors: IndexRangeError unless k is in [0, n]; AxisError if there is no such dim.
    """
    axis = shapes.normalize_axis("topk", dim, input.ndim)
    size = input.shape[axis] if input.ndim else 1
    if not 0 <= k <= size:
        raise IndexRangeError("topk", f"k must be in [0, {size}]", f"got {k}")
    if not input.ndim:
        return sort(input)
    values, indices = _sorted("topk", input, dim, bool(largest))
    return ValuesIndices(narrow(values, axis, 0, k), narrow(indices, axis, 0, k))


@public(method=True)
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """(values, indices) of the ``k``-th smallest along ``dim``, counted from 1.

    Shapes: any; returns two of it without ``dim`` (with ``keepdim`` its length is 1), the indices int64.
    Errors: IndexRangeError unless k is in [1, n]; AxisError if there is no such dim.
    """
    axis = shapes.normalize_axis("kthvalue", dim, input.ndim)
    size = input.shape[axis] if input.ndim else 1
    if not 1 <= k <= size:
        raise IndexRangeError("kthvalue", f"k must be in [1, {size}]", f"got {k}")
    if not input.ndim:
        return sort(input)
    values, indices = (narrow(found, axis, k - 1, 1) for found in _sorted("kthvalue", input, dim, False))
    return (
        ValuesIndices(values, indices) if keepdim else ValuesIndices(select(values, axis, 0), select(indices, axis, 0))
    )
