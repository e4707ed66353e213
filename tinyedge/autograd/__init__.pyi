# Written by tools/stubs.py: run make stubs.

from tinyedge.gradients.anomaly import detect_anomaly as detect_anomaly
from tinyedge.gradients.anomaly import set_detect_anomaly as set_detect_anomaly
from tinyedge.gradients.check import GradcheckError as GradcheckError
from tinyedge.gradients.check import gradcheck as gradcheck
from tinyedge.gradients.check import gradgradcheck as gradgradcheck
from tinyedge.gradients.function import Function as Function
from tinyedge.gradients.function import FunctionContext as FunctionContext
from tinyedge.gradients.grad import Variable as Variable
from tinyedge.gradients.grad import backward as backward
from tinyedge.gradients.grad import grad as grad

__all__ = [
    "Function",
    "FunctionContext",
    "GradcheckError",
    "Variable",
    "backward",
    "detect_anomaly",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "set_detect_anomaly",
]
