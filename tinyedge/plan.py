"""Where a recorded tape's values lie in memory, and which of its steps are needed. Pure: no device, no buffers.

A recording is a list of actions, each with the storages that it reads and writes, by number. Of each storage it says
whether it is temporary: made and dropped inside the recording. Temporaries, and the scratch memory of kernels, share
one arena; two of them get the same bytes only if they are never needed at the same time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Action:
    """What a step does to memory. ``scratch`` are bytes that live during the step alone, by name."""

    reads: frozenset[int]
    writes: frozenset[int]
    scratch: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Lifetime:
    """A block of memory, and the first and last action that needs it."""

    nbytes: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


Key = int | tuple[int, str]
"""A temporary storage's number; or, of scratch, the action's number and its name."""


@dataclass(frozen=True)
class Plan:
    """The actions that are kept, and an offset in the arena for each temporary and each piece of scratch memory."""

    kept: tuple[int, ...]
    lifetimes: Mapping[Key, Lifetime]
    offsets: Mapping[Key, int]
    arena_bytes: int

    @property
    def unshared_bytes(self) -> int:
        """What the same blocks would take if none shared memory with another."""
        return sum(lifetime.nbytes for lifetime in self.lifetimes.values())


def needed_actions(actions: Sequence[Action], temporary: Collection[int]) -> tuple[int, ...]:
    """The actions from which something outside the recording is computed, in order."""
    wanted: set[int] = set()
    kept: list[int] = []
    for number in reversed(range(len(actions))):
        action = actions[number]
        if any(storage in wanted or storage not in temporary for storage in action.writes):
            kept.append(number)
            wanted |= action.reads | action.writes
    return tuple(reversed(kept))


def make_plan(actions: Sequence[Action], temporary: Mapping[int, int], alignment: int) -> Plan:
    """Plan ``actions``; ``temporary`` gives the bytes of each temporary storage."""
    kept = needed_actions(actions, temporary)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    lifetimes: dict[Key, Lifetime] = {}
    for number in kept:
        action = actions[number]
        for storage in sorted(action.reads | action.writes):
            if storage in temporary:
                first.setdefault(storage, number)
                last[storage] = number
        for name, nbytes in action.scratch.items():
            lifetimes[number, name] = Lifetime(nbytes, number, number)
    for storage, start in first.items():
        lifetimes[storage] = Lifetime(temporary[storage], start, last[storage])
    offsets = place(lifetimes, alignment)
    arena_bytes = max((offsets[key] + lifetime.nbytes for key, lifetime in lifetimes.items()), default=0)
    return Plan(kept, lifetimes, offsets, arena_bytes)


def place(lifetimes: Mapping[Key, Lifetime], alignment: int) -> dict[Key, int]:
    """An offset for each block: the largest first, each at the lowest place where it meets no other.

    Source: Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, arXiv:2001.03288 (greedy by
            size).
    """
    # Of equals the one that was met first: numbers depend on what ran before, and a plan must not.
    order = sorted(lifetimes, key=lambda key: (-lifetimes[key].nbytes, lifetimes[key].first))
    offsets: dict[Key, int] = {}
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
