"""An index outside its range that a device computed: every op that takes indices says so, at the next read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend

ROWS = 5
WIDTH = 20  # more than a vector, and no multiple of one
WRONG = [ROWS, -ROWS - 1, 2**31 - 1, -(2**31), 2**32, -(2**40)]

Call = Callable[[te.Tensor, te.Tensor], te.Tensor]


def column(i: te.Tensor) -> te.Tensor:
    return i.reshape(-1, 1)


def image(x: te.Tensor) -> te.Tensor:
    """ROWS classes of WIDTH places."""
    return x.reshape(1, ROWS, WIDTH)


def wide(i: te.Tensor) -> te.Tensor:
    return i.repeat(WIDTH)[:WIDTH].reshape(1, WIDTH)


CALLS: dict[str, tuple[str, Call]] = {
    "embedding": ("embedding", lambda x, i: te.embedding(i, x)),
    "embedding with padding_idx": ("embedding", lambda x, i: te.embedding(i, x, padding_idx=1)),
    "index_select": ("index_select", lambda x, i: te.index_select(x, 0, i)),
    "index_select of a column": ("index_select", lambda x, i: te.index_select(x.T.contiguous(), 1, i)),
    "index_select of integers": ("index_select", lambda x, i: te.index_select(x.int(), 0, i)),
    "gather": ("gather", lambda x, i: te.gather(x, 0, column(i))),
    "gather of a line": ("gather", lambda x, i: te.gather(x[:, 0], 0, i)),
    "gather of bools": ("gather", lambda x, i: te.gather(x > 0, 0, column(i))),
    "take_along_dim": ("take_along_dim", lambda x, i: te.take_along_dim(x, column(i), 0)),
    "brackets": ("getitem", lambda x, i: x[i]),
    "brackets of a later dim": ("getitem", lambda x, i: x.T[:, i]),
    "brackets with two tensors": ("getitem", lambda x, i: x[:, :ROWS][i, te.zeros_like(i)]),
    "brackets with two tensors, the second wrong": ("getitem", lambda x, i: x[:, :ROWS][te.zeros_like(i), i]),
    "one_hot": ("one_hot", lambda x, i: te.one_hot(i, ROWS)),
    "scatter": ("scatter", lambda x, i: te.scatter(x, 0, column(i), te.ones(3, 1))),
    "scatter of a number": ("scatter", lambda x, i: te.scatter(x, 0, column(i), 2.0)),
    "scatter that adds": ("scatter", lambda x, i: te.scatter(x, 0, column(i), 2.0, reduce="add")),
    "scatter of bools": ("scatter", lambda x, i: te.scatter(x > 0, 0, column(i), True)),
    "scatter_add": ("scatter_add", lambda x, i: te.scatter_add(x, 0, column(i), te.ones(3, 1))),
    "index_add": ("index_add", lambda x, i: te.index_add(x, 0, i, te.ones(3, WIDTH))),
    "index_copy": ("index_copy", lambda x, i: te.index_copy(x, 0, i, te.ones(3, WIDTH))),
    "cross_entropy": ("cross_entropy", lambda x, i: te.cross_entropy(x.T[:3], i)),
    "cross_entropy of one row": ("cross_entropy", lambda x, i: te.cross_entropy(x.T[0], i[1])),
    "cross_entropy of many": ("cross_entropy", lambda x, i: te.cross_entropy(image(x), wide(i), reduction="none")),
    "cross_entropy, smooth": ("cross_entropy", lambda x, i: te.cross_entropy(x.T[:3], i, label_smoothing=0.1)),
    "nll_loss": ("nll_loss", lambda x, i: te.nll_loss(te.log_softmax(x.T[:3], 1), i)),
    "nll_loss, summed": ("nll_loss", lambda x, i: te.nll_loss(x.T[:3], i, reduction="sum")),
}  # fmt: skip


def data(requires_grad: bool = False) -> te.Tensor:
    return te.tensor(
        np.linspace(-1, 1, ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH), requires_grad=requires_grad
    )


def computed(index: te.Tensor, offset: te.Tensor) -> te.Tensor:
    return index + offset


@pytest.fixture(params=CALLS, ids=lambda name: name.replace(" ", "-"))
def named(request: Any) -> tuple[str, Call]:
    return CALLS[request.param]


def expected(call: str, wrong: int) -> str:
    return rf"{call}: .*{re.escape(str(wrong))}"


@pytest.mark.parametrize("wrong", WRONG)
def test_eager(backend: Backend, named: tuple[str, Call], wrong: int) -> None:
    name, call = named
    with pytest.raises(te.IndexRangeError, match=expected(name, wrong)):
        call(data(), te.tensor([0, wrong, 1]) + 0).numpy()
    right = call(data(), te.tensor([0, 2, 1]) + 0)
    assert np.isfinite(right.numpy()).all()  # it is said once


@pytest.mark.parametrize("wrong", WRONG[:2])
@pytest.mark.parametrize("dtype", [te.int32, te.int64])
def test_compiled(backend: Backend, named: tuple[str, Call], wrong: int, dtype: te.DType) -> None:
    """The same program, replayed with an index that is right, and with one that is not."""
    name, call = named

    def function(x: te.Tensor, index: te.Tensor) -> te.Tensor:
        return call(x, index * 1)

    compiled, x = te.compile(function), data()
    right = te.tensor([0, 2, 1], dtype=dtype)
    for _ in range(3):
        assert compiled(x, right).tolist() == function(x, right).tolist()
    with pytest.raises(te.IndexRangeError, match=expected(name, wrong)):
        compiled(x, te.tensor([0, wrong, 1], dtype=dtype)).numpy()
    assert compiled(x, right).tolist() == function(x, right).tolist()


def test_a_gradient_alone(opencl: Backend, named: tuple[str, Call]) -> None:
    """Where only the gradient is read, and the program does not compute the result, which nothing needs."""
    name, call = named

    @te.compile
    def function(x: te.Tensor, index: te.Tensor) -> te.Tensor:
        x = (x * 1).detach().requires_grad_()
        result = call(x, index * 1)
        if not result.requires_grad:
            return result
        result.backward(te.ones_like(result))
        assert x.grad is not None
        return x.grad * 1

    right = te.tensor([0, 2, 1])
    for _ in range(3):
        assert np.isfinite(function(data(), right).numpy()).all()
    result = call(data(True), right)
    if result.grad_fn is not None and result.grad_fn.op.name in ("scatter_add", "index_add"):
        return  # the gradient does not depend on the index
    with pytest.raises(te.IndexRangeError, match=name):
        function(data(), te.tensor([0, ROWS, 1])).numpy()


def test_it_is_found_by_whatever_is_read_next(opencl: Backend) -> None:
    other = te.ones(2)
    te.scatter(data(), 0, te.tensor([[1]]) * 9, 1.0)
    with pytest.raises(te.IndexRangeError, match=r"scatter: indices must be in \[0, 5\), but one is 9"):
        other.tolist()
    assert other.tolist() == [1, 1]
    te.scatter(data(), 0, te.tensor([[1]]) * 9, 1.0)
    with pytest.raises(te.IndexRangeError, match="scatter"):
        opencl.finish()
    opencl.finish()


def test_ignored_targets_are_right(backend: Backend) -> None:
    target = te.tensor([0, -100, 1]) + 0
    assert np.isfinite(te.cross_entropy(data().T[:3], target).item())
    assert np.isfinite(te.nll_loss(data().T[:3], te.tensor([0, 9, 1]) + 0, ignore_index=9).item())


def test_a_step_of_training(opencl: Backend) -> None:
    """The error comes from the first value that is read after the update, whatever that is."""
    layer = nn.Embedding(ROWS, WIDTH)
    optimizer = te.optim.SGD(layer.parameters(), lr=0.1)

    @te.compile
    def step(index: te.Tensor) -> te.Tensor:
        loss = layer(index * 1).sum()
        loss.backward()
        return loss

    for last in (1, 2, 3):
        step(te.tensor([0, last]))
        optimizer.step()
        optimizer.zero_grad()
    assert np.isfinite(layer.weight.detach().numpy()).all()

    def train() -> None:
        step(te.tensor([0, ROWS]))
        optimizer.step()
        layer.state_dict()["weight"].numpy()

    with pytest.raises(te.IndexRangeError, match="embedding"):
        train()


@pytest.mark.parametrize("indices", [([0], [ROWS]), ([ROWS], [0]), ([0], [-ROWS - 1])])
def test_brackets_with_two_tensors_from_the_host(backend: Backend, indices: tuple[list[int], list[int]]) -> None:
    """A wrong one must not stand for another element of the two dims."""
    x = te.arange(ROWS * ROWS).reshape(ROWS, ROWS)
    with pytest.raises(te.IndexRangeError, match="getitem"):
        x[te.tensor(indices[0]), te.tensor(indices[1])].tolist()
    assert x[te.tensor([1, -1]), te.tensor([-1, 0])].tolist() == [9, 20]
