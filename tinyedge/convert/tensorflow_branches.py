"""TensorFlow's branches, as frozen graphs have them: Switch nodes where they begin, Merge nodes where they end."""

from __future__ import annotations

import numpy as np

from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tensorflow_file import TfNode, value_name
from tinyedge.convert.tensorflow_lowering import Lowering, lowers


@lowers("Switch", "RefSwitch")
def switch(b: Lowering, op: TfNode) -> None:
    """Its first output is the value if the condition is false, its second if it is true."""
    x, condition = b.name(op, 0), b.name(op, 1)
    known = b.known.get(condition)
    if known is not None and known.size == 1:
        taken = int(bool(known.reshape(())))
        b.alias(op, b.ref(op, 0), taken)
        b.dead.add((op.name, 1 - taken))
        return
    value, condition = b.last(x), b.last(condition)
    for number, wanted in enumerate((False, True)):
        name = value_name((op.name, number))
        b.emit("Identity", [value], name)
        b.result.raws[-1].guards += ((condition, wanted),)
        b.plain.add(name)
        b.shapes[name] = b.shapes.get(x)


@lowers("Merge", "RefMerge")
def merge(b: Lowering, op: TfNode) -> None:
    alive = [n for n in range(len(op.inputs)) if b.ref(op, n) not in b.dead]
    if not alive:
        b.dead.update((op.name, n) for n in range(2))
    elif len(alive) == 1:
        b.alias(op, b.ref(op, alive[0]))
        b.constant(value_name((op.name, 1)), np.array(alive[0], np.int32))
    else:
        _merged(b, op)


def _merged(b: Lowering, op: TfNode) -> None:
    """The value of the branch that a call takes. A branch may return a constant, which does not say where it stands."""
    if len(op.inputs) != 2 or b.uses.get((op.name, 1), 0):
        raise UnsupportedUse(f"of {len(op.inputs)} branches, or one that says which one is taken")
    values = [b.last(name) for name in b.names(op)]
    first, second = (b.branch_of(value) for value in values)
    opposite = [(name, wanted) for name, wanted in first if (name, not wanted) in second]
    if not second:
        opposite = list(first[-1:])
    elif not first:
        opposite = [(name, not wanted) for name, wanted in second[-1:]]
    if not opposite:
        raise UnsupportedUse("of values that belong to no two branches")
    condition, wanted = opposite[-1]
    shapes = [b.shapes.get(name) for name in b.names(op)]
    y = b.emit("If", [condition, *(values if wanted else values[::-1])])
    b.result.raws[-1].guards = tuple(pair for pair in first or second if pair[0] != condition)
    b.finish(op, y, False, shapes[0] if shapes[0] == shapes[1] else None)


__all__: list[str] = []
