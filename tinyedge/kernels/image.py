"""The part of an image that a CPU's matrix product keeps in local memory, where it takes patches from.

In: the patches of a convolution, and the block of B that a work-item packs. Out: how the image lies there, as sizes for
templates/image.cl.jinja. Each row has its padding beside it, so that no border is special, and is split into phases,
which makes a stride disappear: phase q holds the columns q, q + stride, ... So what a tap meets at neighbouring output
positions are neighbours in memory, up to the end of an output row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from tinyedge.ir.spec import LocalArray, even_share, local_bytes_of
from tinyedge.kernels.matrix import Patches
from tinyedge.kernels.tile import Tile

IMAGE_BYTES = 65536
"""Local memory that the part of an image takes at most, where a device has so much beside the product's block."""

MOST_COPIED = 1.5
"""Elements of the image that a block may copy for each that it packs. At 1.1 to 1.3 (3x3 and 1x3 filters with stride 2)
the product took 0.93 to 1.05 of the time with patches in memory, on two cores of an AVX2 machine; at 1.8 (the weight's
gradient for 11x11 filters with stride 4) 1.6 of it; at 0.1 to 0.7 mostly 0.5 to 0.95.
"""


@dataclass(frozen=True)
class Image:
    """The ``kind`` of patches, the product's tile, the ``depth`` of its block of B, and the part of the image for it.
    ``unit``: k is split into parts of whole units. ``constants``: with those of the block, what the kernel is made for.
    ``run``: elements of a plane of the image. ``is_cut``: the block is less deep than the tile, for lack of memory.
    """

    kind: str
    tile: Tile
    depth: int
    unit: int
    constants: Mapping[str, int]
    sizes: Mapping[str, int]
    local: tuple[LocalArray, ...]
    run: int
    is_cut: bool


def image_of(patches: Patches, tile: Tile, n: int, k: int, ctype: str, width: int, free_bytes: int) -> Image | None:
    """The image's part for blocks of B, which is k x n, of ``tile.n`` columns; None if it does not fit into
    ``free_bytes``, or does not pay.
    """
    given = patches.sizes
    forward = patches.kind == "forward"
    taps_y, taps_x = given["kernel_height"], given["kernel_width"]
    taps = taps_y * taps_x
    channels = (k if forward else n) // taps
    most = min(free_bytes, IMAGE_BYTES)
    gap_y, gap_x = (
        _gap(given[f"kernel_{side}"], given[f"stride_{axis}"], given[f"dilation_{axis}"])
        for side, axis in (("height", "y"), ("width", "x"))
    )
    phases = given["stride_x"] // gap_x
    line_rows, tap_rows, tap_columns = (
        given["stride_y"] // gap_y,
        given["dilation_y"] // gap_y,
        given["dilation_x"] // gap_x,
    )
    height, row = given["spots_height"], given["spots_width"]

    def copied(depth: int) -> float:
        """Elements that a block copies, about, for each that it packs."""
        met, spots = (depth, tile.n) if forward else (tile.n, depth)
        met, spots = min(met, channels * taps), min(spots, height * row)
        lines = 1 + (spots - 1) / row
        broken = min(lines - 1, 1)
        rows = (min(lines, height) - 1) * line_rows + (taps_y - 1) * tap_rows + 1
        columns = (broken * row + (1 - broken) * min(spots, row)) * phases + (taps_x - 1) * tap_columns
        planes = met / taps if forward else min(channels, 1 + (met - 1) / taps)
        return planes * rows * columns / (met * spots)

    def placed(depth: int) -> tuple[tuple[LocalArray, ...], dict[str, int]]:
        """The memory of the part, and its sizes."""
        met, spots = (depth, tile.n) if forward else (tile.n, depth)
        planes = min(channels, _touched(met, taps))
        lines = min(height, _touched(spots, row, aligned=forward))
        rows = (lines - 1) * line_rows + (taps_y - 1) * tap_rows + 1
        phase = (row if lines > 1 else min(row, spots)) + (taps_x - 1) * tap_columns // phases
        pitch = phase * phases
        # A vector may begin at the last element.
        local = LocalArray("image", ctype, (planes * rows * pitch + width,)), LocalArray("reach", "int", (met,))
        return local, {"rows_held": rows, "phase": phase, "pitch": pitch}

    deepest = depth = even_share(k, tile.k, taps if forward and taps <= tile.k else width)
    local, sizes = placed(depth)
    while local_bytes_of(local) > most:
        shorter = even_share(k, depth - 1, taps if forward and taps < depth else width)
        if shorter >= depth:
            return None
        depth = shorter
        local, sizes = placed(depth)
    if copied(depth) > MOST_COPIED:
        return None
    piece = width
    while piece > row:
        piece //= 2
    names = "image_height", "image_width", "spots_width", "kernel_height", "kernel_width", "stride_y", "pad_y", "pad_x"
    sizes |= {name: given[name] for name in names}
    sizes |= {"gap_y": gap_y, "line_rows": line_rows, "tap_rows": tap_rows, "tap_columns": tap_columns}
    return Image(
        patches.kind, tile, depth, taps if forward else 1, {"piece": piece, "phases": phases, "gap_x": gap_x}, sizes,
        local, given["image_height"] * given["image_width"], depth < deepest,
    )  # fmt: skip


def _gap(taps: int, stride: int, dilation: int) -> int:
    """From one row, or column, that any tap meets to the next."""
    return stride if taps == 1 else gcd(stride, dilation)


def _touched(count: int, size: int, aligned: bool = True) -> int:
    """In how many runs of ``size`` so many neighbours lie at most; blocks of them follow each other if ``aligned``."""
    return count // size if aligned and count % size == 0 else (count - 2) // size + 2
