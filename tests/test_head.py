"""New heads of imported models: found, trained, and written into the file that its own runtime runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.tflite_files import Draft
from tinyedge import optim
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError

onnx = pytest.importorskip("onnx")
node = onnx.helper.make_node
FLOAT, HALF = 1, 10
RNG = np.random.default_rng(0)


def weight(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(dtype)


def write(path: Path, nodes: list[Any], x: list[Any], y: list[Any], weights: dict[str, Any], **more: Any) -> Path:
    info = onnx.helper.make_tensor_value_info
    kind = HALF if any(np.asarray(w).dtype == np.float16 for w in weights.values()) else FLOAT
    graph = onnx.helper.make_graph(
        nodes, "graph", [info("x", kind, x)], [info("y", more.pop("result", kind), y)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()], **more,
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def run_onnx(path: Path, x: Any) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def gemm(path: Path) -> Path:
    info = onnx.helper.make_tensor_value_info
    return write(
        path,
        [node("Relu", ["x"], ["r"]), node("Gemm", ["r", "fc.weight", "fc.bias"], ["z"], "/fc", transB=1),
         node("Softmax", ["z"], ["y"])],
        ["n", 6], ["n", 10], {"fc.weight": weight(10, 6), "fc.bias": weight(10)},
        value_info=[info("z", FLOAT, ["n", 10])],
    )  # fmt: skip


def product(path: Path) -> Path:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["b", "m"], ["z"]), node("Sigmoid", ["z"], ["y"])]
    return write(path, nodes, ["n", 6], ["n", 10], {"w": weight(6, 10), "b": weight(1, 10)})


def turned(path: Path) -> Path:
    """A weight that a node turns round, and float16."""
    nodes = [node("Transpose", ["w"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])]
    return write(path, nodes, [2, 6], [2, 10], {"w": weight(10, 6, dtype=np.float16)})


def stated(path: Path) -> Path:
    """As PyTorch's newer exporter writes it: the shapes of weights stand among those of values too."""
    gemm(path)
    model = onnx.load(path)
    for proto in model.graph.initializer:
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(proto.name, proto.data_type, proto.dims))
    onnx.save(model, path)
    return path


def convolution(path: Path) -> Path:
    """A head as SqueezeNet's, and a shape that holds the number of classes."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"]), node("Relu", ["c"], ["r"]), node("GlobalAveragePool", ["r"], ["p"]),
        node("Reshape", ["p", "shape"], ["f"]), node("LogSoftmax", ["f"], ["y"]),
    ]  # fmt: skip
    weights = {"w": weight(10, 6, 1, 1), "b": weight(10), "shape": np.array([-1, 10])}
    return write(path, nodes, [2, 6, 4, 4], [2, 10], weights)


def segmentation(path: Path) -> Path:
    nodes = [
        node("Conv", ["x", "w"], ["c"]), node("Resize", ["c", "", "", "sizes"], ["r"], mode="nearest"),
        node("ArgMax", ["r"], ["y"], axis=1),
    ]  # fmt: skip
    weights = {"w": weight(10, 6, 1, 1), "sizes": np.array([2, 10, 8, 8])}
    return write(path, nodes, [2, 6, 4, 4], [2, 1, 8, 8], weights, result=7)


@pytest.mark.parametrize("classes", [3, 25])
@pytest.mark.parametrize("make", [gemm, stated, product, turned, convolution, segmentation])
def test_a_new_head_is_written(tmp_path: Path, backend: Backend, make: Any, classes: int) -> None:
    path = make(tmp_path / "a.onnx")
    model = te.load_model(path)
    assert model.replace_head(classes) is model
    shape = [d if isinstance(d, int) else 2 for d in model.inputs[0].dims or ()]
    x = weight(*shape, dtype=np.float16 if make is turned else np.float32)
    wanted = model(te.tensor(x))
    if make is not segmentation:
        assert wanted.shape[1] == classes
        assert model.outputs[0].dims is not None
        assert model.outputs[0].dims[1] == classes
        wanted.square().sum().backward()
        optim.SGD(model.parameters(), lr=0.1).step()
        wanted = model(te.tensor(x))
    model.save(tmp_path / "b.onnx")
    onnx.checker.check_model(str(tmp_path / "b.onnx"), full_check=True)
    bound = 2e-3 if make is turned else 1e-5
    found = run_onnx(tmp_path / "b.onnx", x)
    np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=bound, atol=bound)
    again = te.load_model(tmp_path / "b.onnx")
    rounded = {"atol": bound} if make is turned else {"atol": 0, "rtol": 0}
    np.testing.assert_allclose(again(te.tensor(x)).detach().numpy(), wanted.detach().numpy(), **rounded)
    model.replace_head(10)  # as many as the file has: all shapes are the file's again
    model.save(tmp_path / "c.onnx")
    assert model(te.tensor(x)).shape[1:] == te.load_model(path)(te.tensor(x)).shape[1:]


def test_what_is_new_and_what_is_kept(tmp_path: Path, reference: Backend) -> None:
    path = gemm(tmp_path / "a.onnx")
    before = path.read_bytes()
    model = te.load_model(path)
    old = model.get_parameter("fc.weight")
    model.freeze(except_=[])
    model.replace_head(4)
    new = model.get_parameter("fc.weight")
    assert new is not old
    assert new.shape == (4, 6)
    assert new.requires_grad
    assert float(new.abs().max().item()) <= 6**-0.5
    assert model.state_dict()["fc.bias"].shape == (4,)
    assert "(/fc): Gemm(fc.weight (4, 6), fc.bias (4,), returns (n, 4))" in repr(model)
    other = copy.deepcopy(model)
    other.save(tmp_path / "b.onnx")
    assert path.read_bytes() == before
    proto = onnx.load(tmp_path / "b.onnx")
    assert [n.op_type for n in proto.graph.node] == ["Relu", "Gemm", "Softmax"]
    assert proto.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value == 4


def test_what_has_no_head_is_refused(tmp_path: Path, reference: Backend) -> None:
    def refused(nodes: list[Any], weights: dict[str, Any], match: str, classes: Any = 3) -> None:
        model = te.load_model(write(tmp_path / "a.onnx", nodes, [2, 6], None, weights))  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match=match):
            model.replace_head(classes)

    w = weight(6, 6)
    refused([node("Relu", ["x"], ["y"])], {}, "computed without one")
    refused([node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "x"], ["y"])], {"w": w}, "comes Add")
    refused([node("MatMul", ["x", "w"], ["m"]), node("CumSum", ["m", "one"], ["y"])],
            {"w": w, "one": np.array(1)}, "comes CumSum")  # fmt: skip
    refused([node("MatMul", ["x", "w"], ["m"]), node("MatMul", ["m", "w"], ["y"])], {"w": w}, "share the weight 'w'")
    refused([node("MatMul", ["x", "w"], ["y"])], {"w": w}, "positive int", 0)
    wide = [node("MatMul", ["x", "w"], ["m"]), node("Reshape", ["m", "s"], ["y"])]
    refused(wide, {"w": w, "s": np.array([2, -1, 3])}, "takes the classes apart by 3")
    refused(wide, {"w": w, "s": np.array([-1])}, "makes one dim of the classes and all others")


def drawn(kind: str, half: bool) -> bytes:
    """A TFLite classifier: a fully connected head, or a convolution that is averaged and reshaped."""
    d = Draft()
    d.value("x", (1, 4, 4, 3))
    d.constant("conv", weight(6, 1, 1, 3))
    d.constant("conv_bias", weight(6))
    d.value("features", (1, 4, 4, 6))
    d.constant("axes", np.array([1, 2], np.int32))
    d.op("CONV_2D", ["x", "conv", "conv_bias"], ["features"], "Conv2DOptions", StrideW=1, StrideH=1)
    if kind == "dense":
        d.value("pooled", (1, 6))
        d.op("MEAN", ["features", "axes"], ["pooled"], "ReducerOptions")
        name = "w"
        if half:
            d.constant("w16", weight(10, 6, dtype=np.float16))
            d.value("w", (10, 6))
            d.op("DEQUANTIZE", ["w16"], ["w"])
        else:
            d.constant("w", weight(10, 6))
        d.constant("b", weight(10))
        d.value("logits", (1, 10))
        d.op("FULLY_CONNECTED", ["pooled", name, "b"], ["logits"], "FullyConnectedOptions")
    else:
        d.constant("w", weight(10, 1, 1, 6))
        d.constant("b", weight(10))
        d.value("map", (1, 4, 4, 10))
        d.op("CONV_2D", ["features", "w", "b"], ["map"], "Conv2DOptions", StrideW=1, StrideH=1)
        d.value("averaged", (1, 1, 1, 10))
        d.op("AVERAGE_POOL_2D", ["map"], ["averaged"], "Pool2DOptions", Padding=1, StrideW=1, StrideH=1, FilterWidth=4,
             FilterHeight=4)  # fmt: skip
        d.constant("to", np.array([1, 10], np.int32))
        d.value("logits", (1, 10))
        d.op("RESHAPE", ["averaged", "to"], ["logits"], "ReshapeOptions")
    d.value("y", (1, 10))
    d.op("SOFTMAX", ["logits"], ["y"], "SoftmaxOptions")
    return d.content(["x"], ["y"])


@pytest.mark.parametrize("classes", [3, 25])
@pytest.mark.parametrize(("kind", "half"), [("dense", False), ("dense", True), ("conv", False)])
def test_a_new_head_of_a_tflite_file(tmp_path: Path, backend: Backend, kind: str, half: bool, classes: int) -> None:
    pytest.importorskip("tflite")
    path = tmp_path / "a.tflite"
    path.write_bytes(drawn(kind, half))
    model = te.load_model(path)
    model.replace_head(classes)
    x = weight(1, 4, 4, 3)
    wanted = model(te.tensor(x)).detach().numpy()
    assert wanted.shape == (1, classes)
    model.save(tmp_path / "b.tflite")
    content = (tmp_path / "b.tflite").read_bytes()
    assert len(content) > len(path.read_bytes())
    again = te.load_model(tmp_path / "b.tflite")
    assert again.outputs[0].dims == (1, classes)
    np.testing.assert_allclose(again(te.tensor(x)).detach().numpy(), wanted, rtol=1e-3 if half else 1e-6)
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(str(tmp_path / "b.tflite"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, wanted, rtol=1e-3 if half else 1e-4, atol=1e-6)
