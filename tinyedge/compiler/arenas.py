"""The arenas of a compiled function: the memory of its programs' temporaries, which its programs use one at a time.

In: the bytes that a program's plan needs. Out: a Lease on an arena. A call whose results are differentiable holds its
lease until backward, because saved values lie in the arena.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from tinyedge.backends import Backend
from tinyedge.ir.values import Storage


class Tenant(Protocol):
    """A program with buffers in an arena."""

    def leave(self, arena: Storage) -> None:
        """Stop referring to ``arena``, which is about to be released."""


class Lease:
    """An arena in use. It is free again when the lease ends or is dropped."""

    __slots__ = ("_arenas", "arena")

    def __init__(self, arenas: Arenas, arena: Storage) -> None:
        self._arenas: Arenas | None = arenas
        self.arena = arena

    def end(self) -> None:
        arenas, self._arenas = self._arenas, None
        if arenas is not None:
            arenas.give(self.arena)

    def __del__(self) -> None:
        self.end()


class Arenas:
    """One arena for all programs of a function; further ones only while saved values lie in the others."""

    def __init__(self) -> None:
        self._free: list[Storage] = []
        self.lock = threading.RLock()  # a lease may end at any time
        self._tenants: weakref.WeakSet[Tenant] = weakref.WeakSet()

    @property
    def nbytes(self) -> int:
        """Bytes of the free arenas."""
        return sum(arena.nbytes for arena in self._free)

    def is_free(self, arena: Storage) -> bool:
        return any(arena is each for each in self._free)

    def enter(self, tenant: Tenant) -> None:
        self._tenants.add(tenant)

    def take(
        self, backend: Backend, nbytes: int, allocate: Callable[[int], Storage], preferred: Storage | None
    ) -> Lease:
        """Lease an arena of at least ``nbytes`` bytes; ``preferred`` if it is free, since launches are bound to it."""
        with self.lock:
            if preferred is not None and len(self._free) == 1 and self._free[0] is preferred:  # the usual case
                self._free.clear()
                return Lease(self, preferred)
            fitting = [arena for arena in self._free if arena.nbytes >= nbytes and arena.backend is backend]
            arena = preferred if any(arena is preferred for arena in fitting) else next(iter(fitting), None)
            if arena is None:
                while self._free:
                    self._let_go(self._free.pop())
                arena = allocate(nbytes)
            self._free = [other for other in self._free if other is not arena]
            return Lease(self, arena)

    def give(self, arena: Storage) -> None:
        with self.lock:
            self._free.append(arena)
            while len(self._free) > 1:
                self._let_go(self._free.pop(0))

    def _let_go(self, arena: Storage) -> None:
        for tenant in [*self._tenants]:
            tenant.leave(arena)
