"""The ops, one file a family. Importing this registers all of them; ``__init__.pyi`` says which (``make stubs``)."""

from tinyedge.autograd import registry as _registry
from tinyedge.ops.random import Generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state

__all__ = ["Generator", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]
_registry.import_all(__name__, __path__)
_registry.show(globals(), lambda entry: entry.top)
