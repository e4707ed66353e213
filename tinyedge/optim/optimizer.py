"""The base of the optimizers: parameter groups, state, minibatches of accumulated samples, the check for NaN.

In: parameters with gradients. Out: updates, each a Step of an op in ``ops/update.py``. The second update of the same
parameters is compiled into a Program, which later updates replay. Inside ``te.compile``, a step is an Effect instead.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from tinyedge import config
from tinyedge.autograd.dispatch import new_slot
from tinyedge.autograd.interrupts import held_back
from tinyedge.autograd.minibatch import Minibatch, note_minibatch, require_no_minibatch
from tinyedge.autograd.modes import enable_grad, no_grad
from tinyedge.autograd.recorder import Effect, Recorder, forbid_in_recording, recorder, seen_gradient, set_gradient
from tinyedge.compiler.program import Program, prepared
from tinyedge.compiler.record import Recording, bytes_of
from tinyedge.errors import AnomalyError, ArgumentError, AutogradError, BackendError, OutOfMemoryError, StateDictError
from tinyedge.ir.modes import ModeContext, is_checking_anomalies
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot, leaf_changes
from tinyedge.ops.update import Update, not_finite, note_written, update, update_step
from tinyedge.tensor import Tensor, full, tensor

Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
State = dict[str, Any]


class Rule(NamedTuple):
    """How one parameter is updated: the op, its scalars, and its attributes."""

    op: type[Update]
    scalars: dict[str, float]
    attrs: Mapping[str, Any] = {}


class _Job(NamedTuple):
    """One parameter's update, ready to run."""

    param: Tensor
    gradient: Slot
    slots: dict[str, Slot]  # slots of the parameter and of its state
    rule: Rule
    state: State  # the state after the update: not the parameter's yet if it is new
    step: int
    clears: bool  # whether the kernel also fills the gradient with zeros

    def kind(self) -> tuple[Any, ...]:
        """What a program of the update depends on: the memory that stays, and the gradient's layout."""
        return self.rule.op, self.rule.attrs, self.slots, self.gradient.key, self.clears

    def update(self) -> Step:
        """The step that updates in place."""
        return self.into({**self.slots, "grad": self.gradient} if self.clears else self.slots)

    def into(self, targets: dict[str, Slot]) -> Step:
        """The step that writes the new values into ``targets``."""
        inputs = {**self.slots, "grad": self.gradient}
        return update_step(self.rule.op, inputs, targets, self.rule.scalars, self.rule.attrs)


class _Told(NamedTuple):
    """What a program knows of a job."""

    param: Tensor
    slots: dict[str, Slot]
    rule: Rule
    clears: bool


def _is_torn(leaf: Slot) -> bool:
    """Whether only a part of a sample was added to the gradient of ``leaf``."""
    return leaf.grad is not None and getattr(leaf.grad.storage, "torn", False)


class _Counted(Effect):
    """``step()`` in a compiled function that counts a sample, after ``earlier`` other calls there."""

    updates = False

    def __init__(self, optimizer: Optimizer, earlier: int) -> None:
        self.optimizer = optimizer
        self.earlier = earlier

    def fits(self) -> bool:
        optimizer = self.optimizer
        if optimizer.nonfinite != "ignore" or is_checking_anomalies():  # then values would be read
            return False
        return not optimizer._rest and optimizer.ends(self.earlier + 1) is self.updates

    def after(self) -> None:
        self.optimizer._count(self.optimizer._pending + 1)

    def restorer(self) -> Callable[[], None]:
        return self.optimizer._restorer()


class _Updated(_Counted):
    """``step()`` in a compiled function that completes a minibatch and updates."""

    updates = True

    def __init__(self, optimizer: Optimizer, earlier: int, jobs: Sequence[_Job], launched: Sequence[_Job]) -> None:
        super().__init__(optimizer, earlier)
        self.count = optimizer._pending + 1
        groups = {id(param): group for group in optimizer.param_groups for param in group["params"]}
        self.members = [(group, [*group["params"]]) for group in optimizer.param_groups]
        # Without the gradients: one that the function drops at its end must go.
        self.jobs = [(_Told(job.param, job.slots, job.rule, job.clears), groups[id(job.param)]) for job in jobs]
        launches = {id(job) for job in launched}
        self.launched = [id(job) in launches for job in jobs]
        self.steps_of: list[int] = []  # of each job, the number of the update
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
        earlier = sum(optimizer.ends(k + 1) for k in range(self.earlier))
        self.steps_of = []
        for job, group in self.jobs:
            state = optimizer.state.get(job.param, {})
            slot = job.param._slot
            if slot is not job.slots["param"] or not slot.requires_grad or _is_torn(slot):
                return False
            names = optimizer.state_names(group)
            if not state.keys() >= set(names):  # an option that was changed needs a state that is not there yet
                return False
            slots = {name: state[name]._slot for name in names if name != "step"}
            if slots != {name: slot for name, slot in job.slots.items() if name != "param"}:
                return False
            self.steps_of.append(int(state.get("step", 0)) + 1 + earlier)
        return all(
            rule.op is job.rule.op and rule.attrs == job.rule.attrs
            for rule, (job, _) in zip(self._rules(), self.jobs, strict=True)
        )

    def _has_members(self) -> bool:
        """Whether the optimizer's groups, and their parameters, are still the same."""
        groups = self.optimizer.param_groups
        return len(groups) == len(self.members) and all(
            group is known and len(group["params"]) == len(params) and all(map(is_, group["params"], params))
            for group, (known, params) in zip(groups, self.members, strict=True)
        )

    def _rules(self) -> list[Rule]:
        rules: dict[tuple[int, int], Rule] = {}  # most parameters share one
        found = []
        for (_, group), step in zip(self.jobs, self.steps_of, strict=True):
            key = id(group), step
            if key not in rules:
                rules[key] = self.optimizer.rule(group, step, False)
                rules[key].scalars["scale"] = (-1.0 if group["maximize"] else 1.0) / self.count
            found.append(rules[key])
        return found

    def before(self) -> Sequence[Mapping[str, float]]:
        # Computed here, since a schedule may have changed the rates earlier in this very call.
        rules = self._rules()
        return [rule.scalars for rule, launches in zip(rules, self.launched, strict=True) if launches]

    def after(self) -> None:
        optimizer = self.optimizer
        for (job, _), step in zip(self.jobs, self.steps_of, strict=True):
            if "step" in optimizer.state.get(job.param, {}):
                optimizer.state[job.param]["step"] = step
        for param in self.cleared:
            if (gradient := param._slot.grad) is not None:
                gradient.clear()
        optimizer._count(0)


class detect_anomaly(ModeContext):
    """Context manager and decorator: in this thread, optimizers refuse updates that contain NaN or infinity.

    Each update is first computed into other memory and read back, so it is slow. If a gradient or an updated parameter
    contains NaN or infinity, nothing is updated.

    Errors: AnomalyError from the optimizer's ``step`` or ``flush``, with the parameter's name if the optimizer was
            given ``named_parameters()``.
    """

    mode = "anomaly"

    def value(self) -> bool:
        return True


class Optimizer(Minibatch):
    """Base of the optimizers. A new one defines ``state_names`` and ``rule``.

    ``params`` are tensors, ``named_parameters()``, or groups: dicts with ``params`` and options of their own, as in
    PyTorch.

    ``accumulate`` is a number of samples, or None (the default).
        None: as in PyTorch, each ``step()`` updates and clears nothing. Call ``zero_grad()`` before the next backward.
        N: ``step()`` counts samples. Backward adds each sample's gradient to those before; every N-th ``step()``
        updates by their mean and clears them on the device, after which ``param.grad`` is None until something is
        added. ``flush()`` updates by the mean of a shorter, last minibatch. 1 does the same for minibatches of one
        sample.

    A parameter without a gradient is not changed, and neither is its state. Unlike in PyTorch that also holds for a
    parameter that has a gradient but does not require one any more.

    ``nonfinite`` says what an update does if a gradient contains NaN or infinity.
        "ignore" (the default): it does not look, as in PyTorch.
        "skip": parameters, state and step counts stay as they are; with ``accumulate`` the whole minibatch is dropped;
        ``skipped`` counts such updates.
        "raise": AnomalyError, with nothing changed.
        The latter two cost a reduction of each gradient per update (not per sample), and wait for the device, from
        which they read one number.

    Pickles and deep copies continue where the optimizer stands. They contain the parameters and, with ``accumulate``,
    their gradients, so a minibatch that was begun is not lost. Copy the model and the optimizer in one call, as in
    ``copy.deepcopy((model, optimizer))``, so that the optimizer's copy has the parameters of the model's copy.

    A call that fails changes nothing: memory is allocated and kernels are built before the first launch, the first
    update of a kind is undone if the device refuses it, and an interrupt waits for the end. If the device refuses a
    later update halfway, the error says so, and the next ``step()`` or ``flush()`` only updates the remaining
    parameters.

    Errors: ArgumentError if there is no parameter, one appears twice, or an option is out of its range.
    """

    def __init__(
        self, params: Parameters, defaults: dict[str, Any], accumulate: int | None = None, nonfinite: str = "ignore"
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
        self.skipped = 0
        """The number of updates left out because a gradient was not finite, with ``nonfinite="skip"``."""
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, State] = {}
        self._pending = 0
        self._rest: list[tuple[_Job, int]] = []  # the remaining jobs of a refused update, with gradient versions
        self._warned = False
        self._forget()
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

    def _forget(self) -> None:
        """Forget updates that were made, for a copy."""
        self._kind: list[Any] = []
        self._program: Program | None = None
        self._proven: set[Any] = set()  # signatures of updates that the device carried out
        self._made_in = None if (told := recorder()) is None else weakref.ref(told)
        self._told: weakref.WeakKeyDictionary[Recorder, int] = weakref.WeakKeyDictionary()  # the calls of step()
        self._applied: dict[int, int] = {}  # by storage: versions of gradients that were applied and not cleared
        self._waits = False  # whether it is registered as a minibatch
        self._seen = -1  # leaf_changes() when gradients were last looked at

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Names of one parameter's state tensors, which begin as zeros. ``step``, if named, counts its updates."""
        raise NotImplementedError

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        """How to make update number ``step`` of a parameter in ``group``; ``first`` if its state is new.

        It is called once for all parameters of a group for which these three are equal.
        """
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        self._require_no_rest("copied")
        memory = (
            "_kind",
            "_program",
            "_proven",
            "_applied",
            "_waits",
            "_told",
            "_made_in",
            "_seen",
        )  # a copy has memory of its own
        kept = {name: value for name, value in self.__dict__.items() if name not in memory}
        return {**kept, "_begun": list(self._begun())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = {**state}
        gradients = state.pop("_begun")
        self.__dict__.update(state)
        self._forget()
        for param, gradient, torn in gradients:
            if gradient._slot is not param._slot.grad:  # in a shallow copy it is
                param.grad = gradient
                param._slot.grad.storage.torn = torn
        self._count(self._pending)

    def _begun(self) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """Each gradient in which samples wait: the parameter, the gradient, and whether it is torn.

        None without ``accumulate``: then gradients are the user's, who copies them or, as in PyTorch, loses them.
        """
        known: dict[int, Tensor] = {}  # a gradient may belong to several parameters
        for _, param, _ in self._params() if self.accumulate is not None else ():
            slot = param._slot.gradient()
            if slot is not None:
                yield param, known.setdefault(id(slot), Tensor._wrap(slot)), bool(_is_torn(param._slot))

    def _require_no_rest(self, done: str) -> None:
        if self._rest:
            raise AutogradError(
                self._call, f"a whole update before it is {done}", self.counted(), "Call step() first, or discard()."
            )

    @property
    def pending(self) -> int:
        """The number of samples counted since the last update."""
        return self._pending

    @property
    def program(self) -> Program | None:
        """The compiled update; None before two updates had the same parameters and state.

        ``optimizer.program.explain()`` shows what it costs.
        """
        return self._program

    @property
    def _call(self) -> str:
        return type(self).__name__

    @classmethod
    def require_at_least_zero(cls, **options: float) -> None:
        for name, value in options.items():
            if not value >= 0:
                raise ArgumentError(cls.__name__, f"{name} must be at least 0", f"got {value}")

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
                raise ArgumentError(self._call, "every parameter must be a tensor", f"got {type(param).__name__}")
            if not param.is_leaf or not param.is_floating_point():
                raise ArgumentError(
                    self._call, "every parameter must be a floating-point leaf",
                    f"number {position} is {param.dtype.name} of shape {param.shape}"
                    + ("" if param.is_leaf else ", the result of an op"),
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
        group["params"] = tensors
        if names:
            group["param_names"] = names
        self.param_groups.append({**group, **{k: v for k, v in self.defaults.items() if k not in group}})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Count a sample, and update if it completes the minibatch. Returns the result of ``closure``, if given.

        If the device refused a part of the last update, this updates the remaining parameters: then no sample is
        counted, and ``closure`` is not called.

        Errors: AutogradError, until ``discard()``, if a gradient is torn: a failed backward added a part of a sample.
        """
        if self._rest:
            forbid_in_recording("optimizer.step()", "it completes an update that the device refused halfway")
            self._do_rest()
            return None
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        count = self._pending + 1
        if (told := recorder()) is not None:
            self._recorded(told, count)
        elif self.accumulate is None or count >= self.accumulate:
            self._update(count)
        else:
            if self._seen != leaf_changes():
                for _, param, label in self._params():
                    self._require_whole(param._slot, label)
                self._seen = leaf_changes()
            self._count(count)
        return loss

    def flush(self) -> None:
        """Update by the mean of the samples counted since the last update; do nothing if there are none."""
        forbid_in_recording("optimizer.flush()", "how many samples it finds changes from call to call")
        if self._rest:
            self._do_rest()
        elif self._pending:
            self._update(self._pending)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or set them to zero.

        Errors: ArgumentError in the middle of a minibatch of accumulated samples, which would be lost.
        """
        if self._pending or self._rest:
            raise ArgumentError(
                "zero_grad",
                "accumulated samples must not be dropped before their update",
                self.counted(),
                "Leave it out (each update clears the gradients), or call flush() or discard() first.",
            )
        require_no_minibatch("zero_grad", self.leaves())  # of another optimizer
        self.discard(set_to_none)

    def discard(self, set_to_none: bool = True) -> None:
        """Drop the gradients, and the count of samples since the last update."""
        if self._pending or self._rest:
            forbid_in_recording("optimizer.discard()", "how many samples it finds changes from call to call")
        self._rest = []
        self._count(0)
        for _, param, _ in self._params():
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad.zero_()
                if _is_torn(param._slot):
                    param._slot.grad.storage.torn = False  # type: ignore[union-attr]
        if self._program is not None:
            self._program.let_go()

    def leaves(self) -> Iterator[Slot]:
        return (param._slot for group in self.param_groups for param in group["params"])

    def counted(self) -> str:
        if self._rest:
            return f"{len(self._rest)} parameters wait for the rest of an update that the device refused halfway"
        return f"{self._pending} of {self.accumulate} were accumulated"

    def _count(self, pending: int) -> None:
        """Set the number of samples that wait for an update."""
        self._pending = pending
        waits = bool(pending or self._rest)
        if waits is not self._waits:
            self._waits = waits
            note_minibatch(self, waits)

    def _params(self) -> Iterator[tuple[dict[str, Any], Tensor, str]]:
        """Each group and parameter, and the parameter's name for an error."""
        number = 0
        for group in self.param_groups:
            for position, param in enumerate(group["params"]):
                name = group["param_names"][position] if "param_names" in group else f"number {number}"
                yield group, param, f"parameter {name} of shape {param.shape}"
                number += 1

    def _update(self, count: int) -> None:
        """Update every parameter that has a gradient, by the mean of ``count`` samples."""
        with no_grad():
            jobs = self._plan_update(count)
            if is_checking_anomalies():
                labels = {id(param): label for _, param, label in self._params()}
                for job in jobs:
                    self._check(job, labels[id(job.param)])
            self._notice_what_was_added_to(jobs)
            if self.nonfinite != "ignore" and not self._all_finite(
                [job.gradient for job in jobs if job.gradient.numel]
            ):
                self._leave_out(jobs)
                return
            self._carry_out(jobs)
            if self.accumulate is not None:
                self._drop_frozen()

    def _drop_frozen(self) -> None:
        """Drop gradients of frozen parameters, which must not be applied when these are unfrozen."""
        for leaf in self.leaves():
            if leaf.grad is not None and not leaf.requires_grad:
                set_gradient(leaf, None)

    def ends(self, count: int) -> bool:
        """Whether ``count`` more samples complete a minibatch."""
        return self.accumulate is None or self.waiting(count) >= self.accumulate

    def waiting(self, count: int) -> int:
        """The samples in the minibatch at call number ``count`` of ``step()`` from now, that one's included."""
        if self.accumulate is None:
            return self._pending + 1
        first = max(self.accumulate - self._pending, 1)  # the first call that completes a minibatch
        return self._pending + count if count <= first else (count - first - 1) % self.accumulate + 1

    def _restorer(self) -> Callable[[], None]:
        """A function that restores the host's part of the state, which keeps device memory alive, to what it is now."""
        pending, state = self._pending, {param: {**state} for param, state in self.state.items()}

        def restore() -> None:
            self.state = state
            self._count(pending)

        return restore

    def _recorded(self, told: Recorder, count: int) -> None:
        """``step()`` inside a compiled function: the update becomes a part of its program."""
        if self._made_in is not None and self._made_in() is told:
            forbid_in_recording("optimizer.step()", "the optimizer was made inside, and a replay makes no other")
        undo = self._restorer()
        if is_checking_anomalies() or self.nonfinite != "ignore":
            forbid_in_recording("looking for NaN", "an optimizer with nonfinite, or detect_anomaly(), reads values")
        steps = self._told.get(told, 0)
        self._told[told] = steps + 1
        if not self.ends(1):
            told.effect(_Counted(self, steps), partial(self._count, count), undo)
            return
        with no_grad():
            jobs = self._plan_update(count)
            if any(set(job.state) - set(self.state.get(job.param, {})) for job in jobs):
                told.once()  # it makes the state with which later updates begin
            launched = [job for job in jobs if job.gradient.numel]

            def run() -> None:
                for job in launched:
                    update(job.update())
                self._commit(jobs)
                if self.accumulate is not None:
                    self._drop_frozen()
                self._count(0)

            told.effect(_Updated(self, steps, jobs, launched), run, undo)

    def _plan_update(self, count: int) -> list[_Job]:
        """The jobs of an update by the mean of ``count`` samples. New state is allocated, and nothing is changed."""
        jobs = []
        taken = Counter(leaf.grad.storage.number for leaf in self.leaves() if leaf.grad is not None)
        for group in self.param_groups:
            names = self.state_names(group)
            rules: dict[tuple[int, bool], Rule] = {}  # most parameters of a group share one
            for param in group["params"]:
                slot = param._slot
                gradient = seen_gradient(slot) if slot.requires_grad else None
                if gradient is None:
                    continue
                if _is_torn(slot):
                    self._refuse_torn(param)
                state = self.state.get(param, {})
                slots, missing = {"param": slot}, False
                for name in names:
                    there: Any = state.get(name)
                    if there is None:
                        if not missing:
                            state, missing = {**state}, True
                        there = 0 if name == "step" else full(slot.shape, 0.0, dtype=slot.dtype, device=param.backend)
                        state[name] = there
                    if name == "step":
                        continue
                    lies = there._slot
                    if lies.dtype is not slot.dtype or lies.storage.backend is not slot.storage.backend:
                        state = {**state, name: there.to(slot.dtype, device=slot.storage.backend)}
                        lies = state[name]._slot
                    if lies.shape != slot.shape:
                        raise StateDictError(
                            f"{self._call}.step", f"{name} of shape {slot.shape}", f"it has {lies.shape}"
                        )
                    slots[name] = lies
                step = int(state.get("step", 0)) + 1
                key = step, missing
                if key not in rules:
                    rules[key] = self.rule(group, *key)
                    rules[key].scalars["scale"] = (-1.0 if group["maximize"] else 1.0) / count
                storage = gradient.storage
                # A kernel clears only gradients that have their memory to themselves: other tensors may need it.
                clears = (
                    self.accumulate is not None and taken[storage.number] == 1 and gradient.nbytes == storage.nbytes
                )
                jobs.append(_Job(param, gradient, slots, rules[key], state, step, clears))
        return jobs

    def _all_finite(self, gradients: Sequence[Slot]) -> bool:
        """Whether all gradients are finite; reads one number for each backend and dtype, usually one in all."""
        alike: dict[Any, list[Slot]] = {}
        for gradient in gradients:
            alike.setdefault((gradient.storage.backend, gradient.dtype), []).append(gradient)
        totals = [(backend, not_finite(slots)) for (backend, _), slots in alike.items()]
        return all(bool(np.isfinite(backend.read(total)).all()) for backend, total in totals)

    def _leave_out(self, jobs: Iterable[_Job]) -> None:
        """Do what ``nonfinite`` says about an update by gradients that are not finite."""
        if self.nonfinite == "raise":
            labels = {id(param): label for _, param, label in self._params()}
            for job in jobs:
                self._require_finite("the gradient", Tensor._wrap(job.gradient), labels[id(job.param)])
        self.skipped += 1
        if self.accumulate is not None:
            self.discard()

    def _carry_out(self, jobs: Sequence[_Job]) -> None:
        """Launch and commit all jobs; or none; or, if the device refuses one halfway, those before it."""
        launched = [job for job in jobs if job.gradient.numel]
        launch = self._prepared(launched)
        with held_back():
            refused, error = launch()
            halfway = 0 < len(refused) < len(launched)
            if halfway or error is None:
                waiting = {id(job) for job in refused}
                self._commit([job for job in jobs if id(job) not in waiting])
                self._rest = [(job, job.gradient.storage.version) for job in refused]
                self._count(self._pending if halfway else 0)
        if error is None:
            return
        if not halfway or not isinstance(error, Exception):
            raise error
        kind = OutOfMemoryError if isinstance(error, MemoryError) else BackendError
        raise kind(
            f"{self._call}.step",
            f"all of {len(jobs)} parameters must be updated",
            f"{len(refused)} were refused: {error}",
            "The others are updated. Call step() or flush() again, which only updates the remaining parameters; or "
            "discard() to leave them as they are.",
        ) from error

    def _commit(self, jobs: Iterable[_Job]) -> None:
        """Update the host's state after these jobs, which were launched."""
        for job in jobs:
            if job.state:
                self.state[job.param] = job.state
                if "step" in job.state:
                    job.state["step"] = job.step
            if job.clears:
                job.gradient.clear()
            elif self.accumulate is not None:
                set_gradient(job.param._slot, None)
            elif not self._warned:
                self._applied[job.gradient.storage.number] = job.gradient.storage.version

    def _do_rest(self) -> None:
        """Update the remaining parameters of a refused update."""
        for job, version in self._rest:
            slot = job.param._slot
            if (
                slot is not job.slots["param"]
                or slot.grad is not job.gradient
                or job.gradient.storage.version != version
            ):
                raise AutogradError(
                    f"{self._call}.step",
                    "no change between an update that the device refused halfway and the call that completes it",
                    f"the gradient of a parameter of shape {slot.shape} changed since, or was dropped",
                    "Call discard(); next time, call step() at once after such an error.",
                )
        with no_grad():
            self._carry_out([job for job, _ in self._rest])

    def _notice_what_was_added_to(self, jobs: Iterable[_Job]) -> None:
        """Warn, once, if backward adds to gradients that an update applied and left, as PyTorch's updates do."""
        if self.accumulate is not None or self._warned:
            return
        for job in jobs:
            storage = job.gradient.storage
            applied = self._applied.get(storage.number)
            if applied is not None and storage.version > applied and storage.renewed <= applied:
                self._warned = True
                break
        self._applied.clear()
        if self._warned:
            warnings.warn(
                f"{self._call}.step: backward added to a gradient that the last step() had applied. Call "
                "zero_grad() after each step(), or pass accumulate=1, with which it clears the gradients.",
                stacklevel=4,
            )

    def _prepared(self, jobs: Sequence[_Job]) -> Callable[[], tuple[Sequence[_Job], BaseException | None]]:
        """Do all that can be done before the first launch; return a function that launches and returns refused jobs.

        It is one program for all jobs if only gradients moved since the last update. Compiling that takes longer than a
        few updates of one parameter after the other.
        """
        kind = [job.kind() for job in jobs]
        again = kind == self._kind
        if not again:
            self._program = None
        # Gradients are the program's arguments, and those do not share memory with what stays in place.
        storages = [slot.storage for job in jobs for slot in (job.gradient, *job.slots.values())]
        apart = len(set(storages)) == len(storages) and len({storage.backend for storage in storages}) == 1
        if again and apart and config.compile_mode() == "1":
            return self._replay(jobs)
        steps = [job.update() for job in jobs]
        launches = [step.backend.prepare(step) for step in steps]
        signatures = set() if again else {step.signature() for step in steps}

        def launch() -> tuple[Sequence[_Job], BaseException | None]:
            kept = [] if signatures <= self._proven else self._kept(jobs)
            done = 0
            try:
                for step, prepared in zip(steps, launches, strict=True):
                    step.backend.launch(prepared)
                    note_written(step)
                    done += 1
                if kept:
                    for backend in {step.backend for step in steps}:
                        backend.finish()
            except BaseException as error:
                for storage, version, values in kept:
                    storage.backend.write(storage, values)
                    storage.version = version
                return (jobs if kept else jobs[done:]), error
            self._proven |= signatures
            self._kind = kind
            return (), None

        return launch

    def _replay(self, jobs: Sequence[_Job]) -> Callable[[], tuple[Sequence[_Job], BaseException | None]]:
        gradients = [Tensor._wrap(job.gradient) for job in jobs]
        if self._program is None:
            recording = Recording(f"{self._call}.step", runs=False)
            for job in jobs:
                recording.step(job.update())

            def make() -> Program:
                return Program(recording, gradients, None)

            self._program = prepared(make(), make)
        program = self._program
        program.prepare()
        program.set_scalars([job.rule.scalars for job in jobs])

        def launch() -> tuple[Sequence[_Job], BaseException | None]:
            try:
                program(gradients)
            except BaseException as error:
                done = program.steps_done(error)
                for number in done:
                    note_written(jobs[number].update())
                return [job for number, job in enumerate(jobs) if number not in done], error
            if self.accumulate is None:  # the gradients are usually dropped next, and their memory is wanted
                program.let_go()
            return (), None

        return launch

    def _kept(self, jobs: Iterable[_Job]) -> list[tuple[Any, int, Any]]:
        """Copies on the host of what the jobs change: each storage, its version, and its bytes."""
        changed = []
        for job in jobs:
            changed += [job.slots["param"], job.gradient]
            if job.state is self.state.get(job.param):  # not of new state, which is dropped if the update fails
                changed += job.slots.values()
        storages = dict.fromkeys(slot.storage for slot in changed)
        return [(storage, storage.version, bytes_of(storage)) for storage in storages]

    def _require_whole(self, leaf: Slot, label: str) -> None:
        if leaf.requires_grad and _is_torn(leaf):
            raise AutogradError(
                f"{self._call}.step",
                "gradients of whole samples",
                f"the gradient of {label} holds a part of one, whose backward failed or was interrupted",
                "Nothing was updated; discard() drops the gradients.",
            )

    def _refuse_torn(self, torn: Tensor) -> None:
        for _, param, label in self._params():
            if param is torn:
                self._require_whole(param._slot, label)

    def _check(self, job: _Job, label: str) -> None:
        param, grad = job.param, job.param.grad
        assert grad is not None
        self._require_finite("the gradient", grad, label)
        trial = new_slot(param.backend, param.dtype, param.shape)
        update(job.into({"param": trial}))
        self._require_finite("the updated value", Tensor._wrap(trial), label)

    def _require_finite(self, what: str, values: Tensor, label: str) -> None:
        array = values.detach().numpy()
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            first = tuple(int(axis) for axis in bad[0])
            raise AnomalyError(
                f"{self._call}.step",
                f"{what} of {label} must be finite",
                f"{len(bad)} of its {array.size} elements are not, the first at {first}: {array[first]}",
                "Nothing was updated; discard() drops the gradients. Look for a learning rate that is too high, "
                "or for log, sqrt or division near zero.",
            )

    def state_dict(self) -> dict[str, Any]:
        """State and groups in PyTorch's format, with parameters as numbers. Its tensors are the optimizer's own.

        With ``accumulate``, a begun minibatch is included, which PyTorch does not read: "minibatch" has the number of
        samples ("counted"), the "gradients", and which of them are "torn", because they contain a part of a sample.

        Errors: AutogradError if the device refused a part of the last update.
        """
        self._require_no_rest("saved")
        numbers = {id(param): number for number, (_, param, _) in enumerate(self._params())}
        gradients = {numbers[id(param)]: gradient for param, gradient, _ in self._begun()}
        torn = [numbers[id(param)] for param, _, torn in self._begun() if torn]
        begun = {"minibatch": {"counted": self._pending, "gradients": gradients, "torn": torn}}
        return {
            **(begun if self._pending or gradients else {}),
            "state": {numbers[id(param)]: {**state} for param, state in self.state.items()},
            "param_groups": [
                {**group, "params": [numbers[id(param)] for param in group["params"]]} for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over state and options from ``state_dict``; its arrays or tensors are copied.

        A minibatch in it replaces the present one; without one, gradients stay as they are.

        Errors: StateDictError if groups, numbers of parameters, or shapes differ, or if it has a minibatch that does
        not
                fit ``accumulate``; ArgumentError if samples of another optimizer wait in gradients that its minibatch
                would replace. Then the optimizer is unchanged.
        """
        saved_groups = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in self.param_groups]
        saved_sizes = [len(group["params"]) for group in saved_groups]
        if sizes != saved_sizes:
            raise StateDictError(
                f"{self._call}.load_state_dict",
                f"groups with {sizes} parameters",
                f"the state dict has groups with {saved_sizes}",
                "Make the optimizer with the same parameters in the same order.",
            )
        keys = [key for group in saved_groups for key in group["params"]]
        loaded: dict[Tensor, State] = {}
        for key, (_, param, label) in zip(keys, self._params(), strict=True):
            if key in state_dict["state"]:
                loaded[param] = self._loaded(param, label, state_dict["state"][key])
        minibatch = None
        if "minibatch" in state_dict:
            minibatch = self._loaded_minibatch(state_dict["minibatch"], keys)
            self._require_no_others()
        self.state = loaded
        self._kind, self._program, self._rest = [], None, []  # they hold memory of the earlier state
        self._count(self._pending)
        if minibatch is not None:
            counted, gradients, torn = minibatch
            self._count(0)
            for _, param, _ in self._params():
                param.grad = gradients.get(param)
                if param in torn:
                    param._slot.grad.storage.torn = True  # type: ignore[union-attr]
            self._count(counted)
        self.param_groups = [
            {**group, **saved, "params": group["params"]}
            for group, saved in zip(self.param_groups, saved_groups, strict=True)
        ]

    def _loaded(self, param: Tensor, label: str, saved: Mapping[str, Any]) -> State:
        state: State = {}
        for name, value in saved.items():
            if name == "step":
                state[name] = int(value)
            elif value is not None:  # None: PyTorch's momentum buffer before its first use
                state[name] = self._like(param, f"{name} of {label}", value)
        return state

    def _like(self, param: Tensor, what: str, value: Any) -> Tensor:
        shape = getattr(value, "shape", None)
        if shape is None or tuple(shape) != param.shape:
            got = type(value).__name__ if shape is None else tuple(shape)
            raise StateDictError(f"{self._call}.load_state_dict", what, f"the state dict has {got}")
        return tensor(value, dtype=param.dtype, device=param.backend)

    def _loaded_minibatch(self, saved: Any, keys: Sequence[Any]) -> tuple[int, dict[Tensor, Tensor], set[Tensor]]:
        """The number of samples, the gradients, and the parameters whose gradients are torn."""
        call = f"{self._call}.load_state_dict"
        if not isinstance(saved, Mapping):
            raise StateDictError(call, "a minibatch that is a dict", f"got {type(saved).__name__}")
        counted, gradients, torn = saved.get("counted"), saved.get("gradients"), saved.get("torn", ())
        if type(counted) is not int or counted < 0:
            raise StateDictError(call, "the samples counted in the minibatch as an int", f"counted is {counted!r}")
        if self.accumulate is None or counted >= self.accumulate:
            raise StateDictError(
                call, f"an optimizer with accumulate above {counted}, as samples of a minibatch wait",
                f"it has accumulate={self.accumulate}", "Make it as the one that was saved, or call flush() there.",
            )  # fmt: skip
        if not isinstance(gradients, Mapping) or not isinstance(torn, (list, tuple)):
            raise StateDictError(
                call, "a minibatch with gradients by number, and a list of the torn ones",
                f"got {type(gradients).__name__} and {type(torn).__name__}",
            )  # fmt: skip
        known = {key: (param, label) for key, (_, param, label) in zip(keys, self._params(), strict=True)}
        strange = [key for key in gradients if key not in known] + [key for key in torn if key not in [*gradients]]
        if strange:
            raise StateDictError(
                call, "gradients of its own parameters in the minibatch", f"got parameter {strange[0]!r}"
            )
        found = {
            known[key][0]: self._like(known[key][0], f"the gradient of {known[key][1]}", value)
            for key, value in gradients.items()
        }
        return counted, found, {known[key][0] for key in torn}

    def _require_no_others(self) -> None:
        """Refuse to replace gradients in which samples of another optimizer wait."""
        note_minibatch(self, False)
        try:
            require_no_minibatch(f"{self._call}.load_state_dict", self.leaves())
        finally:
            note_minibatch(self, self._waits)
