"""Samplers: the order in which samples are taken, and how they are put into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from tinyedge.data.dataset import permutation
from tinyedge.errors import ArgumentError
from tinyedge.ops.random import Generator, default_generator

T = TypeVar("T", covariant=True)


class Sampler(Generic[T]):
    """Base of the samplers: ``__iter__`` gives numbers of samples, or lists of them, for one epoch."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} needs an __iter__ method")


class SequentialSampler(Sampler[int]):
    """The numbers in order."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))


class RandomSampler(Sampler[int]):
    """The numbers in a new random order each epoch, drawn from ``generator``, by default that of ``te.manual_seed``.

    ``num_samples`` is how many an epoch has: with ``replacement`` each is drawn by itself, without it one order follows
    the other.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        if num_samples is not None and (not isinstance(num_samples, int) or num_samples < 1):
            raise ArgumentError("RandomSampler", "num_samples must be an int of at least 1", f"got {num_samples}")
        self.data_source = data_source
        self.replacement = replacement
        self.generator = generator
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        """The number of samples in an epoch."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        count, left = len(self.data_source), self.num_samples
        if not count:
            return
        if self.replacement:
            drawn = (self.generator or default_generator).uniform((left,))
            yield from np.minimum((drawn * count).astype(np.int64), count - 1).tolist()
            return
        while left > 0:
            yield from permutation(count, self.generator)[:left]
            left -= count


class SubsetRandomSampler(Sampler[int]):
    """The numbers ``indices`` in a new random order each epoch."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return (self.indices[place] for place in permutation(len(self.indices), self.generator))


class WeightedRandomSampler(Sampler[int]):
    """``num_samples`` numbers, each as probable as its weight says; without ``replacement`` each once."""

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Generator | None = None
    ) -> None:
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1 or not (self.weights >= 0).all() or not self.weights.sum() > 0:
            raise ArgumentError("WeightedRandomSampler", "weights of at least 0, not all 0", f"got {weights}")
        if not isinstance(num_samples, int) or num_samples < 1:
            raise ArgumentError("WeightedRandomSampler", "num_samples of at least 1", f"got {num_samples}")
        possible = int((self.weights > 0).sum())
        if not replacement and num_samples > possible:
            raise ArgumentError(
                "WeightedRandomSampler", f"at most {possible} samples, as each is drawn once", f"got {num_samples}"
            )
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        generator = self.generator or default_generator
        if self.replacement:
            ends = np.cumsum(self.weights)
            drawn = generator.uniform((self.num_samples,)) * ends[-1]
            last = int(np.flatnonzero(self.weights)[-1])
            return iter(np.minimum(np.searchsorted(ends, drawn, side="right"), last).tolist())
        # The largest of u ** (1 / weight) are a sample without replacement (Efraimidis and Spirakis, 2006).
        drawn = np.maximum(generator.uniform((len(self.weights),)), np.finfo(np.float64).tiny)
        with np.errstate(divide="ignore"):
            keys = np.log(drawn) / self.weights
        return iter(np.argsort(-keys, kind="stable")[: self.num_samples].tolist())


class BatchSampler(Sampler[list[int]]):
    """Lists of ``batch_size`` numbers from ``sampler``; a shorter last one is left out with ``drop_last``."""

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ArgumentError("BatchSampler", "batch_size must be at least 1", f"got {batch_size}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for number in self.sampler:
            batch.append(number)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch


class DistributedSampler(Sampler[int]):
    """The numbers for process number ``rank`` of ``num_replicas``: every process has as many. With ``shuffle`` the
    order is drawn from ``seed`` and the epoch that ``set_epoch`` says, the same in all processes. Some samples come
    twice, so that the parts are equal; with ``drop_last`` some are left out instead.
    """

    def __init__(
        self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
        seed: int = 0, drop_last: bool = False,
    ) -> None:  # fmt: skip
        self.num_replicas = 1 if num_replicas is None else num_replicas
        self.rank = 0 if rank is None else rank
        if not 0 <= self.rank < self.num_replicas:
            raise ArgumentError("DistributedSampler", f"a rank in [0, {self.num_replicas})", f"got {rank}")
        self.dataset, self.shuffle, self.seed, self.drop_last, self.epoch = dataset, shuffle, seed, drop_last, 0
        count = len(dataset)
        self.num_samples = count // self.num_replicas if drop_last else -(-count // self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Another order is drawn for another epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        count = len(self.dataset)
        order = permutation(count, Generator().manual_seed(self.seed + self.epoch)) if self.shuffle else range(count)
        places = [order[place % count] for place in range(self.total_size)]
        return iter(places[self.rank :: self.num_replicas])
