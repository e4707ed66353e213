"""Dropout that keeps mean and variance."""

from __future__ import annotations

from tinyedge.nn import functional as F
from tinyedge.nn.linear import Dropout
from tinyedge.tensor import Tensor


class AlphaDropout(Dropout):
    """In training mode, SELU's lower end in the place of each element with probability ``p``; keeps mean and variance.

    Shapes: any; returns the same.
    Errors: ArgumentError unless p is in [0, 1].
    Source: Klambauer et al., arXiv:1706.02515.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(Dropout):
    """In training mode, SELU's lower end in the place of each channel with probability ``p``; see ``AlphaDropout``.

    Shapes: (batch, channels, ...); returns the same.
    Errors: ArgumentError unless p is in [0, 1].
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training, self.inplace)
