"""Backends, and the choice of one: by name, by ``TINYEDGE_BACKEND``, or the best usable device.

In: Steps (eager) or launch groups (programs). Out: memory, built kernels, launches. ``base`` is the interface,
``reference`` NumPy, ``opencl`` any OpenCL device.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from typing import TYPE_CHECKING, cast

from tinyedge import config
from tinyedge.backends.base import Backend
from tinyedge.backends.device import refuse_elsewhere
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.backends.opencl.devices import DeviceEntry, asked, devices, drivers_left_out
from tinyedge.backends.reference import ReferenceBackend
from tinyedge.errors import BackendError
from tinyedge.ir.modes import ModeContext, modes

_backends: dict[str, Backend] = {}
_default: Backend | None = None
_lock = threading.RLock()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may hold it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

REMEDIES = (
    'Install a driver for the device, or the embedded CPU runtime with `pip install "tinyedge[cpu]"`; '
    "`tinyedge devices` lists what is found and why a device is not used; TINYEDGE_BACKEND=numpy needs no device."
)


def usable_devices() -> list[DeviceEntry]:
    """The OpenCL devices that work, best first: GPUs before CPUs, then those with more compute units."""
    entries = [entry for entry in devices() if entry.problem is None]
    return sorted(
        entries, key=lambda entry: (entry.is_cpu, -int(asked(entry.device, "max_compute_units", 0)), entry.number)
    )


def get_backend(name: str | None = None) -> Backend:
    """The backend ``name``: ``numpy``, ``opencl`` (the best usable device) or ``opencl:N``; None and ``cpu``, which is
    what PyTorch's programs call the device that is always there, mean the default.

    Errors: BackendError if it cannot be used. A backend that was asked for is never replaced by another.
    """
    name = None if name is None else name.strip().lower()
    if name is None or name.partition(":")[0] == "cpu":
        return default_backend()
    with _lock:
        refuse_elsewhere("backend", name)
        if name == "opencl":
            usable = usable_devices()
            if not usable:
                raise _nothing_usable()
            name = usable[0].name
        if name not in _backends:
            _backends[name] = _make(name)
        return _backends[name]


Backend.by_name = staticmethod(get_backend)


def _make(name: str) -> Backend:
    if name == "numpy":
        return ReferenceBackend()
    match = re.fullmatch(r"opencl:(\d+)", name)
    if not match:
        raise BackendError(
            "backend", "expected numpy, opencl or opencl:N", f"got {name!r}", "tinyedge devices lists them."
        )
    found = devices()
    number = int(match[1])
    if number >= len(found):
        listed = ", ".join(f"{entry.name} = {entry.describe()}" for entry in found) or "no device at all"
        raise BackendError(name, "there must be an OpenCL device of that number", f"there is {listed}", REMEDIES)
    return OpenCLBackend(found[number])


def _nothing_usable() -> BackendError:
    reasons = [f"{entry.name} {entry.describe()}: {entry.problem}" for entry in devices()]
    reasons += [f"driver {library}: {problem}" for library, problem in drivers_left_out().items()]
    return BackendError(
        "opencl", "a usable OpenCL device", "; ".join(reasons) or "no OpenCL platform was found", REMEDIES
    )


def default_backend() -> Backend:
    """The backend for tensors made without ``device=``. If nobody chose it, stderr names the choice once."""
    global _default
    if (chosen := modes.backend.value) is not None:
        return cast("Backend", chosen)
    if (chosen := _default) is not None:  # without the lock, since every call of a compiled function asks
        return chosen
    with _lock:
        if _default is None:
            named = config.backend_name()
            if named is not None:
                _default = get_backend(named)
            else:
                usable = usable_devices()
                if not usable:
                    raise _nothing_usable()
                _default = get_backend(usable[0].name)
                left = "".join(f"; left out: {lib}, {problem}" for lib, problem in drivers_left_out().items())
                print(f"tinyedge: using {_default.name}, {_default.description}{left}", file=sys.stderr)
        return _default


def set_default_backend(name: str | Backend) -> None:
    """Make this the default backend of all threads, for tensors made without ``device=`` or ``use_backend``."""
    global _default
    with _lock:
        _default = name if isinstance(name, Backend) else get_backend(name)


class use_backend(ModeContext):
    """Context manager and decorator: this is the default backend inside, in this thread.

    Other threads, also those that are started inside, keep theirs, or the default of the process.

    Errors: BackendError if it cannot be used.
    """

    mode = "backend"

    def __init__(self, name: str | Backend) -> None:
        self._name = name

    def value(self) -> Backend:
        return self._name if isinstance(self._name, Backend) else get_backend(self._name)

    if TYPE_CHECKING:

        def __enter__(self) -> Backend: ...


__all__ = [
    "Backend",
    "default_backend",
    "devices",
    "drivers_left_out",
    "get_backend",
    "set_default_backend",
    "usable_devices",
    "use_backend",
]
