"""What a call does, kept: its steps over stand-ins for the memory that it made, and what is needed to undo it."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tinyedge import tape
from tinyedge.dtypes import bool_
from tinyedge.errors import CaptureError
from tinyedge.op import Layout
from tinyedge.ops.random import Generator
from tinyedge.shapes import Shape
from tinyedge.tape import Recorder, Slot, Step, Storage, Tape

PACKAGE = str(Path(__file__).parent)


def _caller() -> str:
    """The line outside this package from which the current call came."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return "an unknown line" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


class _Made(NamedTuple):
    """A storage that a recorded call made and wrote."""

    storage: weakref.ref[Storage]
    nbytes: int
    op: str
    shape: Shape


class Recording(Recorder):
    """The steps of one call, and the leaves that got gradients; what is needed to make the call undone.

    Steps are kept over stand-ins for the storages made inside, so that these are let go as in any call. Unless it
    ``runs``, the call is rehearsed: it allocates, launches and changes nothing.
    """

    def __init__(self, name: str, runs: bool = True) -> None:
        self.name = name
        self.runs = runs
        self.first_number = tape.next_number()  # storages made inside have later ones
        self.steps: list[Step] = []
        self.first_backward: int | None = None  # the number of the step with which the first walk back begins
        self.leaves: dict[int, tuple[Slot, bool]] = {}  # whether each had a gradient before
        self.made: dict[int, _Made] = {}
        self.checks: list[tuple[int, Callable[[Storage], None]]] = []  # of storages, by number
        self._stand_ins: dict[int, Storage] = {}
        self._constants: set[int] = set()  # storages that the call filled from the host
        self._before: dict[int, tuple[Storage, int, Any]] = {}  # of what was changed outside: its version and bytes
        self._generators: dict[int, tuple[Generator, tuple[int, int]]] = {}  # those drawn from, and their states before

    def upload(self, storage: Storage) -> None:
        self._constants.add(storage.number)

    def before(self, step: Step) -> None:
        for slot in step.written():
            if slot.storage.number in self._constants:
                self.forbid("a change in place", "the tensor's values came from the host, and would not come again")
            self._keep(slot.storage)

    def step(self, step: Step) -> None:
        for slot in step.read():
            if self._is_inside(slot) and slot.storage.number not in self.made:
                self._constants.add(slot.storage.number)  # no step filled it
        for slot in step.written():
            if self._is_inside(slot):
                made = _Made(weakref.ref(slot.storage), slot.storage.nbytes, step.op.name, slot.shape)
                self.made.setdefault(slot.storage.number, made)
        slots = step.slots.items()
        self.steps.append(step.over({name: self._stand_in(s) if self._is_inside(s) else s for name, s in slots}))

    def backward(self, steps: Tape) -> None:
        if any(step.number < self.first_number for step in steps):
            self.forbid("backward()", "it walks back through steps from before the call, which would not run again")
        if self.first_backward is None:
            self.first_backward = len(self.steps)

    def leaf_gradient(self, leaf: Slot) -> None:
        self.leaves.setdefault(id(leaf), (leaf, leaf.grad is not None))
        if leaf.grad is not None:
            self._keep(leaf.grad.storage)

    def checked(self, storage: Storage, check: Callable[[Storage], None]) -> None:
        self.checks.append((storage.number, check))

    def draw(self, generator: Generator) -> None:
        self._generators.setdefault(id(generator), (generator, generator._state()))

    def undo(self) -> None:
        """Leave everything as it was before the call."""
        for storage, version, values in self._before.values():
            if self.runs:
                storage.backend.write(storage, values)
            storage.version = version
        for leaf, had_gradient in self.leaves.values():
            if not had_gradient:
                leaf.keep_gradient(None)
        for generator, state in self._generators.values():
            generator.set_state(state)

    def _is_inside(self, slot: Any) -> bool:
        """Whether a replay makes it anew: it was made inside, and not from values of the host."""
        return (
            isinstance(slot, Slot)
            and slot.storage.number > self.first_number
            and slot.storage.number not in self._constants
        )

    def _stand_in(self, slot: Slot) -> Slot:
        number = slot.storage.number
        if number not in self._stand_ins:
            self._stand_ins[number] = Storage.over(slot.storage.backend, None)
            self._stand_ins[number].number = number
        return Slot(self._stand_ins[number], slot.dtype, slot.layout())

    def _keep(self, storage: Storage) -> None:
        """Copy to the host what is about to be changed outside, once: on the device there may be no room."""
        if storage.number < self.first_number and storage.number not in self._before:
            self._before[storage.number] = storage, storage.version, bytes_of(storage) if self.runs else None

    def forbid(self, call: str, reason: str) -> None:
        raise CaptureError(
            f"te.compile({self.name})",
            "whatever runs inside must be repeatable by a replay",
            f"{call} at {_caller()} is not: {reason}",
            "Move it out of the compiled function, or pass its result as an argument.",
        )


def bytes_of(storage: Storage) -> Any:
    """All that a storage holds, on the host."""
    return storage.backend.read(Slot(storage, bool_, Layout((storage.nbytes,), (1,), 0)))
