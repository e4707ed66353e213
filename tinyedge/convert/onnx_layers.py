"""ONNX's layers: convolutions, products, norms, poolings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.autograd.modes import no_grad
from tinyedge.convert import norms, windows
from tinyedge.convert.graph import Array
from tinyedge.convert.norms import How
from tinyedge.convert.onnx_registry import ONNX, Ints, ints
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor


def _kernel(call: str, weight: Tensor, kernel_shape: Ints | None) -> Ints:
    kernel = weight.shape[2:]
    if kernel_shape is not None and tuple(kernel_shape) != kernel:
        raise ShapeError(call, f"kernel_shape must be that of the weight, {kernel}", f"it is {kernel_shape}")
    return kernel


@ONNX.op("Conv", trained=("weight", "bias"))
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    rank, kernel = x.ndim - 2, _kernel("Conv", weight, kernel_shape)
    stride = windows.per_dim("Conv", "strides", strides, rank, 1)
    dilation = windows.per_dim("Conv", "dilations", dilations, rank, 1)
    around = windows.resolved_pads("Conv", x.shape[2:], kernel, stride, dilation, pads, auto_pad)
    return windows.conv(x, weight, bias, stride, around, dilation, group)


@ONNX.op("ConvTranspose", trained=("weight", "bias"))
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    rank, kernel = x.ndim - 2, _kernel("ConvTranspose", weight, kernel_shape)
    stride = windows.per_dim("ConvTranspose", "strides", strides, rank, 1)
    dilation = windows.per_dim("ConvTranspose", "dilations", dilations, rank, 1)
    extra = tuple(output_padding) if output_padding else (0,) * rank
    whole = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, s, k, d, e in zip(x.shape[2:], stride, kernel, dilation, extra, strict=True)
    ]
    upper = auto_pad == "SAME_UPPER"
    if output_shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = output_shape[-rank:] if output_shape else [n * s for n, s in zip(x.shape[2:], stride)]
        around = []
        for size, target in zip(whole, wanted, strict=True):
            total = size - target
            half = total // 2 if total >= 0 else -(-total // 2)
            around.append((half, total - half) if upper or total < 0 else (total - half, half))
    else:
        around = windows.resolved_pads("ConvTranspose", x.shape[2:], kernel, stride, dilation, pads, auto_pad)
    return windows.conv_transpose(x, weight, bias, stride, around, extra, dilation, group)


@ONNX.op("Gemm", since=7, trained=("b", "c"))
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    a = a.t() if transA else a
    bias_fits = c is not None and c.ndim == 1 and c.shape[0] == b.shape[0 if transB else 1]
    if transB and alpha == beta == 1 and (c is None or bias_fits):
        return F.linear(a, b, c)
    y = ops.matmul(a, b.t() if transB else b)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


@ONNX.op("MatMul", trained=("a", "b"))
def matmul(a: Tensor, b: Tensor) -> Tensor:
    return ops.matmul(a, b)


# Norms


def _batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    epsilon: float,
    momentum: float,
    training: How,
) -> Tensor:
    if not isinstance(training, bool):  # it computes in float32 by itself, and keeps the statistics' dtype
        return norms.batch_norm("BatchNormalization", x, mean, var, scale, bias, epsilon, 1 - momentum, training)
    if scale.dtype is not x.dtype.computes or x.dtype.packed:
        x, dtype = x.to(x.dtype.computes), x.dtype
        scale, bias, new_mean, new_var = (part.to(x.dtype) for part in (scale, bias, mean, var))
        y = F.batch_norm(x, new_mean, new_var, scale, bias, training, 1 - momentum, epsilon).to(dtype)
        if training:
            with no_grad():
                for running, new in ((mean, new_mean), (var, new_var)):
                    running.copy_(new) if new is not running else None
        return y
    return F.batch_norm(x, mean, var, scale, bias, training, 1 - momentum, epsilon)


@ONNX.op("BatchNormalization", since=7, trained=("scale", "bias"), kept=("mean", "var"))
def batch_norm_7(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training: How,
) -> Tensor:
    if not spatial:
        raise ArgumentError("BatchNormalization", "spatial=1", "got 0")
    return _batch_norm(x, scale, bias, mean, var, epsilon, momentum, training)


@ONNX.op("BatchNormalization", since=9, trained=("scale", "bias"), kept=("mean", "var"))
def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    training: How,
) -> Any:
    if training_mode:
        if not isinstance(training, bool):
            raise ArgumentError(
                "BatchNormalization", "training_mode=0 for another norm, or the statistics of a minibatch", "got 1",
                "The file's own norm returns the statistics of the batch as results.",
            )  # fmt: skip
        axes = tuple(d for d in range(x.ndim) if d != 1)
        new_mean, new_var = ops.mean(x, axes), ops.var(x, axes, correction=0)
        y = F.batch_norm(x, new_mean, new_var, scale, bias, False, 0.0, epsilon)
        return y, mean * momentum + new_mean * (1 - momentum), var * momentum + new_var * (1 - momentum)
    return _batch_norm(x, scale, bias, mean, var, epsilon, momentum, training)


@ONNX.op("InstanceNormalization", since=6, trained=("scale", "bias"))
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _standardised(x: Tensor, axes: Ints, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = ops.mean(x, axes, True)
    centred = x - mean
    inverse = ops.rsqrt(ops.mean(centred * centred, axes, True) + epsilon)
    return centred * inverse, mean, inverse


@ONNX.op("LayerNormalization", trained=("scale", "bias"))
def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    count: int,
) -> Any:
    first = axis + x.ndim if axis < 0 else axis
    if count == 1 and scale.shape == x.shape[first:] and (bias is None or bias.shape == scale.shape):
        return F.layer_norm(x, scale.shape, scale, bias, epsilon)
    y, mean, inverse = _standardised(x, tuple(range(first, x.ndim)), epsilon)
    y = y * scale
    return (y if bias is None else y + bias, mean, inverse)[:count]


@ONNX.op("RMSNormalization", "SimplifiedLayerNormalization", trained=("scale",))  # the latter is ONNX Runtime's
def rms_norm(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    first = axis + x.ndim if axis < 0 else axis
    if scale.shape == x.shape[first:]:
        return F.rms_norm(x, scale.shape, scale, epsilon)
    return x * ops.rsqrt(ops.mean(x * x, tuple(range(first, x.ndim)), True) + epsilon) * scale


def _group_norm(x: Tensor, scale: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
    return F.group_norm(x, groups, scale, bias, epsilon)


@ONNX.op("GroupNormalization", trained=("scale", "bias"))
def group_norm_18(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int) -> Tensor:
    if num_groups < 1 or x.shape[1] % num_groups:
        raise ShapeError("GroupNormalization", "groups that divide the channels", f"got {num_groups} of {x.shape[1]}")
    each = x.shape[1] // num_groups
    return _group_norm(x, ops.repeat_interleave(scale, each), ops.repeat_interleave(bias, each), num_groups, epsilon)


@ONNX.op("GroupNormalization", since=21, trained=("scale", "bias"))
def group_norm(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1
) -> Tensor:
    return _group_norm(x, scale, bias, num_groups, epsilon)


@ONNX.op("LRN")
def lrn(x: Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int) -> Tensor:
    if size < 1:
        raise ArgumentError("LRN", "a size of at least 1", f"got {size}")
    before = (size - 1) // 2  # an even size reaches one channel further after than before, which PyTorch's does not
    squares = (x * x).reshape((x.shape[0], 1, x.shape[1], -1))
    sums = F.avg_pool2d(F.pad(squares, (0, 0, before, size - 1 - before)), (size, 1), (1, 1))
    return x / ops.pow(sums.reshape(x.shape) * alpha + bias, beta)


@ONNX.op("MeanVarianceNormalization", since=9)
def mean_variance(x: Tensor, *, axes: Ints = (0, 2, 3)) -> Tensor:
    centred = x - ops.mean(x, axes, True)
    return centred / (ops.sqrt(ops.mean(centred * centred, axes, True)) + 1e-9)


@ONNX.op("LpNormalization")
def lp_norm(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    sizes = ops.sum(ops.abs(x), axis, True) if p == 1 else ops.sqrt(ops.sum(x * x, axis, True))
    return x / ops.where(sizes == 0, ops.ones_like(sizes), sizes)


@ONNX.op("Dropout", since=7, host=("ratio", "training_mode"), became_inputs=("ratio",))
def dropout(
    x: Tensor, ratio: Array | None = None, training_mode: Array | None = None, *, seed: int = 0, count: int
) -> Any:
    if training_mode is not None and training_mode.any() and ratio is not None and ratio.any():
        raise ArgumentError("Dropout", "training_mode=false, as files for inference have", "it is true")
    return x if count == 1 else (x, ops.ones_like(x, dtype=dtypes.bool_))


# Poolings


@ONNX.op("MaxPool")
def max_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    kernel_shape: Ints,
    pads: Ints | None = None,
    storage_order: int = 0,
    strides: Ints | None = None,
    count: int,
) -> Any:
    rank = x.ndim - 2
    kernel = windows.per_dim("MaxPool", "kernel_shape", kernel_shape, rank, 1)
    stride = windows.per_dim("MaxPool", "strides", strides, rank, 1)
    dilation = windows.per_dim("MaxPool", "dilations", dilations, rank, 1)
    around = windows.resolved_pads("MaxPool", x.shape[2:], kernel, stride, dilation, pads, auto_pad)
    if count == 1:
        return windows.max_pool(x, kernel, stride, around, dilation, bool(ceil_mode))
    if rank not in windows.MAX_POOL or any(before != after for before, after in around):
        raise ArgumentError("MaxPool", "the same padding on both sides where indices are wanted", f"got {around}")
    even = tuple(pad for pad, _ in around)
    y, places = windows.MAX_POOL[rank](x, kernel, stride, even, dilation, bool(ceil_mode), True)
    if storage_order and rank == 2:
        height, width = x.shape[2:]
        places = ops.remainder(places, width) * height + ops.div(places, width, rounding_mode="floor")
    plane = int(np.prod(x.shape[2:]))
    planes = ops.arange(x.shape[0] * x.shape[1], device=x.backend).reshape((*x.shape[:2], *(1,) * rank))
    return y, places + planes * plane


@ONNX.op("MaxUnpool", since=9, host=("output_shape",))
def max_unpool(
    x: Tensor,
    indices: Tensor,
    output_shape: Array | None = None,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Indices are places in the whole output, before it gets ``output_shape`` by zeros behind."""
    rank = x.ndim - 2
    strides, pads = strides or (1,) * rank, pads or (0,) * (2 * rank)
    sizes = tuple((n - 1) * strides[k] - pads[k] - pads[k + rank] + kernel_shape[k] for k, n in enumerate(x.shape[2:]))
    shape = (*x.shape[:2], *sizes)
    wanted = shape if output_shape is None else ints(output_shape)
    if min(shape) < 0 or len(wanted) != len(shape) or any(size < least for size, least in zip(wanted, shape)):
        raise ShapeError("MaxUnpool", f"an output of at least {shape}", f"got {wanted}")
    flat: Any = ops.zeros((math.prod(shape),), dtype=x.dtype, device=x.backend)
    flat = ops.scatter(flat, 0, indices.to(dtypes.int64).reshape((-1,)), x.reshape((-1,)))
    more = [(0, size - least) for size, least in zip(wanted, shape)]
    return F.pad(flat.reshape(shape), [pad for pair in reversed(more) for pad in pair])


@ONNX.op("AveragePool")
def average_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints | None = None,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    rank = x.ndim - 2
    kernel = windows.per_dim("AveragePool", "kernel_shape", kernel_shape, rank, 1)
    stride = windows.per_dim("AveragePool", "strides", strides, rank, 1)
    dilation = windows.per_dim("AveragePool", "dilations", dilations, rank, 1)
    around = windows.resolved_pads("AveragePool", x.shape[2:], kernel, stride, dilation, pads, auto_pad)
    return windows.avg_pool(x, kernel, stride, around, dilation, bool(ceil_mode), bool(count_include_pad))


@ONNX.op("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    return ops.mean(x, windows.global_dims(x), True)


@ONNX.op("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    return ops.amax(x, windows.global_dims(x), True)


@ONNX.op("GlobalLpPool", since=2)
def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    return ops.pow(ops.sum(ops.pow(ops.abs(x), p), windows.global_dims(x), True), 1 / p)


@ONNX.op("LpPool", since=2)
def lp_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    kernel_shape: Ints,
    p: int = 2,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    rank = x.ndim - 2
    kernel = windows.per_dim("LpPool", "kernel_shape", kernel_shape, rank, 1)
    stride = windows.per_dim("LpPool", "strides", strides, rank, 1)
    dilation = windows.per_dim("LpPool", "dilations", dilations, rank, 1)
    around = windows.resolved_pads("LpPool", x.shape[2:], kernel, stride, dilation, pads, auto_pad)
    sums = windows.window_sums(ops.pow(ops.abs(x), p), kernel, stride, around, dilation, bool(ceil_mode))
    return ops.pow(sums, 1 / p)
