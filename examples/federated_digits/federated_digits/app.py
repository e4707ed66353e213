"""The app: what the clients train, on what, and what the server does with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn, optim

PRECISION = "int8"
SKEW = 0.5  # of the Dirichlet distribution by which a class is shared out: the smaller, the more unlike the clients
EPOCHS = 3  # of a client in a round
TEST = 397  # of 1,797 digits; the server's


def make_model() -> nn.Module:
    """No batch norm: its statistics would be each client's own."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits, shuffled once for all: the last ``TEST`` are the server's."""
    samples = list(te.data.digits())
    order = np.random.default_rng(0).permutation(len(samples))
    images = np.stack([np.asarray(samples[k][0]) for k in order])
    return images, np.asarray([int(samples[k][1]) for k in order])


@cache
def shares(clients: int) -> list[np.ndarray]:
    """The numbers of the images that each client has: of every class a random share."""
    labels = digits()[1][:-TEST]
    random = np.random.default_rng(1)
    owner = np.empty(len(labels), int)
    for label in range(10):
        mine = np.flatnonzero(labels == label)
        owner[mine] = random.choice(clients, len(mine), p=random.dirichlet([SKEW] * clients))
    found = [np.flatnonzero(owner == client) for client in range(clients)]
    return [own if len(own) else random.integers(0, len(labels), 1) for own in found]


def samples(numbers: np.ndarray) -> list[tuple[te.Tensor, te.Tensor]]:
    images, labels = digits()
    return [(te.tensor(images[k : k + 1]), te.tensor(labels[k : k + 1])) for k in numbers]


def data_fn(node: Mapping[str, object]) -> tuple[list, list]:
    mine = samples(shares(int(node["num-partitions"]))[int(node["partition-id"])])
    cut = max(1, len(mine) // 10)
    return mine[cut:] or mine, mine[:cut]


def loss(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    return F.cross_entropy(model(x), y)


def optimizer_fn(params: list) -> optim.Optimizer:
    return optim.SGD(params, lr=0.05, accumulate=8)


def accuracy(model: nn.Module) -> float:
    """On the server's digits."""
    images, labels = digits()
    with te.no_grad():
        found = model(te.tensor(images[-TEST:])).argmax(1).numpy()
    return float((found == labels[-TEST:]).mean())


def strategy(config: Mapping[str, object]) -> object:
    """FedAvg, which goes on as long as one client is left."""
    from flwr.serverapp.strategy import FedAvg

    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def write(model: nn.Module, report: te.federated.Report) -> None:
    """Leave what happened for ``run.py``, where it asks for that."""
    if "FEDERATED_DIGITS_REPORT" in os.environ:
        names = ("bytes_down", "bytes_up", "asked", "answered", "refused", "metrics", "full_bytes")
        kept = {name: getattr(report, name) for name in names}
        Path(os.environ["FEDERATED_DIGITS_REPORT"]).write_text(json.dumps(kept))


client = te.federated.client_app(
    make_model, data_fn, loss=loss, optimizer_fn=optimizer_fn, epochs=EPOCHS, precision=PRECISION
)
server = te.federated.server_app(
    make_model,
    strategy=strategy,
    precision=PRECISION,
    evaluate_fn=lambda model: {"accuracy": accuracy(model)},
    done=write,
    timeout=300,
    wait_for=lambda config: int(config.get("clients", 2)),
)
