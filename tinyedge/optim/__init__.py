"""Optimizers, with PyTorch's names and arithmetic, and gradient accumulation as one of their options.

``__init__.pyi`` says which; ``make stubs`` writes it.
"""

import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING

from tinyedge.autograd import registry as _registry
from tinyedge.autograd.absent import lookup as _lookup
from tinyedge.gradients.anomaly import detect_anomaly
from tinyedge.optim import adam, lr_scheduler
from tinyedge.optim import averaged as swa_utils
from tinyedge.optim.optimizer import Optimizer

__all__ = ["detect_anomaly", "lr_scheduler", "swa_utils"]
adamw = adam  # PyTorch's file
for _name, _module in (("swa_utils", swa_utils), ("adamw", adamw)):  # for imports by PyTorch's names
    _sys.modules[f"{__name__}.{_name}"] = _module
for _name, _class in _registry.classes_of(_registry.import_all(__name__, __path__)).items():
    if issubclass(_class, Optimizer):
        globals()[_name] = _class
        __all__.append(_name)

if not _TYPE_CHECKING:  # a type checker shall say what is not there
    __getattr__ = _lookup("optim", globals())
