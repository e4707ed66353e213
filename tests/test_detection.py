"""What ends a detector: the best boxes, by hand and against the runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.tensorflow_files import Graph
from tests.tflite_files import Draft
from tinyedge.backends import Backend
from tinyedge.convert.detection import best
from tinyedge.errors import UnsupportedOpError

RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]
BOXES = np.array([[0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6], [0, 1, 2, 3], [4, 4, 4, 9]], np.float32)
SCORES = np.array([0.5, 0.9, 0.1, 0.6, 0.7], np.float32)


def test_the_best_boxes() -> None:
    """By falling score; the first overlaps the second; the fourth overlaps the second by a third; the last is empty."""
    everything = np.ones(5, bool)
    assert best(BOXES, SCORES, 9, 0.5, everything) == [1, 4, 3, 2]
    assert best(BOXES, SCORES, 9, 0.2, everything) == [1, 4, 2]
    assert best(BOXES, SCORES, 2, 0.5, everything) == [1, 4]
    assert best(BOXES, SCORES, 9, 0.5, SCORES > 0.55) == [1, 4, 3]
    assert best(BOXES, np.ones(5, np.float32), 9, 0.5, everything) == [0, 2, 3, 4]
    assert best(BOXES, SCORES, 0, 0.5, everything) == best(BOXES[:0], SCORES[:0], 9, 0.5, everything[:0]) == []


def drawn_boxes(*shape: int) -> Array:
    corner, size = RNG.uniform(0, 4, (*shape, 2)), RNG.uniform(0.2, 2, (*shape, 2))
    return np.concatenate([corner, corner + size], -1).astype(np.float32)


@pytest.mark.parametrize("centred", [False, True])
def test_onnx(tmp_path: Path, backend: Backend, centred: bool) -> None:
    onnx: Any = pytest.importorskip("onnx")
    helper = onnx.helper
    boxes, scores = drawn_boxes(2, 12), RNG.uniform(0, 1, (2, 3, 12)).astype(np.float32)
    numbers = {"most": np.array(4), "overlap": np.float32(0.3), "least": np.float32(0.25), "zero": np.array([0])}
    nodes = [
        helper.make_node(
            "NonMaxSuppression", ["boxes", "more", "most", "overlap", "least"], ["chosen"],
            center_point_box=int(centred),
        ),
        helper.make_node("Mul", ["scores", "w"], ["more"]),
    ][::-1]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(name, 1, array.shape) for name, array in (("boxes", boxes), ("scores", scores))],
        [helper.make_tensor_value_info("chosen", 7, None), helper.make_tensor_value_info("more", 1, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in numbers.items()]
        + [onnx.numpy_helper.from_array(np.ones(12, np.float32), "w")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    (tmp_path / "a.onnx").write_bytes(content)
    given = boxes
    if centred:
        given = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)
    model = te.load_model(tmp_path / "a.onnx")
    chosen, more = model(te.tensor(given), te.tensor(scores))
    wanted = [
        (n, c, place)
        for n in range(2)
        for c in range(3)
        for place in best(boxes[n], scores[n, c], 4, 0.3, scores[n, c] > 0.25)
    ]
    assert chosen.dtype is te.int64
    assert chosen.tolist() == [list(row) for row in wanted]
    more.sum().backward()  # what comes before the choice is trained
    np.testing.assert_allclose(model.get_parameter("w").grad.numpy(), scores.sum((0, 1)), rtol=1e-5)
    runtime: Any = pytest.importorskip("onnxruntime")
    theirs = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert theirs.run(None, {"boxes": given, "scores": scores})[0].tolist() == chosen.tolist()


def ssd(regular: bool, classes: int = 3, per_box: int = 1, most: int = 6, **changes: Any) -> bytes:
    flexbuffers: Any = pytest.importorskip("flatbuffers.flexbuffers")
    pytest.importorskip("tflite")
    options = {
        "max_detections": most, "max_classes_per_detection": per_box, "num_classes": classes,
        "use_regular_nms": regular,
        "nms_score_threshold": 0.3, "nms_iou_threshold": 0.4, "detections_per_class": 4,
        "y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0,
    } | changes  # fmt: skip
    given = flexbuffers.Dumps({key: value for key, value in options.items() if value is not None})
    grid = np.stack(np.meshgrid(np.arange(4) / 4, np.arange(5) / 5), -1).reshape(-1, 2)
    anchors = np.concatenate([grid, np.full((20, 2), 0.4)], 1).astype(np.float32)
    d = Draft()
    d.value("encoded", (1, 20, 4))
    d.value("scores", (1, 20, classes + 1))
    d.op("LOGISTIC", ["scores"], [d.value("s", (1, 20, classes + 1))])
    size = most if regular else most * per_box
    names = [d.value(name, shape) for name, shape in (("boxes", (1, size, 4)), ("classes", (1, size)),
             ("found", (1, size)), ("count", (1,)))]  # fmt: skip
    d.op("TFLite_Detection_PostProcess", ["encoded", "s", d.constant("anchors", anchors)], names, custom=bytes(given))
    return d.content(["encoded", "scores"], names)


@pytest.mark.parametrize(("regular", "per_box"), [(False, 1), (False, 2), (True, 1)])
def test_the_end_of_an_ssd_is_lite_rts(tmp_path: Path, backend: Backend, regular: bool, per_box: int) -> None:
    content = ssd(regular, per_box=per_box)
    (tmp_path / "a.tflite").write_bytes(content)
    model = te.load_model(tmp_path / "a.tflite")
    encoded, scores = RNG.normal(0, 2, (1, 20, 4)), RNG.normal(0, 2, (1, 20, 4))
    given = [encoded.astype(np.float32), scores.astype(np.float32)]
    found = [result.detach().numpy() for result in model(*map(te.tensor, given))]
    count = int(found[3][0]) * (1 if regular else per_box)
    assert count >= 2
    runtime: Any = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), given):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    wanted = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    assert [array.shape for array in found] == [array.shape for array in wanted]
    assert found[3] == wanted[3]
    for a, b in zip(found[:3], wanted):
        np.testing.assert_allclose(a[:, :count], b[:, :count], rtol=1e-4, atol=1e-5)


def test_an_ssd_is_cut_before_its_end(tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "a.tflite").write_bytes(ssd(False))
    x = RNG.normal(0, 2, (1, 20, 4)).astype(np.float32)
    np.testing.assert_allclose(
        te.load_model(tmp_path / "a.tflite").cut("s")(te.tensor(x)).numpy(), 1 / (1 + np.exp(-x)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("changes", [{"max_detections": 2**31 - 1}, {"num_classes": None}, {"max_detections": 0}])
def test_ends_of_an_ssd_that_make_no_sense(tmp_path: Path, reference: Backend, changes: dict[str, Any]) -> None:
    (tmp_path / "a.tflite").write_bytes(ssd(False, **changes))
    with pytest.raises(UnsupportedOpError, match="Detection"):
        te.load_model(tmp_path / "a.tflite")


def test_regions_and_values(tmp_path: Path, backend: Backend) -> None:
    """A region that is the image, and one half of it, beyond which there is 5; different values; a range's sums."""
    pytest.importorskip("tensorboard.compat.proto.graph_pb2")
    g, x = Graph(), RNG.standard_normal((1, 3, 3, 2)).astype(np.float32)
    g.placeholder("x", x.shape)
    boxes, images = np.array([[0, 0, 1, 1], [0, 0, 2, 1]], np.float32), np.zeros(2, np.int32)
    names = ["x", g.const("boxes", boxes), g.const("images", images), g.const("size", np.array([3, 3], np.int32))]
    g.node("CropAndResize", "crop", names, method="bilinear", extrapolation_value=5.0)
    g.node("Reshape", "flat", ["x", g.const("all", np.array([-1], np.int32))])
    g.node("Round", "whole", ["flat"])
    g.node("Unique", "values", ["whole"], out_idx=np.dtype("int32"))
    g.node("Sum", "total", ["x", g.const("axes", np.arange(4, dtype=np.int32))], keep_dims=False)
    g.node("AddV2", "sums", [g.const("range", np.arange(3, dtype=np.float32)), "total"])
    (tmp_path / "a.pb").write_bytes(g.content())
    model = te.convert.from_tensorflow(tmp_path / "a.pb", outputs=["crop", "values", "values:1", "sums"])
    given = te.tensor(x, requires_grad=True)
    crop, values, places, sums = (y.detach().numpy() for y in model(given))
    np.testing.assert_allclose(crop[0], x[0], rtol=1e-6)
    np.testing.assert_allclose(crop[1], np.concatenate([x[0, ::2], np.full((1, 3, 2), 5, np.float32)]), rtol=1e-6)
    np.testing.assert_array_equal(values[places], np.round(x.ravel()))
    np.testing.assert_allclose(sums, np.arange(3) + x.sum(), rtol=1e-5)
    model(given)[0].sum().backward()
    np.testing.assert_allclose(
        given.grad.numpy(), np.tile(np.array([2, 1, 2], np.float32)[:, None, None], (1, 3, 2))[None]
    )
