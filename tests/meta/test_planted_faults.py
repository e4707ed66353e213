"""The properties themselves: each planted fault must be found, and the op without a fault must pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import jinja2
import numpy as np
import pytest

from tests import properties
from tests.gradcheck import KinkError, directional, gradcheck
from tests.guarded import GuardedOpenCL
from tests.strategies import call_of, place, read
from tinyedge import dtypes
from tinyedge.autograd.dispatch import new_slot
from tinyedge.autograd.op import Elementwise
from tinyedge.backends import Backend
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import Op, Sample, Step, registry
from tinyedge.ir.values import Spec
from tinyedge.kernels import render

TEMPLATES = {
    "planted.cl.jinja": """
{{ begin() }}
    const int i = get_global_id(0);
    if (i >= n) return;
{% if fault == "race" %}
    __local float turned[64];
    turned[get_local_id(0)] = x[i];
    STORE_y(i, turned[63 - get_local_id(0)]); // without a barrier
{% elif fault == "deaf" %}
    dx[i] = 3 * dy[i];
{% elif fault == "scratch" %}
    {{ area }}[i] = x[i];
    if (i == 0) {{ area }}[n] = x[i];
    STORE_y(i, 3 * x[i]);
{% endif %}
{{ end() }}
"""
}


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ops and templates that exist for one test."""
    before = dict(registry)
    loader = jinja2.ChoiceLoader([render._environment.loader, jinja2.DictLoader(TEMPLATES)])
    monkeypatch.setattr(render._environment, "loader", loader)
    yield
    registry.clear()
    registry.update(before)


def triple(**members: Any) -> type[Op]:
    """``y = 3 x``, with some members replaced by faulty ones."""

    class Triple(Elementwise):
        signature = "()->()"
        domain = {"x": (-4.0, 4.0)}
        kernel_forward = {"y": members.get("forward_text", "3 * x")}
        kernel_backward = {"dx": members.get("backward_text", "3 * dy")}

        @staticmethod
        def forward(x: Any) -> Any:
            return 3 * x

        @staticmethod
        def backward(dy: Any) -> Any:
            return (members.get("slope", 3) * dy,)

        @classmethod
        def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
            specs = super().kernels_forward(step, device)
            return members["change_forward"](step, specs) if "change_forward" in members else specs

        @classmethod
        def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
            specs = super().kernels_backward(step, device)
            return members["change_backward"](step, specs) if "change_backward" in members else specs

    return Triple


def fails(prop: Callable[..., None], op: type[Op], *backends: Backend) -> str:
    """The text of the assertion with which ``prop`` refuses some call of ``op``; "" if it accepts them all."""
    for seed in range(20):
        try:
            prop(call_of(op, op.sample(Random(seed)), seed), *backends)
        except AssertionError as error:
            return str(error) or "assertion"
    return ""


def count_changed_by(change: int) -> Callable[[Step, list[KernelSpec]], list[KernelSpec]]:
    def changed(step: Step, specs: list[KernelSpec]) -> list[KernelSpec]:
        return [replace(spec, sizes={**spec.sizes, "n": spec.sizes["n"] + change}) for spec in specs]

    return changed


def planted_kernel(fault: str, buffers: tuple[str, ...]) -> Callable[[Step, list[KernelSpec]], list[KernelSpec]]:
    def changed(step: Step, specs: list[KernelSpec]) -> list[KernelSpec]:
        numel = step.slots[buffers[0]].numel
        scratch = tuple(Scratch(name, "float", numel) for name in buffers if name not in step.slots)
        constants = {"fault": fault, "area": scratch[0].name if scratch else ""}
        return [
            KernelSpec(
                "planted",
                "planted.cl.jinja",
                buffers,
                *grid(numel, 64),
                {"n": numel},
                constants=constants,
                scratch=scratch,
            )
        ]

    return changed


def test_an_op_without_fault_passes(opencl: Backend, reference: Backend) -> None:
    op = triple()
    assert not fails(properties.assert_forward_agrees, op, opencl, reference)
    assert not fails(properties.assert_backward_agrees, op, opencl, reference)
    assert not fails(properties.assert_gradient_is_right, op, reference)
    assert not fails(properties.assert_accumulating_doubles, op, opencl)
    assert not fails(properties.assert_repeats, op, opencl)


@pytest.mark.parametrize("slope", [3.01, -3, 0, float("nan")])
def test_wrong_gradient(slope: float, reference: Backend) -> None:
    assert "the difference says" in fails(properties.assert_gradient_is_right, triple(slope=slope), reference)


def test_wrong_kernels(opencl: Backend, reference: Backend) -> None:
    assert fails(properties.assert_forward_agrees, triple(forward_text="3.001f * x"), opencl, reference)
    assert fails(properties.assert_backward_agrees, triple(backward_text="3.001f * dy"), opencl, reference)


def test_element_left_unwritten(opencl: Backend, reference: Backend) -> None:
    assert "nan" in fails(
        properties.assert_forward_agrees, triple(change_forward=count_changed_by(-1)), opencl, reference
    )
    assert "nan" in fails(
        properties.assert_backward_agrees, triple(change_backward=count_changed_by(-1)), opencl, reference
    )


def test_write_past_the_end(opencl: Backend, reference: Backend) -> None:
    text = fails(properties.assert_forward_agrees, triple(change_forward=count_changed_by(1)), opencl, reference)
    assert re.search(r"triple \(forward\) wrote \d bytes after a buffer", text)
    text = fails(properties.assert_accumulating_doubles, triple(change_backward=count_changed_by(1)), opencl)
    assert re.search(r"triple \(backward\) wrote \d bytes after a buffer", text)


def test_write_past_the_end_of_scratch(opencl: Backend, reference: Backend) -> None:
    op = triple(change_forward=planted_kernel("scratch", ("x", "area", "y")))
    assert "triple (forward) wrote 4 bytes after a buffer" in fails(
        properties.assert_forward_agrees, op, opencl, reference
    )


def test_write_before_the_start(opencl: GuardedOpenCL) -> None:
    slot = place(np.zeros(5, np.float32), opencl)
    opencl.check(slot.storage.buffer, "nobody")
    parent, *_ = opencl.parents[id(slot.storage.buffer)]
    opencl.cl.enqueue_copy(opencl.queue, parent, np.zeros(1, np.uint8), dst_offset=opencl.before - 1, is_blocking=True)
    with pytest.raises(AssertionError, match="culprit wrote 1 bytes before a buffer of 20 bytes, from byte -1"):
        opencl.check(slot.storage.buffer, "culprit")


def test_guards_go_with_their_buffers(opencl: GuardedOpenCL) -> None:
    before = len(opencl.parents)
    slot = place(np.zeros(5, np.float32), opencl)
    assert len(opencl.parents) == before + 1
    del slot
    assert len(opencl.parents) == before


def test_gradient_that_ignores_accumulate(opencl: Backend, reference: Backend) -> None:
    op = triple(change_backward=planted_kernel("deaf", ("dx", "dy")))
    assert not fails(properties.assert_backward_agrees, op, opencl, reference)
    assert "added twice" in fails(properties.assert_accumulating_doubles, op, opencl)


def test_race(opencl: Backend, reference: Backend) -> None:
    class Racing(Op):
        signature = "(n)->(n)"

        @classmethod
        def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
            assert inputs[0] is not None
            return (inputs[0],)

        @classmethod
        def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
            return planted_kernel("race", ("x", "y"))(step, [])

        @staticmethod
        def forward(x: Any) -> Any:
            return x.reshape(-1, 64)[:, ::-1].reshape(-1)

        @classmethod
        def sample(cls, random: Random) -> Sample:
            return Sample(((6400,),))

    assert "Not equal to tolerance" in fails(properties.assert_forward_agrees, Racing, opencl, reference)


def test_changed_input(reference: Backend) -> None:
    class Changing(Elementwise):
        signature = "()->()"
        kernel_forward = {"y": "x"}

        @staticmethod
        def forward(x: Any) -> Any:
            x[...] = 1
            return x

    assert "changed its input x" in fails(properties.assert_forward_agrees, Changing, reference, reference)


def test_gradcheck_refuses_a_kink() -> None:
    with pytest.raises(KinkError):
        directional(lambda t: abs(t - 5e-7))
    with pytest.raises(KinkError):
        gradcheck(
            lambda arrays: [np.abs(arrays["x"] - 5e-8).sum()],
            lambda arrays, weights: {"x": weights[0] * np.sign(arrays["x"] - 5e-8)},
            {"x": np.zeros(50)},
            np.random.default_rng(0),
        )


def test_poison_shows(backend: Backend) -> None:
    assert np.isnan(read(new_slot(backend, dtypes.float32, (3,)))).all()
    assert (read(new_slot(backend, dtypes.int32, (3,))) > 0x7FA00000).all()
