"""``program.chart``: the arena over the kernels of a program, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from tinyedge.errors import ArgumentError, MissingPackageError
from tinyedge.ir.step import FORWARD
from tinyedge.report.program import GRADIENT, OTHER, SAVED, SCRATCH, ArenaBuffer, Program, buffers, launch_rows
from tinyedge.report.text import memory_text, memory_unit

COLOURS = {SAVED: "#3b75af", GRADIENT: "#e08214", SCRATCH: "#9e9ac8", OTHER: "#b8c4ce"}


def chart(program: Program, path: str | Path) -> None:
    """Draw which part of the arena is in use during which kernels into ``path``, a .png or .svg."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise ArgumentError("program.chart", "a path that ends in .png or .svg", f"got {str(path)!r}")
    figure = new_figure("program.chart", 11.0, 6.0)

    from matplotlib.patches import Rectangle

    found = buffers(program)
    rows = launch_rows(program)
    unit, scale = memory_unit(program.arena_bytes)
    axes = figure.subplots()
    axes.set_xlim(0, max(len(rows), 1))
    axes.set_ylim(0, 1.12 * max(program.arena_bytes, 1) / scale)
    edge = 0.6 if len(found) < 150 else 0.25
    for kind, colour in COLOURS.items():
        chosen = [buffer for buffer in found if buffer.kind == kind]
        if not chosen:
            continue
        for buffer in chosen:
            axes.add_patch(
                Rectangle(
                    (buffer.start, buffer.offset / scale), buffer.stop - buffer.start, buffer.nbytes / scale,
                    facecolor=colour, edgecolor="white", linewidth=edge,
                )
            )  # fmt: skip
        total = memory_text(sum(buffer.nbytes for buffer in chosen))
        axes.add_patch(Rectangle((0, 0), 0, 0, facecolor=colour, label=f"{kind}: {total} in {len(chosen)} buffers"))
    alive = [0] * (len(rows) + 1)
    for buffer in found:
        alive[buffer.start] += buffer.nbytes
        alive[buffer.stop] -= buffer.nbytes
    levels = [level / scale for level in accumulate(alive)]
    axes.stairs(levels[:-1], range(len(rows) + 1), color="black", linewidth=0.9, label="in use at each kernel")
    axes.axhline(program.arena_bytes / scale, color="#b2182b", linewidth=1.2, linestyle="--")
    axes.annotate(
        f"arena {memory_text(program.arena_bytes)}", (1, program.arena_bytes / scale), xytext=(-4, 4),
        xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", color="#b2182b",
    )  # fmt: skip
    backward = next((row.number for row in rows if row.direction != FORWARD), 0)
    if backward:
        axes.axvline(backward, color="#555555", linewidth=0.8, linestyle=":")
        for text, side, shift in (("forward", "right", -5), ("backward", "left", 5)):
            axes.annotate(
                text, (backward, 1), xytext=(shift, -12), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha=side, color="#555555",
            )  # fmt: skip
    _label_buffers(axes, found, scale)
    axes.set_xlabel("launch")
    axes.set_ylabel(f"offset in the arena ({unit})")
    axes.set_title(
        f"{program.name}: {len(rows)} kernels, {len(found)} buffers of {memory_text(program.plan.unshared_bytes)} "
        f"in an arena of {memory_text(program.arena_bytes)}",
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=3, frameon=False)
    figure.savefig(path, dpi=140)


def _label_buffers(axes: Any, found: Sequence[ArenaBuffer], scale: float) -> None:
    """Write the names of buffers into those rectangles that have room for them."""
    (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
    dots = axes.figure.dpi / 72
    for buffer in found:
        wide = (buffer.stop - buffer.start) * (x1 - x0) / dots
        high = buffer.nbytes / scale * (y1 - y0) / dots
        upright = wide < 4.2 * len(buffer.label)
        along, across = (high, wide) if upright else (wide, high)
        text = f"{buffer.label}\n{memory_text(buffer.nbytes)}" if across > 22 else buffer.label
        if across > 9 and along > 4.2 * max(map(len, text.splitlines())):
            axes.annotate(
                text, ((buffer.start + buffer.stop) / 2, (buffer.offset + buffer.nbytes / 2) / scale), ha="center",
                va="center", rotation=90 if upright else 0, fontsize=7,
                color="white" if buffer.kind in (SAVED, GRADIENT) else "black",
            )  # fmt: skip


def new_figure(call: str, width: float, height: float) -> Any:
    """A matplotlib figure that needs no display. Errors: MissingPackageError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            call, "matplotlib draws the picture", "it is not installed", 'Install it: pip install "tinyedge[demo]".'
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
