"""Attributes of a module that are computed when they are read, such as a weight that is made of other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyedge.nn.module import Module


def compute(module: Module, name: str, get: Callable[[Any], Any], put: Callable[[Any, Any], None]) -> None:
    """Let ``module.name`` be ``get(module)``, and assignments to it ``put(module, value)``.

    As in PyTorch the module's class is replaced by a class of its own, derived from it.
    """
    cls = type(module)
    made = type(cls.__name__, (cls,), {name: property(get, put), "__module__": cls.__module__})
    made.__qualname__ = cls.__qualname__
    module.__class__ = made


def uncompute(module: Module, name: str) -> None:
    """Undo ``compute``."""
    layers = []
    cls = type(module)
    while name not in vars(cls):
        layers.append(cls)
        cls = cls.__bases__[0]
    base: Any = cls.__bases__[0]
    for layer in reversed(layers):  # other attributes that are computed
        own = {key: value for key, value in vars(layer).items() if isinstance(value, property)}
        base = type(base.__name__, (base,), {**own, "__module__": base.__module__})
    module.__class__ = base
