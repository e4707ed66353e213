"""A Program as plain data: ``describe`` makes its ProgramSpec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinyedge.backends.base import Lowered
from tinyedge.backends.outside import Outside
from tinyedge.ir.kernel import BufferId
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.program import LaunchSpec, ProgramSpec, SourceSpec


def describe(
    name: str,
    device: str,
    chunks: Sequence[int],
    parts: Sequence[tuple[Sequence[LaunchGroup], Sequence[Lowered]]],
    layout: Outside,
    sizes: Mapping[BufferId, int],
) -> ProgramSpec:
    """``parts``: the launch groups of the call and of its backward, each with what they were lowered to."""
    sources: dict[SourceSpec, int] = {}
    launches: list[LaunchSpec] = []
    counts = []
    for groups, lowered in parts:
        for group, each in zip(groups, lowered, strict=True):
            made = [(d, sources.setdefault(d.source, len(sources))) for d in each.described(layout)]
            touched: list[set[BufferId]] = [set(), set()]
            for kernel in group.kernels:
                touched[0] |= kernel.reads()
                touched[1] |= kernel.writes()
            reads, writes = (layout.places(places, sizes) for places in touched)
            launches += [
                LaunchSpec(d.title, source, d.global_size, d.local_size, d.arguments, reads, writes)
                for d, source in made
            ]
        counts.append(len(launches))
    outside, scalars = tuple(layout.found), tuple(layout.scalars)
    return ProgramSpec(name, device, tuple(chunks), outside, scalars, tuple(sources), tuple(launches), counts[0])
