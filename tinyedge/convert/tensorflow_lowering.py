"""From TensorFlow's nodes to ONNX's ops: what the outputs need is walked, so order and what is unused do not count."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from copy import copy
from typing import Any, NoReturn

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.build import FAULTS, Parts, Raw, RawBody
from tinyedge.convert.checks import MAX_NODES, Place, shown
from tinyedge.convert.graph import Array, Dims, Port
from tinyedge.convert.layouts import Layouts, UnsupportedUse
from tinyedge.convert.nodes import Guards
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.convert.tensorflow_file import DTYPES, Ref, Tensors, TfNode, dims_of, reference, value_name
from tinyedge.convert.tensorflow_writer import TensorflowSource
from tinyedge.errors import ArgumentError, ModelFormatError, UnsupportedOpError

Emitter = Callable[["Lowering", TfNode], None]
EMITTERS: dict[str, Emitter] = {}
WITHOUT_VALUE = ("Const", "Placeholder", "PlaceholderWithDefault", "NoOp", "Assert")
"""Ops that are no output of a model, even if nothing reads them."""


def lowers(*names: str) -> Callable[[Emitter], Emitter]:
    """Enter what turns an op of TensorFlow into ops of ONNX."""

    def enter(function: Emitter) -> Emitter:
        assert EMITTERS.keys().isdisjoint(names), f"one of {names} has two lowerings"
        EMITTERS.update(dict.fromkeys(names, function))
        return function

    return enter


CONDITIONS = {"Switch": 1, "RefSwitch": 1, "If": 0, "StatelessIf": 0}
"""By the op: which input decides what is computed."""

SCOPED = ("turned", "plain", "again", "known", "shapes", "aliases", "makers", "origins", "lowered", "uses", "batched",
          "dilated")  # fmt: skip
"""What is known of values, some of which are inside a loop alone."""

LOGICAL = ("Identity", "StopGradient", "LogicalNot", "LogicalAnd", "LogicalOr", "Switch")
"""Ops through which a condition comes from a placeholder."""


class Lowering(Layouts):
    """One file. A node that cannot be lowered is a problem only where an output needs it."""

    def __init__(self, place: Place, nodes: dict[str, TfNode], source: TensorflowSource) -> None:
        super().__init__(Parts(place, [], [], source))
        self.nodes, self.source = nodes, source
        self.tensors = Tensors(place)
        self.aliases: dict[Ref, Ref] = {}
        self.dead: set[Ref] = set()  # outputs of a branch that is not taken
        self.failed: dict[str, str] = {}  # values without a lowering, and why
        self.uses: dict[Ref, int] = {}
        self.begins: set[Ref] = set()
        self.batched: dict[str, tuple[str, Array, Array]] = {}  # values that SpaceToBatchND made
        self.dilated: dict[str, Callable[[Array, Array], str | None]] = {}  # convolutions of such, as dilated ones
        self.frames: dict[str, Any] = {}  # loops, by the names of their Exit nodes
        self.lowered: set[str] = set()
        self.assumed: list[str] = []  # placeholders that were taken as False
        self.waited: set[str] = set()  # nodes that others only come after
        for node in nodes.values():
            if node.op != "NoOp":  # which gathers all that a function does
                self.waited.update(text[1:] for text in node.proto.input if text.startswith("^"))
            for ref in node.inputs:
                self.uses[ref] = self.uses.get(ref, 0) + 1

    def moved(self, name: str, turn: tuple[int, ...]) -> None:
        self.source.turns[name] = turn

    def parts(
        self, inputs: Sequence[str] | None, outputs: Sequence[str] | None, fixed: Mapping[str, Array] | None = None
    ) -> Parts:
        """The graph between these; without them from its placeholders to what nothing reads. Values that are ``fixed``
        are constants. So are, without ``inputs``, booleans that only choose branches: they are False.
        """
        held = {self._named("fixed", text): value for text, value in (fixed or {}).items()}
        if inputs is None:
            for name in self._choosing():
                held.setdefault((name, 0), np.array(False))
                if name not in (fixed or {}):
                    self.assumed.append(name)
            starts = [(node.name, 0) for node in self.nodes.values() if node.op == "Placeholder"]
            starts = [ref for ref in starts if ref not in held]
        else:
            starts = [self._named("inputs", text) for text in inputs]
        if outputs is None:
            inner = self._behind([merge.name for frame in self.frames.values() for merge in frame.merges], self.frames)
            ends = [
                (node.name, 0)
                for node in self.nodes.values()
                if node.op not in WITHOUT_VALUE
                and node.name not in self.waited
                and node.name not in inner
                and not self._is_read(node)
            ]
            if any(ref[0] not in self.frames for ref in ends):  # what a loop has besides, say its counter
                ends = [ref for ref in ends if ref[0] not in self.frames]
            computed = self._behind([name for name, _ in starts], ())
            if any(ref[0] in computed for ref in ends):  # a function's graph also ends in weights that it read
                ends = [ref for ref in ends if ref[0] in computed]
        else:
            ends = [self._named("outputs", text) for text in outputs]
        if not ends:
            self.place.refuse("the graph", "nothing in it is an output")
        self.begins = {*starts, *held}
        for ref, value in held.items():
            self.constant(value_name(ref), value)
        for ref in ends:
            self.uses[ref] = self.uses.get(ref, 0) + 1
        order = self._order(ends)
        reached = {ref for name in order for ref in self._given(name)} | set(ends)
        for ref in starts:
            if ref in reached or inputs is not None:
                self.result.inputs.append(self._port(ref))
                self.plain.add(value_name(ref))
        for name in order:
            self._lower(self.nodes[name])
        alive = [ref for ref in ends if not self._in_branch(ref)]
        for ref in alive if outputs is None and alive else ends:
            self._end(ref)
        needed = self._prune()
        if inputs is None:  # what only a branch that is not taken reads is no input
            self.result.inputs = [port for port in self.result.inputs if port.name in needed]
        return self.result

    def _choosing(self) -> list[str]:
        """The boolean placeholders that decide which branch is taken, such as "phase_train"."""
        pending = [node.inputs[place] for node in self.nodes.values()
                   for place in [CONDITIONS.get(node.op, 16)] if place < len(node.inputs)]  # fmt: skip
        seen: set[str] = set()
        while pending:
            node = self.nodes[pending.pop()[0]]
            if node.name not in seen:
                seen.add(node.name)
                pending += node.inputs if node.op in LOGICAL else []
        found = [self.nodes[name] for name in self.nodes if name in seen and self.nodes[name].op == "Placeholder"]
        return [node.name for node in found if node.kind("dtype", 0) == 10]

    def _behind(self, names: Sequence[str], barred: Container[str]) -> set[str]:
        """The nodes that follow from these, up to the barred ones; inside loops none of them is an output."""
        users: dict[str, list[str]] = {}
        for node in self.nodes.values() if names else ():
            for name, _ in node.inputs:
                users.setdefault(name, []).append(node.name)
        pending, found = list(names), set[str]()
        while pending:
            name = pending.pop()
            if name not in found and name not in barred:
                found.add(name)
                pending += users.get(name, [])
        return found

    def _is_read(self, node: TfNode) -> bool:
        return any(self.uses.get((node.name, number), 0) for number in range(16))

    def _named(self, which: str, text: str) -> Ref:
        ref = reference(text)
        if ref[0] not in self.nodes:
            near = [name for name in self.nodes if text.split("/")[-1] in name][:5] or list(self.nodes)[-5:]
            raise ArgumentError(
                self.place.call, f"{which} must be names of nodes", f"got {text!r}",
                f"Some are: {', '.join(map(shown, near))}.",
            )  # fmt: skip
        return ref

    def _order(self, ends: Sequence[Ref]) -> list[str]:
        """The nodes that the outputs need, each after those that it reads."""
        order: list[str] = []
        state: dict[str, bool] = {}  # False while its inputs are walked
        stack = [name for name, _ in reversed(ends)]
        while stack:
            name = stack[-1]
            if name not in state:
                state[name] = False
                needed = [] if (name, 0) in self.begins else self._given(name)
                for given in (ref[0] for ref in map(self.resolved, needed) if ref not in self.begins):
                    if state.get(given) is False:
                        self._problem_of_loop(given)
                    if given not in state:
                        stack.append(given)
                continue
            stack.pop()
            if not state[name]:
                state[name] = True
                order.append(name)
        return order

    def _given(self, name: str) -> list[Ref]:
        """What a node reads; at the end of a loop, what the loop does: its own nodes are lowered with it."""
        frame = self.frames.get(name)
        if frame is None:
            return self.nodes[name].inputs
        return [ref for enter in frame.enters for ref in enter.inputs]

    def inside(self, ref: Ref) -> Ref:
        """Where a value of a loop comes from: a Merge, or the node that computes it."""
        seen = 0
        while seen <= len(self.nodes):
            node, seen = self.nodes[ref[0]], seen + 1
            if node.op in ("Identity", "Switch", "RefSwitch", "Enter", "RefEnter") and node.inputs:
                ref = node.inputs[0]
            else:
                return ref
        return ref

    def scoped(self, names: Sequence[str], ends: Sequence[Ref], merges: Mapping[Ref, int]) -> RawBody:
        """The nodes of a part of a loop, between its values ``names`` and ``ends``; they are there alone."""
        raws, self.result.raws = self.result.raws, []
        kept = {name: copy(getattr(self, name)) for name in SCOPED}
        begins, self.begins = self.begins, self.begins | merges.keys()
        self.plain.update(names)
        for name in self._order(ends):
            if name not in self.lowered and (name, 0) not in self.begins:
                self._lower(self.nodes[name])
        made = self.result.raws
        lacking = [self.failed.get(raw.outputs[0]) for raw in made if not raw.op]
        if not lacking:
            outputs = tuple(self.last(value_name(self.resolved(ref))) for ref in ends)
            dims = [self.shapes.get(name) for name in outputs]
        self.result.raws, self.begins = raws, begins
        for name, value in kept.items():
            setattr(self, name, value)
        for name in self.turns:
            self.known.pop(name, None)
        if lacking:
            raise UnsupportedUse(f"of a loop with {', '.join(text for text in lacking if text)}")
        self.shapes.update(zip(outputs, dims))
        return RawBody(made, tuple(names), outputs)

    def _problem_of_loop(self, name: str) -> NoReturn:
        node = self.nodes[name]
        if any(other.op in ("NextIteration", "RefNextIteration") for other in self.nodes.values()):
            self.place.unsupported([f"a loop (node {shown(name)!r})"])
        self.place.refuse(f"{shown(node.op)} {shown(name)!r}", "it reads what it computes")

    def _port(self, ref: Ref) -> Port:
        node = self.nodes[ref[0]]
        dims: Dims | None = None
        try:
            kind = node.kind("dtype", 0) or node.kind("DstT", 0) or node.kind("T", 0)
            if ref[1] == 0 and "shape" in node.proto.attr and node.op.startswith("Placeholder"):
                dims = dims_of(node.attribute("shape", "shape", None))
            elif "_output_shapes" in node.proto.attr:
                known = node.attribute("_output_shapes", "list", None).shape
                dims = dims_of(known[ref[1]]) if ref[1] < len(known) else None
        except FAULTS as error:
            self.place.refuse(f"{shown(node.op)} {shown(node.name)!r}", shown(error))
        dims = None if dims == () and node.op == "Placeholder" else dims  # old converters leave it empty
        dtype = dtypes.resolve(DTYPES[kind]) if kind in DTYPES else None
        self.shapes[value_name(ref)] = dims
        return Port(value_name(ref), dtype, dims)

    def _lower(self, node: TfNode) -> None:
        if (node.name, 0) in self.begins:
            return
        self.layer = node.name
        self.lowered.add(node.name)
        if node.op != "Merge" and any(self.resolved(ref) in self.dead for ref in node.inputs):
            self.dead.update((node.name, number) for number in range(16))
            return
        emitter = EMITTERS.get(node.op)
        try:
            if emitter is None:
                self._fail(node, "")
            else:
                emitter(self, node)
        except UnsupportedUse as error:
            self._fail(node, str(error))
        except (ModelFormatError, UnsupportedOpError):
            raise
        except FAULTS as error:  # a host's value that an op refuses is one of them
            self.place.refuse(
                f"{shown(node.op)} {shown(node.name)!r}", f"it is not whole ({type(error).__name__}: {shown(error)})"
            )
        if len(self.result.raws) > 4 * MAX_NODES:
            self.place.refuse("the graph", "it has too many ops")

    def _fail(self, node: TfNode, why: str) -> None:
        """Note that a node has no lowering. Its inputs are needed nevertheless: what else is lacking is listed too."""
        given = tuple(value_name(self.resolved(ref)) for ref in node.inputs)
        text = f"{shown(node.op)} {why}{' ' if why else ''}(node {shown(node.name)!r})"
        handler = ONNX.own("Identity", 1)
        numbers = [number for number in range(16) if number == 0 or self.uses.get((node.name, number), 0)]
        names = [value_name((node.name, number)) for number in numbers]
        text = "" if why and any(value in self.failed for value in given) else text
        self.failed.update(dict.fromkeys(names, text))
        missing = tuple(name for name in names if name not in self.plain and name not in self.turned)
        if missing:
            self.result.raws.append(Raw("", node.name, given, missing, handler, {}, None))
            self.plain.update(missing)

    def _end(self, ref: Ref) -> None:
        """A value that the model returns, under its own name."""
        name, given = value_name(ref), value_name(self.resolved(ref))
        node = self.nodes[ref[0]]
        self.layer = node.name
        if self._in_branch(ref):
            self.place.unsupported([f"an output of a branch that is not taken, or not always ({shown(name)!r})"])
        try:
            value = self.last(given)
        except UnsupportedUse as error:
            self._fail(node, str(error))
            value = given
        if value != name and name not in self.plain:
            self.emit("Identity", [value], name)
            self.plain.add(name)
        self.result.outputs.append(Port(name, None, self.shapes.get(given)))

    def _prune(self) -> set[str]:
        """Leave out what no output needs, and list what is needed and lacking. The names of what is needed."""
        needed = {port.name for port in self.result.outputs}
        kept = []
        for raw in reversed(self.result.raws):
            if needed.isdisjoint(raw.outputs):
                continue
            needed.update(raw.inputs)
            kept.append(raw)
        self.result.raws[:] = kept[::-1]
        problems = [text for name, text in self.failed.items() if name in needed and text]
        if problems or any(not raw.op for raw in kept):
            self.place.unsupported(
                problems, "Give from_tensorflow inputs= and outputs= between which there are none, or freeze it again."
            )
        self.result.arrays = {name: array for name, array in self.result.arrays.items() if name in needed}
        return needed

    # Values

    def add(self, raw: Raw) -> None:
        if raw.op != "If":  # what reads a value of a branch is in the branch
            inherited = [pair for name in raw.inputs for pair in self.branch_of(name)]
            raw.guards = tuple(dict.fromkeys((*raw.guards, *inherited)))
        super().add(raw)

    def branch_of(self, name: str) -> Guards:
        """The conditions under which a value is computed."""
        raw = self.makers.get(name) or self.makers.get(self.turned.get(name, ""))
        return () if raw is None else raw.guards

    def _in_branch(self, ref: Ref) -> bool:
        """Whether there are calls that do not compute a value."""
        ref = self.resolved(ref)
        return ref in self.dead or bool(self.branch_of(value_name(ref)))

    def resolved(self, ref: Ref) -> Ref:
        """The value that another one only is a name of."""
        while ref in self.aliases and ref not in self.begins:
            ref = self.aliases[ref]
        return ref

    def alias(self, node: TfNode, given: Ref, number: int = 0) -> None:
        given = self.resolved(given)
        self.aliases[node.name, number] = given
        self.uses[given] = self.uses.get(given, 0) + self.uses.get((node.name, number), 0) - 1

    def maker(self, ref: Ref) -> TfNode | None:
        """The node that computes a value, if it is none of the inputs."""
        ref = self.resolved(ref)
        return None if ref in self.begins or ref[1] else self.nodes[ref[0]]

    def absent(self, name: str) -> NoReturn:
        raise UnsupportedUse(f"that reads {shown(name)!r}, which is not computed")

    def ref(self, node: TfNode, position: int) -> Ref:
        if position >= len(node.inputs):
            raise ValueError(f"it lacks its input {position}")
        return self.resolved(node.inputs[position])

    def name(self, node: TfNode, position: int) -> str:
        """An input's name."""
        return value_name(self.ref(node, position))

    def names(self, node: TfNode) -> list[str]:
        return [self.name(node, n) for n in range(len(node.inputs))]

    def value(self, node: TfNode, position: int) -> Array:
        """An input that must be known."""
        name = self.name(node, position)
        if name in self.known:
            return self.known[name]
        if name in self.result.arrays and name not in self.turns:
            return self.result.arrays[name]
        raise UnsupportedUse(f"whose input {position} is computed")

    def numbers(self, node: TfNode, position: int) -> tuple[int, ...]:
        """Such an input, as integers."""
        array = self.value(node, position)
        if array.dtype.kind not in "iu" or array.size > 1024:
            raise ValueError(f"its input {position} must be integers")
        return tuple(int(number) for number in array.reshape(-1))

    def finish(self, node: TfNode, value: str, first: bool, dims: Dims | None = None, number: int = 0) -> None:
        """``value`` is the output of a node; ``dims`` in the file's order."""
        name = value_name((node.name, number))
        if value in self.known and not first:
            dims = self.known[value].shape
        self.shapes[name] = dims
        self.done(name, value, first)

    def only_user(self, node: TfNode, position: int) -> bool:
        """Whether nothing else reads an input, by any of its names."""
        return self.uses.get(self.ref(node, position), 0) <= 1


__all__ = ["EMITTERS", "Lowering", "lowers"]
