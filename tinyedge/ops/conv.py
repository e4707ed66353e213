"""Convolution: conv2d with stride, padding, dilation and groups, and its special cases.

A general convolution is a matrix product with the input's patches laid out as columns (in scratch memory); where the
kernel is 1x1 the input is that matrix already. A depthwise convolution, one filter for each channel, has its own
kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd, prod
from random import Random
from typing import Any, cast

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, LocalArray, Scratch, power_of_two, round_up
from tinyedge.ir.step import FORWARD, ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.kernels.gemm import gemm_kernels
from tinyedge.kernels.lowering import reduce_kernels
from tinyedge.kernels.matrix import Matrix, Patches
from tinyedge.kernels.tile import tile_kernels
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call

Pair = tuple[int, int]

POOL_BYTES = 14336
"""Local memory that a CPU's kernels work in: every device has it, and a core's first cache holds it."""

ITEM_ROWS = 4
"""Pixels of a depthwise kernel below each other that one work-item of a GPU does. 1 and 4 were measured, on an H200."""

MOST_PLANES = 64
"""Of a group: some devices take no more items along the third axis."""

MOST_FACTORS = 25
"""Of a filter, that an item keeps in registers for several pixels: with more they would not fit beside the sums."""

MAX_TAPS = 128
"""Positions of a depthwise kernel, and two to spare, up to which it is done in whole planes."""

ITEM_PIXELS = 16384
"""Output pixels worth one work-item of a CPU: some microseconds."""


class Conv2d(Op):
    """``padding`` is (top, bottom, left, right)."""

    signature = "(n,c,h,w),(o,c/groups,kh,kw),(o)?->(n,o,oh,ow)"
    domain = {"x": (-2.0, 2.0), "weight": (-1.0, 1.0), "bias": (-1.0, 1.0)}
    differentiable = ("x", "weight", "bias")
    saves = ("x", "weight")
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
        return _Lowering(step, device, "y", "x", "weight").forward()

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        kernels = []
        if step.wants("dx") or step.wants("dweight"):
            x = "dx" if step.wants("dx") else "x"
            weight = "dweight" if step.wants("dweight") else "weight"
            lowering = _Lowering(step, device, "dy", x, weight)
            if step.wants("dx"):
                kernels += lowering.input_gradient()
            if step.wants("dweight"):
                kernels += lowering.weight_gradient()
        if step.wants("dbias"):
            kernels += reduce_kernels(step, device, "sum", {"dbias": "dy"}, step.slots["dy"].shape, (0, 2, 3))
        return kernels

    @staticmethod
    def forward(
        x: Any, weight: Any, bias: Any = None, *, stride: Pair, padding: tuple[int, ...], dilation: Pair, groups: int
    ) -> Any:
        patches = _patches(x, weight.shape[2:], stride, padding, dilation)
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
            patches = _patches(x, (kh, kw), stride, padding, dilation)
            columns = patches.reshape(n, groups, cg * kh * kw, oh * ow)
            dweight = (flat @ np.swapaxes(columns, -1, -2)).sum(axis=0).reshape(shapes["dweight"])
        return dx, dweight, dy.sum(axis=(0, 2, 3))

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


def _patches(x: Any, kernel: Sequence[int], stride: Pair, padding: tuple[int, ...], dilation: Pair) -> Any:
    """(n, c, kh, kw, oh, ow): for each kernel position, what it meets at each output position (NumPy)."""
    top, bottom, left, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    spans = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return windows.transpose(0, 1, 4, 5, 2, 3)


class _Lowering:
    """The kernels of one convolution; ``out`` names the slot with the output's shape (y, or dy)."""

    def __init__(self, step: Step, device: Device, out: str, x: str, weight: str) -> None:
        self.step, self.device = step, device
        attrs = step.attrs
        self.n, self.c, self.h, self.w = step.slots[x].shape
        self.o, self.cg, self.kh, self.kw = step.slots[weight].shape
        self.oh, self.ow = step.slots[out].shape[2:]
        self.groups: int = attrs["groups"]
        self.og = self.o // self.groups
        self.stride, self.padding, self.dilation = attrs["stride"], attrs["padding"], attrs["dilation"]
        self.ctype = step.slots[out].dtype.ctype
        self.depthwise = self.cg == 1 and self.groups > 1
        self.pointwise = (
            self.kh == self.kw == 1 and self.stride == (1, 1) and not any(self.padding)
        )  # the input is the matrix of its patches
        self.looks_up = not device.is_cpu and not self.pointwise  # a GPU's patches are not laid out
        self.positions = self.oh * self.ow
        self.patch = self.cg * self.kh * self.kw
        self.pool = POOL_BYTES // (8 if self.ctype == "double" else 4)
        self.flops = 2 * self.n * self.o * self.positions * self.patch
        self.columns = Scratch("columns", self.ctype, self.n * self.c * self.kh * self.kw * self.positions)

    def sizes(self) -> dict[str, int]:
        return {
            "batch": self.n, "channels": self.c, "height": self.h, "width_": self.w,
            "out_channels": self.o, "out_height": self.oh, "out_width": self.ow,
            "kernel_height": self.kh, "kernel_width": self.kw,
            "stride_y": self.stride[0], "stride_x": self.stride[1],
            "pad_y": self.padding[0], "pad_x": self.padding[2],
            "dilation_y": self.dilation[0], "dilation_x": self.dilation[1],
        }  # fmt: skip

    def runs(self) -> dict[str, int]:
        """A CPU's kernels go through planes."""
        image = self.h * self.w
        return {"x": image, "dx": image, "y": self.positions, "dy": self.positions}

    def kernel(
        self, name: str, buffers: tuple[str, ...], global_size: Shape, local_size: Shape, **constants: Any
    ) -> KernelSpec:
        scratch = (self.columns,) if "columns" in buffers else ()
        return KernelSpec(
            name, "conv.cl.jinja", buffers, global_size, local_size, self.sizes(), {}, {},
            {"real": self.ctype, **constants}, scratch, tuple(name for name in buffers if name != "columns"),
            self.runs() if self.device.is_cpu else {}, flops=0,
        )  # fmt: skip

    def forward(self) -> list[KernelSpec]:
        bias = "bias" if self.step.slots["bias"] is not None else None
        if self.depthwise:
            buffers = ("x", "weight", *((bias,) if bias else ()), "y")
            return [self.depthwise_kernel("forward", buffers, self.n * self.o, self.oh, self.ow)]
        batch, bias_batch = (self.n, self.groups), (0, self.og)
        product = self.og, self.positions, self.patch, self.ctype, batch, 1, bias, "row", bias_batch
        if self.looks_up:
            patches = self.patches("forward", "x", (self.c * self.h * self.w, self.cg * self.h * self.w))
            return tile_kernels(
                self.device, self.weight_matrix(), patches, self.output_matrix("y"), *product, flops=self.flops
            )
        return [
            *self.unfold(),
            *gemm_kernels(
                self.device, self.weight_matrix(), self.column_matrix("x"), self.output_matrix("y"), *product,
                scratch=self.scratch(),
            ),
        ]  # fmt: skip

    def input_gradient(self) -> list[KernelSpec]:
        if self.depthwise:
            buffers = ("dy", "weight", "dx")
            return [self.depthwise_kernel("input_gradient", buffers, self.n * self.c, self.h, self.w)]
        if self.looks_up:
            planes, plane = self.h * self.w, self.positions
            return tile_kernels(
                self.device,
                Matrix("weight", self.kh * self.kw, self.patch, (0, self.og * self.patch)),
                self.patches("input_gradient", "dy", (self.o * plane, self.og * plane)),
                Matrix("dx", planes, 1, (self.c * planes, self.cg * planes)),
                self.cg, planes, self.og, ctype=self.ctype, batch=(self.n, self.groups), flops=self.flops,
            )  # fmt: skip
        product = gemm_kernels(
            self.device, self.weight_matrix().T, self.output_matrix("dy"), self.column_matrix("dx"),
            self.patch, self.positions, self.og, ctype=self.ctype, batch=(self.n, self.groups), scratch=self.scratch(),
        )  # fmt: skip
        if self.pointwise:
            return product
        pixels = self.h * self.w * self.kh * self.kw
        return [*product, self.whole_planes("fold_planes", ("columns", "dx"), self.n * self.c, pixels)]

    def weight_gradient(self) -> list[KernelSpec]:
        if self.depthwise:
            buffers = ("dy", "x", "dweight")
            found = self.planes_kernel("planes_weight_gradient", buffers, self.o, self.oh, self.ow)
            return [replace(found or self.shared_weight_gradient(buffers), flops=self.flops)]
        dy = self.output_matrix("dy")
        errors = Matrix("dy", dy.row, dy.col, dy.batch[1:], dy.batch[0])
        result = Matrix("dweight", self.patch, 1, (self.og * self.patch,))
        product = self.og, self.patch, self.positions, self.ctype, (self.groups,), self.n
        if self.looks_up:
            image = self.h * self.w
            patches = self.patches("weight_gradient", "x", (self.cg * image,), self.c * image)
            return tile_kernels(self.device, errors, patches, result, *product, flops=self.flops)
        columns = self.column_matrix("x").T
        taken = Matrix(columns.name, columns.row, columns.col, columns.batch[1:], columns.batch[0])
        return [*self.unfold(), *gemm_kernels(self.device, errors, taken, result, *product, scratch=self.scratch())]

    def patches(self, kind: str, name: str, batch: Shape, outer: int = 0) -> Patches:
        """For the tile kernel: ``name`` is the image, at whose spots the taps of a filter begin."""
        image, spots = ((self.h, self.w), (self.oh, self.ow))
        if kind == "input_gradient":
            image, spots = spots, image
        every_y, every_x = (step // gcd(step, d) for step, d in zip(self.stride, self.dilation, strict=True))
        sizes = {
            "image_height": image[0], "image_width": image[1], "spots_height": spots[0], "spots_width": spots[1],
            "kernel_height": self.kh, "kernel_width": self.kw, "stride_y": self.stride[0], "stride_x": self.stride[1],
            "pad_y": self.padding[0], "pad_x": self.padding[2],
            "dilation_y": self.dilation[0], "dilation_x": self.dilation[1], "every_y": every_y, "every_x": every_x,
        }  # fmt: skip
        return Patches(name, kind, sizes, batch, outer)

    def depthwise_kernel(
        self, direction: str, buffers: tuple[str, ...], planes: int, height: int, width: int
    ) -> KernelSpec:
        """One work-item for each pixel on a GPU; for some whole planes on a CPU."""
        if direction == "forward":
            tiled = height, width
        else:  # a phase of dx, with what is left of the padding
            tiled = (
                -(-(height + self.padding[0] % self.stride[0]) // self.stride[0]),
                -(-(width + self.padding[2] % self.stride[1]) // self.stride[1]),
            )
        found = self.planes_kernel(f"planes_{direction}", buffers, planes, *tiled)
        if found is not None:
            return replace(found, flops=self.flops)
        rows, lines = self.lines(direction)
        # A group's items lie in a rectangle: their windows share most of what they read.
        items, blocks = self.device.group(), -(-height // rows)
        down = min(items, power_of_two(blocks), max(4, items // power_of_two(width)))
        across = min(items // down, power_of_two(width))
        local = (across, down, min(items // (across * down), MOST_PLANES))
        size = (round_up(width, local[0]), round_up(blocks, local[1]), round_up(planes, local[2]))
        spec = self.depthwise_on_gpu(f"depthwise_{direction}", buffers, size, local, rows=rows, lines=lines)
        return replace(spec, flops=self.flops)

    def lines(self, direction: str) -> tuple[int, tuple[tuple[int, tuple[tuple[int, int], ...]], ...]]:
        """How many pixels an item of a GPU does, below each other; and the lines that it reads for them, counted from
        the first pixel's, each with the pixels and the rows of the filter that meet there.
        """
        stride, dilation, pad = self.stride[0], self.dilation[0], self.padding[0]
        rows = ITEM_ROWS if self.kh * self.kw <= MOST_FACTORS else 1
        if direction != "forward":  # the rows of a block fall into phases in the same way everywhere
            rows = round_up(rows, stride)
        found: dict[int, list[tuple[int, int]]] = {}
        for row in range(rows):
            for tap in range(self.kh):
                if direction == "forward":
                    found.setdefault(row * stride + tap * dilation, []).append((row, tap))
                elif (row + pad - tap * dilation) % stride == 0:
                    found.setdefault((row + pad - tap * dilation) // stride, []).append((row, tap))
        return rows, tuple((line, tuple(users)) for line, users in sorted(found.items()))

    def shared_weight_gradient(self, buffers: tuple[str, ...]) -> KernelSpec:
        """One group for each row of a filter: its items share the positions."""
        # Where kernels share launches, groups are of one size.
        most = (
            self.device.group()
            if self.device.persistent
            else max(self.device.group(), min(512, self.device.max_work_group))
        )
        room = self.device.local_bytes // 4 // (self.kw * (8 if self.ctype == "double" else 4))
        lanes = self.device.group()
        while 2 * lanes <= most and 16 * lanes < self.n * self.positions:
            lanes *= 2
        while lanes > 1 and lanes > room:
            lanes //= 2
        groups = self.o * self.kh
        spec = self.depthwise_on_gpu("depthwise_weight_gradient", buffers, (lanes * groups,), (lanes,), lanes=lanes)
        return replace(spec, local=(LocalArray("totals", self.ctype, (self.kw, lanes)),), grouped=True)

    def depthwise_on_gpu(
        self, name: str, buffers: tuple[str, ...], global_size: Shape, local_size: Shape, **constants: Any
    ) -> KernelSpec:
        # Loops over a filter of known size are unrolled, and a division by a known stride is none.
        known = {"taps_y": self.kh, "taps_x": self.kw, "step_y": self.stride[0], "step_x": self.stride[1]}
        return self.kernel(name, buffers, global_size, local_size, **known, **constants)

    def planes_kernel(
        self, name: str, buffers: tuple[str, ...], planes: int, height: int, width: int
    ) -> KernelSpec | None:
        """A CPU kernel over planes of ``height`` and ``width``, in tiles that fit into the pool; None if none do."""
        taps = self.kh * self.kw
        if not self.device.is_cpu or taps + 2 > MAX_TAPS:
            return None
        phases = self.stride[0] * self.stride[1]
        (taken_phases, other_phases) = (1, phases) if name == "planes_input_gradient" else (phases, 1)
        halo_y, halo_x = (
            (size - 1) * d // s for size, d, s in zip((self.kh, self.kw), self.dilation, self.stride, strict=True)
        )
        lanes = min(self.device.native_width, 8)

        def used(rows: int, cols: int) -> Pair:
            pitch = cols + halo_x
            taken = taken_phases * (rows + halo_y) * pitch + halo_x + 4 * lanes
            return round_up(taken, lanes), other_phases * round_up(rows * pitch, 4 * lanes)

        cols = width
        while cols > 64 and sum(used(min(height, 8), cols)) > self.pool:
            cols = -(-cols // 2)
        rows = next((rows for rows in range(height, 0, -1) if sum(used(rows, cols)) <= self.pool), 0)
        if not rows:
            return None
        down, across = -(-height // rows), -(-width // cols)
        rows, cols = -(-height // down), -(-width // across)
        taken_size, other_size = used(rows, cols)
        whole = name == "planes_weight_gradient"
        tiles = planes if whole else planes * down * across
        pixels = height * width * self.n if whole else rows * cols
        each = max(1, min(ITEM_PIXELS // max(pixels, 1), tiles // (4 * self.device.compute_units)))
        sizes = {
            "tiles": tiles, "tiles_per_item": each, "tiles_down": down, "tiles_across": across, "tile_rows": rows,
            "tile_cols": cols, "halo_y": halo_y, "halo_x": halo_x, "taken_size": taken_size, "other_size": other_size,
        }  # fmt: skip
        return KernelSpec(
            name, "conv.cl.jinja", buffers, (-(-tiles // each),), (1,), {**self.sizes(), **sizes}, {}, {},
            {"real": self.ctype, "width": lanes, "pool": self.pool, "max_taps": MAX_TAPS}, (), buffers, self.runs(),
            local=(LocalArray("pool", self.ctype, (self.pool,)),),
        )  # fmt: skip

    def unfold(self) -> list[KernelSpec]:
        if self.pointwise:
            return []
        planes = self.n * self.c * self.kh * self.kw
        return [self.whole_planes("unfold_planes", ("x", "columns"), planes, self.positions)]

    def whole_planes(self, name: str, buffers: tuple[str, ...], planes: int, pixels: int) -> KernelSpec:
        each = max(1, min(ITEM_PIXELS // max(pixels, 1), planes // (4 * self.device.compute_units)))
        spec = self.kernel(
            name, buffers, (-(-planes // each),), (1,), width=min(self.device.native_width, 8), pool=self.pool
        )
        local = (LocalArray("line", self.ctype, (self.pool,)),) if name == "fold_planes" else ()
        return replace(spec, sizes={**spec.sizes, "planes_per_item": each}, local=local)

    def scratch(self) -> tuple[Scratch, ...]:
        return () if self.pointwise else (self.columns,)

    def weight_matrix(self) -> Matrix:
        return Matrix("weight", self.patch, 1, (0, self.og * self.patch))

    def column_matrix(self, x: str) -> Matrix:
        plane = self.patch * self.positions
        return Matrix(x if self.pointwise else "columns", self.positions, 1, (self.groups * plane, plane))

    def output_matrix(self, name: str) -> Matrix:
        return Matrix(name, self.positions, 1, (self.o * self.positions, self.og * self.positions))


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

    Shapes: input (n, c, h, w) or (c, h, w); weight (o, c / groups, kh, kw); bias (o,) or none; returns (n, o, oh, ow)
            with oh = (h + 2 padding - dilation (kh - 1) - 1) // stride + 1. padding="same" keeps h and w at stride 1,
            "valid" is 0.
    Saves:  input and weight.
    Errors: ShapeError if channels, groups or the kernel do not fit; DtypeError if the dtypes differ.
    """
    if input.ndim not in (3, 4) or weight.ndim != 4:
        raise ShapeError(
            "conv2d", "input (n,c,h,w) or (c,h,w) and weight (o,c/groups,kh,kw)",
            f"input is {input.shape} and weight {weight.shape}",
        )  # fmt: skip
    dtypes = [x.dtype for x in (input, weight, bias) if x is not None]
    if len(set(dtypes)) > 1 or not input.is_floating_point():
        raise DtypeError(
            "conv2d", "input, weight and bias of one floating-point dtype", "got " + ", ".join(d.name for d in dtypes)
        )
    if groups < 1:
        raise ArgumentError("conv2d", "groups of at least 1", f"got {groups}")
    steps = shapes.pair("conv2d", "stride", stride, 1)
    spread = shapes.pair("conv2d", "dilation", dilation, 1)
    around = _padding(padding, weight.shape, steps, spread)
    x = functions["unsqueeze"](input, 0) if input.ndim == 3 else input
    y = call(Conv2d, x, weight, bias, stride=steps, padding=around, dilation=spread, groups=int(groups))
    return functions["squeeze"](y, 0) if input.ndim == 3 else y


def _padding(
    padding: int | Sequence[int] | str, weight: Shape, stride: Pair, dilation: Pair
) -> tuple[int, int, int, int]:
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0, 0, 0
        if padding != "same":
            raise ArgumentError("conv2d", 'padding must be ints, "same" or "valid"', f"got {padding!r}")
        if stride != (1, 1):
            raise ArgumentError("conv2d", 'padding="same" needs stride 1', f"got stride {stride}")
        y, x = (step * (size - 1) for step, size in zip(dilation, weight[2:], strict=True))
        return y // 2, y - y // 2, x // 2, x - x // 2
    y, x = shapes.pair("conv2d", "padding", padding)
    return y, y, x, x


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

    Shapes: input (n, c, w) or (c, w); weight (o, c / groups, kw); returns (n, o, ow).
    Errors: as ``conv2d``.
    """
    if input.ndim not in (2, 3) or weight.ndim != 3:
        raise ShapeError(
            "conv1d", "input (n,c,w) or (c,w) and weight (o,c/groups,kw)", f"got {input.shape}, {weight.shape}"
        )

    def one(value: Any) -> int:
        return int(value if isinstance(value, int) else value[0])

    around: Any = padding if isinstance(padding, str) else (0, one(padding))
    unsqueeze = functions["unsqueeze"]
    y = conv2d(unsqueeze(input, -2), unsqueeze(weight, -2), bias, (1, one(stride)), around, (1, one(dilation)), groups)
    return cast("Tensor", functions["squeeze"](y, -2))


Conv2d.errors = (
    ErrorSample(lambda te: te.conv2d(te.zeros(1, 3, 8, 8), te.zeros(4, 2, 3, 3)), ShapeError, "2 input channels"),
    ErrorSample(lambda te: te.conv2d(te.zeros(1, 3, 2, 2), te.zeros(4, 3, 3, 3)), ShapeError, "fits into the padded"),
    ErrorSample(
        lambda te: te.conv2d(te.zeros(1, 3, 8, 8), te.zeros(4, 3, 3, 3), stride=2, padding="same"),
        ArgumentError, "needs stride 1",
    ),
)  # fmt: skip
