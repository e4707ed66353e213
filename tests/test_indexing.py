"""Elements by index: repeated, ignored, and wrong indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend

ROWS, WIDTH = 11, 21  # one vector of 16 and a rest


def grad_of(weight: te.Tensor) -> Any:
    assert weight.grad is not None
    return weight.grad.numpy()


@pytest.mark.parametrize("padding_idx", [None, 0, -1])
@pytest.mark.parametrize("by_frequency", [False, True])
def test_embedding(backend: Backend, padding_idx: int | None, by_frequency: bool) -> None:
    random = np.random.default_rng(0)
    index = random.integers(0, ROWS, (3, 17))
    index[index == 4] = 5  # a row that nobody asks for
    values = random.normal(size=(ROWS, WIDTH)).astype(np.float32)
    weight = te.tensor(values, requires_grad=True)
    y = te.embedding(te.tensor(index), weight, padding_idx, scale_grad_by_freq=by_frequency)
    np.testing.assert_array_equal(y.detach().numpy(), values[index])
    dy = random.normal(size=y.shape).astype(np.float32)
    expected = np.zeros((ROWS, WIDTH))
    for at in np.ndindex(*index.shape):
        if padding_idx is None or index[at] != padding_idx % ROWS:
            expected[index[at]] += dy[at] / ((index == index[at]).sum() if by_frequency else 1)
    for times in (1, 2):  # the second time into a gradient that is there
        y.backward(te.tensor(dy), retain_graph=True)
        np.testing.assert_allclose(grad_of(weight), times * expected, rtol=1e-5, atol=1e-6)


def test_ranges_and_tuples_are_indices(backend: Backend) -> None:
    x = te.arange(12).reshape(3, 4)
    assert x[range(3), te.tensor([1, 0, 3])].tolist() == [1, 4, 11]
    assert x[:, (0, 2)].tolist() == [[0, 2], [4, 6], [8, 10]]
    x[range(2), range(2)] = -1
    assert x.diagonal().tolist() == [-1, -1, 10]


def test_many_equal_indices(backend: Backend) -> None:
    weight = te.zeros(3, 16, requires_grad=True)
    te.embedding(te.full((500,), 2, dtype=te.int32), weight).sum().backward()
    assert grad_of(weight)[:, 0].tolist() == [0, 0, 500]


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_index_select(backend: Backend, dim: int) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(4, 5, 18)).astype(np.float32)
    index = np.array([3, 0, 3, 3, 2])
    x = te.tensor(values, requires_grad=True)
    y = te.index_select(x, dim, te.tensor(index))
    np.testing.assert_array_equal(y.detach().numpy(), np.take(values, index, dim))
    dy = random.normal(size=y.shape).astype(np.float32)
    y.backward(te.tensor(dy))
    expected = np.zeros_like(values)
    for k, row in enumerate(index):
        np.moveaxis(expected, dim, 0)[row] += np.moveaxis(dy, dim, 0)[k]
    np.testing.assert_allclose(grad_of(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [te.int64, te.int32, te.bool_])
def test_whole_numbers_are_selected(backend: Backend, dtype: Any) -> None:
    x = te.arange(40).reshape(2, 20).to(dtype)
    y = te.index_select(x, 0, te.tensor([1, 1, 0]))
    assert y.dtype is dtype
    np.testing.assert_array_equal(y.numpy(), x.numpy()[[1, 1, 0]])


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gather(backend: Backend, dim: int) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(4, 5, 6)).astype(np.float32)
    shape = [3, 4, 2]
    shape[dim] = 9
    index = random.integers(0, values.shape[dim], shape)
    x = te.tensor(values, requires_grad=True)
    y = te.gather(x, dim, te.tensor(index))
    dy = random.normal(size=shape).astype(np.float32)
    y.backward(te.tensor(dy))
    expected = np.zeros_like(values)
    for at in np.ndindex(*shape):
        source = (*at[:dim], index[at], *at[dim + 1 :])
        assert y.detach().numpy()[at] == values[source]
        expected[source] += dy[at]
    np.testing.assert_allclose(grad_of(x), expected, rtol=1e-5, atol=1e-6)


def test_gather_of_few_dims(backend: Backend) -> None:
    assert te.gather(te.tensor([5.0, 6.0]), 0, te.tensor([1, 1, 0])).tolist() == [6, 6, 5]
    assert te.gather(te.tensor(5.0), 0, te.tensor(0)).tolist() == 5
    assert te.take_along_dim(te.tensor([[5.0, 6.0], [7.0, 8.0]]), te.tensor([[1]]), 1).tolist() == [[6], [8]]
    assert te.take_along_dim(te.tensor([[5.0, 6.0], [7.0, 8.0]]), te.tensor([3, -4])).tolist() == [8, 5]


def test_one_hot(backend: Backend) -> None:
    assert te.one_hot(te.tensor([[2], [0]])).tolist() == [[[0, 0, 1]], [[1, 0, 0]]]
    assert te.one_hot(te.tensor(1), 4).tolist() == [0, 1, 0, 0]
    with pytest.raises(te.ArgumentError, match="num_classes"):
        te.one_hot(te.zeros(0, dtype=te.int64))
    with pytest.raises(te.IndexRangeError, match="-1"):
        te.one_hot(te.tensor([-1]))


WRONG = [-1, ROWS, -(2**31), 2**31 - 1]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_index_from_the_host_raises(backend: Backend, wrong: int) -> None:
    refuses(te.zeros(ROWS, 2), te.tensor([0, wrong]))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_index_raises_on_numpy(reference: Backend, wrong: int) -> None:
    refuses(te.zeros(ROWS, 2), te.tensor([0, wrong]) + 0)


def refuses(weight: te.Tensor, index: te.Tensor) -> None:
    for call in (
        lambda: te.embedding(index, weight),
        lambda: te.index_select(weight, 0, index),
        lambda: te.gather(weight, 0, index.reshape(2, 1)),
        lambda: te.one_hot(index, ROWS),
    ):
        with pytest.raises(te.IndexRangeError, match=rf"\[0, {ROWS}\)"):
            call()


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_index_touches_no_memory_on_opencl(opencl: Backend, wrong: int) -> None:
    index = te.tensor([0, wrong, 2]) + 0  # computed on the device, so that the host does not know it
    weight = te.ones(ROWS, WIDTH, requires_grad=True)
    x = te.ones(ROWS, 2, requires_grad=True)
    te.embedding(index, weight).backward(te.ones(3, WIDTH))
    te.gather(x, 0, index.reshape(3, 1)).backward(te.ones(3, 1))
    te.index_select(te.ones(ROWS, dtype=te.int32), 0, index)
    te.one_hot(index, ROWS)
    with pytest.raises(te.IndexRangeError, match=rf"embedding: .*{wrong}"):
        opencl.finish()
    assert grad_of(weight)[:, 0].tolist() == [1, 0, 1] + [0] * (ROWS - 3)
    assert grad_of(x)[:, 0].tolist() == [1, 0, 1] + [0] * (ROWS - 3)


def test_search_for_one_number(backend: Backend) -> None:
    row = te.tensor([1.0, 3.0, 5.0])
    assert te.searchsorted(row, te.tensor(3.0)).item() == te.searchsorted(row, 3.0).item() == 1
    assert te.bucketize(te.tensor(3.0), row, right=True).item() == 2


@pytest.mark.parametrize(("shape", "dim", "count"), [((3, 40, 5), 1, 3000), ((7, 33), 0, 50)])
def test_index_add_on_a_gpu(gpu: Any, shape: tuple[int, ...], dim: int, count: int) -> None:
    """More positions than a GPU compares all with all are sorted."""
    random = np.random.default_rng(0)
    index = random.integers(0, shape[dim], count)
    x = random.normal(size=shape).astype(np.float32)
    source = random.normal(size=(*shape[:dim], count, *shape[dim + 1 :])).astype(np.float32)
    expected = x.copy()
    np.add.at(np.moveaxis(expected, dim, 0), index, np.moveaxis(source, dim, 0))
    x_, index_, source_ = (te.tensor(array, device=gpu) for array in (x, index, source))
    np.testing.assert_allclose(te.index_add(x_, dim, index_, source_).numpy(), expected, rtol=1e-5, atol=1e-4)
