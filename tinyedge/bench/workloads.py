"""The models that are measured, each as a training step and as an inference at batch 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F


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


def workload(name: str) -> Workload:
    """The workload called ``name``. Errors: ArgumentError with the names there are."""
    if name not in WORKLOADS:
        raise ArgumentError("tinyedge bench", f"a workload of {', '.join(WORKLOADS)}", f"got {name!r}")
    return WORKLOADS[name]


TRAINING, INFERENCE = "training step", "inference"
UPDATE_EVERY = 32
"""Samples."""


class Run:
    """A workload on the default backend, made ready: each call does it once, and waits for the device."""

    def __init__(self, workload: Workload, kind: str, compiled: bool) -> None:
        te.manual_seed(0)
        self.model = model = workload.build()
        self.x, self.y = (te.tensor(array) for array in workload.sample())
        self.backend = self.x.backend
        self.optimizer = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, accumulate=UPDATE_EVERY)
        self.kind = kind

        def training_step(x: te.Tensor, y: te.Tensor) -> te.Tensor:
            loss = F.cross_entropy(model(x).flatten(0, -2), y)
            loss.backward()
            return loss

        def inference(x: te.Tensor) -> Any:
            return model(x)

        function = training_step if kind == TRAINING else inference
        self.function: Callable[..., Any] = te.compile(function) if compiled else function

    def __call__(self) -> None:
        if self.kind == TRAINING:  # forward, backward, accumulation, and an update every 32nd time
            self.function(self.x, self.y)
            self.optimizer.step()
        else:
            with te.no_grad():
                self.function(self.x)
        self.backend.finish()

    @property
    def program(self) -> te.Program:
        """Of a compiled run, after its first call."""
        program: te.Program = self.function.program  # type: ignore[attr-defined]
        return program
