"""Reductions of the sizes at which a device's kernels take other ways than for the small ones of test_ops."""

from __future__ import annotations

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend


@pytest.mark.parametrize(
    ("shape", "dim"),
    [
        ((9, 35), 0),  # places beside each other, and some to spare
        ((3, 40, 300), 1),
        ((2, 5, 16), 0),
        ((5, 3, 2, 20), (1, 2)),
        ((128, 1000), 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("across", [False, True])
def test_sum_agrees_with_numpy(
    opencl: Backend, shape: tuple[int, ...], dim: int | tuple[int, ...], across: bool
) -> None:
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    given = te.tensor(np.moveaxis(x, 0, -1).copy()).permute(-1, *range(len(shape) - 1)) if across else te.tensor(x)
    np.testing.assert_allclose(given.sum(dim).numpy(), x.sum(axis=dim), rtol=1e-5, atol=1e-4)


NAN, INF = float("nan"), float("inf")
GRADIENTS = {
    "max": ([1.0, 3.0, 3.0, 2.0], [0, 0.5, 0.5, 0]),
    "max of NaN": ([NAN, 3.0, NAN, 2.0], [0.5, 0, 0.5, 0]),
    "min of NaN": ([NAN, 3.0, 3.0, 2.0], [1, 0, 0, 0]),
    "amax of NaN": ([NAN, 3.0, 3.0, 2.0], [NAN] * 4),
    "amin of NaN": ([NAN, 3.0, 3.0, 2.0], [NAN] * 4),
    "median": ([2.0, 3.0, 2.0, 2.0], [1 / 3, 0, 1 / 3, 1 / 3]),
    "median of NaN": ([NAN, 3.0, 2.0, 2.0], [1, 0, 0, 0]),
    "nanmedian of NaN": ([NAN, 3.0, 2.0, 2.0], [0, 0, 0.5, 0.5]),
    "nanmedian of NaN alone": ([NAN, NAN], [0.5, 0.5]),
}


@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients_of_one_element_of_all(case: str, backend: Backend) -> None:
    """Equal elements share it; NaN takes it, or makes all of it NaN, as in PyTorch."""
    values, expected = GRADIENTS[case]
    x = te.tensor(values, requires_grad=True)
    getattr(te, case.partition(" ")[0])(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("ord", [-3.5, -2, -1, -0.5, 0, 0.5, 1, 2, 3, INF, -INF])
def test_norms_of_zeros_have_gradients(ord: float, backend: Backend) -> None:
    """0 at an element that is 0; all of them are 0 where a negative power makes the norm 0."""
    x = te.tensor([[0.0, 0.0], [0.0, 2.0]], requires_grad=True)
    y = te.linalg.vector_norm(x, ord, 1)
    y.sum().backward()
    norms = {0: [0, 1], INF: [0, 2], -INF: [0, 0]}.get(ord, [0, 2 if ord > 0 else 0])
    assert y.tolist() == pytest.approx(norms)
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0], [0, 1 if ord > 0 else 0]], rtol=1e-6)


@pytest.mark.parametrize("ord", [-2, 0.5, 3, 7])
def test_a_norm_of_one_element_is_its_size(ord: float, backend: Backend) -> None:
    """Its powers would overflow."""
    x = te.tensor([[1e20], [-3e-20], [2.0]], requires_grad=True)
    y = te.linalg.vector_norm(x, ord, 1)
    y.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), [1e20, 3e-20, 2], rtol=1e-6)
    assert x.grad.tolist() == [[1], [-1], [1]]


@pytest.mark.parametrize("shape", [(40_000,), (3, 9_000), (9_000, 3), (2, 700), (5, 300, 4), (700, 130)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8"])
@pytest.mark.parametrize("name", ["max", "min"])
def test_places_of_extremes(name: str, dtype: str, shape: tuple[int, ...], any_backend: Backend) -> None:
    """The first of equal extremes, wherever a line is split among work-items."""
    x = np.random.default_rng(len(shape)).integers(0, 100, shape).astype(dtype)
    if dtype.startswith("float") and len(shape) < 3:
        x[-7:] = x[-300:-293] = np.nan
    for axis in range(len(shape)):
        values, indices = getattr(te, name)(te.tensor(x), axis)
        expected = getattr(np, "arg" + name)(x, axis)
        np.testing.assert_array_equal(indices.numpy(), expected)
        np.testing.assert_array_equal(
            values.numpy(), np.take_along_axis(x, np.expand_dims(expected, axis), axis).squeeze(axis)
        )
