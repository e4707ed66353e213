"""The base of the learning-rate schedules, which are computed step by step as in PyTorch.

In: an optimizer. Out: ``lr`` of its groups at each ``step()``. Inside ``te.compile`` a step is an Effect of the
program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from tinyedge.autograd.recorder import Effect, forbid_in_recording, recorder
from tinyedge.errors import ArgumentError, StateDictError
from tinyedge.optim.optimizer import Optimizer


class _Stepped(Effect):
    """A schedule's ``step()`` in a compiled function."""

    def __init__(self, scheduler: LRScheduler) -> None:
        self.scheduler = scheduler

    def before(self) -> Sequence[Mapping[str, float]]:
        self.restore = self.scheduler.restorer()
        self.scheduler.advance()
        return ()

    def undo(self) -> None:
        self.restore()

    def restorer(self) -> Callable[[], None]:
        return self.scheduler.restorer()


class LRScheduler:
    """Base of the schedules. ``step()`` sets the learning rate of each parameter group; call it once an epoch.

    A schedule starts from each group's ``initial_lr``, which the first schedule of an optimizer sets to the present
    rate. A group that is added later starts from its own rate.
    ``last_epoch`` is the epoch from which it goes on, in groups that have an ``initial_lr``; -1: it begins.

    A new schedule defines ``get_lr``: the new rate of each group, from ``last_epoch``, ``base_lrs`` and the present
    rates. If that needs the present rates, it also defines ``closed_form``, which does without them.
    """

    base_lrs: list[float]
    is_first = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        forbid_in_recording("making a schedule", "it changes the rates that it finds, and a replay would not")
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(type(self).__name__, "an optimizer", f"got {type(optimizer).__name__}")
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
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.begin()

    def get_lr(self) -> list[float]:
        """The new rate of each group, from the present one."""
        raise NotImplementedError

    def closed_form(self) -> list[float]:
        """The rate of each group in ``last_epoch``, whatever the present one is."""
        return self.get_lr()

    @property
    def lrs(self) -> list[float]:
        """The present rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The rates that the last ``step()`` set."""
        return self._last_lr

    def step(self, epoch: float | None = None) -> None:
        """Advance to the next epoch, or to ``epoch``."""
        if (told := recorder()) is not None and not self.is_first:
            if epoch is not None:
                forbid_in_recording("step(epoch)", "a replay would go to the same epoch again")
            told.effect(_Stepped(self), self.advance, self.restorer())
        else:
            self.advance(epoch)

    tells = frozenset({"closed_form", "get_last_lr", "get_lr", "lrs"})
    """Methods that read the state; where a compiled function mentions one, it is compared by what ``told`` gives."""

    def told(self) -> tuple[Any, ...]:
        """The numbers that the schedule reads and sets."""
        kept = [value for value in self.__dict__.values() if isinstance(value, (int, float))]
        return tuple(kept), tuple(getattr(self, "base_lrs", ())), tuple(self._last_lr), tuple(self.lrs)

    def restorer(self) -> Callable[[], None]:
        """A function that restores the present state."""
        state = {name: _copied(value) for name, value in self.__dict__.items()}
        groups = [(group, {name: group[name] for name in _SCHEDULED if name in group}) for group in self.groups]

        def restore() -> None:
            self.__dict__.update(state)
            for group, options in groups:
                group.update(options)

        return restore

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""
        return self.optimizer.param_groups

    def begin(self) -> None:
        """Go to the first epoch, the one after ``last_epoch``."""
        self.is_first = True  # a resumed schedule starts from rates that were reached already
        try:
            self.advance()
        finally:
            self.is_first = False

    def advance(self, epoch: float | None = None) -> None:
        """``step``, as a part of another schedule's. If it raises, nothing is changed."""
        restore = self.restorer()
        try:
            self.go_to(epoch)
        except BaseException:
            restore()
            raise

    def go_to(self, epoch: float | None) -> None:
        """What ``advance`` does; schedules that keep more than ``last_epoch`` define it anew."""
        for group in self.groups[len(self.base_lrs) :]:
            self.base_lrs.append(group.setdefault("initial_lr", group["lr"]))
        if epoch is None:
            self.last_epoch += 1
            self.set_lrs(self.get_lr())
        else:
            self.advance_to(int(epoch))

    def advance_to(self, epoch: int) -> None:
        """Set ``last_epoch``, and the rates that it has."""
        self.last_epoch = epoch
        self.set_lrs(self.closed_form())

    def set_lrs(self, lrs: Sequence[float]) -> None:
        """Give each group its rate."""
        for group, lr in zip(self.groups, lrs, strict=True):
            group["lr"] = lr
        self._last_lr = self.lrs

    def state_dict(self) -> dict[str, Any]:
        """The schedule's state, without the optimizer. Of functions, what callable objects hold is kept."""
        return {name: _copied(value) for name, value in self.__dict__.items() if name not in _NOT_SAVED}

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
                "Load one that the same schedule has saved.",
            )
        strange = [name for name, value in own.items() if not _is_alike(value, state_dict[name])]
        if strange:
            raise StateDictError(
                f"{type(self).__name__}.load_state_dict",
                f"{strange[0]} as {type(own[strange[0]]).__name__}",
                f"it has {state_dict[strange[0]]!r}"[:120],
                "Load one that the same schedule has saved.",
            )
        if "base_lrs" in own and len(state_dict["base_lrs"]) != len(own["base_lrs"]):
            raise StateDictError(
                f"{type(self).__name__}.load_state_dict",
                f"the rates of {len(own['base_lrs'])} groups",
                f"it has those of {len(state_dict['base_lrs'])}",
                "Load one of an optimizer with the same groups.",
            )
        self.__dict__.update({name: _copied(state_dict[name]) for name in own})


_SCHEDULED = ("lr", "momentum", "betas")
"""The options of a group that schedules change."""

_NOT_SAVED = ("optimizer", "is_first")


def _is_alike(own: Any, saved: Any) -> bool:
    """Whether ``saved`` may stand in the place of a schedule's value: a number for a number, a list for a list."""
    for kind in ((bool, int, float), (list, tuple), (str,)):
        if isinstance(own, kind):
            return isinstance(saved, kind) or (kind[0] is bool and getattr(saved, "shape", None) == ())
    return True


def _copied(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


def attributes_of(function: Any) -> dict[str, Any] | None:
    """What a callable object holds; None of a function, or a class."""
    if isinstance(function, (FunctionType, type)) or not hasattr(function, "__dict__"):
        return None
    return {**vars(function)}


def one_for_each_group(call: str, name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """``value`` for each group, or the values of a list."""
    groups = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * groups
    if len(value) != groups:
        raise ArgumentError(call, f"{name} for each of {groups} groups, or one for all", f"got {len(value)}")
    return list(value)
