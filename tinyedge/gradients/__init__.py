"""PyTorch's ``torch.autograd``: custom functions, gradients as results, gradients of gradients, checks.

In: tensors with a history. Out: gradients, with a history of their own where that is asked for. Users find the names in
``te.autograd``, whose stage knows no tensors and so cannot define them.
"""

import sys as _sys

from tinyedge import autograd as _autograd
from tinyedge.autograd.modes import enable_grad, inference_mode, no_grad, set_grad_enabled
from tinyedge.gradients import function, functional
from tinyedge.gradients.anomaly import detect_anomaly, set_detect_anomaly
from tinyedge.gradients.check import GradcheckError, gradcheck, gradgradcheck
from tinyedge.gradients.function import Function, FunctionContext
from tinyedge.gradients.grad import Variable, backward, grad

__all__ = [
    "Function",
    "FunctionContext",
    "GradcheckError",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]
for _name in __all__:
    setattr(_autograd, _name, globals()[_name])
_sys.modules["tinyedge.autograd.functional"] = functional  # for imports by PyTorch's name
_sys.modules["tinyedge.autograd.function"] = function
