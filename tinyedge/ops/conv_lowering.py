"""The kernels of a convolution and of its two gradients.

A general convolution is a matrix product with the input's patches as columns, which its kernel takes from the image. On
a CPU they are laid out in scratch memory where that is faster, where the image's part does not fit into fast memory,
and for the input's gradient. Where the kernel is 1x1, or covers the whole image, the input is that matrix already.
Where each filter gives one number a sample, it is a linear layer. A depthwise convolution, one filter for each channel,
has its own kernels. On a CPU 3x3 filters with stride 1 go by Winograd's transforms where that is faster.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import Any

from tinyedge.ir.spec import Device, KernelSpec, LocalArray, Scratch, power_of_two, round_up
from tinyedge.ir.step import Step
from tinyedge.kernels.gemm import gemm_kernels, patch_kernels
from tinyedge.kernels.matrix import Matrix, Patches
from tinyedge.kernels.tile import tile_kernels
from tinyedge.ops.conv_winograd import TAPS, Planes, Winograd
from tinyedge.shapes import Shape

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


class ConvLowering:
    """One convolution. ``x``, ``weight`` and ``out`` name the slots of its input, its weight and its output, or of
    their gradients: a kernel reads two of them, and writes the third.
    """

    def __init__(self, step: Step, device: Device, x: str, weight: str, out: str) -> None:
        self.step, self.device = step, device
        self.x, self.weight, self.out = x, weight, out
        attrs = step.attrs
        self.n, self.c, self.h, self.w = step.slots[x].shape
        self.o, self.cg, self.kh, self.kw = step.slots[weight].shape
        self.oh, self.ow = step.slots[out].shape[2:]
        self.groups: int = attrs["groups"]
        self.og = self.o // self.groups
        self.stride, self.padding, self.dilation = attrs["stride"], attrs["padding"], attrs["dilation"]
        self.quantised = step.slots[weight].dtype.blocks is not None
        self.ctype = step.slots[out].dtype.ctype
        self.depthwise = self.cg == 1 and self.groups > 1
        covers = (self.kh, self.kw, self.oh, self.ow) == (self.h, self.w, 1, 1)
        steps = self.kh == self.kw == 1 and self.stride == (1, 1)
        self.pointwise = (covers or steps) and not any(self.padding)  # the input is the matrix of its patches
        self.looks_up = not device.is_cpu and not self.pointwise  # a GPU never lays patches out
        self.positions = self.oh * self.ow
        self.by_samples = self.pointwise and self.positions == 1  # a linear layer: samples are the rows
        self.winograd = Winograd(device, self.n, self.c, self.o, self.groups)
        self.image = Planes(x, self.c, self.h, self.w)
        self.result = Planes(out, self.o, self.oh, self.ow)
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

    def constants(self) -> dict[str, Any]:
        return {"real": self.ctype, "x": self.x, "weight": self.weight, "out": self.out}

    def runs(self) -> dict[str, int]:
        """A CPU's kernels go through planes."""
        image = self.h * self.w
        return {self.x: image, self.out: self.positions}

    def kernel(
        self, name: str, buffers: tuple[str, ...], global_size: Shape, local_size: Shape, **constants: Any
    ) -> KernelSpec:
        scratch = (self.columns,) if "columns" in buffers else ()
        return KernelSpec(
            name, "conv.cl.jinja", buffers, global_size, local_size, self.sizes(), {}, {},
            {**self.constants(), **constants}, scratch, tuple(name for name in buffers if name != "columns"),
            self.runs() if self.device.is_cpu else {}, flops=0,
        )  # fmt: skip

    def by_winograd(self, made: Planes) -> bool:
        """Whether the convolution that makes ``made``, or for its weight's gradient reads it, goes by transforms."""
        applies = (
            self.device.is_cpu and self.kh == self.kw == TAPS and self.stride == self.dilation == (1, 1)
            and self.ctype == "float" and not self.quantised and not self.depthwise
            and self.n * self.cg * self.og * self.h * self.w * self.positions > 0
        )  # fmt: skip
        if not applies or not self.winograd.fits():
            return False
        other = self.c if made is self.result else self.o
        return self.winograd.pays(made.height, made.width, self.n * other * TAPS**2 * made.height * made.width)

    def forward(self, bias: str | None = None) -> list[KernelSpec]:
        """``out`` from ``x`` and ``weight``."""
        if self.depthwise:
            buffers = (self.x, self.weight, *((bias,) if bias else ()), self.out)
            return [self.depthwise_kernel("forward", buffers, self.n * self.o, self.oh, self.ow)]
        if self.by_winograd(self.result):
            pad = self.padding[0], self.padding[2]
            return self.winograd.convolution(self.image, self.weight, self.result, pad, bias)
        if self.by_samples:
            weight, out = self.weight_rows().T, self.sample_rows(self.out, self.o, self.og)
            return gemm_kernels(
                self.device, self.sample_rows(self.x, self.groups * self.patch, self.patch), weight, out,
                self.n, self.og, self.patch, self.ctype, (self.groups,), bias=bias, bias_batch=(self.og,),
            )  # fmt: skip
        product = {
            "m": self.og, "n": self.positions, "k": self.patch, "batch": (self.n, self.groups),
            "bias": bias, "bias_axis": "row", "bias_batch": (0, self.og),
        }  # fmt: skip
        patches = self.patches("forward", self.x, (self.c * self.h * self.w, self.cg * self.h * self.w))
        return self.with_patches(self.weight_matrix(), patches, self.column_matrix(), self.output_matrix(), **product)

    def input_gradient(self) -> list[KernelSpec]:
        """``x`` from ``out`` and ``weight``."""
        if self.depthwise:
            buffers = (self.out, self.weight, self.x)
            return [self.depthwise_kernel("input_gradient", buffers, self.n * self.c, self.h, self.w)]
        if self.by_winograd(self.image):
            pad = TAPS - 1 - self.padding[0], TAPS - 1 - self.padding[2]
            return self.winograd.convolution(self.result, self.weight, self.image, pad, turned=True)
        if self.by_samples:
            dy, dx = (
                self.sample_rows(self.out, self.o, self.og),
                self.sample_rows(self.x, self.groups * self.patch, self.patch),
            )
            return gemm_kernels(
                self.device, dy, self.weight_rows(), dx, self.n, self.patch, self.og, self.ctype, (self.groups,)
            )
        if self.looks_up:
            planes, plane = self.h * self.w, self.positions
            return tile_kernels(
                self.device,
                Matrix(self.weight, self.kh * self.kw, self.patch, (0, self.og * self.patch), quantised=self.quantised),
                self.patches("input_gradient", self.out, (self.o * plane, self.og * plane)),
                Matrix(self.x, planes, 1, (self.c * planes, self.cg * planes)),
                self.cg, planes, self.og, ctype=self.ctype, batch=(self.n, self.groups), flops=self.flops,
            )  # fmt: skip
        product = gemm_kernels(
            self.device, self.weight_matrix().T, self.output_matrix(), self.column_matrix(),
            self.patch, self.positions, self.og, ctype=self.ctype, batch=(self.n, self.groups), scratch=self.scratch(),
        )  # fmt: skip
        return [*product, *self.fold()]

    def weight_gradient(self) -> list[KernelSpec]:
        """``weight`` from ``out`` and ``x``."""
        if self.depthwise:
            buffers = (self.out, self.x, self.weight)
            found = self.planes_kernel("planes_weight_gradient", buffers, self.o, self.oh, self.ow)
            return [replace(found or self.shared_weight_gradient(buffers), flops=self.flops)]
        if self.by_winograd(self.result):
            pad = self.padding[0], self.padding[2]
            return self.winograd.weight_gradient(self.image, self.weight, self.result, pad)
        if self.by_samples:
            taken = self.sample_rows(self.x, self.groups * self.patch, self.patch)
            errors, weight = self.sample_rows(self.out, self.o, self.og).T, self.weight_rows()
            return gemm_kernels(
                self.device, errors, taken, weight, self.og, self.patch, self.n, self.ctype, (self.groups,)
            )
        dy = self.output_matrix()
        errors = Matrix(dy.name, dy.row, dy.col, dy.batch[1:], dy.batch[0])
        result = Matrix(self.weight, self.patch, 1, (self.og * self.patch,))
        product = {"m": self.og, "n": self.patch, "k": self.positions, "batch": (self.groups,), "outer": self.n}
        image = self.h * self.w
        patches = self.patches("weight_gradient", self.x, (self.cg * image,), self.c * image)
        columns = self.column_matrix().T
        taken = Matrix(columns.name, columns.row, columns.col, columns.batch[1:], columns.batch[0])
        return self.with_patches(errors, patches, taken, result, **product)

    def with_patches(self, a: Matrix, patches: Patches, columns: Matrix, c: Matrix, **product: Any) -> list[KernelSpec]:
        """The product of ``a`` with patches; ``columns`` are these where they are laid out in memory."""
        product["ctype"] = self.ctype
        if self.looks_up:
            return tile_kernels(self.device, a, patches, c, **product, flops=self.flops)
        made = None if self.pointwise else patch_kernels(self.device, a, patches, c, **product)
        if made is not None:
            return made
        return [*self.unfold(), *gemm_kernels(self.device, a, columns, c, **product, scratch=self.scratch())]

    def patches(self, kind: str, name: str, batch: Shape, outer: int = 0) -> Patches:
        """``name`` is the image, at whose spots the taps of a filter begin."""
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
            {**self.constants(), "width": lanes, "pool": self.pool, "max_taps": MAX_TAPS}, (), buffers, self.runs(),
            local=(LocalArray("pool", self.ctype, (self.pool,)),),
        )  # fmt: skip

    def unfold(self) -> list[KernelSpec]:
        if self.pointwise:
            return []
        buffers = (self.x, "columns")
        staged = self.by_lines("unfold_lines", buffers, self.oh, self.ow)
        return [
            staged or self.whole_planes("unfold_planes", buffers, self.n * self.c * self.kh * self.kw, self.positions)
        ]

    def fold(self) -> list[KernelSpec]:
        if self.pointwise:
            return []
        buffers, pixels = ("columns", self.x), self.h * self.w * self.kh * self.kw
        staged = self.by_lines("fold_lines", buffers, self.h, self.w)
        return [staged or self.whole_planes("fold_planes", buffers, self.n * self.c, pixels)]

    def by_lines(self, name: str, buffers: tuple[str, ...], rows: int, cols: int) -> KernelSpec | None:
        """The kernel that keeps a padded row of the image in fast memory, split into phases, which makes a stride
        disappear: what a tap meets is then one vector after the other, up to the borders. None if a row does not fit.
        """
        step, reach = self.stride[1], (self.kw - 1) * self.dilation[1]
        longest = max(self.ow + reach // step, (self.padding[2] + self.w - 1) // step + 1)
        width = min(self.device.native_width, 8)
        if width == 8 and min(self.ow, self.w // step) < width:
            width = 4
        pitch = round_up(longest, width)
        if step > 2 or step * pitch > self.pool:
            return None
        lines = self.n * self.c * rows
        taken = self.kh * self.kw * cols // (1 if name == "unfold_lines" else step * self.stride[0])
        each = max(1, min(ITEM_PIXELS // max(taken, 1), lines // (4 * self.device.compute_units)))
        spec = self.kernel(name, buffers, (-(-lines // each),), (1,), width=width, pool=self.pool, step_x=step)
        sizes = {**spec.sizes, "lines": lines, "lines_per_item": each, "pitch": pitch}
        return replace(spec, sizes=sizes, local=(LocalArray("line", self.ctype, (self.pool,)),))

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
        return Matrix(self.weight, self.patch, 1, (0, self.og * self.patch), quantised=self.quantised)

    def weight_rows(self) -> Matrix:
        return Matrix(self.weight, self.patch, 1, (self.og * self.patch,), quantised=self.quantised)

    @staticmethod
    def sample_rows(name: str, elements: int, group: int) -> Matrix:
        """A row for each sample, of ``elements``; each group has so many of them."""
        return Matrix(name, elements, 1, (group,))

    def column_matrix(self) -> Matrix:
        plane = self.patch * self.positions
        return Matrix(self.x if self.pointwise else "columns", self.positions, 1, (self.groups * plane, plane))

    def output_matrix(self) -> Matrix:
        return Matrix(self.out, self.positions, 1, (self.o * self.positions, self.og * self.positions))
