"""What must hold of any call of any op: ``test_ops`` applies it to the registry, ``meta`` to planted faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import tinyedge as te
from tests.gradcheck import Array, gradcheck
from tests.strategies import Call, place, place_strided, read
from tinyedge.autograd.deferral import deferring
from tinyedge.autograd.dispatch import dispatch
from tinyedge.autograd.walk import Gradient, Walk, step_back
from tinyedge.backends import Backend
from tinyedge.ir.values import Slot
from tinyedge.tensor import Tensor


class Run:
    """A call on a backend: its input slots, its outputs, and the walk back through it."""

    def __init__(self, call: Call, backend: Backend, needs: Sequence[str] = ()) -> None:
        self.call, self.backend = call, backend
        random = call.generator()
        self.inputs: dict[str, Slot | None] = {}
        for name, array in call.inputs.items():
            wanted = name in needs
            if array is None:
                self.inputs[name] = None
            elif call.strided:
                self.inputs[name] = place_strided(array, backend, random, wanted, call.dtype_of(array))
            else:
                self.inputs[name] = place(array, backend, wanted, call.dtype_of(array))
        self.outputs = dispatch(call.op, list(self.inputs.values()), call.attrs, call.scalars, backend)

    def values(self) -> list[Array]:
        return [read(slot) for slot in self.outputs]

    def walk_back(self, gradients: Sequence[Array | None]) -> None:
        """Add the gradients of the inputs into their leaves, given those of the outputs."""
        random = self.call.generator()
        step = next((out.step for out in self.outputs if out.step is not None), None)
        if step is None:
            return
        slots = [
            None
            if dy is None
            else place_strided(dy, self.backend, random, dtype=out.dtype)
            if self.call.strided
            else place(dy, self.backend, dtype=out.dtype)
            for dy, out in zip(gradients, self.outputs, strict=True)
        ]
        given = [None if slot is None else Gradient(slot, owned=False) for slot in slots]
        walk = Walk()
        with deferring() as deferred:
            step_back(walk, step, given)
            walk.finish(deferred)

    def gradients(self) -> dict[str, Array]:
        return {
            name: read(slot.grad) for name, slot in self.inputs.items() if slot is not None and slot.grad is not None
        }

    def assert_inputs_unchanged(self) -> None:
        for name, slot in self.inputs.items():
            array = self.call.inputs[name]
            if slot is not None and array is not None:
                there = slot.dtype.unpack(slot.dtype.pack(array))
                same = np.array_equal(read(slot), there, equal_nan=array.dtype.kind == "f")
                assert same, f"{self.call} changed its input {name}"


def takes_gradient(call: Call, index: int, output: Slot) -> bool:
    return output.dtype.is_floating_point and call.op.outputs[index] not in call.op.hidden


def output_gradients(call: Call, outputs: Sequence[Slot]) -> list[Array | None]:
    """A random gradient for each floating-point output; of several outputs, some may get none."""
    random = np.random.default_rng(call.seed + 1)
    floating = [k for k, out in enumerate(outputs) if takes_gradient(call, k, out)]
    given = [k for k in floating if random.random() < 0.7] or floating[:1]
    return [
        random.uniform(-1, 1, out.shape).astype(out.dtype.computes.stored) if k in given else None
        for k, out in enumerate(outputs)
    ]


def some_needs(call: Call) -> list[str]:
    """Which inputs ask for a gradient: all of them in half of the calls, else a part."""
    random = np.random.default_rng(call.seed + 2)
    names = call.differentiable()
    if len(names) < 2 or random.random() < 0.5:
        return names
    return [name for name in names if random.random() < 0.5] or names[-1:]


def assert_close(call: Call, what: str, got: Array, expected: Array) -> None:
    assert got.shape == expected.shape, f"{call}: {what} has shape {got.shape}, expected {expected.shape}"
    assert got.dtype == expected.dtype, f"{call}: {what} is {got.dtype}, expected {expected.dtype}"
    if got.dtype.kind == "f":
        message = f"{call}: {what}"
        rtol, atol = call.tolerances()
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol, equal_nan=True, err_msg=message)
    else:
        as_bytes = np.uint8 if got.dtype == np.bool_ else got.dtype
        np.testing.assert_array_equal(got.view(as_bytes), expected.view(as_bytes), err_msg=f"{call}: {what}")


def assert_forward_agrees(call: Call, backend: Backend, reference: Backend) -> None:
    ran, expected = Run(call, backend), Run(call, reference)
    for name, got, wanted in zip(call.op.outputs, ran.values(), expected.values(), strict=True):
        assert_close(call, name, got, wanted)
    ran.assert_inputs_unchanged()
    expected.assert_inputs_unchanged()


def assert_backward_agrees(call: Call, backend: Backend, reference: Backend) -> None:
    needs = some_needs(call)
    ran, expected = Run(call, backend, needs), Run(call, reference, needs)
    dys = output_gradients(call, ran.outputs)
    ran.walk_back(dys)
    expected.walk_back(dys)
    got, wanted = ran.gradients(), expected.gradients()
    assert set(got) == set(wanted) == (set(needs) if ran.outputs[0].step is not None else set()), call
    for name in got:
        assert_close(call, f"d{name}", got[name], wanted[name])
    ran.assert_inputs_unchanged()
    expected.assert_inputs_unchanged()


def assert_gradient_is_right(call: Call, reference: Backend) -> None:
    """The reference backend's gradient against central differences, all in float64."""
    call = call.as_float64()
    names = call.differentiable()

    def run(arrays: Mapping[str, Array]) -> Run:
        return Run(replace(call, inputs={**call.inputs, **arrays}), reference, names)

    def forward(arrays: Mapping[str, Array]) -> list[Array]:
        ran = run(arrays)
        return [y for k, y in enumerate(ran.values()) if takes_gradient(call, k, ran.outputs[k])]

    def gradients(arrays: Mapping[str, Array], weights: Sequence[Array]) -> dict[str, Array]:
        ran, given = run(arrays), iter(weights)
        taking = [takes_gradient(call, k, out) for k, out in enumerate(ran.outputs)]
        ran.walk_back([np.asarray(next(given)) if takes else None for takes in taking])
        return ran.gradients()

    inputs: dict[str, Any] = {name: call.inputs[name] for name in names}
    if inputs and forward(inputs):
        gradcheck(forward, gradients, inputs, call.generator())


def assert_accumulating_doubles(call: Call, backend: Backend) -> None:
    needs = some_needs(call)
    ran = Run(call, backend, needs)
    dys = output_gradients(call, ran.outputs)
    ran.walk_back(dys)
    once = ran.gradients()
    ran.walk_back(dys)
    twice = ran.gradients()
    for name in once:
        np.testing.assert_array_equal(twice[name], once[name] + once[name], err_msg=f"{call}: d{name} added twice")


def assert_repeats(call: Call, backend: Backend) -> None:
    """Two runs of a call, forward and backward, give the same bits."""

    def bits() -> list[bytes]:
        ran = Run(call, backend, some_needs(call))
        values = ran.values()
        ran.walk_back(output_gradients(call, ran.outputs))
        return [array.tobytes() for array in (*values, *ran.gradients().values())]

    assert bits() == bits(), f"{call}: two runs differ"


def assert_compiled_is_eager(call: Call, backend: Backend) -> None:
    """Recorded and replayed, the op gives what it gives eagerly; after two calls, twice the gradients.

    But for rounding: what is fused rounds less often than what goes to memory in between.
    """
    if hasattr(call.op, "draw"):
        return  # a replay draws new random numbers; test_program compares with eager draws
    run = Run(call, backend, some_needs(call))
    run.walk_back(output_gradients(call, run.outputs))
    expected, gradients = run.values(), run.gradients()

    def again() -> list[Tensor]:
        other.outputs = dispatch(call.op, list(other.inputs.values()), call.attrs, call.scalars, backend)
        other.walk_back(output_gradients(call, other.outputs))
        results = [Tensor._wrap(slot) for slot in other.outputs]
        other.outputs = ()
        return results

    rtol, atol = call.tolerances()
    other = Run(call, backend, some_needs(call))
    other.outputs = ()
    program = te.compile(again, constant=["other", "call", "backend", "output_gradients", "tape"])
    for count in (1, 2):
        for got, value in zip(program(), expected, strict=True):
            wanted = value.astype(got.dtype.numpy)
            if wanted.dtype.kind == "f":
                np.testing.assert_allclose(got._values(), wanted, rtol, atol, err_msg=f"{call}, call {count}")
            else:
                np.testing.assert_array_equal(got._values(), wanted, err_msg=f"{call}, call {count}")
        for name, gradient in other.gradients().items():
            wanted = count * gradients[name]
            np.testing.assert_allclose(gradient, wanted, rtol, count * atol, err_msg=f"{call}, call {count}")
