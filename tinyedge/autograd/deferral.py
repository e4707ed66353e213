"""Deferred launches: a backward holds its launches back until all of them are prepared.

In: steps of a backward. Out: their launches, one after the other, once memory is allocated and kernels are built for
all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from tinyedge.ir.modes import Switch, modes
from tinyedge.ir.step import Step
from tinyedge.ir.values import MemorySpace


class Deferred:
    """Launches that are held back until memory and kernels are there for all of them.

    Memory that a step's temporaries no longer need is reused by later steps, since these run later. Until everything is
    launched, nobody else may get that memory.
    """

    LARGER = 1.5
    """A buffer is reused for a value if it is at most so many times larger."""

    def __init__(self) -> None:
        self.launches: list[Callable[[], Any]] = []
        self.gone = 0  # the number of launches that were enqueued
        self._in_part = False  # whether a part of the next one ran, which was refused
        self.adds_from: int | None = None  # the first launch that adds to a gradient which existed before
        # By whether each is a buffer of its own; by size.
        self._free: dict[tuple[MemorySpace, bool], dict[int, list[Any]]] = {}
        self._kept: list[Any] = []  # what launches read, and nobody else may hold
        self._closed = False

    def take(self, backend: MemorySpace, nbytes: int, alone: bool = False) -> Any:
        """Memory for a value of a step; ``alone`` if it must not be a part of a slab."""
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
        """Take back what ``take`` gave; False if everything was launched, so that it can be given to anyone."""
        if self._closed:
            return False
        self._free.setdefault((backend, alone), {}).setdefault(nbytes, []).append(buffer)
        return True

    def add(self, launch: Callable[[], Any]) -> None:
        self.launches.append(launch)

    def keep(self, value: Any) -> None:
        """Keep ``value`` alive until everything was launched."""
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
        """Enqueue what was added since the last call."""
        try:
            while self.gone < len(self.launches):
                self.launches[self.gone]()
                self.gone += 1
        except BaseException as error:  # it is a step of several kernels, or the backward of a program
            self._in_part = bool(getattr(error, "launched", True))
            raise

    def note_launched(self, error: BaseException) -> None:
        """Set ``error.launched`` to the number of launches that ran, one of which only a part ran included."""
        error.__dict__["launched"] = self.gone + self._in_part

    def close(self) -> None:
        self._closed = True
        self._free.clear()
        self._kept.clear()
        self.launches.clear()


class deferring(Switch[Deferred]):
    """Hold back the launches of this thread inside the ``with`` block, by whose end they must have been enqueued."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("deferred", Deferred())

    def __exit__(self, *exc: object) -> None:
        modes.deferred = self._before
        self._value.close()


def deferred_launches() -> Deferred:
    """The launches of this thread that are held back."""
    assert modes.deferred is not None
    return cast("Deferred", modes.deferred)


@contextmanager
def not_deferring() -> Iterator[None]:
    """Launch at once inside the ``with`` block, for work that does not depend on what is held back."""
    before, modes.deferred = modes.deferred, None
    try:
        yield
    finally:
        modes.deferred = before


def launch_deferred() -> None:
    """Enqueue what is held back, because a value is about to be read."""
    if modes.recorder is not None:
        modes.recorder.release()
    if modes.deferred is not None:
        modes.deferred.launch()
