"""Objects, classes and functions that change between two calls of a compiled function: it is noticed."""

from __future__ import annotations

import abc
import argparse
import collections
import dataclasses
import dis
import enum
import functools
import importlib
import inspect
import sys
import tokenize
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinyedge as te
from tests.situations import Compile, Situation, after, into, name_of, seen
from tests.situations import row as x
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.compiler import purity
from tinyedge.compiler.bytecode import all_codes, mentions

pytestmark = pytest.mark.check
SITUATIONS: list[Situation] = []
situation = into(SITUATIONS)


@situation
def other_things(compile: Compile) -> list[Any]:
    """Arrays, queues and such are told apart, though not what they hold."""
    array, queue = np.ones(3, np.float32), collections.deque([1.0])
    f = compile(lambda y: y * te.tensor(array) + queue[0])

    def change() -> None:
        nonlocal array
        array = np.full(3, 2.0, np.float32)

    def and_then() -> None:
        nonlocal queue
        queue = collections.deque([5.0])

    return after(lambda: f(x()), change, and_then)


@situation
def a_closure_over_a_number(compile: Compile) -> list[Any]:
    factor: Any = 1.0
    f = compile(lambda y: y * factor)

    def change() -> None:
        nonlocal factor
        factor = 4.0

    return after(lambda: f(x()), change)


@situation
def an_attribute_of_a_layer(compile: Compile) -> list[Any]:
    model = nn.Sequential(nn.LeakyReLU(0.1), nn.Flatten(0))
    f = compile(lambda y: model(y))
    return after(
        lambda: f(x()),
        lambda: setattr(model[0], "negative_slope", 0.5),
        lambda: setattr(model[1], "start_dim", 1),
    )


@situation
def a_compiled_function_in_itself(compile: Compile) -> list[Any]:
    def count(y: te.Tensor, n: int) -> te.Tensor:
        result: te.Tensor = y if n == 0 else compiled(y + 1, n - 1)
        return result

    compiled = compile(count)
    return after(lambda: compiled(x(), 3)) + after(lambda: compiled(x(), 2))


@situation
def unhashable_arguments(compile: Compile) -> list[Any]:
    f = compile(lambda y, which, chosen: y[:, which] * sum(chosen))
    return (
        after(lambda: f(x(), slice(0, 2), {1.0, 2.0}))
        + after(lambda: f(x(), slice(1, 2), {1.0, 2.0}))
        + after(lambda: f(x(), slice(1, 2), {1.0}))
    )


@situation
def kinds_of_methods(compile: Compile) -> list[Any]:
    class Holder(nn.Module):
        factor = 2.0

        def whole(cls, y: te.Tensor) -> Any:
            return y * cls.factor

        def alone(y: te.Tensor) -> Any:
            return y + 1

        outer_class = classmethod(compile(whole))
        outer_static = staticmethod(compile(alone))
        inner_class = compile(classmethod(whole))  # type: ignore[arg-type]
        inner_static = compile(staticmethod(alone))

    holder = Holder()
    calls = (
        holder.outer_class, holder.outer_static, holder.inner_class, holder.inner_static,
        Holder.outer_class, Holder.outer_static, Holder.inner_class, Holder.inner_static,
    )  # fmt: skip
    return [result for call in calls for result in after(lambda call=call: call(x()))]  # type: ignore[misc]


@situation
def signatures(compile: Compile) -> list[Any]:
    f = compile(lambda *ys, scale=1.0, **named: sum(ys) * scale + sum(named.values()))
    calls = [
        lambda: f(x(), x()), lambda: f(x(), scale=2.0), lambda: f(x(), a=x()), lambda: f(x(), b=x(), a=x() * 3),
        lambda: f(x(), a=x() * 3, b=x()), lambda: f(x(), x() * 2, scale=te.tensor(3.0)),
    ]  # fmt: skip
    return [result for call in calls for result in after(call)]


class Twice:
    factor = 2.0

    def apply(self, y: te.Tensor) -> te.Tensor:
        return y * self.factor


class Thrice(Twice):
    factor = 3.0


class Added:
    def apply(self, y: te.Tensor) -> te.Tensor:
        return y + 7


@situation
def what_stands_under_another_name(compile: Compile) -> list[Any]:
    """The same values, in the same order even, but not where they were."""
    thing, table = Twice(), {"a": 1.0, "b": 2.0}
    maker = types.SimpleNamespace(first=plain_add, second=plain_multiply)
    f = compile(lambda y: maker.first(thing.apply(y), table.get("a", 7.0)))

    def swapped() -> None:
        maker.first, maker.second = maker.second, maker.first

    def renamed() -> None:
        values = [*table.values()]
        table.clear()
        table.update(zip(("b", "a"), values, strict=True))

    def of_another_class() -> None:
        thing.__class__ = Thrice

    return after(lambda: f(x()), swapped, renamed, of_another_class, lambda: table.pop("a"))


def plain_add(y: te.Tensor, k: float) -> te.Tensor:
    return y + k


def plain_multiply(y: te.Tensor, k: float) -> te.Tensor:
    return y * k


@situation
def a_method_of_a_base_class_that_is_replaced(compile: Compile) -> list[Any]:
    thing = Thrice()
    f = compile(lambda y: thing.apply(y))
    before = Twice.apply

    def replace() -> None:
        Twice.apply = lambda self, y: y - self.factor  # type: ignore[method-assign]

    def restore() -> None:
        Twice.apply = before  # type: ignore[method-assign]

    def derive_from_another() -> None:
        Thrice.__bases__ = (Added,)

    def override() -> None:
        Thrice.apply = lambda self, y: y + 1  # type: ignore[method-assign]

    try:
        return after(lambda: f(x()), replace, restore, derive_from_another, override)
    finally:
        restore()
        Thrice.__bases__ = (Twice,)
        if "apply" in vars(Thrice):
            del Thrice.apply


@situation
def a_variable_that_comes_and_goes(compile: Compile) -> list[Any]:
    """A variable of a closure without a value is another kind than one with any."""
    shift: float

    def function(y: te.Tensor) -> te.Tensor:
        try:
            return y + shift
        except NameError:
            return y * 100

    f = compile(function)
    results = [seen(f(x())), seen(f(x()))]
    shift = 1.0
    results += [seen(f(x())), seen(f(x()))]
    del shift
    return [*results, seen(f(x())), seen(f(x()))]


@situation
def an_exception_in_the_middle(compile: Compile) -> list[Any]:
    w = te.ones(3, requires_grad=True)
    fails = [True]

    def function(y: te.Tensor) -> te.Tensor:
        loss = (w * y).sum()
        if fails[0]:
            raise RuntimeError("in the middle")
        loss.backward()
        return loss

    f = compile(function)
    with pytest.raises(RuntimeError, match="in the middle"):
        f(x())
    fails[0] = False
    found = after(lambda: (f(x()), w.grad))
    fails[0] = True
    with pytest.raises(RuntimeError, match="in the middle"):
        f(x())
    return [*found, seen(w.grad)]


@situation
def a_partial_that_gets_other_arguments(compile: Compile) -> list[Any]:
    scaled = functools.partial(plain_multiply, k=2.0)
    f = compile(lambda y: scaled(y))
    return after(lambda: f(x()), lambda: scaled.__setstate__((plain_multiply, (), {"k": 3.0}, {})))  # type: ignore[attr-defined]


class Row(NamedTuple):
    scale: float
    shift: float


@situation
def a_named_tuple(compile: Compile) -> list[Any]:
    rows = [Row(1.0, 2.0), collections.namedtuple("Other", "scale shift")(3.0, 4.0)]
    f = compile(lambda y: [y * row.scale + row.shift for row in rows])
    return after(lambda: f(x()), lambda: rows.reverse(), lambda: rows.__setitem__(0, Row(5.0, 6.0)))


@situation
def a_class_that_is_registered(compile: Compile) -> list[Any]:
    class Scales(abc.ABC):  # noqa: B024
        pass

    thing = Twice()
    f = compile(lambda y: thing.apply(y) if isinstance(thing, Scales) else y)
    return after(lambda: f(x()), lambda: Scales.register(Twice))


@situation
def the_modes_that_are_asked_for(compile: Compile) -> list[Any]:
    f = compile(lambda y: y * (2.0 if te.is_grad_enabled() else 3.0))
    return after(lambda: f(x())) + after(te.no_grad()(lambda: f(x()))) + after(lambda: f(x()))


@situation
def a_property_of_an_optimizer(compile: Compile) -> list[Any]:
    w = te.ones(1, requires_grad=True)
    optimizer = te.optim.SGD([w], lr=0.1, accumulate=3)
    f = compile(lambda y: y * optimizer.pending)

    def change() -> None:
        w.sum().backward()
        optimizer.step()

    return after(lambda: f(x()), change, change)


@situation
def an_attribute_of_a_compiled_function(compile: Compile) -> list[Any]:
    inner: Any = compile(lambda y: y * 2)
    inner.scale = 2.0
    f = compile(lambda y: inner(y) * inner.scale)
    return after(lambda: f(x()), lambda: setattr(inner, "scale", 3.0))


def test_a_module_with_the_name_of_one_of_pythons(
    reference: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("SCALE = 2.0\n\n\ndef scaled(y):\n    return y * SCALE\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    purity.top_of.cache_clear()
    module: Any = importlib.import_module("colorsys")
    try:
        f = te.compile(lambda y: module.scaled(y))
        assert after(lambda: f(te.ones(1)), lambda: setattr(module, "SCALE", 3.0)) == [[2.0], [2.0], [3.0], [3.0]]
    finally:
        del sys.modules["colorsys"]
        purity.top_of.cache_clear()


@situation
def written_through_vars(compiled: Compile) -> list[Any]:
    """Of a layer of the package's own, and of one inside of a model."""
    layer, model = nn.LeakyReLU(0.1), nn.Sequential(nn.Identity(), nn.LeakyReLU(0.1))
    functions = [compiled(lambda y: layer(y)), compiled(lambda y: model(y))]
    found: list[Any] = []
    for change in (
        lambda own: own,
        lambda own: own.__setitem__("negative_slope", 0.5),
        lambda own: own.update(negative_slope=0.25),
        lambda own: own.pop("negative_slope") and own.setdefault("negative_slope", 4.0),
    ):
        change(vars(layer))
        change(vars(model[1]))
        found += [seen(function(x())) for function in functions for _ in range(2)]
    return found


@situation
def what_numpy_does_about_errors(compiled: Compile) -> list[Any]:
    values = np.array([1.0, 0.0])

    def quotient(y: te.Tensor) -> te.Tensor:
        return y * float(np.divide(values[0], values[1] + 4.0 - 4.0))

    function = compiled(quotient)
    found: list[Any] = []
    for state in ("ignore", "raise", "ignore"):
        with np.errstate(divide=state):
            for _ in range(2):
                try:
                    found.append(seen(function(te.ones(1))))
                except FloatingPointError as error:
                    found.append(str(error))
    return found


@situation
def errors_that_are_set_inside(compiled: Compile) -> list[Any]:
    def sets(y: te.Tensor) -> te.Tensor:
        np.errstate(divide="raise").__enter__()
        return y * 2

    function = compiled(sets)
    found: list[Any] = []
    for _ in range(3):
        with np.errstate(divide="ignore"):
            found += [seen(function(x())), np.geterr()["divide"], seen(function(x())), np.geterr()["divide"]]
    return found


def test_hashes_that_are_equal_at_each_call(backend: Backend) -> None:
    """Of what is no tensor; and of tensors that are found in dicts and sets."""

    def function(y: te.Tensor) -> te.Tensor:
        return y * float(hash("a text") % 5 + hash((1, 2)) % 3)

    def finds(y: te.Tensor) -> te.Tensor:
        factors = {y: 3.0}
        return y * factors[y] * len({y, y})

    for each in (function, finds):
        compiled = te.compile(each)
        assert [compiled(x()).tolist() for _ in range(3)] == [each(x()).tolist()] * 3


@pytest.mark.filterwarnings("ignore:Overwriting existing generated code")  # pyopencl's, of two threads
@pytest.mark.parametrize("function", SITUATIONS, ids=name_of)
def test_a_change_between_two_calls_is_noticed(function: Situation, backend: Backend) -> None:
    eager = function(lambda f: f)
    assert function(te.compile) == eager


def test_what_is_read_and_never_used_is_mentioned() -> None:
    def function(x: Any) -> Any:
        unused = functools.partial.keywords  # noqa: F841
        return x

    assert [(read.name, read.dotted) for read in mentions(function.__code__).reads] == [
        ("functools", ("partial", "keywords"))
    ]


def test_every_name_in_code_is_mentioned() -> None:
    """In other people's code, with all that it does with comprehensions, closures and branches."""
    reads = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "STORE_ATTR", "DELETE_ATTR")
    for module in (argparse, collections, dataclasses, enum, functools, inspect, tokenize):
        for code in list(all_codes(compile(inspect.getsource(module), module.__name__, "exec")))[1:]:
            found = mentions(code)
            globals_ = {read.name for read in found.reads if read.root == "global"}
            attributes = {*found.attributes, "__class__"}.union(*[read.dotted for read in found.reads])
            steps = [step for each in all_codes(code) for step in dis.get_instructions(each)]
            assert {step.argval for step in steps if step.opname in reads} <= attributes, code
            assert {step.argval for step in steps if step.opname == "LOAD_GLOBAL"} <= globals_, code
