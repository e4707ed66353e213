"""The OpenCL backend: context, building, and one prepared kernel for each signature of a step."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from struct import Struct
from time import perf_counter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from tinyedge import config
from tinyedge.backends.arguments import (
    ARENA,
    COUNTERS,
    Argument,
    check_sizes,
    constant_text,
    identity,
    origin_of,
    value_of,
)
from tinyedge.backends.base import SMALLER, Backend, Launch, Lowered, Origin, Placement
from tinyedge.backends.binaries import Binaries
from tinyedge.backends.platforms import BUILD_OPTIONS, DeviceEntry, pyopencl_module
from tinyedge.backends.regions import LARGEST, Region, Slabs
from tinyedge.chain import Shared
from tinyedge.drawn import Drawn, plain_operands
from tinyedge.dtypes import DType, float64, int64
from tinyedge.errors import BackendError, DtypeError, KernelBuildError, OutOfMemoryError
from tinyedge.fusion import Kernel, Place
from tinyedge.kernels.render import Part, Source, render
from tinyedge.kernels.shared import APART, ORDERS, groups_of, is_flat, local_bytes, render_shared
from tinyedge.kernels.spec import MAX_RANK, Device, KernelSpec, Operand
from tinyedge.kernels.tile import Product, Tile
from tinyedge.kernels.tune import remembered
from tinyedge.shapes import Shape
from tinyedge.tape import Slot, Step, Storage

BUILD_OPTIONS_FP64 = ("-cl-std=CL1.2",)
TIMED_LAUNCHES = 20
"""In a row: as in a program, where a launch is prepared while the one before it runs."""

PROGRAM_KERNELS = 24
"""At most so many in one program: few enough to find the one that is refused, by building each alone."""
_C_TYPES: dict[str, Any] = {
    "char": np.int8, "uchar": np.uint8, "short": np.int16, "int": np.int32, "uint": np.uint32, "long": np.int64,
    "float": np.float32, "double": np.float64,
}  # fmt: skip
_C_NAMES = {kind: name for name, kind in _C_TYPES.items()}

MOST_IN_CHAIN = 64
"""Kernels in one launch in which they wait for each other: while the device does one, the host gets the next ready.
On an H200, chains of 64 and of 200 took the device as long, and about as long to build."""

FIRST_IN_CHAIN = 8
GROWTH_OF_CHAINS = 1.5
"""Of the chains of a program: a short first one lets the device begin soon, and while it does one the next, longer one
is made ready. With MobileNet v1 on an H200 a kernel takes 5 us, and the host 2 us to launch it in a chain, or 4 us when
other programs ran in between.
"""

GROUPS_OF_UNIT = 4
"""Of a kernel in a chain: about as many groups as a compute unit has at work at a time."""

CHAIN_OPTIONS = {
    "ptx": (*BUILD_OPTIONS, "-cl-nv-maxrregcount=64"),
    "c11": ("-cl-std=CL3.0", "-cl-single-precision-constant"),
}
"""What builds a chain. On NVIDIA's GPUs all its kernels get the registers of the largest, which must not
be so many that few groups run at a time."""


def _packer(kind: Any) -> Callable[[Any], bytes]:
    """What makes the bytes that the driver takes of an argument: of a number, or if ``kind`` is None of a buffer."""
    if kind is None:
        return lambda buffer: buffer.int_ptr.to_bytes(8, sys.byteorder)
    if kind is np.int32:  # offsets, most of all: a tenth of what NumPy's numbers take
        return Struct("=i").pack
    return lambda value: bytes(kind(value).tobytes())


class _Prepared:
    """One kernel of a signature: everything but the buffers and the numbers of a call."""

    __slots__ = ("arguments", "enqueue", "global_size", "kernel", "local_size", "lock", "queue", "spec")

    def __init__(self, kernel: Any, arguments: list[Argument], spec: KernelSpec, queue: Any, enqueue: Any) -> None:
        self.kernel = kernel
        self.arguments = arguments
        self.spec = spec
        self.global_size = spec.global_size
        self.local_size = spec.local_size
        self.queue = queue
        self.enqueue = enqueue
        self.lock = threading.Lock()

    def bind(self, step: Step, scratch: Mapping[Place, tuple[Any, int]]) -> list[Any]:
        """The values of the arguments for ``step``."""
        return [value_of(argument, step, scratch) for argument in self.arguments]

    def enqueue_alone(self) -> None:
        self.enqueue(self.queue, self.kernel, self.global_size, self.local_size)

    def launch(self, values: list[Any]) -> None:
        # clSetKernelArg on one kernel object is not thread-safe; the enqueue copies the arguments.
        with self.lock:
            self.kernel.set_args(*values)
            self.enqueue(self.queue, self.kernel, self.global_size, self.local_size)


class _Rendered(NamedTuple):
    """A launch before it is built."""

    title: str  # what it does, in words
    spec: KernelSpec
    source: Source
    arguments: list[Argument]
    types: list[Any]
    chained: Sequence[KernelSpec] = ()


@dataclass(frozen=True, eq=False)
class _Draft:
    """A kernel before it is rendered, by itself or as a part of a launch."""

    title: str
    part: Part
    baked: bool
    arguments: list[Argument]
    types: list[Any]

    @property
    def spec(self) -> KernelSpec:
        return self.part.spec

    @cached_property
    def rendered(self) -> _Rendered:
        return _Rendered(self.title, self.spec, render(self.part, self.baked), self.arguments, self.types)

    @cached_property
    def is_flat(self) -> bool:
        return is_flat(self.rendered.source.text)

    @cached_property
    def local_bytes(self) -> int:
        return local_bytes(self.part, self.baked)

    @property
    def argument_bytes(self) -> int:
        return sum(8 if kind is None else np.dtype(kind).itemsize for kind in self.types)


class OpenCLBackend(Backend):
    """One OpenCL device: a context, an in-order queue, a pool of buffers, and the kernels prepared so far."""

    def __init__(self, entry: DeviceEntry) -> None:
        super().__init__()
        cl = pyopencl_module()
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
        self.slabs = Slabs(self._buffer)
        extensions = str(entry.device.extensions).split()
        self.has_fp64 = "cl_khr_fp64" in extensions
        self.has_int64 = str(entry.device.profile) != "EMBEDDED_PROFILE" or "cles_khr_int64" in extensions
        chains = entry.takes_chains and config.chains()
        self.device = Device(
            kind="cpu" if entry.is_cpu else "gpu",
            vector_width=16 if entry.is_cpu else 4,
            native_width=min(16, max(4, int(entry.device.native_vector_width_float))),
            compute_units=int(entry.device.max_compute_units),
            max_work_group=int(entry.device.max_work_group_size),
            local_bytes=int(entry.device.local_mem_size),
            group_items=256 if chains else 64,
            order="ptx" if chains else "",
            tuned=remembered(entry.identity),
        )
        self.binaries = Binaries(config.cache_path() / "binaries", entry.identity, config.keeps_binaries())
        self.argument_bytes = int(entry.device.max_parameter_size)
        # On a CPU constant sizes made no step of a model faster, and cost MobileNet v2 another 40 s of builds.
        self.bakes = not entry.is_cpu
        self._prepared: dict[Any, tuple[list[_Prepared], dict[str, int]]] = {}
        self._kernels: dict[Source, Any] = {}  # the built program that holds each
        self._tables: dict[tuple[int, ...], Any] = {}
        self._drafts: WeakKeyDictionary[Kernel, _Draft] = WeakKeyDictionary()  # of programs that are being made

    def use_tuned(self, choices: Mapping[Product, Tile]) -> None:
        """Lower products with these tiles from now on."""
        self.device = replace(self.device, tuned=choices)
        self._prepared.clear()

    def check_dtype(self, dtype: DType) -> None:
        if (dtype is float64 and not self.has_fp64) or (dtype is int64 and not self.has_int64):
            smaller = "float32" if dtype is float64 else "int32"
            raise DtypeError(
                self.name,
                f"expected {smaller} or another dtype that this device has",
                f"got {dtype.name}, which it does not have",
                f"Use dtype=te.{smaller}, or the numpy backend.",
            )

    def allocate(self, nbytes: int) -> Region:
        # It begins with its buffer: places in scratch memory and in an arena are told by their offsets there alone.
        return Region(self._buffer(nbytes))

    def reserve(self, nbytes: int) -> Region:
        if self.device.chains and nbytes <= LARGEST:
            with suppress(OutOfMemoryError):  # there may be room for so little
                return self.slabs.take(nbytes)
        return self.allocate(nbytes)

    def _buffer(self, nbytes: int) -> Any:
        size = max(nbytes, 4)  # a buffer of no bytes is an error in OpenCL
        try:
            with suppress(self.cl.Error, MemoryError):
                return self.pool.allocate(size)
            self.trim()
            return self.pool.allocate(size)
        except (self.cl.Error, MemoryError) as error:
            raise self._out_of_memory(f"an allocation of {nbytes} bytes", error) from error

    def trim(self) -> None:
        self.slabs.trim()
        self.pool.free_held()

    def _out_of_memory(self, what: str, error: Exception) -> OutOfMemoryError:
        device = self.entry.device
        return OutOfMemoryError(
            self.name,
            f"{what} must fit beside {self.memory.allocated_bytes} bytes in use",
            f"the device refused it ({error}); it says that it has {device.global_mem_size} bytes, "
            f"at most {device.max_mem_alloc_size} for one allocation",
            SMALLER,
        )

    def _refused_use(self, error: Exception) -> OutOfMemoryError:
        return self._out_of_memory("memory that is used for the first time", error)

    @contextmanager
    def _memory_in_use(self) -> Iterator[None]:
        """Some devices allocate a buffer when it is first used, and fail only then."""
        try:
            yield
        except self.cl.MemoryError as error:
            raise self._refused_use(error) from error

    def write(self, storage: Storage, array: np.ndarray[Any, Any]) -> None:
        if array.nbytes:
            with self._memory_in_use():
                region = storage.buffer
                values = np.ascontiguousarray(array)
                self.cl.enqueue_copy(self.queue, region.handle, values, dst_offset=region.offset, is_blocking=True)

    def read(self, slot: Slot) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any] = np.empty(slot.shape, slot.dtype.stored)
        if slot.numel:
            region = slot.storage.buffer
            offset = region.offset + slot.offset * slot.dtype.itemsize
            with self._memory_in_use():
                self.cl.enqueue_copy(self.queue, result, region.handle, src_offset=offset, is_blocking=True)
        return result

    def finish(self) -> None:
        with self._memory_in_use():
            self.queue.finish()

    def launch(self, launches: Sequence[Launch]) -> None:
        try:  # no context manager: this is in the way of every eager step
            for launch in launches:
                if status := launch():
                    raise self._refused_launch(status)
        except self.cl.MemoryError as error:
            raise self._refused_use(error) from error

    def _refused_launch(self, status: int) -> Exception:
        if status in (-4, -5, -6):  # memory objects, resources, the host's memory
            return self._refused_use(RuntimeError(f"OpenCL error {status}"))
        return BackendError(self.name, "the device must take a launch", f"it refused one with OpenCL error {status}")

    @cached_property
    def bare_enqueue(self) -> Any:
        """clEnqueueNDRangeKernel without an event, which a program has no use for; None where it cannot be reached."""
        return self._driver_function("clEnqueueNDRangeKernel")

    @cached_property
    def bare_set_argument(self) -> Any:
        """clSetKernelArg, at a third of what it costs through pyopencl; None where it cannot be reached."""
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
        scratch: dict[Place, tuple[Any, int]] = {}
        for name, nbytes in needed.items():
            scratch[step.number, name] = self.allocate(nbytes), 0
        return [_Launch(kernel, kernel.bind(step, scratch)) for kernel in kernels]

    def _lower(self, step: Step) -> tuple[list[_Prepared], dict[str, int]]:
        """The kernels of ``step``, and the bytes of the scratch memory that they share."""
        specs = step.kernels(self.device)
        drafts = [self._draft(step, spec, plain_operands(step, spec)).rendered for spec in specs]
        self._build(drafts)
        kernels = [self._kernel(draft) for draft in drafts]
        for kernel, draft in zip(kernels, drafts, strict=True):
            kernel.kernel.set_scalar_arg_dtypes(draft.types)
        return kernels, {s.name: s.nbytes for spec in specs for s in spec.scratch}

    def time(self, step: Step, device: Device) -> float:
        """Seconds that ``step`` takes as it is lowered for ``device``, launches included, over memory of its own."""
        slots = {
            name: Slot(Storage(self, slot.extent_bytes), slot.dtype, slot.layout()) if isinstance(slot, Slot) else slot
            for name, slot in step.slots.items()
        }
        copy = step.over(slots)
        before, self.device = self.device, device
        try:
            kernels, needed = self._lower(copy)
        finally:
            self.device = before
        scratch: dict[Place, tuple[Any, int]] = {
            (copy.number, name): (self.allocate(nbytes), 0) for name, nbytes in needed.items()
        }
        launches = [_Launch(kernel, kernel.bind(copy, scratch)) for kernel in kernels]
        best = float("inf")
        for repeats in (1, 4, *(TIMED_LAUNCHES,) * 5):  # the first few warm up
            self.finish()
            start = perf_counter()
            for _ in range(repeats):
                self.launch(launches)
            self.finish()
            if repeats == TIMED_LAUNCHES:
                best = min(best, (perf_counter() - start) / repeats)
        return best

    def lower_all(self, launches: Sequence[Shared], placement: Placement) -> list[Lowered]:
        rendered = []
        for shared in launches:
            kernels = [part for kernel in shared.kernels for part in (kernel, *kernel.beside)]
            parts = [self._part(kernel, placement.temporary) for kernel in kernels]
            rendered.append(parts[0].rendered if len(parts) == 1 else self._joined(parts, shared, placement))
        for shared in launches:
            for kernel in shared.kernels:
                for part in (kernel, *kernel.beside):
                    self._drafts.pop(part, None)  # its text would stay as long as the program
        self._build(rendered)
        return [_Lowered(self, self._kernel(each), each) for each in rendered]

    def shares_launch(self, kernels: Sequence[Kernel], temporary: Collection[Place]) -> bool:
        # On a CPU a launch is cheap, and kernels that are alone can be shared between shapes.
        if self.device.is_cpu or self.device.chains:
            return False
        parts = [self._part(kernel, temporary) for kernel in kernels]
        return (
            groups_of([part.spec for part in parts], [part.is_flat for part in parts]) is not None
            and max(part.local_bytes for part in parts) <= self.device.local_bytes
            and sum(part.argument_bytes for part in parts) <= self.argument_bytes
        )

    def chains(self, kernels: Sequence[Kernel], temporary: Collection[Place]) -> list[Sequence[Kernel]]:
        if not self.device.chains:
            return super().chains(kernels, temporary)
        runs: list[Sequence[Kernel]] = []
        run: list[Kernel] = []
        room = 0
        most = float(FIRST_IN_CHAIN)
        for number, kernel in enumerate(kernels):
            part = self._part(kernel, temporary)
            if not self._fits_chain(part):
                run = []
                runs.append([kernel])
                continue
            is_full = len(run) >= most and len(kernels) - number > FIRST_IN_CHAIN // 2
            if run and is_full:
                most *= GROWTH_OF_CHAINS
            if not run or part.argument_bytes > room or is_full or len(run) == MOST_IN_CHAIN:
                run, room = [], self.argument_bytes
                runs.append(run)
            run.append(kernel)
            room -= part.argument_bytes
        return runs

    def _fits_chain(self, part: _Draft) -> bool:
        same = part.is_flat or prod(part.spec.local_size) == self.device.group()
        fits = part.local_bytes <= self.device.local_bytes and not part.spec.is_heavy
        return same and fits and not part.rendered.source.has_double

    def _part(self, kernel: Kernel, temporary: Collection[Place]) -> _Draft:
        """A kernel without those beside it."""
        draft = self._drafts.get(kernel)
        if draft is None:
            drawn = Drawn(kernel, temporary, self.device, self.bakes)
            draft = self._drafts[kernel] = self._draft(kernel.step, drawn.spec, drawn.operands, drawn)
        return draft

    def _joined(self, parts: Sequence[_Draft], shared: Shared, placement: Placement) -> _Rendered:
        """One launch of several kernels: what each is given that stays the same becomes a part of the source."""
        order = ORDERS[self.device.order] if shared.is_chain else None
        named: dict[Any, str] = {}
        declared: list[str] = []
        arguments: list[Argument] = [COUNTERS] if order else []
        arguments += [ARENA] if any(part.arguments[:1] == [ARENA] for part in parts) else []
        types: list[Any] = [None] * len(arguments)
        given = []
        for part in parts:
            texts = []
            for argument, kind in zip(part.arguments, part.types, strict=True):
                if argument == ARENA:
                    continue
                text = constant_text(argument, placement)
                if text is None:
                    key = identity(argument, placement)
                    text = named.get(key)
                if text is None:
                    text = named[key] = f"a{len(named)}_"
                    buffer = "__constant int*" if argument[0] == "fixed" else "__global char*"
                    declared.append(f"{buffer if kind is None else f'const {_C_NAMES[kind]}'} {text}")
                    arguments.append(argument)
                    types.append(kind)
                texts.append(text)
            given.append(texts)
        specs = [part.spec for part in parts]
        source, groups, items = render_shared(
            [part.part for part in parts], given, declared, self.bakes, shared.waits, order,
            GROUPS_OF_UNIT * self.device.compute_units,
        )  # fmt: skip
        title = " | ".join(part.title for part in parts)
        kernel = "chain" if order else "beside"
        spec = KernelSpec(kernel, "", (), (groups * items,), (items,))
        return _Rendered(title, spec, source, arguments, types, specs if len(shared.kernels) > 1 else ())

    @cached_property
    def orders_groups(self) -> bool:
        """Whether the device says that OpenCL C 3.0's fences and atomics reach from one work-group to another.

        Tests ask that before they take a device for one that chains; it does not say that groups which run go on.
        """
        device = self.entry.device
        try:
            fences, atomics = device.atomic_fence_capabilities, device.atomic_memory_capabilities
        except (self.cl.Error, AttributeError):
            return False
        kinds = self.cl.device_atomic_capabilities
        wanted = kinds.ORDER_ACQ_REL | kinds.SCOPE_DEVICE
        return bool(fences & wanted == wanted and atomics & kinds.SCOPE_DEVICE)

    def _draft(self, step: Step, spec: KernelSpec, operands: Sequence[Operand], drawn: Drawn | None = None) -> _Draft:
        """One kernel of ``step``: for any call of its kind; or as ``drawn`` for one program."""
        check_sizes(spec)
        owner = None if drawn is None else step
        elsewhere = {} if drawn is None else drawn.arguments
        baked = drawn is not None and self.bakes
        arguments: list[Argument] = []
        types: list[Any] = []
        for operand in operands:
            taken, item = elsewhere.get(operand.name, (owner, operand.name))
            ctype = _C_TYPES[operand.ctype]
            if operand.kind == "inlined":
                continue
            if operand.kind == "size":
                arguments.append(("fixed", None, item))
                types.append(ctype)
            elif operand.kind in ("value", "scalar"):
                arguments.append((operand.kind, taken, item))
                types.append(ctype)
            else:
                is_scratch = operand.kind == "scratch"
                if not operand.in_arena:
                    arguments.append(("scratch" if is_scratch else "buffer", taken, item))
                    types.append(None)
                offset = ("scratch offset", taken, (item, np.dtype(ctype).itemsize))
                arguments.append(offset if is_scratch else ("offset", taken, item))
                types.append(np.int32)
                if operand.kind == "accumulate":
                    arguments.append(("accumulates", taken, item))
                    types.append(np.int32)
        if not baked:
            arguments += [("fixed", None, int(value)) for value in spec.sizes.values()]
            types += [np.int32] * len(spec.sizes)
        for name, kind in spec.scalars.items():
            arguments.append(("scalar", owner, name))
            types.append(_C_TYPES[spec.constants["real"] if kind == "real" else kind])
        if spec.tables and not baked:
            arguments.append(("fixed", None, self._table(spec)))
            types.append(None)
        part = Part(spec, tuple(operands), () if drawn is None else tuple(drawn.hooks))
        steps = [step] if drawn is None else drawn.steps
        title = " + ".join(f"{each.op.name} ({each.direction})" for each in steps)
        if any(operand.in_arena for operand in operands):
            arguments.insert(0, ARENA)
            types.insert(0, None)
        return _Draft(title, part, baked, arguments, types)

    def _kernel(self, draft: _Rendered) -> _Prepared:
        # A kernel object of its own for each signature: retrieving it once is what makes a launch cheap.
        kernel = self.cl.Kernel(self._kernels[draft.source], draft.source.function)
        return _Prepared(kernel, draft.arguments, draft.spec, self.queue, self.cl.enqueue_nd_range_kernel)

    def zeros(self, count: int) -> Any:
        """A buffer of so many ints, all of them 0."""
        flags = self.cl.mem_flags.READ_WRITE | self.cl.mem_flags.COPY_HOST_PTR
        return self.cl.Buffer(self.context, flags, hostbuf=np.zeros(count, np.int32))

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

    def _build(self, drafts: Sequence[_Rendered]) -> None:
        """Build what is not built yet: many kernels in one program, since each program has a price of its own.

        Chains are long enough to be built side by side: MobileNet v2's first step on an H200 takes 23 s so, and 31 s if
        they are built one after the other.
        """
        missing = list({draft.source: draft for draft in drafts if draft.source not in self._kernels}.values())
        chains = [draft for draft in missing if draft.source.is_chain]
        if chains:
            with ThreadPoolExecutor() as pool:
                for built in pool.map(lambda draft: self._build_together([draft], self._options(draft.source)), chains):
                    self._kernels.update(built)
        others = [draft for draft in missing if not draft.source.is_chain]
        for options in dict.fromkeys(self._options(draft.source) for draft in others):
            alike = [draft for draft in others if self._options(draft.source) == options]
            for start in range(0, len(alike), PROGRAM_KERNELS):
                self._kernels.update(self._build_together(alike[start : start + PROGRAM_KERNELS], options))

    def _options(self, source: Source) -> tuple[str, ...]:
        if source.has_double:
            return BUILD_OPTIONS_FP64
        return CHAIN_OPTIONS[self.device.order] if source.is_chain else BUILD_OPTIONS

    def _build_together(self, drafts: Sequence[_Rendered], options: tuple[str, ...]) -> dict[Source, Any]:
        """The program of each source: one for all."""
        text = "\n".join(draft.source.text for draft in drafts)
        if drafts[0].source.has_double:
            text = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n" + text
        try:
            program = self._program(text, options)
        except self.cl.Error as error:
            if len(drafts) > 1:  # each alone: then the message names the one that is refused
                return {source: p for draft in drafts for source, p in self._build_together([draft], options).items()}
            spec, source = drafts[0].spec, drafts[0].source
            path = config.cache_folder() / f"failed-{source.function}.cl"
            path.write_text(text)
            raise KernelBuildError(
                drafts[0].title,
                f"kernel {spec.kernel} must build on {self.description}",
                f"the compiler said:\n{error}\n(source kept in {path})",
                "Please report this with the source and the device's name."
                + (" TINYEDGE_CHAIN=0 does without such kernels." if source.is_chain else ""),
            ) from error
        return {draft.source: program for draft in drafts}

    def _program(self, text: str, options: tuple[str, ...]) -> Any:
        """``text``, built, or from the binary that an earlier run left."""
        key = self.binaries.key(text, options)
        binary = self.binaries.load(key)
        if binary:
            try:
                return self.cl.Program(self.context, [self.entry.device], [binary]).build(list(options))
            except self.cl.Error as error:
                self.binaries.reject(key, str(error))
        program = self.cl.Program(self.context, text).build(list(options), cache_dir=False)
        self.binaries.store(key, program.get_info(self.cl.program_info.BINARIES)[0])
        return program


class _Lowered(Lowered):
    def __init__(self, backend: OpenCLBackend, kernel: _Prepared, rendered: _Rendered) -> None:
        self.backend = backend
        self.kernel = kernel
        self.specs = rendered.chained or (rendered.spec,)
        self._handle = ctypes.c_void_p(kernel.kernel.int_ptr)
        # Of a chain; its own, since a profile launches on another queue. Each launch leaves them at 0.
        self._counters: Any = backend.zeros(APART * (1 + len(self.specs))) if COUNTERS in kernel.arguments else None
        self._types = rendered.types
        self._packers = [_packer(kind) for kind in rendered.types]
        self._taken: dict[Origin, list[int]] = {}  # the arguments that depend on each
        for index, argument in enumerate(kernel.arguments):
            origin = origin_of(argument)
            if origin is not None:
                self._taken.setdefault(origin, []).append(index)

    def bind(self, scratch: Mapping[Place, tuple[Any, int]]) -> None:
        for index in range(len(self.kernel.arguments)):
            self._set(index, scratch)

    def origins(self) -> Iterable[Origin]:
        return self._taken

    def rebind(self, origin: Origin) -> None:
        for index in self._taken[origin]:
            self._set(index, {})

    def _set(self, index: int, scratch: Mapping[Place, tuple[Any, int]]) -> None:
        argument, kind = self.kernel.arguments[index], self._types[index]
        value = self._counters if argument == COUNTERS else value_of(argument, None, scratch)
        bare = self.backend.bare_set_argument
        if bare is None:
            self.kernel.kernel.set_arg(index, value if kind is None else kind(value))
            return
        given = self._packers[index](value)
        if status := bare(self._handle, index, len(given), given):
            raise BackendError(self.backend.name, "a kernel must take its arguments", f"OpenCL error {status}")

    def launcher(self) -> Launch:
        kernel = self.kernel
        sizes = [(ctypes.c_size_t * 3)(*size) for size in (kernel.global_size, kernel.local_size)]
        bare = self.backend.bare_enqueue
        if bare is None:
            return kernel.enqueue_alone
        rank = ctypes.c_uint(len(kernel.global_size))
        self.sizes = sizes  # they, the queue and the kernel must outlive the call that refers to them
        queue, handle = ctypes.c_void_p(kernel.queue.int_ptr), ctypes.c_void_p(kernel.kernel.int_ptr)
        return partial(bare, queue, handle, rank, None, *map(ctypes.byref, sizes), ctypes.c_uint(0), None, None)

    def timed(self) -> Callable[[], int]:
        return self.backend.timed(self.kernel.kernel, self.kernel.global_size, self.kernel.local_size)


class _Launch:
    """A prepared kernel with its arguments bound."""

    __slots__ = ("kernel", "values")

    def __init__(self, kernel: _Prepared, values: list[Any]) -> None:
        self.kernel = kernel
        self.values = values

    def __call__(self) -> None:
        self.kernel.launch(self.values)
