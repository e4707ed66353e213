"""What a device can do at most, measured: bytes and operations a second; and a picture of what ops reach of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyedge.backends import Backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.backends.opencl.devices import BUILD_OPTIONS
from tinyedge.bench.ops import Rate
from tinyedge.ir.step import FORWARD
from tinyedge.report.charts import new_figure

COPY_BYTES = 256 * 2**20
CHAINS = 8
"""Sums that one work-item works on at once: as many as hide the latency of an addition."""

WIDTHS = (1, 4, 8, 16)

LONG_ENOUGH_NS = 5e6

SOURCE = """
__kernel void copy(__global const REAL* x, __global REAL* y) {
    y[get_global_id(0)] = x[get_global_id(0)];
}

__kernel void multiply_add(__global REAL* y, const float a, const float b, const int rounds) {
    REAL sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) sum[c] = (REAL)(a * (float)(c + get_global_id(0) % 7));
    for (int r = 0; r < rounds; r++) {
        #pragma unroll
        for (int c = 0; c < CHAINS; c++) sum[c] = MULTIPLY_ADD(sum[c], (REAL)a, (REAL)b);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] += sum[c];
    y[get_global_id(0)] = sum[0];
}
"""


@dataclass(frozen=True)
class Ceilings:
    """Thousand million bytes, and float32 operations, a second."""

    gbytes: float
    gflops: float

    def reached(self, rate: Rate) -> float:
        """The least time that a case could take here, as a part of the time that it took."""
        return max(rate.bytes_moved / self.gbytes, rate.flops / self.gflops) / rate.elapsed_ns


def measure_ceilings(backend: Backend) -> Ceilings:
    """The best of several simple kernels: a copy; and multiply-adds in registers."""
    if isinstance(backend, OpenCLBackend):
        return Ceilings(max(_copies(backend)), max(_multiply_adds(backend)))
    x = np.ones(COPY_BYTES // 4, np.float32)
    y = np.empty_like(x)
    square = np.ones((1024, 1024), np.float32)
    return Ceilings(
        2 * x.nbytes / _best(lambda: _wall_ns(lambda: np.copyto(y, x))),
        2 * 1024**3 / _best(lambda: _wall_ns(lambda: square @ square)),
    )


def _wall_ns(call: Callable[[], Any]) -> int:
    started = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - started


def _best(elapsed_ns: Callable[[], int], rounds: int = 5) -> float:
    elapsed_ns()
    return min(statistics.median(elapsed_ns() for _ in range(3)) for _ in range(rounds))


def _kernels(backend: OpenCLBackend, name: str, multiply_add: str = "mad") -> Iterator[tuple[Any, int]]:
    """The kernel for scalars and vectors, and the floats that a work-item has of each."""
    for width in WIDTHS:
        text = f"#define REAL float{width if width > 1 else ''}\n#define CHAINS {CHAINS}\n"
        text += f"#define MULTIPLY_ADD {multiply_add}\n{SOURCE}"
        program = backend.cl.Program(backend.context, text).build(list(BUILD_OPTIONS), cache_dir=False)
        yield backend.cl.Kernel(program, name), width


def _copies(backend: OpenCLBackend) -> Iterator[float]:
    nbytes = min(COPY_BYTES, int(backend.entry.device.max_mem_alloc_size) // 4) // 4096 * 4096
    x, y = backend.allocate(nbytes).handle, backend.allocate(nbytes).handle
    fill = np.zeros(nbytes // 4, np.float32)
    backend.cl.enqueue_copy(backend.queue, x, fill, is_blocking=True)
    for kernel, width in _kernels(backend, "copy"):
        kernel.set_args(x, y)
        size = (nbytes // (4 * width),)
        yield 2 * nbytes / _best(lambda: backend.timed(kernel, size, (backend.device.group(),))())  # noqa: B023


def _multiply_adds(backend: OpenCLBackend) -> Iterator[float]:
    items = backend.device.compute_units * (64 if backend.device.is_cpu else 2048)
    y = backend.allocate(items * 64).handle
    for multiply_add in ("mad", "fma"):  # the one may not be fused, the other may be done in software
        for kernel, width in _kernels(backend, "multiply_add", multiply_add):

            def elapsed_ns(rounds: int) -> int:
                kernel.set_args(y, np.float32(0.999), np.float32(0.001), np.int32(rounds))  # noqa: B023
                return backend.timed(kernel, (items,), (backend.device.group(),))()  # noqa: B023

            rounds = 64
            elapsed_ns(rounds)
            while elapsed_ns(rounds) < LONG_ENOUGH_NS and rounds < 2**20:
                rounds *= 2
            flops = 2 * items * width * CHAINS * rounds
            yield flops / _best(lambda: elapsed_ns(rounds))  # noqa: B023


COLOURS = (
    "#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08214", "#20808d", "#a0522d", "#5a6b7b", "#c2185b", "#6b8e23",
    "#3949ab", "#111111",
)  # fmt: skip


def draw(rates: Sequence[Rate], ceilings: Ceilings, device: str, path: str | Path) -> None:
    """The roofline: each case at the operations that it does for a byte, under what the device could do there."""
    shown = [rate for rate in rates if rate.flops and rate.bytes_moved]
    figure = new_figure("tinyedge bench --ops", 13.0, 8.5)
    axes = figure.subplots()
    intensity = [rate.flops / rate.bytes_moved for rate in shown]
    ridge = ceilings.gflops / ceilings.gbytes
    left, right = min([*intensity, ridge]) / 2, max([*intensity, ridge]) * 4
    bottom = min([rate.gflops for rate in shown] + [ceilings.gbytes * left]) / 2
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, ceilings.gflops * 2.5)
    axes.plot([left, ridge, right], [ceilings.gbytes * left, *[ceilings.gflops] * 2], color="#333333", linewidth=1.6)
    axes.fill_between(
        [left, ridge, right], [ceilings.gbytes * left, *[ceilings.gflops] * 2], bottom, color="#f2f4f7", zorder=0
    )
    flat = axes.annotate(
        f"multiply-adds in registers: {ceilings.gflops:,.0f} GFLOP/s", (right, ceilings.gflops), xytext=(-6, 5),
        textcoords="offset points", ha="right", color="#333333",
    )  # fmt: skip
    figure.draw_without_rendering()  # now the angle of the slope is known
    start, end = axes.transData.transform([(left, ceilings.gbytes * left), (ridge, ceilings.gflops)])
    slope = axes.annotate(
        f"copy: {ceilings.gbytes:,.1f} GB/s", (ridge / 1.3, ceilings.gflops / 1.3),
        xytext=(-6, 5), textcoords="offset points", ha="right", va="bottom", color="#333333",
        rotation=float(np.degrees(np.arctan2(*(end - start)[::-1]))), rotation_mode="anchor",
    )  # fmt: skip
    ops = list(dict.fromkeys(rate.op for rate in shown))
    colour = {op: COLOURS[number % len(COLOURS)] for number, op in enumerate(ops)}
    for op in ops:
        axes.plot([], [], "o", color=colour[op], label=op)
    for direction, marker in ((FORWARD, "o"), ("backward", "^")):
        axes.plot([], [], marker, color="#777777", label=direction)
        for rate, x in zip(shown, intensity, strict=True):
            if rate.direction == direction:
                axes.plot(x, rate.gflops, marker, color=colour[rate.op], markersize=6, markeredgecolor="white")
    points = [(x, rate.gflops, rate.label, colour[rate.op]) for x, rate in zip(intensity, shown, strict=True)]
    _label(axes, points, [text.get_window_extent() for text in (flat, slope)])
    axes.set_xlabel("operations for each byte moved (FLOP/byte)")
    axes.set_ylabel("operations a second (GFLOP/s)")
    axes.set_title(f"What ops reach on {device}", loc="left")
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", ncols=2, frameon=True, fontsize=9)
    figure.savefig(path, dpi=130)


def _label(axes: Any, points: Sequence[tuple[float, float, str, str]], texts: Sequence[Any]) -> None:
    """Each point's name beside it, where it covers no other name, no point and none of the ``texts``, which are boxes;
    far away with a line to the point.
    """
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2, foreground="white")]
    scale = axes.figure.dpi / 72
    places = axes.transData.transform([(x, y) for x, y, _, _ in points])
    taken = [(px - 4 * scale, py - 4 * scale, px + 4 * scale, py + 4 * scale) for px, py in places]
    taken += [(box.x0, box.y0, box.x1, box.y1) for box in texts]
    inside = axes.get_window_extent()
    for (x, y, text, colour), (px, py) in sorted(zip(points, places, strict=True), key=lambda item: -item[1][1]):
        wide, high = 3.7 * scale * len(text), 8 * scale
        for reach in (5, 14, 24, 36, 50, 66, 84, 104):
            for side, rise in ((1, 0.0), (1, 0.6), (1, -0.6), (-1, 0.0), (-1, 0.6), (-1, -0.6), (1, 1.2), (1, -1.2)):
                dx, dy = side * reach * scale, rise * reach * scale
                x0 = px + dx if side > 0 else px + dx - wide
                box = (x0, py + dy - high / 2, x0 + wide, py + dy + high / 2)
                within = inside.x0 < box[0] and box[2] < inside.x1 and inside.y0 < box[1] and box[3] < inside.y1
                if within and not any(_overlap(box, other) for other in taken):
                    break
            else:
                continue
            break
        taken.append(box)
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6} if reach > 10 else None
        axes.annotate(
            text, (x, y), xytext=(dx / scale, dy / scale), textcoords="offset points", fontsize=7, color=colour,
            ha="left" if side > 0 else "right", va="center", arrowprops=line, path_effects=halo,
        )  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
