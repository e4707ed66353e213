"""The base of the optimizers: parameter groups, state, minibatches of accumulated samples, and the check for NaN."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ContextDecorator
from typing import Any, Literal, NamedTuple

import numpy as np

from tinyedge import config
from tinyedge.errors import AnomalyError, ArgumentError, StateDictError
from tinyedge.ops.update import Update, update, update_step
from tinyedge.program import Program, prepared
from tinyedge.recording import Recording
from tinyedge.tape import Slot, Step, forbid_in_recording, new_slot
from tinyedge.tensor import Tensor, enable_grad, full, no_grad, tensor

Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
State = dict[str, Any]


class Rule(NamedTuple):
    """How one parameter is updated: the op, its numbers, and its attributes."""

    op: type[Update]
    scalars: dict[str, float]
    attrs: Mapping[str, Any] = {}


class _Job(NamedTuple):
    """One parameter's update, ready to run."""

    param: Tensor
    gradient: Slot
    slots: dict[str, Slot]  # the others: of the parameter, and of its state
    rule: Rule
    state: State
    step: int

    def kind(self) -> tuple[Any, ...]:
        """What a program of the update depends on: the memory that stays, and how the gradient lies."""
        return self.rule.op, self.rule.attrs, self.slots, self.gradient.key

    def into(self, targets: dict[str, Slot]) -> Step:
        """The step that puts new values into ``targets``."""
        inputs = {**self.slots, "grad": self.gradient}
        return update_step(self.rule.op, inputs, targets, self.rule.scalars, self.rule.attrs)


class _Checks(threading.local):
    anomaly = False


_checks = _Checks()


class detect_anomaly(ContextDecorator):
    """Context manager and decorator: optimizers refuse an update that NaN or infinity has reached.

    While it is on, each update is first computed aside and read back, so it is slow. If a gradient or an updated
    parameter holds NaN or infinity, nothing is updated.

    Errors: AnomalyError from the optimizer's ``step`` or ``flush``, with the parameter's name if the optimizer was
            given ``named_parameters()``.
    """

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_checks.anomaly)
        _checks.anomaly = True

    def __exit__(self, *exc: object) -> Literal[False]:
        _checks.anomaly = self._before.pop()
        return False


class Optimizer:
    """Base of the optimizers. A new one writes ``state_names`` and ``rule``.

    ``params`` are tensors, ``named_parameters()``, or groups: dicts with ``params`` and options of their own, as in
    PyTorch. With ``accumulate=N``, ``step()`` counts samples: backward adds each one's gradient to those before, and
    every N-th call updates by their mean and clears them, on the device. ``flush()`` ends a minibatch that stayed
    shorter. With ``accumulate=1`` each ``step()`` updates and clears nothing, as in PyTorch.

    Errors: ArgumentError if there is no parameter, one appears twice, or an option is out of its range.
    """

    def __init__(self, params: Parameters, defaults: dict[str, Any], accumulate: int = 1) -> None:
        if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
            raise ArgumentError(self._call, "accumulate must be an int of at least 1", f"got {accumulate!r}")
        self.defaults = defaults
        self.accumulate = accumulate
        self.pending = 0  # samples counted since the last update
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, State] = {}
        self._kind: list[Any] = []
        self._program: Program | None = None
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
        """The state of one parameter: tensors like it, zero at first; ``step``, if named, counts its updates."""
        raise NotImplementedError

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        """How to make update number ``step`` of a parameter in ``group``; ``first`` if its state is new.

        It is asked once for all parameters of the group for which the three are the same.
        """
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kind": [], "_program": None}  # a copy has memory of its own

    @property
    def program(self) -> Program | None:
        """The update as it is replayed; None before it came twice with the same parameters and state.

        So it is known what it costs: ``optimizer.program.explain()``.
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
        """Add parameters with options of their own; what the group leaves out is as for the optimizer."""
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
        """Count one sample; update if it completes the minibatch. Returns what ``closure``, if given, returned."""
        forbid_in_recording("optimizer.step()", "it counts samples, and its numbers change from step to step")
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if self.pending + 1 < self.accumulate:
            self.pending += 1
        else:
            self._update(self.pending + 1)
        return loss

    def flush(self) -> None:
        """Update by the mean of the samples counted since the last update; nothing if there are none."""
        if self.pending:
            self._update(self.pending)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or set them to zero.

        Errors: ArgumentError in the middle of a minibatch of accumulated samples: it would lose them.
        """
        if self.pending:
            raise ArgumentError(
                "zero_grad",
                "it must not drop samples that wait for their update",
                f"{self.pending} of {self.accumulate} were accumulated",
                "Leave it out (each update clears the gradients), or call flush() or discard() first.",
            )
        self.discard(set_to_none)

    def discard(self, set_to_none: bool = True) -> None:
        """Drop the gradients and the count of the samples since the last update."""
        self.pending = 0
        for _, param, _ in self._params():
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad.zero_()
        if self._program is not None:
            self._program.let_go()

    def _params(self) -> Iterator[tuple[dict[str, Any], Tensor, str]]:
        """Each group, parameter, and what to call that in an error."""
        number = 0
        for group in self.param_groups:
            for position, param in enumerate(group["params"]):
                name = group["param_names"][position] if "param_names" in group else f"number {number}"
                yield group, param, f"parameter {name} of shape {param.shape}"
                number += 1

    def _update(self, count: int) -> None:
        """Update every parameter that has a gradient, by the mean of ``count`` samples."""
        with no_grad():
            jobs = self._jobs(count)
            if _checks.anomaly:
                labels = {id(param): label for _, param, label in self._params()}
                for job in jobs:
                    self._check(job, labels[id(job.param)])
            self._run([job for job in jobs if job.gradient.numel])
            for job in jobs:
                if job.state:
                    self.state[job.param] = job.state
                if "step" in job.state:
                    job.state["step"] = job.step
        self.pending = 0

    def _jobs(self, count: int) -> list[_Job]:
        jobs = []
        for group in self.param_groups:
            names = self.state_names(group)
            rules: dict[tuple[int, bool], Rule] = {}  # most parameters of a group share one
            for param in group["params"]:
                slot = param._slot
                if slot.grad is None:
                    continue
                state = self.state.get(param, {})
                missing = [name for name in names if name not in state]
                if missing:
                    state = {**state}
                for name in missing:
                    state[name] = 0 if name == "step" else full(slot.shape, 0.0, dtype=slot.dtype, device=param.backend)
                step = int(state.get("step", 0)) + 1
                key = step, bool(missing)
                if key not in rules:
                    rules[key] = self.rule(group, *key)
                    rules[key].scalars["scale"] = (-1.0 if group["maximize"] else 1.0) / count
                slots = {"param": slot}
                for name in names:
                    if name != "step":
                        slots[name] = state[name]._slot
                jobs.append(_Job(param, slot.grad, slots, rules[key], state, step))
        return jobs

    def _run(self, jobs: Sequence[_Job]) -> None:
        """Update by each job; by one program for all if only gradients moved since the last time.

        Making a program takes longer than a few updates of one parameter after the other.
        """
        kind = [self.accumulate > 1, *[job.kind() for job in jobs]]
        again = kind == self._kind
        if not again:
            self._kind, self._program = kind, None
        # Gradients are the program's arguments, and those share no memory with what does not move.
        storages = [slot.storage for job in jobs for slot in (job.gradient, *job.slots.values())]
        apart = len(set(storages)) == len(storages) and len({storage.backend for storage in storages}) == 1
        if not (again and apart and config.compile_mode() == "1"):
            for job in jobs:
                update(self._step(job))
            return
        gradients = [Tensor._wrap(job.gradient) for job in jobs]
        if self._program is None:
            recording = Recording(f"{self._call}.step", runs=False)
            for job in jobs:
                recording.step(self._step(job))
            self._program = prepared(Program(recording, gradients, None), lambda: Program(recording, gradients, None))
        self._program.set_scalars([job.rule.scalars for job in jobs])
        self._program(gradients)
        if self.accumulate == 1:  # the gradients are dropped next, as a rule, and their memory is wanted
            self._program.let_go()

    def _step(self, job: _Job) -> Step:
        return job.into({**job.slots, "grad": job.gradient} if self.accumulate > 1 else job.slots)

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
        """State and groups in PyTorch's format, with parameters as numbers.

        A minibatch that was not updated yet is no part of it: ``flush()`` first.
        """
        numbers = {id(param): number for number, (_, param, _) in enumerate(self._params())}
        return {
            "state": {numbers[id(param)]: {**state} for param, state in self.state.items()},
            "param_groups": [
                {**group, "params": [numbers[id(param)] for param in group["params"]]} for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state and options that ``state_dict`` holds; its arrays or tensors are copied.

        Errors: StateDictError if groups, numbers of parameters, or shapes differ; the optimizer is left as it was.
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
        self.state = loaded
        self._kind, self._program = [], None  # they hold what was there before
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
                if tuple(value.shape) != param.shape:
                    raise StateDictError(
                        f"{self._call}.load_state_dict",
                        f"{name} of {label}",
                        f"the state dict has {tuple(value.shape)}",
                    )
                state[name] = tensor(value, dtype=param.dtype, device=param.backend)
        return state
