"""ONNX's deformable convolution, against its definition place by place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_onnx import helper, weight, write
from tinyedge.backends import Backend
from tinyedge.errors import ShapeError

Array = np.ndarray[Any, Any]


def read(image: Array, y: float, x: float) -> Any:
    """A pixel between pixels; outside of the image they are 0."""
    top, left = int(np.floor(y)), int(np.floor(x))
    total = 0.0
    for row, tall in ((top, top + 1 - y), (top + 1, y - top)):
        for column, wide in ((left, left + 1 - x), (left + 1, x - left)):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += tall * wide * float(image[row, column])
    return total


def by_places(x: Array, w: Array, offset: Array, b: Array, mask: Array, group: int, offset_group: int) -> Array:
    """Strides (2, 1), dilations (1, 2), one row of padding above, and a column on the right."""
    rows, columns = offset.shape[2:]
    y = np.zeros((len(x), len(w), rows, columns)) + b[:, None, None]
    per, made = x.shape[1] // offset_group, len(w) // group
    for n, m, i, j in np.ndindex(y.shape):
        for c in range(w.shape[1]):
            channel = m // made * w.shape[1] + c
            owner = channel // per
            for k, (ky, kx) in enumerate(np.ndindex(w.shape[2:])):
                at = (owner * w[0, 0].size + k) * 2
                place = (i * 2 - 1 + ky + offset[n, at, i, j], j + kx * 2 + offset[n, at + 1, i, j])
                y[n, m, i, j] += w[m, c, ky, kx] * mask[n, at // 2, i, j] * read(x[n, channel], *place)
    return y


def test_it_is_its_definition(tmp_path: Path, backend: Backend) -> None:
    given: dict[str, Any] = {
        "x": weight(2, 4, 5, 6), "w": weight(2, 2, 2, 2), "o": weight(2, 2 * 4 * 2, 3, 5) * 2, "b": weight(2),
        "m": np.abs(weight(2, 2 * 4, 3, 5)),
    }  # fmt: skip
    node = helper.make_node("DeformConv", list(given), ["y"], group=2, offset_group=2, strides=[2, 1],
                            dilations=[1, 2], pads=[1, 0, 0, 1], kernel_shape=[2, 2])  # fmt: skip
    inputs = {name: [f"{name}{dim}" for dim in range(4)] for name in ("x", "o", "m")}
    write(tmp_path / "a.onnx", [node], inputs, ["y"], {name: given[name] for name in ("w", "b")}, opset=19)
    model = te.load_model(tmp_path / "a.onnx")
    tensors = [te.tensor(given[name]).requires_grad_() for name in ("x", "o", "m")]
    y = model(*tensors)
    wanted = by_places(*given.values(), group=2, offset_group=2)
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-4)
    y.sum().backward()
    assert all(each.grad is not None and each.grad.numpy().any() for each in (*tensors, *model.parameters()))
    with pytest.raises(ShapeError, match="offsets and masks for 4 places"):
        model(te.tensor(given["x"]), te.tensor(given["o"][:, :, :2]), te.tensor(given["m"]))
