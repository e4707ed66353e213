"""The attributes of an object are compared wherever code reads them, and however they are set."""

from __future__ import annotations

import argparse
import operator
import types
from collections.abc import Callable
from typing import Any

import pytest

import tinyedge as te
from tests.situations import Case, Plain, into, name_of, require_compared, sample, seen, setting
from tinyedge import nn
from tinyedge.backends import Backend

pytestmark = pytest.mark.check
COMPARED: list[Case] = []
compared = into(COMPARED)


class Attributes(dict[str, Any]):
    """A kind of dict: an object's ``__dict__`` may be one."""


def plain() -> Any:
    return Plain()


def in_a_kind_of_dict() -> Any:
    thing = Plain()
    thing.__dict__ = Attributes(k=2.0)
    return thing


def of_a_function() -> Any:
    def thing() -> None:
        pass

    thing.k = 2.0  # type: ignore[attr-defined]
    return thing


def of_a_tensor() -> Any:
    thing: Any = te.ones(1)
    thing.k = 2.0
    return thing


def of_a_layer() -> Any:
    thing: Any = nn.Linear(1, 1)
    thing.k = 2.0
    return thing


def of_a_parameter() -> Any:
    thing: Any = nn.Linear(1, 1)
    thing.weight.k = 2.0
    return thing.weight


def of_the_command_line() -> Any:
    return argparse.Namespace(k=2.0)


MAKES = (plain, of_the_command_line, in_a_kind_of_dict, of_a_function, of_a_tensor, of_a_layer, of_a_parameter)
CHANGES: dict[str, Callable[[Any], None]] = {
    "assigned": lambda thing: setattr(thing, "k", 3.0),
    "by_object": lambda thing: object.__setattr__(thing, "k", 3.0),
    "in_the_dict": lambda thing: vars(thing).update(k=3.0),
    "another_dict": lambda thing: setattr(thing, "__dict__", {**vars(thing), "k": 3.0}),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", MAKES, ids=name_of)
def test_attributes_are_compared_however_they_are_set(make: Callable[[], Any], change: str, reference: Backend) -> None:
    def case() -> Any:
        thing = make()
        return lambda y: y * thing.k, lambda: CHANGES[change](thing)

    require_compared(case)


@pytest.mark.parametrize("way", ["k", "_parameters"])
def test_what_replaces_a_dict_of_a_layer_is_compared_too(way: str, reference: Backend) -> None:
    layer: Any = nn.Linear(3, 3, bias=False)
    layer.k = 2.0
    compiled = te.compile(lambda y: layer(y) * layer.k)
    layer.__dict__ = dict(vars(layer))
    layer._parameters = dict(layer._parameters)
    compiled(sample())
    if way == "k":
        vars(layer)["k"] = 3.0
    else:
        layer._parameters["weight"] = nn.Parameter(te.eye(3))
    assert seen(compiled(sample())) == seen(layer(sample()) * layer.k)


@compared
def attributes_in_a_comprehension_of_a_method() -> Any:
    class Thing:
        def __init__(self) -> None:
            self.k, self.items = 2.0, [1.0, 2.0]

        def total(self) -> float:
            return sum(self.k * item for item in self.items)

    thing = Thing()
    return lambda y: y * thing.total(), setting(thing, "k")


@compared
def an_attribute_in_a_function_inside() -> Any:
    thing = Plain(2.0)

    def scaled(y: te.Tensor, options: Any) -> Any:
        def times() -> Any:
            return y * options.k

        return times()

    return lambda y: scaled(y, thing), setting(thing, "k")


@compared
def the_class_of_an_object_with_slots() -> Any:
    class Once:
        __slots__ = ("k",)

        def get(self) -> Any:
            return self.k

    class Twice:
        __slots__ = ("k",)

        def get(self) -> Any:
            return 2 * self.k

    thing: Any = Once()
    thing.k = 2.0
    return lambda y: y * thing.get(), setting(thing, "__class__", Twice)


ODD = {
    "getattr": lambda y, thing: y * getattr(thing, "k-1"),
    "hasattr": lambda y, thing: y * (2 if hasattr(thing, "0") else 3),
    "attrgetter": lambda y, thing: y * operator.attrgetter("k-1")(thing),
    "format": lambda y, thing: y * len("{o.k-1}".format(o=thing)),
}


@pytest.mark.parametrize("make", MAKES, ids=name_of)
@pytest.mark.parametrize("read", ODD)
def test_names_that_are_no_identifiers(make: Callable[[], Any], read: str, reference: Backend) -> None:
    def case() -> Any:
        thing, function = make(), ODD[read]
        setattr(thing, "k-1", 2.0)
        return lambda y: function(y, thing), lambda: vars(thing).update({"k-1": 3.25, "0": None})

    require_compared(case)


@compared
def whether_a_namespace_has_a_name() -> Any:
    thing, names = argparse.Namespace(), ["fl" + "ag"]
    return lambda y: y * (2 if names[0] in thing else 3), setting(thing, "flag")


@compared
def an_attribute_of_a_module_through_its_dict() -> Any:
    module = types.ModuleType("users")
    module.k = 2.0  # type: ignore[attr-defined]
    return lambda y: y * module.__dict__["k"], setting(module, "k")


@pytest.mark.parametrize("case", COMPARED, ids=name_of)
def test_what_is_read_is_compared(case: Case, reference: Backend) -> None:
    require_compared(case)
