"""Minibatches of accumulated samples, which must not be dropped; torn gradients, which hold a part of a sample."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable

from tinyedge.errors import ArgumentError, TinyedgeError
from tinyedge.ir.values import Slot, note_leaf_change


class Minibatch:
    """Samples that were counted, and whose gradients wait in ``leaves()`` for an update by their mean."""

    def leaves(self) -> Iterable[Slot]:
        raise NotImplementedError

    def counted(self) -> str:
        """How many samples wait, in words for an error."""
        raise NotImplementedError


_minibatches: weakref.WeakSet[Minibatch] = weakref.WeakSet()
_lock = threading.Lock()  # a set must not change while another thread goes through it


def note_minibatch(minibatch: Minibatch, waits: bool) -> None:
    """Must be called when samples begin to wait, and when none wait any more."""
    with _lock:
        (_minibatches.add if waits else _minibatches.discard)(minibatch)


def require_no_minibatch(call: str, leaves: Iterable[Slot]) -> None:
    """Refuse to drop gradients in which counted samples wait, since the mean would be taken of the others."""
    if not _minibatches:
        return
    dropped = {id(leaf) for leaf in leaves if leaf.requires_grad and leaf.gradient() is not None}
    with _lock:
        waiting = [*_minibatches]
    for minibatch in waiting:
        if any(id(leaf) in dropped for leaf in minibatch.leaves()):
            raise ArgumentError(
                call,
                "accumulated samples must not be dropped before their update",
                minibatch.counted(),
                "Leave it out (each update clears the gradients), or call the optimizer's flush() or discard() first.",
            )


def mark_torn(leaves: Iterable[Slot], error: BaseException, first: int) -> None:
    """Mark the gradients of ``leaves`` as torn: because of ``error`` only a part of a sample may have been added.

    That is so only if the ``first`` launch that adds to one of them ran, as far as the backend can tell: the launch
    that was refused did not run; the one that was interrupted may have run. A buffer that an update had cleared, and
    that counts as no gradient, is dropped, so that the sample can be repeated.
    """
    launched = getattr(error, "launched", None)  # the launches before the one that failed
    if launched is not None and launched + (not isinstance(error, Exception)) <= first:
        return
    torn = []
    for leaf in leaves:
        if leaf.grad is not None and leaf.gradient() is None:
            leaf.keep_gradient(None)
        elif leaf.grad is not None:
            torn.append(leaf.grad)
    if not torn:
        return
    for gradient in torn:
        gradient.storage.torn = True
    note_leaf_change()
    text = "The sample was added to the gradients in part: an optimizer refuses them until discard()."
    if isinstance(error, TinyedgeError):
        error.remedy = f"{text} {error.remedy}"
    elif hasattr(error, "add_note"):
        error.add_note(text)
