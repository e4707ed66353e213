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


class Scope:
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


def within(*scopes: Scope) -> Switch[tuple[Scope, ...]]:
    """Let these, the innermost last, and no others be the scopes of what runs in this thread."""
    return Switch("scopes", scopes)


def scopes() -> tuple[Scope, ...]:
    """The scopes of what runs in this thread, the innermost last."""
    return modes.scopes


def once(make: Callable[[], T]) -> T:
    """What ``make`` returns, random numbers for instance; the same again where a forward pass is computed again."""
    for scope in modes.scopes:
        make = partial(scope.once, make)
    return make()


def may_change(storage: Storage) -> bool:
    """Whether a change of ``storage`` in place is to be made: one that was made before is not made again."""
    return all(scope.may_change(storage) for scope in modes.scopes)
