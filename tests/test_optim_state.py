"""The state of optimizers: saved and loaded, pickled, in PyTorch's format, and where its parameter goes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.optimizers import (
    KINDS,
    Array,
    make,
    start_and_gradients,
    training,
)
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.optim import lr_scheduler


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_state_goes_on_where_it_was_saved(backend: Backend, kind: str) -> None:
    o = {"lr": 0.1} | ({"momentum": 0.9, "dampening": 0.5} if kind == "SGD" else {})
    start, gradients = start_and_gradients(3, 6)
    through, stopped = te.Parameter(start), te.Parameter(start)
    optimizer = make(kind, [("weight", through)], o)
    first = make(kind, [("weight", stopped)], o)
    for number, g in enumerate(gradients):
        through.grad, stopped.grad = te.tensor(g), te.tensor(g)
        optimizer.step()
        if number == 3:
            saved = first.state_dict()
            first = make(kind, [("weight", stopped)], {**o, "lr": 7.0})
            first.load_state_dict(saved)
        first.step()
    np.testing.assert_array_equal(stopped.detach().numpy(), through.detach().numpy())


def test_state_dict_is_in_pytorchs_format(backend: Backend) -> None:
    a, b = te.Parameter([1.0, 2.0]), te.Parameter([3.0])
    optimizer = optim.AdamW([("a", a), ("b", b)], lr=0.1, amsgrad=True)
    b.grad = te.tensor([0.5])
    optimizer.step()
    saved = optimizer.state_dict()
    assert set(saved) == {"state", "param_groups"}
    assert set(saved["state"]) == {1}
    assert set(saved["state"][1]) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    group = saved["param_groups"][0]
    assert (group["params"], group["param_names"], group["lr"], group["betas"]) == (
        [0, 1],
        ["a", "b"],
        0.1,
        (0.9, 0.999),
    )
    # What PyTorch saved holds arrays, a step that is an array, and options that are not used here.
    theirs = {
        "state": {0: {"step": np.array(3.0, np.float32), "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}},
        "param_groups": [{**group, "fused": None}],
    }
    optimizer.load_state_dict(theirs)
    assert optimizer.state[a]["step"] == 3
    assert optimizer.state[a]["exp_avg"].dtype is te.float32


def test_a_state_dict_that_does_not_fit_changes_nothing(reference: Backend) -> None:
    param = te.Parameter([1.0, 2.0])
    optimizer = optim.SGD([param], lr=0.1, momentum=0.9)
    group = optimizer.state_dict()["param_groups"][0]
    with pytest.raises(te.StateDictError, match=r"groups with \[1\] parameters"):
        optimizer.load_state_dict({"state": {}, "param_groups": [{**group, "params": [0, 1]}]})
    wrong = {"state": {0: {"momentum_buffer": np.ones(3)}}, "param_groups": [{**group, "lr": 9.0}]}
    with pytest.raises(te.StateDictError, match=r"momentum_buffer .* of shape \(2,\)"):
        optimizer.load_state_dict(wrong)
    for wrong in (
        {}, {"state": {}}, {"state": [], "param_groups": [group]}, {"state": {}, "param_groups": {}},
        {"state": {}, "param_groups": [1]}, {"state": {}, "param_groups": [{"lr": 9.0}]},
        {"state": {0: 1.0}, "param_groups": [{**group, "lr": 9.0}]},
    ):  # fmt: skip
        with pytest.raises(te.StateDictError):
            optimizer.load_state_dict(wrong)
    wide = {"state": {0: {"momentum_buffer": np.ones(2)}}, "param_groups": [{**group, "lr": np.ones(2)}]}
    with pytest.raises(te.ArgumentError, match="one element"):
        optimizer.load_state_dict(wide)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.state == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", ["0", "1"])
@pytest.mark.parametrize("accumulate", [None, 1])
def test_state_follows_its_parameter(
    kind: str, compiled: str, accumulate: int | None, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To another backend, to another dtype and back: the same updates; also loaded after that."""
    monkeypatch.setenv("TINYEDGE_COMPILE", compiled)
    o = {"lr": 0.1} | ({"momentum": 0.9} if kind in ("SGD", "RMSprop") else {})
    start, gradients = start_and_gradients(4, 9)

    def trained(moves: bool) -> Array:
        model = nn.Module()
        model.register_parameter("weight", te.Parameter(start))
        model.register_parameter("bias", te.Parameter(start[0]))
        optimizer = make(kind, model.parameters(), o, accumulate=accumulate)
        for number, g in enumerate(gradients):
            if moves and number == 3:
                model.to("numpy")
            if moves and number == 5:
                model.to(te.float64)
            if moves and number == 6:
                saved = optimizer.state_dict()
                model.to(te.float32)
                optimizer.load_state_dict(saved)
            if moves and number == 7:
                model.to(backend)
            model.weight.grad = te.tensor(g, dtype=model.weight.dtype, device=model.weight.device)
            model.bias.grad = te.tensor(g[0], dtype=model.weight.dtype, device=model.weight.device)
            optimizer.step()
        return model.weight.detach().numpy()

    np.testing.assert_allclose(trained(True), trained(False), rtol=1e-5, atol=1e-6)


def test_state_of_another_shape_is_refused(backend: Backend) -> None:
    param = te.Parameter([1.0, 2.0, 3.0])
    optimizer = optim.SGD([param], momentum=0.9)
    optimizer.state[param] = {"momentum_buffer": te.zeros(2)}
    param.grad = te.ones(3)
    with pytest.raises(te.StateDictError, match=r"momentum_buffer of shape \(3,\), but it has \(2,\)"):
        optimizer.step()
    assert param.tolist() == [1.0, 2.0, 3.0]


# Files


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_through_a_file(kind: str, tmp_path: Path, backend: Backend) -> None:
    o = {"lr": 0.1} | ({"momentum": 0.9, "dampening": 0.5} if kind == "SGD" else {})
    params, optimizer = training(kind, None, 3)
    schedule = lr_scheduler.StepLR(optimizer, 2)
    path = tmp_path / "state.safetensors"
    saved = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "epoch": 3, "name": None}
    te.save(saved, path, metadata={"what": "a test"})
    loaded = te.load(path)
    assert te.convert.safetensors.read_metadata(path) == {"what": "a test"}
    assert (loaded["epoch"], loaded["name"], loaded["schedule"]) == (3, None, schedule.state_dict())
    assert loaded["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert list(loaded["optimizer"]["state"]) == list(optimizer.state_dict()["state"])
    again = make(kind, [(f"p{n}", param) for n, param in enumerate(params)], o | {"lr": 7.0})
    again.load_state_dict(loaded["optimizer"])
    before = [param.detach().clone() for param in params]
    found = []
    for one in (optimizer, again):
        for param, value in zip(params, before, strict=True):
            with te.no_grad():
                param.copy_(value)
        one.step()
        found.append([param.detach().numpy() for param in params])
    for a, b, start in zip(*found, before, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not a.size or (a != start.numpy()).any()


def test_a_pickled_optimizer_goes_on(reference: Backend) -> None:
    """With the parameters that come with it; also in the middle of a minibatch, whose samples it still guards."""
    params, optimizer = training("Adam", 2, 2)
    again, copied = pickle.loads(pickle.dumps((params, optimizer)))
    assert copied.param_groups[0]["params"][0] is again[0]
    assert copied.program is None
    with pytest.raises(te.ArgumentError, match="1 of 2 were accumulated"):
        again[0].grad = None
    optimizer.step()
    copied.step()
    for a, b in zip(params, again, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    assert [s["step"] for s in copied.state.values()] == [3] * 5
    optimizer.discard()


class Lars(optim.Optimizer):
    """An optimizer of the user's own, which keeps what it likes in ``state``."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @te.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state[param]
                if "mu" not in state:
                    state["mu"], state["count"] = te.zeros_like(param), 0
                state["count"] += 1
                state["mu"].mul_(0.9).add_(param.grad)
                param.add_(state["mu"], alpha=-group["lr"])


def test_state_of_an_optimizer_of_ones_own(backend: Backend) -> None:
    """It begins empty for each parameter, also after a state dict was loaded."""
    param = te.Parameter([1.0, 2.0])
    first = Lars([param], 0.5)
    param.grad = te.ones(2)
    first.step()
    second = Lars([param], 9.0)
    second.load_state_dict(first.state_dict())
    second.step()
    np.testing.assert_allclose(param.detach().numpy(), [1 - 0.5 - 0.95, 2 - 0.5 - 0.95], rtol=1e-6)
    assert second.state[param]["count"] == 2
    assert first.state[te.Parameter([1.0])] == {}
    assert len(copy.deepcopy(second).state[te.Parameter([1.0])]) == 0
