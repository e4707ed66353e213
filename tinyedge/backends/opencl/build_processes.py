"""Programs built in several processes at the same time, since drivers build one at a time in each process.

In: texts with their build options. Out: binaries. A process that cannot be started, crashes or hangs costs time and
nothing else: what it did not build is missing from the result, and is built by whoever asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tinyedge import config
from tinyedge.backends.opencl import build_process
from tinyedge.backends.opencl.build_process import free_programs
from tinyedge.backends.opencl.drivers import Identity, can_try, script

LEAST_CHARACTERS = 200_000
"""Of source text: what takes a compiler about two seconds. Less is not worth the start of processes."""

MOST_PROCESSES = 8
"""On an H100 the first step of MobileNet v2 takes 10.2 s with 4, 7.7 s with 8 and 9.1 s with 15: the more there are,
the longer it takes each to open the device.
"""
CONTEXT_BYTES = 4 << 30
"""Memory of a GPU for each process, of which its context takes a tenth."""

PATIENCE = 60.0
"""Seconds that a process may work on after this one has nothing left to build; longer if that took longer."""

Wanted = tuple[str, tuple[str, ...]]
"""A program's text, and its build options."""


def processes_for(characters: int, gpu_bytes: int | None) -> int:
    """How many processes beside this one should build a text of so many ``characters``.

    ``gpu_bytes``: the memory of the GPU for which is built; None for another kind of device.
    """
    said = config.build_processes()
    if said is not None:
        return min(said, MOST_PROCESSES) if can_try() else 0
    if characters < LEAST_CHARACTERS or not can_try():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = MOST_PROCESSES if gpu_bytes is None else gpu_bytes // CONTEXT_BYTES
    return max(0, min(cores - 1, room, MOST_PROCESSES))


def build_together(
    device: Identity, programs: Sequence[Wanted], count: int, own: Callable[[int], None]
) -> dict[int, bytes]:
    """Build ``programs`` in ``count`` processes and in this one, which calls ``own`` with the numbers of its share.

    Returns the binaries of the others, by number.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="tinyedge-build-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "device.json").write_text(json.dumps(device), encoding="utf-8")
            for number, (text, options) in enumerate(programs):
                wanted = json.dumps({"text": text, "options": list(options)})
                (folder / f"{number}.json").write_text(wanted, encoding="utf-8")
            _build_all(folder, min(count, len(programs) - 1), own)
            return {int(path.stem): path.read_bytes() for path in folder.glob("*.binary")}
    except OSError:
        return {}  # no room for files, or no process: all is built in this process


def _build_all(folder: Path, count: int, own: Callable[[int], None]) -> None:
    """Build the programs in ``folder``, in ``count`` processes and in this one; none of them runs on afterwards."""
    processes = [_start(folder) for _ in range(count)]
    try:
        start = time.monotonic()
        for number in free_programs(folder):
            own(number)
        deadline = time.monotonic() + max(PATIENCE, time.monotonic() - start)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        script(build_process.__file__, folder, os.getpid()),
        env=config.environment(PYOPENCL_NO_CACHE="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
