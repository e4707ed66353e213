"""Tensors, gradients and results that change between two calls of a compiled function: it is noticed."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.situations import Compile, Situation, after, into, name_of, seen
from tests.situations import row as x
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

pytestmark = pytest.mark.check
SITUATIONS: list[Situation] = []
situation = into(SITUATIONS)


@situation
def results_of_many_kinds(compile: Compile) -> list[Any]:
    given = x()
    functions = [
        lambda y: (y * 2, [y + 1, {"a": (y, None)}], 3, "text"),
        lambda y: None,
        lambda y: y,
        lambda y: (y[0, 1:], y.t()),
        lambda y: (z := y * 2, z, z[0]),
        lambda y: types.SimpleNamespace(a=1).a,
        lambda y: te.zeros(0, 3) + y[:0],
    ]
    return [result for function in functions for result in after(functools.partial(compile(function), given))]


@situation
def results_that_are_the_argument(compile: Compile) -> list[Any]:
    """A view of the argument shares its memory; and one tensor that is returned twice is one."""
    f = compile(lambda y: (y, y[0], z := y * 2, z[0]))
    found = []
    for _ in range(3):
        given = x()
        same, row, double, part = f(given)
        given.add_(1.0)
        double.mul_(2.0)
        found.append(seen((same, row, double, part)))
    return found


@situation
def arguments_that_overlap(compile: Compile) -> list[Any]:
    def both(a: te.Tensor, b: te.Tensor) -> None:
        a.add_(1.0)
        b.mul_(2.0)

    f = compile(both)
    found = []
    for start in (0, 1, 2, 0):
        whole = te.tensor(np.arange(5, dtype=np.float32))
        for _ in range(2):
            f(whole[:3], whole[start : start + 3])
        found.append(seen(whole))
        single = te.ones(3)
        for _ in range(2):
            f(single, single)
        found.append(seen(single))
    return found


@situation
def an_argument_of_no_elements(compile: Compile) -> list[Any]:
    f = compile(lambda y: (y * 2, y.sum()))
    return after(lambda: f(te.zeros(0, 3))) + after(lambda: f(te.zeros(2, 3)))


@situation
def gradients_on_and_off(compile: Compile) -> list[Any]:
    w = te.ones(3, requires_grad=True)

    def function(y: te.Tensor) -> te.Tensor:
        loss = (w * y).square().sum()
        if loss.requires_grad:
            loss.backward()
        return loss

    f = compile(function)

    def call() -> Any:
        loss = f(x())
        return loss, w.grad, loss.requires_grad and False

    def under_no_grad() -> Any:
        with te.no_grad():
            return call()

    return after(
        call, lambda: w.requires_grad_(False), lambda: w.requires_grad_(True), lambda: setattr(w, "grad", None)
    ) + after(under_no_grad)


@situation
def walks_back_twice(compile: Compile) -> list[Any]:
    w = te.ones(3, requires_grad=True)

    def function(y: te.Tensor) -> te.Tensor:
        z = w * y
        loss = z.square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        (w * 2).sum().backward()
        return loss

    f = compile(function)
    return after(lambda: (f(x()), w.grad))


@situation
def gradients_of_an_argument(compile: Compile) -> list[Any]:
    def function(y: te.Tensor) -> te.Tensor:
        loss = (y * y).sum()
        loss.backward()
        return loss

    f = compile(function)
    found = []
    for k in range(4):
        y = te.tensor([float(k), 1.0], requires_grad=True)
        if k == 2:
            y.grad = te.tensor([10.0, 10.0])
        found.append(seen((f(y), y.grad)))
        found.append(seen((f(y), y.grad)))
    return found


@situation
def an_argument_that_is_a_parameter_of_the_closure(compile: Compile) -> list[Any]:
    w = te.tensor([1.0, 2.0], requires_grad=True)
    other = te.tensor([3.0, 4.0], requires_grad=True)

    def function(y: te.Tensor) -> te.Tensor:
        loss = (w * y).sum()
        loss.backward()
        return loss

    f = compile(function)
    found = []
    for y in (other, w, other, w, w):
        found.append(seen((f(y), w.grad, other.grad)))
    return found


@situation
def a_change_in_place_of_what_is_outside(compile: Compile) -> list[Any]:
    counter = te.zeros(1)

    def function(y: te.Tensor) -> te.Tensor:
        counter.add_(1.0)
        return y * counter

    f = compile(function)
    return after(lambda: (f(x()), counter), lambda: counter.fill_(10.0), lambda: setattr(counter, "data", te.ones(1)))


@situation
def a_generator_for_dropout(compile: Compile) -> list[Any]:
    generator = te.Generator().manual_seed(5)
    te.manual_seed(0)
    f = compile(lambda y: (F.dropout(y, 0.5, generator=generator), F.dropout(y, 0.5)))
    return [*after(lambda: f(te.ones(16))), generator.get_state(), te.initial_seed()]


@situation
def two_functions_take_turns_at_random_numbers(compile: Compile) -> list[Any]:
    te.manual_seed(7)
    f, g = compile(lambda y: F.dropout(y, 0.5)), compile(lambda y: F.dropout(F.dropout(y, 0.3), 0.3))
    found = []
    for k in range(6):
        found.append(seen((f if k % 3 else g)(te.ones(16))))
        if k == 3:
            te.rand(3)
        if k == 4:
            te.manual_seed(8)
    return found


@situation
def a_gradient_that_is_a_part_of_something(compile: Compile) -> list[Any]:
    w = te.ones(2, requires_grad=True)
    whole = te.zeros(3, 2)

    def function(y: te.Tensor) -> Any:
        (w * y).sum().backward()
        return w.grad

    f = compile(function)
    y = te.tensor([2.0, 3.0])
    return after(lambda: (f(y), whole), *[functools.partial(setattr, w, "grad", whole[k]) for k in (1, 2, 0)])


@situation
def gradients_that_become_parts_of_one_tensor(compile: Compile) -> list[Any]:
    v, w = te.ones(2, requires_grad=True), te.ones(2, requires_grad=True)
    whole = te.zeros(2, 2)

    def function(y: te.Tensor) -> Any:
        ((v * y) @ (w * y)).backward()

    f = compile(function)

    def flat() -> None:
        v.grad, w.grad = whole[0], whole[1]

    def apart() -> None:
        v.grad, w.grad = None, None

    def half() -> None:
        w.grad = whole[1]

    y = te.tensor([2.0, 3.0])
    return after(lambda: (f(y), whole, v.grad, w.grad), flat, apart, half, flat)


@situation
def a_gradient_that_is_returned(compile: Compile) -> list[Any]:
    w = te.ones(2, requires_grad=True)

    def function(y: te.Tensor) -> Any:
        (w * y).sum().backward()
        return w.grad, w.grad[1:]

    f = compile(function)
    found = []
    for k in range(6):
        found.append(f(te.tensor([float(k), 1.0])))
        if k % 2:
            w.grad = None
    return [seen(each) for each in found]


@situation
def indices_outside_their_range(compile: Compile) -> list[Any]:
    table = te.ones(4, 2)
    f = compile(lambda y, labels: (F.cross_entropy(y, labels.flatten()), F.embedding(labels, table)))
    found: list[Any] = []
    for label in (0, 3, 4, 2, -1):
        try:
            found.append(seen(f(te.zeros(1, 4), te.tensor([[label]]))))
        except te.IndexRangeError as error:
            found.append(str(error))
    return found


@situation
def tensors_that_were_computed_or_not(compile: Compile) -> list[Any]:
    f = compile(lambda y: y * (2.0 if y.is_leaf else 3.0) + (1.0 if y.grad_fn is None else 5.0))
    w = x().requires_grad_()
    return after(lambda: f(w)) + after(lambda: f(w * 1)) + after(lambda: f(w))


@situation
def a_result_that_is_the_very_argument(compile: Compile) -> list[Any]:
    f = compile(lambda y, more: (more, [y]))
    found = []
    for given in (x(), x().requires_grad_(), x()):
        for _ in range(2):
            more, (same,) = f(given, given * 1)
            found.append(same is given and more is not given)
    return found


@situation
def an_exception_after_a_change(compile: Compile) -> list[Any]:
    """What was done until then stays done, as in any call."""
    w, counter, fails = te.ones(3, requires_grad=True), te.zeros(1), [False]

    def function(y: te.Tensor) -> te.Tensor:
        w.grad = None
        loss = (w * y).sum()
        loss.backward()
        counter.add_(1.0)
        if fails[0]:
            raise RuntimeError("at the end")
        return loss

    f = compile(function)

    def call() -> Any:
        with contextlib.suppress(RuntimeError):
            f(x() * (2.0 if fails[0] else 1.0))
        return w.grad, counter

    return after(call, lambda: fails.__setitem__(0, True), lambda: fails.__setitem__(0, False))


class Scale(nn.Parameter):
    factor = 2.0


@situation
def a_class_of_tensors(compile: Compile) -> list[Any]:
    w = Scale(te.ones(3))
    f = compile(lambda y: y * w * w.factor)
    g = compile(lambda y: y * (2.0 if isinstance(y, nn.Parameter) else 3.0))
    before = Scale.factor
    try:
        found = after(lambda: f(x()), lambda: setattr(Scale, "factor", 3.0), lambda: setattr(w, "factor", 4.0))
    finally:
        Scale.factor = before
    given = te.ones(3, requires_grad=True)
    return [*found, *after(lambda: g(given)), *after(lambda: g(nn.Parameter(te.ones(3)))), *after(lambda: g(given))]


@situation
def results_from_the_host_that_are_changed(compile: Compile) -> list[Any]:
    f = compile(lambda y: (y * 2, te.tensor([1, 2]), [z := te.tensor([3.0]), z]))
    found = []
    for _ in range(4):
        _, first, (second, third) = f(x())
        found.append(seen((first, second, third)))
        first.add_(1)
        second.mul_(2.0)
        found.append(seen((first, second, third)))
    return found


@pytest.mark.parametrize("mode", ["1", "check"])
def test_random_numbers_are_drawn_once_for_each_call(backend: Backend, mode: str, monkeypatch: Any) -> None:
    """From the generator that the call names; abstract tracing draws none."""
    monkeypatch.setenv("TINYEDGE_COMPILE", mode)
    generator = te.Generator().manual_seed(5)
    f = te.compile(lambda y: F.dropout(y, 0.5, generator=generator))
    f.prepare(x())
    for count in range(4):
        assert generator.get_state() == (5, count)
        f(x())


@situation
def an_argument_that_gets_a_history(compile: Compile) -> list[Any]:
    w = te.ones(3, requires_grad=True)
    f = compile(lambda y: y.add_(w))
    found = []
    for _ in range(1):
        y = x()
        f(y)
        y.sum().backward()
        found.append(seen((y, w.grad)))
    return found


def test_walking_back_through_what_was_before_is_refused(backend: Backend) -> None:
    """Its values would not come again: the gradient of the first sample would be added at each replay."""
    w = te.ones(3, requires_grad=True)

    @te.compile
    def step(hidden: te.Tensor) -> te.Tensor:
        loss = hidden.square().sum()
        loss.backward()
        return loss

    with pytest.raises(te.CaptureError, match=r"backward\(\) at .*test_guards_\w+\.py.*steps from before the call"):
        step(w * x())
    assert w.grad is None


@pytest.mark.parametrize(
    "read",
    [
        lambda y: hash(y),
        lambda y: y.__hash__(),
        lambda y: sum(map(hash, [y, y])),
        lambda y: hash((1, y)),
        lambda y: [hash][0](y),
    ],
)
def test_the_hash_of_a_tensor_is_refused(backend: Backend, read: Callable[[te.Tensor], int]) -> None:
    """It is another for each argument."""
    function = te.compile(lambda y: y * float(read(y) % 7))
    for _ in range(2):
        with pytest.raises(te.CaptureError, match=r"hash of a tensor.*another at each call"):
            function(x())


@pytest.mark.filterwarnings("ignore:Overwriting existing generated code")  # pyopencl's, of two threads
@pytest.mark.parametrize("function", SITUATIONS, ids=name_of)
def test_a_change_between_two_calls_is_noticed(function: Situation, backend: Backend) -> None:
    eager = function(lambda f: f)
    assert function(te.compile) == eager
