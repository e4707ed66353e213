"""Hooks of gradients: functions of the user that are called with a tensor's gradient, and may replace it.

In: functions of slots, which ``tensor`` makes of the user's. Out: the gradient with which a walk goes on. Those of a
leaf are kept by its slot, those of a result by the step that made it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from tinyedge.errors import ShapeError
from tinyedge.ir.modes import modes
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot, note_leaf_change

Hook = Callable[[Slot], "Slot | None"]

_numbers = count()
_used = False


class Handle:
    """What registering a hook returns: ``remove()`` it, or use it as a context manager."""

    def __init__(self, hooks: dict[int, Any], number: int) -> None:
        self._hooks = hooks
        self._number = number

    def remove(self) -> None:
        """Take the hook away; a second time does nothing."""
        self._hooks.pop(self._number, None)
        note_leaf_change()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class Hooks:
    """What is called with the gradient of one tensor, in the order of registration."""

    def __init__(self) -> None:
        self.before: dict[int, Hook] = {}  # each may return another gradient
        self.after: dict[int, Callable[[], None]] = {}  # of a leaf: once the gradient was added to it
        self.retained: weakref.ref[Slot] | None = None  # a result that keeps its gradient

    def __bool__(self) -> bool:
        return bool(self.before or self.after or self.retained is not None)

    def run(self, gradient: Slot) -> Slot:
        """The gradient that the hooks make of ``gradient``."""
        for hook in tuple(self.before.values()):
            result = hook(gradient)
            if result is None:
                continue
            if result.shape != gradient.shape or result.storage.backend is not gradient.storage.backend:
                raise ShapeError(
                    "register_hook",
                    f"a gradient like the one given: {gradient.shape} on {gradient.storage.backend.name}",
                    f"the hook returned one of {result.shape} on {result.storage.backend.name}",
                    "Return one of its shape, or None.",
                )
            gradient = result
        return gradient


def hooks_of(slot: Slot) -> Hooks:
    """The hooks of a tensor, to which some may be added."""
    global _used
    if modes.recorder is not None:
        modes.recorder.hooked(slot)
    if slot.step is None:
        _used = True
        note_leaf_change()
        if slot.hooks is None:
            slot.hooks = Hooks()
        found: Hooks = slot.hooks
        return found
    step: Step = slot.step
    if step.hooks is None:
        step.hooks = {}
    made: Hooks = step.hooks.setdefault(slot.index, Hooks())
    return made


def is_hooked(leaf: Slot) -> bool:
    """Whether somebody waits for the gradient of a leaf."""
    return _used and bool(leaf.hooks)


def any_hooked(leaves: Iterable[Slot | None]) -> bool:
    """Whether somebody waits for the gradient of one of these leaves."""
    return _used and any(leaf is not None and leaf.hooks for leaf in leaves)


def added(hooks: dict[int, Any], hook: Any) -> Handle:
    """``hook`` added to ``hooks``, and what removes it."""
    number = next(_numbers)
    hooks[number] = hook
    return Handle(hooks, number)


def hooks_at(step: Step, index: int) -> Hooks | None:
    """Those of the output number ``index`` of ``step``."""
    found: Any = step.hooks
    return None if found is None else found.get(index)
