"""Layers, losses, and the base of models: ``from tinyedge import nn``. ``__init__.pyi`` says which (``make stubs``).

Arguments that many of them have: ``device`` and ``dtype`` are those of the parameters; without them they are float32 on
the default backend. ``inplace=True`` writes the result into the input. ``reduction`` says what a loss does with its
elements: "mean", "sum" or "none"; ``size_average`` and ``reduce`` are PyTorch's older way to say so.
"""

import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING

from tinyedge.autograd import registry as _registry
from tinyedge.autograd.absent import lookup as _lookup
from tinyedge.nn import functional, init, layers, modules, tuples, utils
from tinyedge.tensor import Parameter

__all__ = ["Parameter", "functional", "init", "utils"]
for _name, _class in _registry.classes_of(_registry.import_all(__name__, __path__)).items():
    globals()[_name] = _class
    __all__.append(_name)


def _add(entry: _registry.Entry) -> None:
    if entry.module is not None:
        globals()[entry.module] = getattr(layers, entry.module)
        if entry.module not in __all__:
            __all__.append(entry.module)


_registry.each_entry(_add)

for _name in modules.FILES:  # for imports by PyTorch's names
    _sys.modules[f"{modules.__name__}.{_name}"] = modules
_sys.modules[f"{modules.__name__}.utils"] = tuples

if not _TYPE_CHECKING:  # a type checker shall say what is not there
    __getattr__ = _lookup("nn", globals())
