"""How a GGUF file stores numbers: blocks of elements that share their scales, and what each element is.

Source: ggml's block types; the layouts are checked against the ``gguf`` package.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyedge.errors import ArgumentError, ShapeError

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


class Block(NamedTuple):
    """A type of the file: its number there, and how many elements lie in how many bytes."""

    number: int
    elements: int
    nbytes: int
    decode: Callable[[Bytes], Array]
    """(blocks, nbytes) to (blocks, elements)."""


def _half(blocks: Bytes, at: int) -> Array:
    """The float16 at byte ``at`` of each block, as a column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(data: Bytes) -> Array:
    """Of each row the low halves of its bytes, and then the high ones."""
    return np.concatenate([data & 15, data >> 4], axis=-1)


def _fifth(blocks: Bytes, at: int) -> Array:
    """The 32 bits from byte ``at`` on, each as the number 16 or 0."""
    return np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little") << 4


def _f32(blocks: Bytes) -> Array:
    return np.ascontiguousarray(blocks).view("<f4").astype(np.float32, copy=False)


def _f16(blocks: Bytes) -> Array:
    return _half(blocks, 0)


def _bf16(blocks: Bytes) -> Array:
    return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(blocks: Bytes) -> Array:
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8)


def _q4_0(blocks: Bytes) -> Array:
    return np.asarray(_half(blocks, 0) * (_nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)))


def _q4_1(blocks: Bytes) -> Array:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _q5_0(blocks: Bytes) -> Array:
    return np.asarray(_half(blocks, 0) * ((_nibbles(blocks[:, 6:]) | _fifth(blocks, 2)).view(np.int8) - np.int8(16)))


def _q5_1(blocks: Bytes) -> Array:
    return _half(blocks, 0) * (_nibbles(blocks[:, 8:]) | _fifth(blocks, 4)) + _half(blocks, 2)


def _k_scales(packed: Bytes) -> tuple[Array, Array]:
    """The 8 scales and 8 minima of 6 bits in 12 bytes: the last 4 of each have their top 2 bits with the first 4."""
    first, second, low = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (low & 15) | (first >> 6 << 4)], axis=1)
    return scales, np.concatenate([second & 63, (low >> 4) | (second >> 6 << 4)], axis=1)


def _q4_k(blocks: Bytes) -> Array:
    scales, minima = _k_scales(blocks[:, 4:16])
    numbers = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    y = (_half(blocks, 0) * scales)[:, :, None] * numbers - (_half(blocks, 2) * minima)[:, :, None]
    return np.asarray(y.reshape(-1, 256))


def _q6_k(blocks: Bytes) -> Array:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64))
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    numbers = (low.reshape(-1, 16, 16) | (high << 4).reshape(-1, 16, 16)).view(np.int8) - np.int8(32)
    scales = _half(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return np.asarray((scales[:, :, None] * numbers).reshape(-1, 256))


BLOCKS: dict[str, Block] = {
    "F32": Block(0, 1, 4, _f32),
    "F16": Block(1, 1, 2, _f16),
    "BF16": Block(30, 1, 2, _bf16),
    "Q8_0": Block(8, 32, 34, _q8_0),
    "Q4_0": Block(2, 32, 18, _q4_0),
    "Q4_1": Block(3, 32, 20, _q4_1),
    "Q5_0": Block(6, 32, 22, _q5_0),
    "Q5_1": Block(7, 32, 24, _q5_1),
    "Q4_K": Block(12, 256, 144, _q4_k),
    "Q6_K": Block(14, 256, 210, _q6_k),
}
"""By the type's name."""

NAMES = {block.number: name for name, block in BLOCKS.items()}
OTHERS = {9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
          19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32",
          27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}  # fmt: skip
"""The names of types that are not read."""


def nbytes_of(type: str, shape: tuple[int, ...]) -> int:
    """The bytes of a tensor.

    Errors: ArgumentError for a type that is not read; ShapeError if a row is no whole number of blocks.
    """
    if type not in BLOCKS:
        raise ArgumentError("dequantize", f"a type of {', '.join(BLOCKS)}", f"got {type!r}")
    block = BLOCKS[type]
    if (shape[-1] if shape else 1) % block.elements:
        raise ShapeError(
            "dequantize", f"rows of a multiple of {block.elements} elements, as blocks of {type} have", f"got {shape}"
        )
    return math.prod(shape) // block.elements * block.nbytes


def dequantize(raw: npt.NDArray[Any], type: str, shape: tuple[int, ...]) -> Floats:
    """The numbers that ``raw`` stands for, in float32.

    Shapes: raw any, of uint8: the blocks in the order in which they lie in the file, row by row; returns ``shape``,
            whose last dim is the one that is divided into blocks.
    Errors: ArgumentError for a type that is not read; ShapeError unless the bytes are those of the shape.
    """
    nbytes = nbytes_of(type, shape)
    data = np.ascontiguousarray(raw).view(np.uint8).reshape(-1)
    if data.size != nbytes:
        raise ShapeError("dequantize", f"{nbytes} bytes for {type} of shape {shape}", f"got {data.size}")
    block = BLOCKS[type]
    return block.decode(data.reshape(-1, block.nbytes)).reshape(shape)


__all__ = ["BLOCKS", "NAMES", "OTHERS", "Block", "dequantize", "nbytes_of"]
