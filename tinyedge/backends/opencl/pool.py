"""Buffers of the device: each of the size that was asked for, and kept for reuse when it is let go."""

from __future__ import annotations

import threading
import warnings
from typing import Any

from tinyedge.backends.opencl.memory import Allocation
from tinyedge.ir.values import Memory

HELD_BYTES = 4 << 20
HELD_BUFFERS = 256
"""What is held at most beyond what was in use at a time: steps of one kind find all buffers of the one before, and ever
new shapes do not fill the memory."""

LEAST_BYTES = 4
"""A buffer of no bytes is an error in OpenCL."""

EXACT_BITS = 26
"""Leading bits of a size that pyopencl's pool keeps: all, up to 64 MiB. By default it rounds up by up to an eighth."""


class Pool:
    """Gives allocations that are buffers by themselves; ``memory`` counts what the driver holds for them.

    Any thread may call it. An allocation that ends gives its buffer back without a call of the driver.
    """

    def __init__(self, cl: Any, context: Any, queue: Any, memory: Memory) -> None:
        self._migrate, self._undefined = cl.enqueue_migrate_mem_objects, cl.mem_migration_flags.CONTENT_UNDEFINED
        self._buffer = cl.Buffer
        self._queue = queue
        self._memory = memory
        self._lock = threading.RLock()
        self._known_bytes = 0  # of what the driver holds, when that was last looked at
        self._most_bytes = self._most_buffers = 0  # in use at a time, as far as that was looked at
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deferred allocation, for which ``take`` does what is needed
            # pyopencl's own immediate allocator loses a buffer that the device refuses at its first use.
            allocator = cl.tools.DeferredAllocator(context, cl.mem_flags.READ_WRITE)
            self.buffers = cl.tools.MemoryPool(allocator, leading_bits_in_bin_id=EXACT_BITS)

    def take(self, nbytes: int) -> Allocation:
        """An allocation of ``nbytes`` bytes, which the device really has. Errors: pyopencl's, or MemoryError."""
        buffers = self.buffers
        with self._lock:
            allocation = Allocation(buffers.allocate(max(nbytes, LEAST_BYTES)))
            if buffers.managed_bytes != self._known_bytes:
                self._take_in(allocation)
        return allocation

    @property
    def active_bytes(self) -> int:
        """Of the allocations in use."""
        return int(self.buffers.active_bytes)

    def _take_in(self, allocation: Allocation) -> None:
        """Let the device allocate a buffer that is new: some do when it is first used, and would fail only then."""
        buffers = self.buffers
        try:
            # Migrating takes no buffer of a pool, but another reference to the same memory.
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
        """Give everything that is held back to the driver."""
        with self._lock:
            self.buffers.free_held()
            self._count()
            self._most_bytes, self._most_buffers = self.buffers.active_bytes, self.buffers.active_blocks
