"""Arguments of kernels in terms of steps, and their description as plain data.

In: an Argument (a slot, number or buffer of a step) and a layout. Out: an ArgumentSpec, which ``backends/binding.py``
binds.
"""

from __future__ import annotations

from typing import Any

from tinyedge.backends.binding import SPLIT, indexable
from tinyedge.backends.layout import ArgumentLayout
from tinyedge.errors import BackendError, ShapeError
from tinyedge.ir.program import ArgumentSpec
from tinyedge.ir.spec import MAX_RANK, KernelSpec
from tinyedge.ir.step import Step
from tinyedge.shapes import MAX_ELEMENTS

Argument = tuple[str, Step | None, Any]
"""An argument of a kernel: its kind, the step to which it belongs (None: the step of the call), and
what of the step.
"""

ARENA: Argument = ("arena", None, None)


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


def table_of(spec: KernelSpec) -> tuple[int, ...]:
    """The tables of a kernel, one behind the other, as it finds them."""
    values: list[int] = []
    for name, table in spec.tables.items():
        if len(table) > MAX_RANK:
            raise BackendError(spec.kernel, f"at most {MAX_RANK} axes that do not merge", f"{name} is {table}")
        values += [*table, *([0] * (MAX_RANK - len(table)))]
    return tuple(values)


def described(argument: Argument, ctype: str, layout: ArgumentLayout, step: Step | None = None) -> ArgumentSpec:
    """An argument as plain data. ``step``: that of the call, for an argument that belongs to no step of its own."""
    kind, owner, item = argument
    if kind == "fixed":
        return ArgumentSpec("number", ctype, value=item)
    if kind == "table":
        return ArgumentSpec("table", table=item)
    if kind == "counters":
        return ArgumentSpec("counters", value=item)
    if kind in ("arena", "range flag"):
        return ArgumentSpec(kind)
    taken = owner or step
    assert taken is not None
    if kind == "scratch":
        return ArgumentSpec("arena", index=layout.scratch(taken, item)[0])
    if kind == "scratch offset":
        name, itemsize = item
        offset = layout.scratch(taken, name)[1] // itemsize
        return ArgumentSpec("number", ctype, value=indexable("scratch memory", name, offset))
    if kind == "buffer":
        return layout.buffer(taken, item)
    if kind == "offset":
        return layout.offset(taken, item, ctype)
    if kind == "accumulates":
        return layout.accumulates(taken, item, ctype)
    return layout.value(taken, item, ctype) if kind == "value" else layout.scalar(taken, item, ctype)
