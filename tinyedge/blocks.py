"""Quantised numbers: blocks of elements that share their scales, and what each element is.

In: rows of float32. Out: bytes, and the float32 that they stand for. A row is a whole number of blocks. The layouts are
those of ggml, to the bit; "int8" has one scale for a row, and so a block type for each length of rows. What kernels do
to load one element is in ``kernels/storage.py``.

Source: ggml's block types; the layouts are checked against the ``gguf`` package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

ROWS = "int8_rows_"
"""The name of a type with one scale for a row, without the length of the row."""

MAX_ROW = 1 << 24


@dataclass(frozen=True, slots=True)
class BlockType:
    """How many elements lie in how many bytes; ``decode``: (blocks, nbytes) to (blocks, elements), and ``encode`` back,
    by rounding to the nearest that the block's scales allow.
    """

    name: str
    elements: int
    nbytes: int
    decode: Callable[[Bytes], Floats]
    encode: Callable[[Floats], Bytes]

    def nbytes_of(self, count: int) -> int:
        """The bytes of the blocks in which ``count`` elements lie."""
        return -(-count // self.elements) * self.nbytes

    def unpacked(self, raw: npt.NDArray[Any]) -> Floats:
        """The elements that the blocks ``raw`` hold, one after the other."""
        with np.errstate(over="ignore", invalid="ignore"):  # any bytes are blocks
            return self.decode(raw.reshape(-1, self.nbytes)).reshape(-1)

    def packed(self, values: npt.NDArray[Any]) -> Bytes:
        """The blocks of ``values``, one after the other."""
        rows = np.ascontiguousarray(values, np.float32).reshape(-1, self.elements)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self.encode(rows).reshape(-1)


def half(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte ``at`` of each block, as a column."""
    found: Floats = np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)
    return found


def _halves(values: npt.NDArray[Any]) -> Bytes:
    """Numbers of a column as the two bytes of float16."""
    return np.ascontiguousarray(values.astype("<f2")).view(np.uint8).reshape(-1, 2)


def _inverse(scales: Floats) -> Floats:
    return np.asarray(np.where(scales == 0, np.float32(0), np.float32(1) / scales), np.float32)


def _away(values: Floats) -> Floats:
    """Rounded to the nearest, halves away from zero, as C's roundf does."""
    size = np.abs(values)
    whole = np.floor(size)
    found: Floats = np.sign(values) * (whole + (size - whole >= 0.5))
    return found


def _farthest(rows: Floats) -> Floats:
    """Of each row the element that is farthest from zero, as a column."""
    found: Floats = np.take_along_axis(rows, np.abs(rows).argmax(axis=-1, keepdims=True), axis=-1)
    return found


def _nibbles(data: Bytes) -> Bytes:
    """Of each row the low halves of its bytes, and then the high ones."""
    return np.concatenate([data & 15, data >> 4], axis=-1)


def _joined(numbers: Bytes) -> Bytes:
    """What ``_nibbles`` takes apart."""
    low, high = np.split(numbers & 15, 2, axis=-1)
    found: Bytes = low | (high << 4)
    return found


def _fifth(blocks: Bytes, at: int) -> Bytes:
    """The 32 bits from byte ``at`` on, each as the number 16 or 0."""
    found: Bytes = np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little") << np.uint8(4)
    return found


def _fifths(numbers: Bytes) -> Bytes:
    return np.packbits(numbers >> 4, axis=1, bitorder="little")


def _q8_0(blocks: Bytes) -> Floats:
    return half(blocks, 0) * blocks[:, 2:].view(np.int8)


def _to_q8_0(rows: Floats) -> Bytes:
    scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    numbers = _away(rows * _inverse(scale))
    return np.concatenate([_halves(scale), numbers.astype(np.int8).view(np.uint8)], axis=1)


def _q4_0(blocks: Bytes) -> Floats:
    return np.asarray(half(blocks, 0) * (_nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)), np.float32)


def _symmetric(rows: Floats, least: int) -> tuple[Floats, Bytes]:
    """Scales and numbers from 0 on, where the farthest element becomes ``least``."""
    scale = _farthest(rows) / np.float32(least)
    # In float64, so that the sum is rounded once, as by a fused multiplication and addition.
    moved = rows.astype(np.float64) * _inverse(scale).astype(np.float64) + (0.5 - least)
    return scale, np.trunc(moved).astype(np.float32).clip(0, -2 * least - 1).astype(np.uint8)


def _to_q4_0(rows: Floats) -> Bytes:
    scale, numbers = _symmetric(rows, -8)
    return np.concatenate([_halves(scale), _joined(numbers)], axis=1)


def _q4_1(blocks: Bytes) -> Floats:
    return half(blocks, 0) * _nibbles(blocks[:, 4:]) + half(blocks, 2)


def _affine(rows: Floats, most: int) -> tuple[Floats, Floats, Bytes]:
    """Scales, minima, and numbers from 0 to ``most``."""
    least = rows.min(axis=1, keepdims=True)
    scale = (rows.max(axis=1, keepdims=True) - least) / np.float32(most)
    numbers = np.trunc((rows - least) * _inverse(scale) + np.float32(0.5)).clip(0, most)
    return scale, least, numbers.astype(np.uint8)


def _to_q4_1(rows: Floats) -> Bytes:
    scale, least, numbers = _affine(rows, 15)
    return np.concatenate([_halves(scale), _halves(least), _joined(numbers)], axis=1)


def _q5_0(blocks: Bytes) -> Floats:
    numbers = (_nibbles(blocks[:, 6:]) | _fifth(blocks, 2)).view(np.int8) - np.int8(16)
    return np.asarray(half(blocks, 0) * numbers, np.float32)


def _to_q5_0(rows: Floats) -> Bytes:
    scale, numbers = _symmetric(rows, -16)
    return np.concatenate([_halves(scale), _fifths(numbers), _joined(numbers)], axis=1)


def _q5_1(blocks: Bytes) -> Floats:
    return half(blocks, 0) * (_nibbles(blocks[:, 8:]) | _fifth(blocks, 4)) + half(blocks, 2)


def _to_q5_1(rows: Floats) -> Bytes:
    scale, least, numbers = _affine(rows, 31)
    return np.concatenate([_halves(scale), _halves(least), _fifths(numbers), _joined(numbers)], axis=1)


def _k_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    """The 8 scales and 8 minima of 6 bits in 12 bytes: the last 4 of each have their top 2 bits with the first 4."""
    first, second, low = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (low & 15) | (first >> 6 << 4)], axis=1)
    return scales, np.concatenate([second & 63, (low >> 4) | (second >> 6 << 4)], axis=1)


def _k_packed(scales: Bytes, minima: Bytes) -> Bytes:
    """What ``_k_scales`` takes apart."""
    first = scales[:, :4] | (scales[:, 4:] >> 4 << 6)
    second = minima[:, :4] | (minima[:, 4:] >> 4 << 6)
    return np.concatenate([first, second, (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4], axis=1)


def _k_affine(blocks: Bytes, numbers: Bytes) -> Floats:
    """8 parts of 32 elements: the numbers times the parts' scales, less their minima."""
    scales, minima = _k_scales(blocks[:, 4:16])
    y = (half(blocks, 0) * scales)[:, :, None] * numbers - (half(blocks, 2) * minima)[:, :, None]
    found: Floats = y.reshape(-1, 256)
    return found


def _to_k_affine(parts: Floats, most: int, limit: int) -> tuple[list[Bytes], Bytes, Bytes, Bytes]:
    """For parts (blocks, parts, elements): the blocks' float16, the parts' scales and minima up to ``limit``, and the
    numbers from 0 to ``most``.
    """
    below = np.maximum(-parts.min(axis=2), 0)  # a block's minimum is at most 0
    above = np.maximum(parts.max(axis=2), 0)
    steps = (above + below) / np.float32(most)
    wholes = [_halves(part.max(axis=1, keepdims=True) / np.float32(limit)) for part in (steps, below)]
    step, least = (half(whole, 0) for whole in wholes)
    scales = np.rint(steps * _inverse(step)).clip(0, limit).astype(np.uint8)
    minima = np.rint(below * _inverse(least)).clip(0, limit).astype(np.uint8)
    moved = parts + (least * minima)[:, :, None]
    numbers = np.rint(moved * _inverse(step * scales)[:, :, None]).clip(0, most).astype(np.uint8)
    return wholes, scales, minima, numbers


def _q4_k(blocks: Bytes) -> Floats:
    return _k_affine(blocks, _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32))


def _to_q4_k(rows: Floats) -> Bytes:
    wholes, scales, minima, numbers = _to_k_affine(rows.reshape(-1, 8, 32), 15, 63)
    data = _joined(numbers.reshape(-1, 4, 64)).reshape(-1, 128)
    return np.concatenate([*wholes, _k_packed(scales, minima), data], axis=1)


def _q5_k(blocks: Bytes) -> Floats:
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    top: Bytes = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    return _k_affine(blocks, low | top << np.uint8(4))


def _to_q5_k(rows: Floats) -> Bytes:
    wholes, scales, minima, numbers = _to_k_affine(rows.reshape(-1, 8, 32), 31, 63)
    top = np.packbits(numbers >> 4, axis=1, bitorder="little").reshape(-1, 32)
    data = _joined(numbers.reshape(-1, 4, 64)).reshape(-1, 128)
    return np.concatenate([*wholes, _k_packed(scales, minima), top, data], axis=1)


def _quarters(data: Bytes) -> Bytes:
    """The 2-bit numbers of 64 bytes: of each 32 the lowest bits, then the next, and so on."""
    parts = data.reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & np.uint8(3)
    found: Bytes = parts.reshape(-1, 16, 16)
    return found


def _of_quarters(numbers: Bytes) -> Bytes:
    """What ``_quarters`` takes apart."""
    parts = numbers.reshape(-1, 2, 4, 32) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    found: Bytes = np.bitwise_or.reduce(parts, axis=2).reshape(-1, 64)
    return found


def _q2_k(blocks: Bytes) -> Floats:
    scales: Floats = half(blocks, 80) * (blocks[:, :16] & np.uint8(15))
    minima: Floats = half(blocks, 82) * (blocks[:, :16] >> np.uint8(4))
    found: Floats = (scales[:, :, None] * _quarters(blocks[:, 16:80]) - minima[:, :, None]).reshape(-1, 256)
    return found


def _to_q2_k(rows: Floats) -> Bytes:
    wholes, scales, minima, numbers = _to_k_affine(rows.reshape(-1, 16, 16), 3, 15)
    return np.concatenate([scales | minima << 4, _of_quarters(numbers), *wholes], axis=1)


def _q3_k(blocks: Bytes) -> Floats:
    low = np.concatenate([blocks[:, 96:104] & 15, blocks[:, 96:104] >> 4], axis=1)
    high = (blocks[:, None, 104:108] >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3).reshape(-1, 16)
    scales = half(blocks, 108) * ((low | high << 4).view(np.int8) - np.int8(32))
    top = blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # 8 parts of 32
    numbers = (_quarters(blocks[:, 32:96]) | (top << 2).reshape(-1, 16, 16)).view(np.int8) - np.int8(4)
    found: Floats = (scales[:, :, None] * numbers).reshape(-1, 256)
    return found


def _to_k_symmetric(parts: Floats, least: int, limit: int) -> tuple[Bytes, npt.NDArray[np.int8], Floats]:
    """For parts (blocks, parts, elements): the blocks' float16, the parts' scales from ``-limit`` to ``limit - 1``, and
    the elements in units of their part's scale, where the farthest is about ``least``.
    """
    steps = _farthest(parts)[:, :, 0] / np.float32(least)
    whole = _halves(_farthest(steps) / np.float32(-limit))
    step = half(whole, 0)
    scales = np.rint(steps * _inverse(step)).clip(-limit, limit - 1).astype(np.int8)
    return whole, scales, parts * _inverse(step * scales)[:, :, None]


def _to_q3_k(rows: Floats) -> Bytes:
    whole, scales, moved = _to_k_symmetric(rows.reshape(-1, 16, 16), -4, 32)
    numbers = (np.rint(moved).clip(-4, 3) + 4).astype(np.uint8)
    six = (scales + np.int8(32)).view(np.uint8)
    high = (six >> 4).reshape(-1, 4, 4) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    packed = np.concatenate([six[:, :8] & 15 | six[:, 8:] << 4, np.bitwise_or.reduce(high, axis=1)], axis=1)
    top = np.packbits(numbers.reshape(-1, 8, 32) >> 2, axis=1, bitorder="little").reshape(-1, 32)
    return np.concatenate([top, _of_quarters(numbers & np.uint8(3)), packed, whole], axis=1)


def _q6_k(blocks: Bytes) -> Floats:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64))
    numbers = (low.reshape(-1, 16, 16) | _quarters(blocks[:, 128:192]) << 4).view(np.int8) - np.int8(32)
    scales = half(blocks, 208) * blocks[:, 192:208].view(np.int8)
    found: Floats = (scales[:, :, None] * numbers).reshape(-1, 256)
    return found


def _to_q6_k(rows: Floats) -> Bytes:
    whole, scales, wanted = _to_k_symmetric(rows.reshape(-1, 16, 16), -32, 128)
    numbers = np.rint(wanted).clip(-32, 31).astype(np.int8)
    moved = (numbers + np.int8(32)).view(np.uint8).reshape(-1, 2, 128)
    low = _joined(moved & 15).reshape(-1, 128)
    return np.concatenate([low, _of_quarters(moved >> 4), scales.view(np.uint8), whole], axis=1)


UNEVEN = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
"""What the 16 numbers of the "iq4" types mean, in units of the scale: closer together near zero."""


def _to_uneven(values: Floats) -> Bytes:
    """The numbers whose meanings are nearest."""
    return np.searchsorted((UNEVEN[1:] + UNEVEN[:-1]) / 2, values).astype(np.uint8)


def _iq4_nl(blocks: Bytes) -> Floats:
    return half(blocks, 0) * UNEVEN[_nibbles(blocks[:, 2:])]


def _to_iq4_nl(rows: Floats) -> Bytes:
    scale = _farthest(rows) / UNEVEN[0]
    return np.concatenate([_halves(scale), _joined(_to_uneven(rows * _inverse(scale)))], axis=1)


def _iq4_xs(blocks: Bytes) -> Floats:
    low = (blocks[:, 4:8, None] >> np.array([0, 4], np.uint8) & 15).reshape(-1, 8)
    high = (blocks[:, 2:4, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(-1, 8)
    scales = half(blocks, 0) * ((low | high << 4).view(np.int8) - np.int8(32))
    numbers = UNEVEN[_nibbles(blocks[:, 8:].reshape(-1, 8, 16))]
    found: Floats = (scales[:, :, None] * numbers).reshape(-1, 256)
    return found


def _to_iq4_xs(rows: Floats) -> Bytes:
    whole, scales, moved = _to_k_symmetric(rows.reshape(-1, 8, 32), int(UNEVEN[0]), 32)
    six = (scales + np.int8(32)).view(np.uint8)
    high = np.bitwise_or.reduce((six >> 4).reshape(-1, 2, 4) << np.array([0, 2, 4, 6], np.uint8), axis=2)
    low = six[:, ::2] & 15 | six[:, 1::2] << 4
    return np.concatenate([whole, high, low, _joined(_to_uneven(moved)).reshape(-1, 128)], axis=1)


TYPES = {
    each.name: each
    for each in (
        BlockType("q8_0", 32, 34, _q8_0, _to_q8_0),
        BlockType("q4_0", 32, 18, _q4_0, _to_q4_0),
        BlockType("q4_1", 32, 20, _q4_1, _to_q4_1),
        BlockType("q5_0", 32, 22, _q5_0, _to_q5_0),
        BlockType("q5_1", 32, 24, _q5_1, _to_q5_1),
        BlockType("q2_k", 256, 84, _q2_k, _to_q2_k),
        BlockType("q3_k", 256, 110, _q3_k, _to_q3_k),
        BlockType("q4_k", 256, 144, _q4_k, _to_q4_k),
        BlockType("q5_k", 256, 176, _q5_k, _to_q5_k),
        BlockType("q6_k", 256, 210, _q6_k, _to_q6_k),
        BlockType("iq4_nl", 32, 18, _iq4_nl, _to_iq4_nl),
        BlockType("iq4_xs", 256, 136, _iq4_xs, _to_iq4_xs),
    )
}
"""GGUF's, by name. Their scales are float16."""

NAMES = (*TYPES, "int8")
"""What the user names."""


@cache
def of_rows(length: int) -> BlockType:
    """Rows of ``length`` elements in int8, with one float32 scale before each."""
    nbytes = 4 + -(-length // 4) * 4

    def decode(blocks: Bytes) -> Floats:
        scales = np.ascontiguousarray(blocks[:, :4]).view("<f4").astype(np.float32)
        return scales * blocks[:, 4 : 4 + length].view(np.int8)

    def encode(rows: Floats) -> Bytes:
        scales = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
        found = np.zeros((len(rows), nbytes), np.uint8)
        found[:, :4] = np.ascontiguousarray(scales.astype("<f4")).view(np.uint8)
        numbers = np.rint(rows * _inverse(scales)).clip(-127, 127)
        found[:, 4 : 4 + length] = numbers.astype(np.int8).view(np.uint8)
        return found

    return BlockType(f"{ROWS}{length}", length, nbytes, decode, encode)


def type_of(name: str) -> BlockType | None:
    """The block type of that name; None if there is none."""
    length = name.removeprefix(ROWS)
    if length != name and length.isascii() and length.isdigit() and 0 < int(length) <= MAX_ROW:
        return of_rows(int(length))
    return TYPES.get(name)
