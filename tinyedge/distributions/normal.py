"""``torch.distributions.normal`` by its name."""

from tinyedge.distributions.real import Normal

__all__ = ["Normal"]
