"""``te.compile``: the compiled function, its programs, and the choice among them.

In: calls. Out: results. The first call with a guard key is an ordinary eager call with real values, whose steps are
recorded and compiled into a Program; later calls with an equal guard key replay that. Where nothing can see the
difference the steps of the first call are held, and the program replays them (``_answered``).
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from operator import is_
from types import MethodType
from typing import Any, overload

from tinyedge import config
from tinyedge.autograd import recorder
from tinyedge.autograd.held import Held
from tinyedge.autograd.modes import enable_grad
from tinyedge.backends import default_backend
from tinyedge.compiler import check as checking
from tinyedge.compiler.arenas import Arenas
from tinyedge.compiler.backward import Node
from tinyedge.compiler.guard_state import MISSING, alive_in
from tinyedge.compiler.guards import Call, Guard, Renewed, There, first_change
from tinyedge.compiler.program import Program, prepared
from tinyedge.compiler.record import Recording, bytes_of
from tinyedge.errors import ArgumentError, AutogradError, BackendError, CaptureError, TinyedgeError
from tinyedge.ir.modes import modes
from tinyedge.ir.values import Slot
from tinyedge.tensor import Tensor, map_tensors, tensors_in

MANY_PROGRAMS = 8
"""So many programs of one function, and there is a warning: probably an argument changes at every call."""

MOST_PROGRAMS = 32
"""Programs of one function; beyond them the least recently used one is dropped."""

MOST_VARIANTS = 4
"""Programs for one guard key; they differ in which leaves had gradients before the call."""


class Compiled:
    """A compiled function: it records the first call for each guard key, and replays it after that."""

    def __init__(self, function: Callable[..., Any], constant: Iterable[str] = ()) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.constant = tuple(constant)
        self._others: dict[int, weakref.ref[Tensor]] = {}  # of a deep copy: what the original trains, by its id
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self._mode = config.compile_mode()  # read once: with cold caches a look at the environment takes 3 us
        self._guard = Guard(function, constant)
        self._changed = False  # whether the last call changed its own guard key
        # By guard key and number: programs of a key differ in which leaves have gradients. The last used one is last.
        self.programs: OrderedDict[tuple[Any, int], Program] = OrderedDict()
        self._latest: Program | None = None
        self._latest_key: Any = None
        self._arenas = Arenas()
        self._wanted: dict[Any, tuple[int, ...]] = {}  # results that got gradients, if not the default ones

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickled by name if its module has it by that name, as functions are; else as the function it compiles."""
        name = self.__dict__.get("__qualname__")
        found: Any = sys.modules.get(self.__dict__.get("__module__", ""))
        for part in name.split(".") if name else ():
            found = getattr(found, part, None)
        return name if name and found is self else (Compiled, (self.function, self.constant))

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        copied: Compiled
        copied = memo[id(self)] = object.__new__(Compiled)  # before its function, which may hold it
        Compiled.__init__(copied, copy.deepcopy(self.function, memo), self.constant)
        copied._others = {id(tensor): weakref.ref(tensor) for tensor in self._trained().values()}
        return copied

    def _trained(self) -> dict[str, Tensor]:
        try:
            return Guard(self.function, self.constant).trained()
        except CaptureError:  # calls will be refused for the same reason
            return {}

    def _require_apart(self) -> None:
        """Raise CaptureError if calls of this deep copy would train tensors that belong to the original.

        It is checked at the first call, since a method may be copied earlier than its model.
        """
        for name, tensor in self._trained().items():
            other = self._others.get(id(tensor))
            if other is not None and other() is tensor:
                raise CaptureError(
                    f"te.compile({self.name})",
                    "a deep copy must read the copies of what it trains",
                    f"it reads {name} itself: Python copies no variables of functions",
                    "Compile a method of the model, or pass the model as an argument; or call te.compile again, on a "
                    "function that reads the copy.",
                )
        self._others = {}

    @property
    def program(self) -> Program:
        """The program that was made or replayed last. Errors: CaptureError before the first call."""
        if self._latest is None:
            raise CaptureError(
                f"te.compile({self.name})",
                "a call before its program is asked for",
                "there was none",
                "Call the function first, or its prepare(...).",
            )
        return self._latest

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._others:
            self._require_apart()
        if self._mode == "0" or modes.recorder is not None or modes.scopes:
            return self.function(*args, **kwargs)
        call = Call.of(args, kwargs)
        key = self._key(call)
        program = self._find(key, call.tensors)
        if program is None:
            return self._record(key, call)
        self._changed = False
        if self._mode == "check":
            return self._check(program, call)
        return self._replay(program, key, call)

    def prepare(self, *args: Any, **kwargs: Any) -> Program:
        """Compile the program for such arguments by abstract tracing, without running anything.

        Then the first call is a replay too, and takes no more memory than ``program.peak_bytes``.

        Errors: CaptureError as for a call; OutOfMemoryError.
        """
        if self._others:
            self._require_apart()
        call = Call.of(args, kwargs)
        key = self._key(call)
        program = self._find(key, call.tensors)
        if program is None:

            def traced() -> Program:
                program, _ = self.recorded(Recording(self.name, runs=False), call)
                assert program is not None  # abstract tracing always gives one
                return program

            program = prepared(traced(), traced)
            self._add(key, program)
        return program

    def _key(self, call: Call, trail: dict[str, Any] | None = None) -> Any:
        around = modes.grad.value, modes.autocast.value, default_backend().name
        key = (self._guard.key(call, trail), *around, _sharing(call.tensors))
        if trail is not None:
            trail |= zip(("the grad mode", "the autocast mode", "the default device"), around, strict=True)
        return key

    def _record(self, key: Any, call: Call) -> Any:
        recording = Recording(self.name, holding=Held() if self._may_hold(call.tensors) else None)
        program, result = self.recorded(recording, call)
        if program is not None:
            self._add(key, program)
            if recording.holding is not None:
                return self._answered(recording, program, key, result, call)
        return result

    def _may_hold(self, arguments: list[Tensor]) -> bool:
        """Whether the steps of a call that is recorded may be held until its program can take their place.

        What the call does on the host comes before its launches then. So nobody else may look: no other thread, and
        nothing that it leaves in a place which is not compared.
        """
        backend = arguments[0]._slot.storage.backend if arguments else default_backend()
        return (
            self._mode == "1"
            and backend.device is not None  # nothing is built where there are no kernels
            and not self.constant
            and modes.deferred is None
            and not modes.anomaly.value
            and threading.active_count() == 1
        )

    def _answered(self, recording: Recording, program: Program, key: Any, result: Any, call: Call) -> Any:
        """The result of a recorded call whose steps are held: its program replays them. If the device refuses that,
        they are launched one by one, and give ``result``.
        """
        redo = recording.undone()
        if program.fits(call.tensors):
            with suppress(BackendError, MemoryError):
                return self._replay(program, key, call)
        redo()
        try:
            recording.release()
        except BaseException:
            recording.undo()
            raise
        return result

    def _replay(self, program: Program, key: Any, call: Call) -> Any:
        again = None
        if program.has_several_roots:
            again = partial(self._again, key, call, [tensor._slot for tensor in call.tensors])
        result = program(call.tensors, again)
        if program.calls_users:
            for step in [tensor._slot.step for tensor in tensors_in(result)]:
                if isinstance(step, Node):
                    step.current = partial(self._reads_same, key)
        return self._finished(result, call) if program.marks else result

    def _reads_same(self, key: Any) -> bool:
        """Whether all that the function reads, its arguments apart, is as it was when the guard key was ``key``."""
        now: Any = self._guard.key(Call([], (), {}), None)
        return bool(now[0] == key[0][0])

    def _finished(self, result: Any, call: Call) -> Any:
        """The result of a replay, with what was there before the call, and copies of sets."""
        met = self._guard.met(call)

        def finish(mark: Any) -> Any:
            return met[mark.place] if type(mark) is There else copy.copy(mark.value)

        return map_tensors(result, finish, (There, Renewed))

    def recorded(self, recording: Recording, call: Call) -> tuple[Program | None, Any]:
        """Record a call; return its program and its result, without history.

        The program is None if the call changed its own guard key: perhaps it set something up, and the next call is the
        one to record.
        """
        before: dict[str, Any] = {}
        key = self._key(call, before)
        recording.reads_hashes = self._guard.names.hashes
        recording.known = frozenset(self._guard.storages)
        recording.given = frozenset(tensor._slot.storage.number for tensor in call.tensors)
        is_apart = False
        held = call.held()
        try:
            with recorder.recording(recording):
                result = self.function(*call.args, **call.kwargs)
                for tensor in tensors_in(result):
                    tensor._current("te.compile")  # a view has the history of what changed its memory
                marks, strange = self._guard.renewed_in(result, call)
                result = recording.renewed(result, {id(kept): kept for kept, _ in marks})
            same = self._is_same(key, before, call, held, recording.runs)
            if not same or not recording.repeats or not recording.is_replaceable():
                recording.release()
            if not same or not recording.repeats:
                return None, result
            self._require_renewed(strange)
            recording.marks = {id(kept): mark for kept, mark in marks}
            trace = recording.trace(call.tensors, tensors_in(result), self._wanted.get(key))
            if recording.calls_users and self._key(call) != key:
                raise CaptureError(
                    f"te.compile({self.name})",
                    "backward must not change what the function reads",
                    "a hook, a Function's backward or what is checkpointed does",
                    "Change it outside.",
                )

            def make() -> Program:
                return Program(recording, call.tensors, result, trace, self._arenas)

            program = make()
            self._require_dropped(recording, program, result)
            is_apart = True
            if recording.runs:
                program = prepared(program, make)
        except BaseException as error:
            failed = error
            if isinstance(error, Exception) and not is_apart:
                # Its steps ran in an eager call, and somebody may hold what they computed: at least the traceback does.
                try:
                    recording.release()
                except BaseException as refused:
                    failed = refused
            # What the user's code raises ends an eager call like any other.
            if (
                not recording.runs
                or isinstance(failed, (TinyedgeError, MemoryError))
                or not isinstance(failed, Exception)
            ):
                recording.undo()
            if failed is not error:
                raise failed from error
            raise
        if not recording.runs:
            recording.undo()
        return program, result

    def _again(self, key: Any, call: Call, slots: list[Slot], wanted: tuple[int, ...]) -> tuple[Program, list[Tensor]]:
        """The program of such a call, whose results ``wanted`` are those for which gradients come, from now on."""
        call = Call.of(call.args, call.kwargs)  # its containers may hold other tensors now
        with enable_grad():
            moved = any(tensor._slot is not slot for tensor, slot in zip(call.tensors, slots, strict=True))
            if moved or self._key(call) != key:
                raise AutogradError(
                    "backward",
                    f"what te.compile({self.name}) reads must not change after the call, since the call is repeated "
                    f"for gradients of other results than recorded: {list(wanted)}",
                    "it has changed",
                    "Return with detach() the results that need no gradient.",
                )
            self._wanted[key] = wanted
            for known in [known for known in self.programs if known[0] == key]:
                del self.programs[known]
            self._latest_key = None  # it may be the key of one of these
            return self.prepare(*call.args, **call.kwargs), call.tensors

    def _is_same(
        self, key: Any, before: dict[str, Any], call: Call, held: list[tuple[Any, list[Any]]], ran: bool
    ) -> bool:
        """Whether the call left its guard key, and what its arguments ``held``, as they were. CaptureError if two calls
        in a row changed them.
        """
        after: dict[str, Any] = {}
        same = bool(self._key(call, after) == key)
        changed = "" if same else first_change(before, after) or "how its arguments share memory"
        now = call.held()
        if same and not (
            len(now) == len(held)
            and all(
                a is b and len(had) == len(has) and all(map(is_, had, has)) for (a, had), (b, has) in zip(held, now)
            )
        ):
            same, changed = False, "which tensors or other objects its arguments hold"
        again, self._changed = self._changed or not ran, not same
        if not same and again:
            raise CaptureError(
                f"te.compile({self.name})",
                "a call must not change its own guard key",
                f"it changed {changed}, and so did the call before",
                "Change it outside of the compiled function, or return the new value.",
            )
        return same

    def _require_renewed(self, new: Any) -> None:
        """Raise CaptureError if a replay would not make all of the result anew."""
        if new is not MISSING:
            raise CaptureError(
                f"te.compile({self.name})",
                "results are tensors, numbers, text and containers of these, or what was there before the call",
                f"it returns a {type(new).__module__}.{type(new).__qualname__}, which a replay would not make anew",
                "Return the tensors, and make it of them outside.",
            )

    def _require_dropped(self, recording: Recording, program: Program, result: Any) -> None:
        """Raise CaptureError if a tensor that the call made is still held, but is not returned."""
        kept = {tensor._slot.storage.number for tensor in tensors_in(result)}
        kept |= {storage.number for storage in recording.held_for_backward(tensors_in(result))}
        kept |= {leaf.number for leaf in program._leaves}
        kept |= {end.number for _, end in program._ends.places if end is not None}
        found = [(number, each.storage, each.traced, each.shape, each.op) for number, each in recording.made.items()]
        for drawn in recording.drawn_tensors:
            slot = drawn.slot
            found.append((slot.storage.number, drawn.storage, drawn.traced, slot.shape, "random numbers"))
        for number, refer, traced, shape, op in found:
            if number not in kept and not traced and refer() is not None:
                raise CaptureError(
                    f"te.compile({self.name})",
                    "tensors made inside must be returned, or be dropped before it returns",
                    f"one of shape {shape} (of {op}) is still held, and a replay would not compute it again",
                    "Return it, or keep a copy of what the function returned.",
                )

    def _find(self, key: Any, arguments: list[Tensor]) -> Program | None:
        """The program that can be replayed for this guard key; None if there is none."""
        program = self._latest
        if program is not None and self.programs and self._latest_key == key and program.fits(arguments):
            return program
        for number in range(MOST_VARIANTS):
            program = self.programs.get((key, number))
            if program is not None and program.fits(arguments):
                self._latest, self._latest_key = program, key
                self.programs.move_to_end((key, number))
                return program
        return None

    def _add(self, key: Any, program: Program) -> None:
        number = next((n for n in range(MOST_VARIANTS) if (key, n) not in self.programs), 0)
        self.programs[key, number] = self._latest = program
        self._latest_key = key
        self.programs.move_to_end((key, number))
        if len(self.programs) > MOST_PROGRAMS:
            self.programs.popitem(last=False)
        myself = weakref.ref(self)

        def drop(_: object) -> None:
            """An object of the guard key is gone, usually a model: no later call can have this key."""
            if (compiled := myself()) is not None and compiled.programs.pop((key, number), None) is not None:
                (compiled._latest_key, _), compiled._latest = next(
                    reversed(compiled.programs.items()), ((None, 0), None)
                )

        program.ends_with = [weakref.ref(each, drop) for each in alive_in(key)]
        if len(self.programs) == MANY_PROGRAMS:
            warnings.warn(
                f"te.compile({self.name}) has made {MANY_PROGRAMS} programs: its guard key changes from call to call, "
                "by a shape, a number or a mode among its arguments or among what it reads. Pass numbers that change "
                "as tensors.",
                stacklevel=4,
            )

    def _check(self, program: Program, call: Call) -> Any:
        """Replay, restore, run eagerly, and compare; the eager call's results and changes stay."""
        arguments = call.tensors
        program.take_leaves(arguments)
        leaves = program.leaves()
        restore = self._restorer(program, arguments, leaves)
        around = self._guard.tensors()
        names = {tensor._slot.storage.number: name for name, tensor in around.items()}
        known = [(f"argument {position}", tensor) for position, tensor in enumerate(arguments)]
        names |= {tensor._slot.storage.number: name for name, tensor in known}
        known += around.items()

        def outcome(result: Any) -> list[checking.Named]:
            found = checking.named_results(result)
            found += checking.named_gradients(leaves, names)
            return found + checking.named_values(known)

        replayed = outcome(self._finished(program(arguments), call) if program.marks else program(arguments))
        restore()
        try:
            result = self.function(*call.args, **call.kwargs)
        except (TinyedgeError, MemoryError):  # as in a call that is recorded; what the user raises stays as it is
            restore()
            raise
        difference = checking.first_difference(replayed, outcome(result), checking.unit_of(program.steps.values()))
        if difference is not None:
            raise CaptureError(
                f"te.compile({self.name})",
                "a replay must equal the eager call",
                f"they differ in {difference}",
                "The function depends on something that no guard sees, or changes something outside.",
            )
        return result

    @staticmethod
    def _restorer(program: Program, arguments: list[Tensor], leaves: list[Slot]) -> Callable[[], None]:
        """A function that restores all that a replay changes: memory, gradients, generators, optimizers."""
        gradients = [(leaf, leaf.grad, -1 if leaf.grad is None else leaf.grad.cleared) for leaf in leaves]
        storages = program.changed_by(arguments) + [grad.storage for _, grad, _ in gradients if grad is not None]
        before = [(each, each.version, bytes_of(each)) for each in dict.fromkeys(storages) if each.nbytes]
        states = [(generator, generator.get_state()) for generator in program.generators]
        restores = [effect.restorer() for effect in program.effects]

        def restore() -> None:
            for storage, version, values in before:
                program.backend.write(storage, values)
                storage.version = version
            for leaf, grad, cleared in gradients:
                leaf.keep_gradient(grad)
                if grad is not None:
                    grad.cleared = cleared
            for generator, state in states:
                generator.set_state(state)
            for each in reversed(restores):
                each()

        return restore


def _sharing(arguments: list[Tensor]) -> tuple[tuple[int, int, int], ...]:
    """How arguments share memory, as a part of the guard key: () if each has a storage of its own.

    Else, for each argument: the position of the first one that is the same tensor, of the first one in the same
    storage, and the offset between the two.
    """
    if len(arguments) < 2:
        return ()
    slots = [argument._slot for argument in arguments]
    if len({slot.storage.number for slot in slots}) == len(slots):
        return ()
    same: dict[int, int] = {}
    first: dict[int, tuple[int, int]] = {}
    result = []
    for position, slot in enumerate(slots):
        where, offset = first.setdefault(slot.storage.number, (position, slot.offset))
        result.append((same.setdefault(id(slot), position), where, slot.offset - offset))
    return tuple(result)


@overload
def compile(function: Callable[..., Any], *, constant: Iterable[str] = ()) -> Compiled: ...


@overload
def compile(function: None = None, *, constant: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Compiled]: ...


def compile(function: Callable[..., Any] | None = None, *, constant: Iterable[str] = ()) -> Any:
    """Compile ``function``: record its first call, and replay the recording at later calls with an equal guard key.

    It is a decorator for a function or method over tensors: forward and backward, or forward alone. Deleting it changes
    no result beyond rounding. Results are new tensors, in new containers; a container that was there before the call is
    returned itself. A call is one node of the autograd graph, so ``backward`` may
    walk through it. A whole training step, ``optimizer.step()`` included, may be inside.

    Compared at each call is all that its code mentions, and the Python code that this comes to, yours or that of
    installed packages: globals, imports, variables that it closes over, defaults, the attributes that are mentioned
    anywhere; special methods, mentioned or not. These may be numbers, text, containers, dataclasses, enums, objects of
    Python classes with ``__dict__`` or ``__slots__``, functions, classes, modules (modes, hooks, parameters), tensors,
    and NumPy arrays of at most 1024 bytes. Of this package's own layers, attributes that your code does not mention are
    compared as they are set by assignment or through ``vars``, not by ``object.__setattr__``. Where NumPy computes, so
    is what it does about errors (``np.errstate``).

    Everything else is refused, with its name and line, even in a branch that does not run: iterators, files, locks,
    larger arrays, objects of classes written in C, and functions that may return something else at each call, such as
    time, random numbers and the environment. Functions that only print (``print``, ``logging``, ``warnings``) are
    allowed; they print while recording, and not in a replay.

    ``constant`` names variables or attributes, dotted or not, that never change: they are not looked into, and are no
    part of the guard key. ``te.compile(constant=["table"])`` is a decorator.

    Pickles and deep copies contain the function but no programs, which are compiled again. A deep copy of a function
    that trains what was not copied with it, such as a model among its globals, refuses to be called.

    Errors: CaptureError, with the line: for what cannot be compared; for what a replay would not repeat, which is
            reading a value (``.item()``, ``if tensor:``, ``str(tensor)``, ``hash(tensor)``), and walking back through
            what was computed before the call; for tensors that are kept without being returned; for results that are
            no tensors, values or containers of these, such as an iterator; and if two calls in a row change their own
            guard key, such as a counter, a list or a mode, or put other tensors into their arguments. A single call
            that does so perhaps sets something up, and is not replayed. ArgumentError for NumPy arrays as arguments.
            AutogradError from the backward of a result that calls code of yours (hooks, ``Function.backward``,
            ``checkpoint``), if what the function reads has changed since the call.
    """
    if isinstance(constant, str):
        raise ArgumentError(
            "te.compile", "constant must be a list of names", f"got the text {constant!r}", f"Pass [{constant!r}]."
        )
    names = tuple(constant)
    if function is None:
        return functools.partial(compile, constant=names)
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise ArgumentError(
            "te.compile", "a plain function", "got a generator or a coroutine function",
            "Let it return a list, or compile what it calls for each element.",
        )  # fmt: skip
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(Compiled(function.__func__, names))
    return Compiled(function, names)
