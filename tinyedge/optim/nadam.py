"""NAdam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyedge.ops.update import Averaging
from tinyedge.optim.adam import averaging
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule
from tinyedge.tensor import Tensor


class NAdamUpdate(Averaging):
    """``step_grad`` and ``step_avg`` are the rates of the gradient and of its average, ``correction`` is the root of
    1 - beta2^t.
    """

    signature = "(),(),(),()->(),(),(),()"
    scalars = Averaging.scalars | {"step_grad": "real", "step_avg": "real", "correction": "real", "eps": "real"}

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        first, second = cls.first, cls.second
        step = f"(step_grad * {cls.penalised} + step_avg * {first})"
        return {
            "param": f"param * decay - {step} / (sqrt({second}) / correction + eps)",
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
        step_grad: float,
        step_avg: float,
        correction: float,
        eps: float,
    ) -> Any:
        g, exp_avg, exp_avg_sq = Averaging.averaged(
            param, grad, exp_avg, exp_avg_sq, scale, weight_decay, beta1, weight1, beta2, weight2
        )
        denominator = np.sqrt(exp_avg_sq) / correction + eps
        new_param = param * decay - (step_grad * g + step_avg * exp_avg) / denominator
        return new_param, np.zeros_like(grad), exp_avg, exp_avg_sq


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, whose weight grows towards beta1 with the number of updates.

    Options (a group may have its own, and they may change between steps):
        lr: learning rate, the size of a step in units of the parameter; 2e-3.
        betas: decay per update, in [0, 1), of the averages of the gradient and of its square; (0.9, 0.999).
        eps: added to the root of the averaged square, against division by zero; 1e-8.
        weight_decay: L2 penalty, ``weight_decay * parameter`` is added to the gradient; 0.
        momentum_decay: how fast the momentum grows; 4e-3.
        decoupled_weight_decay: ``weight_decay`` shrinks the parameter itself, as in AdamW; False.
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``: accumulate, nonfinite, master.

    Source: Dozat, Incorporating Nesterov momentum into Adam (2016).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
        self.require_at_least_zero(lr=lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        self.require_betas(betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("step", "exp_avg", "exp_avg_sq")

    def numbers(self, group: dict[str, Any], step: int, state: Mapping[str, Any]) -> dict[str, float]:
        return {"mu_product": state.get("mu_product", 1.0) * _momentum(group, step)}

    def loaded(self, name: str, what: str, param: Tensor, value: Any) -> Any:
        return float(value) if name == "mu_product" else super().loaded(name, what, param, value)

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        lr, beta2, product = group["lr"], group["betas"][1], group["mu_product"]
        following = _momentum(group, step + 1)
        scalars = {
            **averaging(group),
            "step_grad": lr * (1 - _momentum(group, step)) / (1 - product),
            "step_avg": lr * following / (1 - product * following),
            "correction": math.sqrt(1 - beta2**step),
        }
        return Rule(NAdamUpdate, scalars)


def _momentum(group: dict[str, Any], step: int) -> float:
    """The momentum of update number ``step``."""
    return float(group["betas"][0] * (1 - 0.5 * 0.96 ** (step * group["momentum_decay"])))
