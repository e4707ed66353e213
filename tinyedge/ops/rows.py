"""How kernels walk rows: their launches, and what they state of their work-groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyedge.ir.spec import Device, LocalArray, grid


def row_launch(
    device: Device, rows: int, length: int, together: bool = True
) -> tuple[tuple[int], tuple[int], dict[str, int]]:
    """Global and local size, and the constants ``lanes`` and ``width``, for templates that walk rows (rows.cl.jinja).

    ``together`` says whether the elements of a row lie side by side.
    """
    if device.is_cpu:
        width = device.vector_width if together and length >= device.vector_width else 1
        return *grid(rows, 1 if width > 1 else device.group()), {"lanes": 1, "width": width}
    lanes = device.group()
    if length > 32 and (together or rows < 64 * device.compute_units):
        return (max(rows, 1) * lanes,), (lanes,), {"lanes": lanes, "width": 1}
    return *grid(rows, lanes), {"lanes": 1, "width": 1}


def shared_rows(ctype: str, walk: Mapping[str, int], joins: bool = True) -> dict[str, Any]:
    """What a kernel that walks rows, as ``row_launch`` says, states of its groups, and whether it ``joins`` values."""
    lanes = walk["lanes"]
    local = (LocalArray("joined", ctype, (lanes,)),) if lanes > 1 and joins else ()
    return {"local": local, "grouped": lanes > 1}
