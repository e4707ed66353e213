"""``te.data`` by PyTorch's name."""

from tinyedge.data import *  # noqa: F403
from tinyedge.data import __all__ as __all__
