"""What a training step costs, layer by layer: what is kept for backward, and backward's arithmetic.

In: the abstractly traced program of a step. Out: numbers for each layer. A step of the program belongs to the layer
whose parameter it reads, or whose gradient it writes; without either, to the layer before it in forward.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tinyedge.adapt.layers import Layer
from tinyedge.compiler.program import Program
from tinyedge.ir.step import BACKWARD, Step
from tinyedge.ir.values import Slot


@dataclass
class Cost:
    """Of one layer."""

    saved_bytes: int = 0
    """Of what forward leaves for this layer's backward."""
    backward_flops: int = 0


def costs_of(program: Program, layers: Iterable[Layer]) -> dict[str | None, Cost]:
    """The costs of each layer by its name; of steps before the first layer under None."""
    owners: dict[int, str] = {}
    for layer in layers:
        for param in layer.parameters.values():
            owners.setdefault(param._slot.storage.number, layer.name)
    by_leaf = {id(param._slot): layer.name for layer in layers for param in layer.parameters.values()}
    for slot, number in program.gradient_places():
        owners.setdefault(number, by_leaf[id(slot)])
    steps = [program.steps[number] for number in sorted(program.steps)]
    forward = [step for step in steps if step.number < program.border]
    backward = [step for step in steps if step.number >= program.border]
    names = _owners_of(backward, owners)
    found: dict[str | None, Cost] = {}
    for step, name in zip(backward, names, strict=True):
        if step.direction == BACKWARD:
            found.setdefault(name, Cost()).backward_flops += step.op.flops(step)
    written = {slot.storage.number for step in forward for slot in _slots(step.written())}
    left = {number for number in written if number in program.plan.intervals}  # what is fused away takes no memory
    for step, name in zip(backward, names, strict=True):
        for number in {slot.storage.number for slot in _slots(step.read())} & left:
            left.discard(number)
            found.setdefault(name, Cost()).saved_bytes += program.temporary.get(number, 0)
    return found


def _slots(slots: Iterable[object]) -> list[Slot]:
    return [slot for slot in slots if isinstance(slot, Slot)]


def _owners_of(steps: list[Step], owners: dict[int, str]) -> list[str | None]:
    """The layer of each step of backward: of one that touches no parameter, that of the step which reads its result,
    and so the layer before it in forward.
    """
    readers: dict[int, str | None] = {}  # of each storage, the layer of the next step that reads it
    found: list[str | None] = []
    name: str | None = None
    for step in reversed(steps):
        results = [slot.storage.number for slot in _slots(step.written())]
        touched = [slot.storage.number for slot in _slots(step.slots.values())]
        own = next((owners[number] for number in touched if number in owners), None)
        name = own or next((readers[number] for number in results if number in readers), name)
        readers |= dict.fromkeys([slot.storage.number for slot in _slots(step.read())], name)
        found.append(name)
    return found[::-1]


__all__ = ["Cost", "costs_of"]
