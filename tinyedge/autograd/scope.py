"""Scopes: a checkpoint's way to take part in a forward pass.

In: dispatch tells the scopes of this thread which ops are called and linked. Out: a scope decides what a step saves,
and what happens only once when the pass is computed again.
"""

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
    """A part of a forward pass, while it is set by ``within``: it is told what happens inside, and may change it."""

    def called(self, op: type[Op], reads: Sequence[Read], attrs: Mapping[str, Any], scalars: Mapping[str, Any]) -> None:
        """``op`` is called with these inputs and attributes."""

    def uploaded(self, values: npt.NDArray[Any]) -> None:
        """A tensor is made of ``values`` from the host."""

    def linked(self, step: Step) -> None:
        """``step`` got its edges and its saved values."""

    def once(self, make: Callable[[], T]) -> T:
        """The result of ``make``; or its earlier result, if the same pass was computed before."""
        return make()

    def may_change(self, storage: Storage) -> bool:
        """Whether ``storage`` may be changed in place; if not, the change is left out."""
        return True


def within(*scopes: Scope) -> Switch[tuple[Scope, ...]]:
    """Make these scopes, the innermost last, and no others the scopes of this thread."""
    return Switch("scopes", scopes)


def scopes() -> tuple[Scope, ...]:
    """The scopes of this thread, the innermost last."""
    return modes.scopes


def once(make: Callable[[], T]) -> T:
    """The result of ``make``, for instance random numbers; the same again when a forward pass is computed again."""
    for scope in modes.scopes:
        make = partial(scope.once, make)
    return make()


def may_change(storage: Storage) -> bool:
    """Whether to change ``storage`` in place: not if the same change was made when the pass was computed before."""
    return all(scope.may_change(storage) for scope in modes.scopes)
