"""Losses by margins between classes, and of triplets by a distance of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import bool_, int64
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.distance import pairwise_distance
from tinyedge.ops.indexing import gather, one_hot
from tinyedge.ops.indices import check_indices
from tinyedge.ops.loss import reduced_losses
from tinyedge.ops.movement import reshape, unsqueeze
from tinyedge.ops.piecewise import relu
from tinyedge.ops.promotion import floating, require_tensors
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.reduction import reduction_of
from tinyedge.ops.scan import cumprod
from tinyedge.ops.scatter import scatter_add
from tinyedge.ops.selection import minimum, where
from tinyedge.tensor import Tensor


def _rows(name: str, input: Tensor, target: Tensor, of_classes: bool) -> tuple[Tensor, Tensor]:
    """Input (batch, classes) and its target, (batch,) or with ``of_classes`` (batch, classes)."""
    x = floating(name, input)
    require_tensors(name, target)
    if target.dtype is not int64:
        raise DtypeError(name, "an int64 target", f"got {target.dtype.name}", "Convert it with .long().")
    if not 0 <= x.ndim <= 2 or (x.ndim and not x.shape[-1]):
        raise ShapeError(name, "input (batch, classes) or (classes,)", f"got {x.shape}")
    x = reshape(x, (1, x.numel())) if x.ndim < 2 else x
    wanted = x.shape if of_classes else x.shape[:1]
    if target.numel() != (x.numel() if of_classes else x.shape[0]) or target.ndim > len(wanted):
        raise ShapeError(name, f"a target of shape {wanted}", f"got {target.shape}")
    return x, reshape(target, wanted)


def _reduced(losses: Tensor, reduction: str, input: Tensor) -> Tensor:
    if reduction == "none":
        return losses if input.ndim == 2 else reshape(losses, ())
    return reduced_losses(losses, reduction)


@public(functional=True, module="MultiMarginLoss", arguments="p, margin, weight, size_average, reduce, reduction")
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over the other classes of ``max(0, margin - input[target] + input[other]) ** p``, times target's weight.

    Shapes: input (batch, classes) or (classes,); target (batch,) or () int64; weight (classes,); returns () unless
            reduction="none".
    Errors: ArgumentError unless p is 1 or 2; IndexRangeError if a target is no class; ShapeError for other shapes.
    """
    name = "multi_margin_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    if p not in (1, 2):
        raise ArgumentError(name, "p must be 1 or 2", f"got {p}")
    x, classes = _rows(name, input, target, False)
    if weight is not None and (weight.ndim != 1 or weight.shape[0] != x.shape[1] or weight.dtype is not x.dtype):
        raise ShapeError(name, f"a weight of shape {x.shape[1:]} and {x.dtype.name}", f"got {weight.shape}")
    check_indices(name, classes, x.shape[1])
    own = unsqueeze(classes, 1)
    terms = relu(margin - gather(x, 1, own) + x)
    terms = terms * terms if p == 2 else terms
    if weight is not None:
        terms = terms * unsqueeze(functions["index_select"](weight, 0, classes), 1)
    others = where(one_hot(classes, x.shape[1]).to(bool_), 0.0, terms)
    return _reduced(total(others, 1) / x.shape[1], reduction, input)  # composed


@public(functional=True, module="MultiLabelMarginLoss")
def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Sum over a sample's classes, and over all others, of ``max(0, 1 - input[class] + input[other])``, over classes.

    The sample's classes stand in front; the first -1 ends them.

    Shapes: input and target (batch, classes) or (classes,), target int64; returns () unless reduction="none".
    Errors: IndexRangeError if a target is neither a class nor -1; ShapeError for other shapes.
    """
    name = "multilabel_margin_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    x, classes = _rows(name, input, target, True)
    if target.ndim != input.ndim and input.ndim:
        raise ShapeError(name, f"a target of shape {input.shape}", f"got {target.shape}")
    check_indices(name, classes, x.shape[1], ignored=-1)
    is_there = cumprod((classes >= 0).to(int64), 1)
    safe = classes * is_there
    own = scatter_add(is_there * 0, 1, safe, is_there) > 0
    picked = gather(x, 1, safe)
    terms = relu(1 - unsqueeze(picked, 2) + unsqueeze(x, 1))
    counts = functions["logical_and"](unsqueeze(is_there > 0, 2), unsqueeze(functions["logical_not"](own), 1))
    return _reduced(total(where(counts, terms, 0.0), (1, 2)) / x.shape[1], reduction, input)  # composed


@public(
    functional=True,
    module="TripletMarginWithDistanceLoss",
    arguments="*, distance_function, margin, swap, reduction",
)
def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Mean of ``max(0, distance(anchor, positive) - distance(anchor, negative) + margin)``, by any distance.

    That is ``pairwise_distance`` unless told otherwise. With ``swap``, the second is the smaller of the negative's
    distances from both.

    ``distance_function(a, b)`` gives a number for each pair; None: ``pairwise_distance``.

    Shapes: all three of as many dims; returns () unless reduction="none".
    Errors: ArgumentError unless margin is above 0; ShapeError unless all have as many dims.
    """
    name = "triplet_margin_with_distance_loss"
    reduction = reduction_of(name, reduction)
    require_tensors(name, anchor, positive, negative)
    if margin <= 0:
        raise ArgumentError(name, "margin must be above 0", f"got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        found = f"got {anchor.shape}, {positive.shape} and {negative.shape}"
        raise ShapeError(name, "three tensors of as many dims", found)
    distance: Any = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return reduced_losses(relu(margin + near - far), reduction)  # composed
