"""A model that is in use and learns meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import adapt, nn, optim
from tinyedge.backends import Backend


class Clock:
    """Time that passes only where a test says so: in each forward pass, backward and update."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Ticking(Clock):
    """Each look at it takes a fifth of a millisecond."""

    def __call__(self) -> float:
        self.now += 0.0002
        return self.now


def make(norm: bool = False) -> nn.Module:
    te.manual_seed(0)
    middle = nn.BatchNorm1d(8) if norm else nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 8), middle, nn.Linear(8, 2))
    model[0].requires_grad_(False)
    return model


def loss(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    return F.cross_entropy(model(x), y)


def optimizer_of(model: nn.Module, **options: Any) -> optim.Optimizer:
    return optim.Adam([p for p in model.parameters() if p.requires_grad], **{"lr": 0.05, "accumulate": 2} | options)


def sample(k: int) -> tuple[te.Tensor, te.Tensor]:
    x = np.random.default_rng(k).standard_normal((1, 4)).astype(np.float32)
    return te.tensor(x), te.tensor([int(x[0, 0] > 0)])


def values(model: nn.Module) -> dict[str, Any]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def assert_same(model: nn.Module, expected: dict[str, Any]) -> None:
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def slow(clock: Clock, step: float = 0.010, frame: float = 0.005, **options: Any) -> adapt.Live:
    """A frame takes 5 ms and a step 10 ms of the clock's time."""
    model = make()

    def timed(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
        clock.now += step - frame
        return loss(model, x, y)

    def pass_time(module: nn.Module, args: Any) -> None:
        clock.now += frame

    model.register_forward_pre_hook(pass_time)
    return adapt.Live(model, optimizer_of(model), timed, clock=clock, compiled=False, **options)


def test_training_in_what_is_left_of_a_frame(backend: Backend) -> None:
    clock = Clock()
    live = slow(clock)
    live.prepare(*sample(0))
    assert live.stats[:2] == (0, 0)
    for k in range(10):
        live(sample(k)[0])
        live.add(*sample(k))
        assert live.train() == 2  # 5 + 2 x 10 ms, and a third step, 11 ms with the margin, would not fit into 33
    stats = live.stats
    assert (stats.frames, stats.late, stats.steps, stats.updates) == (10, 0, 20, 10)
    np.testing.assert_allclose([stats.median_ms, stats.p99_ms], 25.0)


def test_a_frame_that_took_long_trains_nothing(backend: Backend) -> None:
    clock = Clock()
    live = slow(clock)
    live.prepare(*sample(0))
    live.add(*sample(0))
    for wait, steps in ((0.020, 0), (0.010, 1), (0.040, 0), (0.0, 2)):
        live(sample(0)[0])
        clock.now += wait  # the application's own work
        assert live.train() == steps
    assert live.stats.late == 1


def test_a_device_that_slows_down(backend: Backend) -> None:
    """Of what was slow once by chance the estimate falls again; a device that is slow trains less."""
    clock = Clock()
    live = slow(clock)
    live.prepare(*sample(0))
    live.add(*sample(0))
    live._durations["step"].add(0.5)
    trained = []
    for _ in range(200):
        live(sample(0)[0])
        trained.append(live.train())
    assert trained[0] == 0
    assert trained[-1] == 2
    assert live.stats.late == 0


def test_no_time_to_train_is_said(reference: Backend) -> None:
    """Once, after many frames; and again only after there was time."""
    clock = Clock()
    live = slow(clock, frame=0.028)
    live.prepare(*sample(0))

    def frames(count: int) -> None:
        for k in range(count):
            live(sample(k)[0])
            assert live.train() == 0

    frames(200)  # nothing waits
    live.add(*sample(0))
    frames(99)
    with pytest.warns(UserWarning, match=r"a step waits.*28.0 ms of 33; the longest of its last took 10.0 ms.*fewer"):
        frames(1)
    frames(300)
    live.frame_budget_ms = 50
    live(sample(0)[0])
    assert live.train() == 2


def test_duty(backend: Backend) -> None:
    clock = Clock()
    live = slow(clock, duty=0.25)
    live.prepare(*sample(0))
    live._spent = 0.0
    live.add(*sample(0))
    for _ in range(100):
        began = clock.now
        live(sample(0)[0])
        live.train()
        clock.now = max(clock.now, began + 0.033)
    assert 0.2 < live.stats.steps * 0.010 / clock.now <= 0.26


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_prepare_changes_nothing(backend: Backend, compiled: bool, norm: bool) -> None:
    model = make(norm)
    if norm:
        model[1].statistics = "frozen"
    before = values(model)
    optimizer = optimizer_of(model)
    live = adapt.Live(model, optimizer, loss, compiled=compiled)
    live.prepare(*sample(0))
    assert_same(model, before)
    assert not optimizer.state
    assert live.stats.steps == 0
    assert all(param.grad is None for param in model.parameters())


@pytest.mark.parametrize(
    "make_optimizer",
    [
        optimizer_of,
        lambda model: optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9, dampening=0.5, accumulate=2),
        lambda model: optim.Adagrad(model[2].parameters(), lr=0.1, initial_accumulator_value=0.3, accumulate=2),
        lambda model: optim.NAdam(model.half()[2].parameters(), lr=0.1, master=True, accumulate=2),
    ],
    ids=["Adam", "SGD", "Adagrad", "NAdam"],
)
def test_updates_after_prepare_compile_nothing(backend: Backend, make_optimizer: Any) -> None:
    """Optimizer state that was taken back begins again in the memory that it had, for which the update is compiled; and
    it begins as it would have without ``prepare``.
    """
    ends = []
    for prepares in (False, True):
        model = make()
        live = adapt.Live(model, make_optimizer(model), loss, compiled=False)
        dtype = model[2].weight.dtype
        if prepares:
            live.prepare(sample(0)[0].to(dtype), sample(0)[1])
            program = live.optimizer._launcher.program
            assert program is not None
            assert not live.optimizer.state
        for k in range(6):
            x, y = sample(k)
            live.add(x.to(dtype), y)
            live.train()
            live.train() if k % 2 else None
            if prepares:
                assert live.optimizer._launcher.program is program
        assert live.stats.updates == 3
        ends.append(values(model))
    assert_same(model, ends[0])


@pytest.mark.parametrize("norm", [False, True])
def test_what_it_trains_is_what_a_loop_does(backend: Backend, norm: bool) -> None:
    """The same samples in the same order give the same weights, and outputs are those of the newest weights."""
    one, other = make(norm).freeze_batch_norm_statistics(), make(norm).freeze_batch_norm_statistics()
    optimizer = optimizer_of(one)
    live = adapt.Live(other, optimizer_of(other), loss, frame_budget_ms=1e6)
    live.prepare(*sample(0))
    for k in range(8):
        live.add(*sample(k))
    for k in range(8):
        output = live(sample(9)[0])
        np.testing.assert_allclose(output.numpy(), one.eval()(sample(9)[0]).detach().numpy(), rtol=1e-5, atol=1e-6)
        one.train()
        live._began = None  # one slice, or an update and what comes before it
        loss(one, *sample(k)).backward()
        optimizer.step()
        while live.stats.steps <= k or live.optimizer.pending == 2:
            live._work_once()
    np.testing.assert_allclose(other[2].weight.detach().numpy(), one[2].weight.detach().numpy(), rtol=1e-4, atol=1e-6)
    assert live.stats.updates == 4


def learn(live: adapt.Live, count: int, wrong: bool = False) -> None:
    for k in range(count):
        x, y = sample(k)
        live(x)
        live.add(x, 1 - y if wrong else y)
        live.train()


def accuracy(model: nn.Module, x: te.Tensor, y: te.Tensor) -> float:
    return float((model(x).argmax(1) == y).numpy().mean())


@pytest.mark.parametrize("metric", [None, accuracy])
def test_it_learns_and_goes_back(backend: Backend, metric: Any) -> None:
    model = make().eval()
    live = adapt.Live(
        model, optimizer_of(model), loss, 20, metric=metric, check_every=4, tolerance=0.02, clock=Ticking()
    )
    for k in range(100, 120):
        live.hold_out(*sample(k))
    live.prepare(*sample(0))
    learn(live, 60)
    good = live.stats
    assert good.updates > 10
    assert good.metric is not None
    assert good.metric < 0.5 if metric is None else good.metric > 0.7
    before = {name: value for name, value in values(model).items() if name.startswith("0")}
    live.buffer = adapt.ReplayBuffer("1MB")
    learn(live, 60, wrong=True)
    after = live.stats
    assert after.rollbacks > good.rollbacks
    measured = float(np.mean([float((metric or loss)(model, *sample(k))) for k in range(100, 120)]))
    assert after.metric is not None
    worse = measured - after.metric if metric is None else after.metric - measured
    while live.optimizer.pending or live._left is not None:
        live.train()
    assert worse < 0.5
    assert {name: value.tolist() for name, value in before.items()} == {
        name: value.tolist() for name, value in values(model).items() if name.startswith("0")
    }


def test_a_report_takes_back_weights_and_state(backend: Backend) -> None:
    model = make()
    optimizer = optimizer_of(model)
    live = adapt.Live(model, optimizer, loss, metric=accuracy, frame_budget_ms=1e6)
    for k in range(4):
        live.add(*sample(k))
    while live.stats.updates < 3:
        live._work_once()
    assert live.report(0.8)
    live._work_once()
    good, steps = values(model), [state["step"] for state in optimizer.state.values()]
    moments = [state["exp_avg"].numpy() for state in optimizer.state.values()]
    while live.stats.updates < 5:
        live._work_once()
    assert not np.array_equal(values(model)["2.weight"], good["2.weight"])
    assert not live.report(0.7)
    assert_same(model, good)
    assert [state["step"] for state in optimizer.state.values()] == steps
    for state, moment in zip(optimizer.state.values(), moments, strict=True):
        np.testing.assert_array_equal(state["exp_avg"].numpy(), moment)
    assert optimizer.pending == 0
    assert live.stats.metric == 0.8
    assert not live.report(float("nan"))
    assert [live._rest, live.stats.rollbacks] == [2, 2]


def test_what_is_not_finite_is_dropped(backend: Backend) -> None:
    model = make()
    live = adapt.Live(model, optimizer_of(model), loss, frame_budget_ms=1e6)
    before = values(model)
    live.add(te.full((1, 4), float("nan")), te.tensor([0]))
    for _ in range(4):
        live._work_once()
    assert live.stats.skipped == 4
    assert live.stats.rollbacks == 1
    assert_same(model, before)


def test_a_step_that_fails(backend: Backend) -> None:
    model = make()
    live = adapt.Live(model, optimizer_of(model), loss, compiled=False)
    before = values(model)
    live.add(*sample(0))
    live.train()
    live.add(te.ones(1, 3), te.tensor([0]))
    with pytest.raises(te.errors.ShapeError):
        live.train()
    assert live.optimizer.pending == 0
    assert all(param.grad is None for param in model.parameters())
    assert_same(model, before)


def test_an_update_that_fails_is_undone(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    live = adapt.Live(model, optimizer_of(model, accumulate=1), loss, compiled=False)
    before = values(model)

    def flush() -> None:
        with te.no_grad():
            model[2].weight.zero_()  # a part of an update
        raise te.errors.BackendError("flush", "all of 2 parameters", "one was refused")

    live.add(*sample(0))
    live.train()
    monkeypatch.setattr(live.optimizer, "flush", flush)
    with pytest.raises(te.errors.BackendError):
        live.train()
    assert_same(model, before)


def test_frames_from_another_thread(backend: Backend) -> None:
    """Every output is that of some whole update: all rows of the weight move together."""
    model = nn.Linear(2, 64, bias=False)
    with te.no_grad():
        model.weight.zero_()
    optimizer = optim.SGD(model.parameters(), lr=1.0, accumulate=1)
    live = adapt.Live(model, optimizer, lambda model, x: model(x).sum(), frame_budget_ms=5)
    live.prepare(te.ones(1, 2))
    live.add(te.ones(1, 2))
    outputs: list[Any] = []
    ends = threading.Event()

    def train() -> None:
        with te.use_backend(backend):
            while not ends.is_set():
                live.train()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for _ in range(50):
            outputs.append(live(te.ones(1, 2)).numpy())
    finally:
        ends.set()
        thread.join()
    assert all((output == output[0, 0]).all() for output in outputs)
    assert live.stats.updates > 0


def test_replay_buffer(backend: Backend) -> None:
    buffer = adapt.ReplayBuffer(100, seed=1)
    with pytest.raises(te.errors.ArgumentError, match="is empty"):
        buffer.take()
    for k in range(10):
        buffer.add(te.full((1, 5), float(k)), te.tensor([k]))  # 28 bytes
        assert buffer.nbytes <= 100
    assert len(buffer) == 3
    new = [int(buffer.take()[1].item()) for _ in range(3)]
    assert new == sorted(new)
    assert new[-1] == 9
    assert {int(buffer.take()[1].item()) for _ in range(30)} == set(new)
    x, y = buffer.take()
    assert x.device == te.ones(1).device
    np.testing.assert_array_equal(x.numpy(), np.full((1, 5), y.item(), np.float32))
    with pytest.raises(te.errors.ArgumentError, match="at most 100 bytes"):
        buffer.add(te.zeros(1, 26))
    assert len(buffer) == 3
    with pytest.raises(te.errors.ArgumentError, match="ReplayBuffer"):
        adapt.ReplayBuffer("much")
    half = adapt.ReplayBuffer("1kB")
    half.add(te.tensor([1.5]).half(), te.tensor([2.5]).bfloat16(), "word")
    assert [getattr(item, "dtype", item) for item in half.take()] == [te.float16, te.bfloat16, "word"]


@pytest.mark.parametrize(
    ("options", "text"),
    [({"frame_budget_ms": 0}, "frame_budget_ms > 0"), ({"duty": 2}, "duty in"), ({"check_every": 0}, "check_every")],
)
def test_options_out_of_range(backend: Backend, options: dict[str, Any], text: str) -> None:
    model = make()
    with pytest.raises(te.errors.ArgumentError, match=text):
        adapt.Live(model, optimizer_of(model), loss, **options)


def test_an_optimizer_of_something_else(backend: Backend) -> None:
    with pytest.raises(te.errors.ArgumentError, match="it has none"):
        adapt.Live(make(), optimizer_of(make()), loss)
    model = make()
    with pytest.raises(te.errors.ArgumentError, match="accumulate is None"):
        adapt.Live(model, optimizer_of(model, accumulate=None), loss)
