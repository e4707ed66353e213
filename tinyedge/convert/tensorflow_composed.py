"""TensorFlow's rarer ops, of several of ONNX's each: Fourier transforms, bands of matrices, shapes put together."""

from __future__ import annotations

import numpy as np

from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tensorflow_file import TfNode
from tinyedge.convert.tensorflow_lowering import Lowering, lowers
from tinyedge.convert.tensorflow_ops import broadcast_dims, elementwise

# Complex numbers: their parts are two values


@lowers("RFFT")
def rfft(b: Lowering, op: TfNode) -> None:
    x, (length,) = b.name(op, 0), b.numbers(op, 1)
    if length < 1:
        raise UnsupportedUse(f"of {length} samples")
    dims = b.shapes.get(x)
    b.spectrum(op.name, x, length)
    b.shapes[op.name] = None if dims is None else (*dims[:-1], length // 2 + 1)


@lowers("ComplexAbs", "Real", "Imag")
def of_complex(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    real, imaginary = b.parts_of(x)
    if op.op == "ComplexAbs":
        y = b.emit("ComplexAbs", [real, imaginary])
    else:
        y = b.emit("Identity", [real if op.op == "Real" else imaginary])
    b.finish(op, y, False, b.shapes.get(x))


# Elementwise


@lowers("Erfc")
def erfc(b: Lowering, op: TfNode) -> None:
    elementwise(b, op, "Erfc")


@lowers("IsFinite")
def is_finite(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    first = b.is_first(x)
    value = b.turned[x] if first else b.last(x)
    y = b.emit("Not", [b.emit("Or", [b.emit("IsNaN", [value]), b.emit("IsInf", [value])])])
    b.finish(op, y, first, b.shapes.get(x))


@lowers("Xlogy", "Xdivy")
def of_nothing(b: Lowering, op: TfNode) -> None:
    """0 where the first input is 0."""
    names = [b.name(op, 0), b.name(op, 1)]
    values, first = b.together(*names)
    b.finish(op, b.emit(op.op, values), first, broadcast_dims(b, names))


@lowers("L2Loss")
def l2_loss(b: Lowering, op: TfNode) -> None:
    x = b.last(b.name(op, 0))
    total = b.emit("ReduceSum", [b.emit("Mul", [x, x])], keepdims=0)
    b.finish(op, b.emit("Mul", [total, b.host(0.5, np.float32)]), False, ())


# Movement


@lowers("Roll")
def roll(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    b.finish(op, b.emit("Roll", [b.last(x), b.last(b.name(op, 1)), b.last(b.name(op, 2))]), False, b.shapes.get(x))


@lowers("MatrixBandPart")
def matrix_band_part(b: Lowering, op: TfNode) -> None:
    """So many diagonals below and above the main one; a negative number for all."""
    x = b.name(op, 0)
    y, below, above = b.last(x), int(b.value(op, 1).reshape(())), int(b.value(op, 2).reshape(()))
    y = b.emit("Trilu", [y, b.host(above)], upper=0) if above >= 0 else y
    y = b.emit("Trilu", [y, b.host(-below)], upper=1) if below >= 0 else y
    b.finish(op, b.emit("Identity", [y]), False, b.shapes.get(x))


@lowers("TensorScatterUpdate", "TensorScatterAdd", "TensorScatterMax", "TensorScatterMin")
def tensor_scatter(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    how = {"Update": "none", "Add": "add", "Max": "max", "Min": "min"}[op.op.removeprefix("TensorScatter")]
    y = b.emit("ScatterND", [b.last(name) for name in b.names(op)], reduction=how)
    b.finish(op, y, False, b.shapes.get(x))


@lowers("Where")
def where(b: Lowering, op: TfNode) -> None:
    """The places of what is not 0, which a call computes on the host."""
    y = b.emit("Transpose", [b.emit("NonZero", [b.last(b.name(op, 0))])], perm=(1, 0))
    b.finish(op, y, False, (None, b.rank(b.name(op, 0))))


@lowers("ResizeBicubic")
def resize_bicubic(b: Lowering, op: TfNode) -> None:
    x, half = b.name(op, 0), op.flag("half_pixel_centers")
    if op.flag("align_corners"):
        raise UnsupportedUse("with align_corners")
    dims = b.shapes.get(x) or (None,) * 4
    b.finish(
        op, b.emit("ResizeBicubic", [b.first(x), b.last(b.name(op, 1))], half=int(half)), True,
        (dims[0], None, None, dims[3]),
    )  # fmt: skip


# Shapes


@lowers("BroadcastArgs")
def broadcast_args(b: Lowering, op: TfNode) -> None:
    b.finish(op, b.emit("BroadcastShapes", [b.last(b.name(op, 0)), b.last(b.name(op, 1))]), False, (None,))


@lowers("LinSpace")
def linspace(b: Lowering, op: TfNode) -> None:
    b.finish(op, b.emit("LinSpace", [b.last(name) for name in b.names(op)]), False, (None,))


@lowers("InvertPermutation")
def invert_permutation(b: Lowering, op: TfNode) -> None:
    perm = b.numbers(op, 0)
    if sorted(perm) != list(range(len(perm))):
        raise ValueError(f"its dims are {perm}")
    b.constant(op.name, np.argsort(perm).astype(np.int32))


__all__: list[str] = []
