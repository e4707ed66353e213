"""A recorded change in place: the new history of the memory, and the gradient of what was overwritten.

In: the slot that was changed, and the result that was written there. Out: the slot with its new history; every other
tensor in the memory is ``renewed`` when it is used next. The gradient of the memory goes to the result where that was
written, and elsewhere to what the memory held before.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinyedge.autograd import history
from tinyedge.autograd.dispatch import contiguous_copy, edge_to, write_into
from tinyedge.autograd.walk import Gradient, OwnBackward, Walk, require_saved
from tinyedge.ir.step import FORWARD, Op
from tinyedge.ir.values import Current, Layout, Slot, Spec, Value


class _Change(Op):
    """The op that a change in place stands for in the graph."""

    name = "a change in place"


class Overwritten(OwnBackward):
    """A tensor of which the part at ``layout`` was replaced. Inputs: what it was, and what was written there."""

    __slots__ = ("layout",)

    def __init__(self, before: Current, result: Slot, layout: Layout) -> None:
        super().__init__(_Change, FORWARD, {}, {}, {}, (), ())
        self.layout, self.saved = layout, {}
        left = None if before.step is None else (before.step, before.output, None)
        self.edges = (left, edge_to(result) if result.requires_grad else None)
        self.input_specs, self.output_specs = (before.spec, result.spec), (before.spec,)

    def walk_back(self, walk: Walk, gradients: Sequence[Gradient | None]) -> None:
        require_saved(self)
        (dy,) = gradients
        assert dy is not None
        whole = dy.slot if dy.slot.contiguous else contiguous_copy(dy.slot)
        base, part = self.edges
        if part is not None and walk.wants(part):
            spec = self.input_specs[1]
            assert spec is not None
            place = self.layout._replace(offset=whole.offset + self.layout.offset)
            walk.deliver(part, contiguous_copy(whole.alias(place)), spec, owned=True)
        if base is not None and walk.wants(base):
            rest = contiguous_copy(whole)
            write_into(Value(0, rest.dtype), rest.alias(self.layout))
            walk.deliver(base, rest, self.output_specs[0], owned=True)


def changed(slot: Slot, result: Slot, is_copied: bool = False) -> Slot:
    """``slot`` with the history that it has now that the values of ``result`` were written there.

    ``is_copied``: ``result`` is a tensor of its own, which may be hooked, and read elsewhere.
    """
    family, before = slot.family, _before(slot)
    if before is None:  # then it is all of the memory: ``require_changeable`` has looked
        now = None
    elif _is_whole(slot) and result.requires_grad and not is_copied:
        now = Current(result.step, result.index, result.spec)
    else:
        now = Current(Overwritten(before, result, slot.layout()), 0, before.spec)
    family.history += 1
    family.current = now
    slot.storage.recorded += 1
    fresh = slot.alias()
    if now is None:
        fresh.step, fresh.index, fresh.requires_grad = result.step, result.index, result.requires_grad
    else:
        fresh.step = slot.step  # which tells whether it is a view
        history.view(fresh, now)
    return fresh


def is_recordable(slot: Slot) -> bool:
    """Whether a change of ``slot`` can be recorded: it is all of its memory, or it is known what all of that holds."""
    return slot.history >= 0 and (_is_whole(slot) or _before(slot) is not None)


def _is_whole(slot: Slot) -> bool:
    return slot.contiguous and slot.nbytes == slot.storage.nbytes


def _before(slot: Slot) -> Current | None:
    """What the memory of ``slot``, which is not stale, holds; None if that is not known."""
    if slot.dtype.blocks is not None:
        return None
    if slot.family.history:
        return slot.family.current
    step, index, spec = slot.step, slot.index, slot.spec
    while step is not None and step.op.is_view and not isinstance(step, OwnBackward):
        edge, source = step.edges[0], step.input_specs[0]
        assert edge is not None
        assert source is not None
        (step, index, _), spec = edge, source
    if isinstance(step, OwnBackward):  # it may have returned memory of its inputs
        return None
    if step is None:
        return Current(None, 0, Spec(slot.dtype, (slot.storage.nbytes // slot.dtype.stored.itemsize,)))
    return Current(step, index, spec)
