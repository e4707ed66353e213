"""An ONNX file whose numbers lie in other files, as one file that holds them itself."""

from __future__ import annotations

from collections.abc import Iterator

from tinyedge.convert.checks import Place
from tinyedge.convert.onnx_file import Tensors
from tinyedge.convert.protobuf import Field, fields, spliced
from tinyedge.errors import ArgumentError

GRAPH, INITIALIZER, NODE, ATTRIBUTE, EXTERNAL = 7, 5, 1, 5, 13
"""Fields of the model, of a graph, of a node, and of a tensor."""

TENSOR, TENSORS, GRAPHS = 5, 10, (6, 11)
"""Fields of an attribute that hold tensors and graphs."""

MAX_BYTES = 2**31 - 1
"""Of a file: protobuf reads no more."""


def embedded(path: str, content: bytes) -> bytes:
    """The file's bytes with the numbers of other files in it; all other bytes stay. The same bytes if it has none.

    Errors: ModelFormatError if the other files cannot be read any more; ArgumentError if one file cannot hold it all.
    """
    from onnx import TensorProto

    tensors = Tensors(Place("save", path, "ONNX file"), path)
    edits: list[tuple[list[Field], bytes]] = []
    total = len(content)
    for trail in _tensors(content):
        place = trail[-1]
        if not any(field.number == EXTERNAL for field in fields(content, place.begin, place.end)):
            continue
        proto = TensorProto.FromString(content[place.begin : place.end])
        proto.raw_data = tensors.bytes_of(proto, proto.name)
        proto.ClearField("external_data")
        proto.ClearField("data_location")
        total += len(proto.raw_data)
        if total > MAX_BYTES:
            raise ArgumentError(
                "save", f"a model of at most {MAX_BYTES} bytes, as one ONNX file can hold", "it has more",
                "Save the values with te.save(model.state_dict(), path).",
            )  # fmt: skip
        edits.append((trail, proto.SerializeToString()))
    return spliced(content, edits) if edits else content


def _tensors(content: bytes) -> Iterator[list[Field]]:
    """Where each tensor stands: the fields around it, and its own."""
    pending = [[field] for field in fields(content, 0, len(content)) if field.number == GRAPH and field.kind == 2]
    while pending:
        graph = pending.pop()
        for field in _messages(content, graph[-1]):
            if field.number == INITIALIZER:
                yield [*graph, field]
            attributes = _messages(content, field, ATTRIBUTE) if field.number == NODE else ()
            for attribute, value in ((a, value) for a in attributes for value in _messages(content, a)):
                if value.number in (TENSOR, TENSORS):
                    yield [*graph, field, attribute, value]
                elif value.number in GRAPHS:
                    pending.append([*graph, field, attribute, value])


def _messages(content: bytes, around: Field, *numbers: int) -> Iterator[Field]:
    for field in fields(content, around.begin, around.end):
        if field.kind == 2 and (not numbers or field.number in numbers):
            yield field


__all__ = ["embedded"]
