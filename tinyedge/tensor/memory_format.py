"""PyTorch's memory formats: in which order the elements of images lie in memory, which nobody here needs to choose."""

from __future__ import annotations

from typing import Any

from tinyedge.errors import ArgumentError


class memory_format:
    """A memory format, by PyTorch's name. The values are those of any other; kernels choose their own order."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"tinyedge.{self.name}"


contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")


class layout:
    """How a tensor's elements lie in memory, by PyTorch's name: there is ``te.strided`` only."""

    def __repr__(self) -> str:
        return "tinyedge.strided"


strided = layout()


def check_memory_format(call: str, given: Any) -> None:
    """Raise ArgumentError unless ``given`` is a memory format, or None."""
    if given is not None and not isinstance(given, memory_format):
        raise ArgumentError(
            call, "memory_format must be te.contiguous_format, preserve_format, channels_last or channels_last_3d",
            f"got {given!r}",
        )  # fmt: skip
