"""An OpenCL device of which any one call of the driver fails, or is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.backends.opencl.devices import DeviceEntry, pyopencl_module

FUNCTIONS = ("Buffer", "enqueue_copy", "enqueue_fill_buffer", "enqueue_nd_range_kernel")
"""Functions of pyopencl that reach the driver; objects with methods that do are made by those in ``MAKERS``."""
MAKERS = {"CommandQueue": ("finish", "flush"), "Kernel": ("set_arg", "set_args"), "Program": ("build",)}


OUT_OF_MEMORY = (-4, -5, -6)
"""Memory objects, resources, the host's memory."""
OTHERS = (-36, -54, -9999)
"""An invalid queue, an invalid work-group size, and a code of NVIDIA's driver."""


@dataclass(frozen=True)
class Code:
    """The driver refuses the call, with one code or another of these."""

    codes: tuple[int, ...]

    def __call__(self, number: int, name: str, call: Callable[[], Any], is_bare: bool) -> Any:
        code = self.codes[number % len(self.codes)]
        if is_bare:
            return code
        cl = pyopencl_module()
        if code in OUT_OF_MEMORY:  # pyopencl sorts them like this
            kind = cl.MemoryError
        else:
            kind = cl.LogicError if code <= -30 else cl.RuntimeError
        raise kind(cl._cl._ErrorRecord(routine=name, code=code, msg="a fault of the tests'"))

    def __str__(self) -> str:
        return "codes" + "".join(map(str, self.codes))


@dataclass(frozen=True)
class Interrupt:
    """Ctrl-C just before the call, or when it is done: the signal, which the program may hold back."""

    after: bool

    def __call__(self, number: int, name: str, call: Callable[[], Any], is_bare: bool) -> Any:
        if not self.after:
            signal.raise_signal(signal.SIGINT)
            return call()
        result = call()
        signal.raise_signal(signal.SIGINT)
        return result

    def __str__(self) -> str:
        return "interrupted-after" if self.after else "interrupted-before"


class Faults:
    """Counts the calls of the driver; the one with the number ``at`` meets ``fault``."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.at: int | None = None
        self.fault: Code | Interrupt | None = None
        self.counts = False

    def meet(self, name: str, call: Callable[[], Any], is_bare: bool = False) -> Any:
        if not self.counts:
            return call()
        self.calls.append(name)
        if len(self.calls) - 1 != self.at or self.fault is None:
            return call()
        return self.fault(self.at, name, call, is_bare)


def _real(value: Any) -> Any:
    return value._watched_real if isinstance(value, _Watched) else value


class _Watched:
    """An object, of which calls of these methods can fail."""

    def __init__(self, real: Any, faults: Faults, methods: tuple[str, ...]) -> None:
        self._watched_real, self._watched_faults, self._watched_methods = real, faults, methods

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._watched_real, name)
        if name not in self._watched_methods:
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            given = [_real(arg) for arg in args], {key: _real(arg) for key, arg in kwargs.items()}
            result = self._watched_faults.meet(name, lambda: value(*given[0], **given[1]))
            return self if result is self._watched_real else result

        return call


class _WatchedModule(_Watched):
    """pyopencl, as far as the backend calls it."""

    def __init__(self, cl: Any, faults: Faults) -> None:
        super().__init__(cl, faults, FUNCTIONS)

    def __getattr__(self, name: str) -> Any:
        methods = MAKERS.get(name)
        if methods is None:
            return super().__getattr__(name)
        make = getattr(self._watched_real, name)
        return lambda *args, **kwargs: _Watched(
            make(*map(_real, args), **{key: _real(arg) for key, arg in kwargs.items()}), self._watched_faults, methods
        )


class _Bare:
    """A function of the driver that is called without pyopencl."""

    def __init__(self, function: Any, name: str, faults: Faults) -> None:
        object.__setattr__(self, "_parts", (function, name, faults))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._parts[0], name, value)

    def __call__(self, *args: Any) -> Any:
        function, name, faults = self._parts
        return faults.meet(name, lambda: function(*args), is_bare=True)


class FaultyOpenCL(OpenCLBackend):
    """A device whose driver calls can fail, once it has come up."""

    def __init__(self, entry: DeviceEntry) -> None:
        self.faults = Faults()
        super().__init__(entry)
        self.cl = _WatchedModule(self.cl, self.faults)
        self.queue = _Watched(self.queue, self.faults, MAKERS["CommandQueue"])
        self.pool.buffers = _Watched(self.pool.buffers, self.faults, ("allocate",))

    def _driver_function(self, name: str) -> Any:
        function = super()._driver_function(name)
        return None if function is None else _Bare(function, name, self.faults)
