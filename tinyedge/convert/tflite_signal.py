"""TFLite's Fourier transform, and what is computed of its complex numbers: their parts are two values."""

from __future__ import annotations

from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tflite_file import Operator
from tinyedge.convert.tflite_lowering import Lowering, lowers


@lowers("RFFT2D")
def rfft_2d(b: Lowering, op: Operator) -> None:
    """Of real images: along the rows, for half of the frequencies, and then along the columns."""
    height, width = (int(size) for size in b.value(op, 1).reshape(2))
    x = b.name(op, 0)
    dims = b.shapes[x]
    if min(height, width) < 1 or dims is None or len(dims) < 2:
        raise UnsupportedUse(f"of {width} by {height} samples of an input of the shape {dims}")
    b.spectrum(b.output(op), x, width, None if height == dims[-2] == 1 else height)


@lowers("REAL", "IMAG")
def part_of(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("Identity", [b.parts_of(b.name(op, 0))[op.op == "IMAG"]]), False)


@lowers("COMPLEX_ABS")
def complex_abs(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("ComplexAbs", b.parts_of(b.name(op, 0))), False)


__all__: list[str] = []
