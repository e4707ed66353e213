"""Element types: what the user sees, what a device stores, and the C type that kernels compute with.

Integers keep their width: int64 is 64 bits on the device too, so labels, indices and sums are PyTorch's. Arithmetic
wraps around within a type, as PyTorch's does; a Python number that does not fit is an error. bool is one byte. float64
is for the reference backend, and for devices that have it.

float16 and bfloat16 are types of storage: a kernel loads them as float32, computes and sums in float32, and rounds to
the nearest (ties to even) when it stores. So no device needs arithmetic in 16 bits.

Quantised types are for frozen weights: blocks of elements that share their scales (``blocks.py``), which a kernel
unpacks to float32 where it loads them. An element alone has no bytes, so nothing computes such a tensor but
``te.quantize`` and files.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tinyedge import blocks
from tinyedge.blocks import BlockType
from tinyedge.errors import ArgumentError, DtypeError, NumberRangeError, ShapeError

BOOL, INTEGER, FLOATING = 0, 1, 2
"""The categories of PyTorch's promotion, in order."""


@dataclass(frozen=True, eq=False, slots=True)
class DType:
    """An element type: ``numpy`` is what the user gets, ``stored`` what a buffer holds, ``ctype`` what kernels compute
    with. ``packed`` names the format in memory where that is another one ("half", "bfloat16"; that of its ``blocks``),
    else it is "".
    """

    name: str
    numpy: np.dtype[Any]
    stored: np.dtype[Any]
    ctype: str
    category: int
    limits: tuple[int, int] | None  # the least and the largest value, of integers
    packed: str = ""
    blocks: BlockType | None = None  # of a quantised type

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element. Errors: DtypeError for a quantised type."""
        if self.blocks is not None:
            raise DtypeError(
                "itemsize", "a dtype whose elements have bytes of their own",
                f"got {self.name}, of which {self.blocks.elements} lie in {self.blocks.nbytes} bytes", "Use nbytes.",
            )  # fmt: skip
        return self.stored.itemsize

    @property
    def stride(self) -> int:
        """Bytes that a kernel's pointer steps over: an element, or one byte of a block."""
        return self.stored.itemsize

    def nbytes_of(self, count: int) -> int:
        """Bytes of ``count`` stored elements."""
        return count * self.stored.itemsize if self.blocks is None else self.blocks.nbytes_of(count)

    @property
    def is_floating_point(self) -> bool:
        """Whether it is a floating-point type: only these have gradients."""
        return self.category == FLOATING

    @property
    def largest(self) -> float:
        """The largest finite number of a floating-point type."""
        return float.fromhex("0x1.FEp127") if self.packed == "bfloat16" else float(np.finfo(self.stored).max)

    @property
    def computes(self) -> DType:
        """The type in which kernels compute with it, and in which gradients and statistics of it are kept."""
        return float32 if self.packed else self

    def pack(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """``values`` as a buffer holds them: floats rounded to the nearest, ties to even; blocks as bytes."""
        if self.blocks is not None:
            return self.blocks.packed(values)
        if self.packed != "bfloat16":
            with np.errstate(over="ignore", invalid="ignore"):
                return np.asarray(values).astype(self.stored, copy=False)
        bits = np.asarray(values, np.float32).view(np.uint32)  # the upper half of a float32
        rounded = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
        quiet = bits | np.uint32(0x400000)  # NaN stays NaN, whichever bits are cut off
        return np.asarray(np.where((bits & 0x7FFFFFFF) > 0x7F800000, quiet, rounded) >> 16, np.uint16)

    def unpack(self, stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What a buffer holds, as values of the type in which kernels compute; of blocks one after the other."""
        if self.blocks is not None:
            return self.blocks.unpacked(stored)
        if self.packed == "bfloat16":
            return np.asarray(np.asarray(stored, np.uint32) << 16).view(np.float32)
        return np.asarray(stored, np.float32) if self.packed else stored

    def __repr__(self) -> str:
        return f"tinyedge.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (resolve if self.blocks is None else quantised), (self.name,)


def _dtype(name: str, ctype: str) -> DType:
    numpy = np.dtype(name)
    limits = None
    if numpy.kind in "iu":
        limits = int(np.iinfo(numpy).min), int(np.iinfo(numpy).max)
    category = {"b": BOOL, "i": INTEGER, "u": INTEGER, "f": FLOATING}[numpy.kind]
    return DType(name, numpy, numpy, ctype, category, limits)


bool_ = _dtype("bool", "uchar")
uint8 = _dtype("uint8", "uchar")
int8 = _dtype("int8", "char")
int16 = _dtype("int16", "short")
int32 = _dtype("int32", "int")
int64 = _dtype("int64", "long")
float16 = DType("float16", np.dtype("float16"), np.dtype("float16"), "float", FLOATING, None, "half")
bfloat16 = DType("bfloat16", np.dtype("float32"), np.dtype("uint16"), "float", FLOATING, None, "bfloat16")
float32 = _dtype("float32", "float")
float64 = _dtype("float64", "double")

ALL = (bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64)
SMALL = (bool_, uint8, int8, int16)
"""Those of which float32 holds every value."""

_BY_NAME = {dtype.name: dtype for dtype in ALL}
_BY_NUMPY = {dtype.numpy: dtype for dtype in ALL if dtype is not bfloat16}  # NumPy has no such type


def resolve(dtype: Any, call: str = "dtype") -> DType:
    """The DType that ``dtype`` names: a DType, a NumPy dtype, a name, or Python's bool, int or float.

    As in PyTorch, ``int`` is int64 and ``float`` is float32.
    """
    if isinstance(dtype, DType):
        if dtype.blocks is not None:
            raise DtypeError(
                call, "a dtype in which elements can be stored one by one", f"got {dtype.name}", "Use te.quantize."
            )
        return dtype
    if dtype is float:
        return float32
    if dtype is int:
        return int64
    if isinstance(dtype, str) and dtype in _BY_NAME:
        return _BY_NAME[dtype]
    try:
        return _BY_NUMPY[np.dtype(dtype)]
    except (KeyError, TypeError):
        names = ", ".join(known.name for known in ALL)
        raise DtypeError(
            call, f"expected one of {names}", f"got {dtype!s}", "Convert first, e.g. array.astype(numpy.float32)."
        ) from None


_quantised: dict[str, DType] = {}


def quantised(name: str, call: str = "quantised") -> DType:
    """The quantised type of that name, such as "q8_0". Errors: DtypeError if there is none."""
    dtype = _quantised.get(name)
    if dtype is None:
        found = blocks.type_of(name) if isinstance(name, str) else None
        if found is None:
            raise DtypeError(call, f"one of {', '.join(blocks.NAMES)}", f"got {name!r}")
        stored = np.dtype("uint8")
        dtype = DType(found.name, np.dtype("float32"), stored, "float", FLOATING, None, found.name, found)
        dtype = _quantised.setdefault(name, dtype)
    return dtype


def quantised_rows(name: str, shape: tuple[int, ...], call: str) -> DType:
    """The quantised type that the user names ``name``, for a tensor of ``shape``: a row is what lies at one index of
    the first dim, and holds whole blocks.

    Errors: DtypeError for an unknown name; ShapeError if the rows do not fit.
    """
    length = prod(shape[1:])
    if len(shape) < 2 or length < 2:
        raise ShapeError(call, "a weight of at least two dims, with at least two elements in a row", f"got {shape}")
    dtype = quantised(f"{blocks.ROWS}{length}" if name == "int8" else name, call)
    assert dtype.blocks is not None
    if length % dtype.blocks.elements:
        raise ShapeError(
            call, f"rows of a multiple of {dtype.blocks.elements} elements, which are a block of {dtype.name}",
            f"got {shape}, of {length} a row", "int8 takes rows of any length.",
        )  # fmt: skip
    return dtype


def of_number(value: bool | int | float) -> DType:
    """The dtype that PyTorch gives to a Python number."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (int, np.integer)):
        return int64
    return float32


def get_default_dtype() -> DType:
    """float32, the dtype of new tensors of Python's floats."""
    return float32


def set_default_dtype(dtype: Any) -> None:
    """Nothing for float32, which it always is. Errors: ArgumentError for another dtype."""
    if resolve(dtype, "set_default_dtype") is not float32:
        raise ArgumentError(
            "set_default_dtype", "float32, as it is on every device", f"got {resolve(dtype).name}",
            "Pass dtype= where a tensor is made, or convert the model with model.double().",
        )  # fmt: skip


def promote(a: DType, b: DType) -> DType:
    """The smallest dtype that holds both; of an integer and a float it is the float."""
    if a is b or a.category > b.category:
        return a
    if a.category < b.category:
        return b
    if bfloat16 in (a, b):  # it has the exponents of float32, and float16 has not
        other = b if a is bfloat16 else a
        return float32 if other is float16 else other
    return _BY_NUMPY[np.promote_types(a.numpy, b.numpy)]


def category(dtype: DType) -> int:
    """0 for bool, 1 for integers, 2 for floating point: what a Python number can raise a tensor to."""
    return dtype.category


def fitting(call: str, number: Any, dtype: DType) -> Any:
    """``number`` as an element of ``dtype`` can hold it; a float loses its fraction on the way to an integer.

    Errors: NumberRangeError if an integer type does not hold it, or no float can.
    """
    limits = dtype.limits
    try:
        if limits is None:
            return bool(number) if dtype.category == BOOL else float(number) if type(number) is int else number
        whole = int(number)  # of infinity an OverflowError, of NaN a ValueError
        if limits[0] <= whole <= limits[1]:
            return whole
    except (OverflowError, ValueError):
        pass
    held = "a float" if limits is None else f"an integer in [{limits[0]}, {limits[1]}]"
    shown = f"an integer of {number.bit_length()} bits" if isinstance(number, int) and abs(number) >> 128 else number
    remedy = "Use a wider dtype, or a smaller number." if dtype.itemsize < 8 else "Keep such numbers in Python."
    raise NumberRangeError(call, f"a number for {dtype.name} must be {held}", f"got {shown}", remedy) from None


def convert(values: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    """``values`` as a device converts them: integers wrap around; floats lose their fraction on the way to integers,
    those beyond the ends become the nearest end, and NaN 0.
    """
    if dtype.limits is None or values.dtype.kind != "f":
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values).astype(dtype.computes.stored, copy=False)
    low, high = dtype.limits
    whole = np.trunc(np.where(np.isnan(values), 0, values))
    above, below = whole >= float(high), whole <= float(low)  # float(high) may be one more, which no int is
    inside = np.where(above | below, 0, whole).astype(dtype.stored)
    return np.where(above, dtype.stored.type(high), np.where(below, dtype.stored.type(low), inside))
