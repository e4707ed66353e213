"""The workloads in PyTorch: it runs the source of models and scripts, with its names imported instead of tinyedge's."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from tinyedge import models
from tinyedge.bench import scripts
from tinyedge.bench.scripts import Script
from tinyedge.bench.workloads import TRAINING, UPDATE_EVERY, Workload
from tinyedge.errors import MissingPackageError

GRAPH = "torch CUDA graph"
CPU_MODES = ("default", "max-autotune-no-cudagraphs")
GPU_MODES = ("default", "reduce-overhead", "max-autotune")
"""Of torch.compile; the last two of these use CUDA graphs."""


def require(side: str) -> None:
    if find_spec("torch") is None:
        raise MissingPackageError(
            f"tinyedge bench --against {side}", "PyTorch must be installed", "it is not",
            "Install it: pip install torch (for a CPU: --index-url https://download.pytorch.org/whl/cpu).",
        )  # fmt: skip


def about(side: str) -> tuple[str, dict[str, list[str]]]:
    """What it runs on, and the ways in which to try each name: with one thread, and with as many as it takes itself."""
    import torch

    version = f"PyTorch {torch.__version__}"
    compiles = side == "torch-compile"
    if torch.cuda.is_available():
        names = {"torch compile": list(GPU_MODES)} if compiles else {"torch": [""], GRAPH: [""]}
        return f"{version} on {torch.cuda.get_device_name()}", names
    threads = [f"{count} thread{'s' * (count > 1)}" for count in dict.fromkeys((1, torch.get_num_threads()))]
    if compiles:
        return f"{version} on CPU", {"torch compile": [f"{mode}, {n}" for mode in CPU_MODES for n in threads]}
    return f"{version} on CPU", {"torch": threads}


def translated(path: Path) -> ModuleType:
    """A file of ours as a module of PyTorch's; errors stay ours."""
    source = path.read_text().replace("from tinyedge.tensor import", "from torch import")
    source = re.sub(r"(?m)^(from|import) tinyedge(?!\.errors)\b", r"\1 torch", source)
    module = ModuleType(f"torch_{path.stem}")
    sys.modules[module.__name__] = module  # torch.compile imports what it finds there
    exec(compile(source, module.__name__, "exec"), vars(module))
    return module


def build(workload: Workload) -> Any:
    """The model as a torch.nn.Module, in training mode with frozen batch-norm statistics."""
    module = translated(Path(str(models.__file__)).with_name(workload.module + ".py"))
    model = eval(workload.call, vars(module)).train()
    for part in model.modules():
        if "BatchNorm" in type(part).__name__:
            part.eval()
    return model


def training_of(script: Script, small: bool = False) -> Any:
    """The script's ``Training``, with modules and optimizers of PyTorch's."""
    made: Script = translated(Path(str(scripts.__file__))).SCRIPTS[script.name]
    return made.make(**(made.small if small else {}))


def ready(name: str, way: str, workload: Workload | Script, kind: str) -> Callable[[], Any]:
    """PyTorch's call, compiled or as a CUDA graph if ``name`` says so; it waits for the device."""
    import torch

    *mode, threads = way.split(", ") if "thread" in way else (way, "")
    if threads:
        torch.set_num_threads(int(threads.split()[0]))
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    if isinstance(workload, Script):
        return _script(workload, mode[0] if name == "torch compile" else None, device)
    model = build(workload).to(device)
    x, y = (torch.tensor(array).to(device) for array in workload.sample())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    count = 0

    def loss(x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x).flatten(0, -2), y)

    function = loss if kind == TRAINING else lambda x, y: model(x)
    if name == "torch compile":
        function = torch.compile(function, mode=mode[0])
        for parameter in model.parameters():  # else the first gradient lies in the graph's own memory
            parameter.grad = torch.zeros_like(parameter)

    def work() -> None:
        if name == "torch compile":
            torch.compiler.cudagraph_mark_step_begin()  # results of the call before are not needed any more
        if kind == TRAINING:
            function(x, y).backward()
        else:
            with torch.no_grad():
                function(x, y)

    run = _graph(work) if name == GRAPH else work

    def call() -> None:
        nonlocal count
        run()
        count += 1
        if kind == TRAINING and count % UPDATE_EVERY == 0:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)  # a graph needs the gradients to stay where they are
        if on_gpu:
            torch.cuda.synchronize()

    return call


def _script(script: Script, mode: str | None, device: str) -> Callable[[], Any]:
    """The script's step; ``mode`` is torch.compile's, which compiles its modules."""
    import torch

    torch.set_default_device(device)
    training = training_of(script)
    batch = [torch.tensor(array) for array in training.batch]
    if mode is not None:
        for module in training.modules:
            module.compile(mode=mode)

    def call() -> None:
        if mode is not None:
            torch.compiler.cudagraph_mark_step_begin()
        training.step(*batch)
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def _graph(work: Callable[[], None]) -> Callable[[], None]:
    """``work`` as a CUDA graph, which holds only addresses: what it returns keeps ``work`` and its tensors alive."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def replay(_: Callable[[], None] = work) -> None:
        graph.replay()

    return replay
