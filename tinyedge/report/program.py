"""What a program does, for people: its kernels and memory (``explain``), and their times (``profile``).

In: a Program. Out: text, and rows of figures. A row is a kernel with everything that is fused into it; in a persistent
kernel several rows share one launch. Times are measured by replaying the program on the device's clock.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tinyedge.backends.base import Backend, Lowered
from tinyedge.dtypes import bool_
from tinyedge.errors import ArgumentError, CaptureError
from tinyedge.ir.kernel import BufferId, Kernel
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.step import BACKWARD, Step
from tinyedge.ir.values import Layout, Slot, Storage
from tinyedge.report.text import memory_text, millions_text, rate_text, table

BOTH = "both"
"""The direction of a kernel in which forward and backward steps are fused."""


SAVED, GRADIENT, SCRATCH, OTHER = "saved for backward", "gradient", "scratch", "other"


class Program(Protocol):
    """What a report needs of a program: launches with bound arguments, their kernels, and the memory plan."""

    @property
    def name(self) -> str: ...
    @property
    def backend(self) -> Backend: ...
    @property
    def kernels(self) -> Sequence[Kernel]: ...
    @property
    def launches(self) -> Sequence[LaunchGroup]: ...
    @property
    def plan(self) -> Any: ...
    @property
    def border(self) -> int: ...  # the number of the first step of backward
    @property
    def temporary(self) -> Mapping[BufferId, int]: ...
    @property
    def lock(self) -> Any: ...
    @property
    def arena_bytes(self) -> int: ...
    @property
    def peak_bytes(self) -> int: ...
    @property
    def is_bound(self) -> bool: ...
    @property
    def bound_kernels(self) -> int: ...
    @property
    def lowered(self) -> Sequence[Lowered]: ...
    def bound(self) -> Sequence[Lowered]: ...
    def written(self) -> Sequence[Slot]: ...
    def each_alone(self) -> Sequence[Lowered]: ...


@dataclass(frozen=True)
class LaunchRow:
    """One kernel of a program, which is a launch of its own or a part of a launch group.

    ``ops`` is what it computes: more than one name where ops were fused. ``bytes_moved`` counts every element that it
    reads or writes once, however often the kernel touches it, and twice where it adds to what is there.
    ``arena_offset`` is where it writes, as if the chunks of the arena lay one behind the other; None: outside.
    """

    number: int
    ops: tuple[str, ...]
    direction: str
    kernel: str
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    bytes_moved: int
    flops: int
    scratch_bytes: int
    arena_offset: int | None
    elapsed_ns: float | None = None

    @property
    def label(self) -> str:
        return " + ".join(self.ops)


@dataclass(frozen=True)
class ArenaBuffer:
    """A buffer in the arena, in use from kernel ``start`` on until before ``stop``."""

    label: str
    kind: str
    nbytes: int
    offset: int
    start: int
    stop: int


class Profile:
    """The times of a program's kernels: medians over ``repeats`` replays, in nanoseconds.

    The kernels of a persistent kernel are launched one by one for this; ``launched_ns`` is the time of the program's
    own ``launches``. ``str()`` is a table, the slowest kernels first.
    """

    def __init__(
        self, name: str, device: str, repeats: int, rows: Sequence[LaunchRow], launched_ns: float, launches: int
    ) -> None:
        self.name, self.device, self.repeats = name, device, repeats
        self.rows = tuple(rows)
        self.launched_ns, self.launches = launched_ns, launches

    @property
    def elapsed_ns(self) -> float:
        """The sum over all kernels, without the gaps between them."""
        return _elapsed_ns(self.rows)

    @property
    def flops(self) -> int:
        return sum(row.flops for row in self.rows)

    @property
    def bytes_moved(self) -> int:
        return sum(row.bytes_moved for row in self.rows)

    def __repr__(self) -> str:
        return f"<Profile {self.name}: {len(self.rows)} kernels, {self.elapsed_ns / 1e6:.3f} ms>"

    def __str__(self) -> str:
        return self._table("kernel", [(str(row.number), [row]) for row in self.rows])

    def together(self) -> str:
        """The time of the program's launches, if some are launch groups whose kernels were measured one by one."""
        if self.launches == len(self.rows):
            return ""
        count = f"{self.launches} launch{'es' if self.launches > 1 else ''}"
        return f"; together, in {count}, they take {self.launched_ns / 1e3:.2f} us"

    def by_kernel(self) -> str:
        """The same table, summed over kernels with the same ops, direction and function."""
        groups: dict[tuple[str, str, str], list[LaunchRow]] = {}
        for row in self.rows:
            groups.setdefault((row.label, row.direction, row.kernel), []).append(row)
        return self._table("kernels", [(str(len(rows)), rows) for rows in groups.values()])

    def _table(self, heading: str, groups: Sequence[tuple[str, Sequence[LaunchRow]]]) -> str:
        """The slowest first, and a last line for all."""
        ordered = sorted(groups, key=lambda group: -_elapsed_ns(group[1]))
        lines = [((first, rows[0].label, rows[0].direction, rows[0].kernel), rows) for first, rows in ordered]
        lines.append((("", "all", "", f"{len(self.rows)} kernels"), self.rows))
        heads = (heading, "fused ops", "direction", "function", "us", "share", "bytes", "GB/s", "MFLOP", "GFLOP/s")
        cells: list[tuple[str, ...]] = [heads]
        for names, rows in lines:
            ns = _elapsed_ns(rows)
            nbytes, flops = sum(row.bytes_moved for row in rows), sum(row.flops for row in rows)
            cells.append(
                (
                    *names, f"{ns / 1e3:.2f}", f"{100 * ns / (self.elapsed_ns or 1.0):.1f}%", memory_text(nbytes),
                    rate_text(nbytes, ns), millions_text(flops), rate_text(flops, ns),
                )
            )  # fmt: skip
        title = f"{self.name} on {self.device}: medians of {self.repeats} replays, device time of the kernels"
        title += self.together()
        return title + "\n" + table(cells, left=(1, 2, 3))


def _elapsed_ns(rows: Sequence[LaunchRow]) -> float:
    return sum(row.elapsed_ns or 0.0 for row in rows)


def launch_rows(program: Program) -> list[LaunchRow]:
    """A row for each kernel of ``program`` in order."""
    kernels = program.kernels
    moved = [kernel.nbytes() for kernel in kernels]
    rows = []
    specs = [spec for lowered in program.lowered for spec in lowered.specs]
    for number, (kernel, spec, flops) in enumerate(zip(kernels, specs, _flops(kernels, moved), strict=True)):
        touched = kernel.reads() | kernel.writes()
        rows.append(
            LaunchRow(
                number, ops_of(kernel), _direction(kernel, program.border), spec.kernel,
                spec.global_size, spec.local_size, moved[number], flops,
                sum(nbytes for place, nbytes in kernel.scratch().items() if place in touched),
                _arena_offset(kernel, program.plan.offsets),
            )
        )  # fmt: skip
    return rows


def ops_of(kernel: Kernel) -> tuple[str, ...]:
    """The names of the ops that are fused in a kernel, in order."""
    return tuple(_name_of(step) for step in kernel.steps())


def _name_of(step: Step) -> str:
    """The op's name; a copy of a number is called fill."""
    return "fill" if step.op.name == "copy" and step.is_value("x") else step.op.name


def _direction(kernel: Kernel, border: int) -> str:
    """That of its steps. A copy has that of the part of the program in which it runs; ``border``: backward's first."""
    directions = {
        BACKWARD if step.op.accumulates and step.number >= border else step.direction for step in kernel.steps()
    }
    return directions.pop() if len(directions) == 1 else BOTH


def _flops(kernels: Sequence[Kernel], bytes_moved: Sequence[int]) -> list[int]:
    """FLOPs of each kernel: a step's go to its own kernels, or to the first kernel that it was fused into."""
    own: dict[int, list[tuple[int, Kernel]]] = defaultdict(list)
    inlined: dict[int, list[int]] = defaultdict(list)
    steps: dict[int, Step] = {}
    for number, kernel in enumerate(kernels):
        parts = (kernel, *kernel.siblings)
        for part in parts:
            own[part.step.number].append((number, part))
        for step in kernel.steps():
            steps[step.number] = step
            if all(part.step is not step for part in parts):
                inlined[step.number].append(number)
    result = [0] * len(kernels)
    for key, step in steps.items():
        homes, total = own[key], step.op.flops(step)
        if not homes:
            result[inlined[key][0]] += total
        stated = [None if part.spec is None else part.spec.flops for _, part in homes]
        shares = share_flops(total, stated, [bytes_moved[number] for number, _ in homes])
        for (number, _), flops in zip(homes, shares, strict=True):
            result[number] += flops
    return result


def share_flops(total: int, stated: Sequence[int | None], bytes_moved: Sequence[int]) -> list[int]:
    """FLOPs of each of a step's kernels: as stated; the remainder is shared out by the bytes that they move."""
    remainder = max(total - sum(flops or 0 for flops in stated), 0)
    others = sum(nbytes for nbytes, flops in zip(bytes_moved, stated, strict=True) if flops is None)
    return [
        remainder * nbytes // max(others, 1) if flops is None else flops
        for nbytes, flops in zip(bytes_moved, stated, strict=True)
    ]


def _arena_offset(kernel: Kernel, offsets: Mapping[BufferId, int]) -> int | None:
    """The arena offset of the kernel's result, or else of its scratch memory."""
    written = sorted((isinstance(place, tuple), offsets[place]) for place in kernel.writes() if place in offsets)
    return written[0][1] if written else None


def buffers(program: Program) -> list[ArenaBuffer]:
    """The buffers in the arena of ``program``, and the kernels during which each is in use."""
    plan, kernels = program.plan, program.kernels
    border = next((k for k, kernel in enumerate(kernels) if kernel.step.number >= program.border), len(kernels))
    first: dict[BufferId, int] = {}  # the first kernel that writes it
    saved: set[BufferId] = set()
    for number, kernel in enumerate(kernels):
        if number >= border:
            saved |= {place for place in kernel.reads() if first.get(place, border) < border}
        for place in kernel.writes():
            first.setdefault(place, number)
    result = []
    for place, interval in plan.intervals.items():
        start, last = (bisect_left(plan.kept, number) for number in (interval.first, interval.last))
        kind = (
            SCRATCH if isinstance(place, tuple) else SAVED if place in saved else OTHER if start < border else GRADIENT
        )
        label = _written_as(kernels[first[place]], place)
        stop = last if place in plan.reused_in_place else last + 1
        result.append(ArenaBuffer(label, kind, interval.nbytes, plan.offsets[place], start, stop))
    return result


def _written_as(kernel: Kernel, place: BufferId) -> str:
    """The op and the slot name under which a kernel writes ``place``."""
    if isinstance(place, tuple):
        return f"{kernel.step.op.name} {place[1]}"
    names = [
        f"{_name_of(step)} {name}"
        for step in kernel.steps()
        for name in step.writes
        if step.slots[name].storage.number == place
    ]
    return names[-1]


def explain(program: Program, repeats: int) -> str:
    """A table of the kernels in order, then lines on memory, times, and launch groups."""
    measured = profile(program, repeats) if program.is_bound else None
    heads = (
        "kernel", "fused ops", "direction", "function", "work-items / group", "us", "bytes", "MFLOP", "scratch",
        "arena offset",
    )  # fmt: skip
    cells = [heads]
    for row in launch_rows(program) if measured is None else measured.rows:
        geometry = "x".join(map(str, row.global_size))
        if row.local_size:
            geometry += " / " + "x".join(map(str, row.local_size))
        cells.append(
            (
                str(row.number), row.label, row.direction, row.kernel, geometry,
                "" if row.elapsed_ns is None else f"{row.elapsed_ns / 1e3:.2f}",
                memory_text(row.bytes_moved), millions_text(row.flops),
                memory_text(row.scratch_bytes) if row.scratch_bytes else "",
                "" if row.arena_offset is None else str(row.arena_offset),
            )
        )  # fmt: skip
    times = "not measured: there was no replay yet, whose arguments it needs"
    if measured is not None:
        total = f"{measured.elapsed_ns / 1e3:.2f} us"
        times = f"medians of {repeats} replays by the clock of {measured.device}; all together {total}"
        times += measured.together()
    lines = [table(cells, left=(1, 2, 3, 4)), memory_line(program), f"times: {times}"]
    if len(program.launches) < len(program.kernels):
        counts = ", ".join(str(len(launch.kernels)) for launch in program.launches)
        lines.append(f"launches: {len(program.launches)}, of {counts} kernels")
    return "\n".join(lines)


def memory_line(program: Program) -> str:
    """The line ``memory:`` of ``explain()``."""
    plan = program.plan
    saved = sum(buffer.nbytes for buffer in buffers(program) if buffer.kind == SAVED)
    chunks = f" in {len(plan.chunks)} chunks" if plan.is_split else ""
    return (
        f"memory: arena {memory_text(plan.arena_bytes)}{chunks} for {len(plan.intervals)} buffers, "
        f"{memory_text(plan.unshared_bytes)} if none shared bytes; saved for backward {memory_text(saved)}; "
        f"outputs {memory_text(program.peak_bytes - plan.arena_bytes)}"
    )


def profile(program: Program, repeats: int) -> Profile:
    """Replay ``program`` with the arguments of its last call, measure, and restore everything."""
    if repeats < 1:
        raise ArgumentError("program.profile", "at least one repeat", f"got repeats={repeats}")
    with program.lock:
        if not program.is_bound:
            raise CaptureError(
                "program.profile", "a replay, whose arguments it measures with",
                "there was none yet, or its arguments are not held any more",
                "Call the function once more: its first call records.",
            )  # fmt: skip
        rows = launch_rows(program)
        with _unchanged(program):
            program.backend.finish()
            lowered = program.bound()
            rows = rows[: program.bound_kernels]
            launched = _times(lowered, repeats)
            alone = launched if len(launched) == len(rows) else _times(program.each_alone(), repeats)
    found = [replace(row, elapsed_ns=ns) for row, ns in zip(rows, alone, strict=True)]
    return Profile(program.name, program.backend.description, repeats, found, sum(launched), len(launched))


def _times(launches: Sequence[Lowered], repeats: int) -> list[float]:
    """The median nanoseconds of each launch, over replays of all of them."""
    times: list[list[int]] = []
    for _ in range(1 + repeats):
        waiting = [lowered.timed() for lowered in launches]
        times.append([elapsed() for elapsed in waiting])
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]  # the first one warms up


@contextmanager
def _unchanged(program: Program) -> Iterator[None]:
    """Restore all that the launches write outside of the arena: gradients, results, arguments, modules' buffers."""
    ends: dict[Storage, int] = {}
    for slot in program.written():
        ends[slot.storage] = max(ends.get(slot.storage, 0), slot.extent_bytes)
    backend = program.backend
    before = [backend.read(Slot(storage, bool_, Layout((end,), (1,), 0))) for storage, end in ends.items()]
    try:
        yield
    finally:
        backend.finish()
        for storage, values in zip(ends, before, strict=True):
            backend.write(storage, values)
