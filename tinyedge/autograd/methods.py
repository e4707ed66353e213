"""The base of ``Tensor`` on which the ops put their methods. ``methods.pyi`` lists them; ``make stubs`` writes it."""

from __future__ import annotations


class Methods:
    """Public functions whose first argument is the tensor."""

    __slots__ = ()
