"""The matrix product that matmul, linear and convolution share: it chooses the kernel and its geometry.

    C[b, i, j] (+)= sum over o, k of A[b, o, i, k] * B[b, o, k, j]  (+ bias)

In: the operands' strides and sizes. Out: KernelSpecs (on a GPU those of ``tile``). A and B have any strides, but one of
their last two must be 1. ``outer`` sums several products into one (the samples of a batch, for a weight gradient).
Batch strides are tables, so that an operand may be broadcast along some axes (stride 0).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from math import prod
from typing import Any

from tinyedge.ir.spec import C_BYTES, Device, KernelSpec, LocalArray, Scratch, even_share, local_bytes_of, round_up
from tinyedge.kernels.image import Image, image_of
from tinyedge.kernels.matrix import Matrix, Patches, contiguous_batch, join_kernel, without_terms
from tinyedge.kernels.sums import cascades
from tinyedge.kernels.tile import Product, Tile, choose, tile_kernels, tiles
from tinyedge.shapes import Shape

LOCAL_BYTES = 102400
"""Local memory that one work-item takes on a CPU that has so much: two thirds for a block of B, which it copies there
and multiplies with all its rows of A, and one third for the sums of those products; for blocks that must be shallow,
one third and two. Of 14, 28, 48, 72 and 96 KiB the last was fastest for nearly all products of 49 to 2048 rows and
columns, by 10 to 40 % over the first; the rest is room for 128 rows of 64 sums, rounded up to whole blocks.
"""

UNPACKED = 32
"""Elements of a quantised row of which a multiple is unpacked together: vectors of them lie in one block."""

FAST_BYTES = 1 << 19
"""Bytes of A that fit in a core's own cache."""

TILED_COLUMNS = 256
"""Columns of a product from which on it pays to copy A into tiles first."""

STRIDED_DEPTH = 64
"""The depth of a block of B where A is read across its rows: for each k another line of the cache, from which all
columns of the block take their few elements, so as many lines must stay in the first cache. Where rows lie a power of
two apart, even those push each other out, and come from the second one.
"""

NARROW_DEPTH = 128
"""The depth of a block of B that holds all columns of a product with few of them, so that A is read once. As deep as a
long k it would be narrow, and A be read again for each.
"""

PART_BYTES = 1 << 19
"""Bytes of A that a work-item's neighbours read again from a core's cache. A longer product is split along k into parts
of so much, else every block of columns reads all of A from memory: for 128 x 576 x 49152 on two cores, a vocabulary's
gradient, the product took four fifths of the time.
"""

PACKED_ROWS = 28
"""Rows of A with which a block of B could be multiplied while it is packed, about: 10, 20 and 40 in its place made no
difference that shows, as the block was fetched before.
"""

LITTLE_MORE = 1.04
"""A time that is longer than another by this factor or less is as good."""

ITEM_PRODUCTS = 131072
"""Products that are worth one work-item on a CPU: some microseconds."""


def gemm_kernels(
    device: Device,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    m: int,
    n: int,
    k: int,
    ctype: str = "float",
    batch: Shape = (),
    outer: int = 1,
    bias: str | None = None,
    bias_axis: str = "col",
    bias_batch: Shape = (),
    scratch: tuple[Scratch, ...] = (),
    image: Image | None = None,
) -> list[KernelSpec]:
    """Kernels for the product. ``bias``, contiguous within a batch entry, is added along the columns or rows of C.

    ``scratch`` describes those operands that are scratch memory instead of slots of the step. ``image``: where B is
    the patches of an image; its strides within a batch entry do not count then.
    """
    trivial = without_terms(device, c, m, n, k * outer, ctype, batch, bias, bias_axis, bias_batch, scratch)
    if trivial is not None:
        return trivial
    if not device.is_cpu:
        return tile_kernels(device, a, b, c, m, n, k, ctype, batch, outer, bias, bias_axis, bias_batch)
    reads_better = b.col != 1 and a.row == 1 and not (a.col == 1 and b.row == 1) and not b.quantised
    if reads_better or a.quantised:
        # C^T = B^T A^T reads A along its unit stride; and unpacks blocks once for all rows, as B's elements are copied.
        flipped = {"col": "row", "row": "col"}[bias_axis]
        a, b, c, m, n, bias_axis = b.T, a.T, c.T, n, m, flipped
    entries = prod(batch)
    constants: dict[str, Any] = {}
    blocking: dict[str, int] = {}
    variant, tile_m, tile_n, width = _cpu_tile(device, a, b, m, n, ctype, image is not None)
    panels = rows = 0
    block = tile_n
    if variant == "gemm_panels":
        a_inner, b_inner = "k" if a.col == 1 else "row", "k" if b.col != 1 else "col"
        product = Product(m, n, k, ctype, entries, outer, a_inner, b_inner)
        cut = image.tile if image else even_columns(device, choose(device, product, panels_of(device, product)), n)
        if image:
            depth = image.depth
        else:
            depth = even_share(k, cut.k, UNPACKED if b.quantised else width)
            cut = _fitted(device, cut, depth, C_BYTES[ctype])
        tile_m, tile_n, max_rows, block = cut.item_m, cut.item_n, cut.m, cut.n
        blocking = {"depth": depth, "max_rows": max_rows, "block": block}
        constants = {"wide": n >= tile_n, "tail": () if n >= tile_n else _tail(n, width)}
        across = -(-n // block)
        wanted = 8 * device.compute_units
        rows, _ = _rows_of_item(device, product, cut)
        down = -(-m // rows)
        worth = ITEM_PRODUCTS // max(rows * block * k * outer, 1)
        panels = max(1, min(across * down * entries // wanted, worth, across))
        across = -(-across // panels)
    else:
        across, down = -(-n // tile_n), -(-m // tile_m)
    parts = 1
    if variant == "gemm_panels":
        parts = max(1, min(2 * device.compute_units // max(across * down * entries, 1), k * outer // 1024, 64))
        if outer == 1 and entries == 1 and across > 1 and n * 16 <= k:
            parts = max(parts, min(C_BYTES[ctype] * rows * k // PART_BYTES, k // (16 * n) * across, 64))
    if parts > 1 and outer > 1:
        parts = min(parts, outer)  # each part sums whole samples
    sizes: dict[str, int] = {
        "m": m, "n": n, "k_length": k, "outer": outer, "parts": parts, "batch_rank": len(batch),
        "a_row": a.row, "a_col": a.col, "a_outer": a.outer,
        "b_row": b.row, "b_col": b.col, "b_outer": b.outer,
        "c_row": c.row, "c_col": c.col, "panels": panels, "rows_per_item": rows, **blocking,
    }  # fmt: skip
    tables: dict[str, Shape] = {
        "batch_shape": batch,
        "a_batch": a.batch,
        "b_batch": b.batch,
        "c_batch": c.batch,
        "bias_batch": bias_batch if bias else (0,) * len(batch),
    }
    constants |= {
        "real": ctype, "a": a.name, "b": b.name, "tile_m": tile_m, "tile_n": tile_n, "width": width,
        "unit": image.unit if image else UNPACKED if b.quantised else 1, "cascades": cascades(k * outer // parts),
        "bias": bias if parts == 1 else None, "bias_axis": bias_axis,
    }  # fmt: skip
    groups = (across, down, entries * parts)
    local = (1, 1, 1)
    extra = (bias,) if bias else ()
    first: list[KernelSpec] = []
    if variant == "gemm_panels":
        constants["tiled"] = _is_tiled(product)
        if constants["tiled"]:
            packing = _tiles_kernel(device, a, m, k, tile_m, ctype, batch, scratch)
            first, scratch = [packing], packing.scratch
            constants["a"] = scratch[-1].name
            sizes["tiles"] = packing.sizes["tiles"]
    flops = 2 * m * n * k * outer * entries
    runs = {}
    shared: tuple[LocalArray, ...] = ()
    if variant == "gemm_panels":
        constants["transposes"] = b.col != 1
        constants["clamps"] = b.col != 1 and n % width != 0
        # A vector of a quantised row does not go on in the next one, where the row is no whole number of vectors.
        constants["ragged"] = b.quantised and b.col == 1 and n % width != 0
        shared = _local(ctype, cut, depth)
        runs = {matrix.name: n for matrix in (b, c) if matrix.col == 1 and _holds_rows(matrix, n)}
        constants["patches"] = None
        if image is not None:
            constants |= {"patches": image.kind, **image.constants}
            sizes |= image.sizes
            shared += image.local
            runs[b.name] = image.run
    loaded = (b.name,) if variant == "gemm_panels" and a.name != b.name else ()
    if parts == 1:
        buffers = (constants["a"], b.name, *extra, c.name)
        return [
            *first,
            KernelSpec(
                variant, "gemm.cl.jinja", buffers, groups, local, sizes, {}, tables,
                {**constants, "c": c.name}, scratch, (*loaded, *(extra if variant == "gemm_panels" else ()), c.name),
                runs, local=shared, flops=flops,
            ),
        ]  # fmt: skip
    partial = Scratch(f"{c.name}_parts", ctype, parts * entries * m * n)
    declared = (*scratch, partial)
    spread = {**sizes, "c_row": n, "c_col": 1}
    packed = {**tables, "c_batch": contiguous_batch(batch, m * n)}
    split = KernelSpec(
        variant, "gemm.cl.jinja", (constants["a"], b.name, partial.name), groups, local, spread, {}, packed,
        {**constants, "c": partial.name}, declared, loaded, runs, local=shared, flops=flops,
    )  # fmt: skip
    bias_table = tables["bias_batch"]
    join = join_kernel(device, partial, c, m, n, parts, ctype, batch, bias, bias_axis, bias_table, declared)
    return [*first, split, join]


def patch_kernels(
    device: Device,
    a: Matrix,
    patches: Patches,
    c: Matrix,
    m: int,
    n: int,
    k: int,
    ctype: str = "float",
    batch: Shape = (),
    outer: int = 1,
    bias: str | None = None,
    bias_axis: str = "col",
    bias_batch: Shape = (),
) -> list[KernelSpec] | None:
    """Kernels for the product with the patches of an image, which a CPU takes from there; None if they must be laid out
    in memory first.
    """
    inner = "col" if patches.kind == "forward" else "k"
    b = Matrix(patches.name, *((0, 1) if inner == "col" else (1, 0)), patches.batch, patches.outer)
    image = None
    if m * n * k * outer * prod(batch):
        if a.quantised or (m == 1 and inner == "k"):  # a single filter's gradient: dot products take 0.9 of the time
            return None
        width = _cpu_tile(device, a, b, m, n, ctype, True)[3]
        product = Product(m, n, k, ctype, prod(batch), outer, "k" if a.col == 1 else "row", inner, patches.kind)
        tiles = panels_of(device, product)
        for tile in (even_columns(device, each, n) for each in (choose(device, product, tiles), *tiles)):
            free_bytes = device.local_bytes - local_bytes_of(_local(ctype, tile, tile.k))
            found = image_of(patches, tile, n, k, ctype, width, free_bytes)
            image = image or found
            if found is not None and not found.is_cut:
                image = found
                break
        if image is None:
            return None
    return gemm_kernels(device, a, b, c, m, n, k, ctype, batch, outer, bias, bias_axis, bias_batch, image=image)


def even_columns(device: Device, tile: Tile, n: int) -> Tile:
    """The tile with nearly equal blocks of columns, as many as before or up to a third more, so that cores get equal
    shares of them.
    """
    count = -(-n // tile.n)
    shared = round_up(count, device.compute_units)
    count = shared if 3 * shared <= 4 * count else count
    return replace(tile, n=even_share(n, min(tile.n, -(-n // count) + tile.item_n - 1), tile.item_n))


def _fitted(device: Device, tile: Tile, depth: int, itemsize: int) -> Tile:
    """The tile, or one with fewer rows and columns where ``depth``, in whole units, is more than what it was made for
    and local memory is short.
    """
    room, columns = device.local_bytes // itemsize, tile.n
    while columns > tile.item_n and (depth + tile.item_m) * columns > room:
        columns = round_up(columns // 2, tile.item_n)
    rows = max((room // columns - depth) // tile.item_m, 1) * tile.item_m
    return replace(tile, m=min(tile.m, rows), n=columns)


def _local(ctype: str, tile: Tile, depth: int) -> tuple[LocalArray, ...]:
    """The memory of gemm_panels for a block of B and for the sums."""
    return LocalArray("packed", ctype, (depth * tile.n,)), LocalArray("sums", ctype, (tile.m * tile.n,))


def _rows_of_item(device: Device, product: Product, tile: Tile) -> tuple[int, int]:
    """Rows of C for a work-item, and the time that the product then takes, in products of one core: each item packs
    B's block for itself, so few rows pay for it badly; but many rows leave cores idle. Of those that cost little more
    than the least, the smallest, so that a core that is disturbed leaves its work to others.
    """
    m = product.m
    columns = -(-product.n // tile.n) * product.entries
    most = m if product.outer == 1 and product.k <= tile.k else tile.m
    times: dict[int, int] = {}
    for down in range(-(-m // most), max(-(-m // most), min(-(-m // tile.item_m), 8 * device.compute_units)) + 1):
        rows = round_up(-(-m // down), tile.item_m)
        turns = -(-columns * -(-m // rows) // device.compute_units)
        times.setdefault(rows, turns * (rows + PACKED_ROWS) * tile.n)
    least = min(times.values())
    return min((rows, time) for rows, time in times.items() if time <= LITTLE_MORE * least)


def _is_tiled(product: Product) -> bool:
    """Whether A is copied into tiles: it is large or strided, and the product is long enough to pay for the copy."""
    least = FAST_BYTES // 8 if product.a_inner == "row" else FAST_BYTES
    return product.outer == 1 and product.n >= TILED_COLUMNS and product.m * product.k * C_BYTES[product.ctype] >= least


def _tiles_kernel(
    device: Device, a: Matrix, m: int, k: int, tile_m: int, ctype: str, batch: Shape, scratch: tuple[Scratch, ...]
) -> KernelSpec:
    """The kernel that copies A into tiles in the order of their use; its last scratch buffer is the output."""
    tiles, depth, each = -(-m // tile_m), 256, 8
    entries = prod(batch)
    packed = Scratch(f"{a.name}_tiles", ctype, entries * tiles * tile_m * k)
    return KernelSpec(
        "gemm_tiles", "gemm.cl.jinja", (a.name, packed.name), (-(-tiles // each), -(-k // depth), entries), (1, 1, 1),
        {
            "m": m, "k_length": k, "tiles": tiles, "tiles_per_item": each, "depth": depth, "batch_rank": len(batch),
            "a_row": a.row, "a_col": a.col,
        },
        {}, {"batch_shape": batch, "a_batch": a.batch},
        {"real": ctype, "a": a.name, "c": packed.name, "tile_m": tile_m, "along_k": a.col == 1, "bias": None},
        (*scratch, packed), flops=0,
    )  # fmt: skip


def _holds_rows(matrix: Matrix, length: int) -> bool:
    """Whether rows of ``length`` follow each other in memory from the start of the buffer."""
    return all(step % length == 0 for step in (matrix.row, *matrix.batch, matrix.outer))


def _cpu_tile(
    device: Device, a: Matrix, b: Matrix, m: int, n: int, ctype: str, packs: bool
) -> tuple[str, int, int, int]:
    """A CPU's kernel, rows and columns of a work-item's block, and vector width; the sums fill the registers.
    ``packs``: B must be packed.
    """
    lanes = device.native_width
    if packs or m > 4 or (b.quantised and b.col != 1 and a.col != 1):
        if ctype == "double":
            lanes //= 2
        return "gemm_panels", 0, 0, lanes
    if b.col == 1:
        return ("gemm_rows", 1, 4 * lanes, lanes) if m == 1 else ("gemm_rows", 4, 2 * lanes, lanes)
    return ("gemm_dot", 1, 8, lanes) if m == 1 else ("gemm_dot", 4 if lanes >= 16 else 3, 4, lanes)


def _columns(device: Device, n: int, lanes: int) -> tuple[int, ...]:
    """Columns that the block of sums in registers may have: few enough for n, and for the registers, of which AVX-512
    has 32.

    With four vectors of columns a product takes fewer other instructions than with two. Those cost time where two
    threads share a core, as on most virtual machines: up to a quarter, measured on a busy one. Three, which allow for
    eight rows, are worth it where cores get equal shares of the columns so: a tenth, for 576 columns and two cores.
    """
    most = 4 if device.native_width >= 16 else 2
    if most == 4 and n % (3 * lanes) == 0 and n >= 4 * lanes:
        return 4 * lanes, 3 * lanes
    return (min(-(-n // lanes), most) * lanes,)


def _tail(columns: int, width: int) -> tuple[int, ...]:
    """The vectors that hold so many columns, the last of half the ``width`` if that is enough: it costs half as much
    where a unit of the processor is narrower than a register.
    """
    vectors, rest = divmod(columns, width)
    last = () if not rest else (width // 2,) if rest <= width // 2 else (width,)
    return (width,) * vectors + last


def panels_of(device: Device, product: Product) -> tuple[Tile, ...]:
    """The tiles among which a CPU's gemm_panels can choose, the default first.

    ``m``, ``n`` are the sums that a work-item keeps, ``k`` the depth of its block of B, ``item_m``, ``item_n`` the
    block in registers.
    """
    lanes = device.native_width * 4 // C_BYTES[product.ctype]
    found = [_panels(device, product, tile_n) for tile_n in _columns(device, product.n, lanes)]
    widest = found[0][0].item_n

    def time_of(tiles: list[Tile]) -> float:
        return _rows_of_item(device, product, tiles[0])[1] * (1 if tiles[0].item_n == widest else LITTLE_MORE)

    found.sort(key=time_of)
    return tuple(chain.from_iterable(found))


def _panels(device: Device, product: Product, tile_n: int) -> list[Tile]:
    """The tiles with blocks of ``tile_n`` columns in registers."""
    itemsize = C_BYTES[product.ctype]
    # Of what a small device has, a part of an image takes a third.
    local_bytes = min(device.local_bytes * 2 // 3 if product.patches else device.local_bytes, LOCAL_BYTES)
    sums_bytes, panel_bytes = local_bytes // 3, 2 * (local_bytes // 3)
    deepest, columns = product.k, product.n
    row_bytes = product.n * itemsize
    if product.a_inner == "row" and not _is_tiled(product):
        deepest = STRIDED_DEPTH
    elif product.outer == 1 and product.k * row_bytes > panel_bytes and NARROW_DEPTH * row_bytes <= sums_bytes:
        deepest = NARROW_DEPTH
    if deepest < product.k:  # what shallow blocks leave is for the sums; and one may hold all columns
        sums_bytes, panel_bytes = panel_bytes, sums_bytes
        columns = 2 * product.n - 1
    deepest = max(min(deepest, product.k), 1)
    found = []
    vectors = tile_n * itemsize // (4 * device.native_width)
    heights = (8, 6, 4) if device.native_width >= 16 and vectors < 4 else (6, 4)  # 24 sums, of 32 registers
    # A block of four rows uses the multipliers less well than a higher one.
    for height in sorted(heights, key=lambda rows: round_up(product.m, rows) * (1.15 if rows == 4 else 1)):
        # Where k is short, a wide block is better: rows of C are then stored in longer pieces.
        block, most = tile_n, sums_bytes // (height * itemsize)
        while product.outer == 1 and 2 * block <= min(columns, most, panel_bytes // (deepest * itemsize)):
            block *= 2
        for width in (block, 2 * block, block // 2):
            if tile_n <= width <= most:
                rows = sums_bytes // (width * itemsize) // height * height
                found.append(Tile(rows, width, min(panel_bytes // (width * itemsize), deepest), height, tile_n))
    return found


def cuts(device: Device, product: Product) -> tuple[Tile, ...]:
    """The tiles among which the device can choose for a product; the one that is taken without tuning comes first."""
    return panels_of(device, product) if device.is_cpu else tiles(device, product)


__all__ = ["Matrix", "cuts", "gemm_kernels", "patch_kernels"]
