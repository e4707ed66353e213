"""Choosing what is trained: the last layers, the head, biases or norms alone; and a table of what that comes to."""

from __future__ import annotations

from collections.abc import Callable

from tinyedge.adapt.layers import Layer, layers_of
from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module
from tinyedge.tensor import require_trainable


def _choose(call: str, model: Module, chosen: Callable[[Layer, str], bool]) -> Module:
    """Train these parameters alone; batch norms keep their statistics, as with ``Module.freeze``."""
    trained = [param for layer in layers_of(model) for name, param in layer.parameters.items() if chosen(layer, name)]
    if not trained:
        raise ArgumentError(call, "a model with such parameters", f"{type(model).__name__} has none")
    for param in trained:
        require_trainable(call, param.dtype)
    for param in model.parameters():
        param.requires_grad_(False)
    for param in trained:
        param.requires_grad_(True)
    model.freeze_batch_norm_statistics()
    return model


def last(model: Module, n: int) -> Module:
    """Train the last ``n`` layers that have parameters, and nothing else. Returns the model.

    Layers are in the order in which the model has them, which is that of the computation in most models. Of an imported
    model they are the file's ops that have parameters, in the order of the computation.

    Errors: ArgumentError unless there are so many.
    """
    layers = [layer.name for layer in layers_of(model)]
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(layers):
        raise ArgumentError("last", f"a number of layers in [1, {len(layers)}]", f"got {n!r}")
    chosen = set(layers[-n:])
    return _choose("last", model, lambda layer, name: layer.name in chosen)


def head_only(model: Module) -> Module:
    """Train the last layer that has a weight of two or more dims (a Linear layer or a convolution). Returns the model.

    Errors: ArgumentError if there is none.
    """
    heads = [layer.name for layer in layers_of(model) if any(param.ndim > 1 for param in layer.parameters.values())]
    return _choose("head_only", model, lambda layer, name: layer.name == heads[-1] if heads else False)


def bias_only(model: Module) -> Module:
    """Train the biases alone (BitFit). Returns the model.

    Errors: ArgumentError if there is none.
    Source: Ben Zaken et al., arXiv:2106.10199.
    """
    return _choose("bias_only", model, lambda layer, name: name in layer.biases)


def norm_only(model: Module) -> Module:
    """Train the scales and shifts of norms alone. Returns the model.

    Errors: ArgumentError if there is none.
    """
    return _choose("norm_only", model, lambda layer, name: layer.is_norm)


def summary(model: Module) -> str:
    """A table of the layers that have parameters: how many are trained and frozen, and their bytes.

    ``gradients`` are the bytes of the gradients of what is trained, float32 also where it is stored in 16 bits. What a
    training step takes beyond that (activations, optimizer state) is what ``te.plan_for`` computes.
    """
    rows: list[tuple[str, ...]] = [("layer", "kind", "trained", "frozen", "weights", "gradients")]
    seen: set[int] = set()
    totals = [0, 0, 0, 0]
    for layer in layers_of(model):
        params = [param for param in layer.parameters.values() if id(param) not in seen]
        seen |= {id(param) for param in params}
        trained = [param for param in params if param.requires_grad]
        numbers = [
            sum(param.numel() for param in trained),
            sum(param.numel() for param in params) - sum(param.numel() for param in trained),
            sum(param.nbytes for param in params),
            sum(param.numel() * param.dtype.computes.itemsize for param in trained),
        ]
        totals = [a + b for a, b in zip(totals, numbers, strict=True)]
        rows.append((layer.name or "(itself)", layer.kind, *(f"{number:,}" for number in numbers)))
    rows.append(("all", "", *(f"{number:,}" for number in totals)))
    widths = [max(len(row[k]) for row in rows) for k in range(6)]
    lines = [
        "  ".join(text.ljust(width) if k < 2 else text.rjust(width) for k, (text, width) in enumerate(zip(row, widths)))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
