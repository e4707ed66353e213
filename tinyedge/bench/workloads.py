"""What is measured: models, each as a training step and as an inference at batch 1; and ordinary scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.bench.scripts import SCRIPTS, Script
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


def workload(name: str) -> Workload | Script:
    """The workload or script called ``name``. Errors: ArgumentError with the names there are."""
    found = WORKLOADS.get(name) or SCRIPTS.get(name)
    if found is None:
        raise ArgumentError("tinyedge bench", f"a workload of {', '.join([*WORKLOADS, *SCRIPTS])}", f"got {name!r}")
    return found


TRAINING, INFERENCE = "training step", "inference"
UPDATE_EVERY = 32
"""Samples."""


class Run:
    """A workload on the default backend, made ready: each call does it once, and waits for the device."""

    modules: tuple[nn.Module, ...]

    def __init__(self, workload: Workload | Script, kind: str, compiled: bool) -> None:
        te.manual_seed(0)
        self.kind = kind
        self.optimizer: optim.SGD | None = None  # that of a script is in its step
        if isinstance(workload, Script):
            training = workload.make()
            self.modules, function, arrays = training.modules, training.step, training.batch
        else:
            self.modules, arrays = (model := workload.build(),), workload.sample()

            def training_step(x: te.Tensor, y: te.Tensor) -> te.Tensor:
                loss = F.cross_entropy(model(x).flatten(0, -2), y)
                loss.backward()
                return loss

            def inference(x: te.Tensor) -> Any:
                return model(x)

            function, arrays = (training_step, arrays) if kind == TRAINING else (inference, arrays[:1])
            self.optimizer = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, accumulate=UPDATE_EVERY)
        self.arguments = tuple(te.tensor(array) for array in arrays)
        self.backend = self.arguments[0].backend
        self.function: Callable[..., Any] = te.compile(function) if compiled else function

    def __call__(self) -> None:
        if self.kind == TRAINING:
            self.function(*self.arguments)
            if self.optimizer is not None:
                self.optimizer.step()  # which updates every 32nd time
        else:
            with te.no_grad():
                self.function(*self.arguments)
        self.backend.finish()

    @property
    def program(self) -> te.Program:
        """Of a compiled run, after its first call."""
        program: te.Program = self.function.program  # type: ignore[attr-defined]
        return program

    def parameters(self) -> list[te.Tensor]:
        return [parameter for module in self.modules for parameter in module.parameters()]
