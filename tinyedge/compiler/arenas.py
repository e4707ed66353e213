"""The arenas of a compiled function: the memory of its programs' temporaries, which its programs use one at a time.

In: the bytes that a program's plan needs. Out: a Lease on an arena. A call whose results are differentiable holds its
lease until backward, because saved values lie in the arena.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import Protocol

from tinyedge.autograd.dispatch import write_into
from tinyedge.backends import Backend
from tinyedge.dtypes import float32, uint8
from tinyedge.errors import OutOfMemoryError
from tinyedge.ir.values import Layout, Slot, Storage


class Arena:
    """Memory for temporaries: one piece, or chunks, as a device gives only so much at a time."""

    __slots__ = ("__weakref__", "backend", "chunks")

    def __init__(self, backend: Backend, chunks: Sequence[Storage]) -> None:
        self.backend = backend
        self.chunks = tuple(chunks)

    @classmethod
    def new(cls, backend: Backend, sizes: Sequence[int]) -> Arena:
        """An arena with chunks of these bytes."""
        return cls(backend, [Storage(backend, nbytes, alone=True) for nbytes in sizes])

    @property
    def nbytes(self) -> int:
        return sum(chunk.nbytes for chunk in self.chunks)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(chunk.nbytes for chunk in self.chunks)

    def holds(self, sizes: Sequence[int]) -> bool:
        """Whether chunks of so many bytes find place, each in one of its own."""
        return len(sizes) <= len(self.chunks) and all(
            size <= chunk.nbytes for size, chunk in zip(sizes, self.chunks, strict=False)
        )


class Tenant(Protocol):
    """A program with buffers in an arena."""

    def leave(self, arena: Arena) -> None:
        """Refer to ``arena`` no longer: it is about to be let go."""


class Lease:
    """An arena in use. It is free again when the lease ends or is dropped."""

    __slots__ = ("_arenas", "arena")

    def __init__(self, arenas: Arenas, arena: Arena) -> None:
        self._arenas: Arenas | None = arenas
        self.arena = arena

    def end(self) -> None:
        """Let others have the arena."""
        arenas, self._arenas = self._arenas, None
        if arenas is not None:
            arenas.give(self.arena)

    __del__ = end


class Arenas:
    """One arena for all programs of a function; further ones only while saved values lie in the others."""

    def __init__(self) -> None:
        self._free: list[Arena] = []
        self.lock = threading.RLock()
        self._ended: deque[Arena] = deque()  # of leases that ended while another thread held the lock
        self._tenants: weakref.WeakSet[Tenant] = weakref.WeakSet()

    @property
    def nbytes(self) -> int:
        """Bytes of the free arenas."""
        return sum(arena.nbytes for arena in self._free)

    def is_free(self, arena: Arena | None) -> bool:
        """Whether nobody uses ``arena``."""
        return arena is not None and any(arena is each for each in self._free)

    def take_again(self, arena: Arena | None) -> Lease | None:
        """``arena``, in which a program's places are bound already, if no other one is free: the usual case.

        The caller holds the lock.
        """
        if self._ended:
            self._take_back()
        if len(self._free) != 1 or self._free[0] is not arena:
            return None
        self._free.clear()
        return Lease(self, arena)

    def enter(self, tenant: Tenant) -> None:
        """Note a program that must be told when its arena goes."""
        with self.lock:  # another thread may go through them
            self._tenants.add(tenant)

    def take(
        self,
        backend: Backend,
        sizes: tuple[int, ...],
        allocate: Callable[[tuple[int, ...]], Arena],
        preferred: Arena | None,
    ) -> Lease:
        """An arena with chunks of at least these bytes: ``preferred``, if it is free, as its places are bound already.

        A new one has room for all that the one before had room for, if there is memory for that: else programs of which
        none fits in what another one left would allocate theirs at each call.
        """
        with self.lock:
            self._take_back()
            fitting = [arena for arena in self._free if arena.backend is backend and arena.holds(sizes)]
            arena = preferred if any(arena is preferred for arena in fitting) else next(iter(fitting), None)
            if arena is None:
                grown = sizes
                while self._free:
                    gone = self._free.pop()
                    if gone.backend is backend:
                        grown = tuple(map(max, zip_longest(grown, gone.sizes, fillvalue=0)))
                    self._let_go(gone)
                    del gone  # its memory is free for the next one
                try:
                    arena = allocate(grown)
                except OutOfMemoryError:
                    if grown == sizes:
                        raise
                    arena = allocate(sizes)
            self._free = [other for other in self._free if other is not arena]
            return Lease(self, arena)

    def copied(self, arena: Arena, sizes: Sequence[int]) -> Lease:
        """Another arena with the same in it, as far as chunks of these bytes go."""
        copy = self.take(arena.backend, arena.sizes, partial(Arena.new, arena.backend), None)
        for nbytes, old, new in zip(sizes, arena.chunks, copy.arena.chunks, strict=False):
            words = nbytes // 4
            for dtype, layout in (
                (float32, Layout((words,), (1,), 0)),
                (uint8, Layout((nbytes % 4,), (1,), 4 * words)),
            ):
                write_into(Slot(old, dtype, layout), Slot(new, dtype, layout))
        return copy

    def give(self, arena: Arena) -> None:
        """Take back an arena. One is kept; further ones are let go.

        It never waits: a lease may end while its thread holds what the holder of the lock waits for.
        """
        self._ended.append(arena)
        if self.lock.acquire(False):
            try:
                self._take_back()
            finally:
                self.lock.release()

    def _take_back(self) -> None:
        while self._ended:
            self._free.append(self._ended.popleft())
        while len(self._free) > 1:
            self._let_go(self._free.pop(0))

    def _let_go(self, arena: Arena) -> None:
        for tenant in [*self._tenants]:
            tenant.leave(arena)
