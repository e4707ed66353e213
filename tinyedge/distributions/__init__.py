"""``te.distributions``: samples, log-probabilities and entropies, by PyTorch's names."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from tinyedge.autograd.absent import lookup as _lookup
from tinyedge.distributions import bernoulli, categorical, kl, normal, transforms, uniform
from tinyedge.distributions.composed import Independent, LogNormal, MixtureSameFamily, TransformedDistribution
from tinyedge.distributions.discrete import Bernoulli, Categorical
from tinyedge.distributions.distribution import Distribution
from tinyedge.distributions.divergence import kl_divergence
from tinyedge.distributions.real import Normal, Uniform
from tinyedge.distributions.scaled import (
    Beta,
    Cauchy,
    Dirichlet,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    Laplace,
    MultivariateNormal,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
    Poisson,
    RelaxedOneHotCategorical,
)
from tinyedge.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    SigmoidTransform,
    SoftplusTransform,
    TanhTransform,
    Transform,
)

__all__ = [
    "AffineTransform",
    "Bernoulli",
    "Beta",
    "Categorical",
    "Cauchy",
    "ComposeTransform",
    "Dirichlet",
    "Distribution",
    "ExpTransform",
    "Exponential",
    "Gamma",
    "Gumbel",
    "HalfNormal",
    "Independent",
    "Laplace",
    "LogNormal",
    "MixtureSameFamily",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Poisson",
    "RelaxedOneHotCategorical",
    "SigmoidTransform",
    "SoftplusTransform",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "bernoulli",
    "categorical",
    "kl",
    "kl_divergence",
    "normal",
    "transforms",
    "uniform",
]

if not _TYPE_CHECKING:  # a type checker shall say what is not there
    __getattr__ = _lookup("distributions", globals())
