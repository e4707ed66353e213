"""RAdam."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyedge.ops.update import Averaging
from tinyedge.optim.adam import averaging
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class RAdamUpdate(Averaging):
    """``rectified`` is the rate by which the average over the root of the averaged square is multiplied. Where it is 0,
    ``step_size`` is the rate of the average alone.
    """

    signature = "(),(),(),()->(),(),(),()"
    scalars = Averaging.scalars | {"step_size": "real", "rectified": "real", "eps": "real"}

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        first, second = cls.first, cls.second
        adaptive = f"rectified * {first} / (sqrt({second}) + eps)"
        return {
            "param": f"param * decay - (rectified > 0 ? {adaptive} : step_size * {first})",
            "exp_avg": first,
            "exp_avg_sq": second,
        }

    @staticmethod
    def forward(
        param: Any,
        grad: Any,
        exp_avg: Any,
        exp_avg_sq: Any,
        *,
        scale: float,
        weight_decay: float,
        decay: float,
        beta1: float,
        weight1: float,
        beta2: float,
        weight2: float,
        step_size: float,
        rectified: float,
        eps: float,
    ) -> Any:
        _, exp_avg, exp_avg_sq = Averaging.averaged(
            param, grad, exp_avg, exp_avg_sq, scale, weight_decay, beta1, weight1, beta2, weight2
        )
        step = rectified * exp_avg / (np.sqrt(exp_avg_sq) + eps) if rectified > 0 else step_size * exp_avg
        return param * decay - step, np.zeros_like(grad), exp_avg, exp_avg_sq


class RAdam(Optimizer):
    """Adam that is momentum alone until the averaged square is known well enough, and is rectified from then on.

    Options (a group may have its own, and they may change between steps):
        lr: learning rate, the size of a step in units of the parameter; 1e-3.
        betas: decay per update, in [0, 1), of the averages of the gradient and of its square; (0.9, 0.999).
        eps: added to the root of the averaged square, against division by zero; 1e-8.
        weight_decay: L2 penalty, ``weight_decay * parameter`` is added to the gradient; 0.
        decoupled_weight_decay: ``weight_decay`` shrinks the parameter itself, as in AdamW; False.
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``: accumulate, nonfinite, master.

    Source: Liu et al., arXiv:1908.03265.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
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
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("step", "exp_avg", "exp_avg_sq")

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        correction = 1 - beta2**step
        longest = 2 / (1 - beta2) - 1  # the length of the average of squares, in updates: at last, and now
        length = longest - 2 * step * beta2**step / correction
        step_size, rectified = lr / (1 - beta1**step), 0.0
        if length > 5:
            part = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            rectified = step_size * math.sqrt(part) * math.sqrt(correction)
        scalars = {
            **averaging(group),
            "step_size": step_size,
            "rectified": rectified,
        }
        return Rule(RAdamUpdate, scalars)
