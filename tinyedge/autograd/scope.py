"""Parts of a forward pass that have a say in what happens inside: checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy.typing as npt

from tinyedge.ir.modes import Switch, modes
from tinyedge.ir.step import Op, Step
from tinyedge.ir.values import Read, Storage

T = TypeVar("T")


class Region:
    """A part of a forward pass that has a say in what happens inside, while it is set by ``within``."""

    def called(self, op: type[Op], reads: Sequence[Read], attrs: Mapping[str, Any], scalars: Mapping[str, Any]) -> None:
        """``op`` is called with this."""

    def uploaded(self, values: npt.NDArray[Any]) -> None:
        """A tensor is made of ``values`` of the host."""

    def linked(self, step: Step) -> None:
        """``step`` has got its edges, and what it saved."""

    def once(self, make: Callable[[], T]) -> T:
        """What ``make`` returns, or returned when the same was computed before."""
        return make()

    def may_change(self, storage: Storage) -> bool:
        """Whether ``storage`` may be changed in place; if not, the change is left out."""
        return True


def within(*regions: Region) -> Switch[tuple[Region, ...]]:
    """Let these, the innermost last, and no others be the regions of what runs in this thread."""
    return Switch("regions", regions)


def regions() -> tuple[Region, ...]:
    """The regions of what runs in this thread, the innermost last."""
    return modes.regions


def once(make: Callable[[], T]) -> T:
    """What ``make`` returns, random numbers for instance; the same again where a forward pass is computed again."""
    for region in modes.regions:
        make = partial(region.once, make)
    return make()


def may_change(storage: Storage) -> bool:
    """Whether a change of ``storage`` in place is to be made: one that was made before is not made again."""
    return all(region.may_change(storage) for region in modes.regions)
