"""Datasets: samples by number, samples one after the other, and parts and sums of datasets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from tinyedge.errors import ArgumentError, IndexRangeError, ShapeError
from tinyedge.ops.random import Generator, default_generator
from tinyedge.tensor import Tensor, tensor

Array = npt.NDArray[Any]
T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """Samples by number. One of your own defines ``__getitem__``, for one int, and ``__len__``."""

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} needs a __getitem__ method")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Samples one after the other. One of your own defines ``__iter__``."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} needs an __iter__ method")

    def __add__(self, other: Dataset[Any]) -> Any:
        return ChainDataset([self, other])


class ChainDataset(IterableDataset[Any]):
    """The samples of one iterable dataset after those of the other."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.datasets)


class TensorDataset(Dataset[tuple[Any, ...]]):
    """Arrays or tensors of one length, e.g. images and labels.

    They stay in host memory; indexing, with an int or with what indexes an array, gives a tuple of arrays, or of
    tensors on the device where those lay that were given.
    """

    def __init__(self, *tensors: Any) -> None:
        self.arrays: tuple[Array, ...] = tuple(
            given.detach().numpy() if isinstance(given, Tensor) else np.asarray(given) for given in tensors
        )
        if not tensors or any(array.ndim == 0 or len(array) != len(self.arrays[0]) for array in self.arrays):
            got = ", ".join(str(array.shape) for array in self.arrays) or "none"
            raise ShapeError("TensorDataset", "one or more arrays whose first axes are equal", f"got {got}")
        self._devices = tuple(given.backend if isinstance(given, Tensor) else None for given in tensors)

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(
            array[index] if device is None else tensor(array[index], device=device)
            for array, device in zip(self.arrays, self._devices, strict=True)
        )

    def batch(self, indices: Sequence[int]) -> list[Array]:
        """The samples of these numbers, put together: what collating them one by one gives."""
        return [array[np.asarray(indices, np.int64)] for array in self.arrays]

    def subset(self, indices: Any) -> TensorDataset:
        """The samples that ``indices``, or a bool mask, picks."""
        return TensorDataset(*(array[indices] for array in self.arrays))


class Subset(Dataset[Any]):
    """The samples of ``dataset`` that have the numbers ``indices``."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (list, tuple, np.ndarray)):
            return self.dataset[[self.indices[number] for number in index]]
        return self.dataset[self.indices[index]]

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of these samples, where the dataset is made of arrays."""
        return tuple(array[np.asarray(self.indices, np.int64)] for array in self.dataset.arrays)


class ConcatDataset(Dataset[Any]):
    """The samples of several datasets, one dataset after the other."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ArgumentError("ConcatDataset", "at least one dataset", "got none")
        for dataset in self.datasets:
            if isinstance(dataset, IterableDataset):
                raise ArgumentError(
                    "ConcatDataset", "datasets with samples by number", "got an IterableDataset", "Use ChainDataset."
                )
        self.cumulative_sizes = list(accumulate(len(dataset) for dataset in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexRangeError("ConcatDataset", f"an index in [{-len(self)}, {len(self)})", f"got {index}")
        index %= len(self)
        place = bisect_right(self.cumulative_sizes, index)
        return self.datasets[place][index - (self.cumulative_sizes[place - 1] if place else 0)]


def permutation(count: int, generator: Generator | None) -> list[int]:
    """The numbers below ``count`` in an order that is drawn on the host."""
    drawn = (generator or default_generator).uniform((count,))
    order: list[int] = np.argsort(drawn, kind="stable").tolist()
    return order


def random_split(
    dataset: Any, lengths: Sequence[float], generator: Generator | None = None, *, seed: int | None = None
) -> list[Subset]:
    """Disjoint random parts of ``dataset``, of these lengths, or fractions that add up to 1.

    The order is drawn from ``generator``, by default that of ``te.manual_seed``. A ``seed`` gives one split always.

    Errors: ArgumentError if the lengths do not fit.
    """
    sizes: list[Any] = list(lengths)
    if abs(sum(sizes) - 1) < 1e-9:
        # As in PyTorch: each part rounded down, what is left given to the first ones.
        sizes = [int(len(dataset) * fraction) for fraction in sizes]
        for part in range(len(dataset) - sum(sizes)):
            sizes[part % len(sizes)] += 1
    if any(size != int(size) or size < 0 for size in sizes) or sum(sizes) != len(dataset):
        raise ArgumentError("random_split", f"lengths that add up to {len(dataset)}, or to 1", f"got {list(lengths)}")
    if seed is None:
        order = permutation(len(dataset), generator)
    else:
        order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    ends = list(accumulate(int(size) for size in sizes))
    return [Subset(dataset, order[end - int(size) : end]) for end, size in zip(ends, sizes, strict=True)]
