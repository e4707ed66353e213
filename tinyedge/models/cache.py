"""Keys and values of the tokens so far, kept with a fixed capacity, so that one Program serves all positions."""

from __future__ import annotations

from typing import Any, NamedTuple

from tinyedge.backends import Backend
from tinyedge.ops.creation import arange
from tinyedge.ops.selection import where
from tinyedge.tensor import Tensor, full


class KeyValueCache:
    """For each layer the keys and values at ``capacity`` places; which of them hold tokens is the caller's to know."""

    def __init__(
        self, layers: int, batch: int, heads: int, capacity: int, head_dim: int, dtype: Any, device: Backend
    ) -> None:
        shape = (batch, heads, capacity, head_dim)
        self.batch = batch
        self.capacity = capacity
        self.keys = [full(shape, 0.0, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [full(shape, 0.0, dtype=dtype, device=device) for _ in range(layers)]
        self.places = arange(capacity, device=device)


class CachePlace(NamedTuple):
    """Where a step's keys and values go in a cache.

    Shapes: slots (time,) of int64; here (1, 1, capacity, 1) of bool, True at the one slot of a step of one token.
    """

    cache: KeyValueCache
    slots: Tensor
    here: Tensor

    @classmethod
    def at(cls, cache: KeyValueCache, slots: Tensor) -> CachePlace:
        return cls(cache, slots, (cache.places == slots[:1]).view(1, 1, -1, 1))

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a step's keys and values, (batch, heads, time, features), and return all of the cache's."""
        for kept, new in ((self.cache.keys[layer], keys), (self.cache.values[layer], values)):
            if new.shape[2] == 1:
                kept.copy_(where(self.here, new, kept))  # one pointwise kernel
            else:
                kept.index_copy_(2, self.slots, new.contiguous())
        return self.cache.keys[layer], self.cache.values[layer]
