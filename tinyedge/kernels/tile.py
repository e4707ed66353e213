"""The matrix product on a GPU: its kernels, and the choice of a tile for each shape.

In: the shape of a product (Product). Out: KernelSpecs. A product with a single row or column is memory-bound and has
kernels of its own (Streaming). All others, and convolutions as products with the patches of an image, are one tiled
kernel. ``tiles`` lists the possible tiles, ordered by the time that a simple cost model predicts; ``choose`` takes the
first, or what was measured to be fastest (the tuning cache).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

from tinyedge.ir.spec import Device, KernelSpec, LocalArray, Scratch
from tinyedge.kernels.matrix import Matrix, Patches, contiguous_batch, join_kernel, without_terms
from tinyedge.shapes import Shape


@dataclass(frozen=True)
class Tile:
    """A work-group's block of C (``m``, ``n``), its depth per stage (``k``), and a work-item's block (``item_m``,
    ``item_n``). The ``slices`` sets of work-items in a group, and ``parts`` groups, split k among them.
    """

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

    @property
    def pool(self) -> int:
        """Elements of A and B that a group stages; at the end its slices' sums lie there."""
        slab = self.k * (self.m + self.run_m + self.n + self.run_n)
        return max(self.slices * slab, self.slices // 2 * self.m * self.n)

    def local_bytes(self, itemsize: int) -> int:
        looked_up = 16 * max(2 * self.slices * self.k, self.n)
        return self.pool * itemsize + looked_up

    def local(self, ctype: str, patches: str | None) -> tuple[LocalArray, ...]:
        """The memory that a group shares; of patches it looks up where they lie."""
        pool = LocalArray("pool_4", f"{ctype}4", (-(-self.pool // 4),))
        if patches is None:
            return (pool,)
        per_tap = patches in ("forward", "input_gradient")
        return pool, LocalArray("taps", "int4", (2, self.slices, self.k) if per_tap else (self.n,))


@dataclass(frozen=True)
class Product:
    """All that the choice of a tile depends on: ``entries`` products of m x k by k x n, each a sum of ``outer`` ones.

    ``a_inner`` and ``b_inner`` name the contiguous axes of A and B; ``patches`` is the kind of B if it is looked up in
    an image.
    """

    m: int
    n: int
    k: int
    ctype: str = "float"
    entries: int = 1
    outer: int = 1
    a_inner: str = "k"
    b_inner: str = "col"
    patches: str | None = None


CUTS = (
    Tile(128, 128, 16, 8, 8), Tile(64, 128, 16, 8, 8), Tile(128, 64, 16, 8, 8), Tile(64, 64, 16, 8, 8),
    Tile(128, 64, 16, 8, 4), Tile(64, 128, 16, 4, 8), Tile(64, 64, 16, 4, 4), Tile(32, 64, 16, 4, 8),
    Tile(64, 32, 16, 8, 4), Tile(32, 32, 32, 4, 4), Tile(32, 32, 16, 4, 4), Tile(32, 32, 32, 2, 2),
    Tile(32, 32, 16, 2, 2), Tile(16, 64, 16, 4, 4), Tile(64, 16, 16, 4, 4), Tile(16, 32, 32, 2, 4),
    Tile(32, 16, 32, 4, 2), Tile(16, 16, 32, 2, 2), Tile(16, 16, 16, 2, 2),
)  # fmt: skip

SMALL_CUTS = tuple(Tile(8, lanes, lanes, 8, 1) for lanes in (32, 16, 8, 4, 2, 1))
"""For devices whose work-groups are smaller than any of CUTS needs."""

# The constants of the cost model, fitted to 2600 timed tiles of 119 products on an H200 (benchmarks/tiles.py).
LATENCY = 1300
"""Cycles from the request for a tile to its arrival."""

START = 4000
"""Cycles of a work-group before its first tile and after its last."""

CYCLES = 2.3
"""Cycles between two instructions of a work-item."""

LANES = 90
"""Instructions that a compute unit achieves per cycle, over all its work-items."""

REGISTERS, HELD = 65536, 56
"""Registers of a compute unit, which limit its resident work-groups; registers of a work-item beyond its sums."""

LOAD, LOOKED_UP, READ = 11.5, 14, 4.7
"""Instructions to load an element; the additional ones to look it up in an image; and to read a run of local memory."""

LAUNCH, JOINED = 12000, 100
"""Cycles of the shortest launch, below which a faster kernel gains nothing; and cycles to add up one more part."""

PERSISTENT = 4500
"""The same as LAUNCH for a kernel in a persistent kernel. Not fitted: on an H200 such kernels took 0.7 to 4 us at
least, and 0.5 us passed between two.
"""

HEAVY = 16
"""Sums per work-item from which on a persistent kernel does not take the tile: it needs more than its 64 registers."""

SLICES = (1, 2, 4, 8, 16)
MAX_PARTS = 64

MAX_LINE = 512
"""Products that a work-item of a single row's kernel sums at most: above that, work-groups must split k."""


@lru_cache(maxsize=4096)
def tiles(device: Device, product: Product) -> tuple[Tile, ...]:
    """The tiles that ``device`` can use for ``product``, the best by the cost model first."""
    m, n, patches = product.m, product.n, product.patches
    itemsize = 8 if product.ctype == "double" else 4
    found = []
    least = min(cut.lanes for cut in CUTS)
    small = next((cut for cut in SMALL_CUTS if cut.lanes <= device.max_work_group), SMALL_CUTS[-1])
    for cut in CUTS if device.max_work_group >= least else (small,):
        blocks = -(-m // cut.m) * -(-n // cut.n)
        if blocks * cut.m * cut.n > 2 * m * n and cut not in (CUTS[-1], small):
            continue  # most of its work would lie outside of C
        if patches and cut.lanes % (cut.k if patches == "weight_gradient" else cut.n):
            continue  # a work-item looks up one position of the image
        wanted = 2 * device.compute_units // max(blocks * product.entries, 1)
        deep = product.outer * -(-product.k // cut.k)
        for slices in SLICES if wanted or device.persistent else SLICES[:2]:
            tile = replace(cut, slices=slices)
            if tile.lanes * slices > device.max_work_group or tile.local_bytes(itemsize) > device.local_bytes:
                break
            if slices > 1 and 2 * slices > deep and not joins_persistent(device, tile):
                continue
            found.append(tile)
            most = min(wanted, deep // (2 * slices), MAX_PARTS)
            found += [replace(tile, parts=parts) for parts in {most // 2, most} if parts > 1]
    return tuple(sorted(found, key=lambda tile: _cycles(device, tile, product)))


def joins_persistent(device: Device, tile: Tile) -> bool:
    """Whether a kernel with such tiles can be a part of a persistent kernel."""
    return device.persistent and tile.lanes * tile.slices == device.group() and not is_heavy(device, tile)


def is_heavy(device: Device, tile: Tile) -> bool:
    """Whether a tile needs so many registers that a persistent kernel would suffer."""
    return device.persistent and tile.item_m * tile.item_n > HEAVY


def _cycles(device: Device, tile: Tile, product: Product) -> tuple[float, float]:
    """The predicted cycles of the product with its launches; and of its main kernel alone."""
    groups = -(-product.m // tile.m) * -(-product.n // tile.n) * product.entries * tile.parts
    turns = -(-product.outer * -(-product.k // tile.k) // (tile.slices * tile.parts))
    items = tile.lanes * tile.slices
    loads = (tile.m + tile.n) * tile.k / tile.lanes
    sums = tile.item_m * tile.item_n
    reads = tile.item_m / tile.run_m + tile.item_n / tile.run_n
    work = tile.k * (sums + READ * reads) + loads * (LOAD + (LOOKED_UP if product.patches else 0))
    share = -(-groups // device.compute_units)
    resident = max(1, REGISTERS // (items * (sums + HELD)))
    turn = max(LATENCY + CYCLES * work, min(share, resident) * work * items / LANES)
    kernel = max(1, share / resident) * (turns * turn + START)
    least = PERSISTENT if joins_persistent(device, tile) else LAUNCH
    join = least + JOINED * tile.parts if tile.parts > 1 else 0
    broken = LAUNCH if device.persistent and least == LAUNCH else 0  # it splits the persistent kernel into two launches
    return max(kernel, least) + join + broken, kernel


def choose(device: Device, product: Product, found: Sequence[Tile]) -> Tile:
    """The tile that was measured to be fastest, if it is in ``found``; else the first of ``found``."""
    tuned = device.tuned.get(product)
    return tuned if tuned is not None and tuned in found else found[0]


def tile_kernels(
    device: Device, a: Matrix, b: Matrix | Patches, c: Matrix, m: int, n: int, k: int, ctype: str = "float",
    batch: Shape = (), outer: int = 1, bias: str | None = None, bias_axis: str = "col", bias_batch: Shape = (),
    flops: int | None = None,
) -> list[KernelSpec]:  # fmt: skip
    """Kernels for the product that ``gemm_kernels`` describes. B may be the patches of an image; then ``flops`` are
    those of the convolution.
    """
    trivial = without_terms(device, c, m, n, k * outer, ctype, batch, bias, bias_axis, bias_batch)
    if trivial is not None:
        return trivial
    if isinstance(b, Matrix) and n == 1 and m > 1:  # C^T = B^T A^T
        flipped = {"col": "row", "row": "col"}[bias_axis]
        return tile_kernels(device, b.T, a.T, c.T, n, m, k, ctype, batch, outer, bias, flipped, bias_batch, flops)
    entries = prod(batch)
    flops = 2 * m * n * k * outer * entries if flops is None else flops
    extra = (bias,) if bias else ()
    slots = (a.name, b.name, *extra, c.name)
    sizes: dict[str, int] = {
        "m": m, "n": n, "k_length": k, "outer": outer, "batch_rank": len(batch), "entries": entries,
        "a_row": a.row, "a_col": a.col, "a_outer": a.outer, "b_outer": b.outer, "c_row": c.row, "c_col": c.col,
    }  # fmt: skip
    tables = {
        "batch_shape": batch,
        "a_batch": a.batch,
        "b_batch": b.batch,
        "c_batch": c.batch,
        "bias_batch": bias_batch if bias else (0,) * len(batch),
    }
    constants: dict[str, Any] = {"real": ctype, "a": a.name, "b": b.name, "c": c.name}
    constants |= {"bias": bias, "bias_axis": bias_axis}
    phases, widest, depth, kind = 1, n, k, None
    if isinstance(b, Matrix):
        sizes |= {"b_row": b.row, "b_col": b.col}
        a_inner, b_inner = "k" if a.col == 1 else "row", "k" if b.row == 1 and b.col != 1 else "col"
        streaming = _streaming(device, b_inner, m, n, k * outer)
        if streaming is not None:
            across, down = -(-n // streaming.cols), -(-m // streaming.rows)
            items = streaming.cols * streaming.deep
            sizes |= {"across": across, "down": down}
            constants |= {"b_inner": b_inner, "cols": streaming.cols, "deep": streaming.deep, "rows": streaming.rows}
            return [
                KernelSpec(
                    streaming.kernel, "line.cl.jinja", slots, (items * across * down * entries,), (items,), sizes, {},
                    tables, constants, hooked=slots, flops=flops, grouped=True,
                    local=(LocalArray("sums", ctype, (items,)),) if streaming.kernel == "gemm_line" else (),
                )
            ]  # fmt: skip
    else:
        sizes |= b.sizes
        kind = b.kind
        a_inner, b_inner = "k", "k" if kind == "weight_gradient" else "col"
        if kind == "input_gradient":
            phases, widest, depth = _phases(b.sizes, k)
    product = Product(m, widest, depth, ctype, entries * phases, outer, a_inner, b_inner, kind)
    tile = choose(device, product, tiles(device, product))
    across, down = -(-widest // tile.n), -(-m // tile.m)
    sizes |= {"across": across, "down": down, "parts": tile.parts}
    constants |= {
        "a_inner": a_inner, "b_inner": b_inner, "patches": kind, "tile_m": tile.m, "tile_n": tile.n, "tile_k": tile.k,
        "item_m": tile.item_m, "item_n": tile.item_n, "run_m": tile.run_m, "run_n": tile.run_n, "slices": tile.slices,
        "split": tile.parts > 1,
    }  # fmt: skip
    local = (tile.n // tile.item_n, tile.m // tile.item_m, tile.slices)
    geometry = (across * down * tile.parts * phases * entries * local[0], local[1], local[2]), local
    if tile.parts == 1:
        return [
            KernelSpec(
                "gemm_tile", "tile.cl.jinja", slots, *geometry, sizes, {}, tables, constants, hooked=slots, flops=flops,
                is_heavy=is_heavy(device, tile), local=tile.local(ctype, kind), grouped=True,
            )
        ]  # fmt: skip
    partial = Scratch(f"{c.name}_parts", ctype, tile.parts * entries * m * n)
    first = KernelSpec(
        "gemm_tile", "tile.cl.jinja", (a.name, b.name, partial.name), *geometry, {**sizes, "c_row": n, "c_col": 1}, {},
        {**tables, "c_batch": contiguous_batch(batch, m * n)}, {**constants, "c": partial.name, "bias": None},
        (partial,), hooked=(a.name, b.name), flops=flops, is_heavy=is_heavy(device, tile),
        local=tile.local(ctype, kind), grouped=True,
    )  # fmt: skip
    join = join_kernel(
        device, partial, c, m, n, tile.parts, ctype, batch, bias, bias_axis, tables["bias_batch"], (partial,)
    )
    return [first, join]


def _phases(sizes: Mapping[str, int], k: int) -> tuple[int, int, int]:
    """For a strided convolution's input gradient: the number of phases, and the pixels and depth of each."""
    stride_y, stride_x = sizes["stride_y"], sizes["stride_x"]
    pixels = -(-sizes["spots_height"] // stride_y) * -(-sizes["spots_width"] // stride_x)
    depth = k * sizes["kernel_height"] * sizes["kernel_width"] // (stride_y * stride_x)
    return stride_y * stride_x, pixels, max(depth, 1)


@dataclass(frozen=True)
class Streaming:
    """A memory-bound product: columns per work-group, work-items that share a column, and rows per work-item."""

    kernel: str
    cols: int
    deep: int = 1
    rows: int = 1


def _streaming(device: Device, b_inner: str, m: int, n: int, depth: int) -> Streaming | None:
    """The geometry for a product with one row or almost no depth; None for every other product."""
    if m == 1:
        # 8 columns are what one memory access gives; more of them, if enough columns remain to fill the device.
        cols = 1 if b_inner == "k" else 8 if n <= 32 * device.compute_units else 32
        cols = min(cols, device.max_work_group)
        items = device.group() if b_inner == "k" or device.persistent else min(512, device.max_work_group)
        deep = 1
        while 2 * deep * cols <= items and deep * 8 <= depth:
            deep *= 2
        if b_inner == "k" or device.persistent:
            cols = items // deep
        return Streaming("gemm_line", cols, deep) if depth <= MAX_LINE * deep else None
    return Streaming("gemm_outer", device.group(), rows=4) if depth <= 2 else None


__all__ = ["CUTS", "Product", "Tile", "choose", "tile_kernels", "tiles"]
