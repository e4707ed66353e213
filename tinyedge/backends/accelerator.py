"""The OpenCL device by the names of ``torch.accelerator``."""

from __future__ import annotations

from typing import Any

from tinyedge.backends import default_backend, get_backend, usable_devices
from tinyedge.backends.device import device


def is_available() -> bool:
    """Whether there is an OpenCL device that can be used."""
    return bool(usable_devices())


def device_count() -> int:
    """The number of OpenCL devices that can be used."""
    return len(usable_devices())


def current_accelerator(check_available: bool = False) -> device | None:
    """The default backend if it is an OpenCL device, else the best usable one, or None."""
    if not is_available():
        return None
    chosen = default_backend()
    return device(chosen.name if chosen.device is not None else get_backend("opencl").name)


def synchronize(device: Any = None) -> None:
    """Wait until everything launched on ``device``, or on the default backend, has finished."""
    (default_backend() if device is None else get_backend(device)).finish()
