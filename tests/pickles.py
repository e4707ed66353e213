"""Ways through a pickle or a copy, and what goes through them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.nn import functional as F
from tinyedge.optim import lr_scheduler

Way = Callable[[Any], Any]


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def through_old_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, protocol=2))


def through_buffers(value: Any) -> Any:
    buffers: list[pickle.PickleBuffer] = []
    return pickle.loads(pickle.dumps(value, protocol=5, buffer_callback=buffers.append), buffers=buffers)


WAYS = (through_pickle, through_old_pickle, through_buffers, copy.deepcopy)
every_way = pytest.mark.parametrize("way", WAYS)
both_ways = pytest.mark.parametrize("way", [through_pickle, copy.deepcopy])


class Net(nn.Module):
    """A layer that is there twice, a buffer that is kept, one that is not, and None."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(3, 2, bias=False)
        self.register_buffer("count", te.tensor([1, 2]))
        self.register_buffer("scratch", te.tensor([True, False]), persistent=False)
        self.register_parameter("missing", None)
        self.note = {"kept": [1, 2]}

    def forward(self, x: te.Tensor) -> te.Tensor:
        x = self.again(F.relu(self.first(x)))
        result: te.Tensor = self.last(self.drop(self.norm(x)))
        return result


class Marked(nn.Parameter):
    __slots__ = ("mark",)
    mark: str


def twice(module: nn.Module, args: Any, output: te.Tensor) -> te.Tensor:
    return output * 2


def plus_one(module: nn.Module, args: Any, output: te.Tensor) -> te.Tensor:
    return output + 1


def doubled(x: te.Tensor) -> te.Tensor:
    return x * 2


@te.compile
def tripled(x: te.Tensor) -> te.Tensor:
    return x * 3


class Stepped(nn.Module):
    """A model that holds its own compiled step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.step = te.compile(self.loss)

    def forward(self, x: te.Tensor) -> te.Tensor:
        result: te.Tensor = self.layer(x)
        return result

    def loss(self, x: te.Tensor) -> te.Tensor:
        loss = self(x).sum()
        loss.backward()
        return loss

    @te.compile
    def method(self, x: te.Tensor) -> te.Tensor:
        return self.loss(x)


def same(a: te.Tensor, b: te.Tensor) -> None:
    assert (type(a), a.shape, a.dtype, a.requires_grad) == (type(b), b.shape, b.dtype, b.requires_grad)
    x, y = a.detach().numpy(), b.detach().numpy()
    assert x.dtype == y.dtype
    assert x.tobytes() == y.tobytes()
    assert a._slot.storage is not b._slot.storage


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "SGD": lambda p, **o: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5, **o),
    "plain SGD": lambda p, **o: optim.SGD(p, lr=0.1, **o),
    "Adam": lambda p, **o: optim.Adam(p, lr=0.1, amsgrad=True, weight_decay=0.1, **o),
    "AdamW": lambda p, **o: optim.AdamW(p, lr=0.1, **o),
    "RMSprop": lambda p, **o: optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True, **o),
}
every_optimizer = pytest.mark.parametrize("kind", OPTIMIZERS)


class Training:
    """A model, its optimizer and its schedule, which are fed with samples of their own."""

    def __init__(self, kind: str, accumulate: int | None, compiled: bool = False) -> None:
        te.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.frozen = te.Parameter([1.0])
        names = [*self.model.named_parameters(), ("frozen", self.frozen)]
        self.optimizer = OPTIMIZERS[kind](names, accumulate=accumulate)
        self.schedule = lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.sample = te.compile(self.one) if compiled else self.one

    def one(self, x: te.Tensor) -> te.Tensor:
        loss = (self.model(x) ** 2).sum()
        loss.backward()
        return loss

    def train(self, first: int, last: int) -> None:
        for number in range(first, last):
            self.feed(number)
            self.count(number)

    def feed(self, number: int) -> None:
        x = np.random.default_rng(number).standard_normal((1, 3), np.float32)
        if self.optimizer.accumulate is None:
            self.optimizer.zero_grad()
        self.sample(te.tensor(x))

    def count(self, number: int) -> None:
        self.optimizer.step()
        if number % 3 == 2:
            self.schedule.step()

    def bits(self) -> list[Any]:
        found: list[Any] = [param.detach().numpy().tobytes() for param in self.model.parameters()]
        found.append([group["lr"] for group in self.optimizer.param_groups])
        for param in self.model.parameters():
            kept = self.optimizer.state.get(param, {})
            found += [v.numpy().tobytes() if isinstance(v, te.Tensor) else v for v in kept.values()]
        return found
