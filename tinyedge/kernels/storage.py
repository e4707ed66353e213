"""How elements lie in memory: the OpenCL C that loads and stores them, as the type that kernels compute with.

In: an operand's C type, and the format in which it is ``packed`` ("half", "bfloat16", or "" where memory holds the C
type itself). Out: the type of its pointer, and the texts of loads and stores of one element or of a vector of
neighbours. No device needs ``cl_khr_fp16``: OpenCL C loads and stores half without it, and bfloat16 is the upper half
of a float. Stores round to the nearest, ties to even.
"""

from __future__ import annotations

from collections.abc import Iterable

POINTED = {"half": "half", "bfloat16": "ushort"}


def pointed(ctype: str, packed: str) -> str:
    """The C type that an operand's pointer points to."""
    return POINTED[packed] if packed else ctype


def _vector(width: int) -> str:
    return "" if width == 1 else str(width)


def load(packed: str, name: str, index: str, width: int = 1) -> str:
    """The elements of ``name`` from ``index`` on."""
    lanes, at = _vector(width), f"0, {name} + ({index})"
    if packed == "half":
        return f"vload_half{lanes}({at})"
    found = f"{name}[{index}]" if width == 1 else f"vload{lanes}({at})"
    return f"as_float{lanes}(convert_uint{lanes}({found}) << 16)" if packed == "bfloat16" else found


def store(packed: str, name: str, index: str, value: str, width: int = 1) -> str:
    """Store ``value`` in the elements of ``name`` from ``index`` on."""
    lanes, at = _vector(width), f"0, {name} + ({index})"
    if packed == "half":
        return f"vstore_half{lanes}_rte({value}, {at})"
    if packed == "bfloat16":
        value = f"bfloat16_of{lanes}({value})"
    return f"({name}[{index}] = ({value}))" if width == 1 else f"vstore{lanes}({value}, {at})"


def declarations(packings: Iterable[str], widths: Iterable[int]) -> list[str]:
    """The C functions that stores of these formats and widths call; several kernels of a program may declare them."""
    lines = []
    for lanes in [_vector(width) for width in sorted(set(widths))] if "bfloat16" in packings else ():
        is_nan = "(bits & 0x7fffffffu) > 0x7f800000u"
        chosen = (
            f"{is_nan} ? bits | 0x400000u : rounded" if not lanes else f"select(rounded, bits | 0x400000u, {is_nan})"
        )
        lines += [
            f"#ifndef BFLOAT16_OF{lanes}",
            f"#define BFLOAT16_OF{lanes}",
            f"static ushort{lanes} bfloat16_of{lanes}(const float{lanes} value) {{",
            f"    const uint{lanes} bits = as_uint{lanes}(value);",
            f"    const uint{lanes} rounded = bits + 0x7fffu + ((bits >> 16) & 1u);",
            f"    return convert_ushort{lanes}(({chosen}) >> 16);",
            "}",
            "#endif",
        ]
    return lines
