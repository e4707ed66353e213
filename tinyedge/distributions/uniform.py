"""``torch.distributions.uniform`` by its name."""

from tinyedge.distributions.real import Uniform

__all__ = ["Uniform"]
