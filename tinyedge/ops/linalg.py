"""``te.linalg``: PyTorch's functions of matrices. ``linalg.pyi`` says which; ``make stubs`` writes it."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from tinyedge.autograd import registry as _registry
from tinyedge.autograd.absent import lookup as _lookup

__all__: list[str] = []
_registry.show_space(globals(), "linalg")

if not _TYPE_CHECKING:
    __getattr__ = _lookup("linalg", globals())
