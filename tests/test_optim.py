"""Optimizers against their published formulas in float64; accumulated minibatches; schedules; the check for NaN."""

from __future__ import annotations

import copy
import math
import pickle
import signal
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.optim import lr_scheduler
from tinyedge.optim.optimizer import Optimizer

Array = np.ndarray[Any, Any]
STEPS = 5
SHAPE = (3, 7)
KINDS = (
    "SGD",
    "Adam",
    "AdamW",
    "RMSprop",
    "Adagrad",
    "Adadelta",
    "Adamax",
    "NAdam",
    "RAdam",
    "Rprop",
    "ASGD",
    "Adafactor",
)


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


def adagrad(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.Adagrad's formula."""
    total = np.full_like(param, o["initial_accumulator_value"])
    for t, g in enumerate(gradients, 1):
        g = (-g if o["maximize"] else g) + o["weight_decay"] * param
        total = total + g**2
        param = param - o["lr"] / (1 + (t - 1) * o["lr_decay"]) * g / (np.sqrt(total) + o["eps"])
    return param


def adadelta(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.Adadelta's formula."""
    v, u, rho = np.zeros_like(param), np.zeros_like(param), o["rho"]
    for g in gradients:
        g = (-g if o["maximize"] else g) + o["weight_decay"] * param
        v = rho * v + (1 - rho) * g**2
        step = np.sqrt(u + o["eps"]) / np.sqrt(v + o["eps"]) * g
        u = rho * u + (1 - rho) * step**2
        param = param - o["lr"] * step
    return param


def adamax(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.Adamax's formula."""
    m, u = np.zeros_like(param), np.zeros_like(param)
    beta1, beta2 = o["betas"]
    for t, g in enumerate(gradients, 1):
        g = (-g if o["maximize"] else g) + o["weight_decay"] * param
        m = beta1 * m + (1 - beta1) * g
        u = np.maximum(beta2 * u, np.abs(g) + o["eps"])
        param = param - o["lr"] * m / ((1 - beta1**t) * u)
    return param


def nadam(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.NAdam's formula."""
    m, v, product = np.zeros_like(param), np.zeros_like(param), 1.0
    beta1, beta2 = o["betas"]
    for t, g in enumerate(gradients, 1):
        g = -g if o["maximize"] else g
        if o["decoupled_weight_decay"]:
            param = param - o["lr"] * o["weight_decay"] * param
        else:
            g = g + o["weight_decay"] * param
        mu, following = (beta1 * (1 - 0.5 * 0.96 ** (n * o["momentum_decay"])) for n in (t, t + 1))
        product *= mu
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = following * m / (1 - product * following) + (1 - mu) * g / (1 - product)
        param = param - o["lr"] * m_hat / (np.sqrt(v / (1 - beta2**t)) + o["eps"])
    return param


def radam(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.RAdam's formula."""
    m, v = np.zeros_like(param), np.zeros_like(param)
    beta1, beta2 = o["betas"]
    longest = 2 / (1 - beta2) - 1
    for t, g in enumerate(gradients, 1):
        g = -g if o["maximize"] else g
        if o["decoupled_weight_decay"]:
            param = param - o["lr"] * o["weight_decay"] * param
        else:
            g = g + o["weight_decay"] * param
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        rho = longest - 2 * t * beta2**t / (1 - beta2**t)
        step = m / (1 - beta1**t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
            step = step * r * math.sqrt(1 - beta2**t) / (np.sqrt(v) + o["eps"])
        param = param - o["lr"] * step
    return param


def rprop(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.Rprop's formula."""
    before, size = np.zeros_like(param), np.full_like(param, o["lr"])
    (smaller, larger), (least, most) = o["etas"], o["step_sizes"]
    for g in gradients:
        g = -g if o["maximize"] else g
        turned, stayed = g * before < 0, g * before > 0
        size = np.clip(np.where(turned, smaller, np.where(stayed, larger, 1.0)) * size, least, most)
        before = np.where(turned, 0.0, g)
        param = param - np.sign(before) * size
    return param


def asgd(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.ASGD's formula."""
    eta = o["lr"]
    for t, g in enumerate(gradients, 1):
        g = (-g if o["maximize"] else g) + o["weight_decay"] * param
        param = param * (1 - o["lambd"] * eta) - eta * g
        eta = o["lr"] / (1 + o["lambd"] * o["lr"] * t) ** o["alpha"]
    return param


def adafactor(param: Array, gradients: list[Array], o: dict[str, Any]) -> Array:
    """torch.optim.Adafactor's formula, of a matrix."""
    rows, columns = np.zeros((len(param), 1)), np.zeros((1, param.shape[1]))
    eps1, eps2 = o["eps"]
    eps1 = float(np.finfo(np.float32).eps) if eps1 is None else eps1
    for t, g in enumerate(gradients, 1):
        g = -g if o["maximize"] else g
        alpha = max(eps2, np.sqrt(np.mean(param**2))) * min(o["lr"], 1 / np.sqrt(t))
        param = param * (1 - o["lr"] * o["weight_decay"])
        rows += (np.mean(g**2, 1, keepdims=True) - rows) * t ** o["beta2_decay"]
        columns += (np.mean(g**2, 0, keepdims=True) - columns) * t ** o["beta2_decay"]
        update = g / np.sqrt(np.maximum(rows * columns / max(rows.mean(), eps1), eps1**2))
        param = param - alpha * update / max(1.0, np.sqrt(np.mean(update**2)) / o["d"])
    return param


FORMULAS: dict[str, Callable[[Array, list[Array], dict[str, Any]], Array]] = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adamw,
    "RMSprop": rmsprop,
    "Adagrad": adagrad,
    "Adadelta": adadelta,
    "Adamax": adamax,
    "NAdam": nadam,
    "RAdam": radam,
    "Rprop": rprop,
    "ASGD": asgd,
    "Adafactor": adafactor,
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
    elif kind == "Adagrad":
        o |= {"lr": 0.1, "lr_decay": draw(st.sampled_from((0.0, 0.1))), "eps": draw(st.sampled_from((1e-10, 1e-2)))}
        o |= {"initial_accumulator_value": draw(st.sampled_from((0.0, 0.5)))}
    elif kind == "Adadelta":
        o |= {"lr": draw(st.sampled_from((0.1, 1.0))), "rho": draw(st.sampled_from((0.5, 0.9)))}
        o |= {"eps": draw(st.sampled_from((1e-6, 1e-2)))}
    elif kind == "Rprop":
        del o["weight_decay"]
        o |= {"lr": draw(st.sampled_from((1e-2, 0.1))), "etas": draw(st.sampled_from(((0.5, 1.2), (0.3, 2.0))))}
        o |= {"step_sizes": draw(st.sampled_from(((1e-6, 50), (0.02, 0.15))))}
    elif kind == "ASGD":
        o |= {"lr": draw(st.sampled_from((1e-2, 0.1))), "lambd": draw(st.sampled_from((1e-4, 0.3)))}
        o |= {"alpha": draw(st.sampled_from((0.75, 2.0))), "t0": draw(st.sampled_from((0.0, 2.0, 1e6)))}
    elif kind == "Adafactor":
        o |= {"lr": draw(st.sampled_from((1e-2, 0.9))), "beta2_decay": draw(st.sampled_from((-0.8, -2.0, 0.0)))}
        o |= {"d": draw(st.sampled_from((1.0, 1.5))), "eps": draw(st.sampled_from(((None, 1e-3), (1e-2, 10.0))))}
    else:
        o |= {"lr": draw(st.sampled_from((1e-3, 0.1))), "betas": draw(st.sampled_from(((0.9, 0.999), (0.0, 0.5))))}
        o |= {"eps": draw(st.sampled_from((1e-8, 1e-2)))}
        if kind in ("Adam", "AdamW"):
            o["amsgrad"] = draw(st.booleans())
        if kind in ("NAdam", "RAdam"):
            o["decoupled_weight_decay"] = draw(st.booleans())
        if kind == "NAdam":
            o["momentum_decay"] = draw(st.sampled_from((4e-3, 0.1)))
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


# Gradients after an update, and frozen parameters


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


# An update that fails


class Refuses:
    """A backend whose device refuses a launch, the one after so many, or the wait for all."""

    def __init__(self, backend: Backend, monkeypatch: pytest.MonkeyPatch, after: int, finish: bool = False) -> None:
        self.left = after
        launch, wait = backend.launch, backend.finish

        def counted(one: Callable[[], Any]) -> Callable[[], Any]:
            if getattr(one, "__qualname__", "").startswith("GuardedOpenCL"):
                return one  # which looks at what the launch before it did

            def call() -> Any:
                if self.left == 0:
                    self.left = -1
                    raise te.errors.OutOfMemoryError("device", "room", "there is none")
                self.left -= 1
                return one()

            return call

        def finished() -> None:
            if self.left == 0:
                self.left = -1
                raise RuntimeError("clFinish failed: OUT_OF_RESOURCES")
            wait()

        if finish:
            monkeypatch.setattr(backend, "finish", finished)
        else:
            monkeypatch.setattr(backend, "launch", lambda launches: launch([counted(one) for one in launches]))


def training(kind: str, accumulate: int | None, updates: int) -> tuple[list[te.Parameter], Optimizer]:
    """Five parameters after some updates; gradients are there for the next."""
    random = np.random.default_rng(7)
    params = [te.Parameter(random.standard_normal(shape, np.float32)) for shape in ((3,), (40,), (), (0, 2), (7, 2))]
    o = {"lr": 0.1} | ({"momentum": 0.9, "dampening": 0.5} if kind == "SGD" else {})
    optimizer = make(kind, [(f"p{n}", param) for n, param in enumerate(params)], o, accumulate=accumulate)
    for number in range(updates + 1):
        for sample in range(accumulate or 1):
            if accumulate is None:
                optimizer.zero_grad()
            for param in params:
                (param * te.tensor(random.standard_normal(param.shape, np.float32))).sum().backward()
            if number < updates or sample + 1 < (accumulate or 1):
                optimizer.step()
    return params, optimizer


def everything(params: list[te.Parameter], optimizer: Optimizer) -> list[Any]:
    found: list[Any] = [optimizer.pending]
    for param in params:
        found += [param.detach().numpy().tolist(), param._version, None if param.grad is None else param.grad.tolist()]
        found += [v if isinstance(v, int) else v.tolist() for v in optimizer.state.get(param, {}).values()]
    return found


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("accumulate", [None, 1, 2])
@pytest.mark.parametrize("updates", [0, 1, 2, 3])
@pytest.mark.parametrize("compiled", ["0", "1"])
def test_a_refused_update_is_repeated_once(
    kind: str,
    accumulate: int | None,
    updates: int,
    compiled: str,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever launch is refused, of the first updates or of later ones: step() again, and all is as if none was."""
    monkeypatch.setenv("TINYEDGE_COMPILE", compiled)
    params, optimizer = training(kind, accumulate, updates)
    optimizer.step()
    right = everything(params, optimizer)
    for finish, after in [(False, 0), (False, 1), (False, 3), (True, 0)]:
        params, optimizer = training(kind, accumulate, updates)
        before = everything(params, optimizer)
        with monkeypatch.context() as context:
            if (
                updates > 1
                and compiled == "1"
                and optimizer.program is not None
                and optimizer.program.binding.parts[0].has_run
            ):
                one_each(optimizer)
            refusal = Refuses(backend, context, after, finish)
            try:
                optimizer.step()
                # Where kernels share launches, the whole update may be one.
                assert finish or after >= (1 if backend.device is not None and backend.device.persistent else 4)
                refused = False
            except (te.errors.OutOfMemoryError, RuntimeError) as error:
                refused, text = True, str(error)
            assert refused == (refusal.left < 0)
        halfway = refused and "refused halfway" in optimizer.counted()
        assert halfway == (after > 0 and updates > int(compiled))
        if refused and not halfway:
            assert everything(params, optimizer) == before
        elif halfway:
            assert "The others are updated" in text
            with pytest.raises(te.ArgumentError, match="wait for the rest of an update"):
                optimizer.zero_grad()
            with pytest.raises(te.AutogradError, match="a whole update before it is copied"):
                copy.deepcopy(optimizer)
        if refused:
            optimizer.step()
        assert everything(params, optimizer) == right
        if accumulate is None:
            optimizer.zero_grad()


def one_each(optimizer: Optimizer) -> None:
    """Let the program of the update have one launch for each parameter, as where they do not share any."""
    program = optimizer.program
    assert program is not None
    kernels = []
    for kernel in program.kernels:
        kernels += [kernel, *kernel.siblings]
        kernel.siblings = []
    program.kernels = kernels
    program.launches = [te.ir.launch.single(kernel) for kernel in kernels]
    program.lowered, program._cut = [], len(kernels)
    program.prepare()
    program.binding.parts[0].has_run = True  # in one launch, at least


def test_the_rest_of_an_update_is_of_the_same_samples(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    params, optimizer = training("SGD", 2, 1)
    monkeypatch.setenv("TINYEDGE_COMPILE", "0")
    with monkeypatch.context() as context:
        Refuses(backend, context, 1)
        with pytest.raises(te.errors.OutOfMemoryError, match=r"\d were refused"):
            optimizer.step()
    (params[-1] * 2).sum().backward()
    for call in (optimizer.step, optimizer.flush):
        with pytest.raises(te.AutogradError, match="changed since"):
            call()
    optimizer.discard()
    before = everything(params, optimizer)
    optimizer.flush()
    assert everything(params, optimizer) == before
    optimizer.zero_grad()


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_an_interrupt_waits_for_the_end_of_an_update(
    updates: int, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, optimizer = training("Adam", 2, updates)
    optimizer.step()
    right = everything(params, optimizer)
    params, optimizer = training("Adam", 2, updates)
    before, launch = everything(params, optimizer), backend.launch

    def interrupted(launches: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        launch(launches)

    with monkeypatch.context() as context:
        context.setattr(backend, "launch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    if updates == 0 and everything(params, optimizer) == before:  # it came when state was allocated
        optimizer.step()
    assert everything(params, optimizer) == right


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("accumulate", [None, 1, 2])
def test_an_update_that_is_not_finite_is_skipped(
    kind: str, bad: float, accumulate: int | None, backend: Backend
) -> None:
    """As if its samples had not been: state, step counts and whatever the first update is special for."""
    o = {"lr": 0.1} | ({"momentum": 0.9, "dampening": 0.5} if kind == "SGD" else {})
    start, gradients = start_and_gradients(9, 12)

    def trained(skips: bool) -> tuple[list[Array], Optimizer]:
        weight, bias = te.Parameter(start), te.Parameter(3.0)
        optimizer = make(kind, [weight, bias, te.Parameter(te.zeros(0))], o, accumulate=accumulate, nonfinite="skip")
        for number, g in enumerate(gradients):
            wrong = number // 2 in (0, 3)
            if wrong and not skips:
                continue
            if accumulate is None:
                optimizer.zero_grad()
            scale = te.tensor(bad if wrong and number % 2 == 0 else float(number))
            ((weight * te.tensor(g)).sum() + bias * scale).backward()
            optimizer.step()
            if wrong and number % 2 == (accumulate or 1) - 1:
                assert (weight.grad is None) == (accumulate is not None)
        state = [v for s in optimizer.state.values() for v in s.values()]
        return [*(np.asarray(v) for v in state), weight.detach().numpy(), bias.detach().numpy()], optimizer

    if accumulate == 2:
        (found, optimizer), (right, _) = trained(True), trained(False)
        for a, b in zip(found, right, strict=True):
            np.testing.assert_array_equal(a, b)
        assert optimizer.skipped == 2
    else:
        found, optimizer = trained(True)
        assert all(np.isfinite(values).all() for values in found)
        assert optimizer.skipped == 2
        steps = [state["step"] for state in optimizer.state.values() if "step" in state]
        assert all(step == 10 for step in steps)


def test_a_huge_gradient_is_finite(backend: Backend) -> None:
    param = te.Parameter(np.zeros((3, 50), np.float32))
    optimizer = optim.SGD([param], lr=1e-38, nonfinite="skip")
    param.grad = te.tensor(np.full((3, 50), 3e38, np.float32))
    optimizer.step()
    assert optimizer.skipped == 0
    np.testing.assert_allclose(param.detach().numpy(), -3.0, rtol=1e-6)


def test_an_update_that_is_not_finite_raises(backend: Backend) -> None:
    weight, bias = te.Parameter([1.0, 2.0]), te.Parameter([3.0])
    named = [("layer.weight", weight), ("layer.bias", bias)]
    optimizer = optim.Adam(named, lr=0.1, accumulate=2, nonfinite="raise")
    weight.grad, bias.grad = te.tensor([1.0, 1.0]), te.tensor([math.nan])
    optimizer.step()
    with pytest.raises(te.AnomalyError, match=r"gradient of parameter layer\.bias of shape \(1,\)"):
        optimizer.step()
    assert (weight.tolist(), bias.tolist(), optimizer.pending, optimizer.state) == ([1.0, 2.0], [3.0], 1, {})
    with pytest.raises(te.ArgumentError, match=r'"ignore", "skip" or "raise", but got .never.'):
        optim.SGD([weight], nonfinite="never")


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


# State that follows its parameter


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
