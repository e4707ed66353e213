"""Frozen TensorFlow graphs: parsed by TensorFlow's message classes, which ``tensorboard`` brings, and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.checks import MAX_FOLDED_ELEMENTS, MAX_NODES, Place, checked_shape, shown
from tinyedge.convert.graph import Array, Dims
from tinyedge.convert.tensorflow_functions import written_out
from tinyedge.errors import MissingPackageError

DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool",
          14: "bfloat16", 19: "float16"}  # fmt: skip
"""TensorFlow's element types that tinyedge has."""

FIELDS = {1: "float_val", 2: "double_val", 9: "int64_val", 10: "bool_val", 14: "half_val", 19: "half_val"}
"""Where numbers stand that are no bytes; others are in ``int_val``."""

Ref = tuple[str, int]
"""An output of a node: the node's name, and which one."""


@dataclass
class TfNode:
    """A node: what it reads, and its attributes, decoded when they are asked for."""

    op: str
    name: str
    inputs: list[Ref]
    proto: Any
    origin: tuple[str, str] | None = None
    """Of a node of a function: the function, and the node's name there."""

    def attribute(self, name: str, kind: str, default: Any) -> Any:
        """An attribute of that kind. Errors: ValueError for another kind, or if it is absent without a default."""
        if name not in self.proto.attr:
            if default is None:
                raise ValueError(f"it has no attribute {name}")
            return default
        value = self.proto.attr[name]
        if value.WhichOneof("value") != kind:
            raise ValueError(f"its attribute {name} is of another kind")
        return getattr(value, kind)

    def text(self, name: str, default: str | None = None) -> str:
        value = self.attribute(name, "s", default)
        return value if isinstance(value, str) else str(value.decode("utf-8"))

    def number(self, name: str, default: int | None = None) -> int:
        return int(self.attribute(name, "i", default))

    def real(self, name: str, default: float | None = None) -> float:
        return float(self.attribute(name, "f", default))

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.attribute(name, "b", default))

    def kind(self, name: str, default: int | None = None) -> int:
        return int(self.attribute(name, "type", default))

    def ints(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        value = self.attribute(name, "list", default)
        return value if isinstance(value, tuple) else tuple(int(number) for number in value.i)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.attribute(name, "list", ())
        return value if isinstance(value, tuple) else tuple(text.decode("utf-8") for text in value.s)


def parsed(call: str, content: bytes, place: Place) -> Any:
    """The file's GraphDef. Errors: MissingPackageError; ModelFormatError if it is none."""
    try:
        from tensorboard.compat.proto import graph_pb2
    except ImportError as error:
        raise MissingPackageError(
            call, "the package tensorboard has TensorFlow's message classes", "it is not installed",
            'Install it: pip install "tinyedge[import]".',
        ) from error  # fmt: skip
    try:
        return graph_pb2.GraphDef.FromString(content)
    except Exception as error:  # protobuf's own class of error is another one in each of its implementations
        place.refuse(
            "the file", f"protobuf cannot parse it: {shown(error)}; a SavedModel must be frozen to one graph first"
        )


def nodes_of(graph: Any, place: Place) -> dict[str, TfNode]:
    """The nodes by name, in the file's order, those of functions where they are called; control inputs, which only say
    what comes before, are left out.
    """
    if not graph.node:
        place.refuse("the graph", "it has no nodes; a SavedModel or a checkpoint must be frozen to one file first")
    if len(graph.node) > MAX_NODES:
        place.refuse("the graph", f"{len(graph.node)} nodes, and at most {MAX_NODES} are read")
    found: dict[str, TfNode] = {}
    protos, origins = written_out(graph, place)
    for proto in protos:
        if not proto.name or proto.name in found:
            place.refuse("the graph", f"two nodes have the name {shown(proto.name)!r}")
        refs = [reference(text) for text in proto.input if not text.startswith("^")]
        found[proto.name] = TfNode(proto.op, proto.name, refs, proto, origins.get(proto.name))
    for node in found.values():
        for name, _ in node.inputs:
            if name not in found:
                place.refuse(f"{shown(node.op)} {shown(node.name)!r}", f"its input {shown(name)!r} is no node")
    return found


def reference(text: str) -> Ref:
    """``name:2`` is the node's third output; without a number it is the first."""
    name, colon, number = text.rpartition(":")
    return (name, int(number)) if colon and number.isdigit() and len(number) < 6 else (text, 0)


def value_name(ref: Ref) -> str:
    """How a value is called in the model: an only output as its node."""
    return ref[0] if ref[1] == 0 else f"{ref[0]}:{ref[1]}"


def dims_of(shape: Any) -> Dims | None:
    """A TensorShapeProto: None for dims, or a rank, that it leaves open."""
    if shape.unknown_rank or len(shape.dim) > 16:
        return None
    return tuple(int(dim.size) if 0 <= dim.size < 2**31 else None for dim in shape.dim)


class Tensors:
    """Reads the values of Const nodes."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.filled = 0

    def read(self, proto: Any, where: str) -> tuple[Array, dtypes.DType | None]:
        """The values, and the dtype if NumPy lacks it."""
        kind = proto.dtype
        if kind not in DTYPES:
            self.place.unsupported([f"{shown(where)}: a constant of TensorFlow's element type {int(kind)}"])
        dtype = dtypes.resolve(DTYPES[kind])
        stored = np.dtype("u1") if kind == 10 else np.dtype(dtype.stored).newbyteorder("<")
        if proto.tensor_shape.unknown_rank:
            self.place.refuse(where, "a constant of unknown rank")
        dims = [dim.size for dim in proto.tensor_shape.dim]
        shape = checked_shape(self.place, where, dims, stored.itemsize)
        count = math.prod(shape)
        if proto.tensor_content:
            if len(proto.tensor_content) != count * stored.itemsize:
                self.place.refuse(where, f"{len(proto.tensor_content)} bytes for the shape {shape} of {dtype.name}")
            flat = np.frombuffer(proto.tensor_content, stored)
        else:
            flat = self._numbers(proto, where, kind, stored, count)
        array: Array = flat.reshape(shape)
        if kind == 10:
            return np.asarray(array != 0), None
        if kind == 14:
            return dtypes.bfloat16.unpack(array.astype(np.uint16)), dtype
        return array.astype(array.dtype.newbyteorder("=")), None

    def _numbers(self, proto: Any, where: str, kind: int, stored: np.dtype[Any], count: int) -> Array:
        """Numbers that stand one by one; the last one stands for all that follow, and none at all for zeros."""
        given = getattr(proto, FIELDS.get(kind, "int_val"))
        if len(given) > count:
            self.place.refuse(where, f"{len(given)} numbers for {count} elements")
        if len(given) < count:
            self.filled += count
            if self.filled > MAX_FOLDED_ELEMENTS:
                self.place.refuse(where, "it repeats a number too often")
        if kind in (14, 19):
            numbers = np.array(given, np.int64).astype(np.uint16)
            numbers = numbers.view(np.float16) if kind == 19 else numbers
        elif kind == 10:
            numbers = np.array(given, np.uint8)
        else:
            numbers = np.array(given, np.float64 if kind == 2 else np.float32 if kind == 1 else np.int64)
            if kind not in (1, 2):
                low, high = np.iinfo(stored).min, np.iinfo(stored).max
                if numbers.size and not (low <= int(numbers.min()) and int(numbers.max()) <= high):
                    self.place.refuse(where, "a number that its element type cannot hold")
        flat = np.zeros(count, stored)
        flat[: len(numbers)] = numbers
        if len(numbers):
            flat[len(numbers) :] = numbers[-1]
        return flat


__all__ = [
    "DTYPES", "Ref", "Tensors", "TfNode", "dims_of", "nodes_of", "parsed", "reference",
    "value_name",
]  # fmt: skip
