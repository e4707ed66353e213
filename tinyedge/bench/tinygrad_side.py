"""The workloads in tinygrad: the models' own source again, over its layers under the names that the source uses."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tinyedge import models
from tinyedge.bench.workloads import TRAINING, UPDATE_EVERY, Workload
from tinyedge.errors import MissingPackageError


def require(side: str) -> None:
    if find_spec("tinygrad") is None:
        raise MissingPackageError(
            f"tinyedge bench --against {side}", "tinygrad must be installed", "it is not",
            "Install it: pip install tinygrad.",
        )  # fmt: skip


def about(side: str) -> tuple[str, dict[str, list[str]]]:
    import tinygrad

    return f"tinygrad {version('tinygrad')} on {tinygrad.Device.DEFAULT}", {"tinygrad": [""]}


class Module:
    """As much of a module as the models' source needs: attributes, and a call."""

    def __call__(self, x: Any) -> Any:
        return self.forward(x)

    def forward(self, x: Any) -> Any:
        raise NotImplementedError

    def add_module(self, name: str, module: Any) -> None:
        setattr(self, name, module)

    def register_buffer(self, name: str, value: Any, persistent: bool = True) -> None:
        setattr(self, name, value)

    def modules(self) -> tuple[()]:
        return ()  # tinygrad's layers have initialized themselves

    named_parameters = modules


class Sequential(Module):
    def __init__(self, *layers: Any) -> None:
        self.layers = list(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


def build(workload: Workload) -> Any:
    """The model; it runs as at inference, which is with frozen batch-norm statistics."""
    import tinygrad

    tensor, layers = tinygrad.Tensor, tinygrad.nn
    tensor.narrow = lambda x, dim, start, length: x.shrink(
        tuple((start, start + length) if axis == dim else None for axis in range(x.ndim))
    )
    functional = SimpleNamespace(
        relu=tensor.relu,
        softmax=tensor.softmax,
        max_pool2d=lambda x, size, stride=None, padding=0: x.max_pool2d((size, size), stride, padding=padding),
        adaptive_avg_pool2d=lambda x, size: x.mean((2, 3), keepdim=True),
    )
    namespace: dict[str, Any] = {
        "__name__": workload.module,
        "nn": SimpleNamespace(
            Module=Module, Sequential=Sequential, Conv2d=layers.Conv2d, Linear=layers.Linear,
            BatchNorm2d=layers.BatchNorm2d, LayerNorm=layers.LayerNorm, Embedding=layers.Embedding,
            ReLU6=lambda: tensor.relu6, GELU=lambda: tensor.gelu, Dropout=lambda p: lambda x: x,
        ),
        "F": functional,
        "Tensor": tensor,
        "tensor": tensor,
    }  # fmt: skip
    source = Path(str(models.__file__)).with_name(workload.module + ".py").read_text().splitlines()
    source = ["" if line.startswith("from tinyedge") else line for line in source]
    exec(compile("\n".join(source), workload.module, "exec"), namespace)
    return eval(workload.call, namespace)


def ready(name: str, way: str, workload: Workload, kind: str) -> Callable[[], Any]:
    """tinygrad's call under its JIT, which waits for the device."""
    import tinygrad

    tensor = tinygrad.Tensor
    model = build(workload)
    x, y = (tensor(array).realize() for array in workload.sample())
    state = tinygrad.nn.state.get_state_dict(model)
    parameters = [value for name, value in state.items() if name.endswith(("weight", "bias"))]
    gradients = [tensor.zeros(*p.shape).contiguous().realize() for p in parameters]
    momenta = [tensor.zeros(*p.shape).contiguous().realize() for p in parameters]
    tensor.realize(*state.values())

    def backward(x: Any, y: Any) -> Any:
        loss = model(x).flatten(0, -2).sparse_categorical_crossentropy(y)
        for total, gradient in zip(gradients, loss.gradient(*parameters), strict=True):
            total.assign(total + gradient)
        tensor.realize(loss, *gradients)
        return loss

    def update() -> None:
        for p, gradient, momentum in zip(parameters, gradients, momenta, strict=True):
            momentum.assign(0.9 * momentum + gradient / UPDATE_EVERY)
            p.assign(p - 1e-3 * momentum)
            gradient.assign(gradient.zeros_like())
        tensor.realize(*parameters, *gradients, *momenta)

    def infer(x: Any) -> Any:
        return model(x).realize()

    backward_jit, update_jit, infer_jit = (tinygrad.TinyJit(function) for function in (backward, update, infer))
    count = 0

    def call() -> None:
        nonlocal count
        if kind == TRAINING:
            backward_jit(x, y)
            count += 1
            if count % UPDATE_EVERY == 0:
                update_jit()
        else:
            infer_jit(x)
        tinygrad.Device[tinygrad.Device.DEFAULT].synchronize()

    return call
