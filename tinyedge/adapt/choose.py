"""Choosing what is trained: the last layers, the head, biases or norms alone; and a table of what that comes to."""

from __future__ import annotations

from collections.abc import Callable

from tinyedge.adapt.budget import Sample, States, rehearse, states_of
from tinyedge.adapt.costs import Cost, costs_of
from tinyedge.adapt.layers import Layer, layers_of
from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module
from tinyedge.report.text import table
from tinyedge.tensor import Tensor, require_trainable


def _choose(call: str, model: Module, chosen: Callable[[Layer, str], bool]) -> Module:
    """Train these parameters alone; batch norms keep their statistics, as with ``Module.freeze``."""
    layers = layers_of(model)
    trained = {name: param for layer in layers for name, param in layer.parameters.items() if chosen(layer, name)}
    if not trained:
        raise ArgumentError(call, "a model with such parameters", f"{type(model).__name__} has none")
    for name, param in trained.items():
        require_trainable(call, param.dtype, name)
    for param in model.parameters():
        param.requires_grad_(False)
    for param in trained.values():
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


def summary(
    model: Module, loss: Callable[..., Tensor] | None = None, sample: Sample | None = None, *, optimizer: States = 0
) -> str:
    """A table of the layers that have parameters: how many are trained and frozen, and what that takes.

    ``weights`` and ``gradients`` are bytes; gradients are float32 also where weights are stored in 16 bits.
    ``optimizer``, as in ``te.plan_for``, adds the bytes of its state, which is as large as a gradient for each tensor.
    ``loss(model, *sample)`` and a ``sample``, of which shapes are enough, add what a compiled training step does:
    ``activations``, the bytes that forward keeps for the layer's backward, and ``backward``, its FLOPs. What has no
    parameters, such as an activation, counts with the layer before it. Nothing runs for that.

    Errors: ArgumentError if there is a ``loss`` and no ``sample``, or the reverse.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).freeze(except_="2")
    >>> loss = lambda model, x, y: F.cross_entropy(model(x), y)
    >>> print(te.adapt.summary(model, loss, ((1, 4), ((1,), te.int64)), optimizer=te.optim.Adam))
    layer  kind    trained  frozen  weights  gradients  optimizer  activations  backward
    0      Linear        0      40      160          0          0            0         0
    2      Linear       18       0       72         72        144           48        44
    all                 18      40      232         72        144           48        44
    """
    if (loss is None) is not (sample is None):
        raise ArgumentError("summary", "loss and sample, or neither", "got one of them")
    states = states_of(optimizer)
    layers = layers_of(model)
    costs: dict[str | None, Cost] = {}
    if loss is not None and sample is not None:
        function = loss

        def step(*sample: Tensor) -> Tensor:
            value = function(model, *sample)
            value.backward()
            return value

        costs = costs_of(rehearse(step, sample), layers)
    heads = ["trained", "frozen", "weights", "gradients"]
    heads += ["optimizer"] if states else []
    heads += [] if sample is None else ["activations", "backward"]
    rows: list[tuple[str, str, list[int]]] = []
    seen: set[int] = set()
    for layer in layers:
        params = [param for param in layer.parameters.values() if id(param) not in seen]
        seen |= {id(param) for param in params}
        trained = [param for param in params if param.requires_grad]
        elements = sum(param.numel() for param in trained)
        gradients = sum(param.numel() * param.dtype.computes.itemsize for param in trained)
        nbytes = sum(param.nbytes for param in params)
        numbers = [elements, sum(param.numel() for param in params) - elements, nbytes, gradients]
        numbers += [states * gradients] if states else []
        rows.append((layer.name or "(itself)", layer.kind, numbers + _step_numbers(costs, layer.name, sample)))
    if None in costs:
        others = [0] * (4 + bool(states)) + _step_numbers(costs, None, sample)
        rows.append(("(before them)", "", others))
    rows.append(("all", "", [sum(column) for column in zip(*(numbers for *_, numbers in rows), strict=True)]))
    texts = [["layer", "kind", *heads]]
    texts += [[name, kind, *(f"{number:,}" for number in numbers)] for name, kind, numbers in rows]
    return table(texts, (0, 1))


def _step_numbers(costs: dict[str | None, Cost], name: str | None, sample: Sample | None) -> list[int]:
    """What a training step takes of a layer; nothing without a sample."""
    cost = costs.get(name, Cost())
    return [] if sample is None else [cost.saved_bytes, cost.backward_flops]
