"""The same work by several programs, taking turns, so that a machine's moods meet all of them.

On a GPU they take turns in one process. On a CPU each has processes of its own, which alternate: two thread pools in
one process disturb each other by up to ten times. ``python -m tinyedge.bench.turns`` is one such process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyedge.backends import default_backend
from tinyedge.backends.opencl import OpenCLBackend
from tinyedge.bench import tinygrad_side, torch_side
from tinyedge.bench.workloads import Run, Workload, workload
from tinyedge.errors import BackendError

WARM_UP = 3
PROCESSES = 3
"""Of each program, where they alternate."""

Calls = Mapping[str, Callable[[], Any]]
Times = dict[str, list[float]]


def tinyedge_calls(chosen: Workload, kind: str) -> Calls:
    return {"tinyedge eager": Run(chosen, kind, False), "tinyedge": Run(chosen, kind, True)}


SIDES: dict[str, Callable[[Workload, str], Calls]] = {
    "tinyedge": tinyedge_calls,
    "torch": torch_side.calls,
    "tinygrad": tinygrad_side.calls,
}


def take_turns(calls: Calls, rounds: int) -> Times:
    """Milliseconds of each call, ``rounds`` of each."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    times: Times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - started))
    return times


def cpu_threads() -> int | None:
    """The threads that the default backend computes with if it is a CPU's."""
    backend = default_backend()
    if isinstance(backend, OpenCLBackend):
        return backend.device.compute_units if backend.device.is_cpu else None
    return 1


def measure(chosen: Workload, kind: str, against: Sequence[str], rounds: int, threads: int | None) -> dict[str, float]:
    """The median milliseconds of ``kind`` for tinyedge, eager and compiled, and for each side in ``against``."""
    sides = ["tinyedge", *against]
    on_cpu = cpu_threads()
    if not against or (on_cpu is None and "tinygrad" not in against and torch_side.has_cuda()):
        calls = {name: call for side in sides for name, call in SIDES[side](chosen, kind).items()}
        times = take_turns(calls, rounds)
    else:
        times = {}
        for turn in range(PROCESSES):
            for side in sides:
                count = rounds // PROCESSES + (turn < rounds % PROCESSES)
                if count:
                    for name, values in _in_process(side, chosen, kind, count, threads or on_cpu).items():
                        times.setdefault(name, []).extend(values)
    return {name: statistics.median(values) for name, values in times.items()}


def _in_process(side: str, chosen: Workload, kind: str, rounds: int, threads: int | None) -> Times:
    command = [sys.executable, "-m", "tinyedge.bench.turns", side, chosen.name, kind, str(rounds)]
    backend = default_backend().name
    done = subprocess.run([*command, str(threads or 0), backend], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BackendError("tinyedge bench", f"the process that measures {side} must end well", last)
    times: Times = json.loads(done.stdout.splitlines()[-1])
    return times


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("side", "workload", "kind", "rounds", "threads", "backend"):
        parser.add_argument(name)
    options = parser.parse_args()
    if options.side == "tinyedge":
        from tinyedge import set_default_backend

        set_default_backend(options.backend)
    elif options.side == "torch" and int(options.threads):
        torch_side.set_threads(int(options.threads))
    print(json.dumps(take_turns(SIDES[options.side](workload(options.workload), options.kind), int(options.rounds))))


if __name__ == "__main__":
    main()
