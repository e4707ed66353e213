"""The ops of ONNX Runtime's own domain of which language models are made: rotary embeddings, attention of grouped heads
with a cache, and products with weights of few bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert.onnx_attention import rotary_embedding
from tinyedge.convert.onnx_microsoft import DOMAIN
from tinyedge.convert.onnx_quantised import GATHER, N_BITS
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor


@ONNX.op(f"{DOMAIN}.RotaryEmbedding")
def rotary(
    x: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Tensor:
    """Shapes: x (batch, length, width) or (batch, heads, length, size); position_ids (batch, length), or (1,): that of
    the first; caches (positions, half of what is turned of a head).
    """
    if is_packed_batching or scale != 1.0:
        raise ArgumentError("RotaryEmbedding", "batches that are not packed, and no scale", "the file has others")
    if x.ndim not in (3, 4) or cos_cache.ndim != 2:
        raise ShapeError("RotaryEmbedding", "heads of 3 or 4 dims, and tables", f"got {x.shape}, {cos_cache.shape}")
    length = x.shape[2] if x.ndim == 4 else x.shape[1]
    position_ids = position_ids.to(dtypes.int64)
    if position_ids.numel() == 1:
        position_ids = position_ids.reshape((1, 1)) + ops.arange(length, device=x.backend)
        position_ids = position_ids + ops.zeros(x.shape[0], 1, dtype=dtypes.int64, device=x.backend)
    heads = num_heads
    if x.ndim == 3 and not heads:
        size = rotary_embedding_dim or 2 * cos_cache.shape[-1]
        if not size or x.shape[2] % size:
            raise ShapeError("RotaryEmbedding", f"a width of whole heads of {size}", f"got {x.shape}")
        heads = x.shape[2] // size
    return rotary_embedding(
        x, cos_cache, sin_cache, position_ids, interleaved=interleaved, num_heads=heads,
        rotary_embedding_dim=rotary_embedding_dim or 2 * cos_cache.shape[-1],
    )  # fmt: skip


@ONNX.op(f"{DOMAIN}.GroupQueryAttention")
def group_query_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    seqlens: Tensor | None = None,
    total: Tensor | None = None,
    cos_cache: Tensor | None = None,
    sin_cache: Tensor | None = None,
    position_ids: Tensor | None = None,
    added: Tensor | None = None,
    head_sink: Tensor | None = None,
    *,
    num_heads: int,
    kv_num_heads: int,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    local_window_size: int = -1,
    scale: float = 0.0,
    softcap: float = 0.0,
    smooth_softmax: int = 0,
    qk_output: int = 0,
    count: int,
) -> Any:
    """Shapes: query (batch, length, width), key and value (batch, length, their width), or all three side by side as
    the query; the past (batch, kv_num_heads, earlier, size); seqlens (batch,): a sample's keys, less one; returns
    (batch, length, width), and key and value with the past.

    Samples of a batch have pasts of one length. Behind the last token of a shorter prompt the results mean nothing.
    """
    name = "GroupQueryAttention"
    if min(num_heads, kv_num_heads) < 1 or num_heads % kv_num_heads:
        raise ArgumentError(name, "num_heads that are a multiple of kv_num_heads", f"got {num_heads}, {kv_num_heads}")
    if head_sink is not None or smooth_softmax > 0 or qk_output:
        raise ArgumentError(name, "a plain softmax, whose weights are no output", "the file has another one")
    every = num_heads + (0 if key is not None else 2 * kv_num_heads)
    if query.ndim != 3 or query.shape[2] % every or (key is None) is not (value is None):
        raise ShapeError(name, f"a query (batch, length, {every} heads)", f"got {query.shape}")
    samples, length, size = query.shape[0], query.shape[1], query.shape[2] // every
    if key is None or value is None:
        ends = (num_heads * size, (num_heads + kv_num_heads) * size)
        query, key, value = query[..., : ends[0]], query[..., ends[0] : ends[1]], query[..., ends[1] :]
    wide = kv_num_heads * size
    if any(part.ndim != 3 or part.shape[0] != samples or part.shape[2] != wide for part in (key, value)):
        raise ShapeError(name, f"keys and values ({samples}, length, {wide})", f"got {key.shape} and {value.shape}")
    before = 0 if past_key is None or past_key.ndim != 4 else past_key.shape[2]
    past = [part for part in (past_key, past_value) if part is not None]
    if len(past) == 1 or any(part.shape != (samples, kv_num_heads, before, size) for part in past):
        raise ShapeError(
            name, f"a past of keys and values ({samples}, {kv_num_heads}, earlier, {size})",
            f"got {', '.join(str(part.shape) for part in past)}",
        )  # fmt: skip
    if before:
        known = np.zeros(0) if seqlens is None else seqlens.numpy()
        if seqlens is None or (known.reshape(-1) != before + length - 1).any():
            raise ShapeError(
                name, f"{before} earlier tokens and {length} new ones in each sample",
                f"the file's lengths are {(known.reshape(-1) + 1)[:8].tolist()}",
            )  # fmt: skip
    if do_rotary:
        if cos_cache is None or sin_cache is None:
            raise ArgumentError(name, "caches of cosines and sines, to turn heads", "there are none")
        if position_ids is None:
            position_ids = ops.arange(before, before + length, device=query.backend).reshape((1, length))
            position_ids = position_ids + ops.zeros(samples, 1, dtype=dtypes.int64, device=query.backend)
        query, key = (
            rotary(x, position_ids, cos_cache, sin_cache, interleaved=rotary_interleaved, num_heads=heads)
            for x, heads in ((query, num_heads), (key, kv_num_heads))
        )
    q, k, v = (
        ops.transpose(x.reshape((samples, x.shape[1], heads, size)), 1, 2)
        for x, heads in ((query, num_heads), (key, kv_num_heads), (value, kv_num_heads))
    )
    if before and past_key is not None and past_value is not None:
        k, v = ops.cat([past_key, k], 2), ops.cat([past_value, v], 2)
    y = _attended(q, k, v, before, local_window_size, scale or size**-0.5, softcap, added)
    y = ops.transpose(y, 1, 2).reshape((samples, length, num_heads * size))
    return (y, k, v)[:count] if count > 1 else y


def _attended(
    q: Tensor, k: Tensor, v: Tensor, before: int, window: int, scale: float, softcap: float, added: Tensor | None
) -> Tensor:
    """Each query sees the keys up to its own, the last ``window`` of them."""
    length, keys = q.shape[2], k.shape[2]
    if not before and window < 0 and not softcap and added is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    distance = np.arange(length)[:, None] + before - np.arange(keys)
    seen = (distance >= 0) & ((distance < window) if window > 0 else True)
    mask = tensor(np.where(seen, 0.0, -np.inf).astype(np.float32), dtype=q.dtype, device=q.backend)
    mask = mask if added is None else mask + added[..., :keys]
    if not softcap:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True)
    k, v = (ops.repeat_interleave(x, q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = ops.tanh(ops.matmul(q * scale, ops.transpose(k, 2, 3)) / softcap) * softcap
    return ops.matmul(F.softmax(scores + mask, -1), v)


@ONNX.op(N_BITS, trained=("weight", "bias"), host=("scales", "zeros"))
def matmul_n_bits(
    x: Tensor,
    weight: Tensor,
    scales: Any,
    zeros: Any = None,
    order: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    K: int,
    N: int,
    bits: int = 4,
    block_size: int,
    accuracy_level: int = 0,
    weight_prepacked: int = 0,
) -> Tensor:
    """Shapes: x (..., K); weight (N, K), by then the numbers that it stands for; returns (..., N)."""
    if not weight.is_floating_point() or order is not None or weight_prepacked:
        raise ArgumentError("MatMulNBits", "weights and scales that stand in the file, in order", "the file has others")
    return F.linear(x, weight, bias)


@ONNX.op(GATHER, trained=("weight",), host=("scales", "zeros"))
def gather_block_quantized(
    weight: Tensor,
    indices: Tensor,
    scales: Any,
    zeros: Any = None,
    *,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
) -> Tensor:
    """Shapes: weight (rows, width), by then the numbers that it stands for; returns (*indices' shape, width)."""
    if not weight.is_floating_point() or weight.ndim != 2 or gather_axis not in (0, -2):
        raise ArgumentError("GatherBlockQuantized", "rows of a matrix that stands in the file", "the file has others")
    indices = indices.to(dtypes.int64)
    return F.embedding(ops.where(indices < 0, indices + weight.shape[0], indices), weight)


__all__: list[str] = []
