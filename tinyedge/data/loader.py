"""The loader: from a dataset to batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from tinyedge.data.collate import Stacked, default_collate, on_device, stacked
from tinyedge.data.dataset import IterableDataset, Subset, TensorDataset
from tinyedge.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from tinyedge.data.workers import loaded_ahead
from tinyedge.errors import ArgumentError
from tinyedge.ops.random import Generator, default_generator


class _Load:
    """One batch, or one sample, of a dataset; it is sent to the processes that load."""

    def __init__(self, collate: Callable[[Any], Any] | None, batched: bool) -> None:
        self.collate = collate
        self.batched = batched

    def __call__(self, dataset: Any, indices: Any) -> Any:
        if not self.batched:
            sample = dataset[indices]
            return _converted(sample) if self.collate is None else self.collate(sample)
        if self.collate is None:
            base, chosen = dataset, indices
            while isinstance(base, Subset):
                base, chosen = base.dataset, [base.indices[number] for number in chosen]
            if type(base).__getitem__ is TensorDataset.__getitem__:  # all samples at once
                return [Stacked(values) for values in base.batch(chosen)]
        return self.together([dataset[index] for index in indices])

    def together(self, samples: list[Any]) -> Any:
        return stacked(samples) if self.collate is None else self.collate(samples)


def _converted(sample: Any) -> Any:
    """A sample that is in no batch: its arrays become tensors."""
    if isinstance(sample, (np.ndarray, np.generic)):
        return Stacked(sample)
    if isinstance(sample, dict):
        return {key: _converted(value) for key, value in sample.items()}
    if isinstance(sample, (list, tuple)):
        parts = [_converted(item) for item in sample]
        return type(sample)(*parts) if hasattr(sample, "_fields") else type(sample)(parts)
    return sample


class _Seeded:
    """The numbers below ``count`` in a new order each epoch, which follows from a seed."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        return iter(self.random.permutation(len(self.dataset)).tolist())


class DataLoader:
    """Batches of ``dataset`` on the device, a new order each epoch if ``shuffle``.

    Orders are drawn from ``generator``, by default that of ``te.manual_seed``, or follow from ``seed``: the same run
    twice sees the same samples. ``sampler`` gives numbers of samples, ``batch_sampler`` lists of them; with
    ``batch_size=None`` samples come one by one. ``collate_fn`` makes a batch of a list of samples, by default
    ``default_collate``.

    ``num_workers`` processes load batches ahead, ``prefetch_factor`` each. They are spawned, so the dataset and the
    functions are pickled, and the main module is guarded by ``if __name__ == "__main__"``. Each batch has random
    numbers of its own, whichever process loads it. ``pin_memory`` and ``persistent_workers`` change nothing.

    Errors: ArgumentError for arguments that exclude each other, and for ``multiprocessing_context="fork"``.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        seed: int | None = None,
    ) -> None:
        iterable = isinstance(dataset, IterableDataset)
        if batch_size is not None and (
            isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1
        ):
            raise ArgumentError("DataLoader", "batch_size must be at least 1, or None", f"got {batch_size}")
        if num_workers < 0:
            raise ArgumentError("DataLoader", "num_workers must be at least 0", f"got {num_workers}")
        named = getattr(multiprocessing_context, "_name", multiprocessing_context)
        if named not in (None, "spawn"):
            raise ArgumentError(
                "DataLoader", 'multiprocessing_context="spawn"', f"got {named!r}",
                "A forked process has no threads of the OpenCL driver: leave it out.",
            )  # fmt: skip
        if iterable and (shuffle or sampler is not None or batch_sampler is not None or num_workers):
            raise ArgumentError(
                "DataLoader", "no shuffle, sampler or workers with an IterableDataset, which has an order of its own",
                "got one", "Shuffle in the dataset's __iter__, and pass num_workers=0.",
            )  # fmt: skip
        if sampler is not None and shuffle:
            raise ArgumentError("DataLoader", "a sampler or shuffle", "got both")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ArgumentError(
                "DataLoader", "a batch_sampler, or batch_size, shuffle, sampler and drop_last", "got both"
            )
        if batch_size is None and drop_last:
            raise ArgumentError("DataLoader", "no drop_last with batch_size=None", "got both")
        self.dataset = dataset
        self.batch_size = None if batch_sampler is not None else batch_size
        self.drop_last = drop_last
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.prefetch_factor = prefetch_factor
        self.persistent_workers = persistent_workers
        self.sampler: Any = sampler
        if sampler is None and not iterable:
            if not shuffle:
                self.sampler = SequentialSampler(dataset)
            elif seed is not None:
                self.sampler = _Seeded(dataset, seed)
            else:
                self.sampler = RandomSampler(dataset, generator=generator)
        self.batch_sampler: Any = batch_sampler
        if batch_sampler is None and batch_size is not None and not iterable:
            self.batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            count = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        collate = None if self.collate_fn is default_collate else self.collate_fn
        if isinstance(self.dataset, IterableDataset):
            return map(on_device, self._of_iterable(_Load(collate, self.batch_size is not None)))
        load = _Load(collate, self.batch_sampler is not None)
        places = self.sampler if self.batch_sampler is None else self.batch_sampler
        if not self.num_workers:
            return (on_device(load(self.dataset, place)) for place in places)
        drawn = (self.generator or default_generator).uniform((1,)).item()
        ahead = self.prefetch_factor or 2
        return map(
            on_device,
            loaded_ahead(
                self.dataset,
                load,
                places,
                self.num_workers,
                ahead,
                int(drawn * 2**53),
                self.worker_init_fn,
                self.timeout,
            ),
        )

    def _of_iterable(self, load: _Load) -> Iterator[Any]:
        samples = iter(self.dataset)
        if self.batch_size is None:
            for sample in samples:
                yield _converted(sample) if load.collate is None else load.collate(sample)
            return
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield load.together(batch)
