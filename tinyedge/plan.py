"""Where a recorded tape's values lie in memory, and which of its steps are needed. Pure: no device, no buffers.

A recording is a list of actions, each with the places that it reads and writes. Temporary places are made and dropped
inside the recording: they share one arena, and two of them get the same bytes only if they are never needed at the same
time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tinyedge.fusion import Place

REST = 120
"""What an arena may grow to for the sake of slack, in hundredths."""


@dataclass(frozen=True)
class Action:
    """What a kernel does to memory."""

    reads: frozenset[Place]
    writes: frozenset[Place]


@dataclass(frozen=True)
class Lifetime:
    """A block of memory, and the first and last action that needs it."""

    nbytes: int
    first: int
    last: int

    def meets(self, other: Lifetime, slack: int = 0) -> bool:
        """Whether one is needed while the other is, or within ``slack`` actions after."""
        return self.first <= other.last + slack and other.first <= self.last + slack


@dataclass(frozen=True)
class Plan:
    """The actions that are kept, and an offset in the arena for each temporary place that they touch."""

    kept: tuple[int, ...]
    lifetimes: Mapping[Place, Lifetime]
    offsets: Mapping[Place, int]
    arena_bytes: int

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
    tried = [place(lifetimes, alignment, rest) for rest in slack]
    sizes = [max((found[key] + block.nbytes for key, block in lifetimes.items()), default=0) for found in tried]
    chosen = next(number for number, nbytes in enumerate(sizes) if 100 * nbytes <= REST * min(sizes))
    return Plan(kept, lifetimes, tried[chosen], sizes[chosen])


def _in_order(touched: Place) -> tuple[int, str]:
    return touched if isinstance(touched, tuple) else (touched, "")


def place(lifetimes: Mapping[Place, Lifetime], alignment: int, slack: int = 0) -> dict[Place, int]:
    """An offset for each block: the largest first, each at the lowest place where it meets no other.

    Source: Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, arXiv:2001.03288 (greedy by
            size).
    """
    # Of equals the one that was met first: numbers depend on what ran before, and a plan must not.
    order = sorted(lifetimes, key=lambda key: (-lifetimes[key].nbytes, lifetimes[key].first))
    offsets: dict[Place, int] = {}
    for key in order:
        block = lifetimes[key]
        taken = sorted(
            (offset, offset + lifetimes[other].nbytes)
            for other, offset in offsets.items()
            if lifetimes[other].meets(block, slack)
        )
        position = 0
        for start, end in taken:
            if position + block.nbytes <= start:
                break
            position = max(position, -(-end // alignment) * alignment)
        offsets[key] = position
    return offsets
