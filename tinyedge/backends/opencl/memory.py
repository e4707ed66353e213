"""Allocation: the memory of a value, a buffer of its own or a part of a slab that small values share.

In: sizes. Out: Allocations. The slab sub-allocator exists because a driver looks at every buffer of a launch: on an
H200 that took 0.3 to 1 us for each, most of the host's cost of a persistent kernel of small kernels; an offset, which
is a number, costs a tenth of it.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

SLAB_BYTES = 32 << 20
PARTS = 16
LARGEST = SLAB_BYTES // PARTS
"""What is larger has a buffer of its own: it is no small part of what a launch costs, and would leave gaps."""
ALIGNMENT = 256


class Allocation:
    """The memory of a value: bytes of the buffer ``handle``, from ``offset`` on. No two are equal."""

    __slots__ = ("__weakref__", "handle", "offset")

    def __init__(self, handle: Any, offset: int = 0) -> None:
        self.handle = handle
        self.offset = offset


class _SlabPart(Allocation):
    """A part of a slab, which returns to the slab when nobody refers to it. It keeps the slab alive."""

    __slots__ = ("free", "slab")

    def __init__(self, slab: Allocation, offset: int, free: deque[tuple[Allocation, int]]) -> None:
        self.handle, self.offset = slab.handle, offset  # plain attributes, since every eager step reads them
        self.slab, self.free = slab, free

    def __del__(self) -> None:
        self.free.append((self.slab, self.offset))


def rounded(nbytes: int) -> int:
    """The size of the slab part for ``nbytes``: few sizes, so that parts can be reused, each too large by less than an
    eighth, or by less than ALIGNMENT.
    """
    step = max(ALIGNMENT, 1 << max(nbytes - 1, 0).bit_length() >> 4)
    return max(-(-nbytes // step), 1) * step


class SlabAllocator:
    """Small allocations as parts of a few large ones, of ``nbytes`` bytes, that ``allocate`` gives.

    What is free is kept until ``trim``.
    """

    def __init__(self, allocate: Callable[[int], Allocation], nbytes: int = SLAB_BYTES, lock: Any = None) -> None:
        self._allocate = allocate
        self._nbytes = nbytes
        self.largest = nbytes // PARTS
        # By size: slabs and offsets. An allocation may end at any time, and adds its part at once, without the lock.
        self._free: dict[int, deque[tuple[Allocation, int]]] = defaultdict(deque)
        self._slabs: list[tuple[Allocation, int]] = []  # each with the bytes cut from it; the last one is in use
        self._lock = lock or threading.RLock()  # ``allocate`` may trim

    def take(self, nbytes: int) -> Allocation:
        """An allocation of at least ``nbytes`` bytes, of at most ``largest``."""
        size = rounded(nbytes)
        free = self._free[size]
        try:
            slab, offset = free.pop()
        except IndexError:
            with self._lock:
                if not self._slabs or self._slabs[-1][1] + size > self._nbytes:
                    new = self._allocate(self._nbytes)
                    self._slabs.append((new, 0))
                slab, offset = self._slabs[-1]
                self._slabs[-1] = slab, offset + size
        return _SlabPart(slab, offset, free)

    def trim(self) -> None:
        """Release the slabs of which no part is in use."""
        with self._lock:
            free: dict[Allocation, int] = defaultdict(int)  # free bytes of each slab
            for size, parts in [*self._free.items()]:
                for slab, _ in [*parts]:
                    free[slab] += size
            gone = {slab for slab, cut in self._slabs if free[slab] == cut}
            self._slabs = [(slab, cut) for slab, cut in self._slabs if slab not in gone]
            left = {slab for slab, _ in self._slabs}
            for parts in [*self._free.values()]:
                for _ in range(len(parts)):
                    with suppress(IndexError):  # taken meanwhile: the part keeps its slab alive
                        part = parts.popleft()
                        if part[0] in left:
                            parts.append(part)
