"""Adam and AdamW."""

from __future__ import annotations

import math
from typing import Any

from tinyedge.ops import update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


def averaging(group: dict[str, Any]) -> dict[str, float]:
    """The numbers of an ``update.Averaging`` that do not change from step to step, and eps."""
    lr, (beta1, beta2), weight_decay = group["lr"], group["betas"], group["weight_decay"]
    decoupled = group["decoupled_weight_decay"]
    return {
        "weight_decay": 0.0 if decoupled else weight_decay,
        "decay": 1 - lr * weight_decay if decoupled else 1.0,
        "beta1": beta1,
        "weight1": 1 - beta1,
        "beta2": beta2,
        "weight2": 1 - beta2,
        "eps": group["eps"],
    }


class Adam(Optimizer):
    """Adam: each parameter's step is scaled by running averages of its gradient and of the gradient's square.

    Options (a group may have its own, and they may change between steps):
        lr: learning rate, the size of a step in units of the parameter; 1e-3.
        betas: decay per update, in [0, 1), of the averages of the gradient and of its square; (0.9, 0.999).
        eps: added to the root of the averaged square, against division by zero; 1e-8.
        weight_decay: L2 penalty, ``weight_decay * parameter`` is added to the gradient; 0.
        amsgrad: divide by the largest averaged square so far, instead of the present one; False.
        maximize: step along the gradient instead of against it; False.
        decoupled_weight_decay: ``weight_decay`` shrinks the parameter itself, as in AdamW; False.
    Options of the optimizer, see ``Optimizer``:
        accumulate: number of samples (``step()`` calls) whose mean gradient makes one update; None: every call updates,
            and gradients are yours to clear.
        nonfinite: an update by NaN or infinity is made ("ignore", the default), left out ("skip"), or an error
        ("raise").
        master: keep a float32 copy of each parameter that is stored in float16 or bfloat16, and update that; False.

    Source: Kingma and Ba, arXiv:1412.6980; amsgrad: Reddi et al., arXiv:1904.09237.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        accumulate: int | None = None,
        nonfinite: str = "ignore",
        master: bool = False,
    ) -> None:
        self.refuse_differentiable(differentiable)
        self.refuse_tensors(foreach, capturable, lr=lr, betas=betas)
        self.require_at_least_zero(lr=lr, eps=eps, weight_decay=weight_decay)
        self.require_betas(betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        scalars = {
            **averaging(group),
            "step_size": lr / (1 - beta1**step),
            "correction": math.sqrt(1 - beta2**step),
        }
        return Rule(update.Adam, scalars)


class AdamW(Adam):
    """Adam with decoupled weight decay: ``weight_decay`` shrinks the parameter itself, and is no part of the gradient.

    Options are those of ``Adam``, except:
        weight_decay: each update first multiplies the parameter by ``1 - lr * weight_decay``; 1e-2.

    Source: Loshchilov and Hutter, arXiv:1711.05101.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
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
        self.refuse_tensors(foreach, capturable, lr=lr, betas=betas)
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
            accumulate=accumulate,
            nonfinite=nonfinite,
            master=master,
        )
