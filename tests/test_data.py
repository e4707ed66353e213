"""Data sets, their split, loaders, and the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.data import DataLoader, TensorDataset, digits, progress, random_split

PAIRS = TensorDataset(np.arange(10, dtype=np.float32)[:, None], np.arange(10))


def test_digits() -> None:
    pytest.importorskip("sklearn")
    images, labels = digits().arrays
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((1797, 1, 8, 8), "float32", (1797,), "int64")
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert set(labels.tolist()) == set(range(10))


def test_digits_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from its folder, without its import; or, where the file lies elsewhere, through its function."""
    datasets = pytest.importorskip("sklearn.datasets")
    source = datasets.load_digits()
    read = digits().arrays
    monkeypatch.setattr(sys.modules["tinyedge.data.digits"], "find_spec", lambda name: None)
    for images, labels in (read, digits().arrays):
        np.testing.assert_array_equal(images[:, 0], (source.images / 16).astype(np.float32))
        np.testing.assert_array_equal(labels, source.target)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "tinyedge\[demo\]"'):
        digits()


def test_dataset() -> None:
    x, label = PAIRS[3]
    assert (len(PAIRS), x.tolist(), label) == (10, [3.0], 3)
    odd = PAIRS.subset(PAIRS.arrays[1] % 2 == 1)
    assert odd.arrays[1].tolist() == [1, 3, 5, 7, 9]
    assert odd.arrays[0].tolist() == [[1], [3], [5], [7], [9]]


def test_split_is_disjoint_whole_and_the_same_for_one_seed() -> None:
    parts = random_split(PAIRS, [7, 3], seed=1)
    again = random_split(PAIRS, [0.7, 0.3], seed=1)
    assert [len(part) for part in parts] == [7, 3]
    assert sorted(np.concatenate([part.arrays[1] for part in parts]).tolist()) == list(range(10))
    for part, same in zip(parts, again, strict=True):
        assert part.arrays[1].tolist() == same.arrays[1].tolist()
        assert part.arrays[0][:, 0].tolist() == part.arrays[1].tolist()
    assert random_split(PAIRS, [7, 3], seed=2)[0].arrays[1].tolist() != parts[0].arrays[1].tolist()


@pytest.mark.parametrize(
    ("fractions", "sizes"), [((0.55, 0.45), [6, 4]), ((1 / 3, 1 / 3, 1 / 3), [4, 3, 3]), ((1.0,), [10])]
)
def test_fractions_are_rounded_as_pytorch_does(fractions: tuple[float, ...], sizes: list[int]) -> None:
    assert [len(part) for part in random_split(PAIRS, fractions)] == sizes


def test_loader(backend: Backend) -> None:
    loader = DataLoader(PAIRS, batch_size=4)
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    x, y = batches[-1]
    assert (x.device, x.dtype, x.tolist(), y.dtype, y.tolist()) == (
        backend.name,
        te.float32,
        [[8], [9]],
        te.int64,
        [8, 9],
    )
    assert len(DataLoader(PAIRS, 4, drop_last=True)) == len(list(DataLoader(PAIRS, 4, drop_last=True))) == 2
    x, y = next(iter(DataLoader(PAIRS)))
    assert (x.shape, y.shape) == ((1, 1), (1,))


def test_shuffled_epochs_differ_and_repeat_with_the_seed(reference: Backend) -> None:
    def epochs(seed: int) -> list[list[int]]:
        loader = DataLoader(PAIRS, 3, shuffle=True, seed=seed)
        return [[label for _, y in loader for label in y.tolist()] for _ in range(2)]

    first, second = epochs(0)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert epochs(0) == [first, second]
    assert epochs(1) != [first, second]


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: TensorDataset(), te.ShapeError, "one or more arrays"),
    (lambda: TensorDataset(np.zeros(3), np.zeros(4)), te.ShapeError, r"got \(3,\), \(4,\)"),
    (lambda: random_split(PAIRS, [5, 4]), te.ArgumentError, "add up to 10"),
    (lambda: random_split(PAIRS, [0.5, 0.4]), te.ArgumentError, "or to 1"),
    (lambda: DataLoader(PAIRS, 0), te.ArgumentError, "batch_size must be at least 1"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD)
def test_bad_arguments(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress([3, 4, 5], desc="reading")) == [3, 4, 5]
    assert list(progress((n for n in (6, 7)), total=2)) == [6, 7]
    text = capsys.readouterr().err
    assert "reading: 100%" in text
    assert "3/3" in text
    assert "2/2" in text
