"""The kernels that an op takes on the other class of device are right too: a GPU's on a CPU, a CPU's on a GPU.

They are slow there, but they must be right: so that a machine with one device tests what another device runs. Its
work-groups hold 64 items, the least that kernels may count on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyedge as te
from tests import properties
from tests.guarded import GuardedOpenCL, first_device
from tests.properties import Run, output_gradients
from tests.strategies import call_of, calls
from tests.test_linalg import ON_DEVICE
from tests.test_ops import every_differentiable_op, every_op
from tinyedge.backends import Backend
from tinyedge.ir.spec import KernelSpec
from tinyedge.ir.step import Op, Step
from tinyedge.kernels.fused import plain_operands
from tinyedge.kernels.render import Part, piece_of
from tinyedge.nn import functional as F

few = settings(max_examples=8)


@pytest.fixture(scope="module")
def prepared_otherwise(guarded_backends: dict[str, Backend]) -> GuardedOpenCL:
    backend = first_device()
    kind, width = ("gpu", 4) if backend.device.is_cpu else ("cpu", 16)
    backend.device = replace(backend.device, kind=kind, vector_width=width, compute_units=8, max_work_group=64)
    return backend


@pytest.fixture
def otherwise(prepared_otherwise: GuardedOpenCL) -> Iterator[Backend]:
    with te.use_backend(prepared_otherwise) as chosen:
        yield chosen


@every_op
@few
@given(data=st.data())
def test_forward(op: type[Op], otherwise: Backend, reference: Backend, data: st.DataObject) -> None:
    properties.assert_forward_agrees(data.draw(calls(op)), otherwise, reference)


@every_differentiable_op
@few
@given(data=st.data())
def test_backward(op: type[Op], otherwise: Backend, reference: Backend, data: st.DataObject) -> None:
    properties.assert_backward_agrees(data.draw(calls(op)), otherwise, reference)


sizes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2))


@settings(max_examples=25)
@given(down=sizes, across=sizes, channels=st.integers(2, 4), multiplier=st.integers(1, 2), data=st.data())
def test_depthwise_convolutions(
    down: tuple[int, int, int, int],
    across: tuple[int, int, int, int],
    channels: int,
    multiplier: int,
    data: st.DataObject,
    prepared_otherwise: GuardedOpenCL,
    reference: Backend,
) -> None:
    """For each axis: taps, stride, dilation, padding. Items that do several rows, and phases of the gradient."""
    taps, stride, dilation, padding = zip(down, across, strict=True)
    least = [1 + (t - 1) * d - 2 * p for t, _, d, p in (down, across)]
    extent = [data.draw(st.integers(max(size, 1), max(size, 1) + 9)) for size in least]
    random = np.random.default_rng(0)
    image = random.standard_normal((2, channels, *extent), np.float32)
    filters = random.standard_normal((channels * multiplier, 1, *taps), np.float32)
    outcomes = []
    for backend in (prepared_otherwise, reference):
        with te.use_backend(backend):
            x, weight = (te.tensor(array, requires_grad=True) for array in (image, filters))
            y = F.conv2d(x, weight, None, stride, padding, dilation, groups=channels)
            (y * y).sum().backward()
            assert x.grad is not None
            assert weight.grad is not None
            outcomes.append([y.detach().numpy(), x.grad.numpy(), weight.grad.numpy()])
    for got, wanted in zip(*outcomes, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * float(np.abs(wanted).max(initial=1e-3)))


@every_op
def test_what_a_kernel_states_of_its_groups(op: type[Op], opencl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local memory, and whether it matters which work-items make a group, are as the text of the kernel has them."""
    lowered = Step.kernels
    own = opencl.device
    gpu = replace(
        own, kind="gpu", vector_width=4, compute_units=100, max_work_group=1024, group_items=64, local_bytes=48 << 10
    )
    devices = (own, gpu, replace(gpu, group_items=256, order="ptx"))
    stated: list[KernelSpec] = []

    def kernels(step: Step, device: Any) -> list[KernelSpec]:
        for each in devices:
            for spec in lowered(step, each):
                stated.append(spec)
                body = piece_of(Part(spec, tuple(plain_operands(step, spec))), False).body
                assert not re.search(r"__local \w+ \w+\[", body), "local arrays are declared by KernelSpec.local"
                for array in spec.local:
                    assert re.search(rf"\b{array.name}\b", body)
                if "barrier" in body:
                    assert spec.local, "work-items that meet share something"
                asks = r"\b(barrier|get_local_id|get_group_id|get_num_groups|get_local_size)\b"
                assert spec.grouped == bool(re.search(asks, body))
                if not spec.grouped and spec.local:
                    assert prod(spec.local_size) == 1  # nobody to share it with
        return lowered(step, device)

    monkeypatch.setattr(Step, "kernels", kernels)
    random = Random(0)
    for seed in range(12):
        run = Run(call_of(op, op.sample(random), seed), opencl)
        run.walk_back(output_gradients(run.call, run.outputs))
    assert stated


@pytest.mark.parametrize("n", [1, 5, 70])
@pytest.mark.parametrize(("call", "exact", "drawn"), [case[1:] for case in ON_DEVICE], ids=[c[0] for c in ON_DEVICE])
def test_systems(otherwise: Backend, call: Any, exact: Any, drawn: Any, n: int) -> None:
    a = drawn(3, n, n)
    expected = exact(a.astype(np.float64))
    if np.abs(expected).max() < 1e30:
        np.testing.assert_allclose(call(te.tensor(a)).numpy(), expected, rtol=2e-3, atol=1e-4)


def test_ctc(otherwise: Backend, reference: Backend) -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal((30, 4, 9)).astype(np.float32)
    targets, ends, sizes = random.integers(0, 4, (4, 40)), [30, 20, 0, 30], [12, 9, 0, 2]
    found = []
    for backend in (reference, otherwise):
        x = te.tensor(logits, device=backend, requires_grad=True)
        y = F.ctc_loss(F.log_softmax(x, -1), te.tensor(targets, device=backend), ends, sizes, 4, "none")
        y.sum().backward()
        assert x.grad is not None
        found.append((y.detach().numpy(), x.grad.numpy()))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-4)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-4)


@pytest.mark.parametrize("shape", [(50,), (3, 50), (50, 2)], ids=str)
def test_long_lines_that_are_scattered(otherwise: Backend, reference: Backend, shape: tuple[int, ...]) -> None:
    """Of the many that name one place the last stays, whoever comes first."""
    random = np.random.default_rng(0)
    dim = shape.index(50)
    long = tuple(300 if size == 50 else size for size in shape)
    x, source, index = random.standard_normal(shape), random.standard_normal(long), random.integers(0, 50, long)
    found = []
    for backend in (reference, otherwise):
        a, b = (te.tensor(v.astype(np.float32), device=backend, requires_grad=True) for v in (x, source))
        where = te.tensor(index, device=backend)
        y = te.compile(lambda a, where, b: te.scatter(a * 1, dim, where, b))(a, where, b)
        y = te.scatter(a, dim, where, b) + y * 0
        y.sum().backward()
        assert a.grad is not None
        found.append((y.detach().numpy(), a.grad.numpy()))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
