"""Samples whose gradients wait for an update, and gradients that got a part of one only."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence

from tinyedge.errors import ArgumentError, TinyedgeError
from tinyedge.ir.values import Slot, note_leaf_change


class Minibatch:
    """Samples that were counted, and wait in the gradients of ``leaves()`` for the update by their mean."""

    def leaves(self) -> Iterable[Slot]:
        raise NotImplementedError

    def counted(self) -> str:
        """How many they are, as an error says it."""
        raise NotImplementedError


_minibatches: weakref.WeakSet[Minibatch] = weakref.WeakSet()


def note_minibatch(minibatch: Minibatch, waits: bool) -> None:
    """To be called when samples wait from now on, and when none do any more."""
    (_minibatches.add if waits else _minibatches.discard)(minibatch)


def require_no_minibatch(call: str, leaves: Iterable[Slot]) -> None:
    """Refuse to drop gradients in which counted samples wait: the mean would be taken of those that are left."""
    if not _minibatches:
        return
    dropped = {id(leaf) for leaf in leaves if leaf.requires_grad and leaf.gradient() is not None}
    for minibatch in _minibatches:
        if any(id(leaf) in dropped for leaf in minibatch.leaves()):
            raise ArgumentError(
                call,
                "it must not drop samples that wait for their update",
                minibatch.counted(),
                "Leave it out (each update clears the gradients), or call the optimizer's flush() or discard() first.",
            )


def mark_torn(gradients: Sequence[Slot], error: BaseException, first: int) -> None:
    """Say of gradients that a part of a sample may have been added to them, and the rest not, because of ``error``.

    That is so only if the ``first`` launch that adds to one was carried out, as far as the backend says.
    """
    if not gradients or (isinstance(error, Exception) and getattr(error, "launched", first + 1) <= first):
        return
    for gradient in gradients:
        gradient.storage.torn = True
    note_leaf_change()
    text = "The sample was added to the gradients in part: an optimizer refuses them until discard()."
    if isinstance(error, TinyedgeError):
        error.remedy = f"{text} {error.remedy}"
    elif hasattr(error, "add_note"):
        error.add_note(text)
