"""``te.checkpoint``: rematerialisation, less memory for more arithmetic.

In: a function and its arguments. Out: its result, with a graph whose steps do not keep what they saved inside the
function. The function's steps run and are linked as always; only the saved values that were made inside are dropped.
When backward reaches the first step that needs one, the function is computed again, and all its steps find their saved
values. So gradients are the same to the bit, and several outputs, parameters in closures and a second walk of the graph
work as without a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tinyedge.autograd.autocast import as_cast_here
from tinyedge.autograd.modes import enable_grad
from tinyedge.autograd.scope import Scope, T, scopes, within
from tinyedge.containers import leaves_in
from tinyedge.errors import ArgumentError, AutogradError
from tinyedge.ir.modes import is_grad_enabled
from tinyedge.ir.step import Op, Postponed, Saved, Step
from tinyedge.ir.values import Read, Slot, SlotHolder, Storage, next_number

R = TypeVar("R")


class _Rematerialised(Postponed):
    """What a step saved, apart from ``older``: its segment rematerialises it, number ``index`` of what it dropped."""

    def __init__(self, segment: _Segment, index: int, older: Saved) -> None:
        self.segment = segment
        self.index = index
        self.older = older

    def values(self) -> Saved:
        made = self.segment.take(self.index)
        return {**(made.values() if isinstance(made, Postponed) else made), **self.older}

    def kept(self) -> list[Storage]:
        given = self.segment.function
        passed = [*given.args, *given.keywords.values()] if isinstance(given, partial) else []
        slots = [item for item, _ in self.older.values() if isinstance(item, Slot)]
        slots += [holder._slot for holder in leaves_in(passed, SlotHolder)]
        return [*self.segment.versions, *[slot.storage for slot in slots]]

    def forget(self) -> None:
        self.segment.made.clear()


def _older(saved: Saved, number: int) -> Saved:
    """The saved values that are older than a segment which began at ``number``."""
    return {
        name: item for name, item in saved.items() if not isinstance(item[0], Slot) or item[0].storage.number < number
    }


class _Segment(Scope):
    """The first run of a checkpointed function: what its steps save is dropped."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.number = next_number()
        self.as_cast = as_cast_here()
        self.versions: dict[Storage, int] = {}  # of tensors from outside that it read
        self.calls: list[Any] = []  # the calls of ops and the uploads, in order
        self.linked_at: list[int] = []  # the positions in ``calls`` of those that have a gradient
        self.dropped: list[int] = []  # the positions of those whose saved values were dropped
        self.outcomes: list[Any] = []  # the results of what must happen only once, such as a draw of random numbers
        self.made: dict[int, Saved | Postponed] = {}

    def first(self) -> Any:
        with within(*scopes(), self):
            result = self.function()
        # What the function changed itself, such as a counter, has another version now, and is not checked.
        self.versions = {storage: v for storage, v in self.versions.items() if storage.version == v}
        return result

    def called(self, op: type[Op], reads: Sequence[Read], attrs: Mapping[str, Any], scalars: Mapping[str, Any]) -> None:
        self.calls.append(self.described(op, reads, attrs, scalars))
        for read in reads:
            if isinstance(read, Slot) and read.storage.number < self.number:
                self.versions.setdefault(read.storage, read.storage.version)

    def described(self, op: type[Op], reads: Sequence[Read], attrs: Mapping[str, Any], scalars: Any) -> Any:
        """The description of a call that must be the same when the function is computed again.

        A tensor that was made inside is described by its type and layout only, since the second run makes another one.
        """
        values = {name: repr(value) for name, value in scalars.items()} if isinstance(scalars, dict) else scalars
        inputs: list[Any] = []
        for read in reads:
            if isinstance(read, Slot):
                number = read.storage.number
                inputs.append((number if number < self.number else None, read.dtype, read.layout()))
            else:
                inputs.append(None if read is None else (read.dtype, repr(read.number)))  # NaN is not equal to itself
        return op, inputs, attrs, values

    def uploaded(self, values: npt.NDArray[Any]) -> None:
        self.calls.append(_digest(values))

    def linked(self, step: Step) -> None:
        assert isinstance(step.saved, dict)
        self.linked_at.append(len(self.calls) - 1)
        kept = _older(step.saved, self.number)
        if len(kept) < len(step.saved):
            step.saved = _Rematerialised(self, len(self.dropped), kept)
            self.dropped.append(len(self.calls) - 1)

    def once(self, make: Callable[[], T]) -> T:
        self.outcomes.append(make())
        result: T = self.outcomes[-1]
        return result

    def take(self, index: int) -> Saved | Postponed:
        """The saved values of dropped step number ``index``; they are computed again if that was not done yet."""
        if index not in self.made:
            for storage, version in self.versions.items():
                if storage.version != version:
                    raise AutogradError(
                        "backward",
                        "tensors that a checkpointed function read must not change before backward computes it again",
                        f"{storage.nbytes} bytes were changed in place (version {storage.version}, read at {version})",
                        "Use the out-of-place form, or change a clone().",
                    )
            self.made = dict(enumerate(_SecondRun(self).saved()))
        return self.made.pop(index)


class _SecondRun(Scope):
    """The second run of a checkpointed function, which must not change anything outside again.

    Its calls must be those of the first run, without those that happen only once: an update of a running statistic, a
    table that was made and kept.
    """

    def __init__(self, segment: _Segment) -> None:
        self.segment = segment
        self.number = next_number()
        self.at = -1  # the position in the first run's calls of the latest call of this run
        self.linked_at = iter(segment.linked_at)
        self.found: dict[int, Saved | Postponed] = {}  # by position in the first run's calls
        self.outcomes: Iterator[Any] = iter(segment.outcomes)

    def saved(self) -> list[Saved | Postponed]:
        with within(self), enable_grad(), self.segment.as_cast:
            self.segment.function()
        missing = next(self.linked_at, None)
        if missing is not None:
            raise self._differs(f"{_words(self.segment.calls[missing])} of the first time is missing")
        found = [self.found[at] for at in self.segment.dropped]
        return [saved if isinstance(saved, Postponed) else _without_history(saved) for saved in found]

    def called(self, op: type[Op], reads: Sequence[Read], attrs: Mapping[str, Any], scalars: Mapping[str, Any]) -> None:
        self._met(self.segment.described(op, reads, attrs, scalars))

    def uploaded(self, values: npt.NDArray[Any]) -> None:
        self._met(_digest(values))

    def _met(self, call: Any) -> None:
        """Find ``call`` among the first run's remaining calls, and go on from there."""
        calls = self.segment.calls
        for at in range(self.at + 1, len(calls)):
            if calls[at] == call:
                self.at = at
                return
        raise self._differs(f"{_words(call)} did not run with these inputs the first time")

    def linked(self, step: Step) -> None:
        saved = step.saved
        assert saved is not None
        if self.at != next(self.linked_at, None):
            raise self._differs(f"{step.op.name} did not run with these inputs the first time")
        self.found[self.at] = saved

    def once(self, make: Callable[[], T]) -> T:
        result: T = next(self.outcomes)
        return result

    def may_change(self, storage: Storage) -> bool:
        return storage.number > self.number

    @staticmethod
    def _differs(how: str) -> AutogradError:
        return AutogradError(
            "backward",
            "a checkpointed function must do the same when backward computes it again",
            how,
            "Let it depend on nothing that changes after the call, such as train or eval mode or the variable of a loop"
            " (which a default argument keeps: lambda x, layer=layer: layer(x)).",
        )


def _words(call: Any) -> str:
    return call[0].name if isinstance(call, tuple) else "an upload from the host"


def _digest(values: npt.NDArray[Any]) -> bytes:
    """A digest of uploaded values, which would take too much memory to keep."""
    return blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).digest()


def _without_history(saved: Saved) -> Saved:
    return {name: (item.alias() if isinstance(item, Slot) else item, v) for name, (item, v) in saved.items()}


def checkpoint(function: Callable[..., R], *args: Any, use_reentrant: bool = False, **kwargs: Any) -> R:
    """Call ``function(*args, **kwargs)``; backward computes it again instead of reading what its steps saved.

    Until backward only the arguments are kept. Arguments, results and closures may be anything; gradients equal those
    without a checkpoint to the bit. Random numbers are drawn once: the second run gets the same ones. What outlives the
    call changes once: the running statistics of a batch norm are updated by the first run alone. Checkpoints can be
    nested, and work inside ``te.compile``.

    Errors: AutogradError from ``backward`` if something that it read was changed in place in the meantime, if it does
            something else the second time, or if it changes in place, recorded by autograd, what it did not make.
            ArgumentError for PyTorch's ``use_reentrant=True``.
    Source: Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174.
    """
    if use_reentrant:
        raise ArgumentError("checkpoint", "use_reentrant=False, which is the only variant here", "got True")
    # Inside another segment everything is dropped already; this one takes effect when that one is computed again.
    if not is_grad_enabled() or any(isinstance(scope, _Segment) for scope in scopes()):
        return function(*args, **kwargs)
    result: R = _Segment(partial(function, *args, **kwargs)).first()
    return result


def checkpoint_sequential(
    functions: Sequence[Callable[[Any], Any]], segments: int, input: Any, use_reentrant: bool = False
) -> Any:
    """Call the functions (or an ``nn.Sequential``) one after the other, in ``segments`` checkpointed segments.

    As in PyTorch the last segment is not checkpointed, since backward begins there.

    Errors: ArgumentError unless there are from 1 to ``len(functions)`` segments.
    """
    functions = list(functions)
    if not 1 <= segments <= len(functions):
        raise ArgumentError("checkpoint_sequential", f"from 1 to {len(functions)} segments", f"got {segments}")
    size = len(functions) // segments

    def run(part: Sequence[Callable[[Any], Any]], value: Any) -> Any:
        for function in part:
            value = function(value)
        return value

    last = size * (segments - 1)
    for start in range(0, last, size):
        input = checkpoint(run, functions[start : start + size], input, use_reentrant=use_reentrant)
    return run(functions[last:], input)


__all__ = ["checkpoint", "checkpoint_sequential"]
