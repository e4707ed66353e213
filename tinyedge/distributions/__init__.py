"""``te.distributions``: samples, log-probabilities and entropies, by PyTorch's names."""

from tinyedge.distributions import bernoulli, categorical, kl, normal, uniform
from tinyedge.distributions.discrete import Bernoulli, Categorical
from tinyedge.distributions.distribution import Distribution
from tinyedge.distributions.divergence import kl_divergence
from tinyedge.distributions.real import Normal, Uniform

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Normal",
    "Uniform",
    "bernoulli",
    "categorical",
    "kl",
    "kl_divergence",
    "normal",
    "uniform",
]
