"""``te.data`` by PyTorch's name, and its files by theirs."""

from tinyedge.data import *  # noqa: F403
from tinyedge.data import __all__ as __all__
from tinyedge.utils.data import dataloader as dataloader
from tinyedge.utils.data import dataset as dataset
from tinyedge.utils.data import distributed as distributed
from tinyedge.utils.data import sampler as sampler
