"""Rprop."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.errors import ArgumentError
from tinyedge.ops.update import Update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class RpropUpdate(Update):
    """A step size grows by ``larger`` while the gradient keeps its sign, and shrinks by ``smaller`` where it turned."""

    signature = "(),(),(),()->(),(),(),()"
    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "prev": (-4.0, 4.0), "step_size": (0.1, 4.0)}
    scalars = {"scale": "real", "smaller": "real", "larger": "real", "least": "real", "most": "real"}

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        grad = "(grad * scale)"
        turned, kept = f"{grad} * prev < 0", f"{grad} * prev > 0"
        size = f"(step_size * WHERE({turned}, smaller, WHERE({kept}, larger, 1)))"
        size = f"WHERE({size} < least, least, {size})"
        size = f"WHERE({size} > most, most, {size})"
        used = f"WHERE({turned}, 0, {grad})"
        sign = f"WHERE({used} > 0, 1, WHERE({used} < 0, -1, 0))"
        return {"param": f"param - {sign} * {size}", "prev": used, "step_size": size}

    @staticmethod
    def forward(
        param: Any,
        grad: Any,
        prev: Any,
        step_size: Any,
        *,
        scale: float,
        smaller: float,
        larger: float,
        least: float,
        most: float,
    ) -> Any:
        g = grad * scale
        sign = np.sign(g * prev)
        factor = np.select([sign > 0, sign < 0], [larger, smaller], 1.0).astype(param.dtype)
        step_size = np.minimum(np.maximum(step_size * factor, least), most).astype(param.dtype)
        used = np.where(sign < 0, 0.0, g).astype(param.dtype)
        return param - np.sign(used) * step_size, np.zeros_like(grad), used, step_size


class Rprop(Optimizer):
    """Resilient backpropagation: each element has a step size of its own, and only the gradient's sign is used.

    It is for gradients of all data: those of minibatches change their sign too often.

    Options (a group may have its own, and they may change between steps):
        lr: the size of the first step; 1e-2.
        etas: factors of an element's step where the gradient's sign turned, and where it stayed; (0.5, 1.2).
        step_sizes: the least and the largest step; (1e-6, 50).
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``: accumulate, nonfinite, master.

    Source: Riedmiller and Braun, A direct adaptive method for faster backpropagation learning (1993).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
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
        self.require_at_least_zero(lr=lr)
        if not 0 < etas[0] < 1 < etas[1]:
            raise ArgumentError("Rprop", "etas must be a number in (0, 1) and one above 1", f"got {etas}")
        defaults = {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize}
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("step", "prev", "step_size")

    def begin(self, group: dict[str, Any], name: str) -> float:
        return float(group["lr"]) if name == "step_size" else 0.0

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        (smaller, larger), (least, most) = group["etas"], group["step_sizes"]
        return Rule(RpropUpdate, {"smaller": smaller, "larger": larger, "least": least, "most": most})
