"""Whether OpenCL devices work: a test kernel runs on each. It can run in another process, which a driver may crash.

In: device numbers to skip. Out: problems. As a script it needs only pyopencl: ``probe.py REPORT [SKIPPED ...]`` appends
a line of JSON to the file REPORT for each result, at once, and leaves out the devices of those numbers.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

BUILD_OPTIONS: tuple[str, ...] = ("-cl-std=CL1.2", "-cl-single-precision-constant")
PROBE_SOURCE = """
__kernel void probe(__global const float* x, __global float* y) {
    const int i = get_global_id(0);
    y[i] = 2.0f * x[i] + 1.0f;
}
"""

_TEXTS = {"NAME": 0x102B, "VENDOR": 0x102C, "DRIVER_VERSION": 0x102D, "VERSION": 0x102F, "EXTENSIONS": 0x1030}
_PLATFORM_TEXTS = {"VERSION": 0x0901, "NAME": 0x0902}


def text_of(cl: Any, owner: Any, name: str) -> str:
    """A property of a device or platform as text; "" if the driver does not tell it. It need not be UTF-8."""
    try:
        return str(getattr(owner, name.lower()))
    except UnicodeDecodeError:
        return _raw_text(cl, owner, name)
    except Exception:  # drivers raise all kinds of errors here
        return ""


def _raw_text(cl: Any, owner: Any, name: str) -> str:
    import ctypes

    is_platform = isinstance(owner, cl.Platform)
    try:
        library = ctypes.CDLL(cl._cl.__file__)
        ask = library.clGetPlatformInfo if is_platform else library.clGetDeviceInfo
        said = ctypes.create_string_buffer(65536)
        wanted = (_PLATFORM_TEXTS if is_platform else _TEXTS)[name]
        arguments = ctypes.c_void_p(owner.int_ptr), ctypes.c_uint(wanted), ctypes.c_size_t(len(said)), said, None
        return "" if ask(*arguments) else said.value.decode("utf-8", "replace")
    except (OSError, AttributeError, KeyError):
        return ""


def identity_of(cl: Any, device: Any) -> tuple[str, str, str]:
    """Platform, name and driver version of a device."""
    try:
        platform = text_of(cl, device.platform, "NAME")
    except Exception:
        platform = ""
    return platform, text_of(cl, device, "NAME"), text_of(cl, device, "DRIVER_VERSION")


def all_devices(cl: Any) -> list[Any]:
    """The devices of every platform in order."""
    try:
        platforms = cl.get_platforms()
    except cl.Error:
        return []  # the loader found no driver
    found = []
    for vendor in platforms:
        try:
            found += vendor.get_devices()
        except cl.Error:
            continue  # a driver without a device
    return found


def problem_of(cl: Any, device: Any) -> str | None:
    """Why ``device`` cannot be used; None if it can. A device that is listed may still build no kernel."""
    import numpy as np

    try:
        context = cl.Context([device])
        queue = cl.CommandQueue(context)
        program = cl.Program(context, PROBE_SOURCE).build(list(BUILD_OPTIONS), cache_dir=False)
        x = np.arange(8, dtype=np.float32)
        flags = cl.mem_flags
        source = cl.Buffer(context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=x)
        target = cl.Buffer(context, flags.READ_WRITE, x.nbytes)
        kernel = cl.Kernel(program, "probe")
        kernel.set_arg(0, source)
        kernel.set_arg(1, target)
        cl.enqueue_nd_range_kernel(queue, kernel, (8,), None)
        y = np.zeros_like(x)
        cl.enqueue_copy(queue, y, target)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        wanted = [line for line in lines if "error" in line.lower()] or lines or [type(error).__name__]
        return f"a test kernel does not build or run: {wanted[0][:160]}"
    if not np.array_equal(y, 2 * x + 1):
        return f"a test kernel gave wrong results: {y.tolist()}"
    return None


def main(report: str, skipped: list[int]) -> None:
    with open(report, "w", encoding="utf-8") as file:

        def say(**learnt: Any) -> None:
            file.write(json.dumps(learnt) + "\n")
            file.flush()

        say(started=True)
        try:
            import pyopencl as cl
        except Exception as error:
            say(failed=f"{type(error).__name__}: {error}")
            return
        found = all_devices(cl)
        say(devices=[identity_of(cl, device) for device in found])
        for number, device in enumerate(found):
            if number not in skipped:
                say(trying=number)
                say(tried=number, problem=problem_of(cl, device))
        say(done=True)


if __name__ == "__main__":
    main(sys.argv[1], [int(number) for number in sys.argv[2:]])
    os._exit(0)  # what a driver does at the end of a process says nothing about its devices
