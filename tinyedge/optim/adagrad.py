"""Adagrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.ops.update import Update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class AdagradUpdate(Update):
    """``rate`` is lr, decayed."""

    signature = "(),(),()->(),(),()"
    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "sum": (0.1, 4.0)}
    scalars = {"scale": "real", "weight_decay": "real", "rate": "real", "eps": "real"}

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        grad = "(grad * scale + param * weight_decay)"
        total = f"(sum + {grad} * {grad})"
        return {"param": f"param - rate * {grad} / (sqrt({total}) + eps)", "sum": total}

    @staticmethod
    def forward(param: Any, grad: Any, sum: Any, *, scale: float, weight_decay: float, rate: float, eps: float) -> Any:
        g = grad * scale + param * weight_decay
        total = sum + g * g
        return param - rate * g / (np.sqrt(total) + eps), np.zeros_like(grad), total


class Adagrad(Optimizer):
    """Adagrad: each parameter's step is scaled by the root of the sum of its squared gradients.

    Options (a group may have its own, and they may change between steps):
        lr: learning rate; 1e-2.
        lr_decay: update number t uses the rate ``lr / (1 + (t - 1) * lr_decay)``; 0.
        weight_decay: L2 penalty, ``weight_decay * parameter`` is added to the gradient; 0.
        initial_accumulator_value: with what the sum of squares begins; 0.
        eps: added to the root of the sum, against division by zero; 1e-10.
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``: accumulate, nonfinite, master.

    Source: Duchi et al., Adaptive subgradient methods, JMLR 12 (2011).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
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
        self.require_at_least_zero(
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("step", "sum")

    def begin(self, group: dict[str, Any], name: str) -> float:
        return float(group["initial_accumulator_value"])

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        rate = group["lr"] / (1 + (step - 1) * group["lr_decay"])
        return Rule(AdagradUpdate, {"weight_decay": group["weight_decay"], "rate": rate, "eps": group["eps"]})
