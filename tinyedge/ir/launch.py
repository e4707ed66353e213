"""A launch group: the kernels of one launch, and which of them wait for which."""

from __future__ import annotations

from dataclasses import dataclass

from tinyedge.ir.kernel import Kernel


@dataclass(frozen=True)
class LaunchGroup:
    """A launch of kernels of a program. ``waits`` names for each those, by number, that must be over before."""

    kernels: tuple[Kernel, ...]
    waits: tuple[tuple[int, ...], ...]

    @property
    def is_persistent(self) -> bool:
        return any(self.waits)


def single(kernel: Kernel) -> LaunchGroup:
    """A launch of one kernel, and of those that were placed beside it."""
    return LaunchGroup((kernel,), ((),))
