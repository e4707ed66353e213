"""What users put into the classes of tensors after the package was imported: methods and operators of their own.

In: assignments to attributes of ``Tensor`` and ``Parameter``. Out: what was assigned, which compiled functions compare.
"""

from __future__ import annotations

from typing import Any

_patched: dict[tuple[str, str], Any] = {}
_count = 0


def changes() -> int:
    """How often an attribute of these classes was set or deleted."""
    return _count


def patched() -> dict[tuple[str, str], Any]:
    """What was set last, by the names of the class and of the attribute; None for what was deleted."""
    return {**_patched}


class TensorType(type):
    """The class of ``Tensor``, which notes assignments to its attributes; those of users' subclasses are their own."""

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        _note(cls, name, value)

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        _note(cls, name, None)


def _note(cls: type, name: str, value: Any) -> None:
    global _count
    if cls.__module__.partition(".")[0] == __name__.partition(".")[0]:
        _patched[cls.__name__, name] = value
        _count += 1
