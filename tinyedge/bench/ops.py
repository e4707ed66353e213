"""Single ops: cases over the registry, and the rates of their kernels, forward and backward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tinyedge as te
from tinyedge.autograd.registry import functions
from tinyedge.ir.step import BACKWARD, FORWARD
from tinyedge.shapes import Shape


@dataclass(frozen=True)
class Case:
    """A call of the public function over the op ``op``, on arrays of these shapes.

    ``function`` is named where it is not called like the op; ``integers`` bounds the values of an input of indices.
    """

    label: str
    op: str
    shapes: tuple[Shape, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    function: str = ""
    integers: Mapping[int, int] = field(default_factory=dict)

    def call(self, *inputs: te.Tensor) -> te.Tensor:
        y: te.Tensor = functions[self.function or self.op](*inputs, **self.attrs)
        return y

    def inputs(self) -> list[te.Tensor]:
        random = np.random.default_rng(0)
        found = []
        for position, shape in enumerate(self.shapes):
            if position in self.integers:
                found.append(te.tensor(random.integers(0, self.integers[position], shape)))
            else:
                found.append(te.tensor(random.standard_normal(shape, np.float32)).requires_grad_())
        return found


def _convolution(label: str, channels: int, out: int, size: int, kernel: int, stride: int = 1, groups: int = 1) -> Case:
    shapes = (1, channels, size, size), (out, channels // groups, kernel, kernel)
    return Case(label, "conv2d", shapes, {"stride": stride, "padding": kernel // 2, "groups": groups})


STREAM = (16, 1024, 1024)
"""64 MiB: more than most caches hold."""

CASES = (
    *(Case(f"matmul {n}", "matmul", ((n, n), (n, n))) for n in (512, 1024, 2048, 4096)),
    Case("linear 1x1280, 1000", "linear", ((1, 1280), (1000, 1280), (1000,))),
    Case("linear 128x128, 512", "linear", ((128, 128), (512, 128), (512,))),
    Case("q @ k.T 4 heads 128x32", "matmul", ((4, 128, 32), (4, 32, 128))),
    Case("weights @ v 4 heads 128x32", "matmul", ((4, 128, 128), (4, 128, 32))),
    Case("q @ k.T 12 heads 512x64", "matmul", ((12, 512, 64), (12, 64, 512))),
    Case("weights @ v 12 heads 512x64", "matmul", ((12, 512, 512), (12, 512, 64))),
    _convolution("conv 7x7/2 3-64 224", 3, 64, 224, 7, 2),
    _convolution("conv 3x3 64-64 56", 64, 64, 56, 3),
    _convolution("conv 3x3 256-256 14", 256, 256, 14, 3),
    _convolution("conv 1x1 24-144 56", 24, 144, 56, 1),
    _convolution("conv 1x1 512-512 14", 512, 512, 14, 1),
    _convolution("depthwise 3x3 144 56", 144, 144, 56, 3, 1, 144),
    _convolution("depthwise 3x3/2 96 112", 96, 96, 112, 3, 2, 96),
    _convolution("depthwise 3x3 512 14", 512, 512, 14, 3, 1, 512),
    Case("add 64 MiB", "add", (STREAM, STREAM)),
    Case("relu 64 MiB", "relu", (STREAM,)),
    Case("gelu 64 MiB", "gelu", (STREAM,)),
    Case("mul by a row 64 MiB", "mul", (STREAM, STREAM[-1:])),
    Case("sum 64 MiB", "sum", (STREAM,)),
    Case("sum of rows 64 MiB", "sum", (STREAM,), {"dim": -1}),
    Case("sum of columns 64 MiB", "sum", (STREAM,), {"dim": 0}),
    Case("max_pool 3x3/2 64 112", "max_pool2d", ((1, 64, 112, 112),), {"kernel_size": 3, "stride": 2, "padding": 1}),
    Case("softmax 4096x1024", "softmax", ((4096, 1024),), {"dim": -1}),
    Case("softmax 12x512x512", "softmax", ((12, 512, 512),), {"dim": -1}),
    Case("layer_norm 4096x1024", "layer_norm", ((4096, 1024),), {"normalized_shape": (1024,)}),
    Case("cross_entropy 128x1000", "cross_entropy", ((128, 1000), (128,)), integers={1: 1000}),
)


CASE_SECONDS = 2.0
"""For the repeats of one case."""


@dataclass(frozen=True)
class Rate:
    """The time that the kernels of one direction of a case take, and their work."""

    label: str
    op: str
    direction: str
    launches: int
    elapsed_ns: float
    flops: int
    bytes_moved: int

    @property
    def gflops(self) -> float:
        """Thousand million operations a second."""
        return self.flops / self.elapsed_ns

    @property
    def gbytes(self) -> float:
        """Thousand million bytes a second."""
        return self.bytes_moved / self.elapsed_ns


def ready(case: Case, direction: str) -> Callable[[], te.Program]:
    """A call that runs the case, compiled: forward alone, or with backward; it was replayed once."""
    inputs = case.inputs()

    def forward() -> te.Tensor:
        with te.no_grad():
            return case.call(*inputs)

    gradient = te.ones(*forward().shape)

    def forward_backward() -> te.Tensor:
        y = case.call(*inputs)
        y.backward(gradient)
        return y

    function = te.compile(forward if direction == FORWARD else forward_backward)

    def call() -> te.Program:
        function()
        gradient.backend.finish()
        return function.program

    call()
    call()
    return call


def measure(case: Case, repeats: int) -> Iterator[Rate]:
    """Forward and backward of a case by the device's own clock: the medians of ``repeats``, or of fewer if it is slow.

    A backward that was fused into its forward is no kernel of its own, and left out.
    """
    for direction in (FORWARD, BACKWARD):
        call = ready(case, direction)
        started = time.perf_counter()
        program = call()
        affordable = int(CASE_SECONDS / (time.perf_counter() - started))
        profile = program.profile(max(1, min(repeats, affordable)))
        rows = [row for row in profile.rows if case.op in row.ops and row.direction == direction]
        if rows:
            yield Rate(
                case.label,
                case.op,
                direction,
                len(rows),
                sum(row.elapsed_ns or 0.0 for row in rows),
                sum(row.flops for row in rows),
                sum(row.bytes_moved for row in rows),
            )
