"""What ends a detector: boxes decoded, and of those that overlap the best.

It is computed on the host at each call, of values that are read from the device. No gradient passes, so a loss is taken
of what goes in (``GraphModel.cut``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.convert.tensorflow_handlers import TENSORFLOW
from tinyedge.errors import ShapeError


def _overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of a box with others, 0 for an empty one.

    Shapes: box (4,), others (n, 4): top, left, bottom, right; returns (n,).
    """
    top, bottom = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(bottom - top, 0), axis=1)
    area, areas = np.prod(box[2:] - box[:2]), np.prod(others[:, 2:] - others[:, :2], axis=1)
    with np.errstate(all="ignore"):
        ratio = common / (area + areas - common)
    return np.where((area > 0) & (areas > 0), ratio, 0)


def best(boxes: Array, scores: Array, most: int, overlap: float, allowed: Array) -> list[int]:
    """The indices of at most ``most`` boxes by falling score, of which no two overlap by more than ``overlap``.

    Shapes: boxes (n, 4); scores (n,); allowed (n,) of bool: those that may be taken.
    """
    boxes = boxes.astype(np.float32, copy=False)
    order = np.argsort(-scores, kind="stable")  # of equal scores the first
    waiting = order[allowed[order]]
    found: list[int] = []
    while len(waiting) and len(found) < most:
        first, waiting = int(waiting[0]), waiting[1:]
        found.append(first)
        waiting = waiting[_overlaps(boxes[first], boxes[waiting]) <= overlap]
    return found


def _corners(boxes: Array, centred: bool) -> Array:
    """As top, left, bottom, right, whichever corners they came with."""
    if centred:  # x and y of the centre, width, height
        half = boxes[..., 2:] / 2
        boxes = np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)
    a, b = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], -1)


def _number(value: Array | None, default: float) -> float:
    return default if value is None else float(np.asarray(value).reshape(-1)[0])


@ONNX.op("NonMaxSuppression", since=10, host=("boxes", "scores", "most", "overlap", "least"))
def non_max_suppression(
    boxes: Array,
    scores: Array,
    most: Array | None = None,
    overlap: Array | None = None,
    least: Array | None = None,
    *,
    center_point_box: int = 0,
) -> Any:
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape[2] != 4 or boxes.shape[::2] != (scores.shape[0], 4):
        raise ShapeError("NonMaxSuppression", "boxes (n, k, 4) and scores (n, c, k)", f"{boxes.shape}, {scores.shape}")
    if boxes.shape[1] != scores.shape[2]:
        raise ShapeError("NonMaxSuppression", "a score for each box", f"{boxes.shape}, {scores.shape}")
    corners = _corners(boxes, bool(center_point_box))
    count, limit = int(_number(most, 0)), _number(overlap, 0)
    found = [
        (n, c, place)
        for n in range(scores.shape[0])
        for c in range(scores.shape[1])
        for place in best(corners[n], scores[n, c], count, limit, scores[n, c] > _number(least, -np.inf))
    ]
    return np.array(found, np.int64).reshape(-1, 3)


@TENSORFLOW.op("SelectBoxes", host=("boxes", "scores", "most", "overlap", "least"))
def select_boxes(
    boxes: Array,
    scores: Array,
    most: Array,
    overlap: Array | None = None,
    least: Array | None = None,
    *,
    padded: int = 0,
    scored: int = 0,
) -> Any:
    """TensorFlow's: the indices, where ``scored`` their scores, and how many they are; ``padded`` with zeros to the
    greatest number.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ShapeError("NonMaxSuppression", "boxes (k, 4) and scores (k,)", f"{boxes.shape}, {scores.shape}")
    count = max(int(_number(most, 0)), 0)
    found = best(_corners(boxes, False), scores, count, _number(overlap, 0.5), scores > _number(least, -np.inf))
    size = count if padded else len(found)
    places, values = np.zeros(size, np.int32), np.zeros(size, np.float32)
    places[: len(found)], values[: len(found)] = found, scores[found]
    number = np.array(len(found), np.int32)
    return (places, values, number) if scored else (places, number)


@TENSORFLOW.op("DetectionPostProcess", host=("encoded", "scores", "anchors"))
def detection_post_process(
    encoded: Array,
    scores: Array,
    anchors: Array,
    *,
    scales: tuple[float, ...],
    most: int,
    classes: int,
    per_box: int,
    per_class: int,
    least: float,
    overlap: float,
    regular: int,
) -> Any:
    """TFLite's end of an SSD: boxes from offsets to anchors, then the best of them.

    Shapes: encoded (1, n, 4); scores (1, n, classes) or one more, the background's, in front; anchors (n, 4): centre y
            and x, height, width. Returns boxes (1, k, 4), classes and scores (1, k), and how many there are: (1,).
    """
    if encoded.shape != (1, *anchors.shape) or anchors.shape[1:] != (4,) or scores.shape[:2] != encoded.shape[:2]:
        raise ShapeError("DetectionPostProcess", "(1, n, 4), (1, n, c), (n, 4)", f"{encoded.shape}, {scores.shape}")
    encoded, scores = encoded[0].astype(np.float32), scores[0, :, scores.shape[2] - classes :].astype(np.float32)
    centre = encoded[:, :2] / np.array(scales[:2], np.float32) * anchors[:, 2:] + anchors[:, :2]
    with np.errstate(over="ignore"):
        half = np.float32(0.5) * np.exp(encoded[:, 2:] / np.array(scales[2:], np.float32)) * anchors[:, 2:]
    boxes = np.concatenate([centre - half, centre + half], 1)
    size = most if regular else most * per_box
    rows: list[tuple[int, int]] = []  # boxes and classes
    if regular:
        for number in range(classes):
            own = scores[:, number]
            rows += [(place, number) for place in best(boxes, own, per_class, overlap, own >= least)]
        rows.sort(key=lambda row: -scores[row])
        count = min(len(rows), most)
    else:
        order = np.argsort(-scores, axis=1, kind="stable")[:, : min(per_box, classes)]
        highest = scores.max(axis=1)
        chosen = best(boxes, highest, most, overlap, highest >= least)
        rows = [(place, int(number)) for place in chosen for number in order[place]]
        count = len(chosen)
    found = [np.zeros((1, size, 4), np.float32), np.zeros((1, size), np.float32), np.zeros((1, size), np.float32)]
    for k, (place, number) in enumerate(rows[:size]):
        found[0][0, k], found[1][0, k], found[2][0, k] = boxes[place], number, scores[place, number]
    return (*found, np.array([count], np.float32))


@TENSORFLOW.op("CombinedBoxes", host=("boxes", "scores", "per_class", "most", "overlap", "least"))
def combined_boxes(
    boxes: Array, scores: Array, per_class: Array, most: Array, overlap: Array, least: Array, *, padded: int, clips: int
) -> Any:
    """TensorFlow's, for each image: of the best boxes of each class the best.

    Shapes: boxes (b, n, 1 or c, 4); scores (b, n, c). Returns boxes (b, k, 4), scores and classes (b, k), numbers (b,).
    """
    if boxes.ndim != 4 or boxes.shape[3] != 4 or scores.shape[:2] != boxes.shape[:2] or scores.ndim != 3:
        raise ShapeError("CombinedNonMaxSuppression", "boxes (b, n, 1 or c, 4), scores (b, n, c)", f"{boxes.shape}")
    images, _, kinds = scores.shape
    if boxes.shape[2] not in (1, kinds):
        raise ShapeError("CombinedNonMaxSuppression", f"boxes of 1 or {kinds} classes", f"got {boxes.shape}")
    each, size = max(int(_number(per_class, 0)), 0), max(int(_number(most, 0)), 0)
    size = min(size, each * kinds) if padded else size
    found = [np.zeros((images, size, 4), np.float32), np.zeros((images, size), np.float32),
             np.zeros((images, size), np.float32), np.zeros(images, np.int32)]  # fmt: skip
    limit = _number(overlap, 0.5)
    for image in range(images):
        rows: list[tuple[int, int]] = []
        for kind in range(kinds):
            own, values = boxes[image, :, kind % boxes.shape[2]], scores[image, :, kind]
            corners = _corners(own, False)
            rows += [(place, kind) for place in best(corners, values, each, limit, values > _number(least, 0))]
        rows.sort(key=lambda row: -scores[image][row])
        for k, (place, kind) in enumerate(rows[:size]):
            box = boxes[image, place, kind % boxes.shape[2]]
            found[0][image, k] = np.clip(box, 0, 1) if clips else box
            found[1][image, k], found[2][image, k] = scores[image, place, kind], kind
        found[3][image] = min(len(rows), size)
    return tuple(found)


__all__ = ["best"]
