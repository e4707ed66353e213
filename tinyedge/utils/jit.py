"""What programs mark with ``torch.jit``: functions and modules stay what they are, and give the same. ``te.compile`` is
what makes them fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tinyedge.autograd.absent import lookup

T = TypeVar("T")


def script(obj: T, *args: Any, **kwargs: Any) -> T:
    """``obj`` itself: nothing is translated."""
    return obj


def script_method(fn: T) -> T:
    """``fn`` itself."""
    return fn


def export(fn: T) -> T:
    """``fn`` itself."""
    return fn


def unused(fn: T) -> T:
    """``fn`` itself."""
    return fn


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """The function itself, with and without parentheses."""
    return drop if isinstance(drop, Callable) else lambda fn: fn  # type: ignore[arg-type]


def is_scripting() -> bool:
    """False."""
    return False


def is_tracing() -> bool:
    """False."""
    return False


__getattr__ = lookup("jit", globals(), "te.compile")
