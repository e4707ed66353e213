"""The part of an image that a CPU's matrix product keeps in local memory, where it takes patches from.

In: the patches of a convolution, and the block of B that a work-item packs. Out: how the image lies there, as sizes for
templates/image.cl.jinja. Each row has its padding beside it, so that no border is special, and is split into phases,
which makes a stride disappear: phase q holds the columns q, q + stride, ... So what a tap meets at neighbouring output
positions are neighbours in memory, up to the end of an output row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinyedge.ir.spec import LocalArray, even_share
from tinyedge.kernels.matrix import Patches
from tinyedge.kernels.tile import Tile

IMAGE_BYTES = 65536
"""Local memory that the part of an image takes at most, where a device has so much beside the product's block."""


@dataclass(frozen=True)
class Image:
    """The ``kind`` of patches, the product's tile, the ``depth`` of its block of B, and the part of the image for it. ``unit``: k is split into
    parts of whole units. ``piece``: neighbouring output positions that lie in two rows at most.
    """

    kind: str
    tile: Tile
    depth: int
    unit: int
    piece: int
    step_x: int
    sizes: Mapping[str, int]
    local: tuple[LocalArray, ...]
    run: int


def image_of(
    patches: Patches, tile: Tile, n: int, k: int, ctype: str, width: int, free_bytes: int
) -> Image | None:
    """The image's part for blocks of B, which is k x n, of ``tile.n`` columns; None if it does not fit into
    ``free_bytes``.
    """
    given = patches.sizes
    forward = patches.kind == "forward"
    taps = given["kernel_height"] * given["kernel_width"]
    channels = (k if forward else n) // taps
    free = min(free_bytes, IMAGE_BYTES) // (8 if ctype == "double" else 4)

    def placed(depth: int) -> tuple[int, dict[str, int]]:
        """The elements of the part, and its sizes."""
        met, spots = (depth, tile.n) if forward else (tile.n, depth)
        planes = min(channels, _touched(met, taps))
        # An image of one output row is taken from the first column that the block meets; others whole rows at a time.
        row = given["spots_width"] if given["spots_height"] > 1 else min(given["spots_width"], spots)
        lines = min(given["spots_height"], _touched(spots, given["spots_width"], aligned=forward))
        rows = (lines - 1) * given["stride_y"] + (given["kernel_height"] - 1) * given["dilation_y"] + 1
        span = (row - 1) * given["stride_x"] + (given["kernel_width"] - 1) * given["dilation_x"] + 1
        phase = (span - 1) // given["stride_x"] + 1
        pitch = phase * given["stride_x"]
        return planes * rows * pitch + width, {"rows_held": rows, "span": span, "phase": phase, "pitch": pitch}

    depth = even_share(k, tile.k, taps if forward and taps <= tile.k else width)
    while placed(depth)[0] > free:
        shorter = even_share(k, depth - 1, taps if forward and taps < depth else width)
        if shorter >= depth:
            return None
        depth = shorter
    elements, sizes = placed(depth)
    piece = width
    while piece > given["spots_width"]:
        piece //= 2
    local = LocalArray("image", ctype, (elements,)), LocalArray("reach", "int", (depth if forward else tile.n,))
    wanted = {name: size for name, size in given.items() if name not in ("every_y", "every_x", "stride_x")}
    return Image(
        patches.kind, tile, depth, taps if forward else 1, piece, given["stride_x"], {**wanted, **sizes}, local,
        given["image_height"] * given["image_width"],
    )  # fmt: skip


def _touched(count: int, size: int, aligned: bool = True) -> int:
    """In how many runs of ``size`` so many neighbours lie at most; blocks of them follow each other if ``aligned``."""
    return count // size if aligned and count % size == 0 else (count - 2) // size + 2
