"""``torch.utils.data.distributed``: the sampler of one of several processes, which ``te.data`` has."""

from tinyedge.data.sampler import DistributedSampler

__all__ = ["DistributedSampler"]
