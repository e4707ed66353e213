"""Clipping of gradients, against PyTorch's formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.backends import Backend


def params_with(*gradients: Any) -> list[te.Parameter]:
    params = []
    for values in gradients:
        array = np.asarray(values, np.float32)
        params.append(te.Parameter(np.zeros(array.shape, np.float32)))
        params[-1].grad = te.tensor(array)
    return params


def of(params: list[te.Parameter]) -> list[Any]:
    return [None if param.grad is None else param.grad.numpy() for param in params]


GRADIENTS = ([[1.0, -2.0], [3.0, 0.5]], [-4.0, 0.0, 2.0], 1.5, np.zeros((0, 2)))


@pytest.mark.parametrize("order", [1.0, 2.0, 3, 0.5, math.inf])
@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_norm(order: float, limit: float, backend: Backend) -> None:
    params = [*params_with(*GRADIENTS), te.Parameter([1.0])]
    flat = np.concatenate([np.ravel(g) for g in GRADIENTS])
    right = np.abs(flat).max() if math.isinf(order) else (np.abs(flat) ** order).sum() ** (1 / order)
    held = params[0].grad
    norm = nn.utils.clip_grad_norm_(iter(params), limit, order)
    assert norm.shape == ()
    assert norm.device == params[0].device
    np.testing.assert_allclose(norm.item(), right, rtol=1e-5)
    factor = min(1.0, limit / (right + 1e-6))
    for found, before in zip(of(params), GRADIENTS, strict=False):
        np.testing.assert_allclose(found, np.asarray(before) * factor, rtol=1e-5)
    assert params[0].grad is held
    assert params[-1].grad is None


@pytest.mark.parametrize("scale", [3e38, 1e-30])
def test_norm_of_what_has_no_square(scale: float, backend: Backend) -> None:
    params = params_with([0.6 * scale, 0.0], [0.8 * scale])
    np.testing.assert_allclose(nn.utils.clip_grad_norm_(params, 1e38).item(), scale, rtol=1e-5)
    assert np.isfinite(of(params)[0]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite(bad: float, backend: Backend) -> None:
    params = params_with([1.0, 2.0], [bad])
    with pytest.raises(te.AnomalyError, match="must be finite"):
        nn.utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(of(params)[0], [1.0, 2.0])
    norm = nn.utils.clip_grad_norm_(params, 1.0).item()
    np.testing.assert_equal(norm, bad)
    expected = [math.nan, math.nan] if math.isnan(bad) else [0.0, 0.0]  # as in PyTorch
    np.testing.assert_array_equal(of(params)[0], expected)
    assert math.isnan(of(params)[1][0])


def test_value(backend: Backend) -> None:
    params = [*params_with([[1.0, -2.0], [0.25, math.inf]], 3.0), te.Parameter([1.0])]
    nn.utils.clip_grad_value_(params, 0.5)
    np.testing.assert_array_equal(of(params)[0], [[0.5, -0.5], [0.25, 0.5]])
    np.testing.assert_array_equal(of(params)[1], 0.5)
    nn.utils.clip_grad_value_(params[1], 0.1)
    np.testing.assert_allclose(of(params)[1], 0.1, rtol=1e-6)


def test_nothing_to_clip(backend: Backend) -> None:
    params = [te.Parameter([1.0]), te.Parameter(np.zeros((0,), np.float32))]
    assert nn.utils.clip_grad_norm_(params, 1.0).item() == 0.0
    zero = params_with([0.0, 0.0])
    assert nn.utils.clip_grad_norm_(zero, 1.0).item() == 0.0
    assert of(zero)[0].tolist() == [0.0, 0.0]
    with pytest.raises(te.ArgumentError, match="norm_type must be above 0"):
        nn.utils.clip_grad_norm_(zero, 1.0, 0)


def test_clipping_in_a_minibatch_loses_nothing(backend: Backend) -> None:
    param = te.Parameter([0.0, 0.0])
    optimizer = optim.SGD([param], lr=1.0, accumulate=2)
    for _ in range(4):
        (param * te.tensor([3.0, 4.0])).sum().backward()
        if optimizer.pending == 1:
            nn.utils.clip_grad_norm_(param, 2.0)
        optimizer.step()
    np.testing.assert_allclose(param.tolist(), [-1.2, -1.6], rtol=1e-5)
