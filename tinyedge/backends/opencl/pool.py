"""The pool of device buffers: each has the size that was asked for, and is kept for reuse when it is released."""

from __future__ import annotations

import threading
import warnings
from typing import Any

from tinyedge.backends.opencl.memory import Allocation
from tinyedge.ir.values import Memory

HELD_BYTES = 4 << 20
HELD_BUFFERS = 256
"""Buffers that are kept beyond the most that were in use at a time: steps of one kind find all buffers of the step
before, and ever new shapes do not fill the memory.
"""

LEAST_BYTES = 4
"""OpenCL allows no buffer of 0 bytes."""

EXACT_BITS = 26
"""Leading bits that pyopencl's pool keeps of a size: exact up to 64 MiB. Its default adds up to an eighth."""


class Pool:
    """Allocations that are buffers of their own. ``memory`` counts what the driver holds for them.

    Any thread may call it. Releasing an allocation returns its buffer without a driver call.
    """

    def __init__(self, cl: Any, context: Any, queue: Any, memory: Memory, lock: Any = None) -> None:
        self._migrate, self._undefined = cl.enqueue_migrate_mem_objects, cl.mem_migration_flags.CONTENT_UNDEFINED
        self._buffer = cl.Buffer
        self._queue = queue
        self._memory = memory
        self._lock = lock or threading.RLock()
        self._known_bytes = 0  # what the driver held when it was last looked at
        self._most_bytes = self._most_buffers = 0  # the most in use at a time, when it was last looked at
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about deferred allocation, for which ``take`` does what is needed
            # pyopencl's own immediate allocator loses a buffer that the device refuses at its first use.
            allocator = cl.tools.DeferredAllocator(context, cl.mem_flags.READ_WRITE)
            self.buffers = cl.tools.MemoryPool(allocator, leading_bits_in_bin_id=EXACT_BITS)

    def take(self, nbytes: int) -> Allocation:
        """An allocation of ``nbytes`` bytes that the device really has. Errors: pyopencl's, or MemoryError."""
        buffers = self.buffers
        with self._lock:
            allocation = Allocation(buffers.allocate(nbytes if nbytes > LEAST_BYTES else LEAST_BYTES))
            if buffers.managed_bytes != self._known_bytes:
                self._take_in(allocation)
        return allocation

    @property
    def active_bytes(self) -> int:
        """Bytes of the allocations in use."""
        return int(self.buffers.active_bytes)

    def _take_in(self, allocation: Allocation) -> None:
        """Make the device allocate a new buffer now: some devices do so only at its first use, and would fail there."""
        buffers = self.buffers
        try:
            # A buffer of a pool cannot be migrated, but another reference to the same memory can.
            self._migrate(self._queue, [self._buffer.from_int_ptr(allocation.handle.int_ptr, True)], self._undefined)
        except BaseException:
            allocation.handle = None
            buffers.free_held()
            self._count()
            raise
        self._most_bytes = max(self._most_bytes, buffers.active_bytes)
        self._most_buffers = max(self._most_buffers, buffers.active_blocks)
        if (
            buffers.managed_bytes > self._most_bytes + HELD_BYTES
            or buffers.active_blocks + buffers.held_blocks > self._most_buffers + HELD_BUFFERS
        ):
            buffers.free_held()
        self._count()

    def _count(self) -> None:
        held = int(self.buffers.managed_bytes)
        self._memory.reserve(held - self._known_bytes)
        self._known_bytes = held

    def trim(self) -> None:
        """Return all kept buffers to the driver."""
        with self._lock:
            self.buffers.free_held()
            self._count()
            self._most_bytes, self._most_buffers = self.buffers.active_bytes, self.buffers.active_blocks
