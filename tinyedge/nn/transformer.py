"""The transformer: its layers, encoder and decoder. Source: Vaswani et al., arXiv:1706.03762."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.nn import init
from tinyedge.nn.arguments import Device
from tinyedge.nn.attention import MultiheadAttention
from tinyedge.nn.container import ModuleList
from tinyedge.nn.linear import Dropout, Linear
from tinyedge.nn.module import Module
from tinyedge.nn.normalization import LayerNorm
from tinyedge.tensor import Tensor, tensor

Activation = str | Callable[[Tensor], Tensor]


def _activation(call: str, activation: Activation) -> Callable[[Tensor], Tensor]:
    if callable(activation):
        return activation
    if activation not in ("relu", "gelu"):
        raise ArgumentError(call, 'activation must be "relu", "gelu" or callable', f"got {activation!r}")
    return F.relu if activation == "relu" else F.gelu


def _copies(layer: Module, count: int) -> ModuleList:
    return ModuleList([copy.deepcopy(layer) for _ in range(count)])


def _attended(
    attention: Module, x: Tensor, to: Tensor, padding: Tensor | None, mask: Tensor | None, is_causal: bool
) -> Tensor:
    result: Tensor = attention(x, to, to, padding, need_weights=False, attn_mask=mask, is_causal=is_causal)[0]
    return result


class _Layer(Module):
    """What both layers have: attention to itself, a feed-forward network, and how their results are added."""

    attends = 1  # how many sequences: itself, and in the decoder the encoder's result

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()

        def attention() -> MultiheadAttention:
            return MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, device=device, dtype=dtype
            )

        self.self_attn = attention()
        if self.attends > 1:
            self.multihead_attn = attention()
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype)
        self.norm_first = norm_first
        for number in range(1, self.attends + 2):
            setattr(self, f"norm{number}", LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype))
        for number in range(1, self.attends + 2):
            setattr(self, f"dropout{number}", Dropout(dropout))
        self.activation = _activation(type(self).__name__, activation)

    def _branched(self, x: Tensor, number: int, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """``x`` and the result of a branch, normalised before or after."""
        norm, dropout = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        result: Tensor = x + dropout(branch(norm(x))) if self.norm_first else norm(x + dropout(branch(x)))
        return result

    def _feed_forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return result


class TransformerEncoderLayer(_Layer):
    """Attention of a sequence to itself, and a feed-forward network, each added to its input and normalised.

    ``dim_feedforward`` is the width of the feed-forward network, between two linear layers; ``activation`` is "relu",
    "gelu" or a function; ``dropout`` is the probability of zeros in training, after each part and inside of them.
    ``layer_norm_eps`` is added to the variance; with ``norm_first`` each part normalises its input, and not its sum
    with it. ``bias=False`` leaves out all biases. Attention has ``nhead`` heads.

    Shapes: src (length, batch, d_model), with ``batch_first`` the batch first, or without; src_mask (length, length) or
            (batch * nhead, length, length); src_key_padding_mask (batch, length). Returns src's shape.
    Source: Vaswani et al., arXiv:1706.03762.
    """

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        def attend(x: Tensor) -> Tensor:
            return _attended(self.self_attn, x, x, src_key_padding_mask, src_mask, is_causal)

        return self._branched(self._branched(src, 1, attend), 2, self._feed_forward)


class TransformerDecoderLayer(_Layer):
    """Attention of a sequence to itself and to ``memory``, and a feed-forward network, each added and normalised.

    ``dim_feedforward`` is the width of the feed-forward network, between two linear layers; ``activation`` is "relu",
    "gelu" or a function; ``dropout`` is the probability of zeros in training, after each part and inside of them.
    ``layer_norm_eps`` is added to the variance; with ``norm_first`` each part normalises its input, and not its sum
    with it. ``bias=False`` leaves out all biases. Attention has ``nhead`` heads.

    Shapes: tgt (length, batch, d_model), memory (keys, batch, d_model), with ``batch_first`` the batch first, or
            without; tgt_mask (length, length), memory_mask (length, keys), or each for each entry and head;
            tgt_key_padding_mask (batch, length), memory_key_padding_mask (batch, keys). Returns tgt's shape.
    Source: Vaswani et al., arXiv:1706.03762.
    """

    attends = 2

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        def attend(x: Tensor) -> Tensor:
            return _attended(self.self_attn, x, x, tgt_key_padding_mask, tgt_mask, tgt_is_causal)

        def attend_to_memory(x: Tensor) -> Tensor:
            return _attended(self.multihead_attn, x, memory, memory_key_padding_mask, memory_mask, memory_is_causal)

        x = self._branched(self._branched(tgt, 1, attend), 2, attend_to_memory)
        return self._branched(x, 3, self._feed_forward)


class TransformerEncoder(Module):
    """``num_layers`` copies of ``encoder_layer``, one after the other, and ``norm`` at the end.

    ``is_causal`` says that ``mask`` is causal, so that it need not be read; None is False. ``enable_nested_tensor`` and
    ``mask_check`` are PyTorch's, and change nothing: there are no nested tensors.

    Shapes: as the layer's.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(Module):
    """``num_layers`` copies of ``decoder_layer``, one after the other, and ``norm`` at the end.

    ``tgt_is_causal`` says that ``tgt_mask`` is causal, so that it need not be read; None is False.

    Shapes: as the layer's.
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        for layer in self.layers:
            tgt = layer(
                tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, bool(tgt_is_causal),
                memory_is_causal,
            )  # fmt: skip
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """An encoder of ``src``, and a decoder of ``tgt`` that attends to its result.

    ``num_encoder_layers`` and ``num_decoder_layers`` layers have attention of ``nhead`` heads and a feed-forward
    network of width ``dim_feedforward``; ``dropout``, ``activation``, ``layer_norm_eps``, ``norm_first`` and ``bias``
    are those of ``TransformerEncoderLayer``. ``custom_encoder`` and ``custom_decoder`` take the place of what would be
    made.

    Shapes: src (keys, batch, d_model), tgt (length, batch, d_model), with ``batch_first`` the batch first, or without;
            masks as the layers'. Returns tgt's shape.
    Errors: ShapeError if the features are not d_model, or the batches differ.
    Source: Vaswani et al., arXiv:1706.03762.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, device,
            dtype,
        )  # fmt: skip

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)

        self.encoder = (
            TransformerEncoder(TransformerEncoderLayer(*layer), num_encoder_layers, norm())
            if custom_encoder is None
            else custom_encoder
        )
        self.decoder = (
            TransformerDecoder(TransformerDecoderLayer(*layer), num_decoder_layers, norm())
            if custom_decoder is None
            else custom_decoder
        )
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def _reset_parameters(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        batch = 0 if self.batch_first else 1
        got = f"got src {src.shape} and tgt {tgt.shape}"
        if src.ndim != tgt.ndim or (src.ndim == 3 and src.shape[batch] != tgt.shape[batch]):
            raise ShapeError("Transformer", "src and tgt of one batch", got)
        if {src.shape[-1], tgt.shape[-1]} != {self.d_model}:
            raise ShapeError("Transformer", f"src and tgt of d_model={self.d_model} features", got)
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        result: Tensor = self.decoder(
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, tgt_is_causal,
            memory_is_causal,
        )  # fmt: skip
        return result

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Device = None, dtype: Any = None) -> Tensor:
        """A mask to be added: -infinity where the key is after the query, else 0.

        Shapes: returns (sz, sz).
        """
        return tensor(np.triu(np.full((sz, sz), -math.inf, np.float32), 1), dtype=dtype, device=device)
