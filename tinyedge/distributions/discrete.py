"""Distributions of classes, given by probabilities or by logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.distributions.distribution import Distribution, together
from tinyedge.dtypes import int64
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops import arange, broadcast_tensors, expand, gather, isinf, lgamma, multinomial, rand, where
from tinyedge.ops import binary_cross_entropy_with_logits as binary_cross_entropy
from tinyedge.tensor import Tensor, full

_EPS = 2.0**-23  # of float32


def _one_of(name: str, probs: Any, logits: Any) -> bool:
    if (probs is None) == (logits is None):
        raise ArgumentError(name, "either probs or logits", "got both" if probs is not None else "got none")
    return probs is not None


def _clamped(probs: Tensor) -> Tensor:
    """Probabilities of which no logarithm is infinite."""
    return probs.clamp(_EPS, 1 - _EPS)


class Trials(Distribution):
    """Base of the distributions of outcomes that are 1 with probability ``probs``, or ``sigmoid(logits)``."""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._by_probs = _one_of(type(self).__name__, probs, logits)
        (self._parameter,) = together(probs if self._by_probs else logits)
        super().__init__(self._parameter.shape, validate_args)
        if self._by_probs:
            given = probs
            self._require("probs", "in [0, 1]", given, lambda value: (value >= 0) & (value <= 1))

    @property
    def probs(self) -> Tensor:
        """The probability of 1."""
        return self._parameter if self._by_probs else self._parameter.sigmoid()

    @property
    def logits(self) -> Tensor:
        """``log(probs / (1 - probs))``."""
        if not self._by_probs:
            return self._parameter
        probs = _clamped(self._parameter)
        return probs.log() - (-probs).log1p()


class Bernoulli(Trials):
    """1 with probability ``probs``, or ``sigmoid(logits)``; else 0. Samples are of the parameter's dtype."""

    @property
    def mean(self) -> Tensor:
        """``probs``."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """``probs * (1 - probs)``."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            probs = self.probs
            drawn = rand(self._extended(sample_shape), dtype=probs.dtype, device=probs.backend)
            return (drawn < probs).to(probs.dtype)

    def log_prob(self, value: Any) -> Tensor:
        logits, given = together(self.logits, value)
        return -binary_cross_entropy(logits, given.to(logits.dtype), reduction="none")

    def entropy(self) -> Tensor:
        return binary_cross_entropy(self.logits, self.probs, reduction="none")


class Geometric(Trials):
    """The number of failures before the first success, each of probability ``probs``, or ``sigmoid(logits)``."""

    @property
    def mean(self) -> Tensor:
        """``1 / probs - 1``."""
        return 1 / self.probs - 1

    @property
    def variance(self) -> Tensor:
        """``(1 / probs - 1) / probs``."""
        return (1 / self.probs - 1) / self.probs

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            probs = self.probs
            drawn = rand(self._extended(sample_shape), dtype=probs.dtype, device=probs.backend)
            found: Tensor = ((-drawn).log1p() / (-_clamped(probs)).log1p()).floor()
            return where(probs == 1, 0.0, found)

    def log_prob(self, value: Any) -> Tensor:
        probs, given = together(self.probs, value)
        sure = (probs == 1) & (given == 0)
        density: Tensor = given * (-where(sure, 0.0, probs)).log1p() + self.probs.log()
        return density

    def entropy(self) -> Tensor:
        return binary_cross_entropy(self.logits, self.probs, reduction="none") / self.probs


class Binomial(Trials):
    """The number of successes among ``total_count``, each of probability ``probs``, or ``sigmoid(logits)``."""

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        super().__init__(probs, logits, validate_args)
        self.total_count, self._parameter = together(total_count, self._parameter)
        self.total_count = self.total_count.to(self._parameter.dtype)
        self.batch_shape = self._parameter.shape

    @property
    def mean(self) -> Tensor:
        """``total_count * probs``."""
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        """``total_count * probs * (1 - probs)``."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        forbid_in_recording("Binomial.sample", "how many numbers it draws depends on total_count")
        with no_grad():
            most = int(self.total_count.max().item()) if self.total_count.numel() else 0
            shape, probs = self._extended(sample_shape), self.probs
            drawn = rand((*shape, most), dtype=probs.dtype, device=probs.backend) < probs.unsqueeze(-1)
            counted = arange(most, device=probs.backend) < self.total_count.unsqueeze(-1)
            return (drawn & counted).to(probs.dtype).sum(-1)

    def log_prob(self, value: Any) -> Tensor:
        n, k = together(self.total_count, value)
        ways = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
        return ways - n * binary_cross_entropy(self.logits + k * 0, k / where(n == 0, 1.0, n), reduction="none")


class Categorical(Distribution):
    """Classes from 0 on, with probabilities along the last dim: ``probs``, which need not sum to 1, or ``logits``."""

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self._by_probs = _one_of("Categorical", probs, logits)
        given = probs if self._by_probs else logits
        assert given is not None
        if not given.ndim:
            raise ShapeError("Categorical", "parameters (..., classes)", "got a 0-d tensor")
        super().__init__(given.shape[:-1], validate_args)
        if self._by_probs:
            self._require("probs", "of at least 0", given, lambda value: value >= 0)
            self._parameter = given / given.sum(-1, True)
        else:
            self._parameter = given - given.logsumexp(-1, True)

    @property
    def probs(self) -> Tensor:
        """The probabilities, whose sum is 1."""
        return self._parameter if self._by_probs else self._parameter.softmax(-1)

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return _clamped(self._parameter).log() if self._by_probs else self._parameter

    @property
    def mean(self) -> Tensor:
        """NaN: classes are no numbers."""
        return full(self.batch_shape, float("nan"), dtype=self._parameter.dtype, device=self._parameter.backend)

    @property
    def variance(self) -> Tensor:
        """NaN: classes are no numbers."""
        return self.mean

    @property
    def mode(self) -> Tensor:
        """The class of the largest probability."""
        return self._parameter.argmax(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended(sample_shape)
        with no_grad():
            probs = self.probs.reshape(-1, self._parameter.shape[-1])
            count = 1
            for size in shape[: len(shape) - len(self.batch_shape)]:
                count *= size
            if not count or not probs.shape[0]:
                return full(shape, 0, dtype=int64, device=probs.backend)
            return multinomial(probs, count, replacement=True).T.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        logits, index = self.logits, value.to(int64)
        shape = broadcast_tensors(index, logits[..., 0])[0].shape
        logits = expand(logits, (*shape, logits.shape[-1]))
        return gather(logits, -1, expand(index, shape).unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        logits = self.logits
        return -(where(isinf(logits), 0.0, logits) * self.probs).sum(-1)


__all__ = ["Bernoulli", "Binomial", "Categorical", "Geometric"]
