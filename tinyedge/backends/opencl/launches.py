"""Launches on an OpenCL device: built kernels with their arguments, of one eager call, or bound for many replays.

In: rendered kernels, built. Out: callables that enqueue them.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from tinyedge.backends.base import Described, Launch, Lowered
from tinyedge.backends.binding import Origin, Places, origin_of, value_of
from tinyedge.backends.layout import ArgumentLayout
from tinyedge.backends.opencl.binding import Argument, described
from tinyedge.backends.opencl.driver import forsake_in_child
from tinyedge.ir.program import ArgumentSpec, LaunchSpec, SourceSpec
from tinyedge.ir.spec import C_BYTES, KernelSpec
from tinyedge.ir.step import Step

C_TYPES: dict[str, Any] = {
    "char": np.int8, "uchar": np.uint8, "short": np.int16, "int": np.int32, "uint": np.uint32, "long": np.int64,
    "float": np.float32, "double": np.float64,
}  # fmt: skip


PACKED = frozenset("bBhHiIlLfd")
"""Number types, in NumPy's letters, that pyopencl packs into bytes."""


def _packer(ctype: str) -> Callable[[Any], bytes]:
    """A function that packs an argument into the driver's bytes: a number, or a buffer if ``ctype`` is ""."""
    if not ctype:
        return lambda buffer: buffer.int_ptr.to_bytes(8, sys.byteorder)
    if ctype == "int":  # mostly offsets: a tenth of the time that NumPy's numbers take
        return Struct("=i").pack
    kind = C_TYPES[ctype]
    return lambda value: bytes(kind(value).tobytes())


class Built:
    """A built kernel, for all steps that have its source."""

    __slots__ = ("kernel", "limit", "numbers", "program")

    def __init__(self, program: Any, kernel: Any, limit: int) -> None:
        self.program = program
        self.kernel = kernel
        self.numbers: Any = None  # what eager calls gave it last: a kernel keeps its arguments
        self.limit = limit  # the largest work-group that the device runs it with


class Prepared:
    """One kernel of a step's signature, with everything bound that does not change from call to call."""

    __slots__ = (
        "buffers", "built", "enqueue", "global_size", "local_size", "numbers", "offsets", "others", "outside", "own",
        "queue", "title", "varying",
    )  # fmt: skip

    def __init__(self, backend: Any, built: Built, launch: Described) -> None:
        self.built = built
        self.title = launch.title
        self.global_size, self.local_size = launch.global_size, launch.local_size
        self.queue, self.enqueue = backend.queue, backend.cl.enqueue_nd_range_kernel
        self.own = own_arguments(backend, launch)  # held, since their buffers are passed
        # As pyopencl takes them: indices and values, indices, types and values. Calls fill in what differs from call to
        # call, whose places the lists after these give.
        self.buffers: list[Any] = []
        numbers: list[Any] = []
        self.outside: list[tuple[int, int]] = []  # most of the buffers: which memory outside of the arena
        self.others: list[
            tuple[int, ArgumentSpec, Any]
        ] = []  # and numbers that pyopencl does not pack, with their types
        self.offsets: list[tuple[int, ArgumentSpec]] = []
        self.varying: list[tuple[int, ArgumentSpec]] = []
        for index, argument in enumerate(launch.arguments):
            kind = C_TYPES.get(argument.ctype)
            char = "" if kind is None else np.dtype(kind).char
            if char in PACKED:
                constant = argument.value if argument.kind in ("number", "offset") else None
                numbers += (index, char.encode(), constant)
                place = len(numbers) - 1
                if argument.kind == "offset":
                    self.offsets.append((place, argument))
                elif argument.kind != "number":
                    self.varying.append((place, argument))
            else:
                self.buffers += (index, self.own[index].handle if index in self.own else None)
                place = len(self.buffers) - 1
                if argument.kind == "outside":
                    self.outside.append((place, argument.index))
                elif index not in self.own:
                    self.others.append((place, argument, kind))
        self.numbers = tuple(numbers)

    def bound(self, places: Places) -> EagerLaunch:
        """A launch of the kernel on what ``places`` names."""
        buffers, outside = self.buffers.copy(), places.outside
        for place, index in self.outside:
            buffers[place] = outside[index].storage.buffer.handle
        for place, argument, kind in self.others:
            value = value_of(argument, places)
            buffers[place] = value if kind is None else kind(value)
        varying, numbers = self.varying, self.numbers
        for offset in self.offsets:
            slot = outside[offset[1].index]
            if slot.offset or slot.storage.buffer.offset:
                varying = [*varying, offset]
        if varying:
            changed = [*numbers]
            for place, argument in varying:
                changed[place] = value_of(argument, places)
            numbers = tuple(changed)
        return EagerLaunch(self.launch, tuple(buffers), numbers, places.chunks)

    def launch(self, buffers: tuple[Any, ...], numbers: tuple[Any, ...], scratch: Sequence[Any]) -> None:
        built = self.built
        kernel = built.kernel
        # The same as pyopencl's set_args, which would generate a Python module for each kernel.
        if buffers:
            kernel._set_arg_multi(buffers)
        if numbers is not built.numbers:
            built.numbers = None  # unless all of them are set
            kernel._set_arg_buf_pack_multi(numbers)
            built.numbers = numbers
        self.enqueue(self.queue, kernel, self.global_size, self.local_size)


class SetOneByOne(Prepared):
    """The same for versions of pyopencl without such methods."""

    __slots__ = ()

    def launch(self, buffers: tuple[Any, ...], numbers: tuple[Any, ...], scratch: Sequence[Any]) -> None:
        kernel = self.built.kernel
        for place in range(0, len(buffers), 2):
            kernel.set_arg(buffers[place], buffers[place + 1])
        for place in range(0, len(numbers), 3):
            kind = np.dtype(numbers[place + 1].decode()).type
            kernel.set_arg(numbers[place], kind(numbers[place + 2]))
        self.enqueue(self.queue, kernel, self.global_size, self.local_size)


def own_arguments(backend: Any, launch: Described | LaunchSpec) -> dict[int, Any]:
    """By index: what holds an argument that belongs to the launch: its tables, its counters, and the range flag."""
    found: dict[int, Any] = {}
    for index, argument in enumerate(launch.arguments):
        if argument.kind == "table":
            found[index] = backend.table(f"the strides of {launch.title}", argument.table)
        elif argument.kind == "counters":
            # A persistent kernel's own, since a profile launches on another queue; each launch leaves them at 0.
            found[index] = backend.zeros(int(argument.value))
        elif argument.kind == "range flag":
            found[index] = backend.reporting(launch.reports)
    return found


class Rendered(NamedTuple):
    """A rendered launch that is not built yet, with its arguments in terms of steps and their C types ("": buffers)."""

    title: str  # a description of what it does
    spec: KernelSpec
    source: SourceSpec
    arguments: list[Argument]
    types: list[str]
    reports: tuple[str, ...]  # the calls in whose name it reports indices out of range
    group_specs: Sequence[KernelSpec] = ()

    @property
    def kernel(self) -> str:
        return self.spec.kernel

    @property
    def argument_bytes(self) -> int:
        return bytes_of(self.types)

    def described(self, layout: ArgumentLayout, step: Step | None = None) -> Described:
        """The launch as plain data."""
        pairs = zip(self.arguments, self.types, strict=True)
        arguments = tuple(described(argument, ctype, layout, step) for argument, ctype in pairs)
        spec = self.spec
        return Described(self.source, self.title, spec.global_size, spec.local_size, arguments, self.reports)


class ToBuild(NamedTuple):
    """A source of a ProgramSpec that is perhaps not built yet, and the names for errors."""

    title: str
    source: SourceSpec
    kernel: str


def bytes_of(types: Iterable[str]) -> int:
    """What arguments of these types take of the memory for arguments."""
    return sum(C_BYTES[ctype] if ctype else 8 for ctype in types)


class Table:
    """A small buffer of ints, allocated with its values."""

    def __init__(self, backend: Any, what: str, values: np.ndarray[Any, Any]) -> None:
        cl = backend.cl
        self._memory, self.nbytes = backend.memory, 0
        with backend._asked(what):
            flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
            self.handle = cl.Buffer(backend.context, flags, hostbuf=values)
        self.nbytes = values.nbytes
        self._memory.reserve(self.nbytes)

    def __del__(self) -> None:
        self._memory.unreserve(self.nbytes)


class BoundLaunch(Lowered):
    """A launch of a ProgramSpec, whose arguments stay bound from one replay to the next."""

    def __init__(self, backend: Any, built: Built, function: str, launch: LaunchSpec) -> None:
        self.backend = backend
        self.title = launch.title
        self.global_size, self.local_size = launch.global_size, launch.local_size
        self.kernel = backend.kernel_of(built.program, function, launch.title)  # of its own: it keeps its arguments
        self._handle = ctypes.c_void_p(self.kernel.int_ptr)
        self._own = own_arguments(backend, launch)
        self._arguments = [
            (index, argument, _packer(argument.ctype), C_TYPES.get(argument.ctype))
            for index, argument in enumerate(launch.arguments)
        ]
        self._taken: dict[Origin, list[Any]] = {}  # the arguments that depend on each
        for argument in self._arguments:
            origin = origin_of(argument[1])
            if origin is not None:
                self._taken.setdefault(origin, []).append(argument)
        forsake_in_child(self)

    def bind(self, places: Places) -> None:
        for argument in self._arguments:
            self._set(argument, places)

    def origins(self) -> Iterable[Origin]:
        return self._taken

    def rebind(self, origin: Origin, places: Places) -> None:
        for argument in self._taken.get(origin, ()):
            self._set(argument, places)

    def _set(self, taken: tuple[int, ArgumentSpec, Callable[[Any], bytes], Any], places: Places) -> None:
        index, argument, pack, kind = taken
        value = self._own[index].handle if index in self._own else value_of(argument, places)
        bare = self.backend.bare_set_argument
        if bare is None:
            with self.backend._asked(f"an argument of {self.title}"):
                self.kernel.set_arg(index, value if kind is None else kind(value))
            return
        given = pack(value)
        if status := bare(self._handle, index, len(given), given):
            raise self.backend._refusal(f"an argument of {self.title}", status)

    def launcher(self) -> Launch:
        backend, kernel = self.backend, self.kernel
        bare = backend.bare_enqueue
        launch: Any
        if bare is None:
            enqueue = backend.cl.enqueue_nd_range_kernel
            launch = partial(_enqueued, enqueue, backend.queue, kernel, self.global_size, self.local_size)
        else:
            sizes = [(ctypes.c_size_t * 3)(*size) for size in (self.global_size, self.local_size)]
            rank = ctypes.c_uint(len(self.global_size))
            self.sizes = sizes  # they, the queue and the kernel must outlive the call that refers to them
            queue = ctypes.c_void_p(backend.queue.int_ptr)
            launch = partial(
                bare, queue, self._handle, rank, None, *map(ctypes.byref, sizes), ctypes.c_uint(0), None, None
            )
        launch.title = self.title
        return launch  # type: ignore[no-any-return]

    def timed(self) -> Callable[[], int]:
        timed: Callable[[], int] = self.backend.timed(self.kernel, self.global_size, self.local_size)
        return timed


def _enqueued(enqueue: Callable[..., Any], *arguments: Any) -> None:
    """Enqueue without returning the event, which is no status."""
    enqueue(*arguments)


class EagerLaunch(partial[None]):
    """A prepared kernel's ``launch`` with its arguments bound, which keeps its scratch memory alive."""

    __slots__ = ()

    @property
    def title(self) -> str:
        return str(self.func.__self__.title)  # type: ignore[attr-defined]
