"""An ONNX file again, with other weights: the bytes of its tensors are replaced, and all other bytes stay.

The file is walked field by field, since a parser that writes it anew may order or encode it otherwise.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from tinyedge import dtypes, files
from tinyedge.convert.checks import shown
from tinyedge.convert.head import renumbered
from tinyedge.convert.nodes import Array, NewHead
from tinyedge.convert.onnx_external import embedded
from tinyedge.convert.onnx_file import FOUR_BITS
from tinyedge.convert.onnx_quantised import Quantised
from tinyedge.convert.protobuf import Field, encoded, fields, spliced, varint
from tinyedge.errors import ArgumentError, NumberRangeError

GRAPH, INITIALIZER, NODE, INPUT, OUTPUT, VALUE_INFO = 7, 5, 1, 11, 12, 13
NODE_OUTPUT, NODE_ATTRIBUTE, ATTRIBUTE_NAME, ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH = 2, 5, 1, 5, 6
DIMS, DATA_TYPE, FLOAT_DATA, INT32_DATA, NAME, RAW_DATA, DOUBLE_DATA = 1, 2, 4, 5, 8, 9, 10
PATTERNS: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2"), 11: np.dtype("<f8"), 16: np.dtype("<u2")}
"""How the floats of a file lie, by ONNX's number of the type."""


Trail = tuple[tuple[int, str], ...]
"""The way from the file's graph to a branch: the number of a node, and the name of its branch, and so on."""


Waiting = dict[tuple[Trail, str], tuple[str, Array]]
"""What is not written yet, by where it stands: the model's name of it, and its values."""


class OnnxSource:
    """The ONNX file that a model came from."""

    suffix = ".onnx"

    def __init__(self, path: str | os.PathLike[str], content: bytes) -> None:
        self.path = os.path.realpath(path)
        self.content = content
        self.quantised: dict[str, Quantised] = {}
        self.inside: dict[str, tuple[Trail, str]] = {}  # values of branches: where they stand, and their names there

    def write(self, values: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
        """Write the file again, with these values in place of its own."""
        self._write(values, path, None)

    def write_head(self, values: Mapping[str, Array], path: str | os.PathLike[str], head: NewHead) -> None:
        """Write the file again with these values, some of other shapes."""
        self._write(values, path, head)

    def _write(self, values: Mapping[str, Array], path: str | os.PathLike[str], head: NewHead | None) -> None:
        if os.path.realpath(path) == self.path:
            raise ArgumentError("save", "another name than the original's", f"got {os.fspath(path)!r}")
        content = self.replaced(values, head)
        try:
            files.write_whole(path, content)
        except files.IrregularFileError as error:
            raise ArgumentError("save", "the name of a regular file, or a new name", str(error)) from None

    def replaced(self, values: Mapping[str, Array], head: NewHead | None = None) -> bytes:
        """The content with other values; with a new head, of other shapes too. Numbers of other files stand in it."""
        whole = embedded(self.path, self.content)
        if whole is not self.content:
            other = copy.copy(self)
            other.content = whole
            return other.replaced(values, head)
        new = {**values, **(head.constants if head is not None else {})}
        waiting = {self.inside.get(name, ((), name)): (name, array) for name, array in new.items()}
        edits: list[tuple[list[Field], bytes]] = []
        data = self.content
        for graph in fields(data, 0, len(data)):
            if graph.number == GRAPH and graph.kind == 2:
                if head is not None:
                    edits += self._shapes(new, head, graph)
                self._graph(waiting, edits, [graph], ())
        if waiting:
            raise ArgumentError(
                "save", "weights that stand in the file itself", f"{shown(next(iter(waiting.values()))[0])!r} does not",
                "Save the values with te.save(model.state_dict(), path).",
            )  # fmt: skip
        return spliced(data, edits)

    def _shapes(self, values: Mapping[str, Array], head: NewHead, graph: Field) -> list[tuple[list[Field], bytes]]:
        """The shapes that the file states for what has another one now."""
        from onnx import ValueInfoProto

        edits = []
        for field in fields(self.content, graph.begin, graph.end):
            if field.number not in (INPUT, OUTPUT, VALUE_INFO) or field.kind != 2:
                continue
            info = ValueInfoProto.FromString(self.content[field.begin : field.end])
            dims = info.type.tensor_type.shape.dim
            stated = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
            if info.name in head.values:
                wanted = renumbered(stated, head.old, head.new, True)
            elif info.name in values and field.number != OUTPUT:  # of weights too, as some exporters write them
                wanted = values[info.name].shape
            else:
                continue
            if wanted != stated and wanted is not None:
                for dim, size in zip(dims, wanted):
                    if type(size) is int:
                        dim.dim_value = size
                edits.append(([graph, field], info.SerializeToString()))
        return edits

    def _graph(self, waiting: Waiting, edits: list[tuple[list[Field], bytes]], path: list[Field], trail: Trail) -> None:
        data, graph, number = self.content, path[-1], -1
        for field in fields(data, graph.begin, graph.end):
            if field.kind != 2:
                continue
            if field.number == INITIALIZER:
                inside = list(fields(data, field.begin, field.end))
                name = self._text(inside, NAME)
                if (trail, name) in waiting:
                    edits += self._tensor(*waiting.pop((trail, name)), [*path, field])
            elif field.number == NODE:
                number += 1
                self._node(waiting, edits, [*path, field], trail, number)

    def _node(
        self, waiting: Waiting, edits: list[tuple[list[Field], bytes]], path: list[Field], trail: Trail, number: int
    ) -> None:
        data, node = self.content, path[-1]
        inside = list(fields(data, node.begin, node.end))
        names = [data[f.begin : f.end].decode() for f in inside if f.number == NODE_OUTPUT]
        for attribute in inside:
            if attribute.number != NODE_ATTRIBUTE:
                continue
            entry = list(fields(data, attribute.begin, attribute.end))
            for value in entry:
                if value.number == ATTRIBUTE_TENSOR and value.kind == 2 and len(names) == 1:
                    if (trail, names[0]) in waiting:
                        edits += self._tensor(*waiting.pop((trail, names[0])), [*path, attribute, value])
                elif value.number == ATTRIBUTE_GRAPH and value.kind == 2:
                    branch = (*trail, (number, self._text(entry, ATTRIBUTE_NAME)))
                    if any(place[: len(branch)] == branch for place, _ in waiting):
                        self._graph(waiting, edits, [*path, attribute, value], branch)

    def _text(self, inside: list[Field], number: int) -> str:
        """The text of a message's field."""
        return next((self.content[f.begin : f.end].decode() for f in inside[::-1] if f.number == number), "")

    def _tensor(self, name: str, values: Array, path: list[Field]) -> list[tuple[list[Field], bytes]]:
        """Where the numbers of a tensor lie, and the new ones."""
        data, place = self.content, path[-1]
        inside = list(fields(data, place.begin, place.end))
        kind = next((varint(data, f.begin)[0] for f in inside[::-1] if f.number == DATA_TYPE), 0)
        dims = tuple(size for f in inside if f.number == DIMS for size in self._sizes(f))
        if name in self.quantised:
            if self.quantised[name].whole is None and dims != values.shape:
                raise ArgumentError(
                    "save", "a head that the file can take",
                    f"{shown(name)!r} is quantised, and the scales of another head are not known",
                    "Save the values with te.save(model.state_dict(), path).",
                )  # fmt: skip
            return [self._integers(name, values, path, inside, dims, kind)]
        if dims != values.shape or kind not in PATTERNS:
            return [(path, self._new_tensor(name, values, kind, place))]
        stored = packed_floats(name, values, kind)
        raw = [f for f in inside if f.number == RAW_DATA]
        if raw:
            return [([*path, raw[-1]], stored.tobytes())]
        lies = [f for f in inside if f.number == {1: FLOAT_DATA, 11: DOUBLE_DATA}.get(kind, INT32_DATA)]
        if kind in (10, 16):
            content = [b"".join(encoded(int(bits)) for bits in stored.reshape(-1).view(np.uint16))]
            if len(lies) != 1 or lies[0].kind != 2:
                content = []
        else:
            ends = np.cumsum([0, *[f.end - f.begin for f in lies]])
            whole = stored.tobytes()
            content = [whole[a:b] for a, b in pairwise(ends)] if ends[-1] == len(whole) else []
        if len(content) != len(lies):
            raise ArgumentError("save", "numbers of an encoding that is known", f"{shown(name)!r} has another one")
        return [([*path, field], part) for field, part in zip(lies, content)]

    def _integers(
        self, name: str, values: Array, path: list[Field], inside: list[Field], dims: tuple[int, ...], kind: int
    ) -> tuple[list[Field], bytes]:
        """The integers that mean ``values`` most nearly: what the file's scales do not reach is cut off."""
        how = self.quantised[name]
        if not np.isfinite(values).all():
            raise NumberRangeError("save", f"{shown(name)!r} is {how.dtype} in the file", "it holds no finite number")
        nearest = np.rint(np.asarray(values, np.float64) / how.scale + how.zero)
        stored = how.lying(np.clip(nearest, *how.limits), dims)
        if kind in FOUR_BITS:
            flat = np.append(stored.reshape(-1), np.zeros(stored.size % 2, stored.dtype)).astype(np.uint8) & 15
            stored = flat[0::2] | (flat[1::2] << 4)
        raw = [f for f in inside if f.number == RAW_DATA]
        if raw:
            return [*path, raw[-1]], stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        lies = [f for f in inside if f.number == INT32_DATA and f.kind == 2]
        if len(lies) != 1:
            raise ArgumentError("save", "numbers of an encoding that is known", f"{shown(name)!r} has another one")
        return [*path, lies[0]], b"".join(encoded(int(number) & (2**64 - 1)) for number in stored.reshape(-1))

    def _sizes(self, field: Field) -> Iterator[int]:
        at = field.begin
        while at < field.end:
            size, at = varint(self.content, at)
            yield size

    def _new_tensor(self, name: str, values: Array, kind: int, place: Field) -> bytes:
        """A tensor of another shape."""
        from onnx import TensorProto

        proto = TensorProto.FromString(self.content[place.begin : place.end])
        for field in ("dims", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            proto.ClearField(field)
        proto.dims.extend(values.shape)
        if kind in PATTERNS:
            proto.raw_data = packed_floats(name, values, kind).tobytes()
        else:
            proto.raw_data = values.astype(values.dtype.newbyteorder("<")).tobytes()
        return bytes(proto.SerializeToString())


def packed_floats(name: str, values: Array, kind: int) -> Array:
    """``values`` as the file holds them. Errors: NumberRangeError for a finite one that becomes infinite."""
    stored = PATTERNS[kind]
    lies = {10: dtypes.float16, 16: dtypes.bfloat16, 1: dtypes.float32}.get(kind)
    packed: Array = np.asarray(values if lies is None else lies.pack(values)).astype(stored)
    if lies is not None and lies.packed:
        bad = np.isfinite(values) & ~np.isfinite(lies.unpack(packed))
        if bad.any():
            raise NumberRangeError(
                "save", f"{shown(name)!r} is {lies.name} in the file", f"it holds {values[bad][0]:.6g}"
            )
    return packed


__all__ = ["OnnxSource", "packed_floats"]
