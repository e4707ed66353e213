"""L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tinyedge.autograd.modes import enable_grad, no_grad
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.errors import ArgumentError, StateDictError
from tinyedge.ops import cat
from tinyedge.optim.hooks import calling_hooks
from tinyedge.optim.optimizer import Optimizer, Parameters
from tinyedge.optim.wolfe import Point, strong_wolfe
from tinyedge.tensor import Tensor, full, tensor

LEAST_CURVATURE = 1e-10
"""A step along which the gradient changed by less says nothing of the curvature."""


class LBFGS(Optimizer):
    """L-BFGS: steps by the curvature that the last steps showed, for all parameters as one vector.

    It needs a closure that clears the gradients, computes the loss of all data, calls ``backward`` on it, and returns
    it: ``step(closure)`` calls it several times. There is one group of parameters. Vectors stay on the device; losses
    and products of vectors are read, so it may not be called inside ``te.compile``. The closure may be compiled.

    Options (they may change between steps):
        lr: the first step that is tried, in units of the direction; 1.
        max_iter: iterations for each ``step()``; 20.
        max_eval: calls of the closure for each ``step()``; ``max_iter * 5 // 4``.
        tolerance_grad: it is done where no element of the gradient is larger; 1e-7.
        tolerance_change: it is done where neither the loss nor a parameter changes more; 1e-9.
        history_size: the number of steps whose curvature is remembered, two vectors each; 100.
        line_search_fn: "strong_wolfe", or None, which moves by ``lr``; None.
        maximize: maximize the loss; False.

    Errors: ArgumentError without a closure. If the closure raises, parameters and state are as before.
    Source: Liu and Nocedal, On the limited memory BFGS method for large scale optimization (1989).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
        *,
        maximize: bool = False,
    ) -> None:
        self.require_at_least_zero(lr=lr)
        if line_search_fn not in (None, "strong_wolfe"):
            raise ArgumentError("LBFGS", 'line_search_fn must be "strong_wolfe" or None', f"got {line_search_fn!r}")
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups:
            raise ArgumentError("LBFGS", "one group of parameters", "got another", "Put them all into one.")
        super().add_param_group(param_group)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ()

    def loaded(self, name: str, what: str, param: Tensor, value: Any) -> Any:
        if name in ("func_evals", "n_iter"):
            return int(value)
        if name in ("t", "H_diag", "prev_loss"):
            return float(value)
        if name in ("ro", "al"):
            return [None if item is None else float(item) for item in value]
        if name in ("old_dirs", "old_stps"):
            return [self._vector(what, item) for item in value]
        return self._vector(what, value)

    def _vector(self, what: str, value: Any) -> Tensor:
        params = self.param_groups[0]["params"]
        size = sum(param.numel() for param in params)
        if tuple(getattr(value, "shape", ())) != (size,):
            got = tuple(value.shape) if hasattr(value, "shape") else type(value).__name__
            raise StateDictError(
                "LBFGS.load_state_dict",
                f"{what}: a vector of {size}",
                f"the state dict has {got}",
                "Load a state dict of an LBFGS over the same parameters.",
            )
        return tensor(value, dtype=params[0].dtype, device=params[0].backend)

    @calling_hooks
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take up to ``max_iter`` iterations. Returns what the closure returned the first time."""
        forbid_in_recording("LBFGS.step()", "it reads the loss, and how often it calls the closure depends on that")
        if closure is None:
            raise ArgumentError(
                "LBFGS.step", "a closure that computes the loss and its gradients again", "got none",
                "Pass a function that calls zero_grad() and backward(), and returns the loss.",
            )  # fmt: skip
        params = list(self.param_groups[0]["params"])
        if not params:
            return closure()
        with no_grad():
            kept = [param.detach().clone() for param in params]
            state = {**self.state.get(params[0], {})}
            state |= {name: [*state[name]] for name in ("old_dirs", "old_stps", "ro") if name in state}
            try:
                result = _Search(self, closure, state).run()
            except BaseException:
                for param, values in zip(params, kept, strict=True):
                    param.copy_(values)
                raise
            self.state[params[0]] = state
        return result


class _Search:
    """One call of ``step()``; ``state`` is changed."""

    def __init__(self, optimizer: LBFGS, closure: Callable[[], Any], state: dict[str, Any]) -> None:
        self.group = optimizer.param_groups[0]
        self.params: list[Tensor] = self.group["params"]
        self.closure = closure
        self.state = state
        self.sign = -1.0 if self.group["maximize"] else 1.0

    def evaluate(self) -> tuple[Any, float, Tensor]:
        """What the closure returns, the loss to be made small, and its gradient as one vector."""
        with enable_grad():
            result = self.closure()
        parts = [
            full((param.numel(),), 0.0, dtype=param.dtype, device=param.backend)
            if param.grad is None
            else param.grad.reshape(-1)
            for param in self.params
        ]
        gradient = cat(parts) * self.sign  # memory of its own: the closure changes the gradients again
        return result, float(result) * self.sign, gradient

    def move(self, origin: list[Tensor], step: float, direction: Tensor) -> None:
        offset = 0
        for param, start in zip(self.params, origin, strict=True):
            part = direction[offset : offset + param.numel()].reshape(param.shape)
            param.copy_(start + part * step)
            offset += param.numel()

    def along(self, origin: list[Tensor], direction: Tensor, step: float) -> Point:
        self.move(origin, step, direction)
        _, loss, gradient = self.evaluate()
        return Point(step, loss, _dot(gradient, direction), gradient)

    def direction(self, gradient: Tensor) -> Tensor:
        """Minus the gradient, times the inverse of the curvature that the remembered steps showed."""
        state = self.state
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return -gradient
        changes, steps, inverses = state["old_dirs"], state["old_stps"], state["ro"]
        change, step = gradient - state["prev_flat_grad"], state["d"] * state["t"]
        curvature = _dot(change, step)
        if curvature > LEAST_CURVATURE:
            if len(changes) == self.group["history_size"]:
                for remembered in (changes, steps, inverses):
                    remembered.pop(0)
            changes.append(change)
            steps.append(step)
            inverses.append(1 / curvature)
            state["H_diag"] = curvature / _dot(change, change)
        weights = [0.0] * len(changes)
        found: Tensor = -gradient
        for at in reversed(range(len(changes))):
            weights[at] = _dot(steps[at], found) * inverses[at]
            found = found - changes[at] * weights[at]
        found = found * state["H_diag"]
        for at in range(len(changes)):
            found = found + steps[at] * (weights[at] - _dot(changes[at], found) * inverses[at])
        state["al"] = [*weights, *[None] * (self.group["history_size"] - len(weights))]
        return found

    def run(self) -> Any:
        group, state = self.group, self.state
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first, loss, gradient = self.evaluate()
        evaluations = 1
        state["func_evals"] += 1
        if _largest(gradient) <= group["tolerance_grad"]:
            return first
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = state["d"] = self.direction(gradient)
            state["prev_flat_grad"], state["prev_loss"], before = gradient, loss, loss
            step = group["lr"]
            if state["n_iter"] == 1:
                step = min(1.0, 1.0 / gradient.abs().sum().item()) * step
            state["t"] = step
            slope = _dot(gradient, direction)
            if slope > -group["tolerance_change"]:
                break
            origin = [param.detach().clone() for param in self.params]
            used = 0
            if group["line_search_fn"] is not None:
                found, used = strong_wolfe(
                    partial(self.along, origin, direction),
                    Point(0.0, loss, slope, gradient),
                    step,
                    _largest(direction),
                    group["tolerance_change"],
                    group["max_eval"] - evaluations,
                )
                step, loss, _, gradient = found
                self.move(origin, step, direction)
            else:
                self.move(origin, step, direction)
                if iteration != group["max_iter"]:  # what it is after the last is not used here
                    _, loss, gradient = self.evaluate()
                    used = 1
            state["t"] = step
            evaluations += used
            state["func_evals"] += used
            if (
                evaluations >= group["max_eval"]
                or _largest(gradient) <= group["tolerance_grad"]
                or _largest(direction) * abs(step) <= group["tolerance_change"]
                or abs(loss - before) < group["tolerance_change"]
            ):
                break
        return first


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())


def _largest(vector: Tensor) -> float:
    return float(vector.abs().max()) if vector.numel() else 0.0
