"""The operands of a matrix product (Matrix, Patches), and the kernel that adds up the parts of a
product split along k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.shapes import Shape


@dataclass(frozen=True)
class Matrix:
    """An operand: the name of its slot or scratch buffer, and its strides in elements. ``quantised``: its elements lie
    in blocks along its unit stride.
    """

    name: str
    row: int
    col: int
    batch: Shape = ()
    outer: int = 0
    quantised: bool = False

    @property
    def T(self) -> Matrix:
        return Matrix(self.name, self.col, self.row, self.batch, self.outer, self.quantised)


@dataclass(frozen=True)
class Patches:
    """An image as the matrix of patches that a convolution multiplies, or one of its gradients (``kind``).

    The matrix is never stored: the kernel looks its elements up in the image, or copies a part of it to local memory.
    ``sizes`` are the convolution's, by the names in templates/tile.cl.jinja.
    """

    name: str
    kind: str
    sizes: Mapping[str, int]
    batch: Shape = ()
    outer: int = 0


def join_kernel(
    device: Device, partial: Scratch, c: Matrix, m: int, n: int, parts: int, ctype: str, batch: Shape, bias: str | None,
    bias_axis: str, bias_batch: Shape, scratch: tuple[Scratch, ...],
) -> KernelSpec:  # fmt: skip
    """The kernel that adds up, in a fixed order, the ``parts`` into which k was split."""
    entries = prod(batch)
    constants: dict[str, Any] = {"real": ctype, "a": partial.name, "c": c.name, "bias": bias, "bias_axis": bias_axis}
    slots = (*((bias,) if bias else ()), c.name)
    return KernelSpec(
        "gemm_join", "gemm.cl.jinja", (partial.name, *slots), *grid(entries * m * n, device.group()),
        {"m": m, "n": n, "parts": parts, "entries": entries, "batch_rank": len(batch), "c_row": c.row, "c_col": c.col},
        {}, {"batch_shape": batch, "c_batch": c.batch, "bias_batch": bias_batch}, constants, scratch, hooked=slots,
    )  # fmt: skip


def without_terms(
    device: Device, c: Matrix, m: int, n: int, k: int, ctype: str, batch: Shape, bias: str | None, bias_axis: str,
    bias_batch: Shape, scratch: tuple[Scratch, ...] = (),
) -> list[KernelSpec] | None:  # fmt: skip
    """The kernels of a product without elements, or whose sums are empty; None for every other product."""
    if not m * n * prod(batch):
        return []
    if k:
        return None
    partial = Scratch(f"{c.name}_parts", ctype, 1)
    bias_table = bias_batch if bias else (0,) * len(batch)
    return [join_kernel(device, partial, c, m, n, 0, ctype, batch, bias, bias_axis, bias_table, (*scratch, partial))]


def contiguous_batch(batch: Shape, entry: int) -> Shape:
    """Batch strides of entries of ``entry`` elements that follow each other in memory."""
    strides, step = [], entry
    for size in reversed(batch):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


__all__ = ["Matrix", "Patches", "contiguous_batch", "join_kernel"]
