"""TensorFlow's while loops, as frozen graphs have them: nodes that pass values round (Enter, Merge, Switch,
NextIteration, Exit), and lists of tensors that steps read and write.

A loop becomes a Loop over the values of its Merge nodes. A list that a step writes once becomes a value that is put
together over the steps; one that is only read is the tensor that it was made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinyedge.convert.build import RawLoop, loop_raw
from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tensorflow_file import Ref, TfNode, value_name
from tinyedge.convert.tensorflow_lowering import Lowering, lowers

WRITES = {"TensorArrayWriteV3": (1, 2, 3), "TensorListSetItem": (1, 2, 0)}
"""By the op: where the index, the value and the list before stand."""


@dataclass
class Frame:
    """A loop: its nodes by name, and for each Merge what it begins with and what the next step has."""

    enters: list[TfNode] = field(default_factory=list)
    merges: list[TfNode] = field(default_factory=list)
    begins: list[Ref] = field(default_factory=list)
    nexts: list[Ref] = field(default_factory=list)
    switches: list[tuple[TfNode, TfNode]] = field(default_factory=list)  # each with its Merge
    exits: dict[str, int] = field(default_factory=dict)  # by the Exit's name: which Merge's value
    condition: Ref | None = None


def _enter_variable(
    frame: Frame, enter: TfNode, merge: TfNode, nodes: Mapping[str, TfNode], users: Mapping[Ref, Sequence[TfNode]]
) -> None:
    """Note the variable of a loop that begins as ``enter``, unless ``merge``, a user of it, is another kind of node."""
    if merge.op not in ("Merge", "RefMerge") or len(merge.inputs) != 2 or merge.inputs[0] != (enter.name, 0):
        return
    after = nodes[merge.inputs[1][0]]
    if after.op not in ("NextIteration", "RefNextIteration") or len(after.inputs) != 1:
        return
    number = len(frame.merges)
    frame.merges.append(merge)
    frame.begins.append(enter.inputs[0])
    frame.nexts.append(after.inputs[0])
    for switch in users.get((merge.name, 0), ()):
        if switch.op not in ("Switch", "RefSwitch") or len(switch.inputs) != 2:
            continue
        decides = nodes[switch.inputs[1][0]]
        if decides.op == "LoopCond" and switch.inputs[0] == (merge.name, 0):
            frame.switches.append((switch, merge))
            frame.condition = decides.inputs[0]
            exits = [user.name for user in users.get((switch.name, 0), ()) if user.op in ("Exit", "RefExit")]
            frame.exits.update(dict.fromkeys(exits, number))


def frames_of(nodes: dict[str, TfNode]) -> dict[str, Frame]:
    """The loops by the names of their Exit nodes. Errors: ValueError for nodes that make none."""
    frames: dict[str, Frame] = {}
    users: dict[Ref, list[TfNode]] = {}
    for node in nodes.values():
        for ref in node.inputs:
            users.setdefault(ref, []).append(node)
        if node.op in ("Enter", "RefEnter"):
            frames.setdefault(node.text("frame_name"), Frame()).enters.append(node)
    found: dict[str, Frame] = {}
    for frame in frames.values():
        for enter in frame.enters:
            for merge in users.get((enter.name, 0), ()):
                _enter_variable(frame, enter, merge, nodes, users)
        found.update(dict.fromkeys(frame.exits, frame))
    return found


def lower_frame(b: Lowering, frame: Frame, exit_node: TfNode) -> None:
    """All results of a loop, at the first of its Exit nodes."""
    if frame.condition is None:
        raise UnsupportedUse("of a loop without a condition")
    inner = {node.name for node in frame.enters}
    if any(b.nodes[ref[0]].op in ("Enter", "Exit") and ref[0] not in inner for ref in frame.nexts):
        raise UnsupportedUse("of a loop in a loop")
    for enter in frame.enters:
        b.alias(enter, b.ref(enter, 0))
    for switch, merge in frame.switches:
        b.aliases[switch.name, 1] = (merge.name, 0)
    places = {(merge.name, 0): number for number, merge in enumerate(frame.merges)}
    counters = {number for number in range(len(frame.merges)) if _counts(b, frame, number)}
    writes = {number: write for number in places.values() if (write := _written(b, frame, number)) is not None}
    lasts = set()  # lists of one place, which each step writes
    for number, write in writes.items():
        index = b.inside(write.inputs[WRITES[write.op][0]])
        if _is_zero(b, index):
            lasts.add(number)
        elif places.get(index) not in counters:
            raise UnsupportedUse("of a list that a step writes at another place than its own")
        if any(
            node.op in ("TensorArrayReadV3", "TensorListGetItem") and b.inside(ref) == (frame.merges[number].name, 0)
            for node in b.nodes.values()
            for ref in node.inputs
        ):
            raise UnsupportedUse("of a list that a step reads and writes")
    kept = [number for number in range(len(frame.merges)) if number not in writes]
    names = [frame.merges[number].name for number in kept]
    begins = [b.last(value_name(b.resolved(frame.begins[number]))) for number in kept]
    for number in kept:
        b.shapes[frame.merges[number].name] = b.shapes.get(value_name(b.resolved(frame.begins[number])))
    condition = b.scoped(names, [frame.condition], places)
    nexts = [frame.nexts[number] for number in kept]
    rows = [writes[number].inputs[WRITES[writes[number].op][1]] for number in writes]
    body = b.scoped(names, [*nexts, *rows], places)
    dims = [b.shapes.get(name) for name in body.outputs]
    body.inputs, body.outputs = ("", "", *body.inputs), ("", *body.outputs)
    b.layer = exit_node.name
    results = [f"{name} at the end" for name in names] + [f"{frame.merges[number].name} rows" for number in writes]
    for raw in loop_raw(exit_node.name, ["", "", *begins], results, RawLoop(body, condition)):
        b.add(raw)
    made = dict(zip([*kept, *writes], results))
    for name, number in frame.exits.items():
        after = dims[[*kept, *writes].index(number)]
        value = made[number]
        b.shapes[name] = after if number not in writes or after is None else (1 if number in lasts else None, *after)
        b.held.add(value)
        if number in lasts:
            value = b.emit("Slice", [value, b.host([-1]), b.host([np.iinfo(np.int64).max]), b.host([0])])
        b.done(name, value, False)


def _counts(b: Lowering, frame: Frame, number: int) -> bool:
    """Whether a value begins with 0 and each step adds 1."""
    begin = b.known.get(value_name(b.resolved(frame.begins[number])))
    node = b.nodes[b.inside(frame.nexts[number])[0]]
    if begin is None or begin.size != 1 or begin.reshape(()) != 0 or node.op not in ("Add", "AddV2"):
        return False
    own = (frame.merges[number].name, 0)
    refs = [b.inside(ref) for ref in node.inputs]
    steps = [b.nodes[ref[0]] for ref in refs if ref != own]
    if len(refs) != 2 or len(steps) != 1 or steps[0].op != "Const":
        return False
    value = b.tensors.read(steps[0].attribute("value", "tensor", None), steps[0].name)[0]
    return bool(value.size == 1 and value.reshape(()) == 1)


def _is_zero(b: Lowering, ref: Ref) -> bool:
    node = b.nodes[ref[0]]
    if node.op != "Const":
        return False
    value = b.tensors.read(node.attribute("value", "tensor", None), node.name)[0]
    return bool(value.size == 1 and value.reshape(()) == 0)


def _written(b: Lowering, frame: Frame, number: int) -> TfNode | None:
    """What writes the list that a value is, if it is one."""
    node = b.nodes[b.inside(frame.nexts[number])[0]]
    if node.op not in WRITES or len(node.inputs) <= max(WRITES[node.op]):
        return None
    return node if b.inside(node.inputs[WRITES[node.op][2]]) == (frame.merges[number].name, 0) else None


@lowers("Exit", "RefExit")
def leave(b: Lowering, op: TfNode) -> None:
    frame = b.frames.get(op.name)
    if frame is None:
        raise UnsupportedUse("of a loop that is not whole")
    if op.name not in b.plain:  # another result of the loop has made this one
        lower_frame(b, frame, op)


@lowers("TensorArrayV3", "TensorListReserve", "EmptyTensorList")
def new_list(b: Lowering, op: TfNode) -> None:
    """Nothing is in it yet: a loop that writes it makes it."""


def _is_range(b: Lowering, ref: Ref) -> bool:
    """Whether indices are 0, 1, and so on: all places of a list, in order."""
    ref = b.resolved(ref)
    known = b.known.get(value_name(ref))
    if known is not None:
        return bool(known.ndim == 1 and np.array_equal(known, np.arange(known.size)))
    node = b.maker(ref)
    if node is None or node.op != "Range" or len(node.inputs) != 3:
        return False
    ends = [b.known.get(value_name(b.resolved(node.inputs[place]))) for place in (0, 2)]
    return all(end is not None and end.size == 1 and end.reshape(()) == wanted for end, wanted in zip(ends, (0, 1)))


@lowers("TensorArrayScatterV3", "TensorListFromTensor")
def list_of_rows(b: Lowering, op: TfNode) -> None:
    scatters = op.op == "TensorArrayScatterV3"
    if scatters and not _is_range(b, op.inputs[1]):
        raise UnsupportedUse("to other places than all, in order")
    b.alias(op, b.ref(op, 2 if scatters else 0))


@lowers("TensorArrayGatherV3", "TensorListStack")
def rows_of_list(b: Lowering, op: TfNode) -> None:
    gathers = op.op == "TensorArrayGatherV3"
    if gathers and not _is_range(b, op.inputs[1]):
        raise UnsupportedUse("of other places than all, in order")
    b.alias(op, b.ref(op, 2 if gathers else 0))


@lowers("TensorArrayReadV3", "TensorListGetItem")
def item(b: Lowering, op: TfNode) -> None:
    rows = b.name(op, 2 if op.op == "TensorArrayReadV3" else 0)
    dims = b.shapes.get(rows)
    b.finish(
        op, b.emit("Gather", [b.last(rows), b.last(b.name(op, 1))], axis=0), False, None if dims is None else dims[1:]
    )


@lowers("TensorArraySizeV3", "TensorListLength")
def length(b: Lowering, op: TfNode) -> None:
    rows = b.name(op, 1 if op.op == "TensorArraySizeV3" else 0)
    first = b.emit("Gather", [b.emit("Shape", [b.last(rows)]), b.host(0)], axis=0)
    b.finish(op, b.emit("Cast", [first], to=6), False, ())


__all__ = ["Frame", "frames_of"]
