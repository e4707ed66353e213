"""Whether tensors are equal, or nearly so."""

from __future__ import annotations

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, DtypeError
from tinyedge.ops.arithmetic import sub
from tinyedge.ops.bitwise import bitwise_and, bitwise_or
from tinyedge.ops.comparison import eq, isfinite, isnan, le
from tinyedge.ops.promotion import require_tensors
from tinyedge.ops.unary import abs
from tinyedge.tensor import Tensor


@public(method=True)
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Whether ``abs(input - other) <= atol + rtol * abs(other)``, or both are the same infinity.

    With ``equal_nan`` two NaN are close as well.

    Shapes: input and other broadcast; returns what they broadcast to.
    Errors: ArgumentError of negative tolerances; DtypeError unless both are of one dtype.
    """
    require_tensors("isclose", input, other)
    if rtol < 0 or atol < 0:
        raise ArgumentError("isclose", "rtol and atol must be at least 0", f"got {rtol} and {atol}")
    if input.dtype is not other.dtype:
        found = f"got {input.dtype.name} and {other.dtype.name}"
        raise DtypeError("isclose", "two tensors of one dtype", found, "Convert one with .to().")
    close = eq(input, other)
    if equal_nan and input.dtype.is_floating_point:
        close = bitwise_or(close, bitwise_and(isnan(input), isnan(other)))
    if (rtol == 0 and atol == 0) or not input.dtype.category:
        return close
    distance = abs(sub(input, other))
    near = le(distance, abs(other) * rtol + atol)
    return bitwise_or(close, bitwise_and(near, isfinite(distance)))  # composed


@public(method=True)
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close, as ``isclose`` says; waits for the device.

    That is ``abs(input - other) <= atol + rtol * abs(other)``; with ``equal_nan`` NaN is close to NaN.

    Shapes: input and other broadcast.
    Errors: as ``isclose``.
    """
    return bool(functions["all"](isclose(input, other, rtol, atol, equal_nan)))


@public(method=True)
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and elements; waits for the device.

    Shapes: any.
    """
    require_tensors("equal", input, other)
    return input.shape == other.shape and bool(functions["all"](eq(input, other)))
