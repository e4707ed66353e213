"""Tensors by the names of their types."""

from __future__ import annotations

from typing import Any

from tinyedge import dtypes
from tinyedge.dtypes import DType
from tinyedge.tensor import Tensor, full, tensor


class _Kind(type):
    """The type of those below: a call makes a tensor, and ``isinstance`` asks for its dtype."""

    dtype: DType

    def __call__(cls, *data: Any, device: Any = None) -> Tensor:
        if len(data) == 1 and not isinstance(data[0], int):
            return tensor(data[0], dtype=cls.dtype, device=device)
        return full(data or (0,), 0, dtype=cls.dtype, device=device)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.dtype


class FloatTensor(metaclass=_Kind):
    """Tensors of float32: a call takes values, or sizes of a tensor of zeros."""

    dtype = dtypes.float32


class HalfTensor(metaclass=_Kind):
    """Tensors of float16: a call takes values, or sizes of a tensor of zeros."""

    dtype = dtypes.float16


class BFloat16Tensor(metaclass=_Kind):
    """Tensors of bfloat16: a call takes values, or sizes of a tensor of zeros."""

    dtype = dtypes.bfloat16


class DoubleTensor(metaclass=_Kind):
    """Tensors of float64: a call takes values, or sizes of a tensor of zeros."""

    dtype = dtypes.float64


class LongTensor(metaclass=_Kind):
    """Tensors of int64: a call takes values, or sizes of a tensor of zeros."""

    dtype = dtypes.int64


class IntTensor(metaclass=_Kind):
    """Tensors of int32: a call takes values, or sizes of a tensor of zeros."""

    dtype = dtypes.int32


class ShortTensor(metaclass=_Kind):
    """Tensors of int16: a call takes values, or sizes of a tensor of zeros."""

    dtype = dtypes.int16


class CharTensor(metaclass=_Kind):
    """Tensors of int8: a call takes values, or sizes of a tensor of zeros."""

    dtype = dtypes.int8


class ByteTensor(metaclass=_Kind):
    """Tensors of uint8: a call takes values, or sizes of a tensor of zeros."""

    dtype = dtypes.uint8


class BoolTensor(metaclass=_Kind):
    """Tensors of bool: a call takes values, or sizes of a tensor of False."""

    dtype = dtypes.bool_
