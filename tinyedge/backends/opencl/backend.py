"""The OpenCL backend of one device: context and queue, building kernels, eager launches, launches of programs.

In: Steps, which are lowered and prepared once for each signature; LaunchGroups of a program, which are rendered as one
kernel each. Out: launches on an in-order queue. Kernels that are not built yet are built many at a time.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from time import perf_counter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from tinyedge import config
from tinyedge.backends.base import Backend, DescribedGroup, GroupsLimited, Launch, Lowered, note_launched
from tinyedge.backends.layout import ProgramLayout, StepLayout
from tinyedge.backends.opencl.binaries import Binaries, kept_source
from tinyedge.backends.opencl.binding import ARENA, Argument, check_sizes, described, table_of
from tinyedge.backends.opencl.devices import BUILD_OPTIONS, DeviceEntry, pyopencl_module, was_forked
from tinyedge.backends.opencl.driver import OUT_OF_MEMORY, code_of, forked, forsake_in_child, refusal
from tinyedge.backends.opencl.launches import (
    BoundLaunch,
    Built,
    EagerLaunch,
    Prepared,
    Rendered,
    SetOneByOne,
    Table,
    ToBuild,
    bytes_of,
)  # fmt: skip
from tinyedge.backends.opencl.memory import SLAB_BYTES, Allocation, SlabAllocator
from tinyedge.backends.opencl.pool import Pool
from tinyedge.backends.opencl.range_flag import RangeFlag
from tinyedge.backends.opencl.recent import Recent
from tinyedge.dtypes import DType, float64, int64
from tinyedge.errors import BackendError, DtypeError, KernelBuildError, OutOfMemoryError
from tinyedge.ir.kernel import BufferId, Kernel
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.program import ProgramSpec, SourceSpec
from tinyedge.ir.spec import C_BYTES, Device, KernelSpec, Operand
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot, Storage
from tinyedge.kernels.fused import FusedSource, plain_operands
from tinyedge.kernels.persistent import APART, ORDERS, groups_of, render_group
from tinyedge.kernels.render import Part, Source, render
from tinyedge.kernels.tile import Product, Tile
from tinyedge.kernels.tuned import remembered
from tinyedge.shapes import INT_MAX, Shape

BUILD_OPTIONS_FP64 = ("-cl-std=CL1.2",)
TIMED_LAUNCHES = 20
"""Launches in a row for one measurement: as in a program, where the host prepares a launch while another one runs."""

MOST_LOWERINGS = 16
"""Attempts to lower a step for smaller and smaller work-groups: each at least halves them."""

PROGRAM_KERNELS = 24
"""The most kernels in one OpenCL program: few enough to find one that does not build by building each alone."""
MOST_IN_PERSISTENT = 64
"""The most kernels in a persistent kernel: while the device runs one, the host prepares the next. On an H200,
persistent kernels of 64 and of 200 kernels took the device the same time, and about the same time to build.
"""

FIRST_IN_PERSISTENT = 8
GROWTH_OF_PERSISTENT = 1.5
"""Each persistent kernel of a program may be so many times as long as the one before. A short first one lets the device
start early, and the host prepares the next, longer one while it runs. For MobileNet v1 on an H200 a kernel takes 5 us,
and the host needs 2 us per kernel of a persistent one, or 4 us when other programs ran in between.
"""

GROUPS_OF_UNIT = 4
"""Work-groups per compute unit of a kernel in a persistent kernel: about as many as a compute unit runs at a time."""

PERSISTENT_OPTIONS = {
    "ptx": (*BUILD_OPTIONS, "-cl-nv-maxrregcount=64"),
    "c11": ("-cl-std=CL3.0", "-cl-single-precision-constant"),
}
"""Build options of a persistent kernel. On NVIDIA's GPUs all its kernels get as many registers as the largest needs,
which must not be so many that only few work-groups run at a time."""


UPLOADED_BYTES = 32 << 20
"""Bytes of host memory for copies of uploads that are still in flight."""

PREPARED = 1024
BUILT = 1024
TABLES = 1024
"""Entries of the caches for signatures, sources, and tables of strides: the most recently used, and
as many older ones.
"""


@dataclass(frozen=True, eq=False)
class _Draft:
    """A lowered kernel that is not rendered yet; it will be a launch by itself or a part of a launch group."""

    step: Step
    title: str
    part: Part
    specialised: bool
    arguments: list[Argument]
    types: list[str]

    @property
    def spec(self) -> KernelSpec:
        return self.part.spec

    @cached_property
    def rendered(self) -> Rendered:
        source = sourced(render(self.part, self.specialised))
        return Rendered(self.title, self.spec, source, self.arguments, self.types, reports_of([self.spec]))

    @property
    def argument_bytes(self) -> int:
        return bytes_of(self.types)


class _PreparedStep(NamedTuple):
    """The kernels of a step's signature, their layout, and the bytes of each scratch buffer that they share."""

    kernels: Sequence[Prepared]
    layout: StepLayout
    scratch: Mapping[str, int]

    def bound(self, step: Step, allocate: Callable[[int], Any]) -> list[EagerLaunch]:
        # Scratch memory returns to the pool when the launches are gone. The queue is in order, so its next user runs
        # later.
        places = self.layout.places(step, {name: allocate(nbytes) for name, nbytes in self.scratch.items()})
        return [kernel.bound(places) for kernel in self.kernels]


def reports_of(specs: Iterable[KernelSpec]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(spec.reports for spec in specs if spec.reports))


def sourced(source: Source, order: str = "") -> SourceSpec:
    """``source``, with the options that it is built with. ``order``: that of the device, for a persistent kernel."""
    if source.has_double:
        return SourceSpec(source.function, source.text, BUILD_OPTIONS_FP64, False)
    options = PERSISTENT_OPTIONS[order] if order else BUILD_OPTIONS
    return SourceSpec(source.function, source.text, options, bool(order))


class OpenCLBackend(Backend):
    """One OpenCL device: a context, an in-order queue, a pool of buffers, and the kernels prepared so far."""

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
        self.name = entry.name
        self.description = entry.describe()
        self.entry = entry
        with self._asked("opening it"):
            self.context = cl.Context([entry.device])
            self.queue = cl.CommandQueue(self.context)
        self.pool = Pool(cl, self.context, self.queue, self.memory)
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
        self.binaries = Binaries(config.cache_path() / "binaries", entry.identity, config.keeps_binaries())
        self.argument_bytes = int(entry.asked("max_parameter_size", 1024))
        # What is larger a driver may refuse, or give and address wrongly: Intel's compiler must be told of it.
        self.largest_bytes = int(entry.asked("max_mem_alloc_size", 0)) or None
        self.counts_to = INT_MAX
        self.slabs = SlabAllocator(self._buffer, min(SLAB_BYTES, self.largest_bytes or SLAB_BYTES))
        # On a CPU constant sizes made no step of a model faster, and cost MobileNet v2 another 40 s of builds.
        self.specialises = not entry.is_cpu
        self._prepared: Recent[Any, _PreparedStep] = Recent(PREPARED)
        self._kernels: Recent[SourceSpec, Built] = Recent(BUILT)
        self._tables: Recent[tuple[int, ...], Table] = Recent(TABLES)
        # Of programs that are being made, and whether their arenas have several chunks.
        self._drafts: WeakKeyDictionary[Kernel, tuple[bool, _Draft]] = WeakKeyDictionary()
        self._nothing: Any = None  # a buffer for what has no bytes
        self._range_flag: RangeFlag | None = None  # only where a kernel may set it
        self._uploads: deque[tuple[Any, int]] = deque()  # events, which hold what is uploaded, and its bytes
        self._uploading_bytes = 0
        self._upload_lock = threading.RLock()
        forsake_in_child(self)

    def use_tuned(self, choices: Mapping[Product, Tile]) -> None:
        """Lower matrix products with these tiles from now on."""
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
        with self._asked("an upload"), self._upload_lock:
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
        with self._upload_lock:
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
                report = None if flag is None else flag.enqueue_read()
                self.cl.enqueue_copy(self.queue, result, allocation.handle, src_offset=offset, is_blocking=True)
                self._sweep()
                if flag is not None and report is not None:
                    flag.check(report[1])
        return result

    def finish(self) -> None:
        with self._asked("what was launched"):
            flag = self._range_flag
            report = None if flag is None else flag.enqueue_read()
            self.queue.finish()
            self._sweep()
            if flag is not None and report is not None:
                flag.check(report[1])

    def launch(self, launches: Sequence[Launch]) -> None:
        try:  # no context manager, which would slow down every eager step
            for launch in launches:
                if status := launch():
                    raise self._refused_launch(launch, status)
        except Exception as error:
            refused = self._refused_launch(launch, error) if isinstance(error, self.cl.Error) else error
            note_launched(refused, launches, launch)
            raise refused from error.__cause__ if refused is error else error

    def _refused_launch(self, launch: Launch, error: Exception | int) -> BackendError:
        return self._refusal(f"launching {getattr(launch, 'title', 'a kernel')}", error)

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
        with self._asked("a launch that is timed"):
            event = self.cl.enqueue_nd_range_kernel(self.timing_queue, kernel, global_size, local_size)

        def elapsed_ns() -> int:
            with self._asked("the time that a launch took"):
                event.wait()
                return int(event.profile.end - event.profile.start)

        return elapsed_ns

    def prepare(self, step: Step, allocate: Callable[[int], Any] | None = None) -> Sequence[Launch]:
        key = step.signature()
        found = self._prepared.get(key)
        if found is None:
            found = self._prepared[key] = self._lower(step, self.device)
        return found.bound(step, allocate or self.allocate)

    def _lower(self, step: Step, device: Device) -> _PreparedStep:
        for _ in range(MOST_LOWERINGS):
            specs = step.kernels(device)
            drafts = [self._draft(step, spec, plain_operands(step, spec)).rendered for spec in specs]
            built = self._build(drafts)
            over = self._too_large([(step, draft.spec, built[draft.source].limit) for draft in drafts])
            if over is None:
                break  # else lower again, for smaller work-groups
        else:
            assert over is not None
            raise over
        needed = {s.name: s.nbytes for spec in specs for s in spec.scratch}
        layout = StepLayout(needed)
        prepared = Prepared if hasattr(self.cl.Kernel, "_set_arg_multi") else SetOneByOne
        kernels = [prepared(self, built[draft.source], draft.described(layout, step)) for draft in drafts]
        return _PreparedStep(kernels, layout, needed)

    def _too_large(self, built: Iterable[tuple[Step, KernelSpec, int]]) -> GroupsLimited | None:
        """An error if a kernel of ``built`` needs a larger work-group than the device runs it with; else None.

        ``built`` gives steps, specs and that limit. A step that failed is lowered for the limit from now on. The
        device's general limit holds for kernels that use few registers; the limits of others show when they are built.
        """
        over = [(step, spec, limit) for step, spec, limit in built if prod(spec.local_size) > limit]
        for step, _, limit in over:
            key = step.op.name, step.direction
            self.device.limits[key] = min(limit, self.device.limits.get(key, limit))
        if not over:
            return None
        step, spec, limit = over[0]
        return GroupsLimited(
            f"{self.name}, {step.op.name} ({step.direction})",
            f"the device must run kernel {spec.kernel} in groups of {prod(spec.local_size)}",
            f"it takes at most {limit} work-items",
            "Please report this with the device's name.",
        )

    def time(self, step: Step, device: Device) -> float:
        """Seconds that ``step`` takes if lowered for ``device``, launches included, on memory of its own."""
        slots = {
            name: Slot(Storage(self, slot.extent_bytes), slot.dtype, slot.layout()) if isinstance(slot, Slot) else slot
            for name, slot in step.slots.items()
        }
        copy = step.over(slots)
        launches = self._lower(copy, device).bound(copy, self.allocate)
        best = float("inf")
        for repeats in (1, 4, *(TIMED_LAUNCHES,) * 5):  # the first ones warm up
            self.finish()
            start = perf_counter()
            for _ in range(repeats):
                self.launch(launches)
            self.finish()
            if repeats == TIMED_LAUNCHES:
                best = min(best, (perf_counter() - start) / repeats)
        return best

    def describe_all(self, groups: Sequence[LaunchGroup], layout: ProgramLayout) -> list[DescribedGroup]:
        drafts = [
            [
                self._part(kernel, layout.temporary, layout.is_split)
                for first in shared.kernels
                for kernel in (first, *first.siblings)
            ]
            for shared in groups
        ]
        for shared in groups:
            for kernel in shared.kernels:
                for part in (kernel, *kernel.siblings):
                    self._drafts.pop(part, None)  # its text would live as long as the program
        rendered = [
            parts[0].rendered if len(parts) == 1 else self._joined(parts, shared, layout)
            for parts, shared in zip(drafts, groups, strict=True)
        ]
        # Kernels are placed beside each other before it is known in how many chunks the arena is split.
        too_many = [
            len(parts) > 1 and each.argument_bytes > self.argument_bytes
            for parts, each in zip(drafts, rendered, strict=True)
        ]
        built = self._build([each for each, is_apart in zip(rendered, too_many, strict=True) if not is_apart])
        # Where a device runs a shared launch in smaller groups only, its kernels are launched one by one.
        apart = [
            is_apart or (len(parts) > 1 and prod(each.spec.local_size) > built[each.source].limit)
            for parts, each, is_apart in zip(drafts, rendered, too_many, strict=True)
        ]
        alone = [
            part for parts, is_apart in zip(drafts, apart, strict=True) if is_apart or len(parts) == 1 for part in parts
        ]
        built |= self._build([part.rendered for part in alone])
        over = self._too_large([(part.step, part.spec, built[part.rendered.source].limit) for part in alone])
        if over is not None:
            raise over

        return [
            DescribedGroup(
                each.title,
                [alone.described(layout) for alone in ([part.rendered for part in parts] if is_apart else [each])],
                each.group_specs or (each.spec,),
            )
            for parts, each, is_apart in zip(drafts, rendered, apart, strict=True)
        ]

    def load(self, spec: ProgramSpec) -> list[Lowered]:
        launches = [(launch, spec.sources[launch.source]) for launch in spec.launches]
        built = self._build([ToBuild(launch.title, source, source.function) for launch, source in launches])
        return [BoundLaunch(self, built[source], source.function, launch) for launch, source in launches]

    def fuses_horizontally(self, kernels: Sequence[Kernel], temporary: Collection[BufferId]) -> bool:
        # On a CPU a launch is cheap, and a kernel that is launched alone can be shared by several shapes.
        if self.device.is_cpu or self.device.persistent:
            return False
        parts = [self._part(kernel, temporary) for kernel in kernels]
        return (
            groups_of([part.spec for part in parts]) is not None
            and max(part.spec.local_bytes for part in parts) <= self.device.local_bytes
            and sum(part.argument_bytes for part in parts) <= self.argument_bytes
        )

    def launch_groups(
        self, kernels: Sequence[Kernel], temporary: Collection[BufferId], later: bool = False, is_split: bool = False
    ) -> list[Sequence[Kernel]]:
        if not self.device.persistent:
            return super().launch_groups(kernels, temporary, later, is_split)
        runs: list[Sequence[Kernel]] = []
        run: list[Kernel] = []
        room = 0
        most = float(MOST_IN_PERSISTENT if later else FIRST_IN_PERSISTENT)
        for number, kernel in enumerate(kernels):
            part = self._part(kernel, temporary, is_split)
            if not self._fits_persistent(part):
                run = []
                runs.append([kernel])
                continue
            is_full = len(run) >= most and len(kernels) - number > FIRST_IN_PERSISTENT // 2
            if run and is_full:
                most *= GROWTH_OF_PERSISTENT
            if not run or part.argument_bytes > room or is_full or len(run) == MOST_IN_PERSISTENT:
                run, room = [], self.argument_bytes
                runs.append(run)
            run.append(kernel)
            room -= part.argument_bytes
        return runs

    def _fits_persistent(self, part: _Draft) -> bool:
        same = not part.spec.grouped or prod(part.spec.local_size) == self.device.group()
        fits = part.spec.local_bytes <= self.device.local_bytes and not part.spec.is_heavy
        return same and fits and not part.part.has_double

    def _part(self, kernel: Kernel, temporary: Collection[BufferId], is_split: bool = False) -> _Draft:
        """A kernel without those beside it."""
        known = self._drafts.get(kernel)
        if known is not None and known[0] == is_split:
            return known[1]
        step = kernel.step
        fused = FusedSource(
            kernel, temporary, self.device.limited(step.op.name, step.direction), self.specialises, is_split
        )
        draft = self._draft(kernel.step, fused.spec, fused.operands, fused)
        self._drafts[kernel] = is_split, draft
        return draft

    def _joined(self, parts: Sequence[_Draft], shared: LaunchGroup, layout: ProgramLayout) -> Rendered:
        """The launch of a launch group. Arguments that are the same at every call become constants of the source."""
        order = ORDERS[self.device.order] if shared.is_persistent else None
        named: dict[Any, str] = {}
        declared: list[str] = []
        specs = [part.spec for part in parts]
        arguments: list[Argument] = [("counters", None, APART * (1 + len(specs)))] if order else []
        arguments += [ARENA] if any(part.arguments[:1] == [ARENA] for part in parts) else []
        types = [""] * len(arguments)
        given = []
        for part in parts:
            texts = []
            for argument, ctype in zip(part.arguments, part.types, strict=True):
                if argument == ARENA:
                    continue
                found = described(argument, ctype, layout)
                if found.kind == "number" and argument[0] != "value":
                    texts.append(str(found.value))
                    continue
                key = found, repr(found.value)  # 0.0 and -0.0 are equal
                if key not in named:
                    named[key] = f"a{len(named)}_"
                    buffer = "__constant int*" if argument[0] == "table" else "__global char*"
                    declared.append(f"{f'const {ctype}' if ctype else buffer} {named[key]}")
                    arguments.append(argument)
                    types.append(ctype)
                texts.append(named[key])
            given.append(texts)
        source, groups, items = render_group(
            [part.part for part in parts], given, declared, self.specialises, shared.waits, order,
            GROUPS_OF_UNIT * self.device.compute_units,
        )  # fmt: skip
        title = " | ".join(part.title for part in parts)
        kernel = "persistent" if order else "group"
        spec = KernelSpec(kernel, "", (), (groups * items,), (items,))
        return Rendered(
            title, spec, sourced(source, self.device.order if order else ""), arguments, types, reports_of(specs),
            specs if len(shared.kernels) > 1 else (),
        )  # fmt: skip

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

    def _draft(
        self, step: Step, spec: KernelSpec, operands: Sequence[Operand], fused: FusedSource | None = None
    ) -> _Draft:
        """One kernel of ``step``: for all calls of its signature, or, as ``fused``, for one program."""
        check_sizes(spec)
        owner = None if fused is None else step
        elsewhere = {} if fused is None else fused.arguments
        specialised = fused is not None and self.specialises
        arguments: list[Argument] = []
        types: list[str] = []
        for operand in operands:
            taken, item = elsewhere.get(operand.name, (owner, operand.name))
            ctype = operand.ctype
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
                    types.append("")
                offset = ("scratch offset", taken, (item, C_BYTES[ctype]))
                arguments.append(offset if is_scratch else ("offset", taken, item))
                types.append("int")
                if operand.kind == "accumulate":
                    arguments.append(("accumulates", taken, item))
                    types.append("int")
        if not specialised:
            arguments += [("fixed", None, int(value)) for value in spec.sizes.values()]
            types += ["int"] * len(spec.sizes)
        for name, kind in spec.scalars.items():
            arguments.append(("scalar", owner, name))
            types.append(spec.constants["real"] if kind == "real" else kind)
        if spec.tables and not specialised:
            arguments.append(("table", None, table_of(spec)))
            types.append("")
        if spec.reports:
            arguments.append(("range flag", None, None))
            types.append("")
        part = Part(spec, tuple(operands), () if fused is None else tuple(fused.hooks))
        steps = [step] if fused is None else fused.steps
        title = " + ".join(f"{each.op.name} ({each.direction})" for each in steps)
        if any(operand.in_arena for operand in operands):
            arguments.insert(0, ARENA)
            types.insert(0, "")
        return _Draft(step, title, part, specialised, arguments, types)

    def reporting(self, calls: Iterable[str]) -> RangeFlag:
        """The range flag, for kernels that set it in the name of these calls."""
        with self._upload_lock:
            if self._range_flag is None:
                self._range_flag = RangeFlag(self)
        for call in calls:
            self._range_flag.admit(call)
        return self._range_flag

    def zeros(self, count: int) -> Table:
        """A buffer of ``count`` ints that are all 0."""
        return Table(self, "counters of a launch", np.zeros(count, np.int32))

    def table(self, what: str, values: tuple[int, ...]) -> Table:
        """A buffer of these ints, which all that need the same ones share."""
        found: Table | None = self._tables.get(values)
        if found is None:
            found = self._tables[values] = Table(self, what, np.array(values, np.int32))
        return found

    def _build(self, drafts: Sequence[Rendered | ToBuild]) -> dict[SourceSpec, Built]:
        """The built kernel of each source. Those that are not built yet are built many to an OpenCL program, since each
        program has a fixed cost.

        Persistent kernels are long enough to be built in parallel: the first step of MobileNet v2 on an H200 takes 23 s
        so, and 31 s if they are built one after the other.
        """
        result: dict[SourceSpec, Built] = {}
        missing: dict[SourceSpec, Rendered | ToBuild] = {}
        for draft in drafts:
            found = self._kernels.get(draft.source)
            if found is None:
                missing[draft.source] = draft
            else:
                result[draft.source] = found
        if not missing:
            return result
        programs: dict[SourceSpec, Any] = {}
        persistent = [draft for draft in missing.values() if draft.source.is_persistent]
        if persistent:
            with ThreadPoolExecutor() as pool:
                for built in pool.map(lambda draft: self._build_together([draft]), persistent):
                    programs.update(built)
        others = [draft for draft in missing.values() if not draft.source.is_persistent]
        for options in dict.fromkeys(draft.source.options for draft in others):
            alike = [draft for draft in others if draft.source.options == options]
            for start in range(0, len(alike), PROGRAM_KERNELS):
                programs.update(self._build_together(alike[start : start + PROGRAM_KERNELS]))
        for source, program in programs.items():
            kernel = self.kernel_of(program, source.function, missing[source].title)
            result[source] = self._kernels[source] = Built(program, kernel, self._limit_of(kernel))
        return result

    def kernel_of(self, program: Any, function: str, title: str) -> Any:
        """A kernel object, which keeps the arguments that it was given last."""
        with self._asked(f"the kernel of {title}"):
            return self.cl.Kernel(program, function)

    def _limit_of(self, kernel: Any) -> int:
        """The largest work-group that the device runs ``kernel`` with."""
        most: int = self.device.max_work_group
        try:
            said = kernel.get_work_group_info(self.cl.kernel_work_group_info.WORK_GROUP_SIZE, self.entry.device)
        except self.cl.Error:  # then only the device's general limit is known
            return most
        return min(int(said) or most, most)

    def _build_together(self, drafts: Sequence[Rendered | ToBuild]) -> dict[SourceSpec, Any]:
        """The OpenCL program of each source: one for all of them, which have the same options."""
        text = "\n".join(draft.source.text for draft in drafts)
        options = drafts[0].source.options
        try:
            program = self.program(text, options)
        except (self.cl.Error, MemoryError) as error:
            if len(drafts) > 1:  # build each alone, so that the message names the one that does not build
                return {source: p for draft in drafts for source, p in self._build_together([draft]).items()}
            if code_of(error) in OUT_OF_MEMORY or isinstance(error, MemoryError):
                raise self._refusal(f"building {drafts[0].title}", error) from error
            source = drafts[0].source
            raise KernelBuildError(
                drafts[0].title,
                f"kernel {drafts[0].kernel} must build on {self.description}",
                f"the compiler said:\n{error}\n({kept_source(source.function, text)})",
                "Please report this with the source and the device's name."
                + (" TINYEDGE_PERSISTENT=0 does without such kernels." if source.is_persistent else ""),
            ) from error
        return {draft.source: program for draft in drafts}

    def program(self, text: str, options: tuple[str, ...]) -> Any:
        """``text``, built, or loaded from the binary that an earlier run kept."""
        key = self.binaries.key(text, options)
        binary = self.binaries.load(key)
        if binary:
            try:
                return self.cl.Program(self.context, [self.entry.device], [binary]).build(list(options))
            except self.cl.Error as error:
                self.binaries.reject(key, str(error))
        program = self.cl.Program(self.context, text).build(list(options), cache_dir=False)
        with suppress(self.cl.Error):  # then later runs build it again
            self.binaries.store(key, program.get_info(self.cl.program_info.BINARIES)[0])
        return program
