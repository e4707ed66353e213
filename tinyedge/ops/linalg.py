"""``te.linalg``: PyTorch's functions of matrices. ``linalg.pyi`` says which; ``make stubs`` writes it."""

from tinyedge.autograd import registry as _registry

__all__: list[str] = []
_registry.show_space(globals(), "linalg")
