"""The gradients that a part of a program computes: which buffers its launches are bound to, and whether they add.

In: the leaves of the part. Out: at each call the leaves whose gradients have changed, which are bound again; new
gradients for those that have none; and which gradients that a call drops lie where their successors can.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence

from tinyedge.autograd.dispatch import new_slot, write_into
from tinyedge.autograd.interrupts import held_back
from tinyedge.backends import Backend
from tinyedge.compiler.binding import Binding
from tinyedge.compiler.leaves import Leaf
from tinyedge.compiler.results import ResultPlace
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.values import Slot, Storage, Value, leaf_changes
from tinyedge.tensor import Tensor


def _holders(held: object) -> int:
    """How many references to an object there are, this call's among them; none are known without CPython's counts."""
    return sys.getrefcount(held) if hasattr(sys, "getrefcount") else 0


def _is_held_once(held: object, times: int = 1) -> bool:
    """Whether there is one holder besides the caller's variable; it holds the object so many ``times``."""
    return _holders(held) - times == _NOBODY


def _holders_of_probe() -> int:
    probe = [object()]
    held = probe[0]

    def is_held_once(held: object) -> int:  # as many calls deep as in ``_is_held_once``
        return _holders(held)

    return is_held_once(held)


_NOBODY = _holders_of_probe() - 1


class Ends:
    """What leaves have after a call instead of the gradients that they had before: nothing, or the result at a place.

    A gradient that the call drops unread, and that only its leaf holds, is written over by the one that follows it. So
    a training step with ``zero_grad()`` in it allocates no gradients, and binds nothing again.
    """

    def __init__(self, ends: Iterable[tuple[weakref.ref[Slot], ResultPlace | None]], read: Iterable[Leaf]) -> None:
        self.places = [*ends]
        known = {id(leaf.refer()) for leaf in read}
        numbers = [place.number for _, place in self.places if place is not None]
        self._renewed = [
            (refer, place)
            for refer, place in self.places
            if place is not None and id(refer()) not in known and numbers.count(place.number) == 1
        ]
        self.overwritten: dict[int, Slot] = {}  # gradients of before the call, by the number of the result's storage

    def leaves(self) -> list[Slot]:
        return [leaf for refer, _ in self.places if (leaf := refer()) is not None]

    def choose(self, sizes: Mapping[int, int]) -> None:
        """Find the gradients that this call may write over. ``sizes``: bytes of the results, by their numbers."""
        self.overwritten = {}
        for refer, place in self._renewed:
            leaf = refer()
            gradient = None if leaf is None else leaf.grad
            if gradient is None or gradient.step is not None or gradient.requires_grad:
                continue
            storage = gradient.storage
            if (
                place.number in sizes
                and storage.nbytes == sizes[place.number]
                and gradient.dtype is place.slot.dtype
                and gradient.layout() == place.slot.layout()
                and not storage.torn
                and _is_held_once(gradient)
                and _is_held_once(storage, 1 + (gradient.family is storage))
            ):
                self.overwritten[place.number] = gradient

    def count(self) -> None:
        """After the launches: what was written over holds a new gradient."""
        for gradient in self.overwritten.values():
            storage = gradient.storage
            storage.version += 1
            storage.renewed = storage.version

    def finish(self, slot_at: Callable[[ResultPlace], Slot]) -> None:
        """Let the leaves have what they end with."""
        for refer, place in self.places:
            leaf = refer()
            if leaf is None or (place is None and leaf.grad is None):
                continue
            if place is None or leaf.grad is None or self.overwritten.get(place.number) is not leaf.grad:
                leaf.keep_gradient(None if place is None else slot_at(place))
        self.overwritten = {}


class Gradients:
    """The leaves of one part, and the gradients to which its launches are bound."""

    def __init__(
        self, leaves: Sequence[Leaf], binding: Binding, backend: Backend, known: frozenset[int] = frozenset()
    ) -> None:
        self.leaves = leaves
        self._known = known  # the storages that the function reads by itself
        self._binding, self._backend = binding, backend
        self._seen = -1  # leaf_changes() when all leaves had the gradients to which the launches are bound
        self._bound: list[weakref.ref[Storage]] = []
        self._is_collected = True  # whether these are the gradients of the leaves
        self._looked_at = -1  # leaf_changes() when the following was found
        self._added: frozenset[int] = frozenset()
        self._is_apart = True

    @property
    def has_changed(self) -> bool:
        """Whether leaves may have other gradients than those to which the launches are bound."""
        return leaf_changes() != self._seen

    def added(self, always: bool = False) -> frozenset[int]:
        """The numbers of the storages to which the launches add. ``always``: leaves of their own at each call."""
        changes = leaf_changes()
        if changes != self._looked_at or always:
            found = [(leaf, grad.storage.number) for leaf in self.leaves if (grad := leaf.grad) is not None]
            self._added = frozenset(number for leaf, number in found if leaf.adds)
            # As many different ones as in the recording, and none that the function reads otherwise.
            recorded = {leaf.number for leaf, _ in found}
            self._is_apart = len({number for _, number in found}) == len(recorded) and self._known.isdisjoint(
                self._added
            )
            self._looked_at = changes
        return self._added

    def lie_apart(self, arguments: Sequence[Tensor], always: bool) -> bool:
        """Whether the gradients lie apart from each other, as in the recording, and from what the function reads."""
        added = self.added(always)
        if added:
            for argument in arguments:
                if argument._slot.storage.number in added:
                    return False
        return self._is_apart

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

    def there(self) -> list[Slot]:
        """The gradients of the leaves that have one."""
        return [gradient for leaf in self.leaves if (gradient := leaf.grad) is not None]

    def added_to(self, begun: Mapping[int, Slot]) -> list[Slot]:
        """The leaves to whose gradients the launches add, unless they are ``begun``, which nobody has seen."""
        return [leaf.slot for leaf in self.leaves if leaf.grad is not None and id(leaf.slot) not in begun]

    def first_launch(self, launches: Iterable[LaunchGroup], overwritten: Iterable[int] = ()) -> int:
        """The number of the first launch that writes a gradient, also one that is ``overwritten``; how many there are
        if none does.
        """
        numbers = [*[leaf.number for leaf in self.leaves], *overwritten]
        written = {self._binding.storages[number].number for number in numbers}
        number = 0
        for number, launch in enumerate(launches, 1):
            if any(kernel.writes() & written for kernel in launch.kernels):
                return number - 1
        return number
