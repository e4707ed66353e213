"""Tensors in nested tuples, lists, dicts and dataclasses, by their position: one that is there twice counts twice.

In: what a function takes or returns. Out: the same with other tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinyedge.containers import NO_CONTAINERS, is_container, leaves_in, rebuilt
from tinyedge.tensor import Tensor


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors, in order."""
    return leaves_in(tree, Tensor)


def mapped(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    """``tree`` with ``function`` of each tensor, in the order of ``tensors_of``."""
    if isinstance(tree, Tensor):
        return function(tree)
    if type(tree) in NO_CONTAINERS or not is_container(type(tree)):
        return tree
    return rebuilt(tree, lambda item: mapped(item, function), {})


def filled(tree: Any, values: Sequence[Any]) -> Any:
    """``tree`` with ``values`` in place of its tensors."""
    left = iter(values)
    return mapped(tree, lambda _: next(left))
