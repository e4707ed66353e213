"""``TINYEDGE_COMPILE=check``: compares what a replay gave with what the eager call gave, value by value, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tinyedge.containers import NO_CONTAINERS, contents, is_container
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot
from tinyedge.tensor import Tensor

Named = tuple[str, Any]
"""An array and its name for an error."""

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""The tolerance for floats, relative to the value and to the array's largest: sums may be taken in another order."""

UNITS = {"half": 2.0**-10, "bfloat16": 2.0**-7}
PACKED_UNITS = 16
"""Of a program with values in 16 bits, the tolerance in units of their last place: what is fused is not rounded in
between, where the eager call rounds each result.
"""

SINGLE_UNIT = 2.0**-23
"""float32's unit in the last place, for values around 1."""

GRADIENT = "gradient of "


def named_tensors(value: Any, name: str, above: tuple[int, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested containers, in the order of ``tensors_in``: ``result [1]['logits']``."""
    if isinstance(value, Tensor):
        yield name, value
    elif type(value) not in NO_CONTAINERS and is_container(type(value)) and id(value) not in above:
        for key, item in contents(value):
            yield from named_tensors(item, f"{name}[{key!r}]", (*above, id(value)))


def named_results(result: Any) -> list[Named]:
    """The tensors in a result, and how to reach each: ``result [0]``."""
    return [(name.replace("[", " [", 1), tensor.detach().numpy()) for name, tensor in named_tensors(result, "result")]


def named_gradients(leaves: Iterable[Slot], names: dict[int, str]) -> list[Named]:
    """The gradients of leaves. ``names`` gives names of tensors by the number of their storage."""
    found = []
    for position, leaf in enumerate(leaves):
        if leaf.grad is not None:
            name = names.get(leaf.storage.number, f"leaf {position}, of shape {leaf.shape}")
            found.append((GRADIENT + name, Tensor._wrap(leaf.grad).numpy()))
    return found


def named_values(tensors: Iterable[tuple[str, Tensor]]) -> list[Named]:
    """The values of tensors that have names."""
    return [(name, tensor.detach().numpy()) for name, tensor in tensors]


def unit_of(steps: Iterable[Step]) -> float:
    """The coarsest unit in the last place among the values of these steps that are stored in 16 bits; else 0."""
    slots = (slot for step in steps for slot in step.slots.values() if isinstance(slot, Slot))
    return max((UNITS[packed] for packed in {slot.dtype.packed for slot in slots} if packed in UNITS), default=0.0)


def _largest(array: Any) -> float:
    """The largest absolute value among those that are finite; 0 if there is none."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def first_difference(replayed: list[Named], eager: list[Named], unit: float = 0.0) -> str | None:
    """What differs first, and by how much; None if nothing differs beyond rounding. ``unit``: see ``unit_of``.

    A gradient that is 0 in exact numbers, such as that of a bias before a batch norm, is what the rounding of larger
    ones leaves: a unit in the last place of the largest gradient is no difference.
    """
    relative, absolute = max(RELATIVE, PACKED_UNITS * unit), max(ABSOLUTE, PACKED_UNITS * unit)
    theirs = dict(eager)
    steepest = max((_largest(a) for name, a in eager if name.startswith(GRADIENT)), default=0.0)
    remains = max(unit, SINGLE_UNIT) * steepest
    for name, _ in eager:
        if name not in dict(replayed):
            return f"{name}, which the replay did not give"
    for name, a in replayed:
        if name not in theirs:
            return f"{name}, which the eager call did not give"
        b = theirs[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{name}: {a.dtype} of shape {a.shape} instead of {b.dtype} of shape {b.shape}"
        floats = b.dtype.kind == "f"
        with np.errstate(invalid="ignore"):
            margin = max(absolute * _largest(b), remains if name.startswith(GRADIENT) else 0.0) if floats else 0.0
            if np.allclose(a, b, rtol=relative if floats else 0.0, atol=margin, equal_nan=floats):
                continue
            most = np.abs(a.astype(np.float64) - b).max()
        return f"{name}, of shape {b.shape}, by {most:.3g}"
    return None


__all__ = ["Named", "first_difference", "named_gradients", "named_results", "named_tensors", "named_values", "unit_of"]
