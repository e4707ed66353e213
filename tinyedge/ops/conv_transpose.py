"""Transposed convolution of sequences, images and volumes: what a convolution's input gradient computes, as a layer.

The kernels are those of ``conv2d`` with the input and the output in each other's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from random import Random
from typing import Any, cast

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import FORWARD, ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.conv import Conv2d, check_operands, windows_of
from tinyedge.ops.conv_lowering import ConvLowering, Pair
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call


class ConvTranspose2d(Op):
    """``padding`` is (top, bottom, left, right): what is cut off the result. ``output_padding`` adds rows and columns
    behind it, which the filters may reach.
    """

    signature = "(n,c,h,w),(c,o/groups,kh,kw)->(n,o,oh,ow)"
    domain = {"x": (-2.0, 2.0), "weight": (-1.0, 1.0)}
    differentiable = ("x", "weight")
    saves = ("x", "weight")
    quantised = ("weight",)
    rtol = 1e-4
    atol = 2e-5  # sums over patches, and over positions, in different orders

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, weight = inputs
        assert x is not None
        assert weight is not None
        n, c, h, w = x.shape
        groups = attrs["groups"]
        if c != weight.shape[0] or c % groups:
            raise ShapeError(
                "conv_transpose2d", f"signature {cls.signature} needs input channels that groups={groups} divides",
                f"input is {x.shape} and weight {weight.shape}",
            )  # fmt: skip
        if not prod(weight.shape):
            raise ShapeError("conv_transpose2d", "a weight of at least one element", f"weight is {weight.shape}")
        top, bottom, left, right = attrs["padding"]
        (sy, sx), (dy, dx), (more_y, more_x) = attrs["stride"], attrs["dilation"], attrs["output_padding"]
        oh = (h - 1) * sy - top - bottom + dy * (weight.shape[2] - 1) + more_y + 1
        ow = (w - 1) * sx - left - right + dx * (weight.shape[3] - 1) + more_x + 1
        if min(h, w, oh, ow) < 1:
            raise ShapeError(
                "conv_transpose2d", "an input and a result of at least one pixel",
                f"input is {x.shape}, weight {weight.shape}, padding {attrs['padding']}: the result is {oh} x {ow}",
                "Use less padding.",
            )  # fmt: skip
        return (Spec(x.dtype, (n, weight.shape[1] * groups, oh, ow)),)

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        return Conv2d.saves_for(needed)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return ConvLowering(step, device, "y", "weight", "x").input_gradient()

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        kernels = []
        if step.wants("dx"):
            kernels += ConvLowering(step, device, "dy", "weight", "dx").forward()
        if step.wants("dweight"):
            kernels += ConvLowering(step, device, "dy", "dweight", "x").weight_gradient()
        return kernels

    @staticmethod
    def forward(
        x: Any,
        weight: Any,
        *,
        stride: Pair,
        padding: tuple[int, ...],
        output_padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Any:
        (shape,) = ConvTranspose2d.infer(
            Spec(x.dtype, x.shape), Spec(weight.dtype, weight.shape), stride=stride, padding=padding,
            output_padding=output_padding, dilation=dilation, groups=groups,
        )  # fmt: skip
        y, _, _ = Conv2d.backward(
            x, None, weight, stride=stride, padding=padding, dilation=dilation, groups=groups, needs=(True, False),
            shapes={"dx": shape.shape},
        )  # fmt: skip
        return y

    @staticmethod
    def backward(
        dy: Any, x: Any, weight: Any, *, stride: Pair, padding: tuple[int, ...], output_padding: Pair, dilation: Pair,
        groups: int, needs: tuple[bool, ...], shapes: dict[str, Shape],
    ) -> tuple[Any, ...]:  # fmt: skip
        dx = dweight = None
        if needs[0]:
            h, w = shapes["dx"][2:]
            whole = Conv2d.forward(dy, weight, None, stride=stride, padding=padding, dilation=dilation, groups=groups)
            dx = whole[:, :, :h, :w]  # more than a stride of output_padding has room for further windows
        if needs[1]:
            kh, kw = shapes["dweight"][2:]
            n, c, h, w = x.shape
            patches = windows_of(dy, (kh, kw), stride, padding, dilation)[..., :h, :w]
            columns = patches.reshape(n, groups, prod(shapes["dweight"][1:]), h * w)
            dweight = (x.reshape(n, groups, c // groups, h * w) @ columns.swapaxes(-1, -2)).sum(axis=0)
            dweight = dweight.reshape(shapes["dweight"])
        return dx, dweight

    @classmethod
    def sample(cls, random: Random) -> Sample:
        groups = random.choice((1, 1, 2, 3))
        cg = random.choice((1, 1, 2, 5))
        og = random.choice((1, 1, 2, 7))
        kh, kw = (random.choice((1, 1, 2, 3, 3)) for _ in range(2))
        stride = (random.choice((1, 1, 2, 3)), random.choice((1, 1, 2)))
        dilation = (random.choice((1, 1, 2)), random.choice((1, 1, 2)))
        more = tuple(random.randrange(max(s, d)) for s, d in zip(stride, dilation))
        padding = tuple(random.choice((0, 0, 1, 2)) for _ in range(4))
        sizes = []
        for k, taps, choices in ((0, kh, (1, 2, 6)), (1, kw, (1, 2, 9))):
            span = dilation[k] * (taps - 1) + more[k] + 1
            least = -(-max(padding[2 * k] + padding[2 * k + 1] + 1 - span, 0) // stride[k]) + 1
            sizes.append(least - 1 + random.choice(choices))
        return Sample(
            ((random.choice((1, 1, 2)), groups * cg, *sizes), (groups * cg, og, kh, kw)),
            {"stride": stride, "padding": padding, "output_padding": more, "dilation": dilation, "groups": groups},
        )

    @classmethod
    def flops(cls, step: Step) -> int:
        # Forward, and each of the two products in backward, meets every input element with its whole patch.
        weight = step.slots["dweight" if step.wants("dweight") else "weight"]
        elements: int = step.slots["dx" if step.wants("dx") else "x"].numel
        products = 1 if step.direction == FORWARD else len(step.writes)
        return 2 * elements * int(prod(weight.shape[1:])) * products


def _places(
    call_name: str, rank: int, stride: Any, padding: Any, output_padding: Any, dilation: Any
) -> tuple[Shape, Shape, Shape, Shape]:
    """stride, padding, output_padding and dilation: of each an int for each dim."""
    steps = shapes.repeated(call_name, "stride", stride, rank, 1)
    cut = shapes.repeated(call_name, "padding", padding, rank)
    more = shapes.repeated(call_name, "output_padding", output_padding, rank)
    spread = shapes.repeated(call_name, "dilation", dilation, rank, 1)
    if any(extra >= max(step, wide) for extra, step, wide in zip(more, steps, spread)):
        raise ArgumentError(
            call_name, "output_padding must be smaller than stride or dilation",
            f"got output_padding={more}, stride={steps} and dilation={spread}",
        )  # fmt: skip
    return steps, cut, more, spread


def _with_bias(call_name: str, y: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return y
    if bias.shape != y.shape[1:2]:
        raise ShapeError(call_name, f"a bias of shape {y.shape[1:2]}", f"got {bias.shape}")
    return y + bias.reshape(-1, *(1,) * (y.ndim - 2))


@public(functional=True)
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """The gradient of ``conv2d`` for its input, where ``input`` is that of its output.

    Shapes: input (n, c, h, w) or (c, h, w); weight (c, o / groups, kh, kw); bias (o,) or none; returns (n, o, oh, ow)
            with oh = (h - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1.
    Saves:  input and weight.
    Errors: ShapeError if channels, groups or the padding do not fit; DtypeError if the dtypes differ; ArgumentError
            unless output_padding is smaller than stride or dilation.
    """
    check_operands("conv_transpose2d", 2, input, weight, bias, groups)
    steps, (y, x), more, spread = _places("conv_transpose2d", 2, stride, padding, output_padding, dilation)
    image = functions["unsqueeze"](input, 0) if input.ndim == 3 else input
    made = call(
        ConvTranspose2d, image, weight, stride=steps, padding=(y, y, x, x), output_padding=more, dilation=spread,
        groups=groups,
    )  # fmt: skip
    result = _with_bias("conv_transpose2d", made, bias)
    return functions["squeeze"](result, 0) if input.ndim == 3 else result


@public(functional=True)
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """``conv_transpose2d`` over images of height one.

    ``stride``, ``padding`` and ``dilation`` are those of the convolution; ``output_padding`` is added at the far end of
    the result, and ``bias`` to each channel.

    Shapes: input (n, c, w) or (c, w); weight (c, o / groups, kw); returns (n, o, ow).
    Errors: as ``conv_transpose2d``.
    """
    check_operands("conv_transpose1d", 1, input, weight, bias, groups)
    places = _places("conv_transpose1d", 1, stride, padding, output_padding, dilation)
    (step,), (cut,), (more,), (spread,) = places
    unsqueeze = functions["unsqueeze"]
    y = conv_transpose2d(
        unsqueeze(input, -2), unsqueeze(weight, -2), bias, (1, step), (0, cut), (0, more), groups, (1, spread)
    )
    return cast("Tensor", functions["squeeze"](y, -2))


@public(functional=True)
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """The gradient of ``conv3d`` for its input: ``conv_transpose2d`` of each slice for the kd slices that it reaches,
    which are then added up. So kd results are written before the one that remains.

    ``stride``, ``padding`` and ``dilation`` are those of the convolution; ``output_padding`` is added at the far end of
    the result, and ``bias`` to each channel.

    Shapes: input (n, c, d, h, w) or (c, d, h, w); weight (c, o / groups, kd, kh, kw); returns (n, o, od, oh, ow).
    Saves:  input and weight.
    Errors: as ``conv_transpose2d``.
    """
    name = "conv_transpose3d"
    check_operands(name, 3, input, weight, bias, groups)
    steps, cut, more, spread = _places(name, 3, stride, padding, output_padding, dilation)
    permute = functions["permute"]
    x = functions["unsqueeze"](input, 0) if input.ndim == 4 else input
    n, c, d, h, w = x.shape
    _, og, kd, kh, kw = weight.shape
    depth = (d - 1) * steps[0] - 2 * cut[0] + spread[0] * (kd - 1) + more[0] + 1
    if min(d, kd, depth) < 1:
        raise ShapeError(
            name, "an input and a result of at least one slice",
            f"input is {input.shape}, weight {weight.shape}, padding {cut}: the result has {depth}",
            "Use less padding.",
        )  # fmt: skip
    slices = permute(x, (0, 2, 1, 3, 4)).reshape(n * d, c, h, w)
    y = conv_transpose2d(
        slices, weight.reshape(c, og * kd, kh, kw), None, steps[1:], cut[1:], more[1:], groups, spread[1:]
    )
    o, (height, width) = og * groups, y.shape[2:]
    columns = permute(y.reshape(n, d, o, kd, height * width), (0, 2, 3, 1, 4))
    beyond = more[0] // steps[0]  # windows for which output_padding has room: no slice of the input has them
    if beyond:
        columns = functions["pad"](columns, (0, 0, 0, beyond))
    folded = functions["fold"](
        columns.reshape(n, o * kd, (d + beyond) * height * width), (depth, height * width), (kd, 1), (spread[0], 1),
        (cut[0], 0), (steps[0], 1),
    )  # fmt: skip
    result = _with_bias(name, folded.reshape(n, o, depth, height, width), bias)
    return cast("Tensor", functions["squeeze"](result, 0) if input.ndim == 4 else result)


ConvTranspose2d.errors = (
    ErrorSample(
        lambda te: te.conv_transpose2d(te.zeros(1, 3, 4, 4), te.zeros(4, 2, 3, 3)), ShapeError, "groups=1 divides"
    ),
    ErrorSample(
        lambda te: te.conv_transpose2d(te.zeros(1, 3, 4, 4), te.zeros(3, 2, 3, 3), output_padding=1),
        ArgumentError, "smaller than stride",
    ),
    ErrorSample(
        lambda te: te.conv_transpose2d(te.zeros(1, 3, 1, 4), te.zeros(3, 2, 3, 3), padding=2), ShapeError, "padding"
    ),
    ErrorSample(
        lambda te: te.conv_transpose1d(te.zeros(1, 3, 4), te.zeros(3, 2, 3), te.zeros(3)), ShapeError, "bias of shape"
    ),
    ErrorSample(
        lambda te: te.conv_transpose3d(te.zeros(1, 3, 1, 4, 4), te.zeros(3, 2, 1, 3, 3), padding=2),
        ShapeError, "at least one slice",
    ),
)  # fmt: skip
