"""Linear layers, embeddings, dropout, and layers that change shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.nn import init
from tinyedge.nn.arguments import Device, new_parameter, reset_weight_and_bias
from tinyedge.nn.module import Module
from tinyedge.tensor import Parameter, Tensor

# Shapes and noise


class Identity(Module):
    """Returns its input; takes and ignores any arguments.

    Shapes: any; returns the same.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Flatten(Module):
    """The dims from ``start_dim`` to ``end_dim`` as one.

    Shapes: (batch, ...); returns (batch, product of the others), unless ``start_dim`` or ``end_dim`` say otherwise.
    Errors: AxisError if there is no such dim.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """The dim ``dim`` as several, of sizes ``unflattened_size``, one of which may be -1.

    Shapes: (..., n, ...); returns (..., *unflattened_size, ...).
    Errors: ShapeError unless the product of the sizes is n; AxisError if there is no such dim.
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Dropout(Module):
    """In training mode, each element becomes 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    Shapes: any; returns the same.
    Errors: ArgumentError unless p is in [0, 1].
    Source: Srivastava et al., Dropout (2014).
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ArgumentError(type(self).__name__, "p must be a probability, in [0, 1]", f"got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout1d(Dropout):
    """In training mode, each channel becomes 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    Shapes: (batch, channels, length), or without batch; returns the same.
    Errors: ArgumentError unless p is in [0, 1].
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(Dropout):
    """In training mode, each channel becomes 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    Shapes: (batch, channels, height, width), or without batch; returns the same.
    Errors: ArgumentError unless p is in [0, 1].
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(Dropout):
    """In training mode, each channel becomes 0 with probability ``p``, and the others grow by ``1 / (1 - p)``.

    Shapes: (batch, channels, depth, height, width), or without batch; returns the same.
    Errors: ArgumentError unless p is in [0, 1].
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout3d(input, self.p, self.training, self.inplace)


# With weights


class Linear(Module):
    """``x @ weight.T + bias``. ``bias=False`` leaves out the summand.

    Weight and bias start uniform, within one over the root of ``in_features``.

    Shapes: x (..., in_features); weight (out_features, in_features); bias (out_features,); returns (..., out_features).
    Errors: ShapeError if the last dim of x is not in_features.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Device = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = new_parameter((out_features, in_features), device, dtype)
        self.register_parameter("bias", new_parameter((out_features,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        reset_weight_and_bias(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A table of vectors, looked up by index. The vectors start normally distributed. With ``sparse`` the gradient is
    dense too, and has the same values.

    That of ``padding_idx`` starts as zeros, and gets no gradient: it stands for places where there is nothing. Vectors
    that are looked up and whose ``norm_type``-norm is above ``max_norm`` are first scaled to it, in the table itself.
    With ``scale_grad_by_freq`` the gradient of a vector is divided by how often it was looked up. ``_weight`` is the
    table to begin with, which is not trained if ``_freeze``.

    Shapes: input (...) of integers in [0, num_embeddings); weight (num_embeddings, embedding_dim); returns (...,
            embedding_dim).
    Errors: IndexRangeError if an index is outside the table.
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ArgumentError(
                    "Embedding", f"padding_idx must be within {num_embeddings} rows", f"got {padding_idx}"
                )
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.sparse = sparse
        if _weight is not None:
            if _weight.shape != (num_embeddings, embedding_dim):
                expected = f"_weight of shape {(num_embeddings, embedding_dim)}"
                raise ShapeError("Embedding", expected, f"got {_weight.shape}")
            self.weight = Parameter(_weight.detach(), requires_grad=not _freeze)
            return
        self.weight = new_parameter((num_embeddings, embedding_dim), device, dtype)
        self.weight.requires_grad_(not _freeze)
        self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
    ) -> Embedding:  # fmt: skip
        """An embedding whose table is ``embeddings``, which is trained only without ``freeze``.

        Shapes: embeddings (num_embeddings, embedding_dim).
        """
        if embeddings.ndim != 2:
            raise ShapeError("Embedding.from_pretrained", "a table of two dims", f"got {embeddings.shape}")
        rows, size = embeddings.shape
        return cls(rows, size, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings, freeze)

    def reset_parameters(self) -> None:
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight.detach()[self.padding_idx].zero_()

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        usual = {"padding_idx": None, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False}
        for name, value in usual.items():
            if getattr(self, name) != value and (name != "norm_type" or self.max_norm is not None):
                text += f", {name}={getattr(self, name)}"
        return text
