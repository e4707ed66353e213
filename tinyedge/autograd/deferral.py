"""Launches that are held back until all of them are prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from tinyedge.ir.modes import Switch, modes
from tinyedge.ir.step import Step
from tinyedge.ir.values import MemorySpace


class Deferred:
    """Launches that are held back until all of them are prepared: memory is there, and kernels are built.

    What its steps made and dropped is used again by later steps, which run later. Until the launches are out, nobody
    else may have that memory.
    """

    LARGER = 1.5
    """How much larger than asked for memory may be that is used again."""

    def __init__(self) -> None:
        self.launches: list[Callable[[], Any]] = []
        self.gone = 0  # so many of them are out
        self.adds_from: int | None = None  # the first that adds to a gradient which was there before
        self._free: dict[
            tuple[MemorySpace, bool], dict[int, list[Any]]
        ] = {}  # by whether each is a buffer by itself; by size
        self._kept: list[Any] = []  # what launches read, and nobody else may hold
        self._closed = False

    def take(self, backend: MemorySpace, nbytes: int, alone: bool = False) -> Any:
        """Memory for a value that a step makes; ``alone`` if it must not be a part of a larger buffer."""
        there = self._free.get((backend, alone))
        if there:
            buffers = there.get(nbytes)
            if not buffers:
                near = [size for size, found in there.items() if found and nbytes <= size <= self.LARGER * nbytes]
                buffers = there[min(near)] if near else None
            if buffers:
                return buffers.pop()
        return backend.allocate(nbytes) if alone else backend.reserve(nbytes)

    def give(self, backend: MemorySpace, buffer: Any, nbytes: int, alone: bool = False) -> bool:
        """Take back what ``take`` gave; False if the launches are out, and it can go to whoever asks."""
        if self._closed:
            return False
        self._free.setdefault((backend, alone), {}).setdefault(nbytes, []).append(buffer)
        return True

    def add(self, launch: Callable[[], Any]) -> None:
        self.launches.append(launch)

    def keep(self, value: Any) -> None:
        """Hold ``value`` until the launches are out."""
        self._kept.append(value)

    def add_step(self, step: Step) -> None:
        backend = step.backend
        scratch: list[tuple[Any, int]] = []

        def allocate(nbytes: int) -> Any:
            scratch.append((self.take(backend, nbytes, alone=True), nbytes))
            return scratch[-1][0]

        launches = backend.prepare(step, allocate)
        self.launches.append(partial(backend.launch, launches))
        for buffer, nbytes in scratch:
            self.give(backend, buffer, nbytes, alone=True)

    def launch(self) -> None:
        """Launch what was added since the last time."""
        while self.gone < len(self.launches):
            self.launches[self.gone]()
            self.gone += 1

    def close(self) -> None:
        self._closed = True
        self._free.clear()
        self._kept.clear()
        self.launches.clear()


class deferring(Switch[Deferred]):
    """Hold back what this thread launches inside the ``with`` block, at the end of which it must have been launched."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("deferred", Deferred())

    def __exit__(self, *exc: object) -> None:
        modes.deferred = self._before
        self._value.close()


def deferred_launches() -> Deferred:
    """Where launches of this thread are held back."""
    assert modes.deferred is not None
    return cast("Deferred", modes.deferred)


@contextmanager
def not_deferring() -> Iterator[None]:
    """Launch at once inside the ``with`` block: what does not depend on what is held back."""
    before, modes.deferred = modes.deferred, None
    try:
        yield
    finally:
        modes.deferred = before


def launch_deferred() -> None:
    """Launch what is held back, since a value is about to be read."""
    if modes.deferred is not None:
        modes.deferred.launch()
