"""RMSprop."""

from __future__ import annotations

from typing import Any

from tinyedge.ops import update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class RMSprop(Optimizer):
    """The gradient divided by a running root mean square of itself.

    Source: Hinton, Neural Networks for Machine Learning, lecture 6e (2012).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
        accumulate: int | None = None,
        nonfinite: str = "ignore",
    ) -> None:
        self.require_at_least_zero(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, accumulate, nonfinite)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        momentum = ("momentum_buffer",) if group["momentum"] else ()
        return ("step", "square_avg", *momentum, *(("grad_avg",) if group["centered"] else ()))

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        scalars = {name: group[name] for name in ("lr", "alpha", "eps", "weight_decay", "momentum")}
        return Rule(update.Rmsprop, {**scalars, "weight": 1 - group["alpha"]})
