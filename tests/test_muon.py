"""Muon: its updates, of which all but the products are in NumPy below; and what it shares with other optimizers.

The other optimizers are in ``tests/test_optim.py``; they take parameters of any rank.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import optim
from tinyedge.backends import Backend

Array = np.ndarray[Any, Any]


def bf16(x: Array) -> Array:
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    kept = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32)
    return kept.view(np.float32).astype(np.float64)


def muon(param: Array, gradients: list[Array], lr: float = 1e-3, decay: float = 0.1, momentum: float = 0.95) -> Array:
    """torch.optim.Muon's formula."""
    a, b, c = 3.4445, -4.7750, 2.0315
    kept = np.zeros_like(param)
    for g in gradients:
        kept = kept + (g - kept) * (1 - momentum)
        x = bf16(kept + (g - kept) * (1 - momentum))
        x = x.T if x.shape[0] > x.shape[1] else x
        x = bf16(x / max(bf16(np.sqrt(np.sum(x * x))), bf16(np.array(1e-7))))
        for _ in range(5):
            gram = bf16(x @ x.T)
            x = bf16(a * x + bf16(b * gram + c * gram @ gram) @ x)
        x = x.T if param.shape[0] > param.shape[1] else x
        param = param * (1 - lr * decay) - lr * np.sqrt(max(1, param.shape[0] / param.shape[1])) * x
    return param


def drawn(shape: tuple[int, ...], count: int = 5) -> tuple[Array, list[Array]]:
    random = np.random.default_rng(0)
    start, *gradients = (random.standard_normal(shape).astype(np.float32) for _ in range(count + 1))
    return start, gradients


@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (3, 70), (1, 1), (1, 9), (65, 66)])
def test_trajectory_is_the_formulas(backend: Backend, shape: tuple[int, ...]) -> None:
    start, gradients = drawn(shape)
    param = te.Parameter(start)
    optimizer = optim.Muon([param], lr=0.01)
    for g in gradients:
        param.grad = te.tensor(g)
        optimizer.step()
    expected = muon(start.astype(np.float64), [g.astype(np.float64) for g in gradients], 0.01)
    # One unit of bfloat16 is 2 ** -8; a sum in another order may round to the next one, and the rest follows it.
    np.testing.assert_allclose(param.detach().numpy(), expected, atol=5 * 0.01 * 2**-6)
    moved = param.detach().numpy() - start
    np.testing.assert_allclose(moved, expected - start, atol=0.03 * np.abs(moved).max())


def test_all_singular_values_of_a_step_are_near_one(backend: Backend) -> None:
    start, gradients = drawn((12, 8), 1)
    param = te.Parameter(start)
    param.grad = te.tensor(gradients[0])
    optim.Muon([param], lr=1.0, weight_decay=0.0, adjust_lr_fn="original").step()
    values = np.linalg.svd(param.detach().numpy() - start, compute_uv=False) / np.sqrt(12 / 8)
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_accumulates_replays_and_goes_on_from_a_state_dict(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    start, gradients = drawn((6, 4), 8)
    found = []
    for compiled in ("0", "1"):
        monkeypatch.setenv("TINYEDGE_COMPILE", compiled)
        param = te.Parameter(start)
        optimizer = optim.Muon([param], lr=0.02, accumulate=2)
        for number, g in enumerate(gradients):
            (param * te.tensor(g)).sum().backward()
            optimizer.step()
            if number == 5:
                saved = copy.deepcopy(optimizer.state_dict())
                optimizer = optim.Muon([param], lr=7.0, accumulate=2)
                optimizer.load_state_dict(saved)
        assert param.grad is None
        found.append(param.detach().numpy())
    np.testing.assert_array_equal(found[0], found[1])
    means = [(a + b) / 2 for a, b in zip(gradients[::2], gradients[1::2], strict=True)]
    expected = muon(start.astype(np.float64), [g.astype(np.float64) for g in means], 0.02)
    np.testing.assert_allclose(found[0], expected, atol=4 * 0.02 * 2**-6)


def test_a_compiled_step(backend: Backend) -> None:
    start, gradients = drawn((6, 4), 4)
    found = []
    for compiled in (False, True):
        param = te.Parameter(start)
        optimizer = optim.Muon([param], lr=0.02)

        def step(g: te.Tensor, param: Any = param, optimizer: Any = optimizer) -> te.Tensor:
            optimizer.zero_grad()
            loss = (param * g).sum()
            loss.backward()
            optimizer.step()
            return loss

        called = te.compile(step) if compiled else step
        for g in gradients:
            called(te.tensor(g))
        found.append(param.detach().numpy())
    np.testing.assert_allclose(found[1], found[0], atol=4 * 0.02 * 2**-6)


def test_not_finite_gradients_and_masters(backend: Backend) -> None:
    start, gradients = drawn((6, 4), 2)
    param = te.Parameter(start)
    optimizer = optim.Muon([param], nonfinite="skip")
    param.grad = te.tensor(np.where(start > 1, np.nan, start).astype(np.float32))
    optimizer.step()
    assert optimizer.skipped == 1
    np.testing.assert_array_equal(param.detach().numpy(), start)
    small = te.Parameter(te.tensor(start).to(te.bfloat16))
    optimizer = optim.Muon([small], lr=1e-4, master=True)
    for _ in range(3):
        small.grad = te.tensor(gradients[0])
        optimizer.step()
    master = optimizer.state[small]["master"]
    np.testing.assert_array_equal(small.detach().float().numpy(), master.to(te.bfloat16).float().numpy())
    assert (master.numpy() != small.detach().float().numpy()).any()


def test_what_is_no_matrix_is_refused(reference: Backend) -> None:
    with pytest.raises(te.ArgumentError, match="matrices"):
        optim.Muon([te.Parameter([1.0])])
    with pytest.raises(te.ArgumentError, match="adjust_lr_fn"):
        optim.Muon([te.Parameter([[1.0]])], adjust_lr_fn="other")
