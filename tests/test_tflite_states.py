"""TFLite files whose values stay from one call to the next: variables, and filters over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.mutations import check_mutations
from tests.tflite_files import Draft
from tinyedge.backends import Backend
from tinyedge.errors import ModelFormatError

pytest.importorskip("tflite")
RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def drawn(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def streaming(path: Path, start: Array, weight: Array, both: bool = False) -> None:
    """The last two rows that were seen, before a product: two variables, one of which has a first value, or both."""
    d = Draft()
    d.value("x", (1, 3))
    for name in ("a", "b"):
        d.op("VAR_HANDLE", [], [d.value(f"{name} handle", (), "resource")], "VarHandleOptions", SharedName=name)
    d.op("CALL_ONCE", [], [], "CallOnceOptions", InitSubgraphIndex=1)
    d.op("READ_VARIABLE", ["a handle"], [d.value("a", (1, 3))], "ReadVariableOptions")
    d.op("READ_VARIABLE", ["b handle"], [d.value("b", (1, 3))], "ReadVariableOptions")
    d.op("MUL", ["x", "b"], [d.value("xb", (1, 3))], "MulOptions")
    d.op("ADD", ["x", "xb"], [d.value("next", (1, 3))], "AddOptions")
    d.op("ASSIGN_VARIABLE", ["b handle", "a"], [], "AssignVariableOptions")
    d.op("ASSIGN_VARIABLE", ["a handle", "next"], [], "AssignVariableOptions")
    d.op("READ_VARIABLE", ["a handle"], [d.value("again", (1, 3))], "ReadVariableOptions")
    d.op("CONCATENATION", ["b", "again"], [d.value("both", (1, 6))], "ConcatenationOptions", Axis=1)
    d.op("FULLY_CONNECTED", ["both", d.constant("w", weight)], [d.value("y", (1, 2))], "FullyConnectedOptions")
    first = Draft()
    first.op("VAR_HANDLE", [], [first.value("h", (), "resource")], "VarHandleOptions", SharedName="a")
    first.op("ASSIGN_VARIABLE", ["h", first.constant("start", start)], [], "AssignVariableOptions")
    if both:
        first.op("VAR_HANDLE", [], [first.value("g", (), "resource")], "VarHandleOptions", SharedName="b")
        first.op("ASSIGN_VARIABLE", ["g", first.constant("zeros", np.zeros_like(start))], [], "AssignVariableOptions")
    path.write_bytes(d.content(["x"], ["y"], [(first, [], [])]))


def by_hand(frames: Array, start: Array, weight: Array) -> list[Array]:
    a, b = start, np.zeros_like(start)
    found = []
    for x in frames:
        a, b, before = x + x * b, a, b
        found.append(np.concatenate([before, a], 1) @ weight.T)
    return found


@pytest.mark.parametrize("compiled", [False, True])
def test_variables_stay_from_call_to_call(tmp_path: Path, backend: Backend, compiled: bool) -> None:
    start, weight, frames = drawn(1, 3), drawn(2, 6), drawn(4, 1, 3)
    streaming(tmp_path / "a.tflite", start, weight)
    model = te.load_model(tmp_path / "a.tflite")
    call = te.compile(model) if compiled else model
    for _ in range(2):
        for x, wanted in zip(frames, by_hand(frames, start, weight)):
            np.testing.assert_allclose(call(te.tensor(x)).detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
        model.reset_states()
    assert list(model.state_dict()) == ["w"]
    features = model.cut("both")
    for x, both in zip(frames[:3], by_hand(frames, start, np.eye(6, dtype=np.float32))):
        np.testing.assert_allclose(features(te.tensor(x)).detach().numpy(), both, rtol=1e-4, atol=1e-5)


def test_a_streaming_model_is_trained_and_written(tmp_path: Path, backend: Backend) -> None:
    start, weight, frames = drawn(1, 3), drawn(2, 6), drawn(4, 1, 3)
    streaming(tmp_path / "a.tflite", start, weight)
    model = te.load_model(tmp_path / "a.tflite")
    for x in frames:  # no graph of an earlier call is walked
        model(te.tensor(x)).sum().backward()
    wanted = sum(by_hand(frames, start, np.eye(6, dtype=np.float32)))
    np.testing.assert_allclose(model.get_parameter("w").grad.numpy(), np.repeat(wanted, 2, 0), rtol=1e-4, atol=1e-4)
    with te.no_grad():
        model.get_parameter("w").mul_(2.0)
    model.save(tmp_path / "b.tflite")
    model = te.load_model(tmp_path / "b.tflite")
    np.testing.assert_allclose(
        model(te.tensor(frames[0])).detach().numpy(), by_hand(frames, start, 2 * weight)[0], rtol=1e-4, atol=1e-5
    )


def test_variables_are_those_of_lite_rt(tmp_path: Path, reference: Backend) -> None:
    runtime: Any = pytest.importorskip("ai_edge_litert.interpreter")
    start, weight, frames = drawn(1, 3), drawn(2, 6), drawn(4, 1, 3)
    streaming(tmp_path / "a.tflite", start, weight, True)
    model = te.load_model(tmp_path / "a.tflite")
    interpreter = runtime.Interpreter(model_path=str(tmp_path / "a.tflite"))
    interpreter.allocate_tensors()
    for x in frames:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        wanted = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(model(te.tensor(x)).detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_variables_that_are_wrong(tmp_path: Path, reference: Backend) -> None:
    d = Draft()
    d.value("x", (1, 3))
    d.op("CALL_ONCE", [], [], "CallOnceOptions", InitSubgraphIndex=7)
    d.op("RELU", ["x"], [d.value("y", (1, 3))])
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    with pytest.raises(ModelFormatError, match="the graph 7"):
        te.load_model(tmp_path / "a.tflite")
    streaming(tmp_path / "a.tflite", drawn(1, 3), drawn(2, 6))
    check_mutations((tmp_path / "a.tflite").read_bytes(), tmp_path / "b.tflite", 300, 0)
