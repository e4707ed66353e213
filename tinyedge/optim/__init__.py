"""Optimizers, with PyTorch's names and arithmetic, and gradient accumulation as one of their options.

``__init__.pyi`` says which; ``make stubs`` writes it.
"""

import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING

from tinyedge.autograd import registry as _registry
from tinyedge.autograd.absent import lookup as _lookup
from tinyedge.gradients.anomaly import detect_anomaly
from tinyedge.optim import averaged as swa_utils
from tinyedge.optim import lr_scheduler
from tinyedge.optim.optimizer import Optimizer

__all__ = ["detect_anomaly", "lr_scheduler", "swa_utils"]
_sys.modules[f"{__name__}.swa_utils"] = swa_utils  # for imports by PyTorch's name
for _name, _class in _registry.classes_of(_registry.import_all(__name__, __path__)).items():
    if issubclass(_class, Optimizer):
        globals()[_name] = _class
        __all__.append(_name)

if not _TYPE_CHECKING:  # a type checker shall say what is not there
    __getattr__ = _lookup("optim", globals())
