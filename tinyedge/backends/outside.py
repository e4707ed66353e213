"""Outside: what a program's launches touch outside of its arena, numbered for a ProgramSpec."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tinyedge.ir.kernel import BufferId
from tinyedge.ir.program import OutsideSpec, PlaceSpec, ScalarSpec
from tinyedge.ir.step import Step
from tinyedge.ir.values import Layout, Slot


class Outside:
    """Numbers what a program's launches touch outside of its arena, and their scalars, as it meets them."""

    def __init__(
        self,
        where: Mapping[BufferId, tuple[int, int]],
        roles: Mapping[int, str],
        begins: Mapping[int, int],
        first_writes: Collection[tuple[int, str]],
    ) -> None:
        self.where = where  # chunk and byte of each temporary
        self._roles = roles  # of storages that move, by number
        self.first_writes = first_writes  # steps and names that begin the gradients of leaves, or add to them
        self._begins = begins  # where the first element of such a storage's view lies, in elements
        self._indices: dict[int, int] = {}
        self._scalars: dict[tuple[int, str], int] = {}
        self.found: list[OutsideSpec] = []
        self.slots: list[Slot] = []  # for each, a view that begins at its first element
        self.scalars: list[ScalarSpec] = []

    def begins(self, number: int) -> int:
        return self._begins.get(number, 0)

    def outside(self, slot: Slot) -> int:
        """The number of the storage in which ``slot`` lies."""
        number = slot.storage.number
        if number not in self._indices:
            self._indices[number] = len(self.found)
            role = self._roles.get(number, f"memory {len(self.found) - len(self._roles.keys() & self._indices.keys())}")
            self.found.append(OutsideSpec(role, slot.storage.nbytes or slot.nbytes))
            self.slots.append(slot.alias(Layout((), (), self.begins(number))))
        return self._indices[number]

    def scalar(self, step: Step, name: str) -> int:
        key = step.number, name
        if key not in self._scalars:
            self._scalars[key] = len(self.scalars)
            is_random = name in ("seed_low", "seed_high", "offset_low", "offset_high")
            self.scalars.append(ScalarSpec(f"{step.op.name}.{name}", step.scalars[name], is_random))
        return self._scalars[key]

    def places(self, numbers: Iterable[BufferId], sizes: Mapping[BufferId, int]) -> tuple[PlaceSpec, ...]:
        """The memory of these buffers: those outside that no argument names are left out."""
        found = []
        for number in numbers:
            if number in self.where:
                chunk, offset = self.where[number]
                found.append(PlaceSpec(chunk, offset, sizes[number]))
            elif number in self._indices:
                index = self._indices[number]
                found.append(PlaceSpec(-1, index, self.found[index].nbytes))
        return tuple(sorted(found, key=lambda place: (place.chunk, place.index)))
