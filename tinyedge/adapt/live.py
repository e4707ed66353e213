"""Personalisation while a model is in use: inference on every frame, training in the time that is left.

In: frames, samples that were corrected, a budget of time for a frame. Out: results with the newest whole weights; the
model, trained as far as time allowed and a watched metric agreed. Work comes in slices (a sample's gradient, an update,
a held-out sample's metric, a copy of the trained layers), each timed; a slice runs only if it fits.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from threading import RLock
from typing import Any, NamedTuple

from tinyedge.adapt.replay import ReplayBuffer
from tinyedge.autograd.modes import no_grad
from tinyedge.compiler.api import compile
from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module
from tinyedge.nn.normalization import BATCH_NORMS
from tinyedge.optim import Optimizer
from tinyedge.tensor import Tensor

KEPT = 32  # durations from which a slice's next is estimated
WAITS = 8  # frames into which a slice did not fit, after which the longest is forgotten
BAD = 3  # losses in a row that are not finite, after which the weights go back
FRAMES = 1000  # frames of which the percentiles are told
STARVED = 100  # frames in a row without time for work that waits, after which it is said


class LiveStats(NamedTuple):
    """What a ``Live`` has done so far. Times are in milliseconds, of the last 1,000 frames."""

    frames: int
    late: int
    """Frames that took longer than their budget."""
    median_ms: float
    p99_ms: float
    steps: int
    """Samples whose gradients were computed."""
    updates: int
    skipped: int
    """Steps that were dropped because their loss was not finite."""
    rollbacks: int
    metric: float | None
    """The watched metric of the weights that were last found good."""


class _Duration:
    """What a kind of slice takes at most, from its last times."""

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=KEPT)
        self.waited = 0

    @property
    def most(self) -> float:
        return max(self.times)

    def add(self, seconds: float) -> None:
        self.times.append(seconds)
        self.waited = 0

    def wait(self) -> None:
        """It did not fit. One that was slow by chance must not stop training for good: it is forgotten in the end."""
        self.waited += 1
        if self.waited % WAITS == 0 and len(self.times) > 1:
            self.times.remove(self.most)


class _Saved:
    """A tensor, and a copy of what it was at a version."""

    __slots__ = ("copy", "slot", "tensor", "version")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.slot = tensor._slot
        self.version = self.slot.storage.version
        self.copy = tensor.detach().clone()

    @property
    def is_current(self) -> bool:
        """Whether the tensor has not been written since."""
        return self.tensor._slot is self.slot and self.slot.storage.version == self.version

    def restore(self) -> None:
        if not self.is_current:
            self.tensor.copy_(self.copy)
            self.slot, self.version = self.tensor._slot, self.tensor._slot.storage.version


class _Snapshot:
    """The trained layers, the live buffers, and the optimizer's state, as they were: what a rollback puts back."""

    def __init__(self, model: Module, optimizer: Optimizer, earlier: _Snapshot | None = None) -> None:
        known = {} if earlier is None else {id(saved.tensor): saved for saved in earlier.all()}

        def saved(tensor: Tensor) -> _Saved:
            there = known.get(id(tensor))
            return there if there is not None and there.is_current else _Saved(tensor)

        trained = {id(param) for group in optimizer.param_groups for param in group["params"]}
        params = [param for param in model.parameters() if id(param) in trained and param.requires_grad]
        frozen = [norm for norm in model.modules() if isinstance(norm, BATCH_NORMS) and norm.frozen_statistics]
        fixed = {id(buffer) for norm in frozen for buffer in norm.buffers()}
        buffers = [buffer for buffer in model.buffers() if id(buffer) not in fixed]
        self.values = [saved(tensor) for tensor in (*params, *buffers)]
        self.state: dict[Tensor, dict[str, Any]] = {
            param: {name: saved(value) if isinstance(value, Tensor) else value for name, value in state.items()}
            for param, state in optimizer.state.items()
        }

    def all(self) -> list[_Saved]:
        state = [value for own in self.state.values() for value in own.values() if isinstance(value, _Saved)]
        return [*self.values, *state]

    @property
    def nbytes(self) -> int:
        return sum(saved.copy.numel() * saved.copy.dtype.itemsize for saved in self.all())

    def restore(self, optimizer: Optimizer) -> None:
        """In place, so that what is compiled for this memory stays."""
        with no_grad():
            for saved in self.all():
                saved.restore()
        for param in list(optimizer.state):
            if param not in self.state:
                optimizer.begin_again(param)  # it began after the snapshot
        for param, state in self.state.items():
            now = optimizer.state.setdefault(param, {})
            now.update({name: value for name, value in state.items() if not isinstance(value, _Saved)})
            now.update({name: value.tensor for name, value in state.items() if isinstance(value, _Saved)})


class Live:
    """A model that is in use and learns meanwhile, without making frames late.

    For each frame: ``output = live(frame)`` at once; where the user corrects one, ``live.add(frame, target)``; and at
    the frame's end ``live.train()``, which trains as long as the next slice of work fits into what is left of
    ``frame_budget_ms`` since the call of ``live``. Call ``live.prepare(frame, target)`` before the first frame: it
    compiles everything, and learns how long slices take on this device; nothing is changed by it.

    ``loss(model, *sample)`` returns a number, as in ``te.plan_for``. What is trained is what ``optimizer`` has and is
    not frozen: choose it with ``Module.freeze`` or ``te.adapt.head_only`` first. Samples wait in ``live.buffer``, a
    ``ReplayBuffer`` of ``replay_bytes``. Each step takes one, new ones first; the optimizer's ``accumulate`` says how
    many make an update.

    Rollback. ``live.hold_out(*sample)`` gives samples that are never trained on. After every ``check_every`` updates
    ``metric(model, *sample)``, a number or tensor, is averaged over them, a sample a slice; without ``metric`` it is
    the loss, and less is better. If it is worse than the best so far by more than ``tolerance``, or not finite, the
    weights, buffers and optimizer state go back to those last found good, and training rests for some frames, twice as
    many after each rollback in a row. ``report(value)`` does the same with a number that the application measured. Kept
    for that is a copy of the trained layers and their optimizer state, nothing of what is frozen. Where nothing is held
    out or reported, weights are good if losses are finite; after three in a row that are not, they go back.

    Throttling. ``duty`` is the largest share of the time that training may take, for heat and battery. A frame that is
    late anyway trains nothing; a device that slows down makes slices longer, so fewer fit.

    A frame always sees whole weights: one lock holds for an inference, and for a slice, so threads may share a Live. A
    step that fails, or whose loss is not finite, is dropped; an update that fails is undone, and its error raised.

    Inference is in evaluation mode. Training is in the mode in which the model is given; where no layer behaves
    differently (no dropout, statistics frozen), give it in evaluation mode, which saves the switch.

    Errors: ArgumentError for options out of range, or if the optimizer trains nothing of the model.

    >>> model = nn.Linear(2, 2)
    >>> optimizer = te.optim.SGD(model.parameters(), lr=0.1, accumulate=1)
    >>> live = te.adapt.Live(model, optimizer, lambda model, x, y: F.cross_entropy(model(x), y))
    >>> live.prepare(te.ones(1, 2), te.tensor([0]))
    >>> for frame in (te.ones(1, 2), te.zeros(1, 2)):
    ...     output = live(frame)
    ...     live.add(frame, te.tensor([1]))
    ...     steps = live.train()
    >>> live.stats.frames
    2
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: Callable[..., Tensor],
        frame_budget_ms: float = 33.0,
        *,
        metric: Callable[..., Any] | None = None,
        higher_is_better: bool = True,
        tolerance: float = 0.0,
        check_every: int = 8,
        replay_bytes: int | str = "16MB",
        duty: float = 1.0,
        compiled: bool = True,
        seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not (frame_budget_ms > 0 and 0 < duty <= 1 and check_every >= 1 and tolerance >= 0):
            raise ArgumentError(
                "Live",
                "frame_budget_ms > 0, duty in (0, 1], check_every >= 1 and tolerance >= 0",
                f"got {frame_budget_ms}, {duty}, {check_every} and {tolerance}",
            )
        own = {id(param) for param in model.parameters() if param.requires_grad}
        if not any(id(param) in own for group in optimizer.param_groups for param in group["params"]):
            raise ArgumentError("Live", "an optimizer that has trainable parameters of the model", "it has none")
        if optimizer.accumulate is None:
            raise ArgumentError(
                "Live", "an optimizer that clears its gradients", "accumulate is None", "Pass accumulate=1, or more."
            )
        self.model = model
        self.optimizer = optimizer
        self.frame_budget_ms = frame_budget_ms
        self.tolerance = tolerance
        self.check_every = check_every
        self.duty = duty
        self.buffer = ReplayBuffer(replay_bytes, seed)
        self.held_out: list[tuple[Any, ...]] = []
        self._sign = -1.0 if metric is None or not higher_is_better else 1.0
        self._clock = clock
        self._lock = RLock()
        self._trains = model.training
        self._backend = next(model.parameters()).backend

        def infer(*inputs: Any) -> Any:
            return model(*inputs)

        def step(*sample: Any) -> Tensor:
            value = loss(model, *sample)
            value.backward()
            return value

        measure = loss if metric is None else metric

        def check(*sample: Any) -> Any:
            return measure(model, *sample)

        self._infer: Callable[..., Any] = compile(infer) if compiled else infer
        self._step: Callable[..., Tensor] = compile(step) if compiled else step
        self._check: Callable[..., Any] = compile(check) if compiled and metric is None else check
        self._durations: dict[str, _Duration] = {}
        self._began: float | None = None  # the time at which the present frame began
        self._first: float | None = None  # the time of the first frame
        self._spent = 0.0  # seconds of training
        self._frames: deque[float] = deque(maxlen=FRAMES)
        self._counts = dict.fromkeys(("frames", "late", "steps", "updates", "skipped", "rollbacks"), 0)
        self._since = 0  # updates since the last check
        self._left: list[tuple[Any, ...]] | None = None  # held-out samples that the present check has not measured
        self._measured: list[float] = []
        self._best: float | None = None  # by sign, so that more is better
        self._keeps = False  # the weights were found good, and are to be copied
        self._bad = 0  # losses in a row that were not finite
        self._rest = 0  # frames without training
        self._in_a_row = 0  # rollbacks
        self._starved = 0  # frames in a row without time for work that waits
        self._good = _Snapshot(model, optimizer)

    # For the application

    def __call__(self, *inputs: Any) -> Any:
        """The model's output for a frame, with the newest weights. The frame's time begins here."""
        with self._lock:
            self._end_frame()
            self._began = self._clock()
            if self._first is None:
                self._first = self._began
            return self._inferred(inputs)

    def add(self, *sample: Any) -> None:
        """Keep a sample to train on."""
        with self._lock:
            self.buffer.add(*sample)

    def hold_out(self, *sample: Any) -> None:
        """Keep a sample for the metric. With another set of samples it is another metric: the next check begins it."""
        with self._lock:
            self.held_out.append(sample)
            self._best = self._left = None

    def train(self) -> int:
        """Do the slices of work that fit into what is left of the frame. Returns how many samples were trained on.

        Without a frame, it does one slice.
        """
        steps = self._counts["steps"]
        with self._lock:
            if self._rest and self._began is not None:
                self._rest -= 1
            else:
                self._work()
            self._end_frame()
        return self._counts["steps"] - steps

    def prepare(self, *sample: Any) -> None:
        """Compile and time everything with a sample like those to come; the first item is a frame.

        Weights, buffers, optimizer and gradients are as before, and so is the count of what was done.
        """
        with self._lock:
            if self.optimizer.pending:
                raise ArgumentError(
                    "Live.prepare",
                    "no samples that wait for an update",
                    self.optimizer.counted(),
                    "Call optimizer.flush() first.",
                )
            before = _Snapshot(self.model, self.optimizer)
            taken = ReplayBuffer(self.buffer.max_bytes)
            taken.add(*sample)
            counts = dict(self._counts)
            try:
                for is_built in (False, True):  # the first builds kernels; the second's times are those of work
                    if is_built:
                        self._durations.clear()
                    for _ in range(3):  # an update is compiled when it comes a second time
                        for _ in range(self.optimizer.accumulate or 1):
                            self._timed("step", lambda: self._one_step(taken.take()))
                        self._timed("update", self.optimizer.flush)
                        self._timed("check", lambda: self._value(sample))
                        self._timed("keep", lambda: _Snapshot(self.model, self.optimizer, self._good))
                        self._inferred(sample[:1])
                    before.restore(self.optimizer)
                self._backend.finish()
            finally:
                self.optimizer.discard()
                before.restore(self.optimizer)
                self._counts = counts

    def report(self, value: float) -> bool:
        """Say how good the present weights are, by the application's own measure. Returns False if they go back.

        It is compared as ``metric`` is, in its direction.
        """
        with self._lock:
            return self._judge(float(value))

    def rollback(self) -> None:
        """Go back to the weights that were last found good, or to those of the beginning."""
        with self._lock:
            self.optimizer.discard()
            self._good.restore(self.optimizer)
            self._counts["rollbacks"] += 1
            self._since, self._left, self._keeps = 0, None, False

    @property
    def stats(self) -> LiveStats:
        """Counts and times so far."""
        with self._lock:
            times = sorted(self._frames) or [0.0]
            best = None if self._best is None else self._sign * self._best
            counts = self._counts
            return LiveStats(
                counts["frames"], counts["late"], 1e3 * times[len(times) // 2],
                1e3 * times[min(len(times) - 1, math.ceil(0.99 * len(times)) - 1)],
                counts["steps"], counts["updates"], counts["skipped"], counts["rollbacks"], best,
            )  # fmt: skip

    @property
    def rollback_bytes(self) -> int:
        """The device bytes of what a rollback puts back."""
        return self._good.nbytes

    # Frames and slices

    def _end_frame(self) -> None:
        if self._began is None:
            return
        taken = self._clock() - self._began
        self._began = None
        self._frames.append(taken)
        self._counts["frames"] += 1
        self._counts["late"] += taken * 1e3 > self.frame_budget_ms

    def _inferred(self, inputs: tuple[Any, ...]) -> Any:
        self._mode(False)
        with no_grad():
            return self._infer(*inputs)

    def _mode(self, training: bool) -> None:
        if self._trains and self.model.training is not training:
            self.model.train(training)

    def _fits(self, kind: str) -> bool:
        """Whether a slice of this kind ends within the frame, and within the share that training may have."""
        if self._began is None:
            return True
        now = self._clock()
        known = self._durations.get(kind)
        needed = 0.0 if known is None else known.most * 1.1
        if (
            self.duty < 1
            and self._first is not None
            and self._spent + needed > self.duty * (now - self._first + self.frame_budget_ms / 1e3)
        ):
            return False
        if now - self._began + needed <= self.frame_budget_ms / 1e3:
            return True
        if known is not None:
            known.wait()
        return False

    def _timed(self, kind: str, work: Callable[[], Any]) -> Any:
        began = self._clock()
        result = work()
        self._backend.finish()
        seconds = self._clock() - began
        self._durations.setdefault(kind, _Duration()).add(seconds)
        self._spent += seconds
        return result

    def _work(self) -> None:
        is_frame = self._began is not None
        done = self._work_once()
        self._starved = 0 if done or not is_frame or self._next() is None else self._starved + 1
        if self._starved == STARVED:
            self._say_starved()
        while done and self._began is not None and not self._rest:
            done = self._work_once()

    def _say_starved(self) -> None:
        """Training that silently never comes to pass would look like a model that does not learn."""
        kind, frames = str(self._next()), sorted(self._frames)
        takes = f"; the longest of its last took {1e3 * self._durations[kind].most:.1f} ms" * (kind in self._durations)
        warnings.warn(
            f"Live: a {kind} waits, and in the last {STARVED} frames there was no time for it: a frame takes "
            f"{1e3 * frames[len(frames) // 2]:.1f} ms of {self.frame_budget_ms:g}{takes}. Nothing is trained. Give "
            "frame_budget_ms or duty more, train fewer layers, or use smaller inputs.",
            stacklevel=4,
        )

    def _work_once(self) -> bool:
        """Do the next slice, if it fits."""
        kind = self._next()
        if kind is None or not self._fits(kind):
            return False
        if kind == "step":
            self._timed(kind, lambda: self._one_step(self.buffer.take()))
        elif kind == "update":
            self._timed(kind, self._update)
        elif kind == "check":
            assert self._left is not None
            sample = self._left.pop()
            self._measured.append(self._timed(kind, lambda: self._value(sample)))
            if not self._left:
                self._left = None
                self._since = 0
                self._judge(sum(self._measured) / len(self._measured))
        else:
            self._good = self._timed(kind, lambda: _Snapshot(self.model, self.optimizer, self._good))
            self._keeps = False
        return True

    def _next(self) -> str | None:
        """The kind of the next slice."""
        if self._keeps:
            return "keep"
        is_due = bool(self.held_out) and (self._best is None or self._since >= self.check_every)
        if self._left is None and is_due and not self.optimizer.pending:
            self._left, self._measured = list(self.held_out), []
        if self._left is not None:
            return "check"
        if self.optimizer.pending >= (self.optimizer.accumulate or 1):
            return "update"
        return "step" if len(self.buffer) else None

    def _one_step(self, sample: tuple[Any, ...]) -> None:
        """Add a sample's gradients, and count it."""
        self._mode(True)
        try:
            value = self._step(*sample).item()
        except BaseException:
            self.optimizer.discard()  # a part of the sample may be in the gradients
            raise
        if not math.isfinite(value):
            self.optimizer.discard()
            self._counts["skipped"] += 1
            self._bad += 1
            if self._bad >= BAD:  # of any sample: it is the weights
                self.rollback()
                self._bad = 0
            return
        self._bad = 0
        if self._best is None and not self.held_out and self._since >= self.check_every:
            self._keeps, self._since = True, 0  # nothing is watched but that losses are finite
        self._counts["steps"] += 1
        self.optimizer.count(self.optimizer.pending + 1)

    def _update(self) -> None:
        try:
            self.optimizer.flush()
        except BaseException:
            self.rollback()  # a part of the parameters may have been updated
            raise
        self._counts["updates"] += 1
        self._since += 1

    def _value(self, sample: tuple[Any, ...]) -> float:
        self._mode(False)
        with no_grad():
            value = self._check(*sample)
        return float(value.item() if isinstance(value, Tensor) else value)

    def _judge(self, value: float) -> bool:
        """Whether weights with this metric stay."""
        signed = self._sign * value
        if math.isfinite(signed) and (self._best is None or signed >= self._best - self.tolerance):
            self._best = signed if self._best is None else max(self._best, signed)
            self._keeps = True
            self._in_a_row = 0
            return True
        self.rollback()
        self._rest = 2**self._in_a_row
        self._in_a_row = min(self._in_a_row + 1, 10)
        return False
