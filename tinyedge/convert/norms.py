"""Batch norms of a model's file: by running statistics, the batch's, or those of a minibatch of single samples; or
renormalised, or as group norms.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F
from tinyedge.nn.normalization import groups_for, renormalised
from tinyedge.ops.minibatch_norm import normalize_over_minibatch
from tinyedge.tensor import Tensor


class OverMinibatch(NamedTuple):
    """Stands for ``training=True`` where samples come together, as ``te.adapt.minibatch_norm`` runs them."""

    norm: Hashable
    """Which of the model's norms it is: there the samples meet."""


class Renormalised(NamedTuple):
    """Stands for ``training=True`` where the batch's statistics are corrected; see ``te.adapt.to_batch_renorm``."""

    r_max: float
    d_max: float


class InGroups(NamedTuple):
    """Stands for ``training``, whatever it is, where each sample is normalised by itself; see
    ``te.adapt.to_group_norm``.
    """

    groups: int
    """At most so many, as divide the channels."""


How = bool | OverMinibatch | Renormalised | InGroups
"""How a batch norm of a file computes: whether by the batch's statistics, or in another way."""


def batch_norm(
    call: str,
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    momentum: float,
    how: How,
) -> Tensor:
    """Without ``mean`` and ``var`` it has no running statistics. ``momentum`` is the share of what is new."""
    if isinstance(how, bool):
        return F.batch_norm(x, mean, var, scale, bias, how or mean is None or var is None, momentum, epsilon)
    if isinstance(how, InGroups):
        kind = x.dtype.computes
        weight, shift = (None if part is None else part.to(kind) for part in (scale, bias))
        y: Tensor = F.group_norm(x.to(kind), groups_for(x.shape[1], how.groups), weight, shift, epsilon)
        return y.to(x.dtype)

    def track(new_mean: Tensor, new_var: Tensor, count: int) -> None:
        assert mean is not None
        assert var is not None
        with no_grad():
            for running, new in ((mean, new_mean), (var, new_var * (count / (count - 1)))):
                running.copy_(running * (1.0 - momentum) + new * momentum)

    if isinstance(how, OverMinibatch):
        has_running = mean is not None and var is not None
        return normalize_over_minibatch(call, how.norm, x, scale, bias, epsilon, track if has_running else None)
    if mean is None or var is None:
        raise ArgumentError(
            "to_batch_renorm", "batch norms with running statistics, to which it corrects", "one has none",
            "Use te.adapt.to_group_norm, or te.adapt.minibatch_norm.",
        )  # fmt: skip
    y, new_mean, new_var = renormalised(x, mean, var, scale, bias, epsilon, how.r_max, how.d_max)
    if x.numel():
        track(new_mean, new_var, x.numel() // x.shape[1])
    return y
