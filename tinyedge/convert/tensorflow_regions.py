"""TensorFlow's ops of detectors that sample regions and choose boxes, and others that find and draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.convert import regions  # noqa: F401  it enters a handler
from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tensorflow_file import TfNode
from tinyedge.convert.tensorflow_lowering import Lowering, lowers


@lowers("CropAndResize")
def crop_and_resize(b: Lowering, op: TfNode) -> None:
    method = op.text("method", "bilinear")
    if method not in ("bilinear", "nearest"):
        raise UnsupportedUse(f"with the method {method}")
    x, size = b.name(op, 0), b.known.get(b.name(op, 3))
    y = b.emit(
        "CropAndResize", [b.first(x), *(b.last(b.name(op, n)) for n in (1, 2, 3))], nearest=int(method == "nearest"),
        beyond=op.real("extrapolation_value", 0.0),
    )  # fmt: skip
    height, width = (None, None) if size is None or size.shape != (2,) else map(int, size)
    b.finish(op, y, True, (None, height, width, (b.shapes.get(x) or (None,) * 4)[3]))


@lowers("CombinedNonMaxSuppression")
def combined_non_max_suppression(b: Lowering, op: TfNode) -> None:
    names = [f"{op.name}:{n} found" for n in range(4)]
    b.emit(
        "CombinedBoxes", [b.last(b.name(op, n)) for n in range(6)], outputs=names,
        padded=int(op.flag("pad_per_class")), clips=int(op.flag("clip_boxes", True)),
    )  # fmt: skip
    images = (b.shapes.get(b.name(op, 1)) or (None,))[0]
    for n, (name, dims) in enumerate(zip(names, ((None, 4), (None,), (None,), ()))):
        b.finish(op, name, False, (images, *dims), n)


@lowers("Unique", "UniqueV2", "UniqueWithCounts")
def unique(b: Lowering, op: TfNode) -> None:
    """In the order in which they come."""
    names = [f"{op.name}:{n} found" for n in range(4)]
    if op.op == "UniqueV2" and b.numbers(op, 1) not in ((), (0,)):
        raise UnsupportedUse(f"along the axes {b.numbers(op, 1)}")
    arguments: dict[str, Any] = {} if b.rank(b.name(op, 0)) == 1 else {"axis": 0}
    b.emit("Unique", [b.last(b.name(op, 0))], outputs=names, sorted=0, **arguments)
    to = 7 if op.kind("out_idx", 3) == 9 else 6
    results = [names[0], *(b.emit("Cast", [name], to=to) for name in (names[2], names[3])[: 1 + op.op.endswith("s")])]
    for n, name in enumerate(results):
        b.finish(op, name, False, (None,) if arguments == {} or n else None, n)


@lowers("RandomUniform", "RandomStandardNormal")
def random(b: Lowering, op: TfNode) -> None:
    """Other numbers than TensorFlow's: a seed says nothing of these."""
    kind = "RandomUniformLike" if op.op == "RandomUniform" else "RandomNormalLike"
    shape = b.name(op, 0)
    zeros, held = b.emit("Filled", [b.last(shape), b.host(0, np.float32)]), b.shapes.get(shape)
    known = held is not None and len(held) == 1 and isinstance(held[0], int) and held[0] <= 16
    b.finish(op, b.emit(kind, [zeros]), False, (None,) * held[0] if known and held is not None else None)  # type: ignore[operator]


__all__: list[str] = []
