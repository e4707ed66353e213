"""What PyTorch takes from NumPy: other names of parameters, arrays as operands."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend


def test_axis_and_keepdims(backend: Backend) -> None:
    x = te.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert te.sum(x, axis=0).tolist() == [4.0, 6.0]  # type: ignore[call-arg]
    assert x.mean(axis=1, keepdims=True).tolist() == [[1.5], [3.5]]  # type: ignore[call-arg]
    assert te.compile(lambda x: x.sum(axis=1))(x).tolist() == [3.0, 7.0]  # type: ignore[call-arg]
    assert list(inspect.signature(te.sum).parameters) == ["input", "dim", "keepdim", "dtype"]
    with pytest.raises(TypeError, match="axis"):
        te.sum(x, dim=0, axis=0)  # type: ignore[call-arg]


def test_arrays_as_operands(backend: Backend) -> None:
    x, array = te.tensor([1.0, 2.0], requires_grad=True), np.array([3.0, 4.0], np.float32)
    assert (x * array).tolist() == (array * x).tolist() == [3.0, 8.0]
    assert te.maximum(x, te.tensor(array)).tolist() == [3.0, 4.0]
    (x * array).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 4.0]


def test_dtypes_meet(backend: Backend) -> None:
    assert te.result_type(te.tensor([1]), 1.0) is te.float32
    assert te.promote_types(te.uint8, te.int8) is te.int16
    assert te.can_cast(te.int32, te.float32)
    assert not te.can_cast(te.float32, te.int32)
    assert te.finfo(te.float32).eps == float(np.finfo(np.float32).eps)
    assert te.iinfo(te.int8).max == 127


def test_shapes_in_place(backend: Backend) -> None:
    x = te.arange(6).reshape(2, 3)
    assert x.t_() is x
    assert x.shape == (3, 2)
    assert x.unsqueeze_(0).shape == (1, 3, 2)
    assert x.squeeze_().transpose_(0, 1).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(te.AutogradError, match="leaf"):
        te.zeros(1, 2, requires_grad=True).squeeze_()
    with pytest.raises(te.CaptureError, match="squeeze"):
        te.compile(lambda x: (x * 1).squeeze_())(te.zeros(1, 2))


def test_samples_have_their_moments(backend: Backend) -> None:
    te.manual_seed(3)
    x = te.empty(20000)
    assert x.exponential_(2.0).mean().item() == pytest.approx(0.5, rel=0.05)
    assert x.geometric_(0.25).mean().item() == pytest.approx(4.0, rel=0.05)
    assert x.bernoulli_(0.3).mean().item() == pytest.approx(0.3, rel=0.05)
    assert te.poisson(te.full((20000,), 3.0)).mean().item() == pytest.approx(3.0, rel=0.05)
    drawn = te.multinomial(te.tensor([0.0, 1.0, 3.0]), 20000, replacement=True)
    assert te.bincount(drawn, minlength=3).tolist()[0] == 0
    assert drawn.float().mean().item() == pytest.approx(1.75, rel=0.02)
    rows = te.multinomial(te.ones(500, 4), 4).sort(1).values
    assert (rows == te.arange(4)).all()
    first = te.multinomial(te.tensor([[1.0, 3.0]]).expand(20000, 2).contiguous(), 1)
    assert first.float().mean().item() == pytest.approx(0.75, rel=0.05)
