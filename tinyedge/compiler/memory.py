"""Where a recorded tape's values lie in memory, and which of its steps are needed. Pure: no device, no buffers.

A recording is a list of actions, each with the places that it reads and writes. Temporary places are made and dropped
inside the recording: they share one arena, and two of them get the same bytes only if they are never needed at the same
time; or if an action that needs one for the last time, and is the first that needs the other, may replace it by that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tinyedge.ir.kernel import Place

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
    """The actions that are kept, and an offset in the arena for each temporary place that they touch."""

    kept: tuple[int, ...]
    lifetimes: Mapping[Place, Lifetime]
    offsets: Mapping[Place, int]
    arena_bytes: int
    replaced: frozenset[Place] = frozenset()  # the blocks whose last action writes another one over them

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
    actions: Sequence[Action], temporary: Mapping[Place, int], alignment: int, slack: Sequence[int] = (0,)
) -> Plan:
    """Plan ``actions``; ``temporary`` gives the bytes of each temporary place.

    ``slack`` are numbers of actions, the most wished for first, that a block's bytes should rest between two uses: who
    gets them early must wait for who had them. The first is taken that costs little memory.
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
    tried = [place(_longer(joined, rest), alignment) for rest in slack]
    sizes = [max((found[key] + block.nbytes for key, block in joined.items()), default=0) for found in tried]
    chosen = next(number for number, nbytes in enumerate(sizes) if 100 * nbytes <= REST * min(sizes))
    offsets = {key: tried[chosen][holder.get(key, key)] for key in lifetimes}
    return Plan(kept, lifetimes, offsets, sizes[chosen], frozenset(heirs))


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
    # Of equals the one that was met first: numbers depend on what ran before, and a plan must not.
    order = sorted(lifetimes, key=lambda key: (-lifetimes[key].nbytes, lifetimes[key].first))
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
        block = lifetimes[key]
        taken = sorted(
            (offset, offset + lifetimes[other].nbytes)
            for other, offset in offsets.items()
            if lifetimes[other].meets(block)
        )
        position = 0
        for start, end in taken:
            if position + block.nbytes <= start:
                break
            position = max(position, -(-end // alignment) * alignment)
        offsets[key] = position
    return offsets
