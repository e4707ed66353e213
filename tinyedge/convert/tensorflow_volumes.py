"""TensorFlow's convolutions and poolings of volumes, each as ONNX's."""

from __future__ import annotations

from typing import Any

from tinyedge.convert.graph import Dims
from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tensorflow_file import TfNode
from tinyedge.convert.tensorflow_lowering import Lowering, lowers

TO_FIRST, TO_LAST = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)
"""The permutations of volumes."""


def _is_ncdhw(op: TfNode) -> bool:
    layout = op.text("data_format", "NDHWC")
    if layout not in ("NDHWC", "NCDHW"):
        raise UnsupportedUse(f"with the data_format {layout}")
    return layout == "NCDHW"


def _spatial(op: TfNode, name: str, default: int | None = None) -> tuple[int, ...]:
    """An attribute of five dims: that of depth, height and width."""
    values = op.ints(name, None if default is None else (default,) * 5)
    if len(values) != 5:
        raise ValueError(f"its {name} are {len(values)} numbers")
    inner, rest = (values[2:], values[:2]) if _is_ncdhw(op) else (values[1:4], (values[0], values[4]))
    if rest != (1, 1):
        raise UnsupportedUse(f"with {name} over the batch or the channels")
    return inner


def _windows(b: Lowering, op: TfNode, kind: str, more: list[str], filters: Any, **arguments: Any) -> None:
    """An op of windows over volumes, whichever way the file has them."""
    x, padding = b.name(op, 0), op.text("padding")
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"its padding is {padding!r}")
    if b.rank(x) not in (5, None):
        raise UnsupportedUse(f"of an input of the shape {b.shapes[x]}")
    value = b.last(x) if _is_ncdhw(op) else b.emit("Transpose", [b.last(x)], perm=TO_FIRST)
    y = b.emit(
        kind, [value, *more], auto_pad="SAME_UPPER" if padding == "SAME" else "VALID", strides=_spatial(op, "strides"),
        **arguments,
    )  # fmt: skip
    given = b.shapes.get(x) or (None,) * 5
    dims: Dims = (given[0], filters, None, None, None) if _is_ncdhw(op) else (given[0], None, None, None, filters)
    b.finish(op, y if _is_ncdhw(op) else b.emit("Transpose", [y], perm=TO_LAST), False, dims)


def _channels(b: Lowering, op: TfNode) -> Any:
    dims = b.shapes.get(b.name(op, 0))
    return None if dims is None else dims[1 if _is_ncdhw(op) else 4]


@lowers("Conv3D")
def conv_3d(b: Lowering, op: TfNode) -> None:
    w = b.name(op, 1)
    dims = b.shapes.get(w)
    if dims is None or len(dims) != 5 or not isinstance(dims[3], int):
        raise UnsupportedUse(f"whose weight has the shape {dims}")
    group = (_channels(b, op) or dims[3]) // max(dims[3], 1)
    weight = b.weight(w, (4, 3, 0, 1, 2))
    _windows(b, op, "Conv", [weight], dims[4], dilations=_spatial(op, "dilations", 1), group=group)


@lowers("MaxPool3D", "AvgPool3D")
def pool_3d(b: Lowering, op: TfNode) -> None:
    kind = "MaxPool" if op.op == "MaxPool3D" else "AveragePool"
    _windows(b, op, kind, [], _channels(b, op), kernel_shape=_spatial(op, "ksize"))


__all__: list[str] = []
