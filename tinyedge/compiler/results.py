"""The results of a program's calls: where each lies, and the tensors that a call returns.

In: the recorded call's results. Out: new tensors at each replay, or what is no new tensor: an argument, or a tensor
that was there before.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from tinyedge.compiler.binding import Binding
from tinyedge.compiler.record import Recording
from tinyedge.ir.step import FORWARD, Step
from tinyedge.ir.values import Family, Slot, Storage
from tinyedge.tensor import Tensor


class ResultPlace(NamedTuple):
    """Where a result lies."""

    number: int
    slot: Slot
    same: int | weakref.ref[Tensor] | None = None  # it is this argument, or this tensor from outside
    outside: Slot | None = None  # of a tensor from outside: its slot, with its history
    root: int | None = None  # it is differentiable: this output of the call's node
    history: Step | None = None  # it has a history that was walked already
    family: int | Family | None = None  # its family: an argument's, one that began in the call, or its storage
    is_recorded: bool = True  # autograd records that it is a view


class Places(Protocol):
    """A program, as far as its results need it."""

    def outside(self, place: ResultPlace, arguments: list[Tensor]) -> Slot:
        """Where a result that is no new tensor lies."""
        ...


class Results:
    """The results of one call."""

    __slots__ = ("arguments", "families", "fresh", "made", "node", "program")

    def __init__(
        self, program: Places, arguments: list[Tensor], fresh: Mapping[int, Storage], node: Step | None
    ) -> None:
        self.program, self.arguments, self.fresh, self.node = program, arguments, fresh, node
        self.families: dict[int, Family] = {}  # by that of the recorded call
        self.made: dict[int, Tensor] = {}  # by place: what is returned twice is one tensor

    def slot(self, place: ResultPlace) -> Slot:
        """Where the result at ``place`` lies after this call."""
        storage = self.fresh.get(place.number)
        if storage is not None:
            return place.slot.within(storage)
        return self.program.outside(place, self.arguments)

    def tensor(self, place: ResultPlace) -> Tensor:
        """The tensor that the call returns at ``place``: one that was there, or a new one."""
        if isinstance(place.same, int):
            return self.arguments[place.same]
        if place.same is not None and (there := place.same()) is not None and there._slot is place.outside:
            return there
        made = self.made.get(id(place))
        if made is None:
            made = self.made[id(place)] = self.new(place)
        return made

    def new(self, place: ResultPlace) -> Tensor:
        """A new tensor over the result at ``place``, with its history."""
        if place.outside is not None:
            return Tensor._wrap(place.outside)
        slot = self.slot(place)
        if place.root is not None:
            slot.step, slot.index, slot.requires_grad = self.node, place.root, True
        elif place.history is not None:
            slot.step, slot.requires_grad = place.history, True
        if place.family is not None or not place.is_recorded:
            self.join(slot, place)
        return Tensor._wrap(slot)

    def join(self, slot: Slot, place: ResultPlace) -> None:
        """Make it a view of what the recorded result is a view of."""
        is_recorded = place.is_recorded
        if isinstance(place.family, int):
            source = self.arguments[place.family]._slot
            slot.family = source.family
            is_recorded = is_recorded and source.history >= 0
        elif place.family is not None:
            slot.family = self.families.setdefault(id(place.family), Family())
        slot.history = slot.family.history if is_recorded else -1 - slot.family.history


def place_of_result(
    recording: Recording,
    tensor: Tensor,
    arguments: Sequence[Tensor],
    given: Mapping[int, int],
    roots: Mapping[int, int],
    binding: Binding,
) -> ResultPlace:
    """Where a result of the recorded call lies. ``given``, ``roots``: the number of an argument or of a differentiable
    result, by the id of its slot.
    """
    slot = tensor._slot
    number = slot.storage.number
    if id(slot) in given:
        return ResultPlace(number, binding.moved(slot), same=given[id(slot)])
    if slot.number < recording.first_number and (slot.requires_grad or number not in binding.storages):
        return ResultPlace(number, binding.moved(slot), same=weakref.ref(tensor), outside=slot)
    history = None
    if id(slot) not in roots and recording.made_history(slot):
        assert slot.step is not None
        history = Step(slot.step.op, FORWARD, {}, {}, {}, (), ())
        history.output_specs = slot.step.output_specs
    elif slot.requires_grad and slot.is_leaf:
        recording.forbid("a leaf that is returned", "a replay would not compute its gradient; return its clone()")
    elif slot.requires_grad and recording.is_from_before(slot) and id(slot) not in roots:
        recording.forbid(
            "a result with the history of another tensor", "a replay would give it none; return its clone()"
        )
    source = next((k for k, argument in enumerate(arguments) if argument._slot.family is slot.family), None)
    is_recorded = slot.history >= 0 or (source is not None and arguments[source]._slot.history < 0)
    family = source if source is not None else None if slot.family is slot.storage else slot.family
    return ResultPlace(
        number, binding.moved(slot), root=roots.get(id(slot)), history=history, family=family, is_recorded=is_recorded
    )
