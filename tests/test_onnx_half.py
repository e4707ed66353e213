"""ONNX graphs of float16: computed in float32, with weights that lie in 32 or in 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_onnx import FLOAT, HALF, helper, weight, write
from tinyedge import optim
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


@pytest.mark.parametrize("dtype", [None, te.float16, te.float32, te.float64])
def test_graphs_of_float16_compute_in_a_wider_type(tmp_path: Path, backend: Backend, dtype: Any) -> None:
    path = mixed(tmp_path / "a.onnx", HALF)
    n = te.tensor(np.arange(18).reshape(1, 3, 6))
    if dtype is te.float64 and backend.name != "numpy":
        pytest.skip("devices of OpenCL need no float64")
    model = te.load_model(path, dtype=dtype)
    y = model(n)
    lies = dtype or te.float32
    assert model.get_parameter("w").dtype is lies
    w, b = (model.get_parameter(name).detach().numpy().astype(np.float64) for name in ("w", "b"))
    half = te.load_model(path, dtype=te.float16)
    np.testing.assert_array_equal(w, half.get_parameter("w").detach().numpy())
    exact = 2 * (np.einsum("oik,nil->nol", w, np.arange(18).reshape(1, 3, 6)) + b[:, None])
    np.testing.assert_allclose(y.detach().numpy(), exact, rtol=1e-5, atol=1e-5)
    y.sum().backward()
    grad = model.get_parameter("w").grad
    assert grad is not None
    np.testing.assert_allclose(grad.numpy(), np.broadcast_to(np.array([[30], [102], [174]]), (4, 3, 1)), rtol=1e-5)
    model.save(tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == path.read_bytes()


def deep(path: Path) -> Path:
    """A dozen layers of float16, a batch norm and a loop among them: roundings between them add up."""
    rng = np.random.default_rng(0)

    def half(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float16)

    weights: dict[str, Any] = {"s": half(8), "b": half(8), "m": half(8), "v": np.abs(half(8)) + np.float16(1),
                               "steps": np.array(3), "true": np.array(True)}  # fmt: skip
    nodes = [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["h0"])]
    for k in range(12):
        weights[f"w{k}"] = half(8, 8, 3) / np.float16(6)
        nodes += [node("Conv", [f"h{k}", f"w{k}"], [f"c{k}"], pads=[1, 1]), node("Tanh", [f"c{k}"], [f"h{k + 1}"])]
    weights["w"] = half(16, 16) / np.float16(6)
    body = helper.make_graph(
        [node("MatMul", ["a", "w"], ["p"]), node("Tanh", ["p"], ["q"]), node("Identity", ["c"], ["d"])], "body",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("c", 9, []),
         helper.make_tensor_value_info("a", HALF, None)],
        [helper.make_tensor_value_info("d", 9, []), helper.make_tensor_value_info("q", HALF, None)],
    )  # fmt: skip
    nodes.append(node("Loop", ["steps", "true", "h12"], ["y"], body=body))
    return write(path, nodes, {"x": (HALF, ["n", 8, 16])}, {"y": (HALF, ["n", 8, 16])}, weights)


@pytest.mark.parametrize("dtype", [None, te.float16, te.bfloat16])
def test_results_of_float16_are_the_runtime_s(tmp_path: Path, backend: Backend, dtype: Any) -> None:
    """Inputs and outputs are of the file's types, weights of 32 or 16 bits give the same, and all is trained."""
    path = deep(tmp_path / "a.onnx")
    model, x = te.load_model(path, dtype=dtype), weight(2, 8, 16, dtype=np.float16)
    kind = dtype or te.float16
    y = model(te.tensor(x).to(kind))
    assert y.dtype is kind
    assert model.get_parameter("w").dtype is (dtype or te.float32)
    assert model.get_buffer("m").dtype is te.float32
    wide = te.load_model(path, dtype=te.float32)
    wanted = wide(te.tensor(x.astype(np.float32)))
    assert wanted.dtype is te.float32
    np.testing.assert_allclose(
        y.detach().float().numpy(), wanted.detach().numpy(), atol=3e-2 if kind is te.bfloat16 else 5e-4
    )
    if kind is te.bfloat16:
        return
    assert model(te.tensor(x.astype(np.float32))).dtype is kind
    compiled = te.compile(model)
    for _ in range(2):
        np.testing.assert_allclose(compiled(te.tensor(x)).detach().numpy(), y.detach().numpy(), atol=1e-3)
    for each, result in ((model, y), (wide, wanted)):
        result.float().square().sum().backward()
        assert all(p.grad is not None and np.isfinite(p.grad.numpy()).all() for p in each.parameters())
    for name in ("w", "w0", "s"):
        found, exact = (each.get_parameter(name).grad for each in (model, wide))
        assert found is not None
        assert exact is not None
        bound = 4e-3 * float(np.abs(exact.numpy()).max())
        np.testing.assert_allclose(found.numpy(), exact.numpy(), atol=bound)
    model.freeze_batch_norm_statistics(False)
    before = model.get_buffer("m").numpy()
    model(te.tensor(x))
    assert not np.array_equal(model.get_buffer("m").numpy(), before)
    optim.SGD(model.parameters(), lr=0.1).step()
    model.save(tmp_path / "b.onnx")
    again = te.load_model(tmp_path / "b.onnx").eval()
    model.freeze_batch_norm_statistics()
    runtime = pytest.importorskip("onnxruntime")
    for file, own in ((path, te.load_model(path, dtype=dtype)), (tmp_path / "b.onnx", again)):
        ran = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        assert np.abs(own(te.tensor(x)).detach().numpy() - ran).max() <= 1e-3 * np.abs(ran).max()
