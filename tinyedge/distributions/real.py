"""Distributions of real numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinyedge.distributions.distribution import Distribution, together
from tinyedge.ops import erf, erfinv, rand, randn, where
from tinyedge.tensor import Tensor


class Normal(Distribution):
    """The normal distribution with mean ``loc`` and standard deviation ``scale``.

    >>> round(te.distributions.Normal(0.0, 1.0).log_prob(te.tensor(0.0)).item(), 4)
    -0.9189
    """

    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = together(loc, scale)
        super().__init__(self.loc.shape, validate_args)
        self._require("scale", "above 0", scale, lambda value: value > 0)

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
        """``scale`` squared."""
        return self.scale * self.scale

    @property
    def stddev(self) -> Tensor:
        """``scale``."""
        return self.scale

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = randn(self._extended(sample_shape), dtype=self.loc.dtype, device=self.loc.backend)
        return self.loc + noise * self.scale

    def log_prob(self, value: Any) -> Tensor:
        standard = (value - self.loc) / self.scale
        density: Tensor = -0.5 * standard * standard - self.scale.log() - 0.5 * math.log(2 * math.pi)
        return density

    def entropy(self) -> Tensor:
        return self.scale.log() + (0.5 + 0.5 * math.log(2 * math.pi))

    def cdf(self, value: Any) -> Tensor:
        """The probability of what is at most ``value``."""
        return 0.5 * (1 + erf((value - self.loc) / (self.scale * math.sqrt(2))))

    def icdf(self, value: Any) -> Tensor:
        """The value whose ``cdf`` is ``value``."""
        return self.loc + self.scale * erfinv(2 * value - 1) * math.sqrt(2)


class Uniform(Distribution):
    """The uniform distribution between ``low``, included, and ``high``, not included."""

    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = together(low, high)
        super().__init__(self.low.shape, validate_args)
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            self._require("low and high", "with low < high", (low, high), lambda pair: pair[0] < pair[1])
        else:
            self._require("high - low", "above 0", self.high - self.low, lambda width: width > 0)

    @property
    def mean(self) -> Tensor:
        """The middle."""
        return (self.high + self.low) / 2

    @property
    def variance(self) -> Tensor:
        """``(high - low) ** 2 / 12``."""
        width = self.high - self.low
        return width * width / 12

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = rand(self._extended(sample_shape), dtype=self.low.dtype, device=self.low.backend)
        return self.low + noise * (self.high - self.low)

    def log_prob(self, value: Any) -> Tensor:
        inside = (self.low <= value) & (self.high > value)
        return where(inside, -(self.high - self.low).log(), -math.inf)

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()

    def cdf(self, value: Any) -> Tensor:
        """The probability of what is at most ``value``."""
        below: Tensor = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
        return below

    def icdf(self, value: Any) -> Tensor:
        """The value whose ``cdf`` is ``value``."""
        found: Tensor = value * (self.high - self.low) + self.low
        return found


__all__ = ["Normal", "Uniform"]
