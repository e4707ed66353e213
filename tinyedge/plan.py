"""Where a recorded tape's values lie in memory, and which of its steps are needed. Pure: no device, no buffers.

A recording is a list of actions, each with the places that it reads and writes. Temporary places are made and dropped
inside the recording: they share one arena, and two of them get the same bytes only if they are never needed at the same
time; or if an action that needs one for the last time, and is the first that needs the other, may replace it by that.

An arena is one chunk of memory, or where a device gives no piece so large, several: a block lies in one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, count

from tinyedge.fusion import Place

Chunk = Mapping[Place, int]
"""An offset for each block that lies in a chunk of an arena."""

REST = 120
"""What an arena may grow to for the sake of slack, in hundredths."""

ORDERS = 16
"""In which blocks are placed: for the models of ``tinyedge bench``, trained or not, ten came within a percent."""


@dataclass(frozen=True)
class Action:
    """What a kernel does to memory.

    ``replaces`` are pairs of what it reads and what it writes, that may have the same bytes.
    """

    reads: frozenset[Place]
    writes: frozenset[Place]
    replaces: frozenset[tuple[Place, Place]] = frozenset()


@dataclass(frozen=True)
class Lifetime:
    """A block of memory, and the first and last action that needs it."""

    nbytes: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Plan:
    """The actions that are kept, and where each temporary place that they touch lies: in which chunk, at what offset.

    ``chunks`` are the bytes of each, the largest first; as a rule there is one.
    """

    kept: tuple[int, ...]
    lifetimes: Mapping[Place, Lifetime]
    where: Mapping[Place, tuple[int, int]]
    chunks: tuple[int, ...]
    replaced: frozenset[Place] = frozenset()  # the blocks whose last action writes another one over them

    @property
    def is_split(self) -> bool:
        return len(self.chunks) > 1

    @property
    def arena_bytes(self) -> int:
        return sum(self.chunks)

    @cached_property
    def offsets(self) -> Mapping[Place, int]:
        """Where each block begins in the arena, as if its chunks lay one behind the other."""
        starts = [0, *accumulate(self.chunks)]
        return {place: starts[chunk] + offset for place, (chunk, offset) in self.where.items()}

    @property
    def unshared_bytes(self) -> int:
        """What the same blocks would take if none shared memory with another."""
        return sum(lifetime.nbytes for lifetime in self.lifetimes.values())


def needed_actions(actions: Sequence[Action], temporary: Collection[Place]) -> tuple[int, ...]:
    """The actions from which something outside the recording is computed, in order."""
    wanted: set[Place] = set()
    kept: list[int] = []
    for number in reversed(range(len(actions))):
        action = actions[number]
        if any(place in wanted or place not in temporary for place in action.writes):
            kept.append(number)
            wanted |= action.reads | action.writes
    return tuple(reversed(kept))


def make_plan(
    actions: Sequence[Action],
    temporary: Mapping[Place, int],
    alignment: int,
    slack: Sequence[int] = (0,),
    most: int | None = None,
    reach: Mapping[Place, int] | None = None,
) -> Plan:
    """Plan ``actions``; ``temporary`` gives the bytes of each temporary place.

    ``slack`` are numbers of actions, the most wished for first, that a block's bytes should rest between two uses: who
    gets them early must wait for who had them. The first is taken that costs little memory.

    ``most`` is what a chunk of the arena may have. A block that is larger begins a chunk of its own size, which it is
    for others to refuse. ``reach`` says for places where they must end in their chunk, unless they begin it.
    """
    kept = needed_actions(actions, temporary)
    first: dict[Place, int] = {}
    last: dict[Place, int] = {}
    for number in kept:
        action = actions[number]
        for touched in sorted(action.reads | action.writes, key=_in_order):
            if touched in temporary:
                first.setdefault(touched, number)
                last[touched] = number
    lifetimes = {touched: Lifetime(temporary[touched], start, last[touched]) for touched, start in first.items()}
    heirs = _heirs(actions, kept, lifetimes)
    holder: dict[Place, Place] = {}  # of each block's bytes: the first
    for old, new in heirs.items():
        holder[new] = holder.get(old, old)
    joined = _joined(lifetimes, holder)
    ends: dict[Place, int] = {}
    for key in lifetimes:
        if reach is not None and key in reach:
            name = holder.get(key, key)
            ends[name] = min(reach[key], ends.get(name, reach[key]))
    found = _cheapest([[place(_longer(joined, rest), alignment)] for rest in slack], joined)
    if not _fits(found, joined, most, ends):
        found = _cheapest([split(_longer(joined, rest), alignment, most, ends) for rest in slack], joined)
    sizes = [_end(chunk, joined) for chunk in found]
    order = sorted(range(len(found)), key=lambda number: -sizes[number])
    at = {key: (to, offset) for to, number in enumerate(order) for key, offset in found[number].items()}
    where = {key: at[holder.get(key, key)] for key in lifetimes}
    return Plan(kept, lifetimes, where, tuple(sizes[number] for number in order), frozenset(heirs))


def _cheapest(tried: Sequence[Sequence[Chunk]], blocks: Mapping[Place, Lifetime]) -> Sequence[Chunk]:
    """The first that costs little more memory than any other."""
    sizes = [sum(_end(chunk, blocks) for chunk in found) for found in tried]
    return next(found for found, nbytes in zip(tried, sizes, strict=True) if 100 * nbytes <= REST * min(sizes))


def _end(chunk: Chunk, blocks: Mapping[Place, Lifetime]) -> int:
    return max((offset + blocks[key].nbytes for key, offset in chunk.items()), default=0)


def _fits(
    found: Sequence[Chunk], blocks: Mapping[Place, Lifetime], most: int | None, reach: Mapping[Place, int]
) -> bool:
    """Whether chunks are as small as they must be, and each block ends where it must."""
    if most is not None and any(_end(chunk, blocks) > most for chunk in found):
        return False
    return all(
        not chunk[key] or chunk[key] + blocks[key].nbytes <= end
        for chunk in found
        for key, end in reach.items()
        if key in chunk
    )


def _heirs(actions: Sequence[Action], kept: Sequence[int], lifetimes: Mapping[Place, Lifetime]) -> dict[Place, Place]:
    """For each block that is replaced, in order: the one that gets its bytes."""
    heirs: dict[Place, Place] = {}
    taken: set[Place] = set()
    for number in kept:
        action = actions[number]
        for old, new in sorted(action.replaces, key=lambda pair: tuple(map(_in_order, pair))):
            before, after = lifetimes.get(old), lifetimes.get(new)
            if before is None or after is None or old in heirs or new in taken:
                continue
            if old in action.writes or new in action.reads or before.nbytes != after.nbytes:
                continue
            if before.last == number == after.first:
                heirs[old] = new
                taken.add(new)
    return heirs


def _joined(lifetimes: Mapping[Place, Lifetime], holder: Mapping[Place, Place]) -> dict[Place, Lifetime]:
    """One block for all that have the same bytes in turn."""
    joined: dict[Place, Lifetime] = {}
    for key, block in lifetimes.items():
        name = holder.get(key, key)
        there = joined.get(name, block)
        joined[name] = Lifetime(block.nbytes, min(there.first, block.first), max(there.last, block.last))
    return joined


def _longer(lifetimes: Mapping[Place, Lifetime], rest: int) -> dict[Place, Lifetime]:
    return {key: Lifetime(block.nbytes, block.first, block.last + rest) for key, block in lifetimes.items()}


def _in_order(touched: Place) -> tuple[int, str]:
    return touched if isinstance(touched, tuple) else (touched, "")


def place(lifetimes: Mapping[Place, Lifetime], alignment: int) -> dict[Place, int]:
    """An offset for each block: in order, each at the lowest place where it meets no other.

    The order is by size; as long as there is more than a percent to be won, and at most ``ORDERS`` times, the block
    that came to lie highest is the first the next time.

    Source: Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, arXiv:2001.03288 (greedy by
            size).
    """
    if not lifetimes:
        return {}
    order = _by_size(lifetimes)
    enough = 1.01 * _most_alive(lifetimes.values())
    found: dict[int, dict[Place, int]] = {}
    for _ in range(ORDERS):
        offsets = _placed(lifetimes, order, alignment)
        highest = max(order, key=lambda key: offsets[key] + lifetimes[key].nbytes)
        end = offsets[highest] + lifetimes[highest].nbytes
        found.setdefault(end, offsets)
        if end <= enough:
            break
        order.remove(highest)
        order.insert(0, highest)
    return found[min(found)]


def split(
    lifetimes: Mapping[Place, Lifetime], alignment: int, most: int | None, reach: Mapping[Place, int]
) -> list[Chunk]:
    """The same in chunks of at most ``most`` bytes: each block in the first of them that has room for it."""
    order = _by_size(lifetimes)
    enough = 1.01 * _most_alive(lifetimes.values())
    found: dict[int, list[Chunk]] = {}
    for _ in range(ORDERS):
        chunks = _placed_in_chunks(lifetimes, order, alignment, most, reach)
        total = sum(_end(chunk, lifetimes) for chunk in chunks)
        found.setdefault(total, chunks)
        if total <= enough:
            break
        last = chunks[-1]
        highest = max(last, key=lambda key: last[key] + lifetimes[key].nbytes)
        order.remove(highest)
        order.insert(0, highest)
    return found[min(found)]


def _by_size(lifetimes: Mapping[Place, Lifetime]) -> list[Place]:
    # Of equals the one that was met first: numbers depend on what ran before, and a plan must not.
    return sorted(lifetimes, key=lambda key: (-lifetimes[key].nbytes, lifetimes[key].first))


def _most_alive(blocks: Collection[Lifetime]) -> int:
    """The most bytes that are needed at one time: no arena is smaller."""
    change: dict[int, int] = defaultdict(int)
    for block in blocks:
        change[block.first] += block.nbytes
        change[block.last + 1] -= block.nbytes
    return max(accumulate(change[time] for time in sorted(change)))


def _placed(lifetimes: Mapping[Place, Lifetime], order: Sequence[Place], alignment: int) -> dict[Place, int]:
    offsets: dict[Place, int] = {}
    for key in order:
        offsets[key] = _lowest(lifetimes[key], offsets, lifetimes, alignment)
    return offsets


def _placed_in_chunks(
    lifetimes: Mapping[Place, Lifetime],
    order: Sequence[Place],
    alignment: int,
    most: int | None,
    reach: Mapping[Place, int],
) -> list[Chunk]:
    chunks: list[dict[Place, int]] = []
    room: list[int | None] = []
    for key in order:
        block = lifetimes[key]
        for number in count():
            if number == len(chunks):
                chunks.append({})
                room.append(None if most is None else max(most, block.nbytes))
            position = _lowest(block, chunks[number], lifetimes, alignment)
            end, space = position + block.nbytes, room[number]
            if (space is None or end <= space) and (not position or end <= reach.get(key, end)):
                chunks[number][key] = position
                break
    return [*chunks]


def _lowest(block: Lifetime, offsets: Chunk, lifetimes: Mapping[Place, Lifetime], alignment: int) -> int:
    """The first place where ``block`` meets none of those that have their ``offsets``."""
    taken = sorted(
        (offset, offset + lifetimes[other].nbytes) for other, offset in offsets.items() if lifetimes[other].meets(block)
    )
    position = 0
    for start, end in taken:
        if position + block.nbytes <= start:
            break
        position = max(position, -(-end // alignment) * alignment)
    return position
