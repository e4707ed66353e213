"""Samples of distributions, drawn on the host by the generator of all random numbers: the same on each backend.

A replay draws new ones. ``poisson`` and ``multinomial``, which look at the values of a tensor, are refused inside
``te.compile``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.recorder import recorder
from tinyedge.autograd.registry import public
from tinyedge.backends import Backend
from tinyedge.dtypes import float32, int64
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.creation import empty_like, sizes
from tinyedge.ops.promotion import require_tensors
from tinyedge.ops.random import (
    Generator,
    Words,
    default_generator,
    fill_drawn,
    normal_of,
    normal_words,
    rand_like,
    randint,
    randn,
    uniform_of,
)
from tinyedge.shapes import broadcast
from tinyedge.tensor import Tensor, tensor
from tinyedge.tensor.memory_format import check_placement
from tinyedge.tensor.memory_format import layout as Layout

Array = np.ndarray[Any, Any]
Target = str | Backend | None


def _fill(input: Tensor, generator: Generator | None, make: Callable[[Array], Array]) -> Tensor:
    """Fill ``input`` with what ``make`` makes of uniform numbers in (0, 1), neither end of which a logarithm takes."""
    shape = input.shape

    def values(words: Words) -> Array:
        return make(uniform_of(words, shape) + 2.0**-25)

    return fill_drawn(input, generator, prod(shape), values)


def _probabilities(name: str, p: Any, shape: tuple[int, ...]) -> Array:
    values = np.asarray(p.detach().numpy() if isinstance(p, Tensor) else p, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ArgumentError(name, "probabilities in [0, 1]", f"one is {values.reshape(-1)[0]}")
    if broadcast(name, values.shape, shape) != shape:
        raise ShapeError(name, f"probabilities that broadcast to {shape}", f"got {values.shape}")
    return values


@public(method=True)
def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that each element gives, or ``p``, else 0; without a gradient.

    Shapes: any; returns the same.
    Errors: ArgumentError if a probability is outside [0, 1]; DtypeError for integers without ``p``.
    """
    require_tensors("bernoulli", input)
    if p is None and not input.is_floating_point():
        raise DtypeError("bernoulli", "a floating-point tensor", f"got {input.dtype.name}", "Convert it with .float().")
    if p is not None:
        return bernoulli_(empty_like(input), p, generator=generator)
    if recorder() is None:  # a replay does not look
        _probabilities("bernoulli", input, input.shape)
    return (rand_like(input, generator=generator) < input.detach()).to(input.dtype)


@public(method=True, top=False)
def bernoulli_(input: Tensor, p: float | Tensor = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill ``input`` with 1 with probability ``p``, else 0, outside autograd. Returns it.

    Shapes: any; returns the same.
    Errors: ArgumentError if a probability is outside [0, 1].
    """
    chance = _probabilities("bernoulli_", p, input.shape)
    shape = input.shape
    return fill_drawn(input, generator, prod(shape), lambda words: uniform_of(words, shape) < chance)


def _floats_alone(name: str, input: Tensor) -> None:
    if not input.is_floating_point():
        raise DtypeError(name, "a floating-point tensor", f"got {input.dtype.name}", "Convert it with .float().")


@public(method=True, top=False)
def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill ``input`` with numbers of the exponential distribution of rate ``lambd``, outside autograd. Returns it.

    Shapes: any; returns the same.
    Errors: ArgumentError unless lambd is above 0; DtypeError for integers.
    """
    _floats_alone("exponential_", input)
    if lambd <= 0:
        raise ArgumentError("exponential_", "lambd above 0", f"got {lambd}")
    return _fill(input, generator, lambda values: -np.log(values) / lambd)


@public(method=True, top=False)
def geometric_(input: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill ``input`` with how many trials it takes to succeed with probability ``p``, outside autograd. Returns it.

    Shapes: any; returns the same.
    Errors: ArgumentError unless p is in (0, 1).
    """
    if not 0 < p < 1:
        raise ArgumentError("geometric_", "p in (0, 1)", f"got {p}")
    return _fill(input, generator, lambda values: np.ceil(np.log(values) / math.log1p(-p)))


@public(method=True, top=False)
def cauchy_(input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill ``input`` with numbers of the Cauchy distribution, outside autograd. Returns it.

    Shapes: any; returns the same.
    Errors: ArgumentError unless sigma is above 0; DtypeError for integers.
    """
    _floats_alone("cauchy_", input)
    if sigma <= 0:
        raise ArgumentError("cauchy_", "sigma above 0", f"got {sigma}")
    return _fill(input, generator, lambda values: median + sigma * np.tan(np.pi * (values - 0.5)))


@public(method=True, top=False)
def log_normal_(input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Fill ``input`` with numbers whose logarithms are normal, outside autograd. Returns it.

    Shapes: any; returns the same.
    Errors: ArgumentError unless std is above 0; DtypeError for integers.
    """
    _floats_alone("log_normal_", input)
    if std <= 0:
        raise ArgumentError("log_normal_", "std above 0", f"got {std}")
    shape = input.shape
    return fill_drawn(input, generator, normal_words(shape), lambda words: np.exp(mean + std * normal_of(words, shape)))


@public(method=True, top=False)
def random_(input: Tensor, *limits: int, generator: Generator | None = None) -> Tensor:
    """Fill ``input`` with uniform integers, outside autograd: ``random_(to)`` or ``random_(low, to)``, in [low, to).

    Without limits, from 0 to the largest that the dtype holds, or of floats up to which they hold each. Returns it.

    Shapes: any; returns the same.
    Errors: ArgumentError unless low < to.
    """
    if len(limits) > 2:
        raise ArgumentError("random_", "at most two limits", f"got {limits}")
    dtype = input.dtype
    if dtype.limits is not None:
        end = dtype.limits[1] + 1
    else:
        end = 2 if not dtype.is_floating_point else 2 ** (24 if dtype is float32 else 53) + 1
    low, to = (0, end) if not limits else (0, limits[0]) if len(limits) == 1 else limits
    if low >= to:
        raise ArgumentError("random_", "low must be below to", f"got {low} and {to}")
    with no_grad():
        return input.copy_(randint(low, to, input.shape, generator=generator, device=input.backend))


@public
def normal(
    mean: float | Tensor,
    std: float | Tensor = 1.0,
    size: Sequence[int] | None = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
) -> Tensor:
    """Normal numbers, each with its own ``mean`` and ``std``, or of ``size`` for two numbers; without a gradient.

    Shapes: mean and std broadcast; returns what they broadcast to, or size.
    Errors: ArgumentError for a negative std, or numbers without a size.
    """
    check_placement("normal", layout, pin_memory)
    least = std if not isinstance(std, Tensor) else std.detach().numpy().min() if std.numel() else 0.0
    if not least >= 0:
        raise ArgumentError("normal", "std must be at least 0", f"got {least}")
    like = mean if isinstance(mean, Tensor) else std if isinstance(std, Tensor) else None
    if like is None:
        if size is None:
            raise ArgumentError("normal", "a size for a mean and a std that are numbers", "got none")
        shape, wanted, target = sizes("normal", (size,)), dtype or float32, device
    else:
        if size is not None:
            raise ArgumentError("normal", "no size with tensors", f"got {size}")
        shapes = [item.shape for item in (mean, std) if isinstance(item, Tensor)]
        shape, wanted, target = broadcast("normal", *shapes), like.dtype, like.backend
    mean, std = (item.detach() if isinstance(item, Tensor) else item for item in (mean, std))
    drawn = randn(shape, generator=generator, dtype=wanted, device=target)
    result = drawn * std + mean
    return result.requires_grad_() if requires_grad else result


@public
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Numbers of Poisson's distribution, each with the rate that its element gives; without a gradient.

    Shapes: any; returns the same.
    Errors: ArgumentError for a negative rate; DtypeError for integers.
    """
    require_tensors("poisson", input)
    _floats_alone("poisson", input)
    rates = input.detach().numpy().astype(np.float64)
    if not (rates >= 0).all():
        raise ArgumentError("poisson", "rates of at least 0", f"one is {rates.min()}")
    words = (generator or default_generator).long_words(2)
    drawn = np.random.Generator(np.random.Philox(key=words)).poisson(rates)
    return tensor(drawn, dtype=input.dtype, device=input.backend)


@public(method=True)
def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with the weights that each row gives, which need not add up to 1; int64.

    Shapes: (n,) or (m, n) of weights; returns (num_samples,) or (m, num_samples).
    Errors: ArgumentError for weights that are negative, not finite, or all 0, or, without ``replacement``, for more
            samples than weights; ShapeError for other shapes; DtypeError for integers.
    """
    name = "multinomial"
    require_tensors(name, input)
    _floats_alone(name, input)
    if not 1 <= input.ndim <= 2 or not input.shape[-1]:
        raise ShapeError(name, "weights (n,) or (m, n), n above 0", f"got {input.shape}")
    count = input.shape[-1]
    if num_samples <= 0 or (not replacement and num_samples > count):
        most = "" if replacement else f", and at most {count} without replacement"
        raise ArgumentError(name, f"num_samples above 0{most}", f"got {num_samples}")
    weights = input.detach().numpy().astype(np.float64).reshape(-1, count)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ArgumentError(name, "finite weights of at least 0", "one is not")
    if (weights.sum(-1) <= 0).any():
        raise ArgumentError(name, "weights that are not all 0", "those of a row are")
    source = generator or default_generator
    if replacement:
        sums = np.cumsum(weights, -1)
        drawn = source.uniform((len(weights), num_samples)) * sums[:, -1:]
        rows = [np.searchsorted(a, b, "right") for a, b in zip(sums, drawn, strict=True)]
        found = np.minimum(np.array(rows, np.int64).reshape(len(weights), num_samples), count - 1)
    else:
        if ((weights > 0).sum(-1) < num_samples).any():
            raise ArgumentError(name, f"at least {num_samples} weights above 0", "a row has fewer")
        # The largest of weight / exponential number is each index with its weight's probability.
        noise = -np.log(source.uniform(weights.shape) + 2.0**-25)
        found = np.argsort(-weights / noise, -1, kind="stable")[:, :num_samples]
    return tensor(found.reshape(*input.shape[:-1], num_samples), dtype=int64, device=input.backend)


@public
def randint_like(
    input: Tensor, low: int, high: int | None = None, *, generator: Generator | None = None, dtype: Any = None,
    device: Target = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``randint`` with the shape, dtype and device of ``input``; ``randint_like(input, high)`` starts from 0.

    Shapes: any; returns the same.
    Errors: as ``randint``.
    """
    low, high = (0, low) if high is None else (low, high)
    wanted = dtypes.resolve(dtype or input.dtype, "randint_like")
    return randint(
        low, high, input.shape, generator=generator, dtype=wanted, device=device or input.backend,
        requires_grad=requires_grad,
    )  # fmt: skip
