"""TensorFlow graphs that call functions of their library: as calls, branches and loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.mutations import bounded, check_mutations, messages_mutator
from tests.tensorflow_files import Graph
from tinyedge.backends import Backend
from tinyedge.errors import ModelFormatError

graph_pb2 = pytest.importorskip("tensorboard.compat.proto.graph_pb2")
RNG = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def function(g: Graph, name: str, arguments: list[str], body: Graph, results: list[str]) -> None:
    """Put ``body`` into the library; ``results`` are ``node:output:number``, or arguments."""
    made = g.proto.library.function.add()
    made.signature.name = name
    for argument in arguments:
        made.signature.input_arg.add(name=argument)
    for number, text in enumerate(results):
        made.signature.output_arg.add(name=f"out{number}")
        made.ret[f"out{number}"] = text
    made.node_def.extend(body.proto.node)


def call(g: Graph, op: str, name: str, inputs: list[str], **functions: str) -> str:
    g.node(op, name, inputs)
    for key, value in functions.items():
        g.proto.node[-1].attr[key].func.name = value
    return name


def dense(w: Any, op: str = "Relu") -> Graph:
    """A product with a weight that stands in the function."""
    body = Graph()
    body.const("w", w)
    body.node("MatMul", "product", ["x", "w:output:0"])
    body.node(op, "act", ["product:product:0"])
    body.node("Neg", "unused", ["act:activations:0"])
    return body


def network(path: Path, w: Any) -> None:
    """A function that is called twice, one that calls it, and one with results of several kinds."""
    g = Graph()
    function(g, "dense", ["x"], dense(w), ["act:activations:0"])
    outer = Graph()
    call(outer, "PartitionedCall", "inner", ["a"], f="dense")
    outer.node("AddV2", "sum", ["inner:output:0", "a"])
    function(g, "residual", ["a"], outer, ["sum:z:0", "a"])
    ends = Graph()
    ends.const("k", np.array(2, np.int32))
    ends.node("TopKV2", "top", ["x", "k:output:0"])
    ends.node("Cast", "whole", ["top:indices:0"], SrcT=np.dtype("int32"), DstT=np.dtype("float32"))
    function(g, "ends", ["x"], ends, ["whole:y:0", "top:values:0"])
    g.placeholder("x", (-1, 4))
    call(g, "StatefulPartitionedCall", "first", ["x"], f="dense")
    call(g, "StatefulPartitionedCall", "second", ["first"], f="residual")
    g.node("AddV2", "both", ["second", "second:1"])
    g.node("ends", "third", ["both"])
    g.node("Identity", "y", ["third:1"])
    g.node("Identity", "i", ["third"])
    g.node("NoOp", "nothing", ["^third"])
    path.write_bytes(g.content())


def test_calls_are_written_out(tmp_path: Path, backend: Backend) -> None:
    w, x = weight(4, 4), weight(3, 4)
    network(tmp_path / "a.pb", w)
    model = te.load_model(tmp_path / "a.pb")
    assert [port.name for port in model.outputs] == ["y", "i"]
    named = dict(model.named_parameters(remove_duplicate=False))
    assert set(named) == {"first/w", "second/inner/w"}
    assert named["first/w"] is named["second/inner/w"]
    y, i = model(te.tensor(x))
    a = np.maximum(x @ w, 0)
    total = np.maximum(a @ w, 0) + a + a
    order = np.argsort(-total, 1)[:, :2]
    np.testing.assert_allclose(y.detach().numpy(), np.take_along_axis(total, order, 1), rtol=1e-5)
    np.testing.assert_array_equal(i.detach().numpy(), order)
    y.sum().backward()
    with te.no_grad():
        named["first/w"].sub_(named["first/w"].grad * 0.1)
    model.save(tmp_path / "b.pb")
    tuned = te.load_model(tmp_path / "b.pb")
    np.testing.assert_array_equal(tuned(te.tensor(x))[0].detach().numpy(), model(te.tensor(x))[0].detach().numpy())
    assert len((tmp_path / "b.pb").read_bytes()) == len((tmp_path / "a.pb").read_bytes())
    assert (tmp_path / "b.pb").read_bytes() != (tmp_path / "a.pb").read_bytes()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_branches(tmp_path: Path, backend: Backend, sign: float) -> None:
    w, x = weight(4, 4), np.abs(weight(3, 4)) * np.float32(sign)
    g = Graph()
    function(g, "yes", ["x"], dense(w), ["act:activations:0"])
    function(g, "no", ["x"], dense(w, "Tanh"), ["act:y:0"])
    g.placeholder("x", (3, 4))
    g.node("Sum", "sum", ["x", g.const("axes", np.array([0, 1], np.int32))], keep_dims=False)
    g.node("Greater", "asked", ["sum", g.const("zero", np.float32(0))])
    call(g, "StatelessIf", "y", ["asked", "x"], then_branch="yes", else_branch="no")
    (tmp_path / "a.pb").write_bytes(g.content())
    model = te.load_model(tmp_path / "a.pb")
    y = model(te.tensor(x))
    wanted = np.maximum(x @ w, 0) if sign > 0 else np.tanh(x @ w)
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    assert [param.grad is not None for param in model.parameters()] == [sign > 0, sign < 0]


def test_loops(tmp_path: Path, backend: Backend) -> None:
    """What no step changes goes round as well, as TensorFlow writes it."""
    w, x = weight(4, 4), weight(3, 4)
    g = Graph()
    asked, body = Graph(), Graph()
    asked.node("Less", "less", ["n", asked.const("most", np.array(3, np.int32)) + ":output:0"])
    function(g, "asked", ["n", "y", "w"], asked, ["less:z:0"])
    body.node("AddV2", "next", ["n", body.const("one", np.array(1, np.int32)) + ":output:0"])
    body.node("MatMul", "product", ["y", "w"])
    body.node("Tanh", "after", ["product:product:0"])
    function(g, "body", ["n", "y", "w"], body, ["next:z:0", "after:y:0", "w"])
    g.placeholder("x", (3, 4))
    g.const("w", w)
    call(g, "While", "loop", [g.const("start", np.array(0, np.int32)), "x", "w"], cond="asked", body="body")
    g.node("Identity", "y", ["loop:1"])
    (tmp_path / "a.pb").write_bytes(g.content())
    model = te.load_model(tmp_path / "a.pb")
    y = model(te.tensor(x))
    wanted = x
    for _ in range(3):
        wanted = np.tanh(wanted @ w)
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    assert model.get_parameter("w").grad is not None


def refused(tmp_path: Path, g: Graph, text: str) -> None:
    (tmp_path / "a.pb").write_bytes(g.content())
    with pytest.raises(ModelFormatError, match=text):
        te.load_model(tmp_path / "a.pb")


def test_functions_that_are_not_whole(tmp_path: Path, reference: Backend) -> None:
    def graph(body: Graph, results: list[str], arguments: list[str] = ["x"], name: str = "f") -> Graph:  # noqa: B006
        g = Graph()
        function(g, "f", arguments, body, results)
        g.placeholder("x", (3, 4))
        call(g, "PartitionedCall", "y", ["x"], f=name)
        return g

    body = dense(weight(4, 4))
    refused(tmp_path, graph(body, ["act:activations:0"], name="g"), "function 'g' is not there")
    refused(tmp_path, graph(body, ["act:activations:0"], ["x", "z"]), "1 values for 2 arguments")
    refused(tmp_path, graph(body, ["lost:y:0"]), "'lost:y:0' is not computed")
    refused(tmp_path, graph(body, ["act"]), "reads no output of 'act'")
    itself = Graph()
    call(itself, "PartitionedCall", "again", ["x"], f="f")
    refused(tmp_path, graph(itself, ["again:output:0"]), "functions more than 64 deep")
    second = Graph()
    second.node("TopKV2", "top", ["x", second.const("k", np.array(1, np.int32)) + ":output:0"])
    refused(tmp_path, graph(second, ["top:other:0"]), "no output 'other'")


def test_functions_without_end(tmp_path: Path, reference: Backend) -> None:
    """Each calls the next one twice."""
    g = Graph()
    for number in range(40):
        body = Graph()
        op = "PartitionedCall" if number < 39 else "Neg"
        for name in ("a", "b"):
            call(body, op, name, ["x"], f=f"f{number + 1}")
        body.node("AddV2", "sum", ["a:output:0", "b:output:0"])
        function(g, f"f{number}", ["x"], body, ["sum:z:0"])
    g.placeholder("x", (3, 4))
    call(g, "PartitionedCall", "y", ["x"], f="f0")
    with bounded("calls without end"):
        refused(tmp_path, g, "more than 50000 nodes")


def test_mutated_files(tmp_path: Path, reference: Backend) -> None:
    network(tmp_path / "a.pb", weight(4, 4))
    content = (tmp_path / "a.pb").read_bytes()
    check_mutations(content, tmp_path / "b.pb", 200, 0)
    check_mutations(content, tmp_path / "b.pb", 300, 1, change=messages_mutator(graph_pb2.GraphDef.FromString))
