"""Optimizers against their published formulas in float64; accumulated minibatches; schedules; the check for NaN."""

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
from tinyedge import optim
from tinyedge.backends import Backend
from tinyedge.optim import lr_scheduler
from tinyedge.optim.optimizer import Optimizer

Array = np.ndarray[Any, Any]
STEPS = 5
SHAPE = (3, 7)
KINDS = ("SGD", "Adam", "AdamW", "RMSprop")


def sgd(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.SGD's formula, as its documentation states it."""
    buffer = None
    for g in gradients:
        g = -g if o["maximize"] else g
        g = g + o["weight_decay"] * param
        if o["momentum"]:
            buffer = g if buffer is None else o["momentum"] * buffer + (1 - o["dampening"]) * g
            g = g + o["momentum"] * buffer if o["nesterov"] else buffer
        param = param - o["lr"] * g
    return param


def adam(param: Array, gradients: list[Array], o: dict[str, Any], decoupled: bool = False) -> Array:
    """torch.optim.Adam's and AdamW's formulas."""
    m, v, largest = np.zeros_like(param), np.zeros_like(param), np.zeros_like(param)
    beta1, beta2 = o["betas"]
    for t, g in enumerate(gradients, 1):
        g = -g if o["maximize"] else g
        if decoupled:
            param = param - o["lr"] * o["weight_decay"] * param
        else:
            g = g + o["weight_decay"] * param
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        largest = np.maximum(largest, v)
        v_hat = (largest if o["amsgrad"] else v) / (1 - beta2**t)
        param = param - o["lr"] * m / (1 - beta1**t) / (np.sqrt(v_hat) + o["eps"])
    return param


def adamw(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    return adam(param, gradients, o, decoupled=True)


def rmsprop(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.RMSprop's formula."""
    v, buffer, mean = np.zeros_like(param), np.zeros_like(param), np.zeros_like(param)
    alpha = o["alpha"]
    for g in gradients:
        g = -g if o["maximize"] else g
        g = g + o["weight_decay"] * param
        v = alpha * v + (1 - alpha) * g**2
        v_tilde = v
        if o["centered"]:
            mean = mean * alpha + (1 - alpha) * g
            v_tilde = v - mean**2
        g = g / (np.sqrt(v_tilde) + o["eps"])
        if o["momentum"]:
            g = buffer = o["momentum"] * buffer + g
        param = param - o["lr"] * g
    return param


FORMULAS: dict[str, Callable[[Array, list[Array], dict[str, Any]], Array]] = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adamw,
    "RMSprop": rmsprop,
}


@st.composite
def options(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Options of one optimizer, all of them given."""
    decay = st.sampled_from((0.0, 0.01, 0.3))
    o: dict[str, Any] = {"maximize": draw(st.booleans()), "weight_decay": draw(decay)}
    if kind == "SGD":
        o |= {"lr": draw(st.sampled_from((0.0, 0.1, 1.0))), "momentum": draw(st.sampled_from((0.0, 0.5, 0.9)))}
        o["nesterov"] = bool(o["momentum"]) and draw(st.booleans())
        o["dampening"] = 0.0 if o["nesterov"] else draw(st.sampled_from((0.0, 0.4, 1.0)))
    elif kind == "RMSprop":
        o |= {"lr": 0.05, "alpha": draw(st.sampled_from((0.5, 0.99))), "eps": draw(st.sampled_from((1e-8, 1e-2)))}
        o |= {"momentum": draw(st.sampled_from((0.0, 0.9))), "centered": draw(st.booleans())}
    else:
        o |= {"lr": draw(st.sampled_from((1e-3, 0.1))), "betas": draw(st.sampled_from(((0.9, 0.999), (0.0, 0.5))))}
        o |= {"eps": draw(st.sampled_from((1e-8, 1e-2))), "amsgrad": draw(st.booleans())}
    return o


def make(kind: str, params: Any, o: dict[str, Any], **more: Any) -> Optimizer:
    return getattr(optim, kind)(params, **o, **more)


def start_and_gradients(seed: int, count: int = STEPS, shape: tuple[int, ...] = SHAPE) -> tuple[Array, list[Array]]:
    """A parameter and gradients in float32, away from zero: adaptive formulas divide by what is about their size."""
    random = np.random.default_rng(seed)

    def draw() -> Array:
        values = random.uniform(0.1, 2.0, shape) * random.choice((-1, 1), shape)
        return values.astype(np.float32)

    return draw(), [draw() for _ in range(count)]


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
        np.testing.assert_array_equal(param.grad.numpy(), g)  # with accumulate=1 nothing is cleared
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
    assert one.grad is not None
    assert not one.grad.numpy().any()
    for at in range(0, len(gradients), count):
        batch = np.stack(gradients[at : at + count]).astype(np.float64)
        whole.grad = te.tensor(batch.mean(axis=0).astype(np.float32))
        plain.step()
    np.testing.assert_allclose(after, whole.detach().numpy(), rtol=2e-5, atol=2e-5)


def test_an_update_is_one_kernel_and_a_schedule_builds_none(opencl: Any) -> None:
    param = te.Parameter(np.ones(40, np.float32))
    param.grad = te.tensor(np.ones(40, np.float32))
    optimizer = optim.SGD([param], lr=0.1, momentum=0.9, accumulate=2)
    launches = []
    launch = opencl.launch
    opencl.launch = lambda given: launches.append(len(given)) or launch(given)
    try:
        for number in range(8):
            optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
            optimizer.step()
            if number == 3:
                launches.clear()
                built = len(opencl._kernels)
    finally:
        del opencl.launch
    assert launches == [1, 1]
    assert len(opencl._kernels) == built
    assert "sgd" in optimizer.program.explain()


def updated(kind: str, o: dict[str, Any], change: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Parameters, gradients, state and versions after eight updates, with a change of circumstances after four."""
    monkeypatch.setenv("TINYEDGE_COMPILE", str(int(compiled)))
    random = np.random.default_rng(0)
    shapes = ((3, 7), (), (0, 2), (300,), (5,))
    params = [te.Parameter(random.standard_normal(shape, np.float32)) for shape in shapes]
    accumulates = 1 if change == "gradients move" else 2
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
        for _ in range(accumulates):
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
    found = [t.detach() for t in params] + [t.grad for t in params]
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
    assert all(storage.buffer is None for storage in optimizer.program._storages.values())


@pytest.mark.parametrize("shape", [(), (0,), (1,), (16,), (17,), (2, 0, 3)])
def test_any_shape(backend: Backend, shape: tuple[int, ...]) -> None:
    start, (g,) = start_and_gradients(0, 1, shape)
    param = te.Parameter(start)
    param.grad = te.tensor(g)
    optim.SGD([param], lr=0.5, momentum=0.9, accumulate=1).step()
    np.testing.assert_allclose(param.detach().numpy(), start - 0.5 * g, rtol=1e-6)


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
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.state == {}


# The check for NaN and infinity


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_anomaly_names_the_parameter_and_changes_nothing(backend: Backend, bad: float) -> None:
    weight, bias = te.Parameter([1.0, 2.0]), te.Parameter([3.0])
    optimizer = optim.Adam([("layer.weight", weight), ("layer.bias", bias)], lr=0.1, accumulate=2)
    weight.grad, bias.grad = te.tensor([1.0, 1.0]), te.tensor([bad])
    with te.detect_anomaly():
        optimizer.step()
        with pytest.raises(te.AnomalyError, match=r"gradient of parameter layer\.bias of shape \(1,\)") as caught:
            optimizer.step()
    assert isinstance(caught.value, FloatingPointError)
    assert (weight.tolist(), bias.tolist()) == ([1.0, 2.0], [3.0])
    assert weight.grad.tolist() == [1.0, 1.0]
    assert (optimizer.state, optimizer.pending) == ({}, 1)


def test_anomaly_in_the_updated_value(backend: Backend) -> None:
    param = te.Parameter([1.0, 3e38])
    param.grad = te.tensor([0.0, -3e38])
    optimizer = optim.SGD([param], lr=1.0, momentum=0.9)
    with (
        te.detect_anomaly(),
        pytest.raises(te.AnomalyError, match=r"the updated value of parameter number 0.*at \(1,\)"),
    ):
        optimizer.step()
    np.testing.assert_array_equal(param.detach().numpy(), np.array([1.0, 3e38], np.float32))
    optimizer.step()  # not asked for, not looked for
    assert math.isinf(param.tolist()[1])


def test_checking_changes_no_result(backend: Backend) -> None:
    start, gradients = start_and_gradients(5)
    results = []
    for check in (False, True):
        param = te.Parameter(start)
        optimizer = optim.SGD([param], lr=0.1, momentum=0.9, dampening=0.5)
        for g in gradients:
            param.grad = te.tensor(g)
            if check:
                te.detect_anomaly()(optimizer.step)()
            else:
                optimizer.step()
        results.append(param.detach().numpy())
    np.testing.assert_array_equal(*results)


# Schedules

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
