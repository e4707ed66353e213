"""``docs/ops.md`` is true: each line is what calls of the function show, and every function has one."""

from __future__ import annotations

import pytest

import tinyedge as te
from tests.calls import BY_PARAMETER, CALLS, arguments
from tests.ops_table import PATH, document, find, measured, rows_of, written
from tinyedge import nn, optim
from tinyedge.autograd.absent import INSTEAD
from tinyedge.backends import Backend

GROUPS = rows_of()


@pytest.mark.parametrize("name", GROUPS)
def test_row(name: str, opencl: Backend) -> None:
    row = measured(GROUPS[name][0], opencl)
    assert written().get(name) == row, f"{row}: run python -m tests.ops_table {name}, if it is right"
    assert "differs" not in row
    assert not any(cell.endswith("Error") for cell in row)


def test_nothing_else_is_stale() -> None:
    """Names, places, files, layers, the ops of the SDK: all but what calls show."""
    assert PATH.read_text() == document(written()), "run python -m tests.ops_table"


def test_calls_are_of_functions_that_are_there() -> None:
    names = {entry.name for group in GROUPS.values() for entry in group}
    assert set(CALLS) <= names
    used = ", ".join(arguments(entry) for group in GROUPS.values() for entry in group)
    assert all(text in used for text in BY_PARAMETER.values())


@pytest.mark.parametrize("name", INSTEAD)
def test_what_is_left_out_says_what_to_use(name: str) -> None:
    found = [place for place in (te, te.Tensor, nn, nn.functional, optim) if hasattr(place, name)]
    assert not found, f"{name} is there: it is not left out any more"
    with pytest.raises(AttributeError, match="use "):
        getattr(te, name)


def test_a_name_that_is_not_there_is_not_found() -> None:
    assert find("F.conv2d") is nn.functional.conv2d
    assert find("F.conv2e") is None
