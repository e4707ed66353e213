"""What a module calls around saving and loading its state: PyTorch's hooks, for renamed keys and moved values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tinyedge.autograd.hooks import Handle, added


class StateHooks:
    """The part of ``Module`` that holds its hooks of state dicts."""

    def register_state_dict_pre_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(module, prefix, keep_vars)`` before this module's part of a ``state_dict`` is made."""
        return self._added("before saving", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` when this module's part of a ``state_dict`` is
        there, and may be changed; ``local_metadata`` is an empty dict.
        """
        return self._added("after saving", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)``
        before a copy of the dict, which may be changed, is loaded. Names and texts put into the three lists count.
        """
        return self._added("before loading", hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(module, incompatible_keys)`` when the names were compared, after values were copied if they fit.

        The two lists in ``incompatible_keys`` may be changed: what is left there is an error if loading is strict.
        """
        return self._added("after loading", hook)

    def _added(self, when: str, hook: Callable[..., None]) -> Handle:
        return added(self.__dict__.setdefault("_state_hooks", {}).setdefault(when, {}), hook)


def run(when: str, modules: Iterable[tuple[str, Any]], *given: Any) -> bool:
    """Call the hooks of these modules, by path, with ``given``, in which ``...`` stands for the module's prefix.

    Returns whether there were any.
    """
    found = False
    for path, module in modules:
        for hook in tuple(module.__dict__.get("_state_hooks", {}).get(when, {}).values()):
            found = True
            hook(module, *((f"{path}." if path else "") if item is ... else item for item in given))
    return found
