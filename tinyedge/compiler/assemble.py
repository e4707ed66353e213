"""From a recording to launch groups: the stages rewrite, fuse, memory and schedule, one after the other.

In: a Recording, and its rewritten steps on a program's own storages. Out: their kernels, fused; the plan of the arena,
by which the steps' temporaries have their offsets; and the launch groups, of the call and of its backward.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tinyedge import config
from tinyedge.backends import Backend
from tinyedge.compiler import rewrite
from tinyedge.compiler.fuse import fuse, fuse_horizontally
from tinyedge.compiler.memory import Action, Plan, make_plan, needed_actions
from tinyedge.compiler.record import Recording
from tinyedge.compiler.schedule import persistent_group
from tinyedge.dtypes import DType
from tinyedge.ir.kernel import BufferId, Kernel, kernels_of
from tinyedge.ir.launch import LaunchGroup, single
from tinyedge.ir.spec import C_BYTES
from tinyedge.ir.step import Step
from tinyedge.ir.values import Layout, Slot, Storage
from tinyedge.shapes import Shape, contiguous_strides

ALIGNMENT = 256
"""Alignment of buffers in an arena, in bytes, for the vector loads of every device."""

REUSE_DISTANCES = (6, 4, 2, 0)
"""Reuse distances to try, in kernels: so many must lie between two uses of the same bytes, since the second user has to
wait for the first in a persistent kernel. With 6 the longest path of dependencies in MobileNet v1 and v2, ResNet-18 and
the transformer is as short as if no buffers shared memory; with 2 nearly so.
"""


@dataclass(frozen=True)
class Assembled:
    """The kernels that are needed, in order, and their launches.

    ``cut``, ``cut_kernels``: how many launches and kernels belong to the call itself, if its backward is another part.
    ``is_forward``: of each kernel before the plan left some out, whether it comes before the first of backward.
    """

    plan: Plan
    kernels: list[Kernel]
    launches: list[LaunchGroup]
    cut: int
    cut_kernels: int
    is_forward: list[bool]

    def saved_bytes(self, temporary: Mapping[BufferId, int]) -> int:
        """Bytes of the temporaries that are saved for backward: written before its first step, and read after it."""
        intervals = [interval for key, interval in self.plan.intervals.items() if key in temporary]
        return sum(i.nbytes for i in intervals if self.is_forward[i.first] and not self.is_forward[i.last])


def rewritten(
    recording: Recording, inside: dict[int, int], kept: Collection[int], backend: Backend
) -> tuple[list[Step], list[Step]]:
    """The steps of a recording, of forward and of backward, rewritten.

    ``inside``: the bytes of each storage that the call makes; those of the new steps are added. ``kept``: those of them
    that outlive the call.
    """

    def make(dtype: DType, shape: Shape) -> Slot:
        slot = Slot(Storage.over(backend, None), dtype, Layout(shape, contiguous_strides(shape), 0))
        inside[slot.storage.number] = slot.nbytes
        return slot

    # Both rewrite the steps from the first of backward on by themselves, so the border stays where it is.
    first = len(recording.steps) if recording.first_backward is None else recording.first_backward
    forward, backward = recording.steps[:first], recording.steps[first:]
    if config.fuses():
        backward = rewrite.norm_gradients(forward, backward, make)
    unseen = {number: nbytes for number, nbytes in inside.items() if number not in kept}
    return rewrite.saved_masks(forward, backward, unseen, make)


def assemble(
    steps: Sequence[Step], temporary: Mapping[BufferId, int], backend: Backend, border: int, has_two_parts: bool
) -> Assembled:
    """``temporary``: the bytes of each temporary. ``border``: the number of the first step of backward, which is
    another part of the program if that ``has_two_parts``.
    """
    split = border if has_two_parts else None
    kernels = kernels_of(steps, backend.device)
    if config.fuses():
        on_cpu = backend.device is not None and backend.device.is_cpu
        kernels = _needed(fuse(_needed(kernels, temporary), temporary, split, on_cpu), temporary)
        kernels = fuse_horizontally(kernels, lambda group: backend.fuses_horizontally(group, temporary), split)
    is_persistent = config.fuses() and backend.device is not None and backend.device.persistent
    plan = make_plan(
        *_actions(kernels, temporary), ALIGNMENT, REUSE_DISTANCES if is_persistent else (0,), backend.largest_bytes,
        _reach(kernels, temporary, backend.counts_to),
    )  # fmt: skip
    kept = [kernels[number] for number in plan.kept]
    first = [kernel for kernel in kept if split is None or kernel.step.number < split]
    groups = _groups(first, temporary, backend, plan.is_split)
    cut = len(groups)
    groups += _groups(kept[len(first) :], temporary, backend, plan.is_split, later=True)
    sizes = {place: interval.nbytes for place, interval in plan.intervals.items()}
    launches = [
        single(group[0]) if len(group) == 1 else persistent_group(group, sizes, plan.offsets) for group in groups
    ]
    _place(kept, plan.where)
    return Assembled(plan, kept, launches, cut, len(first), [kernel.step.number < border for kernel in kernels])


def _actions(kernels: Sequence[Kernel], temporary: Mapping[BufferId, int]) -> tuple[list[Action], dict[BufferId, int]]:
    """The reads, writes and in-place pairs of each kernel, and the bytes of each temporary."""
    actions = [
        Action(frozenset(kernel.reads()), frozenset(kernel.writes()), frozenset(kernel.in_place_pairs()))
        for kernel in kernels
    ]
    return actions, {**temporary, **{place: n for kernel in kernels for place, n in kernel.scratch().items()}}


def _needed(kernels: Sequence[Kernel], temporary: Mapping[BufferId, int]) -> list[Kernel]:
    return [kernels[number] for number in needed_actions(*_actions(kernels, temporary))]


def _reach(
    kernels: Sequence[Kernel], temporary: Mapping[BufferId, int], most: int | None
) -> dict[BufferId, int] | None:
    """Where temporary places end at the latest: kernels count the elements from the first of a chunk on, up to
    ``most``.
    """
    if most is None:
        return None
    reach: dict[BufferId, int] = {}
    for kernel in kernels:
        for part in (kernel, *kernel.siblings):
            if part.spec is not None:
                for item in part.spec.scratch:
                    reach[part.step.number, item.name] = most * C_BYTES[item.ctype]
        for step in kernel.steps():
            for slot in step.slots.values():
                if isinstance(slot, Slot) and (number := slot.storage.number) in temporary:
                    end = most * slot.dtype.itemsize
                    reach[number] = min(end, reach.get(number, end))
    return reach


def _groups(
    kernels: Sequence[Kernel],
    temporary: Mapping[BufferId, int],
    backend: Backend,
    is_split: bool,
    later: bool = False,
) -> list[Sequence[Kernel]]:
    if config.fuses():
        return backend.launch_groups(kernels, temporary, later, is_split)
    return [[kernel] for kernel in kernels]


def _place(kernels: Sequence[Kernel], where: Mapping[BufferId, tuple[int, int]]) -> None:
    """Let every temporary be a part of the arena: an offset, since OpenCL's sub-buffers are slow on some GPUs."""
    for step in {step.number: step for kernel in kernels for step in kernel.steps()}.values():
        for slot in step.slots.values():
            if isinstance(slot, Slot) and slot.storage.number in where:
                slot.offset += where[slot.storage.number][1] // slot.dtype.stride
