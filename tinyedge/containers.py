"""Containers of tensors other than tuples, lists and dicts: their subclasses, mappings, and dataclasses."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from types import FunctionType, MappingProxyType, MemberDescriptorType
from typing import Any, TypeVar, cast

NO_CONTAINERS = frozenset({int, float, bool, str, bytes, complex, type(None), type(...), slice, type, FunctionType})
"""What is met most often, and holds no tensors."""

HEAP_TYPE = 1 << 9
PACKAGE = __name__.partition(".")[0]
"""Our own dataclasses are values by themselves: a dtype, for instance."""
F = TypeVar("F", bound=Callable[..., Any])
L = TypeVar("L")


def by_class(function: F) -> F:
    """Remember what a function of a class gave."""
    return cast("F", lru_cache(1024)(function))


@by_class
def is_container(cls: Any) -> bool:
    """Whether instances hold values that may be replaced by others: of those written in Python, all that they hold."""
    if issubclass(cls, (tuple, list, dict, MappingProxyType)):
        return cls.__module__ == "builtins" or bool(cls.__flags__ & HEAP_TYPE) or cls in (OrderedDict, defaultdict)
    if not (issubclass(cls, Mapping) or dataclasses.is_dataclass(cls)) or cls.__module__.partition(".")[0] == PACKAGE:
        return False
    return all(base is object or base.__flags__ & HEAP_TYPE for base in cls.__mro__)


@by_class
def slots_of(cls: Any) -> tuple[tuple[str, MemberDescriptorType], ...]:
    """The attributes that instances keep outside of ``__dict__``."""
    return tuple(
        (name, value)
        for base in cls.__mro__
        if base.__flags__ & HEAP_TYPE
        for name, value in vars(base).items()
        if isinstance(value, MemberDescriptorType)
    )


def attributes_of(value: Any) -> Iterator[tuple[str, Any]]:
    """All that an instance of a class written in Python holds by name, whatever its class makes of attributes."""
    with suppress(AttributeError):  # there may be none
        yield from object.__getattribute__(value, "__dict__").items()
    for name, slot in slots_of(type(value)):
        with suppress(AttributeError):  # there may be nothing in it
            yield name, slot.__get__(value)


def contents(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a container holds, by position, key or name."""
    cls = type(value)
    if issubclass(cls, dict):
        yield from (OrderedDict.items(value) if issubclass(cls, OrderedDict) else dict.items(value))
    elif issubclass(cls, MappingProxyType):
        yield from value.items()
    elif issubclass(cls, (tuple, list)):
        yield from enumerate(tuple.__iter__(value) if issubclass(cls, tuple) else list.__iter__(value))
    if cls.__flags__ & HEAP_TYPE:
        yield from attributes_of(value)


def rebuilt(value: Any, function: Callable[[Any], Any], known: dict[int, Any]) -> Any:
    """A copy of a container in which ``function`` replaced each value; ``known`` are the copies made so far, by id.

    Nothing of its class runs, so that all stays as it was: fields that ``__init__`` computes, too.
    """
    cls = type(value)
    new: Any
    if issubclass(cls, MappingProxyType):
        return MappingProxyType({key: function(item) for key, item in value.items()})
    if issubclass(cls, tuple):
        new = tuple.__new__(cls, [function(item) for item in tuple.__iter__(value)])
        known[id(value)] = new
    elif issubclass(cls, list):
        new = known[id(value)] = list.__new__(cls)
        list.extend(new, [function(item) for item in list.__iter__(value)])
    elif issubclass(cls, dict):
        base: Any = next(base for base in (OrderedDict, defaultdict, dict) if issubclass(cls, base))
        new = known[id(value)] = base.__new__(cls)
        if base is defaultdict:
            defaultdict.__init__(new, value.default_factory)
        for key, item in base.items(value):
            base.__setitem__(new, key, function(item))
    else:
        new = known[id(value)] = object.__new__(cls)
    if cls.__flags__ & HEAP_TYPE:
        slots = dict(slots_of(cls))
        for name, item in attributes_of(value):
            if name in slots:
                slots[name].__set__(new, function(item))
            else:
                object.__getattribute__(new, "__dict__")[name] = function(item)
    return new


def leaves_in(value: Any, leaf: type[L], above: tuple[int, ...] = ()) -> list[L]:
    """The instances of ``leaf`` in nested tuples, lists, mappings and dataclasses, in order.

    ``above`` is what ``value`` is in.
    """
    if isinstance(value, leaf):
        return [value]
    kind = type(value)
    if kind is tuple or kind is list:
        items: Iterable[Any] = value
    elif kind is dict:
        items = value.values()
    elif kind in NO_CONTAINERS or not is_container(kind):
        return []
    else:
        items = [item for _, item in contents(value)]
    if id(value) in above:
        return []
    above = (*above, id(value))
    found: list[L] = []
    for item in items:
        if isinstance(item, leaf):
            found.append(item)
        elif type(item) not in NO_CONTAINERS:
            found += leaves_in(item, leaf, above)
    return found


def with_leaves(
    value: Any,
    function: Callable[[Any], Any],
    leaf: type | tuple[type, ...],
    known: dict[int, Any] | None = None,
) -> Any:
    """``value`` with each instance of ``leaf`` replaced; what is in no container stays itself.

    ``known`` are the copies made so far, by the id of what they are copies of.
    """
    known = {} if known is None else known
    kind = type(value)
    if issubclass(kind, leaf):
        return function(value)
    if kind in NO_CONTAINERS:
        return value
    if kind is tuple:
        return tuple([with_leaves(item, function, leaf, known) for item in value])
    if id(value) in known:
        return known[id(value)]
    if kind is list:
        items: list[Any] = []
        known[id(value)] = items
        items += [with_leaves(item, function, leaf, known) for item in value]
        return items
    if kind is dict:
        mapping: dict[Any, Any] = {}
        known[id(value)] = mapping
        mapping.update({key: with_leaves(item, function, leaf, known) for key, item in value.items()})
        return mapping
    if not is_container(kind):
        return value
    return rebuilt(value, lambda item: with_leaves(item, function, leaf, known), known)


__all__ = [
    "NO_CONTAINERS",
    "attributes_of",
    "by_class",
    "contents",
    "is_container",
    "leaves_in",
    "rebuilt",
    "slots_of",
    "with_leaves",
]
