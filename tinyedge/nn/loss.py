"""Losses as layers whose arguments are checked otherwise than the functions'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor


class KLDivLoss(Module):
    """Kullback-Leibler divergence of the target from log-probabilities; see ``F.kl_div``.

    ``log_target``: the target has log-probabilities too. ``reduction`` is "mean" (over all elements), "batchmean" (the
    sum over the batch's size, which is the divergence), "sum" or "none".

    Shapes: input and target alike; returns () unless reduction="none".
    Units:  nats.
    Errors: ArgumentError for another reduction; ShapeError if the shapes do not broadcast.
    """

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


@dataclass(frozen=True)
class LinearCrossEntropyOptions:
    """How ``F.linear_cross_entropy`` divides its batch: in chunks of ``batch_chunk_size`` rows; None: of 32 MiB.

    ``allow_retain_graph``, ``chunking_method``, ``acc_policy`` and ``acc_dtype`` are about PyTorch's kernels, and
    change nothing: sums are in float32 here, and the graph of a call may always be retained.
    """

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: Any = None
