"""Multi-head attention as a layer."""

from __future__ import annotations

from typing import Any

from tinyedge.errors import ArgumentError
from tinyedge.nn import init
from tinyedge.nn.arguments import Device, new_parameter, require_positive
from tinyedge.nn.linear import Linear
from tinyedge.nn.module import Module
from tinyedge.ops.multi_head_attention import attend_by_heads
from tinyedge.tensor import Parameter, Tensor


class MultiheadAttention(Module):
    """Attention of ``num_heads`` heads over projections of query, key and value.

    A mask of bool is True for what is ignored; one of floating point is added to the scores. Without ``need_weights``
    memory grows with the sequence, and not with its square. ``dropout`` is the probability with which, in training, a
    weight becomes 0. ``bias=False`` leaves out the biases of the projections. ``add_bias_kv`` adds a trained key and
    value to each sequence, ``add_zero_attn`` ones of zeros.

    Shapes: query (length, batch, embed_dim), key (keys, batch, kdim), value (keys, batch, vdim), with ``batch_first``
            the batch first, or all without batch; key_padding_mask (batch, keys); attn_mask (length, keys) or (batch *
            heads, length, keys). Returns the query's shape, and the weights (batch, length, keys), by head if they are
            not averaged, or None without ``need_weights``.
    Errors: ArgumentError unless embed_dim is a multiple of num_heads; ShapeError if the shapes do not fit.
    Source: Vaswani et al., arXiv:1706.03762.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        require_positive("MultiheadAttention", embed_dim=embed_dim, num_heads=num_heads)
        if embed_dim % num_heads:
            raise ArgumentError(
                "MultiheadAttention", "embed_dim must be a multiple of num_heads", f"got {embed_dim} and {num_heads}"
            )
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn
        together = {"in_proj_weight": (3 * embed_dim, embed_dim)}
        apart = {
            "q_proj_weight": (embed_dim, embed_dim),
            "k_proj_weight": (embed_dim, self.kdim),
            "v_proj_weight": (embed_dim, self.vdim),
        }
        for shapes, wanted in ((apart, not self._qkv_same_embed_dim), (together, self._qkv_same_embed_dim)):
            for name, shape in shapes.items():
                self.register_parameter(name, new_parameter(shape, device, dtype) if wanted else None)
        self.register_parameter("in_proj_bias", new_parameter((3 * embed_dim,), device, dtype) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias, device, dtype)
        for name in ("bias_k", "bias_v"):
            self.register_parameter(name, new_parameter((1, 1, embed_dim), device, dtype) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        apart = tuple(w for w in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight) if w is not None)
        return attend_by_heads(
            query, key, value, self.num_heads, self.in_proj_weight if self.in_proj_weight is not None else apart,
            self.in_proj_bias, self.bias_k, self.bias_v, self.add_zero_attn, self.dropout if self.training else 0.0,
            self.out_proj, key_padding_mask, need_weights, attn_mask, None, None, average_attn_weights, is_causal,
            self.batch_first,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, batch_first={self.batch_first}"
