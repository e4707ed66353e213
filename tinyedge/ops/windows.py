"""Windows of images as columns of a matrix, and their sums back in the image: unfold and fold."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from random import Random
from typing import Any

import numpy as np

from tinyedge.autograd.registry import public
from tinyedge.errors import ShapeError
from tinyedge.ir.spec import Device, KernelSpec, lines_grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.shapes import Shape, pair, window_outputs
from tinyedge.tensor import Tensor, call

Array = np.ndarray[Any, Any]
Size = int | Sequence[int]
Pair = tuple[int, int]


def _positions(size: Shape, attrs: Any) -> Pair:
    """How many windows of an image lie below and beside each other."""
    high, wide = (
        window_outputs(
            size[k], attrs["kernel"][k], attrs["stride"][k], attrs["padding"][k], attrs["padding"][k],
            attrs["dilation"][k],
        )
        for k in (0, 1)
    )  # fmt: skip
    return high, wide


def _kernel(step: Step, device: Device, kernel: str, image: str, columns: str) -> list[KernelSpec]:
    """One work-item for each element that is written. The window is part of the source: a model has few."""
    attrs, shape = step.attrs, step.slots[image].shape
    high, wide = _positions(shape[2:], attrs)
    source, target = (image, columns) if kernel == "unfold" else (columns, image)
    columns_of = shape[3] if kernel == "fold" else wide
    lines = step.slots[target].numel // max(columns_of, 1)
    sizes = {"lines": lines, "in_h": shape[2], "in_w": shape[3], "out_h": high, "out_w": wide}
    window = (
        f"{name}_{axis} = {attrs[name][k]}"
        for name in ("kernel", "stride", "padding", "dilation")
        for k, axis in enumerate("hw")
    )
    return [
        KernelSpec(
            kernel, "windows.cl.jinja", (source, target), *lines_grid(lines, columns_of, device.group()), sizes,
            constants={
                "source": source, "target": target, "real": step.slots[target].dtype.ctype, "window": ", ".join(window),
            },
            hooked=(source, target),
        )
    ]  # fmt: skip


def _unfolded(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """The columns of ``x`` (NumPy)."""
    n, c = x.shape[:2]
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    spans = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilation))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return np.asarray(windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * prod(kernel), prod(windows.shape[2:4])))


def _folded(columns: Array, size: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """The sums of ``columns`` at the pixels of images of ``size`` (NumPy)."""
    n, rows = columns.shape[:2]
    attrs = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    high, wide = _positions(size, attrs)
    taps = columns.reshape(n, rows // prod(kernel), *kernel, high, wide)
    padded = np.zeros((*taps.shape[:2], size[0] + 2 * padding[0], size[1] + 2 * padding[1]), columns.dtype)
    for i, j in np.ndindex(*kernel):
        top, left = i * dilation[0], j * dilation[1]
        down = slice(top, top + stride[0] * high, stride[0])
        padded[:, :, down, left : left + stride[1] * wide : stride[1]] += taps[:, :, i, j]
    return padded[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]


class Unfold(Op):
    signature = "(n,c,h,w)->(n,c*kh*kw,l)"
    operations = 0
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    errors = (
        ErrorSample(lambda te: te.nn.functional.unfold(te.zeros(1, 4, 4), 5), ShapeError, "at least one window"),
        ErrorSample(lambda te: te.nn.functional.unfold(te.zeros(4, 4), 2), ShapeError, "(N, C, H, W)"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        n, c, *size = x.shape
        positions = _positions(tuple(size), attrs)
        if min(positions) < 1:
            raise ShapeError(cls.name, "at least one window", f"input is {x.shape} and kernel_size {attrs['kernel']}")
        return (Spec(x.dtype, (n, c * prod(attrs["kernel"]), prod(positions))),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "unfold", "x", "y")

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "fold", "dx", "dy")

    @staticmethod
    def forward(x: Array, *, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
        return _unfolded(x, kernel, stride, padding, dilation)

    @staticmethod
    def backward(
        dy: Array, *, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, shapes: dict[str, Shape]
    ) -> tuple[Array]:
        return (_folded(dy, shapes["dx"][2:], kernel, stride, padding, dilation),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape, attrs = _sample(random)
        return Sample((shape,), attrs)


def _sample(random: Random) -> tuple[Shape, dict[str, Any]]:
    attrs: dict[str, Any] = {}
    for name, choices in (("kernel", (1, 2, 3)), ("stride", (1, 1, 2, 3)), ("padding", (0, 1)), ("dilation", (1, 2))):
        attrs[name] = (random.choice(choices), random.choice(choices))
    least = [(k - 1) * d + 1 for k, d in zip(attrs["kernel"], attrs["dilation"])]
    size = (least[0] + random.randint(0, 4), least[1] + random.randint(0, 7))
    return (random.choice((0, 1, 2)), random.choice((1, 3)), *size), attrs


class Fold(Op):
    """The attribute ``size`` is the image's."""

    signature = "(n,c*kh*kw,l)->(n,c,h,w)"
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    errors = (
        ErrorSample(lambda te: te.nn.functional.fold(te.zeros(1, 4, 3), 4, 2), ShapeError, "9 windows"),
        ErrorSample(lambda te: te.nn.functional.fold(te.zeros(1, 5, 9), 4, 2), ShapeError, "multiple of 4"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        n, rows, length = x.shape
        taps, positions = prod(attrs["kernel"]), _positions(attrs["size"], attrs)
        if not rows or rows % taps:
            raise ShapeError(cls.name, f"columns of a multiple of {taps} rows", f"input is {x.shape}")
        if min(positions) < 1 or prod(positions) != length:
            raise ShapeError(
                cls.name, f"an input of {max(prod(positions), 0)} windows for output_size={attrs['size']}",
                f"got {x.shape}",
            )  # fmt: skip
        return (Spec(x.dtype, (n, rows // taps, *attrs["size"])),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "fold", "y", "x")

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "unfold", "dy", "dx")

    @staticmethod
    def forward(x: Array, *, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
        return _folded(x, size, kernel, stride, padding, dilation)

    @staticmethod
    def backward(dy: Array, *, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> tuple[Array]:
        return (_unfolded(dy, kernel, stride, padding, dilation),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        (n, c, h, w), attrs = _sample(random)
        columns = (n, c * prod(attrs["kernel"]), prod(_positions((h, w), attrs)))
        return Sample((columns,), {"size": (h, w), **attrs})


def _windows(call_name: str, kernel_size: Size, dilation: Size, padding: Size, stride: Size) -> dict[str, Any]:
    return {
        "kernel": pair(call_name, "kernel_size", kernel_size, 1),
        "stride": pair(call_name, "stride", stride, 1),
        "padding": pair(call_name, "padding", padding),
        "dilation": pair(call_name, "dilation", dilation, 1),
    }


@public(top=False, functional=True, module="Unfold", arguments="kernel_size, dilation, padding, stride")
def unfold(input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> Tensor:
    """Every window of each image as a column.

    The window has ``kernel_size`` places in each dim, ``dilation`` apart; it moves by ``stride`` over the image, to
    which ``padding`` zeros are added at either end.

    Shapes: input (N, C, H, W) or (C, H, W); returns (N, C * kh * kw, L), or without N, where L is the number of places
            of the window.
    Errors: ShapeError if no window fits.
    """
    if input.ndim not in (3, 4) or 0 in input.shape[-3:]:
        raise ShapeError(
            "unfold", "an input (N, C, H, W) or (C, H, W), empty at most in N", f"got {input.shape}", "Unsqueeze it."
        )
    attrs = _windows("unfold", kernel_size, dilation, padding, stride)
    y = call(Unfold, input.unsqueeze(0) if input.ndim == 3 else input, **attrs)
    return y.squeeze(0) if input.ndim == 3 else y


@public(top=False, functional=True, module="Fold", arguments="output_size, kernel_size, dilation, padding, stride")
def fold(
    input: Tensor, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """Images in which each pixel is the sum of all elements that ``unfold`` takes from there.

    The window has ``kernel_size`` places in each dim, ``dilation`` apart; it moves by ``stride`` over the image, to
    which ``padding`` zeros are added at either end.

    Shapes: input (N, C * kh * kw, L) or without N; returns (N, C, *output_size).
    Errors: ShapeError unless L is the number of places of the window in an image of output_size.
    """
    if input.ndim not in (2, 3):
        raise ShapeError("fold", "an input (N, C * kh * kw, L) or (C * kh * kw, L)", f"got {input.shape}")
    attrs = _windows("fold", kernel_size, dilation, padding, stride)
    size = pair("fold", "output_size", output_size, 1)
    y = call(Fold, input.unsqueeze(0) if input.ndim == 2 else input, size=size, **attrs)
    return y.squeeze(0) if input.ndim == 2 else y
