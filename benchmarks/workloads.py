"""The models that are measured, each as one training step and one inference at batch 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn, optim


@dataclass(frozen=True)
class Workload:
    """A model of ``te.models`` (its module there, and the call that makes it), and the sample that it is fed."""

    name: str
    module: str
    call: str
    shape: tuple[int, ...]
    classes: int

    def build(self) -> nn.Module:
        model: nn.Module = eval(self.call, vars(te.models))
        return model.train().freeze_batch_norm_statistics()

    def sample(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """An image and its class; or tokens, and those that follow them."""
        random = np.random.default_rng(0)
        if len(self.shape) == 2:
            text = random.integers(0, self.classes, (1, self.shape[1] + 1))
            return text[:, :-1], text[0, 1:]
        return random.random(self.shape, np.float32), random.integers(0, self.classes, 1)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("lenet5", "lenet", "lenet5()", (1, 1, 28, 28), 10),
        Workload("mobilenet_v1_0.25_96", "mobilenet", "mobilenet_v1(0.25, dropout=0.0)", (1, 3, 96, 96), 1000),
        Workload("mobilenet_v1_1.0_224", "mobilenet", "mobilenet_v1(dropout=0.0)", (1, 3, 224, 224), 1000),
        Workload("mobilenet_v2_1.0_224", "mobilenet", "mobilenet_v2(dropout=0.0)", (1, 3, 224, 224), 1000),
        Workload("resnet18_224", "resnet", "resnet18()", (1, 3, 224, 224), 1000),
        Workload("transformer_4x128", "transformer", "transformer()", (1, 128), 256),
    )
}


def training_step(workload: Workload, compiled: bool) -> Callable[[], Any]:
    """Forward, backward, accumulation, and an update every 32nd time; waits for the device."""
    te.manual_seed(0)
    model = workload.build()
    x, y = (te.tensor(array) for array in workload.sample())
    optimizer = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, accumulate=32)

    def sample_loss(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        loss = F.cross_entropy(model(x).flatten(0, -2), y)
        loss.backward()
        return loss

    function = te.compile(sample_loss) if compiled else sample_loss

    def step() -> None:
        function(x, y)
        optimizer.step()
        x.backend.finish()

    return step


def inference(workload: Workload, compiled: bool) -> Callable[[], Any]:
    """Forward alone; waits for the device."""
    model = workload.build()
    x = te.tensor(workload.sample()[0])
    function: Callable[..., Any] = te.compile(model.forward) if compiled else model

    def infer() -> None:
        with te.no_grad():
            function(x)
        x.backend.finish()

    return infer
