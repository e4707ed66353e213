"""Ctrl-C is held back while something runs that must be done completely, such as an optimizer's update."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the public one makes enums, at 2 us each
import threading
from types import FrameType
from typing import Any, Literal


class held_back:
    """Context manager: an interrupt (SIGINT) that arrives inside is delivered at the end of the block.

    The block holds what must not be left half done, with the bookkeeping that says that it was done. Python delivers
    interrupts to the main thread only, so in other threads, and where the handler was not set from Python, it does
    nothing. It takes 2 us.
    """

    __slots__ = ("_came", "_handler")

    def __enter__(self) -> None:
        self._came: tuple[int, FrameType | None] | None = None
        self._handler: Any = None
        if threading.get_ident() != threading.main_thread().ident:
            return
        handler = _signal.getsignal(_signal.SIGINT)
        if not callable(handler) or getattr(handler, "__func__", None) is held_back._note:
            return  # it is ignored, kills the process, or is held back already
        try:
            _signal.signal(_signal.SIGINT, self._note)
        except ValueError:  # the main thread, but of another interpreter
            return
        self._handler = handler

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame

    def __exit__(self, *exc: object) -> Literal[False]:
        handler = self._handler
        if handler is not None:
            _signal.signal(_signal.SIGINT, handler)
            if self._came is not None:
                handler(*self._came)
        return False
