"""Recording (capture): the Steps of a call, over placeholders for the memory that it made, and what undoes the call.

In: what dispatch, backward and optimizers report while a call runs, with values or abstractly. Out: a Recording, of
which a Program is made. It refuses what a replay would not repeat.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinyedge.autograd.dispatch import contiguous_copy, edge_to, new_slot
from tinyedge.autograd.held import Held
from tinyedge.autograd.recorder import Effect, Recorder, recording
from tinyedge.autograd.walk import OwnBackward, Walk, walk_back
from tinyedge.containers import with_leaves
from tinyedge.dtypes import bool_
from tinyedge.errors import CaptureError
from tinyedge.ir.step import Edge, Postponed, Step, Tape
from tinyedge.ir.values import Layout, Slot, Storage, next_number
from tinyedge.ops.random import Draw, Generator
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, tensors_in

PACKAGE = str(Path(__file__).parents[1])


def _caller() -> str:
    """The line outside this package from which the present call came."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return "an unknown line" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


class _Made(NamedTuple):
    """A storage that a recorded call made and wrote."""

    storage: weakref.ref[Storage]
    nbytes: int
    op: str
    shape: Shape
    traced: bool  # by a step of backward that was traced and not run


class Drawn(NamedTuple):
    """A tensor that a recorded call filled with random numbers from the host: in a replay, one more argument."""

    slot: Slot  # over a placeholder
    draw: Draw
    storage: weakref.ref[Storage]
    traced: bool


class LeafUse:
    """What a call does with the gradient of a leaf that existed before the call."""

    def __init__(self, leaf: Slot) -> None:
        self.leaf = leaf
        self.before = leaf.grad  # the gradient's buffer
        self.cleared = -1 if leaf.grad is None else leaf.grad.cleared
        self.existed = leaf.gradient() is not None
        self.observed = False  # the program asks whether there is a gradient
        self.summed = False  # the gradient is stored or added to
        self.adds = False  # it is, as long as it is that of before the call
        self.replaced = False  # the gradient is dropped, or another one takes its place


class Trace(NamedTuple):
    """How the results of a call are differentiated: the steps of backward, recorded after those of the call.

    ``roots`` are the results that have a history. For those in ``wanted``, by position, gradients will come
    (``seeds``). They are turned into gradients of ``leaves`` and of ``inputs``: for each of these the position of an
    argument, or an edge to what was computed before the call.
    """

    roots: list[Slot]
    wanted: tuple[int, ...]
    seeds: list[Slot]
    border: int  # so many of the steps belong to the call itself
    leaves: list[tuple[Slot, Slot]]
    inputs: list[tuple[int | Edge, Slot]]


class Recording(Recorder):
    """The steps of one call, its use of leaves' gradients, and what is needed to undo it.

    Steps are kept over placeholders for the storages made inside, so that these are released as in any call. If
    ``runs`` is false the call is traced abstractly: it allocates, launches and changes nothing. Steps that are ``held``
    are launched by ``release``, or never, if ``undo`` comes before that.
    """

    def __init__(self, name: str, runs: bool = True, holding: Held | None = None) -> None:
        self.name = name
        self.runs = runs
        self.holding = holding
        self.first_number = next_number()  # storages made inside have later numbers
        self.steps: list[Step] = []
        self.first_backward: int | None = None  # the number of the step with which the first backward begins
        self.known: frozenset[int] = frozenset()  # the storages of tensors that the function reaches by itself
        self.given: frozenset[int] = frozenset()  # those of its arguments
        self.leaves: dict[int, LeafUse] = {}
        self.made: dict[int, _Made] = {}
        self.checks: list[tuple[int, Callable[[Storage], None]]] = []  # checks of values, by the storage's number
        self.effects: list[Effect] = []
        self._undos: list[Callable[[], None]] = []
        self.reads_hashes = False  # the code may do more with hashes than find things in dicts
        self.repeats = True  # other calls with the same guard key do the same
        self.calls_users = (
            False  # the backward of the call calls the user's code: hooks, Functions, what is checkpointed
        )
        self.marks: dict[int, Any] = {}  # what a replay puts in the place of containers of the result, by their ids
        self._tracing = False  # nothing runs, and what is recorded is no part of the call
        self._seeds: set[int] = set()  # storages of the gradients that will be given
        self._placeholders: dict[int, Storage] = {}
        self._constants: set[int] = set()  # storages that were filled from the host
        self._before: dict[int, tuple[Storage, int, Any]] = {}  # of changed storages: version, bytes
        self._histories: dict[int, int] = {}  # of the same storages, before
        self.draws: list[Draw] = []  # in the order in which they were drawn
        self.drawn_tensors: list[Drawn] = []
        self._drawn: set[int] = set()  # their storages
        self._generators: dict[int, tuple[Generator, tuple[int, int]]] = {}  # with states before

    def upload(self, storage: Storage) -> None:
        self._constants.add(storage.number)

    def before(self, step: Step) -> None:
        for slot in step.written():
            if slot.storage.number in self._constants:
                self.forbid(
                    "a change in place",
                    "the tensor's values came from the host, and a replay does not upload them again",
                )
            self._keep(slot.storage)

    def step(self, step: Step) -> None:
        for slot in step.read():
            if self._is_inside(slot) and slot.storage.number not in self.made:
                self._constants.add(slot.storage.number)  # no step filled it
                if self.holding is not None:
                    self.holding.allocate(slot.storage)  # in which the program reads it too
        for slot in step.written():
            if self._is_inside(slot):
                made = _Made(weakref.ref(slot.storage), slot.storage.nbytes, step.op.name, slot.shape, self._tracing)
                self.made.setdefault(slot.storage.number, made)
        self.steps.append(step.over({name: self._bare(slot) for name, slot in step.slots.items()}))

    def renewed(self, result: Any, kept: dict[int, Any]) -> Any:
        """The result of the call, with copies of what came from the host, which is the same in all replays: the user
        may change it. ``kept``: containers that stay themselves, by their ids.
        """
        copies: dict[int, Tensor] = {}

        def renew(tensor: Tensor) -> Tensor:
            if vars(tensor) and tensor._slot.number > self.first_number:
                self.forbid(f"{next(iter(vars(tensor)))!r}, an attribute of a tensor that is returned", "it is lost")
            if tensor._slot.storage.number not in self._constants or tensor.requires_grad:
                return tensor
            return copies.setdefault(id(tensor._slot), tensor.clone())

        tensors = tensors_in(result)
        if not any(vars(tensor) or tensor._slot.storage.number in self._constants for tensor in tensors):
            return result
        return with_leaves(result, renew, Tensor, kept)

    def trace(
        self, arguments: Sequence[Tensor], results: Sequence[Tensor], wanted: Sequence[int] | None
    ) -> Trace | None:
        """Trace abstractly how ``results`` are differentiated; None if none of them can be.

        ``wanted`` are the positions of the results for which gradients will come, among those that require one. By
        default these are the scalars, if there are any, since other results usually are only looked at.
        """
        roots = list({id(r._slot): r._slot for r in results if self.is_differentiable(r._slot)}.values())
        if not roots:
            return None
        if wanted is None:
            wanted = [k for k, root in enumerate(roots) if root.numel == 1] or range(len(roots))
        steps = Tape.leading_to([roots[k] for k in wanted], self.first_number)
        self.calls_users = any(
            step.hooks is not None or isinstance(step, OwnBackward) or isinstance(step.saved, Postponed)
            for step in steps
        )
        edges = [edge for step in steps for edge in step.edges if edge is not None]
        # The gradients that leaves have now may be gone when the backward comes, or be what it reads: it adds to
        # whatever gradient each leaf then has. They stay where they are, since other threads may add to them.
        walk = Walk({id(argument._slot) for argument in arguments}, retain_graph=True, begins=True)
        border, runs = len(self.steps), self.runs
        self._tracing, self.runs, self.first_backward = True, False, border
        try:
            with recording(self):
                seeds = [new_slot(roots[k].storage.backend, roots[k].dtype, roots[k].shape) for k in wanted]
                self._seeds = {seed.storage.number for seed in seeds}
                for k, seed in zip(wanted, seeds, strict=True):
                    walk.deliver((roots[k].step, roots[k].index, None), seed, roots[k].spec, owned=False)
                walk_back(walk, steps)
                passed = [(key, self._written_back(gradient.slot)) for key, gradient in walk.pending.items()]
        finally:
            self._tracing, self.runs = False, runs
            for step in steps:
                if isinstance(step.saved, Postponed):
                    step.saved.forget()
        sources: dict[tuple[int, int], int | Edge] = {Walk.key(edge): edge for edge in edges}
        for position, argument in enumerate(arguments):
            sources[Walk.key(edge_to(argument._slot))] = position
        inputs = [(sources[key], slot) for key, slot in passed]
        return Trace(roots, tuple(wanted), seeds, border, list(walk.leaves.values()), inputs)

    def _written_back(self, gradient: Slot) -> Slot:
        """A gradient of an input, which the backward of each call writes: a user's backward may return any tensor."""
        made = self.made.get(gradient.storage.number)
        if not gradient.numel or gradient.storage.number in self._seeds or (made is not None and made.traced):
            return gradient
        return contiguous_copy(gradient)

    def held_for_backward(self, results: Sequence[Tensor]) -> set[Storage]:
        """The storages that the history of ``results`` keeps of the call."""
        steps = Tape.leading_to([result._slot for result in results], self.first_number)
        return {storage for step in steps for storage in step.kept()}

    def is_differentiable(self, slot: Slot) -> bool:
        """Whether the call gave it a history through which no backward has gone yet."""
        if not self.made_history(slot):
            return False
        return all(step.saved is not None for step in Tape.leading_to([slot], self.first_number))

    def made_history(self, slot: Slot) -> bool:
        """Whether it was computed in the call from something that requires a gradient."""
        return slot.requires_grad and slot.step is not None and slot.step.number > self.first_number

    def effect(self, effect: Effect, run: Callable[[], None], undo: Callable[[], None]) -> None:
        if not self.runs:
            self.forbid("an optimizer's or a schedule's step", "abstract tracing must change nothing")
        self._undos.append(undo)
        first = len(self.steps)
        run()
        effect.steps = range(first, len(self.steps))
        self.effects.append(effect)

    def once(self) -> None:
        self.repeats = False

    def backward(self, steps: Tape) -> None:
        if any(step.number < self.first_number for step in steps):
            self.forbid("backward()", "it goes through steps from before the call, which a replay does not run")
        if self.first_backward is None:
            self.first_backward = len(self.steps)

    def leaf_gradient(self, leaf: Slot) -> None:
        if not self._tracing and (use := self._use(leaf)) is not None:
            use.summed = True
            use.adds |= not use.replaced
            if leaf.grad is not None:
                if not use.replaced and leaf.grad.storage.number in self.known | self.given:
                    raise CaptureError(
                        f"te.compile({self.name})",
                        "a gradient to which a call adds must not be an argument too, or another tensor that it reads",
                        f"that of a leaf of shape {leaf.shape} is, and what is read may lie elsewhere at the next call",
                        "Pass a clone() of the gradient, or read it inside, as the grad of the leaf.",
                    )
                self._keep(leaf.grad.storage)

    def hooked(self, leaf: Slot) -> None:
        if leaf.number < self.first_number:
            self.forbid("a hook of a tensor from outside", "its code is not compared from call to call")

    def gradient_seen(self, leaf: Slot) -> None:
        if (use := self._use(leaf)) is not None and not use.replaced and not use.summed:
            use.observed = True

    def gradient_set(self, leaf: Slot, gradient: Slot | None) -> None:
        if gradient is not None and gradient.storage.number in self._constants:
            self.forbid(
                "a gradient from the host", "later additions would change the values with which a replay begins"
            )
        if (use := self._use(leaf)) is not None:
            # A gradient that began in the call is continued elsewhere: where depends on whether there was one before.
            use.observed = use.observed or (use.summed and not use.replaced)
            use.replaced = True

    def _use(self, leaf: Slot) -> LeafUse | None:
        """The record of a leaf; None for a leaf that the call made, whose gradient is a value like any other."""
        if leaf.number > self.first_number:
            return None
        return self.leaves.setdefault(id(leaf), LeafUse(leaf))

    def checked(self, storage: Storage, check: Callable[[Storage], None]) -> None:
        self.checks.append((storage.number, check))

    def drawn(self, draw: Draw) -> None:
        if self._tracing:
            self.forbid("drawing random numbers", "gradients are computed by steps that are recorded before backward()")
        self.draws.append(draw)

    def filled(self, slot: Slot, draw: Draw) -> None:
        number = slot.storage.number
        self._constants.discard(number)
        self._drawn.add(number)
        self.drawn_tensors.append(Drawn(self._placeholder(slot), draw, weakref.ref(slot.storage), self._tracing))

    def hashed(self) -> None:
        frame = inspect.currentframe()
        for _ in range(3):  # this one, the recorder's and the tensor's
            frame = None if frame is None else frame.f_back
        if self.reads_hashes and frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            self.forbid("the hash of a tensor", "it is another at each call")

    def draw(self, generator: Generator) -> None:
        self._generators.setdefault(id(generator), (generator, generator._state()))

    def release(self) -> None:
        if self.holding is None:
            return
        if self.holding.error is None:  # nothing has run yet, so these are the values before the call
            self._before = {n: (s, version, bytes_of(s)) for n, (s, version, _) in self._before.items()}
        self.holding.launch()
        self.holding = None

    def is_replaceable(self) -> bool:
        """Whether steps are held, in place of which a program may run: ``undo`` undoes all that the call did on the
        host.
        """
        if self.holding is None or self.holding.error is not None or not self.holding.fills_all:
            return False
        histories = (storage.recorded != self._histories[n] for n, (storage, *_) in self._before.items())
        return not any(histories)

    def undone(self) -> Callable[[], None]:
        """Undo the call, whose steps are held; return a function that does again what it did on the host."""
        versions = [(storage, storage.version) for storage, *_ in self._before.values()]
        gradients = [(use.leaf, use.leaf.grad) for use in self.leaves.values()]
        cleared = [(each, each.cleared) for use in self.leaves.values() for each in (use.before, use.leaf.grad) if each]
        states = [(generator, generator.get_state()) for generator, _ in self._generators.values()]
        restores = [effect.restorer() for effect in self.effects]
        self.undo()

        def redo() -> None:
            for storage, version in versions:
                storage.version = version
            for leaf, gradient in gradients:
                if leaf.grad is not gradient:
                    leaf.keep_gradient(gradient)
            for gradient, version in cleared:
                gradient.cleared = version
            for generator, state in states:
                generator.set_state(state)
            for restore in restores:
                restore()

        return redo

    def undo(self) -> None:
        """Restore everything to its state before the call."""
        for storage, version, values in self._before.values():
            if values is not None:
                storage.backend.write(storage, values)
            storage.version = version
        for use in self.leaves.values():
            if use.leaf.grad is not use.before:
                use.leaf.keep_gradient(use.before)
            if use.before is not None:
                use.before.cleared = use.cleared
        for generator, state in self._generators.values():
            generator.set_state(state)
        for undo in reversed(self._undos):
            undo()

    def _is_inside(self, slot: Any) -> bool:
        """Whether a replay computes it: it was made inside, and not from values of the host."""
        return (
            isinstance(slot, Slot)
            and slot.storage.number > self.first_number
            and slot.storage.number not in self._constants
            and slot.storage.number not in self._seeds
            and slot.storage.number not in self._drawn
        )

    def _bare(self, slot: Any) -> Any:
        """The same view without history, which would keep other values; over a placeholder if a replay computes it."""
        if not isinstance(slot, Slot):
            return slot
        is_drawn = slot.storage.number in self._drawn
        return self._placeholder(slot) if is_drawn or self._is_inside(slot) else slot.alias()

    def _placeholder(self, slot: Slot) -> Slot:
        number = slot.storage.number
        if number not in self._placeholders:
            self._placeholders[number] = Storage.over(slot.storage.backend, None)
            self._placeholders[number].number = number
        return Slot(self._placeholders[number], slot.dtype, slot.layout())

    def _keep(self, storage: Storage) -> None:
        """Copy to the host, once, what is about to be changed outside: on the device there may be no room."""
        if not self._tracing and storage.number < self.first_number and storage.number not in self._before:
            self._before[storage.number] = storage, storage.version, bytes_of(storage) if self.allocates else None
            self._histories[storage.number] = storage.recorded

    def forbid(self, call: str, reason: str) -> None:
        raise CaptureError(
            f"te.compile({self.name})",
            "a replay must be able to repeat all that runs inside",
            f"{call} at {_caller()} cannot be repeated: {reason}",
            "Move it out of the compiled function, or pass its result as an argument.",
        )


def bytes_of(storage: Storage) -> Any:
    """All bytes of a storage, on the host."""
    return storage.backend.read(Slot(storage, bool_, Layout((storage.nbytes,), (1,), 0)))
