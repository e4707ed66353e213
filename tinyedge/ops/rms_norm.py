"""Normalization by the root of the mean square."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyedge.autograd.registry import public
from tinyedge.errors import DtypeError, ShapeError
from tinyedge.ops.reduce import mean, wide
from tinyedge.tensor import Tensor


@public(functional=True)
def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """``input`` over the root of its mean square in the last dims, times ``weight``. It is composed of a mean and
    pointwise ops; ``eps`` is added to the mean, and is the dtype's own if it is None.

    Shapes: input (..., *normalized_shape); weight normalized_shape; returns the same as input.
    Errors: ShapeError if the last dims are others; DtypeError for integers.
    Source: Zhang and Sennrich, arXiv:1910.07467.
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not input.is_floating_point():
        raise DtypeError("rms_norm", "a floating-point input", f"got {input.dtype.name}", "Convert it with .float().")
    if not shape or input.shape[input.ndim - len(shape) :] != shape or input.ndim < len(shape):
        raise ShapeError("rms_norm", f"an input whose last dims are normalized_shape={shape}", f"got {input.shape}")
    if weight is not None and weight.shape != shape:
        raise ShapeError("rms_norm", f"a weight of shape {shape}", f"got {weight.shape}")
    if not input.numel():
        return input * 1.0 if weight is None else input * weight
    least = float(np.finfo(input.dtype.numpy).eps) if eps is None else float(eps)
    axes = tuple(range(-len(shape), 0))
    x = wide(input)
    y = (x * (mean(x * x, axes, keepdim=True) + least).rsqrt()).to(input.dtype)
    return y if weight is None else y * weight
