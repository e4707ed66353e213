"""What ``step()`` does in a compiled function: Effects, which a replay of its program does again.

In: the jobs of the update that was recorded. Out: at each replay, whether the same steps would be launched, their
scalars, and the optimizer's counts after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_
from typing import Any, NamedTuple

from tinyedge.autograd.recorder import Effect
from tinyedge.ir.modes import is_checking_anomalies
from tinyedge.ir.values import Slot
from tinyedge.optim.gate import Gate
from tinyedge.optim.groups import Groups
from tinyedge.optim.launch import Job, Rule, State, kept_numbers
from tinyedge.optim.saved import is_torn
from tinyedge.tensor import Tensor


class _Known(NamedTuple):
    """What a program knows of a job."""

    param: Tensor
    slots: dict[str, Slot]
    rule: Rule
    clears: bool


class Counted(Effect):
    """``step()`` in a compiled function that counts a sample, after ``earlier`` other calls there."""

    updates = False

    def __init__(self, optimizer: Groups, earlier: int) -> None:
        self.optimizer = optimizer
        self.earlier = earlier

    def fits(self) -> bool:
        optimizer = self.optimizer
        if is_checking_anomalies() or optimizer.has_step_hooks:  # values would be read, or the user's code called
            return False
        return optimizer.is_whole and optimizer.ends(self.earlier + 1) is self.updates

    def after(self) -> None:
        self.optimizer.count(self.optimizer.pending + 1)

    def restorer(self) -> Callable[[], None]:
        return self.optimizer.restorer()


class Updated(Counted):
    """``step()`` in a compiled function that completes a minibatch and updates."""

    updates = True

    def __init__(
        self, optimizer: Groups, earlier: int, jobs: Sequence[Job], launched: Sequence[Job], gate: Gate | None
    ) -> None:
        super().__init__(optimizer, earlier)
        self.gate = gate
        self.nonfinite = optimizer.nonfinite
        self.count = optimizer.pending + 1
        groups = {id(param): group for group in optimizer.param_groups for param in group["params"]}
        self.members = [(group, [*group["params"]]) for group in optimizer.param_groups]
        # Without the gradients: one that the function drops at its end must go.
        self.jobs = [(_Known(job.param, job.slots, job.rule, job.clears), groups[id(job.param)]) for job in jobs]
        launches = {id(job) for job in launched}
        self.launched = [id(job) in launches for job in jobs]
        self.steps_of: list[int] = []  # of each job, the number of the update
        self.earlier_numbers: list[tuple[State, dict[str, float]]] = []  # what ``before`` replaced
        self.cleared: list[Tensor] = []  # whose gradients are not added to later in the call

    def recorded(self) -> None:
        self.cleared = [job.param for job, _ in self.jobs if job.clears and job.param._slot.gradient() is None]

    def leaves(self) -> Iterable[Slot]:
        return [job.slots["param"] for job, _ in self.jobs]

    def fits(self) -> bool:
        """Whether the same parameters, with the same state and options, but for numbers, would be updated."""
        optimizer = self.optimizer
        if not super().fits() or not self._has_members() or optimizer.waiting(self.earlier + 1) != self.count:
            return False
        if optimizer.nonfinite != self.nonfinite:
            return False
        earlier = sum(optimizer.ends(k + 1) for k in range(self.earlier))
        self.steps_of = []
        for job, group in self.jobs:
            state = optimizer.state.get(job.param, {})
            slot = job.param._slot
            if slot is not job.slots["param"] or not slot.requires_grad or is_torn(slot):
                return False
            names = optimizer.names_of(group, job.param)
            if any(state.get(name) is None for name in names):  # a changed option needs one that is not there yet
                return False
            if "master" in names and not optimizer.has_current_master(job.param):
                return False
            slots = {name: state[name]._slot for name in names if name != "step"}
            if slots != {name: slot for name, slot in job.slots.items() if name != "param"}:
                return False
            self.steps_of.append(int(state.get("step", 0)) + 1 + earlier)
        return all(
            rule.op is job.rule.op and rule.attrs == job.rule.attrs
            for rule, (job, _) in zip(self._rules(self._numbers()), self.jobs, strict=True)
        )

    def _has_members(self) -> bool:
        """Whether the optimizer's groups, and their parameters, are still the same."""
        groups = self.optimizer.param_groups
        return len(groups) == len(self.members) and all(
            group is known and len(group["params"]) == len(params) and all(map(is_, group["params"], params))
            for group, (known, params) in zip(groups, self.members, strict=True)
        )

    def _numbers(self) -> list[dict[str, float]]:
        """Of each job, the state that is numbers, after the update."""
        state = self.optimizer.state
        return [
            self.optimizer.numbers(group, step, state.get(job.param, {}))
            for (job, group), step in zip(self.jobs, self.steps_of, strict=True)
        ]

    def _rules(self, numbers: Sequence[dict[str, float]]) -> list[Rule]:
        rules: dict[Any, Rule] = {}  # most parameters share one
        found = []
        for (_, group), step, own in zip(self.jobs, self.steps_of, numbers, strict=True):
            key = id(group), step, *own.items()
            if key not in rules:
                rules[key] = self.optimizer.rule_of(group, own, step, False, self.count)
            found.append(rules[key])
        return found

    def before(self) -> Sequence[Mapping[str, float]]:
        # Computed here, since a schedule may have changed the rates earlier in this very call.
        numbers = self._numbers()
        rules = self._rules(numbers)
        self.earlier_numbers = []
        for (job, _), own in zip(self.jobs, numbers, strict=True):
            if own:  # a later update in this call goes on from them
                state = self.optimizer.state[job.param]
                own = kept_numbers(own)
                self.earlier_numbers.append((state, {name: state[name] for name in own if name in state}))
                state.update(own)
        found: list[Mapping[str, float]] = []
        for rule, launches, (job, _) in zip(rules, self.launched, self.jobs, strict=True):
            if launches:
                found.append(rule.scalars)
                found += [{}] * (0 if self.gate is None else self.gate.steps_after(job.slots))
        return found

    def undo(self) -> None:
        for state, numbers in self.earlier_numbers:
            state.update(numbers)

    def after(self) -> None:
        optimizer = self.optimizer
        is_made = self.gate is None or self.gate.is_open()
        if not is_made:
            optimizer.skipped += 1
            self.undo()
        for (job, _), step in zip(self.jobs, self.steps_of, strict=True):
            if is_made and "step" in optimizer.state.get(job.param, {}):
                optimizer.state[job.param]["step"] = step
            optimizer.note_master(job.param)
        for param in self.cleared:
            if not is_made:
                param._slot.keep_gradient(None)  # as discard() does
            elif (gradient := param._slot.grad) is not None:
                gradient.clear()
        optimizer.count(0)
        if is_made:
            optimizer.note_update([job.param for job, _ in self.jobs])
