"""Optimizers against their published formulas in float64; accumulated minibatches; replayed updates; bad arguments."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinyedge as te
from tests.optimizers import (
    FORMULAS,
    KINDS,
    adam,
    make,
    options,
    start_and_gradients,
)
from tinyedge import optim
from tinyedge.backends import Backend
from tinyedge.optim import lr_scheduler


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_trajectory_is_the_formulas(kind: str, backend: Backend, data: st.DataObject, seed: int) -> None:
    o = data.draw(options(kind))
    start, gradients = start_and_gradients(seed)
    param = te.Parameter(start)
    optimizer = make(kind, [param], o)
    for g in gradients:
        param.grad = te.tensor(g)
        optimizer.step()
        np.testing.assert_array_equal(param.grad.numpy(), g)  # without accumulate nothing is cleared
    expected = FORMULAS[kind](start.astype(np.float64), [g.astype(np.float64) for g in gradients], o)
    np.testing.assert_allclose(param.detach().numpy(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), seed=st.integers(0, 1000), count=st.integers(2, 4), last=st.integers(0, 3))
@example(data=None, seed=0, count=3, last=2)
def test_accumulating_is_the_mean_of_the_minibatch(
    kind: str, backend: Backend, data: st.DataObject | None, seed: int, count: int, last: int
) -> None:
    """Two whole minibatches, and one that ``flush`` ends early."""
    o = data.draw(options(kind)) if data else {"lr": 0.1}
    last = min(last, count - 1)
    start, gradients = start_and_gradients(seed, 2 * count + last)
    one, whole = te.Parameter(start), te.Parameter(start)
    accumulating, plain = make(kind, [one], o, accumulate=count), make(kind, [whole], o)
    for number, g in enumerate(gradients, 1):
        (one * te.tensor(g)).sum().backward()
        accumulating.step()
        assert accumulating.pending == number % count
    accumulating.flush()
    after = one.detach().numpy()
    accumulating.flush()
    np.testing.assert_array_equal(one.detach().numpy(), after)
    assert one.grad is None
    for at in range(0, len(gradients), count):
        batch = np.stack(gradients[at : at + count]).astype(np.float64)
        whole.grad = te.tensor(batch.mean(axis=0).astype(np.float32))
        plain.step()
    np.testing.assert_allclose(after, whole.detach().numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.replays("an update is eager")
def test_an_update_is_one_kernel_and_a_schedule_builds_none(opencl: Any) -> None:
    param = te.Parameter(np.ones(40, np.float32))
    param.grad = te.tensor(np.ones(40, np.float32))
    optimizer = optim.SGD([param], lr=0.1, momentum=0.9, accumulate=2)
    launches = []
    launch = opencl.launch
    for number in range(8):
        (param * 2).sum().backward()
        optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
        opencl.launch = lambda given: launches.append(len(given)) or launch(given)
        try:
            optimizer.step()
        finally:
            del opencl.launch
        if number == 3:
            launches.clear()
            built = len(opencl._kernels)
    assert launches == [1, 1]
    assert len(opencl._kernels) == built
    assert "sgd" in optimizer.program.explain()


def updated(kind: str, o: dict[str, Any], change: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Parameters, gradients, state and versions after eight updates, with a change of circumstances after four."""
    monkeypatch.setenv("TINYEDGE_COMPILE", str(int(compiled)))
    random = np.random.default_rng(0)
    shapes = ((3, 7), (), (0, 2), (300,), (5,))
    params = [te.Parameter(random.standard_normal(shape, np.float32)) for shape in shapes]
    accumulates = None if change == "gradients move" else 2
    optimizer = make(kind, params[:3], o, accumulate=accumulates)
    optimizer.add_param_group({"params": params[3:], "lr": 0.02})
    schedule = lr_scheduler.StepLR(optimizer, 3, 0.5)

    def sample() -> None:
        for param in params:
            g = te.tensor(random.standard_normal(param.shape, np.float32))
            if param.requires_grad:
                (param * g).sum().backward()
        optimizer.step()

    for number in range(8):
        for _ in range(accumulates or 1):
            sample()
        schedule.step()
        if change == "gradients move":
            optimizer.zero_grad()
        elif number == 3 and change == "frozen":
            params[0].requires_grad_(False)
            params[0].grad = None
        elif number == 3 and change == "added":
            params.append(te.Parameter([1.0, 2.0]))
            optimizer.add_param_group({"params": params[-1:]})
        elif number == 3 and change == "loaded":
            optimizer.load_state_dict(optimizer.state_dict())
        elif number == 3 and change == "state replaced":
            optimizer.state[params[3]] = {k: v * 1 for k, v in optimizer.state.get(params[3], {}).items()}
        elif number == 3 and change == "counted anew":
            optimizer.state.get(params[1], {})["step"] = 0
        elif number == 3 and change == "options":
            optimizer.param_groups[1] |= {"maximize": True, "weight_decay": 0.3}
        elif number == 3 and change == "one gradient for two":
            params[4].grad = te.zeros(5)
            params.append(te.Parameter(np.ones(5, np.float32)))
            params[-1].grad = params[4].grad
            optimizer.add_param_group({"params": params[-1:]})
        elif number == 3 and change == "flushed":
            sample()
            optimizer.flush()
        elif number == 3 and change == "discarded":
            sample()
            optimizer.discard()
        elif number == 3 and change == "a part of something":
            whole = te.tensor(random.standard_normal((2, 300), np.float32))
            params[3].grad = whole[1]
        elif number == 3 and change == "copied":
            optimizer, params = copy.deepcopy((optimizer, params))
            schedule.optimizer = optimizer
    assert (optimizer.program is not None) == compiled or change == "one gradient for two"
    found: list[Any] = [t.detach() for t in params] + [t.grad for t in params]
    found += [t for param in params for t in optimizer.state.get(param, {}).values()]
    return [(t.numpy().tolist(), t._slot.storage.version) if isinstance(t, te.Tensor) else t for t in found]


CHANGES = (
    "none", "gradients move", "frozen", "added", "loaded", "state replaced", "counted anew", "options",
    "one gradient for two", "flushed", "discarded", "a part of something", "copied",
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_replayed_update_is_the_eager_one(
    kind: str, change: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, whatever happens between two updates."""
    o = {"lr": 0.1} | ({"momentum": 0.9, "dampening": 0.5} if kind == "SGD" else {})
    eager, replayed = (updated(kind, o, change, compiled, monkeypatch) for compiled in (False, True))
    assert replayed == eager


@pytest.mark.replays("an update is eager")
def test_a_replayed_update_holds_no_gradient(backend: Backend) -> None:
    param = te.Parameter(np.ones(1000, np.float32))
    optimizer = optim.SGD([param], lr=0.1)
    for _ in range(3):
        param.grad = te.ones(1000)
        buffer = weakref.ref(param.grad._slot.storage)
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.program is not None
    assert buffer() is None
    assert all(storage.buffer is None for storage in optimizer.program.binding.storages.values())


@pytest.mark.parametrize("shape", [(), (0,), (1,), (16,), (17,), (2, 0, 3)])
def test_any_shape(backend: Backend, shape: tuple[int, ...]) -> None:
    start, (g,) = start_and_gradients(0, 1, shape)
    param = te.Parameter(start)
    param.grad = te.tensor(g)
    optim.SGD([param], lr=0.5, momentum=0.9, accumulate=1).step()
    np.testing.assert_allclose(param.detach().numpy(), start - 0.5 * g, rtol=1e-6)


EXTREMES: dict[str, tuple[str, dict[str, Any], list[float], list[float], list[float]]] = {
    # kind, options, start, gradient, and what PyTorch 2 gives after two steps in float32
    "no epsilon, no gradient": ("Adam", {"eps": 0.0}, [1.0], [0.0], [math.nan]),
    "no epsilon, no gradient, rmsprop": ("RMSprop", {"eps": 0.0}, [1.0], [0.0], [math.nan]),
    "large": ("Adam", {}, [1.0, 1.0], [1e20, -1e20], [0.8, 1.2]),
    "too large": ("Adam", {}, [1.0], [1e30], [1.0]),
    "too large, amsgrad": ("Adam", {"amsgrad": True}, [1.0], [1e30], [1.0]),
    "small": ("Adam", {"eps": 0.0}, [1.0], [1e-17], [0.8]),
    "infinite": ("Adam", {}, [1.0], [math.inf], [math.nan]),
    "NaN, amsgrad": ("Adam", {"amsgrad": True}, [1.0], [math.nan], [math.nan]),
    "only the last gradient": ("Adam", {"betas": (0.0, 0.5)}, [1.0], [1e30], [1.0]),
    "large, rmsprop": ("RMSprop", {"lr": 1.0, "alpha": 0.5}, [3.0], [1e19], [0.43108583]),
    "large, sgd": ("SGD", {"momentum": 0.9}, [0.0], [3e38], [-math.inf]),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_huge_and_small_values_are_as_in_pytorch(name: str, backend: Backend) -> None:
    kind, o, start, gradient, expected = EXTREMES[name]
    param = te.Parameter(start)
    optimizer = make(kind, [param], {"lr": 0.1} | o)
    for _ in range(2):
        param.grad = te.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(param.detach().numpy(), np.array(expected, np.float32), rtol=1e-5)


@pytest.mark.parametrize("first", ["grad", "state"])
def test_amsgrad_keeps_nan(first: str, backend: Backend) -> None:
    param = te.Parameter([1.0])
    optimizer = optim.Adam([param], lr=0.1, amsgrad=True)
    for number in range(3):
        param.grad = te.tensor([math.nan if (number == 1) == (first == "grad") else 1.0])
        optimizer.step()
    assert math.isnan(optimizer.state[param]["max_exp_avg_sq"].item())


def test_without_a_memory_the_average_is_the_gradient(backend: Backend) -> None:
    param = te.Parameter([0.0])
    optimizer = optim.Adam([param], betas=(0.0, 0.999))
    for g in (1e10, 1.0):
        param.grad = te.tensor([g])
        optimizer.step()
    assert optimizer.state[param]["exp_avg"].item() == 1.0


def test_float64_and_a_parameter_that_is_not_contiguous(reference: Backend) -> None:
    start, (g,) = start_and_gradients(1, 1)
    param = te.tensor(start.astype(np.float64)).t().requires_grad_()
    param.grad = te.tensor(g.T.astype(np.float64))
    optim.Adam([param], lr=0.1).step()
    expected = adam(
        start.T.astype(np.float64), [g.T.astype(np.float64)], optim.Adam([te.Parameter([1.0])], lr=0.1).defaults
    )
    np.testing.assert_allclose(param.detach().numpy(), expected, rtol=1e-12)


def test_a_parameter_without_gradient_is_left_alone(backend: Backend) -> None:
    trained, frozen = te.Parameter([1.0]), te.Parameter([2.0], requires_grad=False)
    optimizer = optim.AdamW([trained, frozen], lr=0.1)
    (trained * frozen).sum().backward()
    optimizer.step()
    assert frozen.item() == 2.0
    assert trained.item() != 1.0
    assert frozen not in optimizer.state


def test_backward_notices_an_update_of_what_it_saved(backend: Backend) -> None:
    x = te.Parameter([2.0])
    loss = (x * x).sum()
    x.grad = te.tensor([1.0])
    optim.SGD([x], lr=0.1).step()
    with pytest.raises(te.AutogradError, match="changed in place"):
        loss.backward()


def test_groups_have_options_of_their_own(backend: Backend) -> None:
    a, b, c = (te.Parameter([1.0]) for _ in range(3))
    optimizer = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)
    optimizer.add_param_group({"params": c, "momentum": 0.9})
    for param in (a, b, c):
        param.grad = te.tensor([1.0])
    optimizer.step()
    optimizer.step()
    np.testing.assert_allclose([a.item(), b.item(), c.item()], [0.8, 0.0, 0.71], atol=1e-6)


def test_zero_grad(backend: Backend) -> None:
    param = te.Parameter([1.0, 2.0])
    optimizer = optim.SGD([param])
    param.grad = te.tensor([1.0, 1.0])
    optimizer.zero_grad(set_to_none=False)
    assert param.grad is not None
    assert param.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert param.grad is None


def test_step_calls_the_closure(reference: Backend) -> None:
    param = te.Parameter([1.0])
    optimizer = optim.SGD([param], lr=0.1)

    def closure() -> te.Tensor:
        loss = (param * 2).sum()
        loss.backward()
        return loss

    with te.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 2.0
    np.testing.assert_allclose(param.item(), 0.8, rtol=1e-6)


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: optim.SGD([te.Parameter([1.0])], lr=-1), "SGD: lr must be at least 0, but got -1"),
    (lambda: optim.SGD([te.Parameter([1.0])], lr=math.nan), "lr must be at least 0"),
    (lambda: optim.SGD([te.Parameter([1.0])], momentum=-0.1), "momentum must be at least 0"),
    (lambda: optim.SGD([te.Parameter([1.0])], nesterov=True), "nesterov=True needs momentum"),
    (lambda: optim.SGD([te.Parameter([1.0])], accumulate=0), "accumulate must be an int of at least 1"),
    (lambda: optim.Adam([te.Parameter([1.0])], betas=(0.9, 1.0)), r"betas must be two numbers in \[0, 1\)"),
    (lambda: optim.AdamW([te.Parameter([1.0])], eps=-1), "AdamW: eps must be at least 0"),
    (lambda: optim.RMSprop([te.Parameter([1.0])], alpha=-1), "alpha must be at least 0"),
    (lambda: optim.SGD([]), "at least one parameter, but got an empty list"),
    (lambda: optim.SGD(te.Parameter([1.0])), "params must be an iterable"),
    (lambda: optim.SGD([3.0]), "every parameter must be a tensor, but got float"),  # type: ignore[list-item]
    (lambda: optim.SGD([te.Parameter([1.0]) * 2]), "the result of an op"),
    (lambda: optim.SGD([te.Parameter([1.0])] * 2), "each parameter may appear once"),
    (lambda: optim.SGD([("a", te.Parameter([1.0])), te.Parameter([1.0])]), "have names, or none"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_arguments(reference: Backend, call: Callable[[], Any], text: str) -> None:
    with pytest.raises(te.ArgumentError, match=text):
        call()
