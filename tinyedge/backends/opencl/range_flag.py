"""The range flag: how kernels report an index outside its range.

In: kernels of ops that take indices, which set it with REPORT. Out: IndexRangeError at the next value that the host
reads, or waits for. The host sees indices that a device computed only then; to look earlier would be to wait.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.errors import IndexRangeError
from tinyedge.kernels.render import report_code

INTS = 4
"""The report's code (0: none), the two halves of the index, and the size of the range."""


class RangeFlag:
    """A few ints on a device. The first report stays, until it was raised."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._memory = backend.zeros(INTS)
        self._calls: dict[int, str] = {}

    @property
    def handle(self) -> Any:
        """The driver's buffer."""
        return self._memory.handle

    def admit(self, call: str) -> None:
        """Let kernels report in the name of ``call``."""
        self._calls[report_code(call)] = call

    def enqueue_read(self) -> tuple[Any, np.ndarray[Any, Any]]:
        """Read it after all that was launched so far: the values are there when a later read is done."""
        values = np.zeros(INTS, np.int32)
        event = self._backend.cl.enqueue_copy(self._backend.queue, values, self.handle, is_blocking=False)
        return event, values  # to drop the event would be to wait

    def check(self, values: np.ndarray[Any, Any]) -> None:
        """Raise what ``values``, which were read, report; the flag is clear then."""
        code, low, high, size = (int(value) for value in values)
        if not code:
            return
        with self._backend.lock:
            self._backend.cl.enqueue_copy(self._backend.queue, self.handle, np.zeros(INTS, np.int32), is_blocking=True)
        raise IndexRangeError(
            self._calls[code],
            f"indices must be in [{min(size, 0)}, {abs(size)})",
            f"one is {high << 32 | low & 0xFFFFFFFF}",
            "A device computed it, so it was found only now. What was computed from it is wrong.",
        )
