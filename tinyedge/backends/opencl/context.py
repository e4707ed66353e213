"""One OpenCL device, opened: context, queue, memory, copies between host and device, and what its driver refuses.

In: a DeviceEntry. Out: allocations, copies, and errors of tinyedge in place of the driver's.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import numpy as np

from tinyedge import config
from tinyedge.backends.base import Backend
from tinyedge.backends.opencl.devices import DeviceEntry, pyopencl_module, was_forked
from tinyedge.backends.opencl.driver import forked, refusal
from tinyedge.backends.opencl.memory import SLAB_BYTES, Allocation, SlabAllocator
from tinyedge.backends.opencl.pool import Pool
from tinyedge.backends.opencl.range_flag import RangeFlag
from tinyedge.dtypes import DType, float64, int64
from tinyedge.errors import BackendError, DtypeError, OutOfMemoryError
from tinyedge.ir.spec import Device
from tinyedge.ir.values import Slot, Storage
from tinyedge.kernels.tuned import remembered
from tinyedge.shapes import INT_MAX, Shape

UPLOADED_BYTES = 32 << 20
"""Bytes of host memory for copies of uploads that are still in flight."""


class OpenCLContext(Backend):
    """A context, an in-order queue, and a pool of buffers."""

    def __init__(self, entry: DeviceEntry) -> None:
        super().__init__()
        cl = pyopencl_module()
        if was_forked():
            raise forked(entry.name)
        if entry.problem:
            raise BackendError(
                entry.name,
                "the device must build and run a kernel",
                f"{entry.describe()}: {entry.problem}",
                "Run `tinyedge devices` to see which devices work.",
            )
        self.cl = cl
        # Held for each call that enqueues. The standard lets threads enqueue at a time; NVIDIA's driver then crashes.
        self.lock = threading.RLock()
        self.name = entry.name
        self.description = entry.describe()
        self.entry = entry
        with self._asked("opening it"):
            self.context = cl.Context([entry.device])
            self.queue = cl.CommandQueue(self.context)
        self.pool = Pool(cl, self.context, self.queue, self.memory, self.lock)
        extensions = str(entry.asked("extensions", "")).split()
        self.has_fp64 = "cl_khr_fp64" in extensions
        self.has_int64 = str(entry.asked("profile", "")) != "EMBEDDED_PROFILE" or "cles_khr_int64" in extensions
        persistent = entry.takes_persistent and config.uses_persistent()
        self.device = Device(
            kind="cpu" if entry.is_cpu else "gpu",
            vector_width=16 if entry.is_cpu else 4,
            native_width=min(16, max(4, int(entry.asked("native_vector_width_float", 4)))),
            compute_units=max(1, int(entry.asked("max_compute_units", 1))),
            max_work_group=max(1, int(entry.asked("max_work_group_size", 1))),
            local_bytes=int(entry.asked("local_mem_size", 16384)),
            group_items=256 if persistent else 64,
            order="ptx" if persistent else "",
            tuned=remembered(entry.identity),
            limits={},
        )
        self.argument_bytes = int(entry.asked("max_parameter_size", 1024))
        # What is larger a driver may refuse, or give and address wrongly: Intel's compiler must be told of it.
        self.largest_bytes = int(entry.asked("max_mem_alloc_size", 0)) or None
        self.counts_to = INT_MAX
        self.slabs = SlabAllocator(self._buffer, min(SLAB_BYTES, self.largest_bytes or SLAB_BYTES), self.lock)
        self._nothing: Any = None  # a buffer for what has no bytes
        self._range_flag: RangeFlag | None = None  # only where a kernel may set it
        self._uploads: deque[tuple[Any, int]] = deque()  # events, which hold what is uploaded, and its bytes
        self._uploading_bytes = 0

    def check_dtype(self, dtype: DType) -> None:
        if (dtype is float64 and not self.has_fp64) or (dtype is int64 and not self.has_int64):
            smaller = "float32" if dtype is float64 else "int32"
            raise DtypeError(
                self.name,
                f"expected {smaller} or another dtype that this device has",
                f"got {dtype.name}, which it does not have",
                f"Use dtype=te.{smaller}, or the numpy backend.",
            )

    @contextmanager
    def _asked(self, call: str) -> Iterator[None]:
        """Raise driver errors inside the block as errors of tinyedge. ``call`` says what was asked of the driver."""
        try:
            yield
        except (self.cl.Error, MemoryError) as error:
            raise self._refusal(call, error) from error

    def _refusal(self, call: str, error: Exception | int) -> BackendError:
        return refusal(self, call, error)

    def allocate(self, nbytes: int) -> Allocation:
        # Scratch memory and arenas begin at the start of their buffer: kernels get only offsets into these.
        return self._buffer(nbytes)

    def reserve(self, nbytes: int) -> Allocation:
        if self.device.persistent and nbytes <= self.slabs.largest:
            with suppress(OutOfMemoryError):  # there may be room for so little
                return self.slabs.take(nbytes)
        return self._buffer(nbytes)

    def _buffer(self, nbytes: int) -> Allocation:
        if self.largest_bytes is not None and nbytes > self.largest_bytes:
            self.check_size(nbytes)
        if not nbytes:
            if self._nothing is None:
                self._nothing = self._taken(0)
            return Allocation(self._nothing.handle)
        try:  # no context manager, which would slow down every eager step
            return self.pool.take(nbytes)
        except (self.cl.Error, MemoryError):
            self.trim()
        return self._taken(nbytes)

    def _taken(self, nbytes: int) -> Allocation:
        with self._asked(f"an allocation of {nbytes} bytes"):
            return self.pool.take(nbytes)

    def trim(self) -> None:
        self.slabs.trim()
        self.pool.trim()

    def write(self, storage: Storage, array: np.ndarray[Any, Any]) -> None:
        # It does not wait for earlier launches, so the next sample is uploaded while a step runs.
        if not array.nbytes:
            return
        allocation = storage.buffer
        with self._asked("an upload"), self.lock:
            self._sweep()
            waits = self._uploading_bytes + array.nbytes > UPLOADED_BYTES
            # A copy, unless it waits: the caller's array may change.
            values = np.ascontiguousarray(array) if waits else np.array(array, order="C")
            event = self.cl.enqueue_copy(
                self.queue, allocation.handle, values, dst_offset=allocation.offset, is_blocking=waits
            )  # fmt: skip
            if not waits:
                self._uploads.append((event, values.nbytes))
                self._uploading_bytes += values.nbytes

    def _sweep(self) -> None:
        """Drop finished uploads. To drop an unfinished event would be to wait for it."""
        with self.lock:
            while self._uploads and (status := self._uploads[0][0].command_execution_status) <= 0:
                self._uploading_bytes -= self._uploads.popleft()[1]
                if status < 0:
                    raise self._refusal("an upload", int(status))

    def read(self, slot: Slot) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any] = np.empty(slot.shape, slot.dtype.stored)
        if slot.numel:
            allocation = slot.storage.buffer
            offset = allocation.offset + slot.offset * slot.dtype.itemsize
            flag = self._range_flag
            with self._asked("reading a result"):
                with self.lock:
                    report = None if flag is None else flag.enqueue_read()
                    event = self.cl.enqueue_copy(
                        self.queue, result, allocation.handle, src_offset=offset, is_blocking=False
                    )
                    self.queue.flush()
                event.wait()
                self._sweep()
                if flag is not None and report is not None:
                    flag.check(report[1])
        return result

    def finish(self) -> None:
        with self._asked("what was launched"):
            flag = self._range_flag
            with self.lock:
                report = None if flag is None else flag.enqueue_read()
                self.queue.finish()
            self._sweep()
            if flag is not None and report is not None:
                flag.check(report[1])

    @cached_property
    def bare_enqueue(self) -> Any:
        """clEnqueueNDRangeKernel without an event, which programs do not need; None where it cannot be reached."""
        return self._driver_function("clEnqueueNDRangeKernel")

    @cached_property
    def bare_set_argument(self) -> Any:
        """clSetKernelArg, at a third of its cost through pyopencl; None where it cannot be reached."""
        function = self._driver_function("clSetKernelArg") if ctypes.sizeof(ctypes.c_void_p) == 8 else None
        if function is not None:
            function.argtypes = (ctypes.c_void_p, ctypes.c_uint, ctypes.c_size_t, ctypes.c_char_p)
        return function

    def _driver_function(self, name: str) -> Any:
        try:
            return getattr(ctypes.CDLL(self.cl._cl.__file__), name)
        except (OSError, AttributeError):
            return None

    @cached_property
    def timing_queue(self) -> Any:
        """A second queue, with profiling, which would make launches on the main queue slower."""
        with self._asked("a queue that keeps times"):
            return self.cl.CommandQueue(self.context, properties=self.cl.command_queue_properties.PROFILING_ENABLE)

    def timed(self, kernel: Any, global_size: Shape, local_size: Shape | None) -> Callable[[], int]:
        """Launch a bound kernel on the timing queue; return a function that waits and returns nanoseconds."""
        with self._asked("a launch that is timed"), self.lock:
            event = self.cl.enqueue_nd_range_kernel(self.timing_queue, kernel, global_size, local_size)

        def elapsed_ns() -> int:
            with self._asked("the time that a launch took"):
                event.wait()
                return int(event.profile.end - event.profile.start)

        return elapsed_ns

    @cached_property
    def orders_groups(self) -> bool:
        """Whether the device says that OpenCL C 3.0's fences and atomics work across work-groups.

        Tests ask this before they run persistent kernels on a device. It does not promise that work-groups which run
        make progress.
        """
        device = self.entry.device
        try:
            fences, atomics = device.atomic_fence_capabilities, device.atomic_memory_capabilities
        except (self.cl.Error, AttributeError):
            return False
        kinds = self.cl.device_atomic_capabilities
        wanted = kinds.ORDER_ACQ_REL | kinds.SCOPE_DEVICE
        return bool(fences & wanted == wanted and atomics & kinds.SCOPE_DEVICE)
