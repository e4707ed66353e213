"""Layout: by which indices launches name the memory that they touch, and the numbers that they take.

In: slots and numbers of steps. Out: ArgumentSpecs, and the Places to which they refer. StepLayout is that of one eager
call, ProgramLayout that of a program, whose temporaries lie in its arena.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from tinyedge.backends.binding import Places, indexable
from tinyedge.ir.kernel import BufferId
from tinyedge.ir.program import ArgumentSpec, OutsideSpec, PlaceSpec, ScalarSpec
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot


class ArgumentLayout(Protocol):
    """Names the slots and numbers of a step as arguments of launches."""

    def buffer(self, step: Step, name: str) -> ArgumentSpec: ...
    def offset(self, step: Step, name: str, ctype: str) -> ArgumentSpec: ...
    def accumulates(self, step: Step, name: str, ctype: str) -> ArgumentSpec: ...
    def value(self, step: Step, name: str, ctype: str) -> ArgumentSpec: ...
    def scalar(self, step: Step, name: str, ctype: str) -> ArgumentSpec: ...
    def scratch(self, step: Step, name: str) -> tuple[int, int]: ...


class StepLayout:
    """The layout of all eager calls of one signature: each slot is outside, each scratch buffer a chunk."""

    def __init__(self, scratch: Iterable[str]) -> None:
        self._chunks = {name: chunk for chunk, name in enumerate(scratch)}
        self._outside: dict[str, int] = {}
        self._scalars: dict[tuple[bool, str], int] = {}  # whether it is an input of the op, and its name

    def buffer(self, step: Step, name: str) -> ArgumentSpec:
        return ArgumentSpec("outside", index=self._index(name))

    def offset(self, step: Step, name: str, ctype: str) -> ArgumentSpec:
        return ArgumentSpec("offset", ctype, self._index(name), itemsize=step.slots[name].dtype.stride)

    def accumulates(self, step: Step, name: str, ctype: str) -> ArgumentSpec:
        return ArgumentSpec("accumulates", ctype, self._index(name))

    def value(self, step: Step, name: str, ctype: str) -> ArgumentSpec:
        return ArgumentSpec("scalar", ctype, self._scalars.setdefault((True, name), len(self._scalars)))

    def scalar(self, step: Step, name: str, ctype: str) -> ArgumentSpec:
        return ArgumentSpec("scalar", ctype, self._scalars.setdefault((False, name), len(self._scalars)))

    def scratch(self, step: Step, name: str) -> tuple[int, int]:
        return self._chunks[name], 0

    def _index(self, name: str) -> int:
        return self._outside.setdefault(name, len(self._outside))

    def places(self, step: Step, chunks: list[Any]) -> Places:
        """Where the memory of a call lies. ``chunks``: its scratch buffers, in the order of their names."""
        slots, added, numbers = step.slots, step.accumulate, self._scalars
        return Places(
            [*map(slots.__getitem__, self._outside)],
            chunks,
            [slots[name].number if given else step.scalars[name] for given, name in numbers] if numbers else [],
            {index for name, index in self._outside.items() if name in added} if added else (),
        )


class ProgramLayout:
    """The layout of a program: what it meets outside of the arena gets the next index.

    ``temporary``: the storages that are no memory outside. ``where``: chunk and byte in the arena of each of them that
    is not in registers alone, and of scratch buffers. ``moving``: the storages whose place may be another one at each
    call. ``begins``: for these, where their first element lies in the recording, in elements. ``first_writes``: the
    steps, by number, and names that begin the gradients of leaves, or add to them.
    """

    def __init__(
        self,
        temporary: Collection[BufferId],
        where: Mapping[BufferId, tuple[int, int]],
        moving: Collection[int],
        begins: Mapping[int, int],
        first_writes: Collection[tuple[int, str]],
    ) -> None:
        self.temporary = temporary
        self.where = where
        self.is_split = any(chunk for chunk, _ in where.values())  # the arena has several chunks
        self.first_writes = first_writes
        self._moving = moving
        self._begins = begins
        self._indices: dict[int, int] = {}
        self._nbytes: list[int] = []
        self._buffers: list[int] = []  # for each outside memory, the first one in the same buffer
        self._fixed: dict[Any, int] = {}  # of buffers that stay, the first memory in each
        self._scalars: list[tuple[Step, str]] = []
        self.scalars_of: dict[int, dict[str, int]] = defaultdict(dict)  # by step: its scalars, and their indices
        self.adds: set[int] = set()  # the memories outside to whose contents a call adds
        self.places = Places([], [], [], self.adds)

    def index_of(self, number: int) -> int | None:
        """The index of a storage outside; None if no launch touches it."""
        return self._indices.get(number)

    def outside(self, slot: Slot) -> int:
        """The index of the storage in which ``slot`` lies."""
        number = slot.storage.number
        begin = self._begins.get(number, 0)
        index = self._indices.get(number)
        if index is None:
            index = self._indices[number] = len(self._nbytes)
            self.places.outside.append(slot.alias(slot.layout()._replace(shape=(), strides=(), offset=begin)))
            self._nbytes.append(slot.storage.nbytes)
            # What moves may lie anywhere; what stays may have one buffer argument together with others.
            buffer = None if number in self._moving else slot.storage.buffer
            self._buffers.append(index if buffer is None else self._fixed.setdefault(id(buffer.handle), index))
        self._nbytes[index] = max(self._nbytes[index], slot.extent_bytes - begin * slot.dtype.stride)
        return index

    def moves(self, slot: Slot) -> bool:
        """Whether it may lie elsewhere at another call."""
        return slot.storage.number in self._moving

    def relative(self, slot: Slot) -> int:
        """How many elements ``slot`` lies behind the first element of its storage's place."""
        return slot.offset - self._begins.get(slot.storage.number, 0)

    def now(self, slot: Slot) -> Slot:
        """``slot`` where it lies at present."""
        index = self.index_of(slot.storage.number)
        if index is None or not self.moves(slot):
            return slot
        return slot.alias(slot.layout()._replace(offset=self.places.outside[index].offset + self.relative(slot)))

    def buffer(self, step: Step, name: str) -> ArgumentSpec:
        slot = step.slots[name]
        if slot.storage.number in self.where:
            return ArgumentSpec("arena", index=self.where[slot.storage.number][0])
        return ArgumentSpec("outside", index=self._buffers[self.outside(slot)])

    def offset(self, step: Step, name: str, ctype: str) -> ArgumentSpec:
        slot = step.slots[name]
        if slot.storage.number in self.where:
            return ArgumentSpec("number", ctype, value=indexable(step.op.name, f"the offset of {name}", slot.offset))
        index = self.outside(slot)
        return ArgumentSpec("offset", ctype, index, self.relative(slot), slot.dtype.stride)

    def accumulates(self, step: Step, name: str, ctype: str) -> ArgumentSpec:
        if (step.number, name) in self.first_writes:
            return ArgumentSpec("accumulates", ctype, self.outside(step.slots[name]))
        return ArgumentSpec("number", ctype, value=int(name in step.accumulate))

    def value(self, step: Step, name: str, ctype: str) -> ArgumentSpec:
        return ArgumentSpec("number", ctype, value=step.slots[name].number)

    def scalar(self, step: Step, name: str, ctype: str) -> ArgumentSpec:
        known = self.scalars_of[step.number]
        if name not in known:
            known[name] = len(self._scalars)
            self._scalars.append((step, name))
            self.places.scalars.append(step.scalars[name])
        return ArgumentSpec("scalar", ctype, known[name])

    def scratch(self, step: Step, name: str) -> tuple[int, int]:
        return self.where[step.number, name]

    def touched(self, numbers: Iterable[BufferId], sizes: Mapping[BufferId, int]) -> tuple[PlaceSpec, ...]:
        """The memory of these buffers: those outside that no argument names are left out."""
        found = []
        for number in numbers:
            if number in self.where:
                chunk, offset = self.where[number]
                found.append(PlaceSpec(chunk, offset, sizes[number]))
            elif isinstance(number, int) and (index := self.index_of(number)) is not None:
                found.append(PlaceSpec(-1, index, self._nbytes[index]))
        return tuple(sorted(found, key=lambda place: (place.chunk, place.index)))

    def outside_specs(self, roles: Mapping[int, str]) -> tuple[OutsideSpec, ...]:
        """``roles``, by storage number; what has none is memory that stays."""
        others = iter(range(len(self._nbytes)))
        named = [roles.get(number) or f"memory {next(others)}" for number in self._indices]
        return tuple(map(OutsideSpec, named, self._nbytes, self._buffers))

    def scalar_specs(self) -> tuple[ScalarSpec, ...]:
        return tuple(
            ScalarSpec(f"{step.op.name}.{name}", step.scalars[name], name in RANDOM) for step, name in self._scalars
        )


RANDOM = ("seed_low", "seed_high", "offset_low", "offset_high")
"""The scalars of a step that draws random numbers which are drawn anew at each call."""
