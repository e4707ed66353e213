"""Where values stand among others: searchsorted, bucketize, isin, histc; unique and bincount, which the host counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import bool_, float64, int32, int64, promote, uint8
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.movement import reshape
from tinyedge.ops.promotion import require_tensors
from tinyedge.ops.scan import sort
from tinyedge.ops.scatter import scatter_add
from tinyedge.ops.selection import where
from tinyedge.tensor import Number, Tensor, as_tensor, call, tensor


class Search(Op):
    """Where each value would stand in its sorted row, or with the attribute ``own_row`` false, in the only one."""

    signature = "(...,n),(...,k)->(...,k)"
    kinds = "if"
    operations = 8
    domain = {"row": (-4.0, 4.0), "value": (-4.0, 4.0)}
    errors = (
        ErrorSample(lambda te: te.searchsorted(te.zeros(2, 3), te.zeros(3, 3)), ShapeError, "all dims but the last"),
        ErrorSample(lambda te: te.bucketize(te.zeros(2), te.zeros(2, 3)), ShapeError, "one dim"),
        ErrorSample(
            lambda te: te.searchsorted(te.zeros(2), te.zeros(2), right=True, side="left"), ArgumentError, "not"
        ),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        _, value = inputs
        assert value is not None
        return (Spec(int64, value.shape),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        row, value = step.slots["row"], step.slots["value"]
        sizes = {"count": value.numel, "length": row.shape[-1]}
        if step.attrs["own_row"]:
            sizes["values"] = value.shape[-1]
        return [
            KernelSpec(
                "search", "search.cl.jinja", ("row", "value", "y"), *grid(value.numel, device.group()), sizes,
                constants={**step.attrs, "element": value.dtype.ctype}, hooked=("value", "y"),
            )
        ]  # fmt: skip

    @staticmethod
    def forward(row: Any, value: Any, *, own_row: bool, right: bool) -> Any:
        # By bisection as in the kernel: np.searchsorted finds other places in rows that are not sorted.
        shape, value = value.shape, np.atleast_1d(value)
        row = row if own_row else np.broadcast_to(row.reshape(-1), (*value.shape[:-1], row.size))
        low, high = np.zeros(value.shape, np.int64), np.full(value.shape, row.shape[-1])
        while (low < high).any():
            middle = (low + high) // 2
            other = np.take_along_axis(row, np.minimum(middle, row.shape[-1] - 1), -1)
            a, b = (value, other) if right else (other, value)
            is_before = (a < b) | ((b != b) & (a == a))
            goes_up = (low < high) & (is_before != right)
            low, high = np.where(goes_up, middle + 1, low), np.where((low < high) & ~goes_up, middle, high)
        return low.reshape(shape)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        own = random.random() < 0.5
        lead = tuple(random.choice((1, 2, 3)) for _ in range(random.randint(0, 2)))
        row = (random.choice((1, 2, 17)),)
        values = () if not own and random.random() < 0.2 else (*lead, random.choice((1, 3, 9)))
        return Sample(((*lead, *row) if own else row, values), {"own_row": own, "right": random.random() < 0.5})


def _search(rows: Tensor, values: Tensor, out_int32: bool, right: bool) -> Tensor:
    rows, values = rows.detach(), values.detach()
    dtype = promote(rows.dtype, values.dtype)
    if dtype is bool_:
        dtype = uint8
    if not values.numel() or not rows.numel():
        result: Tensor = functions["zeros"](values.shape, dtype=int64, device=values.backend)
    else:
        own_row = rows.ndim > 1
        result = call(
            Search, rows.to(dtype).contiguous(), values.to(dtype).contiguous(), own_row=own_row, right=bool(right)
        )
    return result.to(int32) if out_int32 else result


@public
def searchsorted(
    sorted_sequence: Tensor,
    input: Tensor | Number,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """For each of ``input`` the first place in its row of ``sorted_sequence`` before which it may stand, or with
    ``right`` (or side="right") the last. Whether rows are sorted is not looked at; with ``sorter`` it sorts them.

    ``out_int32``: the places are int32, else int64.

    Shapes: sorted_sequence (n,), or (..., n) with input (..., k); returns input's shape, int64 or int32.
    Errors: ShapeError unless the shapes fit; ArgumentError if ``right`` and ``side`` differ.
    """
    name = "searchsorted"
    require_tensors(name, sorted_sequence)
    if not isinstance(input, Tensor):
        if sorted_sequence.ndim != 1:
            raise ShapeError(name, "a sorted_sequence of one dim for a number", f"got {sorted_sequence.shape}")
        input = tensor(input, device=sorted_sequence.backend)
    if side not in (None, "left", "right"):
        raise ArgumentError(name, 'side must be "left" or "right"', f"got {side!r}")
    if side == "left" and right:
        raise ArgumentError(name, "right and side that do not differ", 'got right=True and side="left"')
    if not sorted_sequence.ndim:
        raise ShapeError(name, "a sorted_sequence of at least one dim", "got a 0-d tensor")
    if sorted_sequence.ndim > 1 and sorted_sequence.shape[:-1] != input.shape[:-1]:
        found = f"got {sorted_sequence.shape} and {input.shape}"
        raise ShapeError(name, "a sorted_sequence of one dim, or equal in all dims but the last", found)
    if sorted_sequence.ndim > 1 and not input.ndim:
        raise ShapeError(name, "an input of as many dims", "got a 0-d tensor")
    if out_int32 and sorted_sequence.shape[-1] >= 2**31:
        raise ShapeError(name, "rows that int32 counts", f"got {sorted_sequence.shape}")
    if sorter is not None:
        if sorter.shape != sorted_sequence.shape:
            raise ShapeError(name, f"a sorter of shape {sorted_sequence.shape}", f"got {sorter.shape}")
        if sorter.dtype is not int64:
            raise DtypeError(name, "an int64 sorter", f"got {sorter.dtype.name}", "Convert it with .long().")
        sorted_sequence = functions["gather"](sorted_sequence, -1, sorter)
    return _search(sorted_sequence, input, out_int32, right or side == "right")


@public
def bucketize(input: Tensor | Number, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the bucket in which each of ``input`` lies, between ascending ``boundaries``.

    A value that is a boundary belongs to the bucket before it, or with ``right`` to the one after it.

    ``out_int32``: the places are int32, else int64.

    Shapes: boundaries (n,); returns input's shape, int64 or int32.
    Errors: ShapeError unless boundaries have one dim.
    """
    require_tensors("bucketize", boundaries)
    if boundaries.ndim != 1:
        raise ShapeError("bucketize", "boundaries of one dim", f"got {boundaries.shape}")
    if not isinstance(input, Tensor):
        input = tensor(input, device=boundaries.backend)
    return _search(boundaries, input, out_int32, right)


@public
def isin(
    elements: Tensor | Number, test_elements: Tensor | Number, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Whether each of ``elements`` is among ``test_elements``; with ``invert``, whether it is not.

    ``assume_unique`` changes nothing.

    Shapes: any; returns elements' shape, bool.
    Errors: DtypeError unless one at least is a tensor.
    """
    if not isinstance(elements, Tensor):
        require_tensors("isin", test_elements)
        elements = tensor(elements, device=test_elements.backend)  # type: ignore[union-attr]
    elements = elements.detach()
    among = reshape(as_tensor(test_elements, device=elements.backend).detach(), (-1,))
    if not among.numel() or not elements.numel():
        return functions["full"](elements.shape, bool(invert), dtype=bool_, device=elements.backend)  # type: ignore[no-any-return]
    dtype = promote(elements.dtype, among.dtype)
    rows = sort(among.to(dtype)).values
    place = functions["clamp"](_search(rows, elements, False, False), max=rows.numel() - 1)
    found = functions["eq"](
        reshape(functions["index_select"](rows, 0, reshape(place, (-1,))), elements.shape), elements
    )
    return functions["logical_not"](found) if invert else found  # type: ignore[no-any-return]


@public(method=True)
def histc(input: Tensor, bins: int = 100, min: Number = 0, max: Number = 0) -> Tensor:
    """How many elements lie in each of ``bins`` parts of [min, max], all equally wide.

    If both limits are 0 these are the least and the largest element. Elements outside, and NaN, are not counted.

    Shapes: any; returns (bins,).
    Errors: ArgumentError unless bins is at least 1 and min <= max; DtypeError for integers: convert with .float().
    """
    require_tensors("histc", input)
    if not input.is_floating_point():
        raise DtypeError("histc", "a floating-point tensor", f"got {input.dtype.name}", "Convert it with .float().")
    if bins < 1:
        raise ArgumentError("histc", "bins must be at least 1", f"got {bins}")
    if not (math.isfinite(min) and math.isfinite(max) and min <= max):
        raise ArgumentError("histc", "finite limits, min <= max", f"got {min} and {max}")
    x = reshape(input.detach(), (-1,))
    zeros: Tensor = functions["zeros"](bins, dtype=input.dtype, device=input.backend)
    if not x.numel():
        return zeros
    low: Any = float(min)
    high: Any = float(max)
    if min == max == 0:
        low, high = functions["amin"](x), functions["amax"](x)
    if not isinstance(low, Tensor):
        low, high = (tensor(limit, dtype=input.dtype, device=input.backend) for limit in (low, high))
    same = low == high
    low, high = where(same, low - 1, low), where(same, high + 1, high)
    inside = functions["logical_and"](x >= low, x <= high)
    place = functions["clamp"](((x - low) / (high - low) * bins).to(int64), 0, bins - 1)
    return scatter_add(zeros, 0, place, inside.to(input.dtype))


class Histogram(NamedTuple):
    """What ``histogram`` returns."""

    hist: Tensor
    bin_edges: Tensor


@public(method=True)
def histogram(
    input: Tensor, bins: int | Tensor, *, range: Sequence[float] | None = None, weight: Tensor | None = None,
    density: bool = False,
) -> Histogram:  # fmt: skip
    """How many elements lie in each of ``bins`` equal parts of ``range``, or between neighbours of the vector ``bins``.

    Without a range it is from the least to the largest element. One of no length is made 1 long. An element on an edge
    is in the part above, on the last edge in the last. With ``weight`` the weights of elements are added up; with
    ``density`` the result is divided by its sum and the lengths of the parts.

    Shapes: any, weight alike; returns (n,) and the edges (n + 1,).
    Errors: DtypeError of integers; ArgumentError unless there are parts, with finite limits in order.
    """
    name = "histogram"
    require_tensors(name, input)
    if not input.is_floating_point():
        raise DtypeError(name, "floats", f"got {input.dtype.name}", "Convert it with .float().")
    if weight is not None and (weight.shape != input.shape or weight.dtype is not input.dtype):
        raise ShapeError(name, f"weights like the input, {input.shape}", f"got {weight.dtype.name} {weight.shape}")
    x = reshape(input.detach(), (-1,))
    if isinstance(bins, Tensor):
        if bins.ndim != 1 or bins.numel() < 2 or bins.dtype is not input.dtype or range is not None:
            raise ArgumentError(
                name, "a vector of at least 2 edges of the input's dtype, without a range", f"got {bins}"
            )
        edges = bins.detach()
    else:
        if bins < 1:
            raise ArgumentError(name, "bins must be at least 1", f"got {bins}")
        low, high = (float(limit) for limit in range or (0, 1))
        if range is None and x.numel():
            low, high = float(functions["amin"](x)), float(functions["amax"](x))
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ArgumentError(name, "a range of finite limits in order", f"got {range}")
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges = functions["linspace"](low, high, bins + 1, dtype=input.dtype, device=input.backend)
    count = edges.numel() - 1
    inside = functions["logical_and"](x >= edges[0], x <= edges[-1])
    place = functions["clamp"](searchsorted(edges, x, right=True) - 1, 0, count - 1)
    amounts = inside.to(input.dtype)
    if weight is not None:
        amounts = where(inside, reshape(weight.detach(), (-1,)), 0.0)
    hist = scatter_add(functions["zeros"](count, dtype=input.dtype, device=input.backend), 0, place, amounts)
    if density:
        hist = hist / (hist.sum() * (edges[1:] - edges[:-1]))
    return Histogram(hist, edges)


@public(method=True)
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each integer from 0 on occurs, or the sum of its ``weights``; counted on the host.

    Shapes: input (n,) of integers, weights (n,); returns (largest + 1,), but at least (minlength,).
    Errors: ShapeError for other shapes; ArgumentError for negative integers; CaptureError inside te.compile, where no
            size depends on values.
    """
    name = "bincount"
    require_tensors(name, input)
    if input.ndim != 1 or input.dtype.limits is None:
        raise ShapeError(name, "a vector of integers", f"got {input.dtype.name} of shape {input.shape}")
    if weights is not None and weights.shape != input.shape:
        raise ShapeError(name, f"weights of shape {input.shape}", f"got {weights.shape}")
    if minlength < 0:
        raise ArgumentError(name, "minlength of at least 0", f"got {minlength}")
    forbid_in_recording(name, "how long its result is, is known on the host only; use scatter_add")
    values = input.numpy()
    if values.size and values.min() < 0:
        raise ArgumentError(name, "integers of at least 0", f"one is {values.min()}")
    if weights is None:
        return tensor(np.bincount(values, minlength=minlength), dtype=int64, device=input.backend)
    dtype = weights.dtype if weights.is_floating_point() else float64
    sums = np.bincount(values, weights.detach().numpy().astype(np.float64), minlength)
    return tensor(sums, dtype=dtype, device=input.backend)


@public(method=True)
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Each value once, in order; found on the host. Along ``dim``, each slice once.

    With ``return_inverse`` also where each element's value stands; with ``return_counts`` also how many there are.

    ``sorted`` changes nothing: they are in order anyway.

    Shapes: any; returns (count,), or with ``dim`` (..., count, ...); the inverse has input's shape, or (n,).
    Errors: AxisError if there is no such dim; CaptureError inside te.compile, where no size depends on values.
    """
    require_tensors("unique", input)
    axis = None if dim is None else shapes.normalize_axis("unique", dim, input.ndim)
    forbid_in_recording("unique", "how many values there are is known on the host only")
    values = input.detach().numpy()
    if axis is not None and not values.size:
        if not input.shape[axis] or 0 in input.shape[:axis] + input.shape[axis + 1 :]:
            if input.shape[axis]:
                raise ShapeError("unique", "slices that have elements", f"got shape {input.shape}")
            nothing = np.zeros(0, np.int64)
            found, inverse, counts = values, nothing, nothing
    else:
        found, inverse, counts = np.unique(values, return_inverse=True, return_counts=True, axis=axis, equal_nan=False)
    inverse = inverse.reshape(input.shape if axis is None else (-1,))  # type: ignore[assignment]
    return _with_counts(input, found, inverse, counts, return_inverse, return_counts)


def _with_counts(input: Tensor, found: Any, inverse: Any, counts: Any, wants_inverse: bool, wants_counts: bool) -> Any:
    result = tensor(found, dtype=input.dtype, device=input.backend)
    wanted = [part for part, wants in ((inverse, wants_inverse), (counts, wants_counts)) if wants]
    if not wanted:
        return result
    return (result, *(tensor(part, dtype=int64, device=input.backend) for part in wanted))


@public(method=True)
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The first of each run of equal elements, or along ``dim`` of equal slices; found on the host.

    Shapes: as ``unique``.
    Errors: as ``unique``.
    """
    require_tensors("unique_consecutive", input)
    axis = None if dim is None else shapes.normalize_axis("unique_consecutive", dim, input.ndim)
    forbid_in_recording("unique_consecutive", "how many runs there are is known on the host only")
    values = input.detach().numpy()
    rows = values.reshape(-1) if axis is None else np.moveaxis(values, axis, 0)
    if axis is not None and len(rows) and not rows.size:
        raise ShapeError("unique_consecutive", "slices that have elements", f"got shape {input.shape}")
    differs = (rows[1:] != rows[:-1]).any(tuple(range(1, rows.ndim)))
    is_start = np.concatenate([np.ones(min(len(rows), 1), bool), differs])
    starts = np.flatnonzero(is_start)
    counts = np.diff(np.append(starts, len(rows)))
    inverse = np.cumsum(is_start) - 1
    found = rows[starts]
    if axis is None:
        inverse = inverse.reshape(input.shape)
    else:
        found = np.moveaxis(found, 0, axis)
    return _with_counts(input, found, inverse, counts, return_inverse, return_counts)
