"""What is set for a thread: gradients, anomalies, the backend, who records, what is held back."""

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
    """What a mode is set to by ``owner``, a context manager, and what it was set to before."""

    __slots__ = ("before", "owner", "value")

    def __init__(self, value: Any, before: Setting | None = None, owner: object = None) -> None:
        self.value = value
        self.before = before
        self.owner = owner


class _Modes(threading.local):
    grad = Setting(True)
    anomaly = Setting(False)
    backend = Setting(None)  # that tensors are made on, in the place of the process' default
    recorder: Any = None  # a Recorder, who is told what runs
    deferred: Any = None  # a Deferred, which holds launches back
    scopes: tuple[Any, ...] = ()  # Scopes of a forward pass, the innermost last


modes = _Modes()


class Switch(Generic[T]):
    """Context manager: ``mode``, an attribute of this thread's modes, is ``value`` inside.

    A class and no generator, and one plain store each way: an interrupt comes before the store, or when the block has
    begun.
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
    """Base of what sets one of this thread's modes for a block, or for each call of a function that it decorates.

    One of them may be shared by threads, and entered again inside itself: what to go back to is kept by the thread. A
    block that ends puts its mode back to what it was before, whatever blocks inside left it at.
    """

    mode: str  # the attribute of the thread's modes, a Setting

    def value(self) -> Any:
        """What the mode is set to inside."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        setting = Setting(self.value(), getattr(modes, self.mode), self)
        modes.__dict__[self.mode] = setting  # one store, so that an interrupt comes before it, or inside the block
        return setting.value

    def __exit__(self, *exc: object) -> None:
        mine = modes.__dict__
        # No get(): after a call Python would deliver an interrupt, before the mode is put back.
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
        """The mode is set while the generator runs, and not while it waits."""

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
    """Whether a recorder is told what runs in this thread."""
    return modes.recorder is not None


def is_abstract() -> bool:
    """Whether what runs in this thread is only told to a recorder."""
    return modes.recorder is not None and not modes.recorder.runs


def is_grad_enabled() -> bool:
    """Whether op calls are recorded for backward in this thread."""
    enabled: bool = modes.grad.value
    return enabled


def grad_setting() -> Setting:
    """Whether they are, and what set it so."""
    return modes.grad


def set_grad_setting(setting: Setting) -> None:
    modes.grad = setting


def is_checking_anomalies() -> bool:
    """Whether ``detect_anomaly`` is on in this thread."""
    checking: bool = modes.anomaly.value
    return checking


def chosen_backend() -> Any:
    """The backend that ``use_backend`` chose in this thread, or None."""
    return modes.backend.value
