"""``torch.distributions.kl`` by its name."""

from tinyedge.distributions.divergence import kl_divergence

__all__ = ["kl_divergence"]
