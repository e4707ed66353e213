"""The Recorder protocol: how ``te.compile`` and others are told what runs in a thread (capture).

In: dispatch, backward, uploads and optimizers report here what they do. Out: calls of the thread's Recorder. What a
replay could not repeat is refused through ``forbid_in_recording``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy.typing as npt

from tinyedge.autograd.held import Held
from tinyedge.ir.modes import Switch, modes
from tinyedge.ir.step import Step, Tape
from tinyedge.ir.values import Slot, Storage


class Effect:
    """Something that a recorded call did on the host, besides launching steps, and that a replay must do again."""

    steps: range = range(0)  # the recorded steps whose scalars it computes

    def leaves(self) -> Iterable[Slot]:
        """Tensors that it changes as well, which must be the same in each call."""
        return ()

    def fits(self) -> bool:
        """Whether it would launch the same steps now as when it was recorded."""
        return True

    def recorded(self) -> None:
        """Called when the recorded call is over."""

    def before(self) -> Sequence[Mapping[str, float]]:
        """Called, in order, before anything is launched. Returns the scalars of ``steps``."""
        return ()

    def after(self) -> None:
        """Called, in order, after everything was launched."""

    def undo(self) -> None:
        """Called, in reverse order, if a launch was refused after ``before``."""

    def restorer(self) -> Callable[[], None]:
        """A function that restores all that it changes to its present state."""
        raise NotImplementedError


class Recorder:
    """It is told what runs in a thread while ``recording`` sets it.

    If ``runs`` is false this is abstract tracing: nothing is allocated or launched, and there are no values.
    """

    runs = True
    holding: Held | None = None  # which steps wait; None where they are launched at once

    @property
    def allocates(self) -> bool:
        """Whether what is made now gets its memory at once."""
        return self.runs and self.holding is None

    def release(self) -> None:
        """Launch what is held, because values are about to be read, or because no program can take its place."""

    def before(self, step: Step) -> None:
        """``step`` is about to be launched."""

    def step(self, step: Step) -> None:
        """``step`` was launched; all its slots are still there."""

    def upload(self, storage: Storage) -> None:
        """``storage`` was filled from the host."""

    def backward(self, steps: Tape) -> None:
        """A reverse walk through ``steps`` begins."""

    def checked(self, storage: Storage, check: Callable[[Storage], None]) -> None:
        """``check``, which needs the values of ``storage``, was made, and must be made again at each replay."""

    def draw(self, generator: Any) -> None:
        """Random numbers are about to be drawn from a ``Generator``."""

    def drawn(self, draw: Any) -> None:
        """``draw`` says which random numbers were drawn: a replay draws others."""

    def filled(self, slot: Slot, draw: Any) -> None:
        """``slot`` was filled from the host with the numbers of ``draw``."""

    def leaf_gradient(self, leaf: Slot) -> None:
        """The gradient of ``leaf`` is about to be stored or added to."""

    def hooked(self, slot: Slot) -> None:
        """A hook is about to be added to ``slot``, or, if that is a leaf, its hooks are about to be called."""

    def gradient_seen(self, leaf: Slot) -> None:
        """The program asks whether ``leaf`` has a gradient, or reads it."""

    def gradient_set(self, leaf: Slot, gradient: Slot | None) -> None:
        """``gradient`` is about to replace that of ``leaf``."""

    def effect(self, effect: Effect, run: Callable[[], None], undo: Callable[[], None]) -> None:
        """``run`` an effect, which ``undo`` takes back. A replay does ``effect`` instead."""
        run()

    def once(self) -> None:
        """What happens now is a setup that other calls will not do again."""

    def hashed(self) -> None:
        """The hash of a tensor is about to be read."""

    def forbid(self, call: str, reason: str) -> None:
        """Something is about to happen that a replay would not repeat."""


def recording(recorder: Recorder) -> Switch[Recorder]:
    """Tell ``recorder`` what runs in this thread inside the ``with`` block."""
    return Switch("recorder", recorder)


def recorder() -> Recorder | None:
    """The recorder of this thread, or None."""
    return cast("Recorder | None", modes.recorder)


def seen_gradient(leaf: Slot) -> Slot | None:
    """The gradient of ``leaf``; the recorder is told that it was looked at."""
    if modes.recorder is not None:
        modes.recorder.gradient_seen(leaf)
    return leaf.gradient()


def set_gradient(leaf: Slot, gradient: Slot | None) -> None:
    """Replace the gradient of ``leaf`` by ``gradient``; the recorder is told."""
    if modes.recorder is not None:
        modes.recorder.gradient_set(leaf, gradient)
    leaf.keep_gradient(gradient)


def uploaded(storage: Storage, values: npt.NDArray[Any]) -> None:
    """Tell the recorder and the scopes that ``storage`` was filled with ``values`` from the host."""
    for scope in modes.scopes:
        scope.uploaded(values)
    if modes.deferred is not None:
        modes.deferred.keep(storage)
    if modes.recorder is not None:
        modes.recorder.upload(storage)


def checked(storage: Storage, check: Callable[[Storage], None]) -> None:
    """Tell the recorder that ``check`` was made of the values of ``storage``."""
    if modes.recorder is not None:
        modes.recorder.checked(storage, check)


def will_draw(generator: Any) -> None:
    """Tell the recorder that random numbers are about to be drawn from a ``Generator``."""
    if modes.recorder is not None:
        modes.recorder.draw(generator)


def was_drawn(draw: Any) -> None:
    """Tell the recorder which random numbers were drawn."""
    if modes.recorder is not None:
        modes.recorder.drawn(draw)


def was_filled(slot: Slot, draw: Any) -> None:
    """Tell the recorder that ``slot`` was filled from the host with the numbers of ``draw``."""
    if modes.recorder is not None:
        modes.recorder.filled(slot, draw)


def will_hash() -> None:
    """Tell the recorder that the hash of a tensor is about to be read."""
    if modes.recorder is not None:
        modes.recorder.hashed()


def forbid_in_recording(call: str, reason: str) -> None:
    """Let the recorder refuse ``call``, because a replay would not repeat its effect."""
    if modes.recorder is not None:
        modes.recorder.forbid(call, reason)
