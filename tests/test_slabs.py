"""Slabs: parts of shared buffers never overlap, are used again, and go when nobody needs them."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tinyedge.backends.opencl.memory import ALIGNMENT, LARGEST, SLAB_BYTES, Allocation, SlabAllocator, rounded


class Buffer:
    made = 0

    def __init__(self, nbytes: int) -> None:
        assert nbytes == SLAB_BYTES
        Buffer.made += 1

    def __del__(self) -> None:
        Buffer.made -= 1


sizes = st.one_of(st.integers(0, LARGEST), st.integers(0, 5000), st.sampled_from([0, 1, 256, 257, LARGEST]))


@given(nbytes=sizes)
def test_rounded(nbytes: int) -> None:
    size = rounded(nbytes)
    assert size >= max(nbytes, 1)
    assert size % ALIGNMENT == 0
    assert size <= max(nbytes * 9 / 8, nbytes + ALIGNMENT)
    assert rounded(size) == size


@given(actions=st.lists(st.tuples(sizes, st.booleans()), max_size=60), random=st.randoms(use_true_random=False))
def test_regions_in_use_do_not_overlap(actions: list[tuple[int, bool]], random: Any) -> None:
    slabs = SlabAllocator(lambda nbytes: Allocation(Buffer(nbytes)))
    held: list[tuple[Allocation, int]] = []
    for nbytes, drops in actions:
        if drops and held:
            held.pop(random.randrange(len(held)))
        if random.random() < 0.1:
            slabs.trim()
        held.append((slabs.take(nbytes), nbytes))
        assert held[-1][0].offset % ALIGNMENT == 0
        spans = sorted((id(allocation.handle), allocation.offset, allocation.offset + n) for allocation, n in held)
        for (buffer, _, stop), (other, start, _) in pairwise(spans):
            assert buffer != other or stop <= start
        assert all(stop <= SLAB_BYTES for _, _, stop in spans)


def test_what_is_free_is_used_again_and_trimmed() -> None:
    gc.collect()
    before = Buffer.made
    slabs = SlabAllocator(lambda nbytes: Allocation(Buffer(nbytes)))
    for _ in range(3 * SLAB_BYTES // LARGEST):  # one at a time
        slabs.take(LARGEST - 5)
    assert Buffer.made - before == 1
    held = [slabs.take(LARGEST) for _ in range(3 * SLAB_BYTES // LARGEST)]
    assert Buffer.made - before == 3
    slabs.trim()
    assert Buffer.made - before == 3
    kept = held[0]
    held.clear()
    slabs.trim()
    assert Buffer.made - before == 1
    more = [slabs.take(LARGEST) for _ in range(SLAB_BYTES // LARGEST - 1)]
    assert all((allocation.handle, allocation.offset) != (kept.handle, kept.offset) for allocation in more)
    del more, kept
    slabs.trim()
    assert Buffer.made == before


def test_regions_are_told_apart() -> None:
    a, b = Allocation(None), Allocation(None)
    assert a != b
    assert len({a, b}) == 2
