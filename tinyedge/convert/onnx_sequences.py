"""ONNX's sequences of tensors: a value that is a list. Its length and the places in it are the host's."""

from __future__ import annotations

import numpy as np

from tinyedge import ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, ints
from tinyedge.convert.onnx_shapes import axis_of
from tinyedge.errors import ShapeError
from tinyedge.tensor import Tensor

MAKERS = frozenset({"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SplitToSequence"})
READERS = frozenset({"SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "ConcatFromSequence"})
PASSING = frozenset({"Identity", "If"})
"""What gives back one of its inputs, whatever it is."""


def _place(op: str, position: Array | None, length: int, most: int) -> int:
    """A position as an index, from the end if there is none."""
    place = length if position is None else int(position.reshape(()))
    place += length if place < 0 else 0
    if not 0 <= place < most:
        raise ShapeError(op, f"a position in a sequence of {length}", f"got {place}")
    return place


@ONNX.op("SequenceConstruct", since=11)
def sequence_construct(*tensors: Tensor) -> list[Tensor]:
    return list(tensors)


@ONNX.op("SequenceEmpty", since=11)
def sequence_empty(*, dtype: int = 1) -> list[Tensor]:
    return []


@ONNX.op("SequenceInsert", since=11, host=("position",))
def sequence_insert(sequence: list[Tensor], x: Tensor, position: Array | None = None) -> list[Tensor]:
    place = _place("SequenceInsert", position, len(sequence), len(sequence) + 1)
    return [*sequence[:place], x, *sequence[place:]]


@ONNX.op("SequenceErase", since=11, host=("position",))
def sequence_erase(sequence: list[Tensor], position: Array | None = None) -> list[Tensor]:
    last = np.array(-1) if position is None else position
    place = _place("SequenceErase", last, len(sequence), len(sequence))
    return sequence[:place] + sequence[place + 1 :]


@ONNX.op("SequenceAt", since=11, host=("position",))
def sequence_at(sequence: list[Tensor], position: Array) -> Tensor:
    return sequence[_place("SequenceAt", position, len(sequence), len(sequence))]


@ONNX.op("SequenceLength", since=11, makes_host=True)
def sequence_length(sequence: list[Tensor]) -> Array:
    return np.array(len(sequence), np.int64)


@ONNX.op("ConcatFromSequence", since=11)
def concat_from_sequence(sequence: list[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    if not sequence:
        raise ShapeError("ConcatFromSequence", "a sequence of at least one tensor", "it is empty")
    axis = axis_of("ConcatFromSequence", axis, sequence[0].ndim + bool(new_axis))
    return ops.stack(sequence, axis) if new_axis else ops.cat(sequence, axis)


@ONNX.op("SplitToSequence", since=11, host=("split",))
def split_to_sequence(x: Tensor, split: Array | None = None, *, axis: int = 0, keepdims: int = 1) -> list[Tensor]:
    axis = axis_of("SplitToSequence", axis, x.ndim)
    size = x.shape[axis]
    if split is None:
        rows = ops.split(x, 1, axis)
        return list(rows) if keepdims else [ops.squeeze(row, axis) for row in rows]
    sizes = ints(split)
    if split.ndim == 0:
        each = max(sizes[0], 1)
        sizes = tuple(min(each, size - first) for first in range(0, size, each))
    if sum(sizes) != size or min(sizes, default=0) < 0:
        raise ShapeError("SplitToSequence", f"parts of {size} in all", f"got {sizes}")
    return list(ops.split(x, sizes, axis))


__all__ = ["MAKERS", "PASSING", "READERS"]
