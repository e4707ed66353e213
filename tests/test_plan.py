"""The plan: nothing that is needed is dropped, nothing that lives is overwritten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyedge.compiler.memory import Action, LivenessInterval, _placed, make_plan, needed_actions, place

ALIGNMENT = 64


def meet(a: LivenessInterval, b: LivenessInterval) -> bool:
    """Whether there is an action at which both are alive."""
    return a.first <= b.last and b.first <= a.last


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Action], dict[int, int]]:
    """Actions that each write one or two storages and read earlier ones, of which they may replace some; some storages
    are temporary.
    """
    count = draw(st.integers(1, 25))
    actions = []
    for number in range(count):
        earlier = st.sets(st.integers(0, number - 1), max_size=3) if number else st.just(set())
        rewritten = draw(earlier) if draw(st.booleans()) else set()
        reads, writes = draw(earlier), {number} | rewritten
        pairs = {(old, new) for old in reads for new in writes if old != new and draw(st.booleans())}
        actions.append(Action(frozenset(reads), frozenset(writes), frozenset(pairs)))
    nbytes = st.one_of(st.integers(0, 5000), st.sampled_from((256, 1000)))  # equal ones, too
    temporary = {n: draw(nbytes) for n in range(count) if draw(st.booleans())}
    return actions, temporary


@given(recording=recordings())
def test_no_two_live_blocks_share_bytes(recording: tuple[list[Action], dict[int, int]]) -> None:
    actions, temporary = recording
    plan = make_plan(actions, temporary, ALIGNMENT)
    live: dict[int, frozenset[object]] = {}
    for number in plan.kept:
        live[number] = (actions[number].reads | actions[number].writes) & temporary.keys()
    for key, interval in plan.intervals.items():
        assert plan.offsets[key] % ALIGNMENT == 0
        assert plan.offsets[key] + interval.nbytes <= plan.arena_bytes
        uses = [number for number, keys in live.items() if key in keys]
        assert (interval.first, interval.last) == (min(uses), max(uses))
        for other, another in plan.intervals.items():
            if other != key and meet(interval, another) and interval.nbytes and another.nbytes:
                apart = plan.offsets[key] + interval.nbytes <= plan.offsets[other]
                if not (apart or plan.offsets[other] + another.nbytes <= plan.offsets[key]):
                    # One replaces the other, in the only action that needs both.
                    (old, before), (new, after) = sorted(((key, interval), (other, another)), key=lambda it: it[1].last)
                    if before.first == before.last == after.last:
                        (old, before), (new, after) = (new, after), (old, before)
                    assert before.last == after.first
                    assert (old, new) in actions[before.last].in_place
                    assert (plan.offsets[old], before.nbytes) == (plan.offsets[new], after.nbytes)


@given(recording=recordings())
def test_what_is_read_is_still_there(recording: tuple[list[Action], dict[int, int]]) -> None:
    """Each byte of the arena says whose it is, while the actions run in order."""
    actions, temporary = recording
    plan = make_plan(actions, temporary, ALIGNMENT)
    arena = np.full(plan.arena_bytes, -1)
    written: set[object] = set()

    def block(place: object) -> np.ndarray[Any, Any]:
        return arena[plan.offsets[place] : plan.offsets[place] + temporary[place]]

    for number in plan.kept:
        action = actions[number]
        there = {where for where in action.reads if where in temporary and where in written}
        assert all((block(where) == where).all() for where in there)
        for where in action.writes & temporary.keys():
            block(where)[:] = where
            written.add(where)
        replaced = {
            old for old, _ in action.in_place if old in plan.reused_in_place and plan.intervals[old].last == number
        }
        for where in (action.writes & temporary.keys()) | (there - replaced):
            assert (block(where) == where).all()


@given(
    recording=recordings(), most=st.integers(64, 12000), factor=st.one_of(st.none(), st.integers(1, 4)), data=st.data()
)
def test_chunks_are_no_larger_than_they_may_be(
    recording: tuple[list[Action], dict[int, int]], most: int, factor: int | None, data: st.DataObject
) -> None:
    """No block lies across the end of one, none reaches too far, and of those alive together none meet."""
    actions, temporary = recording
    reach = None if factor is None else {n: data.draw(st.integers(1, most)) * factor for n in temporary}
    distances = data.draw(st.sampled_from([(0,), (3, 0)]))
    whole = make_plan(actions, temporary, ALIGNMENT, distances)
    plan = make_plan(actions, temporary, ALIGNMENT, distances, most, reach)
    assert (plan.kept, plan.intervals, plan.reused_in_place) == (whole.kept, whole.intervals, whole.reused_in_place)
    assert plan.arena_bytes == sum(plan.chunks)
    assert list(plan.chunks) == sorted(plan.chunks, reverse=True)
    assert whole.chunks == (whole.arena_bytes,)
    if whole.arena_bytes <= most and reach is None:
        assert plan == whole
    assert plan.where.keys() == whole.where.keys()
    ends = [0] * len(plan.chunks)
    for key, (chunk, offset) in plan.where.items():
        end = offset + temporary[key]
        assert offset % ALIGNMENT == 0
        largest = max(temporary[other] for other, (its, at) in plan.where.items() if its == chunk and not at)
        assert end <= max(most, largest)
        assert offset == 0 or reach is None or end <= reach[key]
        ends[chunk] = max(ends[chunk], end)
        assert plan.offsets[key] == sum(plan.chunks[:chunk]) + offset
        for other, (in_chunk, at) in plan.where.items():
            apart = in_chunk != chunk or end <= at or at + temporary[other] <= offset
            if other != key and not apart and meet(plan.intervals[key], plan.intervals[other]):
                early, late = sorted((key, other), key=lambda one: plan.intervals[one].last)
                assert {early, late} & plan.reused_in_place
                assert plan.where[key] == plan.where[other]
    assert ends == list(plan.chunks)


@given(recording=recordings(), most=st.integers(64, 12000))
def test_what_is_read_is_still_there_in_chunks(recording: tuple[list[Action], dict[int, int]], most: int) -> None:
    """As for one; each chunk is memory of its own."""
    actions, temporary = recording
    plan = make_plan(actions, temporary, ALIGNMENT, most=most)
    chunks = [np.full(nbytes, -1) for nbytes in plan.chunks]
    written: set[object] = set()

    def block(place: int) -> np.ndarray[Any, Any]:
        chunk, offset = plan.where[place]
        return chunks[chunk][offset : offset + temporary[place]]

    for number in plan.kept:
        action = actions[number]
        there = {where for where in action.reads if where in temporary and where in written}
        assert all((block(where) == where).all() for where in there)
        for where in action.writes & temporary.keys():
            block(where)[:] = where
            written.add(where)


def test_what_needs_a_chunk_of_its_own_is_shared_in_turn() -> None:
    """And by what is smaller, as far as that may lie."""
    actions = [Action(frozenset({n - 1} if n else ()), frozenset({n})) for n in range(6)]
    sizes = {0: 4096, 1: 4096, 2: 4096, 3: 128, 4: 128}
    plan = make_plan(actions, sizes, ALIGNMENT, most=1024)
    assert plan.chunks == (4096, 4096)
    assert [chunk for chunk, _ in plan.where.values()].count(0) > 1
    assert [offset for _, offset in plan.where.values()] == [0] * 5


def test_bytes_lie_where_kernels_can_count_them() -> None:
    """A byte for each element of what is four times as large: behind that its number would be too large."""
    actions = [Action(frozenset(), frozenset({0, 1})), Action(frozenset({0, 1}), frozenset({2}))]
    sizes, reach = {0: 4096, 1: 1024}, {0: 4 * 2047, 1: 2047}
    assert make_plan(actions, sizes, ALIGNMENT).where == {0: (0, 0), 1: (0, 4096)}
    assert make_plan(actions, sizes, ALIGNMENT, reach=reach).where == {0: (0, 0), 1: (1, 0)}


@given(recording=recordings())
def test_what_is_needed_is_kept(recording: tuple[list[Action], dict[int, int]]) -> None:
    actions, temporary = recording
    kept = needed_actions(actions, temporary)
    assert list(kept) == sorted(kept)
    for number, action in enumerate(actions):
        read_later = {r for later in kept if later > number for r in actions[later].reads | actions[later].writes}
        needed = any(storage not in temporary or storage in read_later for storage in action.writes)
        assert needed == (number in kept)


def test_a_chain_needs_two_buffers() -> None:
    actions = [Action(frozenset({n - 1} if n else ()), frozenset({n})) for n in range(10)]
    plan = make_plan(actions, dict.fromkeys(range(9), 1024), ALIGNMENT)
    assert plan.arena_bytes == 2048
    assert plan.unshared_bytes == 9 * 1024


def test_a_chain_of_maps_needs_one_buffer() -> None:
    actions = [
        Action(frozenset({n - 1} if n else ()), frozenset({n}), frozenset({(n - 1, n)} if n else ())) for n in range(10)
    ]
    assert make_plan(actions, dict.fromkeys(range(9), 1024), ALIGNMENT).arena_bytes == 1024
    last = [*actions, Action(frozenset({3}), frozenset({10}))]  # what is read again is not replaced
    assert make_plan(last, dict.fromkeys(range(9), 1024), ALIGNMENT).arena_bytes == 2048
    smaller = make_plan(actions, {**dict.fromkeys(range(9), 1024), 5: 1000}, ALIGNMENT)  # nor what has another size
    assert smaller.arena_bytes == 1024 + 1000


def test_a_better_order_than_by_size_is_found() -> None:
    random = np.random.default_rng(0)
    totals = np.zeros(3)
    for _ in range(200):
        times, sizes = np.sort(random.integers(0, 20, (20, 2)), axis=1).tolist(), random.integers(1, 9, 20).tolist()
        blocks = {n: LivenessInterval(sizes[n] * ALIGNMENT, *times[n]) for n in range(20)}
        by_size = _placed(blocks, sorted(blocks, key=lambda n: (-sizes[n], times[n][0])), ALIGNMENT)
        ends = [max(offsets[n] + blocks[n].nbytes for n in blocks) for offsets in (place(blocks, ALIGNMENT), by_size)]
        assert ends[0] <= ends[1]
        totals += (max(sum(b.nbytes for b in blocks.values() if b.first <= t <= b.last) for t in range(20)), *ends)
    least, found, first = totals
    assert found - least < 0.4 * (first - least)


def test_nothing_to_place() -> None:
    assert place({}, ALIGNMENT) == {}
    assert make_plan([], {}, ALIGNMENT).arena_bytes == 0


@pytest.mark.parametrize("first", [0, 3])
def test_apart_in_time_share(first: int) -> None:
    blocks = {0: LivenessInterval(100, first, first + 1), 1: LivenessInterval(100, first + 2, first + 3)}
    assert place(blocks, ALIGNMENT) == {0: 0, 1: 0}
