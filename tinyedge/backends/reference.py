"""The reference backend: NumPy, each op by its own ``forward`` and ``backward``. OpenCL must give the same results."""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tinyedge.backends.base import SMALLER, Backend, Launch, Lowered
from tinyedge.backends.binding import Origin, Places
from tinyedge.backends.layout import ProgramLayout
from tinyedge.errors import OutOfMemoryError
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.spec import KernelSpec
from tinyedge.ir.step import FORWARD, Step, unbroadcast
from tinyedge.ir.values import Layout, Slot, Storage, Value

Array = np.ndarray[Any, Any]


def laid_out(values: Array, layout: Layout) -> Array:
    """A view of contiguous values."""
    strides = tuple(stride * values.itemsize for stride in layout.strides)
    view: Array = np.lib.stride_tricks.as_strided(values[layout.offset :], layout.shape, strides, writeable=False)
    return view


class _Lowered(Lowered):
    """A step of a program, on slots of its own: to bind it is to let these lie where they lie now. Its numbers, and
    whether it accumulates, are looked up when it runs.
    """

    def __init__(self, backend: ReferenceBackend, recorded: Step, layout: ProgramLayout) -> None:
        self.backend = backend
        self.recorded = recorded
        slots = {n: slot.alias() if isinstance(slot, Slot) else slot for n, slot in recorded.slots.items()}
        step = self.step = recorded.over(slots)
        self.title = f"numpy {step.op.name}.{step.direction}"
        self.specs = [KernelSpec(self.title, "", (), (), ())]
        self._taken: dict[Origin, list[tuple[Slot, int]]] = defaultdict(list)
        for slot in step.slots.values():
            if isinstance(slot, Slot):
                number = slot.storage.number
                if number in layout.where:
                    self._taken["arena", layout.where[number][0]].append((slot, 0))
                elif layout.moves(slot):
                    self._taken["outside", layout.outside(slot)].append((slot, layout.relative(slot)))

    def bind(self, places: Places) -> None:
        for origin in self._taken:
            self.rebind(origin, places)

    def origins(self) -> Iterable[Origin]:
        return self._taken

    def rebind(self, origin: Origin, places: Places) -> None:
        kind, index = origin
        for slot, relative in self._taken.get(origin, ()):
            if kind == "arena":
                slot.storage.buffer = places.chunks[index]
            else:
                slot.offset = places.outside[index].offset + relative

    def release(self) -> None:
        for (kind, _), taken in self._taken.items():
            for slot, _ in taken if kind == "arena" else ():
                slot.storage.buffer = None

    def launcher(self) -> Launch:
        return self._run

    def _run(self) -> None:
        self.step.scalars, self.step.accumulate = self.recorded.scalars, self.recorded.accumulate
        self.backend.bound(self.step)()

    def timed(self) -> Callable[[], int]:
        started = time.perf_counter_ns()
        self._run()
        elapsed_ns = time.perf_counter_ns() - started
        return lambda: elapsed_ns


class ReferenceBackend(Backend):
    """The NumPy backend: device memory is NumPy arrays."""

    name = "numpy"

    def __init__(self) -> None:
        super().__init__()
        self.description = f"NumPy {np.__version__} on {platform.machine()}"

    def allocate(self, nbytes: int) -> Array:
        self.check_size(nbytes)
        try:
            return np.empty(nbytes, np.uint8)
        except MemoryError as error:
            raise OutOfMemoryError(
                self.name,
                f"an allocation of {nbytes} bytes must fit in addition to {self.memory.allocated_bytes} bytes in use",
                str(error),
                SMALLER,
            ) from error

    def write(self, storage: Storage, array: Array) -> None:
        storage.buffer[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def read(self, slot: Slot) -> Array:
        values: Array = self.view(slot).copy()
        return values

    def view(self, slot: Slot) -> Array:
        """The slot's values as an array that shares its memory."""
        size = slot.dtype.itemsize
        view: Array = np.ndarray(
            slot.shape,
            slot.dtype.stored,
            buffer=slot.storage.buffer if slot.numel else b"",
            offset=slot.offset * size if slot.numel else 0,
            strides=tuple(stride * size for stride in slot.strides) if slot.numel else None,
        )
        return view

    def prepare(self, step: Step, allocate: Callable[[int], Any] | None = None) -> Sequence[Launch]:
        return (self.bound(step),)

    def lower_steps(self, groups: Sequence[LaunchGroup], layout: ProgramLayout) -> list[Lowered]:
        return [_Lowered(self, kernel.step, layout) for group in groups for kernel in group.kernels]

    def _value(self, read: Slot | Value | None) -> Any:
        if read is None:
            return None
        if isinstance(read, Value):
            return read.dtype.computes.stored.type(read.number)
        return self.view(read if read.dtype.blocks is None else read.as_bytes())

    def bound(self, step: Step) -> Launch:
        """A launch of ``step`` on the memory and the scalars that it has now."""
        op, keywords = step.op, {**step.attrs, **step.scalars}
        reads = [self._value(step.slots[name]) for name in step.reads]
        if op.elementwise:
            # A gradient that is not needed may be computed from missing values; it is dropped below.
            reads = [np.nan if read is None else read for read in reads]
        targets = {name: self.view(step.slots[name]) for name in step.writes}
        if step.direction == FORWARD:
            names: Sequence[str] = op.outputs
        else:
            names = ["d" + name for name in op.differentiable]
            if op.wants_needs:
                keywords["needs"] = tuple(step.wants(name) for name in names)
            if op.wants_shapes:
                keywords["shapes"] = {name: step.slots[name].shape for name in step.writes}
        call = op.forward if step.direction == FORWARD else op.backward

        elementwise, accumulate = op.elementwise, step.accumulate
        packed = [
            (position, slot.dtype, slot.layout())
            for position, slot in enumerate(step.slots[name] for name in step.reads)
            if isinstance(slot, Slot) and slot.dtype.packed
        ]
        kinds = {name: step.slots[name].dtype for name in step.writes if step.slots[name].dtype.packed}

        def run() -> None:  # it holds memory but not the step, so that a waiting launch keeps no values alive
            # Infinities and NaN are valid results here, as on a device; ``detect_anomaly`` looks for them.
            with np.errstate(all="ignore"):
                given = list(reads)
                for position, dtype, layout in packed:
                    given[position] = dtype.unpack(given[position])
                    if dtype.blocks is not None:
                        given[position] = laid_out(given[position], layout)
                results = call(*given, **keywords)
                found = dict(zip(names, results if isinstance(results, tuple) else (results,), strict=True))
                for name, target in targets.items():
                    result = found[name]
                    if not target.size:
                        continue
                    if elementwise and np.broadcast_shapes(np.shape(result), target.shape) != target.shape:
                        result = unbroadcast(np.asarray(result), target.shape)
                    if name in kinds:
                        before = kinds[name].unpack(target) if name in accumulate else 0
                        np.copyto(target, kinds[name].pack(np.asarray(result + before)))
                    elif name in accumulate:
                        np.add(target, result, out=target, casting="unsafe")
                    else:
                        np.copyto(target, result, casting="unsafe")

        return run
