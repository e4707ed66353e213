"""The kernels that an op takes on the other class of device are right too: a GPU's on a CPU, a CPU's on a GPU.

They are slow there, but they must be right: so that a machine with one device tests what another device runs. Its
work-groups hold 64 items, the least that kernels may count on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyedge as te
from tests import properties
from tests.guarded import GuardedOpenCL
from tests.strategies import calls
from tests.test_ops import every_differentiable_op, every_op
from tinyedge import backends
from tinyedge.backends import Backend
from tinyedge.op import Op

few = settings(max_examples=8)


@pytest.fixture(scope="module")
def prepared_otherwise(guarded_backends: dict[str, Backend]) -> GuardedOpenCL:
    usable = backends.usable_devices()
    if not usable:
        pytest.skip("no usable OpenCL device")
    backend = GuardedOpenCL(usable[0])
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
