"""Milliseconds of a training step and of an inference, for each model, on the backend that TINYEDGE_BACKEND names."""

from __future__ import annotations

from typing import Any

import pytest
from workloads import WORKLOADS, inference, training_step

every_workload = pytest.mark.parametrize("name", WORKLOADS)
compiled_or_not = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


@compiled_or_not
@every_workload
def test_training_step(benchmark: Any, name: str, compiled: bool) -> None:
    benchmark.pedantic(training_step(WORKLOADS[name], compiled), rounds=10, warmup_rounds=2)


@compiled_or_not
@every_workload
def test_inference(benchmark: Any, name: str, compiled: bool) -> None:
    benchmark.pedantic(inference(WORKLOADS[name], compiled), rounds=10, warmup_rounds=2)
