"""The binder: what each argument of a launch is bound to at present, and what that depends on.

In: ArgumentSpecs, and Places. Out: values. Eager calls, programs, and ProgramSpecs that were loaded from files all bind
through here; it knows no steps.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tinyedge.errors import ShapeError
from tinyedge.ir.program import ArgumentSpec
from tinyedge.ir.values import Slot
from tinyedge.shapes import INT_MAX

SPLIT = "Use smaller tensors: split them, or what was computed into one step."
"""What to do where kernels cannot count so far."""

Origin = tuple[str, int]
"""What an argument of a launch depends on: "arena", "outside", "scalar" or "accumulates", and the index there."""


class Places:
    """What launches are bound to, by the indices of their ArgumentSpecs.

    ``outside``: for each memory outside of the arena, a view that begins at its first element. ``chunks``: the buffers
    of the arena. ``scalars``: numbers. ``accumulates``: the memories outside to whose contents a call adds.
    """

    __slots__ = ("accumulates", "chunks", "outside", "scalars")

    def __init__(
        self, outside: list[Slot], chunks: list[Any], scalars: list[float], accumulates: Collection[int]
    ) -> None:
        self.outside = outside
        self.chunks = chunks
        self.scalars = scalars
        self.accumulates = accumulates


def value_of(argument: ArgumentSpec, places: Places) -> Any:
    """The value to bind, of an argument that is not the launch's own (a table, counters, or the range flag)."""
    kind, index = argument.kind, argument.index
    if kind == "outside":
        return places.outside[index].storage.buffer.handle
    if kind == "offset":
        slot = places.outside[index]
        first = slot.storage.buffer.offset
        if slot.offset:
            first += slot.offset * slot.dtype.stride
        offset = first // argument.itemsize + argument.value
        return offset if offset <= INT_MAX else indexable("a launch", "the offset of an argument", int(offset))
    if kind == "scalar":
        return places.scalars[index]
    if kind == "number":
        return argument.value
    if kind == "arena":
        return places.chunks[index].handle
    return 1 if index in places.accumulates else 0


def origin_of(argument: ArgumentSpec) -> Origin | None:
    """What the value depends on; None if it never changes."""
    if argument.kind == "offset":
        return "outside", argument.index
    if argument.kind in ("arena", "outside", "scalar", "accumulates"):
        return argument.kind, argument.index
    return None


def indexable(kernel: str, name: str, value: int) -> int:
    """``value``, a size or an offset. Errors: ShapeError if kernels cannot count so far."""
    if not -INT_MAX - 1 <= value <= INT_MAX:
        raise ShapeError(
            kernel,
            f"sizes, strides and offsets of at most {INT_MAX}: kernels index with 32-bit ints",
            f"{name} is {value}",
            SPLIT,
        )
    return value
