"""Whole training steps in compiled functions: optimizers, schedules, several samples; each against the eager call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tinyedge as te
from tests.training import Wrap, assert_as_eager, grads, network, samples
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.errors import CaptureError


def whole_step(
    make_optimizer: Callable[[nn.Module], te.optim.Optimizer], zero: bool = False, schedule: str = ""
) -> Callable[[Wrap], Any]:
    def make(wrap: Wrap) -> Any:
        model = network()
        optimizer = make_optimizer(model)
        scheduler = te.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)

        def step(x: te.Tensor) -> te.Tensor:
            if zero:
                optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            if schedule == "before":
                scheduler.step()
            optimizer.step()
            if schedule == "after":
                scheduler.step()
            return loss

        call = wrap(step)

        def outer(x: te.Tensor) -> te.Tensor:
            loss = call(x)
            if schedule == "outside":
                scheduler.step()
            return loss

        def seen() -> Any:
            states = [[state[name] for name in sorted(state)] for state in optimizer.state.values()]
            return [*model.parameters(), *grads(model)(), *states, optimizer.pending, *scheduler.get_last_lr()]

        return outer, seen

    return make


OPTIMIZERS: dict[str, Callable[[nn.Module], te.optim.Optimizer]] = {
    "sgd": lambda m: te.optim.SGD(m.parameters(), lr=0.01),
    "momentum": lambda m: te.optim.SGD(m.parameters(), lr=0.01, momentum=0.9),
    "adam": lambda m: te.optim.Adam(m.parameters(), lr=0.01),
    "accumulate 1": lambda m: te.optim.AdamW(m.parameters(), lr=0.01, accumulate=1),
    "accumulate 3": lambda m: te.optim.AdamW(m.parameters(), lr=0.01, accumulate=3),
    "nadam": lambda m: te.optim.NAdam(m.parameters(), lr=0.01),
    "nadam, accumulate 2": lambda m: te.optim.NAdam(m.parameters(), lr=0.01, accumulate=2),
    "radam": lambda m: te.optim.RAdam(m.parameters(), lr=0.01, betas=(0.9, 0.9)),
    "rprop": lambda m: te.optim.Rprop(m.parameters(), lr=0.01),
    "rmsprop": lambda m: te.optim.RMSprop(m[2].parameters(), lr=0.01, momentum=0.5, accumulate=2),
}


@pytest.mark.parametrize("schedule", ["", "before", "after", "outside"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_whole_step_is_compiled(backend: Backend, kind: str, schedule: str) -> None:
    zero = "accumulate" not in kind and kind != "rmsprop"
    assert_as_eager(whole_step(OPTIMIZERS[kind], zero, schedule), 11)


SCHEDULES: dict[str, Callable[[te.optim.Optimizer], te.optim.lr_scheduler.LRScheduler]] = {
    "OneCycleLR": lambda o: te.optim.lr_scheduler.OneCycleLR(o, 0.02, total_steps=11),
    "CyclicLR": lambda o: te.optim.lr_scheduler.CyclicLR(o, 0.01, 0.02, 3),
    "CosineAnnealingWarmRestarts": lambda o: te.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2),
    "SequentialLR": lambda o: te.optim.lr_scheduler.SequentialLR(
        o, [te.optim.lr_scheduler.LinearLR(o, 0.1), te.optim.lr_scheduler.ExponentialLR(o, 0.9)], [4]
    ),
    "ChainedScheduler": lambda o: te.optim.lr_scheduler.ChainedScheduler(
        [te.optim.lr_scheduler.ConstantLR(o, 0.1, 3), te.optim.lr_scheduler.MultiStepLR(o, [2, 5], 0.5)]
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ["momentum", "nadam"])
def test_schedules_of_rate_and_momentum_are_compiled(backend: Backend, kind: str, schedule: str) -> None:
    """Two updates a call: the second has the momentum, and NAdam's product of momenta, that the first left."""

    def make(wrap: Wrap) -> Any:
        model = network()
        optimizer = OPTIMIZERS[kind](model)
        scheduler = SCHEDULES[schedule](optimizer)

        def step(x: te.Tensor) -> None:
            for _ in range(2):
                optimizer.zero_grad()
                model(x).square().sum().backward()
                optimizer.step()
                scheduler.step()

        def seen() -> Any:
            groups = [[group.get("momentum"), group.get("betas")] for group in optimizer.param_groups]
            numbers = [state.get("mu_product") for state in optimizer.state.values()]
            return [*model.parameters(), *grads(model)(), *groups, *numbers, *scheduler.get_last_lr()]

        return wrap(step), seen

    assert_as_eager(make, 5)


def test_the_update_is_launched_with_the_last_sample(backend: Backend) -> None:
    model = network()
    optimizer = te.optim.Adam(model.parameters(), accumulate=3)

    @te.compile
    def step(x: te.Tensor) -> None:
        model(x).square().sum().backward()
        optimizer.step()

    for x in samples(12):
        step(x)
    counting, updating = step.programs.values()
    assert "adam" not in counting.explain()
    assert "adam" in updating.explain()
    assert optimizer.pending == 0
    with pytest.raises(CaptureError, match="flush"):
        te.compile(lambda: optimizer.flush())()


def _group(**options: Any) -> Callable[[te.optim.Optimizer], None]:
    return lambda optimizer: optimizer.param_groups[0].update(options)


def _adds_a_group(optimizer: te.optim.Optimizer) -> None:
    optimizer.add_param_group({"params": [optimizer.param_groups[0]["params"].pop()], "lr": 1.0})


def _forgets_a_velocity(optimizer: te.optim.Optimizer) -> None:
    optimizer.state[optimizer.param_groups[0]["params"][0]]["momentum_buffer"] = None


@pytest.mark.parametrize(
    ("optimizer", "change"),
    [
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1), _group(momentum=0.9)),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), _group(momentum=0.0)),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), _group(nesterov=True)),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1), _group(maximize=True)),
        (lambda m: te.optim.Adam(m.parameters(), lr=0.1), _group(amsgrad=True)),
        (lambda m: te.optim.Adam(m.parameters(), lr=0.1), _group(betas=(0.5, 0.5))),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1), lambda o: o.param_groups[0]["params"].pop()),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1), _adds_a_group),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), lambda o: o.state.clear()),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), _forgets_a_velocity),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1, accumulate=3), lambda o: setattr(o, "accumulate", 2)),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1, accumulate=1), lambda o: setattr(o, "accumulate", 2)),
        (lambda m: te.optim.SGD(m.parameters(), lr=0.1, accumulate=4), lambda o: setattr(o, "accumulate", 1)),
    ],
    ids=(
        "momentum on",
        "off",
        "nesterov",
        "maximize",
        "amsgrad",
        "betas",
        "fewer",
        "another group",
        "no state",
        "a state of None",
        "3 to 2",
        "1 to 2",
        "4 to 1",
    ),
)
@pytest.mark.parametrize("last", [False, True])
def test_what_changes_in_an_optimizer_is_noticed(backend: Backend, optimizer: Any, change: Any, last: bool) -> None:
    """``last``: the gradients are dropped at the end of the step, and not before."""

    def make(wrap: Wrap) -> Any:
        model = network()
        updates = optimizer(model)

        def step(x: te.Tensor) -> te.Tensor:
            if not last and not updates.accumulate:
                updates.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            updates.step()
            if last and not updates.accumulate:
                updates.zero_grad()
            return loss

        compiled, count = wrap(step), iter(range(8))

        def call(x: te.Tensor) -> te.Tensor:
            if next(count) == 4:
                change(updates)
            loss: te.Tensor = compiled(x)
            return loss

        return call, lambda: [*model.parameters(), *grads(model)()]

    assert_as_eager(make, 8)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("samples_in_a_call", [2, 3, 4])
def test_several_samples_in_a_call(backend: Backend, accumulate: int, samples_in_a_call: int) -> None:
    """What is added after an update waits for the next."""

    def make(wrap: Wrap) -> Any:
        model = network()
        optimizer = te.optim.Adam(model.parameters(), lr=0.1, accumulate=accumulate)

        def step(x: te.Tensor) -> None:
            for k in range(samples_in_a_call):
                (model(x * (k + 1)).square().sum()).backward()
                optimizer.step()
            model(x).sum().backward()

        return wrap(step), lambda: [*model.parameters(), *grads(model)(), optimizer.pending]

    assert_as_eager(make, 9)


def test_a_search_for_nan_stops_replays_of_an_update(backend: Backend) -> None:
    model = network()
    optimizer = te.optim.SGD(model.parameters(), lr=0.1, accumulate=1)

    @te.compile
    def step(x: te.Tensor) -> None:
        model(x).square().sum().backward()
        optimizer.step()

    for x in samples(3):
        step(x)
    with te.detect_anomaly(), pytest.raises(CaptureError, match="looking for NaN"):
        step(x)
    step(x)
    optimizer.nonfinite = "raise"
    with pytest.raises(CaptureError, match="looking for NaN"):
        step(x)
