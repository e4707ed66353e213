"""Batch norm over samples of batch 1 in models of other shapes: each equals one batch, also a shorter last one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import adapt, nn, optim
from tinyedge.backends import Backend


class Dense(nn.Module):
    """Each layer reads all before it, by concatenation, through a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4 + 2 * k) for k in range(3)])
        self.layers = nn.ModuleList([nn.Conv2d(4 + 2 * k, 2, 3, padding=1) for k in range(3)])
        self.last = nn.BatchNorm2d(10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: te.Tensor) -> te.Tensor:
        x = self.first(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = te.cat([x, layer(F.relu(norm(x)))], 1)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Shared(nn.Module):
    """One norm in two branches, and a second time after both, with a size of its own each time."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 3, padding=1)
        self.narrow = nn.Conv2d(3, 4, 1, stride=2)
        self.norm = nn.BatchNorm2d(4, momentum=None)
        self.head = nn.Linear(4, 5)

    def forward(self, x: te.Tensor) -> te.Tensor:
        one = self.norm(self.wide(x)).mean((2, 3), keepdim=True)
        other = self.norm(F.relu(self.norm(self.narrow(x))))
        return self.head((other * te.sigmoid(one)).mean((2, 3)))


class Line(nn.Module):
    """Norms of one dim, over time and over features, in a dict and a list, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(3, 6, 3, padding=1)
        self.parts = nn.ModuleDict(
            {"block": nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 6, 3, padding=1), nn.BatchNorm1d(6))}
        )
        self.outer = nn.ModuleList([nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 5)])

    def forward(self, x: te.Tensor) -> te.Tensor:
        x = self.embed(x.flatten(2))
        x = F.relu(x + self.parts["block"](x))
        x = x.amax(2)
        for layer in self.outer:
            x = layer(x)
        return x


class Gated(nn.Module):
    """A norm before and after dropout that drops nothing, one without running statistics, and one that is skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, groups=1, bias=False)
        self.before = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.0)
        self.after = nn.BatchNorm2d(4, track_running_stats=False)
        self.unused = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 16, 5)

    def forward(self, x: te.Tensor) -> te.Tensor:
        x = self.after(self.drop(F.silu(self.before(self.conv(x)))))
        return self.head((x * te.sigmoid(x.mean((2, 3), keepdim=True))).flatten(1))


class Steps(nn.Module):
    """A cell with a norm, run over rows of the image: the norm meets as often as there are rows."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(3 * 4 + 6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: te.Tensor) -> te.Tensor:
        state = te.zeros(x.shape[0], 6, dtype=x.dtype)
        for row in range(4):
            state = te.tanh(self.norm(self.cell(te.cat([x[:, :, row].flatten(1), state], 1))))
        return self.head(state)


MODELS: dict[str, Callable[[], nn.Module]] = {
    model.__name__.lower(): model for model in (Dense, Shared, Line, Gated, Steps)
}


def loss_of(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    return F.cross_entropy(model(x), y)


def made(name: str) -> nn.Module:
    te.manual_seed(1)
    model = MODELS[name]().double()
    for path, param in model.named_parameters():
        if param.ndim == 1:
            nn.init.uniform_(param, 0.5, 1.5) if path.endswith("weight") else nn.init.normal_(param)
    return model


def found_in(model: nn.Module) -> dict[str, Any]:
    values = {name: value.numpy() for name, value in model.state_dict().items()}
    grads = {f"d{n}": p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    return values | grads


@pytest.mark.parametrize("way", ["eager", "checkpoint", "compile"])
@pytest.mark.parametrize("name", MODELS)
def test_n_samples_are_one_batch(reference: Backend, name: str, way: str) -> None:
    one, other = made(name), made(name)
    if way == "checkpoint":
        next(layer for layer in other.children() if not isinstance(layer, (nn.ModuleList, nn.ModuleDict))).checkpoint()
    steps: dict[int, Callable[..., te.Tensor]] = {}

    def backward(samples: list[Any]) -> te.Tensor:
        count = len(samples)
        if count not in steps:
            norm = adapt.minibatch_norm(other, count)

            def step(*flat: te.Tensor) -> te.Tensor:
                return norm.backward(loss_of, [*zip(flat[::2], flat[1::2], strict=True)])

            steps[count] = te.compile(step) if way == "compile" else step
        return steps[count](*[part for sample in samples for part in sample])

    optimizers = [optim.SGD(model.parameters(), lr=0.05, momentum=0.9, accumulate=1) for model in (one, other)]
    random = np.random.default_rng(0)
    for count in (5, 5, 5, 3):  # the last minibatch is shorter
        images, labels = random.standard_normal((count, 3, 4, 4)) * 2 + 1, random.integers(0, 5, count)
        expected = loss_of(one, te.tensor(images), te.tensor(labels))
        expected.backward()
        samples = [(te.tensor(images[k : k + 1]), te.tensor(labels[k : k + 1])) for k in range(count)]
        got = backward(samples)
        np.testing.assert_allclose(got.item(), expected.item(), rtol=1e-9)
        ours, theirs = found_in(other), found_in(one)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            scale = max(float(np.abs(value).max(initial=0.0)), 1.0)
            np.testing.assert_allclose(ours[key], value, atol=1e-8 * scale, rtol=0, err_msg=f"{key}, {count} samples")
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("name", ["shared"])
def test_on_a_device(backend: Backend, name: str) -> None:
    """In float32: losses over updates are those of one batch."""
    one, other = made(name).float(), made(name).float()
    norm = adapt.minibatch_norm(other, 4)
    optimizers = [optim.SGD(model.parameters(), lr=0.02, accumulate=1) for model in (one, other)]
    random = np.random.default_rng(0)
    images = random.standard_normal((4, 3, 4, 4)).astype(np.float32)
    labels = random.integers(0, 5, 4)
    samples = [(te.tensor(images[k : k + 1]), te.tensor(labels[k : k + 1])) for k in range(4)]
    for _ in range(3):
        expected = loss_of(one, te.tensor(images), te.tensor(labels))
        expected.backward()
        np.testing.assert_allclose(norm.backward(loss_of, samples).item(), expected.item(), rtol=2e-4)
        for optimizer in optimizers:
            optimizer.step()
