"""The gamma distribution and those that its values make: chi squared, beta, Dirichlet, Student's t.

Samples are differentiable in the concentration: a sample keeps its place in the distribution while that moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyedge.autograd.modes import no_grad
from tinyedge.distributions.distribution import Distribution, together
from tinyedge.distributions.scaled import LEAST
from tinyedge.errors import ArgumentError
from tinyedge.ops import digamma, lgamma, rand, randn, where
from tinyedge.ops.with_gradient import with_gradient
from tinyedge.tensor import Tensor, tensor

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_DROP = 25.0
"""The logarithm of what an integrand has fallen by where its integral is cut off."""


def _slope(z: Tensor, a: Tensor) -> Tensor:
    """The derivative of ``z``, of a gamma distribution of concentration ``a``, by ``a`` at the same probability.

    That is the integral of ``p(t) / p(z) * (digamma(a) - log(t))`` over t from 0 to z, or minus that over what is above
    z. The one is taken in which all terms have one sign. With ``t = z * exp(-s)``, or ``z * exp(s)``, the integrand is
    smooth for every concentration.

    Source: Figurnov et al., Implicit reparameterization gradients, arXiv:1805.08498, for what is integrated.
    """
    z = z.clamp(1e-37)
    apart = z.log() - digamma(a)
    below = apart < 0
    b = 2 * (a - z) - _DROP
    root = (b * b + 8 * _DROP * a).sqrt()
    down = where(b > 0, 4 * _DROP / (b.clamp(0.0) + root), (root - b) / (2 * a))
    up = (_DROP / z + (2 * _DROP / z).sqrt()).log1p()
    far, sign = where(below, down, up), where(below, -1.0, 1.0).unsqueeze(-1)
    nodes = tensor((_NODES + 1) / 2, dtype=z.dtype, device=z.backend)
    weights = tensor(_WEIGHTS / 2, dtype=z.dtype, device=z.backend)
    s = far.unsqueeze(-1) * nodes * sign
    z, a, apart = z.unsqueeze(-1), a.unsqueeze(-1), apart.unsqueeze(-1)
    terms = ((a - z) * s - z * (s.expm1() - s)).exp() * (apart + s).abs()
    found: Tensor = z.squeeze(-1) * far * (terms * weights).sum(-1)
    return found


def _drawn(concentration: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values of the gamma distribution with rate 1, differentiable in the concentration."""
    a = concentration.expand(shape).contiguous()
    with no_grad():
        z = _gamma(a.detach())
    if not a.requires_grad:
        return z
    with no_grad():
        slope = _slope(z, a.detach())
    return with_gradient(z, a * slope, "a sample of Gamma")


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
        u = rand(shape.shape, dtype=shape.dtype, device=shape.backend).clamp(LEAST, 1.0)
        v = (1 + c * x) ** 3
        positive = v > 0
        v = where(positive, v, 1.0)
        accepted = positive & (u.log() < 0.5 * x * x + d - d * v + d * v.log())
        found = where(missing & accepted, d * v, found)
        missing = missing & ~accepted
    u = rand(shape.shape, dtype=shape.dtype, device=shape.backend).clamp(LEAST, 1.0)
    return where(small, found * u ** (1 / shape), found)


class Gamma(Distribution):
    """The gamma distribution."""

    has_rsample = True

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

    @property
    def mode(self) -> Tensor:
        """``(concentration - 1) / rate``, or 0."""
        return ((self.concentration - 1) / self.rate).clamp(0.0)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return _drawn(self.concentration, self._extended(sample_shape)) / self.rate

    def log_prob(self, value: Any) -> Tensor:
        a, (value,) = self.concentration, together(value)
        density: Tensor = a * self.rate.log() + (a - 1) * value.log() - self.rate * value - lgamma(a)
        return density

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + lgamma(a) + (1 - a) * digamma(a)


class Chi2(Gamma):
    """The sum of the squares of ``df`` normal numbers."""

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        (self.df,) = together(df)
        super().__init__(0.5 * self.df, 0.5, validate_args)


class StudentT(Distribution):
    """Student's t distribution with ``df`` degrees of freedom."""

    has_rsample = True

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = together(df, loc, scale)
        super().__init__(self.df.shape, validate_args)
        self._require("df", "above 0", df, lambda value: value > 0)
        self._require("scale", "above 0", scale, lambda value: value > 0)

    @property
    def mean(self) -> Tensor:
        """``loc``; NaN where ``df`` is at most 1."""
        return where(self.df > 1, self.loc, math.nan)

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """``scale ** 2 * df / (df - 2)``; infinite where ``df`` is at most 2, NaN where it is at most 1."""
        finite = self.df > 2
        found = self.scale * self.scale * self.df / where(finite, self.df - 2, 1.0)
        return where(finite, found, where(self.df > 1, math.inf, math.nan))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended(sample_shape)
        noise = randn(shape, dtype=self.loc.dtype, device=self.loc.backend)
        return self.loc + self.scale * noise * (self.df / (2 * _drawn(0.5 * self.df, shape))).sqrt()

    def log_prob(self, value: Any) -> Tensor:
        y = (value - self.loc) / self.scale
        scale = self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi)
        scale = scale + lgamma(0.5 * self.df) - lgamma(0.5 * (self.df + 1))
        density: Tensor = -0.5 * (self.df + 1) * (y * y / self.df).log1p() - scale
        return density

    def entropy(self) -> Tensor:
        half, more = 0.5 * self.df, 0.5 * (self.df + 1)
        beta = lgamma(half) + lgamma(more * 0 + 0.5) - lgamma(more)
        return self.scale.log() + more * (digamma(more) - digamma(half)) + 0.5 * self.df.log() + beta


class Dirichlet(Distribution):
    """Probabilities of classes."""

    has_rsample = True

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

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        drawn = _drawn(self.concentration, (*self._extended(sample_shape), *self.event_shape))
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
    """The beta distribution on [0, 1]."""

    has_rsample = True

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

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended(sample_shape)
        one, other = (_drawn(each, shape) for each in (self.concentration1, self.concentration0))
        return one / (one + other)

    def log_prob(self, value: Any) -> Tensor:
        a, b, (value,) = self.concentration1, self.concentration0, together(value)
        density: Tensor = (a - 1) * value.log() + (b - 1) * (-value).log1p() + lgamma(a + b) - lgamma(a) - lgamma(b)
        return density

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        beta = lgamma(a) + lgamma(b) - lgamma(a + b)
        return beta - (a - 1) * digamma(a) - (b - 1) * digamma(b) + (a + b - 2) * digamma(a + b)


__all__ = ["Beta", "Chi2", "Dirichlet", "Gamma", "StudentT"]
