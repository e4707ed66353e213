"""Gradients held against central differences, in float64, along random directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
STEP = 1e-6
ATTEMPTS = 5


class KinkError(Exception):
    """The differences of two step sizes disagree: the function is not smooth along this direction."""


def directional(function: Callable[[float], float], step: float = STEP) -> float:
    """The derivative of ``function`` at 0, from central differences with two step sizes that must agree."""

    def slope(h: float) -> float:
        return (function(h) - function(-h)) / (2 * h)

    wide, narrow = slope(2 * step), slope(step)
    # Rounding moves a difference by about eps * |f| / h; a kink moves it by a part of the slope itself.
    noise = 1e-8 * (1 + abs(function(0.0)))
    if not abs(wide - narrow) <= noise + 1e-5 * (abs(wide) + abs(narrow)):
        raise KinkError(f"slopes {wide} and {narrow}")
    return narrow


def gradcheck(
    forward: Callable[[Mapping[str, Array]], Sequence[Array]],
    gradients: Callable[[Mapping[str, Array], Sequence[Array]], Mapping[str, Array]],
    inputs: Mapping[str, Array],
    random: np.random.Generator,
    rtol: float = 1e-5,
) -> None:
    """Check ``gradients`` of ``forward``: the slope of its weighted outputs along a random direction from ``inputs``.

    ``forward`` maps the inputs that are varied to the outputs that are compared. Raises AssertionError if a gradient is
    wrong, and KinkError if ``forward`` is smooth along none of a few directions.
    """
    weights = [random.uniform(0.5, 1.5, np.shape(y)) * random.choice([-1, 1], np.shape(y)) for y in forward(inputs)]
    computed = gradients(inputs, weights)
    for name, x in inputs.items():
        assert computed[name].shape == x.shape, f"d{name} has shape {computed[name].shape}, not {x.shape}"
        for attempt in range(ATTEMPTS):
            direction = random.uniform(-1, 1, x.shape)

            def along(t: float, name: str = name, x: Array = x, direction: Array = direction) -> float:
                outputs = forward({**inputs, name: x + t * direction})
                return float(sum((w * y).sum() for w, y in zip(weights, outputs, strict=True)))

            try:
                expected = directional(along)
            except KinkError:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            terms = computed[name] * direction
            got, scale = float(terms.sum()), float(np.abs(terms).sum())
            noise = 1e-8 * (1 + abs(along(0.0)))
            assert abs(got - expected) <= rtol * max(scale, abs(expected)) + noise, (
                f"the gradient of {name} along a direction is {got}, the difference says {expected}"
            )
            break
