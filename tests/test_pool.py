"""Pooling against its formula, window by window, as PyTorch documents it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

Array = np.ndarray[Any, Any]


def window(size: int, output: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> list[int]:
    start = output * stride - padding
    return [at for at in range(start, start + kernel * dilation, dilation) if 0 <= at < size]


def adaptive(size: int, outputs: int, output: int) -> list[int]:
    return list(range(output * size // outputs, math.ceil((output + 1) * size / outputs)))


def outputs_of(y: Array) -> Iterator[tuple[int, ...]]:
    return np.ndindex(*y.shape)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "dilation", "ceil_mode"),
    [
        ((2, 3, 7, 9), 2, None, 0, 1, False),
        ((1, 2, 9, 8), (3, 2), (2, 3), (1, 1), (1, 2), True),
        ((3, 11, 10), (3, 4), 1, (1, 2), (3, 1), False),
        ((1, 1, 5, 5), 5, 1, 2, 1, True),
    ],
)
def test_max_pool2d(
    backend: Backend, shape: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> None:
    values = np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32)  # with ties
    x = te.tensor(values, requires_grad=True)
    y, indices = te.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    y.backward(te.tensor(dy))
    pairs = [(v, v) if isinstance(v, int) else v for v in (kernel, stride or kernel, padding, dilation)]
    dx = np.zeros(shape)
    for o in outputs_of(dy):
        rows, columns = (window(shape[k - 2], o[k - 2], *(pair[k] for pair in pairs)) for k in (0, 1))
        places = [(h, w) for h in rows for w in columns]
        best = max(places, key=lambda at: values[(*o[:-2], *at)])  # the first of equal ones
        assert y.detach().numpy()[o] == values[(*o[:-2], *best)]
        assert indices.numpy()[o] == best[0] * shape[-1] + best[1]
        dx[(*o[:-2], *best)] += dy[o]
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), dx, rtol=1e-5, atol=1e-6)


def test_nan_and_infinity_come_through_max_pool2d(backend: Backend) -> None:
    x = te.tensor([[[1.0, math.nan, 3.0, -math.inf], [5.0, 6.0, -math.inf, -math.inf]]])
    y, indices = te.max_pool2d(x, (1, 2), return_indices=True)
    np.testing.assert_array_equal(y.numpy(), [[[math.nan, 3.0], [6.0, -math.inf]]])
    assert indices.tolist() == [[[1, 2], [5, 6]]]


def test_max_pool2d_of_integers(backend: Backend) -> None:
    x = te.tensor([[[-(2**31), -7], [4, 5]]])
    y = te.max_pool2d(x, (1, 2))
    assert y.dtype is te.int64
    assert y.tolist() == [[[-7], [5]]]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("divisor", [None, -3])
@pytest.mark.parametrize("ceil_mode", [True, False])
def test_avg_pool2d(backend: Backend, padded: bool, divisor: int | None, ceil_mode: bool) -> None:
    shape, kernel, stride, padding = (2, 2, 8, 10), (3, 4), (2, 3), (1, 2)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    x = te.tensor(values, requires_grad=True)
    y = te.avg_pool2d(x, kernel, stride, padding, ceil_mode, padded, divisor)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    y.backward(te.tensor(dy))
    expected, dx = np.zeros(y.shape), np.zeros(shape)
    for o in outputs_of(dy):
        rows, columns = (window(shape[k - 2], o[k - 2], kernel[k], stride[k], padding[k]) for k in (0, 1))
        places = np.ix_([o[0]], [o[1]], rows, columns)
        if padded:
            starts = [o[k - 2] * stride[k] - padding[k] for k in (0, 1)]
            sides = [min(starts[k] + kernel[k], shape[k - 2] + padding[k]) - starts[k] for k in (0, 1)]
        else:
            sides = [len(rows), len(columns)]
        count = divisor or sides[0] * sides[1]
        expected[o] = values[places].sum() / count
        dx[places] += dy[o] / count
    assert x.grad is not None
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), dx, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "target"), [((7, 9), (3, 4)), ((3, 4), (7, 5)), ((6, 5), (1, None)), ((4, 4), (0, 2))]
)
def test_adaptive_pooling(backend: Backend, size: tuple[int, int], target: Any) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
    mean, largest = te.adaptive_avg_pool2d(te.tensor(values), target), te.adaptive_max_pool2d(te.tensor(values), target)
    wanted = tuple(s if t is None else t for s, t in zip(size, target, strict=True))
    assert mean.shape == largest.shape == (2, 3, *wanted)
    for o in outputs_of(mean.numpy()):
        rows, columns = (adaptive(size[k], wanted[k], o[k + 2]) for k in (0, 1))
        cut = values[np.ix_([o[0]], [o[1]], rows, columns)]
        np.testing.assert_allclose(mean.numpy()[o], cut.mean(), rtol=1e-5, atol=1e-6)
        assert largest.numpy()[o] == cut.max()


def test_adaptive_gradients_hand_out_each_dy(backend: Backend) -> None:
    x = te.zeros(1, 5, 7, requires_grad=True)
    te.adaptive_avg_pool2d(x, (3, 9)).sum().backward()
    assert x.grad is not None
    assert x.grad.sum().item() == pytest.approx(27)
    z = te.zeros(1, 5, 7, requires_grad=True)
    te.adaptive_max_pool2d(z, (3, 9)).sum().backward()
    assert z.grad is not None
    assert z.grad.sum().item() == 27


def test_pooling_of_lines(backend: Backend) -> None:
    x = te.tensor([[[1.0, 5.0, 2.0, 4.0, 3.0]]], requires_grad=True)
    y, indices = te.max_pool1d(x, 2, 2, 1, return_indices=True)
    assert y.tolist() == [[[1, 5, 4]]]
    assert indices.tolist() == [[[0, 1, 3]]]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[1, 1, 0, 1, 0]]]
    assert te.avg_pool1d(x, 2).tolist() == [[[3, 3]]]
    assert te.avg_pool1d(x.detach()[0], 3, 2, 1, count_include_pad=False).tolist() == [[3, pytest.approx(11 / 3), 3.5]]


WINDOWS = [
    ((1 + number % 3, columns), (1 + number % 2, step), 1 + number // 2 % 2)
    for number, (columns, step) in enumerate(product((1, 2, 3, 4), (1, 2, 3)))
]
"""Kernel, stride and dilation, for which kernels are built: every width with every stride along the row."""


@settings(max_examples=40)
@given(
    columns=st.integers(3, 70),
    rows=st.integers(1, 6),
    window=st.sampled_from(WINDOWS),
    padded=st.booleans(),
    ceil_mode=st.booleans(),
    data=st.data(),
)
def test_rows_of_any_length(
    opencl: Backend,
    columns: int,
    rows: int,
    window: tuple[tuple[int, int], tuple[int, int], int],
    padded: bool,
    ceil_mode: bool,
    data: st.DataObject,
) -> None:
    """A CPU makes many results of a row at a time, and the last ones, or those at the border, otherwise."""
    kernel, stride, dilation = window
    height, width = rows + 2 * kernel[0], columns + 2 * kernel[1]
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = random.integers(-4, 5, (2, 3, height, width)).astype(np.float32)
    values[random.random(values.shape) < 0.05] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, 0.0]))
    pads = [int(random.integers(0, k // 2 + 1)) for k in kernel]
    for dtype in (te.float32, te.int32):
        given_values = np.nan_to_num(values, posinf=9, neginf=-9).astype(np.int32) if dtype is te.int32 else values
        found = []
        for backend in ("numpy", opencl):
            x = te.tensor(given_values, device=backend)
            y, indices = te.max_pool2d(x, kernel, stride, pads, dilation, ceil_mode, return_indices=True)
            found.append([y, indices, te.max_pool2d(x, kernel, stride, pads, dilation, ceil_mode)])
            if dtype is te.float32:
                found[-1].append(te.avg_pool2d(x, kernel, stride, pads, ceil_mode, padded))
        for ours, reference in zip(found[1], found[0], strict=True):
            np.testing.assert_allclose(ours.numpy(), reference.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [5, 15, 16, 17, 40, 56])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_fused_with_pooling_meets_every_result_once(opencl: Backend, width: int, stride: int) -> None:
    """Before it and behind it, also where it is written over what it reads."""

    def function(x: te.Tensor, z: te.Tensor) -> te.Tensor:
        shifted = z * 2
        return te.relu(F.max_pool2d(te.sin(x), 3, stride, 1)) + shifted + F.avg_pool2d(x * 2, 3, stride, 1) * shifted

    step = te.compile(function)
    x = te.randn(2, 3, 7, width * stride)
    z = te.randn(*F.max_pool2d(x, 3, stride, 1).shape)
    with te.no_grad():
        eager = function(x, z).numpy()
        step(x, z)
        np.testing.assert_allclose(step(x, z).numpy(), eager, rtol=1e-5, atol=1e-6)
