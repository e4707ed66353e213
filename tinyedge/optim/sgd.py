"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from tinyedge.errors import ArgumentError
from tinyedge.ops import update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum as PyTorch defines it: ``buffer = momentum * buffer + gradient``.

    Source: Sutskever et al., On the importance of initialization and momentum in deep learning (2013).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        accumulate: int | None = None,
        nonfinite: str = "ignore",
    ) -> None:
        self.require_at_least_zero(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ArgumentError(
                "SGD",
                "nesterov=True needs momentum above 0 and dampening=0",
                f"got momentum={momentum}, dampening={dampening}",
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults, accumulate, nonfinite)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        scalars = {
            "lr": group["lr"],
            "momentum": group["momentum"],
            "keep": 1.0 if first else 1 - group["dampening"],
            "weight_decay": group["weight_decay"],
        }
        return Rule(update.Sgd, scalars, {"nesterov": group["nesterov"]})
