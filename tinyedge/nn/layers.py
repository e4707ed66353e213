"""The layers that are made from functions. ``layers.pyi`` says which; ``make stubs`` writes it."""

import tinyedge.ops as _ops  # noqa: F401  registers them
from tinyedge.autograd import registry as _registry
from tinyedge.nn import forwarding as _forwarding

__all__: list[str] = []


def _add(entry: _registry.Entry) -> None:
    if entry.module is not None:
        globals()[entry.module] = _forwarding.layer_of(entry)
        if entry.module not in __all__:
            __all__.append(entry.module)


_registry.each_entry(_add)
