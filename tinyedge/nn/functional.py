"""The functions that layers are made of: ``import tinyedge.nn.functional as F``, with PyTorch's names and arguments.

``functional.pyi`` says which; ``make stubs`` writes it.
"""

import tinyedge.ops as _ops  # noqa: F401  registers them
from tinyedge.autograd import registry as _registry

__all__: list[str] = []
_registry.show(globals(), lambda entry: entry.functional)
