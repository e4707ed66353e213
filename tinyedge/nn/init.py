"""Initial values of weights, written in place and outside autograd; random ones follow ``te.manual_seed``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from statistics import NormalDist
from typing import Any

import numpy as np

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops import random
from tinyedge.tensor import Tensor

_skips: ContextVar[bool] = ContextVar("_skips", default=False)


@contextmanager
def skipped() -> Iterator[None]:
    """Let ``uniform_``, ``normal_`` and what is made of them draw nothing: all is to be filled later. A large model's
    weights take seconds to draw.
    """
    before = _skips.set(True)
    try:
        yield
    finally:
        _skips.reset(before)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with values from the uniform distribution over [a, b)."""
    return tensor if _skips.get() else random.uniform_(tensor, a, b)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with values from the normal distribution."""
    return tensor if _skips.get() else random.normal_(tensor, mean, std)


@no_grad()
def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fill with values from the normal distribution, cut off outside [a, b].

    The bounds are values, not multiples of ``std``.
    """
    if not (a < b and std > 0):
        raise ArgumentError("trunc_normal_", "a < b and std > 0", f"got a={a}, b={b}, std={std}")
    normal = NormalDist(mean, std)
    low, high = normal.cdf(a), normal.cdf(b)
    if low >= high or low >= 1.0 or high <= 0.0:
        raise ArgumentError("trunc_normal_", "bounds that hold some of the distribution", f"got [{a}, {b}]")
    # By the inverse of the distribution function: one draw, where redrawing what falls outside may never end.
    uniform = low + random.default_generator.uniform(tensor.shape) * (high - low)
    inside = np.clip(uniform, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0)).ravel()
    values = np.fromiter(map(normal.inv_cdf, inside.tolist()), np.float64, inside.size)
    return tensor.copy_(np.clip(values, a, b).reshape(tensor.shape).astype(tensor.dtype.numpy))


@no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with ``val``."""
    return tensor.fill_(val)


@no_grad()
def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return tensor.fill_(1.0)


@no_grad()
def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return tensor.fill_(0.0)


@no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with the identity."""
    if tensor.ndim != 2:
        raise ShapeError("eye_", "a tensor of two dims", f"got {tensor.shape}")
    return tensor.copy_(np.eye(*tensor.shape, dtype=tensor.dtype.numpy))


@no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1) -> Tensor:
    """Fill with a random matrix whose rows, or columns if there are fewer, are orthogonal and of length ``gain``.

    All dims but the first are taken as one. Source: Saxe et al., arXiv:1312.6120.
    """
    if tensor.ndim < 2:
        raise ShapeError("orthogonal_", "a tensor of at least two dims", f"got {tensor.shape}")
    if not tensor.numel():
        return tensor
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    drawn = random.default_generator.uniform((2, rows, columns))
    # Box and Muller's transform: normal numbers in double precision, from the generator of all backends.
    normal = np.sqrt(-2 * np.log1p(-drawn[0])) * np.cos(2 * np.pi * drawn[1])
    q, r = np.linalg.qr(normal.T if rows < columns else normal)
    q = q * np.sign(np.diag(r))  # without it, the matrices are not uniformly distributed
    q = q.T if rows < columns else q
    return tensor.copy_((gain * q).reshape(tensor.shape).astype(tensor.dtype.numpy))


@no_grad()
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a convolution's weight so that it returns its input, as many channels as there are, in each group."""
    if not 3 <= tensor.ndim <= 5:
        raise ShapeError("dirac_", "a tensor of three to five dims", f"got {tensor.shape}")
    if groups < 1 or tensor.shape[0] % groups:
        raise ArgumentError("dirac_", f"groups that divide {tensor.shape[0]} channels", f"got {groups}")
    values = np.zeros(tensor.shape, tensor.dtype.numpy)
    size = tensor.shape[0] // groups
    middle = tuple(length // 2 for length in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(size, tensor.shape[1])):
            values[(group * size + channel, channel) + middle] = 1
    return tensor.copy_(values)


@no_grad()
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01) -> Tensor:
    """Fill a matrix with values from the normal distribution, and the part ``sparsity`` of each column with 0."""
    if tensor.ndim != 2:
        raise ShapeError("sparse_", "a tensor of two dims", f"got {tensor.shape}")
    rows, columns = tensor.shape
    normal_(tensor, 0.0, std)
    order = np.argsort(random.default_generator.uniform((rows, columns)), axis=0)
    keep = np.ones((rows, columns), bool)
    np.put_along_axis(keep, order[: math.ceil(sparsity * rows)], False, axis=0)
    return tensor.copy_(np.where(keep, tensor.detach().numpy(), 0))


_GAINS = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "sigmoid"), 1.0),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1.0),
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 3 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through ``nonlinearity``; ``param`` is leaky_relu's slope."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        known = ", ".join([*_GAINS, "leaky_relu"])
        raise ArgumentError("calculate_gain", f"nonlinearity must be one of {known}", f"got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs feed an output of a weight (out, in, ...), and how many outputs an input feeds."""
    if tensor.ndim < 2:
        raise ShapeError("init", "fans need a weight of at least two dims", f"got {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor: Tensor, mode: str) -> int:
    fans = dict(zip(("fan_in", "fan_out"), _calculate_fan_in_and_fan_out(tensor), strict=True))
    if mode not in fans:
        raise ArgumentError("init", 'mode must be "fan_in" or "fan_out"', f"got {mode!r}")
    return fans[mode]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform, with variance ``gain**2 * 2 / (fan_in + fan_out)``. Source: Glorot and Bengio, AISTATS 2010."""
    bound = gain * math.sqrt(6 / max(sum(_calculate_fan_in_and_fan_out(tensor)), 1))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal, with variance ``gain**2 * 2 / (fan_in + fan_out)``. Source: Glorot and Bengio, AISTATS 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / max(sum(_calculate_fan_in_and_fan_out(tensor)), 1)))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform, with variance ``gain**2 / fan``. Source: He et al., arXiv:1502.01852."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / max(_fan(tensor, mode), 1))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal, with variance ``gain**2 / fan``. Source: He et al., arXiv:1502.01852."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(max(_fan(tensor, mode), 1)))


def _older(name: str) -> Callable[..., Tensor]:
    """The function of that name, as programs called it before those in place got their underscore."""
    function: Callable[..., Tensor] = globals()[name + "_"]

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        warnings.warn(f"nn.init.{name} is deprecated: use nn.init.{name}_", FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    return call


uniform, normal, constant, eye, dirac = (_older(name) for name in ("uniform", "normal", "constant", "eye", "dirac"))
xavier_uniform, xavier_normal, orthogonal = (_older(name) for name in ("xavier_uniform", "xavier_normal", "orthogonal"))
kaiming_uniform, kaiming_normal, sparse = (_older(name) for name in ("kaiming_uniform", "kaiming_normal", "sparse"))

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "skipped",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]
