"""The base of the optimizers: parameter groups, state, minibatches of accumulated samples, the check for NaN.

In: parameters with gradients. Out: updates, each a Step of an op in ``ops/update.py``. The second update of the same
parameters is compiled into a Program, which later updates replay. Inside ``te.compile``, a step is an Effect instead.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinyedge.autograd.interrupts import held_back
from tinyedge.autograd.minibatch import note_minibatch, require_no_minibatch
from tinyedge.autograd.modes import enable_grad, no_grad
from tinyedge.autograd.recorder import Recorder, forbid_in_recording, recorder, seen_gradient, set_gradient
from tinyedge.compiler.program import Program
from tinyedge.errors import ArgumentError, AutogradError, BackendError, OutOfMemoryError, StateDictError
from tinyedge.ir.modes import is_checking_anomalies
from tinyedge.ir.values import Slot, leaf_changes
from tinyedge.ops.update import not_finite, update
from tinyedge.optim.anomaly import check, require_finite
from tinyedge.optim.effects import Counted, Updated
from tinyedge.optim.gate import Gate
from tinyedge.optim.groups import Groups
from tinyedge.optim.groups import Parameters as Parameters
from tinyedge.optim.groups import required as required
from tinyedge.optim.hooks import Hooks, calling_hooks
from tinyedge.optim.launch import Job, Launcher, State
from tinyedge.optim.launch import Rule as Rule
from tinyedge.optim.saved import copy_of, is_torn, like, read_minibatch, require_groups
from tinyedge.tensor import Tensor, full


class Optimizer(Groups, Hooks):
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

    ``foreach``, ``fused`` and ``capturable``, where PyTorch has them, change nothing: one launch updates what it can.
    ``differentiable=True`` is refused: no gradient flows through an update.

    ``nonfinite`` says what an update does if a gradient contains NaN or infinity.
        "ignore" (the default): it does not look, as in PyTorch.
        "skip": parameters, state and step counts stay as they are; with ``accumulate`` the whole minibatch is dropped;
        ``skipped`` counts such updates.
        "raise": AnomalyError, with nothing changed.
        The latter two cost a reduction of each gradient per update (not per sample), and wait for the device, from
        which they read one number. In a compiled function, "skip" is decided on the device, and the number read at the
        end of the call; "raise" is refused there.

    ``master``: for a parameter in float16 or bfloat16, state is float32 as its gradient is; and with ``master=True``
    there is also a float32 copy of the parameter, ``state["master"]``. An update changes the copy and rounds it into
    the parameter, so that updates smaller than the parameter's rounding add up instead of being lost. Where the
    parameter was given other values (loaded, initialised anew), the copy begins again from them.

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
        self,
        params: Parameters,
        defaults: dict[str, Any],
        accumulate: int | None = None,
        nonfinite: str = "ignore",
        master: bool = False,
    ) -> None:
        self._warned = False
        self._forget()
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def _forget(self) -> None:
        """Forget updates that were made, for a copy."""
        self._launcher = Launcher(f"{self._call}.step")
        self._made_in = None if (told := recorder()) is None else weakref.ref(told)
        self._told: weakref.WeakKeyDictionary[Recorder, int] = weakref.WeakKeyDictionary()  # the calls of step()
        self._gate: Gate | None = None
        self._gated: weakref.WeakSet[Recorder] = weakref.WeakSet()  # those that were told of an update that has a gate
        self._applied: dict[int, int] = {}  # by storage: versions of gradients that were applied and not cleared
        self._seen = -1  # leaf_changes() when gradients were last looked at
        self._memory: dict[Tensor, State] = {}  # of state that was taken back: it begins again there

    def __getstate__(self) -> dict[str, Any]:
        self._require_no_rest("copied")
        # A copy has memory of its own.
        memory = (
            "_hooks", "_launcher", "_applied", "_waits", "_told", "_made_in", "_seen", "_gate", "_gated", "_memory",
        )  # fmt: skip
        kept = {name: value for name, value in self.__dict__.items() if name not in memory}
        return {**kept, "_begun": list(self._begun())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = {**state}
        gradients = state.pop("_begun")
        self.__dict__.update(state)
        self._waits = False
        self._forget()
        for param, gradient, torn in gradients:
            if gradient._slot is not param._slot.grad:  # in a shallow copy it is
                param.grad = gradient
                param._slot.grad.storage.torn = torn
        self.count(self._pending)

    def _begun(self) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """Each gradient in which samples wait: the parameter, the gradient, and whether it is torn.

        None without ``accumulate``: then gradients are the user's, who copies them or, as in PyTorch, loses them.
        """
        known: dict[int, Tensor] = {}  # a gradient may belong to several parameters
        for _, param, _ in self.named() if self.accumulate is not None else ():
            slot = param._slot.gradient()
            if slot is not None:
                yield param, known.setdefault(id(slot), Tensor._wrap(slot)), bool(is_torn(param._slot))

    def _require_no_rest(self, done: str) -> None:
        if self._rest:
            raise AutogradError(
                self._call, f"a whole update before it is {done}", self.counted(), "Call step() first, or discard()."
            )

    @property
    def program(self) -> Program | None:
        """The compiled update; None before two updates had the same parameters and state.

        ``optimizer.program.explain()`` shows what it costs.
        """
        return self._launcher.program

    @calling_hooks
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
                for _, param, label in self.named():
                    self._require_whole(param._slot, label)
                self._seen = leaf_changes()
            self.count(count)
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
        self.count(0)
        for _, param, _ in self.named():
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad.zero_()
                if is_torn(param._slot):
                    param._slot.grad.storage.torn = False  # type: ignore[union-attr]
        self._launcher.let_go()

    def _update(self, count: int) -> None:
        """Update every parameter that has a gradient, by the mean of ``count`` samples."""
        with no_grad():
            jobs = self._plan_update(count)
            if is_checking_anomalies():
                labels = {id(param): label for _, param, label in self.named()}
                for job in jobs:
                    check(f"{self._call}.step", job, labels[id(job.param)])
            self._notice_what_was_added_to(jobs)
            if self.nonfinite != "ignore" and not self._all_finite(
                [job.gradient for job in jobs if job.gradient.numel]
            ):
                self._leave_out(jobs)
                return
            self._carry_out(jobs)
            if self.accumulate is not None:
                self._drop_frozen()
            self.note_update([job.param for job in jobs])

    def _drop_frozen(self) -> None:
        """Drop gradients of frozen parameters, which must not be applied when these are unfrozen."""
        for leaf in self.leaves():
            if leaf.grad is not None and not leaf.requires_grad:
                set_gradient(leaf, None)

    def _recorded(self, told: Recorder, count: int) -> None:
        """``step()`` inside a compiled function: the update becomes a part of its program."""
        if self._made_in is not None and self._made_in() is told:
            forbid_in_recording("optimizer.step()", "the optimizer was made inside, and a replay makes no other")
        undo = self.restorer()
        if is_checking_anomalies():
            forbid_in_recording("looking for NaN", "detect_anomaly() reads values")
        steps = self._told.get(told, 0)
        self._told[told] = steps + 1
        if not self.ends(1):
            told.effect(Counted(self, steps), partial(self.count, count), undo)
            return
        with no_grad():
            jobs = self._plan_update(count)
            if any(job.is_new for job in jobs):
                told.once()  # it makes the state with which later updates begin
            launched = [job for job in jobs if job.gradient.numel]
            gate = self._gate_of(told, launched)
            condition = None if gate is None else gate.look(launched)

            def run() -> None:
                for job in launched:
                    if gate is None or condition is None:
                        update(job.update())
                    else:
                        gate.update(job, condition)

            told.effect(Updated(self, steps, jobs, launched, gate), run, undo)
            is_made = True
            if gate is not None:
                told.release()
                is_made = gate.is_open()
            if not is_made:
                told.once()  # a program is made of a call that updates
                self.count(0)
                self._leave_out(jobs)
                return
            self._commit(jobs)
            if self.accumulate is not None:
                self._drop_frozen()
            self.count(0)
            self.note_update([job.param for job in jobs])

    def _gate_of(self, told: Recorder, launched: Sequence[Job]) -> Gate | None:
        """What decides on the device whether the update of a compiled function is made; None where nothing does."""
        if self.nonfinite == "ignore" or not launched:
            return None
        if self.nonfinite == "raise":
            forbid_in_recording(
                "looking for NaN", 'nonfinite="raise" reads the gradients before the update; nonfinite="skip" does not'
            )
        if told in self._gated:
            forbid_in_recording(
                "a second update", 'with nonfinite="skip" there is one update in a call, as whether it was made is '
                "known at the end of the call",
            )  # fmt: skip
        self._gated.add(told)
        backend = launched[0].gradient.storage.backend
        if self._gate is None or self._gate.flag.backend is not backend:
            self._gate = Gate(backend)
            told.once()
        return self._gate

    def _plan_update(self, count: int) -> list[Job]:
        """The jobs of an update by the mean of ``count`` samples. New state is allocated, and nothing is changed."""
        jobs = []
        taken = Counter(leaf.grad.storage.number for leaf in self.leaves() if leaf.grad is not None)
        for group in self.param_groups:
            rules: dict[Any, Rule] = {}  # most parameters of a group share one
            for param in group["params"]:
                slot = param._slot
                gradient = seen_gradient(slot) if slot.requires_grad else None
                if gradient is None:
                    continue
                if is_torn(slot):
                    self._refuse_torn(param)
                known = state = self.state.get(param, {})
                if "master" in state and not self.has_current_master(param):
                    state = {name: value for name, value in state.items() if name != "master"}
                slots, missing = {"param": slot}, False
                kept = slot.dtype.computes
                for name in self.names_of(group, param):
                    there: Any = state.get(name)
                    if there is None:
                        if not missing:
                            state, missing = {**state}, True
                        there = 0
                        if name != "step":
                            there = self._begun_state(group, param, name)
                        state[name] = there
                    if name == "step":
                        continue
                    lies = there._slot
                    if lies.dtype is not kept or lies.storage.backend is not slot.storage.backend:
                        state = {**state, name: there.to(kept, device=slot.storage.backend)}
                        lies = state[name]._slot
                    if lies.shape != (shape := self.shape_of(name, param)):
                        raise StateDictError(f"{self._call}.step", f"{name} of shape {shape}", f"it has {lies.shape}")
                    slots[name] = lies
                step = int(state.get("step", 0)) + 1
                numbers = self.numbers(group, step, state)
                key = step, missing, *numbers.items()
                if key not in rules:
                    rules[key] = self.rule_of(group, numbers, step, missing, count)
                storage = gradient.storage
                # A kernel clears only gradients that have their memory to themselves: other tensors may need it.
                clears = (
                    self.accumulate is not None and taken[storage.number] == 1 and gradient.nbytes == storage.nbytes
                )
                is_new = state is not known
                jobs.append(Job(param, gradient, slots, rules[key], state, step, numbers, clears, is_new))
        return jobs

    def _begun_state(self, group: dict[str, Any], param: Tensor, name: str) -> Tensor:
        """A state tensor as it begins, in memory that it had before, if that still fits."""
        dtype, shape = param.dtype.computes, self.shape_of(name, param)
        there = self._memory.get(param, {}).get(name)
        fits = there is not None and (there.dtype, there.shape, there.backend) == (dtype, shape, param.backend)
        if name == "master":
            return there.copy_(param) if there is not None and fits else param.detach().to(dtype)
        value = self.begin(group, name)
        return (
            there.fill_(value) if there is not None and fits else full(shape, value, dtype=dtype, device=param.backend)
        )

    def begin_again(self, param: Tensor) -> None:
        """Let the state of ``param`` begin anew at its next update, in the same memory: for that it is compiled."""
        self._memory[param] = self.state.pop(param)

    def _all_finite(self, gradients: Sequence[Slot]) -> bool:
        """Whether all gradients are finite; reads one number for each backend and dtype, usually one in all."""
        alike: dict[Any, list[Slot]] = {}
        for gradient in gradients:
            alike.setdefault((gradient.storage.backend, gradient.dtype), []).append(gradient)
        totals = [(backend, not_finite(slots)) for (backend, _), slots in alike.items()]
        return all(bool(np.isfinite(backend.read(total)).all()) for backend, total in totals)

    def _leave_out(self, jobs: Iterable[Job]) -> None:
        """Do what ``nonfinite`` says about an update by gradients that are not finite."""
        if self.nonfinite == "raise":
            labels = {id(param): label for _, param, label in self.named()}
            for job in jobs:
                require_finite(f"{self._call}.step", "the gradient", Tensor._wrap(job.gradient), labels[id(job.param)])
        self.skipped += 1
        if self.accumulate is not None:
            self.discard()

    def _carry_out(self, jobs: Sequence[Job]) -> None:
        """Launch and commit all jobs; or none; or, if the device refuses one halfway, those before it."""
        launched = [job for job in jobs if job.gradient.numel]
        launch = self._launcher.prepare(launched, drops=self.accumulate is None)
        with held_back():
            refused, error = launch()
            halfway = 0 < len(refused) < len(launched)
            if halfway or error is None:
                waiting = {id(job) for job in refused}
                self._commit([job for job in jobs if id(job) not in waiting])
                self._rest = [(job, job.gradient.storage.version) for job in refused]
                self.count(self._pending if halfway else 0)
        if error is None:
            return
        if halfway and not isinstance(error, Exception) and hasattr(error, "add_note"):
            error.add_note(
                f"{self._call}.step was carried out in part: {len(refused)} of {len(jobs)} parameters wait. Call "
                "step() or flush() again, which only updates these; or discard() to leave them as they are."
            )
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

    def _commit(self, jobs: Iterable[Job]) -> None:
        """Update the host's state after these jobs, which were launched."""
        for job in jobs:
            self._memory.pop(job.param, None)
            if job.state:
                self.state[job.param] = job.state
                if "step" in job.state:
                    job.state["step"] = job.step
                job.state.update(job.kept_numbers)
            self.note_master(job.param)
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

    def _notice_what_was_added_to(self, jobs: Iterable[Job]) -> None:
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
                stacklevel=5,
            )

    def _require_whole(self, leaf: Slot, label: str) -> None:
        if leaf.requires_grad and is_torn(leaf):
            raise AutogradError(
                f"{self._call}.step",
                "gradients of whole samples",
                f"the gradient of {label} holds a part of one, whose backward failed or was interrupted",
                "Nothing was updated; discard() drops the gradients.",
            )

    def _refuse_torn(self, torn: Tensor) -> None:
        for _, param, label in self.named():
            if param is torn:
                self._require_whole(param._slot, label)

    def state_dict(self) -> dict[str, Any]:
        """State and groups in PyTorch's format, with parameters as numbers. Its tensors are the optimizer's own.

        With ``accumulate``, a begun minibatch is included, which PyTorch does not read: "minibatch" has the number of
        samples ("counted"), the "gradients", and which of them are "torn", because they contain a part of a sample.

        Errors: AutogradError if the device refused a part of the last update.
        """
        self._run("before saving")
        self._require_no_rest("saved")
        numbers = {id(param): number for number, (_, param, _) in enumerate(self.named())}
        gradients = {numbers[id(param)]: gradient for param, gradient, _ in self._begun()}
        torn = [numbers[id(param)] for param, _, torn in self._begun() if torn]
        begun = {"minibatch": {"counted": self._pending, "gradients": gradients, "torn": torn}}
        state = {
            **(begun if self._pending or gradients else {}),
            "state": {numbers[id(param)]: {**state} for param, state in self.state.items()},
            "param_groups": [
                {**group, "params": [numbers[id(param)] for param in group["params"]]} for group in self.param_groups
            ],
        }
        found: dict[str, Any] = self._run("after saving", state)
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over state and options from ``state_dict``; its arrays or tensors are copied.

        A minibatch in it replaces the present one; without one, gradients stay as they are.

        Errors: StateDictError if groups, numbers of parameters, or shapes differ, or if it has a minibatch that does
                not fit ``accumulate``; ArgumentError if samples of another optimizer wait in gradients that its
                minibatch would replace. Then the optimizer is unchanged.
        """
        call = f"{self._call}.load_state_dict"
        state_dict = self._run("before loading", {**state_dict})
        saved_groups = require_groups(call, state_dict)
        sizes = [len(group["params"]) for group in self.param_groups]
        saved_sizes = [len(group["params"]) for group in saved_groups]
        if sizes != saved_sizes:
            raise StateDictError(
                call,
                f"groups with {sizes} parameters",
                f"the state dict has groups with {saved_sizes}",
                "Make the optimizer with the same parameters in the same order.",
            )
        keys = [key for group in saved_groups for key in group["params"]]
        loaded: defaultdict[Tensor, State] = defaultdict(dict)
        for key, (_, param, label) in zip(keys, self.named(), strict=True):
            if key in state_dict["state"]:
                loaded[param] = {
                    name: self.loaded(name, f"{name} of {label}", param, value)
                    for name, value in state_dict["state"][key].items()
                    if value is not None  # PyTorch's momentum buffer before its first use
                }
        groups = [
            {**group, **{name: self._number(name, value) for name, value in saved.items()}, "params": group["params"]}
            for group, saved in zip(self.param_groups, saved_groups, strict=True)
        ]
        minibatch = None
        if "minibatch" in state_dict:
            known = {key: (param, label) for key, (_, param, label) in zip(keys, self.named(), strict=True)}
            minibatch = read_minibatch(call, state_dict["minibatch"], known, self.accumulate)
            self._require_no_others()
        self.state = loaded
        self._launcher.forget()  # it holds memory of the earlier state
        self._rest = []
        self.count(self._pending)
        if minibatch is not None:
            counted, gradients, torn = minibatch
            self.count(0)
            for _, param, _ in self.named():
                param.grad = gradients.get(param)
                if param in torn:
                    param._slot.grad.storage.torn = True  # type: ignore[union-attr]
            self.count(counted)
        self.param_groups = groups
        self._run("after loading")

    def loaded(self, name: str, what: str, param: Tensor, value: Any) -> Any:
        """The state ``name`` of ``param`` from ``value`` in a state dict; ``what`` is its name for an error."""
        if type(self).rule is Optimizer.rule:  # a step of its own may keep anything
            return copy_of(param, value)
        if name == "step":
            return int(value)
        return like(f"{self._call}.load_state_dict", what, param, value, self.shape_of(name, param))

    def _require_no_others(self) -> None:
        """Refuse to replace gradients in which samples of another optimizer wait."""
        note_minibatch(self, False)
        try:
            require_no_minibatch(f"{self._call}.load_state_dict", self.leaves())
        finally:
            note_minibatch(self, self._waits)
