"""The leaves of a program: parameters whose gradients it computes, and the buffers in which it does."""

from __future__ import annotations

import weakref
from typing import NamedTuple

from tinyedge.compiler.record import Recording, Trace
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot


class Leaf:
    """A parameter (or another leaf) whose gradient a program computes, and the buffer in which it does."""

    def __init__(self, slot: Slot, gradient: Slot, had_gradient: bool, adds: bool) -> None:
        self.slot = slot
        self.adds = adds  # to the gradient of before the call, if there is one
        self.number, self.offset = gradient.storage.number, gradient.offset
        self.stored_first = not had_gradient  # the recording begins the gradient, and needs no zeros there
        self.first_write: tuple[Step, str] | None = None
        # The gradient to which the launches are bound, if they accumulate.
        self.adds_to: weakref.ref[Slot] | None = None

    @property
    def slot(self) -> Slot:
        """The leaf; a program holds it weakly."""
        slot = self.refer()
        assert slot is not None, "programs are dropped with what they were recorded for"
        return slot

    @slot.setter
    def slot(self, slot: Slot) -> None:
        self.refer = weakref.ref(slot)

    @property
    def grad(self) -> Slot | None:
        """Its present gradient buffer."""
        slot = self.refer()
        return None if slot is None else slot.grad

    def is_bound(self) -> bool:
        """Whether the launches are bound to accumulate into its present gradient."""
        return self.adds_to is not None and (gradient := self.adds_to()) is not None and self.grad is gradient


class LeavesFound(NamedTuple):
    """What a recorded call does with gradients of leaves that were there before it.

    ``leaves``: those whose gradients it reads or adds to; ``later``: those whose gradients its backward adds to, if
    that is another part of the program. ``needs``: whether a leaf must have a gradient before the call, or none.
    ``ends``: the gradient that takes the place of a leaf's own; None drops it.
    """

    leaves: list[Leaf]
    later: list[Leaf]
    needs: list[tuple[weakref.ref[Slot], bool]]
    ends: list[tuple[weakref.ref[Slot], Slot | None]]


def leaves_of(recording: Recording, trace: Trace | None) -> LeavesFound:
    """The leaves of a recorded call, and of its backward, if it was traced."""
    found = LeavesFound([], [], [], [])
    for use in recording.leaves.values():
        gradient = use.before if use.before is not None or use.replaced else use.leaf.grad
        if gradient is not None and (use.summed or use.observed):
            found.leaves.append(Leaf(use.leaf, gradient, use.before is not None, use.adds))
        if use.observed:
            found.needs.append((weakref.ref(use.leaf), use.existed))
        if use.replaced:
            found.ends.append((weakref.ref(use.leaf), use.leaf.grad))
    if trace is not None:
        found.later.extend(Leaf(leaf, gradient, leaf.grad is gradient, True) for leaf, gradient in trace.leaves)
    return found
