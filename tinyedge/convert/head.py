"""The head of an imported model: its last matrix product or convolution, and what comes after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from tinyedge.convert.checks import shown
from tinyedge.convert.nodes import Array, Dims, Node, Port
from tinyedge.errors import ArgumentError
from tinyedge.nn import init
from tinyedge.ops.creation import empty
from tinyedge.tensor import Parameter

PASSING = frozenset((
    "Identity", "Cast", "Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Relu", "Tanh", "LeakyRelu", "Elu", "Clip",
    "Softplus", "Exp", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "GlobalAveragePool",
    "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean", "ReduceMax", "Resize", "Upsample", "ArgMax",
    "QuantizeLinear", "DequantizeLinear",
))  # fmt: skip
"""Ops after the head that do not ask how many classes there are."""

SIZED = {"Reshape": 1, "Expand": 1, "Resize": 3}
"""Ops whose result's shape is an input, and which."""

CARRYING = frozenset({"Concat", "Unsqueeze", "Identity", "Cast", "Squeeze"})
"""Ops that put such a shape together."""

LAYERS = frozenset({"Gemm", "MatMul", "Conv", "ConvTranspose"})


@dataclass
class Head:
    """A layer; ``parameters`` has the dim of the classes in each of its parameters, by name."""

    layer: Node
    classes: int
    parameters: dict[str, int]
    bias: frozenset[str]
    values: frozenset[str]
    shapes: dict[str, Array] = field(default_factory=dict)

    def constants(self, classes: int) -> dict[str, Array]:
        """The constants that hold the number of classes, with another one."""
        result = {}
        for name, array in self.shapes.items():
            sizes = renumbered(tuple(int(size) for size in array.reshape(-1)), self.classes, classes, False)
            result[name] = np.array(sizes, array.dtype).reshape(array.shape)
        return result


def renumbered(dims: Dims | None, old: int, new: int, first: bool) -> Dims | None:
    """``dims`` with another number of classes, which stands last; in images whose channels come ``first``, second."""
    if dims is None:
        return None
    places = [place for place, size in enumerate(dims) if size == old and type(size) is int]
    if not places:
        return dims
    place = 1 if first and len(dims) > 2 and 1 in places else places[-1]
    return (*dims[:place], new, *dims[place + 1 :])


def _refuse(problem: str, remedy: str = "") -> NoReturn:
    raise ArgumentError("replace_head", "a matrix product or a convolution that gives the classes", problem, remedy)


class _Search:
    def __init__(self, nodes: Sequence[Node], params: Mapping[str, Parameter], constants: Mapping[str, Array]) -> None:
        self.makers = {name: node for node in nodes for name in node.outputs}
        self.params, self.constants = params, constants
        self.users: dict[str, list[Node]] = {}
        for node in nodes:
            for name in dict.fromkeys(node.inputs):
                self.users.setdefault(name, []).append(node)

    def weight(self, name: str, axis: int) -> tuple[str, int] | None:
        """The parameter behind a value, and its dim that is dim ``axis`` of the value."""
        seen = 0
        while name not in self.params:
            node = self.makers.get(name)
            if node is None or node.op not in ("Transpose", "Identity", "Cast", "DequantizeLinear") or seen > 16:
                return None
            if node.op == "Transpose":
                perm = node.arguments.get("perm")
                if perm is None:
                    if (rank := self._rank(node.inputs[0])) is None:
                        return None
                    perm = tuple(range(rank))[::-1]
                axis = perm[axis]
            name, seen = node.inputs[0], seen + 1
        return name, axis

    def _rank(self, name: str) -> int | None:
        while name not in self.params:
            node = self.makers.get(name)
            if node is None or node.op not in ("Transpose", "Identity", "Cast", "DequantizeLinear"):
                return None
            name = node.inputs[0]
        return self.params[name].ndim

    def is_layer(self, node: Node) -> tuple[str, int] | None:
        """The weight of a layer and its dim of the classes."""
        if node.op not in LAYERS:
            return None
        rank = self._rank(node.inputs[1])
        if rank is None or node.arguments.get("group", 1) != 1 or (node.op == "MatMul" and rank != 2):
            return None
        if node.op == "Gemm":
            axis = 0 if node.arguments.get("transB") else 1
        else:
            axis = 0 if node.op == "Conv" else 1
        return self.weight(node.inputs[1], axis)

    def above(self, node: Node) -> str | None:
        """The input of a node through which the classes come."""
        if node.op in PASSING:
            return node.inputs[0]
        if node.op not in ("Add", "Mul", "Sub", "Div"):
            return None
        others = [name for name in node.inputs if not self.is_small(name, node.op == "Add")]
        return others[0] if len(others) == 1 else None

    def is_small(self, name: str, bias: bool) -> bool:
        """Whether it is one number, or a bias."""
        if name in self.constants:
            return self.constants[name].size == 1
        found = self.weight(name, 0)
        return found is not None and (bias or self.params[found[0]].numel() == 1)

    def trail(self, output: str) -> tuple[list[Node], str]:
        """The nodes from the head's layer to the output; without one none, and what is in the way."""
        path: list[Node] = []
        name: str | None = output
        while name is not None:
            node = self.makers.get(name)
            if node is None:
                return [], f"the output {shown(output)!r} is computed without one"
            path.append(node)
            if self.is_layer(node):
                return path[::-1], ""
            name = self.above(node)
        return [], f"before the output {shown(output)!r} comes {path[-1].op} {shown(path[-1].name)!r}"


def found_head(
    nodes: Sequence[Node], outputs: Sequence[Port], params: Mapping[str, Parameter], constants: Mapping[str, Array]
) -> Head:
    """The one layer that gives the classes. Errors: ArgumentError if there is none, or if it cannot be replaced."""
    search = _Search(nodes, params, constants)
    trails, reasons = {}, []
    for port in outputs:
        path, reason = search.trail(port.name)
        if path:
            trails[port.name] = path
        else:
            reasons.append(reason)
    if not trails:
        _refuse("; ".join(reasons), "Use cut(at=...) for features, and a layer of your own on them.")
    layers = {path[0].outputs[0]: path[0] for path in trails.values()}
    if len(layers) > 1:
        _refuse(
            f"several layers do, for several outputs: {', '.join(shown(node.name) for node in layers.values())}",
            "Use cut(at=...) to keep one output.",
        )
    (layer,) = layers.values()
    weight = search.is_layer(layer)
    assert weight is not None  # the trail ends at it
    classes = params[weight[0]].shape[weight[1]]
    head = Head(layer, classes, {weight[0]: weight[1]}, frozenset(), frozenset(layer.outputs[:1]))
    bias = layer.inputs[2] if len(layer.inputs) > 2 else ""
    if bias:
        _add_bias(search, head, bias, layer)
    for path in trails.values():
        for node in path[1:]:
            head.values |= {node.outputs[0]}
            _follow(search, head, node)
    inside = {node.outputs[0] for path in trails.values() for node in path}
    for node in nodes:
        strangers = head.values.intersection(node.inputs)
        if strangers and node.outputs[0] not in inside and node.op not in ("Shape", "Size"):
            _refuse(f"its result {shown(min(strangers))!r} is read by {node.op} {shown(node.name)!r} too")
    for name in head.parameters:
        readers = search.users.get(name, [])
        if len(readers) != 1 or sum(param is params[name] for param in params.values()) != 1:
            _refuse(f"other layers share the weight {shown(name)!r}")
    return head


def _add_bias(search: _Search, head: Head, name: str, node: Node) -> None:
    found = search.weight(name, 0)
    if found is None:
        if name in search.constants and search.constants[name].size == 1:
            return
        _refuse(f"the bias {shown(name)!r} of {shown(node.name)!r} is computed")
    shape = search.params[found[0]].shape
    if math.prod(shape) == 1 != head.classes:
        return
    if math.prod(shape) != head.classes:
        _refuse(f"the bias {shown(name)!r} has the shape {shape}")
    head.parameters[found[0]] = max(place for place, size in enumerate(shape) if size == head.classes)
    head.bias |= {found[0]}


def _follow(search: _Search, head: Head, node: Node) -> None:
    """Check a node after the layer, and note what of it holds the number of classes."""
    if node.op == "Add":
        for name in node.inputs:
            if search.weight(name, 0) is not None:
                _add_bias(search, head, name, node)
    if node.op == "Squeeze" and head.classes == 1:
        _refuse(f"Squeeze {shown(node.name)!r} drops the dim of the one class")
    place = SIZED.get(node.op)
    if place is None or len(node.inputs) <= place or not node.inputs[place]:
        return
    pending, numbers = [node.inputs[place]], []
    while pending:
        name = pending.pop()
        if name in search.constants:
            numbers += [(name, int(size)) for size in search.constants[name].reshape(-1)]
        elif (maker := search.makers.get(name)) is not None and maker.op in CARRYING:
            pending += maker.inputs if maker.op == "Concat" else maker.inputs[:1]
    if node.op == "Reshape" and [size for _, size in numbers] == [-1]:
        _refuse(f"Reshape {shown(node.name)!r} makes one dim of the classes and all others")
    holders = {name for name, size in numbers if size == head.classes}
    if len(holders) > 1 or any(len(search.users[name]) != 1 for name in holders):
        _refuse(f"several places hold the shape of {node.op} {shown(node.name)!r}")
    parts = [size for name, size in numbers[1:] if 1 < size < head.classes and head.classes % size == 0]
    if node.op == "Reshape" and not holders and parts:
        _refuse(f"Reshape {shown(node.name)!r} takes the classes apart by {parts[0]}")
    head.shapes.update({name: search.constants[name] for name in holders})


def new_parameters(head: Head, params: Mapping[str, Parameter], classes: int) -> dict[str, Parameter]:
    """New parameters of the layer, uniform within ``1 / sqrt(inputs)``."""
    weight = next(name for name in head.parameters if name not in head.bias)
    bound = 1 / math.sqrt(max(params[weight].numel() // max(head.classes, 1), 1))
    made = {}
    for name, axis in head.parameters.items():
        old = params[name]
        shape = (*old.shape[:axis], classes, *old.shape[axis + 1 :])
        made[name] = Parameter(init.uniform_(empty(shape, dtype=old.dtype, device=old.backend), -bound, bound))
    return made


__all__ = ["Head", "found_head", "new_parameters", "renumbered"]
