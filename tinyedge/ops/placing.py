"""Elements combined with others where an index says, and parts put into a copy: scatter_reduce, put, select_scatter."""

from __future__ import annotations

import math
from random import Random
from typing import Any, cast

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.recorder import recorder
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import bool_, category, int64
from tinyedge.errors import ArgumentError, AxisError, DtypeError, ShapeError
from tinyedge.ir.step import ErrorSample, Sample
from tinyedge.ops.brackets import setitem
from tinyedge.ops.indexing import Gather
from tinyedge.ops.indices import check_range, wrapped
from tinyedge.ops.movement import expand, reshape
from tinyedge.ops.promotion import require_tensors
from tinyedge.ops.scan import cumsum
from tinyedge.ops.scatter import Placing, placed, scatter, scatter_add
from tinyedge.ops.selection import clamp, where
from tinyedge.ops.with_gradient import with_gradient
from tinyedge.tensor import Number, Tensor, full, tensor

REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


class ScatterReduce(Placing):
    """Elements of ``source`` multiplied into those of ``x``, or compared with them, as the attribute ``combine`` says.

    Its gradient is composed of other ops.
    """

    signature = "(...),(...),(...)->(...)"
    differentiable = ()
    domain = {"x": (0.5, 1.5), "source": (0.5, 1.5)}
    errors = (
        ErrorSample(
            lambda te: te.scatter_reduce(te.zeros(2), 0, te.tensor([1]), te.zeros(1), "max"), ArgumentError, "amax"
        ),
    )

    @staticmethod
    def forward(x: Any, index: Any, source: Any, *, dim: int, caller: str, combine: str) -> Any:
        check_range(caller, index, x.shape[dim])
        y = x.copy()
        ufunc: Any = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}[combine]
        ufunc.at(y, Gather.places(index, dim), source)
        return y

    @classmethod
    def sample(cls, random: Random) -> Sample:
        sample = super().sample(random)
        return Sample(sample.shapes, {**sample.attrs, "combine": random.choice(REDUCTIONS[1::2])}, sample.integers)

    @classmethod
    def drawn_length(cls, random: Random) -> int:
        return random.choice((1, 4, 9))


def _reduce(name: str, input: Tensor, dim: int, index: Tensor, src: Tensor, combine: str, include_self: bool) -> Tensor:
    require_tensors(name, input, index, src)
    if combine not in REDUCTIONS:
        raise ArgumentError(name, f"reduce must be one of {', '.join(REDUCTIONS)}", f"got {combine!r}")
    dtype = input.dtype
    if not include_self:
        limits = (0, 1) if dtype is bool_ else dtype.limits or (-math.inf, math.inf)
        neutral = {"sum": 0, "mean": 0, "prod": 1, "amax": limits[0], "amin": limits[1]}[combine]
        start = full(src.shape, neutral, dtype=dtype, device=input.backend)
        input = scatter(input, dim, index, start if src.dtype is dtype else src)
    if combine == "sum":
        return scatter_add(input, dim, index, src)
    if combine == "mean":
        count = full(input.shape, 1, dtype=dtype, device=input.backend)
        ones = full(src.shape, 1, dtype=dtype, device=input.backend)
        if not include_self:
            count = scatter(count, dim, index, ones * 0)
        count = clamp(scatter_add(count, dim, index, ones), min=1)
        summed = scatter_add(input, dim, index, src)
        result = summed / count if dtype.is_floating_point else functions["floor_divide"](summed, count)
        return cast("Tensor", result)
    plain_x, plain_src = input.detach(), src.detach()
    value = placed(name, ScatterReduce, plain_x, dim, index, plain_src, combine=combine)
    if not (input.requires_grad or src.requires_grad) or not index.numel():
        return value if index.numel() else input.clone()
    slopes = _slopes_of_product if combine == "prod" else _slopes_of_extreme
    of_x, of_src = slopes(plain_x, dim, index, plain_src, value)
    tangent = scatter_add(input * of_x, dim, index, src * of_src)
    return with_gradient(value, tangent, f"{name} of products" if combine == "prod" else "through")


def _picked(y: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """For each element of ``src``, what stands in ``y`` where it went; the part of src outside the index is ones."""
    found: Tensor = functions["gather"](y, dim, index)
    if found.shape == src.shape:
        return found
    whole = full(src.shape, 1, dtype=y.dtype, device=y.backend)
    whole[tuple(slice(0, size) for size in found.shape)] = found
    return whole


def _slopes_of_product(x: Tensor, dim: int, index: Tensor, src: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    def product(a: Tensor, b: Tensor) -> Tensor:
        return placed("scatter_reduce", ScatterReduce, a, dim, index, b, combine="prod")

    zero_x, zero_src = x == 0, src == 0
    full_x = where(zero_x, 1.0, x)
    of_x = product(full_x, src) / full_x
    zeros = scatter_add(zero_x.to(x.dtype) * 0, dim, index, zero_src.to(x.dtype))
    alone = functions["logical_and"](zero_src, _picked(zeros, dim, index, src) == 1)
    without = product(x, where(alone, 1.0, src))
    of_src = where(alone, _picked(without, dim, index, src), _picked(y, dim, index, src) / where(zero_src, 1.0, src))
    return of_x, of_src


def _slopes_of_extreme(x: Tensor, dim: int, index: Tensor, src: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    at_x = (x == y).to(x.dtype)
    at_src = (src == _picked(y, dim, index, src)).to(x.dtype)
    count = clamp(scatter_add(at_x, dim, index, at_src), min=1)
    return at_x / count, at_src / _picked(count, dim, index, src)


@public(method=True, inplace=True)
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """``input`` with the elements of ``src`` added ("sum"), multiplied ("prod"), averaged ("mean") or compared ("amax",
    "amin") with what stands at each one's own place in ``index``, but at ``index`` along ``dim``.

    Without ``include_self``, what stands there does not count. Equal extremes share the gradient.

    Shapes: as ``scatter``.
    Saves:  index, and factors of the gradients.
    Errors: ArgumentError for another reduce; else as ``scatter``.
    """
    return _reduce("scatter_reduce", input, dim, index, src, reduce, include_self)


@public(method=True, inplace=True)
def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """As ``scatter_reduce``, with entry k of ``source`` along ``dim`` for entry ``index[k]``; not for "sum".

    Without ``include_self`` the elements of ``input`` that are written do not count.

    Shapes: index (n,) int64 or int32; source has input's shape with n in place of ``dim``; returns input's shape.
    Errors: as ``scatter_reduce``.
    """
    name = "index_reduce"
    if reduce == "sum" or reduce not in REDUCTIONS:
        raise ArgumentError(name, "reduce must be one of prod, mean, amax, amin", f"got {reduce!r}")
    axis = shapes.normalize_axis(name, dim, input.ndim)
    if index.ndim > 1:
        raise ShapeError(name, "a 1-d index", f"it is {index.shape}")
    if not input.ndim:
        x, source = reshape(input, (1,)), reshape(source, (1,))
        return reshape(index_reduce(x, 0, index, source, reduce, include_self=include_self), ())
    if source.ndim == 0 and input.ndim == 1:
        source = reshape(source, (1,))
    wanted = (*input.shape[:axis], index.numel(), *input.shape[axis + 1 :])
    if source.shape != wanted:
        raise ShapeError(name, f"a source of shape {wanted}", f"it is {source.shape}")
    column = reshape(index, (*(1,) * axis, index.numel(), *(1,) * (input.ndim - axis - 1)))
    return _reduce(name, input, axis, expand(column, wanted), source, reduce, include_self)


@public(method=True, inplace=True)
def index_fill(input: Tensor, dim: int, index: Tensor, value: Number | Tensor) -> Tensor:
    """``input`` with ``value``, a number or a 0-d tensor, in the entries along ``dim`` that ``index`` names.

    Shapes: index (n,) int64 or int32; returns input's shape.
    Saves:  index.
    Errors: as ``index_copy``; ShapeError if ``value`` has dims.
    """
    require_tensors("index_fill", input, index)
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError("index_fill", "a number or a 0-d tensor as value", f"it has shape {value.shape}")
    axis = shapes.normalize_axis("index_fill", dim, input.ndim)
    index = reshape(index, (1,)) if not index.ndim else index
    if index.ndim > 1:
        raise ShapeError("index_fill", "a 1-d index", f"it is {index.shape}")
    size = input.shape[axis] if input.ndim else 1
    index = wrapped("index_fill", index, size)
    # By a mask, in which an entry that is named twice is there once, and so is its part of the value's gradient.
    line = (*(1,) * axis, size, *(1,) * max(input.ndim - axis - 1, 0))
    mask, marks = (full(shape, flag, device=input.backend) for shape, flag in (((size,), False), (index.shape, True)))
    mask = reshape(functions["index_copy"](mask, 0, index, marks), line if input.ndim else ())
    if isinstance(value, Tensor) and category(value.dtype) > category(input.dtype):
        raise DtypeError(
            "index_fill", f"a value for {input.dtype.name}", f"got {value.dtype.name}", "Convert it with .to(dtype)."
        )
    return cast("Tensor", functions["masked_fill"](input, mask, value))


def _flat(name: str, input: Tensor, index: Tensor) -> Tensor:
    """An index into the flat input, in one dim and counted from the start."""
    require_tensors(name, input, index)
    if index.dtype is not int64:
        raise DtypeError(name, "an int64 index", f"got {index.dtype.name}", "Convert it with .long().")
    return reshape(wrapped(name, index, input.numel()), (index.numel(),))


@public(method=True)
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements of the flat input that ``index`` names; negative ones count from the end.

    Shapes: any; returns index's shape.
    Saves:  index.
    Errors: IndexRangeError if an index is outside [-n, n); DtypeError unless index is int64.
    """
    places = _flat("take", input, index)
    flat = reshape(input, (input.numel(),))
    return reshape(functions["index_select"](flat, 0, places), index.shape)


@public(method=True, inplace=True)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """``input`` with the elements of ``source`` where ``index`` says in the flat input; with ``accumulate``, added.

    Shapes: index and source of as many elements; returns input's shape.
    Saves:  index.
    Errors: as ``take``; ShapeError unless there are as many elements; DtypeError unless source has input's dtype.
    """
    places = _flat("put", input, index)
    if index.numel() != source.numel():
        raise ShapeError("put", f"a source of {index.numel()} elements", f"got {source.numel()}")
    if source.dtype is not input.dtype:
        raise DtypeError(
            "put", f"a source of {input.dtype.name}", f"got {source.dtype.name}", "Convert it with .to(dtype)."
        )
    flat = reshape(input, (input.numel(),))
    own = reshape(source, (source.numel(),))
    return reshape((scatter_add if accumulate else scatter)(flat, 0, places, own), input.shape)


@public(method=True, inplace=True)
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """``input`` with the elements of ``source``, in order, where ``mask`` is true.

    Shapes: input and mask broadcast; returns what they broadcast to. source has at least as many elements as are true.
    Errors: DtypeError unless mask is bool and source has input's dtype; ShapeError if source has too few elements, for
            which te.compile does not look: there the result is NaN, 0 of integers.
    """
    require_tensors("masked_scatter", input, mask, source)
    if mask.dtype is not bool_:
        raise DtypeError("masked_scatter", "a bool mask", f"got {mask.dtype.name}", "Compare first, e.g. x > 0.")
    if source.dtype is not input.dtype:
        raise DtypeError(
            "masked_scatter",
            f"a source of {input.dtype.name}",
            f"got {source.dtype.name}",
            "Convert it with .to(dtype).",
        )
    shape = shapes.broadcast("masked_scatter", input.shape, mask.shape)
    x, chosen = expand(input, shape), expand(mask, shape)
    if not x.numel():
        return x.clone()
    flat = reshape(chosen, (x.numel(),))
    order = cumsum(flat, 0) - 1
    if recorder() is None:
        wanted = int(order.numpy()[-1]) + 1
        if wanted > source.numel():
            raise ShapeError("masked_scatter", f"a source of at least {wanted} elements", f"got {source.numel()}")
        if not wanted:
            return x.clone()
    given = reshape(source, (source.numel(),))
    taken = functions["index_select"](given, 0, where(flat, order, 0))
    return where(chosen, reshape(taken, shape), x)


# Parts put into a copy


def _with_part(input: Tensor, index: Any, src: Tensor) -> Tensor:
    result = input.clone() if input.requires_grad or src.requires_grad else input.detach().clone()
    setitem(result, index, src)
    return result


def _part_of(name: str, input: Tensor, dim: int, src: Tensor) -> int:
    require_tensors(name, input, src)
    if not input.ndim:
        raise AxisError(name, "a tensor of at least one dim", "got a 0-d tensor")
    return shapes.normalize_axis(name, dim, input.ndim)


def _like_part(name: str, src: Tensor, wanted: tuple[int, ...]) -> None:
    if src.shape != wanted:
        raise ShapeError(name, f"a src of shape {wanted}", f"got {src.shape}")


@public(method=True)
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """``input`` with ``src`` in the place of ``select(input, dim, index)``.

    Shapes: src has input's shape without ``dim``; returns input's shape.
    Errors: ShapeError for another src; IndexRangeError if there is no such element; AxisError if there is no such dim.
    """
    axis = _part_of("select_scatter", input, dim, src)
    _like_part("select_scatter", src, functions["select"](input.detach(), axis, index).shape)
    return _with_part(input, (*(slice(None),) * axis, index), src)


@public(method=True)
def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """``input`` with ``src`` in the place of the elements from ``start`` to ``end`` along ``dim``, ``step`` apart.

    Shapes: src has the shape of that part; returns input's shape.
    Errors: ShapeError for another src; AxisError if there is no such dim; ArgumentError unless step is positive.
    """
    axis = _part_of("slice_scatter", input, dim, src)
    if step < 1:
        raise ArgumentError("slice_scatter", "step must be positive", f"got {step}")
    length = len(range(*slice(start, end, step).indices(input.shape[axis])))
    _like_part("slice_scatter", src, (*input.shape[:axis], length, *input.shape[axis + 1 :]))
    return _with_part(input, (*(slice(None),) * axis, slice(start, end, step)), src)


@public(method=True)
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """``input`` with ``src`` in the place of its ``diagonal``.

    Shapes: src has the shape of ``diagonal(input, offset, dim1, dim2)``; returns input's shape.
    Errors: ShapeError for another src; else as ``diagonal``.
    """
    require_tensors("diagonal_scatter", input, src)
    places = np.arange(input.numel()).reshape(input.shape)
    part = functions["diagonal"](input.detach(), offset, dim1, dim2)
    _like_part("diagonal_scatter", src, part.shape)
    where_to = np.diagonal(places, offset, dim1, dim2).reshape(-1)
    index = tensor(where_to, dtype=int64, device=input.backend)
    return put(input, index, src.to(input.dtype)) if src.numel() else input.clone()
