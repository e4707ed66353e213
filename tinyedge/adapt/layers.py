"""What the layers of a model are: its modules that have parameters, and the nodes of models that were imported."""

from __future__ import annotations

from dataclasses import dataclass

from tinyedge.convert.graph import GraphModel
from tinyedge.nn.module import Module
from tinyedge.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from tinyedge.tensor import Parameter

NORMS = (
    BatchNorm1d, BatchNorm2d, BatchNorm3d, BatchRenorm1d, BatchRenorm2d, BatchRenorm3d,
    InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, GroupNorm, LayerNorm, RMSNorm,
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """``parameters`` has the names that they have in the model; ``biases`` are some of these."""

    name: str
    kind: str
    parameters: dict[str, Parameter]
    biases: frozenset[str]
    is_norm: bool


def layers_of(model: Module) -> list[Layer]:
    """The layers that have parameters of their own: modules in the order in which they were added, nodes of imported
    models in that of the computation. A parameter that several nodes share belongs to the first.
    """
    found: list[Layer] = []
    inside: set[int] = set()
    for path, module in model.named_modules():
        if id(module) in inside:
            continue
        lead = f"{path}." if path else ""
        if isinstance(module, GraphModel):
            inside |= {id(part) for part in module.modules()}
            for node in module.layers():
                params = {lead + name: module.get_parameter(name) for name in node.parameters}
                biases = frozenset(lead + name for name in node.biases)
                found.append(Layer(lead + node.name, node.op, params, biases, node.is_norm))
            continue
        params = {lead + name: param for name, param in module._parameters.items() if param is not None}
        if params:
            biases = frozenset(lead + name for name in module._parameters if name.startswith("bias"))
            found.append(Layer(path, type(module).__name__, params, biases, isinstance(module, NORMS)))
    return found


__all__ = ["NORMS", "Layer", "layers_of"]
