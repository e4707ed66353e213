"""Whether what was meant to train did: the worst fault of a training run is that it quietly does nothing."""

from __future__ import annotations

import warnings
from hashlib import blake2b

import numpy as np

from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module
from tinyedge.optim import Optimizer
from tinyedge.tensor import Parameter


class Watch:
    """What ``te.adapt.watch`` returns: the parameters that shall train, and what they were when it was entered."""

    def __init__(self, model: Module, optimizer: Optimizer | None) -> None:
        self.model = model
        self.optimizer = optimizer
        self._before: dict[str, bytes] = {}

    def _params(self) -> dict[str, Parameter]:
        return dict(self.model.named_parameters())

    def __enter__(self) -> Watch:
        self._before = {name: _digest(param) for name, param in self._params().items() if param.requires_grad}
        if not self._before:
            raise ArgumentError(
                "watch",
                "a model with parameters that require gradients",
                "all are frozen",
                "Call requires_grad_(True) on what shall be trained.",
            )
        return self

    def unchanged(self) -> dict[str, str]:
        """The parameters that required gradients and have not changed by a bit, by name, each with a likely reason."""
        now = self._params()
        same = [name for name, digest in self._before.items() if name in now and _digest(now[name]) == digest]
        return {name: self._reason(now[name]) for name in same}

    def _reason(self, param: Parameter) -> str:
        optimizer = self.optimizer
        if not param.requires_grad:
            return "was frozen meanwhile"
        if optimizer is not None and all(
            param is not own for group in optimizer.param_groups for own in group["params"]
        ):
            return "is not in the optimizer"
        if param.grad is not None and (optimizer is None or optimizer.accumulate is not None):
            return "has a gradient that no update applied"
        if optimizer is None:
            return "got no gradient: the loss does not depend on it"
        if optimizer.state.get(param) or param.grad is not None:
            return "was updated by zero: its gradients were zero, or too small for its dtype"
        return "got no gradient, or only zero"

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and (same := self.unchanged()):
            lines = "".join(f"\n  {name} {reason}" for name, reason in same.items())
            warnings.warn(
                f"watch: {len(same)} of {len(self._before)} parameters that should train never changed:{lines}",
                stacklevel=2,
            )


def _digest(param: Parameter) -> bytes:
    return blake2b(np.ascontiguousarray(param.detach().numpy()).tobytes(), digest_size=16).digest()


def watch(model: Module, optimizer: Optimizer | None = None) -> Watch:
    """Context manager: at the end of a training run inside, warn of parameters that should train and never changed.

    These are the parameters of ``model`` that require gradients at its begin; each is named, with a likely reason, for
    which ``optimizer`` says more. They are read once at the begin and once at the end: nothing is done at each step.
    Optimizers warn by themselves, after eight updates, of parameters that never had a gradient.

    Errors: ArgumentError if all parameters are frozen.

    >>> model = nn.Linear(2, 2)
    >>> optimizer = te.optim.SGD(model.parameters(), lr=0.1, accumulate=1)
    >>> with te.adapt.watch(model, optimizer) as watched:
    ...     model(te.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    >>> watched.unchanged()
    {}
    """
    return Watch(model, optimizer)
