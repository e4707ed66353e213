"""Optimizers' published formulas in float64, options drawn for them, and optimizers in the middle of training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import tinyedge as te
from tinyedge import optim
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
