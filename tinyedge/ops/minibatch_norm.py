"""Batch normalization by the statistics of a minibatch whose samples are in tensors of their own.

In: one sample of a lockstep (``autograd/lockstep.py``), in which the others come to the same norm. Out: the sample,
normalised by the mean and variance of all. The sums of each sample, and what they are used for, are ordinary ops, so
the gradient goes through mean and variance into every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import prod
from typing import Any

from tinyedge.autograd.lockstep import at_end, meet
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.movement import stack
from tinyedge.ops.normalize import require_fitting
from tinyedge.ops.promotion import floating
from tinyedge.tensor import Tensor

Track = Callable[[Tensor, Tensor, int], None]
"""Is given the mean, the (biased) variance, and the number of values of each channel."""


def normalize_over_minibatch(
    call: str,
    norm: Hashable,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    track: Track | None = None,
) -> Tensor:
    """``batch_norm`` in training, over ``input`` and what the other samples of the lockstep bring to ``norm``.

    ``track`` is called once when all samples came to their ends. Saved of a sample is the input less the mean.

    Errors: ArgumentError outside a lockstep; ShapeError if a channel has only one value in all samples together.
    """
    input = floating(call, input)
    for name, value in (("weight", weight), ("bias", bias)):
        require_fitting(call, name, value, input.shape[1:2], input)
    sums = input.dtype.computes
    dims = (0, *range(2, input.ndim))
    column = (-1, *(1,) * (input.ndim - 2))
    own = input.shape[0] * prod(input.shape[2:])
    total = 0  # of all samples
    means: list[Tensor] = []

    def alone() -> Exception:
        return ArgumentError(
            call,
            'with statistics="minibatch", samples that come together',
            "got one by itself",
            "Call te.adapt.minibatch_norm(model, n) with n samples, or set statistics to \"frozen\" or \"batch\".",
        )  # fmt: skip

    def join_sums(brought: list[Any]) -> list[Any]:
        nonlocal total
        total = sum(count for _, count in brought)
        if total == 1:
            raise ShapeError(call, "more than one value a channel in the minibatch", f"got {input.shape} alone")
        means.append(stack([part for part, _ in brought]).sum(0) / max(total, 1))
        return means * len(brought)

    def join_squares(brought: list[Any]) -> list[Any]:
        var = stack(brought).sum(0) / max(total, 1)
        if track is not None and total:
            at_end(lambda: track(means[0].detach(), var.detach(), total))
        scale = (var + eps).rsqrt()
        return [scale if weight is None else scale * weight] * len(brought)

    x = input.to(sums)
    # The mean is subtracted before squares are summed, as the difference of large sums would have lost the digits.
    centered = x - meet((norm, "mean"), (x.sum(dims), own), join_sums, alone).reshape(column)
    y: Tensor = centered * meet((norm, "var"), centered.square().sum(dims), join_squares, alone).reshape(column)
    return (y if bias is None else y + bias.reshape(column)).to(input.dtype)
