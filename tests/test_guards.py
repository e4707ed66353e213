"""What a user may change between two calls of a compiled function: it is noticed, and the outcome is the eager one."""

from __future__ import annotations

import abc
import collections
import contextlib
import dataclasses
import functools
import gc
import importlib
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.compiler import purity
from tinyedge.compiler.guard_walk import Walk
from tinyedge.nn import functional as F

pytestmark = pytest.mark.check
Compile = Callable[[Callable[..., Any]], Callable[..., Any]]
Situation = Callable[[Compile], list[Any]]
SITUATIONS: list[Situation] = []


def situation(function: Situation) -> Situation:
    """A list of results, given what stands for ``te.compile``."""
    SITUATIONS.append(function)
    return function


def seen(value: Any) -> Any:
    if isinstance(value, te.Tensor):
        return value.detach().numpy().tolist()
    if isinstance(value, (tuple, list)):
        return [seen(item) for item in value]
    if isinstance(value, dict):
        return {key: seen(item) for key, item in value.items()}
    return value


def x() -> te.Tensor:
    return te.tensor([[1.0, -2.0, 3.0]])


class Scaled(nn.Module):
    bias = 1.0

    def __init__(self, scale: Any = 2.0) -> None:
        super().__init__()
        self.scale = scale
        self.options = {"power": 2}
        self.linear = nn.Linear(3, 3)
        nn.init.constant_(self.linear.weight, 0.5)
        nn.init.constant_(self.linear.bias, 0.25)

    def helper(self, y: te.Tensor) -> te.Tensor:
        return y + OFFSET

    def forward(self, y: te.Tensor) -> te.Tensor:
        if self.training:
            y = y + 100
        result: te.Tensor = self.helper(self.linear(y) * self.scale) ** self.options["power"]
        return result


OFFSET: Any = 0.0
TABLE: Any = [1.0, 2.0]
WEIGHT: Any = None
MODEL: Any = None
NESTED: Any = None
CONFIG = types.SimpleNamespace(scale=1.0, inner=types.SimpleNamespace(shift=0.0))


@pytest.fixture(autouse=True)
def _at_first() -> None:
    at_first()


def at_first() -> None:
    put(OFFSET=0.0, TABLE=[1.0, 2.0], WEIGHT=None, MODEL=None, NESTED=None)()
    CONFIG.scale, CONFIG.inner.shift = 1.0, 0.0


def after(call: Callable[[], Any], *changes: Callable[[], Any]) -> list[Any]:
    """What ``call`` gives at first, and after each change; always twice, so that the second is a replay."""
    results = [call(), call()]
    for change in changes:
        change()
        results += [call(), call()]
    return [seen(result) for result in results]


def put(**values: Any) -> Callable[[], None]:
    """Set globals of this file."""
    return lambda: globals().update(values)


@situation
def a_global_number(compile: Compile) -> list[Any]:
    f = compile(lambda y: y + OFFSET)
    return after(lambda: f(x()), put(OFFSET=1.0), put(OFFSET=2), put(OFFSET=-0.0))


@situation
def a_global_list_in_place(compile: Compile) -> list[Any]:
    f = compile(lambda y: y * TABLE[0] + TABLE[1])
    return after(lambda: f(x()), lambda: TABLE.__setitem__(0, 5.0), put(TABLE=(3.0, 4.0)))


@situation
def a_global_list_of_tensors_and_modules(compile: Compile) -> list[Any]:
    put(NESTED={"w": [te.tensor([2.0])], "m": Scaled()})()
    f = compile(lambda y: NESTED["m"](y) * NESTED["w"][0])
    return after(
        lambda: f(x()),
        lambda: NESTED["w"].__setitem__(0, te.tensor([3.0])),
        lambda: NESTED["m"].eval(),
    )


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
def a_global_tensor_at_the_same_address(compile: Compile) -> list[Any]:
    put(WEIGHT=te.tensor([1.0]))()
    f = compile(lambda y: y * WEIGHT)

    def another(value: float) -> Callable[[], None]:
        def change() -> None:
            put(WEIGHT=None)()
            gc.collect()
            put(WEIGHT=te.tensor([value]))()

        return change

    return after(lambda: f(x()), *[another(float(k)) for k in range(2, 6)])


@situation
def a_module_at_the_same_address(compile: Compile) -> list[Any]:
    put(MODEL=nn.Sequential(nn.ReLU()))()
    f = compile(lambda y: MODEL(y))

    def another(make: Callable[[], nn.Module]) -> Callable[[], None]:
        def change() -> None:
            put(MODEL=None)()
            gc.collect()
            put(MODEL=nn.Sequential(make()))()

        return change

    return after(lambda: f(x()), *[another(make) for make in (nn.Tanh, nn.ReLU, nn.SiLU, nn.Tanh)])


@situation
def an_attribute_of_a_module(compile: Compile) -> list[Any]:
    model = Scaled()
    f = compile(lambda y: model(y))
    return after(
        lambda: f(x()),
        lambda: setattr(model, "scale", 3.0),
        lambda: setattr(model, "scale", te.tensor([4.0])),
        lambda: setattr(model, "scale", te.tensor([5.0])),
        lambda: setattr(model, "options", {"power": 3}),
        model.eval,
    )


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
def an_attribute_that_the_function_reads(compile: Compile) -> list[Any]:
    model = Scaled()
    model.extra = 1.0
    f = compile(lambda y: y * model.extra)
    return after(lambda: f(x()), lambda: setattr(model, "extra", 2.0))


@situation
def a_method_that_is_replaced(compile: Compile) -> list[Any]:
    model = Scaled()
    f = compile(lambda y: model(y))
    return after(lambda: f(x()), lambda: setattr(model, "forward", lambda y: y * 7))


@situation
def hooks(compile: Compile) -> list[Any]:
    model = Scaled()
    f = compile(lambda y: model(y))
    handles: list[Any] = []
    return after(
        lambda: f(x()),
        lambda: handles.append(model.linear.register_forward_hook(lambda m, a, y: y * 2)),
        lambda: handles.append(model.register_forward_pre_hook(lambda m, a: (a[0] + 1,))),
        lambda: handles[0].remove(),
    )


@situation
def a_global_that_forward_reads(compile: Compile) -> list[Any]:
    model = Scaled()
    f = compile(lambda y: model(y))
    return after(lambda: f(x()), put(OFFSET=5.0))


def helper(y: te.Tensor) -> te.Tensor:
    return y * 2 + OFFSET


def recursive(y: te.Tensor, depth: int) -> te.Tensor:
    return y + OFFSET if depth == 0 else recursive(y * 2, depth - 1)


@situation
def a_global_that_a_function_reads_which_is_called(compile: Compile) -> list[Any]:
    f = compile(lambda y: helper(y))
    return after(lambda: f(x()), put(OFFSET=5.0))


@situation
def recursion(compile: Compile) -> list[Any]:
    f = compile(lambda y, n: recursive(y, n))
    return after(lambda: f(x(), 3), put(OFFSET=5.0)) + after(lambda: f(x(), 1))


@situation
def a_compiled_function_in_another(compile: Compile) -> list[Any]:
    put(WEIGHT=te.tensor([1.0]))()
    inner = compile(lambda y: y * WEIGHT + OFFSET)
    outer = compile(lambda y: inner(y) * 2)
    return after(lambda: outer(x()), put(WEIGHT=te.tensor([3.0])), put(OFFSET=5.0), lambda: inner(x()))


@situation
def a_compiled_function_in_itself(compile: Compile) -> list[Any]:
    def count(y: te.Tensor, n: int) -> te.Tensor:
        result: te.Tensor = y if n == 0 else compiled(y + 1, n - 1)
        return result

    compiled = compile(count)
    return after(lambda: compiled(x(), 3)) + after(lambda: compiled(x(), 2))


@situation
def an_object_of_the_user(compile: Compile) -> list[Any]:
    f = compile(lambda y: y * CONFIG.scale + CONFIG.inner.shift)
    return after(lambda: f(x()), lambda: setattr(CONFIG, "scale", 2.0), lambda: setattr(CONFIG.inner, "shift", 3.0))


@situation
def an_object_as_an_argument(compile: Compile) -> list[Any]:
    f = compile(lambda y, config: y * config.scale + config.inner.shift)
    return after(
        lambda: f(x(), CONFIG), lambda: setattr(CONFIG, "scale", 2.0), lambda: setattr(CONFIG.inner, "shift", 3.0)
    )


@situation
def unhashable_arguments(compile: Compile) -> list[Any]:
    f = compile(lambda y, which, chosen: y[:, which] * sum(chosen))
    return (
        after(lambda: f(x(), slice(0, 2), {1.0, 2.0}))
        + after(lambda: f(x(), slice(1, 2), {1.0, 2.0}))
        + after(lambda: f(x(), slice(1, 2), {1.0}))
    )


@situation
def a_method_of_a_class_of_the_user(compile: Compile) -> list[Any]:
    class Trainer:
        def __init__(self) -> None:
            self.model, self.scale, self.calls = Scaled(), 1.0, 0
            self.weight = te.tensor([2.0])

        def step(self, y: te.Tensor) -> Any:
            return self.model(y) * self.scale * self.weight

    Trainer.step = compile(Trainer.step)  # type: ignore[method-assign]
    trainer = Trainer()
    return after(
        lambda: trainer.step(x()),
        lambda: trainer.model.eval(),
        lambda: setattr(trainer, "scale", 2.0),
        lambda: setattr(trainer, "weight", te.tensor([5.0])),
        lambda: setattr(trainer, "model", Scaled(9.0)),
        lambda: setattr(trainer.model, "scale", 8.0),
    )


@situation
def a_bound_method(compile: Compile) -> list[Any]:
    model = Scaled()
    f = compile(model.forward)
    return after(lambda: f(x()), model.eval, lambda: setattr(model, "scale", 3.0))


@situation
def a_module_itself(compile: Compile) -> list[Any]:
    model = Scaled()
    f = compile(model)
    return after(
        lambda: f(x()),
        model.eval,
        lambda: setattr(model.linear, "weight", nn.Parameter(te.ones(3, 3))),
        lambda: setattr(model, "scale", 3.0),
    )


@situation
def a_partial(compile: Compile) -> list[Any]:
    model = Scaled()
    f = compile(functools.partial(lambda m, y, *, k: m(y) * k + OFFSET, model, k=2.0))
    return after(lambda: f(x()), model.eval, put(OFFSET=3.0))


@situation
def defaults(compile: Compile) -> list[Any]:
    model, weight, table = Scaled(), te.tensor([2.0]), [1.0]

    def function(y: te.Tensor, m: Any = model, *, w: Any = weight, t: Any = table) -> Any:
        return m(y) * w * t[0]

    f = compile(function)
    return after(lambda: f(x()), model.eval, lambda: table.__setitem__(0, 2.0), lambda: weight.fill_(7.0))


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
def parameters_that_move(compile: Compile) -> list[Any]:
    model = Scaled()
    f = compile(lambda y: model(y))

    def another_layer() -> None:
        model.linear = nn.Linear(3, 2)
        nn.init.constant_(model.linear.weight, 2.0)
        nn.init.constant_(model.linear.bias, 1.0)

    return after(
        lambda: f(x()),
        lambda: model.load_state_dict({name: value * 2 for name, value in model.state_dict().items()}),
        lambda: setattr(model.linear, "bias", None),
        another_layer,
    )


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
def threads(compile: Compile) -> list[Any]:
    model = Scaled().eval()
    f = compile(lambda y, k: model(y) * k)
    found: dict[int, Any] = {}

    backend = te.backends.default_backend()

    def work(k: int) -> None:
        with te.use_backend(backend), te.no_grad():
            found[k] = [seen(f(x() * k, float(k % 2))) for _ in range(20)][-1]

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [found[k] for k in sorted(found)]


@situation
def modes_inside_that_are_undone(compile: Compile) -> list[Any]:
    model = Scaled()

    def function(y: te.Tensor) -> te.Tensor:
        model.eval()
        result: te.Tensor = model(y)
        model.train()
        return result

    f = compile(function)
    return [*after(lambda: f(x())), model.training]


class Counting(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, y: te.Tensor) -> te.Tensor:
        self.calls += 1
        return super().forward(y)


def counts(y: te.Tensor) -> te.Tensor:
    global OFFSET
    OFFSET += 1.0
    return y * OFFSET


def appends(y: te.Tensor) -> te.Tensor:
    TABLE.append(len(TABLE))
    return y * TABLE[-1]


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
def a_cache_that_is_cleared(compile: Compile) -> list[Any]:
    @functools.lru_cache
    def scale(k: float) -> float:
        return float(TABLE[0] * k)

    f = compile(lambda y: y * scale(2.0))
    return after(lambda: f(x()), lambda: TABLE.__setitem__(0, 5.0), scale.cache_clear)


@situation
def a_method_that_is_put_into_tensors(compile: Compile) -> list[Any]:
    te.Tensor.scaled = lambda self: self * 2  # type: ignore[attr-defined]
    f = compile(lambda y: y.scaled())

    def another() -> None:
        te.Tensor.scaled = lambda self: self * OFFSET  # type: ignore[attr-defined]

    try:
        return after(lambda: f(x()), another, put(OFFSET=3.0))
    finally:
        del te.Tensor.scaled  # type: ignore[attr-defined]


@situation
def a_layer_of_the_package_that_is_changed(compile: Compile) -> list[Any]:
    model = nn.Sequential(nn.ReLU())
    f, before = compile(lambda y: model(y)), nn.ReLU.forward

    def change() -> None:
        nn.ReLU.forward = lambda self, y: y * OFFSET  # type: ignore[method-assign]

    def restore() -> None:
        nn.ReLU.forward = before  # type: ignore[method-assign]

    try:
        return after(
            lambda: f(x()),
            change,
            put(OFFSET=3.0),
            restore,
            lambda: vars(model[0]).update(forward=lambda y: y * 7),
            lambda: vars(model[0]).pop("forward"),
        )
    finally:
        restore()


@situation
def a_partial_that_gets_other_arguments(compile: Compile) -> list[Any]:
    scaled = functools.partial(plain_multiply, k=2.0)
    f = compile(lambda y: scaled(y))
    return after(lambda: f(x()), lambda: scaled.__setstate__((plain_multiply, (), {"k": 3.0}, {})))  # type: ignore[attr-defined]


@dataclasses.dataclass
class Computed:
    first: float
    second: float = 1.0

    def __post_init__(self) -> None:
        self.both = self.first * OFFSET


@situation
def an_object_that_is_made_from_another(compile: Compile) -> list[Any]:
    thing = Computed(2.0)
    f = compile(lambda y: y * dataclasses.replace(thing, second=2.0).both)
    return after(lambda: f(x()), lambda: setattr(thing, "first", 3.0), put(OFFSET=5.0))


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
def tensors_that_were_computed_or_not(compile: Compile) -> list[Any]:
    f = compile(lambda y: y * (2.0 if y.is_leaf else 3.0) + (1.0 if y.grad_fn is None else 5.0))
    w = x().requires_grad_()
    return after(lambda: f(w)) + after(lambda: f(w * 1)) + after(lambda: f(w))


@situation
def the_modes_that_are_asked_for(compile: Compile) -> list[Any]:
    f = compile(lambda y: y * (2.0 if te.is_grad_enabled() else 3.0))
    return after(lambda: f(x())) + after(te.no_grad()(lambda: f(x()))) + after(lambda: f(x()))


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
def text_that_names_attributes(compile: Compile) -> list[Any]:
    form = ["{0.scale}"]
    f = compile(lambda y: y * float(f"{CONFIG.scale}") + float(form[0].format(CONFIG)))
    return after(
        lambda: f(x()), lambda: setattr(CONFIG, "scale", 2.0), lambda: form.__setitem__(0, "{0.inner.shift}"),
        lambda: setattr(CONFIG.inner, "shift", 3.0),
    )  # fmt: skip


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


def of_a_model(change: Callable[[Any], Any], make: Callable[[], nn.Module] = Scaled) -> Callable[..., Any]:
    def function() -> Callable[..., Any]:
        model = make()
        return lambda y: (change(model), model(y))[1]

    return function


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: counts, "it changed OFFSET"),
        (lambda: appends, "it changed TABLE"),
        (of_a_model(lambda model: model.train(not model.training)), "it changed model"),
        (of_a_model(lambda model: setattr(model, "scale", model.scale + 1.0)), "it changed model"),
        (of_a_model(lambda model: model.append(nn.ReLU()), nn.Sequential), "it changed model"),
        (of_a_model(lambda model: None, Counting), "it changed model"),
    ],
    ids=("global", "list", "mode", "attribute", "append", "counter"),
)
def test_a_change_inside_at_each_call_is_refused(
    backend: Backend, make: Callable[[], Callable[..., Any]], text: str
) -> None:
    """A replay would not make it again. The first call may have set something up."""
    function = te.compile(make())
    function(x())
    with pytest.raises(te.CaptureError, match=text):
        function(x())
    assert not function.programs


def test_a_rehearsal_may_not_change_anything(backend: Backend) -> None:
    with pytest.raises(te.CaptureError, match="it changed OFFSET"):
        te.compile(counts).prepare(x())


@pytest.mark.parametrize("mode", ["1", "check"])
def test_random_numbers_are_drawn_once_for_each_call(backend: Backend, mode: str, monkeypatch: Any) -> None:
    """From the generator that the call names; a rehearsal draws none."""
    monkeypatch.setenv("TINYEDGE_COMPILE", mode)
    generator = te.Generator().manual_seed(5)
    f = te.compile(lambda y: F.dropout(y, 0.5, generator=generator))
    f.prepare(x())
    for count in range(4):
        assert generator.get_state() == (5, count)
        f(x())


@situation
def changes_inside_that_come_once(compile: Compile) -> list[Any]:
    """Something is set up, or a mode set, by the first call after it was otherwise."""
    model, cache = Scaled(), {}

    def function(y: te.Tensor) -> te.Tensor:
        model.eval()
        if "table" not in cache:
            cache["table"] = te.tensor([2.0]) * 2
        result: te.Tensor = model(y) * cache["table"]
        return result

    f = compile(function)
    return after(lambda: (f(x()), model.training), model.train, lambda: cache.clear())


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

    with pytest.raises(te.CaptureError, match=r"backward\(\) at .*test_guards\.py.*steps from before the call"):
        step(w * x())
    assert w.grad is None


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


def test_bookkeeping_makes_no_programs(backend: Backend) -> None:
    """What the function does not mention may change at every call."""

    class Trainer:
        def __init__(self) -> None:
            self.model, self.count, self.losses = Scaled(), 0, []

        @te.compile
        def step(self, y: te.Tensor) -> te.Tensor:
            return self.model(y).sum()

        def fit(self) -> None:
            for _ in range(4):
                self.count += 1
                self.losses.append(self.step(x()).item())
                self.model.epoch = self.count

    trainer = Trainer()
    trainer.fit()
    assert len(Trainer.step.programs) == 1
    assert len(set(trainer.losses)) == 1


@pytest.mark.filterwarnings("ignore:Overwriting existing generated code")  # pyopencl's, of two threads
@pytest.mark.parametrize("function", SITUATIONS, ids=lambda function: function.__name__)
def test_a_change_between_two_calls_is_noticed(function: Situation, backend: Backend) -> None:
    eager = function(lambda f: f)
    at_first()
    assert function(te.compile) == eager


def test_what_a_function_depends_on_is_watched_after_one_walk(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what most functions consist of, a call only looks whether anything changed."""
    model, shifts, settings = Scaled(), [1.0, 2.0], {"scale": 3.0}
    put(WEIGHT=te.tensor([1.0, 2.0, 3.0], requires_grad=True))()

    def helper(y: te.Tensor, k: float = 2.0, *, more: float = 1.0) -> te.Tensor:
        return y * k + more + OFFSET

    step = te.compile(lambda y: helper(model(y) * WEIGHT + shifts[0] * settings["scale"] + CONFIG.inner.shift).sum())
    step(x())
    walks: list[Any] = []
    root = Walk.root

    def noted(self: Any, function: Any) -> Any:
        walks.append(function)
        return root(self, function)

    monkeypatch.setattr(Walk, "root", noted)
    for _ in range(3):
        step(x())
    assert not walks
    shifts[1] = 5.0
    step(x())
    assert len(walks) > 0
    assert len(step.programs) == 2
