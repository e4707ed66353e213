"""The memory of programs' temporaries: those of one function take turns in it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from tinyedge.backends import Backend
from tinyedge.ir.values import Storage


class Tenant(Protocol):
    """What has places in an arena."""

    def leave(self, arena: Storage) -> None:
        """Refer to ``arena`` no longer: it is about to be let go."""


class Lease:
    """An arena in use; it is free again when the lease ends, or is dropped."""

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
    """One arena for all programs of a function; more only while values that wait for backward lie in the others."""

    def __init__(self) -> None:
        self._free: list[Storage] = []
        self.lock = threading.RLock()  # a lease may end at any time
        self._tenants: weakref.WeakSet[Tenant] = weakref.WeakSet()

    @property
    def nbytes(self) -> int:
        """The bytes of those that are free."""
        return sum(arena.nbytes for arena in self._free)

    def is_free(self, arena: Storage) -> bool:
        return any(arena is each for each in self._free)

    def enter(self, tenant: Tenant) -> None:
        self._tenants.add(tenant)

    def take(
        self, backend: Backend, nbytes: int, allocate: Callable[[int], Storage], preferred: Storage | None
    ) -> Lease:
        """An arena of at least ``nbytes`` bytes: ``preferred``, if it is free, since its places are bound already."""
        with self.lock:
            if preferred is not None and len(self._free) == 1 and self._free[0] is preferred:  # as a rule
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
