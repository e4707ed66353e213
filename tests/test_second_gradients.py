"""The gradient of every op's gradient: as central differences say, or refused by name. Never something else."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.autograd import grad
from tinyedge.backends import Backend
from tinyedge.gradients.compositions import COMPOSED
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
            assert op.name not in COMPOSED
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
    "qr": lambda A: te.cat(list(te.linalg.qr(A)), -1).cumsum(-1),
    "tall qr": lambda A: sum(part.cumsum(-1).sum(-2) for part in te.linalg.qr(A[..., :2])),
    "wide qr": lambda A: te.cat(list(te.linalg.qr(A[..., :2, :])), -1).cumsum(-1),
    "eigh": lambda A: (
        te.linalg.eigh(A @ A.mT).eigenvectors.abs().cumsum(-1) * te.linalg.eigvalsh(A @ A.mT)[..., None, :]
    ),
    "eigvalsh": lambda A: te.linalg.eigvalsh(A + A.mT),
    "svd": lambda A: te.cat([te.linalg.svd(A)[k].abs() for k in (0, 2)], -1),
    "tall svd": lambda A: te.cat([part.abs().flatten(-2) for part in te.linalg.svd(A[..., :2], False)[::2]], -1),
    "wide svd": lambda A: te.cat([part.abs().flatten(-2) for part in te.linalg.svd(A[..., :2, :])[::2]], -1),
    "svdvals": lambda A: te.linalg.svdvals(A),
    "nuclear": lambda A: te.linalg.matrix_norm(A, "nuc"),
    "pinv": lambda A: te.linalg.pinv(A[..., :2]),
    "wide pinv": lambda A: te.linalg.pinv(A[..., :2, :]),
    "lstsq": lambda A: te.linalg.lstsq(A[..., :2], A[..., 2:]).solution,
}


ELEMENTWISE = {
    "i0": te.special.i0, "i0e": te.special.i0e, "i1": te.special.i1, "i1e": te.special.i1e,
    "amax": lambda x: te.zeros_like(x).scatter_reduce(0, te.zeros_like(x).long(), x**2, "amax", include_self=False),
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_second_gradients_of_values_computed_apart(name: str) -> None:
    x = te.tensor([-2.5, -0.3, 0.7, 3.0], dtype=te.float64, device="numpy").requires_grad_()
    assert te.autograd.gradgradcheck(ELEMENTWISE[name], (x,))


def test_a_choice_passes_second_gradients_on() -> None:
    """Those of the probabilities that it was made of."""
    slopes = []
    for hard in (False, True):
        te.manual_seed(0)
        x = te.tensor([[0.3, -0.2, 1.1]], requires_grad=True)
        slope = grad((F.gumbel_softmax(x, hard=hard) * te.tensor([1.0, 2.0, 3.0])).sum(), x, create_graph=True)[0]
        slopes.append(grad((slope**2).sum(), x)[0].numpy())
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-6)


def test_decompositions_leave_no_cycles() -> None:
    A = te.eye(3, device="numpy").requires_grad_()
    for function in (te.linalg.qr, te.linalg.eigh, te.linalg.svd):
        found = function(A)
        gone = [weakref.ref(part._slot.storage) for part in found]
        del found
        assert not any(each() for each in gone)


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


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_second_gradients_of_layers_over_time(kind: str, backend: Backend) -> None:
    """As those of the cells in a loop, with initial states that are leaves, and through saturated gates."""
    te.manual_seed(0)
    layer = getattr(nn, kind)(3, 4)
    cell = getattr(nn, kind + "Cell")(3, 4)
    cell.load_state_dict({key.removesuffix("_l0"): value * 3 for key, value in layer.state_dict().items()})
    layer.load_state_dict({key + "_l0": value for key, value in cell.state_dict().items()})
    x = te.randn(5, 2, 3, requires_grad=True)
    states = [te.randn(2, 4, requires_grad=True) for _ in range(1 + (kind == "LSTM"))]
    wholes = []
    for model in (layer, cell):
        if model is layer:
            one = [state.unsqueeze(0) for state in states]
            y = model(x, tuple(one) if kind == "LSTM" else one[0])[0]
        else:
            now, steps = tuple(states) if kind == "LSTM" else states[0], []
            for t in range(5):
                now = model(x[t], now)
                steps.append(now[0] if kind == "LSTM" else now)
            y = te.stack(steps)
        slopes = grad((y**2).sum(), [x, *states, *model.parameters()], create_graph=True)
        penalty = sum((slope**2).sum() for slope in slopes)
        wholes.append([*slopes, *grad(penalty, [x, *states, *model.parameters()])])
    for one, other in zip(*wholes, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=2e-3, atol=2e-3)


def test_second_gradients_of_attention_with_dropout(backend: Backend) -> None:
    """The same probabilities are dropped again; also by a replay, which drops others than its capture."""

    def slopes(q: te.Tensor, k: te.Tensor, v: te.Tensor) -> te.Tensor:
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.4)
        return sum((slope**2).sum() for slope in grad((y**2).sum(), [q, k, v], create_graph=True))

    random = np.random.default_rng(0)
    values = [random.standard_normal((2, 2, 5, 6)).astype(np.float32) for _ in range(3)]
    for run in (slopes, te.compile(slopes)):
        for seed in (1, 2):
            leaves = [te.tensor(value, requires_grad=True) for value in values]
            te.manual_seed(seed)
            y = F.scaled_dot_product_attention(*leaves, dropout_p=0.4)
            plain = sum(float((slope**2).sum()) for slope in grad((y**2).sum(), leaves))
            te.manual_seed(seed)
            assert run(*leaves).item() == pytest.approx(plain, rel=1e-4)


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
