"""Fractional max pooling: windows of one size, whose places are drawn so that they fill the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyedge.autograd.registry import public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ops.creation import arange
from tinyedge.ops.indexing import gather
from tinyedge.ops.movement import cat
from tinyedge.ops.random import rand
from tinyedge.ops.reduce import max as largest_along
from tinyedge.ops.rounding import floor
from tinyedge.tensor import Tensor

Size = int | Sequence[int]


def _sizes(name: str, what: str, rank: int, value: Any) -> tuple[Any, ...]:
    sizes = (value,) * rank if isinstance(value, (int, float)) else tuple(value)
    if len(sizes) != rank:
        raise ArgumentError(name, f"one {what} or {rank}", f"got {value!r}")
    return sizes


def _starts(samples: Tensor, size: int, kernel: int, count: int) -> Tensor:
    """Where the windows begin: (batch, channels, count)."""
    last = size - kernel
    if count == 1:
        return (samples * 0).long().unsqueeze(-1) + last
    ratio = last / (count - 1)
    places = arange(count - 1, dtype=samples.dtype, device=samples.backend)
    u = samples.unsqueeze(-1)
    starts = (floor((places + u) * ratio) - floor(u * ratio)).long()
    end: Tensor = starts[..., :1] * 0 + last
    return cat([starts, end], -1)


def _pool(
    name: str, rank: int, input: Tensor, kernel_size: Size, output_size: Size | None, output_ratio: Any,
    return_indices: bool, samples: Tensor | None,
) -> Any:  # fmt: skip
    if (output_size is None) == (output_ratio is None):
        raise ArgumentError(name, "output_size or output_ratio", "got both" if output_size is not None else "got none")
    if input.ndim not in (rank + 1, rank + 2) or 0 in input.shape[1:]:
        raise ShapeError(
            name, f"an input of {rank + 1} or {rank + 2} dims, of which only the batch may be 0", f"got {input.shape}"
        )
    kernel = _sizes(name, "kernel_size", rank, kernel_size)
    planes = input.shape[-rank:]
    if output_size is None:
        ratios = _sizes(name, "output_ratio", rank, output_ratio)
        if not all(0 < ratio < 1 for ratio in ratios):
            raise ArgumentError(name, "an output_ratio between 0 and 1", f"got {output_ratio}")
        output = tuple(int(size * ratio) for size, ratio in zip(planes, ratios, strict=True))
    else:
        output = _sizes(name, "output_size", rank, output_size)
    for size, window, count in zip(planes, kernel, output, strict=True):
        if window < 1 or count < 1 or count + window - 1 > size:
            raise ArgumentError(
                name, f"kernel_size and output_size of at least 1 that fit into {planes}",
                f"got kernel_size={kernel}, output_size={output}",
            )  # fmt: skip
    x = input if input.ndim == rank + 2 else input.unsqueeze(0)
    lead = x.shape[:2]
    if samples is None:
        samples = rand(*lead, rank, dtype=input.dtype, device=input.backend)
    elif samples.ndim != 3 or samples.shape[0] < lead[0] or samples.shape[1:] != (lead[1], rank):
        raise ShapeError(name, f"_random_samples of shape {(*lead, rank)}", f"got {samples.shape}")
    else:
        samples = samples[: lead[0]]
    order = (1, 0) if rank == 2 else (0, 1, 2)  # of the samples: as PyTorch takes them
    places: Any = None
    for axis in range(rank):
        starts = _starts(samples[..., order[axis]], planes[axis], kernel[axis], output[axis])
        taps = starts.unsqueeze(-1) + arange(kernel[axis], device=input.backend)  # (batch, channels, count, taps)
        shape = [*lead, *[1] * (2 * rank)]
        shape[2 + axis], shape[2 + rank + axis] = output[axis], kernel[axis]
        taps = taps.reshape(shape)
        places = taps if places is None else places * planes[axis] + taps
    flat = x.reshape(*lead, -1)
    windows = gather(flat, 2, places.reshape(*lead, -1)).reshape(*places.shape[: 2 + rank], -1)
    y, chosen = largest_along(windows, -1)
    single = input.ndim == rank + 1
    y = y.squeeze(0) if single else y
    if not return_indices:
        return y
    indices = gather(places.reshape(windows.shape), -1, chosen.unsqueeze(-1)).squeeze(-1)
    return y, indices.squeeze(0) if single else indices


@public(functional=True)
def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The maxima of windows whose places are drawn for each channel, so that the output has any smaller size.

    Shapes: input (N, C, H, W) or (C, H, W); _random_samples (N, C, 2), in [0, 1); returns (N, C, H', W'), and with
            return_indices their places in H * W.
    Errors: ArgumentError unless one of output_size and output_ratio is given, and the windows fit.
    Source: Graham, arXiv:1412.6071.
    """
    return _pool(
        "fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


@public(functional=True)
def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The maxima of windows whose places are drawn for each channel, so that the output has any smaller size.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); _random_samples (N, C, 3), in [0, 1); returns (N, C, D', H', W'), and
            with return_indices their places in D * H * W.
    Errors: as ``fractional_max_pool2d``.
    Source: Graham, arXiv:1412.6071.
    """
    return _pool(
        "fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )
