"""Convolution of sequences, images and volumes, with stride, padding, dilation and groups."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from random import Random
from typing import Any, cast

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import FORWARD, ErrorSample, Op, Sample, Step, sum_of
from tinyedge.ir.values import Spec
from tinyedge.kernels.lowering import reduce_kernels
from tinyedge.ops.conv_lowering import ConvLowering, Pair
from tinyedge.ops.matmul import check_quantised
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call


class Conv2d(Op):
    """``padding`` is (top, bottom, left, right)."""

    signature = "(n,c,h,w),(o,c/groups,kh,kw),(o)?->(n,o,oh,ow)"
    domain = {"x": (-2.0, 2.0), "weight": (-1.0, 1.0), "bias": (-1.0, 1.0)}
    differentiable = ("x", "weight", "bias")
    saves = ("x", "weight")
    quantised = ("weight",)
    rtol = 1e-4
    atol = 2e-5  # sums over patches, and over positions, in different orders

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, weight, bias = inputs
        assert x is not None
        assert weight is not None
        groups = attrs["groups"]
        n, c = x.shape[:2]
        o, cg = weight.shape[:2]
        if c != cg * groups or o % groups:
            raise ShapeError(
                "conv2d", f"signature {cls.signature} needs {cg * groups} input channels for groups={groups}",
                f"input is {x.shape} and weight {weight.shape}",
            )  # fmt: skip
        if not o:
            raise ShapeError("conv2d", "a weight of at least one output channel", f"weight is {weight.shape}")
        if bias is not None and bias.shape != (o,):
            raise ShapeError("conv2d", f"a bias of shape ({o},)", f"got {bias.shape}")
        oh, ow = output_size(x.shape, weight.shape, attrs)
        if oh < 1 or ow < 1:
            raise ShapeError(
                "conv2d", "a kernel that fits into the padded input",
                f"input is {x.shape}, weight {weight.shape}, padding {attrs['padding']}, dilation {attrs['dilation']}",
            )  # fmt: skip
        return (Spec(x.dtype, (n, o, oh, ow)),)

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        return tuple(name for name, other in (("x", "weight"), ("weight", "x")) if other in needed)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        bias = "bias" if step.slots["bias"] is not None else None
        return ConvLowering(step, device, "x", "weight", "y").forward(bias)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        kernels = []
        if step.wants("dx"):
            kernels += ConvLowering(step, device, "dx", "weight", "dy").input_gradient()
        if step.wants("dweight"):
            kernels += ConvLowering(step, device, "x", "dweight", "dy").weight_gradient()
        if step.wants("dbias"):
            kernels += reduce_kernels(step, device, "sum", {"dbias": "dy"}, step.slots["dy"].shape, (0, 2, 3))
        return kernels

    @staticmethod
    def forward(
        x: Any, weight: Any, bias: Any = None, *, stride: Pair, padding: tuple[int, ...], dilation: Pair, groups: int
    ) -> Any:
        patches = windows_of(x, weight.shape[2:], stride, padding, dilation)
        n, _, kh, kw, oh, ow = patches.shape
        o, cg = weight.shape[:2]
        columns = patches.reshape(n, groups, cg * kh * kw, oh * ow)
        y = weight.reshape(1, groups, o // groups, cg * kh * kw) @ columns
        y = y.reshape(n, o, oh, ow)
        return y if bias is None else y + bias[:, None, None]

    @staticmethod
    def backward(
        dy: Any, x: Any, weight: Any, *, stride: Pair, padding: tuple[int, ...], dilation: Pair, groups: int,
        needs: tuple[bool, ...], shapes: dict[str, Shape],
    ) -> tuple[Any, ...]:  # fmt: skip
        n, o, oh, ow = dy.shape
        top, bottom, left, right = padding
        flat = dy.reshape(n, groups, o // groups, oh * ow)
        dx = dweight = None
        if needs[0]:
            cg, kh, kw = weight.shape[1:]
            h, w = shapes["dx"][2:]
            columns = np.swapaxes(weight.reshape(1, groups, o // groups, cg * kh * kw), -1, -2) @ flat
            columns = columns.reshape(n, groups * cg, kh, kw, oh, ow)
            padded = np.zeros((n, groups * cg, h + top + bottom, w + left + right), dy.dtype)
            for i in range(kh):
                for j in range(kw):
                    rows = slice(i * dilation[0], i * dilation[0] + stride[0] * oh, stride[0])
                    cols = slice(j * dilation[1], j * dilation[1] + stride[1] * ow, stride[1])
                    padded[:, :, rows, cols] += columns[:, :, i, j]
            dx = padded[:, :, top : top + h, left : left + w]
        if needs[1]:
            cg, kh, kw = shapes["dweight"][1:]
            patches = windows_of(x, (kh, kw), stride, padding, dilation)
            columns = patches.reshape(n, groups, cg * kh * kw, oh * ow)
            dweight = (flat @ np.swapaxes(columns, -1, -2)).sum(axis=0).reshape(shapes["dweight"])
        return dx, dweight, sum_of(dy, (0, 2, 3))

    @classmethod
    def sample(cls, random: Random) -> Sample:
        groups = random.choice((1, 1, 2, 3))
        cg = random.choice((1, 1, 2, 5))
        og = random.choice((1, 1, 2, 7))
        kh, kw = (random.choice((1, 1, 2, 3, 3)) for _ in range(2))
        stride = (random.choice((1, 1, 2, 3)), random.choice((1, 1, 2)))
        dilation = (random.choice((1, 1, 2)), random.choice((1, 1, 2)))
        padding = tuple(random.choice((0, 1, 2)) for _ in range(4))
        h = (kh - 1) * dilation[0] + random.choice((1, 2, 6, 11))
        w = (kw - 1) * dilation[1] + random.choice((1, 2, 6, 18))
        bias = random.choice((None, (groups * og,)))
        return Sample(
            ((random.choice((1, 1, 2)), groups * cg, h, w), (groups * og, cg, kh, kw), bias),
            {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        )

    @classmethod
    def flops(cls, step: Step) -> int:
        # Forward, and each of the two products in backward, meets every output element with its whole patch.
        weight = step.slots["dweight" if step.wants("dweight") else "weight"]
        outputs = int(step.slots["y" if step.direction == FORWARD else "dy"].numel)
        products = sum(name != "dbias" for name in step.writes)
        patch = prod(weight.shape[1:]) if products else 0
        return outputs * (2 * patch * products + step.wants("dbias"))


def output_size(x: Shape, weight: Shape, attrs: Any) -> Pair:
    """Height and width of a convolution's output."""
    (sh, sw), (top, bottom, left, right), (dh, dw) = attrs["stride"], attrs["padding"], attrs["dilation"]
    return (
        shapes.window_outputs(x[2], weight[2], sh, top, bottom, dh),
        shapes.window_outputs(x[3], weight[3], sw, left, right, dw),
    )


def windows_of(x: Any, kernel: Sequence[int], stride: Pair, padding: tuple[int, ...], dilation: Pair) -> Any:
    """(n, c, kh, kw, oh, ow): for each kernel position, what it meets at each output position (NumPy)."""
    top, bottom, left, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    spans = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return windows.transpose(0, 1, 4, 5, 2, 3)


def check_operands(call_name: str, rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    """Errors: ShapeError unless input and weight have ``rank`` dims of places, DtypeError unless they are floats of one
    dtype, ArgumentError unless groups is a positive int.
    """
    places = ("w", "h,w", "d,h,w")[rank - 1]
    if input.ndim not in (rank + 1, rank + 2) or weight.ndim != rank + 2:
        raise ShapeError(
            call_name, f"input (n,c,{places}) or (c,{places}) and a weight of {rank + 2} dims",
            f"input is {input.shape} and weight {weight.shape}",
        )  # fmt: skip
    dtypes = [x.dtype for x in (input, weight, bias) if x is not None]
    if weight.dtype.blocks is not None:
        check_quantised(call_name, input, weight, rank + 2)
        dtypes.remove(weight.dtype)
    if len(set(dtypes)) > 1 or not input.is_floating_point():
        raise DtypeError(
            call_name,
            "input, weight and bias of one floating-point dtype",
            "got " + ", ".join(d.name for d in dtypes),
            "Convert one of them with .to(dtype).",
        )
    if not isinstance(groups, int) or groups < 1:
        raise ArgumentError(call_name, "groups of at least 1", f"got {groups}")


def _padding(
    call_name: str, padding: int | Sequence[int] | str, weight: Shape, stride: Shape, dilation: Shape
) -> tuple[tuple[int, int], ...]:
    """(before, after) of each dim."""
    if not isinstance(padding, str):
        return tuple((amount, amount) for amount in shapes.repeated(call_name, "padding", padding, len(stride)))
    if padding not in ("same", "valid"):
        raise ArgumentError(call_name, 'padding must be ints, "same" or "valid"', f"got {padding!r}")
    if padding == "valid":
        return ((0, 0),) * len(stride)
    if max(stride) > 1:
        raise ArgumentError(call_name, 'padding="same" needs stride 1', f"got stride {stride}")
    spans = [step * (size - 1) for step, size in zip(dilation, weight[2:], strict=True)]
    return tuple((span // 2, span - span // 2) for span in spans)


@public(functional=True)
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of images with ``weight``.

    On a CPU 3x3 filters with stride 1 go by Winograd's transforms where that is faster. Rounding errors are then about
    five times those of the direct sum, 2e-6 of the results' spread over 64 channels; TINYEDGE_WINOGRAD=0 turns it off.
    What is 0 where all that it is summed of is 0 may come as 7e-7 of the largest, in one of four such places beside
    others: turn it off where the sign of a gradient is taken, as by adversarial samples.

    Shapes: input (n, c, h, w) or (c, h, w); weight (o, c / groups, kh, kw); bias (o,) or none; returns (n, o, oh, ow)
            with oh = (h + 2 padding - dilation (kh - 1) - 1) // stride + 1. padding="same" keeps h and w at stride 1,
            "valid" is 0.
    Saves:  input and weight.
    Errors: ShapeError if channels, groups or the kernel do not fit; DtypeError if the dtypes differ.
    """
    check_operands("conv2d", 2, input, weight, bias, groups)
    steps = shapes.pair("conv2d", "stride", stride, 1)
    spread = shapes.pair("conv2d", "dilation", dilation, 1)
    (top, bottom), (left, right) = _padding("conv2d", padding, weight.shape, steps, spread)
    around = (top, bottom, left, right)
    x = functions["unsqueeze"](input, 0) if input.ndim == 3 else input
    y = call(Conv2d, x, weight, bias, stride=steps, padding=around, dilation=spread, groups=int(groups))
    return functions["squeeze"](y, 0) if input.ndim == 3 else y


@public(functional=True)
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of sequences with ``weight``: conv2d over images of height one.

    ``stride`` is from one window to the next, ``padding`` zeros at either end, ``dilation`` from one tap to the next;
    ``bias`` is added to each output channel.

    Shapes: input (n, c, w) or (c, w); weight (o, c / groups, kw); returns (n, o, ow).
    Errors: as ``conv2d``.
    """
    check_operands("conv1d", 1, input, weight, bias, groups)
    (step,) = shapes.repeated("conv1d", "stride", stride, 1, 1)
    (spread,) = shapes.repeated("conv1d", "dilation", dilation, 1, 1)
    around: Any = padding
    if not isinstance(padding, str):
        around = (0, *shapes.repeated("conv1d", "padding", padding, 1))
    unsqueeze = functions["unsqueeze"]
    y = conv2d(unsqueeze(input, -2), unsqueeze(weight, -2), bias, (1, step), around, (1, spread), groups)
    return cast("Tensor", functions["squeeze"](y, -2))


@public(functional=True)
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of volumes with ``weight``: conv2d over the images of the results, with the kd slices that each
    of them meets as its channels. So the input is copied kd times.

    ``stride`` is from one window to the next, ``padding`` zeros at either end, ``dilation`` from one tap to the next;
    ``bias`` is added to each output channel.

    Shapes: input (n, c, d, h, w) or (c, d, h, w); weight (o, c / groups, kd, kh, kw); returns (n, o, od, oh, ow), each
            as in ``conv2d``.
    Saves:  kd copies of the input, and weight.
    Errors: as ``conv2d``.
    """
    check_operands("conv3d", 3, input, weight, bias, groups)
    steps = shapes.repeated("conv3d", "stride", stride, 3, 1)
    spread = shapes.repeated("conv3d", "dilation", dilation, 3, 1)
    around = _padding("conv3d", padding, weight.shape, steps, spread)
    unsqueeze, squeeze, pad, permute = (functions[name] for name in ("unsqueeze", "squeeze", "pad", "permute"))
    x = unsqueeze(input, 0) if input.ndim == 4 else input
    n, c, d = x.shape[:3]
    o, cg, kd, kh, kw = weight.shape
    od = shapes.window_outputs(d, kd, steps[0], *around[0], spread[0])
    if not kd or od < 1:
        raise ShapeError(
            "conv3d", "a kernel that fits into the padded input",
            f"input is {input.shape}, weight {weight.shape}, padding {around}, dilation {spread}",
        )  # fmt: skip
    flat = [amount for pair in reversed(around) for amount in pair]
    # What pads one side only is added here; what pads both alike the kernels of conv2d look up.
    uneven = any(before != after for before, after in around[1:])
    before = flat if uneven else [0, 0, 0, 0, *flat[4:]]
    x = permute(pad(x, before) if any(before) else x, (0, 2, 1, 3, 4))
    last = steps[0] * (od - 1) + 1
    slices = [x[:, i * spread[0] : i * spread[0] + last : steps[0]] for i in range(kd)]
    images = slices[0] if kd == 1 else functions["stack"](slices, 3)
    y = conv2d(
        images.reshape(n * od, c * kd, *x.shape[3:]), weight.reshape(o, cg * kd, kh, kw), bias, steps[1:],
        0 if uneven else (around[1][0], around[2][0]), spread[1:], groups,
    )  # fmt: skip
    y = permute(y.reshape(n, od, *y.shape[1:]), (0, 2, 1, 3, 4)).contiguous()
    return cast("Tensor", squeeze(y, 0) if input.ndim == 4 else y)


Conv2d.errors = (
    ErrorSample(lambda te: te.conv2d(te.zeros(1, 3, 8, 8), te.zeros(4, 2, 3, 3)), ShapeError, "2 input channels"),
    ErrorSample(lambda te: te.conv2d(te.zeros(1, 3, 2, 2), te.zeros(4, 3, 3, 3)), ShapeError, "fits into the padded"),
    ErrorSample(
        lambda te: te.conv2d(te.zeros(1, 3, 8, 8), te.zeros(4, 3, 3, 3), stride=2, padding="same"),
        ArgumentError, "needs stride 1",
    ),
    ErrorSample(lambda te: te.conv1d(te.zeros(1, 3, 8), te.zeros(4, 3, 3, 3)), ShapeError, "weight of 3 dims"),
    ErrorSample(lambda te: te.conv3d(te.zeros(1, 3, 2, 4, 4), te.zeros(4, 3, 3, 3, 3)), ShapeError, "fits into the"),
    ErrorSample(lambda te: te.conv2d(te.zeros(1, 3, 8, 8), te.zeros(4, 3, 3, 3), groups=0), ArgumentError, "groups"),
)  # fmt: skip
