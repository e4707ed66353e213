"""Milliseconds of a training step and of an inference, for each model, on the backend that TINYEDGE_BACKEND names."""

from __future__ import annotations

from typing import Any

import pytest
from workloads import WORKLOADS, prepare


@pytest.mark.parametrize("name", WORKLOADS)
def test_training_step(benchmark: Any, name: str) -> None:
    train, _ = prepare(name)
    benchmark.pedantic(train, rounds=10, warmup_rounds=2)


@pytest.mark.parametrize("name", WORKLOADS)
def test_inference(benchmark: Any, name: str) -> None:
    _, infer = prepare(name)
    benchmark.pedantic(infer, rounds=10, warmup_rounds=2)
