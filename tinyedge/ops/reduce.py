"""Reductions over any axes: sum, mean, the extremes and where they are.

The ops keep the reduced axes with length one, so that gradients broadcast back; the public functions drop them: a view.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from math import prod
from random import Random
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from tinyedge import dtypes, shapes
from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import DType, bool_, int64, uint8
from tinyedge.errors import ArgumentError, AxisError, DtypeError
from tinyedge.ir.spec import Device, KernelSpec, LocalArray, Scratch, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step, sum_of
from tinyedge.ir.values import Layout, Spec
from tinyedge.kernels.lowering import parts_of, pointwise_kernel, reduce_kernels
from tinyedge.ops.rows import row_launch
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call, call_all

Axes = int | Sequence[int] | None


class Reduction(Op):
    """Base of the ops that reduce over the attribute ``axes``."""

    domain = {"x": (-4.0, 4.0)}
    kinds = "if"
    differentiable = ("x",)
    strided = True
    kind: ClassVar[str] = "sum"
    atol = 1e-5  # sums of up to a few thousand terms, added in different orders

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (spec,) = inputs
        assert spec is not None
        return (Spec(cls.result_dtype(spec.dtype), shapes.reduced(spec.shape, attrs["axes"], keepdim=True)),)

    @classmethod
    def result_dtype(cls, dtype: DType) -> DType:
        return dtype

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return reduce_kernels(step, device, cls.kind, {"y": "x"}, step.slots["x"].shape, step.attrs["axes"])

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 7, 40)) for _ in range(random.randint(0, 4)))
        axes = tuple(axis for axis in range(len(shape)) if random.random() < 0.5) or tuple(range(len(shape)))
        return Sample((shape,), {"axes": axes})


class Sum(Reduction):
    signature = "(...)->(...)"
    kinds = "bif"

    @classmethod
    def result_dtype(cls, dtype: DType) -> DType:
        return dtype if dtype.is_floating_point else int64

    @classmethod
    def gradient_view(cls, index: int, dy: Layout, shape: Shape, attrs: Mapping[str, Any]) -> Layout | None:
        return Layout(shape, shapes.broadcast_strides(dy.shape, dy.strides, shape), dy.offset)

    @staticmethod
    def forward(x: Any, *, axes: tuple[int, ...]) -> Any:
        return sum_of(x, axes, True) if x.dtype.kind == "f" else x.sum(axis=axes, keepdims=True, dtype=np.int64)


class Mean(Reduction):
    signature = "(...)->(...)"
    kinds = "f"
    kind = "mean"

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        shape = step.slots["dx"].shape
        count = prod(shape[axis] for axis in step.attrs["axes"])
        return [pointwise_kernel(step, device, {"dx": "dy / divisor"}, sizes={"divisor": count})]

    @staticmethod
    def forward(x: Any, *, axes: tuple[int, ...]) -> Any:
        count = x.dtype.type(prod(x.shape[axis] for axis in axes))
        origin = x[tuple(slice(1) if axis in axes else slice(None) for axis in range(x.ndim))] if x.size else 0
        origin = np.where(np.isfinite(origin), origin, x.dtype.type(0))  # distances from it are exact for equal numbers
        return origin + sum_of(x - origin, axes, True) / count

    @staticmethod
    def backward(dy: Any, *, axes: tuple[int, ...], shapes: dict[str, Shape]) -> tuple[Any, ...]:
        shape = shapes["dx"]
        return (np.broadcast_to(dy, shape) / prod(shape[axis] for axis in axes),)


class Extreme(Reduction):
    """Amax and Amin: equal elements share the gradient, so how many there are is a second output.

    No element equals NaN: where it is the extreme, all gradients are NaN.
    """

    outputs = ("y", "ties")
    hidden = ("ties",)
    saves = ("x", "y", "ties")
    same: ClassVar[str] = "x == y"

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (spec,) = super().infer(*inputs, **attrs)
        return (spec, Spec(spec.dtype.computes, spec.shape))

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        ties = {"ties": f"WHERE({cls.same}, (real)1, (real)0)"}
        kernels = super().kernels_forward(step, device)
        full = step.slots["x"].shape
        return kernels + reduce_kernels(step, device, "sum", ties, full, step.attrs["axes"])

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return [pointwise_kernel(step, device, {"dx": f"WHERE({cls.same}, (real)1, (real)0) * (dy / ties)"})]

    @staticmethod
    def backward(dy: Any, dties: Any, x: Any, y: Any, ties: Any, *, axes: tuple[int, ...]) -> tuple[Any, ...]:
        return ((x == y) * (dy / ties),)


class Amax(Extreme):
    signature = "(...)->(...)"
    kind = "max"

    @staticmethod
    def forward(x: Any, *, axes: tuple[int, ...]) -> Any:
        y = x.max(axis=axes, keepdims=True)
        return y, (x == y).sum(axis=axes, keepdims=True)


class Amin(Extreme):
    signature = "(...)->(...)"
    kind = "min"

    @staticmethod
    def forward(x: Any, *, axes: tuple[int, ...]) -> Any:
        y = x.min(axis=axes, keepdims=True)
        return y, (x == y).sum(axis=axes, keepdims=True)


class ExtremeOfAll(Extreme):
    """``max`` and ``min`` of a whole tensor: if NaN is the extreme, elements that are NaN share the gradient."""

    same = "x == y || (x != x && y != y)"

    @staticmethod
    def backward(dy: Any, dties: Any, x: Any, y: Any, ties: Any, *, axes: tuple[int, ...]) -> tuple[Any, ...]:
        return (((x == y) | ((x != x) & (y != y))) * (dy / ties),)


class MaxOfAll(ExtremeOfAll):
    signature = "(...)->(...)"
    kind = "max"

    @staticmethod
    def forward(x: Any, *, axes: tuple[int, ...]) -> Any:
        y = x.max(axis=axes, keepdims=True)
        return y, ((x == y) | ((x != x) & (y != y))).sum(axis=axes, keepdims=True)


class MinOfAll(ExtremeOfAll):
    signature = "(...)->(...)"
    kind = "min"

    @staticmethod
    def forward(x: Any, *, axes: tuple[int, ...]) -> Any:
        y = x.min(axis=axes, keepdims=True)
        return y, ((x == y) | ((x != x) & (y != y))).sum(axis=axes, keepdims=True)


TEMPLATE = "extreme.cl.jinja"


class ExtremeWithIndex(Op):
    """The extreme along the attribute ``axis``, and the index of its first occurrence, to which the gradient goes."""

    domain = {"x": (-4.0, 4.0)}
    kinds = "if"
    outputs = ("y", "index")
    differentiable = ("x",)
    saves = ("index",)
    kind: ClassVar[str] = "max"

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (spec,) = inputs
        assert spec is not None
        shape = shapes.reduced(spec.shape, (attrs["axis"],), keepdim=True)
        return Spec(spec.dtype, shape), Spec(int64, shape)

    @classmethod
    def _sizes(cls, step: Step, whole: str) -> dict[str, int]:
        """How many lines the array has, how long they are, and how far apart their elements lie."""
        shape, axis = step.slots[whole].shape, step.attrs["axis"]
        length, inner = (shape[axis], prod(shape[axis + 1 :])) if shape else (1, 1)
        return {"count": step.slots["index"].numel, "length": length, "inner": inner}

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        sizes, ctype = cls._sizes(step, "x"), step.slots["x"].dtype.ctype
        count, length = sizes["count"], sizes["length"]
        chunk = -(-length // parts_of(device, count, length))
        parts = -(-length // chunk)
        extent, group, walk = row_launch(device, count * parts, chunk, together=sizes["inner"] == 1)
        lanes = walk["lanes"]
        results = ("y", "index") if parts == 1 else ("values", "places")
        between = (Scratch("values", ctype, count * parts), Scratch("places", "int", count * parts))
        scratch = between if parts > 1 else ()
        constants = {"kind": cls.kind, "lanes": lanes, "y": results[0], "index": results[1]}
        shared = (LocalArray("values_of", ctype, (lanes,)), LocalArray("places_of", "int", (lanes,)))
        first = KernelSpec(
            "extreme", TEMPLATE, ("x", *results), extent, group, {**sizes, "parts": parts, "chunk": chunk},
            constants=constants, scratch=scratch, local=shared if lanes > 1 else (), grouped=lanes > 1,
        )  # fmt: skip
        if parts == 1:
            return [first]
        join = KernelSpec(
            "extreme_join", TEMPLATE, ("values", "places", "y", "index"), *grid(count, device.group()),
            {"count": count, "parts": parts}, constants={"kind": cls.kind}, scratch=scratch,
        )  # fmt: skip
        return [first, join]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        sizes = cls._sizes(step, "dx")
        sizes["count"] *= sizes["length"]
        launch = grid(sizes["count"], device.group())
        buffers = ("dy", "index", "dx")
        return [KernelSpec("extreme_backward", TEMPLATE, buffers, *launch, sizes, constants={"kind": cls.kind})]

    @staticmethod
    def backward(dy: Any, dindex: Any, index: Any, *, axis: int, shapes: dict[str, Shape]) -> tuple[Any, ...]:
        dx = np.zeros(shapes["dx"], dy.dtype)
        if dx.ndim == 0:
            return (dy,)
        np.put_along_axis(dx, index, dy, axis)
        return (dx,)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 7)) for _ in range(random.randint(1, 4)))
        return Sample((shape,), {"axis": random.randrange(len(shape))})


class MaxWithIndex(ExtremeWithIndex):
    signature = "(n)->(),()"
    kind = "max"

    @staticmethod
    def forward(x: Any, *, axis: int) -> Any:
        if x.ndim == 0:
            return x, np.zeros((), np.int32)
        index = np.expand_dims(x.argmax(axis=axis), axis)
        return np.take_along_axis(x, index, axis), index


class MinWithIndex(ExtremeWithIndex):
    signature = "(n)->(),()"
    kind = "min"

    @staticmethod
    def forward(x: Any, *, axis: int) -> Any:
        if x.ndim == 0:
            return x, np.zeros((), np.int32)
        index = np.expand_dims(x.argmin(axis=axis), axis)
        return np.take_along_axis(x, index, axis), index


class RootOfSquares(Elementwise):
    """The square root of a sum of squares: at 0, where the root's slope is infinite, the gradient is 0."""

    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    saves = ("y",)
    kernel_forward = {"y": "sqrt(x)"}
    kernel_backward = {"dx": "WHERE(y == 0, 0, dy / (2 * y))"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.sqrt(x)

    @staticmethod
    def backward(dy: Any, y: Any) -> Any:
        return (np.where(y == 0, 0, dy / (2 * y)),)


def _without(y: Tensor, shape: Shape, axes: Sequence[int], keepdim: bool) -> Tensor:
    """Drop the reduced axes, unless they are kept."""
    wanted = shapes.reduced(shape, axes, keepdim)
    return y if y.shape == wanted else functions["reshape"](y, wanted)


def _reduce(op: type[Op], input: Tensor, dim: Axes, keepdim: bool) -> Tensor:
    axes = shapes.normalize_axes(op.name, dim, input.ndim)
    return _without(call(op, input, axes=axes), input.shape, axes, keepdim)


def _nonempty(name: str, input: Tensor, axes: Sequence[int]) -> None:
    if input.ndim and builtins.any(input.shape[axis] == 0 for axis in axes):
        raise AxisError(name, "each reduced dim must have elements", f"got shape {input.shape} and dim={tuple(axes)}")


@public(method=True)
def sum(input: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim``, or over everything; bools and integers give int64.

    Long sums of floats keep their accuracy: they are sums of blocks, joined with compensation (NumPy adds in float64).

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim.

    >>> te.sum(te.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0).tolist()
    [4.0, 6.0]
    """
    if dtype is None:
        return _reduce(Sum, input, dim, keepdim)
    return _reduce(Sum, input.to(dtype), dim, keepdim).to(dtype)


@public(method=True)
def mean(input: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over ``dim``, or over everything; of nothing it is NaN.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim; DtypeError for integers: convert with .float().
    """
    if dtype is not None:
        input = input.to(dtype)
    if not input.is_floating_point():
        raise DtypeError("mean", "a floating-point tensor", f"got {input.dtype.name}", "Convert it with .float().")
    return _reduce(Mean, input, dim, keepdim)


def wide(input: Tensor) -> Tensor:
    """A tensor stored in 16 bits as float32, for what is composed of ops: its squares do not fit into 16 bits."""
    return input.to(input.dtype.computes)


@public(method=True)
def var(
    input: Tensor, dim: Axes | bool = None, unbiased: bool | None = None, keepdim: bool = False,
    *, correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The variance over ``dim``; the sum of squares is divided by ``n - correction`` (1 unless ``unbiased=False``).

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim; DtypeError for integers: convert with .float().
    """
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 0 if unbiased is False else 1
    axes = shapes.normalize_axes("var", dim, input.ndim)
    dtype, input = input.dtype, wide(input)
    count = prod(input.shape[axis] for axis in axes) if input.ndim else 1
    if (
        input.numel()
    ):  # distances from the first element: the mean of equal elements is then exact, and their variance 0
        origin = input.detach()
        for axis in axes if input.ndim else ():
            origin = functions["narrow"](origin, axis, 0, 1)
        input = input - origin
    centred = input - mean(input, axes or None, keepdim=True)
    total = sum(functions["square"](centred), axes or None, keepdim)
    left = builtins.max(count - correction, 0)
    return (total / float(left)).to(dtype)


@public(method=True)
def std(
    input: Tensor, dim: Axes | bool = None, unbiased: bool | None = None, keepdim: bool = False,
    *, correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The square root of ``var``; where it is 0, so is its gradient.

    ``unbiased`` and ``correction`` are those of ``var``.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim; DtypeError for integers: convert with .float().
    """
    return call(RootOfSquares, var(wide(input), dim, unbiased, keepdim, correction=correction)).to(input.dtype)


@public(method=True)
def amax(input: Tensor, dim: Axes = (), keepdim: bool = False) -> Tensor:
    """The largest over ``dim``; NaN wins; equal elements share the gradient.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim, or nothing in it.
    """
    return _extreme(Amax, input, dim, keepdim)


@public(method=True)
def amin(input: Tensor, dim: Axes = (), keepdim: bool = False) -> Tensor:
    """The smallest over ``dim``; NaN wins; equal elements share the gradient.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim, or nothing in it.
    """
    return _extreme(Amin, input, dim, keepdim)


def _extreme(op: type[Op], input: Tensor, dim: Axes, keepdim: bool) -> Tensor:
    axes = shapes.normalize_axes(op.name, dim, input.ndim)
    _nonempty(op.name, input, axes)
    if input.dtype is bool_:
        return _reduce(op, input.to(uint8), dim, keepdim).to(bool_)
    return _reduce(op, input, dim, keepdim)


class ValuesIndices(NamedTuple):
    """What ``max`` and ``min`` along a dim return."""

    values: Tensor
    indices: Tensor


def _with_index(op: type[Op], name: str, input: Tensor, dim: int, keepdim: bool) -> ValuesIndices:
    axis = shapes.normalize_axis(name, dim, input.ndim)
    _nonempty(name, input, (axis,))
    source = input.to(uint8) if input.dtype is bool_ else input
    values, indices = call_all(op, source, axis=axis)
    axes = (axis,)
    values, indices = (_without(t, input.shape, axes, keepdim) for t in (values, indices))
    return ValuesIndices(values.to(input.dtype), indices)


def _max_min(name: str, input: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = ("dim", "keepdim")
    if not isinstance(input, Tensor):
        raise DtypeError(name, "a tensor", f"got {type(input).__name__}", "Convert it with te.tensor.")
    if (args and isinstance(args[0], Tensor)) or isinstance(kwargs.get("other"), Tensor):
        return functions[name + "imum"](input, args[0] if args else kwargs["other"])
    given = dict(zip(names, args)) | kwargs
    if unknown := set(given) - set(names):
        raise ArgumentError(name, "arguments dim and keepdim, or other", f"got {sorted(unknown)}")
    if given.get("dim") is None:
        _nonempty(name, input, range(input.ndim))
        return _extreme(MaxOfAll if name == "max" else MinOfAll, input, None, False)
    op = MaxWithIndex if name == "max" else MinWithIndex
    return _with_index(op, name, input, given["dim"], given.get("keepdim", False))


@public(method=True)
def max(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """``max(input)``: the largest element; ``max(input, dim, keepdim=False)``: (values, indices); ``max(input,
    other)``: maximum.

    Along a dim the gradient goes to the first largest element; over everything, equal elements share it.

    Shapes: any; returns (), or without ``dim`` (its length is 1 with ``keepdim``), or what input and other broadcast
            to.
    Errors: AxisError if there is no such dim, or nothing in it.
    """
    return _max_min("max", input, args, kwargs)


@public(method=True)
def min(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """``min(input)``, ``min(input, dim, keepdim=False)`` or ``min(input, other)``, as ``max``.

    Shapes: as ``max``.
    Errors: as ``max``.
    """
    return _max_min("min", input, args, kwargs)


@public(method=True)
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first largest element along ``dim``, or in the flattened tensor; int64.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim, or nothing in it.

    >>> te.argmax(te.tensor([[1.0, 3.0], [5.0, 2.0]]), dim=1).tolist()
    [1, 0]
    """
    return _arg(MaxWithIndex, "argmax", input, dim, keepdim)


@public(method=True)
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first smallest element along ``dim``, or in the flattened tensor; int64.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim, or nothing in it.
    """
    return _arg(MinWithIndex, "argmin", input, dim, keepdim)


def _arg(op: type[Op], name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    if dim is not None:
        return _with_index(op, name, input.detach(), dim, keepdim).indices
    indices = _with_index(op, name, functions["reshape"](input.detach(), (-1,)), 0, False).indices
    return functions["reshape"](indices, (1,) * input.ndim) if keepdim else indices


@public(method=True)
def any(input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """Whether any element is nonzero.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim.
    """
    return _of_bytes(input, _reduce(Sum, functions["ne"](input, 0), dim, keepdim) > 0)


def _of_bytes(input: Tensor, found: Tensor) -> Tensor:
    """Truth values are of uint8 where the input is, from before there were bools."""
    return found.to(input.dtype) if input.dtype is dtypes.uint8 else found


@public(method=True)
def all(input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """Whether every element is nonzero.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim.
    """
    return _of_bytes(input, functions["eq"](_reduce(Sum, functions["eq"](input, 0), dim, keepdim), 0))


@public(method=True, space="special")
def logsumexp(input: Tensor, dim: Axes, keepdim: bool = False) -> Tensor:
    """``log(sum(exp(input)))`` over ``dim``, without overflow; of nothing it is -inf.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim.
    """
    axes = shapes.normalize_axes("logsumexp", dim, input.ndim)
    input = input if dtypes.category(input.dtype) == 2 else input.float()
    if not input.numel():
        return cast("Tensor", functions["log"](sum(functions["exp"](input), axes or None, keepdim)))
    top = _extreme(Amax, input.detach(), axes or None, True)
    top = functions["where"](functions["eq"](functions["abs"](top), float("inf")), 0.0, top)
    total = sum(functions["exp"](input - top), axes or None, True)
    return _without(functions["log"](total) + top, input.shape, axes, keepdim)


Sum.errors = (
    ErrorSample(lambda te: te.zeros(2, 3).sum(2), AxisError, "dim must be in [-2, 1]"),
    ErrorSample(lambda te: te.zeros(2, 3).sum((0, 0)), ArgumentError, "once"),
)
Mean.errors = (ErrorSample(lambda te: te.mean(te.tensor([1, 2])), DtypeError, "Convert it with .float()"),)
Amax.errors = (ErrorSample(lambda te: te.zeros(0, 3).amax(0), AxisError, "must have elements"),)
