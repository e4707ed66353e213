"""Tensors: how they are made, converted, printed, indexed; and the types of results."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.dtypes import DType
from tinyedge.errors import ArgumentError, AutogradError, DtypeError, ShapeError, TinyedgeError

# Making


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, te.float32),
        (1, te.int64),
        (True, te.bool_),
        ([1, 2.5], te.float32),
        ([[1], [2]], te.int64),
        ([], te.float32),
        ([True, False], te.bool_),
        (np.float32(1), te.float32),
        (np.arange(3, dtype=np.int32), te.int32),
        (np.array([True]), te.bool_),
    ],
)
def test_dtype_of_data(data: Any, dtype: DType, backend: Backend) -> None:
    x = te.tensor(data)
    assert x.dtype is dtype
    assert x.shape == np.shape(data)
    np.testing.assert_array_equal(x.numpy(), data)
    assert x.numpy().dtype == dtype.numpy


def test_dtype_asked_for(backend: Backend) -> None:
    assert te.tensor([1, 2], dtype=te.float32).dtype is te.float32
    assert te.tensor([1.7, -1.7], dtype="int32").tolist() == [1, -1]
    assert te.tensor([0, 2], dtype=bool).tolist() == [False, True]
    assert te.tensor([1.0], dtype=np.float32).dtype is te.float32


@pytest.mark.parametrize("data", [np.zeros(2, np.complex64), np.zeros(2, np.uint16), "text", [object()]])
def test_data_that_no_tensor_holds(data: Any, backend: Backend) -> None:
    with pytest.raises(DtypeError):
        te.tensor(data)


def test_ragged_data(backend: Backend) -> None:
    with pytest.raises(ShapeError, match="equal lengths"):
        te.tensor([[1, 2], [3]])


def test_data_is_copied(backend: Backend) -> None:
    array = np.zeros(3, np.float32)
    x = te.from_numpy(array)
    array[0] = 5
    assert x.tolist() == [0, 0, 0]
    values = x.numpy()
    values[0] = 5
    assert x.tolist() == [0, 0, 0]


def test_arrays_in_any_layout(backend: Backend) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for view in (array.T, array[:, ::2], array[::-1], np.broadcast_to(array[:1], (5, 3, 4)), array.astype(">f4")):
        np.testing.assert_array_equal(te.tensor(np.asarray(view, "f4")).numpy(), view)


def test_from_numpy_wants_an_array(backend: Backend) -> None:
    with pytest.raises(ArgumentError, match=r"te\.tensor"):
        te.from_numpy([1.0])  # type: ignore[arg-type]


def test_dlpack(backend: Backend) -> None:
    x = te.tensor([[1.0, 2.0], [3.0, 4.0]]).T
    np.testing.assert_array_equal(np.from_dlpack(x), [[1, 3], [2, 4]])
    assert te.from_dlpack(np.arange(3, dtype=np.int32)).tolist() == [0, 1, 2]


def test_full(backend: Backend) -> None:
    assert te.full((2, 2), 1.5).tolist() == [[1.5, 1.5]] * 2
    assert te.full((2,), 7).dtype is te.int64
    assert te.full((), True).item() is True
    assert te.full((0, 3), 1.0).shape == (0, 3)
    with pytest.raises(ShapeError):
        te.full((-1,), 1.0)


# To Python and NumPy


def test_numbers(backend: Backend) -> None:
    assert float(te.tensor(1.5)) == 1.5
    assert int(te.tensor([[3]])) == 3
    assert bool(te.tensor(0.0)) is False
    assert [10, 20, 30][te.tensor(1)] == 20
    with pytest.raises(ShapeError):
        te.tensor([1.0, 2.0]).item()
    with pytest.raises(ShapeError):
        bool(te.tensor([1.0, 2.0]))
    with pytest.raises(DtypeError):
        operator.index(te.tensor(1.0))


def test_numpy_of_what_has_a_gradient(backend: Backend) -> None:
    x = te.tensor([1.0], requires_grad=True)
    with pytest.raises(AutogradError, match="detach"):
        x.numpy()
    np.testing.assert_array_equal(np.asarray(x.detach()), [1.0])


def test_numpy_on_the_left(backend: Backend) -> None:
    y = np.float32(2.0) * te.tensor([1.0, 2.0])
    assert isinstance(y, te.Tensor)
    assert y.tolist() == [2.0, 4.0]


def test_container(backend: Backend) -> None:
    x = te.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1.0, 2.0], [3.0, 4.0]]
    assert x.size() == (2, 2)
    assert x.size(-1) == 2
    assert (x.ndim, x.dim(), x.numel(), x.nbytes, x.itemsize) == (2, 2, 4, 16, 4)
    assert len({x, x, x.clone()}) == 2
    with pytest.raises(ShapeError):
        len(te.tensor(1.0))


def test_printing(backend: Backend) -> None:
    x = te.tensor([1.0, 2.5], requires_grad=True)
    assert repr(x) == f"tensor([1. , 2.5], shape=(2,), dtype=float32, device='{backend.name}', requires_grad=True)"
    assert "grad_fn=<mul>" in repr(x * 2)
    assert "..." in repr(te.tensor(np.zeros(10000, np.float32)))
    assert repr(te.Parameter([1.0])).startswith("Parameter containing:\ntensor(")
    assert "shape=(0,)" in repr(te.tensor([]))


def test_strides(backend: Backend) -> None:
    x = te.tensor(np.zeros((2, 3), np.float32))
    assert x.stride() == (3, 1)
    assert x.T.stride() == (1, 3)
    assert not x.T.is_contiguous()
    assert x.T.contiguous().is_contiguous()
    assert x.contiguous() is x


# Types of results

TYPES = (te.bool_, te.uint8, te.int8, te.int16, te.int32, te.int64, te.float32)
CATEGORIES = {te.bool_: 0, te.float32: 2}


def expected_type(a: DType, b: DType) -> DType:
    if {a, b} == {te.uint8, te.int8}:
        return te.int16
    return max(a, b, key=TYPES.index)


@pytest.mark.parametrize(("a", "b"), list(itertools.product(TYPES, TYPES)))
def test_promotion_of_two_tensors(a: DType, b: DType, backend: Backend) -> None:
    x, y = te.tensor([1, 1], dtype=a), te.tensor([1, 0], dtype=b)
    for function in (operator.add, operator.mul):
        assert function(x, y).dtype is expected_type(a, b)
    assert (x / y).dtype is te.float32
    assert (x < y).dtype is te.bool_
    # A 0-d tensor counts only if its category is higher.
    higher = CATEGORIES.get(b, 1) > CATEGORIES.get(a, 1)
    assert (x + te.tensor(1, dtype=b)).dtype is (b if higher else a)


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [
        (te.bool_, True, te.bool_),
        (te.bool_, 1, te.int64),
        (te.bool_, 1.0, te.float32),
        (te.int32, True, te.int32),
        (te.int32, 1, te.int32),
        (te.int32, 1.0, te.float32),
        (te.int64, 1.0, te.float32),
        (te.uint8, 1, te.uint8),
        (te.int8, True, te.int8),
        (te.int16, 1.0, te.float32),
        (te.float32, 1, te.float32),
        (te.float32, True, te.float32),
    ],
)
def test_promotion_with_a_number(dtype: DType, number: Any, expected: DType, backend: Backend) -> None:
    x = te.tensor([1, 0], dtype=dtype)
    assert (x + number).dtype is expected
    assert (number + x).dtype is expected


def test_float64_with_numbers(reference: Backend) -> None:
    x = te.tensor([1 / 3], dtype=te.float64)
    assert (x * 0.1).dtype is te.float64
    assert (x * 0.1).item() == (np.array([1 / 3]) * 0.1).item()
    assert (x + te.tensor([1.0])).dtype is te.float64
    assert (x + te.tensor(1.0)).dtype is te.float64


def test_casts(backend: Backend) -> None:
    x = te.tensor([1.9, -1.9, 0.0])
    assert x.int().tolist() == [1, -1, 0]
    assert x.bool().tolist() == [True, True, False]
    assert x.long().dtype is te.int64
    assert x.to(te.float32) is x
    assert te.tensor([1, 2]).float().tolist() == [1.0, 2.0]
    with pytest.raises(DtypeError):
        x.to("complex64")


# Indexing, against NumPy

INDICES: list[Any] = [
    0,
    -1,
    slice(None),
    slice(1, None),
    slice(None, None, 2),
    slice(5, 2),
    (slice(None), 1),
    (..., 0),
    (0, ..., slice(1, 3)),
    None,
    (slice(None), None, 2),
    (1, 2, 3),
    (),
    ...,
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_reading_an_index(index: Any, backend: Backend) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(te.tensor(array)[index].numpy(), array[index])


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_writing_an_index(index: Any, backend: Backend) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    x = te.tensor(array)
    x[index] = -1.0
    array[index] = -1.0
    np.testing.assert_array_equal(x.numpy(), array)


@pytest.mark.parametrize("index", [2, -3, (0, 3), (0, 0, 0, 0), "a", 1.5, slice(None, None, -1)], ids=repr)
def test_bad_index(index: Any, backend: Backend) -> None:
    with pytest.raises(TinyedgeError):
        te.tensor(np.zeros((2, 3, 4), np.float32))[index]


# Refused where it would be silently wrong, and kinder where it was unclear


def test_a_gradient_is_not_lost_on_the_way(backend: Backend) -> None:
    w = te.tensor([1.0, 4.0], requires_grad=True)
    with pytest.raises(te.AutogradError, match="detach"):
        (w * 2).to("numpy" if backend.name != "numpy" else "opencl")
    with pytest.raises(te.AutogradError, match="numpy"):
        w + np.sqrt(w)
    with pytest.raises(te.AutogradError, match="numpy"):
        np.asarray(w)
    assert np.asarray(w.detach()).tolist() == [1.0, 4.0]
    assert (np.float64(2.0) * w).requires_grad


def test_writing_into_what_overlaps_is_refused(backend: Backend) -> None:
    x = te.zeros(1, 3).expand(4, 3)
    for write in (lambda: x.fill_(1.0), lambda: x.add_(1.0), lambda: x.copy_(te.ones(4, 3)), lambda: x.zero_()):
        with pytest.raises(te.ArgumentError, match="clone"):
            write()
    assert x.tolist() == [[0.0] * 3] * 4


def test_parameters_are_floats(backend: Backend) -> None:
    with pytest.raises(te.DtypeError, match="floating"):
        te.nn.Parameter(te.tensor([1, 2]))
    p = te.nn.Parameter([1.0, 2.0])
    (p * p).sum().backward()
    del p.grad
    assert p.grad is None


def test_small_comforts(backend: Backend) -> None:
    loss = te.tensor(1.23456)
    assert f"{loss:.3f}" == "1.235"
    assert (loss == None, loss != None) == (False, True)  # noqa: E711
    assert loss.to("cpu").device == loss.device
