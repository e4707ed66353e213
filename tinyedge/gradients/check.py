"""``te.autograd.gradcheck`` and ``gradgradcheck``: gradients held against central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError, AutogradError
from tinyedge.gradients.grad import grad
from tinyedge.tensor import Tensor, tensor


class GradcheckError(AutogradError):
    """A gradient that is not the slope of its function."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the gradients of ``func(*inputs)`` are its slopes, by central differences of every element.

    Inputs that require a gradient should be float64, on a backend that has it, such as "numpy"; with float32 take
    larger ``eps`` and tolerances. Each element of them costs two calls.

    Errors: GradcheckError if a gradient is wrong, unless ``raise_exception`` is False; ArgumentError if no input
            requires a gradient.
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    places = [k for k, item in enumerate(given) if isinstance(item, Tensor) and item.requires_grad]
    if not places:
        raise ArgumentError(
            "gradcheck",
            "an input that requires a gradient",
            "there is none",
            "Call requires_grad_() on one of the inputs.",
        )
    outputs = _outputs(func, given)
    for number, output in enumerate(outputs):
        if not output.requires_grad:
            continue
        for place in places:
            problem = _compare(func, given, number, output, place, eps, atol, rtol)
            if problem:
                if raise_exception:
                    raise GradcheckError("gradcheck", f"d output {number} / d input {place} as by differences", problem)
                return False
    return True


def _outputs(func: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    result = func(*inputs)
    found = [result] if isinstance(result, Tensor) else list(result)
    return [item for item in found if isinstance(item, Tensor) and item.is_floating_point()]


def _compare(
    func: Callable[..., Any], inputs: list[Any], number: int, output: Tensor, place: int, eps: float, atol: float,
    rtol: float,
) -> str:  # fmt: skip
    x: Tensor = inputs[place]
    values = x.detach().numpy().astype(np.float64)
    shape = (values.size, output.numel())
    numerical, analytical = np.zeros(shape), np.zeros(shape)

    def moved(position: int, step: float) -> Any:
        other = values.copy().reshape(-1)
        other[position] += step
        replaced = tensor(other.reshape(values.shape), dtype=x.dtype, device=x.backend).requires_grad_()
        result = _outputs(func, [*inputs[:place], replaced, *inputs[place + 1 :]])[number]
        return result.detach().numpy().astype(np.float64).reshape(-1)

    for position in range(values.size):
        numerical[position] = (moved(position, eps) - moved(position, -eps)) / (2 * eps)
    for column in range(output.numel()):
        seed = np.zeros(output.numel())
        seed[column] = 1
        weights = tensor(seed.reshape(output.shape), dtype=output.dtype, device=output.backend)
        (gradient,) = grad(output, x, weights, retain_graph=True, allow_unused=True)
        if gradient is not None:
            analytical[:, column] = gradient.detach().numpy().reshape(-1)
    wrong = ~np.isclose(analytical, numerical, rtol=rtol, atol=atol, equal_nan=True)
    if not wrong.any():
        return ""
    row, column = (int(k) for k in np.argwhere(wrong)[0])
    return (
        f"element {row} of the input and {column} of the output: backward says {analytical[row, column]:.6g}, the "
        f"difference {numerical[row, column]:.6g}; {int(wrong.sum())} of {wrong.size} differ"
    )


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """``gradcheck`` of the gradients of ``func``, as ``create_graph`` computes them.

    ``grad_outputs`` are the gradients of the outputs, drawn at random if left out.

    Errors: as ``gradcheck``; SecondGradientError for an op whose gradient has no gradient.
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    with no_grad():
        outputs = _outputs(func, given)
    random = np.random.default_rng(0)
    if grad_outputs is None:
        seeds = [
            tensor(random.uniform(0.5, 1.5, out.shape), dtype=out.dtype, device=out.backend).requires_grad_()
            for out in outputs
        ]
    else:
        seeds = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    count = len(given)

    def gradients(*all_of_them: Any) -> Any:
        own, weights = all_of_them[:count], all_of_them[count:]
        pairs = [(out, w) for out, w in zip(_outputs(func, own), weights, strict=True) if out.requires_grad]
        places = [item for item in own if isinstance(item, Tensor) and item.requires_grad]
        found = grad([out for out, _ in pairs], places, [w for _, w in pairs], create_graph=True, allow_unused=True)
        return [item for item in found if item is not None and item.requires_grad]

    return gradcheck(gradients, [*given, *seeds], eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception)
