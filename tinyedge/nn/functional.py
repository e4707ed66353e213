"""The functions that layers are made of: ``import tinyedge.nn.functional as F``, with PyTorch's names and arguments.

``functional.pyi`` says which; ``make stubs`` writes it.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

import tinyedge.ops as _ops  # noqa: F401  registers them
from tinyedge.autograd import registry as _registry
from tinyedge.autograd.absent import lookup as _lookup

__all__: list[str] = []
_registry.show(globals(), lambda entry: entry.functional)


def _in_place(name: str) -> _Any:
    def function(*args: _Any, **kwargs: _Any) -> _Any:
        return _registry.functions[name](*args, inplace=True, **kwargs)

    function.__name__, function.__doc__ = name + "_", f"``{name}`` with ``inplace=True``."
    return function


for _name in ("relu", "elu", "celu", "selu", "hardtanh", "leaky_relu", "rrelu", "threshold"):
    globals()[_name + "_"] = _in_place(_name)

if not _TYPE_CHECKING:  # a type checker shall say what is not there
    __getattr__ = _lookup("nn.functional", globals())
