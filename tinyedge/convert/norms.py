"""Batch norms of a model's file: by running statistics, the batch's, or those of a minibatch of single samples."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from tinyedge.autograd.modes import no_grad
from tinyedge.nn import functional as F
from tinyedge.ops.minibatch_norm import normalize_over_minibatch
from tinyedge.tensor import Tensor


class OverMinibatch(NamedTuple):
    """Stands for ``training=True`` where samples come together, as ``te.adapt.minibatch_norm`` runs them."""

    norm: Hashable
    """Which of the model's norms it is: there the samples meet."""


def batch_norm(
    call: str,
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    momentum: float,
    training: bool | OverMinibatch,
) -> Tensor:
    """Without ``mean`` and ``var`` it has no running statistics. ``momentum`` is the share of what is new."""
    if not isinstance(training, OverMinibatch):
        return F.batch_norm(x, mean, var, scale, bias, training or mean is None or var is None, momentum, epsilon)

    def track(new_mean: Tensor, new_var: Tensor, count: int) -> None:
        assert mean is not None
        assert var is not None
        with no_grad():
            for running, new in ((mean, new_mean), (var, new_var * (count / (count - 1)))):
                running.copy_(running * (1.0 - momentum) + new * momentum)

    has_running = mean is not None and var is not None
    return normalize_over_minibatch(call, training.norm, x, scale, bias, epsilon, track if has_running else None)
