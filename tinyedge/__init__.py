"""tinyedge: reverse-mode autodiff on any OpenCL device, with the feel of PyTorch."""

import sys as _sys
from math import e, inf, nan, pi
from types import SimpleNamespace as _SimpleNamespace
from typing import TYPE_CHECKING as _TYPE_CHECKING

from tinyedge import (
    adapt,
    amp,
    autograd,
    convert,
    data,
    distributions,
    errors,
    federated,
    func,
    models,
    nn,
    onnx,
    ops,
    optim,
    utils,
)
from tinyedge.adapt.budget import Fit, plan_for, rehearse
from tinyedge.adapt.quantise import quantize
from tinyedge.adapt.resume import load_checkpoint, save_checkpoint
from tinyedge.autograd import registry as _registry
from tinyedge.autograd.absent import lookup as _lookup
from tinyedge.autograd.autocast import autocast, is_autocast_enabled
from tinyedge.autograd.checkpoint import checkpoint, checkpoint_sequential
from tinyedge.autograd.modes import enable_grad, inference_mode, no_grad, set_grad_enabled
from tinyedge.backends import (
    Backend,
    accelerator,
    cuda,
    get_backend,
    mps,
    set_default_backend,
    usable_devices,
    use_backend,
)
from tinyedge.backends import cudnn as _cudnn  # noqa: F401  te.backends.cudnn
from tinyedge.backends.accelerator import synchronize
from tinyedge.backends.device import device
from tinyedge.backends.switches import (
    are_deterministic_algorithms_enabled,
    get_float32_matmul_precision,
    set_float32_matmul_precision,
    use_deterministic_algorithms,
)
from tinyedge.backends.threads import get_num_threads, set_num_threads
from tinyedge.compiler.api import compile
from tinyedge.compiler.program import Program
from tinyedge.compiler.tune import tune
from tinyedge.convert import load, load_model, load_safetensors, save
from tinyedge.dtypes import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    set_default_dtype,
    uint8,
)
from tinyedge.errors import *  # noqa: F403
from tinyedge.func import vmap
from tinyedge.gradients import detect_anomaly
from tinyedge.ir.modes import is_grad_enabled
from tinyedge.ir.program import ProgramSpec
from tinyedge.ops import *  # noqa: F403
from tinyedge.ops import linalg, random, special
from tinyedge.ops.elementwise_kernel import kernel
from tinyedge.ops.typed import (
    BFloat16Tensor,
    BoolTensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
)
from tinyedge.tensor import Parameter, Tensor, as_tensor, from_dlpack, from_numpy, full, tensor
from tinyedge.tensor.memory_format import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    strided,
)
from tinyedge.tensor.printing import set_printoptions
from tinyedge.utils import distributed, jit, multiprocessing

__version__ = "0.1.0"
version = _SimpleNamespace(__version__=__version__, cuda=None, hip=None)  # what programs print of PyTorch's


newaxis = None


def set_default_device(device: "str | Backend | None") -> None:
    """Make ``device`` the default for new tensors; None: the one that tinyedge chooses.

    Errors: BackendError for a device that tinyedge does not have.
    """
    set_default_backend("cpu" if device is None else device if isinstance(device, Backend) else Backend.by_name(device))


def get_default_device() -> "device":
    """The default device."""
    return device(get_backend())


Size, dtype = tuple, DType  # PyTorch's names of their types

# PyTorch's second names; not in __all__, since three of them are builtins.
bool, short, int, long, half, float, double = bool_, int16, int32, int64, float16, float32, float64

__all__ = [
    "BFloat16Tensor",
    "Backend",
    "BoolTensor",
    "ByteTensor",
    "CharTensor",
    "DType",
    "DoubleTensor",
    "Fit",
    "FloatTensor",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "Parameter",
    "Program",
    "ProgramSpec",
    "ShortTensor",
    "Tensor",
    "accelerator",
    "adapt",
    "amp",
    "are_deterministic_algorithms_enabled",
    "as_tensor",
    "autocast",
    "autograd",
    "bfloat16",
    "bool_",
    "channels_last",
    "channels_last_3d",
    "checkpoint",
    "checkpoint_sequential",
    "compile",
    "contiguous_format",
    "convert",
    "cuda",
    "data",
    "detect_anomaly",
    "device",
    "distributions",
    "enable_grad",
    "errors",
    "federated",
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "from_numpy",
    "full",
    "func",
    "get_backend",
    "get_default_dtype",
    "get_float32_matmul_precision",
    "get_num_threads",
    "inference_mode",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_autocast_enabled",
    "is_grad_enabled",
    "kernel",
    "linalg",
    "load",
    "load_checkpoint",
    "load_model",
    "load_safetensors",
    "memory_format",
    "models",
    "mps",
    "nn",
    "no_grad",
    "onnx",
    "ops",
    "optim",
    "plan_for",
    "preserve_format",
    "quantize",
    "rehearse",
    "save",
    "save_checkpoint",
    "set_default_backend",
    "set_default_dtype",
    "set_float32_matmul_precision",
    "set_grad_enabled",
    "set_num_threads",
    "special",
    "synchronize",
    "tensor",
    "tune",
    "uint8",
    "usable_devices",
    "use_backend",
    "use_deterministic_algorithms",
    "utils",
    "vmap",
]
__all__ += [
    "e",
    "get_default_device",
    "inf",
    "layout",
    "nan",
    "pi",
    "set_default_device",
    "set_printoptions",
    "strided",
]
__all__ += errors.__all__
__all__ += ops.__all__
_registry.show(globals(), lambda entry: entry.top)  # also those that a user registers
_CHANGING = (
    "abs acos acosh asin asinh atan atanh ceil clamp clamp_max clamp_min clip cos cosh deg2rad erf erfc exp "
    "exp2 expm1 fill floor frac lerp log log10 log1p log2 logit neg negative reciprocal relu round rsqrt "
    "sigmoid sin sinc sinh sqrt square tan tanh trunc zero"
)
for _name in _CHANGING.split():
    globals()[_name + "_"] = getattr(Tensor, _name + "_")  # torch.relu_(x) is x.relu_()

for _place in (distributed, jit, linalg, multiprocessing, random, special):  # for imports by PyTorch's names
    _sys.modules[f"{__name__}.{_place.__name__.rpartition('.')[2]}"] = _place

if not _TYPE_CHECKING:  # a type checker shall say what is not there
    __getattr__ = _lookup("te", globals())
