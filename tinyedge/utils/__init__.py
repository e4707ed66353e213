"""PyTorch's place of the data loaders: ``te.utils.data`` is what ``te.data`` has."""

from tinyedge.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
