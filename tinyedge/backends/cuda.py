"""What programs ask of ``torch.cuda``: there is none. GPUs, NVIDIA's too, are reached through OpenCL."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

from tinyedge.errors import BackendError

matmul = SimpleNamespace(allow_tf32=False)
"""The switch of ``torch.backends.cuda.matmul``, which programs set. It changes nothing."""


def is_available() -> bool:
    """False: tinyedge does not use CUDA. See ``te.accelerator.is_available``."""
    return False


def is_initialized() -> bool:
    """False."""
    return False


def is_bf16_supported() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0: see ``te.accelerator.device_count``."""
    return 0


def manual_seed(seed: int) -> None:
    """Nothing, as without a GPU in PyTorch. ``te.manual_seed`` seeds every backend."""


def manual_seed_all(seed: int) -> None:
    """Nothing, as without a GPU in PyTorch. ``te.manual_seed`` seeds every backend."""


def empty_cache() -> None:
    """Nothing, as without a GPU in PyTorch."""


def memory_allocated(device: Any = None) -> int:
    """0."""
    return 0


def max_memory_allocated(device: Any = None) -> int:
    """0."""
    return 0


def reset_peak_memory_stats(device: Any = None) -> None:
    """Nothing, as without a GPU in PyTorch."""


def _refuse(call: str) -> NoReturn:
    raise BackendError(
        f"cuda.{call}",
        "a program for OpenCL or NumPy",
        "tinyedge does not use CUDA",
        "Ask te.cuda.is_available() first, or use te.accelerator, which is the OpenCL device.",
    )


def synchronize(device: Any = None) -> None:
    """Refused: see ``te.synchronize``."""
    _refuse("synchronize")


def current_device() -> int:
    """Refused: see ``te.accelerator.current_accelerator``."""
    _refuse("current_device")


def set_device(device: Any) -> None:
    """Refused: see ``te.set_default_backend``."""
    _refuse("set_device")


def get_device_name(device: Any = None) -> str:
    """Refused: see ``te.usable_devices``."""
    _refuse("get_device_name")
