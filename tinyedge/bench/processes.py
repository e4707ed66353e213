"""What is compared, each by itself: a process that measures one thing from its start to its end, as its users run it.

Processes follow each other, A B A B, so that a machine's moods meet all of them, and never run at the same time. Their
environment is the user's own: two thread pools that take turns step by step disturb each other, and settings that make
them wait more politely make some libraries several times slower. ``python -m tinyedge.bench.processes`` is one such
process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from tinyedge import set_default_backend
from tinyedge.backends import default_backend
from tinyedge.bench import jax_side, onnxruntime_side, tinygrad_side, torch_side
from tinyedge.bench.scripts import Script
from tinyedge.bench.workloads import Run, Workload, workload
from tinyedge.errors import BackendError

PROCESSES = 3
"""Of each thing that is measured."""
WARM_UP_SECONDS = 0.5
WARM_UP_CALLS = 4
LEAST_SECONDS = 1.0
"""That a process measures, if its calls are so short that there are more than were asked for."""
MOST_CALLS = 1000


@dataclass(frozen=True)
class Case:
    """What one process measures: ``name``, in one of the ways to run it that are tried for the best."""

    side: str
    name: str
    way: str = ""


@dataclass
class Timing:
    """The calls of a name in its best way."""

    way: str
    median_ms: float
    process_medians_ms: list[float] = field(default_factory=list)
    ways_ms: dict[str, float] = field(default_factory=dict)


OURS = (Case("tinyedge", "tinyedge eager"), Case("tinyedge", "tinyedge"))
PEERS: dict[str, ModuleType] = {
    "torch": torch_side,
    "torch-compile": torch_side,
    "jax": jax_side,
    "tinygrad": tinygrad_side,
    "onnxruntime": onnxruntime_side,
}
"""Each has ``require(side)``, an error if it is not installed; ``about(side)``, its description, and the ways of each
name; and ``ready(name, way, workload, kind)``, a call that waits for its end."""

ONLY_INFERS = ("onnxruntime",)


def cases_of(side: str) -> tuple[str, list[Case]]:
    """What a peer is, in words, and what is measured of it: it is asked in a process of its own."""
    PEERS[side].require(side)
    description, ways = _in_process(side, ["about", side])
    return description, [Case(side, name, way) for name, tried in ways.items() for way in tried]


def has(side: str, item: Workload | Script) -> bool:
    """Whether a peer runs it: scripts run where the common PyTorch API is."""
    return not isinstance(item, Script) or side in ("tinyedge", "torch", "torch-compile")


def measure(chosen: Workload | Script, kind: str, cases: Sequence[Case], rounds: int) -> dict[str, Timing]:
    """The median of at least ``rounds`` calls of each name, in ``PROCESSES`` processes, in the best of its ways."""
    cases = [case for case in cases if has(case.side, chosen)]
    found: dict[Case, list[list[float]]] = {case: [] for case in cases}
    least = -(-rounds // PROCESSES)
    for _ in range(PROCESSES):
        for case in cases:
            command = ["measure", case.side, case.name, case.way, chosen.name, kind, str(least)]
            found[case].append(_in_process(f"{case.name} {case.way}".strip(), command))
    timings: dict[str, Timing] = {}
    for name in dict.fromkeys(case.name for case in cases):
        medians = {
            case: statistics.median(ms for process in processes for ms in process)
            for case, processes in found.items()
            if case.name == name
        }
        best = min(medians, key=lambda case: medians[case])
        timings[name] = Timing(
            best.way,
            medians[best],
            [statistics.median(process) for process in found[best]],
            {case.way: ms for case, ms in medians.items()},
        )
    return timings


def _in_process(what: str, arguments: Sequence[str]) -> Any:
    """What the last line says that such a process prints."""
    command = [sys.executable, "-m", "tinyedge.bench.processes", default_backend().name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BackendError(
            "tinyedge bench",
            f"the process that measures {what} must end well",
            last,
            "Run what it measures by itself to see why.",
        )
    return json.loads(done.stdout.splitlines()[-1])


def times_of(call: Callable[[], Any], rounds: int) -> list[float]:
    """Milliseconds of each of at least ``rounds`` calls, once it is warm."""
    started, count = time.perf_counter(), 0
    while count < WARM_UP_CALLS or time.perf_counter() - started < WARM_UP_SECONDS:
        call()
        count += 1
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < rounds or (len(times) < MOST_CALLS and time.perf_counter() - begun < LEAST_SECONDS):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return times


def ready(case: Case, chosen: Workload | Script, kind: str) -> Callable[[], Any]:
    """The call that is measured: a step of ``chosen``, with everything made that it needs."""
    if case.side == "tinyedge":
        return Run(chosen, kind, compiled=case.name == "tinyedge")
    call: Callable[[], Any] = PEERS[case.side].ready(case.name, case.way, chosen, kind)
    return call


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one case in this process, and print the result as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    commands = parser.add_subparsers(dest="command", required=True)
    about = commands.add_parser("about")
    about.add_argument("side")
    measured = commands.add_parser("measure")
    for name in ("side", "name", "way", "workload", "kind", "rounds"):
        measured.add_argument(name)
    options = parser.parse_args(arguments)
    result: Any
    if options.command == "about":
        result = PEERS[options.side].about(options.side)
    else:
        set_default_backend(options.backend)
        case = Case(options.side, options.name, options.way)
        result = times_of(ready(case, workload(options.workload), options.kind), int(options.rounds))
    print(json.dumps(result))


def medians_of(timings: Mapping[str, Timing]) -> dict[str, float]:
    """The median of each, in milliseconds."""
    return {name: timing.median_ms for name, timing in timings.items()}


if __name__ == "__main__":
    main()
