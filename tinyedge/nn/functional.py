"""The functions that layers are made of: ``import tinyedge.nn.functional as F``, with PyTorch's names and arguments.

``functional.pyi`` says which; ``make stubs`` writes it.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

import tinyedge.ops as _ops  # noqa: F401  registers them
from tinyedge.autograd import registry as _registry
from tinyedge.autograd.absent import lookup as _lookup

__all__: list[str] = []
_registry.show(globals(), lambda entry: entry.functional)

if not _TYPE_CHECKING:  # a type checker shall say what is not there
    __getattr__ = _lookup("nn.functional", globals())
