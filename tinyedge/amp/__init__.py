"""Mixed precision: ``te.amp.autocast`` and ``te.amp.GradScaler``."""

import sys as _sys

from tinyedge.amp import of_cuda
from tinyedge.amp.scaler import GradScaler
from tinyedge.autograd.autocast import autocast, is_autocast_enabled
from tinyedge.backends import cuda as _cuda

__all__ = ["GradScaler", "autocast", "is_autocast_enabled"]

_cuda.__dict__["amp"] = of_cuda
_sys.modules["tinyedge.cuda"], _sys.modules["tinyedge.cuda.amp"] = _cuda, of_cuda  # for imports by PyTorch's names
