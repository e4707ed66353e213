"""A protobuf message as its bytes lie: where its fields stand, and the bytes with some of them replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Field(NamedTuple):
    """A field of a message: where it starts, and where its content lies."""

    number: int
    kind: int
    start: int
    begin: int
    end: int


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data: bytes, begin: int, end: int) -> Iterator[Field]:
    """The fields of a message; it was parsed before, so it is well-formed."""
    at = begin
    while at < end:
        start = at
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            first = at
            _, at = varint(data, at)
        elif kind == 2:
            size, first = varint(data, at)
            at = first + size
        else:
            first = at
            at += 8 if kind == 1 else 4
        yield Field(tag >> 3, kind, start, first, at)


def encoded(value: int) -> bytes:
    """A varint."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def spliced(data: bytes, edits: list[tuple[list[Field], bytes]]) -> bytes:
    """The bytes with some fields' contents replaced; where a length changes, those of all around it do."""
    if all(path[-1].end - path[-1].begin == len(new) for path, new in edits):
        result = bytearray(data)
        for path, new in edits:
            result[path[-1].begin : path[-1].end] = new
        return bytes(result)
    return _rebuilt(data, 0, len(data), [(path, new) for path, new in edits], 0)


def _rebuilt(data: bytes, begin: int, end: int, edits: list[tuple[list[Field], bytes]], depth: int) -> bytes:
    parts, at = [], begin
    heads = sorted({path[depth] for path, _ in edits}, key=lambda field: field.start)
    for field in heads:
        mine = [(path, new) for path, new in edits if path[depth] == field]
        if len(mine[0][0]) == depth + 1:
            content = mine[0][1]
        else:
            content = _rebuilt(data, field.begin, field.end, mine, depth + 1)
        parts += [data[at : field.start], encoded(field.number << 3 | 2), encoded(len(content)), content]
        at = field.end
    return b"".join([*parts, data[at:end]])


__all__ = ["Field", "encoded", "fields", "spliced", "varint"]
