"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from tinyedge.errors import ArgumentError
from tinyedge.ops import update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule


class SGD(Optimizer):
    """Stochastic gradient descent: ``parameter -= lr * gradient``, optionally with momentum as PyTorch defines it.

    Options (a group may have its own, and they may change between steps):
        lr: learning rate, by which the gradient is multiplied; 1e-3.
        momentum: with m > 0, ``buffer = m * buffer + (1 - dampening) * gradient``, and the parameter moves by
            ``lr * buffer``; the first update starts the buffer as the gradient; 0: no buffer.
        dampening: the part of the gradient that does not enter the momentum buffer; 0.
        weight_decay: L2 penalty, ``weight_decay * parameter`` is added to the gradient; 0.
        nesterov: move by ``lr * (gradient + momentum * buffer)``; needs momentum above 0 and dampening 0; False.
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``:
        accumulate: number of samples (``step()`` calls) whose mean gradient makes one update; None: every call updates,
            and gradients are yours to clear.
        nonfinite: an update by NaN or infinity is made ("ignore", the default), left out ("skip"), or an error
        ("raise").
        master: keep a float32 copy of each parameter that is stored in float16 or bfloat16, and update that; False.

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
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        accumulate: int | None = None,
        nonfinite: str = "ignore",
        master: bool = False,
    ) -> None:
        self.refuse_differentiable(differentiable)
        self.require_at_least_zero(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ArgumentError(
                "SGD",
                "nesterov=True needs momentum above 0 and dampening=0",
                f"got momentum={momentum}, dampening={dampening}",
                "Pass momentum=0.9, for example.",
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults, accumulate, nonfinite, master)

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
