"""PyTorch's places of what stands elsewhere: ``te.utils.data`` is what ``te.data`` has. And what programs ask of parts
of PyTorch that are not here: ``te.distributed``, ``te.jit``, ``te.multiprocessing``.
"""

from tinyedge.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
