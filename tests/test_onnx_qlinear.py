"""ONNX Runtime's ops on integers with scales: each within half a step of what the runtime rounds to, and networks that
its static quantisation wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_onnx_quantised import integers, run
from tinyedge.backends import Backend
from tinyedge.errors import UnsupportedOpError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper = onnx.helper
RNG = np.random.default_rng(0)
A, B = integers(1, 2, 4, 6, dtype=np.uint8), integers(1, 2, 4, 6, dtype=np.uint8)
X = {"x": A, "xs": np.float32(0.03), "xz": np.uint8(120)}
OTHER = {"b": B, "bs": np.float32(0.02), "bz": np.uint8(99)}
ENDS = {"ys": np.float32(0.05), "yz": np.uint8(130)}
SMALL = {"ys": np.float32(1 / 256), "yz": np.uint8(0)}
MATRIX = {"x": integers(5, 7, dtype=np.uint8), "xs": np.float32(0.03), "xz": np.uint8(120)}
WEIGHT = {"w": integers(7, 3), "ws": np.float32(0.004), "wz": np.int8(0)}
WIDE = {"ys": np.float32(0.1), "yz": np.uint8(128)}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "add": ("QLinearAdd", {**X, **OTHER, **ENDS}, {}),
    "mul": ("QLinearMul", {**X, **OTHER, **ENDS}, {}),
    "sigmoid": ("QLinearSigmoid", {**X, **SMALL}, {}),
    "leaky": ("QLinearLeakyRelu", {**X, **ENDS}, {"alpha": 0.2}),
    "softmax": ("QLinearSoftmax", {**X, **SMALL}, {"axis": -1, "opset": 17}),
    "global": ("QLinearGlobalAveragePool", {**X, "ys": np.float32(0.01), "yz": np.uint8(128)}, {}),
    "pool": ("QLinearAveragePool", {**X, **ENDS}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "concat": ("QLinearConcat", {**ENDS, **X, **OTHER}, {"axis": 1}),
    "gemm": ("QGemm", {**MATRIX, **WEIGHT, "c": integers(3, dtype=np.int32) // 2**21, **WIDE}, {}),
    "gemm, floats": ("QGemm", {**MATRIX, "w": integers(3, 7), "ws": np.full(3, 0.004, np.float32),
                               "wz": np.zeros(3, np.int8)}, {"transB": 1}),
    "matmul": ("QLinearMatMul", {**MATRIX, **WEIGHT, **WIDE}, {}),
    "of two": ("QLinearMatMul", {**MATRIX, "b": integers(7, 3, dtype=np.uint8), "bs": np.float32(0.004),
                                 "bz": np.uint8(90), **WIDE}, {}),
}  # fmt: skip
KINDS = {"uint8": 2, "int8": 3, "float32": 1, "int32": 6}


@pytest.mark.parametrize("name", CASES)
def test_within_half_a_step_of_the_runtime(tmp_path: Path, backend: Backend, name: str) -> None:
    op, values, attributes = CASES[name]
    inputs = [key for key in values if key in ("x", "b")]
    domain = "" if op == "QLinearMatMul" else "com.microsoft"
    node = helper.make_node(op, list(values), ["y"], domain=domain, **attributes)
    floats = "ys" not in values
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(key, KINDS[values[key].dtype.name], values[key].shape) for key in inputs],
        [helper.make_tensor_value_info("y", 1 if floats else 2, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in values.items() if key not in inputs],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "a.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    with pytest.raises(UnsupportedOpError, match="Pass dequantize=True"):
        te.load_model(path)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {key: values[key] for key in inputs})
    model = te.load_model(path, dequantize=True)
    y = model(*[te.tensor(values[key]) for key in inputs])
    if floats:
        np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    else:
        meant = (wanted.astype(np.float32) - np.float32(values["yz"])) * values["ys"]
        assert np.ptp(wanted) > 20
        np.testing.assert_allclose(y.detach().numpy(), meant, atol=float(values["ys"]) * 0.502)
    if "w" in values:
        assert {key for key, _ in model.named_parameters()} == {"w"} | ({"c"} & values.keys())
        y.square().sum().backward()
        assert all(param.grad is not None and param.grad.numpy().any() for param in model.parameters())
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == path.read_bytes()


def network(path: Path) -> Path:
    """Convolutions with a sum around one, a gate, two poolings, values side by side, and a dense head."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]), node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]), node("Add", ["c2", "r1"], ["s"]),
        node("Sigmoid", ["s"], ["g"]), node("Mul", ["s", "g"], ["m"]), node("LeakyRelu", ["m"], ["l"], alpha=0.1),
        node("AveragePool", ["l"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxPool", ["l"], ["q"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", ["p", "q"], ["k"], axis=1), node("GlobalAveragePool", ["k"], ["a"]),
        node("Flatten", ["a"], ["f"]), node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]  # fmt: skip

    def drawn(*shape: int) -> Any:
        return (RNG.standard_normal(shape) / 2).astype(np.float32)

    weights = {"w1": drawn(6, 3, 3, 3), "b1": drawn(6), "w2": drawn(6, 6, 3, 3), "w3": drawn(4, 12), "b3": drawn(4)}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 4])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_network_that_static_quantisation_wrote(tmp_path: Path, reference: Backend, per_channel: bool) -> None:
    """Near the network that it was, every weight trained, and the tuned file runs."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    path, given = network(tmp_path / "a.onnx"), [RNG.uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32) for _ in range(8)]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.rows = iter([{"x": x} for x in given])

        def get_next(self) -> Any:
            return next(self.rows, None)

    quantization.quantize_static(
        str(path), str(tmp_path / "q.onnx"), Reader(), quant_format=quantization.QuantFormat.QOperator,
        per_channel=per_channel,
    )  # fmt: skip
    kinds = {node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node}
    assert {"QLinearConv", "QLinearAdd", "QLinearSigmoid", "QLinearMul", "QLinearAveragePool"} <= kinds
    model = te.load_model(tmp_path / "q.onnx", dequantize=True)
    assert len(list(model.parameters())) == 5
    exact, y = run(path, given[0]), model(te.tensor(given[0]))
    scale = np.abs(exact).max()
    assert np.abs(y.detach().numpy() - exact).max() < 0.05 * scale
    assert np.abs(run(tmp_path / "q.onnx", given[0]) - exact).max() < 0.1 * scale
    y.square().sum().backward()
    with te.no_grad():
        for param in model.parameters():
            assert param.grad is not None
            most = float(np.abs(param.grad.numpy()).max())
            assert most
            param.sub_(param.grad * (0.2 * float(np.abs(param.detach().numpy()).max()) / most))
    model.save(tmp_path / "b.onnx")
    again = te.load_model(tmp_path / "b.onnx", dequantize=True)(te.tensor(given[0])).detach().numpy()
    assert np.abs(again - y.detach().numpy()).max() > 0.05 * scale
    assert np.abs(run(tmp_path / "b.onnx", given[0]) - again).max() < 0.1 * max(scale, np.abs(again).max())
