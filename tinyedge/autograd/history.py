"""The history of memory that is changed in place: whose result it holds since, for every tensor that lies in it.

In: a slot that was made before a change which autograd recorded. Out: one at the same place with the history that its
values have now, as a view of what the whole memory holds. A slot without a part in this (``apart``), such as that of
``detach()``, stays as it is.
"""

from __future__ import annotations

from typing import Any, NoReturn

from tinyedge.errors import AutogradError
from tinyedge.ir.step import FORWARD, Step, registry
from tinyedge.ir.values import Current, Slot, Spec
from tinyedge.shapes import Shape

APART = -1
"""The ``history`` of a slot to which changes of its memory mean nothing."""


def is_stale(slot: Slot) -> bool:
    """Whether the memory was changed, in a way that autograd recorded, since ``slot`` was made."""
    return slot.history != slot.storage.history and slot.history != APART


def renewed(call: str, slot: Slot) -> Slot:
    """``slot``, which is stale, with the history that its values have now.

    Errors: AutogradError if that is not known: of a leaf, and of what shares memory with the result of a Function or of
            a compiled function.
    """
    current = slot.storage.current
    if current is None or (slot.is_leaf and slot.requires_grad):
        if slot.requires_grad:
            refuse(call, slot)
        fresh = slot.alias()
        fresh.history = APART
        return fresh
    fresh = slot.alias()
    view(fresh, current)
    return fresh


def view(slot: Slot, current: Current) -> None:
    """Give ``slot`` the history of a view of what all of its memory holds."""
    if current.step is None:
        return
    slot.requires_grad = True
    if slot.shape == current.spec.shape and slot.contiguous:
        slot.step, slot.index = current.step, current.output
        return
    once = tuple(size if stride else min(size, 1) for size, stride in zip(slot.shape, slot.strides, strict=True))
    layout = {"shape": once, "strides": slot.strides, "offset": slot.offset}
    slot.step = _view("strided", layout, current, once)
    if once != slot.shape:  # elements of it are one in memory
        slot.step = _view("expand", {"shape": slot.shape}, Current(slot.step, 0, Spec(slot.dtype, once)), slot.shape)


def _view(name: str, attrs: dict[str, Any], source: Current, shape: Shape) -> Step:
    step = Step(registry[name], FORWARD, attrs, {}, {}, (), ())
    step.saved, step.edges = {}, ((source.step, source.output, None),)
    step.input_specs, step.output_specs = (source.spec,), (Spec(source.spec.dtype, shape),)
    return step


def refuse(call: str, slot: Slot) -> NoReturn:
    raise AutogradError(
        call,
        "the history of each input must be current",
        f"an input of shape {slot.shape} shares memory with a tensor that was changed in place later",
        "Take the view again after the change, or use the out-of-place form.",
    )
