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


@pytest.mark.parametrize("order", [-2.0, -1.0, 0.5, 2.0])
def test_norms_of_zeros_have_no_gradient(backend: Backend, order: float) -> None:
    """PyTorch's choice at a corner, or where a slope is infinite: also of the vectors that have a zero, for which a
    norm of negative order is 0.
    """
    x = te.tensor([[0.0, 0.0], [0.0, -2.0]], requires_grad=True)
    norms = te.linalg.vector_norm(x, order, 1)
    norms.sum().backward()
    slope = 0.0 if order < 0 else -1.0
    np.testing.assert_allclose(norms.tolist(), [0.0, 0.0 if order < 0 else 2.0], rtol=1e-6)
    np.testing.assert_allclose(x.grad.tolist(), [[0.0, 0.0], [0.0, slope]], rtol=1e-6)
