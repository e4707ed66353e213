"""Convolutions with 3x3 filters and stride 1 on a CPU, and their gradients, by Winograd's minimal filtering.

    y = A^T [(G w G^T) * (B^T x B)] A        for each tile of m x m outputs, summed over the channels

The products in brackets are elementwise, so a tile costs (m + 2)^2 multiplications for each pair of channels instead
of 9 m^2: the sums over channels are (m + 2)^2 matrix products, over all tiles. The same three transforms serve the
gradients: dx is a convolution of dy with the filters turned round, and dw = G^T [sum of (A dy A^T) * (B^T x B)] G.

Sums are rounded otherwise than in the direct product: with the points below the error is 5 times as large, 2e-6 of the
standard deviation of outputs over 64 channels (float32, uniform inputs; with 0, 1, -1, 2, -2 it is 15 times).

Source: Lavin and Gray, arXiv:1509.09308; the points: Barabasz et al., arXiv:1803.10986.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Any

from tinyedge import config
from tinyedge.ir.spec import Device, KernelSpec, LocalArray, Scratch, round_up
from tinyedge.kernels.gemm import gemm_kernels
from tinyedge.kernels.matrix import Matrix

Rows = tuple[tuple[float, ...], ...]

TAPS = 3
POINTS = (0.0, sqrt(0.5), -sqrt(0.5), sqrt(2), -sqrt(2))
"""Where the polynomials are evaluated, besides infinity: so tiles have 4 x 4 outputs."""

LINE = 16
"""Floats of a cache line."""

MOST_TILES = 32
"""Tiles of a row that an item has in fast memory at once."""

ITEM_ELEMENTS = 32768
"""Elements of transformed tiles that are worth one work-item: some microseconds."""

PER_TILE, PER_FILTER, PER_PATCH = 40, 25, 6
"""Operations of a matrix product that take as long as one element of a transformed tile, of a transformed filter: what
is written to memory, and read again; and of a patch that is packed from the image. On two cores of an AVX2 machine the
transforms take 1.7 of the direct product's time for 8 filters over 8 channels of 32 x 32, as much for 16 over 16, and
half for 32 over 32 of 64 x 64.
"""

GAIN = 0.85
"""Of the direct product's time: above that it is preferred, since it rounds less."""


def matrices(points: tuple[float, ...] = POINTS) -> tuple[Rows, Rows, Rows]:
    """A^T, G and B^T: polynomials are evaluated (A, G) and interpolated (B) at ``points`` and infinity."""
    count = len(points) + 1
    outputs = count - TAPS + 1

    def product(roots: tuple[float, ...]) -> list[float]:
        found = [1.0]
        for root in roots:
            found = [low - root * high for low, high in zip([0.0, *found], [*found, 0.0])]
        return [round(value, 12) + 0.0 for value in found]

    def powers(width: int) -> Rows:
        return tuple(tuple(point**k for k in range(width)) for point in points) + ((0.0,) * (width - 1) + (1.0,),)

    others = [tuple(other for other in points if other != point) for point in points]
    scales = [1 / prod(point - other for other in rest) for point, rest in zip(points, others)] + [1.0]
    g = tuple(tuple(value * scale for value in row) for row, scale in zip(powers(TAPS), scales))
    b = tuple((*product(rest), 0.0) for rest in others) + (tuple(product(points)),)
    return transposed(powers(outputs)), g, b


def _apart(numel: int) -> int:
    """The distance of the matrices of two places of a tile: an odd number of cache lines. With others, such as powers
    of two, the same element of all of them would compete for a few lines of the cache.
    """
    return (-(-numel // LINE) | 1) * LINE


def transposed(rows: Rows) -> Rows:
    return tuple(zip(*rows))


@dataclass(frozen=True)
class Planes:
    """The slot of images, and the channels, rows and columns of each."""

    name: str
    channels: int
    height: int
    width: int


class Winograd:
    """The kernels for ``images`` images, with ``o`` filters over ``c`` channels in ``groups`` groups."""

    def __init__(self, device: Device, images: int, c: int, o: int, groups: int, real: str = "float") -> None:
        self.device, self.real = device, real
        self.images, self.c, self.o, self.groups = images, c, o, groups
        self.cg, self.og = c // groups, o // groups
        self.a, self.g, self.b = matrices()
        self.count, self.step = len(self.b), len(self.a)
        self.width = min(device.native_width, 8)

    def pays(self, height: int, width: int, patches: int) -> bool:
        """Whether it is faster than the product with ``patches`` elements of patches, for outputs of this size."""
        if config.winograd() != "1":
            return config.winograd() == "always"
        tiles = self.images * -(-height // self.step) * -(-width // self.step)
        filters = self.groups * self.og * self.cg
        direct = 2 * TAPS**2 * filters * self.images * height * width + PER_PATCH * patches
        each = 2 * filters * tiles + PER_TILE * (self.c + self.o) * tiles + PER_FILTER * filters
        return self.count**2 * each < GAIN * direct

    def fits(self) -> bool:
        """Whether the device has the local memory."""
        return self._lines_bytes() <= self.device.local_bytes

    def convolution(
        self,
        image: Planes,
        weight: str,
        out: Planes,
        pad: tuple[int, int],
        bias: str | None = None,
        turned: bool = False,
    ) -> list[KernelSpec]:
        """``out`` from ``image``, in which the first window begins at -``pad``. ``turned``: from an output's gradient
        to the input's.
        """
        down, across = self._tiles(out)
        columns = self.images * down * across
        tiles = self._scratch(f"{image.name}_tiles", image.channels * columns)
        filters = self._scratch(f"{out.name}_filters", self.o * self.cg)
        sums = self._scratch(f"{out.name}_sums", out.channels * columns)
        scratch = (tiles, filters, sums)
        from_c, to_c = (self.og, self.cg) if turned else (self.cg, self.og)
        taken = Matrix(filters.name, self.cg, 1, (_apart(self.o * self.cg), self.og * self.cg))
        product = gemm_kernels(
            self.device, taken.T if turned else taken,
            self._of_tiles(tiles.name, image.channels, columns, from_c),
            self._of_tiles(sums.name, out.channels, columns, to_c),
            to_c, columns, from_c, self.real, (self.count**2, self.groups), scratch=scratch,
        )  # fmt: skip
        return [
            self._image(image, tiles.name, down, across, pad, self.b, scratch),
            self._filters("winograd_filter", (weight, filters.name), self.g, scratch, turned=turned),
            *(replace(spec, flops=0) for spec in product),
            self._result(out, sums.name, down, across, bias, scratch),
        ]

    def weight_gradient(self, image: Planes, weight: str, out: Planes, pad: tuple[int, int]) -> list[KernelSpec]:
        """``weight`` from ``out`` and ``image``."""
        down, across = self._tiles(out)
        columns = self.images * down * across
        tiles = self._scratch(f"{image.name}_tiles", image.channels * columns)
        errors = self._scratch(f"{out.name}_errors", out.channels * columns)
        filters = self._scratch(f"{weight}_filters", self.o * self.cg)
        scratch = (tiles, errors, filters)
        product = gemm_kernels(
            self.device, self._of_tiles(errors.name, out.channels, columns, self.og),
            self._of_tiles(tiles.name, image.channels, columns, self.cg).T,
            Matrix(filters.name, self.cg, 1, (_apart(self.o * self.cg), self.og * self.cg)),
            self.og, self.cg, columns, self.real, (self.count**2, self.groups), scratch=scratch,
        )  # fmt: skip
        return [
            self._image(image, tiles.name, down, across, pad, self.b, scratch),
            self._image(out, errors.name, down, across, (0, 0), transposed(self.a), scratch),
            *(replace(spec, flops=0) for spec in product),
            replace(
                self._filters("winograd_filter_gradient", (filters.name, weight), transposed(self.g), scratch),
                flops=self._flops(out),
            ),
        ]

    def _flops(self, made: Planes) -> int:
        """Of the direct product: what is asked for, not what is done."""
        return 2 * TAPS**2 * self.images * self.groups * self.cg * self.og * made.height * made.width

    def _tiles(self, out: Planes) -> tuple[int, int]:
        return -(-out.height // self.step), -(-out.width // self.step)

    def _scratch(self, name: str, each: int) -> Scratch:
        """For each place of a tile ``each`` elements. The last vector may reach over the end."""
        return Scratch(name, self.real, self.count**2 * _apart(each) + self.width)

    def _of_tiles(self, name: str, channels: int, columns: int, each: int) -> Matrix:
        return Matrix(name, columns, 1, (_apart(channels * columns), each * columns))

    def _lines(self, taken: int) -> tuple[int, int, int]:
        """Of a row of tiles: how many are in fast memory at once, and the lengths of a line and of a phase."""
        phase = round_up(MOST_TILES + 1, self.width)
        return MOST_TILES, self.step * phase, phase

    def _lines_bytes(self) -> int:
        _, pitch, phase = self._lines(self.count)
        return 4 * (self.count * pitch + self.count * self.step * phase + self.width)

    def _image(
        self, image: Planes, tiles: str, down: int, across: int, pad: tuple[int, int], rows: Rows,
        scratch: tuple[Scratch, ...],
    ) -> KernelSpec:  # fmt: skip
        """Each tile of pixels, as many as ``rows`` has columns, is multiplied by ``rows`` from both sides."""
        taken = len(rows[0])
        most, pitch, phase = self._lines(taken)
        return self._planes_kernel(
            "winograd_image", (image.name, tiles), image, down, across, pad, scratch,
            {"image": image.name, "tiles": tiles, "rows": rows, "most": most, "pitch": pitch, "phase": phase},
            (
                LocalArray("lines", self.real, (taken * pitch,)),
                LocalArray("phases", self.real, (self.count * self.step * phase + self.width,)),
            ),
        )  # fmt: skip

    def _result(
        self, out: Planes, sums: str, down: int, across: int, bias: str | None, scratch: tuple[Scratch, ...]
    ) -> KernelSpec:
        most, pitch, _ = self._lines(self.step)
        buffers = (sums, *((bias,) if bias else ()), out.name)
        spec = self._planes_kernel(
            "winograd_result", buffers, out, down, across, (0, 0), scratch,
            {"out": out.name, "tiles": sums, "rows": self.a, "most": most, "pitch": pitch, "bias": bias},
            (LocalArray("lines", self.real, (self.step * pitch,)),),
        )  # fmt: skip
        return replace(spec, flops=self._flops(out))

    def _planes_kernel(
        self, name: str, buffers: tuple[str, ...], planes: Planes, down: int, across: int, pad: tuple[int, int],
        scratch: tuple[Scratch, ...], constants: dict[str, Any], local: tuple[LocalArray, ...],
    ) -> KernelSpec:  # fmt: skip
        count = self.images * planes.channels
        each = self._each(count, self.count**2 * down * across)
        sizes = {
            "planes": count, "planes_per_item": each, "channels": planes.channels, "height": planes.height,
            "width_": planes.width, "tiles_down": down, "tiles_across": across,
            "columns": self.images * down * across, "apart": _apart(planes.channels * self.images * down * across),
            "pad_y": pad[0], "pad_x": pad[1],
        }  # fmt: skip
        names = {item.name for item in scratch}
        return KernelSpec(
            name, "winograd.cl.jinja", buffers, (-(-count // each),), (1,), sizes, {}, {},
            {**self._constants(), **constants}, scratch, tuple(name for name in buffers if name not in names),
            {planes.name: planes.height * planes.width}, local=local, flops=0,
        )  # fmt: skip

    def _filters(
        self, name: str, buffers: tuple[str, str], rows: Rows, scratch: tuple[Scratch, ...], turned: bool = False
    ) -> KernelSpec:
        each = self._each(self.o, self.count**2 * self.cg)
        weight, filters = buffers if name == "winograd_filter" else reversed(buffers)
        return KernelSpec(
            name, "winograd.cl.jinja", buffers, (-(-self.o // each),), (1,),
            {"filters_": self.o, "filters_per_item": each, "channels": self.cg, "apart": _apart(self.o * self.cg)},
            {}, {}, {**self._constants(), "weight": weight, "filters": filters, "rows": rows, "turned": turned},
            scratch, (weight,),
            local=(LocalArray("taps", self.real, (TAPS**2 * self.width,)),), flops=0,
        )  # fmt: skip

    def _each(self, count: int, elements: int) -> int:
        return max(1, min(ITEM_ELEMENTS // max(elements, 1), count // (4 * self.device.compute_units)))

    def _constants(self) -> dict[str, Any]:
        return {"real": self.real, "width": self.width, "step": self.step, "count": self.count}


__all__ = ["Planes", "Winograd", "matrices", "transposed"]
