"""The memory plan: an offset in the arena for each temporary of a program, and which of its actions are needed. Pure.

A recording is a list of actions, each with the places that it reads and writes. Temporary places are made and dropped
inside the recording: they share one arena, and two of them get the same bytes only if they are never needed at the same
time; or if an action that needs one for the last time, and is the first that needs the other, may replace it by that.

An arena is one chunk of memory, or where a device gives no piece so large, several: a buffer lies in one of them.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, count

from tinyedge.ir.kernel import BufferId

Chunk = Mapping[BufferId, int]
"""An offset for each buffer that lies in a chunk of an arena."""

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


@dataclass(frozen=True)
class Plan:
    """The actions that are kept, and where each temporary place that they touch lies: in which chunk, at what offset.

    ``chunks`` are the bytes of each, the largest first; as a rule there is one.
    """

    kept: tuple[int, ...]
    intervals: Mapping[BufferId, LivenessInterval]
    where: Mapping[BufferId, tuple[int, int]]
    chunks: tuple[int, ...]
    reused_in_place: frozenset[BufferId] = frozenset()  # the buffers whose last action writes another one over them

    @property
    def is_split(self) -> bool:
        return len(self.chunks) > 1

    @property
    def arena_bytes(self) -> int:
        return sum(self.chunks)

    @cached_property
    def offsets(self) -> Mapping[BufferId, int]:
        """Where each buffer begins in the arena, as if its chunks lay one behind the other."""
        starts = [0, *accumulate(self.chunks)]
        return {place: starts[chunk] + offset for place, (chunk, offset) in self.where.items()}

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
    actions: Sequence[Action],
    temporary: Mapping[BufferId, int],
    alignment: int,
    distances: Sequence[int] = (0,),
    most: int | None = None,
    reach: Mapping[BufferId, int] | None = None,
) -> Plan:
    """Plan ``actions``. ``temporary`` gives the bytes of each temporary.

    ``distances`` are numbers of actions, the most wished for first, that a buffer's bytes should rest between two uses:
    who gets them early must wait for who had them. The first is taken that costs little memory.

    ``most`` is what a chunk of the arena may have. A buffer that is larger begins a chunk of its own size, which it is
    for others to refuse. ``reach`` says for places where they must end in their chunk, unless they begin it.
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
    joined = _merged(intervals, holder)
    ends: dict[BufferId, int] = {}
    for key in intervals:
        if reach is not None and key in reach:
            name = holder.get(key, key)
            ends[name] = min(reach[key], ends.get(name, reach[key]))
    found = _cheapest([[place(_extended(joined, rest), alignment)] for rest in distances], joined)
    if not _fits(found, joined, most, ends):
        found = _cheapest([split(_extended(joined, rest), alignment, most, ends) for rest in distances], joined)
    sizes = [_end(chunk, joined) for chunk in found]
    order = sorted(range(len(found)), key=lambda number: -sizes[number])
    at = {key: (to, offset) for to, number in enumerate(order) for key, offset in found[number].items()}
    where = {key: at[holder.get(key, key)] for key in intervals}
    return Plan(kept, intervals, where, tuple(sizes[number] for number in order), frozenset(reused))


def _cheapest(tried: Sequence[Sequence[Chunk]], buffers: Mapping[BufferId, LivenessInterval]) -> Sequence[Chunk]:
    """The first that costs little more memory than any other."""
    sizes = [sum(_end(chunk, buffers) for chunk in found) for found in tried]
    return next(found for found, nbytes in zip(tried, sizes, strict=True) if 100 * nbytes <= MOST_GROWTH * min(sizes))


def _end(chunk: Chunk, buffers: Mapping[BufferId, LivenessInterval]) -> int:
    return max((offset + buffers[key].nbytes for key, offset in chunk.items()), default=0)


def _fits(
    found: Sequence[Chunk],
    buffers: Mapping[BufferId, LivenessInterval],
    most: int | None,
    reach: Mapping[BufferId, int],
) -> bool:
    """Whether chunks are as small as they must be, and each buffer ends where it must."""
    if most is not None and any(_end(chunk, buffers) > most for chunk in found):
        return False
    return all(
        not chunk[key] or chunk[key] + buffers[key].nbytes <= end
        for chunk in found
        for key, end in reach.items()
        if key in chunk
    )


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
    for key, buffer in intervals.items():
        name = holder.get(key, key)
        there = merged.get(name, buffer)
        merged[name] = LivenessInterval(buffer.nbytes, min(there.first, buffer.first), max(there.last, buffer.last))
    return merged


def _extended(intervals: Mapping[BufferId, LivenessInterval], distance: int) -> dict[BufferId, LivenessInterval]:
    return {
        key: LivenessInterval(buffer.nbytes, buffer.first, buffer.last + distance) for key, buffer in intervals.items()
    }


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
    order = _by_size(intervals)
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


def split(
    intervals: Mapping[BufferId, LivenessInterval], alignment: int, most: int | None, reach: Mapping[BufferId, int]
) -> list[Chunk]:
    """The same in chunks of at most ``most`` bytes: each buffer in the first of them that has room for it."""
    order = _by_size(intervals)
    enough = 1.01 * _most_alive(intervals.values())
    found: dict[int, list[Chunk]] = {}
    for _ in range(ORDERS):
        chunks = _placed_in_chunks(intervals, order, alignment, most, reach)
        total = sum(_end(chunk, intervals) for chunk in chunks)
        found.setdefault(total, chunks)
        if total <= enough:
            break
        last = chunks[-1]
        highest = max(last, key=lambda key: last[key] + intervals[key].nbytes)
        order.remove(highest)
        order.insert(0, highest)
    return found[min(found)]


def _by_size(intervals: Mapping[BufferId, LivenessInterval]) -> list[BufferId]:
    # Of equals the one that was met first: numbers depend on what ran before, and a plan must not.
    return sorted(intervals, key=lambda key: (-intervals[key].nbytes, intervals[key].first))


def _most_alive(buffers: Collection[LivenessInterval]) -> int:
    """The most bytes that are alive at one time: a lower bound for every arena."""
    change: dict[int, int] = defaultdict(int)
    for buffer in buffers:
        change[buffer.first] += buffer.nbytes
        change[buffer.last + 1] -= buffer.nbytes
    return max(accumulate(change[time] for time in sorted(change)))


def _placed(
    intervals: Mapping[BufferId, LivenessInterval], order: Sequence[BufferId], alignment: int
) -> dict[BufferId, int]:
    offsets: dict[BufferId, int] = {}
    placed: list[_Placed] = []
    for key in order:
        buffer = intervals[key]
        offsets[key] = _lowest(buffer, placed, alignment)
        insort(placed, _at(offsets[key], buffer))
    return offsets


def _placed_in_chunks(
    intervals: Mapping[BufferId, LivenessInterval],
    order: Sequence[BufferId],
    alignment: int,
    most: int | None,
    reach: Mapping[BufferId, int],
) -> list[Chunk]:
    chunks: list[dict[BufferId, int]] = []
    placed: list[list[_Placed]] = []
    room: list[int | None] = []
    for key in order:
        buffer = intervals[key]
        for number in count():
            if number == len(chunks):
                chunks.append({})
                placed.append([])
                room.append(None if most is None else max(most, buffer.nbytes))
            position = _lowest(buffer, placed[number], alignment)
            end, space = position + buffer.nbytes, room[number]
            if (space is None or end <= space) and (not position or end <= reach.get(key, end)):
                chunks[number][key] = position
                insort(placed[number], _at(position, buffer))
                break
    return [*chunks]


_Placed = tuple[int, int, int, int]
"""Of a buffer that has its offset: its first byte and the one after its last, its first and its last action."""


def _at(offset: int, buffer: LivenessInterval) -> _Placed:
    return offset, offset + buffer.nbytes, buffer.first, buffer.last


def _lowest(buffer: LivenessInterval, placed: Sequence[_Placed], alignment: int) -> int:
    """The first place where ``buffer`` meets none of those that are ``placed``, which are in the order of offsets."""
    nbytes, first, last = buffer.nbytes, buffer.first, buffer.last
    position = 0
    for start, end, born, dead in placed:
        if born <= last and first <= dead:  # there is an action at which both are alive
            if position + nbytes <= start:
                break
            position = max(position, -(-end // alignment) * alignment)
    return position
