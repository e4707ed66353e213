"""What a user may change between two calls of a compiled function: it is noticed, and the outcome is the eager one."""

from __future__ import annotations

import dataclasses
import functools
import gc
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

import tinyedge as te
from tests.situations import Compile, Situation, after, into, name_of, seen
from tests.situations import row as x
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.compiler.guard_walk import Walk

pytestmark = pytest.mark.check
SITUATIONS: list[Situation] = []
situation = into(SITUATIONS)


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


@situation
def text_that_names_attributes(compile: Compile) -> list[Any]:
    form = ["{0.scale}"]
    f = compile(lambda y: y * float(f"{CONFIG.scale}") + float(form[0].format(CONFIG)))
    return after(
        lambda: f(x()), lambda: setattr(CONFIG, "scale", 2.0), lambda: form.__setitem__(0, "{0.inner.shift}"),
        lambda: setattr(CONFIG.inner, "shift", 3.0),
    )  # fmt: skip


def of_a_model(change: Callable[[Any], Any], make: Callable[[], nn.Module] = Scaled) -> Callable[..., Any]:
    def function() -> Callable[..., Any]:
        model = make()
        return lambda y: (change(model), model(y))[1]

    return function


def in_sequence() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: counts, "it changed OFFSET"),
        (lambda: appends, "it changed TABLE"),
        (of_a_model(lambda model: model.train(not model.training)), r"it changed model\.training"),
        (of_a_model(lambda model: setattr(model, "scale", model.scale + 1.0)), r"it changed model\.scale"),
        (of_a_model(lambda model: model.append(nn.ReLU()), nn.Sequential), r"it changed model\.\d"),
        (
            of_a_model(lambda model: model[0].register_forward_hook(lambda *_: None), in_sequence),
            r"it changed model\.0\._hooks",
        ),
        (
            of_a_model(lambda model: setattr(model[0], "bias", nn.Parameter(te.ones(3))), in_sequence),
            r"changed model\.0\.bias",
        ),
        (of_a_model(lambda model: None, Counting), r"it changed model\.calls"),
        (Counting, r"it changed Counting\.calls"),
        (lambda: lambda y: y.requires_grad_(not y.requires_grad) * 2, "it changed y,"),
        (lambda: lambda y: (setattr(y, "k", getattr(y, "k", 0) + 1), y * 2)[1], r"it changed y\.k"),
    ],
    ids=(
        "global",
        "list",
        "mode",
        "attribute",
        "append",
        "hook",
        "parameter",
        "counter",
        "of_the_model_itself",
        "argument",
        "attribute_of_an_argument",
    ),
)
def test_a_change_inside_at_each_call_is_refused(
    backend: Backend, make: Callable[[], Callable[..., Any]], text: str
) -> None:
    """A replay would not make it again. The first call may have set something up."""
    function, argument = te.compile(make()), x()
    function(argument)
    with pytest.raises(te.CaptureError, match=text):
        function(argument)
    assert not function.programs


def test_abstract_tracing_may_not_change_anything(backend: Backend) -> None:
    with pytest.raises(te.CaptureError, match="it changed OFFSET"):
        te.compile(counts).prepare(x())


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


@pytest.mark.filterwarnings("ignore:Overwriting existing generated code")  # pyopencl's, of two threads
@pytest.mark.parametrize("function", SITUATIONS, ids=name_of)
def test_a_change_between_two_calls_is_noticed(function: Situation, backend: Backend) -> None:
    eager = function(lambda f: f)
    at_first()
    assert function(te.compile) == eager
