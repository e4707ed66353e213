"""The OpenCL backend of one device: eager launches, and launches of programs.

In: Steps, which are lowered and prepared once for each signature; LaunchGroups of a program, which are rendered as one
kernel each. Out: launches on an in-order queue. The queue and memory come from ``context``, built kernels from
``building``; ``grouping`` says how many kernels a persistent kernel has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tinyedge.backends.base import GroupsLimited, Launch, Lowered, Placement, note_launched
from tinyedge.backends.opencl.binding import (
    ARENA,
    COUNTERS,
    Argument,
    check_sizes,
    constant_text,
    identity,
)
from tinyedge.backends.opencl.building import OpenCLBuilder
from tinyedge.backends.opencl.devices import DeviceEntry
from tinyedge.backends.opencl.driver import forsake_in_child
from tinyedge.backends.opencl.grouping import runs
from tinyedge.backends.opencl.launches import (
    C_NAMES,
    C_TYPES,
    BoundLaunch,
    EagerLaunch,
    Prepared,
    Rendered,
    Sequential,
    SetOneByOne,
    Table,
    bytes_of,
)  # fmt: skip
from tinyedge.backends.opencl.range_flag import RangeFlag
from tinyedge.backends.opencl.recent import Recent
from tinyedge.errors import BackendError
from tinyedge.ir.kernel import BufferId, Kernel
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.spec import MAX_RANK, Device, KernelSpec, Operand
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot, Storage
from tinyedge.kernels.fused import FusedSource, plain_operands
from tinyedge.kernels.persistent import ORDERS, groups_of, render_group
from tinyedge.kernels.render import Part, render
from tinyedge.kernels.tile import Product, Tile

TIMED_LAUNCHES = 20
"""Launches in a row for one measurement: as in a program, where the host prepares a launch while another one runs."""

MOST_LOWERINGS = 16
"""Attempts to lower a step for smaller and smaller work-groups: each at least halves them."""

GROUPS_OF_UNIT = 4
"""Work-groups per compute unit of a kernel in a persistent kernel: about as many as a compute unit runs at a time."""

PREPARED = 1024
TABLES = 1024
"""Entries of the caches for signatures and tables of strides: the most recently used, and as many older ones."""


@dataclass(frozen=True, eq=False)
class _Draft:
    """A lowered kernel that is not rendered yet; it will be a launch by itself or a part of a launch group."""

    step: Step
    title: str
    part: Part
    specialised: bool
    arguments: list[Argument]
    types: list[Any]

    @property
    def spec(self) -> KernelSpec:
        return self.part.spec

    @cached_property
    def rendered(self) -> Rendered:
        return Rendered(self.title, self.spec, render(self.part, self.specialised), self.arguments, self.types)

    @property
    def argument_bytes(self) -> int:
        return bytes_of(self.types)


class OpenCLBackend(OpenCLBuilder):
    """One OpenCL device, with the kernels prepared so far."""

    def __init__(self, entry: DeviceEntry) -> None:
        super().__init__(entry)
        # On a CPU constant sizes made no step of a model faster, and cost MobileNet v2 another 40 s of builds.
        self.specialises = not entry.is_cpu
        self._prepared: Recent[Any, tuple[list[Prepared], dict[str, int]]] = Recent(PREPARED)
        self._tables: Recent[tuple[int, ...], Table] = Recent(TABLES)
        # Of programs that are being made, and whether their arenas have several chunks.
        self._drafts: WeakKeyDictionary[Kernel, tuple[bool, _Draft]] = WeakKeyDictionary()
        forsake_in_child(self)

    def use_tuned(self, choices: Mapping[Product, Tile]) -> None:
        """Lower matrix products with these tiles from now on."""
        self.device = replace(self.device, tuned=choices)
        self._prepared.clear()

    def launch(self, launches: Sequence[Launch]) -> None:
        try:  # no context manager, which would slow down every eager step
            for launch in launches:
                if status := launch():
                    raise self._refused_launch(launch, status)
        except Exception as error:
            refused = self._refused_launch(launch, error) if isinstance(error, self.cl.Error) else error
            note_launched(refused, launches, launch)
            raise refused from error.__cause__ if refused is error else error

    def _refused_launch(self, launch: Launch, error: Exception | int) -> BackendError:
        return self._refusal(f"launching {getattr(launch, 'title', 'a kernel')}", error)

    def prepare(self, step: Step, allocate: Callable[[int], Any] | None = None) -> Sequence[Launch]:
        key = step.signature()
        found = self._prepared.get(key)
        if found is None:
            found = self._prepared[key] = self._lower(step, self.device)
        kernels, needed = found
        # Scratch memory returns to the pool when the launches are gone. The queue is in order, so its next user runs
        # later.
        scratch: dict[BufferId, tuple[Any, int]] = {
            (step.number, name): ((allocate or self.allocate)(nbytes), 0) for name, nbytes in needed.items()
        }
        return [EagerLaunch(kernel, step, scratch) for kernel in kernels]

    def _lower(self, step: Step, device: Device) -> tuple[list[Prepared], dict[str, int]]:
        """The kernels of ``step``, and the bytes of each scratch buffer that they share."""
        for _ in range(MOST_LOWERINGS):
            specs = step.kernels(device)
            drafts = [self._draft(step, spec, plain_operands(step, spec)).rendered for spec in specs]
            built = self._build(drafts)
            over = self._too_large([(step, draft.spec, built[draft.source].limit) for draft in drafts])
            if over is None:
                break  # else lower again, for smaller work-groups
        else:
            assert over is not None
            raise over
        enqueue = self.cl.enqueue_nd_range_kernel
        prepared = Prepared if hasattr(self.cl.Kernel, "_set_arg_multi") else SetOneByOne
        kernels = [prepared(built[draft.source], draft, self.queue, enqueue) for draft in drafts]
        return kernels, {s.name: s.nbytes for spec in specs for s in spec.scratch}

    def _too_large(self, built: Iterable[tuple[Step, KernelSpec, int]]) -> GroupsLimited | None:
        """An error if a kernel of ``built`` needs a larger work-group than the device runs it with; else None.

        ``built`` gives steps, specs and that limit. A step that failed is lowered for the limit from now on. The
        device's general limit holds for kernels that use few registers; the limits of others show when they are built.
        """
        over = [(step, spec, limit) for step, spec, limit in built if prod(spec.local_size) > limit]
        for step, _, limit in over:
            key = step.op.name, step.direction
            self.device.limits[key] = min(limit, self.device.limits.get(key, limit))
        if not over:
            return None
        step, spec, limit = over[0]
        return GroupsLimited(
            f"{self.name}, {step.op.name} ({step.direction})",
            f"the device must run kernel {spec.kernel} in groups of {prod(spec.local_size)}",
            f"it takes at most {limit} work-items",
            "Please report this with the device's name.",
        )

    def time(self, step: Step, device: Device) -> float:
        """Seconds that ``step`` takes if lowered for ``device``, launches included, on memory of its own."""
        slots = {
            name: Slot(Storage(self, slot.extent_bytes), slot.dtype, slot.layout()) if isinstance(slot, Slot) else slot
            for name, slot in step.slots.items()
        }
        copy = step.over(slots)
        kernels, needed = self._lower(copy, device)
        scratch: dict[BufferId, tuple[Any, int]] = {
            (copy.number, name): (self.allocate(nbytes), 0) for name, nbytes in needed.items()
        }
        launches = [EagerLaunch(kernel, copy, scratch) for kernel in kernels]
        best = float("inf")
        for repeats in (1, 4, *(TIMED_LAUNCHES,) * 5):  # the first ones warm up
            self.finish()
            start = perf_counter()
            for _ in range(repeats):
                self.launch(launches)
            self.finish()
            if repeats == TIMED_LAUNCHES:
                best = min(best, (perf_counter() - start) / repeats)
        return best

    def lower_all(self, launches: Sequence[LaunchGroup], placement: Placement) -> list[Lowered]:
        drafts = [
            [
                self._part(kernel, placement.temporary, placement.is_split)
                for first in shared.kernels
                for kernel in (first, *first.siblings)
            ]
            for shared in launches
        ]
        for shared in launches:
            for kernel in shared.kernels:
                for part in (kernel, *kernel.siblings):
                    self._drafts.pop(part, None)  # its text would live as long as the program
        rendered = [
            parts[0].rendered if len(parts) == 1 else self._joined(parts, shared, placement)
            for parts, shared in zip(drafts, launches, strict=True)
        ]
        # Kernels are placed beside each other before it is known in how many chunks the arena is split.
        too_many = [
            len(parts) > 1 and each.argument_bytes > self.argument_bytes
            for parts, each in zip(drafts, rendered, strict=True)
        ]
        built = self._build([each for each, is_apart in zip(rendered, too_many, strict=True) if not is_apart])
        # Where a device runs a shared launch in smaller groups only, its kernels are launched one by one.
        apart = [
            is_apart or (len(parts) > 1 and prod(each.spec.local_size) > built[each.source].limit)
            for parts, each, is_apart in zip(drafts, rendered, too_many, strict=True)
        ]
        alone = [
            part for parts, is_apart in zip(drafts, apart, strict=True) if is_apart or len(parts) == 1 for part in parts
        ]
        built |= self._build([part.rendered for part in alone])
        over = self._too_large([(part.step, part.spec, built[part.rendered.source].limit) for part in alone])
        if over is not None:
            raise over

        def lowered(each: Rendered) -> BoundLaunch:
            return BoundLaunch(self, built[each.source], each)

        return [
            Sequential([lowered(part.rendered) for part in parts], each) if is_apart else lowered(each)
            for parts, each, is_apart in zip(drafts, rendered, apart, strict=True)
        ]

    def fuses_horizontally(self, kernels: Sequence[Kernel], temporary: Collection[BufferId]) -> bool:
        # On a CPU a launch is cheap, and a kernel that is launched alone can be shared by several shapes.
        if self.device.is_cpu or self.device.persistent:
            return False
        parts = [self._part(kernel, temporary) for kernel in kernels]
        return (
            groups_of([part.spec for part in parts]) is not None
            and max(part.spec.local_bytes for part in parts) <= self.device.local_bytes
            and sum(part.argument_bytes for part in parts) <= self.argument_bytes
        )

    def launch_groups(
        self, kernels: Sequence[Kernel], temporary: Collection[BufferId], later: bool = False, is_split: bool = False
    ) -> list[Sequence[Kernel]]:
        if not self.device.persistent:
            return super().launch_groups(kernels, temporary, later, is_split)
        parts = (self._part(kernel, temporary, is_split) for kernel in kernels)
        sizes = [part.argument_bytes if self._fits_persistent(part) else None for part in parts]
        return [[kernels[number] for number in run] for run in runs(sizes, self.argument_bytes, later)]

    def _fits_persistent(self, part: _Draft) -> bool:
        same = not part.spec.grouped or prod(part.spec.local_size) == self.device.group()
        fits = part.spec.local_bytes <= self.device.local_bytes and not part.spec.is_heavy
        return same and fits and not part.part.has_double

    def _part(self, kernel: Kernel, temporary: Collection[BufferId], is_split: bool = False) -> _Draft:
        """A kernel without its siblings, rendered or not yet."""
        known = self._drafts.get(kernel)
        if known is not None and known[0] == is_split:
            return known[1]
        step = kernel.step
        fused = FusedSource(
            kernel, temporary, self.device.limited(step.op.name, step.direction), self.specialises, is_split
        )
        draft = self._draft(kernel.step, fused.spec, fused.operands, fused)
        self._drafts[kernel] = is_split, draft
        return draft

    def _joined(self, parts: Sequence[_Draft], shared: LaunchGroup, placement: Placement) -> Rendered:
        """The launch of a launch group. Arguments that are the same at every call become constants of the source."""
        order = ORDERS[self.device.order] if shared.is_persistent else None
        named: dict[Any, str] = {}
        declared: list[str] = []
        arguments: list[Argument] = [COUNTERS] if order else []
        arguments += [ARENA] if any(part.arguments[:1] == [ARENA] for part in parts) else []
        types: list[Any] = [None] * len(arguments)
        given = []
        for part in parts:
            texts = []
            for argument, kind in zip(part.arguments, part.types, strict=True):
                if argument == ARENA:
                    continue
                text = constant_text(argument, placement)
                if text is None:
                    key = identity(argument, placement)
                    text = named.get(key)
                if text is None:
                    text = named[key] = f"a{len(named)}_"
                    buffer = "__constant int*" if argument[0] == "table" else "__global char*"
                    declared.append(f"{buffer if kind is None else f'const {C_NAMES[kind]}'} {text}")
                    arguments.append(argument)
                    types.append(kind)
                texts.append(text)
            given.append(texts)
        specs = [part.spec for part in parts]
        source, groups, items = render_group(
            [part.part for part in parts], given, declared, self.specialises, shared.waits, order,
            GROUPS_OF_UNIT * self.device.compute_units,
        )  # fmt: skip
        title = " | ".join(part.title for part in parts)
        kernel = "persistent" if order else "group"
        spec = KernelSpec(kernel, "", (), (groups * items,), (items,))
        return Rendered(title, spec, source, arguments, types, specs if len(shared.kernels) > 1 else ())

    def _draft(
        self, step: Step, spec: KernelSpec, operands: Sequence[Operand], fused: FusedSource | None = None
    ) -> _Draft:
        """One kernel of ``step``: for all calls of its signature, or, as ``fused``, for one program."""
        check_sizes(spec)
        owner = None if fused is None else step
        elsewhere = {} if fused is None else fused.arguments
        specialised = fused is not None and self.specialises
        arguments: list[Argument] = []
        types: list[Any] = []
        for operand in operands:
            taken, item = elsewhere.get(operand.name, (owner, operand.name))
            ctype = C_TYPES[operand.ctype]
            if operand.kind == "inlined":
                continue
            if operand.kind == "size":
                arguments.append(("fixed", None, item))
                types.append(ctype)
            elif operand.kind in ("value", "scalar"):
                arguments.append((operand.kind, taken, item))
                types.append(ctype)
            else:
                is_scratch = operand.kind == "scratch"
                if not operand.in_arena:
                    arguments.append(("scratch" if is_scratch else "buffer", taken, item))
                    types.append(None)
                offset = ("scratch offset", taken, (item, np.dtype(ctype).itemsize))
                arguments.append(offset if is_scratch else ("offset", taken, item))
                types.append(np.int32)
                if operand.kind == "accumulate":
                    arguments.append(("accumulates", taken, item))
                    types.append(np.int32)
        if not specialised:
            arguments += [("fixed", None, int(value)) for value in spec.sizes.values()]
            types += [np.int32] * len(spec.sizes)
        for name, kind in spec.scalars.items():
            arguments.append(("scalar", owner, name))
            types.append(C_TYPES[spec.constants["real"] if kind == "real" else kind])
        if spec.tables and not specialised:
            arguments.append(("table", None, self._table(spec)))
            types.append(None)
        if spec.reports:
            arguments.append(("range flag", None, self.reporting(spec.reports)))
            types.append(None)
        part = Part(spec, tuple(operands), () if fused is None else tuple(fused.hooks))
        steps = [step] if fused is None else fused.steps
        title = " + ".join(f"{each.op.name} ({each.direction})" for each in steps)
        if any(operand.in_arena for operand in operands):
            arguments.insert(0, ARENA)
            types.insert(0, None)
        return _Draft(step, title, part, specialised, arguments, types)

    def reporting(self, call: str) -> RangeFlag:
        """The range flag, for kernels that set it in the name of ``call``."""
        with self._upload_lock:
            if self._range_flag is None:
                self._range_flag = RangeFlag(self)
        self._range_flag.admit(call)
        return self._range_flag

    def zeros(self, count: int) -> Table:
        """A buffer of ``count`` ints that are all 0."""
        return Table(self, "counters of a launch", np.zeros(count, np.int32))

    def _table(self, spec: KernelSpec) -> Any:
        values: list[int] = []
        for name, table in spec.tables.items():
            if len(table) > MAX_RANK:
                raise BackendError(spec.kernel, f"at most {MAX_RANK} axes that do not merge", f"{name} is {table}")
            values += [*table, *([0] * (MAX_RANK - len(table)))]
        return self.table(f"the strides of {spec.kernel}", tuple(values))

    def table(self, what: str, values: tuple[int, ...]) -> Table:
        """A buffer of these ints, which all that need the same ones share."""
        found: Table | None = self._tables.get(values)
        if found is None:
            found = self._tables[values] = Table(self, what, np.array(values, np.int32))
            found.values = values
        return found
