"""What a compiled function reads around it: compared from call to call, or refused by its name."""

from __future__ import annotations

import abc
import array
import collections
import contextlib
import contextvars
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import importlib
import io
import itertools
import json
import logging
import math
import operator
import os
import pathlib
import random
import re
import string
import sys
import threading
import time
import types
import typing
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

pytestmark = pytest.mark.check
Case = Callable[[], tuple[Callable[..., Any], Callable[[], Any]]]
COMPARED: list[Any] = []
REFUSED: list[Any] = []
ALLOWED: list[Any] = []


def compared(case: Case) -> Case:
    """A function, and a change of what it reads: the next call gives what the eager one gives."""
    COMPARED.append(pytest.param(case, id=case.__name__))
    return case


def refused(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """A function that reads what cannot be compared: the error names it."""

    def keep(case: Callable[[], Any]) -> Callable[[], Any]:
        REFUSED.append(pytest.param(case, name, id=case.__name__))
        return case

    return keep


def allowed(case: Callable[[], Any]) -> Callable[[], Any]:
    """A function that must be recorded and replayed."""
    ALLOWED.append(pytest.param(case, id=case.__name__))
    return case


def x() -> te.Tensor:
    return te.tensor([1.0, -2.0, 3.0])


def seen(value: Any) -> Any:
    if isinstance(value, te.Tensor):
        return value.detach().numpy().tolist()
    if isinstance(value, (tuple, list)):
        return [seen(item) for item in value]
    return value


K: Any = 2.0
TABLE: Any = [2.0]
LOCAL = threading.local()
LOCAL.k = 2.0
VARIABLE = contextvars.ContextVar("VARIABLE", default=2.0)


@pytest.fixture(autouse=True)
def _at_first() -> None:
    globals().update(K=2.0, TABLE=[2.0])


def put(**values: Any) -> Callable[[], None]:
    return lambda: globals().update(values)


def setting(thing: Any, name: str, value: Any = 3.0) -> Callable[[], None]:
    return lambda: setattr(thing, name, value)


class Plain:
    def __init__(self, k: Any = 2.0) -> None:
        self.k = k


class Slotted:
    __slots__ = ("__weakref__", "k")

    def __init__(self, k: float = 2.0) -> None:
        self.k = k


# Objects


@compared
def a_slot() -> Any:
    thing = Slotted()
    return lambda y: y * thing.k, setting(thing, "k")


@compared
def a_slot_that_was_empty() -> Any:
    thing = Slotted()
    del thing.k
    return lambda y: y * getattr(thing, "k", 2.0), setting(thing, "k")


@compared
def a_slot_of_a_base() -> Any:
    class Derived(Slotted):
        __slots__ = ("other",)

    thing = Derived()
    return lambda y: y * thing.k, setting(thing, "k")


@compared
def an_object_with_an_equality_that_ignores_the_attribute() -> Any:
    class Equal(Plain):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        def __hash__(self) -> int:
            return 1

    thing = Equal()
    return lambda y: y * thing.k, setting(thing, "k")


@compared
def an_attribute_of_a_tensor() -> Any:
    weight = te.ones(3)
    weight.k = 2.0  # type: ignore[attr-defined]
    return lambda y: y * weight.k, setting(weight, "k")


@compared
def an_attribute_of_a_tensor_that_comes_later() -> Any:
    weight = te.ones(3)
    return lambda y: y * getattr(weight, "k", 2.0), setting(weight, "k")


@compared
def an_attribute_of_a_parameter() -> Any:
    layer = nn.Linear(3, 3)
    return lambda y: y * getattr(layer.weight, "k", 2.0), setting(layer.weight, "k")


@compared
def an_attribute_of_a_parameter_that_changes() -> Any:
    layer = nn.Linear(3, 3)
    layer.weight.k = 2.0  # type: ignore[attr-defined]
    return lambda y: y * layer.weight.k, setting(layer.weight, "k")


@compared
def an_attribute_of_a_dataclass_that_is_no_field() -> Any:
    @dataclasses.dataclass
    class Settings:
        a: float = 1.0

    thing: Any = Settings()
    thing.k = 2.0
    return lambda y: y * thing.k, setting(thing, "k")


@compared
def a_field_of_a_dataclass_with_slots() -> Any:
    @dataclasses.dataclass(slots=True)
    class Settings:
        k: float = 2.0

    thing = Settings()
    return lambda y: y * thing.k, setting(thing, "k")


@compared
def a_frozen_dataclass_changed_by_force() -> Any:
    @dataclasses.dataclass(frozen=True)
    class Settings:
        k: float = 2.0

    thing = Settings()
    return lambda y: y * thing.k, lambda: object.__setattr__(thing, "k", 3.0)


@compared
def all_fields_of_a_dataclass() -> Any:
    @dataclasses.dataclass
    class Settings:
        k: float = 2.0

    thing = Settings()
    return lambda y: y * sum(dataclasses.asdict(thing).values()), setting(thing, "k")


@compared
def fields_by_computed_names() -> Any:
    thing = types.SimpleNamespace(k1=2.0)
    return lambda y: y * getattr(thing, f"k{len('a')}"), setting(thing, "k1")


@compared
def the_dict_of_an_object() -> Any:
    thing = Plain()
    return lambda y: y * next(iter(vars(thing).values())), setting(thing, "k")


@compared
def the_dict_of_an_object_by_its_name() -> Any:
    thing = Plain()
    name = "".join(["k"])
    return lambda y: y * thing.__dict__[name], setting(thing, "k")


@compared
def an_attrgetter() -> Any:
    thing = types.SimpleNamespace(inner=Plain())
    get = operator.attrgetter("inner.k")
    return lambda y: y * get(thing), setting(thing.inner, "k")


@compared
def an_attrgetter_made_inside() -> Any:
    thing = types.SimpleNamespace(inner=Plain())
    return lambda y: y * operator.attrgetter("inner." + "".join(["k"]))(thing), setting(thing.inner, "k")


@compared
def an_aliased_getattr() -> Any:
    thing, read = Plain(), getattr
    name = "".join(["k"])
    return lambda y: y * read(thing, name), setting(thing, "k")


@compared
def a_mapped_getattr() -> Any:
    thing = Plain()
    name = "".join(["k"])
    return lambda y: y * next(iter(map(getattr, [thing], [name]))), setting(thing, "k")


@compared
def a_class_that_is_swapped() -> Any:
    class Two:
        k = 2.0

    class Three:
        k = 3.0

    thing: Any = Two()
    return lambda y: y * thing.k, setting(thing, "__class__", Three)


@compared
def a_class_attribute_of_a_base() -> Any:
    class Base:
        k = 2.0

    class Derived(Base):
        pass

    thing = Derived()
    return lambda y: y * thing.k, setting(Base, "k")


@compared
def an_attribute_that_hides_that_of_the_class() -> Any:
    class Base:
        k = 2.0

    thing = Base()
    return lambda y: y * thing.k, setting(thing, "k")


@compared
def an_attribute_of_a_metaclass() -> Any:
    class Meta(type):
        k = 2.0

    class Made(metaclass=Meta):
        pass

    return lambda y: y * Made.k, setting(Meta, "k")  # type: ignore[attr-defined]


@compared
def a_method_of_a_metaclass() -> Any:
    class Meta(type):
        def __getitem__(cls, index: int) -> Any:
            return K

    class Made(metaclass=Meta):
        pass

    return lambda y: y * Made[0], put(K=3.0)


@compared
def a_changed_instance_of_a_bound_method() -> Any:
    class Thing(Plain):
        def scale(self, y: Any) -> Any:
            return y * self.k

    thing = Thing()
    bound = thing.scale
    return lambda y: bound(y), setting(thing, "k")


@compared
def an_object_in_a_cycle() -> Any:
    a, b = Plain(), Plain()
    a.other, b.other = b, a  # type: ignore[attr-defined]
    return lambda y: y * a.other.other.other.k, setting(b, "k")  # type: ignore[attr-defined]


@compared
def a_module_in_a_cycle() -> Any:
    class Owned(nn.Module):
        def __init__(self, owner: Any) -> None:
            super().__init__()
            self.owner = [owner]
            self.function = self.forward

        def forward(self, y: Any) -> Any:
            return y * self.owner[0].k

    owner = Plain()
    owner.model = Owned(owner)  # type: ignore[attr-defined]
    return lambda y: owner.model.function(y), setting(owner, "k")  # type: ignore[attr-defined]


@compared
def a_list_that_holds_itself() -> Any:
    items: list[Any] = [2.0]
    items.append(items)
    return lambda y: y * items[1][1][0], lambda: items.__setitem__(0, 3.0)


@compared
def an_exception() -> Any:
    error = ValueError(2.0)
    return lambda y: y * error.args[0], setting(error, "args", (3.0,))


@compared
def an_enum_member_that_is_replaced() -> Any:
    class Mode(enum.Enum):
        TWO = 2.0
        THREE = 3.0

    thing = types.SimpleNamespace(mode=Mode.TWO)
    return lambda y: y * thing.mode.value, setting(thing, "mode", Mode.THREE)


@compared
def an_attribute_of_an_enum_member() -> Any:
    class Mode(enum.Enum):
        TWO = 2.0

    Mode.TWO.k = 2.0  # type: ignore[attr-defined]
    return lambda y: y * Mode.TWO.k, setting(Mode.TWO, "k")  # type: ignore[attr-defined]


@compared
def the_value_of_an_enum_member() -> Any:
    class Mode(enum.Enum):
        TWO = 2.0

    return lambda y: y * Mode.TWO.value, setting(Mode.TWO, "_value_")


@compared
def an_enum_by_name() -> Any:
    class Mode(enum.IntEnum):
        TWO = 2
        THREE = 3

    which = ["TWO"]
    return lambda y: y * Mode[which[0]], lambda: which.__setitem__(0, "THREE")


# Special methods, properties, descriptors


def special(name: str, use: Callable[[Any], Any], convert: Callable[[Any], Any] = lambda k: k) -> None:
    def case() -> Any:
        class Thing:
            pass

        setattr(Thing, name, lambda self, *args: convert(K))
        thing = Thing()
        return lambda y: y * use(thing), put(K=3.0)

    case.__name__ = f"special_method{name}"
    compared(case)


special("__getitem__", lambda thing: thing[0])
special("__len__", lambda thing: len(thing), int)
special("__float__", lambda thing: float(thing))
special("__int__", lambda thing: int(thing), int)
special("__index__", lambda thing: [0, 1, 2, 3, 4][thing], int)
special("__bool__", lambda thing: 1.0 if thing else 2.0, lambda k: k == 2.0)
special("__contains__", lambda thing: 1.0 if 0 in thing else 2.0, lambda k: k == 2.0)
special("__iter__", lambda thing: sum(thing), lambda k: iter([k]))
special("__call__", lambda thing: thing())
special("__eq__", lambda thing: 1.0 if thing == 0 else 2.0, lambda k: k == 2.0)
special("__lt__", lambda thing: 1.0 if thing < 0 else 2.0, lambda k: k == 2.0)
special("__add__", lambda thing: thing + 0)
special("__rmul__", lambda thing: 1.0 * thing)
special("__neg__", lambda thing: -thing)
special("__round__", lambda thing: round(thing))
special("__hash__", lambda thing: hash(thing), int)
special("__str__", lambda thing: len(f"{thing}"), lambda k: "a" * int(k))
special("__repr__", lambda thing: len(repr(thing)), lambda k: "a" * int(k))
special("__format__", lambda thing: len(f"{thing:>1}"), lambda k: "a" * int(k))
special("__getattr__", lambda thing: thing.anything)
special("__missing_or_not__", lambda thing: thing.__missing_or_not__())
special("__class_getitem__", lambda thing: type(thing)[0])


@compared
def a_getattribute() -> Any:
    class Thing:
        def __getattribute__(self, name: str) -> Any:
            return K

    thing = Thing()
    return lambda y: y * thing.anything, put(K=3.0)


@compared
def text_by_percent() -> Any:
    class Thing:
        def __str__(self) -> str:
            return "a" * int(K)

    thing = Thing()
    return lambda y: y * len("%s" % thing), put(K=3.0)  # noqa: UP031


@compared
def a_context_manager() -> Any:
    class Thing:
        def __enter__(self) -> Any:
            return K

        def __exit__(self, *args: Any) -> None:
            pass

    thing = Thing()

    def function(y: Any) -> Any:
        with thing as k:
            return y * k

    return function, put(K=3.0)


@compared
def a_property() -> Any:
    class Thing:
        @property
        def k(self) -> Any:
            return K

    thing = Thing()
    return lambda y: y * thing.k, put(K=3.0)


@compared
def a_property_setter() -> Any:
    class Thing:
        @property
        def k(self) -> Any:
            return self._k

        @k.setter
        def k(self, value: Any) -> None:
            self._k = value

    thing = Thing()
    thing.k = 2.0
    return lambda y: y * thing.k, setting(thing, "k")


@compared
def a_cached_property() -> Any:
    class Thing:
        @functools.cached_property
        def k(self) -> Any:
            return K

    thing = Thing()
    thing.k  # noqa: B018

    def change() -> None:
        put(K=3.0)()
        del thing.k

    return lambda y: y * thing.k, change


@compared
def a_descriptor() -> Any:
    class Descriptor:
        k = 2.0

        def __get__(self, instance: Any, owner: Any) -> Any:
            return self.k

    class Thing:
        k = Descriptor()

    thing = Thing()
    return lambda y: y * thing.k, setting(Descriptor, "k")


@compared
def a_static_method() -> Any:
    class Thing:
        @staticmethod
        def get() -> Any:
            return K

    return lambda y: y * Thing.get(), put(K=3.0)


@compared
def a_class_method() -> Any:
    class Thing:
        k = 2.0

        @classmethod
        def get(cls) -> Any:
            return cls.k

    return lambda y: y * Thing.get(), setting(Thing, "k")


@compared
def what_a_method_of_the_base_reads_of_super() -> Any:
    class Base:
        def get(self) -> Any:
            return K

    class Derived(Base):
        def get(self) -> Any:
            return super().get()

    thing = Derived()
    return lambda y: y * thing.get(), put(K=3.0)


@compared
def what_the_init_of_a_class_made_inside_reads() -> Any:
    class Thing:
        def __init__(self) -> None:
            self.value = K

    return lambda y: y * Thing().value, put(K=3.0)


@compared
def what_the_new_of_a_class_made_inside_reads() -> Any:
    class Thing:
        def __new__(cls) -> Any:
            return K

    return lambda y: y * Thing(), put(K=3.0)


@compared
def what_a_class_defined_inside_reads() -> Any:
    def function(y: Any) -> Any:
        class Thing:
            value = K

        return y * Thing.value

    return function, put(K=3.0)


@compared
def an_instance_made_of_the_class_of_another() -> Any:
    class Thing:
        def __init__(self) -> None:
            self.value = K

    thing = Thing()
    return lambda y: y * type(thing)().value, put(K=3.0)


@compared
def an_instance_made_of_the_class_of_another_by_an_attribute() -> Any:
    class Thing:
        def __init__(self) -> None:
            self.value = K

        def again(self) -> Any:
            return self.__class__()

    thing = Thing()
    return lambda y: y * thing.again().value, put(K=3.0)


@compared
def an_instance_made_by_an_aliased_type() -> Any:
    class Thing:
        def __init__(self) -> None:
            self.value = K

    thing, kind = Thing(), type
    return lambda y: y * kind(thing)().value, put(K=3.0)


@compared
def a_default_of_a_dataclass_made_inside() -> Any:
    @dataclasses.dataclass
    class Thing:
        k: float = 2.0

        def __post_init__(self) -> None:
            self.value = self.k * K

    return lambda y: y * Thing().value, put(K=3.0)


# Containers


@compared
def a_deque() -> Any:
    items = collections.deque([2.0])
    return lambda y: y * items[0], lambda: items.__setitem__(0, 3.0)


@compared
def a_small_array() -> Any:
    items = np.array([1.0, 2.0])
    return lambda y: y * float(items[1]), lambda: items.__setitem__(1, 3.0)


@compared
def a_numpy_scalar() -> Any:
    thing = Plain(np.float64(2.0))
    return lambda y: y * float(thing.k), setting(thing, "k", np.float64(3.0))


@compared
def a_set() -> Any:
    items = {2.0}
    return lambda y: y * sum(items), lambda: items.add(5.0)


@compared
def a_mapping_proxy() -> Any:
    items = {"k": 2.0}
    proxy = types.MappingProxyType(items)
    return lambda y: y * proxy["k"], lambda: items.update(k=3.0)


@compared
def a_chain_map() -> Any:
    items = {"k": 2.0}
    chained = collections.ChainMap({}, items)
    return lambda y: y * chained["k"], lambda: items.update(k=3.0)


@compared
def a_counter() -> Any:
    counts = collections.Counter({"k": 2})
    return lambda y: y * counts["k"], lambda: counts.update(k=3)


@compared
def a_default_dict() -> Any:
    items: Any = collections.defaultdict(float, k=2.0)
    return lambda y: y * items["k"], lambda: items.update(k=3.0)


@compared
def the_factory_of_a_default_dict() -> Any:
    items: Any = collections.defaultdict(lambda: K)
    return lambda y: y * copy.copy(items)["k"], put(K=3.0)


@compared
def the_order_of_an_ordered_dict() -> Any:
    items = collections.OrderedDict(a=2.0, b=3.0)
    return lambda y: y * next(iter(items.values())), lambda: items.move_to_end("a")


@compared
def the_order_of_a_dict() -> Any:
    items = {"a": 2.0, "b": 3.0}
    return lambda y: y * next(iter(items.values())), lambda: items.update(a=items.pop("a"))


@compared
def a_user_dict() -> Any:
    items: Any = collections.UserDict(k=2.0)
    return lambda y: y * items["k"], lambda: items.update(k=3.0)


def subclass(base: type, value: Any) -> None:
    def case() -> Any:
        derived: Any = type("Derived", (base,), {})
        thing = derived(value)
        thing.k = 2.0
        return lambda y: y * thing.k, setting(thing, "k")

    case.__name__ = f"an_attribute_of_a_subclass_of_{base.__name__}"
    compared(case)


for _base, _value in (
    (list, [1]), (tuple, (1,)), (dict, {}), (set, {1}), (frozenset, {1}), (str, "a"), (int, 1), (float, 1.0),
    (bytes, b"a"), (complex, 1j), (collections.OrderedDict, {}), (collections.deque, [1]), (Exception, "a"),
):  # fmt: skip
    subclass(_base, _value)


@compared
def an_attribute_of_a_named_tuple() -> Any:
    class Pair(NamedTuple):
        k: float

    class More(Pair):
        pass

    thing: Any = More(1.0)
    thing.extra = 2.0
    return lambda y: y * thing.extra, setting(thing, "extra")


@compared
def an_item_of_a_subclass_of_list() -> Any:
    class Items(list[Any]):
        def __iter__(self) -> Any:
            return iter([1.0])

        def __len__(self) -> int:
            return 1

    items = Items([2.0])
    return lambda y: y * items[0], lambda: items.__setitem__(0, 3.0)


@compared
def a_missing_of_a_subclass_of_dict() -> Any:
    class Items(dict[str, Any]):
        def __missing__(self, key: str) -> Any:
            return K

    items = Items()
    return lambda y: y * items["k"], put(K=3.0)


@compared
def a_lambda_in_a_list() -> Any:
    functions = [lambda: K]
    return lambda y: y * functions[0](), put(K=3.0)


@compared
def a_function_in_a_dict() -> Any:
    functions = {"f": lambda: 2.0}
    return lambda y: y * functions["f"](), lambda: functions.update(f=lambda: 3.0)


# Numbers that are equal, but not the same


def number(name: str, first: Any, second: Any, use: Callable[[Any], Any] = float) -> None:
    def case() -> Any:
        thing = Plain(first)
        return lambda y: y * use(thing.k), setting(thing, "k", second)

    case.__name__ = f"number_{name}"
    compared(case)


number("zeros", 0.0, -0.0, lambda k: math.copysign(2.0, k))
number("complex_zeros", complex(0.0, 0.0), complex(0.0, -0.0), lambda k: math.copysign(2.0, k.imag))
number("bool_and_int", True, 1, lambda k: 2.0 if k is True else 3.0)
number("int_and_float", 1, 1.0, lambda k: 2.0 if isinstance(k, int) else 3.0)
number("big", 2**70, 2**70 + 2**40, lambda k: float(k % 2**50))
number("nan", float("nan"), 3.0, lambda k: 2.0 if k != k else k)
number("decimal", decimal.Decimal("2.0"), decimal.Decimal("2.00"), lambda k: len(str(k)))
number("fraction", fractions.Fraction(1, 2), fractions.Fraction(1, 3))
number("datetime", datetime.datetime(2000, 1, 2), datetime.datetime(2000, 1, 3), lambda k: k.day)
number("date", datetime.date(2000, 1, 2), datetime.date(2000, 1, 3), lambda k: k.day)
number("timedelta", datetime.timedelta(2), datetime.timedelta(3), lambda k: k.days)
number("path", Path("a/b"), Path("a/bc"), lambda k: len(k.name))
number("range", range(0, 3, 2), range(0, 4, 2), lambda k: k.stop)
number("slice", slice(0, 2), slice(0, 3), lambda k: k.stop)
number("pattern", re.compile("a"), re.compile("aa"), lambda k: 2.0 if k.match("aa").end() == 1 else 3.0)
number("bytes", b"ab", b"abc", len)
number("hash_of_text", "a", "b", lambda k: hash(k) % 100)
number("key", {1: 2.0}, {True: 2.0}, lambda k: 2.0 if next(iter(k)) is True else 3.0)
number("dtype", np.dtype("float32"), np.dtype("float64"), lambda k: k.itemsize)
number("type", int, float, lambda k: 2.0 if k is int else 3.0)


# Functions


def helper() -> Any:
    return K


@compared
def a_function_that_is_replaced() -> Any:
    module: Any = types.ModuleType("some_module")
    module.get = lambda: 2.0
    return lambda y: y * module.get(), setting(module, "get", lambda: 3.0)


@compared
def the_code_of_a_function() -> Any:
    def two() -> float:
        return 2.0

    def three() -> float:
        return 3.0

    return lambda y: y * two(), setting(two, "__code__", three.__code__)


@compared
def the_defaults_of_a_function() -> Any:
    def get(k: float = 2.0) -> float:
        return k

    return lambda y: y * get(), setting(get, "__defaults__", (3.0,))


@compared
def the_keyword_defaults_of_a_function() -> Any:
    def get(*, k: float = 2.0) -> float:
        return k

    return lambda y: y * get(), setting(get, "__kwdefaults__", {"k": 3.0})


@compared
def the_keyword_defaults_of_a_function_in_place() -> Any:
    def get(*, k: float = 2.0) -> float:
        return k

    return lambda y: y * get(), lambda: get.__kwdefaults__.update(k=3.0)


@compared
def a_mutable_default() -> Any:
    items = [2.0]

    def get(k: Any = items) -> Any:
        return k[0]

    return lambda y: y * get(), lambda: items.__setitem__(0, 3.0)


@compared
def an_attribute_of_a_function() -> Any:
    def get() -> Any:
        return get.k  # type: ignore[attr-defined]

    get.k = 2.0  # type: ignore[attr-defined]
    return lambda y: y * get(), setting(get, "k")


@compared
def a_partial_in_a_closure() -> Any:
    items = [2.0]
    get = functools.partial(lambda k: k[0], items)
    return lambda y: y * get(), lambda: items.__setitem__(0, 3.0)


@compared
def a_cached_function() -> Any:
    @functools.lru_cache
    def get(n: int) -> Any:
        return n * K

    get(1)

    def change() -> None:
        put(K=3.0)()
        get.cache_clear()

    return lambda y: y * get(1), change


@compared
def a_wrapped_function() -> Any:
    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return 2 * function(*args)

        return wrapper

    @twice
    def get() -> Any:
        return K

    return lambda y: y * get(), put(K=3.0)


@compared
def single_dispatch() -> Any:
    @functools.singledispatch
    def get(value: Any) -> Any:
        return 2.0

    return lambda y: y * get(1), lambda: get.register(int, lambda value: 3.0)


@compared
def what_a_single_dispatch_reads() -> Any:
    @functools.singledispatch
    def get(value: Any) -> Any:
        return 1.0

    @get.register
    def _(value: int) -> Any:
        return K

    return lambda y: y * get(1), put(K=3.0)


@compared
def a_generator_function_for_with() -> Any:
    @contextlib.contextmanager
    def get() -> Any:
        yield K

    def function(y: Any) -> Any:
        with get() as k:
            return y * k

    return function, put(K=3.0)


@compared
def a_generator_function() -> Any:
    def inner() -> Any:
        yield K

    def outer() -> Any:
        yield from inner()

    return lambda y: y * sum(outer()), put(K=3.0)


@compared
def a_comprehension() -> Any:
    return lambda y: y * sum([K for _ in range(2)]), put(K=3.0)


@compared
def a_nested_function() -> Any:
    items = [2.0]

    def function(y: Any) -> Any:
        def inner() -> Any:
            return (lambda: items[0] * K)()

        return y * inner()

    return function, lambda: items.__setitem__(0, 3.0)


@compared
def a_walrus() -> Any:
    return lambda y: y * k if (k := K) else y, put(K=3.0)


@compared
def a_match() -> Any:
    thing = Plain()

    def function(y: Any) -> Any:
        match thing:
            case Plain(k=2.0):
                return y
            case _:
                return y * 2

    return function, setting(thing, "k")


@compared
def a_match_by_position() -> Any:
    class Thing(Plain):
        __match_args__ = ("k",)

    thing = Thing()

    def function(y: Any) -> Any:
        match thing:
            case Thing(2.0):
                return y
            case _:
                return y * 2

    return function, setting(thing, "k")


@compared
def a_global_that_is_deleted() -> Any:
    def function(y: Any) -> Any:
        try:
            return y * K
        except NameError:
            return y * 100

    return function, lambda: globals().pop("K")


@compared
def a_builtin_that_is_hidden() -> Any:
    return lambda y: y * abs(-2.0), put(abs=lambda k: 3.0)


@compared
def a_builtin_that_is_replaced() -> Any:
    import builtins

    builtins.some_number = 2.0  # type: ignore[attr-defined]
    return lambda y: y * some_number, setting(builtins, "some_number")  # type: ignore[name-defined]  # noqa: F821


@compared
def a_function_of_this_package_that_is_replaced() -> Any:
    module: Any = types.SimpleNamespace(activation=F.relu)
    return lambda y: module.activation(y), setting(module, "activation", F.tanh)


@compared
def a_bound_method_of_a_container() -> Any:
    items = {"k": 2.0}
    get = items.get
    return lambda y: y * get("k"), lambda: items.update(k=3.0)


# Modules


def user_module(name: str, text: str, folder: Path) -> Any:
    (folder / f"{name}.py").write_text(text)
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


IMPORTED = "import sys\nK = 2.0\nme = sys.modules[__name__]\n"
MODULES: dict[str, tuple[str, str]] = {
    "named_like_this_package": ("tinyedge_app", "K = 2.0\ndef f(y): return y * K\n"),
    "import": ("reads_app", "K = 2.0\ndef f(y):\n    import reads_app\n    return y * reads_app.K\n"),
    "import_as": ("reads_app", "K = 2.0\ndef f(y):\n    import reads_app as a\n    b = a\n    return y * b.K\n"),
    "from_import": ("reads_app", "K = 2.0\ndef f(y):\n    from reads_app import K as k\n    return y * k\n"),
    "import_in_nested": (
        "reads_app", "K = 2.0\ndef f(y):\n    import reads_app\n    return y * [reads_app.K for _ in '.'][0]\n",
    ),
    "getattr": (
        "reads_app", "k = [2.0]\ndef __getattr__(name): return k[0] if K is None else K\nK = 2.0\n"
        "def f(y):\n    import reads_app\n    return y * reads_app.anything\n",
    ),
    "a_counter": ("reads_app", "K = 2.0\ndef get(): return K\ndef f(y): return y * get()\n"),
    "passed_on": (
        "reads_app", IMPORTED + "def get(m): return m.K\ndef f(y): return y * get(me)\n",
    ),
    "by_name": ("reads_app", IMPORTED + "def f(y): return y * getattr(me, 'K')\n"),
    "by_computed_name": (
        "reads_app", IMPORTED + "del sys\ndef f(y): return y * vars(me)[''.join(['K'])]\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_globals_of_modules_are_compared(name: str, folder: Path, reference: Backend) -> None:
    module = user_module(*MODULES[name], folder)
    try:
        function = te.compile(module.f)
        found = [seen(function(x())), seen(function(x()))]
        module.K = 3.0
        found += [seen(function(x())), seen(function(x()))]
        assert found == [[2.0, -4.0, 6.0]] * 2 + [[3.0, -6.0, 9.0]] * 2
    finally:
        sys.modules.pop(module.__name__, None)


@compared
def an_attribute_of_a_module_put_into_its_dict() -> Any:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = 2.0

        def forward(self, y: Any) -> Any:
            return y * self.k

    model = Scale()
    return lambda y: model(y), lambda: vars(model).update(k=3.0)


@compared
def an_attribute_of_a_module_put_into_its_dict_by_name() -> Any:
    class Scale(nn.Module):
        def forward(self, y: Any) -> Any:
            return y * getattr(self, "k", 2.0)

    model = Scale()
    return lambda y: model(y), lambda: model.__dict__.__setitem__("k", 3.0)


@compared
def an_option_of_a_layer_that_is_derived_from() -> Any:
    class Mine(nn.LeakyReLU):
        pass

    model = Mine(0.5)
    return lambda y: model(y), setting(model, "negative_slope", 0.25)


@compared
def a_slot_of_a_module() -> Any:
    class Scale(nn.Module):
        __slots__ = ("k",)

        def forward(self, y: Any) -> Any:
            return y * self.k

    model: Any = Scale()
    object.__setattr__(model, "k", 2.0)
    return lambda y: model(y), lambda: object.__setattr__(model, "k", 3.0)


@compared
def a_parameter_put_by_other_methods_of_the_dict() -> Any:
    model = nn.Module()
    model.register_buffer("k", te.tensor([2.0]))
    return lambda y: y * model.k, lambda: model._buffers.__ior__({"k": te.tensor([3.0])})


@compared
def what_a_hook_reads() -> Any:
    model = nn.ReLU()
    model.register_forward_hook(lambda module, args, output: output * K)
    return lambda y: model(y), put(K=3.0)


@compared
def arguments_of_the_program() -> Any:
    old = list(sys.argv)

    def change() -> None:
        sys.argv.append("more")

    def function(y: Any) -> Any:
        return y * len(sys.argv)

    del old
    return function, change


@pytest.fixture(autouse=True)
def _restored() -> Any:
    argv, names = list(sys.argv), set(globals())
    yield
    sys.argv[:] = argv
    for name in set(globals()) - names:
        del globals()[name]


@pytest.mark.parametrize("case", COMPARED)
def test_what_is_read_is_compared(case: Case, reference: Backend) -> None:
    function, change = case()
    compiled = te.compile(function)
    eager = [seen(function(x()))] * 2
    found = [seen(compiled(x())), seen(compiled(x()))]
    count = len(compiled.programs)
    assert count == 1
    change()
    now = seen(function(x()))
    assert now != eager[0], "the case changes nothing"
    found += [seen(compiled(x())), seen(compiled(x())), seen(compiled(x()))]
    assert found == [*eager, *[now] * 3]
    assert len(compiled.programs) in (1, 2)  # the first is gone where what it was recorded for is


# Refused


@refused("iterator")
def an_iterator() -> Any:
    iterator = iter([2.0, 3.0, 4.0])
    return lambda y: y * next(iterator)


@refused("numbers")
def a_generator() -> Any:
    numbers = (float(k) for k in range(2, 9))
    return lambda y: y * next(numbers)


@refused("counter")
def a_count() -> Any:
    counter = itertools.count(2)
    return lambda y: y * next(counter)


@refused(r"random\.random")
def random_numbers() -> Any:
    return lambda y: y * random.random()


@refused(r"draw")
def random_numbers_by_another_name() -> Any:
    draw = random.random
    return lambda y: y * draw()


@refused(r"random\.randint")
def random_integers() -> Any:
    return lambda y: y * random.randint(1, 9)


@refused(r"rng")
def a_random_object() -> Any:
    rng = random.Random(0)
    return lambda y: y * rng.random()


@refused(r"thing\.rng")
def a_random_object_in_an_object() -> Any:
    thing = Plain()
    thing.rng = random.Random(0)  # type: ignore[attr-defined]
    return lambda y: y * thing.rng.random()  # type: ignore[attr-defined]


@refused(r"items\[1\]\['rng'\]")
def a_random_object_in_a_list() -> Any:
    items: Any = [1, {"rng": random.Random(0)}]
    return lambda y: y * items[1]["rng"].random()


@refused(r"Random")
def a_class_derived_from_a_random_one() -> Any:
    class Mine(random.Random):
        pass

    return lambda y: y * Mine().random()


@refused(r"np\.random")
def numpy_random() -> Any:
    return lambda y: y * float(np.random.rand())


@refused("generator")
def a_numpy_generator() -> Any:
    generator = np.random.default_rng(0)
    return lambda y: y * float(generator.random())


@refused(r"time\.time")
def the_time() -> Any:
    return lambda y: y * time.time()


@refused(r"time\.perf_counter")
def the_time_from_an_import_inside() -> Any:
    def function(y: Any) -> Any:
        from time import perf_counter

        return y * perf_counter()

    return function


@refused(r"time")
def the_time_from_a_module_passed_on() -> Any:
    return lambda y: y * operator.methodcaller("time")(time)


@refused(r"datetime\.datetime\.now|now")
def the_date() -> Any:
    return lambda y: y * datetime.datetime.now().second


@refused(r"today")
def the_date_by_another_name() -> Any:
    today = datetime.date.today
    return lambda y: y * today().day


@refused(r"os\.environ")
def the_environment() -> Any:
    return lambda y: y * float(os.environ.get("TINYEDGE_NO_SUCH", "2"))


@refused(r"os\.getenv")
def the_environment_by_a_function() -> Any:
    return lambda y: y * float(os.getenv("TINYEDGE_NO_SUCH", "2"))


@refused(r"os\.path\.exists")
def whether_a_file_exists() -> Any:
    return lambda y: y * (2.0 if os.path.exists("no such file") else 3.0)


@refused("open")
def a_file() -> Any:
    return lambda y: y * len(open("no such file").read())


@refused("stream")
def an_open_file() -> Any:
    stream = io.StringIO("2 3")
    return lambda y: y * len(stream.read(1))


@refused("read_text")
def a_path_that_is_read() -> Any:
    path = pathlib.Path("no such file")
    return lambda y: y * len(path.read_text())


@refused("input")
def what_is_typed() -> Any:
    return lambda y: y * float(input())


@refused("globals")
def the_globals() -> Any:
    return lambda y: y * globals()["K"]


@refused("eval")
def an_eval() -> Any:
    return lambda y: y * eval("K")


@refused("exec")
def an_exec() -> Any:
    return lambda y: exec("y * K")


@refused("__import__")
def a_dynamic_import() -> Any:
    return lambda y: y * __import__("math").pi


@refused(r"importlib\.import_module")
def an_importlib() -> Any:
    return lambda y: y * importlib.import_module("math").pi


@refused(r"sys\._getframe")
def a_frame() -> Any:
    return lambda y: y * sys._getframe().f_lineno


@refused("__globals__")
def the_globals_of_a_function() -> Any:
    return lambda y: y * helper.__globals__["K"]


@refused(r"sys\.modules")
def the_modules() -> Any:
    return lambda y: y * sys.modules[__name__].K  # type: ignore[attr-defined]


@refused("id")
def an_id() -> Any:
    return lambda y: y * (id(y) % 7)


@refused("VARIABLE")
def a_context_variable() -> Any:
    return lambda y: y * VARIABLE.get()


@refused("LOCAL")
def a_thread_local() -> Any:
    return lambda y: y * LOCAL.k


@refused("numbers")
def an_array_of_the_library() -> Any:
    numbers = array.array("d", [2.0])
    return lambda y: y * numbers[0]


@refused("numbers")
def a_bytearray() -> Any:
    numbers = bytearray(b"ab")
    return lambda y: y * numbers[0]


@refused("view")
def a_memoryview() -> Any:
    view = memoryview(bytearray(b"ab"))
    return lambda y: y * view[0]


@refused("numbers")
def a_large_array() -> Any:
    numbers = np.ones(1000)
    return lambda y: y * float(numbers[0])


@refused("refer")
def a_weak_reference() -> Any:
    thing = Plain()
    refer = weakref.ref(thing)
    keep = [thing]
    return lambda y, keep=keep: y * refer().k  # type: ignore[union-attr]


@refused("things")
def a_weak_dict() -> Any:
    thing = Plain()
    things = weakref.WeakValueDictionary({"k": thing})
    return lambda y, keep=thing: y * things["k"].k


@refused("lock")
def a_lock() -> Any:
    lock = threading.Lock()
    return lambda y: y * (2.0 if lock.locked() else 3.0)


@refused(r"threading\.active_count")
def threads() -> Any:
    return lambda y: y * threading.active_count()


@refused(r"keys")
def a_view_of_a_dict() -> Any:
    keys = {"a": 1}.keys()
    return lambda y: y * len(keys)


@refused(r"rng")
def in_a_default() -> Any:
    def function(y: Any, rng: Any = random.Random(0)) -> Any:  # noqa: B008
        return y * rng.random()

    function.__defaults__ = ({"rng": random.Random(0)},)
    return function


@refused(r"random\.random")
def in_a_helper() -> Any:
    def inner() -> float:
        return random.random()

    return lambda y: y * inner()


@refused(r"random\.random")
def in_a_special_method() -> Any:
    class Thing:
        def __float__(self) -> float:
            return random.random()

    thing = Thing()
    return lambda y: y * float(thing)


@refused(r"random\.random")
def in_a_branch_that_does_not_run() -> Any:
    return lambda y: y if y.ndim == 1 else y * random.random()


@refused(r"random\.random")
def in_forward() -> Any:
    class Noisy(nn.Module):
        def forward(self, y: Any) -> Any:
            return y * random.random()

    model = nn.Sequential(Noisy())
    return lambda y: model(y)


def in_capture(name: str, pattern: str, function: Callable[..., Any]) -> None:
    refused(pattern)(lambda: function)
    REFUSED[-1] = pytest.param(lambda: function, pattern, id=f"capture_{name}")


in_capture("str", "text of a tensor", lambda y: y * (10.0 if "7." in str(y) else 1.0))
in_capture("repr", "text of a tensor", lambda y: y * len(repr(y)))
in_capture("format", "text of a tensor", lambda y: y * len(f"{y}"))
in_capture("percent", "text of a tensor", lambda y: y * len("%s" % y))  # noqa: UP031
in_capture("format_method", "text of a tensor", lambda y: y * len("{}".format(y)))  # noqa: UP032
in_capture("text_of_a_list", "text of a tensor", lambda y: y * len(str([y])))
in_capture("item", "numpy", lambda y: y * y.sum().item())
in_capture("tolist", "numpy", lambda y: y * y.tolist()[0])
in_capture("numpy", "numpy", lambda y: y * y.numpy()[0])
in_capture("asarray", "numpy", lambda y: y * float(np.asarray(y)[0]))
in_capture("numpy_function", "numpy", lambda y: y * float(np.sum(np.array(y))))
in_capture("float", "numpy", lambda y: y * float(y[0]))
in_capture("int", "numpy", lambda y: y * int(y[0]))
in_capture("if", "numpy", lambda y: y if y[0] > 0 else y * 2)
in_capture("in", "numpy", lambda y: y if 1.0 in y else y * 2)
in_capture("list_in", "numpy", lambda y: y if y[0] in [y[1]] else y * 2)
in_capture("sorted", "numpy", lambda y: y * len(sorted([y[0], y[1]])))
in_capture("max", "numpy", lambda y: max(y[0], y[1]))
in_capture("dlpack", "numpy", lambda y: y * float(np.from_dlpack(y)[0]))
in_capture("seed", "manual_seed", lambda y: (te.manual_seed(7), y)[1])
in_capture("initial_seed", "initial_seed", lambda y: y * te.initial_seed())
GENERATOR = te.Generator()
in_capture("state", "get_state", lambda y: y * GENERATOR.get_state()[1])
in_capture("set_state", "set_state", lambda y: (GENERATOR.set_state((1, 2)), y)[1])
in_capture("seed_of_a_generator", "manual_seed", lambda y: (GENERATOR.manual_seed(2), y)[1])
in_capture("text_of_a_generator", "text of a generator", lambda y: y * len(str(GENERATOR)))


@pytest.mark.parametrize(("case", "name"), REFUSED)
def test_what_cannot_be_compared_is_refused_by_name(case: Callable[[], Any], name: str, reference: Backend) -> None:
    function = te.compile(case())
    with pytest.raises(te.CaptureError, match=name) as caught:
        function(x())
    assert "test_reads.py:" in str(caught.value)
    assert not function.programs
    with pytest.raises(te.CaptureError, match=name):
        function.prepare(x())


# Not refused


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width / heads)
        self.project = nn.Linear(width, 3 * width)
        self.log = logging.getLogger(__name__)
        self.file = sys.stderr
        self.rng = random.Random(0)

    def forward(self, y: te.Tensor) -> te.Tensor:
        assert y.ndim == 2, f"got {y.shape}"
        if y.shape[0] == 0:
            raise ValueError(f"{type(self).__name__} got nothing: {y.shape!r}")
        q, k, v = self.project(y).chunk(3, 1) if hasattr(y, "chunk") else (self.project(y),) * 3
        self.log.debug("shapes %s", q.shape)
        warnings.warn_explicit if False else None  # noqa: B018
        return F.softmax(q @ k.t() * self.scale, 1) @ v


@allowed
def an_ordinary_model() -> Any:
    model = Attention(3, 1)

    def function(y: Any) -> Any:
        return F.mse_loss(model(y.reshape(1, 3)).flatten(), y.repeat(3) if hasattr(y, "repeat") and False else y[:1])

    return lambda y: model(y.reshape(1, 3)).sum()


@allowed
def a_trainer_with_bookkeeping() -> Any:
    class Trainer:
        def __init__(self) -> None:
            self.model, self.rng, self.history = nn.Linear(3, 1), random.Random(0), []
            self.file, self.started, self.lock = sys.stdout, time.time(), threading.Lock()
            self.data = iter([1])

        def __repr__(self) -> str:
            return f"Trainer({self.started})"

        def step(self, y: Any) -> Any:
            loss = self.model(y).square().sum()
            loss.backward()
            return loss

    return Trainer().step


@allowed
def printing_and_logging() -> Any:
    log = logging.getLogger("quiet")

    def function(y: Any) -> Any:
        print("shape", y.shape, file=sys.stderr)
        log.info("shape %s", y.shape)
        logging.getLogger(__name__).debug("x")
        return y * 2

    return function


@allowed
def a_warning() -> Any:
    def function(y: Any) -> Any:
        if y.ndim > 4:
            warnings.warn("many dims", stacklevel=2)
        return y * 2

    return function


@allowed
def types_and_casts() -> Any:
    def function(y: Any) -> Any:
        value = typing.cast("te.Tensor", y)
        assert isinstance(value, te.Tensor)
        assert issubclass(type(value), object)
        assert callable(function)
        return value * 2

    return function


@allowed
def builtins_of_many_kinds() -> Any:
    def function(y: Any) -> Any:
        pairs = list(zip(range(3), reversed([1, 2, 3]), strict=True))
        total = sum(a * b for a, b in pairs) + max(1, 2) + min([3], default=0) + abs(-1) + round(2.5) + len("abc")
        total += int("3") + float("2") + bool(1) + divmod(7, 2)[0] + pow(2, 3) + ord("a") + hash("a") * 0
        names = sorted({"b", "a"}) + [str(k) for k in enumerate("ab")] + list(map(str, filter(None, [1, 0])))
        return y * total + len(names) + any([True]) + all([])

    return function


@allowed
def the_pure_library() -> Any:
    def function(y: Any) -> Any:
        k = math.sqrt(4.0) + functools.reduce(operator.add, itertools.chain([1], [2])) + math.prod([1, 2])
        k += len(string.digits) + len(re.sub("a", "b", "aaa")) + len(json.dumps({"a": 1})) + len(os.path.join("a", "b"))
        k += copy.copy([1])[0] + collections.OrderedDict(a=1)["a"] + float(fractions.Fraction(1, 2))
        with contextlib.suppress(ValueError), contextlib.nullcontext():
            k += len(collections.namedtuple("Pair", "a b")._fields) * 0 + 1
        return y * k

    return function


@allowed
def numpy_functions() -> Any:
    return lambda y: y * float(np.prod([2, 3])) + float(np.sqrt(4.0)) + float(np.linalg.norm([3.0, 4.0])) + np.pi


@allowed
def an_abstract_base() -> Any:
    class Base(abc.ABC):
        @abc.abstractmethod
        def scale(self, y: Any) -> Any: ...

    class Derived(Base, typing.Generic[typing.TypeVar("T")]):  # type: ignore[misc]
        def scale(self, y: Any) -> Any:
            return y * 2

    thing = Derived()
    return lambda y: thing.scale(y)


@allowed
def an_error_of_the_user() -> Any:
    class ConfigError(ValueError):
        def __init__(self, text: str) -> None:
            super().__init__(text)

    def function(y: Any) -> Any:
        try:
            if y.ndim != 1:
                raise ConfigError(f"{y.ndim}")
        except (ConfigError, KeyError) as error:
            raise RuntimeError("no") from error
        return y * 2

    return function


@allowed
def no_grad_inside() -> Any:
    @te.no_grad()
    def inner(y: Any) -> Any:
        return y * 2

    def function(y: Any) -> Any:
        with te.no_grad():
            return inner(y) + te.zeros(3) + te.tensor([1.0, 2.0, 3.0])

    return function


@allowed
def a_checkpoint() -> Any:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).checkpoint()
    return lambda y: te.checkpoint(model, y).sum()


@allowed
def dropout_of_a_generator() -> Any:
    generator = te.Generator().manual_seed(0)
    return lambda y: F.dropout(y, 0.0, generator=generator)


@allowed
def a_configuration() -> Any:
    @dataclasses.dataclass(frozen=True)
    class Config:
        width: int = 3
        path: Path = Path("a")
        started: datetime.datetime = datetime.datetime(2000, 1, 1)
        mode: enum.Enum = enum.Enum("Mode", "A B").A  # type: ignore[attr-defined]
        dtype: Any = te.float32
        extra: Any = dataclasses.field(default_factory=dict)

    config = Config()
    return lambda y: (
        y * config.width + len(config.path.name) + config.started.year + len(config.mode.name) + len(config.extra)
    )


@allowed
def a_setup_at_the_first_call() -> Any:
    cache: dict[str, Any] = {}

    def function(y: Any) -> Any:
        if "k" not in cache:
            cache["k"] = 2.0
        return y * cache["k"]

    return function


@allowed
def a_type_as_a_table() -> Any:
    table = {"relu": F.relu, "tanh": F.tanh, "layer": nn.ReLU, "np": np.float32}
    return lambda y: table["relu"](y)


@pytest.mark.parametrize("case", ALLOWED)
def test_ordinary_code_is_recorded(case: Callable[[], Any], reference: Backend) -> None:
    function = case()
    compiled = te.compile(function)
    for _ in range(4):
        assert seen(compiled(x())) == seen(function(x()))
    assert len(compiled.programs) == 1


# Constants


def test_what_is_said_to_be_constant_is_not_compared(reference: Backend) -> None:
    table, thing = np.ones(1000), Plain()
    thing.rng = random.Random(0)  # type: ignore[attr-defined]

    @te.compile(constant=["table", "thing.rng", "time.time"])
    def function(y: Any) -> Any:
        return y * float(table[0]) + (time.time() > 0) + thing.rng.random() * 0  # type: ignore[attr-defined]

    assert seen(function(x())) == seen(function(x())) == [2.0, -1.0, 4.0]
    assert len(function.programs) == 1
    same = te.compile(lambda y: y * float(table[0]), constant=["table"])
    assert seen(same(x())) == seen(same(x())) == [1.0, -2.0, 3.0]


def test_the_remedy_that_an_error_names_helps(reference: Backend) -> None:
    thing = types.SimpleNamespace(items=[1, random.Random(0)])

    def function(y: Any) -> Any:
        return y + thing.items[0]

    with pytest.raises(te.CaptureError, match=r'constant=\["thing\.items"\]'):
        te.compile(function)(x())
    assert seen(te.compile(function, constant=["thing.items"])(x())) == [2.0, -1.0, 4.0]


def holders(source: Any) -> dict[str, Any]:
    """Objects whose attribute ``source`` a compiled function may mention."""
    parameter = te.ones(1, requires_grad=True)
    found = {
        "a namespace": types.SimpleNamespace(),
        "a module": te.nn.Linear(1, 1),
        "an optimizer": te.optim.SGD([parameter], lr=0.1),
        "a distribution": te.distributions.Normal(te.zeros(1), te.ones(1)),
    }
    for holder in found.values():
        holder.source = source
    return found


@pytest.mark.parametrize("holder", holders(None))
@pytest.mark.parametrize(
    "source", [lambda: random.Random(0), lambda: np.random.default_rng(0), lambda: iter(range(9))],
    ids=["Random", "Generator", "iterator"],
)  # fmt: skip
def test_what_advances_is_refused_wherever_it_is_kept(
    source: Callable[[], Any], holder: str, reference: Backend
) -> None:
    for value in (source(), [1, source()]):
        thing = holders(value)[holder]

        def function(y: Any) -> Any:
            found = thing.source[1] if isinstance(thing.source, list) else thing.source  # noqa: B023
            return y * (next(found) if hasattr(found, "__next__") else found.random())

        with pytest.raises(te.CaptureError, match=r"cannot be compared|random"):
            te.compile(function)(x())


def test_constant_must_be_a_list(reference: Backend) -> None:
    with pytest.raises(te.ArgumentError, match="list of names"):
        te.compile(lambda y: y, constant="table")


def test_a_constant_tensor_that_is_an_argument_too(reference: Backend) -> None:
    weight = te.ones(3)
    function = te.compile(lambda y: y * weight, constant=["weight"])
    for _ in range(2):
        assert seen(function(weight)) == [1.0] * 3
    assert seen(function(x())) == seen(x())


# Arguments and results


@dataclasses.dataclass
class Batch:
    image: te.Tensor
    label: Any
    count: int = 2
    made: Any = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        self.made = self.image * 2
        self.more = [self.image + 1]


class Point(NamedTuple):
    a: Any
    b: Any


class Options(dict[str, Any]):
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: Any
    b: Any


class Lookup(collections.abc.Mapping[str, Any]):
    def __init__(self, **items: Any) -> None:
        self._items = items

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Any:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def test_a_dataclass_as_an_argument(backend: Backend) -> None:
    function = te.compile(lambda batch: (batch.image + batch.made + batch.more[0] + batch.label["k"]) * batch.count)
    for k in range(4):
        batch = Batch(x() * k, {"k": x() + k})
        assert seen(function(batch)) == seen(function.function(batch))
    assert len(function.programs) == 1
    batch.count = 3
    assert seen(function(batch)) == seen(function.function(batch))
    assert len(function.programs) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda y: Batch(y, [y * 2]),
        lambda y: Point(y, y * 2),
        lambda y: Frozen(y, (y * 2, None)),
        lambda y: Options(a=y, b=y * 2),
        lambda y: collections.OrderedDict(b=y, a=y * 2),
        lambda y: collections.defaultdict(list, a=y),
        lambda y: Lookup(a=y, b=y * 2),
        lambda y: types.MappingProxyType({"a": y}),
        lambda y: collections.UserDict(a=y),
        lambda y: collections.ChainMap({"a": y}),
    ],
    ids=lambda make: "",
)
def test_containers_as_arguments_and_results(make: Callable[[Any], Any], backend: Backend) -> None:
    from tinyedge.compiler.program import map_tensors, tensors_in

    function = te.compile(lambda value: map_tensors_eagerly(value))
    results = []
    for k in range(3):
        value = make(x() * k)
        result, same = function(value), te.compile(lambda y: make(y * 3))
        assert [seen(t) for t in tensors_in(result)] == [seen(t) for t in tensors_in(value)]
        assert type(result) is type(value)
        results.append(result)
        for _ in range(3):
            inner = same(x() * k)
            assert type(inner) is type(value)
            assert [seen(t) for t in tensors_in(inner)] == [seen(t) for t in tensors_in(make(x() * k * 3))]
    assert len(function.programs) == 1
    assert [seen(t) for t in tensors_in(results[1])] == [seen(t) for t in tensors_in(make(x()))]
    assert map_tensors(results[0], lambda t: t) is not results[0]


def map_tensors_eagerly(value: Any) -> Any:
    return value


def test_what_a_dataclass_result_holds_beside_fields(reference: Backend) -> None:
    function = te.compile(lambda y: Batch(y, [y]))
    function(x())
    result = function(x() * 2)
    assert seen(result.made) == [4.0, -8.0, 12.0]
    assert seen(result.more) == [[3.0, -3.0, 7.0]]
    assert result.count == 2


def test_an_argument_that_holds_itself(reference: Backend) -> None:
    batch = Batch(x(), None)
    batch.label = batch
    function = te.compile(lambda batch: batch.label.label.image * 2)
    for _ in range(3):
        assert seen(function(batch)) == [2.0, -4.0, 6.0]


def test_an_unknown_argument_is_refused_by_name(reference: Backend) -> None:
    function = te.compile(lambda y, rng: y * rng.random())
    with pytest.raises(te.CaptureError, match="rng"):
        function(x(), random.Random(0))
    with pytest.raises(te.ArgumentError, match=r"batch\.a is a NumPy array"):
        te.compile(lambda batch: batch.image)(Frozen(np.ones(2), 1))


def test_an_attribute_of_an_argument_is_compared(reference: Backend) -> None:
    function = te.compile(lambda y: y * getattr(y, "k", 2.0))
    y = x()
    assert seen(function(y)) == seen(function(y)) == [2.0, -4.0, 6.0]
    y.k = 3.0  # type: ignore[attr-defined]
    assert seen(function(y)) == seen(function(y)) == [3.0, -6.0, 9.0]


# TINYEDGE_COMPILE=check


def differing(name: str) -> Any:
    """A function whose replay differs from the eager call, and its first arguments."""
    hidden, model = Plain(2.0), nn.Sequential(nn.Linear(3, 3))
    counter = te.zeros(3)
    model.register_buffer("mean", te.zeros(3))

    def result(y: Any) -> Any:
        return y, [{"logits": y * hidden.k}]

    def gradient(y: Any) -> Any:
        (model(y.reshape(1, 3)).sum() * hidden.k).backward()
        return y * 1

    def buffer(y: Any) -> Any:
        model.mean.copy_(y * hidden.k)
        return y * 1

    def argument(y: Any) -> Any:
        y.mul_(hidden.k)

    def unknown_to_the_replay(y: Any) -> Any:
        if hidden.k != 2.0:
            counter.add_(1.0)
        return y * 1

    return locals()[name], hidden


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("result", r"result \[1\]\[0\]\['logits'\], of shape \(3,\), by"),
        ("gradient", r"gradient of model\.0\.(weight|bias)"),
        ("buffer", r"buffer model\.mean"),
        ("argument", r"argument 0"),
        ("unknown_to_the_replay", "counter"),
    ],
)
def test_the_first_difference_of_a_check_is_named(
    name: str, text: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYEDGE_COMPILE", "check")
    function, hidden = differing(name)
    checked = te.compile(function, constant=["hidden"])
    for _ in range(3):
        checked(x())
    hidden.k = 3.0
    with pytest.raises(te.CaptureError, match=text):
        checked(x())
