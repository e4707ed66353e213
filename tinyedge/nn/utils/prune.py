"""``torch.nn.utils.prune``: weights of which masks keep a part.

A pruned parameter ``name`` is replaced by the parameter ``name_orig`` and the buffer ``name_mask``; ``module.name`` is
their product, computed when it is read. Methods of one's own derive from ``BasePruningMethod``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module
from tinyedge.nn.utils.computed import compute, uncompute
from tinyedge.ops import cat, norm, rand, topk, zeros_like
from tinyedge.tensor import Parameter, Tensor

M = TypeVar("M", bound=Module)


def _count(call: str, amount: float, size: int) -> int:
    """How many of ``size`` are pruned: ``amount`` itself, or that fraction."""
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise ArgumentError(call, "an amount that is a number", f"got {amount!r}")
    if not 0 <= amount <= (size if isinstance(amount, int) else 1):
        raise ArgumentError(call, f"an amount in [0, {size}], or a fraction in [0.0, 1.0]", f"got {amount}")
    return amount if isinstance(amount, int) else round(amount * size)


class BasePruningMethod:
    """Base of the ways to prune: ``compute_mask`` says what is kept, and ``PRUNING_TYPE`` whether it looks at single
    elements ("unstructured"), at slices along a dim ("structured") or at all, the pruned too ("global").
    """

    PRUNING_TYPE = "unstructured"
    dim: int

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """1 where an element is kept and 0 elsewhere, of the shape of ``t``, whose small elements count least."""
        raise NotImplementedError(f"{type(self).__name__} needs a compute_mask method")

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any
    ) -> BasePruningMethod:
        """Prune ``module.name``, once more if it is pruned already. ``importance_scores`` are looked at in its place.

        Errors: ArgumentError if the module has no such parameter, or scores of another shape.
        """
        method, kept = cls(*args, **kwargs), f"{name}_mask"
        before = module._buffers.get(kept)
        weight = module._parameters.get(name if before is None else f"{name}_orig")
        if weight is None:
            raise ArgumentError(cls.__name__, f"a module with a parameter {name!r}", f"got {type(module).__name__}")
        scores = weight if importance_scores is None else importance_scores
        if scores.shape != weight.shape:
            raise ArgumentError(cls.__name__, f"scores of shape {weight.shape}", f"got {scores.shape}")
        with no_grad():
            mask = zeros_like(weight.detach()) + 1 if before is None else before
            mask = method._with(scores.detach(), mask)
        if before is None:
            _split(module, name, weight)
        module.register_buffer(kept, mask)
        return method

    def _with(self, scores: Tensor, mask: Tensor) -> Tensor:
        """``mask`` without what this prunes of what it keeps."""
        if self.PRUNING_TYPE == "global" or bool((mask != 0).all()):
            return self.compute_mask(scores, mask)
        if self.PRUNING_TYPE == "structured":
            dim = self.dim % scores.ndim
            rows = mask.movedim(dim, 0).reshape(mask.shape[dim], -1).sum(1) != 0
            at: Any = (*[slice(None)] * dim, rows)
        else:
            at = mask == 1
        changed = mask.clone()
        changed[at] = self.compute_mask(scores[at], mask[at])
        return changed

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """``t`` with zeros where it is pruned; nothing is kept."""
        mask = zeros_like(t.detach()) + 1 if default_mask is None else default_mask
        return t * self.compute_mask(t if importance_scores is None else importance_scores, mask)


def _split(module: Module, name: str, weight: Parameter) -> None:
    del module._parameters[name]
    module.register_parameter(f"{name}_orig", weight)

    def get(self: Any) -> Tensor:
        return cast("Tensor", getattr(self, f"{name}_orig") * getattr(self, f"{name}_mask"))

    def put(self: Any, value: Any) -> None:
        raise ArgumentError(
            "prune", "no assignment to a weight that is pruned", f"got {type(value).__name__}",
            f"Change {name}_orig, or call prune.remove first.",
        )  # fmt: skip

    compute(module, name, get, put)


def _without(mask: Tensor, scores: Tensor, count: int) -> Tensor:
    """``mask`` with 0 at the ``count`` least scores."""
    changed = mask.clone().reshape(-1)
    if count:
        changed[topk(scores.reshape(-1), count, largest=False).indices] = 0
    return changed.reshape(mask.shape)


class Identity(BasePruningMethod):
    """Prunes nothing."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class RandomUnstructured(BasePruningMethod):
    """Prunes ``amount`` elements, drawn at random."""

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        count = _count(type(self).__name__, self.amount, t.numel())
        return _without(default_mask, rand(t.shape, device=t.backend), count)


class L1Unstructured(RandomUnstructured):
    """Prunes the ``amount`` elements that are smallest."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return _without(default_mask, t.abs(), _count(type(self).__name__, self.amount, t.numel()))


class RandomStructured(BasePruningMethod):
    """Prunes ``amount`` slices along ``dim``, drawn at random."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1) -> None:
        self.amount, self.dim = amount, dim

    def scores(self, rows: Tensor) -> Tensor:
        """One for each row; the least are pruned."""
        return rand(rows.shape[0], device=rows.backend)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        if t.ndim < 2:
            raise ArgumentError(type(self).__name__, "a tensor of at least 2 dims", f"got {t.shape}")
        dim = self.dim % t.ndim
        rows = t.movedim(dim, 0).reshape(t.shape[dim], -1)
        count = _count(type(self).__name__, self.amount, rows.shape[0])
        keep = _without(zeros_like(rows[:, 0]) + 1, self.scores(rows), count)
        return default_mask * keep.reshape(-1, *(1,) * (t.ndim - dim - 1))


class LnStructured(RandomStructured):
    """Prunes the ``amount`` slices along ``dim`` whose norm of order ``n`` is least."""

    def __init__(self, amount: float, n: float, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def scores(self, rows: Tensor) -> Tensor:
        return norm(rows, self.n, 1)


class CustomFromMask(BasePruningMethod):
    """Keeps what ``mask`` keeps."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask * self.mask.to(default_mask.dtype)


def identity(module: M, name: str) -> M:
    """Prune nothing, but split the parameter. Returns the module."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: M, name: str, amount: float) -> M:
    """Prune ``amount`` elements (a count, or a fraction) of the parameter, drawn at random. Returns the module."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: M, name: str, amount: float, importance_scores: Tensor | None = None) -> M:
    """Prune the ``amount`` elements (a count, or a fraction) that are smallest, or of the least scores; returns it."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: M, name: str, amount: float, dim: int) -> M:
    """Prune ``amount`` slices (a count, or a fraction) along ``dim``, drawn at random. Returns the module."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: M, name: str, amount: float, n: float, dim: int, importance_scores: Tensor | None = None
) -> M:  # fmt: skip
    """Prune the ``amount`` slices along ``dim`` whose norm of order ``n`` is least. Returns the module."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: M, name: str, mask: Tensor) -> M:
    """Prune the parameter where ``mask`` is 0. Returns the module."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]], pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None, **kwargs: Any,
) -> None:  # fmt: skip
    """Prune several parameters as if they were one, so that some keep more than others.

    Errors: ArgumentError unless the method looks at single elements.
    """
    given: Sequence[tuple[Module, str]] = list(parameters)
    if pruning_method.PRUNING_TYPE != "unstructured":
        raise ArgumentError("global_unstructured", "an unstructured method", f"got {pruning_method.__name__}")
    scores, masks = [], []
    with no_grad():
        for module, name in given:
            weight = module._parameters.get(f"{name}_orig", module._parameters.get(name))
            if weight is None:
                raise ArgumentError("global_unstructured", f"a module with a parameter {name!r}", f"got {module}")
            scores.append((importance_scores or {}).get((module, name), weight).detach().reshape(-1))
            mask = module._buffers.get(f"{name}_mask")
            masks.append((zeros_like(weight.detach()) + 1 if mask is None else mask).reshape(-1))
        whole = pruning_method(**kwargs)._with(cat(scores), cat(masks))
    start = 0
    for (module, name), part in zip(given, scores, strict=True):
        shape = getattr(module, name).shape
        custom_from_mask(module, name, whole[start : start + math.prod(shape)].reshape(shape))
        start += part.numel()


def remove(module: M, name: str) -> M:
    """Make the pruned values a parameter again, which may grow anywhere. Returns the module.

    Errors: ArgumentError if it is not pruned.
    """
    if f"{name}_mask" not in module._buffers:
        raise ArgumentError("prune.remove", f"a module whose parameter {name!r} is pruned", "it is not")
    with no_grad():
        pruned = getattr(module, name).detach()
        weight = module._parameters[f"{name}_orig"]
        assert weight is not None
        weight.copy_(pruned)
    uncompute(module, name)
    del module._parameters[f"{name}_orig"], module._buffers[f"{name}_mask"]
    module.register_parameter(name, weight)
    return module


def is_pruned(module: Module) -> bool:
    """Whether any parameter in the module is pruned."""
    return any(
        name.endswith("_mask") and name.removesuffix("mask") + "orig" in part._parameters
        for part in module.modules()
        for name in part._buffers
    )


__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "RandomStructured",
    "RandomUnstructured",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]
