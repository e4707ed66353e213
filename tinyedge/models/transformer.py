"""A small decoder: the next token from those before it.

Source: Radford et al., Language Models are Unsupervised Multitask Learners (2019).
"""

from __future__ import annotations

import math

import numpy as np

from tinyedge import nn
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.nn import init
from tinyedge.tensor import Tensor, tensor


class CausalSelfAttention(nn.Module):
    """Each position attends to itself and to those before it.

    The scores are a matrix of their own: at 128 positions they are few, and products, mask and softmax take less time
    than ``scaled_dot_product_attention``, whose memory does not grow with the square of the positions.

    Shapes: x (batch, time, width), time at most ``context``; returns the same.
    """

    mask: Tensor

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.register_buffer("mask", tensor(np.triu(np.ones((context, context), bool), 1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        size = width // self.heads
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (part.view(batch, time, self.heads, size).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(size))
        future = self.mask.narrow(0, 0, time).narrow(1, 0, time)
        weights = F.softmax(scores.masked_fill(future, -math.inf), -1)
        y: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(batch, time, width))
        return y


class Block(nn.Module):
    """Attention, and then an MLP four times as wide, each on the normalised input and added to it."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, heads, context)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = self.mlp(self.norm2(x))
        return x + y


class Transformer(nn.Module):
    """Token and position embeddings, blocks, a last norm, and a linear head.

    Shapes: tokens (batch, time) of integers in [0, vocabulary), time at most ``context``; returns logits
            (batch, time, vocabulary).
    """

    positions: Tensor

    def __init__(
        self, vocabulary: int = 256, width: int = 128, layers: int = 4, heads: int = 4, context: int = 128
    ) -> None:
        super().__init__()
        if width % heads:
            raise ArgumentError("transformer", "heads must divide width", f"got width={width}, heads={heads}")
        self.context = context
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Embedding(context, width)
        self.register_buffer("positions", tensor(np.arange(context, dtype=np.int32)), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, context) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for name, param in self.named_parameters():
            if name.endswith(
                ("proj.weight", "mlp.2.weight")
            ):  # those that add to the stream, which every block does twice
                init.normal_(param, 0.0, 0.02 / math.sqrt(2 * layers))
            elif param.ndim == 2:
                init.normal_(param, 0.0, 0.02)
            elif name.endswith("bias"):
                init.zeros_(param)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.ndim != 2 or tokens.shape[1] > self.context:
            raise ShapeError(
                "transformer", f"tokens of shape (batch, time), time at most {self.context}", f"got {tokens.shape}"
            )
        positions = self.positions.narrow(0, 0, tokens.shape[1])
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def transformer(
    vocabulary: int = 256, width: int = 128, layers: int = 4, heads: int = 4, context: int = 128
) -> Transformer:
    """A decoder with new weights: 875,264 parameters by default."""
    return Transformer(vocabulary, width, layers, heads, context)
