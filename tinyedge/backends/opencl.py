"""The OpenCL backend: platforms, context, building, and one prepared kernel for each signature of a step."""

from __future__ import annotations

import hashlib
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyedge import config
from tinyedge.backends.base import Backend, Launch, Lowered
from tinyedge.dtypes import DType, float64
from tinyedge.errors import BackendError, DtypeError, KernelBuildError, OutOfMemoryError
from tinyedge.kernels.render import render
from tinyedge.kernels.spec import MAX_RANK, Device, KernelSpec, Operand
from tinyedge.op import FORWARD
from tinyedge.shapes import Shape
from tinyedge.tape import Slot, Step, Storage, Value

SYSTEM_VENDORS = Path("/etc/OpenCL/vendors")
BUILD_OPTIONS = ("-cl-std=CL1.2", "-cl-single-precision-constant")
BUILD_OPTIONS_FP64 = ("-cl-std=CL1.2",)
PROBE_SOURCE = """
__kernel void probe(__global const float* x, __global float* y) {
    const int i = get_global_id(0);
    y[i] = 2.0f * x[i] + 1.0f;
}
"""
_C_TYPES = {"int": np.int32, "uint": np.uint32, "float": np.float32, "double": np.float64, "uchar": np.uint8}


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

    pip registers no driver. The loader reads OCL_ICD_VENDORS, one file or one folder, once: so a folder of our own
    lists both. A value that the user set is left alone.
    """
    runtime = embedded_runtime()
    if runtime is None or config.opencl_vendors() or "pyopencl" in sys.modules:
        return
    listed = {f"tinyedge-{hashlib.sha256(bytes(runtime)).hexdigest()[:12]}.icd": f"{runtime}\n"}
    if SYSTEM_VENDORS.is_dir():
        listed |= {entry.name: entry.read_text() for entry in sorted(SYSTEM_VENDORS.glob("*.icd"))}
    # One folder for each set of drivers: several environments of one user do not disturb each other.
    key = hashlib.sha256(repr(sorted(listed.items())).encode()).hexdigest()[:16]
    folder = config.cache_folder() / "icd" / key
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in listed.items():
        if not (folder / name).exists():
            (folder / name).write_text(text)
    config.set_opencl_vendors(folder)


def _pyopencl() -> Any:
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
        cl = _pyopencl()
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

    def describe(self) -> str:
        return f"{self.title} ({self.kind}, {self.platform})"


_entries: list[DeviceEntry] | None = None
_lock = threading.Lock()


def devices() -> list[DeviceEntry]:
    """Every OpenCL device of every platform, in the order that gives N in ``opencl:N``."""
    global _entries
    with _lock:
        if _entries is None:
            cl = _pyopencl()
            try:
                platforms = cl.get_platforms()
            except cl.Error:
                platforms = []  # the loader found no driver
            found = []
            for platform in platforms:
                try:
                    found += platform.get_devices()
                except cl.Error:
                    continue  # a driver without a device
            _entries = [DeviceEntry(number, device) for number, device in enumerate(found)]
        return _entries


class _Prepared:
    """One kernel of a signature: everything but the buffers and the numbers of a call."""

    __slots__ = ("arguments", "enqueue", "global_size", "kernel", "local_size", "lock", "queue", "scalar_types", "spec")

    def __init__(
        self, kernel: Any, arguments: list[tuple[str, Any]], spec: KernelSpec, queue: Any, enqueue: Any
    ) -> None:
        self.kernel = kernel
        self.arguments = arguments
        self.spec = spec
        self.global_size = spec.global_size
        self.local_size = spec.local_size
        self.queue = queue
        self.enqueue = enqueue
        self.lock = threading.Lock()

    def bind(self, step: Step, scratch: Mapping[str, tuple[Any, int]]) -> list[Any]:
        slots = step.slots
        values: list[Any] = []
        for kind, item in self.arguments:
            if kind == "buffer":
                slot = slots[item]
                values.append(slot.storage.buffer)
                values.append(slot.offset)
            elif kind == "fixed":
                values.append(item)
            elif kind == "accumulate":
                slot = slots[item]
                values.append(slot.storage.buffer)
                values.append(slot.offset)
                values.append(1 if item in step.accumulate else 0)
            elif kind == "value":
                values.append(slots[item].number)
            elif kind == "scratch":
                name, itemsize = item
                buffer, offset_bytes = scratch[name]
                values.append(buffer)
                values.append(offset_bytes // itemsize)
            else:
                values.append(step.scalars[item])
        return values

    def launch(self, values: list[Any]) -> None:
        # clSetKernelArg on one kernel object is not thread-safe; the enqueue copies the arguments.
        with self.lock:
            self.kernel.set_args(*values)
            self.enqueue(self.queue, self.kernel, self.global_size, self.local_size)


class OpenCLBackend(Backend):
    """One OpenCL device: a context, an in-order queue, a pool of buffers, and the kernels prepared so far."""

    def __init__(self, entry: DeviceEntry) -> None:
        super().__init__()
        cl = _pyopencl()
        if entry.problem:
            raise BackendError(
                entry.name,
                "the device must build and run a kernel",
                f"{entry.describe()}: {entry.problem}",
                "Run `tinyedge devices` to see which devices work.",
            )
        self.cl = cl
        self.name = entry.name
        self.description = entry.describe()
        self.entry = entry
        self.context = cl.Context([entry.device])
        self.queue = cl.CommandQueue(self.context)
        self.pool = cl.tools.MemoryPool(cl.tools.ImmediateAllocator(self.queue))
        self.has_fp64 = "cl_khr_fp64" in str(entry.device.extensions).split()
        self.device = Device(
            kind="cpu" if entry.is_cpu else "gpu",
            vector_width=16 if entry.is_cpu else 4,
            native_width=min(16, max(4, int(entry.device.native_vector_width_float))),
            compute_units=int(entry.device.max_compute_units),
            max_work_group=int(entry.device.max_work_group_size),
            local_bytes=int(entry.device.local_mem_size),
        )
        self._prepared: dict[Any, tuple[list[_Prepared], dict[str, int]]] = {}
        self._kernels: dict[str, Any] = {}
        self._tables: dict[tuple[int, ...], Any] = {}

    def check_dtype(self, dtype: DType) -> None:
        if dtype is float64 and not self.has_fp64:
            raise DtypeError(
                self.name,
                "expected float32, int32, int64 or bool on this device",
                "got float64, which it does not have",
                "Use dtype=te.float32, or the numpy backend.",
            )

    def allocate(self, nbytes: int) -> Any:
        try:
            return self.pool.allocate(max(nbytes, 4))  # a buffer of no bytes is an error in OpenCL
        except (self.cl.Error, MemoryError) as error:
            raise self._out_of_memory(nbytes, error) from error

    def _out_of_memory(self, nbytes: int, error: Exception) -> OutOfMemoryError:
        return OutOfMemoryError(
            self.name,
            f"an allocation of {nbytes} bytes must fit beside {self.memory.allocated_bytes} bytes in use",
            f"the device refused it ({error})",
            "Use smaller inputs, freeze more of the model, or run under te.no_grad().",
        )

    def write(self, storage: Storage, array: np.ndarray[Any, Any]) -> None:
        if array.nbytes:
            self.cl.enqueue_copy(self.queue, storage.buffer, np.ascontiguousarray(array), is_blocking=True)

    def read(self, slot: Slot) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any] = np.empty(slot.shape, slot.dtype.stored)
        if slot.numel:
            offset = slot.offset * slot.dtype.itemsize
            self.cl.enqueue_copy(self.queue, result, slot.storage.buffer, src_offset=offset, is_blocking=True)
        return result

    def finish(self) -> None:
        self.queue.finish()

    @cached_property
    def timing_queue(self) -> Any:
        """A queue beside the one for work: keeping times makes launches slower."""
        return self.cl.CommandQueue(self.context, properties=self.cl.command_queue_properties.PROFILING_ENABLE)

    def timed(self, kernel: Any, global_size: Shape, local_size: Shape | None) -> Callable[[], int]:
        """Launch a bound kernel on the timing queue; a call that waits for it and gives the nanoseconds it took."""
        event = self.cl.enqueue_nd_range_kernel(self.timing_queue, kernel, global_size, local_size)

        def elapsed_ns() -> int:
            event.wait()
            return int(event.profile.end - event.profile.start)

        return elapsed_ns

    def prepare(self, step: Step) -> Sequence[Launch]:
        key = step.signature()
        found = self._prepared.get(key)
        if found is None:
            if len(self._prepared) > 65536:
                self._prepared.clear()
            found = self._prepared[key] = self._lower(step)
        kernels, needed = found
        # Scratch goes back to the pool when the step is over: the queue is in order, so whoever gets it next runs
        # later.
        scratch = {name: (self.allocate(nbytes), 0) for name, nbytes in needed.items()} if needed else {}
        return [_Launch(kernel, kernel.bind(step, scratch)) for kernel in kernels]

    def lower(self, step: Step) -> Lowered:
        kernels, scratch = self._lower(step)
        return _Lowered(self, step, kernels, scratch)

    def _lower(self, step: Step) -> tuple[list[_Prepared], dict[str, int]]:
        op = step.op
        specs = (op.kernels_forward if step.direction == FORWARD else op.kernels_backward)(step, self.device)
        scratch: dict[str, tuple[str, int]] = {}
        for spec in specs:
            for item in spec.scratch:
                scratch[item.name] = (item.ctype, item.numel * _C_TYPES[item.ctype]().itemsize)
        prepared = [
            self._prepare_kernel(step, spec, {name: ctype for name, (ctype, _) in scratch.items()}) for spec in specs
        ]
        return prepared, {name: nbytes for name, (_, nbytes) in scratch.items()}

    def _prepare_kernel(self, step: Step, spec: KernelSpec, scratch: dict[str, str]) -> _Prepared:
        operands = []
        arguments: list[tuple[str, Any]] = []
        types: list[Any] = []
        for name in spec.buffers:
            if name in scratch:
                operands.append(Operand(name, scratch[name], "scratch"))
                arguments.append(("scratch", (name, _C_TYPES[scratch[name]]().itemsize)))
                types += [None, np.int32]
                continue
            slot = step.slots[name]
            ctype = slot.dtype.ctype
            if isinstance(slot, Value):
                operands.append(Operand(name, ctype, "value"))
                arguments.append(("value", name))
                types.append(_C_TYPES[ctype])
            elif name not in step.writes:
                operands.append(Operand(name, ctype, "read"))
                arguments.append(("buffer", name))
                types += [None, np.int32]
            elif step.direction == FORWARD:
                operands.append(Operand(name, ctype, "write"))
                arguments.append(("buffer", name))
                types += [None, np.int32]
            else:
                operands.append(Operand(name, ctype, "accumulate"))
                arguments.append(("accumulate", name))
                types += [None, np.int32, np.int32]
        arguments += [("fixed", int(value)) for value in spec.sizes.values()]
        types += [np.int32] * len(spec.sizes)
        for name, ctype in spec.scalars.items():
            arguments.append(("scalar", name))
            types.append(_C_TYPES[spec.constants["real"] if ctype == "real" else ctype])
        if spec.tables:
            arguments.append(("fixed", self._table(spec)))
            types.append(None)
        kernel = self._build(step, spec, render(spec, tuple(operands)))
        kernel.set_scalar_arg_dtypes(types)
        return _Prepared(kernel, arguments, spec, self.queue, self.cl.enqueue_nd_range_kernel)

    def _table(self, spec: KernelSpec) -> Any:
        values: list[int] = []
        for name, table in spec.tables.items():
            if len(table) > MAX_RANK:
                raise BackendError(spec.kernel, f"at most {MAX_RANK} axes that do not merge", f"{name} is {table}")
            values += [*table, *([0] * (MAX_RANK - len(table)))]
        key = tuple(values)
        buffer = self._tables.get(key)
        if buffer is None:
            flags = self.cl.mem_flags.READ_ONLY | self.cl.mem_flags.COPY_HOST_PTR
            buffer = self._tables[key] = self.cl.Buffer(self.context, flags, hostbuf=np.array(values, np.int32))
        return buffer

    def _build(self, step: Step, spec: KernelSpec, source: str) -> Any:
        program = self._kernels.get(source)
        if program is None:
            double = "double" in source
            if double:
                source_text = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n" + source
            else:
                source_text = source
            options = list(BUILD_OPTIONS_FP64 if double else BUILD_OPTIONS)
            try:
                program = self.cl.Program(self.context, source_text).build(options, cache_dir=False)
            except self.cl.Error as error:
                digest = hashlib.sha256(source.encode()).hexdigest()[:12]
                path = config.cache_folder() / f"failed-{spec.kernel}-{digest}.cl"
                path.write_text(source_text)
                raise KernelBuildError(
                    f"{step.op.name} ({step.direction})",
                    f"kernel {spec.kernel} must build on {self.description}",
                    f"the compiler said:\n{error}\n(source kept in {path})",
                    "Please report this with the source and the device's name.",
                ) from error
            self._kernels[source] = program
        # A kernel object of its own for each signature: retrieving it once is what makes a launch cheap.
        return self.cl.Kernel(program, spec.kernel)


class _Lowered(Lowered):
    def __init__(self, backend: OpenCLBackend, step: Step, kernels: list[_Prepared], scratch: dict[str, int]) -> None:
        self.backend = backend
        self.step = step
        self.kernels = kernels
        self.scratch = scratch

    def bind(self, scratch: Mapping[str, tuple[Any, int]]) -> None:
        for kernel in self.kernels:
            kernel.kernel.set_args(*kernel.bind(self.step, scratch))

    def launches(self) -> Sequence[Launch]:
        return [partial(k.enqueue, k.queue, k.kernel, k.global_size, k.local_size) for k in self.kernels]

    def specs(self) -> Sequence[KernelSpec]:
        return [kernel.spec for kernel in self.kernels]

    def timed(self) -> Sequence[Callable[[], int]]:
        return [self.backend.timed(k.kernel, k.global_size, k.local_size) for k in self.kernels]


class _Launch:
    """A prepared kernel with its arguments bound."""

    __slots__ = ("kernel", "values")

    def __init__(self, kernel: _Prepared, values: list[Any]) -> None:
        self.kernel = kernel
        self.values = values

    def __call__(self) -> None:
        self.kernel.launch(self.values)
