"""What losses have in common: how their elements become one number."""

from __future__ import annotations

from tinyedge.nn.module import Module
from tinyedge.ops.reduction import reduction_of
from tinyedge.tensor import Tensor


class _Loss(Module):
    """Base of the losses, and of losses of one's own: keeps ``reduction``."""

    reduction: str

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__()
        flags = size_average is not None or reduce is not None
        self.reduction = reduction_of(type(self).__name__, "mean", size_average, reduce) if flags else reduction


class _WeightedLoss(_Loss):
    """Base of the losses with a weight for each class, which is a buffer."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


__all__: list[str] = []
