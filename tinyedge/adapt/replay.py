"""Samples that were seen, kept to be trained on again, in a bounded number of bytes."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from tinyedge.adapt.budget import bytes_of
from tinyedge.errors import ArgumentError
from tinyedge.tensor import Tensor, tensor


class _Entry:
    """A sample; without values once it was dropped."""

    __slots__ = ("nbytes", "values")

    def __init__(self, sample: tuple[Any, ...]) -> None:
        self.values: tuple[Any, ...] = tuple(_Kept(item) if isinstance(item, Tensor) else item for item in sample)
        self.nbytes = sum(item.array.nbytes for item in self.values if isinstance(item, _Kept))


class _Kept:
    """A tensor's values on the host, its dtype, and the device to which they belong."""

    __slots__ = ("array", "device", "dtype")

    def __init__(self, value: Tensor) -> None:
        self.array = value.detach().numpy().copy()
        self.device = value.backend
        self.dtype = value.dtype

    def tensor(self) -> Tensor:
        return tensor(self.array, dtype=self.dtype, device=self.device)


class ReplayBuffer:
    """At most ``max_bytes`` of samples, on the host. Where a new one needs room, others are dropped at random.

    So an early sample may stay for long, and what was learnt from it is not forgotten at once. ``take`` gives each new
    sample once, in order, and then any.

    ``max_bytes`` is a number, or text such as "16MB". ``seed`` makes the choices repeat.

    >>> buffer = te.adapt.ReplayBuffer("1kB")
    >>> buffer.add(te.ones(1, 16), te.tensor([3]))
    >>> len(buffer), buffer.nbytes
    (1, 72)
    >>> x, y = buffer.take()
    >>> y.item()
    3
    """

    def __init__(self, max_bytes: int | str, seed: int = 0) -> None:
        self.max_bytes = bytes_of(max_bytes, "ReplayBuffer")
        self._entries: list[_Entry] = []
        self._new: deque[_Entry] = deque()
        self._bytes = 0
        self._random = Random(seed)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """The bytes of the samples in it."""
        return self._bytes

    def add(self, *sample: Any) -> None:
        """Keep a copy of a sample: tensors, and whatever else the loss takes with them.

        Errors: ArgumentError if it is empty or larger than the whole buffer.
        """
        entry = _Entry(sample)
        if not sample or entry.nbytes > self.max_bytes:
            raise ArgumentError(
                "ReplayBuffer.add",
                f"a sample of at most {self.max_bytes} bytes",
                f"got one of {entry.nbytes}" if sample else "got nothing",
                "Make the buffer larger." if sample else "",
            )
        entries = self._entries
        while self._bytes + entry.nbytes > self.max_bytes:
            place = self._random.randrange(len(entries))
            entries[place], entries[-1] = entries[-1], entries[place]
            dropped = entries.pop()
            dropped.values = ()
            self._bytes -= dropped.nbytes
        entries.append(entry)
        self._new.append(entry)
        self._bytes += entry.nbytes
        while self._new and not self._new[0].values:
            self._new.popleft()

    def take(self) -> tuple[Any, ...]:
        """The next new sample, or else any.

        Errors: ArgumentError if there is none.
        """
        if not self._entries:
            raise ArgumentError("ReplayBuffer.take", "a sample", "the buffer is empty")
        while self._new and not self._new[0].values:
            self._new.popleft()
        entry = self._new.popleft() if self._new else self._random.choice(self._entries)
        return tuple(item.tensor() if isinstance(item, _Kept) else item for item in entry.values)
