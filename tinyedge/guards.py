"""What a compiled function depends on beside the values of tensors, as a key: equal keys may share a program.

The function's code says which globals, closure variables and attributes it mentions. From there the walk goes on into
the functions and methods that it mentions, and into modules and objects, as far as they are the user's own.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import sys
import sysconfig
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from operator import attrgetter, is_
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from tinyedge.errors import ArgumentError
from tinyedge.nn import Module
from tinyedge.nn.module import member_changes
from tinyedge.tape import Slot, leaf_changes
from tinyedge.tensor import Tensor

PLAIN = frozenset({int, bool, str, bytes, complex, type(None), type(...)})
LIBRARIES = (str(Path(__file__).parent), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
ALWAYS = frozenset({"forward", "__call__"})
"""What is called without being mentioned."""

_slot_of, _wants_gradient = attrgetter("_slot"), attrgetter("requires_grad")


@functools.cache
def _is_users(module: str | None) -> bool:
    """Whether the code of a Python module is the user's own: the globals of a library stay as they are."""
    if module is None or module.partition(".")[0] in sys.stdlib_module_names:
        return module == "__main__"
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not file.startswith(LIBRARIES)


def _mentioned(code: CodeType) -> tuple[tuple[str, ...], frozenset[str]]:
    """The globals and the attributes that a function's code mentions, those of functions inside it too."""
    variables: dict[str, None] = {}
    attributes: set[str] = set()
    for instruction in dis.get_instructions(code):
        name = instruction.argval
        if instruction.opname.endswith(("_GLOBAL", "_NAME")):
            variables[name] = None
        elif "ATTR" in instruction.opname or instruction.opname == "LOAD_METHOD":
            attributes.add(name)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner, more = _mentioned(constant)
            variables.update(dict.fromkeys(inner))
            attributes |= more
        elif isinstance(constant, str) and constant.isidentifier():  # for getattr
            attributes.add(constant)
    return tuple(variables), frozenset(attributes)


_known_codes: dict[int, tuple[CodeType, tuple[str, ...], frozenset[str]]] = {}
"""What each code mentions, by its id: code hashes all that it consists of. It is held, so that the id stays its own."""


def _known(code: CodeType) -> tuple[CodeType, tuple[str, ...], frozenset[str]]:
    return _known_codes.setdefault(id(code), (code, *_mentioned(code)))


class _Same:
    """Equal for the same object only, also after that is gone and another one has its address."""

    __slots__ = ("number", "refer")

    def __init__(self, value: Any) -> None:
        self.number = id(value)
        try:
            self.refer: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self.refer = lambda: value

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or self.number != other.number:
            return False
        mine = self.refer()
        return mine is not None and mine is other.refer()


class _ModuleKind:
    """What a program depends on in a module: its parts, their modes and attributes, and their tensors. Hashed once."""

    __slots__ = ("_hash", "values")

    def __init__(self, *values: Any) -> None:
        self.values = values
        self._hash = hash(values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ModuleKind) and self.values == other.values


class _ModuleState:
    """A module as it was at the last call, so that the next one need only look for changes.

    ``names`` are the attributes that matter where a class is the user's own.
    """

    def __init__(self, module: Module, names: set[str]) -> None:
        self.version = member_changes()
        self.names = len(names)
        parts = list(module.modules())
        members = [tensor for part in parts for tensor in (*part._parameters.values(), *part._buffers.values())]
        self.tensors = [tensor for tensor in members if tensor is not None]
        self.classes = [cls for cls in dict.fromkeys(map(type, parts)) if _is_users(cls.__module__)]
        self.live: list[Any] = []  # attributes and hooks that may change without being set
        self.parts = tuple([self._part(part, names) for part in parts])
        self.seen = -1  # of the changes of leaves
        self.slots: tuple[Slot, ...] = ()
        self.flags: tuple[bool, ...] = ()
        self.numbers: frozenset[int] = frozenset()
        self.kind = _ModuleKind()

    def _part(self, part: Module, names: set[str]) -> Hashable:
        users = _is_users(type(part).__module__)
        static: list[Any] = []
        for name, value in vars(part).items():
            if name in ALWAYS or (name in names if users else not name.startswith("_")):
                if _is_constant(value):
                    static += (name, type(value), value)
                else:
                    static.append(name)
                    self.live.append(value)
        self.live += [hook for hook, _ in (*part._pre_hooks.values(), *part._hooks.values())]
        hooks = (*part._pre_hooks, *part._hooks)
        return type(part), weakref.ref(part), part.training, part.checkpointed, hooks, tuple(static)

    def now(self) -> _ModuleKind | None:
        """Its kind, the same object until it changes; None if members or modes of any module have changed."""
        if self.version != member_changes():
            return None
        changes = leaf_changes()
        if self.seen == changes:
            return self.kind
        self.seen = changes
        slots = tuple(map(_slot_of, self.tensors))
        flags = tuple(map(_wants_gradient, slots))
        if slots != self.slots or flags != self.flags or not self.kind.values:
            self.slots, self.flags = slots, flags
            self.numbers = frozenset([slot.storage.number for slot in slots])
            self.kind = _ModuleKind(self.parts, tuple(map(weakref.ref, slots)), flags)
        return self.kind


def _is_constant(value: Any) -> bool:
    """Whether it can only be replaced, and is told from others by its type and its value."""
    return type(value) in PLAIN or type(value) is float or (type(value) is tuple and all(map(_is_constant, value)))


class _Around:
    """What a walk from a function comes to, and on what that rests: while nothing of it changed, so would another one.

    ``reads`` gave ``values`` then. A walk that comes to what cannot be watched so is not ``settled``.
    """

    def __init__(self, names: int) -> None:
        self.names = names  # the attributes that were known to be mentioned
        self.kind: Hashable = None
        self.numbers: set[int] = set()  # the storages of tensors that are no arguments
        self.met: dict[int, tuple[int, Any]] = {}  # what can contain itself
        self.settled = True
        self.reads: list[Callable[[], Any]] = []
        self.values: list[Any] = []

    def watch(self, read: Callable[[], Any], value: Any) -> None:
        self.reads.append(read)
        self.values.append(value)

    def watch_items(self, mapping: Mapping[Any, Any]) -> None:
        self.watch(partial(_has_items, mapping, [*mapping], [*mapping.values()]), True)

    def holds(self, names: int) -> bool:
        if not self.settled or names != self.names:
            return False
        try:
            return all(map(is_, [read() for read in self.reads], self.values))
        except ValueError:  # a variable of a closure that was deleted
            return False


def _has_items(mapping: Mapping[Any, Any], keys: list[Any], values: list[Any]) -> bool:
    """Whether these are its keys and values still, the very same, in order."""
    return len(mapping) == len(keys) and all(map(is_, mapping, keys)) and all(map(is_, mapping.values(), values))


def _kind_of_given(argument: Tensor) -> Hashable:
    slot = argument._slot
    return (*slot.key, slot.requires_grad, slot.storage.backend.name)


def _is_list_of(value: list[Any], items: list[Any]) -> bool:
    return len(value) == len(items) and all(map(is_, value, items))


class Surroundings:
    """What a function depends on beside its arguments, and how: its ``key`` for a call."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.names: set[str] = set()  # the attributes that are mentioned anywhere
        self.states: weakref.WeakKeyDictionary[Module, _ModuleState] = weakref.WeakKeyDictionary()
        self._around: _Around | None = None  # of the last walk

    def key(
        self, arguments: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], trail: dict[str, Hashable] | None
    ) -> Hashable:
        """The key of a call. ``trail``, if given, gets the part of it that each variable is, by what to call that.

        Errors: ArgumentError for an array among the arguments.
        """
        while True:
            around = self._around
            if trail is not None or around is None or not around.holds(len(self.names)):
                around = self._around = _Walk(self, _Around(len(self.names)), trail).root(self.function)
            known = around.numbers
            if not kwargs and len(args) == len(arguments) and all(map(is_, args, arguments)):
                # Nothing but tensors, as a rule. A walk through them takes 5 us with cold caches, before each launch.
                given: Hashable = tuple([_kind_of_given(tensor) for tensor in arguments])
            else:
                walk = _Walk(self, _Around(around.names), None)
                walk.around.met |= around.met
                given = walk.kind(args, True), walk.kind(kwargs, True)
                known = known | walk.around.numbers
            if len(self.names) == around.names:  # else what was met before may have attributes that only now matter
                break
        # An argument that is also known otherwise, say as a parameter, may not be replaced by another one.
        pinned = [weakref.ref(slot) for a in arguments if (slot := a._slot).storage.number in known]
        return around.kind, given, tuple(pinned)


class _Walk:
    """One walk through what a function, or a call's arguments, depend on."""

    def __init__(self, surroundings: Surroundings, around: _Around, trail: dict[str, Hashable] | None) -> None:
        self.surroundings = surroundings
        self.around = around
        self.trail = trail

    def root(self, function: Any) -> _Around:
        if isinstance(function, FunctionType):  # one of the library's own, too
            self.around.met[id(function)] = 0, function
            self.around.kind = self.function(function)
        else:
            self.around.kind = self.kind(function)
        return self.around

    def kind(self, value: Any, given: bool = False) -> Hashable:
        """The part of the key that ``value`` is; ``given`` if it is an argument, or in one."""
        made = type(value)
        if made in PLAIN:
            return made, value
        if made is float:
            return float, value.hex()  # two zeros are two numbers
        if isinstance(value, Tensor):
            if given:
                return _kind_of_given(value)
            slot = value._slot
            self.around.numbers.add(slot.storage.number)
            self.around.watch(partial(_slot_of, value), slot)
            self.around.watch(partial(_wants_gradient, slot), slot.requires_grad)
            return weakref.ref(slot), slot.requires_grad
        if isinstance(value, Module):
            return self.module(value)
        if isinstance(value, tuple):
            return (made, *[self.kind(item, given) for item in value])
        if isinstance(value, ModuleType) and not _is_users(value.__name__):
            return None
        around = self.around
        count = len(around.met)
        position, _ = around.met.setdefault(id(value), (count, value))
        if position < count:
            return "again", position
        if isinstance(value, list):
            around.watch(partial(_is_list_of, value, [*value]), True)
            return (made, *[self.kind(item, given) for item in value])
        if isinstance(value, dict):
            around.watch_items(value)
            return (made, *[(key, self.kind(item, given)) for key, item in value.items()])
        if isinstance(value, (set, frozenset)):
            around.settled = False
            return made, frozenset(value)
        if isinstance(value, slice):
            return slice, self.kind(value.start), self.kind(value.stop), self.kind(value.step)
        if given and isinstance(value, np.ndarray):
            raise ArgumentError(
                "te.compile",
                "arguments that are tensors, numbers, strings or modules",
                "got a NumPy array, whose values would be frozen into the program",
                "Pass te.tensor(array).",
            )
        return self.thing(value)

    def thing(self, value: Any) -> Hashable:
        """The kind of what is no number, container, tensor or module."""
        if isinstance(value, FunctionType):
            return self.function(value) if _is_users(value.__module__) else weakref.ref(value)
        if isinstance(value, MethodType):
            return self.kind(value.__func__), self.kind(value.__self__)
        if isinstance(value, functools.partial):
            return self.kind(value.func), self.kind(value.args), self.kind(value.keywords)
        if isinstance(value, (staticmethod, classmethod)):
            return type(value), self.kind(value.__func__)
        if isinstance(value, property):
            return property, self.kind(value.fget)
        if isinstance(value, type):
            return value, *(self.members(value) if _is_users(value.__module__) else ())
        attributes = getattr(value, "__dict__", {})
        if "__wrapped__" in attributes:
            self.around.watch(partial(attributes.get, "__wrapped__"), attributes["__wrapped__"])
            return self.kind(attributes["__wrapped__"])
        if isinstance(value, ModuleType):
            return weakref.ref(value), *self.attributes(attributes)
        made = type(value)
        if dataclasses.is_dataclass(value):
            self.around.settled = False
            fields = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
            return self.kind(made), *[self.kind(item) for item in fields]
        if getattr(made, "__hash__", None) not in (None, object.__hash__):
            self.around.settled = False
            return made, value
        self.around.watch(partial(type, value), made)
        return _Same(value), self.kind(made), *self.attributes(attributes)

    def function(self, function: FunctionType) -> Hashable:
        """A function is its code, and what that mentions."""
        code = function.__code__
        self.around.watch(partial(getattr, function, "__code__"), code)
        _, variables, attributes = _known_codes.get(id(code)) or _known(code)
        self.surroundings.names |= attributes
        parts: list[Hashable] = [id(code)]
        for name, read, value in self._variables(function, variables):
            self.around.watch(read, value)
            parts.append(self.kind(value))
            if self.trail is not None:
                self.trail[f"{name!r}, a variable of {function.__qualname__}"] = parts[-1]
        return tuple(parts)

    def _variables(
        self, function: FunctionType, names: tuple[str, ...]
    ) -> Iterator[tuple[str, Callable[[], Any], Any]]:
        """What the function's names are now, and how to read that again."""
        known = function.__globals__
        for name in names:
            yield name, partial(known.get, name), known.get(name)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield name, partial(getattr, cell, "cell_contents"), cell.cell_contents
            except ValueError:  # a variable that is not assigned yet
                self.around.settled = False
                yield name, lambda: None, None
        for title, name in (("defaults", "__defaults__"), ("defaults of keywords", "__kwdefaults__")):
            yield title, partial(getattr, function, name), getattr(function, name)

    def module(self, module: Module) -> Hashable:
        """A module's identity and state: another parameter, a frozen one, train or eval make another program."""
        states, names = self.surroundings.states, self.surroundings.names
        state = states.get(module)
        if state is None or state.version != member_changes() or state.names != len(names):
            state = states[module] = _ModuleState(module, names)
        kind = state.now()
        self.around.watch(state.now, kind)
        self.around.numbers |= state.numbers
        if not state.live and not state.classes:
            return kind
        return kind, *[self.kind(value) for value in state.live], *[self.kind(cls) for cls in state.classes]

    def members(self, cls: type) -> Iterator[Hashable]:
        """The methods and class attributes that are mentioned."""
        self.around.watch(partial(getattr, cls, "__mro__"), cls.__mro__)
        for base in cls.__mro__:
            if _is_users(base.__module__):
                self.around.watch_items(vars(base))
                for name, value in vars(base).items():
                    if name in self.surroundings.names or name in ALWAYS:
                        yield name
                        yield self.kind(value)

    def attributes(self, attributes: dict[str, Any]) -> Iterator[Hashable]:
        self.around.watch_items(attributes)
        for name, value in attributes.items():
            if name in self.surroundings.names or name in ALWAYS:
                yield name
                yield self.kind(value)


__all__ = ["Surroundings"]
