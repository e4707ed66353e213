"""What an optimizer calls around its steps and around saving and loading its state.

In: functions that the user registers. Out: they are called in the order in which they came; ``prepend`` puts one first.
Copies and pickles of an optimizer have none of them, as in PyTorch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tinyedge.autograd.hooks import Handle, added
from tinyedge.autograd.recorder import forbid_in_recording


class Hooks:
    """The part of ``Optimizer`` that holds its hooks."""

    _hooks: dict[str, dict[int, Any]]

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` before each ``step``; unless None, it returns other arguments, both.

        Errors: CaptureError for such a step in a compiled function, whose replay would not call the hook.
        """
        self._calls_hooks()
        return added(self._kept("before step"), hook)

    def register_step_post_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` after each ``step``.

        Errors: as ``register_step_pre_hook``.
        """
        self._calls_hooks()
        return added(self._kept("after step"), hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., None], prepend: bool = False) -> Handle:
        """Call ``hook(optimizer)`` before each ``state_dict``."""
        return self._registered("before saving", hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Call ``hook(optimizer, state_dict)`` after each ``state_dict``; unless None, what it returns is used."""
        return self._registered("after saving", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Call ``hook(optimizer, state_dict)`` before it is loaded, with a copy of the dict; unless None, what it
        returns is loaded.
        """
        return self._registered("before loading", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., None], prepend: bool = False) -> Handle:
        """Call ``hook(optimizer)`` after a state dict was loaded."""
        return self._registered("after loading", hook, prepend)

    def _kept(self, when: str) -> dict[int, Any]:
        return self.__dict__.setdefault("_hooks", {}).setdefault(when, {})  # type: ignore[no-any-return]

    def _registered(self, when: str, hook: Callable[..., Any], prepend: bool) -> Handle:
        hooks = self._kept(when)
        others = {**hooks} if prepend else {}
        if prepend:
            hooks.clear()
        handle = added(hooks, hook)
        hooks.update(others)
        return handle

    def _run(self, when: str, *given: Any) -> Any:
        """Call the hooks of ``when``. What one returns, unless None, the next one gets, and in the end the caller."""
        for hook in tuple(self.__dict__.get("_hooks", {}).get(when, {}).values()):
            found = hook(self, *given)
            given = given if found is None else (*given[:-1], found)
        return given[-1] if given else None

    def _calls_hooks(self) -> None:
        """Let a ``step`` that the user's class defines call the hooks too."""
        made = next(made for made in type(self).__mro__ if "step" in vars(made))
        if not hasattr(vars(made)["step"], "calls_hooks"):
            made.step = calling_hooks(made.step)  # type: ignore[attr-defined]


def calling_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step``, with the hooks of its optimizer before and after it."""

    @functools.wraps(step)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        hooks = self.__dict__.get("_hooks", {})
        before, after = (tuple(hooks.get(f"{when} step", {}).values()) for when in ("before", "after"))
        if before or after:
            forbid_in_recording("optimizer.step()", "it has hooks, which a replay would not call")
        for hook in before:
            found = hook(self, args, kwargs)
            if found is not None:
                args, kwargs = found
        result = step(self, *args, **kwargs)
        for hook in after:
            hook(self, args, kwargs)
        return result

    called.calls_hooks = True  # type: ignore[attr-defined]
    return called
