"""ASGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyedge.ops.update import Update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class AsgdUpdate(Update):
    """``decay`` is 1 - lambd eta; ``ax`` is the average, which is the parameter itself as long as ``mu`` is 1."""

    signature = "(),(),()->(),(),()"
    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "ax": (-4.0, 4.0)}
    scalars = {"scale": "real", "weight_decay": "real", "decay": "real", "eta": "real", "mu": "real"}

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        param = "(param * decay - eta * (grad * scale + param * weight_decay))"
        return {"param": param, "ax": f"(mu == 1 ? {param} : ax + ({param} - ax) * mu)"}

    @staticmethod
    def forward(
        param: Any, grad: Any, ax: Any, *, scale: float, weight_decay: float, decay: float, eta: float, mu: float
    ) -> Any:
        new = param * decay - (grad * scale + param * weight_decay) * eta
        return new, np.zeros_like(grad), new if mu == 1 else ax + (new - ax) * mu


class ASGD(Optimizer):
    """Averaged stochastic gradient descent: beside each parameter, ``state["ax"]`` is the mean of its values.

    Options (a group may have its own, and they may change between steps):
        lr: learning rate; 1e-2.
        lambd: by how much the parameter, times the rate, shrinks in each update; 1e-4.
        alpha: the rate is ``lr / (1 + lambd * lr * updates) ** alpha``; 0.75.
        t0: the number of updates after which averaging starts; 1e6.
        weight_decay: L2 penalty, ``weight_decay * parameter`` is added to the gradient; 0.
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``: accumulate, nonfinite, master.

    Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging (1992).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        *,
        accumulate: int | None = None,
        nonfinite: str = "ignore",
        master: bool = False,
    ) -> None:
        self.refuse_differentiable(differentiable)
        self.require_at_least_zero(lr=lr, weight_decay=weight_decay)
        defaults = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("step", "ax")

    def numbers(self, group: dict[str, Any], step: int, state: Mapping[str, Any]) -> dict[str, float]:
        rate = float(group["lr"])
        return {
            "_eta": float(state.get("eta", rate)),  # of this update; the others are those of the next
            "_mu": float(state.get("mu", 1.0)),
            "eta": rate / (1 + group["lambd"] * rate * step) ** group["alpha"],
            "mu": 1 / max(1, step - group["t0"]),
        }

    def loaded(self, name: str, what: str, param: Any, value: Any) -> Any:
        return float(value) if name in ("eta", "mu") else super().loaded(name, what, param, value)

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        eta = group["_eta"]
        scalars = {
            "weight_decay": group["weight_decay"], "decay": 1 - group["lambd"] * eta, "eta": eta, "mu": group["_mu"],
        }  # fmt: skip
        return Rule(AsgdUpdate, scalars)
