"""Blocks of pixels as channels and back, and channels in another order: views and one copy."""

from __future__ import annotations

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.movement import unshared
from tinyedge.tensor import Tensor


def _factor(call_name: str, name: str, value: int, input: Tensor, rank: int = 3) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(call_name, f"{name} must be an int of at least 1", f"got {value!r}")
    if input.ndim < rank:
        raise ShapeError(call_name, f"an input of at least {rank} dims", f"got {input.shape}")


def _divides(call_name: str, what: str, size: int, by: int) -> None:
    if size % by:
        raise ShapeError(call_name, f"{what} that {by} divides", f"got {size}")


def _moved(input: Tensor, apart: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """``input`` with its last dims taken ``apart``, put in ``order``, and joined to ``shape``."""
    lead = input.shape[: input.ndim - 3]
    first = len(lead)
    dims = (*range(first), *(first + axis for axis in order))
    return unshared(functions["permute"](input.reshape(*lead, *apart), dims).reshape(*lead, *shape), input)


@public(functional=True, module="PixelShuffle", arguments="upscale_factor")
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """r * r channels as blocks of r * r pixels, r being ``upscale_factor``.

    Shapes: input (..., C * r * r, H, W); returns (..., C, H * r, W * r).
    Errors: ShapeError unless r * r divides the channels.
    Source: Shi et al., arXiv:1609.05158.
    """
    _factor("pixel_shuffle", "upscale_factor", upscale_factor, input)
    c, h, w = input.shape[-3:]
    r = upscale_factor
    _divides("pixel_shuffle", "channels", c, r * r)
    return _moved(input, (c // (r * r), r, r, h, w), (0, 3, 1, 4, 2), (c // (r * r), h * r, w * r))


@public(functional=True, module="PixelUnshuffle", arguments="downscale_factor")
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Blocks of r * r pixels as r * r channels, r being ``downscale_factor``.

    Shapes: input (..., C, H * r, W * r); returns (..., C * r * r, H, W).
    Errors: ShapeError unless r divides height and width.
    """
    _factor("pixel_unshuffle", "downscale_factor", downscale_factor, input)
    c, h, w = input.shape[-3:]
    r = downscale_factor
    _divides("pixel_unshuffle", "a height", h, r)
    _divides("pixel_unshuffle", "a width", w, r)
    return _moved(input, (c, h // r, r, w // r, r), (0, 2, 4, 1, 3), (c * r * r, h // r, w // r))


@public(functional=True)
def depth_to_space(input: Tensor, block_size: int) -> Tensor:
    """As ``pixel_shuffle``, but in TensorFlow's order of channels: those of a block's pixel lie side by side.

    Shapes: input (..., b * b * C, H, W) with b = ``block_size``; returns (..., C, H * b, W * b).
    Errors: ShapeError unless b * b divides the channels.
    """
    _factor("depth_to_space", "block_size", block_size, input)
    c, h, w = input.shape[-3:]
    b = block_size
    _divides("depth_to_space", "channels", c, b * b)
    return _moved(input, (b, b, c // (b * b), h, w), (2, 3, 0, 4, 1), (c // (b * b), h * b, w * b))


@public(functional=True)
def space_to_depth(input: Tensor, block_size: int) -> Tensor:
    """As ``pixel_unshuffle``, but in TensorFlow's order of channels: those of a block's pixel lie side by side.

    Shapes: input (..., C, H * b, W * b) with b = ``block_size``; returns (..., b * b * C, H, W).
    Errors: ShapeError unless b divides height and width.
    """
    _factor("space_to_depth", "block_size", block_size, input)
    c, h, w = input.shape[-3:]
    b = block_size
    _divides("space_to_depth", "a height", h, b)
    _divides("space_to_depth", "a width", w, b)
    return _moved(input, (c, h // b, b, w // b, b), (2, 4, 0, 1, 3), (b * b * c, h // b, w // b))


@public(functional=True, module="ChannelShuffle", arguments="groups")
def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels of ``groups`` groups in turns: the first of each group, then the second of each.

    Shapes: input (N, C, ...); returns the same.
    Errors: ShapeError unless groups divides the channels.
    Source: Zhang et al., arXiv:1707.01083.
    """
    _factor("channel_shuffle", "groups", groups, input)
    n, c, *rest = input.shape
    _divides("channel_shuffle", "channels", c, groups)
    apart = input.reshape(n, groups, c // groups, *rest)
    return unshared(functions["transpose"](apart, 1, 2).reshape(*input.shape), input)
