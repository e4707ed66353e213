"""Every registered op against every property, for nothing more than being registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import properties
from tests.strategies import Call, call_of, calls, dtypes_of
from tinyedge.autograd.op import Elementwise
from tinyedge.backends import Backend
from tinyedge.dtypes import DType, bfloat16, float16
from tinyedge.ir.step import Op, Sample, registry

Function = TypeVar("Function", bound=Callable[..., Any])

EXEMPT = {
    **dict.fromkeys(("cat", "expand", "permute", "reshape", "slice"), "test_views"),
    "diagonal": "test_against_numpy",
}
EXEMPT |= dict.fromkeys(("with_gradient", "solve", "determinant", "cholesky", "triangular", "lu"), "test_linalg")
EXEMPT |= {"ctc": "test_ctc", "banded": "test_images", "strided": "test_in_place"}
"""Ops that say no ``sample``, each with the module that tests it instead."""


def has_sample(op: type[Op]) -> bool:
    return op.sample.__func__ is not Op.sample.__func__


OPS = [registry[name] for name in sorted(registry) if has_sample(registry[name])]
WITH_GRADIENT = [op for op in OPS if op.differentiable]
every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
every_differentiable_op = pytest.mark.parametrize("op", WITH_GRADIENT, ids=[op.name for op in WITH_GRADIENT])
some_call = st.data()


def same_calls(test: Function) -> Function:
    """Try every property of an op on the same calls, whose kernels are then built once: most of the time goes into
    building them. The thorough profile draws others for each.
    """
    return hypothesis.seed(0)(test) if settings.default.derandomize else test


def test_every_op_is_sampled_or_exempt() -> None:
    without = {name for name, op in registry.items() if not has_sample(op)}
    assert without == set(EXEMPT)


@every_op
@same_calls
@settings(max_examples=6)
@given(data=some_call)
def test_compiled_is_eager(op: type[Op], backend: Backend, data: st.DataObject) -> None:
    properties.assert_compiled_is_eager(data.draw(calls(op)), backend)


@every_op
@same_calls
@given(data=some_call)
def test_forward_on_opencl_is_numpys(op: type[Op], opencl: Backend, reference: Backend, data: st.DataObject) -> None:
    properties.assert_forward_agrees(data.draw(calls(op)), opencl, reference)


@every_differentiable_op
@same_calls
@given(data=some_call)
def test_backward_on_opencl_is_numpys(op: type[Op], opencl: Backend, reference: Backend, data: st.DataObject) -> None:
    properties.assert_backward_agrees(data.draw(calls(op)), opencl, reference)


@every_differentiable_op
@same_calls
@given(data=some_call)
def test_gradient_is_the_central_difference(op: type[Op], reference: Backend, data: st.DataObject) -> None:
    properties.assert_gradient_is_right(data.draw(calls(op, grid=False)), reference)


@every_differentiable_op
@same_calls
@given(data=some_call)
def test_accumulating_twice_doubles(op: type[Op], backend: Backend, data: st.DataObject) -> None:
    properties.assert_accumulating_doubles(data.draw(calls(op)), backend)


@every_op
@same_calls
@given(data=some_call)
def test_two_runs_give_the_same_bits(op: type[Op], opencl: Backend, data: st.DataObject) -> None:
    properties.assert_repeats(data.draw(calls(op)), opencl)


TAKES_INTEGERS = [op for op in OPS if dtypes_of(op)]
integer_op = pytest.mark.parametrize("op", TAKES_INTEGERS, ids=[op.name for op in TAKES_INTEGERS])


@integer_op
def test_integers_on_opencl_are_numpys(op: type[Op], opencl: Backend, reference: Backend) -> None:
    for dtype in dtypes_of(op):
        for seed in range(6):
            call = call_of(op, op.sample(Random(seed)), seed, strided=seed % 3 == 2, dtype=dtype)
            properties.assert_forward_agrees(call, opencl, reference)


@integer_op
def test_compiled_integers_are_eager(op: type[Op], opencl: Backend) -> None:
    for seed, dtype in enumerate(dtypes_of(op)):
        properties.assert_compiled_is_eager(call_of(op, op.sample(Random(seed)), seed, dtype=dtype), opencl)


STORED = [op for op in OPS if "f" in op.kinds]
stored_op = pytest.mark.parametrize("op", STORED, ids=[op.name for op in STORED])


@stored_op
@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=("float16", "bfloat16"))
def test_packed_floats_on_opencl_are_numpys(op: type[Op], dtype: DType, opencl: Backend, reference: Backend) -> None:
    """Operands stored in 16 bits, computed with in 32: the same on both backends, eager and compiled."""
    for seed in range(4):
        call = replace(call_of(op, op.sample(Random(seed)), seed, strided=seed % 3 == 2), packed=dtype)
        properties.assert_forward_agrees(call, opencl, reference)
        if op.differentiable:
            properties.assert_backward_agrees(call, opencl, reference)
    properties.assert_compiled_is_eager(call, opencl)


# Elementwise ops say nothing of shapes themselves: the corners of broadcasting, and sizes about every vector width.

ELEMENTWISE = [op for op in OPS if issubclass(op, Elementwise)]
FULL_SHAPES = ((), (0,), (1,), (2, 0, 3), (15,), (16,), (33,), (3, 70), (2, 1, 3, 1, 2, 1, 5))
PAIRS = (
    ((), (4,)),
    ((4,), ()),
    ((3, 1), (1, 4)),
    ((1,), (2, 0)),
    ((2, 3, 4), (3, 1)),
    ((20, 17), (17,)),
    ((1,), (10000,)),
    ((1, 3, 1), (70, 3, 50)),
)


def corner_cases(op: type[Op]) -> list[Call]:
    attrs = op.sample(Random(7)).attrs
    arity = len(op.inputs)
    shapes = [(shape,) * arity for shape in FULL_SHAPES]
    if arity > 1:
        shapes += [tuple(pair[k % 2] for k in range(arity)) for pair in PAIRS]
        shapes += [tuple(pair[(k + 1) % 2] for k in range(arity)) for pair in PAIRS]
    return [
        call_of(op, Sample(case, attrs), seed, strided=strided)
        for seed, case in enumerate(shapes)
        for strided in (False, True)
    ]


@pytest.mark.parametrize("op", ELEMENTWISE, ids=[op.name for op in ELEMENTWISE])
def test_elementwise_corners(op: type[Op], opencl: Backend, reference: Backend) -> None:
    for call in corner_cases(op):
        properties.assert_forward_agrees(call, opencl, reference)
        if op.differentiable:
            properties.assert_backward_agrees(call, opencl, reference)
