"""Ops by themselves, forward and backward: milliseconds of a call, and what its kernels reach of the device."""

from __future__ import annotations

from typing import Any

import pytest

import tinyedge as te
from tinyedge.bench import ops, roofline
from tinyedge.bench.ops import CASES, Case
from tinyedge.ir.step import BACKWARD


@pytest.fixture(scope="session")
def ceilings() -> roofline.Ceilings:
    return roofline.measure_ceilings(te.get_backend())


@pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
def test_op(benchmark: Any, case: Case, ceilings: roofline.Ceilings) -> None:
    benchmark.pedantic(ops.ready(case, BACKWARD), rounds=5, warmup_rounds=1)
    for rate in ops.measure(case, 5):
        benchmark.extra_info[f"{rate.direction} GFLOP/s"] = round(rate.gflops, 3)
        benchmark.extra_info[f"{rate.direction} GB/s"] = round(rate.gbytes, 3)
        benchmark.extra_info[f"{rate.direction} of what is possible"] = round(ceilings.reached(rate), 3)
