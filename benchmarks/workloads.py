"""The models that are measured, each as one training step and one inference at batch 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import models, nn, optim


@dataclass(frozen=True)
class Workload:
    """A model, and the sample that it is fed: an image, or tokens."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    tokens: bool = False

    def sample(self, random: np.random.Generator) -> tuple[te.Tensor, te.Tensor]:
        if self.tokens:
            length = self.shape[-1]
            text = random.integers(0, self.classes, (1, length + 1))
            return te.tensor(text[:, :-1]), te.tensor(text[0, 1:])
        return te.tensor(random.random(self.shape, np.float32)), te.tensor(random.integers(0, self.classes, 1))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("lenet5", models.lenet5, (1, 1, 28, 28), 10),
        Workload("mobilenet_v1_0.25_96", lambda: models.mobilenet_v1(0.25), (1, 3, 96, 96), 1000),
        Workload("mobilenet_v1_1.0_224", models.mobilenet_v1, (1, 3, 224, 224), 1000),
        Workload("mobilenet_v2_1.0_224", models.mobilenet_v2, (1, 3, 224, 224), 1000),
        Workload("resnet18_224", models.resnet18, (1, 3, 224, 224), 1000),
        Workload("transformer_4x128", models.transformer, (1, 128), 256, tokens=True),
    )
}


def prepare(name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A training step (forward, backward, accumulation, update) and an inference; each waits for the device."""
    te.manual_seed(0)
    workload = WORKLOADS[name]
    model = workload.build()
    model.freeze_batch_norm_statistics()
    x, y = workload.sample(np.random.default_rng(0))
    optimizer = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, accumulate=32)

    def train() -> None:
        logits = model(x)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y)
        loss.backward()
        optimizer.step()
        x.backend.finish()

    def infer() -> None:
        with te.no_grad():
            model(x)
        x.backend.finish()

    return train, infer
