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
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from tinyedge.backends.base import DescribedGroup, GroupsLimited, Launch, Lowered, note_launched
from tinyedge.backends.layout import ProgramLayout, StepLayout
from tinyedge.backends.opencl.binding import ARENA, Argument, check_sizes, described, table_of
from tinyedge.backends.opencl.building import OpenCLBuilder, sourced
from tinyedge.backends.opencl.devices import DeviceEntry
from tinyedge.backends.opencl.driver import forsake_in_child
from tinyedge.backends.opencl.grouping import runs
from tinyedge.backends.opencl.launches import (
    BoundLaunch,
    EagerLaunch,
    Prepared,
    Rendered,
    SetOneByOne,
    Table,
    ToBuild,
    bytes_of,
)  # fmt: skip
from tinyedge.backends.opencl.range_flag import RangeFlag
from tinyedge.backends.opencl.recent import Recent
from tinyedge.errors import BackendError
from tinyedge.ir.kernel import BufferId, Kernel
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.program import ProgramSpec
from tinyedge.ir.spec import C_BYTES, Device, KernelSpec, Operand
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot, Storage
from tinyedge.kernels.fused import FusedSource, plain_operands
from tinyedge.kernels.persistent import APART, ORDERS, groups_of, render_group
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
    types: list[str]

    @property
    def spec(self) -> KernelSpec:
        return self.part.spec

    @cached_property
    def rendered(self) -> Rendered:
        source = sourced(render(self.part, self.specialised))
        return Rendered(self.title, self.spec, source, self.arguments, self.types, reports_of([self.spec]))

    @property
    def argument_bytes(self) -> int:
        return bytes_of(self.types)


class _PreparedStep(NamedTuple):
    """The kernels of a step's signature, their layout, and the bytes of each scratch buffer that they share."""

    kernels: Sequence[Prepared]
    layout: StepLayout
    scratch: Mapping[str, int]

    def bound(self, step: Step, allocate: Callable[[int], Any]) -> list[EagerLaunch]:
        # Scratch memory returns to the pool when the launches are gone. The queue is in order, so its next user runs
        # later.
        chunks = [allocate(nbytes) for nbytes in self.scratch.values()] if self.scratch else []
        places = self.layout.places(step, chunks)
        return [kernel.bound(places) for kernel in self.kernels]


def reports_of(specs: Iterable[KernelSpec]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(spec.reports for spec in specs if spec.reports))


class OpenCLBackend(OpenCLBuilder):
    """One OpenCL device, with the kernels prepared so far."""

    def __init__(self, entry: DeviceEntry) -> None:
        super().__init__(entry)
        # On a CPU constant sizes made no step of a model faster, and cost MobileNet v2 another 40 s of builds.
        self.specialises = not entry.is_cpu
        self._prepared: Recent[Any, _PreparedStep] = Recent(PREPARED)
        self._tables: Recent[tuple[int, ...], Table] = Recent(TABLES)
        # Of programs that are being made, and whether their arenas have several chunks.
        self._drafts: WeakKeyDictionary[Kernel, tuple[bool, _Draft]] = WeakKeyDictionary()
        forsake_in_child(self)

    def use_tuned(self, choices: Mapping[Product, Tile]) -> None:
        """Lower matrix products with these tiles from now on."""
        self.device = replace(self.device, tuned=choices)
        self._prepared.clear()

    def launch(self, launches: Sequence[Launch]) -> None:
        try:  # no context manager of ours, which would slow down every eager step
            with self.lock:
                for launch in launches:
                    if status := launch():
                        raise self._refused_launch(launch, status)
        except Exception as error:
            refused = self._refused_launch(launch, error) if isinstance(error, self.cl.Error) else error
            note_launched(refused, launches, launch)
            raise refused from error.__cause__ if refused is error else error
        except BaseException as error:
            note_launched(error, launches, launch)
            raise

    def _refused_launch(self, launch: Launch, error: Exception | int) -> BackendError:
        return self._refusal(f"launching {getattr(launch, 'title', 'a kernel')}", error)

    def prepare(self, step: Step, allocate: Callable[[int], Any] | None = None) -> Sequence[Launch]:
        key = step.signature()
        found = self._prepared.get(key)
        if found is None:
            found = self._prepared[key] = self._lower(step, self.device)
        return found.bound(step, allocate or self.allocate)

    def _lower(self, step: Step, device: Device) -> _PreparedStep:
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
        needed: dict[str, int] = {}
        for item in (item for spec in specs for item in spec.scratch):
            # A step's kernels share scratch memory by its name.
            assert needed.setdefault(item.name, item.nbytes) == item.nbytes, f"{step.op.name}: two sizes of {item.name}"
        layout = StepLayout(needed)
        prepared = Prepared if hasattr(self.cl.Kernel, "_set_arg_multi") else SetOneByOne
        kernels = [prepared(self, built[draft.source], draft.described(layout, step)) for draft in drafts]
        return _PreparedStep(kernels, layout, needed)

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
        launches = self._lower(copy, device).bound(copy, self.allocate)
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

    def describe_all(self, groups: Sequence[LaunchGroup], layout: ProgramLayout) -> list[DescribedGroup]:
        drafts = [
            [
                self._part(kernel, layout.temporary, layout.is_split)
                for first in shared.kernels
                for kernel in (first, *first.siblings)
            ]
            for shared in groups
        ]
        for shared in groups:
            for kernel in shared.kernels:
                for part in (kernel, *kernel.siblings):
                    self._drafts.pop(part, None)  # its text would live as long as the program
        rendered = [
            parts[0].rendered if len(parts) == 1 else self._joined(parts, shared, layout)
            for parts, shared in zip(drafts, groups, strict=True)
        ]
        # Horizontal fusion comes before it is known in how many chunks the arena is split.
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

        return [
            DescribedGroup(
                each.title,
                [alone.described(layout) for alone in ([part.rendered for part in parts] if is_apart else [each])],
                each.group_specs or (each.spec,),
            )
            for parts, each, is_apart in zip(drafts, rendered, apart, strict=True)
        ]

    def load(self, spec: ProgramSpec) -> list[Lowered]:
        launches = [(launch, spec.sources[launch.source]) for launch in spec.launches]
        built = self._build([ToBuild(launch.title, source, source.function) for launch, source in launches])
        return [BoundLaunch(self, built[source], source.function, launch) for launch, source in launches]

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

    def _joined(self, parts: Sequence[_Draft], shared: LaunchGroup, layout: ProgramLayout) -> Rendered:
        """The launch of a launch group. Arguments that are the same at every call become constants of the source."""
        order = ORDERS[self.device.order] if shared.is_persistent else None
        named: dict[Any, str] = {}
        declared: list[str] = []
        specs = [part.spec for part in parts]
        arguments: list[Argument] = [("counters", None, APART * (1 + len(specs)))] if order else []
        arguments += [ARENA] if any(part.arguments[:1] == [ARENA] for part in parts) else []
        types = [""] * len(arguments)
        given = []
        for part in parts:
            texts = []
            for argument, ctype in zip(part.arguments, part.types, strict=True):
                if argument == ARENA:
                    continue
                found = described(argument, ctype, layout)
                if found.kind == "number" and argument[0] != "value":
                    texts.append(str(found.value))
                    continue
                key = found, repr(found.value)  # 0.0 and -0.0 are equal
                if key not in named:
                    named[key] = f"a{len(named)}_"
                    buffer = "__constant int*" if argument[0] == "table" else "__global char*"
                    declared.append(f"{f'const {ctype}' if ctype else buffer} {named[key]}")
                    arguments.append(argument)
                    types.append(ctype)
                texts.append(named[key])
            given.append(texts)
        source, groups, items = render_group(
            [part.part for part in parts], given, declared, self.specialises, shared.waits, order,
            GROUPS_OF_UNIT * self.device.compute_units,
        )  # fmt: skip
        title = " | ".join(part.title for part in parts)
        kernel = "persistent" if order else "group"
        spec = KernelSpec(kernel, "", (), (groups * items,), (items,))
        return Rendered(
            title, spec, sourced(source, self.device.order if order else ""), arguments, types, reports_of(specs),
            specs if len(shared.kernels) > 1 else (),
        )  # fmt: skip

    def _draft(
        self, step: Step, spec: KernelSpec, operands: Sequence[Operand], fused: FusedSource | None = None
    ) -> _Draft:
        """One kernel of ``step``: for all calls of its signature, or, as ``fused``, for one program."""
        check_sizes(spec)
        owner = None if fused is None else step
        elsewhere = {} if fused is None else fused.arguments
        specialised = fused is not None and self.specialises
        arguments: list[Argument] = []
        types: list[str] = []
        for operand in operands:
            taken, item = elsewhere.get(operand.name, (owner, operand.name))
            ctype = operand.ctype
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
                    types.append("")
                offset = ("scratch offset", taken, (item, C_BYTES[ctype]))
                arguments.append(offset if is_scratch else ("offset", taken, item))
                types.append("int")
                if operand.kind == "accumulate":
                    arguments.append(("accumulates", taken, item))
                    types.append("int")
        if not specialised:
            arguments += [("fixed", None, int(value)) for value in spec.sizes.values()]
            types += ["int"] * len(spec.sizes)
        for name, kind in spec.scalars.items():
            arguments.append(("scalar", owner, name))
            types.append(spec.constants["real"] if kind == "real" else kind)
        if spec.tables and not specialised:
            arguments.append(("table", None, table_of(spec)))
            types.append("")
        if spec.reports:
            arguments.append(("range flag", None, None))
            types.append("")
        part = Part(spec, tuple(operands), () if fused is None else tuple(fused.hooks))
        steps = [step] if fused is None else fused.steps
        title = " + ".join(f"{each.op.name} ({each.direction})" for each in steps)
        if any(operand.in_arena for operand in operands):
            arguments.insert(0, ARENA)
            types.insert(0, "")
        return _Draft(step, title, part, specialised, arguments, types)

    def reporting(self, calls: Iterable[str]) -> RangeFlag:
        """The range flag, for kernels that set it in the name of these calls."""
        with self.lock:
            if self._range_flag is None:
                self._range_flag = RangeFlag(self)
        for call in calls:
            self._range_flag.admit(call)
        return self._range_flag

    def zeros(self, count: int) -> Table:
        """A buffer of ``count`` ints that are all 0."""
        return Table(self, "counters of a launch", np.zeros(count, np.int32))

    def table(self, what: str, values: tuple[int, ...]) -> Table:
        """A buffer of these ints, which all that need the same ones share."""
        found: Table | None = self._tables.get(values)
        if found is None:
            found = self._tables[values] = Table(self, what, np.array(values, np.int32))
        return found
