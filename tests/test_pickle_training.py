"""Pickles, copies and files of optimizers and schedules: training goes on as if it had not been stopped."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.pickles import (
    Training,
    Way,
    both_ways,
    every_optimizer,
    same,
    through_pickle,
)
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.optim import lr_scheduler

# A parameter that never gets a gradient is trained here, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*no gradient came for")


@every_optimizer
@both_ways
@pytest.mark.parametrize("accumulate", [None, 1, 4])
@pytest.mark.parametrize("compiled", [False, True])
def test_training_goes_on_as_if_it_had_not_been_copied(
    kind: str, way: Way, accumulate: int | None, compiled: bool, backend: Backend
) -> None:
    """Also in the middle of a minibatch; and the copy and the original do not meet any more."""
    whole, stopped = Training(kind, accumulate, compiled), Training(kind, accumulate, compiled)
    whole.train(0, 13)
    stopped.train(0, 6)
    found = way(stopped)
    assert found.optimizer.param_groups[0]["params"][0] is found.model[0].weight
    assert found.optimizer.param_groups[0]["params"][-1] is found.frozen
    assert found.schedule.optimizer is found.optimizer
    assert found.optimizer.pending == stopped.optimizer.pending == (2 if accumulate == 4 else 0)
    found.train(6, 13)
    assert found.bits() == whole.bits()
    stopped.train(6, 13)
    assert stopped.bits() == whole.bits()


@both_ways
def test_a_sample_that_was_not_counted_yet_goes_along(way: Way, backend: Backend) -> None:
    whole, stopped = Training("SGD", 2), Training("SGD", 2)
    whole.train(0, 4)
    stopped.feed(0)
    found = way(stopped)
    found.count(0)
    found.train(1, 4)
    assert found.bits() == whole.bits()


@both_ways
def test_a_minibatch_stays_guarded_in_the_copy(way: Way, backend: Backend) -> None:
    training = Training("Adam", 2)
    training.train(0, 1)
    found = way(training)
    with pytest.raises(te.ArgumentError, match="1 of 2 were accumulated"):
        found.model.zero_grad()
    found.optimizer.discard()
    found.model.zero_grad()
    assert training.optimizer.pending == 1
    assert training.model[0].weight.grad is not None


@both_ways
def test_an_optimizer_alone_takes_its_parameters_and_gradients_along(way: Way, backend: Backend) -> None:
    training = Training("SGD", 2)
    training.train(0, 1)
    found = way(training.optimizer)
    for mine, theirs in zip(training.model.parameters(), found.param_groups[0]["params"], strict=False):
        same(mine, theirs)
        np.testing.assert_array_equal(mine.grad.numpy(), theirs.grad.numpy())
        assert mine.grad._slot.storage is not theirs.grad._slot.storage


@both_ways
def test_a_part_of_a_sample_stays_refused(way: Way, backend: Backend) -> None:
    param = te.Parameter([1.0])
    optimizer = optim.SGD([param], accumulate=2)
    param.grad = te.ones(1)
    param._slot.grad.storage.torn = True  # type: ignore[union-attr]
    other = optim.SGD([te.Parameter([1.0])], accumulate=2)
    other.load_state_dict(optimizer.state_dict())
    for found in (way(optimizer), other):
        with pytest.raises(te.AutogradError, match="a part of one"):
            found.step()


def test_gradients_of_plain_training_are_dropped(backend: Backend) -> None:
    """As PyTorch's: with no minibatch of its own, an optimizer keeps none."""
    training = Training("SGD", None)
    training.feed(0)
    assert all(param.grad is None for param in copy.deepcopy(training).model.parameters())


def test_a_shallow_copy_of_an_optimizer_leaves_gradients_where_they_are(backend: Backend) -> None:
    training = Training("SGD", 2)
    training.train(0, 1)
    slot = training.model[0].weight._slot.grad
    found = copy.copy(training.optimizer)
    assert found.pending == 1
    assert training.model[0].weight._slot.grad is slot


def test_what_was_learnt_of_leaves_is_not_pickled(backend: Backend) -> None:
    training = Training("SGD", 2)
    training.train(0, 1)
    assert through_pickle(training.optimizer)._seen == -1


@pytest.mark.parametrize("way", [through_pickle, copy.deepcopy, "through files"])
@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.StepLR(o, 2, 0.5),
        lambda o: lr_scheduler.LambdaLR(o, float),
        lambda o: lr_scheduler.LinearLR(o, 0.5, total_iters=4),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
        lambda o: lr_scheduler.MultiStepLR(o, [2, 3], 0.5),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, 20, cycle_momentum=False),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, 3),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[2]
        ),
        lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)]),
    ],
)
def test_schedules(way: Any, make: Callable[[Any], Any], reference: Backend, tmp_path: Path) -> None:
    schedule = make(optim.SGD([te.Parameter([1.0])], lr=0.3))
    schedule.step()
    if way == "through files":
        found = make(optim.SGD([te.Parameter([1.0])], lr=7.0))
        te.save(schedule.optimizer.state_dict(), tmp_path / "optimizer")
        te.save(schedule.state_dict(), tmp_path / "schedule")
        found.optimizer.load_state_dict(te.load(tmp_path / "optimizer"))
        found.load_state_dict(te.load(tmp_path / "schedule"))
    else:
        found = way(schedule)
    for _ in range(5):
        schedule.step()
        found.step()
        assert found.get_last_lr() == schedule.get_last_lr()
        assert found.optimizer.param_groups[0]["lr"] == schedule.optimizer.param_groups[0]["lr"]


# State dicts in files


def saved(training: Training, path: Path) -> Training:
    """Another training, made anew, that takes over what a file kept of the first one."""
    te.save(
        {
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "schedule": training.schedule.state_dict(),
        },
        path,
    )
    found = Training("SGD", None)
    found.optimizer = type(training.optimizer)(
        [*found.model.named_parameters(), ("frozen", found.frozen)], lr=9.0, accumulate=training.optimizer.accumulate
    )
    found.schedule = lr_scheduler.StepLR(found.optimizer, 7, 0.9)
    te.manual_seed(99)
    for param in found.model.parameters():
        nn.init.normal_(param)
    loaded = te.load(path)
    found.model.load_state_dict(loaded["model"])
    found.optimizer.load_state_dict(loaded["optimizer"])
    found.schedule.load_state_dict(loaded["schedule"])
    return found


@every_optimizer
@pytest.mark.parametrize("accumulate", [None, 1, 4])
@pytest.mark.parametrize("stop", [1, 6, 8])
def test_training_goes_on_from_a_file(
    kind: str, accumulate: int | None, stop: int, backend: Backend, tmp_path: Path
) -> None:
    """To the bit, also from the middle of a minibatch."""
    whole, stopped = Training(kind, accumulate), Training(kind, accumulate)
    whole.train(0, 13)
    stopped.train(0, stop)
    found = saved(stopped, tmp_path / "checkpoint")
    assert found.optimizer.pending == stopped.optimizer.pending
    found.train(stop, 13)
    assert found.bits() == whole.bits()


def test_a_sample_that_was_not_counted_yet_is_in_the_file(backend: Backend, tmp_path: Path) -> None:
    whole, stopped = Training("Adam", 2), Training("Adam", 2)
    whole.train(0, 4)
    stopped.feed(0)
    found = saved(stopped, tmp_path / "checkpoint")
    found.count(0)
    found.train(1, 4)
    assert found.bits() == whole.bits()


def test_a_state_dict_without_a_minibatch_is_pytorchs(reference: Backend) -> None:
    training = Training("Adam", 2)
    training.train(0, 4)
    assert set(training.optimizer.state_dict()) == {"state", "param_groups"}
    training.train(4, 5)
    assert training.optimizer.state_dict()["minibatch"]["counted"] == 1


def test_a_loaded_minibatch_takes_the_place_of_the_one_that_was_there(reference: Backend) -> None:
    a, b = te.Parameter([1.0]), te.Parameter([1.0])
    optimizer = optim.SGD([a, b], lr=1.0, accumulate=3)
    a.grad = te.ones(1)
    optimizer.step()
    kept = copy.deepcopy(optimizer.state_dict())
    b.grad = te.ones(1)
    optimizer.step()
    optimizer.load_state_dict(kept)
    assert optimizer.pending == 1
    assert b.grad is None
    assert a.grad.tolist() == [1.0]
    other = optim.SGD([b], accumulate=2)
    b.grad = te.ones(1)
    other.step()
    with pytest.raises(te.ArgumentError, match=r"load_state_dict: .*1 of 2"):
        optimizer.load_state_dict(kept)
    assert (optimizer.pending, b.grad.tolist()) == (1, [1.0])


@pytest.mark.parametrize(
    ("minibatch", "text"),
    [
        ([], "minibatch"),
        ({"counted": -1, "gradients": {}}, "counted"),
        ({"counted": True, "gradients": {}}, "counted"),
        ({"counted": "1", "gradients": {}}, "counted"),
        ({"counted": 2, "gradients": {}}, "accumulate"),
        ({"counted": 1, "gradients": [1]}, "gradients"),
        ({"counted": 1}, "gradients"),
        ({"counted": 1, "gradients": {7: np.ones(2)}}, "parameter 7"),
        ({"counted": 1, "gradients": {0: np.ones(3)}}, r"gradient of parameter .*\(3,\)"),
        ({"counted": 1, "gradients": {0: "text"}}, "gradient of parameter"),
        ({"counted": 1, "gradients": {0: np.ones(2)}, "torn": 3}, "torn"),
    ],
)
def test_a_minibatch_that_does_not_fit_changes_nothing(minibatch: Any, text: str, reference: Backend) -> None:
    param = te.Parameter([1.0, 2.0])
    optimizer = optim.SGD([param], lr=0.1, momentum=0.9, accumulate=2)
    group = {**optimizer.state_dict()["param_groups"][0], "lr": 9.0}
    with pytest.raises(te.StateDictError, match=text):
        optimizer.load_state_dict({"state": {}, "param_groups": [group], "minibatch": minibatch})
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.pending == 0
    assert param.grad is None


def test_a_minibatch_needs_an_optimizer_that_accumulates(reference: Backend) -> None:
    training = Training("SGD", 2)
    training.train(0, 1)
    plain = Training("SGD", None)
    with pytest.raises(te.StateDictError, match="accumulate"):
        plain.optimizer.load_state_dict(training.optimizer.state_dict())
