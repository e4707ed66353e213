"""The history of memory that is changed in place: whose result it holds since, for every tensor that lies in it.

In: a slot that was made before a change which autograd recorded. Out: the slot, with the history that its values have
now, as a view of what the whole memory holds. ``detach()`` begins a family of its own, whose changes mean nothing to
the others.
"""

from __future__ import annotations

from typing import Any, NoReturn

from tinyedge.errors import AutogradError
from tinyedge.ir.step import FORWARD, Step, registry
from tinyedge.ir.values import Current, Slot, Spec, note_leaf_change
from tinyedge.shapes import Shape


def is_stale(slot: Slot) -> bool:
    """Whether the memory was changed, in a way that autograd recorded, since ``slot`` was made."""
    made_at = slot.history
    return (made_at if made_at >= 0 else -1 - made_at) != slot.family.history


def unrecorded(source: Slot) -> int:
    """The ``history`` of a view of ``source`` that autograd does not record: negative if it lacks a history for that.

    As in PyTorch, such a view is good until autograd records a change of its memory, and cannot be what is changed.
    """
    if source.history >= 0 and not source.requires_grad:
        return source.history
    return -1 - source.family.history


def renew(call: str, slot: Slot) -> None:
    """Give ``slot``, which is stale, the history that its values have now.

    Errors: AutogradError if that is not known: of a leaf, of a view taken under ``no_grad``, and of what shares memory
            with the result of a Function or of a compiled function.
    """
    current = slot.family.current
    if current is None or slot.history < 0 or (slot.is_leaf and slot.requires_grad):
        refuse(call, slot)
    view(slot, current)
    note_leaf_change()


def view(slot: Slot, current: Current) -> None:
    """Give ``slot`` the history of a view of what all of its memory holds."""
    was_view = slot.step is not None and slot.step.op.is_view  # it keeps a step, and so hooks, of its own
    slot.history = slot.family.history
    slot.step, slot.requires_grad = None, current.step is not None
    if current.step is None:
        return
    if slot.shape == current.spec.shape and slot.contiguous and not was_view:
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
        "Take the view again after the change, use the out-of-place form, or change a detach() of it.",
    )
