"""Dependencies inside a launch group: which kernel waits for which, from the bytes that each reads and writes.

In: kernels in order, and the offsets of their buffers in the arena. Out: a LaunchGroup, whose persistent kernel follows
these dependencies instead of the order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence

from tinyedge.ir.kernel import BufferId, Kernel
from tinyedge.ir.launch import LaunchGroup

Span = tuple[Hashable, int, int]
"""Bytes that a kernel touches: the memory in which they lie, the first byte, and the one after the last."""


Touched = tuple[Collection[Span], Collection[Span]]
"""What a kernel reads, and what it writes."""


def persistent_group(
    kernels: Sequence[Kernel], sizes: Mapping[BufferId, int], offsets: Mapping[BufferId, int]
) -> LaunchGroup:
    """The launch group of kernels in order. ``sizes`` and ``offsets`` are those of buffers in the arena."""

    def spans(places: Collection[BufferId]) -> list[Span]:
        return [
            ("arena", offsets[place], offsets[place] + sizes[place]) if place in offsets else (place, 0, 1)
            for place in places
        ]

    return LaunchGroup(tuple(kernels), waits([(spans(kernel.reads()), spans(kernel.writes())) for kernel in kernels]))


def waits(touched: Sequence[Touched]) -> tuple[tuple[int, ...], ...]:
    """For each of several kernels in order, the fewest earlier ones that must have finished before it starts.

    Two kernels must keep their order if they touch the same byte and at least one of them writes it.
    """
    found = []
    over: list[int] = []  # for each kernel, as bits: the kernels that have finished before it starts
    history: dict[Hashable, list[tuple[int, int, int, bool]]] = defaultdict(list)  # spans, kernel, whether written
    for number, (reads, writes) in enumerate(touched):
        needed = {
            user
            for is_write, spans in ((False, reads), (True, writes))
            for memory, start, stop in spans
            for first, last, user, wrote in history[memory]
            if first < stop and start < last and (is_write or wrote)
        }
        least, before = [], 0
        for user in sorted(needed, reverse=True):
            if not before >> user & 1:
                least.append(user)
                before |= over[user] | 1 << user
        found.append(tuple(least))
        over.append(before)
        for memory, start, stop in writes:
            # Whoever conflicts with a span inside this one conflicts with this one too, which has waited for that.
            history[memory] = [span for span in history[memory] if not (start <= span[0] and span[1] <= stop)]
        for is_write, spans in ((False, reads), (True, writes)):
            for memory, start, stop in spans:
                history[memory].append((start, stop, number, is_write))
    return tuple(found)
