"""Sequences of several lengths in one tensor: padded, or packed step by step as PyTorch packs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.dtypes import int64
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops import cat, index_select, reshape, stack, transpose, where
from tinyedge.tensor import Tensor, full, tensor

Lengths = Tensor | Sequence[int]


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """Sequences sorted by length, as one tensor: the first steps of all, the second steps of those that have one, and
    so on. ``batch_sizes`` says how many have each step.

    Shapes: data (sum of the lengths, ...); batch_sizes (longest,); sorted_indices and unsorted_indices (batch,), or
            None if the sequences came sorted.
    Errors: ArgumentError unless batch_sizes descend, and add up to the rows of data.
    """

    sizes: tuple[int, ...]

    def __new__(
        cls,
        data: Tensor,
        batch_sizes: Lengths | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if batch_sizes is None:
            raise ArgumentError("PackedSequence", "data and batch_sizes", "got data alone")
        sizes = _numbers(batch_sizes)
        if list(sizes) != sorted(sizes, reverse=True) or sum(sizes) != data.shape[0] or min(sizes, default=0) < 1:
            expected = f"batch_sizes that descend, and add up to the {data.shape[0]} rows of data"
            raise ArgumentError("PackedSequence", expected, f"got {list(sizes)}")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        given = _tensor(sizes, data) if not isinstance(batch_sizes, Tensor) else batch_sizes
        made = super().__new__(cls, data, given, sorted_indices, unsorted_indices)
        made.sizes = sizes
        return made

    def __reduce__(self) -> Any:
        return type(self), tuple(self)

    def over(self, data: Tensor) -> PackedSequence:
        """Other values, packed as these are."""
        made = tuple.__new__(type(self), (data, *self[1:]))
        made.sizes = self.sizes
        return made

    def lengths(self) -> list[int]:
        """How long each sequence is, in the order in which they are packed."""
        return [sum(size > k for size in self.sizes) for k in range(self.sizes[0])]

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Of another dtype, or on another device."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        made = tuple.__new__(type(self), (data, *(None if x is None else x.to(data.backend) for x in self[1:])))
        made.sizes = self.sizes
        return made

    def cpu(self) -> PackedSequence:
        return self.to(self.data.cpu().backend)

    def float(self) -> PackedSequence:
        return self.over(self.data.float())

    def double(self) -> PackedSequence:
        return self.over(self.data.double())

    def half(self) -> PackedSequence:
        return self.over(self.data.half())

    @property
    def is_cuda(self) -> bool:
        return bool(self.data.is_cuda)


def _numbers(lengths: Lengths) -> tuple[int, ...]:
    """On the host. ``te.compile`` refuses to read a tensor; it takes a sequence of ints."""
    if isinstance(lengths, Tensor):
        forbid_in_recording("lengths in a tensor", "they are read on the host; pass them as a list of ints")
        return tuple(int(length) for length in lengths.numpy().reshape(-1))
    return tuple(int(length) for length in lengths)


def _tensor(numbers: Iterable[int], like: Tensor) -> Tensor:
    return tensor(np.array(list(numbers), np.int64), dtype=int64, device=like.backend)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes ``permutation``; None for none.

    Shapes: (n,) of integers; returns the same.
    """
    return None if permutation is None else permutation.argsort()


def _rows(x: Tensor, index: Sequence[int] | np.ndarray[Any, Any]) -> Tensor:
    return index_select(x, 0, _tensor(np.asarray(index).reshape(-1).tolist(), x))


def pack_padded_sequence(
    input: Tensor, lengths: Lengths, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack padded sequences: one copy of their elements.

    Shapes: input (times, batch, ...), or (batch, times, ...) with batch_first; lengths (batch,).
    Errors: ArgumentError unless each length is in [1, times], and they descend, with enforce_sorted; inside te.compile
            lengths are a sequence of ints, since it looks at no values.
    """
    name = "pack_padded_sequence"
    if input.ndim < 2 or not input.numel():
        raise ShapeError(name, "padded sequences of at least one element", f"got {input.shape}")
    x = transpose(input, 0, 1) if batch_first else input
    times, samples = x.shape[:2]
    numbers = _numbers(lengths)
    if len(numbers) != samples:
        raise ShapeError(name, f"lengths of {samples} sequences", f"got {len(numbers)}")
    if min(numbers) < 1 or max(numbers) > times:
        raise ArgumentError(name, f"lengths in [1, {times}]", f"got {list(numbers)}")
    order = sorted(range(samples), key=lambda k: -numbers[k])
    if enforce_sorted and order != list(range(samples)):
        raise ArgumentError(
            name, "lengths that descend, with enforce_sorted", f"got {list(numbers)}", "Pass enforce_sorted=False."
        )
    ordered = [numbers[k] for k in order]
    sizes = [sum(length > t for length in ordered) for t in range(ordered[0])]
    index = [t * samples + order[k] for t, size in enumerate(sizes) for k in range(size)]
    data = _rows(reshape(x, (times * samples, *x.shape[2:])), index)
    if enforce_sorted:
        return PackedSequence(data, sizes)
    back = sorted(range(samples), key=order.__getitem__)
    return PackedSequence(data, sizes, _tensor(order, data), _tensor(back, data))


def padded_steps(packed: PackedSequence) -> Tensor:
    """The packed sequences as (longest, batch, ...), in their packed order; behind a sequence's end anything may be."""
    sizes = packed.sizes
    starts = np.cumsum([0, *sizes[:-1]])
    index = [[start + min(k, size - 1) for k in range(sizes[0])] for start, size in zip(starts, sizes, strict=True)]
    return reshape(_rows(packed.data, np.array(index)), (len(sizes), sizes[0], *packed.data.shape[1:]))


def packed_steps(padded: Tensor, like: PackedSequence) -> PackedSequence:
    """Results (longest, batch, ...) in packed order, packed as ``like``."""
    times, samples = padded.shape[:2]
    index = [t * samples + k for t, size in enumerate(like.sizes) for k in range(size)]
    return like.over(_rows(reshape(padded, (times * samples, *padded.shape[2:])), index))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """Undo ``pack_padded_sequence``: the sequences, with ``padding_value`` behind their ends, and their lengths.

    Shapes: returns (longest or total_length, batch, ...), or (batch, times, ...) with batch_first; and (batch,).
    Errors: ArgumentError if total_length is less than the longest sequence.
    """
    x, lengths = padded_steps(sequence), np.array(sequence.lengths())
    times, samples = x.shape[:2]
    longest = times if total_length is None else total_length
    if longest < times:
        raise ArgumentError("pad_packed_sequence", f"total_length of at least {times}", f"got {total_length}")
    runs = np.arange(times)[:, None] < lengths
    mask = reshape(tensor(runs, device=x.backend), (times, samples, *(1,) * (x.ndim - 2)))
    x = where(mask, x, padding_value)
    if longest > times:
        x = cat([x, full((longest - times, *x.shape[1:]), padding_value, dtype=x.dtype, device=x.backend)], 0)
    found = _tensor(lengths.tolist(), x)
    if sequence.unsorted_indices is not None:
        x, found = (index_select(x, 1, sequence.unsorted_indices), index_select(found, 0, sequence.unsorted_indices))
    return transpose(x, 0, 1) if batch_first else x, found


def pad_sequence(
    sequences: Tensor | Sequence[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Sequences of several lengths in one tensor, with ``padding_value`` behind their ends, or before them.

    Shapes: each (length, ...); returns (longest, batch, ...), or (batch, longest, ...) with batch_first.
    Errors: ArgumentError without sequences, or for another side; ShapeError unless the other dims are equal.
    """
    name = "pad_sequence"
    if padding_side not in ("left", "right"):
        raise ArgumentError(name, 'padding_side must be "left" or "right"', f"got {padding_side!r}")
    given = list(sequences)
    if not given:
        raise ArgumentError(name, "at least one sequence", "got none")
    first = given[0]
    if any(x.ndim < 1 or x.shape[1:] != first.shape[1:] for x in given):
        raise ShapeError(name, "sequences that differ in their first dim alone", f"got {[x.shape for x in given]}")
    longest = max(x.shape[0] for x in given)
    filled = []
    for x in given:
        if x.shape[0] < longest:
            rest = full((longest - x.shape[0], *x.shape[1:]), padding_value, dtype=x.dtype, device=x.backend)
            x = cat([x, rest] if padding_side == "right" else [rest, x], 0)
        filled.append(x)
    return stack(filled, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Lengths, batch_first: bool = False) -> list[Tensor]:
    """Undo ``pad_sequence``: the sequences, each of its length.

    Shapes: (longest, batch, ...), or (batch, longest, ...) with batch_first; lengths (batch,).
    Errors: ShapeError unless there is a length for each sequence.
    """
    x = padded_sequences if batch_first else transpose(padded_sequences, 0, 1)
    numbers = _numbers(lengths)
    if len(numbers) != x.shape[0]:
        raise ShapeError("unpad_sequence", f"lengths of {x.shape[0]} sequences", f"got {len(numbers)}")
    return [x[k][:length] for k, length in enumerate(numbers)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences of several lengths.

    Shapes: each (length, ...).
    Errors: ArgumentError unless the lengths descend, with enforce_sorted; ShapeError unless the other dims are equal.
    """
    lengths = [x.shape[0] for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Undo ``pack_sequence``: a list of sequences.

    Shapes: each (length, ...).
    """
    padded, _ = pad_packed_sequence(packed_sequences)
    lengths = packed_sequences.lengths()
    if packed_sequences.unsorted_indices is not None:
        lengths = [lengths[k] for k in _numbers(packed_sequences.unsorted_indices)]
    return unpad_sequence(padded, lengths)


__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]
