"""How a GGUF file stores numbers: blocks of elements that share their scales, and what each element is.

Source: ggml's block types; the layouts are checked against the ``gguf`` package.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyedge import blocks
from tinyedge.blocks import Bytes, Floats, half
from tinyedge.errors import ArgumentError, ShapeError


class Block(NamedTuple):
    """A type of the file: its number there, and how many elements lie in how many bytes."""

    number: int
    elements: int
    nbytes: int
    decode: Callable[[Bytes], Floats]
    """(blocks, nbytes) to (blocks, elements)."""


def _f32(data: Bytes) -> Floats:
    return np.ascontiguousarray(data).view("<f4").astype(np.float32, copy=False)


def _f16(data: Bytes) -> Floats:
    return half(data, 0)


def _bf16(data: Bytes) -> Floats:
    return (np.ascontiguousarray(data).view("<u2").astype(np.uint32) << 16).view(np.float32)


NUMBERS = {"q8_0": 8, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q2_k": 10, "q3_k": 11, "q4_k": 12, "q5_k": 13,
           "q6_k": 14, "iq4_nl": 20, "iq4_xs": 23}  # fmt: skip
"""The quantised types' numbers in a file."""

BLOCKS: dict[str, Block] = {
    "F32": Block(0, 1, 4, _f32),
    "F16": Block(1, 1, 2, _f16),
    "BF16": Block(30, 1, 2, _bf16),
    **{
        name.upper(): Block(number, blocks.TYPES[name].elements, blocks.TYPES[name].nbytes, blocks.TYPES[name].decode)
        for name, number in NUMBERS.items()
    },
}
"""By the type's name."""

NAMES = {block.number: name for name, block in BLOCKS.items()}
OTHERS = {9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
          24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
          39: "MXFP4"}  # fmt: skip
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
