"""How kernels walk rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyedge.errors import DtypeError
from tinyedge.ir.spec import Device, LocalArray, grid
from tinyedge.tensor import Tensor

# Geometry


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


def floating(name: str, input: Any) -> Tensor:
    """``input``, which must be a tensor of a floating-point type."""
    if not isinstance(input, Tensor):
        raise DtypeError(name, "a tensor", f"got {type(input).__name__}", "Convert it with te.tensor.")
    if not input.dtype.is_floating_point:
        raise DtypeError(name, "a floating-point tensor", f"got {input.dtype.name}", "Convert it with .float().")
    return input
