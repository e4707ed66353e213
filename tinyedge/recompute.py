"""``te.checkpoint``: less memory for more arithmetic.

A checkpointed function runs as ever, and its steps stand in the graph as ever; only what they would save for backward,
as far as it was made inside, is dropped. The first of them whose gradient asks for it has the function computed again,
and all of them find what they would have saved. So the gradients are the same to the bit, and whatever works for a step
(several outputs, parameters in closures, walking a graph twice) works here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from tinyedge import tape
from tinyedge.errors import ArgumentError, AutogradError
from tinyedge.tape import Postponed, Region, Saved, Slot, Step, Storage, T
from tinyedge.tensor import enable_grad, tensors_in

R = TypeVar("R")


class _Later(Postponed):
    """What a step saved, but for ``kept``: it will be made again by its segment, as number ``index`` there."""

    def __init__(self, segment: _Segment, index: int, kept: Saved) -> None:
        self.segment = segment
        self.index = index
        self.kept = kept

    def values(self) -> Saved:
        made = self.segment.take(self.index)
        return {**(made.values() if isinstance(made, Postponed) else made), **self.kept}

    def held(self) -> list[Slot]:
        given = self.segment.function
        passed = [*given.args, *given.keywords.values()] if isinstance(given, partial) else []
        kept = [item for item, _ in self.kept.values() if isinstance(item, Slot)]
        return kept + [tensor._slot for tensor in tensors_in(passed)]

    def forget(self) -> None:
        self.segment.made.clear()


def _older(saved: Saved, number: int) -> Saved:
    """The part of ``saved`` that a segment that began at ``number`` did not make."""
    return {
        name: item for name, item in saved.items() if not isinstance(item[0], Slot) or item[0].storage.number < number
    }


class _Segment(Region):
    """A function that is run for the first time: what its steps save is dropped."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.number = tape.next_number()
        self.versions: dict[Storage, int] = {}  # of what lies outside and is read
        self.kinds: list[Any] = []  # of the steps that dropped something
        self.outcomes: list[Any] = []  # of what is to be done once
        self.made: dict[int, Saved | Postponed] = {}

    def first(self) -> Any:
        with tape.within(*tape.regions(), self):
            result = self.function()
        # What the function itself changed, such as a counter, is no longer as it was read.
        self.versions = {storage: v for storage, v in self.versions.items() if storage.version == v}
        return result

    def read(self, storage: Storage) -> None:
        if storage.number < self.number:
            self.versions.setdefault(storage, storage.version)

    def linked(self, step: Step) -> None:
        assert isinstance(step.saved, dict)
        kept = _older(step.saved, self.number)
        if len(kept) < len(step.saved):
            step.saved = _Later(self, len(self.kinds), kept)
            self.kinds.append(_kind(step))

    def once(self, make: Callable[[], T]) -> T:
        self.outcomes.append(make())
        result: T = self.outcomes[-1]
        return result

    def take(self, index: int) -> Saved | Postponed:
        """What step number ``index`` would have saved; after the graph was walked once, it is made anew."""
        if index not in self.made:
            for storage, version in self.versions.items():
                if storage.version != version:
                    raise AutogradError(
                        "backward",
                        "what a checkpointed function read must not change before backward computes it again",
                        f"{storage.nbytes} bytes were changed in place (version {storage.version}, read at {version})",
                        "Use the out-of-place form, or change a clone().",
                    )
            self.made = dict(enumerate(_Again(self).saved()))
        return self.made.pop(index)


class _Again(Region):
    """The same function computed again: nothing outside changes a second time."""

    def __init__(self, segment: _Segment) -> None:
        self.segment = segment
        self.number = tape.next_number()
        self.found: list[Saved | Postponed] = []
        self.outcomes: Iterator[Any] = iter(segment.outcomes)

    def saved(self) -> list[Saved | Postponed]:
        with tape.within(self), enable_grad():
            self.segment.function()
        if len(self.found) != len(self.segment.kinds):
            raise self._differs(f"it saved for {len(self.found)} steps, and {len(self.segment.kinds)} the first time")
        return [found if isinstance(found, Postponed) else _without_history(found) for found in self.found]

    def linked(self, step: Step) -> None:
        saved = step.saved
        assert saved is not None
        if isinstance(saved, Postponed) or len(_older(saved, self.number)) < len(saved):
            kinds, index = self.segment.kinds, len(self.found)
            if index >= len(kinds) or kinds[index] != _kind(step):
                raise self._differs(f"{step!r} was not there the first time")
            self.found.append(saved)

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
            "Let it depend on nothing that changes after the call, such as train or eval mode.",
        )


def _kind(step: Step) -> Any:
    return step.op, step.input_specs, step.output_specs


def _without_history(saved: Saved) -> Saved:
    return {name: (item.alias() if isinstance(item, Slot) else item, v) for name, (item, v) in saved.items()}


def checkpoint(function: Callable[..., R], *args: Any, use_reentrant: bool = False, **kwargs: Any) -> R:
    """``function(*args, **kwargs)``, computed again in backward instead of saving what its steps need there.

    In between only the arguments live. Arguments, results and what the function closes over may be anything; gradients
    are those without the call, to the bit. Random numbers are drawn once: the second time they are the same. What
    outlives the call changes once: running statistics of batch norms are moved by the first run alone. Checkpoints
    nest, and work inside ``te.compile``.

    Errors: AutogradError from ``backward`` if something that it read was changed in place in the meantime, if it does
            something else the second time, or if it changes in place, recorded by autograd, what it did not make.
            ArgumentError for PyTorch's ``use_reentrant=True``.
    Source: Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174.
    """
    if use_reentrant:
        raise ArgumentError("checkpoint", "use_reentrant=False, the only kind there is", "got True")
    # Inside a segment that drops everything there is nothing left to drop; it is done when that one is computed again.
    if not tape.is_grad_enabled() or any(isinstance(region, _Segment) for region in tape.regions()):
        return function(*args, **kwargs)
    result: R = _Segment(partial(function, *args, **kwargs)).first()
    return result


def checkpoint_sequential(
    functions: Sequence[Callable[[Any], Any]], segments: int, input: Any, use_reentrant: bool = False
) -> Any:
    """The functions (or an ``nn.Sequential``) one after the other, in so many checkpointed segments.

    As in PyTorch the last segment is not checkpointed: backward begins there.

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
