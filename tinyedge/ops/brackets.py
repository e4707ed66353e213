"""Indexing with brackets: reading and writing by ints, slices, tensors and masks, in any mixture."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.dispatch import new_slot, write_into
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import bool_, category, int32, int64, uint8
from tinyedge.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError
from tinyedge.ir.modes import is_grad_enabled
from tinyedge.ir.step import ErrorSample
from tinyedge.ir.values import Value
from tinyedge.ops.indices import wrapped
from tinyedge.ops.movement import Cat, Range, Slice, expand, permute, place, reshape, view, whole
from tinyedge.ops.scatter import scatter, scatter_add
from tinyedge.tensor import Number, Tensor, as_tensor, call, full, tensor


@public(top=False, operators=("__getitem__",))
def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]``: ints, slices with positive steps, None, Ellipsis (views); integer and bool tensors (copies).

    Shapes: an int takes a dim away, a slice shortens it, None adds one of length 1, integers give theirs in its place,
            or in front where a slice or None stands between them.
    Errors: IndexRangeError for an index that is not there; ArgumentError for negative steps; DtypeError for what is no
            index.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    items = [_index_item(item, input) for item in items]
    used = builtins.sum(
        item.ndim if isinstance(item, Tensor) and item.dtype is bool_ else 0 if item is None or item is Ellipsis else 1
        for item in items
    )
    if used > input.ndim:
        raise IndexRangeError("getitem", f"at most {input.ndim} indices for shape {input.shape}", f"got {used}")
    gap = [slice(None)] * (input.ndim - used)
    spots = [k for k, item in enumerate(items) if item is Ellipsis]
    if len(spots) > 1:
        raise ArgumentError("getitem", "at most one Ellipsis", f"got {len(spots)}")
    items[slice(spots[0], spots[0] + 1) if spots else slice(len(items), None)] = gap
    ranges: list[Range] = []
    shape: list[int] = []
    tensors: list[tuple[int, Tensor]] = []  # the axis of the view, and the index for it
    for item in items:
        axis = len(ranges)
        if item is None:
            shape.append(1)
        elif isinstance(item, Tensor):
            tensors.append((len(shape), item))
            for size in input.shape[axis : axis + (item.ndim if item.dtype is bool_ else 1)]:
                ranges.append((0, size, 1))
                shape.append(size)
        elif isinstance(item, slice):
            start, stop, step = item.indices(input.shape[axis])
            if step < 0:
                raise ArgumentError("getitem", "slices with positive steps", f"got step {step}")
            length = max(0, -(-(stop - start) // step))
            ranges.append((start if length else 0, length, step))
            shape.append(length)
        else:
            size = input.shape[axis]
            if not -size <= item < size:
                raise IndexRangeError("getitem", f"an index in [{-size}, {size - 1}] for dim {axis}", f"got {item}")
            ranges.append((item % size, 1, 1))
    result = input if ranges == whole(input.shape) else call(Slice, input, ranges=tuple(ranges))
    if result.shape != tuple(shape) or (result is input and not tensors):
        result = view(result, shape)
    if not tensors:
        return result
    return _take(result, tensors)


def _index_item(item: Any, input: Tensor) -> Any:
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, (list, tuple, range, np.ndarray)):
        item = tensor(list(item) if isinstance(item, range) else item, device=input.backend)
    if isinstance(item, Tensor):
        if item.dtype.is_floating_point:
            raise DtypeError("getitem", "integer or bool indices", f"got {item.dtype.name}", "Convert it with .long().")
        if item.dtype is uint8:  # PyTorch's old masks
            item = item.to(bool_)
        return item if item.ndim or item.dtype is bool_ else item.item()
    if hasattr(type(item), "__index__") and not isinstance(item, (bool, np.bool_)):
        return operator.index(item)
    raise DtypeError("getitem", "ints, slices, None, Ellipsis or tensors", f"got {type(item).__name__}")


def _take(input: Tensor, tensors: list[tuple[int, Tensor]]) -> Tensor:
    """Index with tensors, each at its axes: one index into those axes merged. If they are apart, they come in front."""
    indices: list[Tensor] = []
    taken: list[int] = []
    for axis, item in tensors:
        if item.dtype is bool_:
            if item.shape != input.shape[axis : axis + item.ndim]:
                raise ShapeError(
                    "getitem", f"a mask of shape {input.shape[axis : axis + item.ndim]}", f"got {item.shape}"
                )
            # How many elements a mask takes is known on the host only.
            indices += [tensor(found, device=input.backend) for found in np.nonzero(item.numpy())]
            taken += range(axis, axis + item.ndim)
        else:
            item = item if item.dtype is int32 else item.to(int64)
            indices.append(wrapped("getitem", item, input.shape[axis]))
            taken.append(axis)
    first = taken[0]
    if taken != list(range(first, first + len(taken))):
        input = permute(input, [*taken, *(axis for axis in range(input.ndim) if axis not in taken)])
        first = 0
    sizes = input.shape[first : first + len(taken)]
    shapes.broadcast("getitem", *(item.shape for item in indices))
    flat = indices[0]
    for size, more in zip(sizes[1:], indices[1:]):
        flat = flat * size + more
    merged = reshape(input, (*input.shape[:first], prod(sizes), *input.shape[first + len(taken) :]))
    picked = functions["index_select"](merged, first, reshape(flat, (-1,)) if flat.numel() else reshape(flat, (0,)))
    return reshape(picked, (*input.shape[:first], *flat.shape, *input.shape[first + len(taken) :]))


def _parts(input: Tensor, index: Any) -> list[Any]:
    items = list(index) if isinstance(index, tuple) else [index]
    return [_index_item(item, input) for item in items]


def _fitting(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``value`` broadcast to ``shape``; dims of length 1 in front that this does not have are left out."""
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = reshape(value, value.shape[1:])
    if shapes.broadcast(name, value.shape, shape) != shape:
        raise ShapeError(name, f"a value that broadcasts to {shape}", f"got {value.shape}")
    return expand(value, shape)


def _placed(name: str, input: Tensor, index: Any, value: Tensor, adds: bool) -> Tensor:
    """``input`` with ``value`` at ``index``, out of place: the flat places of the index say where."""
    items = _parts(input, index)
    rows = items[0]
    if len(items) == 1 and isinstance(rows, Tensor) and rows.dtype is not bool_ and input.ndim and rows.numel():
        size, rest = input.shape[0], input.shape[1:]
        source = reshape(_fitting(name, value.to(input.dtype), (*rows.shape, *rest)), (rows.numel(), *rest))
        rows = reshape(wrapped(name, rows, size), (rows.numel(),))
        return functions["index_add" if adds else "index_copy"](input, 0, rows, source)  # type: ignore[no-any-return]
    count = input.numel()
    places = tensor(np.arange(count).reshape(input.shape), dtype=int64, device=input.backend)
    where = getitem(places, index)
    source = reshape(_fitting(name, value.to(input.dtype), where.shape), (where.numel(),))
    if not where.numel():
        return input.clone()
    flat = reshape(input, (count,))
    put = scatter_add if adds else scatter
    return reshape(put(flat, 0, reshape(where, (where.numel(),)), source), input.shape)


@public(method=True, inplace=True)
def index_put(input: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """``input`` with ``values`` where ``indices`` say, as for brackets; None takes a whole dim.

    Of equal places the last stays; with ``accumulate`` all are added.

    Shapes: values broadcast to ``input[indices]``; returns input's shape.
    Errors: as ``input[indices]``; DtypeError unless values have input's dtype.
    """
    if not isinstance(values, Tensor):
        raise DtypeError(
            "index_put", "values as a tensor", f"got {type(values).__name__}", "Convert them with te.tensor."
        )
    if values.dtype is not input.dtype:
        raise DtypeError(
            "index_put", f"values of {input.dtype.name}", f"got {values.dtype.name}", "Convert them with .to(dtype)."
        )
    where = tuple(slice(None) if item is None else item for item in indices)
    return _placed("index_put", input, where, values, bool(accumulate))


def _sliced(input: Tensor, index: Any, value: Tensor) -> Tensor:
    """``input`` with ``value`` in the part that ints and slices name, out of place."""
    mask = full(input.shape, False, device=input.backend)
    part = getitem(mask, index)
    write_into(Value(True, bool_), part._slot)
    source = _fitting("setitem", value.to(input.dtype), part.shape)
    apart = new_slot(input.backend, input.dtype, input.shape)
    write_into(Value(0, input.dtype), apart)
    # The part as a range of each dim: ints are ranges of length one.
    inside = call(Slice, source, ranges=tuple(whole(source.shape)))
    ranges = _ranges(input, index)
    inside = reshape(inside, tuple(length for _, length, _ in ranges))
    return functions["where"](mask, place(Cat, [inside], apart, (ranges,)), input)  # type: ignore[no-any-return]


def _ranges(input: Tensor, index: Any) -> tuple[Range, ...]:
    """(start, length, step) of each dim that an index of ints and slices takes."""
    items = [item for item in _parts(input, index) if item is not None]
    gap = [slice(None)] * (input.ndim - builtins.sum(item is not Ellipsis for item in items))
    spots = [k for k, item in enumerate(items) if item is Ellipsis]
    items[slice(spots[0], spots[0] + 1) if spots else slice(len(items), None)] = gap
    found: list[Range] = []
    for item, size in zip(items, input.shape):
        if isinstance(item, slice):
            start, stop, step = item.indices(size)
            length = max(0, -(-(stop - start) // step))
            found.append((start if length else 0, length, step))
        else:
            found.append((item % size, 1, 1))
    return tuple(found)


@public(top=False, operators=("__setitem__",))
def setitem(input: Tensor, index: Any, value: Number | Tensor) -> None:
    """``input[index] = value``, in place; ``index`` is what can be read, too. Of equal places the last stays.

    Shapes: value broadcasts to ``input[index]``.
    Errors: as ``getitem``, and as in-place calls where autograd records.
    """
    if isinstance(index, (np.ndarray, Tensor)) and as_tensor(index).dtype is bool_:
        mask = as_tensor(index, device=input.backend)
        if mask.shape == input.shape and not (isinstance(value, Tensor) and value.ndim):
            input._assign("setitem", functions["masked_fill"](input, mask, value))
            return
    has_tensor = builtins.any(isinstance(item, Tensor) for item in _parts(input, index))
    is_tracked = is_grad_enabled() and (input.requires_grad or (isinstance(value, Tensor) and value.requires_grad))
    if not has_tensor and not is_tracked:
        target = getitem(input, index)
        if isinstance(value, (bool, int, float)):
            target.fill_(value)
        else:
            target.copy_(_fitting("setitem", as_tensor(value, device=input.backend), target.shape))
        return
    if not isinstance(value, Tensor):
        value = tensor(value, dtype=input.dtype, device=input.backend)
    if value.backend is not input.backend:
        value = value.detach().to(input.backend)
    if category(value.dtype) > category(input.dtype):
        value = value.to(input.dtype)  # as copy_ converts
    placed = _placed("setitem", input, index, value, False) if has_tensor else _sliced(input, index, value)
    input._assign("setitem", placed)


Slice.errors = (
    ErrorSample(lambda te: te.zeros(2, 3)[2], IndexRangeError, "[-2, 1]"),
    ErrorSample(lambda te: te.zeros(2, 3)[0, 0, 0], IndexRangeError, "at most 2 indices"),
    ErrorSample(lambda te: te.zeros(2, 3)[::-1], ArgumentError, "positive steps"),
)
