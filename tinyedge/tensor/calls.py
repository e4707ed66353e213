"""How an op is called on tensors, and how tensors are found in the containers that a call gets or gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyedge.autograd import dispatch
from tinyedge.backends import Backend
from tinyedge.containers import leaves_in, with_leaves
from tinyedge.ir.step import Op
from tinyedge.ir.values import Value
from tinyedge.tensor.classes import Tensor


def call(
    op: type[Op],
    *inputs: Tensor | Value | None,
    scalars: dict[str, float] | None = None,
    backend: Backend | None = None,
    **attrs: Any,
) -> Tensor:
    """Call ``op`` on tensors; its first output. For ops with several, see ``call_all``."""
    reads = [x._slot if isinstance(x, Tensor) else x for x in inputs]
    return Tensor._wrap(dispatch.dispatch(op, reads, attrs, scalars, backend)[0])


def call_all(
    op: type[Op], *inputs: Tensor | Value | None, scalars: dict[str, float] | None = None, **attrs: Any
) -> tuple[Tensor, ...]:
    """Call ``op`` on tensors; all its outputs."""
    reads = [x._slot if isinstance(x, Tensor) else x for x in inputs]
    return tuple(Tensor._wrap(slot) for slot in dispatch.dispatch(op, reads, attrs, scalars))


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists, mappings and dataclasses, in order."""
    return leaves_in(value, Tensor)


def map_tensors(value: Any, function: Callable[[Any], Any], leaf: type | tuple[type, ...] = Tensor) -> Any:
    """``value`` with each tensor replaced; what is in no container stays itself."""
    return with_leaves(value, function, leaf)
