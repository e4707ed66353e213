"""The schedule that follows a measured value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.errors import ArgumentError
from tinyedge.optim.lr_scheduler.base import LRScheduler, one_for_each_group
from tinyedge.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rate by ``factor`` when the value given to ``step`` was no better for over ``patience`` epochs.

    ``mode`` "min": less is better; "max": more is. A value is better than the best so far if it is so by ``threshold``:
    as a part of the best with ``threshold_mode`` "rel", as a number with "abs". After a reduction, ``cooldown`` epochs
    are not counted. No rate goes below ``min_lr``, a number or a list for the groups, or changes by ``eps`` or less.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        forbid_in_recording("making a schedule", "it changes the rates that it finds, and a replay would not")
        if factor >= 1:
            raise ArgumentError("ReduceLROnPlateau", "factor must be below 1", f"got {factor}")
        if mode not in ("min", "max"):
            raise ArgumentError("ReduceLROnPlateau", 'mode must be "min" or "max"', f"got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ArgumentError("ReduceLROnPlateau", 'threshold_mode must be "rel" or "abs"', f"got {threshold_mode!r}")
        self.optimizer = optimizer
        self.factor = factor
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.min_lrs = one_for_each_group("ReduceLROnPlateau", "min_lr", optimizer, min_lr)
        self.patience = patience
        self.cooldown = cooldown
        self.cooldown_counter = 0
        self.eps = eps
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.mode_worse = self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.last_epoch = 0
        self._last_lr = self.lrs

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Advance to the next epoch, whose value is ``metrics``, a number or a tensor of one element."""
        forbid_in_recording("ReduceLROnPlateau.step()", "it reads a value, and a replay would not")
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self.lrs

    @property
    def in_cooldown(self) -> bool:
        """Whether epochs are not counted at present."""
        return self.cooldown_counter > 0

    def _is_better(self, value: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "rel":
            return sign * value > sign * self.best * (1.0 + sign * self.threshold)
        return sign * value > sign * (self.best + sign * self.threshold)

    def _reduce(self) -> None:
        if len(self.min_lrs) != len(self.groups):
            if self.default_min_lr is None:
                raise ArgumentError(
                    "ReduceLROnPlateau.step", f"a min_lr for each of {len(self.groups)} groups",
                    f"there are {len(self.min_lrs)}", "Append one to min_lrs for each group that is added.",
                )  # fmt: skip
            self.min_lrs = [self.default_min_lr] * len(self.groups)
        for group, least in zip(self.groups, self.min_lrs, strict=True):
            lr = max(group["lr"] * self.factor, least)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.mode_worse = math.inf if self.mode == "min" else -math.inf
