"""ONNX's quantised ops, computed with floats: in the units of the file's integers, cut off where these end, and not
rounded, so that gradients come through. Weights are kept as the numbers that they stand for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_layers import conv
from tinyedge.convert.onnx_recurrent import Strs, lstm
from tinyedge.convert.onnx_registry import ONNX, Floats, Ints, dtype_of
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.tensor import Tensor, tensor

LSTM = "com.microsoft.DynamicQuantizeLSTM"
TO_FLOAT = "com.microsoft.MatMulIntegerToFloat"
DYNAMIC = "com.microsoft.DynamicQuantizeMatMul"
N_BITS = "com.microsoft.MatMulNBits"
GATHER = "com.microsoft.GatherBlockQuantized"

QGEMM = "com.microsoft.QGemm"
QLINEAR = {
    name: f"com.microsoft.QLinear{name}"
    for name in ("Add", "Mul", "Sigmoid", "LeakyRelu", "Softmax", "GlobalAveragePool", "AveragePool", "Concat")
}

QUANTISED = frozenset((
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", LSTM, N_BITS, GATHER, TO_FLOAT, DYNAMIC,
    QGEMM, *QLINEAR.values(),
))  # fmt: skip


class Quantised(NamedTuple):
    """What the integers of a weight stand for, and how they lie."""

    scale: Array
    zero: Array
    dtype: Any
    limits: tuple[int, int]
    bits: int = 0
    """Of an element, where several lie in a byte of uint8; otherwise 0."""
    whole: Array | None = None
    """Such elements, with those behind the end of each row."""

    def lying(self, integers: Array, shape: Ints) -> Array:
        """The integers of the weight, of any shape, as the file has them."""
        if self.whole is None:
            return integers.astype(self.dtype)
        whole = self.whole.copy()
        whole[:, : integers.shape[1]] = integers
        parts = whole.reshape(-1, 8 // self.bits).astype(np.uint8) << (np.arange(0, 8, self.bits, dtype=np.uint8))
        return np.asarray(np.bitwise_or.reduce(parts, 1), np.uint8).reshape(shape)


def elements(packed: Array, bits: int) -> Array:
    """What lies in bytes, the lowest bits first: as many rows, each with all that its bytes hold."""
    parts = packed.reshape(len(packed), -1, 1) >> np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(parts & (2**bits - 1), np.uint8).reshape(len(packed), packed[0].size * 8 // bits)


def in_blocks(op: str, data: Array, scales: Array, zeros: Array | None, given: dict[str, Any], four: bool) -> Any:
    """A matrix whose rows lie in blocks, each with a scale: its integers, and what they stand for.

    ``four``: the file's type has 4 bits, and the integers are there one by one. Errors: ShapeError.
    """
    bits, block = given.get("bits", 4), given.get("block_size", 128)
    if bits not in (2, 4, 8) or block < 16 or block & (block - 1) or not data.ndim or not data.size:
        raise ShapeError(op, "blocks of 16, 32, 64 or more elements of 2, 4 or 8 bits", f"got {block} of {bits}")
    name = op.rpartition(".")[2]
    rows, width = (given["N"], given["K"]) if op == N_BITS else (len(data), data[0].size * (1 if four else 8 // bits))
    blocks = -(-width // block)
    if (
        min(rows, width) < 1
        or len(data) != rows
        or (data.dtype != np.uint8 and not four)
        or (data[0].size != blocks * block * bits // 8 if op == N_BITS else data.ndim != 2)
    ):
        raise ShapeError(name, f"a matrix ({rows}, {width}) in blocks of {block}", f"got {data.dtype} {data.shape}")
    if given.get("quantize_axis", 1) not in (1, -1) or scales.size != rows * blocks:
        raise ShapeError(name, f"{rows * blocks} scales, for blocks of the rows", f"got {scales.shape}")
    whole = data if four else elements(data, bits)
    if zeros is None:
        shift: Array = np.asarray(0 if four else 2 ** (bits - 1), np.float32)
    else:
        zeros = zeros if zeros.dtype.kind == "f" or four else elements(zeros.reshape(rows, -1), bits)[:, :blocks]
        if zeros.size != rows * blocks:
            raise ShapeError(name, f"{rows * blocks} zero points", f"got {zeros.shape}")
        shift = np.repeat(zeros.reshape(rows, blocks).astype(np.float32), block, 1)[:, :width]
    scale = np.repeat(scales.reshape(rows, blocks).astype(np.float32), block, 1)[:, :width]
    if four:
        limits = (-8, 7) if data.dtype.kind == "i" else (0, 15)
        return data, Quantised(scale, shift, data.dtype, limits)
    return whole[:, :width], Quantised(scale, shift, np.dtype(np.uint8), (0, 2**bits - 1), bits, whole)


LIMITS = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767), 6: (-(2**31), 2**31 - 1)}
"""Of the integers, by ONNX's number of their type."""


def spread(values: Array, rank: int, axis: int, shape: Ints, block_size: int = 0) -> Array:
    """Scales or zero points in a shape that broadcasts to ``shape``. Errors: ShapeError."""
    if values.size == 1:
        return values.reshape(())
    if not -rank <= axis < rank:
        raise ShapeError("QuantizeLinear", f"an axis of {rank} dims", f"got {axis}")
    axis %= rank
    if block_size:
        wanted = tuple(-(-size // max(block_size, 1)) if dim == axis else size for dim, size in enumerate(shape))
        if values.shape != wanted or block_size < 1:
            raise ShapeError("QuantizeLinear", f"scales of the shape {wanted} for blocks", f"got {values.shape}")
        return np.take(values, np.arange(shape[axis]) // block_size, axis)
    if rank == 3 and values.shape == (shape[0], shape[2]):  # of a recurrent layer: for each direction and gate
        return values[:, None]
    if values.ndim != 1 or len(values) != shape[axis]:
        raise ShapeError("QuantizeLinear", f"{shape[axis]} scales along dim {axis}", f"got {values.shape}")
    return values.reshape([-1 if dim == axis else 1 for dim in range(rank)])


def _device(values: Array, x: Tensor) -> Any:
    """Host values for arithmetic with ``x``: one is a number."""
    array = np.asarray(values, np.float32)
    return array.item() if array.size == 1 else tensor(array, device=x.backend)


def _real(x: Tensor) -> Tensor:
    return x if x.is_floating_point() and not x.dtype.packed else x.to(dtypes.float32)


def _cut(x: Tensor, limits: tuple[int, int]) -> Tensor:
    return ops.clamp(x, float(limits[0]), float(limits[1]))


def _limits_of(zero: Array | None, kind: int = 0) -> tuple[int, int]:
    """Where the integers of a zero point's type end, or of ONNX's number of a type."""
    if zero is not None:
        found = np.iinfo(zero.dtype) if zero.dtype.kind in "iu" else None
        if found is None:
            raise ArgumentError("QuantizeLinear", "integers", f"the zero point is {zero.dtype}")
        return int(found.min), int(found.max)
    if kind and kind not in LIMITS:
        raise ArgumentError("QuantizeLinear", "integers of 8, 16 or 32 bits", f"got ONNX's type {kind}")
    return LIMITS[kind or 2]


@ONNX.op("QuantizeLinear", since=10, host=("scale", "zero"))
def quantize(
    x: Tensor,
    scale: Array,
    zero: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    x = _real(x)
    y: Tensor = x / _device(spread(scale, x.ndim, axis, x.shape, block_size), x)
    if zero is not None and zero.any():
        y = y + _device(spread(zero, x.ndim, axis, x.shape, block_size), x)
    return _cut(y, _limits_of(zero, output_dtype))


@ONNX.op("DequantizeLinear", since=10, host=("scale", "zero"))
def dequantize(
    x: Tensor, scale: Array, zero: Array | None = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0
) -> Tensor:
    y = _real(x)
    if zero is not None and zero.any():
        y = y - _device(spread(zero, x.ndim, axis, x.shape, block_size), y)
    y = y * _device(spread(scale, x.ndim, axis, x.shape, block_size), y)
    kind = dtype_of(output_dtype) if output_dtype else dtypes.resolve(scale.dtype)
    result: Tensor = y.to(kind)
    return result


@ONNX.op("DynamicQuantizeLinear", since=11)
def dynamic_quantize(x: Tensor) -> Any:
    low, high = (ops.clamp(part, *ends) for part, ends in ((ops.amin(x), (None, 0.0)), (ops.amax(x), (0.0, None))))
    width = ops.where(high == low, ops.ones_like(high), high - low)
    scale = (width / 255.0).detach()
    zero = ops.round(ops.clamp(-low / scale, 0.0, 255.0)).detach()
    return x / scale + zero, scale, zero  # nothing lies outside but for the rounding of zero


def _from_zero(x: Tensor, zero: Any, axis: int | None = None) -> Tensor:
    """``x`` without its zero point: one, or one for each place along ``axis``."""
    x = _real(x)
    if zero is None:
        return x
    zero = _real(zero)
    if axis is not None and zero.ndim == 1 and zero.numel() > 1:
        zero = zero.reshape([-1 if dim == axis % x.ndim else 1 for dim in range(x.ndim)])
    result: Tensor = x - (zero.reshape(()) if zero.numel() == 1 else zero)
    return result


@ONNX.op("MatMulInteger", since=10)
def matmul_integer(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
    return ops.matmul(_from_zero(a, a_zero, -2), _from_zero(b, b_zero, -1))


@ONNX.op("ConvInteger", since=10)
def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    return conv(
        _from_zero(x, x_zero), _from_zero(w, w_zero, 0), auto_pad=auto_pad, dilations=dilations, group=group,
        kernel_shape=kernel_shape, pads=pads, strides=strides,
    )  # fmt: skip


@ONNX.op("MatMulIntegerOfWeight", trained=("b",), host=("scale",))
def matmul_of_weight(a: Tensor, b: Tensor, scale: Array, a_zero: Tensor | None = None) -> Tensor:
    """A MatMulInteger whose weight is what its integers stand for: the product in units of the integers."""
    y: Tensor = ops.matmul(_from_zero(a, a_zero, -2), b) / _device(scale.reshape(-1), a)
    return y


@ONNX.op("ConvIntegerOfWeight", trained=("w",), host=("scale",))
def conv_of_weight(
    x: Tensor,
    w: Tensor,
    scale: Array,
    x_zero: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    y = conv(
        _from_zero(x, x_zero), w, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape,
        pads=pads, strides=strides,
    )  # fmt: skip
    result: Tensor = y / _device(scale.reshape([-1, *[1] * (y.ndim - 2)]) if scale.size > 1 else scale, y)
    return result


@ONNX.op(TO_FLOAT, host=("b_scale", "b_zero"), trained=("b", "bias"))
def matmul_integer_to_float(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Array,
    a_zero: Tensor | None = None,
    b_zero: Array | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    y = ops.matmul(_from_zero(a, a_zero, -2), _weight("MatMulIntegerToFloat", b)) * a_scale
    return y if bias is None else y + bias


@ONNX.op(DYNAMIC, host=("b_scale", "b_zero"), trained=("b", "bias"))
def dynamic_quantize_matmul(
    a: Tensor, b: Tensor, b_scale: Array, b_zero: Array | None = None, bias: Tensor | None = None
) -> Tensor:
    y = ops.matmul(a, _weight("DynamicQuantizeMatMul", b))
    return y if bias is None else y + bias


def _weight(name: str, b: Tensor) -> Tensor:
    if not b.is_floating_point():
        raise ArgumentError(name, "a weight and scales that stand in the file", "they are computed")
    return b


@ONNX.op(
    "QLinearConvOfWeight", since=10, host=("x_scale", "x_zero", "w_scale", "w_zero", "y_scale", "y_zero"),
    trained=("w", "bias"),
)  # fmt: skip
def qlinear_conv_of_weight(
    x: Tensor,
    x_scale: Array,
    x_zero: Array,
    w: Tensor,
    w_scale: Array,
    w_zero: Array,
    y_scale: Array,
    y_zero: Array,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """The weight and the bias stand in the file, and are what their integers stand for by now."""
    x = dequantize(x, x_scale, x_zero)
    y = conv(
        x, w, bias, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape, pads=pads,
        strides=strides,
    )  # fmt: skip
    return quantize(y, y_scale, y_zero)


@ONNX.op("QLinearConv", since=10, host=("x_scale", "x_zero", "w_scale", "w_zero", "y_scale", "y_zero"))
def qlinear_conv(
    x: Tensor,
    x_scale: Array,
    x_zero: Array,
    w: Tensor,
    w_scale: Array,
    w_zero: Array,
    y_scale: Array,
    y_zero: Array,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    if bias is not None:
        raise ArgumentError("QLinearConv", "a bias only beside a weight that stands in the file", "that is computed")
    return qlinear_conv_of_weight(
        x, x_scale, x_zero, dequantize(w, w_scale, w_zero, axis=0), w_scale, w_zero, y_scale, y_zero,
        auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape, pads=pads, strides=strides,
    )  # fmt: skip


@ONNX.op(
    "QLinearMatMulOfWeight", since=10, host=("a_scale", "a_zero", "b_scale", "b_zero", "y_scale", "y_zero"),
    trained=("b",),
)  # fmt: skip
def qlinear_matmul_of_weight(
    a: Tensor,
    a_scale: Array,
    a_zero: Array,
    b: Tensor,
    b_scale: Array,
    b_zero: Array,
    y_scale: Array,
    y_zero: Array,
) -> Tensor:
    """``b`` stands in the file, and is what its integers stand for by now."""
    return quantize(ops.matmul(dequantize(a, a_scale, a_zero, axis=-2), b), y_scale, y_zero, axis=-2)


@ONNX.op("QLinearMatMul", since=10, host=("a_scale", "a_zero", "b_scale", "b_zero", "y_scale", "y_zero"))
def qlinear_matmul(
    a: Tensor,
    a_scale: Array,
    a_zero: Array,
    b: Tensor,
    b_scale: Array,
    b_zero: Array,
    y_scale: Array,
    y_zero: Array,
) -> Tensor:
    a, b = dequantize(a, a_scale, a_zero, axis=-2), dequantize(b, b_scale, b_zero, axis=-1)
    return quantize(ops.matmul(a, b), y_scale, y_zero, axis=-2)


@ONNX.op(LSTM, host=("w_scale", "w_zero", "r_scale", "r_zero"), trained=("w", "r", "b", "p"))
def dynamic_quantize_lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
    w_scale: Array | None = None,
    w_zero: Array | None = None,
    r_scale: Array | None = None,
    r_zero: Array | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Strs | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    count: int,
) -> Any:
    """An LSTM whose weights have a row for each input, and come in integers."""
    if not (w.is_floating_point() and r.is_floating_point()):
        raise ArgumentError("DynamicQuantizeLSTM", "weights and scales that stand in the file", "they are computed")
    w, r = (ops.transpose(part, 1, 2) for part in (w, r))
    return lstm(
        x, w, r, b, sequence_lens, initial_h, initial_c, p, activation_alpha=activation_alpha,
        activation_beta=activation_beta, activations=activations, clip=clip, direction=direction,
        input_forget=input_forget, count=count,
    )  # fmt: skip


def weights_of(op: str, arguments: dict[str, Any]) -> list[tuple[int, tuple[int, ...], int, int, int]]:
    """Which inputs of an op are weights: their position, those of their scales, of the zero point, dim, block size."""
    if op == "DequantizeLinear":
        return [(0, (1,), 2, arguments.get("axis", 1), arguments.get("block_size", 0))]
    if op == "QLinearConv":
        return [(3, (4,), 5, 0, 0), (8, (1, 4), -1, 0, 0)]
    if op == TO_FLOAT:
        return [(1, (3,), 5, -1, 0)]
    if op == DYNAMIC:
        return [(1, (2,), 3, -1, 0)]
    if op == LSTM:
        return [(1, (8,), 9, 0, 0), (2, (10,), 11, 0, 0)]
    if op == QGEMM:
        return [(3, (4,), 5, 0 if arguments.get("transB") else 1, 0), (6, (1, 4), -1, 0, 0)]
    return [(3, (4,), 5, -1, 0)] if op == "QLinearMatMul" else []


OF_WEIGHTS = {"QLinearConv": (3, 8), "QLinearMatMul": (3,), QGEMM: (3, 6)}
"""Ops with a handler of their own for weights that stand in the file, by the places of these."""

RESULTS = {
    "QuantizeLinear": (1, 2), "QLinearConv": (6, 7), "QLinearMatMul": (6, 7), "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7), "QGemm": (7, 8), "QLinearConcat": (0, 1),
    **{f"QLinear{name}": (3, 4) for name in QLINEAR if name not in ("Add", "Mul", "Concat")},
}  # fmt: skip
"""Where the scale and the zero point of a quantised result are among the inputs."""


__all__ = [
    "DYNAMIC",
    "GATHER",
    "LSTM",
    "N_BITS",
    "OF_WEIGHTS",
    "QGEMM",
    "QLINEAR",
    "QUANTISED",
    "RESULTS",
    "TO_FLOAT",
    "Quantised",
    "dequantize",
    "in_blocks",
    "quantize",
    "spread",
    "weights_of",
]
