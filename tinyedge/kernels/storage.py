"""How elements lie in memory: the OpenCL C that loads and stores them, as the type that kernels compute with.

In: an operand's C type, and the format in which it is ``packed`` ("half", "bfloat16", or "" where memory holds the C
type itself). Out: the type of its pointer, and the texts of loads and stores of one element or of a vector of
neighbours. No device needs ``cl_khr_fp16``: OpenCL C loads and stores half without it, and bfloat16 is the upper half
of a float. Stores round to the nearest, ties to even.

Quantised blocks are only loaded: a function for each format finds the block of an element, and unpacks it. The elements
of a vector lie in one block, and begin at a multiple of the vector's width there.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinyedge.blocks import UNEVEN, BlockType, type_of

POINTED = {"half": "half", "bfloat16": "ushort"}


def pointed(ctype: str, packed: str) -> str:
    """The C type that an operand's pointer points to."""
    return (POINTED.get(packed) or "uchar") if packed else ctype


def _vector(width: int) -> str:
    return "" if width == 1 else str(width)


def load(packed: str, name: str, index: str, width: int = 1) -> str:
    """The elements of ``name`` from ``index`` on."""
    lanes, at = _vector(width), f"0, {name} + ({index})"
    if packed and packed not in POINTED:
        return f"{packed}_load{lanes}({name}, {index})"
    if packed == "half":
        return f"vload_half{lanes}({at})"
    found = f"{name}[{index}]" if width == 1 else f"vload{lanes}({at})"
    return f"as_float{lanes}(convert_uint{lanes}({found}) << 16)" if packed == "bfloat16" else found


def prefetch(packed: str, name: str, index: str) -> str:
    """The statement that has the cache line of an element of ``name`` fetched, which need not exist; the template says
    what FETCH does.
    """
    if packed and packed not in POINTED:
        return ""
    return f"FETCH({name} + ({index}))"


def pointer(ctype: str, packed: str, of: str, name: str, at: str) -> str:
    """The declaration of ``name``, which points to element ``at`` of ``of``. In quantised blocks it is a number: an
    element has no address.
    """
    if packed and packed not in POINTED:
        return f"int {name} = {at}"
    return f"__global const {pointed(ctype, packed)}* {name} = {of} + {at}"


def load_at(packed: str, of: str, name: str, index: str, width: int = 1) -> str:
    """The elements from ``index`` on behind the place ``name`` that ``pointer`` declared."""
    if packed and packed not in POINTED:
        return load(packed, of, f"{name} + {index}", width)
    return load(packed, name, index, width)


def store(packed: str, name: str, index: str, value: str, width: int = 1) -> str:
    """Store ``value`` in the elements of ``name`` from ``index`` on."""
    lanes, at = _vector(width), f"0, {name} + ({index})"
    if packed == "half":
        return f"vstore_half{lanes}_rte({value}, {at})"
    if packed == "bfloat16":
        value = f"bfloat16_of{lanes}({value})"
    return f"({name}[{index}] = ({value}))" if width == 1 else f"vstore{lanes}({value}, {at})"


def declarations(packings: Iterable[str], widths: Iterable[int]) -> list[str]:
    """The C functions that loads and stores of these formats and widths call; several kernels of a program may declare
    them.
    """
    packings, widths = set(packings), sorted(set(widths))
    lines = []
    if any(packed.startswith("iq4") for packed in packings):
        values = ", ".join(str(int(value)) for value in UNEVEN)
        lines += [
            "#ifndef IQ4_VALUES",
            "#define IQ4_VALUES",
            f"__constant float iq4_values[16] = {{{values}}};",
            "#endif",
        ]
    for packed in sorted(packings.difference(POINTED, ("",))):
        for width in widths:
            lines += _unpacking(packed, width)
    for lanes in [_vector(width) for width in widths] if "bfloat16" in packings else ():
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


def _unpacking(packed: str, width: int) -> list[str]:
    """The function that loads elements of quantised blocks."""
    blocks = type_of(packed)
    assert blocks is not None
    lanes = _vector(width)
    name = f"{packed}_load{lanes}"
    return [
        f"#ifndef {name.upper()}",
        f"#define {name.upper()}",
        f"static float{lanes} {name}(__global const uchar* from, const int index) {{",
        f"    const uint at = (uint)index % {blocks.elements}u;",
        f"    __global const uchar* block = from + (size_t)((uint)index / {blocks.elements}u) * {blocks.nbytes};",
        *(f"    {line}" for line in _unpacked(blocks, width)),
        "}",
        "#endif",
    ]


def _half(at: int) -> str:
    return f"vload_half({at // 2}, (__global const half*)block)"


def _unpacked(blocks: BlockType, width: int) -> list[str]:
    """The body of such a function: from ``block`` the elements number ``at`` on."""
    code = _Unpacking(width)
    written = {
        "q8_0": code.q8_0, "q4_0": code.q4_0, "q4_1": code.q4_1, "q5_0": code.q5_0, "q5_1": code.q5_1,
        "q2_k": code.q2_k, "q3_k": code.q3_k, "q4_k": code.q4_k, "q5_k": code.q5_k, "q6_k": code.q6_k,
        "iq4_nl": code.iq4_nl, "iq4_xs": code.iq4_xs,
    }  # fmt: skip
    return written.get(blocks.name, code.int8)()


class _Unpacking:
    """C statements that return ``width`` elements of a block, number ``at`` and those after it."""

    def __init__(self, width: int) -> None:
        self.width, self.lanes = width, _vector(width)
        self.real = f"convert_float{self.lanes}"

    def loaded(self, kind: str, at: str) -> str:
        """Bytes of the block as int, a vector of them where the width is more than 1."""
        pointer = f"(__global const {kind}*)block + {at}"
        return f"convert_int{self.lanes}(vload{self.lanes}(0, {pointer}))" if self.lanes else f"(int)*({pointer})"

    def nibbles(self, first: int | str) -> str:
        """The numbers of 32 elements in 16 bytes: the low halves, then the high ones."""
        return f"(({self.loaded('uchar', f'{first} + (at & 15)')} >> (int)((at >> 4 & 1) << 2)) & 15)"

    def fifths(self, first: int) -> list[str]:
        """The top bits of 32 elements, as the number 16 or 0."""
        steps = f"(int{self.lanes})({', '.join(map(str, range(self.width)))})" if self.lanes else "0"
        return [
            f"const int tops = as_int(vload4(0, block + {first}));",
            f"const int{self.lanes} top = ((((int{self.lanes})tops >> (int)at) >> {steps}) & 1) << 4;",
        ]

    def quarters(self, first: int) -> str:
        """The 2-bit numbers of 256 elements in 64 bytes."""
        place = f"{first} + (at >> 7) * 32 + (at & 31)"
        return f"(({self.loaded('uchar', place)} >> (int)((at >> 5 & 3) << 1)) & 3)"

    def int8(self) -> list[str]:
        return [f"return *(__global const float*)block * {self.real}({self.loaded('char', '4 + at')});"]

    def q8_0(self) -> list[str]:
        return [f"return {_half(0)} * {self.real}({self.loaded('char', '2 + at')});"]

    def q4_0(self) -> list[str]:
        return [f"return {_half(0)} * {self.real}({self.nibbles(2)} - 8);"]

    def q4_1(self) -> list[str]:
        return [f"return {_half(0)} * {self.real}({self.nibbles(4)}) + {_half(2)};"]

    def q5_0(self) -> list[str]:
        return [*self.fifths(2), f"return {_half(0)} * {self.real}(({self.nibbles(6)} | top) - 16);"]

    def q5_1(self) -> list[str]:
        return [*self.fifths(4), f"return {_half(0)} * {self.real}({self.nibbles(8)} | top) + {_half(2)};"]

    def q4_k(self) -> list[str]:
        return self._with_minima(self._pairs(16))

    def q5_k(self) -> list[str]:
        top = f"(({self.loaded('uchar', '16 + (at & 31)')} >> (int)part) & 1) << 4"
        return self._with_minima(f"({self._pairs(48)}) | ({top})")

    def _pairs(self, first: int) -> str:
        """The numbers of 256 elements in 128 bytes: of each 32 bytes the low halves, then the high ones."""
        place = f"{first} + (at >> 6) * 32 + (at & 31)"
        return f"({self.loaded('uchar', place)} >> (int)((at >> 5 & 1) << 2)) & 15"

    def _with_minima(self, numbers: str) -> list[str]:
        """``numbers`` by 8 scales and minima, of which the last 4 have their top 2 bits with the first 4."""
        return [
            "const uint part = at >> 5;",
            "const uint low = block[4 + part], high = block[8 + part];",
            "const uint scale = part < 4 ? low & 63 : (high & 15) | (block[part] >> 6 << 4);",
            "const uint least = part < 4 ? high & 63 : (high >> 4) | (low >> 6 << 4);",
            f"return ({_half(0)} * (float)scale) * {self.real}({numbers}) - {_half(2)} * (float)least;",
        ]

    def q2_k(self) -> list[str]:
        numbers = f"{self.real}({self.quarters(16)})"
        return [
            "const uint scale = block[at >> 4];",
            f"return ({_half(80)} * (float)(scale & 15)) * {numbers} - {_half(82)} * (float)(scale >> 4);",
        ]

    def q3_k(self) -> list[str]:
        """The low 4 bits of 16 scales, then their top 2."""
        top = f"(({self.loaded('uchar', '(at & 31)')} >> (int)(at >> 5)) & 1)"
        return [
            "const uint part = at >> 4;",
            "const int low = (block[96 + (part & 7)] >> (part >> 3 << 2)) & 15;",
            "const int high = (block[104 + (part & 3)] >> (part >> 2 << 1)) & 3;",
            f"const float scale = {_half(108)} * (float)((low | (high << 4)) - 32);",
            f"return scale * {self.real}(({self.quarters(32)} | ({top} << 2)) - 4);",
        ]

    def q6_k(self) -> list[str]:
        low = f"({self.loaded('uchar', '(at >> 7) * 64 + (at & 63)')} >> (int)((at >> 6 & 1) << 2)) & 15"
        return [
            f"const float scale = {_half(208)} * (float)((__global const char*)block)[192 + (at >> 4)];",
            f"return scale * {self.real}((({low}) | ({self.quarters(128)} << 4)) - 32);",
        ]

    def iq4_nl(self) -> list[str]:
        return [f"const float scale = {_half(0)};", *self._of_table(self.nibbles(2))]

    def iq4_xs(self) -> list[str]:
        return [
            "const uint part = at >> 5;",
            "const int low = (block[4 + (part >> 1)] >> ((part & 1) << 2)) & 15;",
            "const int high = (block[2 + (part >> 2)] >> ((part & 3) << 1)) & 3;",
            f"const float scale = {_half(0)} * (float)((low | (high << 4)) - 32);",
            *self._of_table(self.nibbles("8 + part * 16")),
        ]

    def _of_table(self, numbers: str) -> list[str]:
        """``numbers`` are places in a table of values."""
        lanes = ["numbers"] if self.width == 1 else [f"numbers.s{lane:x}" for lane in range(self.width)]
        values = ", ".join(f"iq4_values[{lane}]" for lane in lanes)
        return [f"const int{self.lanes} numbers = {numbers};", f"return scale * (float{self.lanes})({values});"]
