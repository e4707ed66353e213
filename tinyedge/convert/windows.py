"""Convolutions and poolings with the paddings that files have: one-sided, by name, with ceilings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinyedge import ops
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor

Ints = tuple[int, ...]
CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
MAX_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


MAX_WINDOW = 2**16
"""Elements of a window that is larger than what it moves over: a file can ask for work without end."""


def per_dim(call: str, name: str, values: Sequence[int] | None, rank: int, default: int) -> Ints:
    """One number for each dim, positive."""
    result = (default,) * rank if not values else tuple(values)
    if len(result) != rank or any(value < 1 or value >= 2**31 for value in result):
        raise ShapeError(call, f"{name} must be {rank} positive numbers", f"it is {result}")
    return result


def same_pads(size: int, kernel: int, stride: int, dilation: int, upper: bool = True) -> tuple[int, int]:
    """Padding with which ``ceil(size / stride)`` windows fit; the odd one after the end, if ``upper``."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    less = total // 2
    return (less, total - less) if upper else (total - less, less)


def resolved_pads(
    call: str, sizes: Ints, kernel: Ints, stride: Ints, dilation: Ints, pads: Sequence[int] | None, auto: str
) -> list[tuple[int, int]]:
    """Before and after each dim, from explicit pads (all befores, then all afters) or a name for them."""
    rank = len(sizes)
    if math.prod(kernel) > max(MAX_WINDOW, 4 * math.prod(sizes)):
        raise ShapeError(call, f"a window that fits the input {tuple(sizes)}", f"it is {tuple(kernel)}")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return [
            same_pads(n, k, s, d, auto == "SAME_UPPER")
            for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
        ]
    if auto == "VALID" or not pads:
        return [(0, 0)] * rank
    if auto != "NOTSET" or len(pads) != 2 * rank or any(abs(pad) >= 2**31 for pad in pads):
        raise ShapeError(call, f"pads must be {2 * rank} numbers, or auto_pad a known name", f"got {pads} and {auto}")
    return list(zip(pads[:rank], pads[rank:]))


def padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """``x`` with its last dims padded; negative pads cut off."""
    flat = [pad for pair in reversed(pads) for pad in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    pads: list[tuple[int, int]],
    dilation: Ints,
    groups: int,
) -> Tensor:
    """A convolution with its own padding before and after each dim."""
    rank = x.ndim - 2
    if rank not in CONV:
        raise ShapeError("conv", "one to three dims besides batch and channels", f"got {x.shape}")
    if all(before == after >= 0 for before, after in pads):
        return CONV[rank](x, weight, bias, stride, tuple(pad for pad, _ in pads), dilation, groups)
    return CONV[rank](padded(x, pads), weight, bias, stride, 0, dilation, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    pads: list[tuple[int, int]],
    extra: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """A transposed convolution; ``pads`` are cut off, and ``extra`` is added after the end before that."""
    rank = x.ndim - 2
    if rank not in CONV_TRANSPOSE:
        raise ShapeError("conv_transpose", "one to three dims besides batch and channels", f"got {x.shape}")
    whole = all(e < max(s, d) for e, s, d in zip(extra, stride, dilation))
    if whole and all(before == after >= 0 for before, after in pads):
        cut = tuple(pad for pad, _ in pads)
        return CONV_TRANSPOSE[rank](x, weight, bias, stride, cut, extra, groups, dilation)
    y = CONV_TRANSPOSE[rank](x, weight, None, stride, 0, 0, groups, dilation)
    y = padded(y, [(-before, e - after) for (before, after), e in zip(pads, extra)])
    return y if bias is None else y + bias.reshape((-1, *(1,) * rank))


def outputs_of(size: int, span: int, stride: int, pads: tuple[int, int], ceil: bool) -> int:
    """How many windows fit; a last one that would lie in the padding alone is none."""
    room = size + sum(pads) - span
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= size + pads[0]:
        count -= 1
    return count


def max_pool(x: Tensor, kernel: Ints, stride: Ints, pads: list[tuple[int, int]], dilation: Ints, ceil: bool) -> Tensor:
    """The maximum of each window."""
    rank = x.ndim - 2
    if rank not in MAX_POOL:
        raise ShapeError("max_pool", "one to three dims besides batch and channels", f"got {x.shape}")
    if all(before == after <= k // 2 for (before, after), k in zip(pads, kernel)):
        return MAX_POOL[rank](x, kernel, stride, tuple(pad for pad, _ in pads), dilation, ceil)  # type: ignore[no-any-return]
    least = -math.inf if x.dtype.limits is None else x.dtype.limits[0]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    around = _whole(x.shape[2:], spans, stride, pads, ceil)
    return MAX_POOL[rank](padded(x, around, least), kernel, stride, 0, dilation)  # type: ignore[no-any-return]


def _whole(
    sizes: Sequence[int], spans: Sequence[int], stride: Ints, pads: list[tuple[int, int]], ceil: bool
) -> list[tuple[int, int]]:
    """Padding with which exactly the windows that there are fit."""
    result = []
    for size, span, step, pad in zip(sizes, spans, stride, pads):
        count = outputs_of(size, span, step, pad, ceil)
        if count < 1:
            raise ShapeError("pool", "a window that fits", f"the dim of {size} has {pad} of padding for {span}")
        result.append((pad[0], (count - 1) * step + span - size - pad[0]))
    return result


def avg_pool(
    x: Tensor, kernel: Ints, stride: Ints, pads: list[tuple[int, int]], dilation: Ints, ceil: bool, with_pads: bool
) -> Tensor:
    """The mean of each window; padding counts if ``with_pads``, what a ceiling adds never."""
    rank = x.ndim - 2
    if rank not in AVG_POOL:
        raise ShapeError("avg_pool", "one to three dims besides batch and channels", f"got {x.shape}")
    plain = all(d == 1 for d in dilation) and all(before == after <= k // 2 for (before, after), k in zip(pads, kernel))
    if plain:
        return AVG_POOL[rank](x, kernel, stride, tuple(pad for pad, _ in pads), ceil, with_pads)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    around = _whole(x.shape[2:], spans, stride, pads, ceil)
    sums = window_sums(x, kernel, stride, pads, dilation, ceil)
    inside = ops.ones((1, 1, *x.shape[2:]), dtype=x.dtype.computes, device=x.backend)
    if with_pads:
        inside = padded(inside, pads, 1.0)
        around = [(0, after - pad[1]) for (_, after), pad in zip(around, pads)]
    counts = _window_sums(inside, kernel, stride, around, dilation)
    return (sums / counts).to(x.dtype)


def window_sums(
    x: Tensor, kernel: Ints, stride: Ints, pads: list[tuple[int, int]], dilation: Ints, ceil: bool
) -> Tensor:
    """The sum of each window, where padding is 0."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    around = _whole(x.shape[2:], spans, stride, pads, ceil)
    sums = _window_sums(x.reshape((-1, 1, *x.shape[2:])), kernel, stride, around, dilation)
    return sums.reshape((*x.shape[:2], *sums.shape[2:]))


def _window_sums(x: Tensor, kernel: Ints, stride: Ints, around: list[tuple[int, int]], dilation: Ints) -> Tensor:
    ones = ops.ones((1, 1, *kernel), dtype=x.dtype, device=x.backend)
    return CONV[len(kernel)](padded(x, around), ones, None, stride, 0, dilation)


def global_dims(x: Tensor) -> Ints:
    """All dims but batch and channels."""
    if x.ndim < 3:
        raise ShapeError("pool", "a dim besides batch and channels", f"got {x.shape}")
    return tuple(range(2, x.ndim))


def resize_mode(rank: int, mode: str) -> str:
    """interpolate's name of the mode in so many dims."""
    found = {"linear": {1: "linear", 2: "bilinear", 3: "trilinear"}, "cubic": {2: "bicubic"}}.get(mode, {})
    if rank not in found:
        raise ArgumentError("resize", "one to three dims to resize", f"got {rank} with mode {mode!r}")
    return found[rank]


__all__ = [
    "MAX_POOL",
    "avg_pool",
    "conv",
    "conv_transpose",
    "global_dims",
    "max_pool",
    "padded",
    "per_dim",
    "resize_mode",
    "resolved_pads",
    "same_pads",
    "window_sums",
]
