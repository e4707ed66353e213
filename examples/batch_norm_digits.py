"""Choices for batch norm at batch 1, beside each other: a digits model meets inverted, darker images.

    python examples/batch_norm_digits.py

A small convolutional network is trained on the first 1,000 digits that ship with scikit-learn. Then "the device" sees
500 others inverted and at less contrast, one at a time, and updates after every eighth. Its batch norms have statistics
of images that it will not see again: which choice copes with that? 297 digits of the new kind are the test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn, optim

N = 8


def network() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(1, 16, 1), *block(16, 32, 2), *block(32, 32, 1), *block(32, 64, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    model.eval()
    with te.no_grad():
        found = model(te.tensor(images)).argmax(1).numpy()
    model.train()
    return float((found == labels).mean())


def loss_of(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    return F.cross_entropy(model(x), y)


def pretrained(images: np.ndarray, labels: np.ndarray) -> dict[str, te.Tensor]:
    te.manual_seed(0)
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=3e-3, accumulate=1)
    step = te.compile(lambda x, y: _backward(loss_of(model, x, y)))
    random = np.random.default_rng(0)
    for _ in range(6):
        order = random.permutation(len(images))
        for start in range(0, len(order) - 31, 32):
            chosen = order[start : start + 32]
            step(te.tensor(images[chosen]), te.tensor(labels[chosen]))
            optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def _backward(loss: te.Tensor) -> te.Tensor:
    loss.backward()
    return loss


def tuned(choice: str, state: dict[str, te.Tensor], train: tuple, test: tuple, epochs: int, lr: float) -> tuple:
    """Accuracy before, after, and in milliseconds the time of a sample."""
    model = network()
    model.load_state_dict(state)
    minibatch: Callable[..., te.Tensor] | None = None
    if choice == "frozen":
        model.freeze_batch_norm_statistics()
    elif choice == "minibatch":
        minibatch = te.adapt.minibatch_norm(model, N).backward
    elif choice == "renorm":
        te.adapt.to_batch_renorm(model)
    elif choice == "group norm":
        te.adapt.to_group_norm(model, 8)
    before = accuracy(model, *test)
    whole = choice in ("minibatch", "one tensor of 8")
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9, accumulate=1 if whole else N)
    if minibatch is not None:
        exact = minibatch
        step = te.compile(lambda samples: exact(loss_of, samples))
    else:
        step = te.compile(lambda x, y: _backward(loss_of(model, x, y)))
    images, labels = train
    random = np.random.default_rng(1)
    spent = 0.0
    for epoch in range(epochs):
        order = random.permutation(len(images))
        if epoch == epochs - 1:
            te.synchronize()
            spent = time.perf_counter()
        for start in range(0, len(order) - N + 1, N):
            chosen = order[start : start + N]
            samples = [(te.tensor(images[k : k + 1]), te.tensor(labels[k : k + 1])) for k in chosen]
            if minibatch is not None:
                step(samples)
                optimizer.step()
            elif whole:
                step(te.tensor(images[chosen]), te.tensor(labels[chosen]))
                optimizer.step()
            else:
                for x, y in samples:
                    step(x, y)
                    optimizer.step()
    te.synchronize()
    seconds = time.perf_counter() - spent
    return before, accuracy(model, *test), 1e3 * seconds / (len(images) // N * N)


def main(arguments: list[str] | None = None) -> dict[str, tuple]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=0.02)
    given = parser.parse_args(arguments)
    digits = te.data.digits()
    images, labels = (np.stack([np.asarray(sample[k]) for sample in digits]) for k in (0, 1))
    order = np.random.default_rng(2).permutation(len(images))
    images, labels = images[order], labels[order]
    state = pretrained(images[:1000], labels[:1000])
    changed = (1 - images) * 0.5
    train, test = (changed[1000:1500], labels[1000:1500]), (changed[1500:], labels[1500:])
    print(f"{'statistics':18}{'before':>8}{'after':>8}{'ms a sample':>13}")
    rows = {}
    for choice in ("frozen", "batch", "renorm", "group norm", "minibatch", "one tensor of 8"):
        rows[choice] = tuned(choice, state, train, test, given.epochs, given.lr)
        before, after, cost = rows[choice]
        print(f"{choice:18}{before:8.1%}{after:8.1%}{cost:13.2f}")
    return rows


if __name__ == "__main__":
    main()
