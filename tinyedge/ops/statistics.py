"""Reductions that are composed of others: norms, counts, products, moments in pairs, median."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import resolve
from tinyedge.errors import ArgumentError, AxisError, DtypeError
from tinyedge.ops.movement import flatten, narrow, reshape, select
from tinyedge.ops.reduce import Axes, RootOfSquares, ValuesIndices, amax, amin, std, var, wide
from tinyedge.ops.reduce import any as any_of
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.scan import cumprod, sort
from tinyedge.ops.selection import where
from tinyedge.tensor import Tensor, call


@public(method=True)
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over ``dim``, or over everything; bools and integers give int64. Its gradient is right at zeros.

    Shapes: any; returns it without ``dim`` (with ``keepdim`` its length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim.
    """
    if dtype is not None:
        input = input.to(dtype)
    wanted = resolve("int64" if dtype is None and not input.is_floating_point() else dtype or input.dtype, "prod")
    if dim is None:
        if keepdim:
            raise ArgumentError("prod", "a dim with keepdim", "got none")
        return prod(flatten(input), 0, dtype=wanted)
    axis = shapes.normalize_axis("prod", dim, input.ndim)
    if not input.ndim:
        return prod(reshape(input, (1,)), 0, dtype=wanted)
    left = shapes.reduced(input.shape, (axis,), keepdim)
    if not input.shape[axis]:
        return cast("Tensor", functions["ones"](left, dtype=wanted, device=input.backend))
    last = narrow(cumprod(input, axis), axis, input.shape[axis] - 1, 1)
    return reshape(last, left).to(wanted)


@public(method=True)
def count_nonzero(input: Tensor, dim: Axes = None) -> Tensor:
    """How many elements are not 0; int64.

    Shapes: any; returns it without the dims ``dim``, () without ``dim``.
    Errors: AxisError if there is no such dim.
    """
    return total(functions["ne"](input, 0), dim)


@public
def var_mean(
    input: Tensor,
    dim: Axes | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``var`` and ``mean`` over ``dim``.

    ``unbiased`` and ``correction`` are those of ``var``.

    Shapes: any; returns two of it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: as ``var``.
    """
    over = None if isinstance(dim, bool) else dim
    spread = var(input, dim, unbiased, keepdim, correction=correction)
    return spread, functions["mean"](input, over, keepdim)


@public
def std_mean(
    input: Tensor,
    dim: Axes | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``std`` and ``mean`` over ``dim``.

    ``unbiased`` and ``correction`` are those of ``var``.

    Shapes: any; returns two of it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: as ``std``.
    """
    over = None if isinstance(dim, bool) else dim
    spread = std(input, dim, unbiased, keepdim, correction=correction)
    return spread, functions["mean"](input, over, keepdim)


class Extremes(NamedTuple):
    """What ``aminmax`` returns."""

    min: Tensor
    max: Tensor


@public(method=True)
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Extremes:
    """(min, max) over ``dim``, or over everything; equal elements share the gradient.

    Shapes: any; returns two of it without ``dim`` (with ``keepdim`` its length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim, or nothing in it.
    """
    if dim is None and not input.numel():
        raise AxisError("aminmax", "a tensor that has elements", f"got shape {input.shape}", "Give a dim.")
    over: Axes = () if dim is None else dim
    return Extremes(amin(input, over, keepdim), amax(input, over, keepdim))


@public(method=True)
def nansum(input: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum with 0 in the place of NaN.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim.
    """
    if input.is_floating_point():
        input = where(functions["ne"](input, input), 0.0, input)
    return total(input, dim, keepdim, dtype=dtype)


@public(method=True)
def nanmean(input: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean of the elements that are not NaN.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim; DtypeError for integers: convert with .float().
    """
    if not input.is_floating_point():
        raise DtypeError("nanmean", "a floating-point tensor", f"got {input.dtype.name}", "Convert it with .float().")
    count = total(functions["eq"](input, input), dim, keepdim)
    return nansum(input, dim, keepdim, dtype=dtype) / count.to(input.dtype)


@public(method=True)
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower of the middle elements; NaN if one is. Along ``dim``: (values, indices).

    Over everything, equal elements share the gradient.

    Shapes: any; returns (), or two of it without ``dim`` (with ``keepdim`` its length is 1).
    Errors: AxisError if there is no such dim, or nothing in it.
    """
    if dim is None:
        if not input.numel():
            return functions["full"]((), math.nan, dtype=input.dtype, device=input.backend)
        return shared(_median(flatten(input.detach()), 0, False).values, input)
    axis = shapes.normalize_axis("median", dim, input.ndim)
    if not input.ndim:
        return sort(input)
    if not input.shape[axis]:
        raise AxisError("median", f"elements in dim {dim}", f"got shape {input.shape}")
    return _median(input, axis, keepdim)


def shared(value: Tensor, input: Tensor) -> Tensor:
    """``value``, an element of ``input``; elements that equal it share the gradient."""
    if not input.requires_grad:
        return value
    same = where(functions["eq"](value, value), functions["eq"](input, value), functions["ne"](input, input))
    return cast("Tensor", functions["max"](where(same, input, -math.inf)))


def _median(input: Tensor, axis: int, keepdim: bool) -> ValuesIndices:
    values, indices = sort(input, axis)
    size = input.shape[axis]
    middle = [narrow(found, axis, (size - 1) // 2, 1) for found in (values, indices)]
    if input.is_floating_point():  # the first NaN, if there is one, stands after all numbers
        isnan = functions["ne"](input.detach(), input.detach())
        any_nan = any_of(isnan, axis, True)
        first = functions["argmax"](isnan.to(input.dtype), axis, True)
        place = where(any_nan, first, middle[1])
        middle = [functions["gather"](input, axis, place), place]
    return ValuesIndices(*(found if keepdim else select(found, axis, 0) for found in middle))


@public(top=False, space="linalg")
def vector_norm(x: Tensor, ord: float = 2, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """``sum(abs(x) ** ord) ** (1 / ord)`` over ``dim``; inf and -inf give the extremes, 0 counts what is not 0.

    Where the norm is 0, so is its gradient.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: AxisError if there is no such dim; DtypeError for integers: convert with .float().
    """
    return _norm("vector_norm", x, ord, dim, keepdim, dtype)


def _norm(name: str, x: Tensor, ord: float, dim: Axes, keepdim: bool, dtype: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise DtypeError(name, "a tensor", f"got {type(x).__name__}", "Convert it with te.tensor.")
    if dtype is not None:
        x = x.to(dtype)
    if not x.is_floating_point():
        raise DtypeError(name, "a floating-point tensor", f"got {x.dtype.name}", "Convert it with .float().")
    if x.dtype is not x.dtype.computes:
        return _norm(name, wide(x), ord, dim, keepdim, None).to(x.dtype)
    is_single = all(x.shape[axis] == 1 for axis in shapes.normalize_axes(name, dim, x.ndim))
    if ord == 2 and not is_single:
        return call(RootOfSquares, total(functions["square"](x), dim, keepdim))
    size = functions["abs"](x)
    if ord == math.inf or ord == -math.inf:
        if not x.numel() and ord > 0 and dim is None:
            raise AxisError(name, "elements for an infinite norm", f"got shape {x.shape}")
        over: Axes = () if dim is None else dim
        return amax(size, over, keepdim) if ord > 0 else amin(size, over, keepdim)
    if ord == 0:  # the gradient is 0, as of sign
        return total(where(functions["eq"](x, 0), functions["sign"](x), 1.0), dim, keepdim)
    if ord == 1 or is_single:
        return total(size, dim, keepdim)  # also of one element, whose power may overflow
    none = 0.0 if ord > 0 else math.inf  # the power of a 0
    if ord < 1:  # the slope at 0 is infinite: PyTorch's is 0
        zero = functions["eq"](size, 0)
        powers = where(zero, none, functions["pow"](where(zero, 1.0, size), ord))
    else:
        powers = functions["pow"](size, ord)
    summed = total(powers, dim, keepdim)
    zero = functions["eq"](summed, none)
    return where(zero, 0.0, functions["pow"](where(zero, 1.0, summed), 1 / ord))


@public(method=True)
def norm(
    input: Tensor, p: float | str | None = "fro", dim: Axes = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """The vector norm over ``dim``; "fro" is that of order 2, "nuc" that of a matrix, ``linalg.matrix_norm``.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: ArgumentError for another name; else as ``linalg.vector_norm``.
    """
    if p is None or p == "fro":
        p = 2
    if p == "nuc":
        return cast(
            "Tensor", functions["matrix_norm"](input, p, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
        )
    if isinstance(p, str):
        raise ArgumentError("norm", 'a number, "fro" or "nuc"', f"got {p!r}")
    return _norm("norm", input, p, dim, keepdim, dtype)


# Whether tensors agree
