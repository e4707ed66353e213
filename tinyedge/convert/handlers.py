"""Handlers: what a file's op is in tinyedge, one small function each, by the op's name.

A handler's positional parameters are the op's inputs, its keyword-only ones the op's attributes, whose kinds are
checked against the annotations. ``training`` comes at each call; ``count`` is how many outputs the file wants.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
GIVEN = ("training", "count", "opset")
"""Keyword-only parameters that are no attributes."""


@dataclass(frozen=True)
class Handler:
    """One op, from version ``since`` of its set on.

    ``trained``, ``kept`` and ``host`` are positions of inputs: weights, running statistics, what is read on the host.
    ``weights``: any input may be a weight, if it holds several numbers. ``passes``: the first input goes through, moved
    but not computed with. ``makes_host``: the result is a host value whatever the inputs are, as a shape is.
    """

    function: Callable[..., Any]
    since: int
    inputs: tuple[str, ...]
    required: int
    variadic: bool
    attributes: dict[str, str]
    needed: frozenset[str]
    given: frozenset[str]
    host: frozenset[int]
    trained: frozenset[int]
    weights: bool
    kept: frozenset[int]
    passes: bool
    makes_host: bool
    became_inputs: frozenset[str]


class Handlers:
    """The handlers of one format."""

    def __init__(self) -> None:
        self._entries: dict[str, list[Handler]] = {}
        self._on_host: dict[str, Callable[..., Any]] = {}

    def on_host(self, *names: str) -> Callable[[F], F]:
        """Enter what computes the op of arrays on the host, with the arguments of its handler."""

        def enter(function: F) -> F:
            self._on_host.update(dict.fromkeys(names, function))
            return function

        return enter

    def host_function(self, name: str) -> Callable[..., Any] | None:
        """What computes the op on the host, if that is known."""
        return self._on_host.get(name)

    def op(
        self,
        *names: str,
        since: int = 1,
        host: Iterable[str] = (),
        trained: Iterable[str] = (),
        weights: bool = False,
        kept: Iterable[str] = (),
        passes: bool = False,
        makes_host: bool = False,
        became_inputs: Iterable[str] = (),
    ) -> Callable[[F], F]:
        """Enter a function. ``became_inputs`` names attributes of early versions that are inputs of later ones."""

        def enter(function: F) -> F:
            parameters = inspect.signature(function).parameters.values()
            inputs = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
            places = {p.name: number for number, p in enumerate(inputs)}
            named = {p.name: str(p.annotation) for p in parameters if p.kind is p.KEYWORD_ONLY}
            entry = Handler(
                function=function,
                since=since,
                inputs=tuple(places),
                required=sum(p.default is p.empty for p in inputs),
                variadic=any(p.kind is p.VAR_POSITIONAL for p in parameters),
                attributes={name: kind for name, kind in named.items() if name not in GIVEN},
                needed=frozenset(
                    p.name for p in parameters if p.name in named and p.name not in GIVEN and p.default is p.empty
                ),
                given=frozenset(named) & frozenset(GIVEN),
                host=frozenset(places[name] for name in host),
                trained=frozenset(places[name] for name in trained),
                weights=weights,
                kept=frozenset(places[name] for name in kept),
                passes=passes,
                makes_host=makes_host,
                became_inputs=frozenset(became_inputs),
            )
            for name in names:
                assert all(other.since != since for other in self._entries.get(name, ())), f"{name} has two handlers"
                self._entries.setdefault(name, []).append(entry)
                self._entries[name].sort(key=lambda entry: -entry.since)
            return function

        return enter

    def find(self, name: str, version: int) -> Handler | None:
        """The newest handler that is not newer than ``version``."""
        return next((entry for entry in self._entries.get(name, ()) if entry.since <= version), None)

    def own(self, name: str, version: int = 1) -> Handler:
        """That of an op that is entered for sure."""
        entry = self.find(name, version)
        assert entry is not None, name
        return entry

    def names(self) -> list[str]:
        """The ops that have handlers."""
        return sorted(self._entries)


__all__ = ["Handler", "Handlers"]
