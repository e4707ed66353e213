"""Dropout of whole channels, and dropout that keeps moments."""

from __future__ import annotations

from tinyedge.nn import functional as F
from tinyedge.nn.linear import Dropout
from tinyedge.tensor import Tensor


class Dropout1d(Dropout):
    """In training mode, each channel becomes 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    Shapes: (batch, channels, length) or (channels, length); returns the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(Dropout):
    """In training mode, each channel becomes 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    Shapes: (batch, channels, height, width); returns the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(Dropout):
    """In training mode, each channel becomes 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    Shapes: (batch, channels, depth, height, width) or without batch; returns the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout3d(input, self.p, self.training, self.inplace)


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
