"""Who is told what runs: how a call is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy.typing as npt

from tinyedge.ir.modes import Switch, modes
from tinyedge.ir.step import Step, Tape
from tinyedge.ir.values import Slot, Storage


class Effect:
    """Something that a recorded call did on the host beside launching steps, and that a replay does again."""

    steps: range = range(0)  # the recorded steps whose numbers it gives

    def leaves(self) -> Iterable[Slot]:
        """What it changes beside, which must be the same in each call."""
        return ()

    def fits(self) -> bool:
        """Whether it would launch the same steps now as when it was recorded."""
        return True

    def recorded(self) -> None:
        """Called when the recorded call is over."""

    def before(self) -> Sequence[Mapping[str, float]]:
        """Called, in order, before anything is launched: the numbers of ``steps``."""
        return ()

    def after(self) -> None:
        """Called, in order, when everything is launched."""

    def undo(self) -> None:
        """Called, in reverse order, if something was refused after ``before``."""

    def restorer(self) -> Callable[[], None]:
        """What puts back all that it changes to how it is now."""
        raise NotImplementedError


class Recorder:
    """Who is told what runs in this thread, while it is set by ``recording``.

    Unless it ``runs``, this is abstract tracing: nothing is allocated, nothing launched, and no value is there.
    """

    runs = True

    def before(self, step: Step) -> None:
        """``step`` is about to be launched."""

    def step(self, step: Step) -> None:
        """``step`` was launched; its slots are still all there."""

    def upload(self, storage: Storage) -> None:
        """``storage`` was filled from the host."""

    def backward(self, steps: Tape) -> None:
        """A walk back through ``steps`` begins."""

    def checked(self, storage: Storage, check: Callable[[Storage], None]) -> None:
        """``check`` was made of what is known of ``storage``."""

    def draw(self, generator: Any) -> None:
        """A ``Generator`` is about to be drawn from."""

    def leaf_gradient(self, leaf: Slot) -> None:
        """The gradient of ``leaf`` is about to be added to, or to begin."""

    def gradient_seen(self, leaf: Slot) -> None:
        """Somebody looks whether ``leaf`` has a gradient."""

    def gradient_set(self, leaf: Slot, gradient: Slot | None) -> None:
        """``gradient`` is about to take the place of that of ``leaf``."""

    def effect(self, effect: Effect, run: Callable[[], None], undo: Callable[[], None]) -> None:
        """``run`` an effect, which ``undo`` takes back; a replay does ``effect`` instead."""
        run()

    def once(self) -> None:
        """What happens now sets something up, and will not happen in another call."""

    def forbid(self, call: str, reason: str) -> None:
        """Something is about to happen that a replay would not do again."""


def recording(recorder: Recorder) -> Switch[Recorder]:
    """Tell ``recorder`` what runs in this thread inside the ``with`` block."""
    return Switch("recorder", recorder)


def recorder() -> Recorder | None:
    """Who is told what runs in this thread."""
    return cast("Recorder | None", modes.recorder)


def seen_gradient(leaf: Slot) -> Slot | None:
    """The gradient of ``leaf``; a recorder is told that somebody looks at it."""
    if modes.recorder is not None:
        modes.recorder.gradient_seen(leaf)
    return leaf.gradient()


def set_gradient(leaf: Slot, gradient: Slot | None) -> None:
    """Let ``gradient`` take the place of that of ``leaf``; a recorder is told."""
    if modes.recorder is not None:
        modes.recorder.gradient_set(leaf, gradient)
    leaf.keep_gradient(gradient)


def uploaded(storage: Storage, values: npt.NDArray[Any]) -> None:
    """Tell a recorder and the scopes that ``storage`` was filled with ``values`` from the host."""
    for scope in modes.scopes:
        scope.uploaded(values)
    if modes.deferred is not None:
        modes.deferred.keep(storage)
    if modes.recorder is not None:
        modes.recorder.upload(storage)


def checked(storage: Storage, check: Callable[[Storage], None]) -> None:
    """Tell a recorder that ``check`` was made of what is known of ``storage``."""
    if modes.recorder is not None:
        modes.recorder.checked(storage, check)


def will_draw(generator: Any) -> None:
    """Tell a recorder that a ``Generator`` is about to be drawn from."""
    if modes.recorder is not None:
        modes.recorder.draw(generator)


def forbid_in_recording(call: str, reason: str) -> None:
    """Let a recorder refuse ``call``, whose effect a replay would not repeat."""
    if modes.recorder is not None:
        modes.recorder.forbid(call, reason)
