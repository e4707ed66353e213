"""What the normalizations share: checks of their arguments, NumPy's mean, samples."""

from __future__ import annotations

from math import prod
from random import Random
from typing import Any

from tinyedge.errors import BackendError, DtypeError, ShapeError
from tinyedge.ir.step import sum_of
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor

AFFINE = {"eps": "real"}
"""The number that every kernel of a normalization is given at its launch."""


def require_fitting(name: str, argument: str, value: Tensor | None, shape: Shape, input: Tensor) -> None:
    """Check a weight, a bias or a statistic against the input that it goes with."""
    if value is None:
        return
    if value.shape != shape:
        raise ShapeError(name, f"{argument} must have the shape {shape}", f"it has {value.shape}")
    if value.dtype is not input.dtype:
        raise DtypeError(
            name,
            f"{argument} must be {input.dtype.name}, as the input is",
            f"it is {value.dtype.name}",
            f"Convert it with .to(te.{input.dtype.name}).",
        )
    if value.backend is not input.backend:
        raise BackendError(
            name,
            f"{argument} must be on {input.device}, as the input is",
            f"it is on {value.device}",
            f'Move it with .to("{input.device}").',
        )


def mean_of(x: Any, axes: tuple[int, ...]) -> Any:
    """NumPy: the mean over ``axes``, which are kept; of equal numbers it is that number."""
    count = max(prod(x.shape[axis] for axis in axes), 1)
    origin = x[tuple(slice(1) if axis in axes else slice(None) for axis in range(x.ndim))] if x.size else 0
    return origin + sum_of(x - origin, axes, True) / x.dtype.type(count)


def sample_affine(random: Random, shape: Shape) -> tuple[Shape | None, Shape | None]:
    """Shapes of a weight and a bias, each left out at times."""
    return (shape if random.random() < 0.7 else None, shape if random.random() < 0.7 else None)
