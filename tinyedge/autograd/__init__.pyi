# Written by tools/stubs.py: run make stubs.

from tinyedge.gradients import Function as Function
from tinyedge.gradients import FunctionContext as FunctionContext
from tinyedge.gradients import GradcheckError as GradcheckError
from tinyedge.gradients import Variable as Variable
from tinyedge.gradients import backward as backward
from tinyedge.gradients import detect_anomaly as detect_anomaly
from tinyedge.gradients import enable_grad as enable_grad
from tinyedge.gradients import function as function
from tinyedge.gradients import functional as functional
from tinyedge.gradients import grad as grad
from tinyedge.gradients import gradcheck as gradcheck
from tinyedge.gradients import gradgradcheck as gradgradcheck
from tinyedge.gradients import inference_mode as inference_mode
from tinyedge.gradients import no_grad as no_grad
from tinyedge.gradients import set_detect_anomaly as set_detect_anomaly
from tinyedge.gradients import set_grad_enabled as set_grad_enabled

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
