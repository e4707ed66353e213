"""Launches on an OpenCL device: built kernels with their arguments, of one eager call, or bound for many replays.

In: rendered kernels, built. Out: callables that enqueue them.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from tinyedge.backends.base import Described, Launch, Lowered, Origin
from tinyedge.backends.opencl.binding import COUNTERS, Argument, described, origin_of, value_of
from tinyedge.backends.opencl.driver import forsake_in_child
from tinyedge.backends.outside import Outside
from tinyedge.ir.kernel import BufferId
from tinyedge.ir.program import ArgumentSpec, SourceSpec
from tinyedge.ir.spec import KernelSpec
from tinyedge.ir.step import Step
from tinyedge.kernels.persistent import APART
from tinyedge.kernels.render import Source

C_TYPES: dict[str, Any] = {
    "char": np.int8, "uchar": np.uint8, "short": np.int16, "int": np.int32, "uint": np.uint32, "long": np.int64,
    "float": np.float32, "double": np.float64,
}  # fmt: skip
C_NAMES = {kind: name for name, kind in C_TYPES.items()}

PACKED = frozenset("bBhHiIlLfd")
"""Number types, in NumPy's letters, that pyopencl packs into bytes."""


def _packer(kind: Any) -> Callable[[Any], bytes]:
    """A function that packs an argument into the driver's bytes: a number, or a buffer if ``kind`` is None."""
    if kind is None:
        return lambda buffer: buffer.int_ptr.to_bytes(8, sys.byteorder)
    if kind is np.int32:  # mostly offsets: a tenth of the time that NumPy's numbers take
        return Struct("=i").pack
    return lambda value: bytes(kind(value).tobytes())


class Built:
    """A built kernel, for all steps that have its source."""

    __slots__ = ("kernel", "limit", "lock", "program")

    def __init__(self, program: Any, kernel: Any, limit: int) -> None:
        self.program = program
        self.kernel = kernel
        self.limit = limit  # the largest work-group that the device runs it with
        self.lock = threading.Lock()


class Prepared:
    """One kernel of a step's signature, with everything bound that does not change from call to call."""

    __slots__ = ("buffers", "built", "enqueue", "fixed", "global_size", "local_size", "numbers", "queue", "title")

    def __init__(self, built: Built, rendered: Rendered, queue: Any, enqueue: Any) -> None:
        self.built = built
        self.title = rendered.title
        self.global_size, self.local_size = rendered.spec.global_size, rendered.spec.local_size
        self.queue, self.enqueue = queue, enqueue
        self.buffers: list[tuple[int, Argument, Any]] = []  # with the type of a number that is passed as bytes
        self.numbers: list[tuple[int, bytes, Argument]] = []
        self.fixed: list[Any] = []  # numbers that are the same in every call
        for index, (argument, kind) in enumerate(zip(rendered.arguments, rendered.types, strict=True)):
            char = "" if kind is None else np.dtype(kind).char
            if char not in PACKED:
                self.buffers.append((index, argument, kind))
            elif argument[0] == "fixed":
                self.fixed += (index, char.encode(), argument[2])
            else:
                self.numbers.append((index, char.encode(), argument))

    def launch(self, buffers: tuple[Any, ...], numbers: tuple[Any, ...]) -> None:
        built = self.built
        # clSetKernelArg on one kernel object is not thread-safe; enqueueing copies the arguments.
        with built.lock:
            # The same as pyopencl's set_args, which would generate a Python module for each kernel.
            if buffers:
                built.kernel._set_arg_multi(buffers)
            if numbers:
                built.kernel._set_arg_buf_pack_multi(numbers)
            self.enqueue(self.queue, built.kernel, self.global_size, self.local_size)


class SetOneByOne(Prepared):
    """The same for versions of pyopencl without such methods."""

    __slots__ = ()

    def launch(self, buffers: tuple[Any, ...], numbers: tuple[Any, ...]) -> None:
        built = self.built
        with built.lock:
            for place in range(0, len(buffers), 2):
                built.kernel.set_arg(buffers[place], buffers[place + 1])
            for place in range(0, len(numbers), 3):
                kind = np.dtype(numbers[place + 1].decode()).type
                built.kernel.set_arg(numbers[place], kind(numbers[place + 2]))
            self.enqueue(self.queue, built.kernel, self.global_size, self.local_size)


def bytes_of(types: Iterable[Any]) -> int:
    """What arguments of these types take of the memory for arguments."""
    return sum(8 if kind is None else np.dtype(kind).itemsize for kind in types)


class Rendered(NamedTuple):
    """A rendered launch that is not built yet."""

    title: str  # a description of what it does
    spec: KernelSpec
    source: Source
    arguments: list[Argument]
    types: list[Any]
    group_specs: Sequence[KernelSpec] = ()

    @property
    def argument_bytes(self) -> int:
        return bytes_of(self.types)


class Table:
    """A small buffer of ints, allocated with its values."""

    def __init__(self, backend: Any, what: str, values: np.ndarray[Any, Any]) -> None:
        cl = backend.cl
        self._memory, self.nbytes = backend.memory, 0
        with backend._asked(what):
            flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
            self.handle = cl.Buffer(backend.context, flags, hostbuf=values)
        self.values: tuple[int, ...] = ()
        self.nbytes = values.nbytes
        self._memory.reserve(self.nbytes)

    def __del__(self) -> None:
        self._memory.unreserve(self.nbytes)


class BoundLaunch(Lowered):
    def __init__(self, backend: Any, built: Built, rendered: Rendered) -> None:
        self.backend = backend
        self.title = rendered.title
        self.specs = rendered.group_specs or (rendered.spec,)
        self.global_size, self.local_size = rendered.spec.global_size, rendered.spec.local_size
        # a kernel object of its own, which keeps its arguments from one call to the next.
        self.kernel = backend.kernel_of(built.program, rendered.source, rendered.title)
        self._handle = ctypes.c_void_p(self.kernel.int_ptr)
        self.source = rendered.source
        self._arguments, self._types = rendered.arguments, rendered.types
        # A persistent kernel's counters. They are its own, since a profile launches on another queue; each launch
        # leaves them at 0.
        self._counters = backend.zeros(APART * (1 + len(self.specs))) if COUNTERS in self._arguments else None
        self._packers = [_packer(kind) for kind in rendered.types]
        self._taken: dict[Origin, list[int]] = {}  # indices of the arguments that depend on each
        for index, argument in enumerate(self._arguments):
            origin = origin_of(argument)
            if origin is not None:
                self._taken.setdefault(origin, []).append(index)
        forsake_in_child(self)

    def bind(self, scratch: Mapping[BufferId, tuple[Any, int]]) -> None:
        for index in range(len(self._arguments)):
            self._set(index, scratch)

    def origins(self) -> Iterable[Origin]:
        return self._taken

    def rebind(self, origin: Origin) -> None:
        for index in self._taken.get(origin, ()):
            self._set(index, {})

    def _set(self, index: int, scratch: Mapping[BufferId, tuple[Any, int]]) -> None:
        argument, kind = self._arguments[index], self._types[index]
        if argument == COUNTERS:
            assert self._counters is not None
            value = self._counters.handle
        else:
            value = value_of(argument, None, scratch)
        bare = self.backend.bare_set_argument
        if bare is None:
            with self.backend._asked(f"an argument of {self.title}"):
                self.kernel.set_arg(index, value if kind is None else kind(value))
            return
        given = self._packers[index](value)
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

    def described(self, layout: Outside) -> Sequence[Described]:
        source = SourceSpec(self.source.function, self.source.text, self.backend.options(self.source))
        arguments = [
            ArgumentSpec("counters", value=APART * (1 + len(self.specs)))
            if argument == COUNTERS
            else described(argument, "" if kind is None else C_NAMES[kind], layout)
            for argument, kind in zip(self._arguments, self._types, strict=True)
        ]
        return [Described(source, self.title, self.global_size, self.local_size, tuple(arguments))]

    def timed(self) -> Callable[[], int]:
        timed: Callable[[], int] = self.backend.timed(self.kernel, self.global_size, self.local_size)
        return timed


def _enqueued(enqueue: Callable[..., Any], *arguments: Any) -> None:
    """Enqueue without returning the event, which is no status."""
    enqueue(*arguments)


class Sequential(Lowered):
    """The kernels of a launch group as separate launches, where the device cannot run them in one."""

    def __init__(self, each: Sequence[BoundLaunch], joined: Rendered) -> None:
        self.each = each
        self.title = joined.title
        self.specs = joined.group_specs or (joined.spec,)

    def bind(self, scratch: Mapping[BufferId, tuple[Any, int]]) -> None:
        for lowered in self.each:
            lowered.bind(scratch)

    def origins(self) -> Iterable[Origin]:
        return {origin for lowered in self.each for origin in lowered.origins()}

    def rebind(self, origin: Origin) -> None:
        for lowered in self.each:
            lowered.rebind(origin)

    def launcher(self) -> Launch:
        launches = [lowered.launcher() for lowered in self.each]

        def launch() -> Any:
            for each in launches:
                if status := each():
                    return status
            return None

        launch.title = self.title  # type: ignore[attr-defined]
        return launch

    def described(self, layout: Outside) -> Sequence[Described]:
        return [launch for lowered in self.each for launch in lowered.described(layout)]

    def timed(self) -> Callable[[], int]:
        times = [lowered.timed() for lowered in self.each]
        return lambda: sum(elapsed_ns() for elapsed_ns in times)


class EagerLaunch:
    """A prepared kernel with its arguments bound."""

    __slots__ = ("_buffers", "_kernel", "_numbers", "_scratch")

    def __init__(self, kernel: Prepared, step: Step, scratch: Mapping[BufferId, tuple[Any, int]]) -> None:
        self._kernel = kernel
        self._scratch = scratch  # kept alive until it is launched
        buffers: list[Any] = []
        for index, argument, kind in kernel.buffers:
            value = value_of(argument, step, scratch)
            buffers += (index, value if kind is None else kind(value))
        self._buffers = tuple(buffers)
        numbers = kernel.fixed.copy()
        for index, char, argument in kernel.numbers:
            numbers += (index, char, value_of(argument, step, scratch))
        self._numbers = tuple(numbers)

    @property
    def title(self) -> str:
        return self._kernel.title

    def __call__(self) -> None:
        self._kernel.launch(self._buffers, self._numbers)
