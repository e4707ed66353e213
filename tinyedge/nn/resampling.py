"""Layers that resize."""

from __future__ import annotations

from collections.abc import Sequence

from tinyedge.nn import functional as F
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor


class Upsample(Module):
    """The input resized, to ``size`` or by ``scale_factor``, as ``F.interpolate`` does.

    ``mode`` is "nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear" or "area". With
    ``align_corners`` the outermost elements of input and result lie on each other. ``recompute_scale_factor``: the
    scale follows from the sizes, which are whole numbers.

    Shapes: (batch, channels, ...) with one to three dims more; returns (batch, channels, *size).
    Errors: ArgumentError unless one of size and scale_factor is given, or for another mode; ShapeError for one that
            does not fit the dims.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        if isinstance(scale_factor, (tuple, list)):
            self.scale_factor: float | Sequence[float] | None = tuple(float(factor) for factor in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None  # type: ignore[arg-type]
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        text = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{text}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Images resized, to ``size`` or by ``scale_factor``: each result is the nearest element.

    Shapes: (batch, channels, height, width); returns (batch, channels, *size).
    Errors: ArgumentError unless one of size and scale_factor is given.
    """

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
    ) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Images resized bilinearly, to ``size`` or by ``scale_factor``, with the corners of both on each other.

    Shapes: (batch, channels, height, width); returns (batch, channels, *size).
    Errors: ArgumentError unless one of size and scale_factor is given.
    """

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
    ) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
