"""Convolutions whose patches are taken from the image, or laid out row by row, and those that are linear layers."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import properties
from tests.strategies import call_of
from tinyedge.backends import Backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.ir.spec import Device
from tinyedge.ir.step import Sample
from tinyedge.kernels import image as held
from tinyedge.kernels.gemm import patch_kernels
from tinyedge.kernels.matrix import Matrix, Patches
from tinyedge.ops import conv_lowering
from tinyedge.ops.conv import Conv2d
from tinyedge.ops.conv_lowering import ConvLowering
from tinyedge.ops.conv_transpose import ConvTranspose2d

LINES = [  # images, channels and filters of a group, groups, height, width, kernel, stride, padding, dilation
    (2, 3, 2, 1, 16, 16, (4, 4), (2, 2), (1, 1, 1, 1), (1, 1)),
    (1, 2, 3, 2, 9, 17, (3, 5), (1, 2), (2, 0, 3, 2), (1, 2)),
    (2, 2, 2, 1, 5, 40, (3, 3), (2, 1), (0, 1, 4, 4), (2, 1)),
    (1, 2, 2, 1, 3, 8, (2, 2), (1, 2), (1, 1, 5, 0), (1, 3)),
    (1, 1, 2, 1, 1, 33, (1, 7), (1, 2), (0, 0, 6, 6), (1, 1)),
    (2, 2, 1, 1, 4, 5, (1, 3), (1, 1), (0, 0, 8, 8), (1, 1)),  # some windows lie in the padding
    (1, 2, 2, 1, 2, 31, (1, 1), (1, 2), (0, 0, 0, 0), (1, 1)),  # some columns meet no window
]
PLANES = [
    (1, 2, 2, 1, 7, 20, (3, 3), (2, 3), (1, 1, 1, 2), (1, 1)),
    (1, 1, 1, 1, 2, 4000, (2, 3), (1, 1), (0, 0, 1, 1), (1, 1)),  # a row does not fit
]
TAKEN = [  # patches that are taken from the image
    (1, 1, 6, 1, 28, 28, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    (2, 6, 16, 1, 14, 14, (5, 5), (1, 1), (0, 0, 0, 0), (1, 1)),
    (1, 3, 8, 1, 2, 3, (5, 7), (1, 1), (3, 2, 3, 4), (1, 1)),  # the kernel is larger than the image
    (2, 3, 7, 2, 9, 11, (2, 2), (3, 3), (0, 1, 1, 0), (1, 1)),  # the stride is above the kernel
    (1, 4, 9, 3, 13, 17, (3, 2), (2, 2), (0, 3, 2, 1), (2, 3)),
    (3, 2, 5, 2, 6, 6, (3, 3), (2, 1), (4, 0, 0, 5), (1, 2)),
    (2, 5, 6, 1, 4, 4, (3, 3), (2, 2), (1, 1, 1, 1), (2, 2)),  # outputs of 2 x 2, less than a vector
    (4, 3, 5, 1, 3, 3, (3, 3), (1, 1), (1, 0, 0, 1), (1, 1)),
    (2, 7, 5, 1, 3, 2, (3, 4), (1, 1), (0, 0, 1, 1), (1, 1)),  # outputs of 1 x 1 with padding
    (1, 2, 5, 1, 5, 1, (3, 1), (1, 1), (1, 1, 0, 0), (1, 1)),  # outputs of one column
    (2, 3, 6, 1, 1, 50, (1, 9), (1, 2), (0, 0, 4, 4), (1, 3)),  # a sequence, of one row
    (1, 1, 8, 1, 1, 9000, (1, 400), (1, 160), (0, 0, 200, 200), (1, 1)),  # a row does not fit, but what a block meets
    (1, 3, 16, 1, 67, 67, (11, 11), (4, 4), (2, 2, 2, 2), (1, 1)),
    (1, 64, 24, 1, 20, 37, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),  # k takes several blocks
    (2, 40, 70, 1, 15, 15, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (1, 300, 9, 1, 5, 5, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),  # k in parts
    (1, 2, 6, 1, 70, 90, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),  # rows of filters, positions in parts
    (1, 1, 5, 1, 40, 40, (33, 33), (1, 1), (0, 0, 1, 1), (1, 1)),  # more taps than a block is deep
    (1, 2, 6, 1, 3, 9, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    (2, 2, 6, 1, 3, 9, (1, 1), (1, 1), (1, 2, 0, 3), (1, 1)),
    (1, 2, 5, 1, 4, 4, (2, 2), (1, 1), (0, 0, 9, 9), (1, 1)),  # some windows lie in the padding
]
SAMPLES = [
    (1, 5, 7, 1, 3, 4, (3, 4), (1, 1), (0, 0, 0, 0), (1, 1)),
    (6, 5, 7, 2, 3, 4, (3, 4), (2, 3), (0, 0, 0, 0), (1, 1)),
    (33, 3, 2, 1, 1, 1, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (5, 9, 1, 1, 4, 4, (4, 4), (1, 1), (0, 0, 0, 0), (1, 1)),
]


@pytest.fixture
def on_cpu(opencl: Backend, monkeypatch: pytest.MonkeyPatch) -> OpenCLBackend:
    """An OpenCL device that takes the kernels of a CPU."""
    assert isinstance(opencl, OpenCLBackend)
    if not opencl.device.is_cpu:
        monkeypatch.setattr(opencl, "device", replace(opencl.device, kind="cpu", vector_width=16))
    monkeypatch.setattr(opencl, "_prepared", {})
    return opencl


@pytest.mark.parametrize("transpose", [False, True], ids=["conv", "transpose"])
@pytest.mark.parametrize(
    ("sizes", "made"),
    [*((case, "lines") for case in LINES), *((case, "planes") for case in PLANES), *((case, "") for case in SAMPLES)],
    ids=str,
)
def test_every_property_holds(
    sizes: Any,
    made: str,
    transpose: bool,
    on_cpu: OpenCLBackend,
    reference: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conv_lowering, "patch_kernels", lambda *args, **product: None)
    used = kernels_of(sizes, transpose, on_cpu, reference, monkeypatch)
    assert used == ({f"unfold_{made}", f"fold_{made}"} if made else set())


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 1, 1, 3, 7, 7, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
        (1, 1, 2, 9, 17, 9, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),  # rows of a vector and one
        (1, 1, 1, 5, 3, 5, (5, 3), (1, 1), (2, 2, 1, 1), (1, 1)),
        (1, 1, 1, 9, 14, 14, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
        (1, 1, 2, 2, 30, 29, (3, 3), (15, 14), (0, 0, 0, 0), (1, 1)),  # more phases than a filter may have taps
        (1, 1, 1, 2, 130, 70, (3, 3), (1, 2), (1, 1, 1, 1), (1, 1)),  # several tiles
        (2, 1, 1, 9, 13, 11, (2, 3), (2, 1), (0, 1, 2, 0), (3, 2)),
    ],
    ids=str,
)
def test_depthwise(
    sizes: Any, width: int, on_cpu: OpenCLBackend, reference: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_cpu, "device", replace(on_cpu.device, native_width=width))
    kernels_of(sizes, False, on_cpu, reference, monkeypatch)


@pytest.mark.parametrize("transpose", [False, True], ids=["conv", "transpose"])
@pytest.mark.parametrize("local_bytes", [None, 16384])
@pytest.mark.parametrize("sizes", [*TAKEN, *LINES, PLANES[0]], ids=str)
def test_patches_taken_from_the_image(
    sizes: Any,
    local_bytes: int | None,
    transpose: bool,
    on_cpu: OpenCLBackend,
    reference: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ConvLowering, "by_winograd", lambda self, made: False)
    monkeypatch.setattr(held, "MOST_COPIED", inf)
    if local_bytes:
        monkeypatch.setattr(on_cpu, "device", replace(on_cpu.device, local_bytes=local_bytes))
    used = kernels_of(sizes, transpose, on_cpu, reference, monkeypatch)
    assert used <= {"unfold_lines", "unfold_planes", "fold_lines", "fold_planes"}
    if on_cpu.device.local_bytes >= 1 << 18 and sizes[2] > 1:  # of a single filter the gradient is dot products
        assert used <= {"fold_lines", "fold_planes"}


@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("local_bytes", [16384, 48 << 10, 1 << 18])
@pytest.mark.parametrize("ctype", ["float", "double"])
@given(data=st.data())
def test_what_is_held_fits(width: int, local_bytes: int, ctype: str, data: st.DataObject) -> None:
    device = Device("cpu", 16, width, 2, 4096, local_bytes)
    small, large = st.integers(1, 5), st.integers(1, 300)
    channels, filters, height, row = (data.draw(large) for _ in range(4))
    kernel, stride, dilation = ((data.draw(small), data.draw(small)) for _ in range(3))
    sizes = {
        "image_height": (height - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1,
        "image_width": (row - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1,
        "spots_height": height, "spots_width": row, "kernel_height": kernel[0], "kernel_width": kernel[1],
        "stride_y": stride[0], "stride_x": stride[1], "pad_y": 0, "pad_x": 0,
        "dilation_y": dilation[0], "dilation_x": dilation[1],
    }  # fmt: skip
    spots, taps = height * row, channels * kernel[0] * kernel[1]
    for kind, n, k in (("forward", spots, taps), ("weight_gradient", taps, spots)):
        a, c = Matrix("a", k, 1, (0,)), Matrix("c", n, 1, (0,))
        made = patch_kernels(device, a, Patches("b", kind, sizes, (0,)), c, filters, n, k, ctype, (1,))
        for spec in made or ():
            assert spec.local_bytes <= local_bytes


def kernels_of(
    sizes: Any, transpose: bool, on_cpu: OpenCLBackend, reference: Backend, monkeypatch: pytest.MonkeyPatch
) -> set[str]:
    """Assert that a convolution agrees with the reference, forward and backward; the kernels beside its products."""
    n, cg, og, groups, h, w, kernel, stride, padding, dilation = sizes
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    out_h, out_w = (
        (size + sum(padding[2 * k : 2 * k + 2]) - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1
        for k, size in enumerate((h, w))
    )
    image, result, weight = (n, cg * groups, h, w), (n, og * groups, out_h, out_w), (groups * og, cg, *kernel)
    used: set[str] = set()
    laid_out = ConvLowering.kernel

    def spied(self: ConvLowering, name: str, *args: Any, **kwargs: Any) -> Any:
        used.add(name)
        return laid_out(self, name, *args, **kwargs)

    monkeypatch.setattr(ConvLowering, "kernel", spied)
    if transpose:
        more = tuple(
            size - ((short - 1) * stride[k] - sum(padding[2 * k : 2 * k + 2]) + dilation[k] * (kernel[k] - 1) + 1)
            for k, (size, short) in enumerate(zip((h, w), (out_h, out_w), strict=True))
        )
        call = call_of(ConvTranspose2d, Sample((result, weight), {**attrs, "output_padding": more}), 1)
    else:
        call = call_of(Conv2d, Sample((image, weight, (groups * og,)), attrs), 0)
    properties.assert_forward_agrees(call, on_cpu, reference)
    properties.assert_backward_agrees(call, on_cpu, reference)
    return used


@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_gpus_linear_layers_are_right(sizes: Any, opencl: Backend, reference: Backend, monkeypatch: Any) -> None:
    n, cg, og, groups, h, w, kernel, stride, padding, dilation = sizes
    assert isinstance(opencl, OpenCLBackend)
    if opencl.device.is_cpu:
        changed = replace(opencl.device, kind="gpu", vector_width=4, compute_units=8, max_work_group=64)
        monkeypatch.setattr(opencl, "device", changed)
    monkeypatch.setattr(opencl, "_prepared", {})
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    call = call_of(Conv2d, Sample(((n, cg * groups, h, w), (groups * og, cg, *kernel), (groups * og,)), attrs), 0)
    properties.assert_forward_agrees(call, opencl, reference)
    properties.assert_backward_agrees(call, opencl, reference)
