"""Losses against the formulas in PyTorch's documentation, written in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError
from tinyedge.ir.step import Step

RNG = np.random.default_rng(11)
Formula = Callable[[np.ndarray, np.ndarray], np.ndarray]


def uniform(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


def close(got: te.Tensor | None, expected: np.ndarray | float, tolerance: float = 1e-4) -> None:
    assert got is not None
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def slope(formula: Formula, a: np.ndarray, b: np.ndarray, h: float = 1e-6) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (formula(a + h, b) - formula(a - h, b)) / (2 * h)


def huber(delta: float) -> Formula:
    def formula(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        d = np.abs(a - b)
        return np.where(d < delta, d * d / 2, delta * (d - delta / 2))

    return formula


def bce(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -(b * np.log(a) + (1 - b) * np.log(1 - a))


PAIRS: dict[str, tuple[Callable[..., te.Tensor], Formula, tuple[float, float], tuple[float, float]]] = {
    "mse": (te.mse_loss, lambda a, b: (a - b) ** 2, (-2, 2), (-2, 2)),
    "l1": (te.l1_loss, lambda a, b: np.abs(a - b), (-2, 2), (-2, 2)),
    "huber": (lambda *x, **k: te.huber_loss(*x, delta=0.5, **k), huber(0.5), (-2, 2), (-2, 2)),
    "smooth_l1": (
        lambda *x, **k: te.smooth_l1_loss(*x, beta=0.5, **k),
        lambda a, b: huber(0.5)(a, b) / 0.5,
        (-2, 2),
        (-2, 2),
    ),
    "bce": (te.binary_cross_entropy, bce, (0.1, 0.9), (0, 1)),
    "bce_logits": (
        te.binary_cross_entropy_with_logits,
        lambda a, b: bce(1 / (1 + np.exp(-a)), b),
        (-3, 3),
        (0, 1),
    ),
    "kl_div": (te.kl_div, lambda a, b: b * (np.log(b) - a), (-3, 0), (0.1, 1)),
    "kl_div_log": (
        lambda *x, **k: te.kl_div(*x, log_target=True, **k),
        lambda a, b: np.exp(b) * (b - a),
        (-3, 0),
        (-3, 0),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_pairs(backend: Backend, name: str, reduction: str) -> None:
    loss, formula, (a_low, a_high), (b_low, b_high) = PAIRS[name]
    a, b = uniform(5, 37, low=a_low, high=a_high), uniform(5, 37, low=b_low, high=b_high)
    ta = te.tensor(a, requires_grad=True)
    y = loss(ta, te.tensor(b), reduction=reduction)
    terms = formula(a.astype(np.float64), b.astype(np.float64))
    weights = uniform(5, 37) if reduction == "none" else np.float32(1.5)
    close(y, {"none": terms, "sum": terms.sum(), "mean": terms.mean()}[reduction])
    y.backward(te.tensor(weights))
    close(ta.grad, slope(formula, a, b) * weights / (a.size if reduction == "mean" else 1), 1e-3)


def test_mse_broadcasts_and_reaches_both(backend: Backend) -> None:
    a, b = uniform(3, 4), uniform(4)
    ta, tb = te.tensor(a, requires_grad=True), te.tensor(b, requires_grad=True)
    with pytest.warns(UserWarning, match="is broadcast"):
        y = te.mse_loss(ta, tb)
    y.backward()
    close(y, ((a - b) ** 2).mean())
    close(ta.grad, 2 * (a - b) / 12)
    close(tb.grad, -2 * (a - b).sum(0) / 12)


def test_mse_is_one_kernel_each_way(opencl: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    ta = te.tensor(uniform(3, 7), requires_grad=True)
    tb = te.tensor(uniform(3, 7))
    kernels: list[str] = []
    draft = opencl._draft  # type: ignore[attr-defined]

    def counted(step: Step, *rest: object) -> object:
        kernels.append(f"{step.op.name} {step.direction}")
        return draft(step, *rest)

    monkeypatch.setattr(opencl, "_draft", counted)
    te.mse_loss(ta, tb).backward()
    assert [name for name in kernels if name.startswith("mse_loss")] == ["mse_loss forward", "mse_loss backward"]


def test_losses_with_weights(backend: Backend) -> None:
    a, b, w = uniform(4, 3), uniform(4, 3), uniform(4, 3, low=0.5)
    ta, tb, tw = te.tensor(a), te.tensor(b), te.tensor(w)
    close(te.mse_loss(ta, tb, weight=tw), ((a - b) ** 2 * w).sum() / w.sum())
    close(te.l1_loss(ta, tb, weight=tw, reduction="sum"), (np.abs(a - b) * w).sum())
    t = uniform(4, 3, low=0, high=1)
    p = 1 / (1 + np.exp(-a))
    close(te.binary_cross_entropy_with_logits(ta, te.tensor(t), weight=tw), (bce(p, t) * w).mean())
    pos = np.array([0.5, 1.0, 3.0], np.float32)
    expected = -(pos * t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    close(te.binary_cross_entropy_with_logits(ta, te.tensor(t), pos_weight=te.tensor(pos)), expected)


def test_sure_answers_have_finite_losses(backend: Backend) -> None:
    x = te.tensor([0.0, 1.0, 0.0, 1.0])
    close(te.binary_cross_entropy(x, te.tensor([1.0, 0.0, 0.0, 1.0]), reduction="none"), np.array([100, 100, 0, 0]))
    big = te.tensor([1000.0, -1000.0])
    close(te.binary_cross_entropy_with_logits(big, te.tensor([0.0, 0.0]), reduction="none"), np.array([1000, 0]))


def test_means_of_nothing(backend: Backend) -> None:
    nothing = te.tensor(np.zeros((0, 3), np.float32))
    assert np.isnan(te.mse_loss(nothing, nothing).item())
    assert te.mse_loss(nothing, nothing, reduction="sum").item() == 0
    targets = te.tensor(np.zeros(0, np.int64))
    assert np.isnan(te.cross_entropy(nothing, targets).item())
    assert te.cross_entropy(nothing, targets, reduction="sum").item() == 0
    ignored = te.tensor([-100, -100])
    assert np.isnan(te.cross_entropy(te.tensor(uniform(2, 3)), ignored).item())


def expected_cross_entropy(
    x: np.ndarray, target: np.ndarray, weight: np.ndarray | None, ignore_index: int, smoothing: float, reduction: str
) -> tuple[np.ndarray, np.ndarray]:
    """The loss and its gradient with respect to x, for a gradient of ones."""
    x = x.astype(np.float64)
    classes = x.shape[1]
    w = np.ones(classes) if weight is None else weight.astype(np.float64)
    logs = x - np.log(np.exp(x).sum(1, keepdims=True))
    keep = target != ignore_index
    hot = np.moveaxis(np.eye(classes)[np.where(keep, target, 0)], -1, 1)
    columns = w.reshape(-1, *(1,) * (x.ndim - 2))
    goal = ((1 - smoothing) * hot + smoothing / classes) * columns * keep[:, None]
    losses = -(goal * logs).sum(1)
    divisor = (w[np.where(keep, target, 0)] * keep).sum() if reduction == "mean" else 1.0
    gradient = (np.exp(logs) * goal.sum(1, keepdims=True) - goal) / divisor
    return losses if reduction == "none" else losses.sum() / divisor, gradient


@pytest.mark.parametrize("shape", [(1, 10), (5, 3), (2, 4, 3), (2, 40, 2, 3), (70, 33), (1, 1000)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(
    backend: Backend, shape: tuple[int, ...], reduction: str, weighted: bool, smoothing: float
) -> None:
    x = uniform(*shape)
    target = RNG.integers(0, shape[1], (shape[0], *shape[2:]))
    if target.size > 1:
        target.flat[[0, -1]] = 0, 1  # and the last is ignored
    weight = uniform(shape[1], low=0.5) if weighted else None
    tx = te.tensor(x, requires_grad=True)
    ignore_index = 1 if target.size > 1 else -100
    y = te.cross_entropy(
        tx,
        te.tensor(target),
        None if weight is None else te.tensor(weight),
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    y.backward(te.tensor(np.ones(y.shape, np.float32)))
    expected, gradient = expected_cross_entropy(x, target, weight, ignore_index, smoothing, reduction)
    close(y, expected)
    close(tx.grad, gradient)


def test_cross_entropy_without_a_batch_and_of_int32(backend: Backend) -> None:
    x = uniform(5)
    y = te.cross_entropy(te.tensor(x), te.tensor(np.array(2, np.int32)))
    close(y, np.log(np.exp(x).sum()) - x[2])
    assert y.shape == ()


def test_cross_entropy_keeps_no_probabilities(backend: Backend) -> None:
    x = te.tensor(uniform(4, 100), requires_grad=True)
    saved = te.cross_entropy(x, te.tensor([1, 2, 3, 4])).grad_fn.saved
    own = [slot for name, (slot, _) in saved.items() if slot is not None and name not in ("x", "target")]
    assert sum(slot.numel for slot in own) == 5


def test_cross_entropy_of_large_logits(backend: Backend) -> None:
    x = te.tensor(np.array([[1000.0, 0.0], [-1000.0, 0.0], [-np.inf, 0.0]], np.float32))
    close(te.cross_entropy(x, te.tensor([1, 0, 1]), reduction="none"), np.array([1000.0, 1000.0, 0.0]))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 4, 3)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_cross_entropy_of_probabilities(backend: Backend, shape: tuple[int, ...], reduction: str) -> None:
    dim = 0 if len(shape) == 1 else 1
    x, w = uniform(*shape), uniform(4, low=0.5)
    p = uniform(*shape, low=0.1, high=1.0)
    p /= p.sum(dim, keepdims=True)
    columns = w.reshape(-1, *(1,) * (len(shape) - 1 - dim))
    logs = x - np.log(np.exp(x).sum(dim, keepdims=True))
    losses = -((p * 0.8 + 0.05) * logs * columns).sum(dim)
    y = te.cross_entropy(te.tensor(x), te.tensor(p), te.tensor(w), reduction=reduction, label_smoothing=0.2)
    close(y, {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction])


def test_nll_loss_of_log_softmax_is_cross_entropy(backend: Backend) -> None:
    x, target, weight = uniform(3, 5, 2), RNG.integers(0, 5, (3, 2)), uniform(5, low=0.5)
    gradients = []
    for loss in (
        lambda t: te.cross_entropy(t, te.tensor(target), te.tensor(weight), ignore_index=2),
        lambda t: te.nll_loss(te.log_softmax(t, 1), te.tensor(target), te.tensor(weight), ignore_index=2),
    ):
        t = te.tensor(x, requires_grad=True)
        y = loss(t)
        y.backward()
        gradients.append((y, t.grad))
    close(gradients[0][0], gradients[1][0].detach().numpy())
    close(gradients[0][1], gradients[1][1].numpy())


@pytest.mark.parametrize("bad", [-1, 3, 2**31 - 1])
def test_a_class_outside_the_range(backend: Backend, bad: int) -> None:
    x = te.tensor(uniform(2, 3), requires_grad=True)
    weight = te.tensor(uniform(3, low=0.5))
    for loss in (te.cross_entropy, te.nll_loss):
        x.grad = None
        with pytest.raises(IndexRangeError, match=r"indices must be in \[0, 3\), or -100.*one is"):
            loss(x, te.tensor([1, bad]), weight)
        computed = te.tensor([1, bad]) + 0
        if backend.name == "numpy":
            with pytest.raises(IndexRangeError, match=r"each target must be in \[0, 2\].*one is"):
                loss(x, computed, weight)
            continue
        y = loss(x, computed, weight, reduction="none")
        y.sum().backward()
        with pytest.raises(IndexRangeError, match=rf"{loss.__name__}: indices must be in \[0, 3\).*one is {bad}"):
            y.detach().numpy()
        assert np.isfinite(x.grad.numpy()[0]).all()
        assert np.isnan(x.grad.numpy()[1]).all()


def test_what_is_refused(backend: Backend) -> None:
    x = te.tensor(uniform(2, 3))
    with pytest.raises(ShapeError, match=r"target must have the shape \(2,\)"):
        te.cross_entropy(x, te.tensor([1]))
    with pytest.raises(ShapeError, match=r"target must have the input's shape"):
        te.cross_entropy(x, te.tensor([0.5, 0.5]))
    with pytest.raises(ShapeError, match="weight must be float32"):
        te.cross_entropy(x, te.tensor([1, 2]), te.tensor([1.0, 2.0]))
    with pytest.raises(ArgumentError, match="label_smoothing"):
        te.cross_entropy(x, te.tensor([1, 2]), label_smoothing=1.5)
    with pytest.raises(ArgumentError, match="reduction must be"):
        te.l1_loss(x, x, reduction="average")
    with pytest.raises(DtypeError, match="integers"):
        te.nll_loss(x, te.tensor([0.0, 1.0]))
    with pytest.raises(ShapeError, match="input's shape"):
        te.binary_cross_entropy(x, te.tensor([0.5]))
