"""The boundary to an OpenCL driver: its status codes become tinyedge's errors, and a forked child may not call it."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, NoReturn

from tinyedge.backends.base import SMALLER, Backend
from tinyedge.errors import BackendError, OutOfMemoryError

OUT_OF_MEMORY = frozenset((-4, -5, -6, -61))
"""Status codes: memory object allocation failure, out of resources, out of host memory, invalid buffer size."""

REMEDY = (
    "If the device was reset or unplugged, start the program again; `tinyedge devices` says whether it works. If it "
    "does, please report this."
)


def code_of(error: Exception) -> int | None:
    """The driver's status code in an exception of pyopencl; None if there is none."""
    try:
        return int(error.code)  # type: ignore[attr-defined]
    except (AttributeError, IndexError, TypeError, ValueError):  # pyopencl raised it by itself, with a text only
        return None


def status_name(cl: Any, code: int) -> str:
    """The driver's name of an error code, as CL_OUT_OF_RESOURCES (-5)."""
    try:
        return f"CL_{cl.status_code.to_string(code)} ({code})"
    except Exception:  # an error of another version, without a status
        return f"OpenCL error {code}"


def refusal(backend: Any, call: str, error: Exception | int) -> BackendError:
    """The exception for a ``call`` that the driver refused: a kernel's title, or what was asked of the device.

    ``error`` is what pyopencl raised, or the status code that a bare call returned.
    """
    code = error if isinstance(error, int) else code_of(error)
    said = "" if code is None else status_name(backend.cl, code)
    if isinstance(error, Exception):
        text = " ".join(str(error).split())
        said = f"{said}: {text}" if said and text not in said else said or text or type(error).__name__
    if code in OUT_OF_MEMORY or isinstance(error, MemoryError):
        memory, entry = backend.memory, backend.entry
        return OutOfMemoryError(
            f"{backend.name}, {call}",
            f"there must be memory in addition to {memory.allocated_bytes} bytes in use "
            f"({memory.reserved_bytes} that the driver holds)",
            f"the device refused it, {said}; it says that it has {entry.asked('global_mem_size', 'unknown')} bytes, "
            f"at most {entry.asked('max_mem_alloc_size', 'unknown')} for one allocation",
            SMALLER,
        )
    return BackendError(
        f"{backend.name}, {call}", f"{backend.description} must accept the call", f"it refused, {said}", REMEDY
    )


# Forks

FORKED = (
    'Start such processes with multiprocessing.set_start_method("spawn"), or use OpenCL in the child alone. The numpy '
    "backend works in both."
)

_alive: weakref.WeakSet[Any] = weakref.WeakSet()  # owners of driver objects


def forked(name: str) -> BackendError:
    """The exception in the child of a process that used the device."""
    return BackendError(
        name,
        "a device must be used in the process that opened it",
        "this process was forked from one that had opened it, and drivers do not survive that",
        FORKED,
    )


class Forked(Backend):
    """What a backend becomes in a forked child: only its name is left."""

    def __init__(self) -> None:
        raise forked(self.name)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise forked(self.name)

    check_dtype = allocate = reserve = trim = write = read = prepare = launch = describe_all = load = _refuse
    fuses_horizontally = launch_groups = finish = _refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise forked(self.name)


def forsake_in_child(owner: Any) -> None:
    """In a forked child, let nothing of ``owner`` call the driver, not even a destructor."""
    _alive.add(owner)


def _forsake() -> None:
    """Keep the parent's driver objects for ever: to release one is a call into a driver that may hold a lock."""
    for owner in [*_alive]:
        if isinstance(owner, Backend):
            kept = owner.__dict__
            owner.__dict__ = {name: kept[name] for name in ("name", "description", "memory", "device") if name in kept}
            owner.__class__ = Forked
        else:
            kept = owner
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forsake)
