"""Distances between vectors, and losses of them."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.activation import logsigmoid
from tinyedge.ops.loss import float_pair, reduced_losses
from tinyedge.ops.piecewise import relu
from tinyedge.ops.promotion import as_floating, require_tensors, result_dtype
from tinyedge.ops.reduce import wide
from tinyedge.ops.reduction import reduction_of
from tinyedge.ops.selection import clamp_min, minimum, where
from tinyedge.ops.unary import neg, square
from tinyedge.tensor import Tensor, call

# Lengths


class AtLeast(Elementwise):
    """``x``, or ``least`` where that is larger; the gradient passes as if it were not, which PyTorch's losses do."""

    signature = "()->()"
    domain = {"x": (0.1, 8.0)}
    scalars = {"least": "real"}
    choices = {"least": (1e-6,)}
    kernel_forward = {"y": "WHERE(x < least, least, x)"}
    kernel_backward = {"dx": "dy"}

    @staticmethod
    def forward(x: Any, *, least: float) -> Any:
        return np.maximum(x, least)

    @staticmethod
    def backward(dy: Any, *, least: float) -> Any:
        return (dy,)


def _sum(x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    result: Tensor = functions["sum"](x, dim, keepdim)
    return result


def length_of(x: Tensor, p: float, dim: Any, keepdim: bool) -> Tensor:
    """The p-norm along ``dim``; where it is 0 its gradient is 0."""
    return cast("Tensor", functions["vector_norm"](x, p, dim, keepdim))


def _floats(name: str, *inputs: Tensor) -> list[Tensor]:
    """Tensors in the one floating-point type in which they meet."""
    require_tensors(name, *inputs)
    dtype = result_dtype(name, [as_floating(item) for item in inputs])
    return [item.to(dtype) for item in inputs]


@public(functional=True)
def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """``input`` divided by its p-norm along ``dim``, or by ``eps`` where that is larger.

    Shapes: any; returns the same.
    """
    (x,) = _floats("normalize", input)
    return x / clamp_min(length_of(x, p, dim, True), eps)  # composed


@public(functional=True, module="PairwiseDistance", shown="")
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of ``x1 - x2 + eps`` along the last dim.

    Shapes: x1 and x2 broadcast; returns what they broadcast to without the last dim, which ``keepdim`` keeps.
    """
    a, b = _floats("pairwise_distance", x1, x2)
    return length_of(a - b + eps, p, -1, keepdim)  # composed


@public(functional=True, module="CosineSimilarity", shown="")
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along ``dim``; lengths count as at least ``eps``.

    Shapes: x1 and x2 broadcast; returns what they broadcast to without ``dim``.
    """
    a, b = _floats("cosine_similarity", x1, x2)
    full = shapes.broadcast("cosine_similarity", a.shape, b.shape)
    a, b = functions["expand"](a, full), functions["expand"](b, full)
    unit = [item / call(AtLeast, length_of(item, 2, dim, True), scalars={"least": float(eps)}) for item in (a, b)]
    return _sum(unit[0] * unit[1], dim)  # composed


# Losses


@public(functional=True, module="MarginRankingLoss")
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean of ``max(0, -target * (input1 - input2) + margin)``; target is 1 where the first shall be larger, else -1.

    Shapes: all three of as many dims, which broadcast; returns () unless reduction="none".
    Errors: ShapeError unless all have as many dims.
    """
    reduction = reduction_of("margin_ranking_loss", reduction, size_average, reduce)
    require_tensors("margin_ranking_loss", input1, input2, target)
    if not input1.ndim == input2.ndim == target.ndim:
        found = f"got {input1.shape}, {input2.shape} and {target.shape}"
        raise ShapeError("margin_ranking_loss", "three tensors of as many dims", found)
    return reduced_losses(relu(neg(target) * (input1 - input2) + margin), reduction)  # composed


@public(functional=True, module="HingeEmbeddingLoss")
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean of the distance ``input`` where target is 1, and of ``max(0, margin - input)`` where it is -1.

    Shapes: input and target broadcast; returns () unless reduction="none".
    """
    reduction = reduction_of("hinge_embedding_loss", reduction, size_average, reduce)
    require_tensors("hinge_embedding_loss", input, target)
    far = where(target != 1, relu(margin - input), 0)
    return reduced_losses(far + where(target != -1, input, 0), reduction)  # composed


@public(functional=True, module="SoftMarginLoss")
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean of ``log(1 + exp(-target * input))``, without overflow; target is 1 or -1.

    Shapes: input and target broadcast; returns () unless reduction="none".
    """
    reduction = reduction_of("soft_margin_loss", reduction, size_average, reduce)
    a, b = float_pair("soft_margin_loss", input, target)
    return reduced_losses(neg(logsigmoid(a * b)), reduction)  # composed


@public(functional=True, module="MultiLabelSoftMarginLoss", arguments="weight, size_average, reduce, reduction")
def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes and samples of the negative log-likelihood of ``target`` under ``sigmoid(input)``.

    Shapes: input and target (..., classes); weight broadcasts; returns () unless reduction="none".
    """
    reduction = reduction_of("multilabel_soft_margin_loss", reduction, size_average, reduce)
    a, b = float_pair("multilabel_soft_margin_loss", input, target)
    losses = neg(b * logsigmoid(a) + (1 - b) * logsigmoid(neg(a)))
    if weight is not None:
        losses = losses * weight
    return reduced_losses(_sum(losses, -1) / max(a.shape[-1], 1), reduction)  # composed


@public(functional=True, module="TripletMarginLoss")
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean of ``max(0, distance(anchor, positive) - distance(anchor, negative) + margin)``.

    With ``swap``, the second is the smaller of the negative's distances from both.

    The distance is the norm of order ``p`` of the difference, to which ``eps`` is added.

    Shapes: all three alike, or broadcast, of as many dims; returns () unless reduction="none".
    Errors: ArgumentError unless margin is above 0; ShapeError unless all have as many dims.
    """
    reduction = reduction_of("triplet_margin_loss", reduction, size_average, reduce)
    require_tensors("triplet_margin_loss", anchor, positive, negative)
    if margin <= 0:
        raise ArgumentError("triplet_margin_loss", "margin must be above 0", f"got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        found = f"got {anchor.shape}, {positive.shape} and {negative.shape}"
        raise ShapeError("triplet_margin_loss", "three tensors of as many dims", found)
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced_losses(relu(margin + near - far), reduction)  # composed


@public(functional=True, module="CosineEmbeddingLoss")
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean of ``1 - cosine`` where target is 1, and of ``max(0, cosine - margin)`` where it is -1.

    Shapes: input1 and input2 (batch, features) and target (batch,); or (features,) and (); returns () unless
            reduction="none".
    Errors: ShapeError for others.
    """
    name = "cosine_embedding_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    require_tensors(name, input1, input2, target)
    if target.ndim > 1 or input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        found = f"got {input1.shape}, {input2.shape} and {target.shape}"
        raise ShapeError(name, "inputs (batch, features) and a target (batch,), or (features,) and ()", found)
    narrow = _floats(name, input1, input2)
    a, b = map(wide, narrow)
    squares = (_sum(square(a), -1) + 1e-12) * (_sum(square(b), -1) + 1e-12)
    cosine = (_sum(a * b, -1) / functions["sqrt"](squares)).to(narrow[0].dtype)
    far = where(target == -1, relu(cosine - margin), 0)
    return reduced_losses(where(target == 1, 1 - cosine, 0) + far, reduction)  # composed


@public(functional=True, module="GaussianNLLLoss", arguments="*, full, eps, reduction")
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Mean of ``(log(var) + (input - target) ** 2 / var) / 2``; ``full`` adds the constant ``log(2 pi) / 2``.

    ``reduction`` is "mean", "sum" or "none".

    Shapes: input and target broadcast; var has input's shape, or is without its last dim, or of length 1 in one dim.
    Units:  nats; a variance counts as at least ``eps``. A negative one is not found, which would wait for the device.
    Errors: ShapeError for another var; ArgumentError of a negative number.
    """
    name = "gaussian_nll_loss"
    reduction = reduction_of(name, reduction)
    a, b = float_pair(name, input, target)
    if not isinstance(var, Tensor):
        if var < 0:
            raise ArgumentError(name, "var must be at least 0", f"got {var}")
        spread: Tensor = var * functions["ones_like"](a)
    else:
        spread = var
    if spread.shape != a.shape:
        if spread.shape == a.shape[:-1]:
            spread = functions["reshape"](var, (*spread.shape, 1))
        elif spread.ndim != a.ndim or sum(n for m, n in zip(a.shape, spread.shape, strict=True) if m != n) != 1:
            raise ShapeError(name, f"var must fit the input's shape {a.shape}", f"it has {spread.shape}")
    spread = call(AtLeast, as_floating(spread).to(a.dtype), scalars={"least": float(eps)})
    losses = 0.5 * (functions["log"](spread) + square(a - b) / spread)
    return reduced_losses(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)  # composed
