"""Losses as layers whose arguments are checked otherwise than the functions'."""

from __future__ import annotations

from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor


class KLDivLoss(Module):
    """Kullback-Leibler divergence of the target from log-probabilities; see ``F.kl_div``."""

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__()
        if reduction not in ("none", "mean", "sum", "batchmean"):
            expected = 'reduction must be "none", "mean", "sum" or "batchmean"'
            raise ArgumentError("KLDivLoss", expected, f"got {reduction!r}")
        self.size_average, self.reduce = size_average, reduce
        self.reduction, self.log_target = reduction, log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(input, target, self.size_average, self.reduce, self.reduction, self.log_target)
