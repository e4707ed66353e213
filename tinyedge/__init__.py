"""tinyedge: reverse-mode autodiff on any OpenCL device, with the feel of PyTorch."""

from tinyedge import convert, data, errors, models, nn, ops, optim
from tinyedge.adapt.budget import Fit, plan_for, rehearse
from tinyedge.autograd import registry as _registry
from tinyedge.autograd.checkpoint import checkpoint, checkpoint_sequential
from tinyedge.autograd.modes import enable_grad, no_grad, set_grad_enabled
from tinyedge.backends import Backend, get_backend, set_default_backend, use_backend
from tinyedge.compiler.api import compile
from tinyedge.compiler.program import Program
from tinyedge.compiler.tune import tune
from tinyedge.convert import load, load_safetensors, save
from tinyedge.dtypes import DType, bfloat16, bool_, float16, float32, float64, int8, int16, int32, int64, uint8
from tinyedge.errors import *  # noqa: F403
from tinyedge.ir.modes import is_grad_enabled
from tinyedge.ops import *  # noqa: F403
from tinyedge.ops import linalg, special
from tinyedge.optim import detect_anomaly
from tinyedge.tensor import Parameter, Tensor, as_tensor, from_dlpack, from_numpy, full, tensor

__version__ = "0.1.0"

# PyTorch's second names; not in __all__, since three of them are builtins.
bool, short, int, long, half, float, double = bool_, int16, int32, int64, float16, float32, float64

__all__ = [
    "Backend",
    "DType",
    "Fit",
    "Parameter",
    "Program",
    "Tensor",
    "as_tensor",
    "bfloat16",
    "bool_",
    "checkpoint",
    "checkpoint_sequential",
    "compile",
    "convert",
    "data",
    "detect_anomaly",
    "enable_grad",
    "errors",
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "from_numpy",
    "full",
    "get_backend",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "linalg",
    "load",
    "load_safetensors",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "plan_for",
    "rehearse",
    "save",
    "set_default_backend",
    "set_grad_enabled",
    "special",
    "tensor",
    "tune",
    "uint8",
    "use_backend",
]
__all__ += errors.__all__
__all__ += ops.__all__
_registry.show(globals(), lambda entry: entry.top)  # also those that a user registers
