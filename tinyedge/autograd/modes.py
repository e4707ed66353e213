"""``no_grad``, ``enable_grad`` and ``set_grad_enabled``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from tinyedge.ir import modes

G = TypeVar("G", bound="_GradMode")


class _GradMode(modes.ModeContext):
    mode = "grad"
    enabled: bool

    def __new__(cls: type[G], function: Callable[..., Any] | None = None) -> G:
        """It decorates without parentheses too: ``@te.no_grad``."""
        made = object.__new__(cls)
        return made if function is None else cast(Any, made)(function)

    def value(self) -> bool:
        return self.enabled


class no_grad(_GradMode):
    """Context manager and decorator: inside, in this thread, op calls are not linked into the graph."""

    enabled = False


class inference_mode(modes.ModeContext):
    """``no_grad`` by the name that PyTorch has for inference; with ``mode=False``, ``enable_grad``.

    Unlike in PyTorch, tensors made inside may be used by autograd later.
    """

    mode = "grad"

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> inference_mode:
        made = object.__new__(cls)
        made.enabled = not mode if isinstance(mode, bool) else False
        return cast(Any, made)(mode) if callable(mode) else made

    def value(self) -> bool:
        return self.enabled

    enabled: bool


class enable_grad(_GradMode):
    """Context manager and decorator: inside, in this thread, op calls are linked into the graph."""

    enabled = True


class set_grad_enabled(modes.ModeContext):
    """Switch gradients on or off in this thread: from the call on, in a ``with`` block, or as a decorator.

    A plain call inside ``with te.no_grad():`` holds until the end of that block.
    """

    mode = "grad"

    def __init__(self, mode: bool) -> None:
        self.enabled = bool(mode)
        before = modes.grad_setting()
        self._before: modes.Setting | None = before
        modes.set_grad_setting(modes.Setting(self.enabled, before.before, before.owner))

    def value(self) -> bool:
        return self.enabled

    def _undo(self) -> None:
        """Undo the plain call, which was only the beginning of a block or of a decoration."""
        before, self._before = self._before, None
        if before is not None:
            modes.set_grad_setting(before)

    def __enter__(self) -> None:
        self._undo()
        super().__enter__()

    def __call__(self, function: modes.Function) -> modes.Function:
        self._undo()
        return super().__call__(function)
