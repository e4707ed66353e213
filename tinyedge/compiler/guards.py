"""Guards: the guard key of a call, that is everything it depends on apart from the values of tensors.

In: a function and the arguments of a call. Out: a hashable key; calls with equal keys may share a program. A walk
starts at the function's code and follows each name that it mentions (``bytecode``). What can be compared becomes a part
of the key; what cannot is refused with its name and line, unless ``purity`` knows that it is harmless.
"""

from __future__ import annotations

import abc
import datetime
import decimal
import functools
import importlib
import operator
import re
import sys
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from operator import is_
from pathlib import PurePath
from types import FunctionType, MappingProxyType, MemberDescriptorType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NoReturn

import numpy as np

from tinyedge.autograd import registry
from tinyedge.autograd.minibatch import Minibatch
from tinyedge.compiler import purity
from tinyedge.compiler.bytecode import CLASS_NAMES, Read, mentions
from tinyedge.compiler.guard_state import (
    ARRAY_BYTES,
    BASES,
    C_FUNCTIONS,
    CONSTRUCTION,
    CONSTRUCTS,
    CONTAINERS,
    FIELD,
    IMMUTABLE,
    MACHINERY,
    MISSING,
    OURS,
    PLAIN,
    SCALARS,
    TEXT,
    VALUES,
    At,
    Findings,
    ModuleState,
    Names,
    Same,
    attributes_of,
    builtins_of,
    decimal_context,
    dict_of,
    has_items,
    has_items_below,
    have_size,
    holds_bytes,
    in_cell,
    in_slot,
    is_equal,
    is_known,
    is_list_of,
    is_list_of_below,
    is_written_in_c,
    numpy_errors,
    times_cleared,
)
from tinyedge.containers import contents, is_container, slots_of
from tinyedge.errors import ArgumentError, CaptureError
from tinyedge.ir.values import Slot
from tinyedge.nn import Module
from tinyedge.nn.module import member_changes
from tinyedge.tensor import Tensor


def _has_hooks(slot: Slot) -> bool:
    return bool(slot.hooks)


def _argument_key(argument: Tensor) -> Hashable:
    slot = argument._slot
    return slot.key, slot.requires_grad, bool(slot.hooks), slot.storage.backend.name, type(argument)


class Guard:
    """The guards of one function: ``key`` gives the guard key of a call.

    ``constant`` names variables or attributes, dotted or not, that are neither looked into nor compared.
    """

    def __init__(self, function: Any, constant: Iterable[str] = ()) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.constant = set(constant)
        self.names = Names()
        self.states: dict[int, ModuleState] = {}
        self._findings: Findings | None = None  # of the last walk

    def key(
        self, arguments: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], trail: dict[str, Hashable] | None
    ) -> Hashable:
        """The guard key of a call. ``trail``, if not None, is filled with the part of each variable, by its name.

        Errors: CaptureError for a value that cannot be compared from call to call, or may differ at each;
                ArgumentError for a NumPy array among the arguments.
        """
        while True:
            findings = self._findings
            if trail is not None or findings is None or not findings.holds(self.names.version):
                findings = self._findings = _Walk(self, Findings(self.names.version), trail).root(self.function)
            known = findings.numbers
            if not kwargs and len(args) == len(arguments) and all(map(is_, args, arguments)):
                # Nothing but tensors, as a rule. A walk through them takes 5 us with cold caches, before each launch.
                names = self.names
                plain = not (names.foreign or names.all) or not any(map(attributes_of, arguments))
                plain = plain and not (names.history or names.all) and OURS.issuperset(map(type, arguments))
            else:
                plain = False
            if plain:
                arguments_key: Hashable = tuple([_argument_key(tensor) for tensor in arguments])
            else:
                walk = _Walk(self, Findings(findings.names), None)
                walk.findings.met |= findings.met
                arguments_key = walk.arguments(args, kwargs)
                known = known | walk.findings.numbers
            if self.names.version == findings.names:  # else newly mentioned attributes of earlier values matter
                break
        # An argument that the function also reaches by itself, say as a parameter, must be the same tensor each time.
        pinned = [weakref.ref(slot) for a in arguments if (slot := a._slot).storage.number in known]
        return findings.key, arguments_key, tuple(pinned)

    def new_in(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What is in a call's result, and would be the same object after each replay, with what it holds: anything but
        tensors in containers, values that cannot change, and what was there before the call. MISSING if there is none.
        """
        known: set[int] | None = None
        pending, seen = [result], set()
        while pending:
            value = pending.pop()
            made = type(value)
            if (
                id(value) in seen
                or issubclass(made, Tensor)
                or (issubclass(made, IMMUTABLE) and not is_container(made))
            ):
                continue
            seen.add(id(value))
            if is_container(made):
                pairs = list(contents(value))
                if any(issubclass(type(key), Tensor) for key, _ in pairs):
                    return value
                pending += [part for pair in pairs for part in pair]
            elif made in (set, frozenset, deque):
                if not all(issubclass(type(part), IMMUTABLE) for part in value):
                    return value
            elif issubclass(made, MethodType) and not isinstance(value.__self__, Tensor):
                pending += (value.__func__, value.__self__)
            elif issubclass(made, FunctionType) and not (
                value.__closure__ or value.__defaults__ or value.__kwdefaults__
            ):
                continue
            else:
                if known is None:
                    walk = _Walk(self, Findings(self.names.version), None)
                    walk.arguments(args, kwargs)
                    findings = self._findings
                    found = [*walk.findings.met.values(), *(findings.met.values() if findings is not None else ())]
                    known = {id(there) for _, there in found}
                if id(value) not in known:
                    return value
        return MISSING

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that the last walk reached, by name: 'buffer model.norm.running_mean'."""
        found = dict(self._findings.tensors) if self._findings is not None else {}
        for state in list(self.states.values()):
            module = state.module()
            if module is not None:
                lead = "" if state.path == self.name else f"{state.path}."
                found |= {f"{lead}{name}": member for name, member in module.named_parameters()}
                found |= {f"buffer {lead}{name}": member for name, member in module.named_buffers()}
        return found

    def trained(self) -> dict[str, Tensor]:
        """The tensors that a call may train without getting them as arguments, by name.

        Errors: CaptureError as for a call.
        """
        self.key([], (), {}, None)
        assert self._findings is not None  # there was a walk
        found = self.tensors()
        for path, refer in self._findings.opaque.items():
            value = refer()
            if isinstance(value, Module):
                found |= {f"{path}.{name}": param for name, param in value.named_parameters()}
            elif isinstance(value, Minibatch):  # an optimizer
                params = [param for group in vars(value)["param_groups"] for param in group["params"]]
                found |= {f"{path}.param_groups, number {number}": param for number, param in enumerate(params)}
            elif isinstance(value, Tensor):
                found[path] = value
        return {name: tensor for name, tensor in found.items() if tensor.requires_grad}

    def is_constant(self, path: str) -> bool:
        return any(path == name or path.endswith("." + name) for name in self.constant)

    def state(self, module: Module, at: At) -> ModuleState:
        number = id(module)
        state = self.states.get(number)
        if (
            state is None
            or state.module() is not module
            or state.names != self.names.version
            or state.version != member_changes()
            or any(state.empty)
            or state.watched  # its attributes are looked up again
            or state.slotted
            or not have_size(state.library, state.size)
        ):
            states = self.states
            state = states[number] = ModuleState(module, self.names, at, lambda _: states.pop(number, None))
        return state


class _Walk:
    """One walk through all that a function, or the arguments of a call, depend on.

    Values that may contain themselves are queued; in the key, the position at which one was met stands for it.
    """

    def __init__(self, guard: Guard, findings: Findings, trail: dict[str, Hashable] | None) -> None:
        self.guard = guard
        self.names = guard.names
        self.findings = findings
        self.trail = trail
        self.queue: deque[tuple[str, Callable[[], Iterable[Hashable]]]] = deque()
        self.watched: set[tuple[int, str]] = set()
        self.uses_numpy = False

    def root(self, function: Any) -> Findings:
        at = At(self.guard.name, "te.compile")
        if isinstance(function, FunctionType):  # also if it belongs to a library
            first: Hashable = self.later(function, 0, at, partial(self.function, function))
        else:
            first = self.key_part(function, at)
        # A method or a layer leads to them that is not looked into itself.
        entered = registry.of_users
        self.findings.watch(partial(getattr, registry, "of_users"), entered)
        users = tuple([self.key_part(user, At(user.__name__, "an entry of public")) for user in entered])
        parts = first, users, self.all(), (*self.put_into(Tensor, self.names.mentioned),), self.all()
        self.findings.key = *parts, self.numpy_errors()
        return self.findings

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        function = self.guard.function
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        names = code.co_varnames[: code.co_argcount] if code is not None else ()
        where = "this call"
        parts = []
        for position, value in enumerate(args):
            name = names[position] if position < len(names) else f"args[{position}]"
            parts.append(self.key_part(value, At(name, where), True))
        parts += [(name, self.key_part(value, At(name, where), True)) for name, value in kwargs.items()]
        return tuple(parts), self.all(), self.numpy_errors()

    def numpy_errors(self) -> Hashable:
        """What NumPy does about errors, if it computes anything here."""
        if not self.uses_numpy:
            return None
        errors = numpy_errors()
        self.findings.watch(partial(is_equal, numpy_errors, errors), True)
        return errors

    def all(self) -> Hashable:
        found: list[Hashable] = []
        while self.queue:
            path, look = self.queue.popleft()
            found.append(tuple(look()))
            if self.trail is not None:
                self.trail[path] = found[-1]
        return tuple(found)

    def later(self, value: Any, way: Any, at: At, look: Callable[[], Iterable[Hashable]]) -> Hashable:
        """Queue a value unless it was met before; its position stands for it in the key."""
        met = self.findings.met
        key = id(value), way
        if key not in met:
            met[key] = len(met), value
            self.queue.append((at.path, look))
        return "at", met[key][0]

    def refuse(self, at: At, what: str, remedy: str = "") -> NoReturn:
        name = re.sub(r"\[.*", "", at.path)
        raise CaptureError(
            f"te.compile({self.guard.name})",
            "all that it reads can be guarded, that is compared from call to call",
            f"{at.path}, which {at.where} mentions, {what}",
            remedy
            or "Pass it, or what is computed from it, as an argument; or, if it never changes, say so: "
            f'te.compile(function, constant=["{name}"]).',
        )

    def wanted(self, name: str) -> bool:
        return self.names.has(name)

    # Values

    def key_part(
        self, value: Any, at: At, is_argument: bool = False, called: tuple[str | None, ...] | None = None
    ) -> Hashable:
        """The part of the key for ``value``. ``is_argument``: it is an argument, or inside of one."""
        made = type(value)
        if value is MISSING:
            token: Hashable = "nothing"
        elif made in PLAIN:
            token = made, value
            if made is str and self.names.format and "{" in value:
                for name in re.findall(r"[.\[](\w+)", value):
                    self.names.add(name, at.where)
        elif made is float:
            token = float, value.hex()
        elif self.guard.constant and self.guard.is_constant(at.path):
            token = self.constant(value, at)
        else:
            token = self._key_part(value, made, at, is_argument, called)
        if self.trail is not None:
            self.trail[at.path] = token
        return token

    def constant(self, value: Any, at: At) -> Hashable:
        """The part for what the user declared constant."""
        if isinstance(value, (Tensor, Module, Minibatch)):
            self.findings.opaque[at.path] = weakref.ref(value)
        if isinstance(value, Tensor):
            self.findings.numbers.add(value._slot.storage.number)
        elif isinstance(value, Module):
            members = (*value.parameters(), *value.buffers())
            self.findings.numbers |= {tensor._slot.storage.number for tensor in members}
        return "constant"

    def _key_part(
        self, value: Any, made: type, at: At, is_argument: bool, called: tuple[str | None, ...] | None
    ) -> Hashable:
        if issubclass(made, Tensor):
            return self.tensor(value, at, is_argument)
        if issubclass(made, Module):
            return self.later(value, 0, at, partial(self.module, value, at))
        if issubclass(made, CONTAINERS) and made is not np.ndarray:
            if made is tuple:
                return tuple, self.items(value, at, is_argument)
            is_argument = is_argument and is_container(made)
            return self.later(
                value, (at.lenient, is_argument), at, partial(self.container, value, made, at, is_argument)
            )
        if made is complex:
            return complex, SCALARS[complex](value)
        if issubclass(made, FunctionType):
            return self.python_function(value, at, called)
        if issubclass(made, type):
            return self.class_(value, at, called)
        if issubclass(made, MethodType):
            return MethodType, self.key_part(value.__func__, at), self.key_part(value.__self__, at)
        if issubclass(made, C_FUNCTIONS):
            return self.c_function(value, at, called)
        if made is types.MethodWrapperType:
            return made, value.__name__, self.key_part(value.__self__, at)
        if issubclass(made, ModuleType):
            return self.python_module(value, at)
        if issubclass(made, functools.partial):
            for name in ("func", "args", "keywords"):
                self.findings.watch_attribute(value, name, getattr(value, name))
            return made, self.key_part(value.func, at), self.key_part(value.args, at), self.key_part(value.keywords, at)
        if issubclass(made, (staticmethod, classmethod)):
            return made, self.key_part(value.__func__, at)
        if issubclass(made, property):
            return made, *[self.key_part(function, at) for function in (value.fget, value.fset, value.fdel)]
        if made is functools.cached_property:
            return made, self.key_part(value.func, at)
        if made is functools._lru_cache_wrapper:
            times = times_cleared(value)
            self.findings.watch(partial(is_equal, partial(times_cleared, value), times), True)
            return made, times, self.key_part(value.__wrapped__, at)
        if made is FIELD:
            return Same(value)
        if made is slice:
            return slice, *[self.key_part(part, at, is_argument) for part in (value.start, value.stop, value.step)]
        return self.other_value(value, made, at, is_argument)

    def other_value(self, value: Any, made: type, at: At, is_argument: bool) -> Hashable:
        """The part for what is no number, container, function, tensor or module."""
        if made in VALUES:
            if made is decimal.Decimal:
                context = decimal_context()
                self.findings.watch(partial(is_equal, decimal_context, context), True)
                return made, str(value), context
            return made, VALUES[made](value)
        if made in (datetime.datetime, datetime.time):
            self.check_names("datetime", at)
            return made, repr(value.replace(tzinfo=None)), value.fold, self.key_part(value.tzinfo, at)
        if made.__module__ == "numpy":
            self.uses_numpy = True
        if issubclass(made, np.generic) and value.dtype.kind in "biufcSUMm":
            return made, value.dtype.str, value.tobytes()
        if issubclass(made, np.dtype):
            return made, str(value)
        if issubclass(made, PurePath) and purity.is_standard(made.__module__):
            self.check_names("pathlib", at)
            return made, str(value)
        if issubclass(made, np.ndarray):
            return self.array(value, made, at, is_argument)
        if made in (operator.attrgetter, operator.itemgetter, operator.methodcaller):
            parts = value.__reduce__()[1]
            if made is not operator.itemgetter:
                for part in parts:
                    for name in str(part).split("."):
                        self.names.add(name, at.where)
            return made, self.key_part(parts, at)
        if value is sys.stdout or value is sys.stderr or (purity.is_opaque(value) and made is not SimpleNamespace):
            return Same(value)
        if purity.is_tinyedge(made.__module__):
            return self.later(value, 0, at, partial(self.thing_of_ours, value, at))
        odd = purity.is_standard(made.__module__) and not purity.is_pure(made.__module__)
        if (odd and made.__module__ != "builtins") or not is_known(made):
            if at.lenient:
                return Same(value)
            self.refuse(at, f"is a {made.__module__}.{made.__qualname__}, whose state cannot be compared")
        inside = is_argument and is_container(made)
        return self.later(value, (at.lenient, inside), at, partial(self.thing, value, at, inside))

    def tensor(self, value: Tensor, at: At, is_argument: bool) -> Hashable:
        attributes = vars(value)
        extra: tuple[Hashable, ...] = ()
        if attributes:
            extra = self.attributes(attributes, at, False)
        elif not is_argument:
            self.findings.watch(partial(len, attributes), 0)
        slot = value._slot
        if self.names.history or self.names.all:
            extra = slot.is_leaf, *extra
        made: type = type(value)
        if made not in OURS:
            at = at._replace(path=made.__qualname__)
            extra = self.later(made, "class", at, partial(self.members, made, at, False)), *extra
        if is_argument:
            return _argument_key(value), *extra
        self.findings.tensors[at.path] = value
        self.findings.numbers.add(slot.storage.number)
        self.findings.watch_attribute(value, "_slot", slot)
        self.findings.watch_attribute(slot, "requires_grad", slot.requires_grad)
        self.findings.watch(partial(_has_hooks, slot), hooked := _has_hooks(slot))
        return weakref.ref(slot), made, slot.requires_grad, hooked, *extra

    def array(self, value: Any, made: type, at: At, is_argument: bool) -> Hashable:
        if is_argument:
            raise ArgumentError(
                "te.compile",
                "arguments that are tensors, numbers, strings or modules",
                f"{at.path} is a NumPy array, whose values would become constants of the program",
                "Pass te.tensor(array).",
            )
        if made is not np.ndarray or value.dtype.hasobject or value.nbytes > ARRAY_BYTES:
            if at.lenient:
                return Same(value)
            self.refuse(at, f"is a NumPy array of {value.nbytes} bytes, which is too large to compare at each call")
        form, data = (value.dtype.str, value.shape), value.tobytes()
        self.findings.watch(partial(holds_bytes, value, form, data), True)
        return np.ndarray, form, data

    def items(self, values: Iterable[Any], at: At, given: bool) -> tuple[Hashable, ...]:
        plain = PLAIN - {str} if self.names.format else PLAIN
        return tuple(
            [
                (type(value), value) if type(value) in plain else self.key_part(value, at.item(position), given)
                for position, value in enumerate(values)
            ]
        )

    def container(self, value: Any, made: type, at: At, is_argument: bool) -> Iterator[Hashable]:
        """The contents of a list, dict or the like, or of a user's subclass of one."""
        yield made
        watch = self.findings.watch
        if issubclass(made, (dict, MappingProxyType)):
            base: Any = next(base for base in (OrderedDict, dict, MappingProxyType) if issubclass(made, base))
            pairs = list(base.items(value))
            keys, values = [key for key, _ in pairs], [item for _, item in pairs]
            if made in (dict, MappingProxyType):
                watch(partial(has_items, value, keys, values), True)
            else:
                watch(partial(has_items_below, value, base, keys, values), True)
            yield self.items(keys, at, False)
            for key, item in pairs:
                yield self.key_part(item, at.item(key), is_argument)
            if issubclass(made, defaultdict):
                self.findings.watch_attribute(value, "default_factory", value.default_factory)
                yield self.key_part(value.default_factory, at)
        else:
            base = next(base for base in CONTAINERS if issubclass(made, base))
            items = list(base.__iter__(value))
            if made is base and base is not tuple:
                watch(partial(is_list_of, value, items), True)
            elif base is not tuple:
                watch(partial(is_list_of_below, value, base, items), True)
            yield self.items(items, at, is_argument)
            if issubclass(made, deque):
                yield value.maxlen
        if made not in CONTAINERS and not is_written_in_c(made):
            yield from self.instance(value, made, at, is_argument)

    def thing(self, value: Any, at: At, is_argument: bool) -> Iterator[Hashable]:
        """An object: its class, and its attributes."""
        made = type(value)
        for base, convert in SCALARS.items():
            if issubclass(made, base):
                yield convert(value)
        if issubclass(made, BaseException):
            self.findings.watch_attribute(value, "args", value.args)
            yield self.key_part(value.args, at)
        yield Same(made if is_container(made) else value)
        yield from self.instance(value, made, at, is_argument)

    def instance(self, value: Any, made: type, at: At, is_argument: bool) -> Iterator[Hashable]:
        """The class and the attributes of an instance of a user's class, or of a pure library class."""
        self.findings.watch(partial(type, value), made)
        if made is not SimpleNamespace and not purity.is_standard(made.__module__):
            yield self.later(made, "class", at._replace(path=made.__qualname__), partial(self.members, made, at, False))
        whole = made is not SimpleNamespace and any(
            purity.is_standard(base.__module__) and base not in BASES and base.__module__ not in ("typing", "abc")
            for base in made.__mro__
        )
        attributes = dict_of(value)
        if attributes is not None:
            yield self.attributes(attributes, at, is_argument, whole)
        for name, descriptor in slots_of(made):
            if whole or self.wanted(name) or is_argument:
                item = in_slot(descriptor, value)
                self.findings.watch(partial(in_slot, descriptor, value), item)
                if item is not MISSING:
                    yield name, self.key_part(item, self.below(at, name), is_argument)

    def below(self, at: At, name: str) -> At:
        return at._replace(path=f"{at.path}.{name}", where=self.names.mentioned.get(name, at.where))

    def attributes(
        self, attributes: dict[str, Any], at: At, is_argument: bool, whole: bool = False
    ) -> tuple[Hashable, ...]:
        """Those of ``attributes`` that the code may read."""
        if whole or is_argument or self.names.all:
            self.findings.watch_items(attributes)
        else:
            self.findings.watch_mentioned(attributes, self.names)
        return tuple(
            [
                (name, self.key_part(value, self.below(at, name), is_argument))
                for name, value in attributes.items()
                if whole or is_argument or self.wanted(name)
            ]
        )

    def thing_of_ours(self, value: Any, at: At) -> Iterator[Hashable]:
        """An object of this package, which refuses by itself what a replay would not repeat, and its attributes."""
        yield Same(value)
        if isinstance(value, Minibatch):
            self.findings.opaque[at.path] = weakref.ref(value)
        attributes = dict_of(value) or {}
        if "__wrapped__" in attributes and "_guard" in attributes:  # a compiled function
            self.guard.constant |= attributes["_guard"].constant
            self.findings.watch_item(attributes, "__wrapped__", attributes["__wrapped__"])
            yield self.key_part(attributes["__wrapped__"], at)
            for name in self.names.all_mentioned.difference(vars(type(value)), ("function", "name", "programs")):
                self.findings.watch_item(attributes, name, item := attributes.get(name, MISSING))
                if item is not MISSING:
                    yield name, self.key_part(item, self.below(at, name))
            return
        self.findings.watch_mentioned(attributes, self.names)
        for name, item in attributes.items():
            if not name.startswith("_") and name in self.names.mentioned:
                yield name, self.key_part(item, self.below(at, name)._replace(lenient=True))
        for name in self.names.all_mentioned:
            if isinstance(getattr(type(value), name, None), property):
                item = getattr(value, name, MISSING)
                if type(item) in PLAIN or type(item) is float:
                    self.findings.watch(partial(is_equal, partial(getattr, value, name, MISSING), item), True)
                    yield name, self.key_part(item, self.below(at, name))

    def put_into(self, cls: type, names: Iterable[str]) -> Iterator[Hashable]:
        """What the user put into a class of this package."""
        for name in names:
            value = getattr(cls, name, None)
            if isinstance(value, (FunctionType, property)):
                self.findings.watch_attribute(cls, name, value)
                code = value.fget if isinstance(value, property) else value
                if not isinstance(code, FunctionType) or not purity.is_tinyedge(code.__globals__.get("__name__")):
                    yield name
                    yield self.key_part(value, At(f"{cls.__name__}.{name}", "te.compile"))

    def module(self, module: Module, at: At) -> Iterator[Hashable]:
        """A module's identity and state: with another parameter, a frozen one, or another mode the key differs."""
        state = self.guard.state(module, at)
        state_key = state.now()
        self.findings.watch(state.now, state_key)
        self.findings.numbers |= state.numbers
        if self.trail is not None:
            self.trail[at.path] = state_key
        yield state_key
        for attributes in state.watched:
            if self.names.all:
                self.findings.watch_items(attributes)
            else:
                self.findings.watch_mentioned(attributes, self.names, ("training", "checkpointed"))
        self.findings.watch(partial(have_size, state.library, state.size), True)
        for cls in state.ours:
            yield from self.put_into(cls, ("forward",))
        for slot, part in state.slotted:
            self.findings.watch(partial(in_slot, slot, part), in_slot(slot, part))
        for cls in state.classes:
            yield self.later(cls, "class", at._replace(path=cls.__qualname__), partial(self.members, cls, at, False))
        for value, where in state.live:
            yield self.key_part(value, where)

    # Code

    def python_function(self, value: FunctionType, at: At, called: tuple[str | None, ...] | None) -> Hashable:
        module = value.__globals__.get("__name__")
        if not purity.is_library(module):
            return self.later(value, 0, at, partial(self.function, value))
        if not purity.is_allowed(value):
            self.refuse_function(value, at)
        self.uses_numpy |= purity.is_numpy(module)
        self.note_use(value, called, at.path)
        return self.later(value, 0, at, partial(self.library_function, value, at))

    def library_function(self, value: FunctionType, at: At) -> Iterator[Hashable]:
        """A library function: it is not looked into, except for functions of the user that it wraps."""
        yield Same(value)
        for cell in value.__closure__ or ():
            inner = in_cell(cell)
            functions = (FunctionType, MethodType, functools.partial, type)
            if isinstance(inner, functions) or (
                type(inner) is dict and inner and all(isinstance(item, functions) for item in inner.values())
            ):
                self.findings.watch(partial(in_cell, cell), inner)
                yield self.key_part(inner, at._replace(lenient=True))

    def c_function(self, value: Any, at: At, called: tuple[str | None, ...] | None) -> Hashable:
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, ModuleType) and not isinstance(value, np.ufunc):
            if isinstance(owner, type) and value.__name__ in purity.impure_names(owner.__module__):
                self.refuse_function(value, at)
            return "bound", value.__name__, self.key_part(owner, at)
        self.uses_numpy |= isinstance(value, np.ufunc)
        if not purity.is_allowed(value):
            owner = getattr(value, "__objclass__", None)
            if not isinstance(owner, type) or purity.is_library(owner.__module__) or is_written_in_c(owner):
                self.refuse_function(value, at)
        self.note_use(value, called, at.path)
        return Same(value)

    def note_use(self, value: Any, called: tuple[str | None, ...] | None, path: str) -> None:
        """Note which attributes a function reads if it is used: all of them, those named by its arguments, ..."""
        if value in purity.READS_ALL:
            self.names.note(all=True)
        elif value in purity.BY_NAME:
            which = purity.BY_NAME[value]
            self.names.note(all=not called or None in called[which])
        elif value in purity.MAKES_TEXT:
            self.names.note(text=True)
        elif value in CONSTRUCTS:
            self.names.note(constructs=True)
        elif value is hash:
            self.names.hashes = True
        elif value is type:
            # Where it is called by its name, it is seen what is done with what it gives.
            self.names.note(constructs=called is None or not path.endswith("type"))

    def refuse_function(self, value: Any, at: At) -> NoReturn:
        self.refuse(
            at,
            "may return something else at each call",
            "Call it outside, and pass its result as an argument, as a tensor if it changes; or, if that never "
            f'changes, say so: te.compile(function, constant=["{at.path}"]).',
        )

    def check_names(self, module: str, at: At) -> None:
        for name in purity.impure_names(module):
            if name in self.names.mentioned:
                self.refuse_function(None, self.below(at, name))

    def class_(self, cls: type, at: At, called: tuple[str | None, ...] | None) -> Hashable:
        module = cls.__module__
        if purity.is_tinyedge(module):
            return Same(cls)
        if purity.is_library(module) or is_written_in_c(cls):
            if not purity.is_allowed(cls):
                self.refuse_function(cls, at)
            self.uses_numpy |= purity.is_numpy(module)
            if not at.lenient:
                self.note_use(cls, called, at.path)
                if module in ("datetime", "pathlib"):
                    self.check_names(module, at)
            return Same(cls)
        return self.later(cls, "made", at, partial(self.members, cls, at, True))

    def members(self, cls: type, at: At, made: bool) -> Iterator[Hashable]:
        """The class attributes that are mentioned, or used implicitly. ``made``: instances are made of the class."""
        self.findings.watch_attribute(cls, "__mro__", cls.__mro__)
        yield Same(cls)
        if isinstance(cls, abc.ABCMeta):
            registered = abc.get_cache_token()
            self.findings.watch(partial(is_equal, abc.get_cache_token, registered), True)
            yield registered
        library = [base for base in cls.__mro__ if purity.is_library(base.__module__)]
        if type(cls) is not type and not purity.is_library(type(cls).__module__):
            yield self.key_part(type(cls), at)
        if made and not is_known(cls):
            odd = next(b for b in cls.__mro__ if is_written_in_c(b) and b not in BASES)
            if not purity.is_allowed(odd):
                self.refuse(at, f"is derived from {odd.__module__}.{odd.__qualname__}, whose state cannot be compared")
        overridden = {name for base in library if base is not object for name in vars(base)}
        for base in cls.__mro__:
            if base in library:
                yield Same(base)
                continue
            self.findings.watch_items(vars(base))
            for name, value in vars(base).items():
                if self.is_used(name, value, made, overridden):
                    yield name
                    yield self.key_part(value, self.below(at._replace(path=cls.__qualname__, lenient=False), name))

    def is_used(self, name: str, value: Any, made: bool, overridden: set[str]) -> bool:
        if isinstance(value, (types.GetSetDescriptorType, MemberDescriptorType)) or name in ("__del__", "_abc_impl"):
            return False
        if name in CONSTRUCTION:
            return made or self.names.constructs
        if name in TEXT:
            return self.names.text
        if name.startswith("__") and name.endswith("__"):
            return name in self.names.mentioned or callable(value) or hasattr(type(value), "__get__")
        return self.wanted(name) or name in overridden

    def python_module(self, module: ModuleType, at: At) -> Hashable:
        """A module that is used as a value, not only as the start of a dotted name."""
        name = module.__name__
        if purity.is_tinyedge(name) or purity.is_silent(name):
            return Same(module)
        if purity.is_library(name):
            self.uses_numpy |= purity.is_numpy(name)
            if not purity.is_pure(name) and not name.startswith("numpy"):
                if at.lenient:
                    return Same(module)
                self.refuse(at, "is a module whose functions depend on the world outside")
            self.check_names(name.partition(".")[0], at)
            return Same(module)
        return self.later(module, 0, at, partial(self.module_of_users, module, at))

    def module_of_users(self, module: ModuleType, at: At) -> Iterator[Hashable]:
        yield Same(module)
        if self.names.all:
            self.findings.watch_items(vars(module))
        else:
            self.findings.watch_mentioned(vars(module), self.names)
        for name, value in vars(module).items():
            if self.wanted(name) and (name not in MACHINERY or name in self.names.mentioned):
                yield name, self.key_part(value, self.below(at, name))
        if type(module) is not ModuleType:
            yield self.key_part(type(module), at)
        if "__getattr__" in vars(module):
            yield self.key_part(vars(module)["__getattr__"], at)

    def function(self, function: FunctionType) -> Iterator[Hashable]:
        """A function: its code, and everything that the code mentions."""
        code = function.__code__
        self.findings.watch_attribute(function, "__code__", code)
        found = mentions(code)
        names, where = self.names, f"{code.co_filename}:{code.co_firstlineno}"
        for name, line in found.attributes.items():
            self.mention(name, f"{code.co_filename}:{line}")
        names.note(all=found.matches, text=found.text, constructs=found.constructs)
        yield id(code)
        for title in ("__defaults__", "__kwdefaults__"):
            value = getattr(function, title)
            self.findings.watch_attribute(function, title, value)
            yield self.key_part(value, At(f"{function.__name__}.{title}", where))
        yield self.attributes(function.__dict__, At(function.__name__, where), False)
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for read in found.reads:
            yield self.read(function, cells, read)

    def mention(self, name: str, where: str) -> None:
        names = self.names
        names.add(name, where)
        if name == "__dict__":
            names.note(all=True)
        elif name in ("__class__", "replace"):
            names.note(constructs=True)
        elif name in ("format", "format_map"):
            names.note(text=True, format=True)
        elif name == "__hash__":
            names.hashes = True
        elif name in purity.HIDDEN:
            self.refuse_function(None, At(name, where))

    def look_up(self, mapping: dict[str, Any], name: str) -> Any:
        value = mapping.get(name, MISSING)
        if (id(mapping), name) not in self.watched:
            self.watched.add((id(mapping), name))
            self.findings.watch_item(mapping, name, value)
        return value

    def read(self, function: FunctionType, cells: dict[str, Any], read: Read) -> Hashable:
        """The part for a name, after the modules through which a dotted name leads."""
        if not read.name.isidentifier() and read.root == "global":
            return None  # no user can write such a name: a tool did, such as pytest in assertions
        at = At(read.name, f"{function.__code__.co_filename}:{read.line}")
        if read.root == "closure":
            cell = cells.get(read.name)
            value = MISSING if cell is None else in_cell(cell)
            if cell is not None and (id(cell), "") not in self.watched:
                self.watched.add((id(cell), ""))
                if value is MISSING:
                    self.findings.watch(partial(in_cell, cell), value)
                else:
                    self.findings.watch_attribute(cell, "cell_contents", value)
        elif read.root == "import":
            value = self.imported(function, read)
        else:
            value = self.look_up(function.__globals__, read.name)
            if value is MISSING:
                value = self.look_up(builtins_of(function), read.name)
        dotted = list(read.dotted)
        while dotted and issubclass(type(value), ModuleType) and not self.is_said_constant(at.path):
            name = dotted.pop(0)
            at = at.attribute(name)
            if self.is_said_constant(at.path):
                return "constant"
            if name in purity.impure_names(value.__name__):
                self.refuse_function(None, at)
            self.uses_numpy |= purity.is_numpy(value.__name__)
            attributes = vars(value)
            found = self.look_up(attributes, name)
            if found is MISSING and "__getattr__" in attributes:
                if not purity.is_library(value.__name__):
                    return self.key_part(attributes["__getattr__"], at)
                found = getattr(value, name, MISSING)
            elif found is MISSING and type(value) is not ModuleType:
                dotted = [name, *dotted]
                break
            value = found
        for name, following in zip(dotted, [*dotted[1:], ""], strict=False):
            if name != "__class__" or following not in CLASS_NAMES:
                self.mention(name, at.where)
        if value is MISSING:
            return "nothing"
        return self.key_part(value, at, called=read.constants if read.called and not dotted else None)

    def is_said_constant(self, path: str) -> bool:
        return bool(self.guard.constant) and self.guard.is_constant(path)

    def imported(self, function: FunctionType, read: Read) -> Any:
        name = read.name
        if read.level:
            package = function.__globals__.get("__package__") or function.__globals__.get("__name__", "")
            package = package.rsplit(".", read.level - 1)[0] if read.level > 1 else package
            name = f"{package}.{name}" if name else package
        if name not in sys.modules and purity.is_standard(name):
            try:
                importlib.import_module(name)
            except ImportError:
                return MISSING
        return self.look_up(sys.modules, name)


def first_change(before: dict[str, Hashable], after: dict[str, Hashable]) -> str:
    """The name of the first variable whose part differs between two trails, or of the innermost attribute in it."""
    changed = [name for name, part in after.items() if before.get(name, MISSING) != part]
    found = changed[0] if changed else ""
    for name in changed[1:]:
        if name.startswith((f"{found}.", f"{found}[")):
            found = name
    return found
