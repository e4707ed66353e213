"""Pooling composed of ``pool``: of sequences and volumes, by the p-norm, back again, and across channels.

Windows along one dim are windows of images of width one, so a volume is pooled over its images, then over its slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.pool import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool1d, avg_pool2d, max_pool2d, window_sizes
from tinyedge.ops.reduce import wide
from tinyedge.shapes import Shape, repeated
from tinyedge.tensor import Tensor

Size = int | Sequence[int]


def _volumes(call_name: str, input: Tensor) -> tuple[int, Shape]:
    """How many volumes, and their size; errors: ShapeError for what is no volume."""
    if input.ndim not in (4, 5) or 0 in input.shape[-4:]:
        raise ShapeError(
            call_name, "an input (N, C, D, H, W) or (C, D, H, W), empty at most in N", f"got {input.shape}",
            "Reshape or unsqueeze it.",
        )  # fmt: skip
    return prod(input.shape[:-3]), input.shape[-3:]


@public(functional=True)
def avg_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """``avg_pool2d`` of the images of each volume, then of its slices.

    ``stride`` is from one window to the next (None: ``kernel_size``), ``padding`` is at either end, and counts unless
    ``count_include_pad=False``. ``ceil_mode`` also takes a last window that goes over the end. ``divisor_override``
    divides by that number.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); returns (N, C, D', H', W').
    Errors: as ``avg_pool2d``.
    """
    kernel, steps, around, _ = window_sizes("avg_pool3d", 3, kernel_size, stride, padding)
    if divisor_override is not None and divisor_override == 0:
        raise ArgumentError("avg_pool3d", "divisor_override must not be 0", "got 0", "Leave it out for the mean.")
    count, (d, h, w) = _volumes("avg_pool3d", input)
    options = (ceil_mode, count_include_pad)
    images = input.reshape(count, d, h, w)
    images = avg_pool2d(images, kernel[1:], steps[1:], around[1:], *options, divisor_override and 1)
    _, _, high, wide = images.shape
    slices = images.reshape(count, 1, d, high * wide)
    y = avg_pool2d(slices, (kernel[0], 1), (steps[0], 1), (around[0], 0), *options, divisor_override)
    return y.reshape(*input.shape[:-3], y.shape[2], high, wide)


@public(functional=True)
def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """``max_pool2d`` of the images of each volume, then of its slices.

    ``stride`` is from one window to the next (None: ``kernel_size``), ``padding`` is at either end, ``dilation`` from
    one place of a window to the next. ``ceil_mode`` also takes a last window that goes over the end.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); returns (N, C, D', H', W'), and with ``return_indices`` also the flat
            position of each maximum in D * H * W, int64.
    Errors: as ``max_pool2d``.
    """
    kernel, steps, around, spread = window_sizes("max_pool3d", 3, kernel_size, stride, padding, dilation)
    count, (d, h, w) = _volumes("max_pool3d", input)
    images = input.reshape(count, d, h, w)
    found = max_pool2d(images, kernel[1:], steps[1:], around[1:], spread[1:], ceil_mode, return_indices)
    images, places = found if return_indices else (found, None)
    _, _, high, wide = images.shape
    along = ((kernel[0], 1), (steps[0], 1), (around[0], 0), (spread[0], 1), ceil_mode, return_indices)
    found = max_pool2d(images.reshape(count, 1, d, high * wide), *along)
    return _joined_indices(found, places, (*input.shape[:-3], -1, high, wide), h * w)


def _joined_indices(found: Any, places: Tensor | None, shape: Shape, plane: int) -> Any:
    """Of maxima over slices of maxima over images: their values, and their positions in the volume."""
    if places is None:
        return found.reshape(*shape[:-3], found.shape[-2], *shape[-2:])
    y, slices = found
    shape = (*shape[:-3], y.shape[-2], *shape[-2:])
    # The position among slices of high * wide maxima says which slice it is, and whose maximum.
    inner = shape[-2] * shape[-1]
    count = slices.shape[0]
    flat = slices.reshape(count, -1)
    within = functions["gather"](places.reshape(count, -1), 1, flat)
    deep = functions["div"](flat, inner, rounding_mode="floor")
    return y.reshape(shape), (deep * plane + within).reshape(shape)


def _lengths(call_name: str, input: Tensor, output_size: Any, rank: int) -> Shape:
    """An int for each of the last dims; None is the input's own."""
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size,)
    if len(wanted) == 1:
        wanted = tuple(wanted) * rank
    if input.ndim not in (rank + 1, rank + 2):
        places = ("L", "H, W", "D, H, W")[rank - 1]
        raise ShapeError(
            call_name, f"an input (N, C, {places}) or (C, {places})", f"got {input.shape}", "Reshape or unsqueeze it."
        )
    if len(wanted) == rank:
        wanted = tuple(size if item is None else item for size, item in zip(input.shape[-rank:], wanted))
    return repeated(call_name, "output_size", wanted, rank)


@public(functional=True, module="AdaptiveAvgPool1d", arguments="output_size")
def adaptive_avg_pool1d(input: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """The mean over windows that split the last dim into ``output_size``.

    Shapes: input (N, C, L) or (C, L); returns (N, C, output_size).
    Errors: ArgumentError unless output_size is an int of at least 0.
    """
    (size,) = _lengths("adaptive_avg_pool1d", input, output_size, 1)
    return adaptive_avg_pool2d(input.unsqueeze(-2), (1, size)).squeeze(-2)


@public(functional=True, module="AdaptiveMaxPool1d", arguments="output_size, return_indices", shown="output_size")
def adaptive_max_pool1d(input: Tensor, output_size: int | Sequence[int], return_indices: bool = False) -> Any:
    """The maximum over windows that split the last dim into ``output_size``.

    Shapes: input (N, C, L) or (C, L); returns (N, C, output_size), and with ``return_indices`` the positions.
    Saves:  the positions.
    Errors: ArgumentError unless output_size is an int of at least 0.
    """
    (size,) = _lengths("adaptive_max_pool1d", input, output_size, 1)
    y, indices = adaptive_max_pool2d(input.unsqueeze(-2), (1, size), True)
    return (y.squeeze(-2), indices.squeeze(-2)) if return_indices else y.squeeze(-2)


@public(functional=True, module="AdaptiveAvgPool3d", arguments="output_size")
def adaptive_avg_pool3d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """The mean over windows that split the input into ``output_size``; None keeps the input's size.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); returns (N, C, *output_size).
    Errors: ArgumentError unless output_size is one or three ints of at least 0 or None.
    """
    deep, high, wide = _lengths("adaptive_avg_pool3d", input, output_size, 3)
    count, (d, h, w) = _volumes("adaptive_avg_pool3d", input)
    images = adaptive_avg_pool2d(input.reshape(count, d, h, w), (high, wide))
    if 0 not in (high, wide):
        images = adaptive_avg_pool2d(images.reshape(count, 1, d, high * wide), (deep, high * wide))
        return images.reshape(*input.shape[:-3], deep, high, wide)
    return images[:, :1].expand(count, deep, high, wide).reshape(*input.shape[:-3], deep, high, wide)


@public(functional=True, module="AdaptiveMaxPool3d", arguments="output_size, return_indices", shown="output_size")
def adaptive_max_pool3d(
    input: Tensor, output_size: int | Sequence[int | None] | None, return_indices: bool = False
) -> Any:
    """The maximum over windows that split the input into ``output_size``; None keeps the input's size.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); returns (N, C, *output_size), and with ``return_indices`` the flat
            positions in D * H * W.
    Errors: ArgumentError unless output_size is one or three ints of at least 1 or None.
    """
    deep, high, wide = _lengths("adaptive_max_pool3d", input, output_size, 3)
    if 0 in (deep, high, wide):
        raise ArgumentError("adaptive_max_pool3d", "output_size of at least 1", f"got {output_size}")
    count, (d, h, w) = _volumes("adaptive_max_pool3d", input)
    images, places = adaptive_max_pool2d(input.reshape(count, d, h, w), (high, wide), True)
    found = adaptive_max_pool2d(images.reshape(count, 1, d, high * wide), (deep, high * wide), True)
    y, indices = _joined_indices(found, places, (*input.shape[:-3], deep, high, wide), h * w)
    return (y, indices) if return_indices else y


# By the p-norm


def _norm_type(call_name: str, norm_type: float) -> float:
    if norm_type == 0:
        raise ArgumentError(call_name, "a norm_type that is not 0", "got 0", "Use max_pool for the maximum.")
    return float(norm_type)


@public(functional=True)
def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """The ``norm_type``-th root of the sum of powers of each window.

    ``norm_type`` is p. ``stride`` is from one window to the next (None: ``kernel_size``). ``ceil_mode`` also takes a
    last window that goes over the end.

    Shapes: input (N, C, L) or (C, L); returns (N, C, L').
    Errors: as ``avg_pool1d``; ArgumentError for norm_type 0.
    """
    p = _norm_type("lp_pool1d", norm_type)
    (kernel,), steps, _, _ = window_sizes("lp_pool1d", 1, kernel_size, stride)
    return _root(avg_pool1d(wide(input) ** p, kernel, steps, 0, ceil_mode), p, kernel).to(input.dtype)


@public(functional=True)
def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """The ``norm_type``-th root of the sum of powers of each window.

    ``norm_type`` is p. ``stride`` is from one window to the next (None: ``kernel_size``). ``ceil_mode`` also takes a
    last window that goes over the end.

    Shapes: input (N, C, H, W) or (C, H, W); returns (N, C, H', W').
    Errors: as ``avg_pool2d``; ArgumentError for norm_type 0.
    """
    p = _norm_type("lp_pool2d", norm_type)
    kernel, steps, _, _ = window_sizes("lp_pool2d", 2, kernel_size, stride)
    return _root(avg_pool2d(wide(input) ** p, kernel, steps, 0, ceil_mode), p, prod(kernel)).to(input.dtype)


@public(functional=True)
def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """The ``norm_type``-th root of the sum of powers of each window.

    ``norm_type`` is p. ``stride`` is from one window to the next (None: ``kernel_size``). ``ceil_mode`` also takes a
    last window that goes over the end.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); returns (N, C, D', H', W').
    Errors: as ``avg_pool2d``; ArgumentError for norm_type 0.
    """
    p = _norm_type("lp_pool3d", norm_type)
    kernel, steps, _, _ = window_sizes("lp_pool3d", 3, kernel_size, stride)
    return _root(avg_pool3d(wide(input) ** p, kernel, steps, 0, ceil_mode), p, prod(kernel)).to(input.dtype)


def _root(means: Tensor, p: float, count: int) -> Tensor:
    """As PyTorch computes it, from the means of powers: its gradient at 0 is what the formula gives."""
    return cast("Tensor", (means.sign() * functions["relu"](means.abs()) * count) ** (1.0 / p))


# Back again


def _unpool(
    call_name: str, rank: int, input: Tensor, indices: Tensor, kernel_size: Size, stride: Size | None, padding: Size,
    output_size: Sequence[int] | None,
) -> Tensor:  # fmt: skip
    kernel, steps, around, _ = window_sizes(call_name, rank, kernel_size, stride, padding)
    if input.ndim not in (rank + 1, rank + 2) or 0 in input.shape[-rank - 1 :]:
        raise ShapeError(
            call_name, f"an input of {rank + 1} or {rank + 2} dims, empty at most in the first of {rank + 2}",
            f"got {input.shape}",
        )  # fmt: skip
    if indices.dtype.name != "int64":
        raise DtypeError(call_name, "int64 indices", f"got {indices.dtype.name}", "Convert it with .long().")
    if indices.shape != input.shape:
        raise ShapeError(call_name, f"indices of shape {input.shape}", f"got {indices.shape}")
    usual = [
        (size - 1) * step - 2 * pad + taps for size, step, pad, taps in zip(input.shape[-rank:], steps, around, kernel)
    ]
    sizes = tuple(usual)
    if output_size is not None:
        sizes = tuple(output_size)
        if len(sizes) == rank + 2:
            sizes = sizes[2:]
        if len(sizes) != rank:
            raise ArgumentError(call_name, f"output_size of {rank} ints", f"got {tuple(output_size)}")
        if not all(size - step < given < size + step for size, step, given in zip(usual, steps, sizes)):
            raise ArgumentError(call_name, f"output_size within stride of {tuple(usual)}", f"got {sizes}")
    if min(sizes) < 1:
        raise ShapeError(call_name, "a result of at least one element", f"got {sizes}")
    lead = input.shape[:-rank]
    flat = (prod(lead), prod(input.shape[-rank:]))
    empty = functions["zeros"](flat[0], prod(sizes), dtype=input.dtype, device=input.backend)
    return cast("Tensor", empty.scatter(1, indices.reshape(flat), input.reshape(flat)).reshape(*lead, *sizes))


@public(functional=True)
def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros, with each element where ``max_pool1d`` found it. Of elements of one place the last stays.

    ``kernel_size``, ``stride`` and ``padding`` are those of the pooling.

    Shapes: input and indices (N, C, L) or (C, L); returns (N, C, L'), or as ``output_size`` says.
    Saves:  indices.
    Errors: ShapeError and DtypeError unless indices are int64 and of input's shape; ArgumentError for an output_size
            that is further than stride from the usual one; IndexRangeError for an index that is not in the result.
    """
    return _unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


@public(functional=True)
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros, with each element where ``max_pool2d`` found it. Of elements of one place the last stays.

    ``kernel_size``, ``stride`` and ``padding`` are those of the pooling.

    Shapes: input and indices (N, C, H, W) or (C, H, W); returns (N, C, H', W'), or as ``output_size`` says.
    Saves:  indices.
    Errors: as ``max_unpool1d``.
    """
    return _unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


@public(functional=True)
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros, with each element where ``max_pool3d`` found it. Of elements of one place the last stays.

    ``kernel_size``, ``stride`` and ``padding`` are those of the pooling.

    Shapes: input and indices (N, C, D, H, W) or (C, D, H, W); returns (N, C, D', H', W'), or as ``output_size`` says.
    Saves:  indices.
    Errors: as ``max_unpool1d``.
    """
    return _unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


# Across channels


@public(functional=True)
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """``input / (k + alpha * m) ** beta``, where m is the mean of squares over ``size`` channels about each.

    Shapes: input (N, C, ...); returns the same.
    Errors: ShapeError for less than 3 dims; ArgumentError unless size is an int of at least 1.
    Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks (2012), section 3.3.
    """
    name = "local_response_norm"
    if input.ndim < 3:
        raise ShapeError(name, "an input of at least 3 dims", f"got {input.shape}")
    (size,) = repeated(name, "size", size, 1, 1)
    if not input.numel():
        return input * 1.0
    n, c, *rest = input.shape
    x = wide(input)
    squares = (x * x).reshape(n, 1, c, prod(rest))
    padded = functions["pad"](squares, (0, 0, size // 2, (size - 1) // 2))
    means = avg_pool2d(padded, (size, 1), 1).reshape(input.shape)
    return (x / (means * alpha + k) ** beta).to(input.dtype)
