"""Training that quietly does nothing is named."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest

import tinyedge as te
from tinyedge import adapt, nn, optim
from tinyedge.backends import Backend


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: te.Tensor) -> te.Tensor:
        return self.used(x)


def train(model: nn.Module, optimizer: optim.Optimizer, updates: int = 2) -> None:
    for _ in range(updates):
        model(te.ones(1, 2)).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_never_changed(backend: Backend, accumulate: int) -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1, accumulate=accumulate)
    text = r"2 of 4 parameters that should train never changed:\n  spare.weight got no"
    with pytest.warns(UserWarning, match=text), adapt.watch(model, optimizer):
        train(model, optimizer)
    model.spare.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with adapt.watch(model, optimizer) as watched:
            train(model, optimizer)
    assert watched.unchanged() == {}


def reasons(model: Net, optimizer: optim.Optimizer | None, run: Callable[[], None]) -> dict[str, str]:
    with pytest.warns(UserWarning, match="never changed"), adapt.watch(model, optimizer) as watched:
        run()
    return watched.unchanged()


def test_reasons(backend: Backend) -> None:
    model = Net()
    model.spare.requires_grad_(False)
    optimizer = optim.SGD([model.used.bias], lr=0.1, accumulate=1)
    assert "not in the optimizer" in reasons(model, optimizer, lambda: train(model, optimizer))["used.weight"]
    model.zero_grad()
    adam = optim.Adam(model.used.parameters(), lr=0.0, accumulate=1)
    assert "updated by zero" in reasons(model, adam, lambda: train(model, adam))["used.bias"]
    assert "no update applied" in reasons(model, adam, lambda: model(te.ones(1, 2)).sum().backward())["used.bias"]
    model.zero_grad()
    assert "does not depend on it" in reasons(model, None, lambda: None)["used.bias"]
    assert "frozen meanwhile" in reasons(model, None, lambda: model.requires_grad_(False) and None)["used.bias"]
    with pytest.raises(te.errors.ArgumentError, match="all are frozen"):
        adapt.watch(model).__enter__()


def test_a_failure_is_not_covered_by_a_warning(backend: Backend) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ZeroDivisionError), adapt.watch(Net()):
            raise ZeroDivisionError


def test_lora_b_that_stays_zero(backend: Backend) -> None:
    """A base whose gradient is cut off: the adapters are in the optimizer, and never move."""
    model = Net()
    adapt.lora(model, rank=1, targets=["used"])
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, accumulate=1)

    def cut() -> None:
        for _ in range(2):
            (model(te.ones(1, 2)) * 0.0).sum().backward()
            optimizer.step()

    names = reasons(model, optimizer, cut)
    assert set(names) == {"used.lora_A.default", "used.lora_B.default"}


@pytest.mark.replays("both the replay and the eager call warn")
@pytest.mark.parametrize("way", ["eager", "compiled", "inside"])
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
@pytest.mark.parametrize("frozen", [False, True], ids=["some", "all frozen"])
def test_an_optimizer_tells(backend: Backend, way: str, make: type[optim.Optimizer], frozen: bool) -> None:
    model = Net()
    optimizer = make((model.spare if frozen else model).named_parameters(), lr=0.1, accumulate=1)
    model.spare.requires_grad_(not frozen)
    expected = "all its parameters are frozen" if frozen else "no gradient came for parameter spare.weight of shape (2"

    def step(x: te.Tensor) -> te.Tensor:
        total = model(x).sum()
        total.backward()
        if way == "inside":
            optimizer.step()
        return total

    call = step if way == "eager" else te.compile(step)
    said: list[int] = []
    for number in range(20):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call(te.ones(1, 2))
            if way != "inside":
                optimizer.step()
        texts = [str(warning.message) for warning in caught]
        said += [number for text in texts if expected in text]
    assert said == [7]


def test_an_optimizer_is_silent_where_all_train(backend: Backend) -> None:
    model = nn.Linear(2, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1, accumulate=1)
    train(model, optimizer, 20)
