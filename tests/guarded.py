"""Backends that catch a kernel which leaves an element unwritten, or writes where it must not.

Every buffer, scratch memory too, lies between two guards, and all of it starts as poison: a signalling NaN as float32,
and no likely number in any other type. What is not written is seen in the result, a write past either end in a guard.
Each buffer has a poison of its own, so that copying one guard into another is seen; a NaN that signals does not survive
arithmetic, so that adding to a guard is seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from tinyedge import backends
from tinyedge.backends.base import Launch
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.backends.opencl.devices import DeviceEntry
from tinyedge.backends.opencl.memory import Allocation
from tinyedge.backends.reference import ReferenceBackend
from tinyedge.ir.spec import round_up
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot

GUARD_BYTES = 1024


def poison_word(serial: int) -> np.uint32:
    """The pattern of buffer number ``serial``, none of whose bytes is a likely bool."""
    return np.uint32(0x7FA08080 | serial & 0x7F | (serial >> 7 & 0x7F) << 8 | (serial >> 14 & 0x1F) << 16)


def poison(word: np.uint32, nbytes: int, phase: int = 0) -> np.ndarray[Any, Any]:
    """The bytes of an untouched region, of which the first is byte ``phase`` of the pattern."""
    return np.frombuffer(word.tobytes() * (nbytes // 4 + 2), np.uint8)[phase : phase + nbytes]


SCALAR = "__kernel __attribute__((vec_type_hint(float4))) "
"""A kernel of which a CPU's compiler makes no variant that runs several work-items at a time."""


class AnyKind(OpenCLBackend):
    """An OpenCL device that may be taken for one of another kind.

    Where a CPU is taken for a GPU, the variants that its compiler adds for several work-items are left out: they are
    the compiler's work, not the kernel's, and take half of the time that building a GPU's kernels takes.
    """

    def program(self, text: str, options: tuple[str, ...], binary: bytes | None = None) -> Any:
        if self.entry.is_cpu and not self.device.is_cpu:
            text = re.sub(r"__kernel (?!__attribute__\(\(vec_type_hint)", SCALAR, text)
        return super().program(text, options, binary)


class GuardedOpenCL(AnyKind):
    """An OpenCL device whose every region lies in the middle of a poisoned buffer: those of values at an offset, as a
    part of a buffer that others share would; the others as sub-buffers.
    """

    def __init__(self, entry: DeviceEntry) -> None:
        super().__init__(entry)
        self.before = round_up(GUARD_BYTES, int(entry.device.mem_base_addr_align) // 8 or 1)
        self.parents: dict[int, tuple[Any, int, np.uint32]] = {}
        self.serials = count()

    def allocate(self, nbytes: int) -> Allocation:
        parent, word = self._poisoned(nbytes)
        return self._kept(Allocation(parent.get_sub_region(self.before, max(nbytes, 4))), parent, nbytes, word)

    def reserve(self, nbytes: int) -> Allocation:
        parent, word = self._poisoned(nbytes)
        return self._kept(Allocation(parent, self.before), parent, nbytes, word)

    def _poisoned(self, nbytes: int) -> tuple[Any, np.uint32]:
        self.check_size(nbytes)
        size = round_up(self.before + max(nbytes, 4) + GUARD_BYTES, 4)
        parent = self.cl.Buffer(self.context, self.cl.mem_flags.READ_WRITE, size)
        word = poison_word(next(self.serials))
        self.cl.enqueue_fill_buffer(self.queue, parent, word, 0, size)
        return parent, word

    def _kept(self, allocation: Allocation, parent: Any, nbytes: int, word: np.uint32) -> Allocation:
        if nbytes:  # nobody releases a region of no bytes
            self.parents[id(allocation)] = (parent, nbytes, word)
        return allocation

    def release(self, buffer: Allocation, nbytes: int) -> None:
        self.parents.pop(id(buffer), None)

    def prepare(self, step: Step, allocate: Callable[[int], Any] | None = None) -> Sequence[Launch]:
        scratch: list[Any] = []

        def taken(nbytes: int) -> Any:
            scratch.append((allocate or self.allocate)(nbytes))
            return scratch[-1]

        launches = list(super().prepare(step, taken))
        buffers = [slot.storage.buffer for slot in step.slots.values() if isinstance(slot, Slot)]
        culprit = f"{step.op.name} ({step.direction})"

        def check() -> None:
            try:
                for buffer in (*buffers, *scratch):
                    self.check(buffer, culprit)
            finally:
                for buffer in scratch if allocate is None else ():  # else others may use it again
                    self.release(buffer, 0)

        return [*launches, check]

    def check(self, buffer: Allocation, culprit: str) -> None:
        """Raise AssertionError if a guard around ``buffer`` changed."""
        if id(buffer) not in self.parents:
            return
        parent, nbytes, word = self.parents[id(buffer)]
        after = self.before + nbytes
        for side, start, stop in (("before", 0, self.before), ("after", after, parent.size)):
            found = np.empty(stop - start, np.uint8)
            self.cl.enqueue_copy(self.queue, found, parent, src_offset=start, is_blocking=True)
            changed = np.flatnonzero(found != poison(word, found.size, start % 4))
            assert not changed.size, (
                f"{culprit} wrote {changed.size} bytes {side} a buffer of {nbytes} bytes, "
                f"from byte {start + int(changed[0]) - self.before} of it"
            )


def first_device() -> GuardedOpenCL:
    """The best usable device, for a fixture that takes it for another kind: changes to it are no other test's."""
    usable = backends.usable_devices()
    if not usable:
        pytest.skip("no usable OpenCL device")
    return GuardedOpenCL(usable[0])


class PoisonedReference(ReferenceBackend):
    """The reference backend, whose memory starts as poison. NumPy itself keeps writes inside."""

    def allocate(self, nbytes: int) -> np.ndarray[Any, Any]:
        self.check_size(nbytes)
        return poison(poison_word(0), nbytes).copy()


def as_gpu(backend: OpenCLBackend) -> OpenCLBackend:
    """``backend``, taken for a GPU on which kernels may wait for each other."""
    if not backend.device.persistent:
        if not backend.orders_groups:
            pytest.skip("the device does not say that one group sees what another wrote")
        if "Portable Computing Language" in backend.entry.platform:
            pytest.skip(
                "PoCL 3.1 builds a kernel with barriers wrongly where it is called in a branch, as in a launch group"
            )
        backend.device = replace(
            backend.device, kind="gpu", vector_width=4, compute_units=4, max_work_group=256, group_items=64, order="c11"
        )
        backend.specialises = True
    return backend
