"""The OpenCL devices: drivers are registered with the loader, platforms are asked, each device is tried once.

In: the drivers that can be loaded (``drivers``). Out: a DeviceEntry for each device, with the reason if it cannot be
used.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shutil
import tempfile
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tinyedge import config
from tinyedge.backends.opencl.driver import forked
from tinyedge.backends.opencl.drivers import (
    SYSTEM_VENDORS,
    Driver,
    Identity,
    Verdict,
    embedded_runtime,
    listed,
    verdicts,
)
from tinyedge.backends.opencl.probe import BUILD_OPTIONS, all_devices, identity_of, problem_of, text_of
from tinyedge.errors import BackendError


class _Loader:
    """What the OpenCL loader was told, once per process: it reads OCL_ICD_VENDORS when it is first called."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.drivers: list[Driver] | None = None
        self.verdicts: dict[Driver, Verdict] = {}
        self.entries: list[DeviceEntry] | None = None
        self.process: int | None = None  # the process in which drivers were loaded

    def register(self, again: str = "") -> None:
        """Tell the loader of the drivers that can be loaded, also of the embedded runtime, which pip does not.

        A value of OCL_ICD_VENDORS that the user set is left alone, unless it lists a driver that must be left out.
        """
        with self.lock:
            if self.drivers is not None and not again:
                return
            if self.drivers is None:
                self.drivers = listed()
            self.verdicts |= verdicts(self.drivers, again)
            if self.process is not None:
                return  # they are loaded already
            usable = [driver for driver in self.drivers if driver not in self.left_out()]
            embedded = config.opencl_vendors() is None and embedded_runtime() is not None
            if embedded or len(usable) < len(self.drivers):
                config.set_opencl_vendors(_folder_of(usable))

    def left_out(self) -> dict[Driver, str]:
        """The drivers that must not be loaded, and why."""
        found = {driver: verdict.problem for driver, verdict in self.verdicts.items()}
        return {driver: problem for driver, problem in found.items() if problem is not None}

    def problems(self) -> dict[Identity, list[str | None]]:
        """What is known of the devices: by identity, a problem or None for each device of that name, in order."""
        found: dict[Identity, list[str | None]] = defaultdict(list)
        for verdict in self.verdicts.values():
            for identity, problem in verdict.devices:
                found[identity].append(problem)
        return found


_loader = _Loader()


def _after_fork() -> None:
    _loader.lock = threading.RLock()  # another thread of the parent may hold it
    if _loader.process is not None:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "on_exit"):  # glibc's
            # The drivers' own exit handlers, which would run later than this, wait for threads that a fork does not
            # copy: Intel's runtime hung in one of twenty children.
            libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def was_forked() -> bool:
    """Whether this process was forked from one that had loaded drivers: then it can use no device."""
    return _loader.process is not None and _loader.process != os.getpid()


def _folder_of(drivers: Iterable[Driver]) -> Path:
    """A folder that lists these drivers: one for each set, so that environments do not affect each other."""
    files = {driver.icd: f"{driver.library}\n" for driver in drivers}
    key = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    folder = config.cache_path() / "icd" / key
    try:
        for name, text in files.items():
            if not (folder / name).is_file():
                config.remember(folder / name, text.encode())
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        warnings.warn(f"verdicts on drivers are not kept for later runs: {config.cache_path()}: {error}", stacklevel=2)
        folder = Path(tempfile.mkdtemp(prefix="tinyedge-icd-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    return folder


def pyopencl_module() -> Any:
    """pyopencl, imported when it is first needed. Errors: BackendError if it cannot be."""
    config.disable_pyopencl_cache()
    _loader.register()
    try:
        import pyopencl
    except (ImportError, OSError) as error:
        raise BackendError(
            "opencl", "pyopencl must be importable", f"it failed: {error}", 'Try: pip install "tinyedge[cpu]".'
        ) from error
    warnings.filterwarnings("ignore", category=pyopencl.CompilerWarning)
    return pyopencl


def asked(device: Any, name: str, otherwise: Any) -> Any:
    """A property of a device, by pyopencl's name; ``otherwise`` if the driver refuses to tell it."""
    try:
        return getattr(device, name)
    except Exception:  # drivers raise all kinds of errors here
        return otherwise


class DeviceEntry:
    """One OpenCL device as ``tinyedge devices`` lists it."""

    def __init__(self, number: int, device: Any) -> None:
        cl = pyopencl_module()
        self.number = number
        self.device = device
        self.name = f"opencl:{number}"
        self.known_as: Identity = identity_of(cl, device)
        vendor, title, driver = self.known_as
        self.platform = vendor.strip() or "unnamed platform"
        self.title = " ".join(title.split()) or "unnamed device"
        self.driver = driver.strip()
        kind = int(self.asked("type", 0))
        self.is_cpu = bool(kind & 2)  # CL_DEVICE_TYPE_CPU
        self.kind = "CPU" if self.is_cpu else "GPU" if kind & 4 else "accelerator"
        self._problem: str | None = None
        self._probed = False

    def asked(self, name: str, otherwise: Any) -> Any:
        """A property of the device, by pyopencl's name; ``otherwise`` if the driver refuses to tell it."""
        return asked(self.device, name, otherwise)

    def take(self, problem: str | None) -> None:
        """Take over the result of trying it, from another process or an earlier run."""
        self._problem, self._probed = problem, True

    @property
    def problem(self) -> str | None:
        """Why the device cannot be used; None if it can. A device that is listed may still build no kernel."""
        if not self._probed:
            if was_forked():
                return str(forked(self.name))
            self.take(problem_of(pyopencl_module(), self.device))
        return self._problem

    @property
    def identity(self) -> tuple[str, ...]:
        """All that a binary for this device depends on."""
        cl, device = pyopencl_module(), self.device
        owner = self.asked("platform", None)
        version = "" if owner is None else text_of(cl, owner, "VERSION")
        names = (text_of(cl, device, name) for name in ("VENDOR", "NAME", "VERSION", "DRIVER_VERSION", "EXTENSIONS"))
        # Machines that share a home folder may give different processors the same name.
        return (version, *names, _processor() if self.is_cpu else "")

    @property
    def takes_persistent(self) -> bool:
        """Whether the device can run persistent kernels, whose work-groups wait for each other.

        OpenCL does not guarantee that a running work-group makes progress while others wait for it. NVIDIA's GPUs do,
        since Volta, and PTX has the memory fences; other devices were not tried.
        """
        if self.is_cpu or "NVIDIA" not in str(self.asked("vendor", "")).upper():
            return False
        return int(self.asked("compute_capability_major_nv", 0)) >= 7

    def describe(self) -> str:
        return f"{self.title} ({self.kind}, {self.platform})"


@cache
def _processor() -> str:
    """The processor's instruction sets, where the system lists them; else its family and model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    listed = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return listed[0] if listed else f"{platform.machine()} {platform.processor()}"


def try_again() -> None:
    """Try again the drivers that could not be loaded, since what they lacked may be there now."""
    _loader.register("bad")


def devices() -> list[DeviceEntry]:
    """Every OpenCL device of every driver that can be loaded, in the order that gives N in ``opencl:N``.

    Each was tried in a process of its own when its driver was first seen.
    """
    with _loader.lock:
        if _loader.entries is None:
            cl = pyopencl_module()
            _loader.process = os.getpid()
            entries = [DeviceEntry(number, device) for number, device in enumerate(all_devices(cl))]
            if not _take_problems(entries) and _loader.drivers:
                _loader.register("all")  # a new device, or a device with another driver
                _take_problems(entries)
            _loader.entries = entries
        return _loader.entries


def _take_problems(entries: Iterable[DeviceEntry]) -> bool:
    """Give each device what is known of it; return whether something is known of every one."""
    problems = _loader.problems()
    known = True
    for entry in entries:
        found = problems.get(entry.known_as)
        if found:
            entry.take(found.pop(0))
        else:
            known = False
    return known


def drivers_left_out() -> dict[str, str]:
    """The libraries of drivers that are listed and were not loaded, and why."""
    return {driver.library: problem for driver, problem in _loader.left_out().items()}


__all__ = [
    "BUILD_OPTIONS",
    "SYSTEM_VENDORS",
    "DeviceEntry",
    "asked",
    "devices",
    "drivers_left_out",
    "embedded_runtime",
    "pyopencl_module",
    "try_again",
    "was_forked",
]
