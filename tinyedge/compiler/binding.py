"""What a program is bound to: what moves from call to call lies where it lies now, and the launches are told of it.

In: a recorded call's memory that moves (arguments, results, gradients, seeds), by the numbers of its storages. Out: the
Places to which the launches are bound; at each call only the arguments of what moved are bound again.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from tinyedge.backends import Backend
from tinyedge.backends.base import Launch, Lowered
from tinyedge.backends.binding import Origin, Places
from tinyedge.backends.layout import ProgramLayout
from tinyedge.compiler.arenas import Arena
from tinyedge.compiler.leaves import Leaf
from tinyedge.errors import CaptureError
from tinyedge.ir.kernel import BufferId
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot, Storage
from tinyedge.tensor import Tensor


class Apart:
    """Refuses calls in which memory that a part writes is shared in other ways than in the recording.

    The dependencies of a persistent kernel were computed for the memory of the recording; kernels without a dependency
    may run at the same time.
    """

    def __init__(self, name: str, steps: Iterable[Step]) -> None:
        self.name = name
        steps = list(steps)
        storages = [slot.storage for step in steps for slot in step.slots.values() if isinstance(slot, Slot)]
        self._owners = {storage.buffer: storage.number for storage in storages if storage.buffer is not None}
        self._touched = {storage.number for storage in storages}
        self._written = {slot.storage.number for step in steps for slot in step.written()}
        self._moved: list[Storage] = []  # storages that lie elsewhere than at the last call

    def move(self, storage: Storage) -> None:
        """Must be called before ``storage`` is bound to another buffer."""
        if storage.number in self._touched:
            if self._owners.get(storage.buffer) == storage.number:
                del self._owners[storage.buffer]
            self._moved.append(storage)

    def check(self) -> None:
        """Raise CaptureError if buffers that the part writes have become the same memory."""
        for storage in self._moved:
            owner = self._owners.setdefault(storage.buffer, storage.number)
            if owner != storage.number and not self._written.isdisjoint((owner, storage.number)):
                raise CaptureError(
                    f"te.compile({self.name})",
                    "memory that a call writes must not be shared in other ways than at its first call",
                    "an argument or a gradient now shares memory with another one, or with a parameter",
                    "Pass a copy (clone), or set TINYEDGE_PERSISTENT=0.",
                )
        self._moved.clear()


class Part:
    """Launches that are enqueued together: of a call, or if it is differentiable of its forward or backward."""

    def __init__(self, lowered: list[Lowered], apart: Apart | None) -> None:
        self.lowered = lowered
        self.apart = apart
        self.launches: list[Launch] = []
        self.is_bound = False
        self.stale: set[Origin] = set()  # what changed since the launches were bound
        self.has_run = False
        self.takers: dict[Origin, list[Lowered]] = defaultdict(list)  # the launches that depend on each
        for each in lowered:
            for origin in each.origins():
                self.takers[origin].append(each)

    def bind(self, places: Places) -> None:
        if not self.is_bound:
            for lowered in self.lowered:
                lowered.bind(places)
            self.launches = self.launches or [lowered.launcher() for lowered in self.lowered]
            self.is_bound = True
        else:
            for origin in self.stale:
                for lowered in self.takers.get(origin, ()):
                    lowered.rebind(origin, places)
        self.stale.clear()


class Binding:
    """What moves, and the parts that are bound to it.

    A change is noted before it is made: an interrupt between the two then costs a launch that is bound once more, and
    not one that is bound to what was there before.

    ``storages`` stand for what may lie elsewhere at each call, and for temporaries, by the number of the recorded
    storage. ``begins``: for arguments, gradients and seeds, by the same numbers, the offset of their first element.
    """

    def __init__(self, name: str, backend: Backend, movable: Iterable[int], begins: Mapping[int, int]) -> None:
        self.name, self.backend = name, backend
        self.storages = {number: Storage.over(backend, None) for number in sorted(movable)}
        self.begins = begins
        self.offsets = {**begins}  # at the last call
        self.parts: list[Part] = []
        self._arena: weakref.ref[Arena] | None = None  # in which the temporaries lie
        self._apart: list[Apart] = []  # of each part, if there are persistent kernels

    def lay_out(
        self,
        temporary: Collection[BufferId],
        where: Mapping[BufferId, tuple[int, int]],
        moving: Iterable[int],
        leaves: Iterable[Leaf],
    ) -> None:
        """Begin the layout by which launches name their memory. ``moving``: what lies outside, of what moves."""
        firsts = [leaf.first_write for leaf in leaves if leaf.stored_first]
        self.layout = ProgramLayout(
            temporary, where, {self.storages[number].number for number in moving},
            {self.storages[number].number: offset for number, offset in self.begins.items()},
            {(first[0].number, first[1]) for first in firsts if first is not None},
        )  # fmt: skip

    def keep_apart(self, *steps: Iterable[Step]) -> None:
        """Refuse calls in which what the steps of a part write shares memory in other ways than in the recording."""
        self._apart = [Apart(self.name, part) for part in steps]

    @property
    def keeps_apart(self) -> bool:
        return bool(self._apart)

    def begin_parts(self, *lowered: list[Lowered]) -> None:
        self.parts = [Part(*each) for each in zip_longest(lowered, self._apart)]

    def moved(self, slot: Slot) -> Slot:
        """The same view, without history; on a storage of the program if it is movable."""
        return Slot(self.storages.get(slot.storage.number, slot.storage), slot.dtype, slot.layout())

    def shift(self, number: int) -> int:
        """How many elements the storage's place has moved in its memory since the recording."""
        return self.offsets.get(number, 0) - self.begins.get(number, 0)

    def note(self, origin: Origin) -> None:
        """Note that something changed on which arguments of launches depend."""
        for part in self.parts:
            part.stale.add(origin)

    @property
    def arena(self) -> Arena | None:
        """The arena in which the temporaries lie."""
        return None if self._arena is None else self._arena()

    def move_in(self, arena: Arena) -> None:
        """Let every temporary lie in ``arena``."""
        if self.arena is not arena:
            self._let_arena_be([chunk.buffer for chunk in arena.chunks])
            self._arena = weakref.ref(arena)

    def leave(self, arena: Arena) -> None:
        if self.arena is arena:
            self._arena = None
            self._let_arena_be([])

    def _let_arena_be(self, chunks: Sequence[Any]) -> None:
        """Let the arena be these buffers, or none, if it is let go."""
        places = self.layout.places
        count = max(len(chunks), len(places.chunks))
        for chunk in range(count):
            self.note(("arena", chunk))
        places.chunks = list(chunks)
        if not chunks:
            for part in self.parts:
                for lowered in part.lowered:
                    lowered.release()

    def renumber(self, step: Step, new: Mapping[str, float]) -> None:
        """Set the scalars of a step."""
        step.scalars = new
        numbers = self.layout.places.scalars
        for name, index in self.layout.scalars_of.get(step.number, {}).items():
            if numbers[index] != new[name]:
                self.note(("scalar", index))
                numbers[index] = new[name]

    def point(self, number: int, buffer: Any) -> None:
        """Bind the storage ``number`` to ``buffer`` from now on."""
        storage = self.storages[number]
        if storage.buffer is not buffer:
            for apart in self._apart:
                apart.move(storage)
            index = self.layout.index_of(storage.number)
            if index is not None:
                self.note(("outside", index))
            storage.buffer = buffer

    def point_at(self, number: int, slot: Slot) -> None:
        """Bind the storage ``number`` to that of ``slot``, whose offset may differ from the one before."""
        self.point(number, slot.storage.buffer)
        if slot.offset != self.offsets[number]:  # all its views shift too
            index = self.layout.index_of(self.storages[number].number)
            if index is not None:
                self.note(("outside", index))
                self.layout.places.outside[index].offset = slot.offset
            self.offsets[number] = slot.offset

    def follow(self, positions: Mapping[int, int], tensors: Sequence[Tensor]) -> None:
        """Bind storages to those of tensors, whose positions are given by the storages' numbers."""
        storages, offsets = self.storages, self.offsets
        for number, position in positions.items():
            slot = tensors[position]._slot
            if slot.storage.buffer is not storages[number].buffer or slot.offset != offsets[number]:
                self.point_at(number, slot)

    def is_at(self, number: int, slot: Slot) -> bool:
        """Whether the storage ``number`` is bound to that of ``slot``, at its offset."""
        return slot.storage.buffer is self.storages[number].buffer and slot.offset == self.offsets[number]

    def let_add(self, leaf: Leaf, adds: bool) -> None:
        """Let the first launch that writes the gradient of ``leaf`` add to it, or begin it."""
        if not leaf.stored_first or leaf.first_write is None:
            return
        step, name = leaf.first_write
        if adds != (name in step.accumulate):
            index = self.layout.index_of(step.slots[name].storage.number)
            if index is not None:
                self.note(("accumulates", index))
                (self.layout.adds.add if adds else self.layout.adds.discard)(index)
            step.accumulate = step.accumulate ^ {name}

    def launch(self, part: Part) -> None:
        """Bind the launches of ``part`` to all that has moved, and enqueue them.

        Errors: CaptureError if buffers that a call writes have become the same memory.
        """
        if part.apart is not None:
            part.apart.check()
        if part.stale or not part.is_bound:
            try:
                part.bind(self.layout.places)
            except BaseException as error:
                error.__dict__["launched"] = 0 if isinstance(error, Exception) else -1  # it interrupts no launch
                raise
        self.backend.launch(part.launches)
