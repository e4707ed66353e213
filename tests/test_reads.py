"""What a compiled function reads of containers, numbers, functions and modules is compared from call to call."""

from __future__ import annotations

import collections
import contextlib
import copy
import datetime
import decimal
import fractions
import functools
import importlib
import math
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinyedge as te
from tests.situations import Case, Plain, into, name_of, require_compared, restored, seen, setting
from tests.situations import sample as x
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

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
def what_a_function_has_remembered() -> Any:
    @functools.cache
    def get() -> Any:
        return {"k": [2.0]}

    get()
    return lambda y: y * get()["k"][0], lambda: get()["k"].__setitem__(0, 3.0)


@compared
def a_tensor_that_a_function_has_remembered() -> Any:
    @functools.lru_cache(maxsize=2)
    def get(n: int) -> Any:
        return te.tensor([n * 1.0])

    get(2)
    return lambda y: y * (2 if (get(2) * 1).requires_grad else 3), lambda: get(2).requires_grad_()


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


@pytest.mark.parametrize("case", COMPARED, ids=name_of)
def test_what_is_read_is_compared(case: Case, reference: Backend) -> None:
    require_compared(case)
