"""Element types: what the user sees, what a device stores, and the C type that kernels compute with.

Integers keep their width: int64 is 64 bits on the device too, so labels, indices and sums are PyTorch's. Arithmetic
wraps around within a type, as PyTorch's does; a Python number that does not fit is an error. bool is one byte. float64
is for the reference backend, and for devices that have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyedge.errors import ArgumentError, DtypeError, NumberRangeError

BOOL, INTEGER, FLOATING = 0, 1, 2
"""The categories of PyTorch's promotion, in order."""


@dataclass(frozen=True, eq=False, slots=True)
class DType:
    """An element type: ``numpy`` is what the user gets, ``stored`` what a buffer holds, ``ctype`` what kernels read."""

    name: str
    numpy: np.dtype[Any]
    stored: np.dtype[Any]
    ctype: str
    category: int
    limits: tuple[int, int] | None  # the least and the largest value, of integers

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element."""
        return self.stored.itemsize

    @property
    def is_floating_point(self) -> bool:
        return self.category == FLOATING

    def __repr__(self) -> str:
        return f"tinyedge.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return resolve, (self.name,)


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
float32 = _dtype("float32", "float")
float64 = _dtype("float64", "double")

ALL = (bool_, uint8, int8, int16, int32, int64, float32, float64)
SMALL = (bool_, uint8, int8, int16)
"""Those of which float32 holds every value."""

_BY_NUMPY = {dtype.numpy: dtype for dtype in ALL}


def resolve(dtype: Any, call: str = "dtype") -> DType:
    """The DType that ``dtype`` names: a DType, a NumPy dtype, a name, or Python's bool, int or float.

    As in PyTorch, ``int`` is int64 and ``float`` is float32.
    """
    if isinstance(dtype, DType):
        return dtype
    if dtype is float:
        return float32
    if dtype is int:
        return int64
    try:
        return _BY_NUMPY[np.dtype(dtype)]
    except (KeyError, TypeError):
        names = ", ".join(known.name for known in ALL)
        raise DtypeError(
            call, f"expected one of {names}", f"got {dtype!s}", "Convert first, e.g. array.astype(numpy.float32)."
        ) from None


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
    return b if a.category < b.category else _BY_NUMPY[np.promote_types(a.numpy, b.numpy)]


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
            return np.asarray(values).astype(dtype.stored, copy=False)
    low, high = dtype.limits
    whole = np.trunc(np.where(np.isnan(values), 0, values))
    above, below = whole >= float(high), whole <= float(low)  # float(high) may be one more, which no int is
    inside = np.where(above | below, 0, whole).astype(dtype.stored)
    return np.where(above, dtype.stored.type(high), np.where(below, dtype.stored.type(low), inside))
