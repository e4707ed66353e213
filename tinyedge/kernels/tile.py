"""The matrix product on a GPU: the kernels that it has, and which way of cutting it up suits which shape.

A product with a single row or column is bound by memory and has kernels of its own. All others, and convolutions as
products with the patches of an image, are one kernel, in tiles. ``tiles`` lists the ways to cut a product, by the time
that a simple model expects of each; a tuner may measure them instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

from tinyedge.kernels.matrix import Matrix, Patches, contiguous_batch, join_kernel
from tinyedge.kernels.spec import Device, KernelSpec, Scratch
from tinyedge.shapes import Shape


@dataclass(frozen=True)
class Tile:
    """A group's block of C, how deep it is staged, and an item's block; ``slices`` sets of items in a group, and
    ``parts`` groups, share k."""

    m: int
    n: int
    k: int
    item_m: int
    item_n: int
    slices: int = 1
    parts: int = 1

    @property
    def lanes(self) -> int:
        return (self.m // self.item_m) * (self.n // self.item_n)

    @property
    def run_m(self) -> int:
        return min(4, self.item_m)

    @property
    def run_n(self) -> int:
        return min(4, self.item_n)

    def local_bytes(self, itemsize: int) -> int:
        slab = self.k * (self.m + self.run_m + self.n + self.run_n)
        looked_up = 16 * max(2 * self.slices * self.k, self.n)
        return max(self.slices * slab, self.slices // 2 * self.m * self.n) * itemsize + looked_up


CUTS = (
    Tile(128, 128, 16, 8, 8), Tile(64, 128, 16, 8, 8), Tile(128, 64, 16, 8, 8), Tile(64, 64, 16, 8, 8),
    Tile(64, 64, 16, 4, 4), Tile(32, 64, 16, 4, 8), Tile(64, 32, 16, 8, 4), Tile(32, 32, 32, 4, 4),
    Tile(32, 32, 16, 4, 4), Tile(32, 32, 32, 2, 2), Tile(32, 32, 16, 2, 2), Tile(16, 64, 16, 4, 4),
    Tile(64, 16, 16, 4, 4), Tile(16, 32, 32, 2, 4), Tile(32, 16, 32, 4, 2), Tile(16, 16, 32, 2, 2),
    Tile(16, 16, 16, 2, 2),
)  # fmt: skip

# The model's numbers, fitted to what benchmarks/gpu_tiles.py measures: an H200, 2600 tiles of 119 products.
LATENCY = 1700
"""Cycles from asking for a tile to having it; and, at the beginning and the end, from a launch's start to its work."""

CYCLES = 3
"""Cycles from an item's instruction to its next."""

LANES = 75
"""Instructions of items that a compute unit really does in a cycle."""

REGISTERS = 42000
"""Registers of a compute unit: they limit how many groups share it."""

LOAD, LOOKED_UP, READ = 15, 19, 3
"""Instructions that it takes to load an element; beyond that, to look it up; and to read a run from local memory."""

LAUNCH = 12000
"""Cycles that a launch costs at least: a shorter kernel gains nothing."""


SLICES = (1, 2, 4, 8, 16)
MAX_PARTS = 64


@lru_cache(maxsize=4096)
def tiles(
    device: Device, m: int, n: int, k: int, ctype: str = "float", entries: int = 1, outer: int = 1,
    patches: str | None = None,
) -> tuple[Tile, ...]:  # fmt: skip
    """The tiles that ``device`` takes for ``entries`` products of m x k by k x n, the best by the model first."""
    itemsize = 8 if ctype == "double" else 4
    found = []
    for cut in CUTS:
        blocks = -(-m // cut.m) * -(-n // cut.n)
        if blocks * cut.m * cut.n > 2 * m * n and cut != CUTS[-1]:
            continue  # most of its work would lie outside
        if patches and cut.lanes % (cut.k if patches == "weight_gradient" else cut.n):
            continue  # an item looks up one spot
        wanted = 2 * device.compute_units // max(blocks * entries, 1)
        deep = outer * -(-k // cut.k)
        for slices in SLICES if wanted else SLICES[:2]:
            tile = replace(cut, slices=slices)
            if (
                tile.lanes * slices > max(device.group(), device.max_work_group)
                or tile.local_bytes(itemsize) > device.local_bytes
                or (slices > 1 and 2 * slices > deep)
            ):
                break
            found.append(tile)
            most = min(wanted, deep // (2 * slices), MAX_PARTS)
            found += [replace(tile, parts=parts) for parts in {most // 2, most} if parts > 1]
    return tuple(sorted(found, key=lambda tile: _cycles(device, tile, m, n, k, entries, outer, patches)))


def _cycles(
    device: Device, tile: Tile, m: int, n: int, k: int, entries: int, outer: int, patches: str | None
) -> tuple[float, float]:
    """What the product takes by the model, launches included; and its kernel by itself."""
    groups = -(-m // tile.m) * -(-n // tile.n) * entries * tile.parts
    turns = -(-outer * -(-k // tile.k) // (tile.slices * tile.parts))
    items = tile.lanes * tile.slices
    loads = (tile.m + tile.n) * tile.k / tile.lanes
    sums = tile.item_m * tile.item_n
    reads = tile.item_m / tile.run_m + tile.item_n / tile.run_n
    work = tile.k * (sums + READ * reads) + loads * (LOAD + (LOOKED_UP if patches else 0))
    share = -(-groups // device.compute_units)
    resident = max(1, REGISTERS // (items * (sums + 40)))
    turn = max(LATENCY + CYCLES * work, min(share, resident) * work * items / LANES)
    kernel = -(-share // resident) * (turns * turn + LATENCY)
    join = LAUNCH * (1 + tile.parts / 128) if tile.parts > 1 else 0
    return max(kernel, LAUNCH) + join, kernel


def tile_kernels(
    device: Device, a: Matrix, b: Matrix | Patches, c: Matrix, m: int, n: int, k: int, ctype: str = "float",
    batch: Shape = (), outer: int = 1, bias: str | None = None, bias_axis: str = "col", bias_batch: Shape = (),
) -> list[KernelSpec]:  # fmt: skip
    """Kernels for the product, as ``gemm_kernels`` describes it. B may be the patches of an image."""
    entries = prod(batch)
    if isinstance(b, Matrix):
        if n == 1 and m > 1:  # C^T = B^T A^T
            flipped = {"col": "row", "row": "col"}[bias_axis]
            return tile_kernels(device, b.T, a.T, c.T, n, m, k, ctype, batch, outer, bias, flipped, bias_batch)
        streamed = _streaming(device, b, m, n, k, ctype, outer)
        if streamed is not None:
            return [_streaming_kernel(streamed, a, b, c, m, n, k, ctype, batch, outer, bias, bias_axis, bias_batch)]
    kind = b.kind if isinstance(b, Patches) else None
    phases, widest, depth = 1, n, k
    if isinstance(b, Patches) and kind == "input_gradient":
        phases, widest, depth = _phases(b.sizes, k)
    tile = tiles(device, m, widest, depth, ctype, entries * phases, outer, kind)[0]
    sizes: dict[str, int] = {
        "m": m, "n": n, "k_length": k, "outer": outer, "parts": tile.parts, "batch_rank": len(batch),
        "a_row": a.row, "a_col": a.col, "a_outer": a.outer, "b_outer": b.outer, "c_row": c.row, "c_col": c.col,
        "down": -(-m // tile.m), "entries": entries,
    }  # fmt: skip
    if isinstance(b, Matrix):
        sizes |= {"b_row": b.row, "b_col": b.col}
        b_inner = "k" if b.row == 1 and b.col != 1 else "col"
    else:
        sizes |= b.sizes
        b_inner = "k" if kind == "weight_gradient" else "col"
    across = -(-widest // tile.n)
    sizes["across"] = across
    tables = {
        "batch_shape": batch,
        "a_batch": a.batch,
        "b_batch": b.batch,
        "c_batch": c.batch,
        "bias_batch": bias_batch if bias else (0,) * len(batch),
    }
    constants: dict[str, Any] = {
        "real": ctype, "a": a.name, "b": b.name, "c": c.name, "bias": bias, "bias_axis": bias_axis,
        "a_inner": "k" if a.col == 1 or kind == "input_gradient" else "row", "b_inner": b_inner, "patches": kind,
        "tile_m": tile.m, "tile_n": tile.n, "tile_k": tile.k, "item_m": tile.item_m, "item_n": tile.item_n,
        "run_m": tile.run_m, "run_n": tile.run_n, "slices": tile.slices, "split": False,
    }  # fmt: skip
    local = (tile.n // tile.item_n, tile.m // tile.item_m, tile.slices)
    groups = across * sizes["down"] * tile.parts * phases * entries
    geometry = (groups * local[0], local[1], local[2]), local
    extra = (bias,) if bias else ()
    if tile.parts == 1:
        slots = (a.name, b.name, *extra, c.name)
        return [KernelSpec("gemm_tile", "tile.cl.jinja", slots, *geometry, sizes, {}, tables, constants, hooked=slots)]
    partial = Scratch(f"{c.name}_parts", ctype, tile.parts * entries * m * n)
    first = KernelSpec(
        "gemm_tile", "tile.cl.jinja", (a.name, b.name, partial.name), *geometry, {**sizes, "c_row": n, "c_col": 1}, {},
        {**tables, "c_batch": contiguous_batch(batch, m * n)},
        {**constants, "c": partial.name, "bias": None, "split": True}, (partial,), hooked=(a.name, b.name),
    )  # fmt: skip
    join = join_kernel(
        device, partial, c, m, n, tile.parts, ctype, batch, bias, bias_axis, tables["bias_batch"], (partial,)
    )
    return [first, join]


@dataclass(frozen=True)
class Streaming:
    """A group's columns, the items that share each, and an item's rows."""

    kernel: str
    cols: int
    deep: int = 1
    rows: int = 1


def _streaming(device: Device, b: Matrix, m: int, n: int, k: int, ctype: str, outer: int) -> Streaming | None:
    """For a product that is bound by memory: how it is dealt out."""
    if m == 1:
        # 8 columns are what memory gives at once.
        along = b.row == 1 and b.col != 1
        items = device.group() if along else min(512, max(device.group(), device.max_work_group))
        cols = 1 if along else 8 if n <= 32 * device.compute_units else 32
        deep = 1
        while deep * cols < items and deep * 8 <= k:
            deep *= 2
        return Streaming("gemm_line", device.group() // deep if along else cols, deep) if k <= 512 * deep else None
    if k * outer <= 2:
        return Streaming("gemm_outer", device.group(), rows=4)
    return None


def _streaming_kernel(
    how: Streaming, a: Matrix, b: Matrix, c: Matrix, m: int, n: int, k: int, ctype: str, batch: Shape, outer: int,
    bias: str | None, bias_axis: str, bias_batch: Shape,
) -> KernelSpec:  # fmt: skip
    across, down = -(-n // how.cols), -(-m // how.rows)
    sizes = {
        "m": m, "n": n, "k_length": k, "outer": outer, "batch_rank": len(batch), "a_row": a.row, "a_col": a.col,
        "a_outer": a.outer, "b_row": b.row, "b_col": b.col, "b_outer": b.outer, "c_row": c.row, "c_col": c.col,
        "across": across, "down": down,
    }  # fmt: skip
    tables = {
        "batch_shape": batch, "a_batch": a.batch, "b_batch": b.batch, "c_batch": c.batch,
        "bias_batch": bias_batch if bias else (0,) * len(batch),
    }  # fmt: skip
    constants = {
        "real": ctype, "a": a.name, "b": b.name, "c": c.name, "bias": bias, "bias_axis": bias_axis,
        "b_inner": "k" if b.row == 1 and b.col != 1 else "col", "cols": how.cols, "deep": how.deep, "rows": how.rows,
    }  # fmt: skip
    slots = (a.name, b.name, *((bias,) if bias else ()), c.name)
    items = how.cols * how.deep
    return KernelSpec(
        how.kernel, "line.cl.jinja", slots, (items * across * down * prod(batch),), (items,), sizes, {}, tables,
        constants, hooked=slots,
    )  # fmt: skip


def _phases(sizes: Mapping[str, int], k: int) -> tuple[int, int, int]:
    """Into how many phases the pixels fall, and of one of them the pixels and about the depth."""
    stride_y, stride_x = sizes["stride_y"], sizes["stride_x"]
    pixels = -(-sizes["spots_height"] // stride_y) * -(-sizes["spots_width"] // stride_x)
    depth = k * sizes["kernel_height"] * sizes["kernel_width"] // (stride_y * stride_x)
    return stride_y * stride_x, pixels, max(depth, 1)


__all__ = ["CUTS", "Tile", "tile_kernels", "tiles"]
