"""Which layers are worth training: Fisher information of each, over a few samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tinyedge.adapt.layers import layers_of
from tinyedge.autograd.modes import enable_grad, no_grad
from tinyedge.errors import ArgumentError
from tinyedge.gradients.grad import grad
from tinyedge.nn.module import Module
from tinyedge.report.text import table
from tinyedge.tensor import Parameter, Tensor


@dataclass(frozen=True)
class LayerRank:
    """A layer's importance."""

    name: str
    """Its qualified name; "" for the parameters of the model itself."""
    kind: str
    parameters: int
    """How many numbers of it can be trained."""
    fisher: float
    """The mean over the samples of the gradient's squared length: the trace of the empirical Fisher information."""

    @property
    def per_parameter(self) -> float:
        """``fisher`` by the number of parameters: what a byte of gradient and optimizer state buys."""
        return self.fisher / max(self.parameters, 1)


@dataclass(frozen=True)
class Ranking(Sequence[LayerRank]):
    """Layers, the most important first. Printed, it is a table; ``te.plan_for(..., ranking=)`` chooses by it."""

    layers: tuple[LayerRank, ...]
    samples: int

    def __getitem__(self, index: Any) -> Any:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerRank]:
        return iter(self.layers)

    def names(self, most: int | None = None) -> list[str]:
        """The names of the ``most`` important layers, or of all: for ``model.freeze(except_=...)``."""
        return [layer.name for layer in self.layers[:most]]

    def __str__(self) -> str:
        total = sum(layer.fisher for layer in self.layers) or 1.0
        rows: list[tuple[str, ...]] = [("layer", "kind", "parameters", "fisher", "share", "per parameter")]
        for layer in self.layers:
            numbers = f"{layer.parameters:,}", f"{layer.fisher:.3g}", f"{layer.fisher / total:.1%}"
            rows.append((layer.name or "(itself)", layer.kind, *numbers, f"{layer.per_parameter:.3g}"))
        return table(rows, (0, 1))


@no_grad()
def _add_squares(totals: list[Tensor | None], gradients: Sequence[Tensor | None]) -> None:
    for k, gradient in enumerate(gradients):
        if gradient is not None:
            square = gradient.square().sum()
            totals[k] = square if (before := totals[k]) is None else before + square


def rank_layers(model: Module, loss: Callable[..., Tensor], samples: Iterable[Sequence[Any]]) -> Ranking:
    """The layers that require gradients, by Fisher information over ``samples``: those that a step changes most first.

    ``loss(model, *sample)`` returns a number, as in ``te.plan_for``; a sample is one example, at batch 1. For each the
    gradient of the loss is computed and its square summed a layer (the empirical Fisher information's trace), then
    averaged. The model is in evaluation mode meanwhile, so no statistics move and nothing is dropped out; afterwards
    it is as it was, with its gradients.

    Errors: ArgumentError without samples, or if all parameters are frozen, or a gradient is not finite.
    Source: Kirkpatrick et al., arXiv:1612.00796; Lee et al., Surgical Fine-Tuning, arXiv:2210.11466.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    >>> samples = [(te.randn(1, 2), te.tensor([k % 2])) for k in range(4)]
    >>> ranking = te.adapt.rank_layers(model, lambda model, x, y: F.cross_entropy(model(x), y), samples)
    >>> sorted(ranking.names())
    ['0', '1']
    """
    own_layers = {layer.name: layer for layer in layers_of(model)}
    layers: dict[str, list[Parameter]] = {}
    seen: set[int] = set()
    for layer in own_layers.values():
        for param in layer.parameters.values():
            if param.requires_grad and id(param) not in seen:
                seen.add(id(param))
                layers.setdefault(layer.name, []).append(param)
    if not layers:
        raise ArgumentError(
            "rank_layers",
            "a model with parameters that require gradients",
            "all are frozen",
            "Call requires_grad_(True) on what shall be trained.",
        )
    params = [param for own in layers.values() for param in own]
    totals: list[Tensor | None] = [None] * len(params)
    count = 0
    with _evaluating(model):
        for sample in samples:
            with enable_grad():
                value = loss(model, *sample)
            gradients = grad(value, params, allow_unused=True)
            _add_squares(totals, gradients)
            count += 1
    if not count:
        raise ArgumentError("rank_layers", "one sample or more", "got none")
    found = {id(param): 0.0 if total is None else total.item() for param, total in zip(params, totals, strict=True)}
    ranks = []
    for name, own in layers.items():
        fisher = sum(found[id(param)] for param in own) / count
        if not math.isfinite(fisher):
            raise ArgumentError("rank_layers", "finite gradients", f"those of {name or 'the model'!r} are not")
        ranks.append(LayerRank(name, own_layers[name].kind, sum(param.numel() for param in own), fisher))
    return Ranking(tuple(sorted(ranks, key=lambda layer: -layer.fisher)), count)


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module has its own again."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
