"""Run by ``test_oclgrind`` in a process whose only OpenCL device is Oclgrind: each op, forward and backward.

Prints, for each op, what Oclgrind wrote into its log: nothing where all is well. Values are not compared: Oclgrind
21.10 takes ``(float)-(x < 0)`` for 1, and ``min`` and ``max`` of eight ints for anything.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

from tests import properties
from tests.strategies import call_of
from tests.test_ops import OPS
from tinyedge import backends
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.backends.opencl.memory import Allocation

SAMPLES = 3


class Exact(OpenCLBackend):
    """Buffers as long as what they hold: a pool's are longer, and reading past the end would not be seen."""

    def allocate(self, nbytes: int) -> Allocation:
        return Allocation(self.cl.Buffer(self.context, self.cl.mem_flags.READ_WRITE, max(nbytes, 4)))

    reserve = allocate

    def release(self, buffer: Allocation, nbytes: int) -> None:
        """Nothing: the buffer goes with its allocation."""


PLANTED = """
__kernel void planted(__global int* x) {
    x[0] = get_global_id(0);
    x[get_global_id(0) + 3] = 1;
}
"""


class Log:
    """What Oclgrind has written since the last look."""

    def __init__(self, path: Path, backend: OpenCLBackend) -> None:
        self.path, self.backend, self.length = path, backend, 0

    def news(self) -> str:
        self.backend.finish()
        content = self.path.read_text(errors="replace") if self.path.exists() else ""
        new, self.length = content[self.length :].strip(), len(content)
        return new


def main(kind: str, log_path: Path) -> None:
    (entry,) = backends.usable_devices()
    assert entry.platform == "Oclgrind", entry.platform
    entry.is_cpu = kind == "cpu"  # it says that it is of every kind: the kernels for GPUs are others
    backend = Exact(entry)
    log = Log(log_path, backend)
    assert not log.news()
    planted = backend.cl.Kernel(backend.cl.Program(backend.context, PLANTED).build(), "planted")
    planted(backend.queue, (2,), None, backend.allocate(16).handle)
    told = log.news()
    assert "race" in told, f"a planted race was not seen: {told}"
    assert "Invalid write" in told, f"a planted write past the end was not seen: {told}"
    found: dict[str, str] = {}
    for op in OPS:
        said = ""
        for seed in range(SAMPLES):
            call = call_of(op, op.sample(Random(seed)), seed, strided=seed % 2 == 1)
            try:
                run = properties.Run(call, backend, call.differentiable())
                run.values()
                run.walk_back(properties.output_gradients(call, run.outputs))
                run.gradients()
            except Exception as error:
                said += f"{call}: {type(error).__name__}: {error}\n"
            if news := log.news():
                said += f"{call}: {news}\n"
        found[op.name] = said
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
