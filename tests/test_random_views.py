"""Random programs of views, detached tensors and changes in place: their values and gradients, by dual numbers.

The model keeps for each storage its values, and for each family of views in it their derivative in one direction. What
was detached begins a family: it shares the values, and has derivatives of its own. PyTorch is the model's model; see
test_views_against_torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import TinyedgeError

PROGRAMS = 60
STEPS = 12


class Dual(NamedTuple):
    """Values in float64, and their derivatives."""

    value: Any
    slope: Any


class Family:
    """Derivatives of all that a storage holds, and whether autograd records them."""

    def __init__(self, slope: Any, recorded: bool) -> None:
        self.slope, self.recorded = slope, recorded


class Model:
    """A tensor: places in a storage, and the family to which it belongs."""

    def __init__(self, storage: Any, family: Family, places: Any) -> None:
        self.storage, self.family, self.places = storage, family, places

    @classmethod
    def new(cls, dual: Dual, recorded: bool) -> Model:
        value, slope = (np.array(part, np.float64) for part in dual)
        return cls(value.ravel(), Family(slope.ravel(), recorded), np.arange(value.size).reshape(value.shape))

    def view(self, places: Any) -> Model:
        return Model(self.storage, self.family, places)

    def detached(self) -> Model:
        return Model(self.storage, Family(np.zeros_like(self.storage), False), self.places)

    @property
    def dual(self) -> Dual:
        return Dual(self.storage[self.places], self.family.slope[self.places])

    def change(self, dual: Dual, recorded: bool) -> None:
        self.storage[self.places] = dual.value
        self.family.slope[self.places] = dual.slope
        self.family.recorded |= recorded

    def change_unseen(self, value: Any) -> None:
        self.storage[self.places] = value


Both = tuple[te.Tensor, Model]

# On a tensor and on an array of places alike.
VIEWS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "select": (lambda x, n: x[n % len(x)], lambda p, n: p[n % len(p)]),
    "last": (lambda x, n: x[..., -1], lambda p, n: p[..., -1]),
    "slice": (lambda x, n: x[n % 2 :: 1 + n % 2], lambda p, n: p[n % 2 :: 1 + n % 2]),
    "transpose": (lambda x, n: x.transpose(0, -1), lambda p, n: np.swapaxes(p, 0, -1)),
    "unsqueeze": (lambda x, n: x.unsqueeze(0), lambda p, n: p[None]),
    "permute": (lambda x, n: x.permute(*reversed(range(x.dim()))), lambda p, n: p.T),
    "expand": (lambda x, n: x.expand(2, *x.shape), lambda p, n: np.broadcast_to(p, (2, *p.shape))),
}
# A clone keeps what a step saves for backward from being changed.
NEW: dict[str, tuple[Callable[..., te.Tensor], Callable[..., Dual]]] = {
    "double": (lambda x, y: x * 2, lambda x, y: Dual(2 * x.value, 2 * x.slope)),
    "sine": (lambda x, y: x.clone().sin(), lambda x, y: Dual(np.sin(x.value), np.cos(x.value) * x.slope)),
    "square": (lambda x, y: x.clone().square(), lambda x, y: Dual(x.value**2, 2 * x.value * x.slope)),
    "clone": (lambda x, y: x.clone(), lambda x, y: x),
    "product": (
        lambda x, y: x.clone() * (y.sum() * 0.1),
        lambda x, y: Dual(
            x.value * (0.1 * y.value.sum()), x.slope * (0.1 * y.value.sum()) + x.value * (0.1 * y.slope.sum())
        ),
    ),
}
# The last: whether what is changed gets a history from y.
CHANGES: dict[str, tuple[Callable[..., Any], Callable[..., Dual], bool]] = {
    "mul_": (lambda x, y: x.mul_(1.5), lambda x, y: Dual(1.5 * x.value, 1.5 * x.slope), False),
    "sigmoid_": (
        lambda x, y: x.sigmoid_(),
        lambda x, y: Dual(s := 1 / (1 + np.exp(-x.value)), s * (1 - s) * x.slope),
        False,
    ),
    "zero_": (lambda x, y: x.zero_(), lambda x, y: Dual(0, 0), False),
    "add_": (
        lambda x, y: x.add_(y.sum() * 0.1),
        lambda x, y: Dual(x.value + (0.1 * y.value.sum()), x.slope + (0.1 * y.slope.sum())),
        True,
    ),
    "copy_": (
        lambda x, y: x.copy_((y.sum() * 0.1) * 0.5),
        lambda x, y: Dual(0.5 * (0.1 * y.value.sum()), 0.5 * (0.1 * y.slope.sum())),
        True,
    ),
    "set": (
        lambda x, y: x.__setitem__(..., (y.sum() * 0.1)),
        lambda x, y: Dual((0.1 * y.value.sum()), (0.1 * y.slope.sum())),
        True,
    ),
}


def program(seed: int) -> list[tuple[str, str, int, int]]:
    random = np.random.default_rng(seed)
    names: dict[str, list[str]] = {
        "view": [*VIEWS],
        "new": [*NEW],
        "change": [*CHANGES],
        "detach": [""],
        "unseen": [""],
    }
    kinds = random.choice([*names], STEPS, p=[0.34, 0.16, 0.34, 0.1, 0.06])
    return [(kind, str(random.choice(names[kind])), *map(int, random.integers(0, 1000, 2))) for kind in kinds]


def loss_of(known: list[te.Tensor]) -> te.Tensor:
    total = known[0].sum() * 0
    for number, tensor in enumerate(known):
        total = total + tensor.sum() * (1 + number / 7)
    return total


def run(steps: list[tuple[str, str, int, int]], leaf: te.Tensor) -> list[te.Tensor]:
    known = [leaf * 1, te.arange(9.0).view(3, 3) * 0.1, leaf[0].tanh().clone()]
    for kind, name, first, second in steps:
        x, y = known[first % len(known)], known[second % len(known)]
        if kind == "view":
            known.append(VIEWS[name][0](x, second) if x.numel() > 1 else x)
        elif kind == "new":
            known.append(NEW[name][0](x, y))
        elif kind == "change":
            CHANGES[name][0](x, y)
        elif kind == "detach":
            known.append(x.detach())
        else:
            with te.no_grad():
                x.mul_(0.5)
    return known


def modelled(steps: list[tuple[str, str, int, int]], leaf: Dual) -> list[Model]:
    value, slope = leaf
    first = np.tanh(value[0])
    known = [
        Model.new(leaf, True),
        Model.new(Dual(np.arange(9.0).reshape(3, 3) * 0.1, np.zeros((3, 3))), False),
        Model.new(Dual(first, (1 - first**2) * slope[0]), True),
    ]
    for kind, name, number, second in steps:
        x, y = known[number % len(known)], known[second % len(known)]
        if kind == "view":
            known.append(x.view(VIEWS[name][1](x.places, second)) if x.places.size > 1 else x)
        elif kind == "new":
            recorded = x.family.recorded or (name == "product" and y.family.recorded)
            known.append(Model.new(NEW[name][1](x.dual, y.dual), recorded))
        elif kind == "change":
            change, takes_history = CHANGES[name][1:]
            x.change(change(x.dual, y.dual), takes_history and y.family.recorded)
        elif kind == "detach":
            known.append(x.detached())
        else:
            x.change_unseen(x.dual.value * 0.5)
    return known


@pytest.mark.parametrize("way", ["eager", "compiled"])
@pytest.mark.parametrize("part", range(4))
def test_random_programs(backend: Backend, part: int, way: str) -> None:
    random = np.random.default_rng(part)
    agree = 0
    for seed in range(part * PROGRAMS, (part + 1) * PROGRAMS if way == "eager" else part * PROGRAMS + PROGRAMS // 6):
        steps = program(seed)
        value, slope = random.standard_normal((2, 3, 4)).astype(np.float32)
        expected = modelled(steps, Dual(value.astype(np.float64), slope.astype(np.float64)))
        leaf = te.tensor(value, requires_grad=True)

        def call(leaf: te.Tensor, steps: Any = steps) -> tuple[te.Tensor, ...]:
            known = run(steps, leaf)
            return loss_of(known), *known

        called = te.compile(call) if way == "compiled" else call
        for _ in range(1 if way == "eager" else 3):
            leaf.grad = None
            try:
                loss, *known = called(leaf)
                loss.backward()
            except TinyedgeError:  # elements that share memory, or saved values that were changed
                break
            assert [t.requires_grad for t in known] == [m.family.recorded for m in expected], (seed, steps)
            for tensor, model in zip(known, expected, strict=True):
                np.testing.assert_allclose(
                    tensor.detach().numpy(), model.dual.value, 1e-4, 1e-4, err_msg=f"{seed}: {steps}"
                )
            assert leaf.grad is not None
            wanted = sum((1 + number / 7) * model.dual.slope.sum() for number, model in enumerate(expected))
            found = float((leaf.grad.numpy() * slope).sum())
            largest = max(np.abs(model.dual.slope).sum() for model in expected)
            assert found == pytest.approx(wanted, rel=1e-3, abs=1e-3 * (1 + largest)), (seed, steps)
        else:
            agree += 1
    assert agree > PROGRAMS // (3 if way == "eager" else 18), "too few programs were not refused"
