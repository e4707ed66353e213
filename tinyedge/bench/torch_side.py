"""The workloads in PyTorch: it runs the models' own source, with its names imported instead of tinyedge's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyedge import models
from tinyedge.bench.workloads import TRAINING, Workload
from tinyedge.errors import MissingPackageError


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            "tinyedge bench --against torch", "PyTorch must be installed", "it is not",
            "Install it: pip install torch (for a CPU: --index-url https://download.pytorch.org/whl/cpu).",
        ) from error  # fmt: skip
    return torch


def describe() -> str:
    torch = _torch()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"PyTorch {torch.__version__} on {where}"


def has_cuda() -> bool:
    return bool(_torch().cuda.is_available())


def set_threads(count: int) -> None:
    _torch().set_num_threads(count)


def build(workload: Workload) -> Any:
    """The model as a torch.nn.Module, in training mode with frozen batch-norm statistics."""
    source = Path(str(models.__file__)).with_name(workload.module + ".py").read_text()
    for ours, theirs in (
        ("tinyedge.nn", "torch.nn"),
        ("tinyedge.tensor", "torch"),
        ("tinyedge import nn", "torch import nn"),
    ):
        source = source.replace("from " + ours, "from " + theirs)
    namespace: dict[str, Any] = {"__name__": workload.module}
    exec(compile(source, workload.module, "exec"), namespace)
    model = eval(workload.call, namespace).train()
    for part in model.modules():
        if "BatchNorm" in type(part).__name__:
            part.eval()
    return model


def calls(workload: Workload, kind: str) -> dict[str, Callable[[], Any]]:
    """PyTorch's call, and on a GPU the same as a CUDA graph; each waits for the device."""
    torch = _torch()
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    model = build(workload).to(device)
    x, y = (torch.tensor(array).to(device) for array in workload.sample())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    count = 0

    def backward() -> None:
        torch.nn.functional.cross_entropy(model(x).flatten(0, -2), y).backward()

    def infer() -> None:
        with torch.no_grad():
            model(x)

    work = backward if kind == TRAINING else infer

    def call(run: Callable[[], None]) -> None:
        nonlocal count
        run()
        count += 1
        if kind == TRAINING and count % 32 == 0:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)  # a graph needs the gradients to stay where they are
        if on_gpu:
            torch.cuda.synchronize()

    found: dict[str, Callable[[], Any]] = {"torch": lambda: call(work)}
    if on_gpu:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        found["torch CUDA graph"] = lambda: call(graph.replay)
    return found
