"""Schedules of the rate and, the other way round, of the momentum, for each step in place of each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyedge.errors import ArgumentError
from tinyedge.optim.lr_scheduler.base import LRScheduler, attributes_of, one_for_each_group
from tinyedge.optim.optimizer import Optimizer

Numbers = float | Sequence[float]


class _Cycle(LRScheduler):
    """Base of the schedules of both."""

    cycle_momentum: bool
    use_beta1: bool

    def _begin_momentum(
        self, cycle_momentum: bool, base: Numbers, most: Numbers, last_epoch: int
    ) -> tuple[list[float], list[float]]:
        """The least and the largest momentum of each group, which starts from the largest."""
        call, options = type(self).__name__, self.optimizer.defaults
        self.cycle_momentum = cycle_momentum
        if not cycle_momentum:
            return [], []
        if "momentum" not in options and "betas" not in options:
            raise ArgumentError(
                call, "an optimizer with momentum or betas, as cycle_momentum=True changes them",
                f"got {type(self.optimizer).__name__}", "Pass cycle_momentum=False.",
            )  # fmt: skip
        self.use_beta1 = "betas" in options
        bases = one_for_each_group(call, "base_momentum", self.optimizer, base)
        largest = one_for_each_group(call, "max_momentum", self.optimizer, most)
        if last_epoch == -1:
            for group, low, high in zip(self.groups, bases, largest, strict=True):
                self._set_momentum(group, high)
                group["max_momentum"], group["base_momentum"] = high, low
        return bases, largest

    def _set_momentum(self, group: dict[str, Any], momentum: float) -> None:
        if self.use_beta1:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum


class CyclicLR(_Cycle):
    """From ``base_lr`` to ``max_lr`` in ``step_size_up`` steps, and back in ``step_size_down``, again and again.

    ``mode`` says how high each cycle rises. "triangular": always to ``max_lr``. "triangular2": half as high as the
    one before. "exp_range": ``gamma ** step`` times as high. ``scale_fn`` gives the factor instead, from the number of
    the cycle or, with ``scale_mode="iterations"``, from that of the step. With ``cycle_momentum``, the momentum (or
    beta1) goes from ``max_momentum`` to ``base_momentum`` and back at the same time. Source: arXiv:1506.01186.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: Numbers,
        max_lr: Numbers,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Numbers = 0.8,
        max_momentum: Numbers = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if scale_fn is None and mode not in ("triangular", "triangular2", "exp_range"):
            raise ArgumentError("CyclicLR", 'mode must be "triangular", "triangular2" or "exp_range"', f"got {mode!r}")
        self.optimizer = optimizer
        base_lrs = one_for_each_group("CyclicLR", "base_lr", optimizer, base_lr)
        self.max_lrs = one_for_each_group("CyclicLR", "max_lr", optimizer, max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        momentums = self._begin_momentum(cycle_momentum, base_momentum, max_momentum, last_epoch)
        if cycle_momentum:
            self.base_momentums, self.max_momentums = momentums
        if last_epoch == -1:
            for group, lr in zip(self.groups, base_lrs, strict=True):
                group["lr"] = lr
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """How high a cycle rises, from its number or that of the step."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "exp_range":
            return float(self.gamma**x)
        return 1.0 if self.mode == "triangular" else 1 / (2.0 ** (x - 1))

    def get_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        place = 1.0 + self.last_epoch / self.total_size - cycle
        rises = place <= self.step_ratio
        height = place / self.step_ratio if rises else (place - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(self.groups, self.base_momentums, self.max_momentums, strict=True):
                self._set_momentum(group, high - (high - low) * height * scale)
        return [low + (high - low) * height * scale for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """The state, without the optimizer: of a callable ``scale_fn`` its attributes, of a function None."""
        return {**super().state_dict(), "_scale_fn_custom": attributes_of(self._scale_fn_custom)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        function, attributes = self._scale_fn_custom, state_dict.get("_scale_fn_custom")
        super().load_state_dict({**state_dict, "_scale_fn_custom": function})
        if attributes is not None and function is not None:
            vars(function).update(attributes)


class OneCycleLR(_Cycle):
    """One rise of the rate to ``max_lr``, and a fall to far below where it began, in ``total_steps`` steps.

    The number of steps is ``total_steps``, or ``epochs * steps_per_epoch``. The rate rises for the part ``pct_start``
    of them, from ``max_lr / div_factor``, and falls to the ``final_div_factor``-th part of that; with ``three_phase``
    it falls as long as it rose, and then further. ``anneal_strategy`` is "cos" or "linear". With ``cycle_momentum``,
    the momentum (or beta1) goes the other way between ``base_momentum`` and ``max_momentum``. Source: arXiv:1708.07120.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Numbers,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Numbers = 0.85,
        max_momentum: Numbers = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ArgumentError("OneCycleLR", "total_steps, or epochs and steps_per_epoch", "they are None")
            total_steps = epochs * steps_per_epoch
        if not isinstance(total_steps, int) or total_steps < 1:
            raise ArgumentError("OneCycleLR", "at least 1 step, as an int", f"got {total_steps}")
        if not 0 <= pct_start <= 1:
            raise ArgumentError("OneCycleLR", "pct_start must be in [0, 1]", f"got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError("OneCycleLR", 'anneal_strategy must be "cos" or "linear"', f"got {anneal_strategy!r}")
        self.optimizer = optimizer
        self.total_steps = total_steps
        self._anneal_func_type = anneal_strategy
        rise, end = float(pct_start * total_steps) - 1, total_steps - 1
        if three_phase:
            self._schedule_phases = [
                _phase(rise, "initial_lr", "max_lr", "max_momentum", "base_momentum"),
                _phase(float(2 * pct_start * total_steps) - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                _phase(end, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
            ]
        else:
            self._schedule_phases = [
                _phase(rise, "initial_lr", "max_lr", "max_momentum", "base_momentum"),
                _phase(end, "max_lr", "min_lr", "base_momentum", "max_momentum"),
            ]
        most = one_for_each_group("OneCycleLR", "max_lr", optimizer, max_lr)
        self._begin_momentum(cycle_momentum, base_momentum, max_momentum, last_epoch)
        if last_epoch == -1:
            for group, lr in zip(self.groups, most, strict=True):
                group["initial_lr"] = lr / div_factor
                group["max_lr"] = lr
                group["min_lr"] = group["initial_lr"] / final_div_factor
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, part: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * part + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ArgumentError(
                "OneCycleLR.step", f"at most {self.total_steps} steps", f"this is number {self.last_epoch}",
                "Pass the number of all steps as total_steps.",
            )  # fmt: skip
        start = 0.0
        for phase in self._schedule_phases[:-1]:
            if self.last_epoch <= phase["end_step"]:
                break
            start = phase["end_step"]
        else:
            phase = self._schedule_phases[-1]
        length = phase["end_step"] - start
        part = (self.last_epoch - start) / length if length else 1.0
        if self.cycle_momentum:
            for group in self.groups:
                low, high = group[phase["start_momentum"]], group[phase["end_momentum"]]
                self._set_momentum(group, self._between(low, high, part))
        return [self._between(group[phase["start_lr"]], group[phase["end_lr"]], part) for group in self.groups]


def _phase(end: float, start_lr: str, end_lr: str, start_momentum: str, end_momentum: str) -> dict[str, Any]:
    """The last step of a phase, and between which options of a group it goes."""
    return {
        "end_step": end,
        "start_lr": start_lr,
        "end_lr": end_lr,
        "start_momentum": start_momentum,
        "end_momentum": end_momentum,
    }
