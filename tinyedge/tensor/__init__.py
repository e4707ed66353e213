"""Tensors: what a user holds, and how it is made from values of the host."""

from tinyedge.tensor.calls import call, call_all, map_tensors, tensors_in
from tinyedge.tensor.checks import require_trainable
from tinyedge.tensor.classes import (
    Parameter,
    Tensor,
    blocks_of,
    of_blocks,
    seed_of,
    unpickled,
)
from tinyedge.tensor.creation import as_tensor, from_dlpack, from_numpy, full, tensor
from tinyedge.tensor.host import Number, destination

__all__ = [
    "Number",
    "Parameter",
    "Tensor",
    "as_tensor",
    "blocks_of",
    "call",
    "call_all",
    "destination",
    "from_dlpack",
    "from_numpy",
    "full",
    "map_tensors",
    "of_blocks",
    "require_trainable",
    "seed_of",
    "tensor",
    "tensors_in",
]

_unpickled = unpickled  # by this name pickles of earlier versions know it
