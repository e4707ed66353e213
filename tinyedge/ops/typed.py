"""Tensors by the names of their types."""

from __future__ import annotations

from typing import Any

from tinyedge import dtypes
from tinyedge.dtypes import DType
from tinyedge.errors import ArgumentError
from tinyedge.tensor import Tensor, full, tensor


class _TypedTensor(type):
    """The type of those below: a call makes a tensor, and ``isinstance`` asks for its dtype."""

    dtype: DType

    def __init__(cls, name: str, bases: tuple[type, ...], own: dict[str, Any]) -> None:
        super().__init__(name, bases, own)
        cls.__doc__ = f"Tensors of {cls.dtype.name}: a call takes values, or sizes of a tensor of zeros."

    def __call__(cls, *data: Any, device: Any = None) -> Tensor:
        if len(data) == 1 and not isinstance(data[0], int):
            return tensor(data[0], dtype=cls.dtype, device=device)
        return full(data or (0,), 0, dtype=cls.dtype, device=device)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.dtype


class FloatTensor(metaclass=_TypedTensor):
    dtype = dtypes.float32


class HalfTensor(metaclass=_TypedTensor):
    dtype = dtypes.float16


class BFloat16Tensor(metaclass=_TypedTensor):
    dtype = dtypes.bfloat16


class DoubleTensor(metaclass=_TypedTensor):
    dtype = dtypes.float64


class LongTensor(metaclass=_TypedTensor):
    dtype = dtypes.int64


class IntTensor(metaclass=_TypedTensor):
    dtype = dtypes.int32


class ShortTensor(metaclass=_TypedTensor):
    dtype = dtypes.int16


class CharTensor(metaclass=_TypedTensor):
    dtype = dtypes.int8


class ByteTensor(metaclass=_TypedTensor):
    dtype = dtypes.uint8


class BoolTensor(metaclass=_TypedTensor):
    dtype = dtypes.bool_


def set_default_tensor_type(t: Any) -> None:
    """``set_default_dtype`` by a type, ``te.FloatTensor``, or its name.

    Errors: ArgumentError for another.
    """
    found = globals().get(t.rpartition(".")[2]) if isinstance(t, str) else t
    if not isinstance(found, _TypedTensor):
        raise ArgumentError("set_default_tensor_type", "a type such as te.FloatTensor", f"got {t!r}")
    dtypes.set_default_dtype(found.dtype)
