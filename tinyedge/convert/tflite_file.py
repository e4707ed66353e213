"""TFLite files: parsed by the ``tflite`` package, and checked: a flatbuffer's offsets and lengths are anybody's."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.checks import MAX_FOLDED_TOTAL, MAX_NODES, Place, checked_shape, shown
from tinyedge.convert.graph import Array, Dims
from tinyedge.convert.tflite_sparse import dense_places
from tinyedge.errors import MissingPackageError, TinyedgeError

TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8",
         10: "float64"}  # fmt: skip
FAULTS = (struct.error, ValueError, IndexError, TypeError, OverflowError, AttributeError, KeyError, MemoryError,
          AssertionError)  # fmt: skip
"""What the reader raises where an offset leads nowhere."""

MUTE = ("CALL_ONCE", "ASSIGN_VARIABLE")
"""Operators without an output."""

CALLING = ("CALL_ONCE", "WHILE", "IF")
"""Operators that name another graph of the file."""

MAX_GRAPHS = 1024


@dataclass
class TfTensor:
    """A tensor of the file; ``start`` is where its data lies, or -1 if it is computed. Where it is quantised, its
    numbers mean ``(data - zero) * scale``, both of a shape that broadcasts. Of a sparse one the file holds the elements
    at ``places`` of the flat tensor alone.
    """

    name: str
    dtype: dtypes.DType | None
    shape: tuple[int, ...]
    dims: Dims
    start: int
    data: Array | None
    scale: Array | None
    zero: Array | None
    places: Array | None = None


@dataclass
class Operator:
    """An op: ``options`` reads the table of its options by the class's name."""

    op: str
    number: int
    inputs: list[int]
    outputs: list[int]
    options: Callable[[str], Any]
    custom: bool
    custom_options: bytes = b""


@dataclass
class TfGraph:
    """The file's first graph."""

    tensors: list[TfTensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    others: list[TfGraph] = field(default_factory=list)
    """The graphs behind the first: what an operator calls."""


def read_graph(call: str, content: bytes, place: Place) -> TfGraph:
    """The graph. Errors: MissingPackageError; ModelFormatError if the file is none."""
    try:
        import tflite
    except ImportError as error:
        raise MissingPackageError(
            call, "the package tflite reads TFLite files", "it is not installed",
            'Install it: pip install "tinyedge[import]".',
        ) from error  # fmt: skip
    if len(content) < 16 or content[4:8] != b"TFL3":
        place.refuse("the file", "it does not begin as a TFLite file does")
    try:
        return _Reader(tflite, content, place).graphs()
    except TinyedgeError:
        raise
    except FAULTS as error:
        place.refuse("the file", f"an offset or a length in it is wrong ({type(error).__name__}: {shown(error, 80)})")


class _Reader:
    def __init__(self, package: Any, content: bytes, place: Place) -> None:
        self.package = package
        self.content = content
        self.place = place
        self.dense = 0  # elements of sparse tensors
        self.model = package.Model.GetRootAsModel(content, 0)
        self.names = {
            value: name
            for name, value in vars(package.BuiltinOperator).items()
            if isinstance(value, int) and name[0] != "_"
        }

    def count(self, number: int, where: str) -> range:
        """So many entries, if the file can hold them: each takes four bytes at least."""
        if not 0 <= number <= min(len(self.content) // 4, MAX_NODES):
            self.place.refuse(where, f"it says that it has {number} entries")
        return range(number)

    def ints(self, values: Any, length: int, where: str) -> list[int]:
        self.count(length, where)
        return [] if length == 0 else [int(value) for value in values()]

    def graphs(self) -> TfGraph:
        """The first graph, with the others."""
        count = self.model.SubgraphsLength()
        if count < 1:
            self.place.refuse("the file", "it has no graph")
        names: set[str] = set()  # of all graphs: a tensor's name is its own
        found = self.graph(self.model.Subgraphs(0), names)
        if not found.outputs:
            self.place.refuse("the graph", "it has no outputs")
        if any(op.op in CALLING and not op.custom for op in found.operators):
            if count > MAX_GRAPHS:
                self.place.refuse("the file", f"it has {count} graphs, and at most {MAX_GRAPHS} are read")
            found.others = [self.graph(self.model.Subgraphs(number), names) for number in range(1, count)]
        return found

    def graph(self, graph: Any, names: set[str]) -> TfGraph:
        model, place = self.model, self.place
        found = TfGraph()
        for number in self.count(graph.TensorsLength(), "the tensors"):
            found.tensors.append(self.tensor(graph.Tensors(number), number, names))
        kinds = [self.code(model.OperatorCodes(n)) for n in self.count(model.OperatorCodesLength(), "the op codes")]
        for number in self.count(graph.OperatorsLength(), "the operators"):
            found.operators.append(self.operator(graph.Operators(number), number, kinds, len(found.tensors)))
        found.inputs = self.ints(graph.InputsAsNumpy, graph.InputsLength(), "the inputs")
        found.outputs = self.ints(graph.OutputsAsNumpy, graph.OutputsLength(), "the outputs")
        for number in (*found.inputs, *found.outputs):
            if not 0 <= number < len(found.tensors):
                place.refuse("the graph", f"its input or output {number} is no tensor")
        return found

    def code(self, entry: Any) -> tuple[str, bool]:
        code = max(entry.BuiltinCode(), entry.DeprecatedBuiltinCode())
        if code == self.package.BuiltinOperator.CUSTOM:
            return (entry.CustomCode() or b"").decode("utf-8", "replace"), True
        return self.names.get(code, f"op number {code}"), False

    def tensor(self, entry: Any, number: int, names: set[str]) -> TfTensor:
        name = (entry.Name() or b"").decode("utf-8", "replace") or f"tensor{number}"
        while name in names:
            name += "'"
        names.add(name)
        kind = TYPES.get(entry.Type())
        dtype = None if kind is None else dtypes.resolve(kind)
        shape = checked_shape(
            self.place, name, self.ints(entry.ShapeAsNumpy, entry.ShapeLength(), name), dtype.itemsize if dtype else 1
        )
        signature = self.ints(entry.ShapeSignatureAsNumpy, entry.ShapeSignatureLength(), name)
        dims: Dims = tuple(None if size < 0 else size for size in signature) if len(signature) == len(shape) else shape
        buffer = entry.Buffer()
        if not 0 <= buffer < self.model.BuffersLength():
            self.place.refuse(name, f"its buffer {buffer} is none")
        lies = self.model.Buffers(buffer)
        length = lies.DataLength()
        scale, zero = self.quantisation(entry, name, shape, dtype)
        if not length or buffer == 0:
            return TfTensor(name, dtype, shape, dims, -1, None, scale, zero)
        start = lies._tab.Vector(lies._tab.Offset(4))
        if dtype is None:
            self.place.unsupported([f"{shown(name)}: constants of TFLite's element type {entry.Type()}"])
        count, places = int(np.prod(shape, dtype=np.int64)), None
        if entry.Sparsity() is not None:
            places = dense_places(
                self.package, entry.Sparsity(), shape, len(self.content), lambda text: self.place.refuse(name, text)
            )
            self.dense += count
            if self.dense > MAX_FOLDED_TOTAL:
                self.place.refuse(name, "sparse weights that have too many zeros")
            count = len(places)
        wanted = count * dtype.itemsize
        if start < 0 or length != wanted or start + length > len(self.content):
            self.place.refuse(name, f"{length} bytes at {start} for the shape {shape} of {dtype.name}")
        stored = np.dtype("u1") if dtype is dtypes.bool_ else dtype.stored.newbyteorder("<")
        data = np.frombuffer(self.content, stored, count, start)
        if places is not None:
            dense = np.zeros(int(np.prod(shape, dtype=np.int64)), stored)
            if zero is not None and scale is not None:  # what the file leaves out means 0
                dense += np.broadcast_to(zero, shape).reshape(-1).astype(stored)
            dense[places] = data
            data = dense
        data = data.reshape(shape)
        data = data != 0 if dtype is dtypes.bool_ else data.astype(dtype.stored)
        return TfTensor(name, dtype, shape, dims, start, data, scale, zero, places)

    def quantisation(
        self, entry: Any, name: str, shape: tuple[int, ...], dtype: dtypes.DType | None
    ) -> tuple[Array | None, Array | None]:
        """The scales and zero points of integers that stand for floats, or None."""
        given = entry.Quantization()
        if given is None or given.ScaleLength() == 0 or dtype is None or dtype.limits is None:
            return None, None
        count, axis = given.ScaleLength(), given.QuantizedDimension()
        self.count(count, name)
        axis = 0 if len(shape) == 1 else axis  # old converters name the dim of another tensor for biases
        along = 0 <= axis < len(shape) and count == shape[axis]
        if not (count == 1 or along) or given.ZeroPointLength() not in (0, 1, count):
            self.place.refuse(name, f"{count} scales and {given.ZeroPointLength()} zero points for the shape {shape}")
        scale = np.array(given.ScaleAsNumpy(), np.float32)
        zero = np.array(given.ZeroPointAsNumpy(), np.int64) if given.ZeroPointLength() else np.zeros(1, np.int64)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            self.place.refuse(name, "a scale that is not positive")
        spread = [1] * len(shape)
        if count > 1:
            spread[axis] = count
        return scale.reshape(spread), np.broadcast_to(zero, (count,)).reshape(spread)

    def operator(self, entry: Any, number: int, kinds: list[tuple[str, bool]], tensors: int) -> Operator:
        where = f"operator {number}"
        index = entry.OpcodeIndex()
        if not 0 <= index < len(kinds):
            self.place.refuse(where, f"its op code {index} is none")
        inputs = self.ints(entry.InputsAsNumpy, entry.InputsLength(), where)
        outputs = self.ints(entry.OutputsAsNumpy, entry.OutputsLength(), where)
        mute = kinds[index] in ((name, False) for name in MUTE)
        wrong = any(not -1 <= n < tensors for n in inputs) or any(not 0 <= n < tensors for n in outputs)
        if wrong or not (outputs or mute):
            self.place.refuse(where, "an input or output that is no tensor")

        def options(name: str) -> Any:
            table, made = entry.BuiltinOptions(), getattr(self.package, name)()
            if table is None:
                self.place.refuse(where, f"it has no {name}")
            made.Init(table.Bytes, table.Pos)
            return made

        custom = bytes(entry.CustomOptionsAsNumpy()) if 0 < entry.CustomOptionsLength() <= len(self.content) else b""
        return Operator(kinds[index][0], number, inputs, outputs, options, kinds[index][1], custom)


__all__ = ["FAULTS", "Operator", "TfGraph", "TfTensor", "read_graph"]
