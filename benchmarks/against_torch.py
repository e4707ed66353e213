"""The same training steps in tinyedge and in PyTorch, in one process, taking turns: medians and ratios.

    python benchmarks/against_torch.py [WORKLOAD ...] [--rounds N] [--threads N]

PyTorch runs the models' own source with its names imported instead of tinyedge's: on its GPU where it has one (also as
a CUDA graph), else on the CPU. tinyedge runs on the backend that TINYEDGE_BACKEND names. On a CPU set
OMP_WAIT_POLICY=PASSIVE: PyTorch's idle threads spin otherwise, on the cores that the other one needs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from workloads import WORKLOADS, Workload, training_step

import tinyedge as te


def torch_model(workload: Workload) -> Any:
    source = Path(te.models.__file__).with_name(workload.module + ".py").read_text()
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


def torch_steps(workload: Workload) -> dict[str, Callable[[], Any]]:
    """PyTorch's step, and on a GPU the same as a CUDA graph; each waits for the device."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    model = torch_model(workload).to(device)
    x, y = (torch.tensor(array).to(device) for array in workload.sample())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    count = 0

    def backward() -> None:
        torch.nn.functional.cross_entropy(model(x).flatten(0, -2), y).backward()

    def step(run: Callable[[], None]) -> None:
        nonlocal count
        run()
        count += 1
        if count % 32 == 0:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)  # a graph needs the gradients to stay where they are
        if on_gpu:
            torch.cuda.synchronize()

    steps: dict[str, Callable[[], Any]] = {"torch": lambda: step(backward)}
    if on_gpu:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                backward()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            backward()
        steps["torch graph"] = lambda: step(graph.replay)
    return steps


def measure(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median of each in milliseconds; they take turns, so that a machine's moods meet all of them."""
    for step in steps.values():
        for _ in range(3):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__} on {gpu}; tinyedge {te.__version__} on {te.get_backend().description}")
    print("median ms of a training step at batch 1; in brackets, tinyedge compiled as a multiple of it")
    for name in options.workloads:
        workload = WORKLOADS[name]
        steps = {"eager": training_step(workload, False), "compiled": training_step(workload, True)}
        found = measure({**steps, **torch_steps(workload)}, options.rounds)
        compiled = found["compiled"]
        print(
            f"{name:22} tinyedge eager {found['eager']:8.3f}  compiled {compiled:8.3f}  "
            + "  ".join(f"{k} {v:8.3f} ({compiled / v:.2f}x)" for k, v in found.items() if k.startswith("torch")),
            flush=True,
        )


if __name__ == "__main__":
    main()
