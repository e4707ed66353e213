"""``te.linalg``: norms, by PyTorch's names."""

from tinyedge.ops.statistics import vector_norm

__all__ = ["vector_norm"]
