"""Modes of a thread: gradients on or off, the check for NaN, the backend; as blocks, decorators and calls."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.autograd.deferral import deferring
from tinyedge.autograd.recorder import Recorder, recording
from tinyedge.autograd.scope import Scope, within
from tinyedge.backends import Backend, default_backend
from tinyedge.errors import ArgumentError
from tinyedge.ir.modes import modes


def is_on() -> bool:
    return (te.tensor(1.0, requires_grad=True) * 2).requires_grad


def in_thread(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("shared", [te.no_grad(), te.detect_anomaly(), te.use_backend("numpy")], ids=lambda c: c.mode)
def test_one_instance_in_two_threads(shared: Any, reference: Backend) -> None:
    """Each thread goes back to what it had, in whatever order their calls end."""
    inside, leave = threading.Event(), threading.Event()

    @shared
    def other() -> None:
        inside.set()
        leave.wait(10)

    before = getattr(modes, shared.mode)
    thread = threading.Thread(target=other)
    with shared:
        thread.start()
        assert inside.wait(10)
    leave.set()
    thread.join()
    assert getattr(modes, shared.mode) is before

    def after() -> Any:
        with shared:
            pass
        return getattr(modes, shared.mode).value

    assert in_thread(after) == getattr(type(modes), shared.mode).value


def test_one_instance_inside_itself(backend: Backend) -> None:
    context = te.no_grad()
    with context:
        with context:
            assert not is_on()
        assert not is_on()
    assert is_on()


def test_blocks_that_end_out_of_order(backend: Backend) -> None:
    a, b = te.no_grad(), te.no_grad()
    a.__enter__()
    b.__enter__()
    a.__exit__()
    b.__exit__()
    assert is_on()


def test_decorators(backend: Backend) -> None:
    @te.no_grad
    def bare() -> bool:
        return is_on()

    @te.no_grad()
    def called(depth: int) -> bool:
        return is_on() or (depth > 0 and called(depth - 1))

    @te.no_grad
    @te.enable_grad
    def inner() -> bool:
        return is_on()

    @te.set_grad_enabled(False)
    def by_flag() -> bool:
        return is_on()

    assert is_on()
    assert (bare(), called(2), inner(), by_flag()) == (False, False, True, False)
    assert bare.__name__ == "bare"
    assert is_on()


def test_a_decorated_generator(backend: Backend) -> None:
    ended = []

    @te.no_grad()
    def numbers() -> Iterator[Any]:
        try:
            sent = yield is_on()
            yield sent, is_on()
        except KeyError:
            yield "caught", is_on()
        finally:
            ended.append(is_on())

    generator: Any = numbers()
    assert next(generator) is False
    assert is_on()
    assert generator.send(7) == (7, False)
    assert generator.throw(KeyError()) == ("caught", False)
    assert is_on()
    generator.close()
    assert ended == [False]
    assert is_on()


def test_coroutines_are_refused() -> None:
    async def later() -> None: ...

    with pytest.raises(ArgumentError, match="awaits"):
        te.no_grad(later)


def test_set_grad_enabled_as_a_call(backend: Backend) -> None:
    te.set_grad_enabled(False)
    try:
        assert not is_on()
        assert in_thread(is_on)
        with te.set_grad_enabled(True):
            assert is_on()
        assert not is_on()
    finally:
        te.set_grad_enabled(True)
    assert is_on()
    with te.no_grad():
        te.set_grad_enabled(True)
        assert is_on()
    assert is_on()
    with te.set_grad_enabled(False):
        assert not is_on()
    assert is_on()
    with te.no_grad(), te.set_grad_enabled(True):
        assert is_on()
    assert is_on()


def test_a_backend_of_one_thread(opencl: Backend) -> None:
    process = in_thread(default_backend)
    with te.use_backend("numpy") as chosen:
        assert default_backend() is chosen is te.get_backend("numpy")
        assert in_thread(default_backend) is process
        with te.use_backend(opencl):
            assert te.tensor(1.0).backend is opencl
        assert te.tensor(1.0).device == "numpy"
    assert default_backend() is opencl

    @te.use_backend("numpy")
    def decorated() -> str:
        return te.tensor(1.0).device

    assert decorated() == "numpy"


CHECKS = ("RESUME", "CALL", "JUMP_BACKWARD", "PRECALL")


def interrupted(context: Any, method: str, point: int) -> bool:
    """Use ``context`` with an interrupt at one of the points in ``method`` at which Python delivers any."""
    code = getattr(type(context), method).__code__
    names = {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}
    last, seen, raised = "", 0, False

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal last, seen, raised
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            due = last.startswith(CHECKS)
            last = names[frame.f_lasti]
            seen += due
            if due and seen == point + 1 and not raised:
                raised = True
                raise KeyboardInterrupt
        return trace

    old = sys.gettrace()
    try:
        sys.settrace(trace)
        with context:
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(old)
    return raised


CONTEXTS: dict[str, Callable[[], Any]] = {
    "no_grad": te.no_grad,
    "set_grad_enabled": lambda: te.set_grad_enabled(False),
    "detect_anomaly": te.detect_anomaly,
    "use_backend": lambda: te.use_backend("numpy"),
    "recording": lambda: recording(Recorder()),
    "within": lambda: within(Scope()),
    "deferring": deferring,
}


def settings_now() -> list[Any]:
    mode = modes
    return [mode.grad.value, mode.anomaly.value, mode.backend.value, mode.recorder, mode.scopes, mode.deferred]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="where interrupts are delivered differs by version")
@pytest.mark.parametrize("name", [name for name in CONTEXTS if name != "set_grad_enabled"])
def test_an_interrupt_while_a_block_begins(name: str, reference: Backend) -> None:
    before, point = settings_now(), 0
    while interrupted(CONTEXTS[name](), "__enter__", point):
        assert settings_now() == before, point
        point += 1
    assert point > 0
    assert settings_now() == before


@pytest.mark.parametrize("name", ["no_grad", "detect_anomaly", "use_backend"])
def test_an_outer_block_puts_right_what_an_interrupted_one_left(name: str, reference: Backend) -> None:
    before = settings_now()
    with CONTEXTS[name]():
        CONTEXTS[name]().__enter__()  # its __exit__ was interrupted before it began
    assert settings_now() == before


def test_threads_with_modes_of_their_own(backend: Backend) -> None:
    """A thread that evaluates, and one that trains, with one decorated function."""
    weight = te.tensor(np.ones(3, np.float32), requires_grad=True)

    @te.no_grad()
    def evaluate() -> bool:
        return (weight * 2).requires_grad

    wrong: list[bool] = []

    def work() -> None:
        for _ in range(50):
            wrong.append(evaluate() or not (weight * 2).requires_grad)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 150
    assert not any(wrong)
