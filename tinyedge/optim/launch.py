"""How an update runs: as one step for each parameter the first time, then as a Program that is replayed.

In: Jobs, a parameter's update each. Out: launches; and, if the device refuses one, the jobs that it left undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tinyedge import config
from tinyedge.compiler.program import Program, prepared
from tinyedge.compiler.record import Recording, bytes_of
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot
from tinyedge.ops.update import Update, note_written, update_step
from tinyedge.tensor import Tensor

State = dict[str, Any]
Launch = Callable[[], tuple[Sequence["Job"], BaseException | None]]


class Rule(NamedTuple):
    """How one parameter is updated: the op, its scalars, and its attributes."""

    op: type[Update]
    scalars: dict[str, float]
    attrs: Mapping[str, Any] = {}


def kept_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those that are state, and not for the rule alone."""
    return {name: value for name, value in numbers.items() if name[0] != "_"}


class Job(NamedTuple):
    """One parameter's update, ready to run."""

    param: Tensor
    gradient: Slot
    slots: dict[str, Slot]  # slots of the parameter and of its state
    rule: Rule
    state: State  # the state after the update: not the parameter's yet if it is new
    step: int
    numbers: dict[str, float]  # other state that is numbers, after the update
    clears: bool  # whether the kernel also fills the gradient with zeros
    is_new: bool  # whether its state was made for this update, and is dropped if that fails

    @property
    def kept_numbers(self) -> dict[str, float]:
        """Those of ``numbers`` that are state."""
        return kept_numbers(self.numbers)

    def kind(self) -> tuple[Any, ...]:
        """What a program of the update depends on: the memory that stays, and the gradient's layout."""
        return self.rule.op, self.rule.attrs, self.slots, self.gradient.key, self.clears

    def update(self) -> Step:
        """The step that updates in place."""
        return self.into({**self.slots, "grad": self.gradient} if self.clears else self.slots)

    def into(self, targets: dict[str, Slot]) -> Step:
        """The step that writes the new values into ``targets``."""
        inputs = {**self.slots, "grad": self.gradient}
        if "master" in inputs:  # it is what is updated, and rounded into the parameter
            targets = {**targets, "rounded": targets["param"]}
            inputs["param"] = inputs.pop("master")
            if (master := targets.pop("master", None)) is None:
                del targets["param"]
            else:
                targets["param"] = master
        return update_step(self.rule.op, inputs, targets, self.rule.scalars, self.rule.attrs)


class Launcher:
    """What an optimizer knows of the updates that it made: their program, and what the device carried out before."""

    def __init__(self, call: str) -> None:
        self.call = call
        self.program: Program | None = None
        self._kind: list[Any] = []
        self._proven: set[Any] = set()  # signatures of updates that the device carried out

    def forget(self) -> None:
        """Forget the program, which holds the memory that it updates."""
        self._kind, self.program = [], None

    def let_go(self) -> None:
        """Let the program hold no gradients."""
        if self.program is not None:
            self.program.let_go()

    def prepare(self, jobs: Sequence[Job], drops: bool) -> Launch:
        """Do all that can be done before the first launch; return a function that launches and returns refused jobs.

        ``drops``: the gradients are usually dropped after the update, and their memory is wanted. It is one program for
        all jobs if only gradients moved since the last update. Compiling that takes longer than a few updates of one
        parameter after the other.
        """
        kind = [job.kind() for job in jobs]
        again = kind == self._kind
        if not again:
            self.program = None
        # Gradients are the program's arguments, and those do not share memory with what stays in place.
        storages = [slot.storage for job in jobs for slot in (job.gradient, *job.slots.values())]
        apart = len(set(storages)) == len(storages) and len({storage.backend for storage in storages}) == 1
        if again and apart and config.compile_mode() == "1":
            return self._replay(jobs, drops)
        steps = [job.update() for job in jobs]
        launches = [step.backend.prepare(step) for step in steps]
        signatures = set() if again else {step.signature() for step in steps}

        def launch() -> tuple[Sequence[Job], BaseException | None]:
            kept = [] if signatures <= self._proven else _kept(jobs)
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

    def _replay(self, jobs: Sequence[Job], drops: bool) -> Launch:
        gradients = [Tensor._wrap(job.gradient) for job in jobs]
        if self.program is None:
            recording = Recording(self.call, runs=False)
            for job in jobs:
                recording.step(job.update())

            def make() -> Program:
                return Program(recording, gradients, None)

            self.program = prepared(make(), make)
        program = self.program
        program.prepare()
        program.set_scalars([job.rule.scalars for job in jobs])

        def launch() -> tuple[Sequence[Job], BaseException | None]:
            try:
                program(gradients)
            except BaseException as error:
                done = program.steps_done(error)
                for number in done:
                    note_written(jobs[number].update())
                return [job for number, job in enumerate(jobs) if number not in done], error
            if drops:
                program.let_go()
            return (), None

        return launch


def _kept(jobs: Iterable[Job]) -> list[tuple[Any, int, Any]]:
    """Copies on the host of what the jobs change: each storage, its version, and its bytes."""
    changed = []
    for job in jobs:
        changed += [job.slots["param"], job.gradient]
        if not job.is_new:
            changed += job.slots.values()
    storages = dict.fromkeys(slot.storage for slot in changed)
    return [(storage, storage.version, bytes_of(storage)) for storage in storages]
