"""What a compiled function may not read, since a replay would not read it again: it is refused by its name."""

from __future__ import annotations

import array
import contextvars
import datetime
import importlib
import io
import itertools
import operator
import os
import pathlib
import random
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.situations import Plain, seen
from tests.situations import sample as x
from tinyedge import nn
from tinyedge.backends import Backend

pytestmark = pytest.mark.check
REFUSED: list[Any] = []


def refused(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """A function that reads what cannot be compared: the error names it."""

    def keep(case: Callable[[], Any]) -> Callable[[], Any]:
        REFUSED.append(pytest.param(case, name, id=case.__name__))
        return case

    return keep


LOCAL = threading.local()
LOCAL.k = 2.0
VARIABLE = contextvars.ContextVar("VARIABLE", default=2.0)


@refused("iterator")
def an_iterator() -> Any:
    iterator = iter([2.0, 3.0, 4.0])
    return lambda y: y * next(iterator)


@refused("reading a file")
def a_file_of_tensors() -> Any:
    return lambda y: y * te.load("k.safetensors")["k"]


@refused("writing a file")
def a_file_of_numbers() -> Any:
    return lambda y: (te.save({"k": 2.0}, "k.safetensors"), y * 1)[1]


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


@refused("np, which")
def random_numbers_by_a_computed_name() -> Any:
    name = "random"
    return lambda y: y * getattr(np, name).rand()


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
    return lambda y: y * refused.__globals__["K"]


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
    assert "test_refused_reads.py:" in str(caught.value)
    assert not function.programs
    with pytest.raises(te.CaptureError, match=name):
        function.prepare(x())


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
