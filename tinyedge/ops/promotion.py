"""Operands as elementwise ops take them: dtypes meet by PyTorch's rule, and numbers are passed by value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.autograd.op import Elementwise
from tinyedge.dtypes import DType, bool_, fitting, float32, int8, int64
from tinyedge.errors import DtypeError
from tinyedge.ir.values import Value
from tinyedge.tensor import Number, Tensor, call, full, tensor

Operand = Tensor | Number


# Type promotion


def result_dtype(call_name: str, operands: Sequence[Any]) -> DType:
    """The dtype in which operands meet, by PyTorch's rule.

    Tensors with dims decide; 0-d tensors count only if they are of a higher category (bool < integer < floating
    point), and Python numbers only if theirs is higher still.
    """
    levels: list[DType | None] = [None, None, None]
    for operand in operands:
        if isinstance(operand, Tensor):
            level, dtype = (0 if operand.shape else 1), operand.dtype
        else:
            level, dtype = 2, dtypes.of_number(operand)
        there = levels[level]
        levels[level] = dtype if there is None else dtypes.promote(there, dtype)
    result: DType | None = None
    for found in levels:
        if found is not None and (result is None or dtypes.category(found) > dtypes.category(result)):
            result = found
    assert result is not None, call_name
    return result


def prepared(call_name: str, operands: Sequence[Any], dtype: DType | None = None) -> list[Tensor | Value]:
    """Operands as an op takes them: tensors of one dtype, numbers by value."""
    first = operands[0]
    if dtype is None and isinstance(first, Tensor):
        common = first._slot.dtype
        for operand in operands:
            if not isinstance(operand, Tensor) or operand._slot.dtype is not common:
                break
        else:  # the usual case, and eager calls are short
            return list(operands)
    items = [as_operand(call_name, operand) for operand in operands]
    wanted = dtype or result_dtype(call_name, items)
    if not any(isinstance(item, Tensor) for item in items):
        items[0] = full((), items[0], dtype=wanted)
    return [
        (item if item._slot.dtype is wanted else item.to(wanted))
        if isinstance(item, Tensor)
        else Value(fitting(call_name, item, wanted), wanted)
        for item in items
    ]


def compared(call_name: str, a: Any, b: Any) -> list[Tensor | Value]:
    """Operands of a comparison, which is right for any int64: where a number does not fit, it is made in int64."""
    items = [as_operand(call_name, a), as_operand(call_name, b)]
    dtype = result_dtype(call_name, items)
    if dtype.limits is not None:
        low, high = dtype.limits
        if not all(isinstance(item, Tensor) or low <= item <= high for item in items):
            dtype = int64
    return prepared(call_name, items, dtype)


def numbers(call_name: str, *operands: Any) -> DType:
    """The dtype in which operands meet, for calls that bools have no meaning in."""
    dtype = result_dtype(call_name, [as_operand(call_name, operand) for operand in operands])
    if dtype is bool_:
        raise DtypeError(call_name, "numbers", "got bool", "Convert it first, e.g. with .to(te.int64).")
    return dtype


def float_dtype(call_name: str, *operands: Any) -> DType:
    """The floating-point type in which operands meet: float32 of integers."""
    dtype = result_dtype(call_name, operands)
    return dtype if dtype.is_floating_point else float32


def floats(call_name: str, *operands: Any) -> list[Tensor | Value]:
    """Operands that meet in a floating-point type; PyTorch does not have the function for integers."""
    dtype = result_dtype(call_name, operands)
    if not dtype.is_floating_point:
        raise DtypeError(call_name, "a floating-point tensor", f"got {dtype.name}", "Convert it with .float().")
    return prepared(call_name, operands, dtype)


def as_operand(call_name: str, operand: Any) -> Any:
    """A tensor or a Python number, of what PyTorch takes as an operand."""
    if isinstance(operand, Tensor):
        return operand
    if isinstance(operand, (bool, int, float)):
        return operand
    if isinstance(operand, (np.generic,)) or (isinstance(operand, np.ndarray) and operand.ndim == 0):
        return operand.item()
    if isinstance(operand, np.ndarray):
        return tensor(operand)
    raise DtypeError(call_name, "tensors and numbers", f"got {type(operand).__name__}", "Convert it with te.tensor.")


def require_tensors(call_name: str, *operands: Any) -> None:
    """Refuse numbers where PyTorch takes tensors alone."""
    for operand in operands:
        if not isinstance(operand, Tensor):
            raise DtypeError(call_name, "a tensor", f"got {type(operand).__name__}", "Convert it with te.tensor.")


def as_floating(x: Tensor) -> Tensor:
    """``x``, integers as float32."""
    return x if x.dtype.is_floating_point else x.to(float32)


def unary(op: type[Elementwise], x: Tensor, floating: bool = True, **scalars: float) -> Tensor:
    """``op`` of a tensor; with ``floating`` integers become float32 first."""
    if not isinstance(x, Tensor):
        raise DtypeError(op.name, "a tensor", f"got {type(x).__name__}", "Convert it with te.tensor.")
    if x.dtype is bool_ and not floating and "b" not in op.kinds:
        raise DtypeError(op.name, "numbers", "got bool", "Convert it first, e.g. with .to(te.int64).")
    return call(op, as_floating(x) if floating else x, scalars=scalars)


def floating(name: str, input: Any) -> Tensor:
    """``input``, which must be a tensor of a floating-point type."""
    if not isinstance(input, Tensor):
        raise DtypeError(name, "a tensor", f"got {type(input).__name__}", "Convert it with te.tensor.")
    if not input.dtype.is_floating_point:
        raise DtypeError(name, "a floating-point tensor", f"got {input.dtype.name}", "Convert it with .float().")
    return input


class SavedMask(Elementwise):
    """Base of the saved masks: on which side of its op's corners a value lies, as a small integer that lies there too.

    So the backward of that op is right as it is for the mask.
    """

    result = int8
    operations = 0
