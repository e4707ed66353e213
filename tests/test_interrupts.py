"""Ctrl-C is held back where something must be done whole, and delivered after that."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import pytest

from tinyedge.autograd.interrupts import held_back


def test_an_interrupt_comes_at_the_end() -> None:
    done = []

    def whole() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        whole()
    assert done == ["all"]
    with pytest.raises(KeyboardInterrupt):  # and at once outside
        signal.raise_signal(signal.SIGINT)


def test_a_handler_of_ones_own_is_called() -> None:
    calls: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        calls.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with held_back():
            with held_back():
                signal.raise_signal(signal.SIGINT)
            assert calls == []  # the outer block is not over
        assert calls == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_inside_is_raised_if_nothing_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), held_back():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("ignored", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_python_does_not_handle_stays(ignored: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, ignored)
    try:
        with held_back():
            assert signal.getsignal(signal.SIGINT) is ignored
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_not_interrupted() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with held_back():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
