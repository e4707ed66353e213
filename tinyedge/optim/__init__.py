"""Optimizers, with PyTorch's names and arithmetic, and gradient accumulation as one of their options.

``__init__.pyi`` says which; ``make stubs`` writes it.
"""

from tinyedge.autograd import registry as _registry
from tinyedge.optim import lr_scheduler
from tinyedge.optim.anomaly import detect_anomaly
from tinyedge.optim.optimizer import Optimizer

__all__ = ["detect_anomaly", "lr_scheduler"]
for _name, _class in _registry.classes_of(_registry.import_all(__name__, __path__)).items():
    if issubclass(_class, Optimizer):
        globals()[_name] = _class
        __all__.append(_name)
