"""What a compiled function reads of objects, and by special methods, is compared from call to call."""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tinyedge as te
from tests.situations import Case, Plain, into, name_of, require_compared, restored, setting
from tinyedge import nn
from tinyedge.backends import Backend

pytestmark = pytest.mark.check
COMPARED: list[Case] = []
compared = into(COMPARED)


K: Any = 2.0


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield from restored(globals(), K=2.0)


def put(**values: Any) -> Callable[[], None]:
    """Set globals of this file."""
    return lambda: globals().update(values)


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


@pytest.mark.parametrize("case", COMPARED, ids=name_of)
def test_what_is_read_is_compared(case: Case, reference: Backend) -> None:
    require_compared(case)
