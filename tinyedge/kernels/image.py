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
the product took 0.9 to 1.05 of the time with patches in memory, on two cores of an AVX2 machine; at 0.1 to 0.7 mostly
0.5 to 0.95. Above that it was not measured.
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


class _Windows:
    """The taps and spots of a convolution, and what blocks of ``columns`` columns of B, which is k x n, hold of it."""

    def __init__(self, patches: Patches, columns: int, n: int, k: int) -> None:
        given = patches.sizes
        self.columns = columns
        self.forward = patches.kind == "forward"
        self.taps_y, self.taps_x = given["kernel_height"], given["kernel_width"]
        self.taps = self.taps_y * self.taps_x
        self.channels = (k if self.forward else n) // self.taps
        self.height, self.row = given["spots_height"], given["spots_width"]
        self.gap_y = _gap(self.taps_y, given["stride_y"], given["dilation_y"])
        self.gap_x = _gap(self.taps_x, given["stride_x"], given["dilation_x"])
        self.phases = given["stride_x"] // self.gap_x
        self.line_rows = given["stride_y"] // self.gap_y  # held rows from an output row to the next
        self.halo_y = (self.taps_y - 1) * (given["dilation_y"] // self.gap_y)
        self.halo_x = (self.taps_x - 1) * (given["dilation_x"] // self.gap_x)

    def copied(self, depth: int) -> float:
        """Elements of the image that a block copies, about, for each that it packs."""
        taps, spots = (depth, self.columns) if self.forward else (self.columns, depth)
        taps, spots = min(taps, self.channels * self.taps), min(spots, self.height * self.row)
        lines = 1 + (spots - 1) / self.row
        in_two = min(lines - 1, 1)  # the part of the blocks that reach over a row's end, and hold whole rows
        rows = (min(lines, self.height) - 1) * self.line_rows + self.halo_y + 1
        columns = (in_two * self.row + (1 - in_two) * min(spots, self.row)) * self.phases + self.halo_x
        planes = taps / self.taps if self.forward else min(self.channels, 1 + (taps - 1) / self.taps)
        return planes * rows * columns / (taps * spots)

    def held(self, depth: int, ctype: str, width: int) -> tuple[tuple[LocalArray, ...], dict[str, int]]:
        """The local memory for blocks so deep, and how the image lies there."""
        taps, spots = (depth, self.columns) if self.forward else (self.columns, depth)
        planes = min(self.channels, _touched(taps, self.taps))
        lines = min(self.height, _touched(spots, self.row, aligned=self.forward))
        rows = (lines - 1) * self.line_rows + self.halo_y + 1
        phase = (self.row if lines > 1 else min(self.row, spots)) + self.halo_x // self.phases
        pitch = phase * self.phases
        # A vector may begin at the last element.
        image, reach = LocalArray("image", ctype, (planes * rows * pitch + width,)), LocalArray("reach", "int", (taps,))
        return (image, reach), {"rows_held": rows, "phase": phase, "pitch": pitch}


def image_of(patches: Patches, tile: Tile, n: int, k: int, ctype: str, width: int, free_bytes: int) -> Image | None:
    """The image's part for blocks of B, which is k x n, of ``tile.n`` columns; None if it does not fit into
    ``free_bytes``, or does not pay.
    """
    windows, given = _Windows(patches, tile.n, n, k), patches.sizes
    unit = windows.taps if windows.forward else 1
    deepest = depth = even_share(k, tile.k, unit if 1 < unit <= tile.k else width)
    local, sizes = windows.held(depth, ctype, width)
    while local_bytes_of(local) > min(free_bytes, IMAGE_BYTES):
        shorter = even_share(k, depth - 1, unit if 1 < unit < depth else width)
        if shorter >= depth:
            return None
        depth = shorter
        local, sizes = windows.held(depth, ctype, width)
    if windows.copied(depth) > MOST_COPIED:
        return None
    piece = width
    while piece > windows.row:
        piece //= 2
    names = "image_height", "image_width", "spots_width", "kernel_height", "kernel_width", "stride_y", "pad_y", "pad_x"
    sizes |= {name: given[name] for name in names}
    sizes |= {"gap_y": windows.gap_y, "line_rows": windows.line_rows}
    sizes |= {"tap_rows": given["dilation_y"] // windows.gap_y, "tap_columns": given["dilation_x"] // windows.gap_x}
    constants = {"piece": piece, "phases": windows.phases, "gap_x": windows.gap_x}
    run = given["image_height"] * given["image_width"]
    return Image(patches.kind, tile, depth, unit, constants, sizes, local, run, depth < deepest)


def _gap(taps: int, stride: int, dilation: int) -> int:
    """From one row, or column, that any tap meets to the next."""
    return stride if taps == 1 else gcd(stride, dilation)


def _touched(count: int, size: int, aligned: bool = True) -> int:
    """In how many runs of ``size`` so many neighbours lie at most; blocks of them follow each other if ``aligned``."""
    return count // size if aligned and count % size == 0 else (count - 2) // size + 2
