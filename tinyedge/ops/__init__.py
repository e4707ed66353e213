"""The ops, one file a family. Importing this registers all of them; ``__init__.pyi`` says which (``make stubs``)."""

from tinyedge.autograd import registry as _registry
from tinyedge.ops.random import Generator, initial_seed, manual_seed

__all__ = ["Generator", "initial_seed", "manual_seed"]
_registry.import_all(__name__, __path__)
_registry.show(globals(), lambda entry: entry.top)
