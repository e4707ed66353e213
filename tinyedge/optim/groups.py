"""What an optimizer holds: parameter groups, the state of each parameter, and how many samples wait for an update."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinyedge.autograd.deferral import launch_deferred
from tinyedge.autograd.minibatch import Minibatch, note_minibatch
from tinyedge.errors import ArgumentError
from tinyedge.ir.modes import is_abstract
from tinyedge.ir.values import Slot
from tinyedge.optim.launch import Job, Rule, State
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor

TELLS = 8  # the updates after which parameters without a gradient are named

Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]


class _Required:
    """What a default is of an option that each group must say."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


class Groups(Minibatch):
    """The groups, the state, and the count of an ``Optimizer``, and what a new one defines of them."""

    @property
    def has_step_hooks(self) -> bool:
        """Whether ``step`` calls functions of the user's before or after it."""
        hooks = self.__dict__.get("_hooks")
        return hooks is not None and bool(hooks.get("before step") or hooks.get("after step"))

    def __init__(
        self,
        params: Parameters,
        defaults: dict[str, Any],
        accumulate: int | None,
        nonfinite: str,
        master: bool,
    ) -> None:
        if nonfinite not in ("ignore", "skip", "raise"):
            raise ArgumentError(self._call, 'nonfinite must be "ignore", "skip" or "raise"', f"got {nonfinite!r}")
        if accumulate is not None and (
            isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1
        ):
            raise ArgumentError(self._call, "accumulate must be an int of at least 1, or None", f"got {accumulate!r}")
        self.defaults = defaults
        self.accumulate = accumulate
        self.nonfinite = nonfinite
        self.master = master
        self.skipped = 0
        """The number of updates left out because a gradient was not finite, with ``nonfinite="skip"``."""
        self.param_groups: list[dict[str, Any]] = []
        self.state: defaultdict[Tensor, State] = defaultdict(dict)
        self._pending = 0
        self._rest: list[tuple[Job, int]] = []  # the remaining jobs of a refused update, with gradient versions
        self._waits = False  # whether it is registered as a minibatch
        self._updates = 0  # up to TELLS
        self._updated: set[Tensor] = set()  # the parameters of these updates
        self._rounded: dict[Tensor, tuple[Slot, int]] = {}  # where masters were last rounded to, and the version then
        if isinstance(params, (Tensor, dict)):
            raise ArgumentError(
                self._call, "params must be an iterable of tensors or of dicts", f"got one {type(params).__name__}",
                "Put it into a list.",
            )  # fmt: skip
        listed: list[Any] = list(params)
        if not listed:
            raise ArgumentError(self._call, "at least one parameter", "got an empty list", "Pass model.parameters().")
        for group in listed if isinstance(listed[0], dict) else [{"params": listed}]:
            self.add_param_group(group)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Names of one parameter's state tensors, which begin as zeros. ``step``, if named, counts its updates."""
        raise NotImplementedError

    def names_of(self, group: dict[str, Any], param: Tensor) -> tuple[str, ...]:
        """The names of all state of ``param``, the master copy with it."""
        names = self.state_names(group)
        return (*names, "master") if self.master and param.dtype.packed else names

    def note_update(self, params: Iterable[Tensor]) -> None:
        """Count an update of ``params``; after a few, warn of parameters that shall train and never had a gradient, or
        that none shall.
        """
        if self._updates >= TELLS:
            return
        self._updates += 1
        self._updated.update(params)
        if self._updates < TELLS:
            return
        never = [
            label
            for _, param, label in self.named()
            if param.requires_grad and param._slot.numel and param not in self._updated
        ]
        nothing = not self._updated and not any(param.requires_grad for _, param, _ in self.named())
        self._updated.clear()
        if nothing:
            warnings.warn(
                f"{self._call}.step: {TELLS} updates changed nothing, as all its parameters are frozen. Call "
                "requires_grad_(True) on what shall be trained, or give the optimizer what is.",
                stacklevel=5,
            )
        if never:
            warnings.warn(
                f"{self._call}.step: in {TELLS} updates no gradient came for {', '.join(never)}. If the loss shall not "
                "depend on it, freeze it with requires_grad_(False), or leave it out of the optimizer.",
                stacklevel=5,
            )

    def note_master(self, param: Tensor) -> None:
        """Remember that the master copy of ``param``, if it has one, was just rounded into it."""
        if "master" in self.state.get(param, {}):
            self._rounded[param] = param._slot, param._slot.storage.version

    def has_current_master(self, param: Tensor) -> bool:
        """Whether the parameter still is its master copy, rounded; looks at values only if it was written since."""
        slot = param._slot
        if self._rounded.get(param) == (slot, slot.storage.version):
            return True
        if is_abstract():
            return True
        master: Slot = self.state[param]["master"]._slot
        launch_deferred()
        there = slot.dtype.pack(master.dtype.unpack(master.storage.backend.read(master)))
        if not np.array_equal(there, slot.storage.backend.read(slot)):
            return False
        self.note_master(param)
        return True

    def begin(self, group: dict[str, Any], name: str) -> float:
        """The number of which the state tensor ``name`` begins full, where that is not 0."""
        return 0.0

    def shape_of(self, name: str, param: Tensor) -> Shape:
        """The shape of the state tensor ``name`` of ``param``."""
        return param.shape

    def numbers(self, group: dict[str, Any], step: int, state: Mapping[str, Any]) -> dict[str, float]:
        """State besides ``step`` that is numbers, after update number ``step``; ``state`` is that before it.

        Numbers whose names begin with an underscore are for ``rule`` alone, and not kept.
        """
        return {}

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        """How to make update number ``step`` of a parameter in ``group``; ``first`` if its state is new.

        ``group`` has the options and what ``numbers`` gave. It is called once for all parameters of a group for which
        these three are equal.
        """
        raise NotImplementedError

    def rule_of(self, group: dict[str, Any], numbers: Mapping[str, float], step: int, first: bool, count: int) -> Rule:
        """``rule``, for an update by the mean of ``count`` samples."""
        rule = self.rule({**group, **numbers} if numbers else group, step, first)
        rule.scalars["scale"] = (-1.0 if group.get("maximize") else 1.0) / count
        return rule

    @property
    def pending(self) -> int:
        """The number of samples counted since the last update."""
        return self._pending

    @property
    def is_whole(self) -> bool:
        """Whether no part of an update is left, which the device refused halfway."""
        return not self._rest

    @property
    def _call(self) -> str:
        return type(self).__name__

    @classmethod
    def require_at_least_zero(cls, **options: float) -> None:
        for name, value in options.items():
            if not value >= 0:
                raise ArgumentError(cls.__name__, f"{name} must be at least 0", f"got {value}")

    @classmethod
    def refuse_tensors(cls, foreach: bool | None, capturable: bool, **options: Any) -> None:
        """Refuse tensors as options where PyTorch's ``foreach`` does, as they would be read by the host there."""
        for name, value in options.items():
            parts = value if isinstance(value, tuple) else (value,)
            if foreach and not capturable and any(isinstance(part, Tensor) for part in parts):
                raise ArgumentError(cls.__name__, f"{name} as a number with foreach=True", f"got {value}")

    @classmethod
    def refuse_differentiable(cls, differentiable: bool) -> None:
        if differentiable:
            raise ArgumentError(
                cls.__name__, "differentiable=False: an update is no part of the graph", "got True",
                "Compute the update with te.autograd.grad(..., create_graph=True).",
            )  # fmt: skip

    @classmethod
    def require_betas(cls, betas: Sequence[float]) -> None:
        if len({isinstance(beta, Tensor) for beta in betas}) > 1:
            raise ArgumentError(cls.__name__, "betas that are both numbers or both tensors", f"got {betas}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ArgumentError(cls.__name__, "betas must be two numbers in [0, 1)", f"got {betas}")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; options that the group leaves out are the optimizer's."""
        group = {**param_group}
        params = group["params"]
        items = [params] if isinstance(params, Tensor) else list(params)
        names = [item[0] for item in items if isinstance(item, tuple)]
        tensors = [item[1] if isinstance(item, tuple) else item for item in items]
        known = {id(param) for there in self.param_groups for param in there["params"]}
        for position, param in enumerate(tensors):
            if not isinstance(param, Tensor):
                raise ArgumentError(
                    self._call,
                    "every parameter must be a tensor",
                    f"got {type(param).__name__}",
                    "Pass model.parameters().",
                )
            if not param.is_leaf or not param.is_floating_point():
                raise ArgumentError(
                    self._call, "every parameter must be a floating-point leaf",
                    f"number {position} is {param.dtype.name} of shape {param.shape}"
                    + ("" if param.is_leaf else ", the result of an op"),
                    "Pass parameters, not what was computed from them.",
                )  # fmt: skip
            if id(param) in known:
                raise ArgumentError(
                    self._call, "each parameter may appear once", f"one of shape {param.shape} appears again"
                )
            known.add(id(param))
        if names and len(names) != len(tensors):
            raise ArgumentError(
                self._call, "either all parameters of a group have names, or none", f"got {len(names)} names"
            )
        if self.param_groups and bool(names) != ("param_names" in self.param_groups[0]):
            raise ArgumentError(self._call, "either all groups have names, or none", "got both kinds")
        group = {name: self._number(name, value) for name, value in group.items()}
        group["params"] = tensors
        if names:
            group["param_names"] = names
        usual = {name: self._number(name, value) for name, value in self.defaults.items()}
        if missing := [name for name, value in usual.items() if value is required and name not in group]:
            raise ArgumentError(self._call, f"a group with {missing[0]}", "got none", f"Pass {missing[0]}=...")
        self.param_groups.append({**group, **{k: v for k, v in usual.items() if k not in group}})

    def _number(self, name: str, value: Any) -> Any:
        """An option that is a tensor or an array of one element, as a number."""
        if isinstance(value, tuple):
            return tuple(self._number(name, each) for each in value)
        if not hasattr(value, "item") or not hasattr(value, "shape"):
            return value
        if any(length != 1 for length in value.shape):
            raise ArgumentError(self._call, f"{name} of one element", f"got a tensor of shape {tuple(value.shape)}")
        return value.item()

    def leaves(self) -> Iterator[Slot]:
        return (param._slot for group in self.param_groups for param in group["params"])

    def counted(self) -> str:
        if self._rest:
            return f"{len(self._rest)} parameters wait for the rest of an update that the device refused halfway"
        return f"{self._pending} of {self.accumulate} were accumulated"

    def count(self, pending: int) -> None:
        """Set the number of samples that wait for an update."""
        self._pending = pending
        waits = bool(pending or self._rest)
        if waits is not self._waits:
            self._waits = waits
            note_minibatch(self, waits)

    def named(self) -> Iterator[tuple[dict[str, Any], Tensor, str]]:
        """Each group and parameter, and the parameter's name for an error."""
        number = 0
        for group in self.param_groups:
            for position, param in enumerate(group["params"]):
                name = group["param_names"][position] if "param_names" in group else f"number {number}"
                yield group, param, f"parameter {name} of shape {param.shape}"
                number += 1

    def ends(self, count: int) -> bool:
        """Whether ``count`` more samples complete a minibatch."""
        return self.accumulate is None or self.waiting(count) >= self.accumulate

    def waiting(self, count: int) -> int:
        """The samples in the minibatch at call number ``count`` of ``step()`` from now, that one's included."""
        if self.accumulate is None:
            return self._pending + 1
        first = max(self.accumulate - self._pending, 1)  # the first call that completes a minibatch
        return self._pending + count if count <= first else (count - first - 1) % self.accumulate + 1

    def restorer(self) -> Callable[[], None]:
        """A function that restores the host's part of the state, which keeps device memory alive, to what it is now."""
        pending = self._pending
        state = defaultdict(dict, {param: {**state} for param, state in self.state.items()})
        updates, updated, skipped = self._updates, {*self._updated}, self.skipped

        def restore() -> None:
            self.state = state
            self._updates, self._updated, self.skipped = updates, updated, skipped
            self.count(pending)

        return restore
