"""From the start of a process to a compiled training step, with empty caches and with filled ones."""

from __future__ import annotations

from typing import Any

import pytest

from tinyedge.bench import startup
from tinyedge.bench.workloads import WORKLOADS


@pytest.mark.parametrize("name", WORKLOADS)
def test_startup(benchmark: Any, name: str) -> None:
    found = benchmark.pedantic(startup.measure, (name,), rounds=1)
    benchmark.extra_info.update(found)
