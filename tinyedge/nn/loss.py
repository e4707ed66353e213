"""Losses as layers whose arguments are checked otherwise than the functions'."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F
from tinyedge.nn import reducing
from tinyedge.nn.linear import Linear
from tinyedge.nn.module import Module
from tinyedge.ops.reduction import reduction_of
from tinyedge.tensor import Tensor


class KLDivLoss(reducing._Loss):
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


class HuberLoss(reducing._Loss):
    """Half the squared distance up to ``delta``, and a line beyond; see ``F.huber_loss``."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__()
        reduction_of("HuberLoss", reduction)
        if isinstance(delta, bool) or not isinstance(delta, (int, float)):
            raise ArgumentError("HuberLoss", "a delta that is a number", f"got {delta!r}")
        self.reduction, self.delta = reduction, delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, self.reduction, self.delta)


class LinearCrossEntropyLoss(Module):
    """Cross entropy of a linear layer's results, without all of them in memory; see ``F.linear_cross_entropy``.

    The linear layer, of ``in_features`` and ``num_classes``, is its own, with a ``bias`` if that is asked for;
    ``out_features`` are further dims of its results, for each of which there is a target.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: LinearCrossEntropyOptions | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if weight is not None and weight.shape != (num_classes,):
            raise ArgumentError(name, f"a weight of shape {(num_classes,)}", f"got {weight.shape}")
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError(name, "label_smoothing must be in [0, 1]", f"got {label_smoothing}")
        reduction_of(name, reduction)
        self.register_buffer("weight", weight)
        self.reduction = reduction
        self.num_classes, self.out_features = num_classes, tuple(out_features)
        self.ignore_index, self.label_smoothing, self.options = ignore_index, label_smoothing, options
        self.linear = Linear(in_features, prod(self.out_features, start=num_classes), bias, device, dtype)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        shape, bias = (self.num_classes, *self.out_features), self.linear.bias
        return F.linear_cross_entropy(
            input,
            self.linear.weight.reshape(*shape, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )

    def extra_repr(self) -> str:
        return (
            f"in_features={self.linear.in_features}, num_classes={self.num_classes}, out_features={self.out_features}, "
            f"bias={self.linear.bias is not None}, reduction={self.reduction}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing}, options={self.options}"
        )


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
