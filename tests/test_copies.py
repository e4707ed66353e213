"""``write_into``: values stored in memory that is there, or added to what it holds, by the op ``copy``."""

from __future__ import annotations

import numpy as np
import pytest

import tinyedge as te
from tinyedge.autograd.dispatch import write_into
from tinyedge.backends import Backend
from tinyedge.ir.step import FORWARD, registry
from tinyedge.ir.values import Value

ROWS, COLUMNS = 5, 7


def number(values: np.ndarray, dtype: str) -> te.Tensor:
    return te.tensor(values).to(getattr(te, dtype))


@pytest.mark.parametrize("accumulate", [False, True], ids=["store", "add"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "int64", "uint8"])
@pytest.mark.parametrize("source", ["same", "turned", "a row", "a number", "float32"])
def test_a_part_of_memory(source: str, dtype: str, accumulate: bool, backend: Backend) -> None:
    """Every second row of a matrix, from sources with any strides; the other rows stay as they are."""
    there = np.arange(2.0 * ROWS * COLUMNS, dtype=np.float32).reshape(2 * ROWS, COLUMNS) % 50
    given = np.arange(1.0, ROWS * COLUMNS + 1, dtype=np.float32).reshape(ROWS, COLUMNS)
    whole = number(there, dtype)
    values: te.Tensor | None = number(given, "float32" if source == "float32" else dtype)
    if source == "turned":
        values = number(np.ascontiguousarray(given.T), dtype).T
    elif source == "a row":
        values, given = values[2], given[2]
    elif source == "a number":
        values, given = None, np.float32(3)
    version = whole._slot.storage.version
    write_into(Value(3, whole.dtype) if values is None else values._slot, whole[::2]._slot, accumulate)
    assert whole._slot.storage.version == version + 1
    there[::2] = given + (there[::2] if accumulate else 0)
    np.testing.assert_array_equal(whole.float().numpy(), there)


def test_it_is_a_forward_op_with_two_forms(reference: Backend) -> None:
    op = registry["copy"]
    assert op.accumulates
    assert not op.differentiable
    steps = te.compile(lambda x: te.cat([x, x])).prepare(te.ones(2)).steps.values()
    assert [(step.op, step.direction, step.accumulate) for step in steps] == [(op, FORWARD, frozenset())] * 2
