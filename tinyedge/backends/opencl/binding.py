"""Arguments of kernels: what each one is, its present value, and what it depends on.

In: an Argument (a slot, number or buffer of a step) and a Placement. Out: the value to bind, or the C text of a
constant. Eager launches and programs both bind through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyedge.backends.base import Origin, Placement
from tinyedge.backends.outside import Outside
from tinyedge.errors import ShapeError
from tinyedge.ir.kernel import BufferId
from tinyedge.ir.program import ArgumentSpec
from tinyedge.ir.spec import KernelSpec
from tinyedge.ir.step import Step
from tinyedge.shapes import INT_MAX, MAX_ELEMENTS

Argument = tuple[str, Step | None, Any]
"""An argument of a kernel: its kind, the step to which it belongs (None: the step of the call), and
what of the step.
"""

ARENA: Argument = ("arena", None, None)
COUNTERS: Argument = ("counters", None, None)

SPLIT = "Use smaller tensors: split them, or what was computed into one step."
"""What to do where kernels cannot count so far."""


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


def check_sizes(spec: KernelSpec) -> None:
    """Raise ShapeError if a size or table of the kernel is beyond what kernels can count."""
    for name, size in spec.sizes.items():
        indexable(spec.kernel, name, size)
    for item in spec.scratch:
        if item.numel > MAX_ELEMENTS:
            raise ShapeError(
                spec.kernel,
                f"scratch memory of at most {MAX_ELEMENTS} elements: kernels index with 32-bit ints",
                f"{item.name} has {item.numel}",
                SPLIT,
            )
    for name, table in spec.tables.items():
        for size in table:
            indexable(spec.kernel, name, size)


def value_of(argument: Argument, step: Step | None, scratch: Mapping[BufferId, tuple[Any, int]]) -> Any:
    """The value to bind. ``step`` is that of the call, for an argument that belongs to no step of its own."""
    kind, owner, item = argument
    if kind == "fixed":
        return item
    if kind in ("table", "range flag"):
        return item.handle
    if kind == "arena":
        return next(iter(scratch.values()))[0].handle
    taken = owner or step
    assert taken is not None
    if kind == "scratch":
        return scratch[taken.number, item][0].handle
    if kind == "scratch offset":
        name, itemsize = item
        return indexable("scratch memory", name, scratch[taken.number, name][1] // itemsize)
    if kind == "value":
        return taken.slots[item].number
    if kind == "scalar":
        return taken.scalars[item]
    if kind == "accumulates":
        return 1 if item in taken.accumulate else 0
    slot = taken.slots[item]
    if kind == "offset":
        offset = slot.offset + slot.storage.buffer.offset // slot.dtype.stride
        return offset if offset <= INT_MAX else indexable(taken.op.name, f"the offset of {item}", offset)
    return slot.storage.buffer.handle


def constant_text(argument: Argument, placement: Placement) -> str | None:
    """The C text of an argument that is the same at every call; None for others."""
    kind, owner, item = argument
    if kind == "fixed":
        return str(item) if isinstance(item, int) else None
    if owner is None:
        return None
    if kind == "scratch offset":
        name, itemsize = item
        return str(indexable("scratch memory", name, placement.where[owner.number, name][1] // itemsize))
    if kind == "offset" and owner.slots[item].storage.number in placement.temporary:
        return str(indexable(owner.op.name, f"the offset of {item}", owner.slots[item].offset))
    if kind == "accumulates" and owner.slots[item].storage.number in placement.temporary:
        return "1" if item in owner.accumulate else "0"
    return None


def identity(argument: Argument, placement: Placement) -> Any:
    """A key that is equal for arguments that have equal values at every call."""
    kind, owner, item = argument
    if owner is not None and kind in ("buffer", "offset"):
        slot = owner.slots[item]
        number = slot.storage.number
        if kind == "buffer":  # what stays may share one with others
            if number in placement.temporary:
                return "chunk", placement.where[number][0]
            return kind, number if number in placement.moving else ("handle", id(slot.storage.buffer.handle))
        return kind, number, slot.offset, slot.dtype.stride
    if kind == "scratch" and owner is not None:
        return "chunk", placement.where[owner.number, item][0]
    return (kind, id(item)) if owner is None else (kind, owner.number, item)


def origin_of(argument: Argument) -> Origin | None:
    """What an argument of a program's launch depends on; None if it never changes."""
    kind, owner, item = argument
    if owner is None or kind.startswith("scratch"):
        return None
    if kind in ("buffer", "offset"):
        return "storage", owner.slots[item].storage.number
    return "step", owner.number


def described(argument: Argument, ctype: str, layout: Outside) -> ArgumentSpec:
    """An argument as plain data. ``layout`` numbers what lies outside of the arena, and scalars."""
    kind, owner, item = argument
    if kind == "fixed":
        return ArgumentSpec("number", ctype, value=item)
    if kind == "table":
        return ArgumentSpec("table", table=item.values)
    if kind == "range flag":
        return ArgumentSpec("range flag")
    if argument == ARENA:
        return ArgumentSpec("arena")
    assert owner is not None
    if kind == "scratch":
        return ArgumentSpec("arena", index=layout.where[owner.number, item][0])
    if kind == "scratch offset":
        name, itemsize = item
        return ArgumentSpec("number", ctype, value=layout.where[owner.number, name][1] // itemsize)
    if kind == "value":
        return ArgumentSpec("number", ctype, value=owner.slots[item].number)
    if kind == "scalar":
        return ArgumentSpec("scalar", ctype, layout.scalar(owner, item))
    slot = owner.slots[item]
    number = slot.storage.number
    if number in layout.where:
        if kind == "accumulates":
            return ArgumentSpec("number", ctype, value=int(item in owner.accumulate))
        if kind == "buffer":
            return ArgumentSpec("arena", index=layout.where[number][0])
        return ArgumentSpec("number", ctype, value=slot.offset)
    index = layout.outside(slot)
    if kind == "buffer":
        return ArgumentSpec("outside", index=index)
    if kind == "accumulates" and (owner.number, item) in layout.first_writes:
        return ArgumentSpec("accumulates", ctype, index)
    if kind == "accumulates":
        return ArgumentSpec("number", ctype, value=int(item in owner.accumulate))
    return ArgumentSpec("offset", ctype, index, slot.offset - layout.begins(number), slot.dtype.stride)
