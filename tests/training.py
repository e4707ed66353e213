"""Gradients and updates in compiled functions, each case against the eager call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinyedge as te
from tinyedge import nn

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Make = Callable[[Wrap], tuple[Callable[..., Any], Callable[[], Any]]]
"""From what compiles, or does not: what is called with each sample, and what else is to be compared after that."""


def samples(count: int = 5) -> list[te.Tensor]:
    random = np.random.default_rng(0)
    return [te.tensor(random.standard_normal((2, 3), dtype=np.float32)) for _ in range(count)]


def values(value: Any) -> Any:
    if isinstance(value, te.Tensor):
        return value.detach().numpy()
    if isinstance(value, (list, tuple)):
        return [values(item) for item in value]
    return value


def flat(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in flat(item)] if isinstance(value, list) else [value]


def assert_as_eager(make: Make, count: int = 5) -> None:
    outcomes = []
    for wrap in (lambda f: f, te.compile):
        te.manual_seed(3)
        call, others = make(wrap)
        outcomes.append([[values(call(x)), values(others())] for x in samples(count)])
    for number, (eager, compiled) in enumerate(zip(*outcomes, strict=True)):
        for one, other in zip(flat(eager), flat(compiled), strict=True):
            if one is None or other is None:
                assert one is other, f"call {number}"
            else:
                np.testing.assert_allclose(other, one, rtol=2e-5, atol=1e-6, err_msg=f"call {number}")


def weight(*numbers: float) -> te.Tensor:
    return te.tensor([list(numbers or (0.5, -1.0, 2.0))], requires_grad=True)


def network() -> nn.Sequential:
    te.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def grads(model: nn.Module) -> Callable[[], Any]:
    return lambda: [p.grad for p in model.parameters()]
