"""GGUF files: metadata, and tensors as the blocks that lie in the file. Nothing here knows what a model is.

They are parsed here, not by the ``gguf`` package, which believes every count and offset of a file.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyedge import files
from tinyedge.convert.checks import MAX_NODES, Place, checked_shape, shown
from tinyedge.convert.gguf_blocks import BLOCKS, NAMES, OTHERS, dequantize, nbytes_of
from tinyedge.errors import ShapeError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 65_536
MAX_NAME_BYTES = 65_535
MAX_VALUES = 4_194_304
"""Strings in the metadata, all together; the largest vocabularies have a quarter of a million."""

ARRAY_COST = 16
"""How many strings an array inside an array counts for: it takes as much memory."""

MAX_DEPTH = 4
MAX_DIMS = 4
NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8", 11: "<i8", 12: "<f8"}
BOOL, STRING, ARRAY = 7, 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of the file: its type's name, its shape as NumPy orders dims, and its blocks as they lie there."""

    name: str
    type: str
    shape: tuple[int, ...]
    raw: npt.NDArray[np.uint8]

    def values(self) -> npt.NDArray[np.float32]:
        """The numbers that the blocks stand for."""
        return dequantize(self.raw, self.type, self.shape)


@dataclass
class GgufFile:
    """What a GGUF file holds. Arrays of numbers in the metadata are NumPy's, arrays of strings are lists."""

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, GgufTensor] = field(default_factory=dict)


def one_value(place: Place, metadata: dict[str, Any], name: str, default: Any = None) -> Any:
    """A number, a text or a bool of the metadata. Errors: ModelFormatError if an array stands there."""
    value = metadata.get(name, default)
    if isinstance(value, (list, np.ndarray)):
        place.refuse(name, "an array stands there, and one value is wanted")
    return value


def read_gguf(path: str | os.PathLike[str], call: str = "read_gguf") -> GgufFile:
    """The metadata and tensors of a GGUF file.

    Errors: ModelFormatError, naming the place, if it is damaged, or no GGUF file of version 2 or 3; UnsupportedOpError
            for tensors of types that are not read. FileNotFoundError if it is not there.
    """
    place = Place(call, path, "GGUF file")
    try:
        content = files.read_whole(path)
    except files.IrregularFileError as error:
        place.refuse("the file", str(error))
    return parsed(content, place)


def parsed(content: bytes, place: Place) -> GgufFile:
    """As ``read_gguf``, of the bytes of a file."""
    return _Reader(content, place).file()


class _Reader:
    def __init__(self, content: bytes, place: Place) -> None:
        self.content = content
        self.place = place
        self.at = 0
        self.left = MAX_VALUES

    def take(self, count: int, where: str) -> bytes:
        if not 0 <= count <= len(self.content) - self.at:
            self.place.refuse(where, f"{count} bytes at {self.at}, and the file has {len(self.content)}")
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, form: str, where: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form), where))[0]

    def count(self, most: int, least_bytes: int, where: str) -> int:
        """A count of entries of so many bytes at least, if the file can hold them."""
        count: int = self.number("Q", where)
        if count > most or count * least_bytes > len(self.content) - self.at:
            self.place.refuse(where, f"it says that it has {count} entries at byte {self.at}")
        return count

    def text(self, where: str, most: int | None = None) -> str:
        count = self.number("Q", where)
        if most is not None and count > most:
            self.place.refuse(where, f"a name of {count} bytes at {self.at}, and at most {most} are read")
        try:
            decoded = self.take(count, where).decode("utf-8")
        except UnicodeDecodeError:
            self.place.refuse(where, f"the text of {count} bytes that ends at byte {self.at} is not UTF-8")
        return decoded

    def spend(self, count: int, where: str) -> None:
        self.left -= count
        if self.left < 0:
            self.place.refuse(where, "too many strings and arrays in the metadata")

    def value(self, kind: int, where: str, depth: int) -> Any:
        if kind in NUMBERS:
            return np.frombuffer(self.take(np.dtype(NUMBERS[kind]).itemsize, where), NUMBERS[kind])[0].item()
        if kind == BOOL:
            return self.number("B", where) != 0
        if kind == STRING:
            self.spend(1, where)
            return self.text(where)
        if kind != ARRAY or depth >= MAX_DEPTH:
            what = "arrays nested too deeply" if kind == ARRAY else f"a value of the unknown type {kind}"
            self.place.refuse(where, f"{what} at byte {self.at}")
        self.spend(ARRAY_COST, where)
        return self.array(where, depth + 1)

    def array(self, where: str, depth: int) -> Any:
        kind = self.number("I", where)
        if kind in NUMBERS or kind == BOOL:
            stored = np.dtype(NUMBERS.get(kind, "u1"))
            count = self.count(len(self.content), stored.itemsize, where)
            values = np.frombuffer(self.take(count * stored.itemsize, where), stored)
            return values != 0 if kind == BOOL else values
        count = self.count(self.left, 8, where)
        return [self.value(kind, where, depth) for _ in range(count)]

    def file(self) -> GgufFile:
        if self.take(4, "the file") != MAGIC:
            self.place.refuse("the file", "it does not begin as a GGUF file does")
        version = self.number("I", "the version")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            self.place.refuse(
                "the version", "its numbers are big-endian" if swapped else f"{version}, and 2 and 3 are read"
            )
        tensors = self.count(MAX_NODES, 24, "the count of tensors")
        keys = self.count(MAX_KEYS, 13, "the count of metadata")
        found = GgufFile()
        for number in range(keys):
            name = self.text(f"metadata {number}", MAX_NAME_BYTES)
            if name in found.metadata:
                self.place.refuse(name, "the name stands there twice")
            found.metadata[name] = self.value(self.number("I", name), name, 0)
        entries = [self.entry(number) for number in range(tensors)]
        self.place_tensors(found, entries)
        return found

    def entry(self, number: int) -> tuple[str, str, tuple[int, ...], int]:
        """Name, type, shape and offset of a tensor."""
        name = self.text(f"tensor {number}", MAX_NAME_BYTES)
        dims = self.number("I", name)
        if not 0 < dims <= MAX_DIMS:
            self.place.refuse(name, f"{dims} dims, and from 1 to {MAX_DIMS} are read")
        sizes = [self.number("Q", name) for _ in range(dims)]
        kind, offset = self.number("I", name), self.number("Q", name)
        if kind in OTHERS:
            self.place.unsupported(
                [f"{shown(name)}: a tensor of the type {OTHERS[kind]}"], f"Types that are read: {', '.join(BLOCKS)}."
            )
        if kind not in NAMES:
            self.place.refuse(name, f"a tensor of the unknown type {kind}")
        # float32 is what they may become
        return name, NAMES[kind], checked_shape(self.place, name, sizes[::-1], 4), offset

    def place_tensors(self, found: GgufFile, entries: list[tuple[str, str, tuple[int, ...], int]]) -> None:
        alignment = found.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
            self.place.refuse("general.alignment", f"{shown(alignment)} is no power of two up to {2**20}")
        start = -(-self.at // alignment) * alignment
        end = 0
        for name, kind, shape, offset in sorted(entries, key=lambda entry: entry[3]):
            try:
                nbytes = nbytes_of(kind, shape)
            except ShapeError as error:
                self.place.refuse(name, f"{error.got}: {error.expected}")
            if name in found.tensors:
                self.place.refuse(name, "the name stands there twice")
            if offset % alignment or offset < end or start + offset + nbytes > len(self.content):
                self.place.refuse(
                    name, f"{nbytes} bytes at {start + offset} overlap others, are not aligned, or end behind the file"
                )
            end = offset + nbytes
            data = np.frombuffer(self.content, np.uint8, nbytes, start + offset) if nbytes else np.zeros(0, np.uint8)
            found.tensors[name] = GgufTensor(name, kind, shape, data)
        order = [entry[0] for entry in entries]
        found.tensors = {name: found.tensors[name] for name in order}
        if any(math.prod(tensor.shape) == 0 for tensor in found.tensors.values()):
            self.place.refuse("the tensors", "one has no elements")


__all__ = ["MAGIC", "GgufFile", "GgufTensor", "dequantize", "one_value", "parsed", "read_gguf"]
