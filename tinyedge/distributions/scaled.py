"""Further distributions of real numbers: with a location and a scale, of positive numbers, and of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.distributions.discrete import Categorical, Trials
from tinyedge.distributions.distribution import Distribution, together
from tinyedge.errors import ArgumentError
from tinyedge.ops import diagonal, lgamma, linalg, log_softmax, one_hot, poisson, rand, randn, softmax, softplus, where
from tinyedge.tensor import Tensor

LEAST = 2.0**-24
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
        found: Tensor = u.clamp(LEAST, 1 - LEAST)
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
        return self.loc - self.scale * u.sign() * (-u.abs()).clamp(min=-1 + LEAST).log1p()

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
        u = rand(shape, dtype=logits.dtype, device=logits.backend).clamp(LEAST, 1 - LEAST)
        return softmax((logits - (-u.log()).log()) / self.temperature, -1)

    def log_prob(self, value: Any) -> Tensor:
        k = self.event_shape[0]
        score = log_softmax(self.logits - value.log() * self.temperature, -1)
        (temperature,) = together(self.temperature)
        scale = lgamma(temperature * 0 + k) + (k - 1) * temperature.log()
        found: Tensor = (score - value.log()).sum(-1) + scale
        return found


class RelaxedBernoulli(Trials):
    """Numbers between 0 and 1, the nearer to one of them the lower ``temperature`` is.

    Source: Maddison et al., arXiv:1611.00712.
    """

    has_rsample = True

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        super().__init__(probs, logits, validate_args)
        self.temperature = temperature

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        logits = self.logits
        u = rand(self._extended(sample_shape), dtype=logits.dtype, device=logits.backend).clamp(LEAST, 1 - LEAST)
        found: Tensor = ((u.log() - (-u).log1p() + logits) / self.temperature).sigmoid()
        return found

    def log_prob(self, value: Any) -> Tensor:
        temperature, value = together(self.temperature, value)
        at = value.log() - (-value).log1p()
        apart = self.logits - at * temperature
        density: Tensor = temperature.log() + apart - 2 * softplus(apart) - value.log() - (-value).log1p()
        return density


__all__ = [
    "Cauchy", "Exponential", "Gumbel", "HalfNormal", "Laplace", "MultivariateNormal",
    "OneHotCategorical", "OneHotCategoricalStraightThrough", "Poisson", "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
]  # fmt: skip
