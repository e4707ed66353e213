"""Modes of the current thread: gradients on or off, anomaly detection, the default backend, the recorder.

Every stage reads them here; the context managers that set them (``no_grad``, ``use_backend``, ...) stand in the stage
to which they belong, and build on ``Switch`` and ``ModeContext``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial, wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, Generic, TypeVar, cast

from tinyedge.errors import ArgumentError

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


class Setting:
    """The value of a mode, the context manager that set it (``owner``), and the setting before it."""

    __slots__ = ("before", "owner", "value")

    def __init__(self, value: Any, before: Setting | None = None, owner: object = None) -> None:
        self.value = value
        self.before = before
        self.owner = owner


class _Modes(threading.local):
    grad = Setting(True)
    anomaly = Setting(False)
    autocast = Setting(None)  # the dtype of matrix products inside te.autocast
    backend = Setting(None)  # the backend for new tensors, instead of the process' default
    recorder: Any = None  # a Recorder, which is told what runs
    deferred: Any = None  # a Deferred, which holds launches back
    scopes: tuple[Any, ...] = ()  # the Scopes of a forward pass, the innermost last


modes = _Modes()


class Switch(Generic[T]):
    """Context manager: ``mode``, an attribute of this thread's modes, has ``value`` inside the block.

    It is a class and no generator, and sets the mode by one plain store, so that an interrupt comes either before the
    store or after the block has begun.
    """

    __slots__ = ("_before", "_mode", "_value")

    def __init__(self, mode: str, value: T) -> None:
        self._mode = mode
        self._value = value

    def __enter__(self) -> T:
        self._before = getattr(modes, self._mode)
        modes.__dict__[self._mode] = self._value
        return self._value

    def __exit__(self, *exc: object) -> None:
        modes.__dict__[self._mode] = self._before


class ModeContext:
    """Base of context managers that set a mode of this thread for a block, or for calls of a decorated function.

    Threads may share one of them, and it may be entered again inside itself: the value to restore is kept by the
    thread. At the end of a block its mode is restored to what it was before, whatever inner blocks set.
    """

    mode: str  # the attribute of the thread's modes, a Setting

    def value(self) -> Any:
        """The value of the mode inside the block."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        setting = Setting(self.value(), getattr(modes, self.mode), self)
        modes.__dict__[self.mode] = setting  # one store: an interrupt comes before it, or inside the block
        return setting.value

    def __exit__(self, *exc: object) -> None:
        mine = modes.__dict__
        # No get(): Python may deliver an interrupt after a call, before the mode is restored.
        setting = mine[self.mode] if self.mode in mine else None  # noqa: SIM401
        while setting is not None and setting.owner is not self:
            setting = setting.before
        if setting is not None:
            mine[self.mode] = setting.before

    def __call__(self, function: Function) -> Function:
        if iscoroutinefunction(function) or isasyncgenfunction(function):
            raise ArgumentError(
                type(self).__name__,
                "a function or a generator function to decorate",
                f"{function.__qualname__} is a coroutine, and others run while it waits",
                "Use a with block inside that awaits nothing.",
            )
        wrapped = self._generator(function) if isgeneratorfunction(function) else self._function(function)
        return cast("Function", wraps(function)(wrapped))

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return call

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The mode is set while the generator runs, but not while it is suspended."""

        def call(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            resume: Callable[[], Any] = partial(next, generator)
            while True:
                try:
                    with self:
                        item = resume()
                except StopIteration as stop:
                    return stop.value
                try:
                    resume = partial(generator.send, (yield item))
                except GeneratorExit:
                    with self:
                        generator.close()
                    raise
                except BaseException as error:
                    resume = partial(generator.throw, error)

        return call


def is_recording() -> bool:
    """Whether a recorder in this thread is told what runs."""
    return modes.recorder is not None


def is_abstract() -> bool:
    """Whether this thread traces abstractly: calls are told to a recorder, and nothing is allocated or launched."""
    return modes.recorder is not None and not modes.recorder.runs


def is_grad_enabled() -> bool:
    """Whether op calls are recorded for backward in this thread."""
    enabled: bool = modes.grad.value
    return enabled


def grad_setting() -> Setting:
    """The setting of the gradient mode, and what set it."""
    return modes.grad


def set_grad_setting(setting: Setting) -> None:
    """Set what ``grad_setting`` gives, for this thread."""
    modes.grad = setting


def is_checking_anomalies() -> bool:
    """Whether ``detect_anomaly`` is on in this thread."""
    checking: bool = modes.anomaly.value
    return checking
