"""Kernel objects of pyopencl without the Python module that it generates for each, which is never used here.

The module serves calls of a kernel and ``set_args``; launches set arguments and enqueue in other ways. To generate it
takes 0.5 ms, together half of a first compiled step whose binaries are kept, and it stays in memory for good.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class _Plain(threading.local):
    """Whether this thread makes kernels of tinyedge at the moment: other threads may make the user's own."""

    active = False


_plain = _Plain()
_lock = threading.Lock()


def _refuse(*_: Any, **__: Any) -> None:
    raise TypeError("this kernel was made by tinyedge, and is launched by set_arg and enqueue_nd_range_kernel only")


def _install() -> None:
    """Let ``_plain`` decide what pyopencl's generator does; versions without such a generator stay as they are."""
    try:
        from pyopencl import invoker

        generate: Callable[..., Any] = invoker.generate_enqueue_and_set_args
    except (ImportError, AttributeError):
        return
    if getattr(generate, "is_of_tinyedge", False):
        return

    def generate_unless_plain(*arguments: Any, **options: Any) -> Any:
        return (_refuse, _refuse) if _plain.active else generate(*arguments, **options)

    generate_unless_plain.is_of_tinyedge = True  # type: ignore[attr-defined]
    invoker.generate_enqueue_and_set_args = generate_unless_plain


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Kernel objects that this thread makes in the block get no generated module."""
    with _lock:
        _install()
    _plain.active = True
    try:
        yield
    finally:
        _plain.active = False
