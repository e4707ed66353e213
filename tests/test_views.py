"""Ops that only look at memory anew, and cat: against NumPy, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

VIEWS: dict[str, Callable[[Any], Any]] = {
    "reshape": lambda x: x.reshape(4, 6),
    "reshape of a permuted": lambda x: x.T.reshape(6, 4),
    "permute": lambda x: x.transpose(1, 2) if isinstance(x, te.Tensor) else x.swapaxes(1, 2),
    "slice": lambda x: x[:, 1:, ::2],
    "select": lambda x: x[1],
    "new axis": lambda x: x[:, None, ..., 0],
    "nothing": lambda x: x[:, 3:],
    "index": lambda x: x[1, 2, 3],
    "expand": lambda x: x[:, :1].expand(2, 5, 4) if isinstance(x, te.Tensor) else np.broadcast_to(x[:, :1], (2, 5, 4)),
    "chain": lambda x: x.T[1:, ::2].reshape(-1),
    "cat": lambda x: te.cat([x, x[:, :1]], 1) if isinstance(x, te.Tensor) else np.concatenate([x, x[:, :1]], 1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_values_and_gradient(name: str, backend: Backend) -> None:
    function = VIEWS[name]
    x = te.tensor(X, requires_grad=True)
    y = function(x)
    expected = function(X)
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    assert y.shape == expected.shape
    weights = np.random.default_rng(0).uniform(-1, 1, expected.shape).astype(np.float32)
    y.backward(te.tensor(weights))
    gradient = np.zeros_like(X)
    if expected.size:  # the places from which each element came
        np.add.at(gradient.reshape(-1), expected.astype(int).reshape(-1), weights.reshape(-1))
        assert x.grad is not None
    if x.grad is not None:
        np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in VIEWS if name not in ("cat", "reshape of a permuted", "chain")])
def test_a_view_takes_no_memory(name: str, backend: Backend) -> None:
    x = te.tensor(X)
    before = backend.memory.allocated_bytes
    view = VIEWS[name](x)
    assert backend.memory.allocated_bytes == before
    if view.numel() and name != "expand":
        view.fill_(100.0)
        assert (x.numpy() == 100).sum() == view.numel()


@pytest.mark.parametrize(("mode", "name"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
def test_padding_with_the_inputs_own(backend: Backend, mode: str, name: str) -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    t = te.tensor(x, requires_grad=True)
    y = te.pad(t, (2, 1, 1, 0), mode=mode)
    np.testing.assert_array_equal(y.detach().numpy(), np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1)), name))
    y.sum().backward()
    assert t.grad.sum().item() == y.numel()
    with pytest.raises(te.ArgumentError, match="one of constant, reflect"):
        te.pad(t, (1, 1), mode="mirror")
