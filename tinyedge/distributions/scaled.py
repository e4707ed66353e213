"""Further distributions of real numbers: with a location and a scale, of positive numbers, and of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.distributions.discrete import Categorical
from tinyedge.distributions.distribution import Distribution, together
from tinyedge.errors import ArgumentError
from tinyedge.ops import diagonal, digamma, lgamma, linalg, log_softmax, one_hot, poisson, rand, randn, softmax, where
from tinyedge.tensor import Tensor

_LEAST = 2.0**-24
"""What a uniform number is at least, before its logarithm is taken."""


class _Scaled(Distribution):
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = together(loc, scale)
        super().__init__(self.loc.shape, validate_args)
        self._require("scale", "above 0", scale, lambda value: value > 0)

    def _noise(self, sample_shape: Sequence[int]) -> Tensor:
        """In (0, 1)."""
        u = rand(self._extended(sample_shape), dtype=self.loc.dtype, device=self.loc.backend)
        found: Tensor = u.clamp(_LEAST, 1 - _LEAST)
        return found

    @property
    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc


class Laplace(_Scaled):
    """The Laplace distribution: ``exp(-|x - loc| / scale) / (2 * scale)``."""

    @property
    def variance(self) -> Tensor:
        """``2 * scale ** 2``."""
        return 2 * self.scale * self.scale

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = 2 * self._noise(sample_shape) - 1
        return self.loc - self.scale * u.sign() * (-u.abs()).clamp(min=-1 + _LEAST).log1p()

    def log_prob(self, value: Any) -> Tensor:
        density: Tensor = -(2 * self.scale).log() - (value - self.loc).abs() / self.scale
        return density

    def entropy(self) -> Tensor:
        return 1 + (2 * self.scale).log()


class Gumbel(_Scaled):
    """The largest of many: the cumulated probability is ``exp(-exp(-(x - loc) / scale))``."""

    @property
    def mean(self) -> Tensor:
        """``loc + 0.5772 * scale``."""
        return self.loc + self.scale * 0.57721566490153286

    @property
    def variance(self) -> Tensor:
        """``(pi * scale) ** 2 / 6``."""
        return self.scale * self.scale * (math.pi**2 / 6)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc - self.scale * (-self._noise(sample_shape).log()).log()

    def log_prob(self, value: Any) -> Tensor:
        y = (self.loc - value) / self.scale
        density: Tensor = y - y.exp() - self.scale.log()
        return density

    def entropy(self) -> Tensor:
        return self.scale.log() + (1 + 0.57721566490153286)


class Cauchy(_Scaled):
    """The Cauchy distribution; it has no mean."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc + self.scale * (math.pi * (self._noise(sample_shape) - 0.5)).tan()

    def log_prob(self, value: Any) -> Tensor:
        z = (value - self.loc) / self.scale
        density: Tensor = -math.log(math.pi) - self.scale.log() - (z * z).log1p()
        return density

    def entropy(self) -> Tensor:
        return math.log(4 * math.pi) + self.scale.log()


class HalfNormal(Distribution):
    """The size of a normal number with mean 0."""

    has_rsample = True

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        (self.scale,) = together(scale)
        super().__init__(self.scale.shape, validate_args)
        self._require("scale", "above 0", scale, lambda value: value > 0)

    @property
    def mean(self) -> Tensor:
        """``scale * sqrt(2 / pi)``."""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        """``scale ** 2 * (1 - 2 / pi)``."""
        return self.scale * self.scale * (1 - 2 / math.pi)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = randn(self._extended(sample_shape), dtype=self.scale.dtype, device=self.scale.backend)
        return (noise * self.scale).abs()

    def log_prob(self, value: Any) -> Tensor:
        z = value / self.scale
        density = -0.5 * z * z - self.scale.log() + 0.5 * math.log(2 / math.pi)
        return where(value >= 0, density, -math.inf)

    def entropy(self) -> Tensor:
        return self.scale.log() + 0.5 * math.log(math.pi / 2) + 0.5


class Exponential(Distribution):
    """Times between events of which there are ``rate`` in one unit."""

    has_rsample = True

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = together(rate)
        super().__init__(self.rate.shape, validate_args)
        self._require("rate", "above 0", rate, lambda value: value > 0)

    @property
    def mean(self) -> Tensor:
        """``1 / rate``."""
        return 1 / self.rate

    @property
    def variance(self) -> Tensor:
        """``1 / rate ** 2``."""
        return 1 / (self.rate * self.rate)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = rand(self._extended(sample_shape), dtype=self.rate.dtype, device=self.rate.backend)
        return -(-u).log1p() / self.rate

    def log_prob(self, value: Any) -> Tensor:
        return where(value >= 0, self.rate.log() - self.rate * value, -math.inf)

    def entropy(self) -> Tensor:
        return 1 - self.rate.log()


class Poisson(Distribution):
    """Numbers of events of which there are ``rate`` on average."""

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = together(rate)
        super().__init__(self.rate.shape, validate_args)
        self._require("rate", "at least 0", rate, lambda value: value >= 0)

    @property
    def mean(self) -> Tensor:
        """``rate``."""
        return self.rate

    @property
    def variance(self) -> Tensor:
        """``rate``."""
        return self.rate

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return poisson(self.rate.detach().expand(self._extended(sample_shape)).contiguous())

    def log_prob(self, value: Any) -> Tensor:
        (value, rate) = together(value, self.rate)
        expected = where(value == 0, 0.0, value * where(rate == 0, 1.0, rate).log())
        return where((rate == 0) & (value > 0), -math.inf, expected) - rate - lgamma(value + 1)


def _gamma(shape: Tensor) -> Tensor:
    """Values of the gamma distribution with rate 1: of eight proposals the first that is accepted.

    Each is with a probability above 0.95.

    Source: Marsaglia and Tsang, A simple method for generating gamma variables (2000).
    """
    small = shape < 1
    a = where(small, shape + 1, shape)
    d = a - 1 / 3
    c = 1 / (9 * d).sqrt()
    found, missing = d, d > 0
    for _ in range(8):
        x = randn(shape.shape, dtype=shape.dtype, device=shape.backend)
        u = rand(shape.shape, dtype=shape.dtype, device=shape.backend).clamp(_LEAST, 1.0)
        v = (1 + c * x) ** 3
        positive = v > 0
        v = where(positive, v, 1.0)
        accepted = positive & (u.log() < 0.5 * x * x + d - d * v + d * v.log())
        found = where(missing & accepted, d * v, found)
        missing = missing & ~accepted
    u = rand(shape.shape, dtype=shape.dtype, device=shape.backend).clamp(_LEAST, 1.0)
    return where(small, found * u ** (1 / shape), found)


class Gamma(Distribution):
    """The gamma distribution; samples have no gradient."""

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = together(concentration, rate)
        super().__init__(self.rate.shape, validate_args)
        self._require("concentration", "above 0", concentration, lambda value: value > 0)
        self._require("rate", "above 0", rate, lambda value: value > 0)

    @property
    def mean(self) -> Tensor:
        """``concentration / rate``."""
        return self.concentration / self.rate

    @property
    def variance(self) -> Tensor:
        """``concentration / rate ** 2``."""
        return self.concentration / (self.rate * self.rate)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            shape = self._extended(sample_shape)
            return _gamma(self.concentration.detach().expand(shape).contiguous()) / self.rate

    def log_prob(self, value: Any) -> Tensor:
        a, (value,) = self.concentration, together(value)
        density: Tensor = a * self.rate.log() + (a - 1) * value.log() - self.rate * value - lgamma(a)
        return density

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + lgamma(a) + (1 - a) * digamma(a)


class Dirichlet(Distribution):
    """Probabilities of classes; samples have no gradient."""

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        self.concentration = concentration
        if not concentration.ndim:
            raise ArgumentError("Dirichlet", "a concentration of at least one dim", "got a number")
        super().__init__(concentration.shape[:-1], validate_args)
        self.event_shape = concentration.shape[-1:]
        self._require("concentration", "above 0", concentration, lambda value: value > 0)

    @property
    def mean(self) -> Tensor:
        """The concentrations, as parts of their sum."""
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def variance(self) -> Tensor:
        """The variance of each probability."""
        total = self.concentration.sum(-1, keepdim=True)
        return self.concentration * (total - self.concentration) / (total * total * (total + 1))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            shape = (*self._extended(sample_shape), *self.event_shape)
            drawn = _gamma(self.concentration.detach().expand(shape).contiguous())
            return drawn / drawn.sum(-1, keepdim=True)

    def log_prob(self, value: Any) -> Tensor:
        a = self.concentration
        density: Tensor = ((a - 1) * value.log()).sum(-1) + lgamma(a.sum(-1)) - lgamma(a).sum(-1)
        return density

    def entropy(self) -> Tensor:
        a = self.concentration
        k, total = a.shape[-1], a.sum(-1)
        terms = ((a - 1) * digamma(a)).sum(-1)
        found: Tensor = lgamma(a).sum(-1) - lgamma(total) - (k - total) * digamma(total) - terms
        return found


class Beta(Distribution):
    """The beta distribution on [0, 1]; samples have no gradient."""

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = together(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args)
        self._require("concentration1", "above 0", concentration1, lambda value: value > 0)
        self._require("concentration0", "above 0", concentration0, lambda value: value > 0)

    @property
    def mean(self) -> Tensor:
        """``concentration1 / (concentration1 + concentration0)``."""
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total * total * (total + 1))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            shape = self._extended(sample_shape)
            one, other = (
                _gamma(each.detach().expand(shape).contiguous()) for each in (self.concentration1, self.concentration0)
            )
            return one / (one + other)

    def log_prob(self, value: Any) -> Tensor:
        a, b, (value,) = self.concentration1, self.concentration0, together(value)
        density: Tensor = (a - 1) * value.log() + (b - 1) * (-value).log1p() + lgamma(a + b) - lgamma(a) - lgamma(b)
        return density

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        beta = lgamma(a) + lgamma(b) - lgamma(a + b)
        return beta - (a - 1) * digamma(a) - (b - 1) * digamma(b) + (a + b - 2) * digamma(a + b)


class MultivariateNormal(Distribution):
    """Normal vectors, with a covariance matrix, its inverse, or its lower triangle."""

    has_rsample = True

    def __init__(
        self, loc: Tensor, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None, validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        given = [each for each in (covariance_matrix, precision_matrix, scale_tril) if each is not None]
        if len(given) != 1:
            raise ArgumentError(
                "MultivariateNormal", "one of covariance_matrix, precision_matrix and scale_tril", f"got {len(given)}"
            )
        if not loc.ndim:
            raise ArgumentError("MultivariateNormal", "a loc of at least one dim", "got a number")
        if scale_tril is None:
            whole = covariance_matrix if covariance_matrix is not None else linalg.inv(given[0])
            scale_tril = linalg.cholesky(whole)
        lead = together(loc[..., 0], scale_tril[..., 0, 0])[0].shape
        n = loc.shape[-1]
        self.loc, self.scale_tril = loc.expand(*lead, n), scale_tril.expand(*lead, n, n)
        super().__init__(lead, validate_args)
        self.event_shape = (n,)

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def precision_matrix(self) -> Tensor:
        """The covariance's inverse."""
        found: Tensor = linalg.inv(self.covariance_matrix)
        return found

    @property
    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The covariance's diagonal."""
        return (self.scale_tril * self.scale_tril).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = (*self._extended(sample_shape), *self.event_shape)
        noise = randn(shape, dtype=self.loc.dtype, device=self.loc.backend)
        return self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def _half_log_determinant(self) -> Tensor:
        found: Tensor = diagonal(self.scale_tril, 0, -2, -1).log().sum(-1)
        return found

    def log_prob(self, value: Any) -> Tensor:
        apart = (value - self.loc).unsqueeze(-1)
        z = linalg.solve_triangular(self.scale_tril, apart, upper=False).squeeze(-1)
        n = self.event_shape[0]
        return -0.5 * (n * math.log(2 * math.pi) + (z * z).sum(-1)) - self._half_log_determinant()

    def entropy(self) -> Tensor:
        return 0.5 * self.event_shape[0] * (1 + math.log(2 * math.pi)) + self._half_log_determinant()


class OneHotCategorical(Distribution):
    """Classes as vectors of one 1."""

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        super().__init__(self._categorical.batch_shape, validate_args)
        self.event_shape = self._categorical.probs.shape[-1:]

    @property
    def probs(self) -> Tensor:
        """The probability of each class."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities."""
        return self._categorical.logits

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """``probs * (1 - probs)``."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return one_hot(self._categorical.sample(sample_shape), self.event_shape[0]).to(self.probs.dtype)

    def log_prob(self, value: Any) -> Tensor:
        return self._categorical.log_prob(value.argmax(-1))

    def entropy(self) -> Tensor:
        return self._categorical.entropy()


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """``OneHotCategorical``, whose ``rsample`` has the gradient of the probabilities."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.sample(sample_shape) + (self.probs - self.probs.detach())


class RelaxedOneHotCategorical(Distribution):
    """The Gumbel softmax: vectors near to those of one 1, the nearer the lower ``temperature`` is.

    Source: Jang et al., arXiv:1611.01144.
    """

    has_rsample = True

    def __init__(
        self, temperature: Any, probs: Tensor | None = None, logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._categorical = Categorical(probs, logits, validate_args)
        self.temperature = temperature
        super().__init__(self._categorical.batch_shape, validate_args)
        self.event_shape = self._categorical.probs.shape[-1:]

    @property
    def probs(self) -> Tensor:
        """The probability of each class."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities."""
        return self._categorical.logits

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        logits = self.logits
        shape = (*self._extended(sample_shape), *self.event_shape)
        u = rand(shape, dtype=logits.dtype, device=logits.backend).clamp(_LEAST, 1 - _LEAST)
        return softmax((logits - (-u.log()).log()) / self.temperature, -1)

    def log_prob(self, value: Any) -> Tensor:
        k = self.event_shape[0]
        score = log_softmax(self.logits - value.log() * self.temperature, -1)
        (temperature,) = together(self.temperature)
        scale = lgamma(temperature * 0 + k) + (k - 1) * temperature.log()
        found: Tensor = (score - value.log()).sum(-1) + scale
        return found


__all__ = [
    "Beta", "Cauchy", "Dirichlet", "Exponential", "Gamma", "Gumbel", "HalfNormal", "Laplace", "MultivariateNormal",
    "OneHotCategorical", "OneHotCategoricalStraightThrough", "Poisson", "RelaxedOneHotCategorical",
]  # fmt: skip
