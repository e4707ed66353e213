"""from_onnx: an ONNX file as a GraphModel."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyedge import dtypes, files
from tinyedge.backends import Backend
from tinyedge.convert import (  # noqa: F401  they enter handlers
    detection,
    onnx_arithmetic,
    onnx_attention,
    onnx_decoders,
    onnx_deform,
    onnx_host,
    onnx_indexing,
    onnx_layers,
    onnx_microsoft,
    onnx_qlinear,
    onnx_quantised,
    onnx_random,
    onnx_recurrent,
    onnx_resize,
    onnx_sequences,
    onnx_shapes,
    onnx_signal,
    regions,
)
from tinyedge.convert.build import FAULTS, Parts, Raw, RawBody, RawLoop, build, loop_raw
from tinyedge.convert.checks import MAX_FOLDED_ELEMENTS, MAX_NODES, Place, shown
from tinyedge.convert.graph import Array, GraphModel, Port
from tinyedge.convert.handlers import Handler
from tinyedge.convert.nodes import Guards
from tinyedge.convert.onnx_dynamic import INT32, PRODUCTS, Neighbours, fits
from tinyedge.convert.onnx_file import ATTRIBUTES, FOUR_BITS, Tensors, checked_nodes, dims_of, opset_of, parsed, port_of
from tinyedge.convert.onnx_quantised import (
    DYNAMIC,
    GATHER,
    LSTM,
    N_BITS,
    OF_WEIGHTS,
    QUANTISED,
    RESULTS,
    TO_FLOAT,
    Quantised,
    in_blocks,
    spread,
    weights_of,
)
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.convert.onnx_scan import Scanned, scan_raws
from tinyedge.convert.onnx_sequences import MAKERS, PASSING, READERS
from tinyedge.convert.onnx_writer import OnnxSource, Trail
from tinyedge.errors import ArgumentError, ShapeError

INPUT_KEYS = ("scan_input_axes", "scan_input_directions")
OUTPUT_KEYS = ("scan_output_axes", "scan_output_directions")
MAX_DEPTH = 16
"""Of graphs in branches of graphs."""


def from_onnx(
    path: str | os.PathLike[str],
    *,
    fixed: Mapping[str, Any] | None = None,
    dtype: Any = None,
    dequantize: bool = False,
    device: str | Backend | None = None,
) -> GraphModel:
    """The model of an ONNX file, on ``device``, with the file's weights as parameters by the file's names.

    Weights of 16 bits become float32, in which the model computes, as ONNX Runtime does on a CPU; inputs and outputs
    are of the file's types. With ``dtype`` these weights, inputs and outputs have that type: te.float32 spares a loss
    the rounding of what is returned, te.float16 leaves the weights in 16 bits. Weights in files beside the model are
    read only from its own folder and those below.

    ``fixed`` gives values to inputs, which are then none: ``{"sr": 16000}``. If one of them chooses a branch, only that
    one is there. Otherwise the condition is read at each call, and such a model cannot be compiled.

    With ``dequantize`` a quantised model loads too: it computes with floats, in the units of the file's integers where
    the file has these, and does not round in between. Weights become the numbers that they stand for, which ``save``
    rounds by the file's scales again, cutting off what these do not reach; so do results.

    Errors: ModelFormatError, naming the place, if it is no whole, well-formed ONNX file; UnsupportedOpError,
            listing all that tinyedge lacks. MissingPackageError without the package onnx. FileNotFoundError.
    """
    call = "from_onnx"
    place = Place(call, path, "ONNX file")
    try:
        content = files.read_whole(path)
    except files.IrregularFileError as error:
        place.refuse("the file", str(error))
    wanted = None if dtype is None else dtypes.resolve(dtype, call)
    if wanted is not None and not wanted.is_floating_point:
        raise ArgumentError(call, "dtype must be a floating-point one", f"got {wanted.name}")
    model = parsed(call, content, place)
    parts = _Reader(place, model, path, content, dequantize, fixed or {}).parts()
    return build(parts, wanted, device)


class Scope(NamedTuple):
    """A graph, or a branch of one: which names its values got, and where it stands in the file."""

    renamed: Mapping[str, str]
    guards: Guards
    trail: Trail
    depth: int


class _Reader:
    """One file: its graph is flattened, its ops get their handlers, and all problems are listed."""

    def __init__(
        self,
        place: Place,
        model: Any,
        path: str | os.PathLike[str],
        content: bytes,
        dequantize: bool,
        fixed: Mapping[str, Any],
    ) -> None:
        self.place = place
        self.graph = model.graph
        self.opset = opset_of(model, place)
        self.tensors = Tensors(place, path)
        self.problems: list[str] = []
        self.quantised: list[str] = []  # what only dequantize can load
        self.dequantize = dequantize
        self.neighbours = Neighbours(self.graph)
        self.tables: set[str] = set()  # weights of which parts are taken before they are dequantised
        self.defined: set[str] = set()
        self.known: dict[str, Array] = {}  # small values, for the sake of conditions
        self.outer: set[str] = set()  # what the graph's own nodes compute
        self.sequences: set[str] = set()  # lists of tensors
        self.count = 0
        self.speculated = 0  # elements computed for the sake of conditions
        names = {value.name for value in self.graph.initializer}
        inputs = [port_of(value, place) for value in self.graph.input if value.name not in names]
        self.fixed = _fixed(place.call, inputs, fixed)
        inputs = [port for port in inputs if port.name not in fixed]
        outputs = [port_of(value, place) for value in self.graph.output]
        self.source = OnnxSource(path, content)
        self.result = Parts(place, inputs, outputs, self.source)
        self.dims = {value.name: dims_of(value) for value in (*self.graph.value_info, *self.graph.output)}

    def parts(self) -> Parts:
        if not self.result.outputs:
            self.place.refuse("the graph", "it has no outputs")
        if len(self.graph.sparse_initializer):
            self.problems.append("sparse initializers")
        for port in self.result.inputs:
            self._define(port.name)
            self.sequences.update({port.name} if port.sequence else ())
        for name, array in self.fixed.items():
            self._define(name)
            self._keep(name, array)
        for proto in self.graph.initializer:
            self._constant(proto.name, proto)
        self.outer = {value for node in self.graph.node for value in node.output}
        self._nodes(self.graph, Scope({}, (), (), 0))
        if self.problems or self.quantised:
            remedies = ["Pass dequantize=True to compute with the floats that they stand for."] * bool(self.quantised)
            remedies += ["Export the model without them, or for another opset."] * bool(self.problems)
            self.place.unsupported(self.problems + self.quantised, " ".join(remedies))
        for number, port in enumerate(self.result.outputs):
            if port.sequence is not (port.name in self.sequences):
                if port.dtype is not None or port.dims is not None or port.sequence:
                    self.place.refuse("the outputs", f"{port}: it is a list of tensors in one place of the file alone")
                self.result.outputs[number] = Port(port.name, None, None, sequence=True)
        if self.dequantize:
            self._check_weights()
            self.result.outputs = [self._meant(port) for port in self.result.outputs]
        return self.result

    def _check_weights(self) -> None:
        """Weights that were dequantised are read as what they stand for alone."""
        own = (op.rpartition(".")[2] for op in (LSTM, N_BITS, GATHER, TO_FLOAT, DYNAMIC))
        allowed = {*RESULTS, *PRODUCTS, "DequantizeLinear", *own}
        for raw in self.result.raws:
            for name in raw.inputs:
                if name in self.source.quantised and raw.op not in allowed and name not in self.tables:
                    self.place.unsupported(
                        [f"{raw.op} {shown(raw.name)!r}, which reads the integers of {shown(name)!r}"]
                    )

    def _meant(self, port: Port) -> Port:
        """An output: of a quantised one the numbers that it stands for."""
        makers = {name: raw for raw in self.result.raws for name in raw.outputs}
        maker = makers.get(port.name)
        while maker is not None and maker.handler.passes and maker.op not in ("Cast", "Concat", "DequantizeLinear"):
            maker = makers.get(maker.inputs[0])
        if maker is None or maker.op not in RESULTS:
            return port
        scale, zero = (maker.inputs[place] if place < len(maker.inputs) else "" for place in RESULTS[maker.op])
        if self.result.arrays.get(scale, np.zeros(2)).size != 1:
            return port
        handler = ONNX.own("DequantizeLinear", max(self.opset, 10))
        name = f"{port.name} as floats"
        inputs = (port.name, scale, zero) if zero else (port.name, scale)
        self._define(name)
        self.result.raws.append(Raw("DequantizeLinear", name, inputs, (name,), handler, {}, None, port.dims))
        return Port(name, dtypes.float32, port.dims)

    def _dequantised(self, op: str, inputs: tuple[str, ...], arguments: dict[str, Any]) -> bool:
        """Turn an op's weights into what they stand for. Whether that is all that the op does."""
        arrays, done = self.result.arrays, False
        if op == "DequantizeLinear" and inputs[0] not in arrays:
            return self._table(inputs)
        if op in (N_BITS, GATHER):
            self._in_blocks(op, inputs, arguments)
        for position, scales, zero, axis, block in weights_of(op, arguments):
            name = inputs[position] if position < len(inputs) else ""
            given = [arrays.get(inputs[place]) if place < len(inputs) else None for place in scales]
            shift = arrays.get(inputs[zero]) if 0 <= zero < len(inputs) and inputs[zero] else None
            is_known = name in self.source.quantised
            if name not in arrays or any(scale is None for scale in given):
                continue
            array = arrays[name]
            if (array.dtype.kind not in "iu" and not is_known) or (
                zero >= 0 and zero < len(inputs) and inputs[zero] and shift is None
            ):
                continue
            scale: Any = np.float32(1)
            for part in given:
                scale = scale * spread(np.asarray(part, np.float32), array.ndim, axis, array.shape, block)
            if not (np.isfinite(scale).all() and (scale > 0).all()):
                self.place.refuse(name, "a scale that is not positive")
            shift = np.zeros(()) if shift is None else spread(shift, array.ndim, axis, array.shape, block)
            limits = self.tensors.limits.get(name)
            if limits is None and array.dtype.kind in "iu":
                limits = int(np.iinfo(array.dtype).min), int(np.iinfo(array.dtype).max)
            self._stands_for(name, array, Quantised(scale, shift, array.dtype, limits or (0, 0)))
            done = True
        return done and op == "DequantizeLinear"

    def _stands_for(self, name: str, integers: Array, how: Quantised) -> None:
        """A weight becomes the numbers that its integers stand for."""
        other = self.source.quantised.get(name)
        if other is not None:
            if not (np.array_equal(other.scale, how.scale) and np.array_equal(other.zero, how.zero)):
                self.problems.append(f"{shown(name)!r}, which stands for other numbers in several places")
            return
        self.source.quantised[name] = how
        with np.errstate(all="ignore"):
            values = np.asarray((integers.astype(np.float64) - how.zero) * how.scale, np.float32)
        if not np.isfinite(values).all():
            self.place.refuse(name, "its scale makes its numbers infinite")
        self.result.arrays[name] = values
        self.known.pop(name, None)

    def _of_weight(self, node: Any, name: str, kind: str, inputs: tuple[str, ...]) -> Handler | None:
        """The handler of an op whose weight and bias are what their integers stand for."""
        given = [inputs[place] for place in OF_WEIGHTS[kind] if place < len(inputs) and inputs[place]]
        known = [each in self.source.quantised for each in given]
        if any(known) and not all(known):
            self._problem(node, name, "with a weight or a bias that is computed, and not both")
        return ONNX.own(f"{kind}OfWeight", max(self.opset, 10)) if known and all(known) else None

    def _table(self, inputs: tuple[str, ...]) -> bool:
        """Integers of which a part is taken before they become floats, as of an embedding. Whether they are floats."""
        arrays = self.result.arrays
        name = self.neighbours.table_behind(inputs[0], arrays)
        scale, zero = (arrays.get(inputs[n]) if n < len(inputs) and inputs[n] else None for n in (1, 2))
        if not name or scale is None or scale.size != 1 or (len(inputs) > 2 and inputs[2] and zero is None):
            return False
        if (zero is not None and zero.size != 1) or not fits(scale, arrays[name], 0) or name in self.tensors.limits:
            return False
        self._integers(name, scale.reshape(()), np.zeros(()) if zero is None else zero.reshape(()))
        self.tables.add(name)
        return True

    def _integers(self, name: str, scale: Array, zero: Array) -> None:
        array = self.result.arrays[name]
        limits = np.iinfo(array.dtype)
        how = Quantised(np.asarray(scale, np.float32), zero, array.dtype, (int(limits.min), int(limits.max)))
        self._stands_for(name, array, how)

    def _product(self, kind: str, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Any:
        """An integer product with a weight, with what that stands for instead: its handler and inputs, or None."""
        arrays, axis = self.result.arrays, PRODUCTS[kind]
        weight, known = inputs[1], arrays.get(inputs[1])
        zero = arrays.get(inputs[3]) if len(inputs) > 3 and inputs[3] else np.zeros((), np.int8)
        other = self.source.quantised.get(weight)
        if known is None or zero is None or (known.dtype.kind not in "iu" and other is None):
            return None
        made = self.neighbours.scale_behind(outputs[0], arrays)
        scale = arrays[made] if made else np.ones((), np.float32)
        if not made or not fits(scale, known, axis) or weight in self.tensors.limits:
            made, scale = f"{name}:scale", np.ones((), np.float32)  # its integers stand for themselves
            self._define(made)
            self._keep(made, scale)
        if zero.size not in (1, known.shape[axis] if known.ndim else 1):
            return None
        shift = spread(zero.reshape(-1), known.ndim, axis, known.shape)
        how = spread(scale.reshape(-1), known.ndim, axis, known.shape)
        if other is None:
            self._integers(weight, how, shift)
        elif not (np.array_equal(other.scale, how) and np.array_equal(other.zero, shift)):
            self.problems.append(f"{shown(weight)!r}, which stands for other numbers in several places")
        given = (inputs[0], weight, made, *inputs[2:3])
        return ONNX.own(f"{kind}OfWeight"), given if given[-1] else given[:-1]

    def _in_blocks(self, op: str, inputs: tuple[str, ...], arguments: dict[str, Any]) -> None:
        """The weight of a product, or of an embedding, that lies in blocks of few bits."""
        arrays, at = self.result.arrays, 1 if op == N_BITS else 0
        name, last = inputs[at], inputs[3] if len(inputs) > 3 else ""
        scales, zeros = arrays.get(inputs[2]), arrays.get(last) if last else None
        if name not in arrays or scales is None or (last and zeros is None) or scales.dtype.kind != "f":
            return  # its handler refuses what is computed
        if name in self.source.quantised:
            self.problems.append(f"{shown(name)!r}, which several ops read")
            return
        if not (np.isfinite(scales).all() and scales.all()):
            self.place.refuse(inputs[2], "a scale that is 0, or no number")
        self._stands_for(name, *in_blocks(op, arrays[name], scales, zeros, arguments, name in self.tensors.limits))

    def _define(self, name: str) -> None:
        self._require_text(name)
        if not name or name in self.defined:
            self.place.refuse("the graph", f"two values have the name {shown(name)!r}" if name else "a nameless value")
        self.defined.add(name)

    def _require_text(self, name: object) -> None:
        """Protobuf gives the bytes of a name that is no UTF-8."""
        if not isinstance(name, str):
            self.place.refuse("the graph", f"the name {shown(name)} is no UTF-8 text")

    def _constant(self, name: str, proto: Any) -> None:
        self._define(name)
        array, lying = self.tensors.read(proto, name)
        self._keep(name, array)
        if lying is not None:
            self.result.lying[name] = lying

    def _keep(self, name: str, array: Array) -> None:
        self.result.arrays[name] = array
        if array.size <= 1024:
            self.known[name] = array

    def _nodes(self, graph: Any, scope: Scope) -> None:
        """The nodes of a graph, or of a branch."""
        if scope.depth > MAX_DEPTH:
            self.place.refuse("the graph", f"branches more than {MAX_DEPTH} deep")
        renamed = scope.renamed
        for number, node in checked_nodes(graph, self.place):
            self.count += 1
            if self.count > MAX_NODES:
                self.place.refuse("the graph", f"more than {MAX_NODES} nodes")
            name = node.name if isinstance(node.name, str) else shown(node.name)
            name = name or f"{node.op_type}_{self.count}"
            inputs = tuple(renamed.get(value, value) for value in node.input)
            outputs = tuple(renamed.get(value, value) for value in node.output)
            while outputs and not outputs[-1]:
                outputs = outputs[:-1]
            outputs = tuple(value or f"{name}:{place}" for place, value in enumerate(outputs))
            for value in inputs:
                if value and value not in self.defined:
                    self.place.refuse(
                        f"{node.op_type} {name!r}", f"nothing before it computes its input {shown(value)!r}"
                    )
            plain = node.domain in ("", "ai.onnx")
            if not plain and ONNX.find(f"{node.domain}.{node.op_type}", self.opset) is None:
                self._problem(node, name, f"of the domain {shown(node.domain)}")
            elif not plain:
                self._op(node, name, inputs, outputs, scope.guards)
            elif node.op_type == "Constant":
                self._constant_node(node, name, outputs)
            elif node.op_type == "If":
                self._branches(node, name, inputs, outputs, scope, number)
                continue
            elif node.op_type in ("Loop", "Scan"):
                read = self._loop if node.op_type == "Loop" else self._scan
                read(node, name, inputs, outputs, scope, number)
                continue
            else:
                self._op(node, name, inputs, outputs, scope.guards)
            for value in outputs:
                if value not in self.defined:
                    self._define(value)

    def _problem(self, node: Any, name: str, text: str = "") -> None:
        self.problems.append(f"{shown(node.op_type)} {text}{' ' if text else ''}(node {shown(name)!r})")

    def _branches(
        self, node: Any, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], scope: Scope, number: int
    ) -> None:
        """An If: the nodes of its branch, or of both, where the condition is known only at a call."""
        if len(inputs) != 1 or not inputs[0]:
            self.place.refuse(f"If {name!r}", f"{len(inputs)} inputs, and it takes 1")
        condition = self.known.get(inputs[0])
        is_known = condition is not None and condition.size == 1
        found = []
        for which, wanted in (("then_branch", True), ("else_branch", False)):
            if is_known and bool(condition.reshape(())) is not wanted:  # type: ignore[union-attr]
                continue
            graph = next((a.g for a in node.attribute if a.name == which and a.type == 5), None)
            if graph is None or len(graph.output) < len(outputs):
                self.place.refuse(f"If {name!r}", f"it has no whole {which}")
            found.append(self._branch(graph, name, which, () if is_known else ((inputs[0], wanted),), scope, number))
        handler = ONNX.own("Identity" if is_known else "If", self.opset)
        host = ONNX.host_function("Identity" if is_known else "If")
        for place, value in enumerate(outputs):
            given = tuple(results[place] for results in found)
            given = given if is_known else (inputs[0], *given)
            self._define(value)
            op = "Identity" if is_known else "If"
            self._add(Raw(op, f"{name}:{value}", given, (value,), handler, {}, host, guards=scope.guards))

    def _branch(self, graph: Any, name: str, which: str, guards: Guards, scope: Scope, number: int) -> list[str]:
        """The nodes of a branch; the names of its outputs."""
        if len(graph.input):
            self.place.refuse(f"If {name!r}", f"its {which} has inputs")
        return self._inside(graph, f"If {name!r}", name, which, (*scope.guards, *guards), scope, number)[1]

    def _inside(
        self, graph: Any, where: str, name: str, which: str, guards: Guards, scope: Scope, number: int,
        given: tuple[str, ...] = (),
    ) -> tuple[tuple[str, ...], list[str]]:  # fmt: skip
        """The nodes of a graph that belongs to a node, which is ``given`` values; the names of its inputs and outputs.

        Values keep the file's names where these are free.
        """
        own = [value for inner in graph.node for value in inner.output if value]
        own += [proto.name for proto in graph.initializer]
        taken = {value: value for value in [*own, *(value.name for value in graph.input)]}
        for value in taken:
            self._require_text(value)
            while taken[value] in self.defined or taken[value] in self.outer:
                taken[value] += f"/{name}"
        trail = (*scope.trail, (number, which))
        inside = Scope({**scope.renamed, **taken}, guards, trail, scope.depth + 1)
        self.source.inside.update({taken[value]: (trail, value) for value in own})
        for value in graph.input:
            self._define(taken[value.name])
        self.sequences.update(taken[value.name] for value, name in zip(graph.input, given) if name in self.sequences)
        for proto in graph.initializer:
            self._constant(taken[proto.name], proto)
        self._nodes(graph, inside)
        results = [inside.renamed.get(result.name, result.name) for result in graph.output]
        for result in results:
            if result not in self.defined:
                self.place.refuse(where, f"nothing computes the output {shown(result)!r} of its {which}")
        return tuple(taken[value.name] for value in graph.input), results

    def _loop(
        self, node: Any, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], scope: Scope, number: int
    ) -> None:
        """A Loop: the nodes of its body stay together."""
        graph = next((a.g for a in node.attribute if a.name == "body" and a.type == 5), None)
        count = len(inputs) - 2
        if graph is None or count < 0 or len(graph.input) != len(inputs) or not all(inputs[2:]):
            self.place.refuse(f"Loop {name!r}", f"it has no whole body for {len(inputs)} inputs")
        if len(graph.output) <= count or len(outputs) > len(graph.output) - 1:
            self.place.refuse(f"Loop {name!r}", f"{len(outputs)} outputs of a body with {len(graph.output)}")
        outputs += tuple(f"{name}:{place}" for place in range(len(outputs), len(graph.output) - 1))
        raws, self.result.raws = self.result.raws, []
        given, results = self._inside(graph, f"Loop {name!r}", name, "body", (), scope, number, inputs)
        body, self.result.raws = RawBody(self.result.raws, given, tuple(results)), raws
        for before, after, value in zip(inputs[2:], results[1:], outputs):
            if (before in self.sequences) is not (after in self.sequences):
                self.place.refuse(f"Loop {name!r}", f"{shown(value)!r} is a sequence at one of a step's ends alone")
            self.sequences.update({value} if after in self.sequences else ())
        for value in outputs:
            self._define(value)
        self.result.raws += loop_raw(name, inputs, outputs, RawLoop(body, None), scope.guards)

    def _scan(
        self, node: Any, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], scope: Scope, number: int
    ) -> None:
        """A Scan, which becomes a loop."""
        given = {a.name: a for a in node.attribute}
        body = given.pop("body", None)
        read = {key: tuple(map(int, a.ints)) for key, a in given.items() if a.type == 7}
        many = int(given["num_scan_inputs"].i) if "num_scan_inputs" in given else 0
        count = len(inputs) - many
        if self.opset < 9:
            self._problem(node, name, f"of opset {self.opset}")
            for value in outputs:
                self._define(value)
            return
        if body is None or body.type != 5 or many < 1 or count < 0 or len(body.g.input) != len(inputs):
            self.place.refuse(f"Scan {name!r}", f"it has no whole body for {len(inputs)} inputs")
        made = len(body.g.output) - count
        if made < 0 or len(outputs) > count + made or not all(inputs) or not self.sequences.isdisjoint(inputs):
            self.place.refuse(f"Scan {name!r}", f"{len(outputs)} outputs of a body with {count + made}")
        outputs += tuple(f"{name}:{place}" for place in range(len(outputs), count + made))
        parts = [read.pop(key, (0,) * size) for size, keys in ((many, INPUT_KEYS), (made, OUTPUT_KEYS)) for key in keys]
        if read or [len(part) for part in parts] != [many, many, made, made]:
            self.place.refuse(f"Scan {name!r}", "axes or directions for other numbers of inputs or outputs")
        raws, self.result.raws = self.result.raws, []
        names, results = self._inside(body.g, f"Scan {name!r}", name, "body", (), scope, number)
        inner, self.result.raws = RawBody(self.result.raws, names, tuple(results)), raws
        how = Scanned(parts[0], tuple(map(bool, parts[1])), parts[2], tuple(map(bool, parts[3])))
        found = scan_raws(name, inputs[:count], inputs[count:], outputs, inner, how, scope.guards)
        for value in dict.fromkeys([*outputs, *(value for raw in found for value in raw.outputs)]):
            self._define(value)
        self.result.raws += found

    def _constant_node(self, node: Any, name: str, outputs: tuple[str, ...]) -> None:
        if len(node.attribute) != 1 or len(outputs) != 1:
            self.place.refuse(f"Constant {name!r}", "it must have one attribute and one output")
        attribute = node.attribute[0]
        if attribute.name == "value" and attribute.type == 4:
            self._constant(outputs[0], attribute.t)
            return
        kinds = {"value_float": (1, np.float32), "value_floats": (6, np.float32), "value_int": (2, np.int64),
                 "value_ints": (7, np.int64)}  # fmt: skip
        kind = kinds.get(attribute.name)
        if kind is None or kind[0] != attribute.type:
            self._problem(node, name, f"with the attribute {shown(attribute.name)}")
            return
        value = getattr(attribute, {1: "f", 2: "i", 6: "floats", 7: "ints"}[attribute.type])
        self._define(outputs[0])
        self._keep(outputs[0], np.array(value, kind[1]))

    def _op(self, node: Any, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], guards: Guards) -> None:
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        handler = ONNX.find(kind, self.opset)
        if kind in QUANTISED and not self.dequantize:
            self.quantised.append(f"{shown(node.op_type)} (node {shown(name)!r})")
            return
        if handler is None:
            self._problem(node, name, "" if kind not in ONNX.names() else f"of opset {self.opset}")
            return
        arguments = self._arguments(node, name, handler)
        if arguments is None:
            return
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        moved = {key: arguments.pop(key) for key in list(arguments) if key in handler.became_inputs}
        for key, value in moved.items():
            position = handler.inputs.index(key)
            if len(inputs) > position and inputs[position]:
                self.place.refuse(f"{node.op_type} {name!r}", f"{key} is both an input and an attribute")
            inputs = (*inputs, *([""] * (position + 1 - len(inputs))))
            made = f"{name}:{key}"
            self._define(made)
            self._keep(made, np.array(value, np.float32 if isinstance(value, float) else np.int64))
            inputs = (*inputs[:position], made, *inputs[position + 1 :])
        most = len(handler.inputs)
        if len(inputs) < handler.required or (len(inputs) > most and not handler.variadic):
            self.place.refuse(
                f"{node.op_type} {name!r}", f"{len(inputs)} inputs, and it takes {handler.required} to {most}"
            )
        if any(not value for value in (inputs if handler.variadic else inputs[: handler.required])):
            self.place.refuse(f"{node.op_type} {name!r}", "an input that it needs is left out")
        if "count" in handler.given:
            arguments["count"] = len(outputs)
        if "opset" in handler.given:
            arguments.setdefault("opset", self.opset)
        on_host = ONNX.host_function(kind)
        zero = inputs[2] if kind == "QuantizeLinear" and len(inputs) > 2 else ""
        if zero in self.tensors.limits or (kind == "QuantizeLinear" and arguments.get("output_dtype") in FOUR_BITS):
            self._problem(node, name, "to 4 bits")
            return
        if self.dequantize:
            try:
                found = self._product(kind, name, inputs, outputs) if kind in PRODUCTS and outputs else None
                if found is not None:
                    handler, inputs = found
                bias = kind in ("Floor", "Round") or (kind == "Cast" and arguments["to"] == INT32)
                if (bias and self.neighbours.rounds_a_bias(node)) or self._dequantised(kind, inputs, arguments):
                    handler, arguments, inputs = ONNX.find("Identity", self.opset) or handler, {}, inputs[:1]
                    on_host = ONNX.host_function("Identity")
                elif kind in OF_WEIGHTS:
                    handler = self._of_weight(node, name, kind, inputs) or handler
            except ShapeError as error:
                self.place.refuse(f"{node.op_type} {name!r}", str(error))
        dims = self.dims.get(outputs[0]) if outputs else None
        self._add(Raw(node.op_type, name, inputs, outputs, handler, arguments, on_host, dims, guards))

    def _add(self, raw: Raw) -> None:
        self.result.raws.append(raw)
        lists = [name for name in raw.inputs if name in self.sequences]
        if raw.op in PASSING:
            is_whole = not lists or len(lists) == len(raw.inputs) - (raw.op == "If")
        else:
            is_whole = (len(lists) == 1 and raw.inputs[0] in lists) if raw.op in READERS else not lists
        if not is_whole:
            self.problems.append(f"{raw.op} of a sequence, or not of one (node {shown(raw.name)!r})")
        if raw.op in MAKERS or (lists and raw.op in PASSING):
            self.sequences.update(raw.outputs)
        if (
            self.speculated > MAX_FOLDED_ELEMENTS
            or raw.on_host is None
            or len(raw.outputs) != 1
            or not all(n in self.known or not n for n in raw.inputs)
        ):
            return
        try:
            with np.errstate(all="ignore"):
                value = raw.on_host(*[self.known.get(name) for name in raw.inputs], **raw.arguments)
        except FAULTS:
            return  # it is reported when it is folded
        self.speculated += value.size
        if value.size <= 1024:
            self.known[raw.outputs[0]] = value

    def _arguments(self, node: Any, name: str, handler: Handler) -> dict[str, Any] | None:
        """The attributes by name, each of the kind that the handler states."""
        where = f"{node.op_type} {name!r}"
        found: dict[str, Any] = {}
        for attribute in node.attribute:
            annotation = handler.attributes.get(attribute.name)
            if attribute.name == "opset" and "opset" in handler.given:  # by whose rules it computes
                annotation = "int"
            if attribute.name in handler.became_inputs:
                annotation = {1: "float", 2: "int", 7: "Ints"}.get(attribute.type)
            if annotation is None or attribute.HasField("ref_attr_name"):
                self._problem(node, name, f"with the attribute {shown(attribute.name)}")
                return None
            kind, read = ATTRIBUTES[annotation.removesuffix(" | None")]
            if attribute.type != kind or attribute.name in found:
                self.place.refuse(where, f"its attribute {shown(attribute.name)} is of another kind, or there twice")
            try:
                found[attribute.name] = read(attribute)
            except UnicodeDecodeError:
                self.place.refuse(where, f"its attribute {shown(attribute.name)} is no text")
            if annotation.startswith("Array"):
                found[attribute.name] = self.tensors.read(attribute.t, where)[0]
        missing = sorted(handler.needed - found.keys())
        if missing:
            self.place.refuse(where, f"it needs the attribute {missing[0]}")
        return found


def _fixed(call: str, inputs: Sequence[Port], given: Mapping[str, Any]) -> dict[str, Array]:
    """Values of inputs, as arrays of their types."""
    ports, found = {port.name: port for port in inputs}, {}
    for name, value in given.items():
        port = ports.get(name)
        array = np.asarray(value) if isinstance(value, (bool, int, float, list, tuple, np.ndarray)) else None
        if port is None or port.dtype is None or array is None or array.dtype.kind not in "biuf":
            raise ArgumentError(
                call, f"fixed= must give inputs ({', '.join(map(shown, ports))}) bools, numbers or arrays",
                f"got {shown(name)!r}: {shown(value)}",
            )  # fmt: skip
        dims = port.dims
        if dims is not None and (
            len(dims) != array.ndim or any(type(d) is int and d != size for d, size in zip(dims, array.shape))
        ):
            raise ShapeError(call, f"fixed= must have the input's shape: {port}", f"got {array.shape}")
        found[name] = array.astype(port.dtype.numpy)
    return found


__all__ = ["from_onnx"]
