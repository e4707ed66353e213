"""Which OpenCL devices there are: the embedded runtime made known, platforms asked, each device tried once."""

from __future__ import annotations

import hashlib
import platform
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tinyedge import config, files
from tinyedge.errors import BackendError

SYSTEM_VENDORS = Path("/etc/OpenCL/vendors")
BUILD_OPTIONS: tuple[str, ...] = ("-cl-std=CL1.2", "-cl-single-precision-constant")
PROBE_SOURCE = """
__kernel void probe(__global const float* x, __global float* y) {
    const int i = get_global_id(0);
    y[i] = 2.0f * x[i] + 1.0f;
}
"""


def embedded_runtime() -> Path | None:
    """The OpenCL CPU runtime that the ``cpu`` extra installed beside this Python, or None."""
    for folder, name in (
        (Path(sys.prefix) / "lib", "libintelocl.so"),
        (Path(sys.prefix) / "Library/bin", "intelocl64.dll"),
    ):
        if (folder / name).exists():
            return folder / name
    return None


def register_embedded_runtime() -> None:
    """Let the OpenCL loader see the embedded runtime beside the system's drivers.

    pip registers no driver. The loader reads OCL_ICD_VENDORS, one file or one folder, when it is first asked for
    platforms, and then no more: so a folder of our own lists both. A value that the user set is left alone. Where no
    such folder can be kept, the embedded runtime is used alone, and a warning says so.
    """
    runtime = embedded_runtime()
    if runtime is None or config.opencl_vendors():
        return
    listed = {f"tinyedge-{hashlib.sha256(bytes(runtime)).hexdigest()[:12]}.icd": f"{runtime}\n".encode()}
    for entry in sorted(SYSTEM_VENDORS.glob("*.icd")):
        with suppress(OSError):  # of an uninstalled driver, for instance: the loader passes over it too
            listed[entry.name] = files.read_whole(entry)
    # One folder for each set of drivers: several environments of one user do not disturb each other.
    key = hashlib.sha256(repr(sorted(listed.items())).encode()).hexdigest()[:16]
    folder = config.cache_path() / "icd" / key
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in listed.items():
            _keep(folder / name, text)
    except OSError as error:
        warnings.warn(
            f"the system's OpenCL drivers are not seen, {runtime} alone is: {folder} cannot be used ({error}). Set "
            "TINYEDGE_CACHE to a folder that can be written, or OCL_ICD_VENDORS.",
            stacklevel=2,
        )
        folder = runtime
    config.set_opencl_vendors(folder)


def _keep(path: Path, text: bytes) -> None:
    """Have a file with this text: one of which a killed process wrote a part would hide a driver."""
    with suppress(FileNotFoundError):
        if files.read_whole(path) == text:
            return
    files.write_whole(path, text)


def pyopencl_module() -> Any:
    config.disable_pyopencl_cache()
    register_embedded_runtime()
    try:
        import pyopencl
    except (ImportError, OSError) as error:
        raise BackendError(
            "opencl", "pyopencl must be importable", f"it failed: {error}", 'Try: pip install "tinyedge[cpu]".'
        ) from error
    warnings.filterwarnings("ignore", category=pyopencl.CompilerWarning)
    return pyopencl


class DeviceEntry:
    """One OpenCL device as ``tinyedge devices`` lists it."""

    def __init__(self, number: int, device: Any) -> None:
        self.number = number
        self.device = device
        self.name = f"opencl:{number}"
        self.platform = str(device.platform.name).strip()
        self.title = " ".join(str(device.name).split())
        self.driver = str(device.driver_version).strip()
        self.is_cpu = bool(device.type & 2)  # CL_DEVICE_TYPE_CPU
        self.kind = "CPU" if self.is_cpu else "GPU" if device.type & 4 else "accelerator"
        self._problem: str | None = None
        self._probed = False

    @property
    def problem(self) -> str | None:
        """Why the device cannot be used, or None: a device that is listed may still build no kernel."""
        if not self._probed:
            self._problem = self._probe()
            self._probed = True
        return self._problem

    def _probe(self) -> str | None:
        cl = pyopencl_module()
        try:
            context = cl.Context([self.device])
            queue = cl.CommandQueue(context)
            program = cl.Program(context, PROBE_SOURCE).build(list(BUILD_OPTIONS), cache_dir=False)
            x = np.arange(8, dtype=np.float32)
            flags = cl.mem_flags
            source = cl.Buffer(context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=x)
            target = cl.Buffer(context, flags.READ_WRITE, x.nbytes)
            cl.Kernel(program, "probe")(queue, (8,), None, source, target)
            y = np.zeros_like(x)
            cl.enqueue_copy(queue, y, target)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            wanted = [line for line in lines if "error" in line.lower()] or lines or [type(error).__name__]
            return f"a test kernel does not build or run: {wanted[0][:160]}"
        if not np.array_equal(y, 2 * x + 1):
            return f"a test kernel gave wrong results: {y.tolist()}"
        return None

    @property
    def identity(self) -> tuple[str, ...]:
        """What a binary for this device depends on."""
        device = self.device
        names = (device.platform.version, device.vendor, device.name, device.version, device.driver_version)
        # Machines that share a home folder may call different processors by one name.
        return (*map(str, names), str(device.extensions), _processor() if self.is_cpu else "")

    @property
    def takes_chains(self) -> bool:
        """Whether kernels may wait for each other in one launch.

        OpenCL does not promise that a work-group which runs goes on while others wait for it. NVIDIA's GPUs do, since
        Volta, and PTX has the fences; elsewhere it was not tried.
        """
        if self.is_cpu or "NVIDIA" not in str(self.device.vendor).upper():
            return False
        try:
            return int(self.device.compute_capability_major_nv) >= 7
        except Exception:  # whatever a driver without the extension makes of the question
            return False

    def describe(self) -> str:
        return f"{self.title} ({self.kind}, {self.platform})"


def _processor() -> str:
    """The processor's instruction sets, where the system lists them; else its family and model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    listed = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return listed[0] if listed else f"{platform.machine()} {platform.processor()}"


_entries: list[DeviceEntry] | None = None
_lock = threading.Lock()


def devices() -> list[DeviceEntry]:
    """Every OpenCL device of every platform, in the order that gives N in ``opencl:N``."""
    global _entries
    with _lock:
        if _entries is None:
            cl = pyopencl_module()
            try:
                platforms = cl.get_platforms()
            except cl.Error:
                platforms = []  # the loader found no driver
            found = []
            for vendor in platforms:
                try:
                    found += vendor.get_devices()
                except cl.Error:
                    continue  # a driver without a device
            _entries = [DeviceEntry(number, device) for number, device in enumerate(found)]
        return _entries
