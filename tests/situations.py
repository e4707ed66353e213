"""Situations between two calls of a compiled function: what tests of its guards share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import tinyedge as te

T = TypeVar("T", bound=Callable[..., Any])
Case = Callable[[], tuple[Callable[..., Any], Callable[[], Any]]]
Compile = Callable[[Callable[..., Any]], Callable[..., Any]]
Situation = Callable[[Compile], list[Any]]


def into(found: list[Any]) -> Callable[[T], T]:
    """A decorator that puts functions into a list."""

    def keep(function: T) -> T:
        found.append(function)
        return function

    return keep


def name_of(function: Callable[..., Any]) -> str:
    return function.__name__


def seen(value: Any) -> Any:
    """What can be compared of a result."""
    if isinstance(value, te.Tensor):
        return value.detach().numpy().tolist()
    if isinstance(value, (tuple, list)):
        return [seen(item) for item in value]
    if isinstance(value, dict):
        return {key: seen(item) for key, item in value.items()}
    return value


def after(call: Callable[[], Any], *changes: Callable[[], Any]) -> list[Any]:
    """What ``call`` gives at first, and after each change; always twice, so that the second is a replay."""
    results = [call(), call()]
    for change in changes:
        change()
        results += [call(), call()]
    return [seen(result) for result in results]


def restored(names: dict[str, Any], **first: Any) -> Iterator[None]:
    """For a fixture: the globals ``names`` of a file, set to their ``first`` values, and new ones removed later."""
    names.update(first)
    argv, before = list(sys.argv), set(names)
    yield
    sys.argv[:] = argv
    for name in set(names) - before:
        del names[name]


def setting(thing: Any, name: str, value: Any = 3.0) -> Callable[[], None]:
    return lambda: setattr(thing, name, value)


def sample() -> te.Tensor:
    return te.tensor([1.0, -2.0, 3.0])


def row() -> te.Tensor:
    return te.tensor([[1.0, -2.0, 3.0]])


class Plain:
    def __init__(self, k: Any = 2.0) -> None:
        self.k = k


def require_compared(case: Case) -> None:
    """A function, and a change of what it reads: the next call gives what the eager one gives."""
    function, change = case()
    compiled = te.compile(function)
    eager = [seen(function(sample()))] * 2
    found = [seen(compiled(sample())), seen(compiled(sample()))]
    count = len(compiled.programs)
    assert count == 1
    change()
    now = seen(function(sample()))
    assert now != eager[0], "the case changes nothing"
    found += [seen(compiled(sample())), seen(compiled(sample())), seen(compiled(sample()))]
    assert found == [*eager, *[now] * 3]
    assert len(compiled.programs) in (1, 2)  # the first is gone where what it was recorded for is
