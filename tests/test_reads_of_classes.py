"""What functions, classes, arrays and this package's objects tell of themselves is compared from call to call."""

from __future__ import annotations

import collections.abc
import contextlib
import fractions
import functools
import numbers
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.situations import Case, Plain, into, name_of, require_compared, sample, seen, setting
from tinyedge import nn, optim
from tinyedge.amp import GradScaler
from tinyedge.backends import Backend
from tinyedge.errors import CaptureError

pytestmark = pytest.mark.check
COMPARED: list[Case] = []
compared = into(COMPARED)

# Identity: of what is compared by value, too


def box(**values: Any) -> Any:
    thing = Plain()
    vars(thing).update(values)
    return thing


@pytest.mark.parametrize(
    "make", [lambda: 1.5, lambda: "a b"[:2] + "c", lambda: (1, 2)[:1] * 2, lambda: 12345 * 10, lambda: np.ones(2)]
)
@pytest.mark.parametrize("ask", [lambda a, b: a is b, operator.is_])
def test_the_same_object_or_an_equal_one(make: Callable[[], Any], ask: Callable[..., bool], reference: Backend) -> None:
    one, other = make(), make()
    if isinstance(one, float):
        other = float("1.5")
    elif isinstance(one, int):
        other = int("123450")
    if one is other:
        other = type(one)(list(one)) if isinstance(one, tuple) else "".join(one)
    compiled = te.compile(lambda y, a, b: y * (2 if ask(a, b) else 3))
    y = sample()
    if not isinstance(one, np.ndarray):  # which is no argument
        assert [compiled(y, *pair)[0].item() for pair in ((one, one), (one, other), (one, one))] == [2, 3, 2]
    thing = box(a=one, b=one)
    attributes = te.compile(lambda y: y * (2 if ask(thing.a, thing.b) else 3))
    found = [attributes(y)[0].item()]
    for thing.b in (other, one):
        found.append(attributes(y)[0].item())
    assert found == [2, 3, 2]


@compared
def another_nan_in_a_list() -> Any:
    thing = box(nan=float("nan"), k=[])
    thing.k.append(thing.nan)
    return lambda y: y * (2 if thing.nan in thing.k else 3), lambda: thing.k.__setitem__(0, float("nan"))


@compared
def an_array_in_fortran_order() -> Any:
    thing = box(a=np.arange(4.0).reshape(2, 2))
    return lambda y: y * float(thing.a.ravel("K")[1]), lambda: setattr(thing, "a", np.asfortranarray(thing.a))


@compared
def an_array_that_is_locked() -> Any:
    array = np.ones(2)
    return lambda y: y * (2 if array.flags.writeable else 3), lambda: array.setflags(write=False)


@compared
def an_array_that_is_a_view_no_more() -> Any:
    array = np.arange(4.0)
    thing = box(k=array[1:])
    change = lambda: setattr(thing, "k", thing.k.copy())  # noqa: E731
    return lambda y: y * (2 if np.shares_memory(array, thing.k) else 3), change


# Names and texts


def a_function() -> None:
    """a"""


@compared
def the_name_of_a_function() -> Any:
    thing = functools.wraps(a_function)(lambda: None)
    return lambda y: y * len(thing.__name__), setting(thing, "__name__", "another")


@compared
def the_docstring_of_a_function() -> Any:
    thing = functools.wraps(a_function)(lambda: None)
    return lambda y: y * len(thing.__doc__ or ""), setting(thing, "__doc__", "another")


@compared
def the_annotations_of_a_function() -> Any:
    def thing(a: int) -> None: ...

    thing.__annotations__ = {"a": 2.0}
    return lambda y: y * thing.__annotations__["a"], lambda: thing.__annotations__.update(a=3.0)


@compared
def the_name_of_a_class() -> Any:
    class Thing: ...

    return lambda y: y * len(Thing.__name__), setting(Thing, "__name__", "another")


@compared
def the_name_of_the_class_of_an_object() -> Any:
    class Thing: ...

    thing = Thing()
    return lambda y: y * len(type(thing).__name__), setting(Thing, "__name__", "another")


# Classes


@compared
def an_instance_of_what_is_registered() -> Any:
    class Thing: ...

    thing = Thing()
    change = lambda: collections.abc.Sequence.register(Thing)  # noqa: E731
    return lambda y: y * (2 if isinstance(thing, collections.abc.Sequence) else 3), change


@compared
def a_subclass_by_other_bases() -> Any:
    class One: ...

    class Other: ...

    class Thing(One): ...

    return lambda y: y * (2 if issubclass(Thing, Other) else 3), setting(Thing, "__bases__", (Other,))


@compared
def the_attributes_that_a_pattern_matches() -> Any:
    class Thing:
        __match_args__ = ("k",)
        k, other = 2.0, 3.0

    thing = Thing()

    def function(y: Any) -> Any:
        match thing:
            case Thing(k):
                return y * k

    return function, setting(Thing, "__match_args__", ("other",))


@compared
def a_class_that_is_hashable_no_more() -> Any:
    class Thing: ...

    thing = Thing()

    def function(y: Any) -> Any:
        try:
            return y * len({thing})
        except TypeError:
            return y * 3

    return function, setting(Thing, "__hash__", None)


@compared
def an_attribute_of_a_partial() -> Any:
    thing = functools.partial(max)
    thing.k = 2.0  # type: ignore[attr-defined]
    return lambda y: y * thing.k, setting(thing, "k")  # type: ignore[attr-defined]


@compared
def an_object_all_of_whose_attributes_are_computed() -> Any:
    store = {"k": 2.0}

    class Thing:
        def __getattribute__(self, name: str) -> Any:
            return store[name]

    thing: Any = Thing()
    return lambda y: y * thing.k, lambda: store.update(k=3.0)


@compared
def a_class_all_of_whose_attributes_are_computed() -> Any:
    store = {"k": 2.0}

    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            return store[name]

    class Thing(metaclass=Meta): ...

    return lambda y: y * Thing.k, lambda: store.update(k=3.0)


@compared
def what_closing_calls() -> Any:
    store = {"k": 2.0}

    class Thing:
        def close(self) -> None:
            self.k = store["k"]

    thing = Thing()
    thing.close()

    def function(y: Any) -> Any:
        with contextlib.closing(thing):
            pass
        return y * thing.k

    return function, lambda: store.update(k=3.0)


@compared
def what_a_fraction_is_made_of() -> Any:
    class Thing:
        numerator, denominator = 1, 2

    numbers.Rational.register(Thing)
    thing: Any = Thing()
    return lambda y: y * float(fractions.Fraction(thing)), setting(Thing, "numerator", 3)


@compared
def what_numpy_calls_by_the_name_of_its_function() -> Any:
    class Thing:
        k = 2.0

        def argmax(self, axis: Any = None, out: Any = None) -> Any:
            return self.k

    thing: Any = Thing()
    return lambda y: y * np.argmax(thing), setting(Thing, "k")


def test_a_cache_that_forgets_by_and_by(reference: Backend) -> None:
    thing = Plain()

    @functools.lru_cache(maxsize=1)
    def cached(factor: int) -> float:
        return float(thing.k * factor)

    compiled = te.compile(lambda y: y * cached(1))
    found = [compiled(sample())[0].item()]
    thing.k = 3.0
    found.append(compiled(sample())[0].item())  # it is remembered
    cached(2)
    assert [*found, compiled(sample())[0].item()] == [2, 2, 3]


# Objects of this package


@compared
def the_last_rates_of_a_schedule() -> Any:
    optimizer = optim.SGD([nn.Parameter(te.ones(1))], lr=2.0)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    return lambda y: y * schedule._last_lr[0], schedule.step


@compared
def whether_losses_are_scaled() -> Any:
    scaler = GradScaler(init_scale=2.0)
    return lambda y: scaler.scale(y), lambda: setattr(scaler, "_enabled", False)


@compared
def what_a_layer_reads_of_itself() -> Any:
    parameters = nn.ParameterList([nn.Parameter(te.ones(1)), nn.Parameter(te.ones(1))])
    return lambda y: y * sum(parameters), lambda: setattr(parameters, "_size", 1)


@compared
def a_part_of_a_dataset() -> Any:
    data = te.data.Subset([1.0, 2.0, 3.0], [1])
    return lambda y: y * data[0], lambda: data.indices.__setitem__(0, 2)


@compared
def the_data_of_a_part_of_a_dataset() -> Any:
    values = [1.0, 2.0]
    data = te.data.Subset(values, [1])
    return lambda y: y * data[0], lambda: values.__setitem__(1, 3.0)


@compared
def what_a_sampler_draws_from() -> Any:
    sampler = te.data.SequentialSampler([1, 2, 3])
    return lambda y: y * len(list(sampler)), setting(sampler, "data_source", [1])


@compared
def the_last_rate_of_a_schedule() -> Any:
    optimizer = optim.SGD([nn.Parameter(te.ones(1))], lr=2.0)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    (optimizer.param_groups[0]["params"][0] * 1).sum().backward()

    def change() -> None:
        optimizer.step()
        schedule.step()

    return lambda y: y * schedule.get_last_lr()[0], change


@compared
def the_rates_of_a_schedule() -> Any:
    optimizer = optim.SGD([nn.Parameter(te.ones(1))], lr=2.0)
    schedule = optim.lr_scheduler.ConstantLR(optimizer, 0.5)
    return lambda y: y * schedule.lrs[0], lambda: optimizer.param_groups[0].update(lr=5.0)


@pytest.mark.parametrize("case", COMPARED, ids=name_of)
def test_what_is_read_is_compared(case: Case, reference: Backend) -> None:
    require_compared(case)


def test_large_arrays_of_datasets_are_refused_by_name(reference: Backend) -> None:
    data = te.data.TensorDataset(np.zeros((1000, 1), np.float32))
    with pytest.raises(CaptureError, match=r"data\.arrays"):
        te.compile(lambda y: y * data[0][0])(sample())


# What is put into the classes of this package


def ten_times(thing: Any, *_: Any) -> Any:
    return te.tensor([10.0])


PLACES: list[tuple[type, str, Callable[[Any], Any]]] = [
    (te.Tensor, "__mul__", lambda y: y * 3),
    (te.Tensor, "__radd__", lambda y: 3 + y),
    (te.Tensor, "__neg__", lambda y: -y),
    (te.Tensor, "__getitem__", lambda y: y[:1]),
    (te.Tensor, "relu", lambda y: y.relu()),
    (nn.Module, "__call__", (lambda layer: lambda y: layer(y))(nn.Tanh())),
    (nn.Tanh, "forward", (lambda layer: lambda y: layer(y))(nn.Tanh())),
]


@pytest.fixture
def restored() -> Iterator[None]:
    before = [(cls, name, vars(cls).get(name)) for cls, name, _ in PLACES]
    yield
    for cls, name, value in before:
        if value is None:
            if name in vars(cls):
                delattr(cls, name)
        else:
            setattr(cls, name, value)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(("cls", "name", "function"), PLACES, ids=[name for _, name, _ in PLACES])
def test_methods_that_are_replaced(cls: type, name: str, function: Callable[..., Any], reference: Backend) -> None:
    compiled = te.compile(function)
    first = [seen(compiled(sample())) for _ in range(2)]
    before = getattr(cls, name)
    setattr(cls, name, ten_times)
    assert [seen(compiled(sample())) for _ in range(2)] == [[10.0]] * 2
    setattr(cls, name, before)
    assert seen(compiled(sample())) == first[0] == first[1]


def test_an_optimizers_step_that_is_replaced(reference: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = nn.Parameter(te.ones(3))
    optimizer = optim.SGD([weight], lr=1.0)

    def update(y: te.Tensor) -> None:
        (weight * y).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    compiled = te.compile(update)
    for _ in range(3):
        compiled(sample())
    before = seen(weight)
    monkeypatch.setattr(optim.SGD, "step", lambda self: None)
    compiled(sample())
    assert seen(weight) == before


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_a_step_that_calls_hooks_from_now_on_is_refused(register: str, reference: Backend) -> None:
    weight = nn.Parameter(te.ones(3))
    optimizer = optim.SGD([weight], lr=1.0)

    def update(y: te.Tensor) -> None:
        optimizer.zero_grad()
        (weight * y).sum().backward()
        optimizer.step()

    compiled = te.compile(update)
    for _ in range(3):
        compiled(sample())
    before = seen(weight)
    handle = getattr(optimizer, register)(lambda *_: None)
    with pytest.raises(CaptureError, match="hooks"):
        compiled(sample())
    assert seen(weight) == before
    handle.remove()
    compiled(sample())
    assert seen(weight) != before
