"""A frozen TensorFlow graph again, with other weights: the bytes of its constants are replaced, and all others stay."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinyedge import dtypes, files
from tinyedge.convert.checks import Place, shown
from tinyedge.convert.graph import Array
from tinyedge.convert.protobuf import Field, encoded, fields, spliced
from tinyedge.convert.tensorflow_file import DTYPES, Tensors, parsed
from tinyedge.errors import ArgumentError, NumberRangeError

NODE, NODE_NAME, ATTRIBUTE, KEY, VALUE, TENSOR = 1, 1, 5, 1, 2, 8
LIBRARY, SIGNATURE, FUNCTION_NODE = 2, 1, 3
DTYPE, SHAPE, VERSION, CONTENT = 1, 2, 3, 4
"""The fields of a tensor that are no numbers one by one."""


Origin = tuple[str, str]
"""A node by its function, "" for the graph itself, and its name there."""


class TensorflowSource:
    """The file that a model came from, and how its weights were turned."""

    suffix = ".pb"

    def __init__(self, path: str | os.PathLike[str], content: bytes) -> None:
        self.path = os.path.realpath(path)
        self.content = content
        self.turns: dict[str, tuple[int, ...]] = {}
        self.origins: dict[str, Origin] = {}

    def write(self, values: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
        """Write the file again, with these values in place of its own."""
        if os.path.realpath(path) == self.path:
            raise ArgumentError("save", "another name than the original's", f"got {os.fspath(path)!r}")
        content = self.replaced(values)
        try:
            files.write_whole(path, content)
        except files.IrregularFileError as error:
            raise ArgumentError("save", "the name of a regular file, or a new name", str(error)) from None

    def replaced(self, values: Mapping[str, Array]) -> bytes:
        """The content with other values; what did not change keeps its encoding."""
        place = Place("save", self.path, "frozen TensorFlow graph")
        protos = _constants(parsed("save", self.content, place))
        tensors = Tensors(place)
        new: dict[Origin, bytes] = {}
        for name, array in values.items():
            key = self.origins.get(name, ("", name))
            proto = protos[key]
            array = np.transpose(array, np.argsort(self.turns[name])) if name in self.turns else array
            packed = _packed(name, array, int(proto.dtype))
            if packed != _packed(name, tensors.read(proto, name)[0], int(proto.dtype)):
                new[key] = packed
        edits: list[tuple[list[Field], bytes]] = []
        for path, function in self._nodes():
            edits += self._node(path, function, new)
        content = spliced(self.content, edits)
        written = _constants(parsed("save", content, place))
        if len(edits) != len(new) or any(
            written[key].tensor_content != packed
            and _packed(key[1], Tensors(place).read(written[key], key[1])[0], int(written[key].dtype)) != packed
            for key, packed in new.items()
        ):
            raise ArgumentError(
                "save", "constants that stand once in the file", "one stands there in parts",
                "Save the values with te.save(model.state_dict(), path).",
            )  # fmt: skip
        return content

    def _nodes(self) -> Iterator[tuple[list[Field], str]]:
        """Where each node stands, and in which function: "" for the graph's own."""
        data = self.content
        for field in fields(data, 0, len(data)):
            if field.kind != 2:
                continue
            if field.number == NODE:
                yield [field], ""
            for function in fields(data, field.begin, field.end) if field.number == LIBRARY else ():
                parts = list(fields(data, function.begin, function.end))
                heads = [f for f in parts if f.number == SIGNATURE and f.kind == 2]
                names = [name for head in heads for name in self._texts(fields(data, head.begin, head.end))]
                for node in parts:
                    if node.number == FUNCTION_NODE and node.kind == 2:
                        yield [field, function, node], names[-1] if names else ""

    def _texts(self, inside: Iterable[Field]) -> list[str]:
        """What is written in fields of a name."""
        return [self.content[f.begin : f.end].decode("utf-8") for f in inside if f.number == NODE_NAME and f.kind == 2]

    def _node(self, path: list[Field], function: str, new: Mapping[Origin, bytes]) -> list[tuple[list[Field], bytes]]:
        """Where the constant of a node lies, and its new bytes."""
        data, node = self.content, path[-1]
        inside = list(fields(data, node.begin, node.end))
        key = function, (self._texts(inside) or [""])[-1]
        if key not in new:
            return []
        found = []
        for attribute in inside:
            if attribute.number != ATTRIBUTE or attribute.kind != 2:
                continue
            entry = list(fields(data, attribute.begin, attribute.end))
            if [data[f.begin : f.end] for f in entry if f.number == KEY] != [b"value"]:
                continue
            for value in entry:
                if value.number != VALUE or value.kind != 2:
                    continue
                for tensor in fields(data, value.begin, value.end):
                    if tensor.number == TENSOR and tensor.kind == 2:
                        found.append(self._edit([*path, attribute, value, tensor], new[key]))
        return found

    def _edit(self, path: list[Field], packed: bytes) -> tuple[list[Field], bytes]:
        data, tensor = self.content, path[-1]
        inside = list(fields(data, tensor.begin, tensor.end))
        lies = [f for f in inside if f.number == CONTENT and f.kind == 2 and f.end > f.begin]
        numbers = [f for f in inside if f.number not in (DTYPE, SHAPE, VERSION, CONTENT)]
        if lies:
            return [*path, lies[-1]], packed
        whole = len(numbers) == 1 and numbers[0].kind == 2 and numbers[0].end - numbers[0].begin == len(packed)
        if whole and numbers[0].number in (5, 6):  # floats and doubles lie there as they are
            return [*path, numbers[0]], packed
        kept = [data[f.start : f.end] for f in inside if f.number in (DTYPE, SHAPE, VERSION)]
        return path, b"".join([*kept, encoded(CONTENT << 3 | 2), encoded(len(packed)), packed])


def _constants(graph: Any) -> dict[Origin, Any]:
    """The tensors of the constants, in functions too."""
    nodes = [("", node) for node in graph.node]
    nodes += [(function.signature.name, node) for function in graph.library.function for node in function.node_def]
    return {(function, node.name): node.attr["value"].tensor for function, node in nodes if node.op == "Const"}


def _packed(name: str, values: Array, kind: int) -> bytes:
    """The bytes of ``values`` in the file's type. Errors: NumberRangeError for a finite one that becomes infinite."""
    dtype = dtypes.resolve(DTYPES[kind])
    with np.errstate(over="ignore"):
        packed = np.ascontiguousarray(dtype.pack(values), np.dtype(dtype.stored).newbyteorder("<"))
        back = dtype.unpack(packed)
    bad = np.isfinite(values) & ~np.isfinite(back)
    if bad.any():
        raise NumberRangeError("save", f"{shown(name)!r} is {dtype.name} in the file", f"it holds {values[bad][0]:.6g}")
    return packed.tobytes()


__all__ = ["TensorflowSource"]
