"""A cache that keeps the most recently used entries."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps the ``most`` entries that were last used, and at most as many older ones.

    It has two generations: an entry found in the older one moves to the newer one; when that is full, the older one is
    dropped. A hit in the newer one is a single look-up without a lock. A race loses at most one entry, which is made
    again.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._newer: dict[K, V] = {}
        self._older: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        found = self._newer.get(key)
        if found is None:
            found = self._older.get(key)
            if found is not None:
                self[key] = found
        return found

    def __setitem__(self, key: K, value: V) -> None:
        if len(self._newer) >= self.most:
            self._older, self._newer = self._newer, {}
        self._newer[key] = value

    def __contains__(self, key: K) -> bool:
        return key in self._newer or key in self._older

    def __len__(self) -> int:
        return len(self._newer.keys() | self._older.keys())

    def values(self) -> list[V]:
        return [*{**self._older, **self._newer}.values()]

    def clear(self) -> None:
        self._newer, self._older = {}, {}
