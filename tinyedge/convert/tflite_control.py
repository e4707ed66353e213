"""TFLite's loops and branches: ops that call other graphs of the file."""

from __future__ import annotations

from tinyedge.convert.build import RawBody, RawLoop, loop_raw
from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tflite_file import Operator
from tinyedge.convert.tflite_lowering import Lowering, lowers


def _called(b: Lowering, numbers: tuple[int, int], count: int) -> list[RawBody]:
    """Two graphs of ``count`` inputs."""
    problems: list[str] = []
    found = [b.inner(number, count, problems) for number in numbers]
    if problems:
        raise UnsupportedUse(f"of {', '.join(dict.fromkeys(problems))}")
    return found


@lowers("WHILE")
def while_(b: Lowering, op: Operator) -> None:
    """A loop over tensors: one graph says whether there is another step, and one computes it."""
    o, count = op.options("WhileOptions"), len(op.inputs)
    if len(op.outputs) != count:
        b.place.refuse(b.layer, f"{count} inputs and {len(op.outputs)} outputs")
    condition, body = _called(b, (o.CondSubgraphIndex(), o.BodySubgraphIndex()), count)
    if len(condition.outputs) != 1 or len(body.outputs) != count:
        b.place.refuse(b.layer, f"its graphs return {len(condition.outputs)} and {len(body.outputs)} values")
    body.inputs, body.outputs = ("", "", *body.inputs), ("", *body.outputs)
    names = [f"{b.output(op, n)} at the end" for n in range(count)]
    inputs = ["", "", *[b.last(b.name(op, n)) for n in range(count)]]
    for raw in loop_raw(b.layer, inputs, names, RawLoop(body, condition)):
        b.add(raw)
    for n, name in enumerate(names):
        b.held.add(name)
        b.done(b.output(op, n), name, False)


@lowers("IF")
def if_(b: Lowering, op: Operator) -> None:
    """One of two graphs. The nodes of both are there, and a call passes over those of the branch that is not taken."""
    o = op.options("IfOptions")
    condition, *given = (b.last(b.name(op, n)) for n in range(len(op.inputs)))
    branches = _called(b, (o.ThenSubgraphIndex(), o.ElseSubgraphIndex()), len(given))
    for branch, wanted in zip(branches, (True, False)):
        if len(branch.outputs) != len(op.outputs):
            b.place.refuse(b.layer, f"{len(op.outputs)} outputs, and a branch returns {len(branch.outputs)}")
        for value, name in zip(given, branch.inputs):
            b.emit("Identity", [value], name)
            b.result.raws[-1].guards = ((condition, wanted),)
        for raw in branch.raws:
            raw.guards = ((condition, wanted), *raw.guards)
            b.add(raw)
    for n in range(len(op.outputs)):
        b.done(b.output(op, n), b.emit("If", [condition, *[branch.outputs[n] for branch in branches]]), False)


__all__: list[str] = []
