"""ctc_loss: against the sum over all alignments, and central differences of the logits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, CaptureError, TinyedgeError

Array = np.ndarray[Any, Any]


def log_softmax(x: Array) -> Array:
    shifted = x - x.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def by_enumeration(log_probs: Array, target: tuple[int, ...]) -> float:
    """Every sequence of classes whose repeats and blanks, left out, give the target."""
    total = 0.0
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        if tuple(label for label, _ in itertools.groupby(path) if label) == target:
            total += float(np.exp(sum(log_probs[t, label] for t, label in enumerate(path))))
    return -np.log(total) if total else np.inf


TARGETS = ((1, 2), (2, 2), (), (1,), (1, 2, 1), (2, 2, 2))


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_it_is_the_sum_over_all_alignments(backend: Backend, target: tuple[int, ...]) -> None:
    logits = np.random.default_rng(0).standard_normal((4, 3))
    log_probs = log_softmax(logits).astype(np.float32)
    padded = te.tensor(np.array([(*target, 0, 0, 0)[:3]]))
    loss = F.ctc_loss(te.tensor(log_probs[:, None]), padded, [4], [len(target)], reduction="none")
    assert loss.item() == pytest.approx(by_enumeration(log_probs, target), rel=1e-4)


def test_gradient_of_logits_is_the_central_difference() -> None:
    with te.use_backend("numpy"):
        random = np.random.default_rng(1)
        logits, direction = random.standard_normal((2, 5, 3, 4))
        targets, lengths, sizes = np.array([[1, 1], [2, 3], [3, 0]]), [5, 4, 3], [2, 2, 1]

        def loss(values: Array) -> te.Tensor:
            x = te.tensor(values, requires_grad=True)
            y = F.ctc_loss(F.log_softmax(x, -1), te.tensor(targets), lengths, sizes)
            y.backward()
            y.grad = None
            assert x.grad is not None
            gradients.append(x.grad.numpy())
            return y

        gradients: list[Array] = []
        loss(logits)
        step = 1e-6
        change = (loss(logits + step * direction).item() - loss(logits - step * direction).item()) / (2 * step)
        assert (gradients[0] * direction).sum() == pytest.approx(change, rel=1e-6)


def test_both_backends_agree(opencl: Backend) -> None:
    random = np.random.default_rng(2)
    log_probs = log_softmax(random.standard_normal((40, 5, 9))).astype(np.float32)
    targets = random.integers(1, 4, (5, 12))  # with repeats
    found = []
    for name in ("numpy", opencl.name):
        x = te.tensor(log_probs, device=name, requires_grad=True)
        where = te.tensor(targets, device=name)
        ends, sizes = (te.tensor(n, device=name) for n in ([40, 30, 20, 10, 0], [12, 12, 0, 9, 0]))
        y = F.ctc_loss(x, where, ends, sizes, reduction="none", zero_infinity=True)
        y.sum().backward()
        assert x.grad is not None
        found.append((y.detach().numpy(), x.grad.numpy()))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-4)


def test_targets_in_one_dim_and_one_sample(backend: Backend) -> None:
    log_probs = te.tensor(log_softmax(np.random.default_rng(3).standard_normal((6, 2, 4))).astype(np.float32))
    rows = F.ctc_loss(log_probs, te.tensor([[1, 2, 3], [2, 0, 0]]), [6, 6], [3, 1], reduction="none").tolist()
    assert F.ctc_loss(log_probs, te.tensor([1, 2, 3, 2]), [6, 6], [3, 1], reduction="none").tolist() == rows
    assert F.ctc_loss(log_probs[:, 1], te.tensor([2]), 6, 1, reduction="none").item() == pytest.approx(rows[1])
    assert F.ctc_loss(log_probs, te.tensor([1, 2, 3, 2]), [6, 6], [3, 1]).item() == pytest.approx(
        (rows[0] / 3 + rows[1]) / 2
    )


def test_an_impossible_target_is_infinite_or_nothing(backend: Backend) -> None:
    x = te.tensor(log_softmax(np.zeros((2, 1, 3))).astype(np.float32), requires_grad=True)
    assert F.ctc_loss(x, te.tensor([[1, 1]]), [2], [2], reduction="sum").item() == float("inf")
    loss = nn.CTCLoss(reduction="sum", zero_infinity=True)(x, te.tensor([[1, 1]]), [2], [2])
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None
    assert not x.grad.numpy().any()


def test_compiled(backend: Backend) -> None:
    compiled = te.compile(lambda x, t, a, b: F.ctc_loss(x, t, a, b))
    random = np.random.default_rng(4)
    for _ in range(3):
        x = te.tensor(log_softmax(random.standard_normal((6, 2, 4))).astype(np.float32))
        arguments = x, te.tensor(random.integers(1, 4, (2, 2))), te.tensor([6, 5]), te.tensor([2, 1])
        assert compiled(*arguments).item() == pytest.approx(F.ctc_loss(*arguments).item(), rel=1e-6)


def test_refusals(backend: Backend) -> None:
    x = te.zeros(4, 2, 3)
    with pytest.raises(ArgumentError, match="blank must be a class"):
        F.ctc_loss(x, te.tensor([[1], [1]]), [4, 4], [1, 1], blank=3)
    with pytest.raises(ArgumentError, match="input_lengths in"):
        F.ctc_loss(x, te.tensor([[1], [1]]), [4, 5], [1, 1])
    with pytest.raises(TinyedgeError, match="target_lengths"):
        F.ctc_loss(x, te.tensor([1, 1]), [4, 4], [1, 2])
    with pytest.raises(CaptureError):
        te.compile(lambda x, t: F.ctc_loss(x, t, [4, 4], [1, 1]))(x, te.tensor([1, 1]))
