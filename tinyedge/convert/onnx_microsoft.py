"""The ops of ONNX Runtime's own domain, com.microsoft, that its optimiser writes into transformers and CNNs."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert.onnx_layers import conv, gemm
from tinyedge.convert.onnx_registry import ONNX, Floats, Ints
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor

DOMAIN = "com.microsoft"


def _name(op: str) -> str:
    return f"{DOMAIN}.{op}"


@ONNX.op(_name("Gelu"))
def gelu(x: Tensor) -> Tensor:
    return F.gelu(x)


@ONNX.op(_name("BiasGelu"), trained=("bias",))
def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x + bias)


@ONNX.op(_name("FastGelu"), trained=("bias",))
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@ONNX.op(_name("QuickGelu"))
def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    return x * ops.sigmoid(x * alpha)


@ONNX.op(_name("FusedMatMul"), trained=("a", "b"))
def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    if transBatchA or transBatchB:
        raise ArgumentError("FusedMatMul", "batches in front", "got transBatchA or transBatchB")
    a, b = (ops.transpose(x, -1, -2) if turn and x.ndim > 1 else x for x, turn in ((a, transA), (b, transB)))
    y = ops.matmul(a, b)
    return y if alpha == 1 else y * alpha


def _activated(name: str, x: Tensor, activation: str, params: Floats | None) -> Tensor:
    given = params or ()
    if activation in ("Relu", "Sigmoid", "Tanh"):
        return {"Relu": F.relu, "Sigmoid": ops.sigmoid, "Tanh": ops.tanh}[activation](x)
    if activation == "LeakyRelu":
        return F.leaky_relu(x, given[0] if given else 0.01)
    if activation == "Clip" and len(given) == 2:
        return ops.clamp(x, given[0], given[1])
    if activation == "HardSigmoid" and len(given) == 2:
        return ops.clamp(x * given[0] + given[1], 0.0, 1.0)
    raise ArgumentError(name, "the activation Relu, Sigmoid, Tanh, LeakyRelu, Clip or HardSigmoid", f"got {activation}")


@ONNX.op(_name("FusedConv"), trained=("weight", "bias"))
def fused_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    other: Tensor | None = None,
    *,
    activation: str,
    activation_params: Floats | None = None,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    y = conv(
        x, weight, bias, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape, pads=pads,
        strides=strides,
    )  # fmt: skip
    return _activated("FusedConv", y if other is None else y + other, activation, activation_params)


@ONNX.op(_name("FusedGemm"), trained=("b", "c"))
def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    activation: str,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    params = tuple(value for value in (activation_alpha, activation_beta) if value is not None)
    y = gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    return _activated("FusedGemm", y, activation, params)


def _results(count: int, y: Tensor, total: Tensor) -> Any:
    """The outputs that are wanted: the result, a mean and a variance that none reads, and the sum."""
    if count in (2, 3):
        raise ArgumentError("SkipLayerNormalization", "a file that reads the result, or the sum too", "got the mean")
    return y if count == 1 else (y, y, y, total)


@ONNX.op(_name("SkipLayerNormalization"), trained=("gamma", "beta", "bias"))
def skip_layer_norm(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    count: int,
) -> Any:
    total = x + skip if bias is None else x + skip + bias
    return _results(count, F.layer_norm(total, gamma.shape, gamma, beta, epsilon), total)


@ONNX.op(_name("SkipSimplifiedLayerNormalization"), trained=("gamma", "bias"))
def skip_rms_norm(
    x: Tensor, skip: Tensor, gamma: Tensor, bias: Tensor | None = None, *, epsilon: float = 1e-6, count: int
) -> Any:
    total = x + skip if bias is None else x + skip + bias
    return _results(count, F.rms_norm(total, gamma.shape, gamma, epsilon), total)


@ONNX.op(_name("EmbedLayerNormalization"), trained=("words", "positions", "segments", "gamma", "beta"))
def embed_layer_norm(
    ids: Tensor,
    segment_ids: Tensor | None,
    words: Tensor,
    positions: Tensor,
    segments: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 1,
    count: int,
) -> Any:
    total = F.embedding(ids.to(dtypes.int64), words)
    length = ids.shape[1]
    if position_ids is None:
        total = total + positions[:length]
    else:
        total = total + F.embedding(position_ids.to(dtypes.int64), positions)
    if segments is not None:
        if segment_ids is None:
            raise ShapeError("EmbedLayerNormalization", "ids of segments for their embedding", "there are none")
        total = total + F.embedding(segment_ids.to(dtypes.int64), segments)
    y = F.layer_norm(total, gamma.shape, gamma, beta, epsilon)
    if mask is None or not mask_index_type:
        lengths = ops.zeros(ids.shape[0], dtype=dtypes.int32, device=ids.backend)
    else:
        lengths = ops.sum(mask.to(dtypes.int32), 1).to(dtypes.int32)
    return (y, lengths, total)[:count] if count > 1 else y


@ONNX.op(_name("Attention"), trained=("weight", "bias"))
def attention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    added: Tensor | None = None,
    *,
    num_heads: int,
    mask_filter_value: float = -10000.0,
    qkv_hidden_sizes: Ints | None = None,
    scale: float | None = None,
    unidirectional: int = 0,
    count: int,
) -> Any:
    """Shapes: x (batch, length, width); weight (width, 3 * size), q, k and v side by side; mask (batch, length), or the
    samples' lengths (batch,); returns (batch, length, size).
    """
    if past is not None or count > 1 or qkv_hidden_sizes is not None:
        raise ArgumentError("Attention", "q, k and v of one size, without a past", "the file has others")
    y = ops.matmul(x, weight)
    y = y if bias is None else y + bias
    samples, length, whole = y.shape
    if num_heads < 1 or whole % (3 * num_heads):
        raise ShapeError("Attention", f"a weight for q, k and v of {num_heads} heads", f"got {weight.shape}")
    size = whole // (3 * num_heads)
    q, k, v = (ops.transpose(part, 1, 2) for part in y.reshape((samples, length, 3, num_heads, size)).unbind(2))
    return _attended(q, k, v, mask, added, mask_filter_value, scale, bool(unidirectional))


def _attended(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, added: Tensor | None, filled: float, scale: float | None,
    causal: bool,
) -> Tensor:  # fmt: skip
    """Shapes: q (batch, heads, length, size); k and v alike, of another length; mask (batch, length of k), or the
    samples' lengths (batch,); returns (batch, length, heads * size).
    """
    (samples, heads, length, size), seen = q.shape, k.shape[2]
    factor = size**-0.5 if scale is None or scale == 0 else scale
    scores = ops.matmul(q * factor, ops.transpose(k, 2, 3))
    if mask is not None:
        if mask.ndim == 1:
            mask = ops.unsqueeze(ops.arange(seen, device=q.backend), 0) < ops.unsqueeze(mask.to(dtypes.int64), 1)
        if mask.shape != (samples, seen):
            raise ShapeError("Attention", f"a mask ({samples}, {seen}) or ({samples},)", f"got {mask.shape}")
        off = (1 - (mask != 0).to(scores.dtype)) * filled
        scores = scores + off.reshape((samples, 1, 1, seen))
    if causal:
        ahead = np.triu(np.full((length, seen), filled, np.float32), 1 + seen - length)
        scores = scores + tensor(ahead, dtype=scores.dtype, device=q.backend)
    scores = scores if added is None else scores + added
    y = ops.matmul(F.softmax(scores, -1), v)
    return ops.transpose(y, 1, 2).reshape((samples, length, heads * v.shape[3]))


@ONNX.op(_name("MultiHeadAttention"), trained=("bias",))
def multi_head_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    added: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    num_heads: int,
    mask_filter_value: float = -10000.0,
    scale: float | None = None,
    unidirectional: int = 0,
    count: int,
) -> Any:
    """Shapes: query (batch, length, width); key and value (batch, other length, width), or (batch, heads, other length,
    size); the past alike; returns (batch, length, width), and key and value with the past.
    """
    if key is None or value is None or query.ndim != 3 or key.ndim != value.ndim or key.ndim not in (3, 4):
        raise ArgumentError(
            "MultiHeadAttention", "query, key and value, each a value of its own", "the file has others"
        )
    if num_heads < 1 or query.shape[2] % num_heads:
        raise ShapeError("MultiHeadAttention", f"a width of {num_heads} heads", f"got {query.shape}")
    wide = query.shape[2]

    def heads(x: Tensor, first: int) -> Tensor:
        if x.ndim == 4:
            return x
        x = x if bias is None else x + bias[first : first + x.shape[2]]
        return ops.transpose(x.reshape((*x.shape[:2], num_heads, x.shape[2] // num_heads)), 1, 2)

    q, k, v = heads(query, 0), heads(key, wide), heads(value, 2 * wide)
    k = k if past_key is None else ops.cat([past_key, k], 2)
    v = v if past_value is None else ops.cat([past_value, v], 2)
    y = _attended(q, k, v, mask, added, mask_filter_value, scale, bool(unidirectional))
    return (y, k, v)[:count] if count > 1 else y


__all__ = ["DOMAIN"]
