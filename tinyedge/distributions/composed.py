"""Distributions made of others: of several values as one, mixtures, and functions of a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.distributions.discrete import Categorical
from tinyedge.distributions.distribution import Distribution, together
from tinyedge.distributions.real import Normal
from tinyedge.distributions.transforms import ComposeTransform, ExpTransform, Transform
from tinyedge.errors import ArgumentError
from tinyedge.ops import gather, log_softmax, logsumexp
from tinyedge.tensor import Tensor


def _summed(x: Tensor, dims: int) -> Tensor:
    return x.sum(tuple(range(-dims, 0))) if dims else x


class Independent(Distribution):
    """``base_distribution``, whose last ``reinterpreted_batch_ndims`` dims of the batch are one value."""

    def __init__(
        self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None
    ) -> None:
        base, dims = base_distribution, reinterpreted_batch_ndims
        if not 0 <= dims <= len(base.batch_shape):
            raise ArgumentError("Independent", f"up to {len(base.batch_shape)} dims of the batch", f"got {dims}")
        self.base_dist, self.reinterpreted_batch_ndims = base, dims
        self.has_rsample = base.has_rsample
        cut = len(base.batch_shape) - dims
        super().__init__(base.batch_shape[:cut], validate_args)
        self.event_shape = base.batch_shape[cut:] + base.event_shape

    @property
    def mean(self) -> Tensor:
        """The base's mean."""
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        """The base's variance."""
        return self.base_dist.variance

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Any) -> Tensor:
        return _summed(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        return _summed(self.base_dist.entropy(), self.reinterpreted_batch_ndims)


class MixtureSameFamily(Distribution):
    """A value of one of ``component_distribution``, along the last dim of its batch, that the mixture chooses."""

    def __init__(
        self, mixture_distribution: Categorical, component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(mixture_distribution, Categorical):
            got = type(mixture_distribution).__name__
            raise ArgumentError("MixtureSameFamily", "a Categorical that chooses", f"got {got}")
        parts = component_distribution.batch_shape
        choices = mixture_distribution.probs.shape[-1]
        if not parts or parts[-1] != choices:
            raise ArgumentError("MixtureSameFamily", f"{choices} components in the last dim", f"got a batch {parts}")
        self.mixture_distribution, self.component_distribution = mixture_distribution, component_distribution
        super().__init__(parts[:-1], validate_args)
        self.event_shape = component_distribution.event_shape

    def _weighted(self, x: Tensor) -> Tensor:
        weights = self.mixture_distribution.probs
        rank = len(self.event_shape)
        weights = weights.reshape(*weights.shape, *[1] * rank)
        return (weights * x).sum(-1 - rank)

    @property
    def mean(self) -> Tensor:
        """The components' means, weighted."""
        return self._weighted(self.component_distribution.mean)

    @property
    def variance(self) -> Tensor:
        """The variance within and between the components."""
        rank = len(self.event_shape)
        apart = self.component_distribution.mean - self.mean.unsqueeze(-1 - rank)
        return self._weighted(self.component_distribution.variance) + self._weighted(apart * apart)

    def log_prob(self, value: Any) -> Tensor:
        value = value.unsqueeze(-1 - len(self.event_shape))
        parts = self.component_distribution.log_prob(value)
        return logsumexp(parts + log_softmax(self.mixture_distribution.logits, -1), -1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            chosen = self.mixture_distribution.sample(sample_shape)
            values = self.component_distribution.sample(sample_shape)
            rank, dim = len(self.event_shape), values.ndim - 1 - len(self.event_shape)
            index = chosen.reshape(*chosen.shape, *[1] * (rank + 1))
            shape = [*values.shape]
            shape[dim] = 1
            return gather(values, dim, index.expand(*shape)).squeeze(dim)


class TransformedDistribution(Distribution):
    """``transforms`` of a value of ``base_distribution``."""

    def __init__(
        self, base_distribution: Distribution, transforms: Transform | Sequence[Transform],
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        given = [transforms] if isinstance(transforms, Transform) else list(transforms)
        self.base_dist, self.transforms = base_distribution, given
        self._all = ComposeTransform(given)
        self.has_rsample = base_distribution.has_rsample
        whole = base_distribution.batch_shape + base_distribution.event_shape
        dims = max(self._all.event_dim, len(base_distribution.event_shape))
        cut = len(whole) - dims
        super().__init__(whole[:cut], validate_args)
        self.event_shape = whole[cut:]

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            found: Tensor = self._all(self.base_dist.sample(sample_shape))
            return found

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        found: Tensor = self._all(self.base_dist.rsample(sample_shape))
        return found

    def log_prob(self, value: Any) -> Tensor:
        total: Any = 0.0
        y, dims = value, len(self.event_shape)
        for transform in reversed(self.transforms):
            x = transform._inverse(y)
            total = total - _summed(transform.log_abs_det_jacobian(x, y), dims - transform.event_dim)
            y = x
        density: Tensor = total + _summed(self.base_dist.log_prob(y), dims - len(self.base_dist.event_shape))
        return density


class LogNormal(TransformedDistribution):
    """The exponential of a value of ``Normal(loc, scale)``."""

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = together(loc, scale)
        super().__init__(Normal(loc, scale, validate_args), ExpTransform(), validate_args)

    @property
    def mean(self) -> Tensor:
        """``exp(loc + scale ** 2 / 2)``."""
        return (self.loc + self.scale * self.scale / 2).exp()

    @property
    def variance(self) -> Tensor:
        """``(exp(scale ** 2) - 1) * exp(2 * loc + scale ** 2)``."""
        square = self.scale * self.scale
        return square.expm1() * (2 * self.loc + square).exp()

    def entropy(self) -> Tensor:
        return self.scale.log() + self.loc + (0.5 + 0.5 * math.log(2 * math.pi))


__all__ = ["Independent", "LogNormal", "MixtureSameFamily", "TransformedDistribution"]
