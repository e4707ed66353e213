"""Bits of integers; of booleans these are logic. The operators ``& | ^ ~ << >>`` are entered here."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import public
from tinyedge.dtypes import bool_
from tinyedge.errors import DtypeError
from tinyedge.ops.comparison import LogicalAnd, LogicalNot, LogicalOr, LogicalXor
from tinyedge.ops.promotion import Operand, as_operand, prepared, require_tensors, result_dtype, unary
from tinyedge.tensor import Tensor, call


class Bitwise(Elementwise):
    """Base of the ops on bits."""

    kinds = "i"
    domain = {"a": (-9, 9), "b": (-9, 9)}


class BitwiseAnd(Bitwise):
    signature = "(),()->()"
    kernel_forward = {"y": "a & b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.bitwise_and(a, b)


class BitwiseOr(Bitwise):
    signature = "(),()->()"
    kernel_forward = {"y": "a | b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.bitwise_or(a, b)


class BitwiseXor(Bitwise):
    signature = "(),()->()"
    kernel_forward = {"y": "a ^ b"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.bitwise_xor(a, b)


class BitwiseNot(Bitwise):
    signature = "()->()"
    domain = {"x": (-9, 9)}
    kernel_forward = {"y": "~x"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.bitwise_not(x)


class BitwiseLeftShift(Bitwise):
    signature = "(),()->()"
    domain = {"a": (-9, 9), "b": (0, 9)}
    # C leaves undefined what is shifted by less than nothing, or by more than there are bits.
    kernel_forward = {"y": "b < 0 || b >= (int)sizeof(a) * 8 ? 0 : (word)a << (b & 63)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        inside = (b >= 0) & (b < a.dtype.itemsize * 8)
        return np.where(inside, np.left_shift(a, np.where(inside, b, 0).astype(a.dtype)), 0).astype(a.dtype)


class BitwiseRightShift(Bitwise):
    signature = "(),()->()"
    domain = {"a": (-9, 9), "b": (0, 9)}
    kernel_forward = {"y": "a >> (b < 0 || b >= (int)sizeof(word) * 8 ? (int)sizeof(word) * 8 - 1 : b)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        inside = (b >= 0) & (b < a.dtype.itemsize * 8)
        shifted = np.right_shift(a, np.where(inside, b, 0).astype(a.dtype))
        return np.where(inside, shifted, np.where(a < 0, -1, 0)).astype(a.dtype)


def _bits(
    call_name: str, op: type[Elementwise], logic: type[Elementwise] | None, input: Operand, other: Operand
) -> Tensor:
    items = [as_operand(call_name, item) for item in (input, other)]
    if not isinstance(items[0], Tensor):
        require_tensors(call_name, items[1])
    dtype = result_dtype(call_name, items)
    _require_bits(call_name, dtype, logic is not None)
    return call(logic if logic is not None and dtype is bool_ else op, *prepared(call_name, items, dtype))


def _require_bits(call_name: str, dtype: Any, bools: bool) -> None:
    if dtype.is_floating_point or (dtype is bool_ and not bools):
        wanted = "integer or bool operands" if bools else "integer operands"
        raise DtypeError(call_name, wanted, f"got {dtype.name}", "Compare first, e.g. (x > 0) & (y > 0).")


@public(method=True, inplace=True, operators=("__and__", "__rand__", "__iand__"))
def bitwise_and(input: Operand, other: Operand) -> Tensor:
    """The bits that both have; of booleans, whether both are true.

    Errors: DtypeError of floats.
    """
    return _bits("bitwise_and", BitwiseAnd, LogicalAnd, input, other)


@public(method=True, inplace=True, operators=("__or__", "__ror__", "__ior__"))
def bitwise_or(input: Operand, other: Operand) -> Tensor:
    """The bits that either has; of booleans, whether either is true.

    Errors: DtypeError of floats.
    """
    return _bits("bitwise_or", BitwiseOr, LogicalOr, input, other)


@public(method=True, inplace=True, operators=("__xor__", "__rxor__", "__ixor__"))
def bitwise_xor(input: Operand, other: Operand) -> Tensor:
    """The bits that one of both has; of booleans, whether they differ.

    Errors: DtypeError of floats.
    """
    return _bits("bitwise_xor", BitwiseXor, LogicalXor, input, other)


@public(method=True, inplace=True, operators=("__invert__",))
def bitwise_not(input: Tensor) -> Tensor:
    """Each bit the other way; of booleans, the opposite.

    Errors: DtypeError of floats.
    """
    require_tensors("bitwise_not", input)
    _require_bits("bitwise_not", input.dtype, True)
    return unary(LogicalNot if input.dtype is bool_ else BitwiseNot, input, floating=False)


@public(method=True, inplace=True, operators=("__lshift__", "__rlshift__", "__ilshift__"))
def bitwise_left_shift(input: Operand, other: Operand) -> Tensor:
    """The bits ``other`` places higher; 0 if that is negative, or more than there are.

    Errors: DtypeError of floats and bools.
    """
    return _bits("bitwise_left_shift", BitwiseLeftShift, None, input, other)


@public(method=True, inplace=True, operators=("__rshift__", "__rrshift__", "__irshift__"))
def bitwise_right_shift(input: Operand, other: Operand) -> Tensor:
    """The bits ``other`` places lower, with the sign kept; only the sign if that is negative, or more than there are.

    Errors: DtypeError of floats and bools.
    """
    return _bits("bitwise_right_shift", BitwiseRightShift, None, input, other)
