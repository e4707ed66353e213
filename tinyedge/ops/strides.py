"""Elements by how far they lie apart in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import int64
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.movement import Strided, reshape
from tinyedge.ops.promotion import require_tensors
from tinyedge.tensor import Tensor, call, tensor


def _share(size: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether two elements may lie at one place."""
    reach = 0
    for step, length in sorted((step, length) for step, length in zip(stride, size, strict=True) if length > 1):
        if step <= reach:
            return True
        reach += step * (length - 1)
    return False


@public(method=True)
def as_strided(
    input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:  # fmt: skip
    """The elements of ``input`` that lie, in each dim, ``stride`` places apart, from place ``storage_offset`` on.

    It is a view if no two of them are one element, else a copy: overlapping windows may be read, and not written.

    Shapes: any; returns ``size``.
    Errors: ShapeError unless input is contiguous; ArgumentError unless all elements are its own.
    """
    name = "as_strided"
    require_tensors(name, input)
    slot = input._slot
    if not slot.contiguous:
        raise ShapeError(name, "a contiguous tensor", f"got strides {slot.strides}", "Use x.contiguous().")
    if len(size) != len(stride) or min((*size, *stride), default=0) < 0:
        raise ArgumentError(name, "a size and a stride of at least 0 for each dim", f"got {size} and {stride}")
    first = 0 if storage_offset is None else storage_offset - slot.offset
    last = first + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and not 0 <= first <= last < input.numel():
        raise ArgumentError(
            name, f"places in [{slot.offset}, {slot.offset + input.numel()}), which are this tensor's",
            f"got places from {first + slot.offset} to {last + slot.offset}",
        )  # fmt: skip
    shape, strides = tuple(size), tuple(stride)
    if 0 in shape:
        return reshape(reshape(input, (-1,))[:0], shape)
    if not _share(shape, strides):
        return call(Strided, input, shape=shape, strides=strides, offset=first)
    places = np.full(shape, first)
    for dim, step in enumerate(strides):
        places += step * np.arange(shape[dim]).reshape(-1, *(1,) * (len(shape) - dim - 1))
    index = tensor(places.reshape(-1), dtype=int64, device=input.backend)
    return reshape(functions["index_select"](reshape(input, (-1,)), 0, index), shape)
