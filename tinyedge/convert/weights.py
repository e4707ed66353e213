"""A model's parameters filled from a file: every name and shape is compared before memory is taken for the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.convert.checks import Place, shown
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor, as_tensor

Shapes = Mapping[str, tuple[int, ...]]
MOST_NAMED = 5
"""Parameters that an error names."""


def require_shapes(place: Place, wanted: Shapes, found: Shapes, ignored: Iterable[str] = ()) -> None:
    """Errors: ModelFormatError unless the file has the parameters of the configuration, of the same shapes."""
    extra = set(found) - set(wanted) - set(ignored)
    for text, names in (("without", set(wanted) - set(found)), ("with unknown", extra)):
        if names:
            named = ", ".join(shown(name) for name in sorted(names)[:MOST_NAMED])
            place.refuse("the parameters", f"{text} {named}" + (", ..." if len(names) > MOST_NAMED else ""))
    for name, shape in wanted.items():
        if tuple(found[name]) != shape:
            place.refuse(name, f"its shape is {tuple(found[name])}, and by the configuration {shape}")


def fill(model: Module, names: Iterable[str], value: Callable[[str], Any]) -> None:
    """Copy ``value(name)``, a tensor or an array, into each parameter, one after the other."""
    own = model.state_dict()
    with no_grad():
        for name in names:
            target, given = own[name], value(name)
            if not isinstance(given, Tensor):
                given = as_tensor(given, device=target.backend)
            target.copy_(given.to(target.dtype, device=target.backend))
