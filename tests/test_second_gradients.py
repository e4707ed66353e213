"""The gradient of every op's gradient: as central differences say, or refused by name. Never something else."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.autograd import grad
from tinyedge.backends import Backend
from tinyedge.ir.step import Op, registry
from tinyedge.nn import functional as F
from tinyedge.tensor import call_all

ELSEWHERE = {"with_gradient": "tests/test_linalg.py", "banded": "tests/test_images.py"}
OPS = [op for op in registry.values() if op.differentiable and not op.is_view and op.name not in ELSEWHERE]
LARGEST = 200


def drawn(op: type[Op], seed: int) -> tuple[list[te.Tensor | None], dict[str, Any]] | None:
    """Inputs in float64 and arguments of a call; None if it would be a large one."""
    sample, random = op.sample(Random(seed)), np.random.default_rng(seed)
    inputs: list[te.Tensor | None] = []
    for name, shape in zip(op.inputs, sample.shapes, strict=True):
        if shape is None:
            inputs.append(None)
        elif int(np.prod(shape)) > LARGEST:
            return None
        elif name in sample.integers:
            values = random.integers(0, max(sample.integers[name], 1), shape)
            inputs.append(te.tensor(values, device="numpy"))
        elif name == "condition":
            inputs.append(te.tensor(random.random(shape) < 0.5, device="numpy"))
        else:
            low, high = op.domain.get(name, (-2.0, 2.0))
            value = te.tensor(random.uniform(low, high, shape), device="numpy")
            inputs.append(value.requires_grad_(name in op.differentiable))
    return inputs, dict(sample.attrs)


def moved(value: te.Tensor, direction: Any) -> te.Tensor:
    return te.tensor(value.detach().numpy() + direction, device="numpy").requires_grad_()


@pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
@pytest.mark.parametrize("alone", [False, True])
def test_second_gradients(op: type[Op], alone: bool) -> None:
    """``alone``: only one of the inputs needs a gradient, so that others need not have been saved."""
    for seed in range(8):
        found = drawn(op, seed)
        if found is None:
            continue
        inputs, attrs = found
        differentiable = [x for x in inputs if x is not None and x.requires_grad]
        for number, x in enumerate(differentiable if alone else ()):
            x.requires_grad_(number == seed % len(differentiable))
        scalars = {name: attrs.pop(name) for name in [*attrs] if name in op.scalars}

        def run(replaced: Any) -> te.Tensor:
            values = iter(replaced)
            given = [next(values) if x is not None and x.requires_grad else x for x in inputs]  # noqa: B023
            return call_all(op, *given, scalars=scalars, **attrs)[0]  # noqa: B023

        leaves = [x for x in inputs if x is not None and x.requires_grad]
        y = run(leaves)
        if not y.requires_grad or not y.numel():
            continue
        random = np.random.default_rng(seed)
        seeds = te.tensor(random.uniform(0.5, 1.5, y.shape), device="numpy").requires_grad_()
        weights = [random.uniform(-1, 1, leaf.shape) for leaf in leaves]
        directions = [random.uniform(-1, 1, each.shape) for each in (*leaves, seeds)]
        plain = grad(y, leaves, seeds, retain_graph=True, allow_unused=True)
        try:
            slopes = grad(y, leaves, seeds, create_graph=True, allow_unused=True)
            parts = [
                (slope * te.tensor(weight, device="numpy")).sum()
                for slope, weight in zip(slopes, weights, strict=True)
                if slope is not None and slope.requires_grad
            ]
            second = grad(parts, [*leaves, seeds], retain_graph=True, allow_unused=True) if parts else ()
        except te.SecondGradientError as error:
            assert op.name in str(error)  # noqa: PT017
            return
        for one, other in zip(plain, slopes, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                np.testing.assert_allclose(other.detach().numpy(), one.detach().numpy(), rtol=1e-7, atol=1e-9)

        def along(t: float) -> float:
            *replaced, seed = [moved(x, t * d) for x, d in zip([*leaves, seeds], directions, strict=True)]  # noqa: B023
            first = grad(run(replaced), replaced, seed, allow_unused=True)
            pairs = zip(first, weights, strict=True)  # noqa: B023
            return sum(float((slope.numpy() * weight).sum()) for slope, weight in pairs if slope is not None)

        wide, narrow = ((along(h) - along(-h)) / (2 * h) for h in (1e-5, 5e-6))
        if abs(wide - narrow) > 1e-4 * (1 + abs(wide)):
            continue  # a corner lies between
        pairs = zip(second, directions, strict=False)
        total = sum(float((slope.numpy() * d).sum()) for slope, d in pairs if slope is not None)
        assert total == pytest.approx(narrow, rel=1e-4, abs=1e-4)


MATRICES = {
    "inv": lambda A: te.linalg.inv(A),
    "solve": lambda A: te.linalg.solve(A, A[..., :2] * 2),
    "solve from the right": lambda A: te.linalg.solve(A, A[..., :2, :], left=False),
    "vector": lambda A: te.linalg.solve(A, A[..., 0].clone()),
    "det": lambda A: te.linalg.det(A),
    "slogdet": lambda A: te.linalg.slogdet(A)[1],
    "cholesky": lambda A: te.linalg.cholesky(A @ A.mT + te.eye(3, dtype=A.dtype, device=A.device)),
    "upper": lambda A: te.linalg.cholesky(A @ A.mT + te.eye(3, dtype=A.dtype, device=A.device), upper=True),
    "lu": lambda A: sum(part * part.cumsum(-1) for part in te.linalg.lu(A)[1:]),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("lead", [(), (2,)])
def test_second_gradients_of_matrices(name: str, lead: tuple[int, ...]) -> None:
    """Of values that are computed apart from their gradients."""
    random = np.random.default_rng(0)
    A = te.tensor(random.uniform(-1, 1, (*lead, 3, 3)) + 2 * np.eye(3), device="numpy").requires_grad_()
    assert te.autograd.gradgradcheck(MATRICES[name], (A,))
    plain = grad(MATRICES[name](A).sum(), A)[0]
    linked = grad(MATRICES[name](A).sum(), A, create_graph=True)[0]
    np.testing.assert_allclose(linked.detach().numpy(), plain.numpy(), rtol=1e-9)


def test_second_gradients_of_matrices_on_a_device(backend: te.Backend) -> None:
    random = np.random.default_rng(0)
    A = te.tensor((random.uniform(-1, 1, (4, 3, 3)) + 2 * np.eye(3)).astype(np.float32), requires_grad=True)
    slope = grad(te.linalg.slogdet(A)[1].sum(), A, create_graph=True)[0]  # inv(A).mT
    (slope**2).sum().backward()
    inverse = np.linalg.inv(A.detach().numpy().astype(np.float64))
    expected = -2 * inverse.swapaxes(1, 2) @ inverse @ inverse.swapaxes(1, 2)
    np.testing.assert_allclose(A.grad.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_what_has_no_second_gradient_says_what_to_do() -> None:
    lstm = te.nn.LSTM(3, 4)
    y = lstm(te.randn(5, 2, 3))[0].sum()
    with pytest.raises(te.SecondGradientError, match="LSTMCell in a loop"):
        grad(y, list(lstm.parameters()), create_graph=True)
    q = te.randn(1, 2, 3, 4, requires_grad=True)
    with pytest.raises(te.SecondGradientError, match="dropout_p=0"):
        grad(te.nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5).sum(), q, create_graph=True)


def test_a_compiled_step_with_a_gradient_penalty(backend: te.Backend) -> None:
    def losses(wrap: Callable[[Any], Any]) -> list[float]:
        te.manual_seed(0)
        critic = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
        optimizer = te.optim.Adam(critic.parameters(), lr=0.01)

        def step(x: te.Tensor) -> te.Tensor:
            optimizer.zero_grad()
            x = x.detach().clone().requires_grad_()
            slope = grad(critic(x).sum(), x, create_graph=True)[0]
            loss = ((slope.norm(dim=1) - 1) ** 2).mean() + critic(x).mean()
            loss.backward()
            optimizer.step()
            return loss

        wrapped = wrap(step)
        batches = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
        return [wrapped(te.tensor(batch)).item() for batch in batches]

    np.testing.assert_allclose(losses(te.compile), losses(lambda step: step), rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"padding": 1}, {"dilation": (2, 1)}, {"return_indices": True}])
def test_maxima_of_windows(options: dict[str, Any], backend: Backend) -> None:
    """Larger than what is drawn above: a place in a window is not a place in the image."""
    x = te.randn(2, 3, 9, 8, requires_grad=True)

    def gradients(y: Any) -> te.Tensor:
        y = y[0] if isinstance(y, tuple) else y
        (slope,) = grad((y * y * y).sum(), x, create_graph=True)
        (bent,) = grad((slope * slope).sum(), x)
        return bent

    found = gradients(F.max_pool2d(x, (3, 2), **options))
    chosen = F.max_pool2d(x.detach(), (3, 2), **{**options, "return_indices": True})[1]
    expected = gradients(x.reshape(2, 3, -1).gather(2, chosen.reshape(2, 3, -1)))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), 1e-5)
