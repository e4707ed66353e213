"""TFLite's ops on variables: what a streaming model keeps from one call to the next."""

from __future__ import annotations

from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tflite_file import Operator, TfGraph
from tinyedge.convert.tflite_lowering import Lowering, lowers, meaning, meant


def _variable(op: Operator) -> str:
    """The name that all handles of a variable share."""
    o = op.options("VarHandleOptions")
    container, name = ((text or b"").decode("utf-8", "replace") for text in (o.Container(), o.SharedName()))
    return f"{container}/{name}" if container else name or f"variable of operator {op.number}"


@lowers("VAR_HANDLE")
def var_handle(b: Lowering, op: Operator) -> None:
    b.handles[b.output(op)] = _variable(op)


def _handle(b: Lowering, op: Operator) -> str:
    name = b.name(op, 0)
    if name not in b.handles:
        raise UnsupportedUse("of a variable without a handle")
    return b.handles[name]


@lowers("READ_VARIABLE")
def read_variable(b: Lowering, op: Operator) -> None:
    tensor = b.graph.tensors[op.outputs[0]]
    b.finish(op, b.last(b.state(_handle(b, op), tensor.shape, meant(tensor))), False)


@lowers("ASSIGN_VARIABLE")
def assign_variable(b: Lowering, op: Operator) -> None:
    variable, value = _handle(b, op), b.graph.tensors[op.inputs[1]]
    b.state(variable, value.shape, meant(value))
    b.variables[variable] = b.name(op, 1)


@lowers("CALL_ONCE")
def call_once(b: Lowering, op: Operator) -> None:
    """What it calls gives variables their first values."""
    number = op.options("CallOnceOptions").InitSubgraphIndex()
    if not 1 <= number <= len(b.graph.others):
        b.place.refuse(b.layer, f"it calls the graph {number}, and there is none")
    _starts(b, b.graph.others[number - 1])


def _starts(b: Lowering, graph: TfGraph) -> None:
    handles: dict[int, str] = {}
    for op in graph.operators:
        if op.op == "VAR_HANDLE" and not op.custom:
            handles[op.outputs[0]] = _variable(op)
            continue
        if op.op != "ASSIGN_VARIABLE" or op.custom or len(op.inputs) != 2 or op.inputs[0] not in handles:
            raise UnsupportedUse(f"of a graph with {op.op}")
        tensor = graph.tensors[op.inputs[1]]
        if tensor.data is None:
            raise UnsupportedUse("of a graph that gives a variable a computed value")
        b.starts[handles[op.inputs[0]]] = meaning(b.place, tensor, tensor.data)


__all__: list[str] = []
