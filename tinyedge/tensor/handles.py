"""Tensors that a program took from a leaf: what they show stays when the leaf is given other values.

PyTorch gives a leaf whose ``data`` is set other memory. Here it keeps its own, which optimizers and compiled functions
know; so what ``data`` and ``detach`` gave before gets a copy of what was there. In a compiled function it does not: a
replay knows of no tensors but its own.
"""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.recorder import recorder
from tinyedge.autograd.registry import functions
from tinyedge.ir.values import Slot

T = TypeVar("T")

MOST = 8
"""So many are noted before those that are gone are looked for."""


def note(slot: Slot, taken: T) -> T:
    """Remember that a tensor was taken from the leaf with that slot. Returns it."""
    handles = slot.storage.handles
    if handles is None:
        handles = slot.storage.handles = []
    elif len(handles) >= MOST:
        handles[:] = [handle for handle in handles if handle() is not None]
    handles.append(weakref.ref(taken))
    return taken


def keep(slot: Slot, given: Any) -> None:
    """Give memory of their own to the tensors that were taken, but not to ``given``, before the leaf's is written."""
    if recorder() is not None:
        return
    handles, slot.storage.handles = slot.storage.handles, None
    for handle in handles or ():
        taken = handle()
        if (
            taken is not None
            and taken is not given
            and taken._slot.storage is slot.storage
            and not taken._slot.requires_grad
        ):
            with no_grad():
                taken._slot = functions["clone"](taken)._slot
