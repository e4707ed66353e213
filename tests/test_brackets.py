"""Reading and writing with brackets: every kind of index against NumPy, gradients against where and products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import AutogradError, IndexRangeError, ShapeError


class Position:
    """What Python takes for an index."""

    def __index__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "Position()"


INDICES: list[Any] = [
    1,
    Position(),
    (slice(None), Position()),
    -1,
    (0, 2),
    slice(1, 3),
    (slice(None), slice(0, 4, 2)),
    (Ellipsis, 1),
    (None, 1),
    [2, 0],
    (slice(None), [1, 1, 3]),
    ([0, 2], [3, 1]),
    (slice(None), [[0, 1], [2, 3]], slice(1, 2)),
    ([0, 2], slice(None), [1, 0]),
    ([0, -1],),
    np.arange(60).reshape(3, 4, 5) % 7 == 0,
    (np.array([True, False, True]), [1, 2]),
    (slice(None), np.array([True, False, True, True]), 0),
    slice(3, 3),
    (1, [0, 2], slice(0, 5, 3)),
]


def own(index: Any) -> Any:
    """The index as tinyedge takes it: arrays as tensors."""
    items = index if isinstance(index, tuple) else (index,)
    made = tuple(te.tensor(np.array(item)) if isinstance(item, (list, np.ndarray)) else item for item in items)
    return made if isinstance(index, tuple) else made[0]


def fresh(index: Any) -> tuple[Any, Any]:
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    part = values[tuple(index) if isinstance(index, tuple) else index]
    return values, np.random.default_rng(0).standard_normal(part.shape).astype(np.float32)


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_reads(backend: Backend, index: Any) -> None:
    values, _ = fresh(index)
    assert np.array_equal(te.tensor(values)[own(index)].numpy(), values[index])


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_writes(backend: Backend, index: Any) -> None:
    values, new = fresh(index)
    x, expected = te.tensor(values), values.copy()
    x[own(index)] = te.tensor(new)
    expected[index] = new
    assert np.array_equal(x.numpy(), expected)
    x[own(index)] = -1.0
    expected[index] = -1.0
    assert np.array_equal(x.numpy(), expected)


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_writes_under_autograd(backend: Backend, index: Any) -> None:
    values, new = fresh(index)
    x, source = te.tensor(values, requires_grad=True), te.tensor(new, requires_grad=True)
    y = x * 2
    y[own(index)] = source
    expected = values * 2
    expected[index] = new
    assert np.array_equal(y.detach().numpy(), expected)
    factor = np.random.default_rng(1).standard_normal(values.shape).astype(np.float32)
    (y * te.tensor(factor)).sum().backward()
    kept = factor * 2
    kept[index] = 0
    assert x.grad is not None
    assert source.grad is not None
    assert np.allclose(x.grad.numpy(), kept)
    if len(np.unique(np.arange(60).reshape(3, 4, 5)[index])) == new.size:  # each place once
        assert np.allclose(source.grad.numpy(), factor[index])


def test_writes_in_a_compiled_function(backend: Backend) -> None:
    @te.compile
    def step(x: te.Tensor, where: te.Tensor, v: te.Tensor) -> te.Tensor:
        y = x * 2
        y[:, where] = v
        y[0] = 1.0
        return y

    x, v = te.tensor(np.ones((2, 3), np.float32)), te.tensor([[5.0], [6.0]])
    for place in (0, 2, 1):
        expected = np.full((2, 3), 2.0)
        expected[1, place] = 6.0
        expected[0] = 1.0
        assert np.array_equal(step(x, te.tensor([place]), v).numpy(), expected)


def test_what_cannot_be_written_is_refused(backend: Backend) -> None:
    x = te.zeros(2, 3)
    with pytest.raises(IndexRangeError, match="one is 3"):
        x[:, te.tensor([3])] = 1.0
    with pytest.raises(ShapeError, match="broadcast"):
        x[te.tensor([0, 1])] = te.zeros(2)
    with pytest.raises(AutogradError, match="leaf"):
        te.zeros(2, requires_grad=True)[te.tensor([0])] = 1.0
    with pytest.raises(ShapeError):
        x[:, :2] = te.zeros(3)
    assert x.tolist() == [[0.0] * 3] * 2


def test_index_put_adds(backend: Backend) -> None:
    x = te.zeros(4)
    x.index_put_((te.tensor([1, 1, 3]),), te.tensor([1.0, 2.0, 3.0]), accumulate=True)
    assert x.tolist() == [0.0, 3.0, 0.0, 3.0]
    assert te.where(x > 0)[0].tolist() == [1, 3]
