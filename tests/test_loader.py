"""Loaders by PyTorch's names: datasets of the user's own, samplers, collating, processes."""

from __future__ import annotations

import random
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
    random_split,
)

Pair = namedtuple("Pair", "x y")


class Squares(Dataset[dict[str, Any]]):
    """Samples as a user writes them: one int, a dict of a tensor, a number, a text."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict[str, Any]:
        assert type(index) is int
        return {"x": np.full(2, index, np.float32), "square": index**2, "name": f"n{index}"}


class Noisy(Dataset[float]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> float:
        if index == 5:
            assert get_worker_info() is not None
        return random.random()


class Broken(Squares):
    def __getitem__(self, index: int) -> dict[str, Any]:
        raise KeyError("no such file")


class Count(IterableDataset[int]):
    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


def begin(number: int) -> None:
    assert get_worker_info() is not None
    assert get_worker_info().id == number  # type: ignore[union-attr]


def test_datasets_of_dicts(backend: Backend) -> None:
    first, *_, last = DataLoader(Squares(), batch_size=3)
    assert first["x"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert (first["x"].dtype, first["x"].device, first["square"].dtype) == (te.float32, backend.name, te.int64)
    assert (first["name"], last["square"].tolist()) == (["n0", "n1", "n2"], [36])


def test_processes_load_the_same_in_the_same_order(backend: Backend) -> None:
    alone = [batch["square"].tolist() for batch in DataLoader(Squares(), 2)]
    loader = DataLoader(Squares(), 2, num_workers=2, worker_init_fn=begin, pin_memory=True)
    batches = list(loader)
    assert [batch["square"].tolist() for batch in batches] == alone
    assert batches[0]["x"].device == backend.name
    noise = []
    for _ in range(2):
        te.manual_seed(0)
        noise.append([value for batch in DataLoader(Noisy(), 2, num_workers=2) for value in batch.tolist()])
    assert noise[0] == noise[1]
    assert len(set(noise[0])) == 6
    with pytest.raises(KeyError, match="no such file"):
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert get_worker_info() is None


def test_collating(backend: Backend) -> None:
    found = default_collate([(1, 2.0, True), (3, 4.0, False)])
    assert isinstance(found, list)
    assert [part.dtype for part in found] == [te.int64, te.float64, te.bool_] or backend.name != "numpy"
    pair = default_collate([Pair(te.ones(2), "a"), Pair(te.zeros(2), "b")])
    assert isinstance(pair, Pair)
    assert (pair.x.tolist(), pair.y) == ([[1, 1], [0, 0]], ["a", "b"])
    nested = default_collate([{"a": [np.float32(1), {"b": 2}]}, {"a": [np.float32(3), {"b": 4}]}])
    assert (nested["a"][0].tolist(), nested["a"][1]["b"].tolist()) == ([1, 3], [2, 4])


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: default_collate([np.ones(2), np.ones(3)]), te.ShapeError, "Pad them, or pass a collate_fn"),
    (lambda: default_collate([(1, 2), (1,)]), te.ShapeError, "samples of one length"),
    (lambda: default_collate([{"a": 1}, {"b": 1}]), te.ShapeError, "one has no 'a'"),
    (lambda: default_collate([object()]), te.DtypeError, "got object"),
    (lambda: DataLoader(Squares(), shuffle=True, sampler=[1]), te.ArgumentError, "a sampler or shuffle"),
    (lambda: DataLoader(Squares(), 2, batch_sampler=[[1]]), te.ArgumentError, "a batch_sampler, or"),
    (lambda: DataLoader(Count(), shuffle=True), te.ArgumentError, "an order of its own"),
    (lambda: DataLoader(Count(), num_workers=1), te.ArgumentError, "num_workers=0"),
    (lambda: DataLoader(Squares(), num_workers=-1), te.ArgumentError, "at least 0"),
    (lambda: DataLoader(Squares(), batch_size=None, drop_last=True), te.ArgumentError, "no drop_last"),
    (lambda: DataLoader(Squares(), multiprocessing_context="fork"), te.ArgumentError, "no threads of the OpenCL"),
    (lambda: ConcatDataset([]), te.ArgumentError, "at least one dataset"),
    (lambda: ConcatDataset([Count()]), te.ArgumentError, "Use ChainDataset"),
    (lambda: ConcatDataset([Squares()])[7], te.IndexRangeError, r"an index in \[-7, 7\), but got 7"),
    (lambda: WeightedRandomSampler([1, 0], 2, replacement=False), te.ArgumentError, "at most 1 samples"),
    (lambda: WeightedRandomSampler([-1.0], 2), te.ArgumentError, "weights of at least 0"),
    (lambda: RandomSampler(Squares(), num_samples=0), te.ArgumentError, "num_samples must be"),
    (lambda: BatchSampler([1], 0, False), te.ArgumentError, "batch_size must be at least 1"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD)
def test_bad_arguments(reference: Backend, call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_other_ways_to_batch(reference: Backend) -> None:
    assert [batch.tolist() for batch in DataLoader(Count(), 2)] == [[0, 1], [2, 3], [4]]
    assert [batch.tolist() for batch in DataLoader(Count(), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Count(), None)) == [0, 1, 2, 3, 4]
    assert (len(DataLoader(Count(), 2)), len(DataLoader(Count(), 2, drop_last=True))) == (3, 2)
    numbers = TensorDataset(np.arange(6))
    picked = DataLoader(numbers, batch_sampler=[[5, 0], [1]])
    assert [batch[0].tolist() for batch in picked] == [[5, 0], [1]]
    assert len(picked) == 2
    one = next(iter(DataLoader(numbers, batch_size=None)))
    assert (one[0].shape, one[0].item()) == ((), 0)
    summed = DataLoader(numbers, 3, collate_fn=lambda samples: sum(int(x) for (x,) in samples))
    assert list(summed) == [3, 12]
    assert [b[0].tolist() for b in DataLoader(numbers, 4, sampler=[3, 1, 2])] == [[3, 1, 2]]


def test_parts_and_sums_of_datasets(reference: Backend) -> None:
    both = Squares() + Subset(Squares(), [6, 1])
    assert isinstance(both, ConcatDataset)
    assert (len(both), both[7]["square"], both[-1]["square"], both[0]["square"]) == (9, 36, 1, 0)
    assert list(ChainDataset([Count(), [9]])) == [0, 1, 2, 3, 4, 9]
    parts = [random_split(range(10), [7, 3], generator=te.Generator().manual_seed(3)) for _ in range(2)]
    assert [part.indices for part in parts[0]] == [part.indices for part in parts[1]]
    assert sorted(parts[0][0].indices + parts[0][1].indices) == list(range(10))
    assert list(parts[0][1]) == parts[0][1].indices


def test_a_dataset_of_tensors_gives_tensors(backend: Backend) -> None:
    data = TensorDataset(te.ones(4, 2), te.tensor([0, 1, 2, 3]))
    x, y = data[2]
    assert isinstance(x, te.Tensor)
    assert (x.device, x.shape, y.item()) == (backend.name, (2,), 2)
    x, y = next(iter(DataLoader(Subset(data, [3, 1]), 2)))
    assert (x.shape, y.tolist()) == ((2, 2), [3, 1])


def test_samplers(reference: Backend) -> None:
    source = range(6)
    te.manual_seed(1)
    first, second = list(RandomSampler(source)), list(RandomSampler(source))
    te.manual_seed(1)
    assert list(RandomSampler(source)) == first != second
    assert sorted(first) == sorted(second) == list(range(6)) == list(SequentialSampler(source))
    assert len(list(RandomSampler(source, num_samples=15))) == 15
    assert Counter(RandomSampler(source, num_samples=12)) == dict.fromkeys(source, 2)
    assert set(RandomSampler(source, replacement=True, num_samples=200)) == set(source)
    assert sorted(SubsetRandomSampler([4, 2])) == [2, 4]
    drawn = Counter(WeightedRandomSampler([0.0, 1.0, 3.0, 0.0], 4000))
    assert set(drawn) == {1, 2}
    assert drawn[2] / 4000 == pytest.approx(0.75, abs=0.03)
    assert sorted(WeightedRandomSampler([2.0, 0.0, 1.0], 2, replacement=False)) == [0, 2]
    firsts = Counter(next(iter(WeightedRandomSampler([1.0, 3.0], 1, replacement=False))) for _ in range(2000))
    assert firsts[1] / 2000 == pytest.approx(0.75, abs=0.04)
    assert list(BatchSampler(source, 4, drop_last=True)) == [[0, 1, 2, 3]]
