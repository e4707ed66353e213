"""The walk through all that a call depends on: from the function's code to each value that it reaches.

In: a guarded function, or the arguments of a call. Out: Findings, with the guard key. What can be compared becomes a
part of the key; what cannot is refused with its name and line.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import operator
import sys
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator
from functools import partial
from pathlib import PurePath
from types import FunctionType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tinyedge.autograd import registry
from tinyedge.autograd.minibatch import Minibatch
from tinyedge.compiler import purity
from tinyedge.compiler.bytecode import FIELDS
from tinyedge.compiler.guard_code import CodeWalk
from tinyedge.compiler.guard_state import (
    ARRAY_BYTES,
    BASES,
    C_FUNCTIONS,
    CONTAINERS,
    FIELD,
    LEVELS,
    MISSING,
    OURS,
    PLAIN,
    SCALARS,
    VALUED,
    VALUES,
    At,
    Findings,
    Same,
    attributes_in_c,
    dict_of,
    form_of,
    has_items,
    has_items_below,
    have_size,
    holds_bytes,
    in_slot,
    is_constant,
    is_equal,
    is_known,
    is_list_of,
    is_list_of_below,
    is_written_in_c,
    logger_levels,
    members_of,
    numpy_errors,
    remembered,
)
from tinyedge.containers import is_container, slots_of
from tinyedge.errors import ArgumentError
from tinyedge.ir.values import Slot
from tinyedge.nn import Module
from tinyedge.tensor import Tensor, patched


def _has_hooks(slot: Slot) -> bool:
    return bool(slot.hooks)


def argument_key(argument: Tensor) -> Hashable:
    """The part of the key for an argument that is a tensor: all but its values."""
    slot = argument._current("te.compile")
    return slot.key, slot.requires_grad, bool(slot.hooks), slot.storage.backend.name, type(argument)


class Walk(CodeWalk):
    """One walk through all that a function, or the arguments of a call, depend on."""

    def root(self, function: Any) -> Findings:
        """All that ``function`` depends on, arguments apart; its key is that of the guard."""
        at = At(self.guard.name, "te.compile")
        if isinstance(function, FunctionType):  # also if it belongs to a library
            first: Hashable = self.later(function, 0, at, partial(self.function, function))
        else:
            first = self.key_part(function, at)
        # A method or a layer leads to them that is not looked into itself.
        entered = registry.of_users
        self.findings.guard(partial(getattr, registry, "of_users"), entered)
        users = tuple([self.key_part(user, At(user.__name__, "an entry of public")) for user in entered])
        parts = first, users, self.all(), (*self.put_into_tensors(),), self.all()
        self.findings.key = *parts, self.numpy_errors(), self.logger_levels()
        return self.findings

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """The part of the key for a call's arguments."""
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

    def logger_levels(self) -> Hashable:
        """The state of the loggers, if it may be asked for."""
        if "logging" not in sys.modules or (LEVELS.isdisjoint(self.names.mentioned) and not self.names.all):
            return None
        if not self.uses_logging:
            return None
        levels = logger_levels()
        self.findings.guard(partial(is_equal, logger_levels, levels), True)
        return levels

    def numpy_errors(self) -> Hashable:
        """What NumPy does about errors, if it computes anything here."""
        if not self.uses_numpy:
            return None
        errors = numpy_errors()
        self.findings.guard(partial(is_equal, numpy_errors, errors), True)
        return errors

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
                for name in FIELDS.findall(value):
                    self.names.add(name, at.where)
        elif made is float:
            token = float, value.hex()
            if value != value:  # a container has it, and is equal to another, if it is this very object
                token = token, self.place(value)
        elif self.guard.constant and self.guard.is_constant(at.path):
            token = self.constant(value, at)
        else:
            token = self._key_part(value, made, at, is_argument, called)
        if self.names.identity and made in VALUED:
            token = token, self.place(value)
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
            look = partial(self.container, value, made, at, is_argument)
            return self.place(value), self.later(value, (at.lenient, is_argument), at, look)
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
            self.mention(value.__name__, at.where)
            return made, value.__name__, self.key_part(value.__self__, at)
        if issubclass(made, ModuleType):
            return self.python_module(value, at)
        if issubclass(made, functools.partial):
            for name in ("func", "args", "keywords"):
                self.findings.guard_attribute(value, name, getattr(value, name))
            own = self.attributes(self.own_attributes(value) or {}, at, False)
            parts = [self.key_part(part, at) for part in (value.func, value.args, value.keywords)]
            return (functools.partial, Same(made), own, *parts)
        if issubclass(made, (staticmethod, classmethod)):
            return made, self.key_part(value.__func__, at)
        if issubclass(made, property):
            return made, *[self.key_part(function, at) for function in (value.fget, value.fset, value.fdel)]
        if made is functools.cached_property:
            return made, self.key_part(value.func, at)
        if made is functools._lru_cache_wrapper:
            return self.later(value, 0, at, partial(self.cached_function, value, at))
        if made is FIELD:
            return Same(value)
        if made is slice:
            return slice, *[self.key_part(part, at, is_argument) for part in (value.start, value.stop, value.step)]
        return self.other_value(value, made, at, is_argument)

    def other_value(self, value: Any, made: type, at: At, is_argument: bool) -> Hashable:
        """The part for what is no number, container, function, tensor or module."""
        if made in VALUES:
            if made is decimal.Decimal:
                return made, str(value), self.decimal_context()
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
                        self.mention(name, at.where)
            return made, self.key_part(parts, at)
        if value is sys.stdout or value is sys.stderr or (purity.is_opaque(value) and made is not SimpleNamespace):
            self.uses_logging |= made.__module__ == "logging"
            return Same(value)
        if purity.is_tinyedge(made.__module__):
            return self.later(value, 0, at, partial(self.thing_of_ours, value, at))
        odd = purity.is_standard(made.__module__) and not purity.is_pure(made.__module__)
        if (odd and made.__module__ != "builtins" and not purity.is_namespace(made)) or not is_known(made):
            if at.lenient and not purity.advances(value):
                return Same(value)
            self.refuse(at, f"is a {made.__module__}.{made.__qualname__}, whose state cannot be compared")
        inside = is_argument and is_container(made)
        look = partial(self.thing, value, at, inside)
        return self.place(value), self.later(value, (at.lenient, inside), at, look)

    def cached_function(self, function: Any, at: At) -> Iterator[Hashable]:
        """A function of ``functools.lru_cache``: its code, and those of its results that may change meanwhile."""
        known = remembered(self.guard.caches, function)
        if known is None:
            self.refuse(at, "remembers results, which cannot be compared")
        self.findings.guard(partial(remembered, self.guard.caches, function), known)
        self.findings.guard_attribute(function, "__wrapped__", wrapped := function.__wrapped__)
        yield known.times
        yield self.key_part(wrapped, at)
        for result in known.results.values():
            if not is_constant(result):
                yield self.key_part(result, at._replace(path=f"{at.path}(...)"))

    def tensor(self, value: Tensor, at: At, is_argument: bool) -> Hashable:
        """A tensor: its dtype, layout, flags and mentioned attributes, not its values."""
        attributes = vars(value)
        if not is_argument:
            self.findings.guard_dict(value, attributes)
        extra: tuple[Hashable, ...] = ()
        if attributes:
            extra = self.attributes(attributes, at, False)
        elif not is_argument:
            self.findings.guard(partial(len, attributes), 0)
        slot = value._current("te.compile")
        if self.names.history or self.names.all:
            extra = slot.is_leaf, *extra
        if is_argument and (self.names.places or self.names.all):
            extra = slot.offset, *extra
        made: type = type(value)
        if made not in OURS:
            at = at._replace(path=made.__qualname__)
            extra = self.later(made, "class", at, partial(self.members, made, at, False)), *extra
        if is_argument:
            return argument_key(value), *extra
        self.findings.tensors[at.path] = value
        self.findings.numbers.add(slot.storage.number)
        self.findings.guard_attribute(value, "_slot", slot)
        self.findings.guard_attribute(slot, "requires_grad", slot.requires_grad)
        self.findings.guard(partial(_has_hooks, slot), hooked := _has_hooks(slot))
        return weakref.ref(slot), made, slot.requires_grad, hooked, *extra

    def array(self, value: Any, made: type, at: At, is_argument: bool) -> Hashable:
        """A NumPy array: a small one with its values; larger ones, and arguments, are refused."""
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
            if made is not np.ndarray or value.dtype.hasobject:
                self.refuse(at, f"is a {made.__name__} of dtype {value.dtype}, whose state cannot be compared")
            self.refuse(at, f"is a NumPy array of {value.nbytes} bytes, which is too large to compare at each call")
        form, data = form_of(value), value.tobytes()
        self.findings.guard(partial(holds_bytes, value, form, data), True)
        base = value if value.base is None else value.base
        offset = value.ctypes.data - base.ctypes.data if type(base) is np.ndarray else 0
        return np.ndarray, form, data, self.place(value), self.place(base), offset

    def items(self, values: Iterable[Any], at: At, given: bool) -> tuple[Hashable, ...]:
        """The parts of the entries of a sequence."""
        plain = PLAIN - {str} if self.names.format else PLAIN
        if self.names.identity:
            plain = frozenset()
        return tuple(
            [
                (type(value), value) if type(value) in plain else self.key_part(value, at.item(position), given)
                for position, value in enumerate(values)
            ]
        )

    def container(self, value: Any, made: type, at: At, is_argument: bool) -> Iterator[Hashable]:
        """The contents of a list, dict or the like, or of a user's subclass of one."""
        yield made
        guard = self.findings.guard
        if issubclass(made, (dict, MappingProxyType)):
            base: Any = next(base for base in (OrderedDict, dict, MappingProxyType) if issubclass(made, base))
            pairs = list(base.items(value))
            keys, values = [key for key, _ in pairs], [item for _, item in pairs]
            if made in (dict, MappingProxyType):
                guard(partial(has_items, value, keys, values), True)
            else:
                guard(partial(has_items_below, value, base, keys, values), True)
            yield self.items(keys, at, False)
            for key, item in pairs:
                yield self.key_part(item, at.item(key), is_argument)
            if issubclass(made, defaultdict):
                self.findings.guard_attribute(value, "default_factory", value.default_factory)
                yield self.key_part(value.default_factory, at)
        else:
            base = next(base for base in CONTAINERS if issubclass(made, base))
            items = list(base.__iter__(value))
            if made is base and base is not tuple:
                guard(partial(is_list_of, value, items), True)
            elif base is not tuple:
                guard(partial(is_list_of_below, value, base, items), True)
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
            for name in attributes_in_c(value, self.names.mentioned):
                item = getattr(value, name, MISSING)
                self.findings.guard(partial(getattr, value, name, MISSING), item)
                yield name, self.key_part(item, at)
        yield Same(made if is_container(made) else value)
        yield from self.instance(value, made, at, is_argument)

    def instance(self, value: Any, made: type, at: At, is_argument: bool) -> Iterator[Hashable]:
        """The class and the attributes of an instance of a user's class, or of a pure library class."""
        self.findings.guard(partial(type, value), made)
        if made is not SimpleNamespace and not purity.is_standard(made.__module__):
            yield self.later(made, "class", at._replace(path=made.__qualname__), partial(self.members, made, at, False))
        if is_namespace := purity.is_namespace(made):  # it is compared, or made text, with all that it holds
            whole = self.names.equals or self.names.text
        else:
            whole = any(
                (purity.is_standard(base.__module__) or purity.is_numpy(base.__module__))
                and base not in BASES
                and base.__module__ not in ("typing", "abc")
                for base in made.__mro__
            )
        attributes = self.own_attributes(value)
        if attributes is not None:
            rest = at._replace(lenient=True) if is_namespace else at
            yield self.attributes(attributes, at, is_argument, whole, rest)
            if is_namespace and hasattr(made, "__contains__"):  # by names that are computed
                self.findings.guard(partial(is_equal, partial(tuple, attributes), names := (*attributes,)), True)
                yield names
        for name, descriptor in slots_of(made):
            if whole or self.wanted(name) or is_argument:
                item = in_slot(descriptor, value)
                self.findings.guard(partial(in_slot, descriptor, value), item)
                if item is not MISSING:
                    yield name, self.key_part(item, self.below(at, name), is_argument)

    def own_attributes(self, value: Any) -> dict[str, Any] | None:
        """An object's ``__dict__``, which must stay the same one; None if it has none."""
        attributes = dict_of(value)
        if attributes is not None:
            self.findings.guard_dict(value, attributes)
        return attributes

    def attributes(
        self, attributes: dict[str, Any], at: At, is_argument: bool, whole: bool = False, rest: At | None = None
    ) -> tuple[Hashable, ...]:
        """Those of ``attributes`` that the code may read. ``rest``: where those are that it does not mention."""
        if whole or is_argument or self.names.all:
            self.findings.guard_items(attributes)
        else:
            self.findings.guard_mentioned(attributes, self.names)
        return tuple(
            [
                (name, self.key_part(value, self.below(at if self.wanted(name) else rest or at, name), is_argument))
                for name, value in attributes.items()
                if whole or is_argument or self.wanted(name)
            ]
        )

    def thing_of_ours(self, value: Any, at: At) -> Iterator[Hashable]:
        """An object of this package, which refuses by itself what a replay would not repeat, and its attributes."""
        yield Same(value)
        if purity.has_settings(type(value).__module__):
            yield self.attributes(self.own_attributes(value) or {}, at, False, True)
            return
        if isinstance(value, Minibatch):
            self.findings.opaque[at.path] = weakref.ref(value)
        yield from self.put_into(type(value), self.names.all_mentioned)
        yield from self.told(value)
        attributes = self.own_attributes(value) or {}
        if "__wrapped__" in attributes and "_guard" in attributes:  # a compiled function
            self.guard.constant |= attributes["_guard"].constant
            self.findings.guard_item(attributes, "__wrapped__", attributes["__wrapped__"])
            yield self.key_part(attributes["__wrapped__"], at)
            for name in self.names.all_mentioned.difference(vars(type(value)), ("function", "name")):
                self.findings.guard_item(attributes, name, item := attributes.get(name, MISSING))
                if item is not MISSING:
                    yield name, self.key_part(item, self.below(at, name))
            return
        self.findings.guard_mentioned(attributes, self.names)
        for name, item in attributes.items():
            if name in self.names.mentioned:
                yield name, self.key_part(item, self.below(at, name)._replace(lenient=True))
        for name in self.names.all_mentioned:
            if isinstance(getattr(type(value), name, None), property):
                item = getattr(value, name, MISSING)
                if type(item) in PLAIN or type(item) is float:
                    self.findings.guard(partial(is_equal, partial(getattr, value, name, MISSING), item), True)
                    yield name, self.key_part(item, self.below(at, name))

    def told(self, value: Any) -> Iterator[Hashable]:
        """What the methods of an object of this package tell of its state, if they are mentioned."""
        tells = getattr(type(value), "tells", None)
        if tells is not None and (self.names.all or not self.names.all_mentioned.isdisjoint(tells)):
            state = value.told()
            self.findings.guard(partial(is_equal, value.told, state), True)
            yield state

    def put_into_tensors(self) -> Iterator[Hashable]:
        """What the user put into the classes of tensors."""
        self.findings.guard(patched.changes, patched.changes())
        for (cls, name), value in patched.patched().items():
            yield cls, name, self.key_part(value, At(f"{cls}.{name}", "te.compile"))

    def put_into(self, cls: type, names: Iterable[str]) -> Iterator[Hashable]:
        """What the user put into a class of this package."""
        for name in names:
            value = getattr(cls, name, None)
            if isinstance(value, (FunctionType, property)):
                self.findings.guard_attribute(cls, name, value)
                code = value.fget if isinstance(value, property) else value
                if not isinstance(code, FunctionType) or not purity.is_tinyedge(code.__globals__.get("__name__")):
                    yield name
                    yield self.key_part(value, At(f"{cls.__name__}.{name}", "te.compile"))

    def module(self, module: Module, at: At) -> Iterator[Hashable]:
        """A module's identity and state: with another parameter, a frozen one, or another mode the key differs."""
        state = self.guard.state(module, at)
        state_key = state.now()
        self.findings.guard(state.now, state_key)
        self.findings.numbers |= state.numbers
        if self.trail is not None:
            self.trail[at.path] = state_key
            self.trail |= members_of(module, at.path)
        yield state_key
        for owner in [reference() for reference in state.guarded]:
            if owner is None:
                continue
            attributes = vars(owner)
            self.findings.guard_dict(owner, attributes)
            if self.names.all:
                self.findings.guard_items(attributes)
            else:
                self.findings.guard_mentioned(attributes, self.names, ("training", "checkpointed"))
        self.findings.guard(partial(have_size, state.library, state.size), True)
        for cls in state.ours:
            yield from self.put_into(cls, ("forward", "__call__"))
        for slot, part in state.slotted:
            self.findings.guard(partial(in_slot, slot, part), in_slot(slot, part))
        for cls in state.classes:
            yield self.later(cls, "class", at._replace(path=cls.__qualname__), partial(self.members, cls, at, False))
        for value, where in state.live:
            yield self.key_part(value, where)
