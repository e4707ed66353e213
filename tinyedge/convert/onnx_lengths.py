"""Other lengths of the dims of an export's inputs: from two examples it is seen what follows which length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

RATIOS = (*(1 / n for n in (32, 16, 8, 4, 3, 2)), 2 / 3, 3 / 4, 1, 4 / 3, 3 / 2, 2, 3, 4, 8, 16, 32)
"""How many times as long as a dim another one may be by chance, in one example: not in both."""

TRIES = 4096


class Symbol(NamedTuple):
    """A dim of an input whose length is any: its length in the example, and in the other one."""

    input: str
    dim: int
    name: str
    size: int
    twin: int


def longer(size: int) -> Iterator[int]:
    """Odd ones for even ones, and even ones for odd ones: how halves are rounded is seen."""
    return iter(range(2 * size + 1 + size % 2, 2 * size + TRIES, 2))


def multiples(size: int) -> Iterator[int]:
    """For models that halve lengths."""
    return iter(range(3 * size, size * TRIES, size))


def shorter(size: int) -> Iterator[int]:
    """For models with a greatest length."""
    return iter(range(size - 1, 0, -1))


def halves(size: int) -> Iterator[int]:
    """For models that do both."""
    return chain((size // n for n in (2, 4, 8, 16) if size % n == 0), shorter(size))


Kind = Callable[[int], Iterator[int]]


def other_lengths(sizes: Mapping[str, int]) -> Iterator[list[dict[str, int]]]:
    """Lengths for another example, and for a third one, of the same kind, and more such: a model may refuse some."""
    orders: list[dict[str, Kind]] = [dict.fromkeys(sizes, longer), dict.fromkeys(sizes, multiples)]
    orders += [{**orders[0], name: shorter} for name in sizes]
    orders += [dict.fromkeys(sizes, kind) for kind in (shorter, halves)]
    orders += [{**orders[0], name: halves} for name in sizes]
    for order in orders:
        first = _chosen(sizes, order, {})
        if first is not None:
            second = _chosen(sizes, order, first)
            yield [first] if second is None else [first, second]


def _chosen(sizes: Mapping[str, int], kinds: Mapping[str, Kind], but: Mapping[str, int]) -> dict[str, int] | None:
    """A length of each kind, so that no dim becomes longer by a simple multiple of what another one does, or nearly:
    parts of lengths are rounded. Lengths in ``but`` are taken.
    """
    grown: list[int] = []
    found: dict[str, int] = {}
    for name, size in sizes.items():
        for length in kinds[name](size):
            more = length - size
            plain = all(abs(more - ratio * other) > 2 * max(ratio, 1) for other in grown for ratio in RATIOS)
            if plain and length != but.get(name):
                grown.append(more)
                found[name] = length
                break
        else:
            return None
    return found


__all__ = ["Symbol", "other_lengths"]
