"""What a minibatch costs by how it is cut: batch x accumulate, the same minibatch, the same update.

    python benchmarks/minibatches.py [--minibatch 16] [--size 96] [--all]

A MobileNet v2 is trained on minibatches of random images: its last block and head with frozen statistics, or all of it
(``--all``). Each line is one way to cut the minibatch: so many samples in a tensor, so many tensors to an update.
Printed are the milliseconds a sample, forward, backward and update, the shortest of several runs; the arena of the
compiled step; and how far the weights are from those of the first line after one update: the largest difference, over
the largest change that the update made.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn, optim

RUNS = 12


def model_of(all_layers: bool) -> nn.Module:
    te.manual_seed(0)
    model = te.models.mobilenet_v2(num_classes=5, dropout=0.0)
    if all_layers:
        model.freeze_batch_norm_statistics()
    else:
        model.freeze(except_=["classifier", "features.17", "features.18"])
    return model.train()


def weights(model: nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters() if p.requires_grad])


class Way:
    """One way to cut the minibatch: a model, its compiled step, its optimizer."""

    def __init__(self, batch: int, images: np.ndarray, labels: np.ndarray, all_layers: bool) -> None:
        self.batch = batch
        self.images, self.labels = images, labels
        model = model_of(all_layers)
        trained = [param for param in model.parameters() if param.requires_grad]
        self.optimizer = optim.SGD(trained, lr=0.01, momentum=0.9, accumulate=len(images) // batch)
        before = weights(model)

        @te.compile
        def step(x: te.Tensor, y: te.Tensor) -> te.Tensor:
            loss = F.cross_entropy(model(x), y)  # the mean over the batch; the optimizer takes the mean over batches
            loss.backward()
            return loss

        self.step = step
        self.minibatch()
        self.after = weights(model)
        self.moved = float(np.abs(self.after - before).max())
        for _ in range(2):  # the update is compiled when it comes a second time
            self.minibatch()
        self.seconds = float("inf")

    def minibatch(self) -> None:
        for start in range(0, len(self.images), self.batch):
            part = slice(start, start + self.batch)
            self.step(te.tensor(self.images[part]), te.tensor(self.labels[part]))
            self.optimizer.step()
        te.synchronize()

    def measure(self) -> None:
        began = time.perf_counter()
        self.minibatch()
        self.seconds = min(self.seconds, time.perf_counter() - began)


def table(minibatch: int, size: int, all_layers: bool) -> list[tuple[int, int, float, int, float]]:
    random = np.random.default_rng(0)
    images = random.standard_normal((minibatch, 3, size, size)).astype(np.float32)
    labels = random.integers(0, 5, minibatch)
    batches = [count for count in range(1, minibatch + 1) if minibatch % count == 0]
    ways = [Way(batch, images, labels, all_layers) for batch in batches]
    for _ in range(RUNS):  # the ways take turns, so that a machine with other work does not favour one of them
        for way in ways:
            way.measure()
    rows = []
    for way in ways:
        difference = float(np.abs(way.after - ways[0].after).max()) / way.moved
        cost = 1e3 * way.seconds / minibatch
        rows.append((way.batch, minibatch // way.batch, cost, way.step.program.arena_bytes, difference))
    return rows


def main(arguments: list[str] | None = None) -> list[tuple[int, int, float, int, float]]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minibatch", type=int, default=16)
    parser.add_argument("--size", type=int, default=96, help="height and width of an image")
    parser.add_argument("--all", action="store_true", help="train all layers")
    given = parser.parse_args(arguments)
    backend = te.get_backend()
    print(f"{backend.name}, {backend.description}")
    rows = table(given.minibatch, given.size, given.all)
    print("| batch | accumulate | ms a sample | arena, MB | difference |")
    print("| --- | --- | --- | --- | --- |")
    for batch, accumulate, cost, arena, difference in rows:
        print(f"| {batch} | {accumulate} | {cost:.2f} | {arena / 1e6:.2f} | {difference:.0e} |")
    return rows


if __name__ == "__main__":
    main()
