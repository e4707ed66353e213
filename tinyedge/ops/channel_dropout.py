"""Dropout of whole channels."""

from __future__ import annotations

import warnings

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.random import Generator, dropout
from tinyedge.tensor import Tensor


def _dropout(
    call_name: str, input: Tensor, p: float, training: bool, inplace: bool, channels: int, generator: Generator | None
) -> Tensor:
    """``channels``: which dim they are, the last that the mask has; the mask is that of ``dropout``."""
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(call_name, "p must be in [0, 1]", f"got {p}")
    shape = (*input.shape[: channels + 1], *(1,) * (input.ndim - channels - 1))
    kept = functions["ones"](*shape, dtype=input.dtype, device=input.backend)
    mask = dropout(kept, p, training, generator=generator)
    if not training or p == 0:
        return input
    result = input * mask
    return input._assign(f"{call_name}_", result) if inplace else result


def _expect(call_name: str, input: Tensor, dims: int) -> None:
    """As PyTorch, which takes dim 1 for the channels of whatever has one."""
    if input.ndim < 2:
        raise ShapeError(call_name, "an input with a dim of channels", f"got {input.shape}", "Use dropout.")
    if input.ndim not in (dims, dims + 1):
        warnings.warn(
            f"{call_name}: an input of {dims} or {dims + 1} dims was expected, not {input.ndim}", stacklevel=3
        )


@public(functional=True)
def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Each channel with probability 1 - p, times 1 / (1 - p), else 0; without ``training`` the input itself.

    Shapes: input (N, C, L) or (C, L); returns the same.
    Saves:  the channels' mask.
    Errors: ArgumentError if p is outside [0, 1]; ShapeError for another number of dims.
    Source: Tompson et al., arXiv:1411.4280.
    """
    if input.ndim not in (2, 3):
        raise ShapeError("dropout1d", "an input (N, C, L) or (C, L)", f"got {input.shape}", "Use dropout.")
    return _dropout("dropout1d", input, p, training, inplace, input.ndim - 2, generator)


@public(functional=True)
def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Each channel with probability 1 - p, times 1 / (1 - p), else 0; without ``training`` the input itself.

    Shapes: input (N, C, H, W), or (N, C, L) as in PyTorch; returns the same.
    Saves:  the channels' mask.
    Errors: ArgumentError if p is outside [0, 1]; ShapeError for less than 2 dims. Other numbers of dims get a warning.
    Source: Tompson et al., arXiv:1411.4280.
    """
    _expect("dropout2d", input, 3)
    return _dropout("dropout2d", input, p, training, inplace, 1, generator)


@public(functional=True)
def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Each channel with probability 1 - p, times 1 / (1 - p), else 0; without ``training`` the input itself.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); returns the same.
    Saves:  the channels' mask.
    Errors: ArgumentError if p is outside [0, 1]; ShapeError for less than 2 dims. Other numbers of dims get a warning.
    Source: Tompson et al., arXiv:1411.4280.
    """
    _expect("dropout3d", input, 4)
    return _dropout("dropout3d", input, p, training, inplace, 0 if input.ndim == 4 else 1, generator)
