"""Multi-head attention: projections of query, key and value, attention by heads, and the output's projection."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import bool_
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.attention import scaled_dot_product_attention
from tinyedge.ops.creation import zeros
from tinyedge.ops.matmul import linear, matmul
from tinyedge.ops.movement import cat, pad
from tinyedge.ops.random import dropout
from tinyedge.ops.softmax import softmax
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor

NAME = "multi_head_attention_forward"


def _check(query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int, separate: bool) -> None:
    got = f"got query {query.shape}, key {key.shape} and value {value.shape}"
    if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
        raise ShapeError(NAME, "query, key and value of 3 dims, or of 2 without a batch", got)
    if query.shape[-1] != embed_dim:
        raise ShapeError(NAME, f"a query of embed_dim={embed_dim} features", got)
    if num_heads < 1 or embed_dim % num_heads:
        raise ArgumentError(NAME, "embed_dim must be a multiple of num_heads", f"got {embed_dim} and {num_heads}")
    if key.shape[:-1] != value.shape[:-1] or (not separate and key.shape != value.shape):
        raise ShapeError(NAME, "key and value of one length and batch", got)


def _masked(mask: Tensor, name: str, like: Tensor) -> Tensor:
    """A mask of True for what is ignored as one to add, unless it is one."""
    if mask.dtype is bool_:
        return zeros(mask.shape, dtype=like.dtype, device=like.backend).masked_fill(mask, -math.inf)
    if not mask.is_floating_point():
        raise DtypeError(
            NAME,
            f"{name} must be of bool or floating point",
            f"got {mask.dtype.name}",
            "Compare it with 0 for one of bool.",
        )
    return mask


def _joined(attn_mask: Tensor | None, padding: Tensor | None, query: Tensor) -> Tensor | None:
    """Both masks as one that scaled_dot_product_attention takes, whose bools are True for what is seen."""
    masks = [
        (mask, name) for mask, name in ((attn_mask, "attn_mask"), (padding, "key_padding_mask")) if mask is not None
    ]
    if all(mask.dtype is bool_ for mask, _ in masks):
        ignored = None
        for mask, _ in masks:
            ignored = mask if ignored is None else functions["logical_or"](ignored, mask)
        return None if ignored is None else functions["logical_not"](ignored)
    total = None
    for mask, name in masks:
        added = _masked(mask, name, query)
        total = added if total is None else total + added
    return total


def _projected(
    inputs: tuple[Tensor, Tensor, Tensor], weights: Tensor | tuple[Tensor, ...], bias: Tensor | None
) -> tuple[Tensor, ...]:
    query, key, value = inputs
    if isinstance(weights, tuple):
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True))
    size = weights.shape[0] // 3
    if query is key and key is value:
        return linear(query, weights, bias).chunk(3, -1)
    first, rest = weights.split([size, 2 * size])
    first_bias, rest_bias = (None, None) if bias is None else bias.split([size, 2 * size])
    q = linear(query, first, first_bias)
    if key is value:
        return (q, *linear(key, rest, rest_bias).chunk(2, -1))
    pair = (None, None) if rest_bias is None else rest_bias.chunk(2)
    return (q, *(linear(x, w, b) for x, w, b in zip((key, value), rest.chunk(2), pair, strict=True)))


def _mask_shapes(attn_mask: Tensor | None, padding: Tensor | None, full: Shape) -> tuple[Tensor | None, Tensor | None]:
    """The masks with four axes: (batch, heads, queries, keys)."""
    batch, heads, length, keys = full
    if attn_mask is not None:
        wanted = (length, keys) if attn_mask.ndim == 2 else (batch * heads, length, keys)
        if attn_mask.shape != wanted:
            raise ShapeError(
                NAME, f"an attn_mask of shape {full[2:]} or {(batch * heads, *full[2:])}", f"got {attn_mask.shape}"
            )
        attn_mask = attn_mask.reshape(full if attn_mask.ndim == 3 else (1, 1, length, keys))
    if padding is not None:
        if padding.shape != (batch, keys):
            raise ShapeError(NAME, f"a key_padding_mask of shape {(batch, keys)}", f"got {padding.shape}")
        padding = padding.reshape(batch, 1, 1, keys)
    return attn_mask, padding


def _with_row(x: Tensor, row: Tensor) -> Tensor:
    """``row``, the same for every entry and head, after the positions of (batch, heads, positions, features)."""
    return cat((x, row.expand(*x.shape[:2], 1, x.shape[3])), 2)


def _with_batch(query: Tensor, key: Tensor, value: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """The operands with a batch of one; those that are the same tensor stay so, for one product projects them."""
    longer = {id(x): x.unsqueeze(axis) for x in (query, key, value)}
    return longer[id(query)], longer[id(key)], longer[id(value)]


def _scores(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """The masked scores, in PyTorch's own way and order; attention without the weights as a result has none."""
    size = q.shape[-1]
    scores = matmul(q * math.sqrt(1.0 / size if size else 1.0), k.transpose(-2, -1))
    if mask is None:
        return scores
    if mask.dtype is bool_:
        return scores.masked_fill(functions["logical_not"](mask), -math.inf)
    return scores + mask


def attend_by_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    in_proj: Tensor | tuple[Tensor, ...],
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj: Callable[[Tensor], Tensor],
    key_padding_mask: Tensor | None,
    need_weights: bool,
    attn_mask: Tensor | None,
    static_k: Tensor | None,
    static_v: Tensor | None,
    average_attn_weights: bool,
    is_causal: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention of operands of either order; ``in_proj`` is one weight, or one for each operand, and
    ``out_proj`` computes the result of all heads.
    """
    embed_dim = query.shape[-1]
    _check(query, key, value, embed_dim, num_heads, isinstance(in_proj, tuple))
    if is_causal and attn_mask is None:
        raise ArgumentError(
            NAME, "is_causal is a hint about attn_mask, which must be given", "got none",
            "Pass nn.Transformer.generate_square_subsequent_mask(length).",
        )  # fmt: skip
    batched = query.ndim == 3
    batch_axis = 0 if batch_first else 1
    if not batched:
        query, key, value = _with_batch(query, key, value, batch_axis)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    batch = query.shape[batch_axis]
    if key.shape[batch_axis] != batch:
        raise ShapeError(NAME, "key and value of the query's batch", f"got {query.shape} and {key.shape}")
    size = embed_dim // num_heads
    full = (batch, num_heads, query.shape[1 - batch_axis], key.shape[1 - batch_axis])
    attn_mask, padding = _mask_shapes(attn_mask, key_padding_mask, full)
    if is_causal and padding is None and not need_weights:
        attn_mask = None
    else:
        is_causal = False

    def heads(x: Tensor) -> Tensor:
        x = x.reshape(*x.shape[:2], num_heads, size)
        return x.permute(*((0, 2, 1, 3) if batch_first else (1, 2, 0, 3)))

    q, k, v = (heads(x) for x in _projected((query, key, value), in_proj, in_proj_bias))
    for name, given in (("static_k", static_k), ("static_v", static_v)):
        if given is not None and (given.ndim != 3 or given.shape[0] != batch * num_heads or given.shape[2] != size):
            raise ShapeError(NAME, f"{name} of shape ({batch * num_heads}, keys, {size})", f"got {given.shape}")
    k = k if static_k is None else static_k.reshape(batch, num_heads, *static_k.shape[1:])
    v = v if static_v is None else static_v.reshape(batch, num_heads, *static_v.shape[1:])
    length = k.shape[2]
    if bias_k is not None or bias_v is not None:
        if bias_k is None or bias_v is None or static_k is not None or static_v is not None:
            raise ArgumentError(
                NAME, "bias_k and bias_v go together, and without static_k and static_v", "got others",
                "Pass both of bias_k and bias_v, or both of static_k and static_v.",
            )  # fmt: skip
        k, v = (_with_row(x, b.reshape(1, num_heads, 1, size)) for x, b in ((k, bias_k), (v, bias_v)))
    if add_zero_attn:
        nothing = zeros((1, 1, 1, size), dtype=k.dtype, device=k.backend)
        k, v = _with_row(k, nothing), _with_row(v, nothing)
    extra = k.shape[2] - length
    if extra:  # all see what was added, and a causal mask must say so
        attn_mask = None if attn_mask is None else pad(attn_mask, (0, extra))
        padding = None if padding is None else pad(padding, (0, extra))
    mask = _joined(attn_mask, padding, q)
    weights = None
    if need_weights:
        weights = dropout(softmax(_scores(q, k, mask), -1), dropout_p)
        y = matmul(weights, v)
        weights = weights.mean(1) if average_attn_weights else weights
        weights = weights if batched else weights.squeeze(0)
    else:
        y = scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal)
    y = y.permute(*((0, 2, 1, 3) if batch_first else (2, 0, 1, 3)))
    y = out_proj(y.reshape(*y.shape[:2], embed_dim))
    return y if batched else y.squeeze(batch_axis), weights


@public(functional=True)
def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What ``nn.MultiheadAttention`` computes, with the weights as arguments.

    A mask of bool is True for what is ignored; one of floating point is added to the scores. Only without
    ``need_weights`` is the matrix of all scores avoided.

    ``embed_dim_to_check`` must be the query's features. Projections: ``in_proj_weight`` (3 * embed_dim, embed_dim), or
    with ``use_separate_proj_weight`` ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight``; ``in_proj_bias``; and
    of the result ``out_proj_weight`` and ``out_proj_bias``. ``bias_k`` and ``bias_v``, and with ``add_zero_attn``
    zeros, are added to keys and values; ``static_k`` and ``static_v`` take their place. In ``training`` a weight
    becomes 0 with the probability ``dropout_p``. ``average_attn_weights``: the weights are means over ``num_heads``
    heads.

    Shapes: query (length, batch, embed_dim), key and value (keys, batch, ...), all without batch or none;
            key_padding_mask (batch, keys); attn_mask (length, keys) or (batch * heads, length, keys). Returns
            (length, batch, embed_dim), and weights (batch, length, keys), by head if not averaged, or None.
    Errors: ShapeError if the shapes do not fit; ArgumentError for is_causal without attn_mask.
    Source: Vaswani et al., arXiv:1706.03762.
    """
    weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    given = weights if use_separate_proj_weight else (in_proj_weight,)
    if any(weight is None for weight in given):
        needed = "q_proj_weight, k_proj_weight and v_proj_weight" if use_separate_proj_weight else "in_proj_weight"
        raise ArgumentError(NAME, f"use_separate_proj_weight={use_separate_proj_weight} needs {needed}", "got None")
    present = tuple(weight for weight in given if weight is not None)
    if query.shape[-1:] != (embed_dim_to_check,):
        raise ShapeError(NAME, f"a query of {embed_dim_to_check} features", f"got {query.shape}")
    return attend_by_heads(
        query, key, value, num_heads, present if use_separate_proj_weight else present[0], in_proj_bias, bias_k, bias_v,
        add_zero_attn, dropout_p if training else 0.0, partial(linear, weight=out_proj_weight, bias=out_proj_bias),
        key_padding_mask, need_weights, attn_mask, static_k, static_v, average_attn_weights, is_causal, False,
    )  # fmt: skip
