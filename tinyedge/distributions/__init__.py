"""``te.distributions``: samples, log-probabilities and entropies, by PyTorch's names."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from tinyedge.autograd.absent import lookup as _lookup
from tinyedge.distributions import bernoulli, categorical, kl, normal, transforms, uniform
from tinyedge.distributions.composed import Independent, LogNormal, MixtureSameFamily, TransformedDistribution
from tinyedge.distributions.discrete import Bernoulli, Binomial, Categorical, Geometric
from tinyedge.distributions.distribution import Distribution
from tinyedge.distributions.divergence import kl_divergence, register_kl
from tinyedge.distributions.gamma import Beta, Chi2, Dirichlet, Gamma, StudentT
from tinyedge.distributions.real import Normal, Uniform
from tinyedge.distributions.scaled import (
    Cauchy,
    Exponential,
    Gumbel,
    HalfNormal,
    Laplace,
    MultivariateNormal,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
    Poisson,
    RelaxedBernoulli,
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
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ComposeTransform",
    "Dirichlet",
    "Distribution",
    "ExpTransform",
    "Exponential",
    "Gamma",
    "Geometric",
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
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "SigmoidTransform",
    "SoftplusTransform",
    "StudentT",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "bernoulli",
    "categorical",
    "kl",
    "kl_divergence",
    "normal",
    "register_kl",
    "transforms",
    "uniform",
]

if not _TYPE_CHECKING:  # a type checker shall say what is not there
    __getattr__ = _lookup("distributions", globals())
