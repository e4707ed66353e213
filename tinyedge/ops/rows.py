"""How kernels walk rows: their launches, and what they state of their work-groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyedge.ir.spec import Device, LocalArray, grid
from tinyedge.kernels.sums import cascades


def walking(length: int, lanes: int, width: int) -> dict[str, int]:
    """The constants of a template in which ``lanes`` work-items, ``width`` elements at a time, walk ``length``."""
    return {"lanes": lanes, "width": width, "cascades": cascades(-(-length // (lanes * width)))}


def row_launch(
    device: Device, rows: int, length: int, together: bool = True
) -> tuple[tuple[int], tuple[int], dict[str, int]]:
    """Global and local size, and the constants ``lanes``, ``width`` and ``cascades``, for templates that walk rows
    (rows.cl.jinja).

    ``together`` says whether the elements of a row lie side by side.
    """
    if device.is_cpu:
        width = device.vector_width if together and length >= device.vector_width else 1
        return *grid(rows, 1 if width > 1 else device.group()), walking(length, 1, width)
    lanes = device.group()
    if length > 32 and (together or rows < 64 * device.compute_units):
        return (max(rows, 1) * lanes,), (lanes,), walking(length, lanes, 1)
    return *grid(rows, lanes), walking(length, 1, 1)


def shared_rows(ctype: str, walk: Mapping[str, int], joins: bool = True) -> dict[str, Any]:
    """What a kernel that walks rows, as ``row_launch`` says, states of its groups, and whether it ``joins`` values."""
    lanes = walk["lanes"]
    local = (LocalArray("joined", ctype, (lanes,)),) if lanes > 1 and joins else ()
    return {"local": local, "grouped": lanes > 1}
