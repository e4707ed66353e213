"""Arguments and results of compiled functions: containers, dataclasses, and what they hold besides."""

from __future__ import annotations

import collections
import dataclasses
import random
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinyedge as te
from tests.situations import sample as x
from tests.situations import seen
from tinyedge.backends import Backend

pytestmark = pytest.mark.check


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
