"""What a module calls around saving and loading its state: PyTorch's hooks, for renamed keys and moved values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tinyedge.autograd.hooks import Handle, added


class StateHooks:
    """The part of ``Module`` that holds its hooks of state dicts, and what else stands in them."""

    def get_extra_state(self) -> Any:
        """What stands in the state dict besides tensors, as ``_extra_state``; for a class of one's own to define.

        Errors: NotImplementedError of a class that does not.
        """
        raise NotImplementedError(f"{type(self).__name__} has no extra state: define get_extra_state")

    def set_extra_state(self, state: Any) -> None:
        """Take what ``get_extra_state`` gave, when parameters and buffers were loaded.

        Errors: NotImplementedError of a class that does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no extra state: define set_extra_state")

    def register_state_dict_pre_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(module, prefix, keep_vars)`` before this module's part of a ``state_dict`` is made."""
        return _registered(self, "before saving", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` when this module's part of a ``state_dict`` is
        there, and may be changed; ``local_metadata`` is an empty dict.
        """
        return _registered(self, "after saving", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)``
        before a copy of the dict, which may be changed, is loaded. Names and texts put into the three lists count.
        """
        return _registered(self, "before loading", hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(module, incompatible_keys)`` when the names were compared, after values were copied if they fit.

        The two lists in ``incompatible_keys`` may be changed: what is left there is an error if loading is strict.
        """
        return _registered(self, "after loading", hook)


def _registered(module: Any, when: str, hook: Callable[..., None]) -> Handle:
    return added(module.__dict__.setdefault("_state_hooks", {}).setdefault(when, {}), hook)


def extra_states(modules: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The extra states of the modules that define one, by qualified name."""
    return {
        _extra_name(path): module.get_extra_state()
        for path, module in modules
        if type(module).get_extra_state is not StateHooks.get_extra_state
    }


def take_extra_states(
    modules: Iterable[tuple[str, Any]], state: dict[str, Any], missing: list[str]
) -> list[tuple[Any, Any]]:
    """Modules that take an extra state, with theirs, which is taken out of ``state``, or entered as missing."""
    found = []
    for path, module in modules:
        if type(module).set_extra_state is not StateHooks.set_extra_state:
            name = _extra_name(path)
            if name in state:
                found.append((module, state.pop(name)))
            elif type(module).get_extra_state is not StateHooks.get_extra_state:
                missing.append(name)
    return found


def set_extra_states(taken: Iterable[tuple[Any, Any]]) -> None:
    """Give modules the extra states that ``take_extra_states`` found."""
    for module, state in taken:
        module.set_extra_state(state)


def _extra_name(path: str) -> str:
    return f"{path}._extra_state" if path else "_extra_state"


def before_loading(modules: Sequence[tuple[str, Any]], state: dict[str, Any], *told: Any) -> None:
    """Let hooks and modules change the copy of a dict that is to be loaded, and enter what they find."""
    run("before loading", modules, state, ..., {}, *told)
    for path, module in modules:
        module._load_from_state_dict(state, f"{path}." if path else "", {}, *told)


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
