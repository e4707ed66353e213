"""Element types: what the user sees, and how each is stored on a device.

float32 and int32 are what every OpenCL device computes with. int64 exists at the edges, so that labels and
indices come and go as PyTorch has them; it is stored as int32, and a value that does not fit is an error when it
arrives. bool is one byte. float64 is for the reference backend, and for devices that have it. int8 is for what a
program keeps for itself; no tensor has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyedge.errors import DtypeError


@dataclass(frozen=True, eq=False, slots=True)
class DType:
    """An element type: ``numpy`` is what the user gets, ``stored`` what a buffer holds, ``ctype`` what kernels read."""

    name: str
    numpy: np.dtype[Any]
    stored: np.dtype[Any]
    ctype: str
    rank: int  # promotion order: bool < int32 < int64 < float32 < float64

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element."""
        return self.stored.itemsize

    @property
    def is_floating_point(self) -> bool:
        return self.rank >= 3

    def __repr__(self) -> str:
        return f"tinyedge.{self.name}"

    def __reduce__(self) -> str:
        return self.name


def _dtype(name: str, stored: str, ctype: str, rank: int) -> DType:
    return DType(name, np.dtype(name), np.dtype(stored), ctype, rank)


bool_ = _dtype("bool", "bool", "uchar", 0)
int8 = _dtype("int8", "int8", "char", 0)
int32 = _dtype("int32", "int32", "int", 1)
int64 = _dtype("int64", "int32", "int", 2)
float32 = _dtype("float32", "float32", "float", 3)
float64 = _dtype("float64", "float64", "double", 4)

ALL = (bool_, int32, int64, float32, float64)
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


def promote(a: DType, b: DType) -> DType:
    """The smallest dtype that holds both."""
    return a if a.rank >= b.rank else b


def category(dtype: DType) -> int:
    """0 for bool, 1 for integers, 2 for floating point: what a Python number can raise a tensor to."""
    return 0 if dtype.rank == 0 else 1 if dtype.rank < 3 else 2
