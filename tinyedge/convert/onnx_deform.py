"""ONNX's deformable convolution: each place of a window is read where its offset says."""

from __future__ import annotations

import numpy as np

from tinyedge import ops
from tinyedge.convert.onnx_registry import ONNX, Ints
from tinyedge.errors import ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor


@ONNX.op("DeformConv", since=19, trained=("weight", "bias"))
def deform_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Ints = (1, 1),
    group: int = 1,
    kernel_shape: Ints | None = None,
    offset_group: int = 1,
    pads: Ints = (0, 0, 0, 0),
    strides: Ints = (1, 1),
) -> Tensor:
    """Shapes: x (batch, channels, height, width); offset (batch, offset_group * places * 2, out height, out width), of
    each place down and across; mask (batch, offset_group * places, out height, out width).
    """
    if x.ndim != 4 or weight.ndim != 4 or offset.ndim != 4:
        raise ShapeError("DeformConv", "images: an input, a weight and offsets of 4 dims", f"got {x.shape}")
    samples, channels, height, width = x.shape
    made, per_group, down, across = weight.shape
    places, lengths = down * across, offset.shape[2:]
    sizes = tuple(
        (size + before + after - step * (long - 1) - 1) // stride + 1
        for size, before, after, step, long, stride in zip(
            (height, width), pads[:2], pads[2:], dilations, (down, across), strides
        )
    )
    if (
        min(group, offset_group) < 1
        or len(pads) != 4
        or channels % offset_group
        or channels != per_group * group
        or made % group
        or (kernel_shape is not None and tuple(kernel_shape) != (down, across))
        or offset.shape != (samples, offset_group * places * 2, *sizes)
        or (mask is not None and mask.shape != (samples, offset_group * places, *sizes))
    ):
        raise ShapeError(
            "DeformConv", f"offsets and masks for {places} places of {offset_group} groups over {sizes}",
            f"got {x.shape}, {weight.shape}, {offset.shape}" + ("" if mask is None else f" and {mask.shape}"),
        )  # fmt: skip
    moves = offset.reshape((samples, offset_group, places, 2, *lengths))
    grids = []
    for dim, size in enumerate((height, width)):
        starts = (np.arange(lengths[dim]) * strides[dim] - pads[dim]).reshape((-1, 1) if dim == 0 else (1, -1))
        steps = (np.arange(places) // across if dim == 0 else np.arange(places) % across) * dilations[dim]
        stand = tensor((starts + steps.reshape(-1, 1, 1)).astype(np.float32), dtype=x.dtype, device=x.backend)
        grids.append(((moves[:, :, :, dim] + stand) * 2.0 + 1.0) / float(size) - 1.0)
    grid = ops.stack(grids[::-1], -1).reshape((samples * offset_group, places * lengths[0], lengths[1], 2))
    parts = x.reshape((samples * offset_group, channels // offset_group, height, width))
    read = F.grid_sample(parts, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if mask is not None:
        read = read * mask.reshape((samples * offset_group, 1, places * lengths[0], lengths[1]))
    rows = read.reshape((samples, group, per_group * places, lengths[0] * lengths[1]))
    y = ops.matmul(weight.reshape((group, made // group, per_group * places)), rows)
    y = y.reshape((samples, made, *lengths))
    return y if bias is None else y + bias.reshape((1, made, 1, 1))


__all__: list[str] = []
