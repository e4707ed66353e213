"""TFLite's Fourier transform, and what is computed of its complex numbers: their parts are two values."""

from __future__ import annotations

from collections.abc import Callable

from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tflite_file import Operator
from tinyedge.convert.tflite_lowering import Lowering, lowers


@lowers("RFFT2D")
def rfft_2d(b: Lowering, op: Operator) -> None:
    """Of real images: along the rows, for half of the frequencies, and then along the columns."""
    height, width = (int(size) for size in b.value(op, 1).reshape(2))
    x = b.name(op, 0)
    if min(height, width) < 1 or (b.rank(x) or 0) < 2:
        raise UnsupportedUse(f"of {width} by {height} samples of an input of the shape {b.shapes[x]}")
    is_row = height == 1 and b.shapes[x][-2] == 1  # type: ignore[index]
    last = b.host([-1])
    y = b.emit("Unsqueeze", [b.last(x), last])
    y = b.emit("DFT", [y, b.host(width), b.host(-2)], onesided=1)
    if not is_row:
        y = b.emit("DFT", [y, b.host(height), b.host(-3)])
    names = [f"{b.output(op)} {part}" for part in ("real", "imaginary")]
    b.emit("Split", [y], outputs=names, axis=-1)
    b.complex[b.output(op)] = b.emit("Squeeze", [names[0], last]), b.emit("Squeeze", [names[1], last])


def of_parts(b: Lowering, op: Operator, compute: Callable[[str], str]) -> bool:
    """Compute the same of both parts. Whether the input is complex."""
    parts = b.complex.get(b.name(op, 0))
    if parts is not None:
        b.complex[b.output(op)] = compute(parts[0]), compute(parts[1])
    return parts is not None


def _parts(b: Lowering, op: Operator) -> tuple[str, str]:
    name = b.name(op, 0)
    if name not in b.complex:
        raise UnsupportedUse("of what is no Fourier transform")
    return b.complex[name]


@lowers("REAL", "IMAG")
def part_of(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("Identity", [_parts(b, op)[0 if op.op == "REAL" else 1]]), False)


@lowers("COMPLEX_ABS")
def complex_abs(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("ComplexAbs", _parts(b, op)), False)


__all__ = ["of_parts"]
