"""Which names of a model are meant: by the name itself, by a pattern, or by the kind of layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from tinyedge.errors import ArgumentError

Chosen = str | type | Iterable[str | type]
"""A name, a pattern with ``*``, ``?`` or ``[...]``, or a class of layers; or several of these."""


def listed(wanted: Chosen) -> tuple[Any, ...]:
    """What was asked for, one by one."""
    return (wanted,) if isinstance(wanted, (str, type)) else tuple(wanted)


def selected(call: str, wanted: Chosen, owner: str, modules: Sequence[tuple[str, Any]], params: set[str]) -> list[str]:
    """The names of the modules and parameters that ``wanted`` means; ``owner`` is the model's class.

    Errors: ArgumentError for what means none.
    """
    modules = [(name, module) for name, module in modules if name]
    known = [name for name, _ in modules]
    found: list[str] = []
    for item in listed(wanted):
        if isinstance(item, type):
            kinds = sorted({type(module).__name__ for _, module in modules})
            names = [name for name, module in modules if isinstance(module, item)]
            asked, near = f"a {item.__name__}", f"Its kinds: {', '.join(kinds[:8])}."
        else:
            names = [item] if item in known or item in params else []
            if not names and any(mark in item for mark in "*?["):
                names = [name for name in (*known, *sorted(params)) if fnmatchcase(name, item)]
            others = get_close_matches(item, known, n=5, cutoff=0.5) or [name for name in known if "." not in name]
            asked, near = repr(item), f"Near ones: {', '.join(others)}."
        if not names:
            raise ArgumentError(call, f"except_ must name modules of {owner}", f"it has no {asked}", near)
        found += names
    return found
