"""``kl_divergence``: how far one distribution is from another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinyedge.distributions.composed import Independent, TransformedDistribution
from tinyedge.distributions.discrete import Bernoulli, Binomial, Categorical, Geometric
from tinyedge.distributions.distribution import Distribution
from tinyedge.distributions.gamma import Beta, Dirichlet, Gamma
from tinyedge.distributions.real import Normal, Uniform
from tinyedge.distributions.scaled import (
    Exponential,
    HalfNormal,
    Laplace,
    MultivariateNormal,
    OneHotCategorical,
    Poisson,
)
from tinyedge.errors import ArgumentError
from tinyedge.ops import diagonal, digamma, lgamma, linalg, softplus, where
from tinyedge.tensor import Tensor

Divergence = Callable[[Any, Any], Tensor]
_KNOWN: dict[tuple[type, type], Divergence] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Divergence], Divergence]:
    """A decorator for the function that ``kl_divergence`` calls for distributions of these types and those below them.

    Errors: ArgumentError unless both are distributions.
    """
    for each in (type_p, type_q):
        if not (isinstance(each, type) and issubclass(each, Distribution)):
            raise ArgumentError("register_kl", "two types of distributions", f"got {each!r}")

    def entered(function: Divergence) -> Divergence:
        _KNOWN[type_p, type_q] = function
        return function

    return entered


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of ``p`` from ``q``, of two of one kind.

    Shapes: batch shapes broadcast; returns what they broadcast to.
    Units:  nats.
    Errors: NotImplementedError for two kinds that no function was registered for.
    """
    for one in type(p).__mro__:
        for other in type(q).__mro__:
            if (one, other) in _KNOWN:
                return _KNOWN[one, other](p, q)
    raise NotImplementedError(
        f"kl_divergence: no formula for {type(p).__name__} and {type(q).__name__}. Estimate it from samples, "
        "(p.log_prob(x) - q.log_prob(x)).mean(0), or enter one by register_kl."
    )


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio, moved = (p.scale / q.scale) ** 2, ((p.loc - q.loc) / q.scale) ** 2
    return 0.5 * (ratio + moved - 1 - ratio.log())


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    return 0.5 * (ratio - 1 - ratio.log())


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    return one + (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Binomial, Binomial)
def _binomial(p: Binomial, q: Binomial) -> Tensor:
    return where(p.total_count == q.total_count, p.total_count * _bernoulli(p, q), math.nan)


@register_kl(Categorical, Categorical)
@register_kl(OneHotCategorical, OneHotCategorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    terms = p.probs * (p.logits - q.logits)
    terms = where(q.probs == 0, math.inf, terms)
    return where(p.probs == 0, 0.0, terms).sum(-1)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    wider = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low) | (q.high < p.high), math.inf, wider)


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, apart = p.scale / q.scale, (p.loc - q.loc).abs()
    return apart / q.scale + ratio * (-apart / p.scale).exp() - ratio.log() - 1


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    found = b * (p.rate / q.rate).log() + lgamma(b) - lgamma(a) + (a - b) * digamma(a)
    return found + a * (q.rate / p.rate - 1)


@register_kl(Beta, Beta)
def _beta(p: Beta, q: Beta) -> Tensor:
    pairs = ((p.concentration1, q.concentration1), (p.concentration0, q.concentration0))
    total = p.concentration1 + p.concentration0
    found = lgamma(total) - lgamma(q.concentration1 + q.concentration0)
    for a, b in pairs:
        found = found + lgamma(b) - lgamma(a) + (a - b) * (digamma(a) - digamma(total))
    return found


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    terms = lgamma(b) - lgamma(a) + (a - b) * (digamma(a) - digamma(a.sum(-1, keepdim=True)))
    return lgamma(a.sum(-1)) - lgamma(b.sum(-1)) + terms.sum(-1)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ArgumentError("kl_divergence", "vectors of one length", f"got {p.event_shape} and {q.event_shape}")
    of_p, of_q = (diagonal(each.scale_tril, 0, -2, -1).log().sum(-1) for each in (p, q))
    spread = linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False)
    moved = linalg.solve_triangular(q.scale_tril, (p.loc - q.loc).unsqueeze(-1), upper=False)
    squares = (spread * spread).sum((-2, -1)) + (moved * moved).sum((-2, -1))
    found: Tensor = of_q - of_p + 0.5 * (squares - p.event_shape[0])
    return found


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    dims = p.reinterpreted_batch_ndims
    if dims != q.reinterpreted_batch_ndims:
        raise NotImplementedError(f"kl_divergence: {dims} and {q.reinterpreted_batch_ndims} dims are one value")
    found = kl_divergence(p.base_dist, q.base_dist)
    return found.sum(tuple(range(-dims, 0))) if dims else found


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    pairs = list(zip(p.transforms, q.transforms, strict=False))
    alike = len(p.transforms) == len(q.transforms) and all(
        one is other or (type(one) is type(other) and not vars(one)) for one, other in pairs
    )
    if not alike:
        raise NotImplementedError("kl_divergence: of two with different transforms there is no formula")
    found = kl_divergence(p.base_dist, q.base_dist)
    dims = len(p.event_shape) - len(p.base_dist.event_shape)
    return found.sum(tuple(range(-dims, 0))) if dims else found


__all__ = ["kl_divergence", "register_kl"]
