"""``torch.utils.checkpoint`` by its name."""

from tinyedge.autograd.checkpoint import checkpoint, checkpoint_sequential

__all__ = ["checkpoint", "checkpoint_sequential"]
