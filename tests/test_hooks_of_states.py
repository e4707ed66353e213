"""Hooks around steps, state dicts and loading, of optimizers and modules, as PyTorch calls them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.backends import Backend


def trained(kind: str = "SGD") -> tuple[te.Parameter, optim.Optimizer]:
    param = te.Parameter([1.0, 2.0])
    param.grad = te.ones(2)
    return param, getattr(optim, kind)([param], lr=0.5)


class Own(optim.Optimizer):
    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @te.no_grad()
    def step(self, closure: Any = None) -> None:
        for param in self.param_groups[0]["params"]:
            param.sub_(param.grad * self.param_groups[0]["lr"])


@pytest.mark.parametrize("kind", ["SGD", "own", "LBFGS"])
def test_around_a_step(kind: str, reference: Backend) -> None:
    calls: list[Any] = []
    param = te.Parameter([1.0, 2.0])
    param.grad = te.ones(2)
    optimizer = Own([param], 0.5) if kind == "own" else getattr(optim, kind)([param], lr=0.5)

    def closure() -> te.Tensor:
        param.grad = None
        loss = param.sum()
        loss.backward()
        return loss

    def doubled(_: Any, args: Any, kwargs: Any) -> Any:
        return (args, {**kwargs, "closure": closure})

    with optimizer.register_step_pre_hook(lambda *given: calls.append(("before", *given[1:]))):
        changing = optimizer.register_step_pre_hook(doubled)
        after = optimizer.register_step_post_hook(lambda _, args, kwargs: calls.append(("after", args, [*kwargs])))
        optimizer.step()
        assert calls == [("before", (), {}), ("after", (), ["closure"])]
        assert param.tolist() != [1, 2]
        changing.remove()
        optimizer.step(closure)
        assert [call[:2] for call in calls[2:]] == [("before", (closure,)), ("after", (closure,))]
    after.remove()
    optimizer.step(closure)
    assert len(calls) == 4


def test_steps_with_hooks_are_not_compiled(backend: Backend) -> None:
    param, optimizer = trained()
    handle = optimizer.register_step_post_hook(lambda *_: None)

    @te.compile
    def update() -> None:
        param.sum().backward()
        optimizer.step()

    with pytest.raises(te.CaptureError, match="has hooks"):
        update()
    handle.remove()
    update()


def test_around_an_optimizers_state(reference: Backend) -> None:
    calls: list[str] = []
    _, optimizer = trained()
    optimizer.register_state_dict_pre_hook(lambda _: calls.append("before"))
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "note": len(calls)})
    first = optimizer.register_state_dict_post_hook(lambda _, state: state.update(first=1), prepend=True)
    state = optimizer.state_dict()
    assert (calls, state["note"], state["first"]) == (["before"], 1, 1)
    first.remove()
    assert "first" not in optimizer.state_dict()

    def renamed(_: Any, state: Any) -> Any:
        state["param_groups"] = [{**state["param_groups"][0], "lr": 0.25}]

    optimizer.register_load_state_dict_pre_hook(renamed)
    optimizer.register_load_state_dict_post_hook(lambda one: calls.append(f"loaded {one.param_groups[0]['lr']}"))
    optimizer.load_state_dict(state)
    assert calls[-1] == "loaded 0.25"
    assert state["param_groups"][0]["lr"] == 0.5
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert "note" not in copied.state_dict()


class Versioned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 1), nn.Tanh())


def test_around_a_modules_state(reference: Backend) -> None:
    model, calls = Versioned(), []
    linear = model.inner[0]
    linear.register_state_dict_pre_hook(lambda module, prefix, keep_vars: calls.append((module, prefix, keep_vars)))

    def renamed(module: Any, state: Any, prefix: str, metadata: Any) -> None:
        state[prefix + "kernel"] = state.pop(prefix + "weight")

    handle = linear.register_state_dict_post_hook(renamed)
    model.register_state_dict_post_hook(lambda module, state, prefix, metadata: calls.append(list(state)))
    state = model.state_dict()
    assert [*state] == ["inner.0.bias", "inner.0.kernel"]
    assert calls == [(linear, "inner.0.", False), [*state]]

    def back(module: Any, state: Any, prefix: str, metadata: Any, strict: bool, *lists: Any) -> None:
        if prefix + "kernel" in state:
            state[prefix + "weight"] = state.pop(prefix + "kernel")

    handle.remove()
    linear.register_load_state_dict_pre_hook(back)
    other = {"inner.0.bias": te.ones(1), "inner.0.kernel": te.ones(1, 2)}
    assert model.load_state_dict(other) == ([], [])
    assert (linear.weight.tolist(), [*other]) == ([[1, 1]], ["inner.0.bias", "inner.0.kernel"])
    assert copy.deepcopy(model).load_state_dict(other) == ([], [])


def test_missing_keys_may_be_forgiven(reference: Backend) -> None:
    model, found = nn.Linear(2, 1), []

    def forgive(module: Any, keys: Any) -> None:
        found.append((list(keys.missing_keys), list(keys.unexpected_keys)))
        keys.missing_keys.clear()

    handle = model.register_load_state_dict_post_hook(forgive)
    model.load_state_dict({"weight": te.ones(1, 2)})
    assert (found, model.weight.tolist()) == ([(["bias"], [])], [[1, 1]])
    with pytest.raises(te.StateDictError, match="unexpected keys: more"):
        model.load_state_dict({"weight": te.zeros(1, 2), "more": te.ones(1)})
    assert model.weight.tolist() == [[1, 1]]
    handle.remove()
    with pytest.raises(te.StateDictError, match="missing keys: bias"):
        model.load_state_dict({"weight": te.ones(1, 2)})


def test_hooks_of_a_layer_with_methods_of_its_own(reference: Backend) -> None:
    layer, found = nn.TransformerEncoderLayer(4, 2, 8), []
    layer.register_state_dict_post_hook(lambda module, state, prefix, metadata: found.append(len(state)))
    state = layer.state_dict()
    assert found == [len(state)]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.count = nn.Linear(2, 1), 0

    def get_extra_state(self) -> dict[str, Any]:
        return {"count": self.count, "seen": te.tensor([1.0])}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_extra_states(tmp_path: Path) -> None:
    """What a class keeps besides tensors stands in its state dict, in files too, and comes back."""
    model, other = nn.Sequential(Counting(), nn.ReLU()), nn.Sequential(Counting(), nn.ReLU())
    model[0].count = 7
    state = model.state_dict()
    assert list(state) == ["0.linear.weight", "0.linear.bias", "0._extra_state"]
    te.save(state, tmp_path / "state.safetensors")
    other.load_state_dict(te.load(tmp_path / "state.safetensors"))
    assert other[0].count == 7
    del state["0._extra_state"]
    with pytest.raises(te.StateDictError, match=r"missing keys: 0\._extra_state"):
        other.load_state_dict(state)
    assert other.load_state_dict(state, strict=False).missing_keys == ["0._extra_state"]
    with pytest.raises(te.StateDictError, match=r"unexpected keys: _extra_state"):
        nn.ReLU().load_state_dict({"_extra_state": 1})
    with pytest.raises(NotImplementedError, match="define get_extra_state"):
        nn.ReLU().get_extra_state()


def test_whole_modules_are_not_saved(tmp_path: Path) -> None:
    for value in (nn.ReLU(), {"model": nn.ReLU(), "epoch": 1}):
        with pytest.raises(te.ArgumentError, match=r"te\.save\(x\.state_dict\(\), path\)"):
            te.save(value, tmp_path / "model.safetensors")
