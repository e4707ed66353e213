"""Schedules of schedules: one after the other, and all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.errors import ArgumentError, StateDictError
from tinyedge.optim.lr_scheduler.base import LRScheduler
from tinyedge.optim.lr_scheduler.plateau import ReduceLROnPlateau
from tinyedge.optim.optimizer import Optimizer


class _Several(LRScheduler):
    """Base of the schedules that step others, ``_schedulers``."""

    _schedulers: list[LRScheduler]

    def _take(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        call = type(self).__name__
        forbid_in_recording("making a schedule", "it changes the rates that it finds, and a replay would not")
        if not schedulers:
            raise ArgumentError(call, "at least one schedule", "got none")
        self.optimizer = optimizer or schedulers[0].optimizer
        for scheduler in schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ArgumentError(
                    call, "schedules whose step takes nothing", "got ReduceLROnPlateau, which takes a value"
                )
            if scheduler.optimizer is not self.optimizer:
                raise ArgumentError(
                    call, "schedules of one optimizer", f"that of a {type(scheduler).__name__} is another"
                )
        self._schedulers = list(schedulers)

    def restorer(self) -> Callable[[], None]:
        """A function that restores the present state, that of the schedules too."""
        restorers = [super().restorer(), *(scheduler.restorer() for scheduler in self._schedulers)]

        def restore() -> None:
            for one in restorers:
                one()

        return restore

    def state_dict(self) -> dict[str, Any]:
        """The state, and in ``_schedulers`` those of the schedules."""
        return {**super().state_dict(), "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        call = f"{type(self).__name__}.load_state_dict"
        saved = list(state_dict.get("_schedulers", ()))
        if len(saved) != len(self._schedulers):
            raise StateDictError(
                call,
                f"the states of {len(self._schedulers)} schedules",
                f"it has {len(saved)}",
                "Load one of the same schedules.",
            )
        restore = self.restorer()
        try:
            super().load_state_dict({**state_dict, "_schedulers": self._schedulers})
            for scheduler, state in zip(self._schedulers, saved, strict=True):
                scheduler.load_state_dict(state)
        except BaseException:
            restore()
            raise


class SequentialLR(_Several):
    """One schedule after the other: the next begins at each epoch in ``milestones``, which is one fewer."""

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        self._take(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ArgumentError(
                "SequentialLR", f"{len(schedulers) - 1} milestones between {len(schedulers)} schedules",
                f"got {len(milestones)}",
            )  # fmt: skip
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        for group in self.groups:
            group["lr"] = group["initial_lr"]
        for scheduler in self._schedulers:
            _undo_first(scheduler)
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first.begin()
        self._last_lr = first.get_last_lr()

    def go_to(self, epoch: float | None) -> None:
        if epoch is not None:
            raise ArgumentError("SequentialLR.step", "no epoch", f"got {epoch}")
        self.last_epoch += 1
        place = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[place]
        begins = place > 0 and self._milestones[place - 1] == self.last_epoch
        scheduler.advance_to(0) if begins else scheduler.advance()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Several):
    """All schedules at once: each changes the rate that the one before it set."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self._take(schedulers, optimizer)
        self._last_lr = self.lrs

    def go_to(self, epoch: float | None) -> None:
        if epoch is not None:
            raise ArgumentError("ChainedScheduler.step", "no epoch", f"got {epoch}")
        for scheduler in self._schedulers:
            scheduler.advance()
        self._last_lr = self.lrs


def _undo_first(scheduler: LRScheduler) -> None:
    """Take back the epoch that a schedule counted when it was made."""
    if isinstance(scheduler, _Several):
        for inner in scheduler._schedulers:
            _undo_first(inner)
    else:
        scheduler.last_epoch -= 1
