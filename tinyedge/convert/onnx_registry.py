"""The handlers of ONNX's ops, and what they share."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.graph import Array
from tinyedge.convert.handlers import Handlers
from tinyedge.convert.onnx_file import DTYPES
from tinyedge.errors import ArgumentError

ONNX = Handlers()

Ints = tuple[int, ...]
Floats = tuple[float, ...]


def ints(values: Any) -> Ints:
    """A host value as integers."""
    return tuple(int(value) for value in np.asarray(values).reshape(-1))


def dtype_of(kind: int) -> dtypes.DType:
    """The dtype of ONNX's number for it. Errors: ArgumentError for one that tinyedge lacks."""
    if kind not in DTYPES:
        raise ArgumentError("Cast", "an element type that tinyedge has", f"got ONNX's number {kind}")
    return dtypes.resolve(DTYPES[kind])


def cast_array(array: Array, kind: int) -> Array:
    """On the host, as a device casts."""
    return dtypes.convert(array, dtype_of(kind))


__all__ = ["ONNX", "Floats", "Ints", "cast_array", "dtype_of", "ints"]
