"""What a replay costs the host: a program of 200 launches against the bare enqueues of the same kernels."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import pytest

import tinyedge as te
from tinyedge.backends import Backend, default_backend
from tinyedge.nn import functional as F

LAUNCHES = 200
ROUNDS = 200


def fastest(backend: Backend, call: Any) -> float:
    """Seconds until the host may go on, at best."""
    best = float("inf")
    for _ in range(ROUNDS):
        backend.finish()
        start = perf_counter()
        call()
        best = min(best, perf_counter() - start)
    return best


@pytest.mark.parametrize("trains", [False, True], ids=["inference", "training"])
def test_replay_of_200_launches(benchmark: Any, trains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one tensor of 16 elements, so that a CPU that is its own device has little else to do."""
    backend = default_backend()
    monkeypatch.setenv("TINYEDGE_FUSE", "0")
    w = te.ones(16, requires_grad=trains)

    @te.compile
    def repeated(x: te.Tensor) -> te.Tensor:
        y = x
        for _ in range(LAUNCHES // 4 if trains else LAUNCHES // 2):
            y = (y + x) * w
        if trains:
            y.backward(x)
        return y

    x = te.ones(16)
    repeated(x)
    repeated(x)
    launches = [launch for part in repeated.program.binding.parts for launch in part.launches]
    benchmark.pedantic(repeated, (x,), setup=backend.finish, rounds=ROUNDS, warmup_rounds=5)
    program, bare = fastest(backend, lambda: repeated(x)), fastest(backend, lambda: backend.launch(launches))
    benchmark.extra_info.update(launches=len(launches), program_us=1e6 * program, bare_us=1e6 * bare)
    benchmark.extra_info["ratio"] = program / bare


@pytest.mark.parametrize("drops", [False, True], ids=["without", "with"])
def test_replay_with_four_dropouts(benchmark: Any, drops: bool) -> None:
    """New random numbers are drawn on the host, and their kernels are bound again: what that costs."""
    backend = default_backend()

    @te.compile
    def four(x: te.Tensor) -> te.Tensor:
        for _ in range(4):
            x = (F.dropout(x, 0.1) if drops else x).sum(0, keepdim=True) * x
        return x

    x = te.ones(16, 16)
    four(x)
    benchmark.pedantic(four, (x,), setup=backend.finish, rounds=ROUNDS, warmup_rounds=5)
    benchmark.extra_info["launches"] = len(four.program.launches)
