"""Milliseconds of a training step and of an inference, for each model, on the backend that TINYEDGE_BACKEND names."""

from __future__ import annotations

from typing import Any

import pytest

from tinyedge.bench.workloads import INFERENCE, TRAINING, WORKLOADS, Run
from tinyedge.report.program import SAVED, buffers


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", [TRAINING, INFERENCE], ids=["training", "inference"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_model(benchmark: Any, name: str, kind: str, compiled: bool) -> None:
    """Also the bytes: a program's peak and what it saves for backward; eagerly, the most that was alive at once."""
    run = Run(WORKLOADS[name], kind, compiled)
    run()
    memory = run.backend.memory
    memory.reset_peak()
    before = memory.allocated_bytes
    benchmark.pedantic(run, rounds=10, warmup_rounds=2)
    benchmark.extra_info["peak_bytes"] = run.program.peak_bytes if compiled else memory.peak_bytes - before
    if compiled:
        saved = sum(buffer.nbytes for buffer in buffers(run.program) if buffer.kind == SAVED)
        benchmark.extra_info["saved_bytes"] = saved
