"""What is chosen by rank or by how often it occurs: quantiles, the median without NaN, the mode."""

from __future__ import annotations

from typing import Any, cast

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import int64
from tinyedge.errors import ArgumentError, AxisError, DtypeError, ShapeError
from tinyedge.ops.creation import arange
from tinyedge.ops.movement import cat, flatten, narrow, permute, reshape, select
from tinyedge.ops.promotion import require_tensors
from tinyedge.ops.reduce import ValuesIndices, argmax
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.running import cummax
from tinyedge.ops.scan import sort
from tinyedge.ops.selection import clamp, where
from tinyedge.ops.statistics import shared
from tinyedge.tensor import Tensor, tensor

INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    return cast("Tensor", functions["gather"](x, dim, index))


def _quantile(
    name: str, input: Tensor, q: float | Tensor, dim: int | None, keepdim: bool, interpolation: str, skips_nan: bool
) -> Tensor:
    require_tensors(name, input)
    if not input.is_floating_point():
        raise DtypeError(name, "a floating-point tensor", f"got {input.dtype.name}", "Convert it with .float().")
    if not input.numel():
        raise ShapeError(name, "a tensor that has elements", f"got shape {input.shape}")
    if interpolation not in INTERPOLATIONS:
        raise ArgumentError(name, f"interpolation must be one of {', '.join(INTERPOLATIONS)}", f"got {interpolation!r}")
    if isinstance(q, Tensor):
        if q.ndim > 1:
            raise ShapeError(name, "q must be a number or a vector", f"got shape {q.shape}")
        if q.dtype is not input.dtype:
            raise DtypeError(
                name,
                "q must have the input's dtype",
                f"got {q.dtype.name} and {input.dtype.name}",
                "Convert it with .to(dtype).",
            )
        if q.backend is not input.backend:
            raise ArgumentError(name, "q must be on the input's device", f"got {q.device} and {input.device}")
        parts = reshape(q, (-1,))
    else:
        if not 0 <= q <= 1:
            raise ArgumentError(name, "q must be in [0, 1]", f"got {q}")
        parts = tensor([float(q)], dtype=input.dtype, device=input.backend)
    axis = None if dim is None else shapes.normalize_axis(name, dim, input.ndim)
    x = flatten(input) if axis is None or not input.ndim else input
    # The dim of ranks comes last, as that of q does afterwards.
    last = 0 if axis is None or not input.ndim else axis
    order = [k for k in range(x.ndim) if k != last] + [last]
    rows = permute(x, order)
    size = rows.shape[-1]
    values = sort(rows).values
    isnan = functions["ne"](rows.detach(), rows.detach())
    if skips_nan:
        count = size - total(isnan, -1, True)
        rank = parts * clamp(count - 1, min=0).to(x.dtype)
    else:
        rank = functions["expand"](parts * (size - 1), (*rows.shape[:-1], parts.numel()))
        rank = where(total(isnan, -1, True) > 0, float(size - 1), rank)  # NaN stands last
    if interpolation == "lower":
        rank = functions["floor"](rank)
    elif interpolation == "higher":
        rank = functions["ceil"](rank)
    elif interpolation == "nearest":
        rank = functions["round"](rank)
    below = rank.detach().to(int64)
    picked = _gather(values, -1, below)
    if interpolation in ("linear", "midpoint"):
        above = _gather(values, -1, functions["ceil"](rank.detach()).to(int64))
        weight = rank - below.to(x.dtype) if interpolation == "linear" else tensor(0.5, device=x.backend).to(x.dtype)
        picked = functions["lerp"](picked, above, weight)
    picked = permute(picked, [picked.ndim - 1, *range(picked.ndim - 1)])  # q comes first
    if keepdim:
        kept = (1,) * input.ndim if axis is None else (*input.shape[:axis], 1, *input.shape[axis + 1 :])
        picked = reshape(picked, (picked.shape[0], *(kept if input.ndim else ())))
    elif not input.ndim or axis is None:
        picked = reshape(picked, (picked.shape[0],))
    return picked if isinstance(q, Tensor) and q.ndim else select(picked, 0, 0)


@public(method=True)
def quantile(
    input: Tensor, q: float | Tensor, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The values below which the shares ``q`` of the elements along ``dim`` lie; NaN if one element is.

    Between two elements, ``interpolation`` "linear", "lower", "higher", "midpoint" or "nearest" decides.

    Shapes: any; returns it without ``dim`` (with ``keepdim`` its length is 1), () without ``dim``; of a q (k,), k of
            these in front.
    Errors: ArgumentError for a number q outside [0, 1]; those of a tensor are not looked at. ShapeError for nothing.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@public(method=True)
def nanquantile(
    input: Tensor, q: float | Tensor, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """As ``quantile``, of the elements that are not NaN.

    Shapes: as ``quantile``.
    Errors: as ``quantile``.
    """
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


@public(method=True)
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower of the middle elements of those that are not NaN. Along ``dim``: (values, indices).

    Over everything, equal elements share the gradient.

    Shapes: any; returns (), or two of it without ``dim`` (with ``keepdim`` its length is 1).
    Errors: AxisError if there is no such dim, or nothing in it.
    """
    require_tensors("nanmedian", input)
    if not input.is_floating_point():
        return functions["median"](input) if dim is None else functions["median"](input, dim, keepdim)
    if dim is None:
        if not input.numel():
            return functions["median"](input)
        return shared(nanmedian(flatten(input.detach()), 0).values, input)
    axis = shapes.normalize_axis("nanmedian", dim, input.ndim)
    if not input.ndim:
        return sort(input)
    if not input.shape[axis]:
        raise AxisError("nanmedian", f"elements in dim {dim}", f"got shape {input.shape}")
    values, indices = sort(input, axis)
    there = functions["eq"](input.detach(), input.detach())
    middle = clamp(total(there, axis, True) - 1, min=0) // 2
    found = ValuesIndices(_gather(values, axis, middle), _gather(indices, axis, middle))
    return found if keepdim else ValuesIndices(*(select(part, axis, 0) for part in found))


@public(method=True)
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """(values, indices) of what occurs most often along ``dim``: of several the smallest, and of its places the last.

    Shapes: any; returns two of it without ``dim`` (with ``keepdim`` its length is 1), the indices int64.
    Errors: AxisError if there is no such dim, or nothing in it.
    """
    require_tensors("mode", input)
    axis = shapes.normalize_axis("mode", dim, input.ndim)
    if not input.ndim:
        return sort(input)
    size = input.shape[axis]
    if not size:
        raise AxisError("mode", f"elements in dim {dim}", f"got shape {input.shape}")
    values, indices = sort(input, axis)
    plain = values.detach()
    is_start = functions["ne"](narrow(plain, axis, 1, size - 1), narrow(plain, axis, 0, size - 1))
    first = functions["ones"](*narrow(plain, axis, 0, 1).shape, dtype="bool", device=input.backend)
    is_start = cat([first, is_start], axis)
    places = reshape(arange(size, device=input.backend), (size, *(1,) * (input.ndim - 1 - axis)))
    started = cummax(where(is_start, places, 0), axis).values
    longest = argmax(places - started, axis, True)  # the end of the first run of the greatest length
    found = ValuesIndices(_gather(values, axis, longest), _gather(indices, axis, longest))
    return found if keepdim else ValuesIndices(*(select(part, axis, 0) for part in found))


@public(method=True)
def msort(input: Tensor) -> Tensor:
    """``sort(input, 0).values``.

    Shapes: any; returns the same.
    """
    require_tensors("msort", input)
    return sort(input, 0).values
