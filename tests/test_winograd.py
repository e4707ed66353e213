"""Convolutions by Winograd's transforms, at sizes and paddings where tiles, vectors and images do not end together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests import properties
from tests.strategies import call_of
from tinyedge.backends import Backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.dtypes import float16
from tinyedge.ir.spec import Device
from tinyedge.ir.step import Sample
from tinyedge.ops.conv import Conv2d
from tinyedge.ops.conv_transpose import ConvTranspose2d
from tinyedge.ops.conv_winograd import Winograd, matrices, transposed

CALLS = [  # images, channels and filters of a group, groups, height, width, padding
    (1, 5, 7, 1, 9, 11, (1, 1, 1, 1)),
    (2, 3, 2, 2, 13, 8, (0, 0, 0, 0)),
    (8, 1, 1, 1, 3, 3, (0, 0, 0, 0)),
    (1, 9, 17, 1, 1, 1, (1, 1, 1, 1)),
    (2, 2, 8, 3, 5, 140, (2, 0, 1, 3)),
    (1, 16, 8, 1, 6, 129, (0, 3, 4, 0)),
    (1, 8, 3, 1, 40, 33, (5, 1, 0, 4)),
]


@pytest.fixture
def everywhere(opencl: Backend, monkeypatch: pytest.MonkeyPatch) -> OpenCLBackend:
    """An OpenCL CPU on which all convolutions that can be go by the transforms."""
    assert isinstance(opencl, OpenCLBackend)
    if not opencl.device.is_cpu:
        pytest.skip("kernels of a CPU")
    monkeypatch.setenv("TINYEDGE_WINOGRAD", "always")
    monkeypatch.setattr(opencl, "_prepared", {})  # nothing that was lowered before, or will be used after
    return opencl


@pytest.mark.parametrize(("n", "cg", "og", "groups", "h", "w", "padding"), CALLS, ids=str)
def test_every_property_holds(
    n: int, cg: int, og: int, groups: int, h: int, w: int, padding: tuple[int, ...], everywhere: OpenCLBackend,
    reference: Backend, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    used = set()

    def spied(name: str) -> Any:
        called = getattr(Winograd, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            used.add(name)
            return called(*args, **kwargs)

        return call

    for name in ("convolution", "weight_gradient"):
        monkeypatch.setattr(Winograd, name, spied(name))
    attrs: dict[str, Any] = {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": groups}
    weight = (groups * og, cg, 3, 3)
    calls = [call_of(Conv2d, Sample(((n, groups * cg, h, w), weight, (groups * og,)), attrs), 0)]
    if n == 2:
        attrs = {**attrs, "output_padding": (0, 0)}
        calls.append(call_of(ConvTranspose2d, Sample(((n, groups * og, h, w), weight), attrs), 1))
    for call in calls:
        properties.assert_forward_agrees(call, everywhere, reference)
        properties.assert_backward_agrees(call, everywhere, reference)
        properties.assert_accumulating_doubles(call, everywhere)
        properties.assert_repeats(call, everywhere)
    assert used == {"convolution", "weight_gradient"}


def test_compiled_and_stored_in_16_bits(everywhere: OpenCLBackend, reference: Backend) -> None:
    attrs = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    call = call_of(Conv2d, Sample(((2, 12, 10, 21), (9, 12, 3, 3), (9,)), attrs), 0)
    properties.assert_compiled_is_eager(call, everywhere)
    packed = replace(call, packed=float16)
    properties.assert_forward_agrees(packed, everywhere, reference)
    properties.assert_backward_agrees(packed, everywhere, reference)
    properties.assert_compiled_is_eager(packed, everywhere)


@pytest.mark.parametrize("width", [4, 8])
def test_narrower_registers(
    width: int, everywhere: OpenCLBackend, reference: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everywhere, "device", replace(everywhere.device, native_width=width))
    attrs = {"stride": (1, 1), "padding": (1, 2, 0, 1), "dilation": (1, 1), "groups": 1}
    call = call_of(Conv2d, Sample(((1, 7, 6, 17), (10, 7, 3, 3), None), attrs), 0)
    properties.assert_forward_agrees(call, everywhere, reference)
    properties.assert_backward_agrees(call, everywhere, reference)


@pytest.mark.parametrize("points", [(0.0, 1.0, -1.0), (0.0, 1.0, -1.0, 2.0, -2.0), None], ids=str)
def test_transforms_are_a_convolution(points: tuple[float, ...] | None) -> None:
    a, g, b = (np.array(rows) for rows in (matrices(points) if points else matrices()))
    random = np.random.default_rng(0)
    x, w = random.standard_normal(len(b)), random.standard_normal(3)
    np.testing.assert_allclose(a @ ((g @ w) * (b @ x)), np.convolve(x, w[::-1], "valid"), atol=1e-12)
    assert transposed(((1.0, 2.0), (3.0, 4.0))) == ((1.0, 3.0), (2.0, 4.0))


def pays(images: int, c: int, o: int, size: int) -> bool:
    found = Winograd(Device("cpu", 16, 16, 2, 64, 1 << 18), images, c, o, 1)
    return found.pays(size, size, images * c * 9 * size * size)


def test_they_are_used_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYEDGE_WINOGRAD", raising=False)
    assert pays(1, 64, 64, 56)
    assert pays(1, 128, 128, 28)
    assert not pays(1, 512, 512, 7), "the filters' transforms are larger than all products"
    assert pays(16, 512, 512, 7), "a batch shares them"
    assert not pays(1, 3, 16, 32), "with few channels the transforms take longer than the products"
    monkeypatch.setenv("TINYEDGE_WINOGRAD", "0")
    assert not pays(1, 64, 64, 56)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_no_more_local_memory_than_every_device_has(width: int) -> None:
    assert Winograd(Device("cpu", 16, width, 2, 64, 16384), 1, 8, 8, 1).fits()
