"""Lockstep: several calls that meet where each needs something of all of them.

In: functions without arguments. Out: their results. Each call has a thread, so that it may be any Python; one of them
runs at a time, in their order, until it calls ``meet`` or ends. When all of them wait, what they brought is joined in
the caller's thread, under the caller's modes, and each goes on with its answer. So the order of all op calls is the
same in each run, and the graphs of the calls are connected by the steps of the join: one backward walks all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from tinyedge.autograd.scope import once, scopes, within
from tinyedge.errors import ArgumentError
from tinyedge.ir.modes import modes

T = TypeVar("T")
Join = Callable[[list[Any]], Sequence[Any]]


class _Abandoned(BaseException):
    """Ends a call whose result nobody will use."""


class _Here(threading.local):
    call: _Call | None = None  # the call that runs in this thread
    endings: list[Callable[[], None]] | None = None  # of the lockstep whose calls this thread joins


_here = _Here()


class _Call:
    """One of the calls, its thread, and where it stands."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function: Callable[[], Any] | None = function
        self.outer = len(scopes())
        self.modes: dict[str, Any] = dict(modes.__dict__)
        self.turn = threading.Semaphore(0)
        self.pause = threading.Semaphore(0)
        self.runs = self.done = self.abandoned = False
        self.meeting: tuple[Hashable, Any, Join] | None = None
        self.answer: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="tinyedge lockstep", daemon=True)

    def _run(self) -> None:
        self.turn.acquire()
        modes.__dict__.update(self.modes)
        _here.call = self
        try:
            if not self.abandoned and self.function is not None:
                self.result = self.function()
        except _Abandoned:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.function, self.modes, self.done = None, {}, True
            self.pause.release()

    def go_on(self) -> None:
        """Let it run until it meets the others, or ends."""
        self.meeting = None
        self.runs = True
        self.turn.release()
        self._wait()
        if self.error is not None:
            raise self.error

    def _wait(self) -> None:
        self.pause.acquire()
        self.runs = False

    def meet(self, key: Hashable, value: Any, join: Join) -> Any:
        self.meeting = key, value, join
        self.pause.release()
        self.turn.acquire()
        if self.abandoned:
            raise _Abandoned
        answer, self.answer = self.answer, None
        return answer

    def end(self) -> None:
        """End its thread, wherever it stands."""
        if self.thread.ident is None:  # it was not started
            return
        if self.runs:  # an interrupt came while the caller waited for it
            self._wait()
        self.abandoned = True
        if not self.done:
            self.turn.release()
        self.thread.join()
        self.error = self.meeting = None


def in_lockstep(call: str, functions: Sequence[Callable[[], T]]) -> list[T]:
    """The results of ``functions``, which ``meet``; ``call`` is their name for an error.

    Errors: ArgumentError if some meet where others do not. An error of one of them ends all.
    """
    calls = [_Call(function) for function in functions]
    before, _here.endings = _here.endings, []
    try:
        for one in calls:
            one.thread.start()
        while not all(one.done for one in calls):
            for one in calls:
                one.go_on()
            meetings = [one.meeting for one in calls]
            if len({None if meeting is None else meeting[0] for meeting in meetings}) > 1:
                raise ArgumentError(
                    call,
                    "samples that pass the same norms in the same order",
                    "some came to a norm to which others did not come",
                    "A model whose layers depend on the sample cannot normalise over the minibatch.",
                )
            met = [meeting for meeting in meetings if meeting is not None]
            if met:
                answers = met[0][2]([value for _, value, _ in met])
                for one, answer in zip(calls, answers, strict=True):
                    one.answer = answer
        for ending in _here.endings:
            ending()
        return [one.result for one in calls]
    finally:
        _here.endings = before
        for one in calls:
            one.end()


def meet(key: Hashable, value: T, join: Join, alone: Callable[[], Exception]) -> Any:
    """Wait until all calls of this lockstep came to ``key``; return the answer to this one.

    ``join`` gets what each brought, and returns an answer for each. When a checkpoint computes a call again, it gets
    the answer of the first time. ``alone`` makes the error for a call that is in no lockstep.
    """
    call = _here.call

    def bring() -> Any:
        if call is None:
            raise alone()
        return call.meet(key, value, join)

    # Scopes around the whole lockstep, unlike those inside the call, are told of what the join does.
    with within(*scopes()[0 if call is None else call.outer :]):
        return once(bring)


def at_end(function: Callable[[], None]) -> None:
    """Call ``function``, from a ``join``, when all calls have ended without an error."""
    assert _here.endings is not None
    _here.endings.append(function)
