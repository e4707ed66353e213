"""``torch.nn.parameter`` by its name."""

from tinyedge.tensor import Parameter

__all__ = ["Parameter"]
