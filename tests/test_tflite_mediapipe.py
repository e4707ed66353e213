"""MediaPipe's own ops in TFLite files, and TensorFlow's pool that says where, against their definitions."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.tensorflow_files import Graph
from tests.tflite_files import Draft
from tinyedge.backends import Backend
from tinyedge.errors import UnsupportedOpError

pytest.importorskip("tflite")
Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


def drawn(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def options(**given: Any) -> bytes:
    from flatbuffers import flexbuffers

    builder = flexbuffers.Builder()
    with builder.Map():
        for key, value in given.items():
            if isinstance(value, list):
                builder.Key(key)
                builder.TypedVectorFromElements(value)
            else:
                builder.Add(key, value)
    return bytes(builder.Finish())


SUBSET, SIZE = [0, 2, 3, 4], (6, 4)
CROP = {"left_rotation_idx": 1, "right_rotation_idx": 4, "target_rotation_radians": 0.25, "scale_x": 1.5,
        "scale_y": 1.2, "output_width": SIZE[0], "output_height": SIZE[1]}  # fmt: skip


def crop(points: Array) -> Array:
    """Turn, find the box of the landmarks, and take the matrix from the crop to the image."""
    line = points[4] - points[1]
    angle = 0.25 - np.arctan2(line[1], line[0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    box = points[SUBSET, :2] @ turn.T
    middle, length = (box.max(0) + box.min(0)) / 2, box.max(0) - box.min(0)
    matrix = np.eye(4)
    matrix[:2, :2] = turn.T @ np.diag(np.array([1.5, 1.2]) * length / SIZE)
    matrix[:2, 3] = turn.T @ middle - matrix[:2, :2] @ (np.array(SIZE) / 2)
    return matrix


def between(image: Array, x: float, y: float) -> Any:
    """The pixel whose middle is there, of four; zeros outside."""
    if not (0 <= x <= image.shape[1] - 1 and 0 <= y <= image.shape[0] - 1):
        return np.zeros(image.shape[2])
    left, top = min(int(x), image.shape[1] - 2), min(int(y), image.shape[0] - 2)
    a, b = x - left, y - top
    upper = (1 - a) * image[top, left] + a * image[top, left + 1]
    return (1 - b) * upper + b * ((1 - a) * image[top + 1, left] + a * image[top + 1, left + 1])


def test_what_landmarks_cut_out(tmp_path: Path, backend: Backend) -> None:
    d = Draft()
    for name, shape in (("points", (1, 5, 3)), ("image", (1, 9, 11, 2)), ("local", (1, 3, 2)), ("matrix", (1, 4, 4)),
                        ("cut", (1, 4, 6, 2)), ("back", (1, 3, 2))):  # fmt: skip
        d.value(name, shape)
    d.op("Landmarks2TransformMatrix", ["points"], ["matrix"], custom=options(**CROP, subset_idxs=SUBSET))
    cut = options(output_height=SIZE[1], output_width=SIZE[0])
    d.op("TransformTensorBilinear", ["image", "matrix"], ["cut"], custom=cut)
    d.op("TransformLandmarks", ["local", "matrix"], ["back"], custom=b"")
    (tmp_path / "a.tflite").write_bytes(d.content(["points", "image", "local"], ["matrix", "cut", "back"]))
    points, image, local = drawn(1, 5, 3) * 2 + 4, drawn(1, 9, 11, 2), drawn(1, 3, 2)
    given = [te.tensor(array).requires_grad_() for array in (points, image, local)]
    matrix, found, back = te.load_model(tmp_path / "a.tflite")(*given)
    wanted = crop(points[0].astype(np.float64))
    np.testing.assert_allclose(matrix.detach().numpy()[0], wanted, rtol=1e-4, atol=1e-5)
    cells = np.stack(np.meshgrid(np.arange(6) + 0.5, np.arange(4) + 0.5), -1) @ wanted[:2, :2].T + wanted[:2, 3] - 0.5
    parts = np.array([[between(image[0].astype(np.float64), *cell) for cell in row] for row in cells])
    assert (parts == 0).all(-1).any()
    assert (parts != 0).all(-1).sum() > 5
    np.testing.assert_allclose(found.detach().numpy()[0], parts, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(back.detach().numpy()[0], local[0] @ wanted[:2, :2].T + wanted[:2, 3], rtol=1e-4)
    (found.square().sum() + back.square().sum()).backward()
    assert all(each.grad is not None and each.grad.numpy().any() for each in given)


def places(x: Array, kernel: tuple[int, int], stride: tuple[int, int], same: bool) -> tuple[Array, Array, Array]:
    """The largest of each window, its place in the window, and in the image."""
    sizes = [-(-n // s) if same else (n - k) // s + 1 for n, k, s in zip(x.shape[1:3], kernel, stride)]
    pads = [max((m - 1) * s + k - n, 0) // 2 if same else 0 for m, s, k, n in zip(sizes, stride, kernel, x.shape[1:3])]
    shape = (x.shape[0], *sizes, x.shape[3])
    y, window, image = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int64)
    for n, i, j, c in np.ndindex(shape):
        best = -np.inf
        for k, (a, b) in enumerate(np.ndindex(kernel)):
            row, column = i * stride[0] - pads[0] + a, j * stride[1] - pads[1] + b
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2] and x[n, row, column, c] > best:
                best = y[n, i, j, c] = x[n, row, column, c]
                window[n, i, j, c], image[n, i, j, c] = k, (row * x.shape[2] + column) * x.shape[3] + c
    return y, window, image


@pytest.mark.parametrize("same", [True, False])
def test_pools_that_say_where(tmp_path: Path, backend: Backend, same: bool) -> None:
    x, kernel, stride = drawn(2, 5, 6, 3), (2, 3), (2, 3)
    y, window, _ = places(x, kernel, stride, same)
    given = struct.pack("<6i", 1 if same else 2, stride[1], stride[0], kernel[1], kernel[0], 1)
    wide = (2, y.shape[1] * 2, y.shape[2] * 3, 3)
    d = Draft()
    for name, shape in (("x", x.shape), ("y", y.shape), ("at", y.shape), ("u", wide)):
        d.value(name, shape)
    d.op("MaxPoolingWithArgmax2D", ["x"], ["y", "at"], custom=given)
    d.op("MaxUnpooling2D", ["y", "at"], ["u"], custom=given)
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y", "at", "u"]))
    model, t = te.load_model(tmp_path / "a.tflite"), te.tensor(x).requires_grad_()
    found, at, back = model(t)
    np.testing.assert_array_equal(found.detach().numpy(), np.maximum(y, 0).astype(np.float32))
    np.testing.assert_allclose(at.detach().numpy(), window + 0.1, rtol=1e-6)
    wanted = np.zeros(wide)
    for n, i, j, c in np.ndindex(y.shape):
        row, column = divmod(int(window[n, i, j, c]), 3)
        wanted[n, i * 2 + row, j * 3 + column, c] = max(y[n, i, j, c], 0)
    np.testing.assert_allclose(back.detach().numpy(), wanted, rtol=1e-6)
    back.sum().backward()
    assert t.grad is not None
    assert t.grad.numpy().sum() == (y > 0).sum()


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("batch", [True, False])
def test_tensorflow_s_pool_that_says_where(tmp_path: Path, backend: Backend, same: bool, batch: bool) -> None:
    x = drawn(2, 5, 6, 3)
    y, _, image = places(x, (3, 2), (2, 1), same)
    g = Graph()
    g.placeholder("x", (-1, 5, 6, 3))
    g.node("MaxPoolWithArgmax", "p", ["x"], ksize=(1, 3, 2, 1), strides=(1, 2, 1, 1),
           padding="SAME" if same else "VALID", include_batch_in_index=batch)  # fmt: skip
    (tmp_path / "a.pb").write_bytes(g.content())
    found, at = te.convert.from_tensorflow(tmp_path / "a.pb", outputs=["p", "p:1"])(te.tensor(x))
    np.testing.assert_array_equal(found.numpy(), y.astype(np.float32))
    image[1] += x[0].size if batch else 0
    np.testing.assert_array_equal(at.numpy(), image)


def test_options_that_mean_nothing_are_refused(tmp_path: Path, reference: Backend) -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"output_width": 0}, "output_width 0"), ({"left_rotation_idx": 5}, "others than 5"),
        ({"scale_x": float("nan")}, "scale_x nan"), ({"subset_idxs": [0, 99]}, "others than 5"),
    ]  # fmt: skip
    for change, text in changes:
        d = Draft()
        d.value("x", (1, 5, 3))
        d.value("y", (1, 4, 4))
        given = options(**{**CROP, "subset_idxs": SUBSET, **change})
        d.op("Landmarks2TransformMatrix", ["x"], ["y"], custom=given)
        (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
        with pytest.raises(UnsupportedOpError, match=text):
            te.load_model(tmp_path / "a.tflite")
