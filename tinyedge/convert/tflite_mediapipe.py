"""MediaPipe's own ops in TFLite files."""

from __future__ import annotations

import math
import struct
from typing import Any

from tinyedge.convert import mediapipe_handlers  # noqa: F401  they enter
from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tflite_file import Operator
from tinyedge.convert.tflite_lowering import Lowering, lowers

MAX_SIDE = 4096
"""Of a crop."""


def _options(op: Operator) -> Any:
    """A map in the format of FlexBuffers."""
    from flatbuffers import flexbuffers  # the package tflite needs it too

    return flexbuffers.GetRoot(bytearray(op.custom_options)).AsMap


def _number(given: Any, key: str) -> Any:
    try:
        value = given[key]
    except KeyError:
        raise UnsupportedUse(f"of a version without {key}") from None
    number = value.AsFloat if value.IsFloat else value.AsInt
    if not math.isfinite(number):
        raise UnsupportedUse(f"with {key} {number}")
    return number


def _side(given: Any, key: str) -> int:
    number = int(_number(given, key))
    if not 1 <= number <= MAX_SIDE:
        raise UnsupportedUse(f"with {key} {number}")
    return number


@lowers("custom Landmarks2TransformMatrix")
def landmarks_to_transform_matrix(b: Lowering, op: Operator) -> None:
    given = _options(op)
    scale = float(_number(given, "scale_x")), float(_number(given, "scale_y"))
    size = _side(given, "output_width"), _side(given, "output_height")
    left, right = (int(_number(given, f"{side}_rotation_idx")) for side in ("left", "right"))
    subset = tuple(int(value.AsInt) for value in given["subset_idxs"].AsTypedVector)
    count = b.size(b.name(op, 0), 1)
    if not subset or not all(0 <= index < count for index in (left, right, *subset)) or min(scale) <= 0:
        raise UnsupportedUse(f"of others than {count} landmarks, or without a size")
    y = b.emit(
        "CropOfLandmarks", [b.last(b.name(op, 0))], left=left, right=right, subset=subset, size=size, scale=scale,
        target=float(_number(given, "target_rotation_radians")),
    )  # fmt: skip
    b.finish(op, y, False)


@lowers("custom TransformTensorBilinear")
def transform_tensor_bilinear(b: Lowering, op: Operator) -> None:
    given = _options(op)
    size = _side(given, "output_height"), _side(given, "output_width")
    values = [b.first(b.name(op, 0)), b.last(b.name(op, 1))]
    b.finish(op, b.emit("CropByMatrix", values, size=size), True)


@lowers("custom TransformLandmarks")
def transform_landmarks(b: Lowering, op: Operator) -> None:
    if b.rank(b.name(op, 0)) != 3:
        raise UnsupportedUse("of a version whose landmarks have 4 dims")
    b.finish(op, b.emit("TransformPoints", [b.last(b.name(op, n)) for n in (0, 1)]), False)


def _windows(op: Operator) -> tuple[bool, tuple[int, int], tuple[int, int], int]:
    """TFLite's structure of a pool as it lies in memory: whether it pads, the window, the strides, the activation."""
    if len(op.custom_options) < 24:
        raise UnsupportedUse("without its options")
    padding, across, down, wide, high, activation = struct.unpack("<6i", op.custom_options[:24])
    if padding not in (1, 2) or not all(1 <= number <= MAX_SIDE for number in (across, down, wide, high)):
        raise UnsupportedUse(f"with the padding {padding}, a window {high, wide} and strides {down, across}")
    return padding == 1, (high, wide), (down, across), activation


@lowers("custom MaxPoolingWithArgmax2D")
def max_pooling_with_argmax(b: Lowering, op: Operator) -> None:
    same, kernel, stride, activation = _windows(op)
    if len(op.outputs) != 2:
        raise UnsupportedUse(f"with {len(op.outputs)} outputs")
    names = [f"{b.output(op, n)} found" for n in (0, 1)]
    b.emit(
        "MaxPoolPlaces", [b.first(b.name(op, 0))], outputs=names, kernel_shape=kernel, strides=stride,
        auto_pad="SAME_UPPER" if same else "VALID", counts="window",
    )  # fmt: skip
    b.done(b.output(op), b.activated(names[0], activation), True)
    b.done(b.output(op, 1), names[1], True)


@lowers("custom MaxUnpooling2D")
def max_unpooling(b: Lowering, op: Operator) -> None:
    _, kernel, stride, _ = _windows(op)
    values = [b.first(b.name(op, n)) for n in (0, 1)]
    b.finish(op, b.emit("MaxUnpoolWindows", values, kernel_shape=kernel, strides=stride), True)


__all__: list[str] = []
