"""How long a user waits at the start: the import, the device, and the first calls of a compiled training step."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time

from tinyedge import config
from tinyedge.backends import default_backend
from tinyedge.bench.workloads import TRAINING, Run, workload
from tinyedge.errors import BackendError

CACHES = ("TINYEDGE_CACHE", "CUDA_CACHE_PATH", "POCL_CACHE_DIR")
"""Where tinyedge, NVIDIA's driver (for OpenCL too) and PoCL keep what they built."""

PROGRAM = """
import time
started = time.perf_counter()
import tinyedge
imported = time.perf_counter()
from tinyedge.bench import startup
startup.start({name!r}, imported - started)
"""


def measure(name: str) -> dict[str, dict[str, float]]:
    """Milliseconds of each part of a start: cold, with empty caches; and warm, with what the cold one left there."""
    found = {}
    backend = default_backend().name
    with tempfile.TemporaryDirectory() as folder:
        places = config.environment(TINYEDGE_BACKEND=backend, **dict.fromkeys(CACHES, folder))
        for state in ("cold", "warm"):
            command = [sys.executable, "-c", PROGRAM.format(name=name)]
            done = subprocess.run(command, capture_output=True, text=True, env=places)
            if done.returncode:
                raise BackendError(
                    "tinyedge bench --startup",
                    "the process must end well",
                    f"it ended with {done.stderr[-300:]}",
                    "Run python -c 'import tinyedge' to see why.",
                )
            found[state] = json.loads(done.stdout)
    return found


def start(name: str, import_seconds: float) -> None:
    """Print the parts of this process' start."""
    times = {"import": 1000 * import_seconds}
    last = time.perf_counter()

    def done(part: str) -> None:
        nonlocal last
        now = time.perf_counter()
        times[part] = 1000 * (now - last)
        last = now

    default_backend()
    done("device")
    run = Run(workload(name), TRAINING, True)
    done("model")
    for part in ("first step", "second step", "third step"):
        run()
        done(part)
    print(json.dumps(times))
