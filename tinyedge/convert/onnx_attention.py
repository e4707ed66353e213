"""ONNX's attention, and rotary embeddings with caches of cosines."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor


def _heads(x: Tensor, count: int | None) -> Tensor:
    """(batch, length, heads * features) as (batch, heads, length, features)."""
    if x.ndim == 4:
        return x
    if x.ndim != 3 or not count or x.shape[2] % count:
        raise ShapeError("Attention", "operands of 4 dims, or of 3 with numbers of heads that divide", f"got {x.shape}")
    return ops.transpose(x.reshape((*x.shape[:2], count, x.shape[2] // count)), 1, 2)


def _added(mask: Tensor, dtype: dtypes.DType) -> Tensor:
    """A mask as what is added to scores."""
    if mask.dtype is not dtypes.bool_:
        return mask.to(dtype)
    return ops.where(mask, tensor(0.0, device=mask.backend), tensor(-np.inf, device=mask.backend)).to(dtype)


def _seen(q: Tensor, keys: int, before: int, lengths: Array | None, causal: bool, left: int, right: int) -> Any:
    """Which keys each query sees by its place: an array, or None for all of them."""
    rows, columns = np.arange(q.shape[2])[:, None], np.arange(keys)
    starts = np.array([before]) if lengths is None else lengths.reshape(-1) - q.shape[2]
    distance = rows + starts[:, None, None] - columns  # of a key behind the query
    seen = np.ones_like(distance, bool)
    if causal:
        seen &= distance >= 0
    if left >= 0:
        seen &= distance <= left
    if right >= 0:
        seen &= -distance <= right
    if lengths is not None:
        seen = seen & (columns < lengths.reshape(-1, 1, 1))
    return None if seen.all() else seen[:, None]


@ONNX.op("Attention", since=23, host=("nonpad_kv_seqlen",))
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    left_window_size: int = -1,
    right_window_size: int = -1,
    count: int,
) -> Any:
    flat = q.ndim == 3
    q, k, v = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    before = 0
    if past_key is not None and past_value is not None:
        before = past_key.shape[2]
        k, v = ops.cat([past_key, k], 2), ops.cat([past_value, v], 2)
    present, heads, keys = (k, v), q.shape[1], k.shape[2]
    if heads != k.shape[1] and (not k.shape[1] or heads % k.shape[1] or k.shape[1] != v.shape[1]):
        raise ShapeError(
            "Attention", "heads of the query that are a multiple of the others'", f"got {q.shape, k.shape}"
        )
    scale = q.shape[3] ** -0.5 if scale is None else scale
    mask = attn_mask
    if mask is not None and mask.shape[-1] < keys:
        missing = False if mask.dtype is dtypes.bool_ else -np.inf
        mask = F.pad(mask, (0, keys - mask.shape[-1]), value=missing)
    seen = _seen(q, keys, before, nonpad_kv_seqlen, bool(is_causal), left_window_size, right_window_size)
    plain = not softcap and count < 4
    if plain and mask is None and is_causal and not before and nonpad_kv_seqlen is None and left_window_size < 0:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        return _result(y, flat, present, None, count)
    if seen is not None:
        places = tensor(seen, device=q.backend)
        if mask is None:
            mask = places
        elif mask.dtype is dtypes.bool_:
            mask = ops.logical_and(mask, places)
        else:
            mask = mask + _added(places, mask.dtype)
    if plain:
        if mask is not None and mask.dtype not in (dtypes.bool_, dtypes.float32, q.dtype):
            mask = mask.to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True)
        return _result(y, flat, present, None, count)
    if heads != k.shape[1]:
        k, v = (ops.repeat_interleave(x, heads // x.shape[1], 1) for x in (k, v))
    scores = ops.matmul(q * scale**0.5, ops.transpose(k, 2, 3) * scale**0.5)
    capped = ops.tanh(scores / softcap) * softcap if softcap else scores
    bias = None if mask is None else _added(mask, q.dtype)
    biased = capped if bias is None else capped + bias
    weights = ops.softmax(biased.to(dtypes.float32) if biased.dtype.packed else biased, -1).to(q.dtype)
    if bias is not None:  # a query that sees no key gets zeros
        blind = ops.amax(bias, -1, True) == -np.inf
        weights = ops.where(blind, ops.zeros_like(weights), weights)
    if not 0 <= qk_matmul_output_mode <= 3:
        raise ArgumentError("Attention", "a qk_matmul_output_mode of 0 to 3", f"got {qk_matmul_output_mode}")
    kept = (scores, capped, biased, weights)[qk_matmul_output_mode]
    return _result(ops.matmul(weights, v), flat, present, kept, count)


def _result(y: Tensor, flat: bool, present: tuple[Tensor, Tensor], scores: Tensor | None, count: int) -> Any:
    if flat:
        y = ops.transpose(y, 1, 2)
        y = y.reshape((*y.shape[:2], y.shape[2] * y.shape[3]))
    return (y, *present, scores)[:count]


@ONNX.op("RotaryEmbedding", since=23)
def rotary_embedding(
    x: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    shape = x.shape
    if x.ndim == 4:
        x = ops.transpose(x, 1, 2)
    elif x.ndim == 3 and num_heads and shape[2] % num_heads == 0:
        x = x.reshape((*shape[:2], num_heads, shape[2] // num_heads))
    else:
        raise ShapeError("RotaryEmbedding", "an input of 4 dims, or of 3 with num_heads", f"got {shape}")
    width = rotary_embedding_dim or x.shape[3]
    cos, sin = cos_cache, sin_cache
    if position_ids is not None:
        cos, sin = (F.embedding(position_ids.to(dtypes.int64), cache) for cache in (cos, sin))
    if width % 2 or not 0 < width <= x.shape[3] or cos.shape[-1] * 2 != width or sin.shape != cos.shape:
        raise ShapeError("RotaryEmbedding", f"caches of {width // 2} features", f"got {cos.shape} and {sin.shape}")
    cos, sin = ops.unsqueeze(cos, 2), ops.unsqueeze(sin, 2)
    turned, rest = x[..., :width], x[..., width:]
    if interleaved:
        one, other = turned[..., 0::2], turned[..., 1::2]
    else:
        one, other = turned[..., : width // 2], turned[..., width // 2 :]
    parts = [one * cos - other * sin, one * sin + other * cos]
    y = ops.stack(parts, -1).reshape(turned.shape) if interleaved else ops.cat(parts, -1)
    y = y if width == x.shape[3] else ops.cat([y, rest], -1)
    return y.reshape(shape) if len(shape) == 3 else ops.transpose(y, 1, 2)


__all__: list[str] = []
