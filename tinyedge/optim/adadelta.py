"""Adadelta."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.errors import ArgumentError
from tinyedge.ops.update import Update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class AdadeltaUpdate(Update):
    """``weight`` is 1 - rho."""

    signature = "(),(),(),()->(),(),(),()"
    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "square_avg": (0.1, 4.0), "acc_delta": (0.1, 4.0)}
    scalars = {"scale": "real", "weight_decay": "real", "lr": "real", "rho": "real", "weight": "real", "eps": "real"}

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        grad = "(grad * scale + param * weight_decay)"
        square = f"(square_avg * rho + weight * {grad} * {grad})"
        delta = f"(sqrt(acc_delta + eps) / sqrt({square} + eps) * {grad})"
        return {
            "param": f"param - lr * {delta}",
            "square_avg": square,
            "acc_delta": f"acc_delta * rho + weight * {delta} * {delta}",
        }

    @staticmethod
    def forward(
        param: Any,
        grad: Any,
        square_avg: Any,
        acc_delta: Any,
        *,
        scale: float,
        weight_decay: float,
        lr: float,
        rho: float,
        weight: float,
        eps: float,
    ) -> Any:
        g = grad * scale + param * weight_decay
        square_avg = square_avg * rho + weight * g * g
        delta = np.sqrt(acc_delta + eps) / np.sqrt(square_avg + eps) * g
        return param - lr * delta, np.zeros_like(grad), square_avg, acc_delta * rho + weight * delta * delta


class Adadelta(Optimizer):
    """Adadelta: steps as large as the earlier ones, for a gradient as large as the earlier ones.

    Options (a group may have its own, and they may change between steps):
        lr: factor of each step; 1.0.
        rho: decay per update, in [0, 1], of the averages of the squares of gradients and of steps; 0.9.
        eps: added to both averages before their roots are taken; it makes the first steps; 1e-6.
        weight_decay: L2 penalty, ``weight_decay * parameter`` is added to the gradient; 0.
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``: accumulate, nonfinite, master.

    Source: Zeiler, arXiv:1212.5701.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        accumulate: int | None = None,
        nonfinite: str = "ignore",
        master: bool = False,
    ) -> None:
        self.refuse_differentiable(differentiable)
        self.require_at_least_zero(lr=lr, eps=eps, weight_decay=weight_decay)
        if not 0 <= rho <= 1:
            raise ArgumentError("Adadelta", "rho must be in [0, 1]", f"got {rho}")
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("step", "square_avg", "acc_delta")

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        scalars = {name: group[name] for name in ("weight_decay", "lr", "rho", "eps")}
        return Rule(AdadeltaUpdate, {**scalars, "weight": 1 - group["rho"]})
