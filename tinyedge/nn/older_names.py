"""What programs call on a module by names that PyTorch has kept: of hooks, types, and places of modules."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from tinyedge.autograd.hooks import Handle
from tinyedge.nn.state_hooks import StateHooks

S = TypeVar("S", bound="OlderNames")


class OlderNames(StateHooks):
    """The part of ``Module`` whose names are not those that new programs use."""

    def _get_name(self) -> str:
        return type(self).__name__

    def type(self: S, dst_type: Any) -> S:
        """As ``to(dst_type)``; a tensor's class, such as ``te.DoubleTensor``, or its name is a dtype too."""
        module: Any = self
        param = next(module.parameters(), None)
        return self if param is None else module.to(param.detach().type(dst_type).dtype)

    def set_submodule(self, target: str, module: Any, strict: bool = False) -> None:
        """Put ``module`` into the place of that qualified name. With ``strict`` one must be there.

        Errors: AttributeError if there is no module to hold it, or with ``strict`` none in its place.
        """
        path, _, name = target.rpartition(".")
        holder: Any = self
        holder = holder.get_submodule(path)
        if strict:
            holder.get_submodule(name)
        holder.add_module(name, module) if name in holder._modules else setattr(holder, name, module)

    def register_backward_hook(self, hook: Callable[..., Any]) -> Handle:
        """As ``register_full_backward_hook``, which is the name that PyTorch wants."""
        warnings.warn("register_backward_hook is deprecated: use register_full_backward_hook", stacklevel=2)
        module: Any = self
        handle: Handle = module.register_full_backward_hook(hook)
        return handle

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> Handle:
        return self.register_state_dict_post_hook(hook)

    def _register_load_state_dict_pre_hook(self, hook: Callable[..., Any], with_module: bool = False) -> Handle:
        return self.register_load_state_dict_pre_hook(hook if with_module else lambda module, *given: hook(*given))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """For a class of one's own, to change a copy of the dict before values are taken from it: ``load_state_dict``
        does what this method does in PyTorch.
        """

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """For a class of one's own, to change what ``state_dict`` gives; it has put in what this does in PyTorch."""


__all__ = ["OlderNames"]
