"""ONNX graphs of float16: as they are, and computed in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_onnx import FLOAT, HALF, helper, weight, write
from tinyedge.backends import Backend

node = helper.make_node


def mixed(path: Path, kind: int) -> Path:
    """A graph whose values are cast to ``kind``, with constants and made values of that type."""
    dtype: Any = np.float16 if kind == HALF else np.float32
    filled = helper.make_tensor("v", kind, [1], np.array([0.5], dtype).tobytes(), raw=True)
    nodes = [
        node("Cast", ["n"], ["x"], to=kind),
        node("Conv", ["x", "w", "b"], ["c"]),
        node("Constant", [], ["two"], value=helper.make_tensor("t", kind, [], np.array(2, dtype).tobytes(), raw=True)),
        node("Mul", ["c", "two"], ["m"]),
        node("ConstantOfShape", ["sizes"], ["half"], value=filled),
        node("Add", ["m", "half"], ["a"]),
        node("Cast", ["half"], ["f"], to=FLOAT),
        node("CastLike", ["f", "a"], ["g"]),
        node("Sub", ["a", "g"], ["s"]),
        node("EyeLike", ["eye"], ["e"], dtype=kind),
        node("MatMul", ["s", "e"], ["y"]),
    ]
    weights = {"w": weight(4, 3, 1, dtype=dtype), "b": weight(4, dtype=dtype), "sizes": np.array([1, 4, 6]),
               "eye": np.zeros((6, 6), np.float32)}  # fmt: skip
    return write(path, nodes, {"n": (7, [1, 3, 6])}, ["y"], weights)


@pytest.mark.parametrize("dtype", [te.float32, te.float64])
def test_graphs_of_float16_compute_in_another_type(tmp_path: Path, backend: Backend, dtype: Any) -> None:
    path = mixed(tmp_path / "a.onnx", HALF)
    n = te.tensor(np.arange(18).reshape(1, 3, 6))
    half = te.load_model(path)
    assert half(n).dtype is te.float16
    if dtype is te.float64 and backend.name != "numpy":
        pytest.skip("devices of OpenCL need no float64")
    model = te.load_model(path, dtype=dtype)
    y = model(n)
    assert y.dtype is dtype
    w, b = (model.get_parameter(name).detach().numpy() for name in ("w", "b"))
    assert w.dtype == dtype.numpy
    np.testing.assert_array_equal(w, half.get_parameter("w").detach().numpy())
    exact = 2 * (np.einsum("oik,nil->nol", w, np.arange(18).reshape(1, 3, 6)) + b[:, None])
    np.testing.assert_allclose(y.detach().numpy(), exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(half(n).detach().numpy(), exact, rtol=4e-3, atol=4e-2)
    y.sum().backward()
    assert model.get_parameter("w").grad is not None
    model.save(tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == path.read_bytes()
