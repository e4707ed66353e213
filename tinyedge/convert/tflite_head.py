"""A TFLite file with another last layer. New data and shapes stand behind the file's own bytes, and what pointed to the
old ones points there: all other bytes stay.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from tinyedge.convert.checks import shown
from tinyedge.convert.head import renumbered
from tinyedge.convert.nodes import Array, NewHead
from tinyedge.convert.tflite_file import TfGraph, TfTensor
from tinyedge.errors import ArgumentError

SHAPE, BUFFER, SIGNATURE, DATA, NEW_SHAPE = 4, 8, 18, 4, 4
"""Where the fields stand in the vtables of Tensor, Buffer and ReshapeOptions."""

LAYERS = {"FULLY_CONNECTED", "CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL"}


def _refuse(problem: str) -> NoReturn:
    raise ArgumentError(
        "save", "a head that the file can take", problem, "Save the values with te.save(model.state_dict(), path)."
    )


class HeadEditor:
    """One file, whose weights get other shapes."""

    def __init__(self, content: bytes, graph: TfGraph, head: NewHead) -> None:
        import tflite

        self.content = bytearray(content)
        self.model = tflite.Model.GetRootAsModel(content, 0)
        self.entries = self.model.Subgraphs(0)
        self.options = tflite.ReshapeOptions
        self.graph, self.head = graph, head
        self.shapes: dict[int, tuple[int, ...]] = {}  # new ones, by the number of the tensor
        self.data: dict[int, bytes] = {}

    def edited(self, weights: Mapping[str, tuple[TfTensor, Array]]) -> bytes:
        """The content with these weights, as they lie in the file."""
        numbers = {tensor.name: number for number, tensor in enumerate(self.graph.tensors)}
        for tensor, array in weights.values():
            if tensor.scale is not None:
                _refuse(f"{shown(tensor.name)!r} is quantised, and the scales of another head are not known")
            number = numbers[tensor.name]
            self.shapes[number], self.data[number] = array.shape, array.tobytes()
        for op in self.graph.operators:
            changed = [number for number in op.inputs if number in self.shapes]
            if changed:
                self._follow(op, changed)
        for number, shape in self.shapes.items():
            table = self.entries.Tensors(number)._tab
            self._point(table, SHAPE, _ints(shape), 4)
            tensor = self.graph.tensors[number]
            if len(tensor.dims) == len(shape) and tensor.dims != tensor.shape:
                sizes = [-1 if dim is None else size for dim, size in zip(tensor.dims, shape)]
                self._point(table, SIGNATURE, _ints(sizes), 4)
        self._write_data()
        return bytes(self.content)

    def _follow(self, op: Any, changed: list[int]) -> None:
        """The new shapes of what an op computes from what has another shape."""
        for number in op.outputs:
            tensor = self.graph.tensors[number]
            if tensor.scale is not None:
                _refuse(f"{shown(tensor.name)!r} is quantised, and the scales of another head are not known")
            if op.op in ("DEQUANTIZE", "CAST"):
                shape = self.shapes[changed[0]]
            elif op.op == "TRANSPOSE" and changed[0] in self.data:
                perm = self.graph.tensors[op.inputs[1]].data
                assert perm is not None  # the weight was read through it
                shape = tuple(self.shapes[changed[0]][axis] for axis in perm.reshape(-1))
            else:
                shape = self._result(op, tensor.shape, changed)
            if shape != tensor.shape:
                self.shapes[number] = shape
            if op.op == "RESHAPE":
                self._reshape(op, shape)

    def _result(self, op: Any, shape: tuple[int, ...], changed: list[int]) -> tuple[int, ...]:
        source = changed[0]
        before = self.graph.tensors[source].shape
        if op.op not in LAYERS and len(before) == len(shape):
            moved = [place for place, (a, b) in enumerate(zip(before, self.shapes[source])) if a != b]
            if moved and shape[moved[0]] == self.head.old:
                return (*shape[: moved[0]], self.head.new, *shape[moved[0] + 1 :])
        sizes = renumbered(shape, self.head.old, self.head.new, False)
        return tuple(size for size in sizes or () if isinstance(size, int))

    def _reshape(self, op: Any, shape: tuple[int, ...]) -> None:
        """A reshape has its sizes in an input, in its options, or in both."""
        if len(op.inputs) > 1 and op.inputs[1] >= 0:
            wanted = self.graph.tensors[op.inputs[1]]
            if wanted.data is not None:
                sizes = renumbered(tuple(map(int, wanted.data.reshape(-1))), self.head.old, self.head.new, False)
                self.data[op.inputs[1]] = np.array(sizes, wanted.data.dtype.newbyteorder("<")).tobytes()
        entry = self.entries.Operators(op.number)
        table = entry.BuiltinOptions()
        if table is None:
            return
        options = self.options()
        options.Init(table.Bytes, table.Pos)
        if options.NewShapeLength():
            sizes = renumbered(tuple(map(int, options.NewShapeAsNumpy())), self.head.old, self.head.new, False)
            self._point(options._tab, NEW_SHAPE, _ints(sizes or ()), 4)

    def _write_data(self) -> None:
        owners: dict[int, list[int]] = {}
        for number in range(self.entries.TensorsLength()):
            owners.setdefault(self.entries.Tensors(number).Buffer(), []).append(number)
        done: dict[int, bytes] = {}
        for number, data in self.data.items():
            buffer = self.entries.Tensors(number).Buffer()
            if any(self.data.get(owner) != data for owner in owners[buffer]):
                _refuse(f"{shown(self.graph.tensors[number].name)!r} shares its place in the file with another tensor")
            if buffer not in done:
                done[buffer] = data
                table = self.model.Buffers(buffer)._tab
                self._point(table, DATA, struct.pack("<I", len(data)) + data, 16)

    def _point(self, table: Any, field: int, vector: bytes, align: int) -> None:
        """Append a vector, whose elements are aligned, and point to it."""
        offset = table.Offset(field)
        if not offset:
            return
        self.content += bytes(-(len(self.content) + 4) % align)
        place = table.Pos + offset
        struct.pack_into("<I", self.content, place, len(self.content) - place)
        self.content += vector


def _ints(values: Any) -> bytes:
    numbers: Iterator[int] = (int(value) for value in values)
    array = np.fromiter(numbers, np.dtype("<i4"))
    return struct.pack("<I", array.size) + array.tobytes()


__all__ = ["HeadEditor"]
