"""A leaf of a program: a parameter whose gradient the program computes, and the buffer in which it does."""

from __future__ import annotations

import weakref

from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot


class Leaf:
    """A parameter (or another leaf) whose gradient a program computes, and the buffer in which it does."""

    def __init__(self, slot: Slot, gradient: Slot, had_gradient: bool) -> None:
        self.slot = slot
        self.number, self.offset = gradient.storage.number, gradient.offset
        self.stored_first = not had_gradient  # the recording begins the gradient, and needs no zeros there
        self.first_write: tuple[Step, str] | None = None
        self.adds_to: weakref.ref[Slot] | None = (
            None  # the gradient to which the launches are bound, if they accumulate
        )

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
        slot = self.refer()
        return None if slot is None else slot.grad

    def is_bound(self) -> bool:
        """Whether the launches are bound to accumulate into its present gradient."""
        return self.adds_to is not None and (gradient := self.adds_to()) is not None and self.grad is gradient
