"""The compiler's output: a program's launches as plain data (ProgramSpec), and what is bound and replayed.

In: LaunchGroups, and the layout of their memory. Out: a ProgramSpec, and the launches that the backend made of it. A
backend without kernels (NumPy) runs the steps themselves, and has no spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinyedge.backends import Backend
from tinyedge.backends.base import DescribedGroup, Lowered, Sequential
from tinyedge.backends.layout import ProgramLayout
from tinyedge.ir.kernel import BufferId
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.program import LaunchSpec, ProgramSpec, SourceSpec


def lowered(
    name: str,
    backend: Backend,
    chunks: Sequence[int],
    parts: tuple[Sequence[LaunchGroup], Sequence[LaunchGroup]],
    layout: ProgramLayout,
    sizes: Mapping[BufferId, int],
    roles: Mapping[int, str],
) -> tuple[ProgramSpec | None, list[Lowered]]:
    """The spec of a program, and its launches, one for each launch group, in the order of ``parts``.

    ``parts``: the launch groups of the call and of its backward. ``sizes``: the bytes of each buffer in the arena.
    ``roles``: of the storages that move, by number.
    """
    groups = [*parts[0], *parts[1]]
    if backend.device is None:
        return None, backend.lower_steps(groups, layout)
    described = backend.describe_all(groups, layout)
    forward = sum(len(each.launches) for each in described[: len(parts[0])])
    sources: dict[SourceSpec, int] = {}
    launches = [
        launch
        for group, each in zip(groups, described, strict=True)
        for launch in _launches(group, each, sources, layout, sizes)
    ]
    spec = ProgramSpec(
        name, backend.description, tuple(chunks), layout.outside_specs(roles), layout.scalar_specs(), tuple(sources),
        tuple(launches), forward,
    )  # fmt: skip
    loaded = iter(backend.load(spec))
    return spec, [_joined([next(loaded) for _ in each.launches], each) for each in described]


def _launches(
    group: LaunchGroup,
    described: DescribedGroup,
    sources: dict[SourceSpec, int],
    layout: ProgramLayout,
    sizes: Mapping[BufferId, int],
) -> list[LaunchSpec]:
    reads, writes = set[BufferId](), set[BufferId]()
    for kernel in group.kernels:
        reads |= kernel.reads()
        writes |= kernel.writes()
    touched = layout.touched(reads, sizes), layout.touched(writes, sizes)
    return [
        LaunchSpec(
            each.title, sources.setdefault(each.source, len(sources)), each.global_size, each.local_size,
            each.arguments, *touched, each.reports,
        )
        for each in described.launches
    ]  # fmt: skip


def _joined(launches: Sequence[Lowered], group: DescribedGroup) -> Lowered:
    lowered = launches[0] if len(launches) == 1 else Sequential(launches, group.title)
    lowered.specs = group.specs
    return lowered
