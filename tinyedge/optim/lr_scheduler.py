"""Learning-rate schedules, computed step by step as in PyTorch.

In: an optimizer. Out: ``lr`` of its groups at each ``step()``. Inside ``te.compile`` a step is an Effect of the
program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyedge.autograd.recorder import Effect, forbid_in_recording, recorder
from tinyedge.errors import ArgumentError, StateDictError
from tinyedge.optim.optimizer import Optimizer


class _Stepped(Effect):
    """A schedule's ``step()`` in a compiled function."""

    def __init__(self, scheduler: LRScheduler) -> None:
        self.scheduler = scheduler

    def before(self) -> Sequence[Mapping[str, float]]:
        self.restore = self.scheduler._restorer()
        self.scheduler._step()
        return ()

    def undo(self) -> None:
        self.restore()

    def restorer(self) -> Callable[[], None]:
        return self.scheduler._restorer()


class LRScheduler:
    """Base of the schedules. ``step()`` sets the learning rate of each parameter group; call it once an epoch.

    A schedule starts from each group's ``initial_lr``, which the first schedule of an optimizer sets to the present
    rate. A group that is added later starts from its own rate.

    A new schedule defines ``get_lr``: the new rate of each group, from ``last_epoch``, ``base_lrs`` and the present
    rates.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        forbid_in_recording("making a schedule", "it changes the rates that it finds, and a replay would not")
        self.optimizer = optimizer
        self.last_epoch = last_epoch
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError(
                    type(self).__name__,
                    "to resume, with last_epoch given, each group must have initial_lr",
                    "one has not",
                    "Load the optimizer's state dict first.",
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.is_first = True  # a resumed schedule starts from rates that were reached already
        self.step()
        self.is_first = False

    def get_lr(self) -> list[float]:
        raise NotImplementedError

    @property
    def lrs(self) -> list[float]:
        """The present rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The rates that the last ``step()`` set."""
        return self._last_lr

    def step(self) -> None:
        """Advance to the next epoch."""
        if (told := recorder()) is not None and not self.is_first:
            told.effect(_Stepped(self), self._step, self._restorer())
        else:
            self._step()

    def _restorer(self) -> Callable[[], None]:
        """A function that restores the present state."""
        state, lrs = {**self.__dict__}, self.lrs

        def restore() -> None:
            self.__dict__.update(state)
            for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr

        return restore

    def _step(self) -> None:
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            self.base_lrs.append(group.setdefault("initial_lr", group["lr"]))
        self.last_epoch += 1
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
        self._last_lr = self.lrs

    def state_dict(self) -> dict[str, Any]:
        """The schedule's state, without the optimizer and without functions."""
        kept = {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "lr_lambdas", "is_first")}
        return {k: list(v) if isinstance(v, list) else v for k, v in kept.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where the schedule of ``state_dict`` stood. Entries that only PyTorch's schedules have are ignored.

        The rates themselves are in the optimizer's state dict: load that too.

        Errors: StateDictError if it is another schedule's, or has another number of groups; nothing is changed.
        """
        own = self.state_dict()
        missing = [name for name in own if name not in state_dict]
        if missing:
            raise StateDictError(
                f"{type(self).__name__}.load_state_dict",
                f"a state dict with {', '.join(own)}",
                f"it has no {missing[0]}",
            )
        if len(state_dict["base_lrs"]) != len(own["base_lrs"]):
            raise StateDictError(
                f"{type(self).__name__}.load_state_dict",
                f"the rates of {len(own['base_lrs'])} groups",
                f"it has those of {len(state_dict['base_lrs'])}",
            )
        loaded = {name: state_dict[name] for name in own}
        self.__dict__.update({k: list(v) if isinstance(v, (list, tuple)) else v for k, v in loaded.items()})


class LambdaLR(LRScheduler):
    """The initial rate times ``lr_lambda(epoch)``; a list gives one function for each group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ArgumentError("LambdaLR", f"one function, or {groups}", f"got {len(self.lr_lambdas)}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if len(self.base_lrs) != len(self.lr_lambdas):
            raise ArgumentError(
                "LambdaLR",
                f"a function for each of {len(self.base_lrs)} groups",
                f"there are {len(self.lr_lambdas)}",
                "Append one to lr_lambdas for each group that is added.",
            )
        return [base * function(self.last_epoch) for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class StepLR(LRScheduler):
    """Multiplies the rate by ``gamma`` every ``step_size`` epochs."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0 or self.last_epoch % self.step_size:
            return self.lrs
        return [lr * self.gamma for lr in self.lrs]


class LinearLR(LRScheduler):
    """From ``start_factor`` to ``end_factor`` times the initial rate, linearly, over ``total_iters`` epochs."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ArgumentError("LinearLR", "start_factor must be in (0, 1]", f"got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ArgumentError("LinearLR", "end_factor must be in [0, 1]", f"got {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [lr * self.start_factor for lr in self.lrs]
        if self.is_first or self.last_epoch > self.total_iters:
            return self.lrs
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return [lr * (1 + rise / before) for lr in self.lrs]


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to ``eta_min`` over ``T_max`` epochs, and back. Source: arXiv:1608.03983."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.is_first:
            return self.lrs
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # the rate is eta_min: there is no ratio
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - self.eta_min) * rise for lr, base in zip(self.lrs, self.base_lrs, strict=True)]
        now = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        before = 1 + math.cos(math.pi * (self.last_epoch - 1) / self.T_max)
        return [now / before * (lr - self.eta_min) + self.eta_min for lr in self.lrs]
