"""The memory plan: an offset in the arena for each temporary of a program, and which of its actions are needed. Pure.

In: a list of actions (kernels), each with the buffers that it reads and writes. Out: a Plan. Temporaries exist only
inside the program and share one arena. Two of them get the same bytes only if their liveness intervals do not overlap;
or by in-place reuse, if an action that reads one for the last time writes the other one over it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tinyedge.ir.kernel import BufferId

MOST_GROWTH = 120
"""How large an arena may get for the sake of a longer reuse distance, in percent of the smallest."""

ORDERS = 16
"""Orders in which buffers are placed: for the models of ``tinyedge bench``, trained or not, ten
came within a percent.
"""


@dataclass(frozen=True)
class Action:
    """What a kernel does to memory.

    ``in_place``: pairs of a buffer that it reads and one that it writes that may share bytes.
    """

    reads: frozenset[BufferId]
    writes: frozenset[BufferId]
    in_place: frozenset[tuple[BufferId, BufferId]] = frozenset()


@dataclass(frozen=True)
class LivenessInterval:
    """The bytes of a buffer, and the first and the last action that needs it."""

    nbytes: int
    first: int
    last: int

    def meets(self, other: LivenessInterval) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Plan:
    """The actions that are kept, and the liveness interval and arena offset of each temporary that they touch."""

    kept: tuple[int, ...]
    intervals: Mapping[BufferId, LivenessInterval]
    offsets: Mapping[BufferId, int]
    arena_bytes: int
    reused_in_place: frozenset[BufferId] = frozenset()  # buffers whose last action writes another one over them

    @property
    def unshared_bytes(self) -> int:
        """The bytes that the same buffers would take if none shared memory."""
        return sum(interval.nbytes for interval in self.intervals.values())


def needed_actions(actions: Sequence[Action], temporary: Collection[BufferId]) -> tuple[int, ...]:
    """The actions on which something outside the program depends, in order; the others are dead code."""
    wanted: set[BufferId] = set()
    kept: list[int] = []
    for number in reversed(range(len(actions))):
        action = actions[number]
        if any(place in wanted or place not in temporary for place in action.writes):
            kept.append(number)
            wanted |= action.reads | action.writes
    return tuple(reversed(kept))


def make_plan(
    actions: Sequence[Action], temporary: Mapping[BufferId, int], alignment: int, distances: Sequence[int] = (0,)
) -> Plan:
    """Plan ``actions``. ``temporary`` gives the bytes of each temporary.

    ``distances`` are reuse distances, in actions, the preferred one first: so many actions must lie between two uses of
    the same bytes, because in a persistent kernel the second user waits for the first. The first distance whose arena
    is not much larger than the smallest is taken.
    """
    kept = needed_actions(actions, temporary)
    first: dict[BufferId, int] = {}
    last: dict[BufferId, int] = {}
    for number in kept:
        action = actions[number]
        for touched in sorted(action.reads | action.writes, key=_in_order):
            if touched in temporary:
                first.setdefault(touched, number)
                last[touched] = number
    intervals = {
        touched: LivenessInterval(temporary[touched], start, last[touched]) for touched, start in first.items()
    }
    reused = _reused(actions, kept, intervals)
    holder: dict[BufferId, BufferId] = {}  # the first buffer in the same bytes, by buffer
    for old, new in reused.items():
        holder[new] = holder.get(old, old)
    merged = _merged(intervals, holder)
    tried = [place(_extended(merged, distance), alignment) for distance in distances]
    sizes = [max((found[key] + block.nbytes for key, block in merged.items()), default=0) for found in tried]
    chosen = next(number for number, nbytes in enumerate(sizes) if 100 * nbytes <= MOST_GROWTH * min(sizes))
    offsets = {key: tried[chosen][holder.get(key, key)] for key in intervals}
    return Plan(kept, intervals, offsets, sizes[chosen], frozenset(reused))


def _reused(
    actions: Sequence[Action], kept: Sequence[int], intervals: Mapping[BufferId, LivenessInterval]
) -> dict[BufferId, BufferId]:
    """In-place reuse: for each buffer that is overwritten at its last use, the buffer that gets its bytes."""
    reused: dict[BufferId, BufferId] = {}
    taken: set[BufferId] = set()
    for number in kept:
        action = actions[number]
        for old, new in sorted(action.in_place, key=lambda pair: tuple(map(_in_order, pair))):
            before, after = intervals.get(old), intervals.get(new)
            if before is None or after is None or old in reused or new in taken:
                continue
            if old in action.writes or new in action.reads or before.nbytes != after.nbytes:
                continue
            if before.last == number == after.first:
                reused[old] = new
                taken.add(new)
    return reused


def _merged(
    intervals: Mapping[BufferId, LivenessInterval], holder: Mapping[BufferId, BufferId]
) -> dict[BufferId, LivenessInterval]:
    """One interval for all buffers that have the same bytes one after the other."""
    merged: dict[BufferId, LivenessInterval] = {}
    for key, block in intervals.items():
        name = holder.get(key, key)
        there = merged.get(name, block)
        merged[name] = LivenessInterval(block.nbytes, min(there.first, block.first), max(there.last, block.last))
    return merged


def _extended(intervals: Mapping[BufferId, LivenessInterval], distance: int) -> dict[BufferId, LivenessInterval]:
    return {key: LivenessInterval(block.nbytes, block.first, block.last + distance) for key, block in intervals.items()}


def _in_order(touched: BufferId) -> tuple[int, str]:
    return touched if isinstance(touched, tuple) else (touched, "")


def place(intervals: Mapping[BufferId, LivenessInterval], alignment: int) -> dict[BufferId, int]:
    """An arena offset for each buffer: greedily, each at the lowest offset where it overlaps no other live buffer.

    The order is by size. If the arena exceeds the lower bound by more than a percent, the buffer that lies highest is
    moved to the front of the order, and all are placed again, at most ``ORDERS`` times.

    Source: Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, arXiv:2001.03288 (greedy by
            size).
    """
    if not intervals:
        return {}
    # Buffers of equal size by first use, not by number: numbers depend on what ran before, and a plan must not.
    order = sorted(intervals, key=lambda key: (-intervals[key].nbytes, intervals[key].first))
    enough = 1.01 * _most_alive(intervals.values())
    found: dict[int, dict[BufferId, int]] = {}
    for _ in range(ORDERS):
        offsets = _placed(intervals, order, alignment)
        highest = max(order, key=lambda key: offsets[key] + intervals[key].nbytes)
        end = offsets[highest] + intervals[highest].nbytes
        found.setdefault(end, offsets)
        if end <= enough:
            break
        order.remove(highest)
        order.insert(0, highest)
    return found[min(found)]


def _most_alive(blocks: Collection[LivenessInterval]) -> int:
    """The most bytes that are alive at one time: a lower bound for every arena."""
    change: dict[int, int] = defaultdict(int)
    for block in blocks:
        change[block.first] += block.nbytes
        change[block.last + 1] -= block.nbytes
    return max(accumulate(change[time] for time in sorted(change)))


def _placed(
    intervals: Mapping[BufferId, LivenessInterval], order: Sequence[BufferId], alignment: int
) -> dict[BufferId, int]:
    offsets: dict[BufferId, int] = {}
    for key in order:
        block = intervals[key]
        taken = sorted(
            (offset, offset + intervals[other].nbytes)
            for other, offset in offsets.items()
            if intervals[other].meets(block)
        )
        position = 0
        for start, end in taken:
            if position + block.nbytes <= start:
                break
            position = max(position, -(-end // alignment) * alignment)
        offsets[key] = position
    return offsets
