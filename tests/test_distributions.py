"""Distributions: densities against their formulas, samples against their moments, gradients of rsample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.distributions import Bernoulli, Categorical, Normal, Uniform, kl_divergence


def near(found: te.Tensor, expected: Any, rtol: float = 1e-4) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=rtol, atol=1e-5)


def test_normal(backend: Backend) -> None:
    normal = Normal(te.tensor([0.0, 1.0]), 2.0)
    x = np.array([0.5, -1.0])
    z = (x - [0, 1]) / 2
    near(normal.log_prob(te.tensor([0.5, -1.0])), -0.5 * z * z - math.log(2) - 0.5 * math.log(2 * math.pi))
    near(normal.entropy(), [0.5 + 0.5 * math.log(2 * math.pi) + math.log(2)] * 2)
    near(normal.cdf(normal.icdf(te.tensor([0.2, 0.7]))), [0.2, 0.7])
    near(normal.variance, [4.0, 4.0])
    near(kl_divergence(normal, Normal(0.0, 1.0)), [0.5 * (4 - 1) - math.log(2), 0.5 * (4 + 1 - 1) - math.log(2)])


def test_uniform(backend: Backend) -> None:
    uniform = Uniform(te.tensor([0.0, 1.0]), te.tensor([2.0, 5.0]))
    near(uniform.log_prob(te.tensor([0.5, 5.0])), [-math.log(2), -math.inf])
    near(uniform.entropy(), np.log([2, 4]))
    near(uniform.mean, [1.0, 3.0])
    near(uniform.variance, [1 / 3, 4 / 3])
    near(uniform.cdf(te.tensor([0.5, 9.0])), [0.25, 1.0])
    near(kl_divergence(uniform, Uniform(0.0, 4.0)), [math.log(2), math.inf])


def test_bernoulli(backend: Backend) -> None:
    for bernoulli in (Bernoulli(te.tensor([0.25, 0.5])), Bernoulli(logits=te.tensor([-math.log(3), 0.0]))):
        near(bernoulli.log_prob(te.tensor([1.0, 0.0])), np.log([0.25, 0.5]))
        near(bernoulli.entropy(), [-0.25 * math.log(0.25) - 0.75 * math.log(0.75), math.log(2)])
        near(bernoulli.mean, [0.25, 0.5])
        near(bernoulli.variance, [0.1875, 0.25])
        expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
        near(kl_divergence(bernoulli, Bernoulli(0.5)), [expected, 0.0])


def test_categorical(backend: Backend) -> None:
    probs = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    weights = te.tensor((probs * 4).astype(np.float32))
    categorical = Categorical(weights)
    near(categorical.log_prob(te.tensor([2, 0])), [math.log(0.5), 0.0])
    near(Categorical(logits=weights).probs.sum(-1), [1.0, 1.0])
    near(categorical.log_prob(te.tensor([[2, 0], [0, 0], [1, 0]])), np.log([[0.5, 1], [0.2, 1], [0.3, 1]]))
    near(categorical.entropy()[:1], [-(probs[0] * np.log(probs[0])).sum()])
    near(kl_divergence(categorical, categorical), [0.0, 0.0])
    assert categorical.mode.tolist() == [2, 0]
    assert categorical.sample((3, 2)).shape == (3, 2, 2)
    assert categorical.sample((5,))[:, 1].tolist() == [0] * 5
    assert categorical.sample((0,)).shape == (0, 2)


@pytest.mark.parametrize(
    "make", [lambda: Normal(1.0, 2.0), lambda: Uniform(-1.0, 3.0), lambda: Bernoulli(0.3)],
    ids=["normal", "uniform", "bernoulli"],
)  # fmt: skip
def test_samples_have_the_moments(backend: Backend, make: Any) -> None:
    te.manual_seed(0)
    made = make()
    drawn = made.sample((20000,))
    assert drawn.shape == (20000,)
    assert not drawn.requires_grad
    near(drawn.mean(), made.mean.item(), rtol=0.1)
    near(drawn.var(), made.variance.item(), rtol=0.1)


def test_frequencies_of_classes(backend: Backend) -> None:
    te.manual_seed(0)
    drawn = Categorical(te.tensor([0.2, 0.3, 0.5])).sample((20000,)).numpy()
    np.testing.assert_allclose(np.bincount(drawn) / 20000, [0.2, 0.3, 0.5], atol=0.02)


def test_rsample_is_differentiable(backend: Backend) -> None:
    loc, scale = te.zeros(2, requires_grad=True), te.ones(2, requires_grad=True)
    normal = Normal(loc, scale)
    drawn = normal.rsample((3,))
    drawn.sum().backward()
    assert loc.grad is not None
    assert loc.grad.tolist() == [3.0, 3.0]
    assert scale.grad is not None
    near(scale.grad, drawn.sum(0).detach().numpy())
    with pytest.raises(NotImplementedError, match="Bernoulli has no rsample"):
        Bernoulli(0.5).rsample()


def test_samples_in_compiled_functions(backend: Backend) -> None:
    @te.compile
    def step(loc: te.Tensor) -> te.Tensor:
        normal = Normal(loc, 1.0)
        return normal.log_prob(normal.sample())

    te.manual_seed(0)
    found = [step(te.zeros(2)).tolist() for _ in range(3)]
    te.manual_seed(0)
    normal = Normal(te.zeros(2), 1.0)
    for each in found:
        near(normal.log_prob(normal.sample()), each)


def test_bad_parameters(backend: Backend) -> None:
    with pytest.raises(te.ArgumentError, match="scale above 0"):
        Normal(0.0, -1.0)
    with pytest.raises(te.ArgumentError, match="scale above 0"):
        Normal(0.0, te.tensor([1.0, -1.0]), validate_args=True)
    with pytest.raises(te.ArgumentError, match="low < high"):
        Uniform(1.0, 1.0)
    with pytest.raises(te.ArgumentError, match="either probs or logits"):
        Categorical()
    with pytest.raises(te.ArgumentError, match=r"in \[0, 1\]"):
        Bernoulli(1.5)
    with pytest.raises(te.ArgumentError, match="got Normal and Uniform"):
        kl_divergence(Normal(0.0, 1.0), Uniform(0.0, 1.0))
