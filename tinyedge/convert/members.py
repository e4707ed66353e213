"""What the modules of an imported model are: parts of its parameters' names, and nodes as layers for adapters."""

from __future__ import annotations

from tinyedge.convert.nodes import Node
from tinyedge.nn.module import Module
from tinyedge.tensor import Parameter, Tensor


class Members(Module):
    """A part of the names of an imported model's parameters and buffers, up to a dot."""


class NodeLayer(Module):
    """A node of an imported model as a layer, for adapters: it is called with the node's inputs. Its weight is a
    parameter of the model, and not its own.
    """

    def __init__(self, node: Node, place: tuple[Module, str]) -> None:
        super().__init__()
        self.node = node
        self._place = place

    @property
    def weight(self) -> Parameter:
        owner, key = self._place
        weight = owner._parameters[key]
        assert weight is not None
        return weight

    @property
    def is_convolution(self) -> bool:
        return self.node.op == "Conv"

    @property
    def is_turned(self) -> bool:
        """Whether the weight of a product lies as (in, out)."""
        return not self.is_convolution and not self.node.arguments.get("transB")

    def forward(self, *inputs: Tensor | None) -> Tensor:
        result: Tensor = self.node.function(*inputs, **self.node.arguments)
        return result

    @staticmethod
    def fits(node: Node, weight: Parameter) -> bool:
        """Whether the node is a product or a convolution with this weight, and nothing more."""
        given = node.arguments
        if node.op == "Conv":
            return bool(given.get("group", 1) == 1) and weight.ndim in (3, 4, 5)
        plain = not given.get("transA") and given.get("alpha", 1.0) == 1.0
        return node.op in ("Gemm", "MatMul") and plain and weight.ndim == 2


def owner_of(root: Module, name: str) -> tuple[Module, str]:
    """The module that shall hold ``name``, and the rest of the name there: names with dots are nested, as PyTorch's."""
    parts = name.split(".")
    if len(parts) > 16 or not all(parts):
        return root, name
    owner = root
    for part in parts[:-1]:
        if part in owner._parameters or part in owner._buffers:
            return root, name
        child = owner._modules.get(part)
        if child is None:
            child = owner._modules[part] = Members()
        owner = child
    return (root, name) if parts[-1] in owner._modules else (owner, parts[-1])


__all__ = ["Members", "NodeLayer", "owner_of"]
