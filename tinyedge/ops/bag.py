"""Sums of embeddings, distances of all pairs, products of two inputs: embedding_bag, cdist, pdist, bilinear."""

from __future__ import annotations

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.recorder import recorder
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import int32, int64
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.contraction import tensordot
from tinyedge.ops.creation import arange
from tinyedge.ops.distance import length_of
from tinyedge.ops.indexing import embedding
from tinyedge.ops.movement import expand, narrow, reshape, unsqueeze
from tinyedge.ops.placing import index_reduce
from tinyedge.ops.promotion import floating, require_tensors
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.scatter import index_add
from tinyedge.ops.search import searchsorted
from tinyedge.ops.selection import clamp, where
from tinyedge.tensor import Tensor, tensor

MODES = ("sum", "mean", "max")


@public(functional=True)
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or largest elements of the rows of ``weight`` that each bag of indices names; of none, zeros.

    Bags are the rows of ``input``, or start at ``offsets`` in a flat one. Rows ``padding_idx`` do not count.

    ``mode`` is "sum", "mean" or "max". ``max_norm`` (with ``norm_type``), ``scale_grad_by_freq`` and ``sparse`` are
    refused.

    Shapes: input (bags, n) or (n,) with offsets (bags,), with ``include_last_offset`` (bags + 1,); weight
            (num_embeddings, embedding_dim); per_sample_weights as input; returns (bags, embedding_dim).
    Errors: ShapeError or ArgumentError unless the arguments fit; else as ``embedding``.
    """
    name = "embedding_bag"
    require_tensors(name, input, weight)
    if input.dtype not in (int32, int64):
        raise DtypeError(name, "int64 or int32 indices", f"got {input.dtype.name}", "Convert it with .long().")
    if mode not in MODES:
        raise ArgumentError(name, f"mode must be one of {', '.join(MODES)}", f"got {mode!r}")
    if mode == "max" and (scale_grad_by_freq or sparse):
        raise ArgumentError(name, "neither scale_grad_by_freq nor sparse with mode='max'", "got one")
    if per_sample_weights is not None:
        if mode != "sum":
            raise ArgumentError(name, "per_sample_weights with mode='sum' alone", f"got mode={mode!r}")
        if per_sample_weights.shape != input.shape:
            raise ShapeError(name, f"per_sample_weights of shape {input.shape}", f"got {per_sample_weights.shape}")
        if per_sample_weights.dtype is not weight.dtype:
            expected = f"per_sample_weights of {weight.dtype.name}"
            raise DtypeError(name, expected, f"got {per_sample_weights.dtype.name}", "Convert it with .to(dtype).")
    if input.ndim == 2:
        if offsets is not None:
            raise ArgumentError(name, "no offsets with an input of 2 dims", f"got {offsets.shape}")
        bags, size = input.shape
        bag = reshape(expand(unsqueeze(arange(bags, device=input.backend), 1), (bags, size)), (bags * size,))
    elif input.ndim == 1:
        if offsets is None or offsets.ndim != 1:
            found = "got none" if offsets is None else f"got {offsets.shape}"
            raise ShapeError(name, "offsets of one dim with an input of one", found)
        if include_last_offset:
            if not offsets.shape[0]:
                raise ShapeError(name, "at least one offset with include_last_offset", "got none")
            offsets = narrow(offsets, 0, 0, offsets.shape[0] - 1)
        _starts_at_zero(name, offsets, input.shape[0])
        bags = offsets.shape[0]
        bag = searchsorted(offsets, arange(input.shape[0], device=input.backend).to(offsets.dtype), right=True) - 1
    else:
        raise ShapeError(name, "an input of one or two dims", f"got {input.shape}")
    flat = reshape(input, (input.numel(),))
    rows = embedding(flat, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if padding_idx is not None:
        counts = flat != padding_idx % weight.shape[0]
    else:
        counts = functions["ones_like"](flat) > 0
    zeros: Tensor = functions["zeros"](bags, rows.shape[1], dtype=rows.dtype, device=rows.backend)
    if not flat.numel() or not bags:
        return zeros + total(rows) * 0 if rows.requires_grad else zeros
    if mode == "max":
        # What is padding goes to a bag of its own.
        bag = where(counts, bag, bags)
        wide = functions["zeros"](bags + 1, rows.shape[1], dtype=rows.dtype, device=rows.backend)
        return narrow(index_reduce(wide, 0, bag, rows, "amax", include_self=False), 0, 0, bags)
    if per_sample_weights is not None:
        rows = rows * unsqueeze(reshape(per_sample_weights, (flat.numel(),)), 1)
    rows = where(unsqueeze(counts, 1), rows, 0.0)
    sums = index_add(zeros, 0, bag, rows)
    if mode == "sum":
        return sums
    sizes = index_add(functions["zeros"](bags, dtype=rows.dtype, device=rows.backend), 0, bag, counts.to(rows.dtype))
    return sums / unsqueeze(clamp(sizes, min=1), 1)


def _starts_at_zero(name: str, offsets: Tensor, count: int) -> None:
    if recorder() is not None or not offsets.numel():
        return
    numbers = offsets.numpy()
    if numbers[0] != 0 or (np.diff(numbers) < 0).any() or numbers[-1] > count:
        raise ArgumentError(name, f"offsets that ascend from 0 to at most {count}", f"got {numbers.tolist()[:8]}")


@public(functional=True)
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input1 @ weight[k] @ input2`` for each k, plus ``bias``.

    Shapes: input1 (..., n), input2 (..., m), weight (out, n, m), bias (out,); returns (..., out).
    Errors: ShapeError unless the shapes are such.
    """
    name = "bilinear"
    x, y, w = (floating(name, item) for item in (input1, input2, weight))
    fits = w.ndim == 3 and x.ndim and y.ndim and x.shape[:-1] == y.shape[:-1]
    if not fits or x.shape[-1] != w.shape[1] or y.shape[-1] != w.shape[2]:
        found = f"got {x.shape}, {y.shape} and {w.shape}"
        raise ShapeError(name, "input1 (..., n), input2 (..., m) and weight (out, n, m)", found)
    if bias is not None and bias.shape != w.shape[:1]:
        raise ShapeError(name, f"a bias of shape {w.shape[:1]}", f"got {bias.shape}")
    half = tensordot(x, w, ((-1,), (1,)))
    result = total(half * unsqueeze(y, -2), -1)
    return result if bias is None else result + bias


@public
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm of the difference of every row of ``x1`` and every row of ``x2``.

    Differences are taken element by element, whatever ``compute_mode`` says: no rounding makes equal rows distant.

    Shapes: x1 (..., n, d), x2 (..., m, d), whose batches broadcast; returns (..., n, m).
    Errors: ShapeError unless the shapes are such; ArgumentError if p < 0.
    """
    a, b = floating("cdist", x1), floating("cdist", x2)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise ShapeError("cdist", "rows of equal length, in at least 2 dims", f"got {a.shape} and {b.shape}")
    if p < 0:
        raise ArgumentError("cdist", "p of at least 0", f"got {p}")
    modes = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")
    if compute_mode not in modes:
        raise ArgumentError("cdist", f"compute_mode must be one of {', '.join(modes)}", f"got {compute_mode!r}")
    lead = shapes.broadcast("cdist", a.shape[:-2], b.shape[:-2])
    if not a.shape[-1]:
        zeros: Tensor = functions["zeros"](*lead, a.shape[-2], b.shape[-2], dtype=a.dtype, device=a.backend)
        return zeros + (total(a) + total(b)) * 0
    if 0 in (*lead, a.shape[-2], b.shape[-2]):
        return total(unsqueeze(a, -2) - unsqueeze(b, -3), -1)
    return length_of(unsqueeze(a, -2) - unsqueeze(b, -3), p, -1, False)  # composed


@public(functional=True)
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm of the difference of every two rows, in the order of the upper triangle.

    Shapes: (n, d) gives (n * (n - 1) / 2,).
    Errors: ShapeError unless there are 2 dims; ArgumentError if p < 0.
    """
    x = floating("pdist", input)
    if x.ndim != 2:
        raise ShapeError("pdist", "a matrix", f"got {x.shape}")
    if p < 0:
        raise ArgumentError("pdist", "p of at least 0", f"got {p}")
    first, second = np.triu_indices(x.shape[0], 1)
    a, b = (functions["index_select"](x, 0, tensor(side, dtype=int64, device=x.backend)) for side in (first, second))
    return total(a - b, 1) if not len(first) or not x.shape[1] else length_of(a - b, p, 1, False)
