"""The walk through code: functions, classes and Python modules, and each name that they mention.

In: what a name stands for. Out: its part of the guard key. The names that a function's code mentions come from
``bytecode``. What may return something else at each call is refused with its name and line; ``purity`` says what does.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
import operator
import re
import sys
import types
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NoReturn

import numpy as np

from tinyedge.compiler import purity
from tinyedge.compiler.bytecode import CLASS_NAMES, Read, mentions
from tinyedge.compiler.guard_state import (
    BASES,
    CONSTRUCTION,
    CONSTRUCTS,
    MACHINERY,
    MISSING,
    NAMING,
    TEXT,
    WHOLE,
    At,
    Findings,
    Guarded,
    Same,
    builtins_of,
    decimal_context,
    in_cell,
    is_constant,
    is_equal,
    is_known,
    is_written_in_c,
)
from tinyedge.errors import CaptureError

FUNCTION_NAMES = ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__")


class CodeWalk(abc.ABC):
    """The half of a walk that follows code; ``Walk`` adds what becomes of the values that are found.

    Values that may contain themselves are queued; in the key, the position at which one was met stands for it.
    """

    def __init__(self, guard: Guarded, findings: Findings, trail: dict[str, Hashable] | None) -> None:
        self.guard = guard
        self.names = guard.names
        self.findings = findings
        self.trail = trail
        self.queue: deque[tuple[str, Callable[[], Iterable[Hashable]]]] = deque()
        self.guarded: set[tuple[int, str]] = set()
        self.uses_numpy = self.uses_logging = False

    @abc.abstractmethod
    def key_part(
        self, value: Any, at: At, is_argument: bool = False, called: tuple[str | None, ...] | None = None
    ) -> Hashable:
        """The part of the key for ``value``. ``is_argument``: it is an argument, or inside of one."""

    @abc.abstractmethod
    def attributes(
        self, attributes: dict[str, Any], at: At, is_argument: bool, whole: bool = False
    ) -> tuple[Hashable, ...]:
        """The parts of those of ``attributes`` that the code may read."""

    def all(self) -> Hashable:
        """The parts of what is queued, and of what that leads to, in the order in which it was met."""
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

    def place(self, value: Any) -> int:
        """A number that stands for this very object in the key: where it was met first."""
        met = self.findings.met
        return met.setdefault((id(value), "is"), (len(met), value))[0]

    def refuse(self, at: At, what: str, remedy: str = "") -> NoReturn:
        """Raise CaptureError for a value that cannot be guarded: ``what`` says why, ``remedy`` what to do."""
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
        """Whether code that was walked through may read an attribute ``name``."""
        return self.names.has(name)

    def below(self, at: At, name: str) -> At:
        """The place of an attribute: its path, and the line that mentions it."""
        return at._replace(path=f"{at.path}.{name}", where=self.names.mentioned.get(name, at.where))

    # Functions and classes

    def python_function(self, value: FunctionType, at: At, called: tuple[str | None, ...] | None) -> Hashable:
        """A function written in Python: the user's is looked into, a library's must be allowed."""
        module = value.__globals__.get("__name__")
        if not purity.is_library(module):
            return self.later(value, 0, at, partial(self.function, value))
        if not purity.is_allowed(value):
            self.refuse_function(value, at)
        self.uses_numpy |= purity.is_numpy(module)
        self.uses_logging |= module == "logging"
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
                self.findings.guard(partial(in_cell, cell), inner)
                yield self.key_part(inner, at._replace(lenient=True))

    def c_function(self, value: Any, at: At, called: tuple[str | None, ...] | None) -> Hashable:
        """A function written in C, which must be allowed; with the object that it is bound to."""
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, ModuleType) and not isinstance(value, np.ufunc):
            if isinstance(owner, type) and value.__name__ in purity.impure_names(owner.__module__):
                self.refuse_function(value, at)
            self.mention(value.__name__, at.where)
            return "bound", value.__name__, self.key_part(owner, at)
        self.uses_numpy |= isinstance(value, np.ufunc)
        if isinstance(value, np.ufunc) and not at.lenient and not set("".join(value.types)) - set("O->"):
            self.refuse(at, "is a ufunc made of a Python function, which cannot be looked into")
        if isinstance(value, (types.GetSetDescriptorType, MemberDescriptorType)):
            self.mention(value.__name__, at.where)
        if not purity.is_allowed(value):
            owner = getattr(value, "__objclass__", None)
            if not isinstance(owner, type) or purity.is_library(owner.__module__) or is_written_in_c(owner):
                self.refuse_function(value, at)
        self.note_use(value, called, at.path)
        return Same(value)

    def decimal_context(self) -> Hashable:
        """What results of decimal numbers depend on."""
        context = decimal_context()
        self.findings.guard(partial(is_equal, decimal_context, context), True)
        return context

    def note_use(self, value: Any, called: tuple[str | None, ...] | None, path: str) -> None:
        """Note which attributes a function reads if it is used: all of them, those named by its arguments, ..."""
        for name in purity.read_by(value):
            self.names.add(name, path)
        if value in purity.READS_ALL:
            self.names.note(all=True)
        elif value in purity.BY_NAME:
            named = (called or (None,))[purity.BY_NAME[value]] or (None,)
            self.names.note(all=None in named)
            for text in filter(None, named):  # which need not be an identifier
                for name in text.split(".") if value is operator.attrgetter else [text]:
                    self.mention(name, path)
        elif purity.makes_text(value):
            self.names.note(text=True)
        elif value in CONSTRUCTS:
            self.names.note(constructs=True)
        elif value in purity.COMPARES:
            asks_which = value in (operator.is_, operator.is_not)
            self.names.note(equals=not asks_which, identity=asks_which)
        elif value is hash:
            self.names.hashes = True
        elif value is dataclasses.fields:
            self.names.add("__dataclass_fields__", path)
        elif value is type:
            # Where it is called by its name, it is seen what is done with what it gives.
            self.names.note(constructs=called is None or not path.endswith("type"))

    def refuse_function(self, value: Any, at: At) -> NoReturn:
        """Raise CaptureError for a function that may return something else at each call."""
        self.refuse(
            at,
            "may return something else at each call",
            "Call it outside, and pass its result as an argument, as a tensor if it changes; or, if that never "
            f'changes, say so: te.compile(function, constant=["{at.path}"]).',
        )

    def check_names(self, module: str, at: At) -> None:
        """Refuse a library class of whose impure functions one is mentioned."""
        for name in sorted(purity.impure_names(module)):
            if name in self.names.mentioned:
                self.refuse_function(None, self.below(at, name))

    def class_(self, cls: type, at: At, called: tuple[str | None, ...] | None) -> Hashable:
        """A class: the user's is looked into, a library's must be allowed."""
        module = cls.__module__
        if purity.is_tinyedge(module):
            return Same(cls), self.registered(cls)
        if purity.is_library(module) or is_written_in_c(cls):
            if not purity.is_allowed(cls):
                self.refuse_function(cls, at)
            self.uses_numpy |= purity.is_numpy(module)
            if not at.lenient:
                self.note_use(cls, called, at.path)
                if module in ("datetime", "pathlib"):
                    self.check_names(module, at)
                elif module == "decimal":
                    return Same(cls), self.decimal_context()
            return Same(cls), self.registered(cls)
        return self.later(cls, "made", at, partial(self.members, cls, at, True))

    def registered(self, cls: type) -> Hashable:
        """Which classes are registered with abstract ones, if ``cls`` may be asked for its instances."""
        if not issubclass(type(cls), abc.ABCMeta):
            return None
        registered = abc.get_cache_token()
        self.findings.guard(partial(is_equal, abc.get_cache_token, registered), True)
        return registered

    def naming(self, value: Any, names: Iterable[str], at: At) -> Iterator[Hashable]:
        """Those of ``names``, attributes that a function or class has by itself, that are mentioned."""
        for name in names:
            if name in self.names.mentioned:
                self.findings.guard_attribute(value, name, item := getattr(value, name))
                yield name, self.key_part(item, self.below(at, name))

    def members(self, cls: type, at: At, made: bool) -> Iterator[Hashable]:
        """The class attributes that are mentioned, or used implicitly. ``made``: instances are made of the class."""
        self.findings.guard_attribute(cls, "__mro__", cls.__mro__)
        yield tuple(map(Same, cls.__mro__))
        yield from self.naming(cls, ("__name__", "__qualname__"), at)
        if vars(cls).get("_is_protocol"):
            self.add_protocol(cls, at.where)
        yield self.registered(cls)
        library = [base for base in cls.__mro__ if purity.is_library(base.__module__)]
        if type(cls) is not type and not purity.is_library(type(cls).__module__):
            yield self.key_part(type(cls), at)
        if made and issubclass(cls, str):
            self.names.note(text=True)
        if made and not is_known(cls):
            odd = next(b for b in cls.__mro__ if is_written_in_c(b) and b not in BASES)
            if not purity.is_allowed(odd):
                self.refuse(at, f"is derived from {odd.__module__}.{odd.__qualname__}, whose state cannot be compared")
        overridden = {name for base in library if base is not object for name in vars(base)}
        for base in cls.__mro__:
            if base in library:
                continue
            self.findings.guard_items(vars(base))
            for name, value in vars(base).items():
                if self.is_used(name, value, made, overridden):
                    yield name
                    yield self.key_part(value, self.below(at._replace(path=cls.__qualname__, lenient=False), name))

    def add_protocol(self, cls: type, where: str) -> None:
        """The attribute names for which ``isinstance`` looks when it is asked about a protocol."""
        own = [vars(base) for base in cls.__mro__ if not purity.is_library(base.__module__)]
        for name in [name for members in own for name in (*members, *members.get("__annotations__", ()))]:
            if not name.startswith("_"):
                self.names.add(name, where)

    def is_used(self, name: str, value: Any, made: bool, overridden: set[str]) -> bool:
        """Whether an attribute of a class may matter: it is mentioned, special, or overrides one that may."""
        if isinstance(value, (types.GetSetDescriptorType, MemberDescriptorType)) or name in ("__del__", "_abc_impl"):
            return False
        if name in CONSTRUCTION:
            return made or self.names.constructs
        if name in TEXT:
            return self.names.text
        if name.startswith("__") and name.endswith("__"):
            is_data = is_constant(value) and name not in NAMING
            return name in self.names.mentioned or is_data or callable(value) or hasattr(type(value), "__get__")
        return self.wanted(name) or name in overridden

    def python_module(self, module: ModuleType, at: At) -> Hashable:
        """A module that is used as a value, not only as the start of a dotted name."""
        name = module.__name__
        if purity.is_tinyedge(name) or purity.is_silent(name):
            self.uses_logging |= name == "logging"
            self.check_names(name.partition(".")[0], at)
            return Same(module)
        if purity.is_library(name):
            self.uses_numpy |= purity.is_numpy(name)
            if not purity.is_pure(name) and not name.startswith("numpy"):
                if at.lenient:
                    return Same(module)
                self.refuse(at, "is a module whose functions depend on the world outside")
            self.check_names(name.partition(".")[0], at)
            if self.names.all and (impure := purity.impure_names(name)):
                self.refuse(
                    at,
                    f"is a module some of whose functions, such as {min(impure)}, may return something else at each "
                    "call, and attributes are read by names that are computed",
                    "Name the function in the code.",
                )
            return Same(module)
        return self.later(module, 0, at, partial(self.module_of_users, module, at))

    def module_of_users(self, module: ModuleType, at: At) -> Iterator[Hashable]:
        """The mentioned names of a user's module."""
        yield Same(module)
        if self.names.all:
            self.findings.guard_items(vars(module))
        else:
            self.findings.guard_mentioned(vars(module), self.names)
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
        self.findings.guard_attribute(function, "__code__", code)
        found = mentions(code)
        names, where = self.names, f"{code.co_filename}:{code.co_firstlineno}"
        for name, line in found.attributes.items():
            self.mention(name, f"{code.co_filename}:{line}")
        names.note(
            all=found.matches,
            text=found.text,
            constructs=found.constructs,
            equals=found.equals,
            identity=found.identity,
        )
        yield id(code)
        for title in ("__defaults__", "__kwdefaults__"):
            value = getattr(function, title)
            self.findings.guard_attribute(function, title, value)
            yield self.key_part(value, At(f"{function.__name__}.{title}", where))
        yield from self.naming(function, FUNCTION_NAMES, At(function.__name__, where))
        self.findings.guard_attribute(function, "__dict__", function.__dict__)
        yield self.attributes(function.__dict__, At(function.__name__, where), False)
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for read in found.reads:
            yield self.read(function, cells, read)

    def mention(self, name: str, where: str) -> None:
        """Note an attribute name that code mentions, and what else follows from it."""
        names = self.names
        names.add(name, where)
        if name in WHOLE:
            names.note(all=True)
        elif name in purity.COMPARING_NAMES:
            names.note(equals=True)
        elif name in ("__class__", "replace"):
            names.note(constructs=True)
        elif name in purity.TEXT_NAMES:
            names.note(text=True, format="format" in name)
        elif name == "__hash__":
            names.hashes = True
        elif name in purity.HIDDEN:
            self.refuse_function(None, At(name, where))

    def look_up(self, mapping: dict[str, Any], name: str) -> Any:
        """A name in a namespace, which is guarded; MISSING if it is not there."""
        value = mapping.get(name, MISSING)
        if (id(mapping), name) not in self.guarded:
            self.guarded.add((id(mapping), name))
            self.findings.guard_item(mapping, name, value)
        return value

    def read(self, function: FunctionType, cells: dict[str, Any], read: Read) -> Hashable:
        """The part for a name, after the modules through which a dotted name leads."""
        if not read.name.isidentifier() and read.root == "global":
            return None  # no user can write such a name: a tool did, such as pytest in assertions
        at = At(read.name, f"{function.__code__.co_filename}:{read.line}")
        if read.root == "closure":
            cell = cells.get(read.name)
            value = MISSING if cell is None else in_cell(cell)
            if cell is not None and (id(cell), "") not in self.guarded:
                self.guarded.add((id(cell), ""))
                if value is MISSING:
                    self.findings.guard(partial(in_cell, cell), value)
                else:
                    self.findings.guard_attribute(cell, "cell_contents", value)
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
            elif found is MISSING and (type(value) is not ModuleType or hasattr(ModuleType, name)):
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
        """Whether the user said that this name never changes."""
        return bool(self.guard.constant) and self.guard.is_constant(path)

    def imported(self, function: FunctionType, read: Read) -> Any:
        """The module that an import statement inside a function gives; MISSING if there is none."""
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
