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


def run_lite(content: bytes, calls: list[Array]) -> list[list[Array]]:
    """What LiteRT makes of one call after the other."""
    runtime: Any = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    found = []
    for x in calls:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        found.append([interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()])
    return found


@pytest.mark.parametrize(("rank", "activation"), [(1, 0), (2, 1)])
def test_filters_over_time(tmp_path: Path, backend: Backend, rank: int, activation: int) -> None:
    """SVDF: each call adds a result to those that a filter remembers."""
    feature, times, bias, frames = drawn(4, 3), drawn(4, 5), drawn(4 // rank), drawn(7, 2, 3)
    d = Draft()
    names = [d.value("x", (2, 3)), d.constant("feature", feature), d.constant("times", times)]
    names += [d.constant("bias", bias), d.value("state", (2, 20))]
    d.variables.add("state")
    d.op("SVDF", names, [d.value("y", (2, 4 // rank))], "SVDFOptions", Rank=rank, FusedActivationFunction=activation)
    content = d.content(["x"], ["y"])
    (tmp_path / "a.tflite").write_bytes(content)
    model = te.load_model(tmp_path / "a.tflite")
    memory = np.zeros((2, 4, 5), np.float32)
    wanted = []
    for x in frames:
        memory = np.concatenate([memory[:, :, 1:], (x @ feature.T)[:, :, None]], 2)
        y = (memory * times).sum(2).reshape(2, -1, rank).sum(2) + bias
        wanted.append(np.maximum(y, 0) if activation else y)
    found = [model(te.tensor(x)) for x in frames]
    found[-1].sum().backward()
    assert all(param.grad is not None for param in model.parameters())
    assert len(list(model.parameters())) == 3
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-4, atol=1e-5)
    for a, b in zip(found, run_lite(content, list(frames))):
        np.testing.assert_allclose(a.detach().numpy(), b[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("kind", ["lstm", "rnn"])
def test_both_directions(tmp_path: Path, backend: Backend, kind: str, merged: bool) -> None:
    many = 1 if kind == "lstm" else 2  # of several samples in one call LiteRT forgets some
    d, x = Draft(), drawn(many, 6, 3)
    names = [d.value("x", x.shape)]
    gates = "ifgo" if kind == "lstm" else "h"
    for way in ("ahead", "back"):
        names += [d.constant(f"{way} in {gate}", drawn(4, 3)) for gate in gates]
        names += [d.constant(f"{way} back {gate}", drawn(4, 4) / 3) for gate in gates]
        names += [""] * 3 if kind == "lstm" else []
        names += [d.constant(f"{way} bias {gate}", drawn(4)) for gate in gates]
        names += ["", ""] if kind == "lstm" else [d.value(f"{way} state", (many, 4))]
    if kind == "lstm":
        names += [d.value(f"{part} state", (many, 4)) for part in ("ah", "ac", "bh", "bc")]
    d.variables |= {name for name in names if name.endswith("state")}
    names += [""] * (9 if kind == "lstm" else 3)
    outputs = [d.value("y", (many, 6, 8))] if merged else [d.value("y", (many, 6, 4)), d.value("z", (many, 6, 4))]
    code = f"BIDIRECTIONAL_SEQUENCE_{kind.upper()}"
    table = {"lstm": "BidirectionalSequenceLSTMOptions", "rnn": "BidirectionalSequenceRNNOptions"}[kind]
    d.op(code, names, outputs, table, FusedActivationFunction=4, MergeOutputs=merged, TimeMajor=False)
    content = d.content(["x"], outputs)
    (tmp_path / "a.tflite").write_bytes(content)
    model = te.load_model(tmp_path / "a.tflite")
    results = model(te.tensor(x))
    results = (results,) if merged else results
    for a, b in zip(results, run_lite(content, [x])[0], strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-4, atol=1e-5)
    sum(y.square().sum() for y in results).backward()
    assert all(param.grad is not None for param in model.parameters())
    assert len(list(model.parameters())) == 6 * len(gates)


def rounded(x: Array, low: float, high: float, bits: int, narrow: bool) -> tuple[Array, Array]:
    """What fake quantisation makes of ``x``, and where a gradient passes."""
    least, most = int(narrow), 2**bits - 1
    scale = (high - low) / (most - least)
    shift = np.clip(np.round(least - low / scale), least, most)
    first, last = (least - shift) * scale, (most - shift) * scale
    return np.round((np.clip(x, first, last) - first) / scale) * scale + first, (x >= first) & (x <= last)


@pytest.mark.parametrize(("low", "high", "bits", "narrow"), [(-1, 1.5, 8, False), (0, 6, 4, True), (0.2, 3, 3, False)])
def test_fake_quantisation(tmp_path: Path, backend: Backend, low: float, high: float, bits: int, narrow: bool) -> None:
    d = Draft()
    d.op("FAKE_QUANT", [d.value("x", (2, 40))], [d.value("y", (2, 40))], "FakeQuantOptions", Min=low, Max=high,
         NumBits=bits, NarrowRange=narrow)  # fmt: skip
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    x = te.tensor(drawn(2, 40) * 3).requires_grad_()
    y = te.load_model(tmp_path / "a.tflite")(x)
    wanted, passes = rounded(x.detach().numpy(), low, high, bits, narrow)
    np.testing.assert_allclose(y.detach().numpy(), wanted, atol=1e-5)
    (y * te.tensor(np.arange(80, dtype=np.float32).reshape(2, 40))).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.arange(80).reshape(2, 40) * passes, atol=1e-4)


def looped(path: Path, w: Array, r: Array) -> bytes:
    """A recurrent layer as a while loop, as converters write those of Keras: graphs of the condition and the body."""
    steps, many, size = 5, 2, w.shape[1]
    d = Draft()
    values = [d.value("x", (steps, many, size)), d.constant("zero", np.array(0, np.int32))]
    values.append(d.constant("start", np.zeros((many, 4), np.float32)))
    ends = [d.value("t end", (), "int32"), d.value("h end", (many, 4)), d.value("x end", (steps, many, size))]
    d.op("WHILE", [values[1], values[2], values[0]], ends, "WhileOptions", CondSubgraphIndex=1, BodySubgraphIndex=2)
    d.op("NEG", ["h end"], [d.value("y", (many, 4))])

    def given(g: Draft) -> list[str]:
        return [g.value("t", (), "int32"), g.value("h", (many, 4)), g.value("x", (steps, many, size))]

    condition, body = Draft(), Draft()
    ins = given(condition)
    limit = condition.constant("steps", np.array(steps, np.int32))
    condition.op("LESS", ["t", limit], [condition.value("goes", (), "bool")])
    given(body)
    body.op("GATHER", ["x", "t"], [body.value("row", (many, size))], "GatherOptions", Axis=0)
    body.op("FULLY_CONNECTED", ["row", body.constant("w", w)], [body.value("a", (many, 4))], "FullyConnectedOptions")
    body.op("FULLY_CONNECTED", ["h", body.constant("r", r)], [body.value("b", (many, 4))], "FullyConnectedOptions")
    body.op("ADD", ["a", "b"], [body.value("c", (many, 4))], "AddOptions")
    body.op("TANH", ["c"], [body.value("h next", (many, 4))])
    one = body.constant("one", np.array(1, np.int32))
    body.op("ADD", ["t", one], [body.value("t next", (), "int32")], "AddOptions")
    content = d.content(["x"], ["y"], [(condition, ins, ["goes"]), (body, ["t", "h", "x"], ["t next", "h next", "x"])])
    path.write_bytes(content)
    return content


def test_while_loops(tmp_path: Path, backend: Backend) -> None:
    w, r, x = drawn(4, 3), drawn(4, 4) / 2, drawn(5, 2, 3)
    content = looped(tmp_path / "a.tflite", w, r)
    model = te.load_model(tmp_path / "a.tflite")
    for call in (model, te.compile(model)):
        h = np.zeros((2, 4), np.float32)
        for row in x:
            h = np.tanh(row @ w.T + h @ r.T)
        np.testing.assert_allclose(call(te.tensor(x)).detach().numpy(), -h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run_lite(content, [x])[0][0], -h, rtol=1e-4, atol=1e-5)
    model(te.tensor(x)).square().sum().backward()
    names = dict(model.named_parameters())
    assert len(names) == 2
    assert all(param.grad is not None and np.abs(param.grad.numpy()).max() > 0 for param in names.values())
    with te.no_grad():
        for param in names.values():
            param.mul_(0.5)
    model.save(tmp_path / "b.tflite")
    tuned = run_lite((tmp_path / "b.tflite").read_bytes(), [x])[0][0]
    np.testing.assert_allclose(model(te.tensor(x)).detach().numpy(), tuned, rtol=1e-4, atol=1e-5)
    check_mutations(content, tmp_path / "c.tflite", 200, 0)
