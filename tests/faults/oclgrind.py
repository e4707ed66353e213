"""Run by ``test_oclgrind`` in a process whose only OpenCL device is Oclgrind: each op, forward and backward.

Prints, for each op, what Oclgrind wrote into its log and what differs from NumPy; nothing where all is well.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

from tests import properties
from tests.strategies import call_of
from tests.test_ops import OPS
from tinyedge import backends
from tinyedge.backends.opencl import OpenCLBackend

SAMPLES = 3


class Exact(OpenCLBackend):
    """Buffers as long as what they hold: a pool's are longer, and reading past the end would not be seen."""

    def _buffer(self, nbytes: int) -> Any:
        return self.cl.Buffer(self.context, self.cl.mem_flags.READ_WRITE, max(nbytes, 4))


def main(kind: str, log: Path) -> None:
    (entry,) = backends.usable_devices()
    assert entry.platform == "Oclgrind", entry.platform
    entry.is_cpu = kind == "cpu"  # it says that it is of every kind: the kernels for GPUs are others
    backend, reference = Exact(entry), backends.get_backend("numpy")
    backend.bakes = False  # a source for each size would be built and run for nothing
    found: dict[str, str] = {}
    length = 0
    for op in OPS:
        said = ""
        for seed in range(SAMPLES):
            call = call_of(op, op.sample(Random(seed)), seed, strided=seed % 2 == 1)
            try:
                properties.assert_forward_agrees(call, backend, reference)
                if op.differentiable:
                    properties.assert_backward_agrees(call, backend, reference)
            except Exception as error:
                said += f"{call}: {type(error).__name__}: {error}\n"
            backend.finish()
            content = log.read_text(errors="replace") if log.exists() else ""
            if content[length:].strip():
                said += f"{call}: {content[length:]}\n"
            length = len(content)
        found[op.name] = said
        print(op.name, said[:200], file=sys.stderr, flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
