"""Layers of tables and products: sums of embeddings, bilinear forms."""

from __future__ import annotations

import math
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F
from tinyedge.nn import init
from tinyedge.nn.arguments import Device, new_parameter
from tinyedge.nn.module import Module
from tinyedge.tensor import Parameter, Tensor


class EmbeddingBag(Module):
    """Sums, means or largest elements of the rows of a table that each bag of indices names; see ``F.embedding_bag``.

    ``mode`` is "sum", "mean" or "max". The row ``padding_idx`` does not count, and gets no gradient.
    ``include_last_offset``: the last of the offsets is where the last bag ends. ``max_norm`` (with ``norm_type``),
    ``scale_grad_by_freq`` and ``sparse`` are refused. ``_weight`` is the table to begin with, of (``num_embeddings``,
    ``embedding_dim``).

    Shapes: input (bags, n), or (n,) with offsets (bags,); returns (bags, embedding_dim).
    Errors: ArgumentError for another mode, and for what is refused; IndexRangeError if an index is outside the table.
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ArgumentError(
                    "EmbeddingBag", f"padding_idx must be within {num_embeddings} rows", f"got {padding_idx}"
                )
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.mode, self.sparse = scale_grad_by_freq, mode, sparse
        self.include_last_offset, self.padding_idx = include_last_offset, padding_idx
        if _weight is not None:
            if _weight.shape != (num_embeddings, embedding_dim):
                expected = f"a weight of shape {(num_embeddings, embedding_dim)}"
                raise ArgumentError("EmbeddingBag", expected, f"got {_weight.shape}")
            self.weight = Parameter(_weight)
        else:
            self.weight = new_parameter((num_embeddings, embedding_dim), device, dtype)
            self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> EmbeddingBag:
        """A layer whose table is ``embeddings``, which with ``freeze`` is not trained."""
        rows, columns = embeddings.shape
        made = cls(
            rows, columns, max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset,
            padding_idx,
        )  # fmt: skip
        made.weight.requires_grad = not freeze
        return made

    def reset_parameters(self) -> None:
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight.detach()[self.padding_idx].zero_()

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq:
            text += f", scale_grad_by_freq={self.scale_grad_by_freq}"
        text += f", mode={self.mode!r}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"


class Bilinear(Module):
    """``input1 @ weight[k] @ input2 + bias[k]`` for each of ``out_features``.

    Shapes: input1 (..., in1_features), input2 (..., in2_features); returns (..., out_features).
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if in1_features < 1:
            raise ArgumentError("Bilinear", "in1_features above 0", f"got {in1_features}")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = new_parameter((out_features, in1_features, in2_features), device, dtype)
        self.register_parameter("bias", new_parameter((out_features,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
