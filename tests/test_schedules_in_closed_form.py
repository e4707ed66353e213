"""Schedules against their closed forms, also where they go on from a state dict; and what they say they need."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import tinyedge as te
from tinyedge import optim
from tinyedge.backends import Backend
from tinyedge.optim import lr_scheduler
from tinyedge.optim.optimizer import Optimizer

BASE_LR = 0.3
EPOCHS = 14
SCHEDULES: dict[str, tuple[Callable[[Optimizer, int], lr_scheduler.LRScheduler], Callable[[int], float]]] = {
    "LambdaLR": (
        lambda o, last: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch, last_epoch=last),
        lambda epoch: BASE_LR * 0.9**epoch,
    ),
    "StepLR": (
        lambda o, last: lr_scheduler.StepLR(o, step_size=3, gamma=0.5, last_epoch=last),
        lambda epoch: BASE_LR * 0.5 ** (epoch // 3),
    ),
    "LinearLR": (
        lambda o, last: lr_scheduler.LinearLR(o, start_factor=0.25, total_iters=4, last_epoch=last),
        lambda epoch: BASE_LR * (0.25 + 0.75 * min(epoch, 4) / 4),
    ),
    "CosineAnnealingLR": (
        lambda o, last: lr_scheduler.CosineAnnealingLR(o, T_max=5, eta_min=0.01, last_epoch=last),
        lambda epoch: 0.01 + (BASE_LR - 0.01) * (1 + math.cos(math.pi * epoch / 5)) / 2,
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stop", [EPOCHS, 4, 5])
def test_schedule_is_its_closed_form_also_when_resumed(reference: Backend, name: str, stop: int) -> None:
    make_schedule, formula = SCHEDULES[name]
    param = te.Parameter([1.0])
    optimizer = optim.SGD([param], lr=BASE_LR)
    schedule = make_schedule(optimizer, -1)
    rates = []
    for epoch in range(EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        assert schedule.get_last_lr() == rates[-1:]
        if epoch == stop:
            saved = optimizer.state_dict(), schedule.state_dict()
            optimizer = optim.SGD([param], lr=9.0)
            schedule = make_schedule(optimizer, -1)
            optimizer.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
        schedule.step()
    np.testing.assert_allclose(rates, [formula(epoch) for epoch in range(EPOCHS)], rtol=1e-9)


def test_schedules_say_what_they_need(reference: Backend) -> None:
    optimizer = optim.SGD([te.Parameter([1.0])])
    with pytest.raises(te.ArgumentError, match="initial_lr"):
        lr_scheduler.StepLR(optimizer, 1, last_epoch=3)
    with pytest.raises(te.ArgumentError, match="start_factor"):
        lr_scheduler.LinearLR(optimizer, start_factor=0)
    with pytest.raises(te.ArgumentError, match="end_factor"):
        lr_scheduler.LinearLR(optimizer, end_factor=2)
    with pytest.raises(te.ArgumentError, match="one function, or 1"):
        lr_scheduler.LambdaLR(optimizer, [lambda epoch: 1.0] * 2)


def test_a_second_schedule_starts_from_the_first_rate(reference: Backend) -> None:
    """As PyTorch's: phases after each other, and several schedules at once."""
    optimizer = optim.SGD([te.Parameter([1.0])], lr=0.5)
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=2)
    assert optimizer.param_groups[0]["lr"] == 0.05
    second = lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    assert second.base_lrs == [0.5]
    assert optimizer.param_groups[0]["lr"] == 0.5
    warmup.step()
    assert second.base_lrs == [0.5]
    chained = optim.SGD([te.Parameter([1.0])], lr=1.0)
    both = [lr_scheduler.StepLR(chained, 1, 0.5), lr_scheduler.LinearLR(chained, start_factor=0.5, total_iters=1)]
    for _ in range(2):
        for schedule in both:
            schedule.step()
    np.testing.assert_allclose(chained.param_groups[0]["lr"], 0.25)


def test_a_group_that_is_added_has_its_own_rate(reference: Backend) -> None:
    optimizer = optim.SGD([te.Parameter([1.0])], lr=1.0)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    cosine.step()
    optimizer.add_param_group({"params": [te.Parameter([1.0])], "lr": 0.1})
    cosine.step()
    assert cosine.base_lrs == [1.0, 0.1]
    factor = lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    optimizer.add_param_group({"params": [te.Parameter([1.0])], "lr": 0.1})
    with pytest.raises(te.ArgumentError, match="a function for each of 3 groups, but there are 2"):
        factor.step()


def test_a_schedules_state_is_a_copy_and_must_fit(reference: Backend) -> None:
    optimizer = optim.SGD([te.Parameter([1.0])], lr=1.0)
    schedule = lr_scheduler.StepLR(optimizer, 3)
    saved = schedule.state_dict()
    saved["base_lrs"].append(7.0)
    assert schedule.base_lrs == [1.0]
    with pytest.raises(te.StateDictError, match="the rates of 1 groups, but it has those of 2"):
        schedule.load_state_dict(saved)
    with pytest.raises(te.StateDictError, match=r"step_size, gamma.*it has no step_size"):
        schedule.load_state_dict(lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0).state_dict())
    theirs = {"step_size": 2, "gamma": 0.5, "base_lrs": [3.0], "last_epoch": 4, "_step_count": 5, "_last_lr": [1.5]}
    schedule.load_state_dict({**theirs, "_get_lr_called_within_step": False})
    assert (schedule.last_epoch, schedule.base_lrs, schedule.get_last_lr()) == (4, [3.0], [1.5])
    assert not hasattr(schedule, "_step_count")
