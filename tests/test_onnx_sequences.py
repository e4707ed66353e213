"""ONNX's sequences, scans, regions and nodes in any order: as ONNX Runtime computes them, and with gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.mutations import check_mutations, messages_mutator, with_other_words
from tests.test_onnx import FLOAT, INT64, weight, write
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, ModelFormatError, ShapeError, TinyedgeError, UnsupportedOpError

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
runtime.set_default_logger_severity(4)
helper = onnx.helper
node = helper.make_node
Array = np.ndarray[Any, Any]


def agree(path: Path, **given: Array) -> tuple[te.Tensor, ...]:
    """The model's results, which are the runtime's."""
    proto = onnx.load(path)
    for port in proto.graph.output:
        port.ClearField("type")  # it is inferred
    content = proto.SerializeToString()
    wanted = runtime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, given)
    results = te.load_model(path)(
        *[te.tensor(array).requires_grad_(array.dtype.kind == "f") for array in given.values()]
    )
    results = results if isinstance(results, tuple) else (results,)
    for found, array in zip(results, wanted, strict=True):
        assert found.shape == array.shape
        assert found.detach().numpy().dtype == array.dtype
        np.testing.assert_allclose(found.detach().numpy(), array, rtol=1e-5, atol=1e-6)
    return results


def value(name: str, *dims: Any, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, dims)


def sequence(name: str) -> Any:
    return helper.make_tensor_sequence_value_info(name, FLOAT, None)


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], **weights: Any) -> Any:
    arrays = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    return helper.make_graph(nodes, "body", inputs, outputs, arrays)


def test_lists_of_tensors(tmp_path: Path, backend: Backend) -> None:
    """Parts, one put between them and one taken away, joined along an axis and as a new one; their number."""
    nodes = [
        node("Mul", ["x", "w"], ["h"]),
        node("SplitToSequence", ["h", "two"], ["parts"], axis=1),
        node("SequenceAt", ["parts", "last"], ["tail"]),
        node("SequenceInsert", ["parts", "x", "one"], ["more"]),
        node("SequenceErase", ["more", "last"], ["fewer"]),
        node("ConcatFromSequence", ["fewer"], ["y"], axis=-1),
        node("SequenceLength", ["more"], ["count"]),
        node("SplitToSequence", ["h"], ["rows"], axis=0, keepdims=0),
        node("SequenceConstruct", ["h", "x"], ["pair"]),
        node("ConcatFromSequence", ["pair"], ["stacked"], axis=1, new_axis=1),
        node("SequenceAt", ["rows", "one"], ["row"]),
    ]
    weights = {"w": weight(2, 5), "two": np.int64(2), "last": np.int64(-1), "one": np.int64(1)}
    path = write(tmp_path / "a.onnx", nodes, {"x": [2, 5]}, ["tail", "y", "count", "stacked", "row"], weights)
    results = agree(path, x=weight(2, 5))
    assert results[1].shape == (2, 9)
    results[1].square().mean().backward()
    far = [*nodes[:2], node("SequenceAt", ["parts", "far"], ["y"])]
    weights = {"w": weight(2, 5), "two": np.int64(2), "far": np.int64(3)}
    model = te.load_model(write(tmp_path / "b.onnx", far, {"x": [2, 5]}, ["y"], weights))
    with pytest.raises(ShapeError, match="a position in a sequence of 3"):
        model(te.zeros(2, 5))


@pytest.mark.parametrize("parts", [[3, 1, 1], 4, None])
def test_parts_of_each_kind(tmp_path: Path, reference: Backend, parts: Any) -> None:
    nodes = [node("SplitToSequence", ["x", "n"] if parts else ["x"], ["s"], axis=1),
             node("SequenceAt", ["s", "last"], ["y"])]  # fmt: skip
    weights = {"last": np.int64(-1), **({"n": np.array(parts, np.int64)} if parts else {})}
    agree(write(tmp_path / "a.onnx", nodes, {"x": [2, 5]}, ["y"], weights), x=weight(2, 5))


def test_a_loop_that_appends(tmp_path: Path, backend: Backend) -> None:
    """As PyTorch writes a list that grows."""
    body = graph(
        [node("Identity", ["go"], ["go_on"]), node("Gather", ["x", "n"], ["row"], axis=0),
         node("MatMul", ["row", "w"], ["h"]), node("SequenceInsert", ["before", "h"], ["after"])],
        [value("n", kind=INT64), value("go", kind=9), sequence("before")], [value("go_on", kind=9), sequence("after")],
    )  # fmt: skip
    nodes = [
        node("SequenceEmpty", [], ["none"]),
        node("Shape", ["x"], ["count"], start=0, end=1),
        node("Loop", ["count", "yes", "none"], ["rows"], body=body),
        node("ConcatFromSequence", ["rows"], ["y"], axis=0, new_axis=1),
    ]
    path = write(tmp_path / "a.onnx", nodes, {"x": ["n", 3]}, ["y"], {"w": weight(3, 4), "yes": np.array(True)})
    for count in (1, 4):
        (y,) = agree(path, x=weight(count, 3))
        assert y.shape == (count, 4)
    y.sum().backward()
    model = te.load_model(path)
    model(te.ones(2, 3)).sum().backward()
    np.testing.assert_allclose(model.get_parameter("w").grad.numpy(), np.full((3, 4), 2.0), rtol=1e-6)


def test_mutated_loops_and_scans(tmp_path: Path, reference: Backend) -> None:
    body = graph(
        [node("SequenceInsert", ["before", "part"], ["after"]), node("MatMul", ["part", "w"], ["row"])],
        [value("n", kind=INT64), value("go", kind=9), sequence("before")], [value("go", kind=9), sequence("after")],
    )  # fmt: skip
    inner = graph([node("Add", ["sum", "part"], ["next"])], [value("sum", 3), value("part", 3)], [value("next", 3)])
    nodes = [
        node("Scan", ["start", "x"], ["part"], body=inner, num_scan_inputs=1),
        node("SequenceEmpty", [], ["none"]),
        node("Loop", ["count", "yes", "none"], ["rows"], body=body),
        node("ConcatFromSequence", ["rows"], ["y"], axis=0, new_axis=1),
    ]
    weights = {"w": weight(3, 4), "count": np.int64(3), "yes": np.array(True)}
    path = write(tmp_path / "a.onnx", nodes, {"start": [3], "x": ["n", 3]}, ["y"], weights)
    assert te.load_model(path)(te.zeros(3), te.ones(2, 3)).shape == (3, 3)
    for change in (with_other_words, messages_mutator(onnx.ModelProto.FromString)):
        check_mutations(path.read_bytes(), tmp_path / "b.onnx", 60, 0, change=change)


def test_lists_that_a_model_takes_and_returns(tmp_path: Path, backend: Backend) -> None:
    """Loaded, called, trained; a tensor where a list belongs, and the reverse, are refused."""
    nodes = [
        node("SequenceAt", ["parts", "last"], ["tail"]), node("MatMul", ["tail", "w"], ["y"]),
        node("SequenceInsert", ["parts", "y", "one"], ["more"]),
    ]  # fmt: skip
    arrays = {"w": weight(3, 3), "last": np.int64(-1), "one": np.int64(1)}
    proto = helper.make_graph(
        nodes, "g", [sequence("parts")], [value("y", None, 3), sequence("more")],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )  # fmt: skip
    content = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (tmp_path / "a.onnx").write_bytes(content)
    given = [weight(2, 3), weight(4, 3)]
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    y, more = session.run(None, {"parts": given})
    model = te.load_model(tmp_path / "a.onnx")
    found, rows = model([te.tensor(array) for array in given])
    np.testing.assert_allclose(found.detach().numpy(), y, rtol=1e-5, atol=1e-6)
    for own, array in zip(rows, more, strict=True):
        np.testing.assert_allclose(own.detach().numpy(), array, rtol=1e-5, atol=1e-6)
    rows[1].sum().backward()
    assert model.get_parameter("w").grad is not None
    assert "parts, a list of tensors" in str(model)
    with pytest.raises(ArgumentError, match="parts, a list of tensors"):
        model(te.tensor(given[0]))
    path = write(tmp_path / "b.onnx", [node("Relu", ["x"], ["y"])], {"x": [2]}, ["y"], {})
    with pytest.raises(ArgumentError, match="got list"):
        te.load_model(path)([te.zeros(2)])
    proto.output[0].CopyFrom(sequence("y"))
    (tmp_path / "c.onnx").write_bytes(helper.make_model(proto).SerializeToString())
    with pytest.raises(ModelFormatError, match="a list of tensors in one place of the file alone"):
        te.load_model(tmp_path / "c.onnx")


def test_what_is_no_list_and_what_is_none(tmp_path: Path, reference: Backend) -> None:
    for name, nodes, outputs in (
        ("Add of a sequence", [node("Add", ["s", "x"], ["y"])], ["y"]),
        ("SequenceAt of a sequence, or not of one", [node("SequenceAt", ["x", "one"], ["y"])], ["y"]),
    ):
        made = [node("SequenceConstruct", ["x", "x"], ["s"]), *nodes]
        path = write(tmp_path / "a.onnx", made, {"x": [2, 5]}, outputs, {"one": np.int64(1)})
        with pytest.raises(UnsupportedOpError, match=name):
            te.load_model(path)


SCANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "backwards": {"scan_input_directions": [1], "scan_output_directions": [1]},
    "axes": {"scan_input_axes": [1], "scan_output_axes": [-1]},
}


@pytest.mark.parametrize("name", SCANS)
def test_scans(tmp_path: Path, backend: Backend, name: str) -> None:
    """A sum that goes along, of products with a weight from outside."""
    body = graph(
        [node("MatMul", ["part", "w"], ["h"]), node("Add", ["before", "h"], ["after"]),
         node("Relu", ["after"], ["row"])],
        [value("before", 4), value("part", 3)], [value("after", 4), value("row", 4)],
    )  # fmt: skip
    nodes = [node("Scan", ["start", "x"], ["total", "rows"], body=body, num_scan_inputs=1, **SCANS[name])]
    path = write(tmp_path / "a.onnx", nodes, {"start": [4], "x": ["n", "m"]}, ["total", "rows"], {"w": weight(3, 4)})
    x = weight(5, 3)
    agree(path, start=weight(4), x=x.T.copy() if name == "axes" else x)
    model, start = te.load_model(path), te.zeros(4, requires_grad=True)
    model(start, te.tensor(x.T.copy() if name == "axes" else x))[0].sum().backward()
    np.testing.assert_allclose(model.get_parameter("w").grad.numpy(), np.tile(x.sum(0)[:, None], (1, 4)), rtol=1e-5)
    np.testing.assert_array_equal(start.grad.numpy(), np.ones(4))


REGIONS = np.array([[0, 0, 6.5, 4], [1.2, 2.1, 9, 9], [3, 3, 3.2, 3.1], [-4, -4, 20, 30]], np.float32)


@pytest.mark.parametrize("opset", [10, 16])
@pytest.mark.parametrize(
    "given", [{}, {"sampling_ratio": 2, "spatial_scale": 0.5}, {"mode": "max", "sampling_ratio": 1}]
)
def test_regions(tmp_path: Path, backend: Backend, opset: int, given: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr("tinyedge.convert.regions.AT_ONCE", 60)
    nodes = [node("RoiAlign", ["x", "rois", "n"], ["y"], output_height=2, output_width=3, **given)]
    inputs = {"x": [2, 3, 8, 9], "rois": ["m", 4], "n": (INT64, ["m"])}
    path = write(tmp_path / "a.onnx", nodes, inputs, ["y"], {}, opset)
    for order in ([0, 1, 1, 0], [1, 0, 0, 0]):
        (y,) = agree(path, x=weight(2, 3, 8, 9), rois=REGIONS, n=np.array(order))
    y.sum().backward()
    model, none = te.load_model(path), te.zeros(0, dtype=te.int64)
    assert model(te.zeros(2, 3, 8, 9), te.zeros(0, 4), none).shape == (0, 3, 2, 3)
    with pytest.raises(ShapeError, match="an image of 2 for each region"):
        model(te.zeros(2, 3, 8, 9), te.tensor(REGIONS[:1]), te.tensor([2]))
    with pytest.raises(ShapeError, match="regions and results of at most"):
        model(te.zeros(2, 3, 8, 9), te.tensor(REGIONS[:1] * 1e9), te.tensor([0]))


def test_a_region_spreads_its_gradient(tmp_path: Path, backend: Backend) -> None:
    nodes = [node("RoiAlign", ["x", "rois", "n"], ["y"], output_height=2, output_width=2, sampling_ratio=2)]
    inputs = {"x": [1, 1, 4, 4], "rois": [1, 4], "n": (INT64, [1])}
    x = te.zeros(1, 1, 4, 4, requires_grad=True)
    rois = te.tensor([[0.5, 0.5, 2.5, 2.5]])
    te.load_model(write(tmp_path / "a.onnx", nodes, inputs, ["y"], {}))(x, rois, te.tensor([0])).sum().backward()
    assert abs(float(x.grad.sum().item()) - 4) < 1e-5
    assert float(x.grad[0, 0, 3].abs().sum().item()) == 0


def test_different_values(tmp_path: Path, reference: Backend) -> None:
    x = np.array([[3, 1, 3], [1, 2, 2], [3, 1, 3]], np.float32)
    for given in ({}, {"sorted": 0}, {"axis": 0, "sorted": 0}, {"axis": 1}):
        nodes = [node("Unique", ["x"], ["y", "first", "which", "counts"], **given)]
        agree(write(tmp_path / "a.onnx", nodes, {"x": [3, 3]}, ["y", "first", "which", "counts"], {}), x=x)
        agree(write(tmp_path / "a.onnx", [node("Unique", ["x"], ["y"], **given)], {"x": [3, 3]}, ["y"], {}), x=x)


def test_pooling_undone(tmp_path: Path, backend: Backend) -> None:
    nodes = [node("MaxPool", ["x"], ["p", "at"], kernel_shape=[2, 2], strides=[2, 2]),
             node("MaxUnpool", ["p", "at"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]  # fmt: skip
    (y,) = agree(write(tmp_path / "a.onnx", nodes, {"x": [2, 3, 4, 6]}, ["y"], {}), x=weight(2, 3, 4, 6))
    y.sum().backward()


@pytest.mark.parametrize(("op", "given", "low", "high"), [
    ("RandomNormalLike", {"mean": 3.0, "scale": 0.1}, 2.9, 3.1),
    ("RandomUniformLike", {"low": 2.0, "high": 4.0}, 2.9, 3.1), ("Bernoulli", {}, 0.25, 0.35),
])  # fmt: skip
def test_random_numbers(
    tmp_path: Path, backend: Backend, op: str, given: dict[str, Any], low: float, high: float
) -> None:
    path = write(tmp_path / "a.onnx", [node(op, ["x"], ["y"], **given)], {"x": [40, 50]}, ["y"], {})
    model, x = te.load_model(path), te.full((40, 50), 0.3)
    y, other = model(x).numpy(), model(x).numpy()
    assert low < y.mean() < high
    assert (y != other).any()


def test_nodes_in_any_order(tmp_path: Path, reference: Backend) -> None:
    """Runtimes order them; a file should, and some do not. Weights in branches are found again when it is saved."""
    branch = graph([node("Mul", ["h", "factor"], ["y"])], [], [value("y")], factor=weight(3))
    other = graph([node("Neg", ["h"], ["y"])], [], [value("y")])
    nodes = [
        node("Add", ["chosen", "b"], ["z"]),
        node("If", ["condition"], ["chosen"], then_branch=branch, else_branch=other),
        node("Greater", ["sum", "zero"], ["condition"]),
        node("ReduceSum", ["h"], ["sum"], keepdims=0),
        node("MatMul", ["x", "w"], ["h"]),
    ]
    weights = {"w": weight(2, 3), "b": weight(3), "zero": np.float32(0)}
    path = write(tmp_path / "a.onnx", nodes, {"x": [4, 2]}, ["z"], weights)
    for x in (weight(4, 2), -np.abs(weight(4, 2)), np.abs(weight(4, 2))):
        agree(path, x=x)
    model = te.load_model(path)
    with te.no_grad():
        for param in model.parameters():
            param.mul_(2)
    model.save(tmp_path / "b.onnx")
    agree(tmp_path / "b.onnx", x=weight(4, 2))
    circle = [node("Add", ["x", "b"], ["a"]), node("Neg", ["a"], ["b"])]
    with pytest.raises(ModelFormatError, match="nothing before it computes its input 'b'"):
        te.load_model(write(tmp_path / "c.onnx", circle, {"x": [2]}, ["b"], {}))


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_recurrent_weights_of_other_shapes_are_refused(tmp_path: Path, backend: Backend, op: str) -> None:
    """A kernel believes the shapes: a file with others must not make it read what lies behind them."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    right: dict[str, Any] = {"w": (1, gates * 4, 3), "r": (1, gates * 4, 4), "b": (1, 8 * gates), "h": (1, 2, 4)}
    wrong = [("w", (1, gates * 4, 2)), ("w", (1, gates * 2, 3)), ("r", (1, gates * 2, 4)), ("r", (1, gates * 4, 2)),
             ("b", (1, 4 * gates)), ("h", (1, 1, 4)), ("h", (1, 2, 2))]  # fmt: skip
    for name, shape in [("", ()), *wrong]:
        weights = {key: weight(*(shape if key == name else own)) for key, own in right.items()}
        made = node(op, ["x", "w", "r", "b", "", "h"], ["y"], hidden_size=4)
        path = write(tmp_path / "a.onnx", [made], {"x": [5, 2, 3]}, ["y"], weights)
        model = te.load_model(path)
        if not name:
            assert model(te.zeros(5, 2, 3)).shape == (5, 1, 2, 4)
            continue
        with pytest.raises(ShapeError, match=f"{op}: (W|R|B|states) of the shape"):
            model(te.zeros(5, 2, 3))


def test_more_outputs_than_an_op_has(tmp_path: Path, reference: Backend) -> None:
    cases: list[tuple[list[Any], dict[str, Any], type[TinyedgeError]]] = [
        ([node("Relu", ["x"], ["a", "y"])], {}, ArgumentError),
        ([node("Transpose", ["w"], ["a", "b"]), node("Add", ["x", "b"], ["y"])], {"w": weight(3, 3)}, TinyedgeError),
        ([node("Shape", ["x"], ["a", "s"]), node("Reshape", ["x", "s"], ["y"])], {}, ModelFormatError),
        ([node("Concat", ["x", "", "x"], ["y"], axis=0)], {}, ModelFormatError),
    ]
    for nodes, weights, error in cases:
        path = write(tmp_path / "a.onnx", nodes, {"x": [3, 3]}, ["y"], weights)
        with pytest.raises(error):
            te.load_model(path)(te.zeros(3, 3))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_a_window_without_end_is_refused(tmp_path: Path, reference: Backend, op: str) -> None:
    made = node(op, ["x"], ["y"], kernel_shape=[2**20, 3], auto_pad="SAME_UPPER")
    model = te.load_model(write(tmp_path / "a.onnx", [made], {"x": [1, 1, 8, 8]}, ["y"], {}))
    with pytest.raises(ShapeError, match=r"a window that fits the input \(8, 8\)"):
        model(te.zeros(1, 1, 8, 8))
