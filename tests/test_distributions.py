"""Distributions: densities against their formulas, samples against their moments, gradients of rsample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import distributions
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
    with pytest.raises(NotImplementedError, match="no formula for Normal and Uniform"):
        kl_divergence(Normal(0.0, 1.0), Uniform(0.0, 1.0))


CONCENTRATIONS = [0.1, 0.5, 1.0, 1.5, 3.0, 10.0, 100.0]


def test_samples_of_a_gamma_distribution_move_with_its_concentration(backend: Backend) -> None:
    """By what keeps the probability of less: the slope is that of the sample's quantile."""
    a = te.tensor(CONCENTRATIONS, requires_grad=True)
    te.manual_seed(0)
    z = distributions.Gamma(a, 1.0).rsample((8,))
    assert float(z.detach().min()) > 0
    values, centres = z.detach().numpy().astype(np.float64), np.array(CONCENTRATIONS)
    slopes = np.zeros_like(values)
    for row in range(len(values)):
        a.grad = None
        z[row].sum().backward(retain_graph=True)
        slopes[row] = a.grad.numpy()
    t = np.exp(np.linspace(-200, 0, 20_001))[:, None, None] * values
    logs = np.log(t)

    def below(at: Any) -> Any:
        terms = np.exp(at * logs - t - np.vectorize(math.lgamma)(at))  # of dlog t
        return (terms[1:] + terms[:-1]).sum(0) * (200 / 20_000) / 2

    h = 1e-5 * centres
    density = np.exp((centres - 1) * np.log(values) - values - np.vectorize(math.lgamma)(centres))
    expected = -(below(centres + h) - below(centres - h)) / (2 * h) / density
    central = (below(centres) < 0.99) & (below(centres) > 1e-4)
    assert central.mean() > 0.8
    np.testing.assert_allclose(slopes[central], expected[central], rtol=2e-3)


def test_gradients_of_expectations_by_samples(backend: Backend) -> None:
    """Of what gamma variables make: those of the means' formulas, within the spread of 20,000 samples."""
    c = np.array([0.6, 1.5, 2.5])
    cases = {
        "beta": (lambda a: distributions.Beta(a, 2.0).rsample((20_000,)).mean(0), 2 / (c + 2) ** 2),
        "gamma": (lambda a: distributions.Gamma(a, 2.0).rsample((20_000,)).mean(0), 0.5 + 0 * c),
        "chi2": (lambda a: distributions.Chi2(a).rsample((20_000,)).mean(0), 1 + 0 * c),
        "dirichlet": (
            lambda a: distributions.Dirichlet(a).rsample((20_000,))[:, 0].mean(0),
            (np.array([c.sum(), 0, 0]) - c[0]) / c.sum() ** 2,
        ),
        "t": (lambda a: (distributions.StudentT(a + 6).rsample((20_000,)) ** 2).mean(0), -2 / (c + 4) ** 2),
    }
    te.manual_seed(0)
    for function, expected in cases.values():
        a = te.tensor(c.astype(np.float32), requires_grad=True)
        function(a).sum().backward()
        np.testing.assert_allclose(a.grad.numpy(), expected, rtol=0.06, atol=0.01)


C, D, P, Q = [0.5, 1.5, 2.5], [1.2, 0.4, 3.0], [0.2, 0.5, 0.7], [0.3, 0.6, 0.1]
KINDS: dict[str, tuple[Any, Any, list[float]]] = {
    "Gamma": (lambda d, t: d.Gamma(t(C), t(D)), lambda d, t: d.Gamma(t(D), t(C)), D),
    "Chi2": (lambda d, t: d.Chi2(t(C)), lambda d, t: d.Chi2(t(D)), D),
    "StudentT": (lambda d, t: d.StudentT(t(C), t(D), t(C)), None, D),
    "Beta": (lambda d, t: d.Beta(t(C), t(D)), lambda d, t: d.Beta(t(D), t(C)), P),
    "Dirichlet": (lambda d, t: d.Dirichlet(t(C)), lambda d, t: d.Dirichlet(t(D)), [0.2, 0.3, 0.5]),
    "Exponential": (lambda d, t: d.Exponential(t(C)), lambda d, t: d.Exponential(t(D)), D),
    "Laplace": (lambda d, t: d.Laplace(t(C), t(D)), lambda d, t: d.Laplace(t(D), t(C)), D),
    "HalfNormal": (lambda d, t: d.HalfNormal(t(C)), lambda d, t: d.HalfNormal(t(D)), D),
    "Poisson": (lambda d, t: d.Poisson(t(C)), lambda d, t: d.Poisson(t(D)), [0.0, 1.0, 4.0]),
    "LogNormal": (lambda d, t: d.LogNormal(t(C), t(D)), lambda d, t: d.LogNormal(t(D), t(C)), D),
    "MultivariateNormal": (
        lambda d, t: d.MultivariateNormal(t(C[:2]), scale_tril=t([[1.0, 0.0], [0.5, 2.0]])),
        lambda d, t: d.MultivariateNormal(t(D[:2]), scale_tril=t([[3.0, 0.0], [-0.5, 0.7]])),
        D[:2],
    ),
    "Independent": (
        lambda d, t: d.Independent(d.Normal(t(C), t(D)), 1), lambda d, t: d.Independent(d.Normal(t(D), t(C)), 1), D,
    ),
    "Geometric": (lambda d, t: d.Geometric(t(P)), lambda d, t: d.Geometric(t(Q)), [0.0, 1.0, 4.0]),
    "Binomial": (
        lambda d, t: d.Binomial(t([5.0, 6.0, 7.0]), t(P)), lambda d, t: d.Binomial(t([5.0, 6.0, 7.0]), t(Q)),
        [0.0, 1.0, 4.0],
    ),
    "OneHotCategorical": (
        lambda d, t: d.OneHotCategorical(t(P)), lambda d, t: d.OneHotCategorical(t(Q)), [0.0, 1.0, 0.0],
    ),
    "RelaxedBernoulli": (lambda d, t: d.RelaxedBernoulli(t(0.7), t(P)), None, P),
}  # fmt: skip
"""Two distributions of each kind, made of a package's own, and a value."""


@pytest.mark.torch
@pytest.mark.parametrize("name", KINDS)
def test_against_torch(name: str, backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    make, make_other, value = KINDS[name]
    theirs, ours = make(torch.distributions, torch.tensor), make(distributions, te.tensor)
    near(ours.log_prob(te.tensor(value)), theirs.log_prob(torch.tensor(value)), 1e-3)
    for what in ("mean", "variance", "mode"):
        try:
            expected = getattr(theirs, what)
        except NotImplementedError:
            continue
        if hasattr(type(ours), what):
            near(getattr(ours, what), expected, 1e-3)
    try:
        near(ours.entropy(), theirs.entropy(), 1e-3)
    except NotImplementedError:
        with pytest.raises(NotImplementedError):
            theirs.entropy()
    if make_other is not None:
        other = make_other(torch.distributions, torch.tensor)
        near(kl_divergence(ours, make_other(distributions, te.tensor)),
             torch.distributions.kl_divergence(theirs, other), 1e-3)  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_expanded(name: str, backend: Backend) -> None:
    make, _, value = KINDS[name]
    one = make(distributions, te.tensor)
    many = one.expand((4, *one.batch_shape))
    assert many.sample((2,)).shape == (2, 4, *one.batch_shape, *one.event_shape)
    near(many.log_prob(te.tensor(value))[3], one.log_prob(te.tensor(value)).numpy())


def test_a_divergence_of_ones_own(backend: Backend) -> None:
    class Mine(Normal):
        pass

    @distributions.kl.register_kl(Mine, Uniform)
    def formula(p: Mine, q: Uniform) -> te.Tensor:
        return p.loc + q.high

    near(kl_divergence(Mine(1.0, 1.0), Uniform(0.0, 2.0)), 3.0)
    near(kl_divergence(Mine(1.0, 1.0), Normal(1.0, 1.0)), 0.0)
    with pytest.raises(NotImplementedError, match="Binomial and Bernoulli"):
        kl_divergence(distributions.Binomial(3, 0.5), Bernoulli(0.5))
