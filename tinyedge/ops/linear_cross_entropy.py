"""Cross entropy of a linear layer's results, without all of them in memory: for large vocabularies."""

from __future__ import annotations

from math import prod
from typing import Any

from tinyedge.autograd.checkpoint import checkpoint
from tinyedge.autograd.registry import public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.cross_entropy import cross_entropy
from tinyedge.ops.indexing import index_select
from tinyedge.ops.matmul import linear
from tinyedge.ops.movement import cat
from tinyedge.ops.selection import where
from tinyedge.tensor import Tensor

CHUNK_BYTES = 1 << 25
"""Of the logits of one chunk, unless the caller says how many rows it has."""

NAME = "linear_cross_entropy"


@public(functional=True)
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    batch_chunk_size: int | None = None,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target)``, of ``batch_chunk_size`` rows at a time.

    Backward computes the logits of a chunk again, so that memory holds one chunk of them and no more. Without
    ``batch_chunk_size`` a chunk has 32 MiB; a call with fewer logits, one with probabilities as targets, and one with a
    weight of more than 2 dims is not divided. Of ``options``, an ``nn.LinearCrossEntropyOptions``, batch_chunk_size is
    meant; the others are about PyTorch's kernels.

    ``ignore_index`` and ``label_smoothing`` are those of ``cross_entropy``.

    Shapes: input (in_features,) or (batch, in_features); linear_weight (classes, ..., in_features); linear_bias without
            the last; target and weight as of ``cross_entropy``. Returns (), or with reduction="none" a loss for each.
    Units:  nats; "mean" is over the targets that are not ignored, weighted by ``weight``.
    Saves:  input, and the logits' log(sum(exp)) of the chunk that backward is at.
    Errors: as ``linear`` and ``cross_entropy``; ArgumentError if batch_chunk_size is below 1.
    """
    if input.ndim not in (1, 2) or linear_weight.ndim < 2:
        raise ShapeError(
            NAME, "input (in_features,) or (batch, in_features), and linear_weight (classes, ..., in_features)",
            f"got {input.shape} and {linear_weight.shape}",
        )  # fmt: skip
    if batch_chunk_size is None and options is not None:
        batch_chunk_size = options.batch_chunk_size
    if batch_chunk_size is not None and batch_chunk_size < 1:
        raise ArgumentError(NAME, "batch_chunk_size must be at least 1, or None", f"got {batch_chunk_size}")
    if linear_bias is not None and linear_bias.shape != linear_weight.shape[:-1]:
        raise ShapeError(NAME, f"a linear_bias of shape {linear_weight.shape[:-1]}", f"got {linear_bias.shape}")
    if ignore_index is not None and target.dtype.is_floating_point:
        raise ArgumentError(NAME, "ignore_index with class indices alone", "got probabilities as target")
    if input.ndim == 1 and linear_weight.ndim > 2:
        raise ShapeError(NAME, "a batch with a linear_weight of more than 2 dims", f"got input {input.shape}")
    ignored = -100 if ignore_index is None else ignore_index
    outputs = linear_weight.shape[:-1]
    matrix = linear_weight if len(outputs) == 1 else linear_weight.reshape(prod(outputs), linear_weight.shape[-1])
    bias = linear_bias if linear_bias is None or len(outputs) == 1 else linear_bias.reshape(prod(outputs))

    def loss(rows: Tensor, targets: Tensor, how: str) -> Tensor:
        logits = linear(rows, matrix, bias)
        if len(outputs) > 1:
            logits = logits.reshape(*rows.shape[:-1], *outputs)
        return cross_entropy(
            logits, targets, weight, ignore_index=ignored, reduction=how, label_smoothing=label_smoothing
        )

    count = input.shape[0] if input.ndim == 2 else 1
    row_bytes = prod(outputs) * input.dtype.itemsize
    chunk = max(CHUNK_BYTES // max(row_bytes, 1), 1) if batch_chunk_size is None else batch_chunk_size
    divides = reduction in ("none", "sum", "mean") and target.ndim == 1 and input.ndim == 2 and len(outputs) == 1
    if not divides or target.dtype.is_floating_point or target.shape != (count,) or count <= chunk:
        return loss(input, target, reduction)
    pairs = zip(input.split(chunk), target.split(chunk), strict=True)
    how = "none" if reduction == "none" else "sum"
    losses = [checkpoint(loss, rows, targets, how) for rows, targets in pairs]
    if how == "none":
        return cat(losses)
    total = losses[0]
    for part in losses[1:]:
        total = total + part
    if reduction == "sum":
        return total
    counts = target != ignored
    if weight is None:
        result: Tensor = total / counts.sum().to(total.dtype)
        return result
    picked = index_select(weight, 0, where(counts, target, 0))
    return total / where(counts, picked, 0.0).sum()
