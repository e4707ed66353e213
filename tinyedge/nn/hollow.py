"""Modules that are made without memory, because a file has their weights, and parameters that get other memory.

In: a module's constructor; tensors. Out: a module of the right shapes, whose parameters then take these tensors as they
lie, without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tinyedge.autograd.recorder import Recorder, recording
from tinyedge.ir import values
from tinyedge.nn import init
from tinyedge.tensor import Parameter, Tensor


class _Nothing(Recorder):
    runs = False


@contextmanager
def hollow() -> Iterator[None]:
    """Let parameters have a shape and a dtype, but no memory: each must ``become`` a tensor before it is used."""
    with recording(_Nothing()), init.skipped():
        yield


def become(param: Parameter, value: Tensor) -> None:
    """Give a parameter the memory, dtype and shape of ``value``. It stays the same object, for optimizers and for
    layers that share it. A quantised one is frozen.
    """
    requires_grad = param.requires_grad and value.dtype.blocks is None
    param._slot = value.detach()._slot
    param._slot.requires_grad = requires_grad
    values.note_leaf_change()


__all__ = ["become", "hollow"]
