"""The gradients that a part of a program computes: which buffers its launches are bound to, and whether they add.

In: the leaves of the part. Out: at each call the leaves whose gradients have changed, which are bound again; new
gradients for those that have none.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence

from tinyedge.autograd.dispatch import new_slot, write_into
from tinyedge.autograd.interrupts import held_back
from tinyedge.backends import Backend
from tinyedge.compiler.binding import Binding
from tinyedge.compiler.leaves import Leaf
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.values import Slot, Storage, Value, leaf_changes


class Gradients:
    """The leaves of one part, and the gradients to which its launches are bound."""

    def __init__(self, leaves: Sequence[Leaf], binding: Binding, backend: Backend) -> None:
        self.leaves = leaves
        self._binding, self._backend = binding, backend
        self._seen = -1  # leaf_changes() when all leaves had the gradients to which the launches are bound
        self._bound: list[weakref.ref[Storage]] = []
        self._is_collected = True  # whether these are the gradients of the leaves

    @property
    def has_changed(self) -> bool:
        """Whether leaves may have other gradients than those to which the launches are bound."""
        return leaf_changes() != self._seen

    def moved(self, always: bool = False) -> list[Leaf]:
        """The leaves whose gradients the launches are not bound to. ``always``: leaves of their own at each call."""
        changes = leaf_changes()
        if changes == self._seen and not always:
            return []
        moved = [leaf for leaf in self.leaves if not leaf.is_bound()]
        # Perhaps gradients of another model changed. A gradient that begins now is accumulated into at the next call.
        self._seen, self._is_collected = -1 if moved else changes, False
        return moved

    def begun(self, moved: Sequence[Leaf]) -> dict[int, Slot]:
        """New gradients for the leaves that have none, by the leaf's id."""
        absent = [leaf for leaf in moved if leaf.grad is None]
        for leaf in absent:  # their old buffers are free for the new gradients, if nobody else holds them
            self._binding.point(leaf.number, None)
        slots = [leaf.slot for leaf in absent]
        return {id(slot): new_slot(self._backend, slot.dtype.computes, slot.shape) for slot in slots}

    def bind(self, moved: Sequence[Leaf], begun: Mapping[int, Slot]) -> None:
        """Bind the leaves that have ``moved`` to their gradients: add to those, begin those that are ``begun``."""
        with held_back():  # what is half bound would pass for bound at the next call
            for leaf in moved:
                new = begun.get(id(leaf.slot))
                gradient = new or leaf.grad
                assert gradient is not None
                self.bind_to(leaf, gradient, new is None)

    def bind_to(self, leaf: Leaf, gradient: Slot, adds: bool) -> None:
        """Bind the gradient of ``leaf``: accumulate into it if ``adds``, else begin it."""
        leaf.adds_to = None
        if not adds and not leaf.stored_first:
            write_into(Value(0, gradient.dtype), gradient)
        self._binding.point_at(leaf.number, gradient)
        self._binding.let_add(leaf, adds)
        leaf.adds_to = weakref.ref(gradient) if adds else None

    def forget(self) -> None:
        """Look at every leaf at the next call: the launches were bound to what the leaves may not keep."""
        self._seen = -1

    def count(self, moved: Sequence[Leaf], begun: Mapping[int, Slot]) -> None:
        """After the launches: let the leaves keep what was ``begun``, and count a change of every gradient."""
        for leaf in moved:
            if (new := begun.get(id(leaf.slot))) is not None:
                leaf.slot.keep_gradient(new)
        if not self._is_collected:
            self._is_collected = True
            self._bound = [weakref.ref(grad.storage) for leaf in self.leaves if (grad := leaf.grad)]
        for refer in self._bound:
            if (storage := refer()) is not None:
                storage.version += 1

    def present(self) -> list[Slot]:
        """The gradients of the leaves that have one."""
        return [gradient for leaf in self.leaves if (gradient := leaf.grad) is not None]

    def added_to(self, begun: Mapping[int, Slot]) -> list[Slot]:
        """The leaves to whose gradients the launches add, unless they are ``begun``, which nobody has seen."""
        return [leaf.slot for leaf in self.leaves if leaf.grad is not None and id(leaf.slot) not in begun]

    def first_launch(self, launches: Iterable[LaunchGroup]) -> int:
        """The number of the first launch that writes a gradient; how many there are if none does."""
        written = {self._binding.storages[leaf.number].number for leaf in self.leaves}
        number = 0
        for number, launch in enumerate(launches, 1):
            if any(kernel.writes() & written for kernel in launch.kernels):
                return number - 1
        return number
