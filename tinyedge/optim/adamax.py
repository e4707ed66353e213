"""Adamax."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.ops.update import Update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class AdamaxUpdate(Update):
    """``weight1`` is 1 - beta1, ``step_size`` lr / (1 - beta1^t)."""

    signature = "(),(),(),()->(),(),(),()"
    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "exp_avg": (-4.0, 4.0), "exp_inf": (0.1, 4.0)}
    scalars = {
        "scale": "real",
        "weight_decay": "real",
        "beta1": "real",
        "weight1": "real",
        "beta2": "real",
        "step_size": "real",
        "eps": "real",
    }

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        grad = "(grad * scale + param * weight_decay)"
        first = f"(exp_avg * beta1 + {grad} * weight1)"
        now, before = f"(fabs({grad}) + eps)", "(exp_inf * beta2)"
        # Written so that NaN stays NaN on either side.
        largest = f"WHERE({before} < {now} || {now} != {now}, {now}, {before})"
        return {"param": f"param - step_size * {first} / {largest}", "exp_avg": first, "exp_inf": largest}

    @staticmethod
    def forward(
        param: Any,
        grad: Any,
        exp_avg: Any,
        exp_inf: Any,
        *,
        scale: float,
        weight_decay: float,
        beta1: float,
        weight1: float,
        beta2: float,
        step_size: float,
        eps: float,
    ) -> Any:
        g = grad * scale + param * weight_decay
        exp_avg = exp_avg * beta1 + g * weight1
        exp_inf = np.maximum(exp_inf * beta2, np.abs(g) + eps)
        return param - step_size * exp_avg / exp_inf, np.zeros_like(grad), exp_avg, exp_inf


class Adamax(Optimizer):
    """Adam with the largest gradient of late, in place of the average of squares.

    Options (a group may have its own, and they may change between steps):
        lr: learning rate, the size of a step in units of the parameter; 2e-3.
        betas: decay per update, in [0, 1), of the gradient's average, and of the largest gradient; (0.9, 0.999).
        eps: added to the gradient's absolute value, against division by zero; 1e-8.
        weight_decay: L2 penalty, ``weight_decay * parameter`` is added to the gradient; 0.
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``: accumulate, nonfinite, master.

    Source: Kingma and Ba, arXiv:1412.6980, section 7.1.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
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
        self.require_betas(betas)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("step", "exp_avg", "exp_inf")

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        beta1, beta2 = group["betas"]
        scalars = {
            "weight_decay": group["weight_decay"],
            "beta1": beta1,
            "weight1": 1 - beta1,
            "beta2": beta2,
            "step_size": group["lr"] / (1 - beta1**step),
            "eps": group["eps"],
        }
        return Rule(AdamaxUpdate, scalars)
