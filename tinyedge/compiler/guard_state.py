"""The parts of a guard key, and the state by which the next call finds out cheaply that nothing has changed.

In: values that a walk met (``guards``). Out: hashable parts of the key, compared by value or by identity; and
Findings, a list of reads (dict items, attributes) with what they gave, so that a call only repeats the reads.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import gc
import operator
import re
import sys
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from itertools import repeat
from operator import attrgetter, is_
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MemberDescriptorType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from tinyedge.backends import Backend
from tinyedge.compiler import purity
from tinyedge.compiler.bytecode import mentions
from tinyedge.containers import by_class, slots_of
from tinyedge.dtypes import DType
from tinyedge.ir.values import Slot, leaf_changes
from tinyedge.nn import Module, Parameter
from tinyedge.nn.module import member_changes
from tinyedge.tensor import Tensor

PLAIN = frozenset({int, bool, str, bytes, type(None), type(...), type(NotImplemented)})


CONTAINERS = (tuple, list, dict, set, frozenset, deque, MappingProxyType)


SCALARS: dict[type, Callable[[Any], Any]] = {
    int: lambda value: int.__add__(value, 0),
    float: lambda value: float.hex(value),  # 0.0 and -0.0 are two values
    complex: lambda value: (value.real.hex(), value.imag.hex()),
    str: lambda value: str.__str__(value),
    bytes: lambda value: bytes.join(b"", [value]),
}
"""The value of an instance of a user's class that is derived from one of these."""


VALUES: dict[type, Callable[[Any], Any]] = {
    range: repr,
    datetime.date: repr,
    datetime.timedelta: repr,
    datetime.timezone: repr,
    decimal.Decimal: str,
    re.Pattern: lambda value: (value.pattern, value.flags),
    types.GenericAlias: repr,
    types.UnionType: repr,
}


VALUED = frozenset({*PLAIN, *SCALARS, *VALUES, tuple})
"""What is compared by value, so that it makes a difference only for ``is`` which of two equal ones it is."""


BASES = (*CONTAINERS, *SCALARS, OrderedDict, defaultdict, BaseException, ModuleType, SimpleNamespace, object)
"""Classes written in C whose state can be compared."""


C_FUNCTIONS = (
    BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    MemberDescriptorType,
    np.ufunc,
    type(np.sum),
)


ALWAYS = frozenset({"forward", "__call__", "keys", "_member_map_"})
"""Attributes that are called or read without being mentioned."""


MACHINERY = frozenset({"__builtins__", "__cached__", "__file__", "__loader__", "__spec__"})


CONSTRUCTION = frozenset({"__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__", "__prepare__"})


NAMING = frozenset({"__doc__", "__firstlineno__", "__module__", "__qualname__", "__static_attributes__"})
"""What tells of a class where it was written: it is compared only where it is mentioned."""


TEXT = frozenset({"__repr__", "__str__", "__format__"})


ARRAY_BYTES = 1024
"""Larger NumPy arrays are refused, instead of being compared at each call."""


MISSING: Any = type("Missing", (), {"__repr__": lambda self: "nothing"})()


_get = dict.get


builtins_of = attrgetter("__builtins__")


_slot_of = attrgetter("_slot")


def _flags_of(slot: Slot) -> tuple[bool, bool]:
    return slot.requires_grad, bool(slot.hooks)


IMMUTABLE = (
    *SCALARS, *VALUES, bool, type(None), type(...), slice, np.generic, np.dtype, DType, Backend, Module, enum.Enum,
    type, ModuleType, datetime.date, datetime.time, PurePath,
)  # fmt: skip


OURS = frozenset({Tensor, Parameter})


MODES = frozenset({"training", "checkpointed"})
"""Attributes that every module has. They are part of its key."""


REGISTRIES = frozenset(vars(Module())) - MODES
"""Where every module keeps its members and hooks, which are compared by themselves."""


WHOLE = frozenset({"__dict__", "__dir__", "__getattribute__", "__getstate__", "__reduce__", "__reduce_ex__"})
"""What reads attributes of an object that no code names."""


LEVELS = frozenset({
    "disabled", "filters", "getChildren", "getEffectiveLevel", "handlers", "hasHandlers", "isEnabledFor", "level",
    "manager", "propagate",
})  # fmt: skip
"""What asks a logger for its state."""


HISTORY = frozenset({"is_leaf", "grad_fn"})
"""What tells where a tensor came from."""


FIELD = type(collections.namedtuple("_Row", "field").field)  # type: ignore[attr-defined]


CONSTRUCTS = {dataclasses.replace, copy.copy, copy.deepcopy}
"""What makes instances of the classes of what it is given."""


def have_size(dicts: list[dict[str, Any]], size: int) -> bool:
    """Whether the dicts have ``size`` items together."""
    return sum(map(len, dicts)) == size


class Remembered(NamedTuple):
    """What a function of ``functools.lru_cache`` has remembered: its results, in the order in which they were seen."""

    times: int  # how often it was seen to have forgotten some: called again, it may return others
    held: list[Any]
    results: dict[tuple[int, int], Any]  # by the ids of the arguments and of the result

    @classmethod
    def by(cls, function: Any, before: Remembered | None) -> Remembered | None:
        """What ``function`` remembers now: ``before``, if that has not changed. None if it cannot be told.

        No method gives the results, but the garbage collector sees them: before the dict of all come the arguments,
        the result and the class of each entry; without a bound on their number, the dict itself holds the results.
        """
        seen = gc.get_referents(function)
        place = next((at for at, each in enumerate(seen[:-1]) if type(each) is dict and callable(seen[at + 1])), 0)
        entries, first = seen[place], place % 3
        if type(entries) is not dict:
            return None
        held = seen[first:place] if place > first else [part for pair in entries.items() for part in pair]
        if before is not None and is_list_of(before.held, held):
            return before
        step = 3 if place > first else 2
        keys, results = held[::step], held[1::step]
        if len(keys) != len(entries):
            return None
        now = {(id(key), id(result)): result for key, result in zip(keys, results, strict=True)}
        if before is None:
            return cls(0, held, now)
        forgotten = not now.keys() >= before.results.keys()
        return cls(before.times + forgotten, held, now if forgotten else before.results | now)


def remembered(caches: dict[int, tuple[Any, Remembered | None]], function: Any) -> Remembered | None:
    """What a function of ``functools.lru_cache`` has remembered; the same object until that changes."""
    _, before = caches.get(id(function), (None, None))
    now = Remembered.by(function, before)
    if now is not before:
        caches[id(function)] = function, now
    return now


def alive_in(key: Any) -> list[Any]:
    """The objects that a key holds by identity and that may be garbage-collected: modules and tensors' slots."""
    found: list[Any] = []
    pending = [key]
    while pending:
        part = pending.pop()
        if isinstance(part, (tuple, frozenset)):
            pending += part
        elif isinstance(part, _ModuleKey):
            pending += part.values
        elif isinstance(part, (weakref.ref, Same)):
            value = part() if isinstance(part, weakref.ref) else part.refer()
            if issubclass(type(value), (Module, Slot)):
                found.append(value)
    return found


class Same:
    """An identity in a key: equal only for the same object, also when it is gone and its address was reused."""

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
        if not isinstance(other, Same) or self.number != other.number:
            return False
        mine = self.refer()
        return mine is not None and mine is other.refer()


class _ModuleKey:
    """A module in a key: its submodules, their modes and attributes, and their tensors. The hash is computed once."""

    __slots__ = ("_hash", "values")

    def __init__(self, *values: Any) -> None:
        self.values = values
        self._hash = hash(values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ModuleKey) and self.values == other.values


def numpy_errors() -> tuple[Any, ...]:
    """What NumPy does about division by zero and the like: it may raise."""
    return (*np.geterr().values(), np.geterrcall())


class At(NamedTuple):
    """Where a value was found: its name, the line that mentions it, and whether any type is accepted there."""

    path: str
    where: str
    lenient: bool = False

    def attribute(self, name: str) -> At:
        """The place of an attribute of what is here."""
        return self._replace(path=f"{self.path}.{name}")

    def item(self, key: Any) -> At:
        """The place of an entry of what is here."""
        return self._replace(path=f"{self.path}[{key!r}]" if type(key) in PLAIN else f"{self.path}[...]")


class Names:
    """The attribute names that code mentions, and where. They decide which attributes are compared. It only grows."""

    def __init__(self) -> None:
        self.mentioned: dict[str, str] = {}
        self.all = False  # names are computed, so that any attribute may be read
        self.text = False  # values are made text
        self.format = False  # text may name attributes: "{0.scale}"
        self.constructs = False  # instances are made of the classes of others
        self.foreign = False  # some are no attribute that every tensor has
        self.history = False  # whether tensors were computed is asked for
        self.hashes = False  # hashes are computed: of a tensor it is another at each call
        self.equals = False  # values that are no constants are compared: namespaces by all that they hold
        self.places = False  # where an argument lies in its storage is asked for
        self.identity = False  # it is asked of values if they are the same object
        self.version = 0  # how often any of it has changed
        self._size, self._frozen = -1, ALWAYS

    def note(
        self,
        all: bool = False,
        text: bool = False,
        constructs: bool = False,
        format: bool = False,
        equals: bool = False,
        identity: bool = False,
    ) -> None:
        """Note ways in which code reads more than the names that it mentions."""
        before = self.all, self.text, self.constructs, self.format, self.equals, self.identity
        flags = tuple(map(operator.or_, before, (all, text, constructs, format, equals, identity)))
        if flags != before:
            self.all, self.text, self.constructs, self.format, self.equals, self.identity = flags
            self.version += 1

    @property
    def all_mentioned(self) -> frozenset[str]:
        """All names that are mentioned, and those that always matter."""
        if self._size != len(self.mentioned):
            self._size, self._frozen = len(self.mentioned), ALWAYS.union(self.mentioned)
        return self._frozen

    def add(self, name: str, where: str) -> None:
        """Note a name that code at ``where`` mentions."""
        if name not in self.mentioned:
            self.mentioned[name] = where
            self.foreign |= not hasattr(Tensor, name)
            self.history |= name in HISTORY
            self.places |= name == "storage_offset"
            self.version += 1

    def has(self, name: str) -> bool:
        """Whether an attribute of this name is compared."""
        return self.all or name in self.mentioned or name in ALWAYS


class ModuleState:
    """A module's part of the key at the last call, and what must be compared to see whether it changed."""

    def __init__(self, module: Module, names: Names, at: At, forget: Callable[[Any], Any]) -> None:
        self.module = weakref.ref(module, forget)
        self.path = at.path
        self.version = member_changes()
        self.names = names.version
        named = list(module.named_modules())
        parts = [part for _, part in named]
        members = [tensor for part in parts for tensor in (*part._parameters.values(), *part._buffers.values())]
        self.tensors = [tensor for tensor in members if tensor is not None]
        self.classes = [cls for cls in dict.fromkeys(map(type, parts)) if not purity.is_tinyedge(cls.__module__)]
        self.ours = [cls for cls in dict.fromkeys(map(type, parts)) if purity.is_tinyedge(cls.__module__)]
        self.library = [vars(part) for part in parts if type(part) in self.ours]
        self.size = sum(map(len, self.library))
        self.live: list[tuple[Any, At]] = []  # attributes and hooks that may change without being set
        # Whose attributes are looked up again; a module is not kept alive by what is known of it.
        self.guarded: list[weakref.ref[Any]] = [weakref.ref(tensor) for tensor in self.tensors if vars(tensor)]
        self.live += [(vars(t)[name], at.attribute(name)) for t in self.tensors for name in vars(t) if names.has(name)]
        self.slotted: list[tuple[Any, Module]] = []
        # Tensors without attributes of their own: they must stay so. For a large model the look takes microseconds.
        foreign = names.all or names.foreign
        self.empty = [tensor for tensor in self.tensors if foreign and not vars(tensor)]
        self.parts = tuple([self._part(part, names, at.attribute(path) if path else at) for path, part in named])
        self.seen = -1  # the value of leaf_changes() at the last look
        self.slots: tuple[Slot, ...] = ()
        self.flags: tuple[tuple[bool, bool], ...] = ()
        self.numbers: frozenset[int] = frozenset()
        self.key = _ModuleKey()

    def _part(self, part: Module, names: Names, at: At) -> Hashable:
        library = purity.is_tinyedge(type(part).__module__)
        read = _read_by_library(type(part))
        static: list[Any] = []
        own = [name for name in vars(part) if names.has(name) and not name.startswith("_") and name not in MODES]
        if own or not library:
            self.guarded.append(weakref.ref(part))
        if not library:
            for name, slot in slots_of(type(part)):
                if names.has(name):
                    self.slotted.append((slot, part))
                    self.live.append((in_slot(slot, part), at.attribute(name)))
        for name, value in vars(part).items():
            wanted = names.has(name) and (not names.all or not name.startswith("_") or name in names.mentioned)
            unnamed = name in read or (library and not name.startswith("_"))
            if wanted or (unnamed and name not in REGISTRIES):
                if is_constant(value):
                    static += (name, type(value), value.hex() if type(value) is float else value)
                else:
                    static.append(name)
                    where = names.mentioned.get(name, at.where)
                    self.live.append((value, At(f"{at.path}.{name}", where, name not in names.mentioned)))
        self.live += [(hook, at) for hook, _ in (*part._pre_hooks.values(), *part._hooks.values())]
        backward = (*part._backward_pre_hooks.items(), *part._backward_hooks.items())
        self.live += [(hook, at) for _, hook in backward]
        hooks = (*part._pre_hooks, *part._hooks, *[number for number, _ in backward])
        return type(part), weakref.ref(part), part.training, part.checkpointed, hooks, tuple(static)

    def now(self) -> _ModuleKey | None:
        """The key, the same object until it changes; None if members or modes of any module have changed."""
        if self.version != member_changes() or any(map(attributes_of, self.empty)):
            return None
        changes = leaf_changes()
        if self.seen == changes:
            return self.key
        self.seen = changes
        slots = tuple(map(_slot_of, self.tensors))
        flags = tuple(map(_flags_of, slots))
        if slots != self.slots or flags != self.flags or not self.key.values:
            self.slots, self.flags = slots, flags
            self.numbers = frozenset([slot.storage.number for slot in slots])
            self.key = _ModuleKey(self.parts, tuple(map(weakref.ref, slots)), flags)
        return self.key


def members_of(module: Module, path: str) -> dict[str, Hashable]:
    """What a module and its submodules hold, by name: for errors that say what of it has changed."""
    found: dict[str, Hashable] = {}
    for below, part in module.named_modules():
        lead = f"{path}.{below}" if below else path
        for name, value in vars(part).items():
            if name.endswith("hooks"):
                found[f"{lead}.{name}"] = tuple(value)
            elif not name.startswith("_"):
                found[f"{lead}.{name}"] = (type(value), value) if is_constant(value) else id(value)
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            slot = None if tensor is None else tensor._slot
            found[f"{lead}.{name}"] = slot and (weakref.ref(slot), *_flags_of(slot))
        found |= {f"{lead}.{name}": id(child) for name, child in part._modules.items()}
    return found


@by_class
def _read_by_library(cls: Any) -> frozenset[str]:
    """The attributes that the library code of a class's bases reads of its instances."""
    found: set[str] = set()
    for base in cls.__mro__:
        if purity.is_tinyedge(base.__module__) and base is not Module:
            found |= {*vars(base).get("_arguments", ())}  # which a layer that is made of a function reads by name
            for value in vars(base).values():
                if isinstance(value, FunctionType):
                    found |= {*mentions(value.__code__).attributes}
    return frozenset(found)


def is_constant(value: Any) -> bool:
    """Whether a value is immutable, and determined by its type and value."""
    return (
        type(value) in PLAIN or type(value) is float or (type(value) is tuple and all(type(v) in PLAIN for v in value))
    )


def has_items(mapping: Any, keys: list[Any], values: list[Any]) -> bool:
    """Whether a mapping still has these keys and values, the same objects in the same order."""
    return len(mapping) == len(keys) and all(map(is_, mapping, keys)) and all(map(is_, mapping.values(), values))


def has_items_below(mapping: Any, base: Any, keys: list[Any], values: list[Any]) -> bool:
    """The same for a user's subclass, which may override how its items are read."""
    items = base.items(mapping)
    return len(items) == len(keys) and all(k is a and v is b for (k, v), a, b in zip(items, keys, values, strict=True))


def _has_mentioned(attributes: dict[str, Any], keys: list[str], values: list[Any], absent: frozenset[str]) -> bool:
    return all(map(is_, map(attributes.get, keys, repeat(MISSING)), values)) and absent.isdisjoint(attributes)


def is_list_of(value: Any, items: list[Any]) -> bool:
    """Whether ``value`` holds these very objects, in this order."""
    return len(value) == len(items) and all(map(is_, value, items))


def is_list_of_below(value: Any, base: Any, items: list[Any]) -> bool:
    """The same of an instance of a subclass of ``base``, whatever its own methods say."""
    return base.__len__(value) == len(items) and all(map(is_, base.__iter__(value), items))


def in_cell(cell: Any) -> Any:
    """What a variable of a closure holds; MISSING if nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:  # a variable that is not assigned yet, or was deleted
        return MISSING


def in_slot(descriptor: Any, value: Any) -> Any:
    """What a class's slot holds in ``value``; MISSING if nothing, or if it is of another class now."""
    try:
        return descriptor.__get__(value)
    except (AttributeError, TypeError):
        return MISSING


def form_of(array: Any) -> tuple[Any, ...]:
    """All that can be asked of an array, apart from its data."""
    return array.dtype.str, array.shape, array.strides, array.flags.num


def holds_bytes(array: Any, form: tuple[Any, ...], data: bytes) -> bool:
    """Whether the array still has this form and data."""
    return form_of(array) == form and array.tobytes() == data


def decimal_context() -> tuple[Any, ...]:
    """The part of ``decimal``'s context that results depend on."""
    context = decimal.getcontext()
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp


def logger_levels() -> tuple[Any, ...]:
    """The state of all loggers that decides what they do."""
    logging: Any = sys.modules["logging"]
    manager = logging.root.manager
    loggers = [("", logging.root), *manager.loggerDict.items()]
    named = ("level", "disabled", "propagate")
    states = [
        (
            name,
            *[vars(each).get(key) for key in named],
            *[len(vars(each).get(key, ())) for key in ("handlers", "filters")],
        )
        for name, each in loggers
    ]
    return manager.disable, *states


def attributes_in_c(value: BaseException, mentioned: dict[str, str]) -> Iterator[str]:
    """The names of an exception's attributes that are kept by code in C, such as ``args`` and ``errno``."""
    for base in type(value).__mro__:
        if is_written_in_c(base):
            for name, found in vars(base).items():
                is_data = isinstance(found, (types.GetSetDescriptorType, MemberDescriptorType))
                if is_data and (not name.startswith("__") or name in mentioned) and name not in ("__dict__",):
                    yield name


def is_equal(read: Callable[[], Any], value: Any) -> bool:
    """Whether what ``read`` gives now equals ``value``."""
    return bool(read() == value)


def dict_of(value: Any) -> dict[str, Any] | None:
    """The object's own ``__dict__``, past any property of its class; None if there is none."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return found if isinstance(found, dict) else None


def _dict_at(owner: weakref.ref[Any]) -> dict[str, Any] | None:
    return dict_of(owner())


@by_class
def is_written_in_c(cls: Any) -> bool:
    """Whether a class, its bases apart, has code that cannot be looked into."""
    if not cls.__flags__ & (1 << 9):  # not a heap type
        return True
    kinds = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)
    for name, value in vars(cls).items():
        if isinstance(value, (*kinds, types.GetSetDescriptorType)) and name not in ("__dict__", "__weakref__"):
            if value.__objclass__ is cls:
                return True
        elif isinstance(value, BuiltinFunctionType) and name == "__new__":
            return True
    return False


def is_known(cls: type) -> bool:
    """Whether the state of a class's instances consists of their attributes, slots and items."""
    return all(
        base in BASES or issubclass(base, BaseException) or base.__module__ == "typing"
        for base in cls.__mro__
        if is_written_in_c(base)
    )


class Findings:
    """The result of a walk from a function, and the reads on which it rests: while these give the same, it holds.

    Each of ``reads`` gave the value in ``values``; they are compared by identity, since whatever can change inside a
    value has reads of its own.
    """

    def __init__(self, names: int) -> None:
        self.names = names  # the version of the names that were known
        self.key: Hashable = None
        self.numbers: set[int] = set()  # the storages of tensors that are not arguments
        self.tensors: dict[str, Tensor] = {}  # tensors that are not members of modules, by name
        self.opaque: dict[str, weakref.ref[Any]] = {}  # objects that are not looked into, and hold tensors
        self.met: dict[tuple[int, Any], tuple[int, Any]] = {}
        self.reads: list[Callable[[], Any]] = []
        self.values: list[Any] = []
        # Most reads have one of these two forms, which take half as long without a Python call for each.
        self.items: tuple[list[Any], list[str], list[Any]] = [], [], []  # mappings, keys, and the items found
        self.attributes: tuple[list[Any], list[str], list[Any]] = [], [], []  # objects, names, and the attributes found

    def guard_item(self, mapping: dict[str, Any], key: str, value: Any) -> None:
        """Guard an entry of a mapping."""
        for column, entry in zip(self.items, (mapping, key, value), strict=True):
            column.append(entry)

    def guard_attribute(self, thing: Any, name: str, value: Any) -> None:
        """Guard an attribute of an object."""
        for column, entry in zip(self.attributes, (thing, name, value), strict=True):
            column.append(entry)

    def guard_dict(self, owner: Any, attributes: dict[str, Any]) -> None:
        """Guard that an object's ``__dict__`` stays this one. The object is not kept alive, if it can be."""
        try:
            self.guard(partial(_dict_at, weakref.ref(owner)), attributes)
        except TypeError:  # it has no room for weak references
            self.guard(partial(dict_of, owner), attributes)

    def guard(self, read: Callable[[], Any], value: Any) -> None:
        """Guard what ``read`` gives: it must be ``value`` at each call."""
        self.reads.append(read)
        self.values.append(value)

    def guard_items(self, mapping: Any) -> None:
        """Guard all entries of a mapping."""
        self.guard(partial(has_items, mapping, [*mapping], [*mapping.values()]), True)

    def guard_mentioned(self, attributes: dict[str, Any], names: Names, more: tuple[str, ...] = ()) -> None:
        """Guard the attributes that are mentioned, also those that are missing: others are the user's bookkeeping."""
        if not attributes:
            self.guard(partial(len, attributes), 0)
            return
        keys = [name for name in attributes if names.has(name) or name in more]
        absent = names.all_mentioned.difference(attributes)
        values = [attributes[name] for name in keys]
        self.guard(partial(_has_mentioned, attributes, keys, values, absent), True)

    def holds(self, names: int) -> bool:
        """Whether all that was read is as it was; ``names`` is the present version of the names."""
        if names != self.names:
            return False
        mappings, keys, items = self.items
        things, attributes, values = self.attributes
        try:
            return (
                all(map(is_, map(_get, mappings, keys, repeat(MISSING)), items))
                and all(map(is_, map(getattr, things, attributes), values))
                and all(map(is_, [read() for read in self.reads], self.values))
            )
        except ValueError:  # a variable of a closure was deleted
            return False


attributes_of = attrgetter("__dict__")


class Guarded:
    """A function that is guarded, and what is kept for it from call to call.

    ``constant`` names variables or attributes, dotted or not, that are neither looked into nor compared.
    """

    def __init__(self, function: Any, constant: Iterable[str] = ()) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.constant = set(constant)
        self.names = Names()
        self.states: dict[int, ModuleState] = {}
        self.caches: dict[int, tuple[Any, Remembered | None]] = {}  # what functions remember, by their ids

    def is_constant(self, path: str) -> bool:
        """Whether the user said that this name never changes."""
        return any(path == name or path.endswith("." + name) for name in self.constant)

    def state(self, module: Module, at: At) -> ModuleState:
        """A module's part of the key, found anew if its members or the names have changed."""
        number = id(module)
        state = self.states.get(number)
        if (
            state is None
            or state.module() is not module
            or state.names != self.names.version
            or state.version != member_changes()
            or any(map(attributes_of, state.empty))
            or state.guarded  # its attributes are looked up again
            or state.slotted
            or not have_size(state.library, state.size)
        ):
            states = self.states
            state = states[number] = ModuleState(module, self.names, at, lambda _: states.pop(number, None))
        return state
