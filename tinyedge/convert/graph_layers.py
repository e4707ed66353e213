"""The layers of an imported model: which nodes have parameters, and what these are to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tinyedge.convert.nodes import Node

MOVING = frozenset((
    "Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "DequantizeLinear", "Expand",
))  # fmt: skip
"""Ops through which a parameter stays one of the layer that reads the result."""

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
NORMS = frozenset((
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
    "SimplifiedLayerNormalization", "SkipLayerNormalization", "LpNormalization",
))  # fmt: skip
BIAS_AT = {"Conv": 2, "ConvTranspose": 2, "ConvTransposeTo": 2, "Gemm": 2, "BatchNormalization": 2,
           "InstanceNormalization": 2, "LayerNormalization": 2, "GroupNormalization": 2}  # fmt: skip


@dataclass
class GraphLayer:
    """A node with the names of its parameters, of which ``biases`` are some. An addition of a parameter to the result
    of a product or a convolution without a bias is a part of that layer. A parameter that several nodes read belongs to
    the first.
    """

    name: str
    op: str
    parameters: list[str] = field(default_factory=list)
    biases: set[str] = field(default_factory=set)

    @property
    def is_norm(self) -> bool:
        return self.op in NORMS


def layers_of(nodes: Sequence[Node], names: Collection[str]) -> list[GraphLayer]:
    """The layers in the order of the computation; ``names`` are those of parameters."""
    behind: dict[str, list[str]] = {name: [name] for name in names}  # the parameters that are a value, moved at most
    makers: dict[str, GraphLayer] = {}  # of values that a product or a convolution made
    taken: set[str] = set()
    result: list[GraphLayer] = []
    for node in nodes:
        owned = {place: behind[name] for place, name in enumerate(node.inputs) if name in behind}
        if node.op in MOVING and node.inputs and node.inputs[0] in behind:
            behind[node.outputs[0]] = behind[node.inputs[0]]
            continue
        if not owned:
            if node.op in MOVING and node.inputs and node.inputs[0] in makers:
                makers[node.outputs[0]] = makers[node.inputs[0]]
            continue
        given = next((makers[name] for name in node.inputs if name in makers), None)
        if node.op == "Add" and given is not None and not given.biases and len(owned) == 1:
            layer = given
        else:
            layer = GraphLayer(node.name, node.op)
            result.append(layer)
        for place, params in owned.items():
            fresh = [name for name in params if name not in taken]
            taken.update(fresh)
            layer.parameters += fresh
            if node.op == "Add" or BIAS_AT.get(node.op) == place:
                layer.biases.update(fresh)
        if node.op in WEIGHTED:
            makers[node.outputs[0]] = layer
    return [layer for layer in result if layer.parameters]


__all__ = ["GraphLayer", "layers_of"]
