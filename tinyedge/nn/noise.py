"""Dropout that keeps mean and variance."""

from __future__ import annotations

from tinyedge.nn import functional as F
from tinyedge.nn.linear import Dropout
from tinyedge.tensor import Tensor


class AlphaDropout(Dropout):
    """In training mode, SELU's lower end in the place of each element with probability ``p``; keeps mean and variance.

    Shapes: any; returns the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(Dropout):
    """As AlphaDropout, of whole channels.

    Shapes: (batch, channels, ...); returns the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training, self.inplace)
