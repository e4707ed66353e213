"""``torch.distributions.bernoulli`` by its name."""

from tinyedge.distributions.discrete import Bernoulli

__all__ = ["Bernoulli"]
