"""How many kernels a persistent kernel has."""

from __future__ import annotations

from collections.abc import Sequence

MOST_IN_PERSISTENT = 64
"""The most kernels in a persistent kernel: while the device runs one, the host prepares the next. On an H200,
persistent kernels of 64 and of 200 kernels took the device the same time, and about the same time to build.
"""

FIRST_IN_PERSISTENT = 8
GROWTH_OF_PERSISTENT = 1.5
"""Each persistent kernel of a program may be so many times as long as the one before. A short first one lets the device
start early, and the host prepares the next, longer one while it runs. For MobileNet v1 on an H200 a kernel takes 5 us,
and the host needs 2 us per kernel of a persistent one, or 4 us when other programs ran in between.
"""


def runs(argument_bytes: Sequence[int | None], room_bytes: int, later: bool) -> list[list[int]]:
    """The numbers of the kernels of a program, in order, divided into launch groups.

    ``argument_bytes`` are those of each kernel, None of one that must be launched alone; a launch has ``room_bytes``.
    When they are launched ``later``, the device is at work on what was launched before.
    """
    found: list[list[int]] = []
    run: list[int] = []
    room = 0
    most = float(MOST_IN_PERSISTENT if later else FIRST_IN_PERSISTENT)
    for number, needed in enumerate(argument_bytes):
        if needed is None:
            run = []
            found.append([number])
            continue
        is_full = len(run) >= most and len(argument_bytes) - number > FIRST_IN_PERSISTENT // 2
        if run and is_full:
            most *= GROWTH_OF_PERSISTENT
        if not run or needed > room or is_full or len(run) == MOST_IN_PERSISTENT:
            run, room = [], room_bytes
            found.append(run)
        run.append(number)
        room -= needed
    return found
