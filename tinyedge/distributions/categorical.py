"""``torch.distributions.categorical`` by its name."""

from tinyedge.distributions.discrete import Categorical

__all__ = ["Categorical"]
