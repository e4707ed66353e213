"""``torch.distributions.kl`` by its name."""

from tinyedge.distributions.divergence import kl_divergence, register_kl

__all__ = ["kl_divergence", "register_kl"]
