"""Samples in host memory, and loaders that bring them to the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.tensor import Tensor, tensor

Array = npt.NDArray[Any]


class TensorDataset:
    """Arrays of one length, e.g. images and labels. They stay in host memory; indexing gives a tuple of arrays."""

    def __init__(self, *arrays: Any) -> None:
        self.arrays: tuple[Array, ...] = tuple(np.asarray(array) for array in arrays)
        if not arrays or any(array.ndim == 0 or len(array) != len(self.arrays[0]) for array in self.arrays):
            got = ", ".join(str(array.shape) for array in self.arrays) or "none"
            raise ShapeError("TensorDataset", "one or more arrays whose first axes are equal", f"got {got}")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Array, ...]:
        return tuple(array[index] for array in self.arrays)

    def subset(self, indices: Any) -> TensorDataset:
        """The samples that ``indices``, or a bool mask, picks."""
        return TensorDataset(*self[indices])


def random_split(dataset: TensorDataset, lengths: Sequence[float], seed: int = 0) -> list[TensorDataset]:
    """Disjoint random parts of ``dataset``, of these lengths, or fractions that add up to 1. A seed gives one split."""
    sizes: list[Any] = list(lengths)
    if abs(sum(sizes) - 1) < 1e-9:
        # As in PyTorch: each part rounded down, what is left given to the first ones.
        sizes = [int(len(dataset) * fraction) for fraction in sizes]
        for part in range(len(dataset) - sum(sizes)):
            sizes[part % len(sizes)] += 1
    if any(size != int(size) or size < 0 for size in sizes) or sum(sizes) != len(dataset):
        raise ArgumentError("random_split", f"lengths that add up to {len(dataset)}, or to 1", f"got {list(lengths)}")
    order = np.random.default_rng(seed).permutation(len(dataset))
    ends = np.cumsum([int(size) for size in sizes])
    return [dataset.subset(part) for part in np.split(order, ends[:-1])]


class DataLoader:
    """Minibatches of ``dataset`` as tuples of tensors on the device, a fresh order each epoch if ``shuffle``.

    The orders follow from ``seed``: the same run twice sees the same samples.
    """

    def __init__(
        self,
        dataset: TensorDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        *,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ArgumentError("DataLoader", "batch_size must be at least 1", f"got {batch_size}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self._random = np.random.default_rng(seed)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        count = len(self.dataset)
        order = self._random.permutation(count) if self.shuffle else np.arange(count)
        for batch in range(len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield tuple(tensor(array) for array in self.dataset[chosen])
