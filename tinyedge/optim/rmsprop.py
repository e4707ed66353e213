"""RMSprop."""

from __future__ import annotations

from typing import Any

from tinyedge.ops import update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class RMSprop(Optimizer):
    """RMSprop: the gradient divided by a running root mean square of itself.

    Options (a group may have its own, and they may change between steps):
        lr: learning rate, the size of a step in units of the parameter; 1e-2.
        alpha: decay per update of the average of the squared gradient; 0.99.
        eps: added to the root mean square, against division by zero; 1e-8.
        weight_decay: L2 penalty, ``weight_decay * parameter`` is added to the gradient; 0.
        momentum: factor by which a running sum of steps decays per update; 0: no momentum, and no buffer for it.
        centered: divide by the root of the variance, the mean square less the squared average gradient; False.
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``:
        accumulate: number of samples (``step()`` calls) whose mean gradient makes one update; None: every call updates,
            and gradients are yours to clear.
        nonfinite: an update by NaN or infinity is made ("ignore", the default), left out ("skip"), or an error
        ("raise").
        master: keep a float32 copy of each parameter that is stored in float16 or bfloat16, and update that; False.

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
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        accumulate: int | None = None,
        nonfinite: str = "ignore",
        master: bool = False,
    ) -> None:
        self.refuse_differentiable(differentiable)
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
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        momentum = ("momentum_buffer",) if group["momentum"] else ()
        return ("step", "square_avg", *momentum, *(("grad_avg",) if group["centered"] else ()))

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        scalars = {name: group[name] for name in ("lr", "alpha", "eps", "weight_decay", "momentum")}
        return Rule(update.Rmsprop, {**scalars, "weight": 1 - group["alpha"]})
