"""Held steps: a call that is recorded holds its steps back, until it is known whether a program can do them all.

In: the steps of a call, and the storages that it makes, which get no memory yet. Out: nothing, if a program takes their
place, so that no kernel of an eager call is built; else memory and launches, in order, as in an eager call.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot, Storage, next_number


class Held:
    """Steps in order, which refer to placeholders for the storages that the call made.

    So a storage ends when nobody else refers to it any more, as in an eager call; what later steps read of it lives on
    in the placeholder. ``error`` is that of the launch which was refused: nothing that follows it may run.
    """

    def __init__(self) -> None:
        self.first_number = next_number()  # storages of the call have later numbers
        self.error: BaseException | None = None
        self._steps: deque[Step] = deque()
        self._filled: set[int] = set()  # storages that a step writes
        self._reads_unfilled = False
        self._made: dict[int, tuple[weakref.ref[Storage], int]] = {}  # those without memory, and their bytes
        self._placeholders: weakref.WeakValueDictionary[int, Storage] = weakref.WeakValueDictionary()

    def postpone(self, storage: Storage) -> None:
        """Give ``storage`` its memory when the steps are launched."""
        self._made[storage.number] = weakref.ref(storage), storage.nbytes

    def add(self, step: Step) -> None:
        if self.error is not None:
            raise self.error
        for slot in step.read():
            if isinstance(slot, Slot) and slot.storage.number in self._made:
                self._reads_unfilled |= slot.storage.number not in self._filled
        self._filled.update(slot.storage.number for slot in step.written())
        self._steps.append(step.over({name: self._apart(slot) for name, slot in step.slots.items()}))

    @property
    def fills_all(self) -> bool:
        """Whether the steps write all memory that they or others read. What ``te.empty`` gives no program makes."""
        left = [refer for number, (refer, _) in self._made.items() if number not in self._filled]
        return not self._reads_unfilled and all(refer() is None for refer in left)

    def _apart(self, slot: Any) -> Any:
        """The same view, which keeps neither history nor a storage of the call alive."""
        if not isinstance(slot, Slot):
            return slot
        storage = slot.storage
        if storage.number < self.first_number:
            return slot.alias()
        found = self._placeholders.get(storage.number)
        if found is None:
            found = self._placeholders[storage.number] = Storage.over(storage.backend, storage.buffer)
            found.number = storage.number
        return Slot(found, slot.dtype, slot.layout())

    def launch(self) -> None:
        """Allocate and launch everything, in order. Memory is free again where an eager call would free it."""
        if self.error is not None:
            raise self.error
        try:
            while self._steps:
                step = self._steps[0]
                for slot in step.slots.values():
                    if isinstance(slot, Slot):
                        self.allocate(slot.storage)
                backend = step.backend
                backend.launch(backend.prepare(step))
                self._steps.popleft()
                del step
            for refer, _ in [*self._made.values()]:
                if (storage := refer()) is not None:  # no step has written it yet
                    self.allocate(storage)
        except BaseException as error:
            self.error = error
            raise

    def allocate(self, storage: Storage) -> None:
        """Give ``storage``, or what it is a placeholder for, its memory, if it has none yet."""
        number = storage.number
        if number not in self._made:
            return
        refer, nbytes = self._made[number]
        buffer = storage.backend.reserve(nbytes)
        storage.backend.memory.add(nbytes)
        del self._made[number]
        owner, placeholder = refer(), self._placeholders.get(number)
        if owner is not None:
            owner.buffer = buffer
        if placeholder is not None:
            placeholder.buffer = buffer
            placeholder.nbytes = 0 if owner is not None else nbytes  # one of the two returns it
