"""Invertible functions whose logarithm of the slope is known: what ``TransformedDistribution`` is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinyedge.ops import logsigmoid, softplus
from tinyedge.tensor import Tensor


class Transform:
    """Base of the transforms; ``event_dim`` of the last dims are one value. ``cache_size`` changes nothing."""

    event_dim = 0
    bijective = True

    def __init__(self, cache_size: int = 0) -> None:
        pass

    def __call__(self, x: Any) -> Any:
        """The value at ``x``."""
        raise NotImplementedError

    def _inverse(self, y: Any) -> Any:
        raise NotImplementedError

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """The logarithm of the size of the slope at ``x``, where the value is ``y``."""
        raise NotImplementedError

    @property
    def inv(self) -> Transform:
        """The inverse."""
        return _Inverse(self)


class _Inverse(Transform):
    def __init__(self, of: Transform) -> None:
        super().__init__()
        self.of, self.event_dim = of, of.event_dim

    def __call__(self, x: Any) -> Any:
        return self.of._inverse(x)

    def _inverse(self, y: Any) -> Any:
        return self.of(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -self.of.log_abs_det_jacobian(y, x)

    @property
    def inv(self) -> Transform:
        return self.of


class AffineTransform(Transform):
    """``loc + scale * x``."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__()
        self.loc, self.scale, self.event_dim = loc, scale, event_dim

    def __call__(self, x: Any) -> Any:
        return self.loc + self.scale * x

    def _inverse(self, y: Any) -> Any:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        size = self.scale.abs().log() if isinstance(self.scale, Tensor) else math.log(abs(self.scale))
        slope = size + x * 0.0
        for _ in range(self.event_dim):
            slope = slope.sum(-1)
        return slope


class ExpTransform(Transform):
    """``exp(x)``."""

    def __call__(self, x: Any) -> Any:
        return x.exp()

    def _inverse(self, y: Any) -> Any:
        return y.log()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return x


class SigmoidTransform(Transform):
    """``sigmoid(x)``."""

    def __call__(self, x: Any) -> Any:
        return x.sigmoid()

    def _inverse(self, y: Any) -> Any:
        y = y.clamp(2.0**-126, 1 - 2.0**-23)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return logsigmoid(x) + logsigmoid(-x)


class TanhTransform(Transform):
    """``tanh(x)``."""

    def __call__(self, x: Any) -> Any:
        return x.tanh()

    def _inverse(self, y: Any) -> Any:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class SoftplusTransform(Transform):
    """``log(1 + exp(x))``."""

    def __call__(self, x: Any) -> Any:
        return softplus(x)

    def _inverse(self, y: Any) -> Any:
        return (-(-y).expm1()).log() + y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -softplus(-x)


class ComposeTransform(Transform):
    """Several transforms, the first of ``parts`` first."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        super().__init__()
        self.parts = list(parts)
        self.event_dim = max((part.event_dim for part in self.parts), default=0)

    def __call__(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: Any) -> Any:
        for part in reversed(self.parts):
            y = part._inverse(y)
        return y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        total: Any = 0.0
        for part in self.parts:
            after = part(x)
            slope = part.log_abs_det_jacobian(x, after)
            for _ in range(self.event_dim - part.event_dim):
                slope = slope.sum(-1)
            total, x = total + slope, after
        return total


__all__ = [
    "AffineTransform", "ComposeTransform", "ExpTransform", "SigmoidTransform", "SoftplusTransform", "TanhTransform",
    "Transform",
]  # fmt: skip
