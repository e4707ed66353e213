"""What Python's, NumPy's and this package's own code reads of the user's objects, without a name in the user's code."""

from __future__ import annotations

import copy
import dataclasses
import decimal
import itertools
import logging
import operator
import pprint
import reprlib
import string
import traceback
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.situations import after
from tests.situations import row as x
from tinyedge import distributions
from tinyedge.amp import GradScaler
from tinyedge.backends import Backend
from tinyedge.errors import CaptureError

pytestmark = pytest.mark.check


class Thing:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Underscored:
    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, "_" + name)


@typing.runtime_checkable
class Weighty(typing.Protocol):
    weight: float


Change = Callable[[], Any]
LOGGER = logging.getLogger(__name__)


def namespaces_that_are_equal() -> tuple[Callable[..., Any], Change]:
    a, b = types.SimpleNamespace(**{"hid" + "den": 1}), types.SimpleNamespace(**{"hid" + "den": 1})
    return lambda y: y * (2 if a == b else 3), lambda: setattr(b, "hidden", 5)


def namespaces_in_a_list() -> tuple[Callable[..., Any], Change]:
    a, b = types.SimpleNamespace(**{"hid" + "den": 1}), types.SimpleNamespace(**{"hid" + "den": 1})
    return lambda y: y * (2 if [a].count(b) else 3), lambda: setattr(b, "hidden", 5)


def a_namespace_as_text() -> tuple[Callable[..., Any], Change]:
    a = types.SimpleNamespace(**{"hid" + "den": 1})
    return lambda y: y * len(repr(a)), lambda: setattr(a, "hidden", 1000)


def text_of_an_object(make: Callable[[Any], str]) -> Callable[[], tuple[Callable[..., Any], Change]]:
    class Shown(Thing):
        def __repr__(self) -> str:
            return self.hidden * 2  # type: ignore[attr-defined, no-any-return]

    def case() -> tuple[Callable[..., Any], Change]:
        thing = Shown(**{"hid" + "den": "a"})
        return lambda y: y * len(make(thing)), lambda: setattr(thing, "hidden", "abc")

    return case


def whether_namespaces_are_equal(ask: Callable[..., Any]) -> Callable[[], tuple[Callable[..., Any], Change]]:
    def case() -> tuple[Callable[..., Any], Change]:
        a, b = types.SimpleNamespace(**{"hid" + "den": 1}), types.SimpleNamespace(**{"hid" + "den": 1})
        return lambda y: y * (2 + ask(a, b)), lambda: setattr(b, "hidden", 5)

    return case


def the_state_of_an_object() -> tuple[Callable[..., Any], Change]:
    thing = Thing(a=1)
    return lambda y: y * sum(thing.__reduce_ex__(2)[2].values()), lambda: setattr(thing, "a", 5)


def the_state_of_a_copy() -> tuple[Callable[..., Any], Change]:
    thing = Thing(a=1)
    return lambda y: y * sum(copy.copy(thing).__reduce_ex__(2)[2].values()), lambda: setattr(thing, "a", 5)


def the_names_of_an_object() -> tuple[Callable[..., Any], Change]:
    thing = Thing(a=1)
    return lambda y: y * len(thing.__dir__()), lambda: setattr(thing, "b", 5)


def attributes_by_computed_names() -> tuple[Callable[..., Any], Change]:
    thing = Underscored()
    object.__setattr__(thing, "_scale", 1)
    return lambda y: y * thing.scale, lambda: object.__setattr__(thing, "_scale", 5)


def a_protocol() -> tuple[Callable[..., Any], Change]:
    thing = Thing()
    return lambda y: y * (2 if isinstance(thing, Weighty) else 3), lambda: setattr(thing, "weight", 1.0)


def a_vectorized_function() -> tuple[Callable[..., Any], Change]:
    table = {"k": 1}
    function = np.vectorize(lambda value: value * table["k"])
    return lambda y: y * float(function(3)), lambda: table.update(k=2)


def a_polynomial() -> tuple[Callable[..., Any], Change]:
    polynomial = np.poly1d([1.0, 2.0])
    return lambda y: y * float(polynomial(2)), lambda: polynomial.coeffs.__setitem__(0, 4.0)


def the_level_of_a_logger() -> tuple[Callable[..., Any], Change]:
    LOGGER.setLevel(logging.INFO)
    return (
        lambda y: y * (2 if LOGGER.isEnabledFor(logging.DEBUG) else 3),
        lambda: LOGGER.setLevel(logging.DEBUG),
    )


def the_level_of_a_logger_that_is_looked_up() -> tuple[Callable[..., Any], Change]:
    LOGGER.setLevel(logging.INFO)
    return lambda y: y * logging.getLogger(__name__).level, lambda: LOGGER.setLevel(logging.DEBUG)


def the_precision_of_decimals() -> tuple[Callable[..., Any], Change]:
    context = decimal.getcontext()
    context.prec = 28
    return lambda y: y * float(decimal.Decimal(1) / 3 * 1000), lambda: setattr(context, "prec", 2)


def what_an_exception_carries() -> tuple[Callable[..., Any], Change]:
    stop, system = StopIteration(1), OSError(2, "text")

    def change() -> None:
        stop.value, system.errno = 3, 4

    return lambda y: y * stop.value * (system.errno or 0), change


def a_distribution() -> tuple[Callable[..., Any], Change]:
    normal = distributions.Normal(te.tensor([0.0]), te.tensor([1.0]))
    return lambda y: normal.log_prob(y), lambda: setattr(normal, "loc", te.tensor([5.0]))


def the_defaults_of_a_dataclass() -> tuple[Callable[..., Any], Change]:
    @dataclasses.dataclass
    class Options:
        scale: int = 1

    field = vars(Options)["__dataclass_fields__"]["scale"]
    return lambda y: y * sum(each.default for each in dataclasses.fields(Options)), lambda: setattr(field, "default", 7)


class Words(str):
    """A user's text."""


TEXTS: list[Callable[[Any], str]] = [
    pprint.pformat, reprlib.repr, operator.methodcaller("__str__"), Words, lambda thing: operator.mod("%s", thing),
    lambda thing: "%s".__mod__(thing), lambda thing: thing.__str__(),
    lambda thing: string.Template("$a").substitute(a=thing),
]  # fmt: skip
EQUALS: list[Callable[[Any, Any], Any]] = [
    operator.eq, lambda a, b: operator.contains([a], b), lambda a, b: len([*itertools.groupby([a, b])]),
    lambda a, b: [a].__eq__([b]),
]  # fmt: skip
FOUND = [
    *map(text_of_an_object, TEXTS), *map(whether_namespaces_are_equal, EQUALS),
    a_distribution, a_namespace_as_text, a_polynomial, a_protocol, a_vectorized_function, attributes_by_computed_names,
    namespaces_in_a_list, namespaces_that_are_equal, the_level_of_a_logger, the_level_of_a_logger_that_is_looked_up,
    the_defaults_of_a_dataclass, the_names_of_an_object, the_precision_of_decimals, the_state_of_a_copy,
    the_state_of_an_object, what_an_exception_carries,
]  # fmt: skip


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    with decimal.localcontext():
        yield
    LOGGER.setLevel(logging.NOTSET)


@pytest.mark.parametrize("make", FOUND, ids=lambda make: make.__name__)
def test_what_a_library_reads_of_an_object_is_noticed(make: Callable[[], Any], backend: Backend) -> None:
    outcomes = []
    for compile in (lambda f: f, te.compile):
        function, change = make()
        compiled = compile(function)
        outcomes.append(after(lambda compiled=compiled: compiled(x()), change))  # type: ignore[misc]
    assert outcomes[0][0] != outcomes[0][-1], "the change must make a difference"
    assert outcomes[1] == outcomes[0]


def test_the_offset_of_an_argument_is_noticed(backend: Backend) -> None:
    step, base = te.compile(lambda y: y * y.storage_offset()), te.arange(6.0)
    for offset in (1, 1, 2, 3):
        assert step(base[offset : offset + 2]).tolist() == [offset * offset, (offset + 1) * offset]


REFUSED: list[tuple[str, Callable[[], Callable[[te.Tensor], Any]]]] = [
    ("a ufunc of a Python function", lambda: (lambda u: lambda y: y * float(u(3)))(np.frompyfunc(lambda v: v, 1, 1))),
    ("the stack", lambda: lambda y: y * len(traceback.extract_stack())),
    ("type hints", lambda: lambda y: y * len(typing.get_type_hints(Weighty))),
    ("the scale", lambda: (lambda scaler: lambda y: y * scaler.get_scale())(GradScaler())),
    ("the scale in a state", lambda: (lambda scaler: lambda y: y * len(scaler.state_dict()))(GradScaler())),
]


@pytest.mark.parametrize("make", [make for _, make in REFUSED], ids=[name for name, _ in REFUSED])
def test_what_changes_unseen_is_refused(make: Callable[[], Callable[[te.Tensor], Any]], backend: Backend) -> None:
    with pytest.raises(CaptureError):
        te.compile(make())(x())
