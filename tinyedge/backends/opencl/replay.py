"""Replaying a ProgramSpec: plain data in, launches out. Nothing here knows steps, tensors or the compiler.

In: a ProgramSpec, and for each call where the memory outside of its arena lies, and its scalars. Out: the launches,
enqueued. It is what an export to another language has to do as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinyedge.backends.binding import Places
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.errors import ArgumentError, BackendError
from tinyedge.ir.program import ProgramSpec
from tinyedge.ir.values import Slot, Storage


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
        self._arena = [Storage(backend, nbytes, alone=True) for nbytes in spec.chunks]
        self._lowered = backend.load(spec)
        self._launches = [lowered.launcher() for lowered in self._lowered]

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

        Errors: ArgumentError if another number of places or scalars is given, one that a launch needs is None, or those
                that must lie in one buffer do not.
        """
        spec = self.spec
        numbers = [scalar.value for scalar in spec.scalars] if scalars is None else list(scalars)
        if len(outside) != len(spec.outside) or len(numbers) != len(spec.scalars):
            raise ArgumentError(
                f"the program {spec.name}", f"{len(spec.outside)} places and {len(spec.scalars)} scalars",
                f"got {len(outside)} and {len(numbers)}",
            )  # fmt: skip
        first, stop = (spec.forward, len(spec.launches)) if backward else (0, spec.forward)
        given: list[Slot] = []
        for index, slot in enumerate(outside):
            if slot is None and any(self._needs(position, index) for position in range(first, stop)):
                raise ArgumentError(f"the program {spec.name}", f"a place for {spec.outside[index].role}", "got None")
            given.append(slot)  # type: ignore[arg-type]
            home = outside[spec.outside[index].buffer]
            if slot is not None and home is not None and _handle(slot) is not _handle(home):
                one, other = spec.outside[index].role, spec.outside[spec.outside[index].buffer].role
                raise ArgumentError(f"the program {spec.name}", f"{one} in the buffer of {other}", "got two buffers")
        added = range(len(given)) if accumulates else ()
        places = Places(given, [chunk.buffer for chunk in self._arena], numbers, added)
        for lowered in self._lowered[first:stop]:
            lowered.bind(places)
        self.backend.launch(self._launches[first:stop])

    def _needs(self, position: int, index: int) -> bool:
        return any(
            argument.index == index
            for argument in self.spec.launches[position].arguments
            if argument.kind in ("outside", "offset")
        )


def _handle(slot: Slot) -> object:
    return slot.storage.buffer.handle
