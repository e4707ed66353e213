"""A launch group: the kernels of one launch, and the dependencies between them.

In: the compiler's kernels and their dependencies (``compiler/schedule.py``). Out: what a backend renders as one kernel
function. With dependencies it is a persistent kernel: its work-groups take kernels from a work queue, and wait by
dependency counters.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyedge.ir.kernel import Kernel


@dataclass(frozen=True)
class LaunchGroup:
    """The kernels of one launch. ``waits`` gives, for each, the numbers of those that must have finished before."""

    kernels: tuple[Kernel, ...]
    waits: tuple[tuple[int, ...], ...]

    @property
    def is_persistent(self) -> bool:
        return any(self.waits)


def single(kernel: Kernel) -> LaunchGroup:
    """A launch of one kernel, with the siblings that were fused with it horizontally."""
    return LaunchGroup((kernel,), ((),))
