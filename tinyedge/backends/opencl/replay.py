"""Replaying a ProgramSpec: plain data in, launches out. Nothing here knows steps, tensors or the compiler.

In: a ProgramSpec, and for each call where the memory outside of its arena lies, and its scalars. Out: the launches,
enqueued. It is what an export to another language has to do as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyedge.errors import ArgumentError, BackendError
from tinyedge.ir.program import ArgumentSpec, ProgramSpec
from tinyedge.ir.values import Slot, Storage
from tinyedge.kernels.render import Source

if TYPE_CHECKING:
    from tinyedge.backends.opencl.backend import OpenCLBackend

_TYPES: Mapping[str, Any] = {
    "char": np.int8, "uchar": np.uint8, "short": np.int16, "int": np.int32, "uint": np.uint32, "long": np.int64,
    "float": np.float32, "double": np.float64,
}  # fmt: skip


class Replay:
    """A ProgramSpec on a device: its kernels are built and its arena is allocated once, for any number of calls.

    Errors: BackendError if the spec was made for another device.
    """

    def __init__(self, backend: OpenCLBackend, spec: ProgramSpec) -> None:
        if spec.device != backend.description:
            raise BackendError(
                f"the program {spec.name}", f"the device for which it was compiled, {spec.device}",
                f"this is {backend.description}", "Compile the function on this device.",
            )  # fmt: skip
        self.backend, self.spec = backend, spec
        self._chunks = [Storage(backend, nbytes, alone=True) for nbytes in spec.chunks]
        programs = [backend.program(source.text, source.options) for source in spec.sources]
        self._kernels = [
            backend.kernel_of(programs[launch.source], Source(spec.sources[launch.source].function, ""), launch.title)
            for launch in spec.launches
        ]
        self._tables = [[self._table(argument) for argument in launch.arguments] for launch in spec.launches]

    def _table(self, argument: ArgumentSpec) -> Any:
        if argument.kind == "table":
            return self.backend.table("strides", argument.table)
        return self.backend.zeros(int(argument.value)) if argument.kind == "counters" else None

    def __call__(
        self,
        outside: Sequence[Slot | None],
        scalars: Sequence[float] | None = None,
        accumulates: bool = False,
        backward: bool = False,
    ) -> None:
        """Enqueue the launches of the call, or those of its ``backward``.

        ``outside`` gives for each of ``spec.outside`` a view that begins at its first element, or None where these
        launches do not touch it; ``scalars`` are by default those of the recording. ``accumulates``: whether gradients
        hold something to which kernels must add.

        Errors: ArgumentError if another number of places or scalars is given, or one that a launch needs is None.
        """
        spec, backend = self.spec, self.backend
        numbers = [scalar.value for scalar in spec.scalars] if scalars is None else scalars
        if len(outside) != len(spec.outside) or len(numbers) != len(spec.scalars):
            raise ArgumentError(
                f"the program {spec.name}", f"{len(spec.outside)} places and {len(spec.scalars)} scalars",
                f"got {len(outside)} and {len(numbers)}",
            )  # fmt: skip
        chosen = range(spec.forward, len(spec.launches)) if backward else range(spec.forward)
        for position in chosen:
            launch, kernel = spec.launches[position], self._kernels[position]
            for index, argument in enumerate(launch.arguments):
                value = self._value(argument, self._tables[position][index], outside, numbers, accumulates)
                kernel.set_arg(index, _TYPES[argument.ctype](value) if argument.ctype else value)
            backend.cl.enqueue_nd_range_kernel(backend.queue, kernel, launch.global_size, launch.local_size)

    def _value(
        self,
        argument: ArgumentSpec,
        table: Any,
        outside: Sequence[Slot | None],
        scalars: Sequence[float],
        accumulates: bool,
    ) -> Any:
        kind = argument.kind
        if kind == "number":
            return argument.value
        if kind == "scalar":
            return scalars[argument.index]
        if kind == "arena":
            return self._chunks[argument.index].buffer.handle
        if kind in ("table", "counters"):
            return table.handle
        if kind == "range flag":
            return self.backend.reporting(self.spec.name).handle
        if kind == "accumulates":
            return int(accumulates)
        slot = outside[argument.index]
        if slot is None:
            role = self.spec.outside[argument.index].role
            raise ArgumentError(f"the program {self.spec.name}", f"a place for {role}", "got None")
        if kind == "outside":
            return slot.storage.buffer.handle
        first = slot.storage.buffer.offset + slot.offset * slot.dtype.stride
        return first // argument.itemsize + int(argument.value)
