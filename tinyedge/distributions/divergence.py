"""``kl_divergence``: how far one distribution is from another."""

from __future__ import annotations

import math

from tinyedge.distributions.discrete import Bernoulli, Categorical
from tinyedge.distributions.distribution import Distribution
from tinyedge.distributions.real import Normal, Uniform
from tinyedge.errors import ArgumentError
from tinyedge.ops import softplus, where
from tinyedge.tensor import Tensor


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of ``p`` from ``q``, of two of one kind.

    Shapes: batch shapes broadcast; returns what they broadcast to.
    Units:  nats.
    Errors: ArgumentError for two of different kinds.
    """
    if isinstance(p, Normal) and isinstance(q, Normal):
        ratio, moved = (p.scale / q.scale) ** 2, ((p.loc - q.loc) / q.scale) ** 2
        return 0.5 * (ratio + moved - 1 - ratio.log())
    if isinstance(p, Bernoulli) and isinstance(q, Bernoulli):
        one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
        return one + (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        terms = p.probs * (p.logits - q.logits)
        terms = where(q.probs == 0, math.inf, terms)
        return where(p.probs == 0, 0.0, terms).sum(-1)
    if isinstance(p, Uniform) and isinstance(q, Uniform):
        wider = ((q.high - q.low) / (p.high - p.low)).log()
        return where((q.low > p.low) | (q.high < p.high), math.inf, wider)
    raise ArgumentError(
        "kl_divergence", "two Normal, two Bernoulli, two Categorical or two Uniform",
        f"got {type(p).__name__} and {type(q).__name__}",
    )  # fmt: skip


__all__ = ["kl_divergence"]
