"""ONNX files: parsed by the ``onnx`` package, and checked. Nothing here knows what an op computes."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyedge import dtypes, files
from tinyedge.convert.checks import MAX_NODES, Place, checked_shape, shown
from tinyedge.convert.graph import Array, Dims, Port
from tinyedge.errors import MissingPackageError

DTYPES = {1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
          11: "float64", 16: "bfloat16"}  # fmt: skip
"""ONNX's element types that tinyedge has."""

STORED = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "u1", 10: "<f2", 11: "<f8",
          12: "<u4", 13: "<u8", 16: "<u2"}  # fmt: skip
"""How raw data of the element types that are read lie in a file."""

FOUR_BITS = {21: (0, 15), 22: (-8, 7)}
"""ONNX's numbers of the types of 4 bits, two to a byte, and where these end."""

MAX_READS = 4
"""How often the tensors together may read the bytes of other files: a small file could ask for memory without end."""

FIELDS = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data"}


def parsed(call: str, content: bytes, place: Place) -> Any:
    """The file's ModelProto. Errors: MissingPackageError; ModelFormatError if it is none."""
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(
            call, "the package onnx reads ONNX files", "it is not installed",
            'Install it: pip install "tinyedge[import]".',
        ) from error  # fmt: skip
    try:
        return onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own class of error is another one in each of its implementations
        place.refuse("the file", f"protobuf cannot parse it: {shown(error)}")


def opset_of(model: Any, place: Place) -> int:
    """The version of ONNX's own op set."""
    versions = list({entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")})
    if len(versions) != 1 or not 1 <= versions[0] <= 1000:
        place.refuse("opset_import", "it must name one version of ONNX's own op set")
    return int(versions[0])


class Tensors:
    """Reads tensors: from the file, or from data files below its folder."""

    def __init__(self, place: Place, path: str | os.PathLike[str]) -> None:
        self.place = place
        self.folder = os.path.realpath(os.path.dirname(os.path.abspath(os.fspath(path))))
        self.external: dict[str, bytes] = {}
        self.total = 0
        self.limits: dict[str, tuple[int, int]] = {}  # of tensors of 4 bits

    def read(self, proto: Any, where: str) -> tuple[Array, dtypes.DType | None]:
        """The values, and the dtype if NumPy lacks it."""
        kind = proto.data_type
        if kind in FOUR_BITS:
            return self._nibbles(proto, where, kind), None
        if kind not in STORED:
            self.place.unsupported([f"{shown(where)}: a tensor of ONNX's element type {int(kind)}"])
        stored = np.dtype(STORED[kind])
        shape = checked_shape(self.place, where, proto.dims, stored.itemsize)
        if proto.HasField("segment"):
            self.place.unsupported([f"{shown(where)}: a tensor in segments"])
        if proto.data_location == 1:
            data = self.bytes_of(proto, where)
        elif proto.HasField("raw_data"):
            data = proto.raw_data
        else:
            return self._typed(proto, where, kind, shape), _lying(kind)
        if len(data) != math.prod(shape) * stored.itemsize:
            self.place.refuse(where, f"{len(data)} bytes for the shape {shape} of {stored.itemsize} bytes an element")
        return _values(np.frombuffer(data, stored).reshape(shape), kind), _lying(kind)

    def _nibbles(self, proto: Any, where: str, kind: int) -> Array:
        """Elements of 4 bits, as integers of 8."""
        shape = checked_shape(self.place, where, proto.dims, 1)
        count = math.prod(shape)
        if proto.HasField("segment"):
            self.place.unsupported([f"{shown(where)}: a tensor in segments"])
        if proto.data_location == 1:
            data = np.frombuffer(self.bytes_of(proto, where), np.uint8)
        elif proto.HasField("raw_data"):
            data = np.frombuffer(proto.raw_data, np.uint8)
        else:
            data = np.array(proto.int32_data, np.int64).astype(np.uint8)
        if len(data) != (count + 1) // 2:
            self.place.refuse(where, f"{len(data)} bytes for the shape {shape} of 4 bits an element")
        both = np.stack([data & 15, data >> 4], 1).reshape(-1)[:count]
        self.limits[where] = FOUR_BITS[kind]
        values = ((both ^ 8).astype(np.int8) - 8).astype(np.int8) if kind == 22 else both
        return np.asarray(values.reshape(shape))

    def _typed(self, proto: Any, where: str, kind: int, shape: tuple[int, ...]) -> Array:
        numbers = getattr(proto, FIELDS.get(kind, "int32_data"))
        if len(numbers) != math.prod(shape):
            self.place.refuse(where, f"{len(numbers)} numbers for the shape {shape}")
        stored = np.dtype(STORED[kind])
        if stored.itemsize < 4:
            wide = np.array(numbers, np.int64)
            bits = wide.astype(np.uint16 if kind in (10, 16) else stored)
            bits = bits.view(np.float16) if kind == 10 else bits
        else:
            bits = np.array(numbers, stored)
        return _values(bits.reshape(shape), kind)

    def bytes_of(self, proto: Any, where: str) -> bytes:
        """The numbers of a tensor that lie in a file below the model's folder."""
        entries = {entry.key: entry.value for entry in proto.external_data}
        try:
            start, size = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
        except ValueError:
            self.place.refuse(where, "offset and length of its external data are no numbers")
        location = entries.get("location", "")
        content = self._data_file(location, where)
        size = len(content) - start if size < 0 and "length" not in entries else size
        if start < 0 or size < 0 or start + size > len(content):
            self.place.refuse(where, f"{size} bytes at {start} are not inside {shown(location)!r}")
        self.total += size
        if self.total > MAX_READS * sum(map(len, self.external.values())):
            self.place.refuse(where, "its tensors read the same bytes of other files again and again")
        return content[start : start + size]

    def _data_file(self, location: str, where: str) -> bytes:
        """A file below the model's folder, which no link leads out of."""
        if location in self.external:
            return self.external[location]
        plain = location.replace("\\", "/")
        if not plain or "\0" in plain or os.path.isabs(plain) or ":" in plain or ".." in plain.split("/"):
            self.place.refuse(
                where, f"external data must lie below the model's folder, and {shown(location)!r} does not"
            )
        path = os.path.realpath(os.path.join(self.folder, plain))
        if os.path.commonpath([path, self.folder]) != self.folder:
            self.place.refuse(where, f"a link leads from {shown(location)!r} out of the model's folder")
        try:
            content = files.read_whole(path)
        except OSError as error:
            self.place.refuse(where, f"its external data cannot be read: {shown(error)}")
        self.external[location] = content
        return content


def _lying(kind: int) -> dtypes.DType | None:
    return dtypes.bfloat16 if kind == 16 else None


def _values(array: Array, kind: int) -> Array:
    if kind == 9:
        return np.asarray(array != 0)
    if kind == 16:
        return dtypes.bfloat16.unpack(array)
    return array.astype(array.dtype.newbyteorder("="))


def port_of(value: Any, place: Place) -> Port:
    """An input or output as the file declares it."""
    kind = value.type.WhichOneof("value")
    if kind == "sequence_type" and value.type.sequence_type.elem_type.WhichOneof("value") == "tensor_type":
        return Port(value.name, None, None, sequence=True)
    if kind not in ("tensor_type", None):
        place.unsupported([f"{shown(value.name)}: a value that is no tensor ({kind})"])
    dims = dims_of(value)
    name = DTYPES.get(value.type.tensor_type.elem_type)
    return Port(value.name, None if name is None else dtypes.resolve(name), dims)


def dims_of(value: Any) -> Dims | None:
    """The dims that the file states for a value."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        return None
    dims: list[int | str | None] = []
    for dim in kind.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            dims.append(int(dim.dim_value))
        else:
            symbol = dim.dim_param  # protobuf gives bytes where it is no UTF-8; "?" names no length
            dims.append(symbol if isinstance(symbol, str) and any(c.isalnum() for c in symbol) else None)
    return tuple(dims)


def checked_nodes(graph: Any, place: Place) -> list[tuple[int, Any]]:
    """The nodes of a graph, if they are not too many, with their numbers: each behind those whose results it reads,
    which a file should see to, and some do not.
    """
    if len(graph.node) > MAX_NODES:
        place.refuse("the graph", f"{len(graph.node)} nodes, and at most {MAX_NODES} are read")
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    needs = [{makers[name] for name in _reads(node) if name in makers} for node in graph.node]
    waiting = [len(needed) for needed in needs]
    users: dict[int, list[int]] = {}
    for number, needed in enumerate(needs):
        for maker in needed:
            users.setdefault(maker, []).append(number)
    ready = [number for number, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:  # of those that may come next the first one of the file
        number = heapq.heappop(ready)
        order.append(number)
        for user in users.get(number, ()):
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
    order += sorted({*range(len(graph.node))} - {*order})  # a circle, which is refused where it is read
    return [(number, graph.node[number]) for number in order]


def _reads(node: Any) -> set[Any]:
    """What a node reads, and what its branches and bodies read from outside of them."""
    found = set(node.input)
    for attribute in node.attribute:
        if attribute.type == 5:
            graph = attribute.g
            inside = {result.name for result in graph.output}.union(*map(_reads, graph.node))
            own = {name for inner in graph.node for name in inner.output}
            found |= inside - own - {value.name for value in (*graph.input, *graph.initializer)}
    return found


ATTRIBUTES: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "float": (1, lambda a: float(a.f)),
    "int": (2, lambda a: int(a.i)),
    "str": (3, lambda a: a.s.decode("utf-8")),
    "Array": (4, lambda a: a.t),
    "Floats": (6, lambda a: tuple(map(float, a.floats))),
    "Ints": (7, lambda a: tuple(map(int, a.ints))),
    "Strs": (8, lambda a: tuple(s.decode("utf-8") for s in a.strings)),
}
"""By the annotation of a handler's parameter: ONNX's kind of attribute, and how it is read."""


__all__ = [
    "ATTRIBUTES",
    "DTYPES",
    "FOUR_BITS",
    "Tensors",
    "checked_nodes",
    "dims_of",
    "opset_of",
    "parsed",
    "port_of",
]
