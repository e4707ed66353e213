"""The plan: nothing that is needed is dropped, nothing that lives is overwritten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyedge.plan import Action, Lifetime, make_plan, needed_actions, place

ALIGNMENT = 64


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Action], dict[int, int]]:
    """Actions that each write one or two storages and read earlier ones; some storages are temporary."""
    count = draw(st.integers(1, 25))
    actions = []
    for number in range(count):
        earlier = st.sets(st.integers(0, number - 1), max_size=3) if number else st.just(set())
        rewritten = draw(earlier) if draw(st.booleans()) else set()
        actions.append(Action(frozenset(draw(earlier)), frozenset({number} | rewritten)))
    temporary = {n: draw(st.integers(0, 5000)) for n in range(count) if draw(st.booleans())}
    return actions, temporary


@given(recording=recordings())
def test_no_two_live_blocks_share_bytes(recording: tuple[list[Action], dict[int, int]]) -> None:
    actions, temporary = recording
    plan = make_plan(actions, temporary, ALIGNMENT)
    live: dict[int, frozenset[object]] = {}
    for number in plan.kept:
        live[number] = (actions[number].reads | actions[number].writes) & temporary.keys()
    for key, lifetime in plan.lifetimes.items():
        assert plan.offsets[key] % ALIGNMENT == 0
        assert plan.offsets[key] + lifetime.nbytes <= plan.arena_bytes
        uses = [number for number, keys in live.items() if key in keys]
        assert (lifetime.first, lifetime.last) == (min(uses), max(uses))
        for other, another in plan.lifetimes.items():
            if other != key and lifetime.meets(another) and lifetime.nbytes and another.nbytes:
                apart = plan.offsets[key] + lifetime.nbytes <= plan.offsets[other]
                assert apart or plan.offsets[other] + another.nbytes <= plan.offsets[key]


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


def test_nothing_to_place() -> None:
    assert place({}, ALIGNMENT) == {}
    assert make_plan([], {}, ALIGNMENT).arena_bytes == 0


@pytest.mark.parametrize("first", [0, 3])
def test_apart_in_time_share(first: int) -> None:
    blocks = {0: Lifetime(100, first, first + 1), 1: Lifetime(100, first + 2, first + 3)}
    assert place(blocks, ALIGNMENT) == {0: 0, 1: 0}
