"""Gradients after an update, and frozen parameters; no way to zero gradients loses samples."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.optimizers import (
    KINDS,
    make,
)
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.optim.optimizer import Optimizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("freeze", ["freeze", "unused"])
@pytest.mark.parametrize("compiled", ["0", "1"])
def test_what_was_frozen_or_not_used_since_stays(
    kind: str, freeze: str, compiled: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither momentum, averages nor weight decay move it; and what it waits with is not applied later."""
    monkeypatch.setenv("TINYEDGE_COMPILE", compiled)
    te.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    o = {"lr": 0.1} | ({"momentum": 0.9} if kind in ("SGD", "RMSprop") else {})
    o |= {} if kind == "Rprop" else {"weight_decay": 0.1}
    optimizer = make(kind, model.named_parameters(), o, accumulate=2)
    x = te.ones(1, 3)

    def sample() -> None:
        used = model(x) if not frozen or freeze == "freeze" else model[1](x)
        used.sum().backward()
        optimizer.step()

    frozen = False
    for _ in range(6):
        sample()
    state = {k: v if isinstance(v, (int, float)) else v.numpy() for k, v in optimizer.state[model[0].weight].items()}
    frozen = True
    if freeze == "freeze":
        model(x).sum().backward()  # half a minibatch, which waits in what is frozen now
        optimizer.step()
        model.freeze(except_="1")
    before = [param.detach().numpy() for param in model.parameters()]
    for _ in range(4):
        sample()
    after = [param.detach().numpy() for param in model.parameters()]
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])
    assert (after[2] != before[2]).any()
    for name, value in optimizer.state[model[0].weight].items():
        np.testing.assert_array_equal(value if isinstance(value, (int, float)) else value.numpy(), state[name])
    model.requires_grad_()
    assert model[0].weight.grad is None
    optimizer.flush()
    np.testing.assert_array_equal(model[0].weight.detach().numpy(), before[0])


def test_after_an_update_there_is_no_gradient_and_its_memory_stays(backend: Backend) -> None:
    param = te.Parameter([1.0, 2.0])
    optimizer = optim.SGD([param], lr=0.1, accumulate=2)

    @te.compile
    def sample(x: te.Tensor) -> te.Tensor:
        loss = (param * x).sum()
        loss.backward()
        return loss

    slot = None
    for number in range(8):
        assert (param.grad is None) == (number % 2 == 0)
        sample(te.tensor([1.0, float(number)]))
        assert param.grad is not None
        if number % 2 == 0:
            assert param.grad.tolist() == [1.0, float(number)]
        slot = slot or param._slot.grad
        assert param._slot.grad is slot
        optimizer.step()
    assert len(sample.programs) == 1
    held = param.grad
    assert held is None
    assert te.Tensor._wrap(slot).tolist() == [0.0, 0.0]
    copied = copy.deepcopy(param)
    assert copied.grad is None


def test_a_gradient_is_there_when_something_was_put_into_it(backend: Backend) -> None:
    param = te.Parameter([1.0, 2.0])
    optimizer = optim.SGD([param], lr=1.0, accumulate=1)
    param.grad = te.tensor([1.0, 1.0])
    held = param.grad
    optimizer.step()
    assert param.grad is None
    assert held.tolist() == [0.0, 0.0]
    optimizer.step()
    assert param.tolist() == [0.0, 1.0]
    held.add_(0.5)
    assert param.grad is not None
    optimizer.step()
    assert param.tolist() == [-0.5, 0.5]
    param.grad = te.zeros(2)
    assert param.grad is not None  # whoever sets zeros wants them
    optimizer.zero_grad(set_to_none=False)
    assert param.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("compiled", ["0", "1"])
def test_a_gradient_that_shares_its_memory_is_dropped(
    compiled: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two parameters with one gradient gets the whole of it; a part of something is not written."""
    monkeypatch.setenv("TINYEDGE_COMPILE", compiled)
    a, b, c = (te.Parameter([1.0, 1.0]) for _ in range(3))
    optimizer = optim.SGD([a, b, c], lr=1.0, accumulate=1)
    for _ in range(3):
        whole = te.ones(2, 2)
        a.grad = te.tensor([1.0, 2.0])
        b.grad, c.grad = a.grad, whole[1]
        before = [param.detach().numpy() for param in (a, b, c)]
        optimizer.step()
        for param, old, step in zip((a, b, c), before, ([1, 2], [1, 2], [1, 1]), strict=True):
            np.testing.assert_array_equal(param.detach().numpy(), old - np.array(step))
            assert param.grad is None
        assert whole.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_minibatches_of_one_sample_are_as_those_of_more(backend: Backend) -> None:
    """A sweep over N begins at 1, and clears there too."""
    for count in (1, 2):
        param = te.Parameter([0.0])
        optimizer = optim.SGD([param], lr=1.0, accumulate=count)
        for _ in range(4 * count):
            (param * 1).sum().backward()
            optimizer.step()
        assert param.item() == -4.0
        assert param.grad is None


def test_adding_to_an_applied_gradient_is_said_once(backend: Backend) -> None:
    def trained(after: Callable[[te.Parameter, Optimizer], Any], accumulate: int | None = None) -> Optimizer:
        param = te.Parameter([1.0, 2.0])
        optimizer = optim.SGD([param], lr=0.1, accumulate=accumulate)
        for _ in range(4):
            (param * 2).sum().backward()
            optimizer.step()
            after(param, optimizer)
        return optimizer

    def zeroed(param: te.Parameter) -> te.Tensor:
        assert param.grad is not None
        return param.grad.zero_()

    def copied_into(param: te.Parameter) -> te.Tensor:
        assert param.grad is not None
        return param.grad.data.copy_(te.ones(2))

    right: list[Callable[[te.Parameter, Optimizer], Any]] = [
        lambda param, optimizer: optimizer.zero_grad(),
        lambda param, optimizer: optimizer.zero_grad(set_to_none=False),
        lambda param, optimizer: zeroed(param),
        lambda param, optimizer: copied_into(param),
        lambda param, optimizer: setattr(param, "grad", None),
        lambda param, optimizer: setattr(param, "grad", te.zeros(2)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Non-empty compiler output")
        for after in right:
            trained(after)
        trained(lambda param, optimizer: None, accumulate=1)
        param = te.Parameter([1.0])
        twice = optim.SGD([param])
        param.grad = te.ones(1)
        for _ in range(3):
            twice.step()  # nothing is added
    with pytest.warns(UserWarning, match=r"SGD.step: backward added to a gradient") as said:
        trained(lambda param, optimizer: None)
    assert [entry.filename for entry in said] == [__file__]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_no_way_to_zero_gradients_loses_samples(backend: Backend, set_to_none: bool) -> None:
    model = nn.Linear(2, 1)
    other = te.Parameter([1.0])
    other.grad = te.ones(1)
    optimizer = optim.SGD(model.parameters(), lr=0.1, accumulate=2)
    for count in (1, 2, 3):
        model(te.ones(1, 2)).sum().backward()
        model.register_parameter("other", other)
        if count == 1:
            model.zero_grad(set_to_none)  # nothing was counted yet
            model(te.ones(1, 2)).sum().backward()
        optimizer.step()
        if count == 2:
            model.zero_grad(set_to_none)
            continue
        other.grad = te.ones(1)
        with pytest.raises(te.ArgumentError, match=r"Module.zero_grad.*1 of 2 were accumulated.*discard\(\)"):
            model.zero_grad(set_to_none)
        with pytest.raises(te.ArgumentError, match=r"grad = None.*1 of 2 were accumulated"):
            model.weight.grad = None
        assert model.weight.grad is not None
        assert other.grad.tolist() == [1.0]
    copied = copy.deepcopy(optimizer)
    optimizer.discard(set_to_none)
    model.zero_grad(set_to_none)
    with pytest.raises(te.ArgumentError, match="1 of 2"):
        copied.param_groups[0]["params"][0].grad = None
    del copied


def test_another_optimizer_loses_no_samples_either(backend: Backend) -> None:
    shared, own = te.Parameter([1.0]), te.Parameter([1.0])
    waits, other = optim.SGD([shared], accumulate=2), optim.SGD([own, shared])
    own.grad = shared.grad = te.ones(1)
    waits.step()
    for set_to_none in (True, False):
        with pytest.raises(te.ArgumentError, match=r"zero_grad: .*1 of 2 were accumulated"):
            other.zero_grad(set_to_none)
    assert own.grad is not None
    assert own.grad.item() == 1.0
    waits.discard()
    other.zero_grad()
    assert own.grad is None


def test_a_gradient_with_half_a_sample_is_refused(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    class Torn(te.ir.values.Storage):
        __slots__ = ("torn",)

    param = te.Parameter([1.0])
    optimizer = optim.SGD([("w", param)], lr=1.0, accumulate=2)
    for _ in range(3):
        (param * 2).sum().backward()
        optimizer.step()
    monkeypatch.setattr(te.autograd.dispatch, "Storage", Torn)
    param.grad = te.ones(1)
    assert param._slot.grad is not None
    param._slot.grad.storage.torn = True  # type: ignore[attr-defined]
    for refuse in (optimizer.step, optimizer.step, optimizer.flush):
        with pytest.raises(te.AutogradError, match=r"parameter w .*part of one"):
            refuse()
    assert (param.item(), optimizer.pending) == (-1.0, 1)
    optimizer.discard(set_to_none=False)
    optimizer.step()
    optimizer.step()
    assert param.item() == -1.0


def test_zero_grad_does_not_lose_samples(reference: Backend) -> None:
    param = te.Parameter([1.0])
    optimizer = optim.SGD([param], lr=0.1, accumulate=3)
    param.grad = te.tensor([1.0])
    optimizer.step()
    with pytest.raises(te.ArgumentError, match="1 of 3 were accumulated"):
        optimizer.zero_grad()
    optimizer.discard()
    optimizer.zero_grad()
    assert (optimizer.pending, param.grad, param.item()) == (0, None, 1.0)
