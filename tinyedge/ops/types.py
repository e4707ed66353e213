"""What tensors are: dtypes that meet, limits of numbers, and what PyTorch asks of a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyedge import dtypes, shapes
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.autograd.registry import functions, public
from tinyedge.backends import Backend
from tinyedge.dtypes import DType
from tinyedge.errors import ArgumentError, AutogradError, DtypeError, ShapeError
from tinyedge.ir import values
from tinyedge.ir.modes import is_grad_enabled
from tinyedge.ops.creation import empty, sizes
from tinyedge.ops.movement import split, squeeze, t, transpose, unsqueeze
from tinyedge.ops.promotion import Operand, as_operand, require_tensors, result_dtype
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.selection import where
from tinyedge.tensor import Number, Tensor, as_tensor, full, tensor

Target = str | Backend | None


# Dtypes


@public
def result_type(tensor1: Operand, tensor2: Operand) -> DType:
    """The dtype in which two operands, tensors or numbers, meet.

    Shapes: any; tensors with dims decide, 0-d tensors and numbers only by a higher category.
    """
    return result_dtype("result_type", [as_operand("result_type", item) for item in (tensor1, tensor2)])


@public
def promote_types(type1: Any, type2: Any) -> DType:
    """The smallest dtype that holds both.

    Shapes: no tensors.
    """
    return dtypes.promote(dtypes.resolve(type1, "promote_types"), dtypes.resolve(type2, "promote_types"))


@public
def can_cast(from_: Any, to: Any) -> bool:
    """Whether in-place calls convert such results: not floats to integers, nor numbers to bool.

    Shapes: no tensors.
    """
    return dtypes.resolve(from_, "can_cast").category <= dtypes.resolve(to, "can_cast").category


class FloatLimits(NamedTuple):
    """What ``finfo`` returns."""

    bits: int
    eps: float
    max: float
    min: float
    tiny: float
    smallest_normal: float
    resolution: float
    dtype: str


class IntegerLimits(NamedTuple):
    """What ``iinfo`` returns."""

    bits: int
    max: int
    min: int
    dtype: str


@public
def finfo(type: Any = None) -> FloatLimits:
    """The limits of a floating-point dtype, float32 by default: bits, eps, max, min, tiny, resolution.

    Shapes: no tensors.
    Errors: DtypeError for another dtype.
    """
    dtype = dtypes.resolve("float32" if type is None else type, "finfo")
    if not dtype.is_floating_point:
        raise DtypeError("finfo", "a floating-point dtype", f"got {dtype.name}", "Use te.iinfo.")
    if dtype is dtypes.bfloat16:  # the exponents of float32, and 8 bits of precision
        tiny = float(np.finfo(np.float32).tiny)
        return FloatLimits(16, 2.0**-7, dtype.largest, -dtype.largest, tiny, tiny, 0.01, dtype.name)
    found = np.finfo(dtype.numpy)
    tiny = float(found.tiny)
    return FloatLimits(
        int(found.bits), float(found.eps), float(found.max), float(found.min), tiny, tiny, float(found.resolution),
        dtype.name,
    )  # fmt: skip


@public
def iinfo(type: Any) -> IntegerLimits:
    """The limits of an integer dtype: bits, max, min.

    Shapes: no tensors.
    Errors: DtypeError for another dtype.
    """
    dtype = dtypes.resolve(type, "iinfo")
    if dtype.limits is None:
        raise DtypeError("iinfo", "an integer dtype", f"got {dtype.name}", "Use te.finfo.")
    return IntegerLimits(8 * dtype.itemsize, dtype.limits[1], dtype.limits[0], dtype.name)


# Questions


@public
def is_tensor(obj: Any) -> bool:
    """Whether ``obj`` is a Tensor.

    Shapes: any.
    """
    return isinstance(obj, Tensor)


@public
def numel(input: Tensor) -> int:
    """The number of elements.

    Shapes: any.
    """
    return input.numel()


@public
def is_floating_point(input: Tensor) -> bool:
    """Whether the elements are floats: only these have gradients.

    Shapes: any.
    """
    return input.is_floating_point()


@public(method=True)
def is_complex(input: Tensor) -> bool:
    """Whether the elements are complex numbers, which tinyedge does not have.

    Shapes: any.
    """
    return False


@public(method=True)
def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers.

    Shapes: any.
    """
    return input.dtype.is_floating_point or (input.dtype.limits is not None and input.dtype.limits[0] < 0)


@public(method=True)
def is_nonzero(input: Tensor) -> bool:
    """Whether the one element is not 0; waits for the device.

    Shapes: one element.
    Errors: ShapeError for another number of elements.
    """
    return bool(input.item())


@public(method=True)
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape.

    Shapes: any.
    """
    return input.shape == other.shape


@public(method=True, top=False)
def nelement(input: Tensor) -> int:
    """The number of elements.

    Shapes: any.
    """
    return input.numel()


@public(method=True, top=False)
def ndimension(input: Tensor) -> int:
    """The number of dims.

    Shapes: any.
    """
    return input.ndim


@public(method=True, top=False)
def element_size(input: Tensor) -> int:
    """The bytes that one element takes.

    Shapes: any.
    """
    return input.itemsize


@public(method=True, top=False)
def storage_offset(input: Tensor) -> int:
    """How many elements of memory lie before the first one.

    Shapes: any.
    """
    return input._slot.offset


@public
def broadcast_shapes(*shapes_: Any) -> tuple[int, ...]:
    """The shape to which shapes broadcast; an int is a shape of one dim.

    Shapes: no tensors.
    Errors: ShapeError if they do not broadcast.
    """
    given = [(int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape) for shape in shapes_]
    for shape in given:
        if any(size < 0 for size in shape):
            raise ShapeError("broadcast_shapes", "sizes of at least 0", f"got {shape}")
    return shapes.broadcast("broadcast_shapes", *given)


# Numbers are real


@public
def real(input: Tensor) -> Tensor:
    """``input`` itself, as there are no complex numbers.

    Shapes: any; returns the same.
    """
    require_tensors("real", input)
    return input


@public(method=True)
def isreal(input: Tensor) -> Tensor:
    """Whether each element is real, which all are.

    Shapes: any; returns the same, bool.
    """
    return full(input.shape, True, device=input.backend)


@public(method=True)
def conj(input: Tensor) -> Tensor:
    """``input`` itself: numbers are real.

    Shapes: any; returns the same.
    """
    return input


@public(method=True)
def resolve_conj(input: Tensor) -> Tensor:
    """``input`` itself.

    Shapes: any; returns the same.
    """
    return input


@public(method=True)
def resolve_neg(input: Tensor) -> Tensor:
    """``input`` itself.

    Shapes: any; returns the same.
    """
    return input


@public(method=True)
def angle(input: Tensor) -> Tensor:
    """pi where an element is negative, else 0; NaN stays. Its gradient is zeros.

    Shapes: any; returns the same.
    Units:  radians.
    """
    require_tensors("angle", input)
    x = input.detach() if input.is_floating_point() else input.float()
    found = where(x < 0, math.pi, where(functions["ne"](x, x), x, 0.0))
    return found + input * 0 if input.requires_grad else found


# New tensors like others


def _new(name: str, input: Tensor, size: tuple[Any, ...], value: Number, dtype: Any, device: Any, grad: bool) -> Tensor:
    shape = sizes(name, size)
    made = full(shape, value, dtype=dtype or input.dtype, device=device or input.backend)
    return made.requires_grad_() if grad else made


@public(method=True, top=False)
def new_zeros(
    input: Tensor, *size: Any, dtype: Any = None, device: Target = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of ``size`` with the dtype and device of ``input``.

    Shapes: returns size.
    """
    return _new("new_zeros", input, size, 0, dtype, device, requires_grad)


@public(method=True, top=False)
def new_ones(
    input: Tensor, *size: Any, dtype: Any = None, device: Target = None, requires_grad: bool = False
) -> Tensor:
    """Ones of ``size`` with the dtype and device of ``input``.

    Shapes: returns size.
    """
    return _new("new_ones", input, size, 1, dtype, device, requires_grad)


@public(method=True, top=False)
def new_empty(
    input: Tensor, *size: Any, dtype: Any = None, device: Target = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of ``size`` that nobody has written yet, with the dtype and device of ``input``.

    Shapes: returns size.
    """
    return empty(*size, dtype=dtype or input.dtype, device=device or input.backend, requires_grad=requires_grad)


@public(method=True, top=False)
def new_full(
    input: Tensor,
    size: Sequence[int],
    fill_value: Number,
    *,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
) -> Tensor:
    """``fill_value`` in every element, of ``size``, with the dtype and device of ``input``.

    Shapes: returns size.
    Errors: NumberRangeError if the dtype does not hold ``fill_value``.
    """
    return _new("new_full", input, (size,), fill_value, dtype, device, requires_grad)


@public(method=True, top=False)
def new_tensor(
    input: Tensor, data: Any, *, dtype: Any = None, device: Target = None, requires_grad: bool = False
) -> Tensor:
    """``te.tensor(data)`` with the dtype and device of ``input``.

    Shapes: as ``te.tensor``.
    Errors: as ``te.tensor``.
    """
    return tensor(data, dtype=dtype or input.dtype, device=device or input.backend, requires_grad=requires_grad)


@public(method=True, top=False)
def new(input: Tensor, *data: Any, device: Target = None) -> Tensor:
    """Values, or sizes of a tensor of zeros, with the dtype and device of ``input``, as in ``te.Tensor``.

    Shapes: ``x.new(2, 3)`` returns (2, 3), and ``x.new()`` (0,).
    Errors: as ``te.tensor``.
    """
    if len(data) == 1 and not isinstance(data[0], (int, tuple)):
        return tensor(data[0], dtype=input.dtype, device=device or input.backend)
    return _new("new", input, data or (0,), 0, None, device, False)


@public
def scalar_tensor(s: Number, *, dtype: Any = None, device: Target = None, requires_grad: bool = False) -> Tensor:
    """A 0-d tensor of a number, float32 unless told otherwise.

    Shapes: returns ().
    """
    return full((), s, dtype=dtype or "float32", device=device, requires_grad=requires_grad)


@public
def asarray(
    obj: Any, *, dtype: Any = None, device: Target = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """``obj`` as a tensor: itself if it is one of that dtype and device, unless ``copy``.

    Shapes: as ``te.tensor``.
    Errors: ArgumentError if ``copy=False`` and a copy is needed; else as ``te.tensor``.
    """
    result = as_tensor(obj, dtype=dtype, device=device)
    if copy is False and result is not obj:
        raise ArgumentError("asarray", "a tensor of that dtype and device with copy=False", f"got {type(obj).__name__}")
    if copy and result is obj:
        result = result.detach().clone()
    return result.requires_grad_() if requires_grad else result


@public(method=True, top=False)
def type_as(input: Tensor, other: Tensor) -> Tensor:
    """As ``to(other.dtype)``, on other's device.

    Shapes: any; returns the same.
    """
    return input.to(other.dtype, device=other.backend)


@public(inplace=False)
def fill(input: Tensor, value: Number | Tensor) -> Tensor:
    """``value``, a number or a 0-d tensor, in every element.

    Shapes: any; returns the same.
    Errors: ShapeError if ``value`` has dims.
    """
    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError("fill", "a number or a 0-d tensor", f"it has shape {value.shape}")
        return functions["expand"](value.to(input.dtype), input.shape).clone()  # type: ignore[no-any-return]
    return full(input.shape, value, dtype=input.dtype, device=input.backend)


@public
def rsub(input: Tensor, other: Operand, *, alpha: Number = 1) -> Tensor:
    """``other - alpha * input``.

    Shapes: input and other broadcast; returns what they broadcast to.
    Errors: DtypeError of bools.
    """
    require_tensors("rsub", input)
    return functions["sub"](other, input, alpha=alpha)  # type: ignore[no-any-return]


@public(method=True)
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of ``input - other``.

    Shapes: input and other broadcast; returns ().
    """
    return functions["norm"](input - other, p)  # type: ignore[no-any-return]


@public(method=True)
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the given lengths along ``dim``.

    Shapes: (..., n, ...) gives several (..., length, ...).
    Errors: as ``split``.
    """
    return split(input, list(split_sizes), dim)


@public(method=True, top=False)
def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """The sums over the dims along which ``size`` would be broadcast to the input's shape.

    Shapes: any; returns size.
    Errors: ShapeError unless size broadcasts to the input's shape.
    """
    wanted = sizes("sum_to_size", size)
    if len(wanted) > input.ndim or shapes.broadcast("sum_to_size", wanted, input.shape) != input.shape:
        raise ShapeError("sum_to_size", f"a size that broadcasts to {input.shape}", f"got {wanted}")
    lead = input.ndim - len(wanted)
    over = [k for k, n in enumerate(input.shape) if k < lead or (wanted[k - lead] == 1 and n != 1)]
    found = total(input, over, True) if over else input if wanted else total(input)
    return functions["reshape"](found, wanted)  # type: ignore[no-any-return]


# In place, what a tensor shows


def _become(name: str, input: Tensor, view: Tensor) -> Tensor:
    forbid_in_recording(name, f"it changes which elements a tensor shows; use {name[:-1]}")
    if input.is_leaf and input.requires_grad and is_grad_enabled():
        raise AutogradError(
            name, "no leaf that requires grad while autograd records", f"got one of shape {input.shape}",
            f"Use {name[:-1]}, or do it under te.no_grad().",
        )  # fmt: skip
    input._slot = view._slot
    values.note_leaf_change()
    return input


@public(method=True, top=False)
def squeeze_(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """As ``squeeze``, of the tensor itself. Returns it.

    Shapes: as ``squeeze``.
    Errors: as ``squeeze``; AutogradError for a leaf that requires grad; CaptureError inside te.compile.
    """
    return _become("squeeze_", input, squeeze(input, dim))


@public(method=True, top=False)
def unsqueeze_(input: Tensor, dim: int) -> Tensor:
    """As ``unsqueeze``, of the tensor itself. Returns it.

    Shapes: as ``unsqueeze``.
    Errors: as ``unsqueeze``; AutogradError for a leaf that requires grad; CaptureError inside te.compile.
    """
    return _become("unsqueeze_", input, unsqueeze(input, dim))


@public(method=True, top=False)
def t_(input: Tensor) -> Tensor:
    """As ``t``, of the tensor itself. Returns it.

    Shapes: as ``t``.
    Errors: as ``t``; AutogradError for a leaf that requires grad; CaptureError inside te.compile.
    """
    return _become("t_", input, t(input))


@public(method=True, top=False)
def transpose_(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """As ``transpose``, of the tensor itself. Returns it.

    Shapes: as ``transpose``.
    Errors: as ``transpose``; AutogradError for a leaf that requires grad; CaptureError inside te.compile.
    """
    return _become("transpose_", input, transpose(input, dim0, dim1))


@public(method=True, top=False)
def swapaxes_(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """As ``swapaxes``, of the tensor itself. Returns it.

    Shapes: as ``swapaxes``.
    Errors: as ``transpose_``.
    """
    return _become("swapaxes_", input, transpose(input, axis0, axis1))


@public(method=True, top=False)
def swapdims_(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """As ``swapdims``, of the tensor itself. Returns it.

    Shapes: as ``swapdims``.
    Errors: as ``transpose_``.
    """
    return _become("swapdims_", input, transpose(input, dim0, dim1))
