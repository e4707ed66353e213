"""ONNX files as models: outputs, gradients, names, writing back, and files from strangers."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.mutations import check_mutations, messages_mutator, with_other_words
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.convert import graph
from tinyedge.errors import (
    ArgumentError,
    CaptureError,
    CheckpointError,
    DtypeError,
    ModelFormatError,
    NumberRangeError,
    ShapeError,
    UnsupportedOpError,
)

onnx = pytest.importorskip("onnx")
helper = onnx.helper
FLOAT, HALF, INT64 = 1, 10, 7
RNG = np.random.default_rng(0)


def weight(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(dtype)


def write(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: Iterable[str],
    weights: dict[str, Any],
    opset: int = 17,
) -> Path:
    """A file of a graph; an input's value is its dims, or a type and dims, and so is an output's, if it has one."""

    def info(name: str, given: Any) -> Any:
        kind, dims = given if isinstance(given, tuple) else (FLOAT, given)
        return helper.make_tensor_value_info(name, kind, dims)

    graph = helper.make_graph(
        nodes,
        "graph",
        [info(name, given) for name, given in inputs.items()],
        [info(name, outputs[name] if isinstance(outputs, dict) else (0, None)) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def network(path: Path, dtype: Any = np.float32) -> Path:
    """A convolution, a batch norm, a shape computed from the input's, and a head."""
    kind = HALF if dtype == np.float16 else FLOAT
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "features.0.weight", "features.0.bias"], ["c"], "/features/0/Conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["n"], "/features/1/BN"),
        node("Relu", ["n"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Shape", ["p"], ["s"]),
        node("Gather", ["s", "zero"], ["batch"], axis=0),
        node("Concat", ["batch", "minus"], ["to"], axis=0),
        node("Reshape", ["p", "to"], ["flat"]),
        node("Gemm", ["flat", "head.weight", "head.bias"], ["y"], "/head/Gemm", transB=1),
    ]
    weights = {
        "features.0.weight": weight(4, 3, 3, 3, dtype=dtype), "features.0.bias": weight(4, dtype=dtype),
        "bn.scale": weight(4, dtype=dtype), "bn.bias": weight(4, dtype=dtype), "bn.mean": weight(4, dtype=dtype),
        "bn.var": np.abs(weight(4, dtype=dtype)) + dtype(0.5), "zero": np.array([0]), "minus": np.array([-1]),
        "head.weight": weight(5, 4, dtype=dtype), "head.bias": weight(5, dtype=dtype),
    }  # fmt: skip
    return write(path, nodes, {"x": (kind, ["n", 3, 6, 6])}, ["y"], weights)


def by_hand(state: dict[str, te.Tensor]) -> nn.Module:
    """The same network in tinyedge."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 5),
    )  # fmt: skip
    names = {
        "0.weight": "features.0.weight", "0.bias": "features.0.bias", "1.weight": "bn.scale", "1.bias": "bn.bias",
        "1.running_mean": "bn.mean", "1.running_var": "bn.var", "5.weight": "head.weight", "5.bias": "head.bias",
    }  # fmt: skip
    model.load_state_dict({own: state[name] for own, name in names.items()}, strict=False)
    return model.freeze_batch_norm_statistics()


def test_a_network_computes_and_trains_as_by_hand(tmp_path: Path, backend: Backend) -> None:
    model = te.load_model(network(tmp_path / "a.onnx"))
    other = by_hand(model.state_dict())
    x = te.tensor(weight(2, 3, 6, 6))
    a, b = model(x), other(x)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)
    a.square().sum().backward()
    b.square().sum().backward()
    pairs = {"features.0.weight": "0.weight", "bn.scale": "1.weight", "head.weight": "5.weight", "head.bias": "5.bias"}
    for name, own in pairs.items():
        found, wanted = model.get_parameter(name).grad, other.get_parameter(own).grad
        assert found is not None
        assert wanted is not None
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_compiled_step_is_the_eager_one(tmp_path: Path, backend: Backend) -> None:
    path = network(tmp_path / "a.onnx")
    model, other = te.load_model(path), te.load_model(path)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        loss = model(x).square().sum()
        loss.backward()
        return loss

    for size in (1, 2, 1, 1, 2):
        x = te.tensor(weight(size, 3, 6, 6))
        loss = other(x).square().sum()
        loss.backward()
        np.testing.assert_allclose(step(x).item(), loss.item(), rtol=1e-5)
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters()):
        assert a.grad is not None, name
        assert b.grad is not None
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-4)


def test_names_and_text(tmp_path: Path, reference: Backend) -> None:
    model = te.load_model(network(tmp_path / "a.onnx"))
    assert {name for name, _ in model.named_parameters()} == {
        "features.0.weight", "features.0.bias", "bn.scale", "bn.bias", "head.weight", "head.bias",
    }  # fmt: skip
    assert {name for name, _ in model.named_buffers()} == {"bn.mean", "bn.var"}
    assert "(/features/0/Conv): Conv(features.0.weight (4, 3, 3, 3), features.0.bias (4,))" in repr(model)
    assert "(input): x (n, 3, 6, 6) float32" in repr(model)
    model.freeze(except_="/head")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    model.freeze(except_=["features.0", "bn.scale"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"features.0.weight", "features.0.bias", "bn.scale"}
    model.freeze(except_="*/Conv")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"features.0.weight", "features.0.bias"}
    model.freeze(except_="*.bias")
    assert all(p.requires_grad is name.endswith(".bias") for name, p in model.named_parameters())
    for wrong in ("haed", "*.baes", nn.Linear):
        with pytest.raises(ArgumentError, match="no parameter belongs to"):
            model.freeze(except_=wrong)
    outer = nn.Sequential(model, nn.ReLU()).freeze(except_="0.head")
    assert {name for name, p in outer.named_parameters() if p.requires_grad} == {"0.head.weight", "0.head.bias"}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_statistics_move_only_where_asked(tmp_path: Path, backend: Backend, dtype: Any) -> None:
    path = network(tmp_path / "a.onnx", dtype=dtype)
    model, single = te.load_model(path), te.load_model(path, dtype=te.float32)
    images = weight(4, 3, 6, 6, dtype=dtype)
    x, before = te.tensor(images), model.get_buffer("bn.mean").numpy()
    model(x)
    assert np.array_equal(model.get_buffer("bn.mean").numpy(), before)
    for each in (model, single):
        each.freeze_batch_norm_statistics(False)
    np.testing.assert_allclose(
        model(x).detach().numpy().astype(np.float32),
        single(te.tensor(images.astype(np.float32))).detach().numpy(),
        rtol=1e-5 if dtype == np.float32 else 2e-2,
        atol=1e-5 if dtype == np.float32 else 2e-2,
    )
    for name in ("bn.mean", "bn.var"):
        found, wanted = (each.get_buffer(name).numpy().astype(np.float32) for each in (model, single))
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3)
    assert not np.array_equal(model.get_buffer("bn.mean").numpy(), before)


@pytest.mark.parametrize("way", ["eager", "compile"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_norms_over_a_minibatch_of_single_samples(tmp_path: Path, backend: Backend, way: str, dtype: Any) -> None:
    """N samples at batch 1 equal a batch of N: outputs, gradients, statistics."""
    path = network(tmp_path / "a.onnx", dtype=dtype)
    model, one = te.load_model(path), te.load_model(path, dtype=te.float32)
    images, labels = weight(4, 3, 6, 6, dtype=dtype), np.arange(4)
    with pytest.raises(
        ArgumentError, match=r"of 1 in GraphModel all are frozen.*freeze_batch_norm_statistics\(False\)"
    ):
        te.adapt.minibatch_norm(model, 4)
    for each in (model, one):
        each.freeze_batch_norm_statistics(False)
    norm = te.adapt.minibatch_norm(model, 4)

    def loss(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
        return nn.functional.cross_entropy(model(x).float(), y)

    def step(samples: Any) -> te.Tensor:
        return norm.backward(loss, samples)

    run = te.compile(step) if way == "compile" else step
    for _ in range(2):
        for each in (model, one):
            each.zero_grad()
        samples = [(te.tensor(images[k : k + 1]), te.tensor(labels[k : k + 1])) for k in range(4)]
        found = run(samples)
        wanted = loss(one, te.tensor(images.astype(np.float32)), te.tensor(labels))
        wanted.backward()
    tolerance = 1e-5 if dtype == np.float32 else 2e-2
    np.testing.assert_allclose(found.item(), wanted.item(), rtol=tolerance)
    pairs = {name: (model.get_parameter(name).grad, p.grad) for name, p in one.named_parameters()}
    pairs |= {name: (model.get_buffer(name), one.get_buffer(name)) for name in ("bn.mean", "bn.var")}
    for name, (got, expected) in pairs.items():
        scale = max(float(np.abs(expected.numpy()).max()), 0.01)
        difference = np.abs(got.numpy().astype(np.float32) - expected.numpy()).max()
        assert difference <= tolerance * scale, name
    with pytest.raises(ArgumentError, match="samples that come together"):
        model(te.tensor(images[:1]))
    model.eval()
    model(te.tensor(images[:1]))


@pytest.mark.parametrize("kind", ["group norm", "batch renorm"])
def test_norms_of_a_file_become_others(kind: str, tmp_path: Path, backend: Backend) -> None:
    """As those of modules do: results, gradients and statistics."""
    path = network(tmp_path / "a.onnx")
    model = te.load_model(path).freeze_batch_norm_statistics(False)
    plain = te.load_model(path)
    state = {name: value.detach() for name, value in (*plain.named_parameters(), *plain.named_buffers())}
    norm = nn.BatchNorm2d(4, eps=1e-5)
    with te.no_grad():
        for own, name in (("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "var")):
            norm.state_dict(keep_vars=True)[own].copy_(state[f"bn.{name}"])
    stack = nn.Sequential(norm)
    convert = te.adapt.to_group_norm if kind == "group norm" else te.adapt.to_batch_renorm
    options = {"groups": 2} if kind == "group norm" else {"r_max": 1.2, "d_max": 0.5}
    x = te.tensor(weight(2, 3, 6, 6))
    before = model.eval()(x).detach().numpy()
    assert convert(model, **options) is model
    convert(stack, **options)
    features = next(node for node in model.nodes if node.op == "Conv")
    conv = te.load_model(path).cut(features.outputs[0])
    last = next(node for node in model.nodes if node.op == "BatchNormalization")
    cut = model.cut(last.outputs[0])
    for training in (False, True, True):
        cut.train(training)
        stack.train(training)
        cut.freeze_batch_norm_statistics(False)
        got, wanted = cut(x), stack(conv(x).detach())
        np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
        cut.zero_grad()
        stack.zero_grad()
        got.square().sum().backward()
        wanted.square().sum().backward()
        gradient = cut.get_parameter("bn.scale").grad
        assert gradient is not None
        np.testing.assert_allclose(gradient.numpy(), stack[0].weight.grad.numpy(), rtol=1e-3, atol=1e-4)
    after = model.eval()(x).detach().numpy()
    if kind == "group norm":
        assert np.abs(after - before).max() > 1e-3
        alone = np.concatenate([model(x[k : k + 1]).detach().numpy() for k in range(2)])
        np.testing.assert_allclose(alone, after, rtol=1e-4, atol=1e-5)
        with pytest.raises(ArgumentError, match="group norms now"):
            model.save(tmp_path / "b.onnx")
        with pytest.raises(ArgumentError, match="has none"):
            convert(model)
    else:
        running = stack[0].running_mean.numpy()
        np.testing.assert_allclose(cut.get_buffer("bn.mean").numpy(), running, rtol=1e-4, atol=1e-5)
        model.save(tmp_path / "b.onnx")
        np.testing.assert_allclose(te.load_model(tmp_path / "b.onnx")(x).detach().numpy(), after, rtol=1e-5, atol=1e-6)


def test_a_norm_that_returns_statistics_has_none_of_a_minibatch(tmp_path: Path, reference: Backend) -> None:
    node = helper.make_node(
        "BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["y", "new_mean", "new_var"], training_mode=1
    )
    weights = {name: weight(3) for name in ("scale", "bias", "mean")} | {"var": np.ones(3, np.float32)}
    model = te.load_model(write(tmp_path / "a.onnx", [node], {"x": (FLOAT, [1, 3, 4, 4])}, ["y"], weights))
    norm = te.adapt.minibatch_norm(model.freeze_batch_norm_statistics(False), 2)
    with pytest.raises(ArgumentError, match="training_mode=0"):
        norm([te.ones(1, 3, 4, 4)] * 2)


def test_a_wrong_call_is_refused(tmp_path: Path, reference: Backend) -> None:
    model = te.load_model(network(tmp_path / "a.onnx"))
    with pytest.raises(ShapeError, match=r"the input x \(n, 3, 6, 6\) float32, but got \(1, 3, 5, 6\)"):
        model(te.zeros(1, 3, 5, 6))
    with pytest.raises(DtypeError, match="'x' is float32, but got int64"):
        model(te.zeros(1, 3, 6, 6, dtype=te.int64))
    with pytest.raises(ArgumentError, match="1 tensors"):
        model()


def test_a_cut_model_gives_features(tmp_path: Path, backend: Backend) -> None:
    model = te.load_model(network(tmp_path / "a.onnx"))
    features = model.cut(at="flat")
    x = te.tensor(weight(2, 3, 6, 6))
    head = nn.functional.linear(features(x), model.get_parameter("head.weight"), model.get_parameter("head.bias"))
    np.testing.assert_allclose(head.detach().numpy(), model(x).detach().numpy(), rtol=1e-5)
    assert features.get_parameter("bn.scale") is model.get_parameter("bn.scale")
    assert "head.weight" not in features.state_dict()
    with pytest.raises(ArgumentError, match="Near ones"):
        model.cut(at="flatt")


def test_copies(tmp_path: Path, reference: Backend) -> None:
    model = te.load_model(network(tmp_path / "a.onnx"))
    x = te.tensor(weight(1, 3, 6, 6))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(x).detach().numpy(), model(x).detach().numpy())
        with te.no_grad():
            other.get_parameter("head.bias").zero_()
        assert not np.array_equal(other(x).detach().numpy(), model(x).detach().numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_written_back(tmp_path: Path, backend: Backend, dtype: Any) -> None:
    path = network(tmp_path / "a.onnx", dtype)
    model = te.load_model(path, dtype=dtype)
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == path.read_bytes()
    x = te.tensor(weight(1, 3, 6, 6, dtype=dtype))
    model(x).sum().backward()
    optim.SGD(model.parameters(), lr=0.5).step()
    model.save(tmp_path / "tuned.onnx")
    tuned = (tmp_path / "tuned.onnx").read_bytes()
    assert len(tuned) == len(path.read_bytes())
    again = te.load_model(tmp_path / "tuned.onnx")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), value.numpy())
    assert not np.array_equal(
        te.load_model(path).get_parameter("head.bias").detach().numpy(),
        model.get_parameter("head.bias").detach().numpy(),
    )


def test_numbers_in_typed_fields_are_written_back(tmp_path: Path, reference: Backend) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    for kind in (FLOAT, HALF, 11, 16):
        tensor = helper.make_tensor("w", kind, [3], [1.0, 2.0, 3.0])
        info = [helper.make_tensor_value_info("x", kind, [3])]
        graph = helper.make_graph([node], "g", info, [helper.make_tensor_value_info("y", kind, [3])], [tensor])
        path = tmp_path / f"{kind}.onnx"
        path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
        model = te.load_model(path)
        with te.no_grad():
            model.get_parameter("w").mul_(0.5)
        model.save(tmp_path / f"{kind}-tuned.onnx")
        again = te.load_model(tmp_path / f"{kind}-tuned.onnx")
        assert again.get_parameter("w").tolist() == [0.5, 1.0, 1.5]


def test_load_names_load_model(tmp_path: Path, reference: Backend) -> None:
    with pytest.raises(CheckpointError, match=r"use te\.load_model"):
        te.load(network(tmp_path / "a.onnx"))
    (tmp_path / "a.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelFormatError, match="can run any code"):
        te.load_model(tmp_path / "a.pt")


def test_saving_spares_what_is_there(tmp_path: Path, reference: Backend) -> None:
    path = network(tmp_path / "a.onnx", np.float16)
    model, before = te.load_model(path, dtype=te.float32), path.read_bytes()
    with pytest.raises(ArgumentError, match="is there"):
        model.save(path)
    with pytest.raises(ArgumentError, match="another name than the original"):
        model.save(path, overwrite=True)
    with pytest.raises(ArgumentError, match=r"ends in \.onnx"):
        model.save(tmp_path / "b.tflite")
    with te.no_grad():
        model.get_parameter("head.bias").fill_(1e6)
    with pytest.raises(NumberRangeError, match=r"'head.bias' is float16 in the file, but it holds 1e\+06"):
        model.save(tmp_path / "b.onnx")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.onnx"]


def test_all_that_is_lacking_is_listed(tmp_path: Path, reference: Backend) -> None:
    nodes = [
        helper.make_node("NoSuchOp", ["x"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], domain="com.example"),
        helper.make_node("LeakyRelu", ["b"], ["c"], "third", slope=1.0),
    ]
    with pytest.raises(UnsupportedOpError) as caught:
        te.load_model(write(tmp_path / "a.onnx", nodes, {"x": [1]}, ["c"], {}))
    text = str(caught.value)
    assert "NoSuchOp (node 'first')" in text
    assert "Relu of the domain com.example" in text
    assert "LeakyRelu with the attribute slope (node 'third')" in text


@pytest.mark.parametrize("taken", [True, False])
def test_a_constant_condition_is_resolved(tmp_path: Path, backend: Backend, taken: bool) -> None:
    out = helper.make_tensor_value_info("o", FLOAT, None)
    twice = helper.make_graph([helper.make_node("Add", ["x", "x"], ["o"])], "t", [], [out])
    minus = helper.make_graph([helper.make_node("Neg", ["x"], ["o"])], "e", [], [out])
    nodes = [
        helper.make_node("Not", ["flag"], ["other"]),
        helper.make_node("If", ["other"], ["y"], then_branch=minus, else_branch=twice),
    ]
    model = te.load_model(write(tmp_path / "a.onnx", nodes, {"x": [2]}, ["y"], {"flag": np.array(taken)}))
    assert model(te.tensor([1.0, 3.0])).tolist() == ([2.0, 6.0] if taken else [-1.0, -3.0])


def branch(name: str, nodes: list[Any], output: str, **weights: Any) -> Any:
    made = [onnx.numpy_helper.from_array(np.asarray(array, np.float32), key) for key, array in weights.items()]
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, FLOAT, None)], initializer=made)


def test_a_condition_of_the_call_is_read(tmp_path: Path, backend: Backend) -> None:
    """Both branches have weights of the same names, one has a branch of its own; both are trained and written."""
    value = onnx.numpy_helper.from_array(np.array([0.5, 0.5], np.float32))
    inner = branch("i", [helper.make_node("Mul", ["h", "v"], ["q"])], "q", v=[2, 2])
    other = branch("j", [helper.make_node("Neg", ["h"], ["q"])], "q")
    then = branch(
        "t",
        [helper.make_node("Add", ["x", "w"], ["h"]),
         helper.make_node("If", ["is_long"], ["o"], then_branch=inner, else_branch=other)], "o", w=[1, 1],
    )  # fmt: skip
    otherwise = branch(
        "e", [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Mul", ["x", "w"], ["h"]),
                 helper.make_node("Sub", ["h", "c"], ["o"])], "o", w=[3, 3],
    )  # fmt: skip
    nodes = [
        helper.make_node("Equal", ["rate", "high"], ["is_high"]),
        helper.make_node("Shape", ["x"], ["lengths"]),
        helper.make_node("Gather", ["lengths", "zero"], ["rows"], axis=0),
        helper.make_node("Greater", ["rows", "one"], ["is_long"]),
        helper.make_node("If", ["is_high"], ["y"], then_branch=then, else_branch=otherwise),
    ]
    weights = {"high": np.array(16), "zero": np.array(0), "one": np.array(1)}
    path = write(tmp_path / "a.onnx", nodes, {"x": ["n", 2], "rate": (INT64, [])}, ["y"], weights)
    model = te.load_model(path)
    high, low, x = te.tensor(16), te.tensor(8), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)

    def results() -> list[Any]:
        calls = [(x, high), (x[:1], high), (x, low)]
        return [model(te.tensor(given), rate).detach().numpy() for given, rate in calls]

    for found, wanted in zip(results(), ((x + 1) * 2, -(x[:1] + 1), x * 3 - 0.5)):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    names = dict(model.named_parameters())
    assert len(names) == 4
    model(te.tensor(x), high).sum().backward()
    assert sorted(name for name, param in names.items() if param.grad is not None) == ["v", "w"]
    with te.no_grad():
        for number, param in enumerate(names.values()):
            param.add_(number + 1)
    model.save(tmp_path / "b.onnx")
    before, model = results(), te.load_model(tmp_path / "b.onnx")
    for found, wanted in zip(results(), before):
        np.testing.assert_array_equal(found, wanted)
    assert len((tmp_path / "b.onnx").read_bytes()) == len(path.read_bytes())
    with pytest.raises(CaptureError):
        te.compile(model)(te.tensor(x), high)
    chosen = te.convert.from_onnx(path, fixed={"rate": 8})
    assert [port.name for port in chosen.inputs] == ["x"]
    assert len(list(chosen.parameters())) == 2
    np.testing.assert_allclose(te.compile(chosen)(te.tensor(x)).detach().numpy(), x * 3 - 0.5, rtol=1e-6)
    chosen.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == path.read_bytes()
    for wrong, words in (({"rat": 8}, "rat"), ({"rate": "8"}, "rate"), ({"rate": [8]}, "shape")):
        with pytest.raises(ValueError, match=words):
            te.convert.from_onnx(path, fixed=wrong)


def test_a_mark_instead_of_a_name_is_no_length(tmp_path: Path, reference: Backend) -> None:
    """Some exporters write "?" for each length that they leave open."""
    path = write(tmp_path / "a.onnx", [helper.make_node("Neg", ["x"], ["y"])], {"x": ["?", "?", "n", "n"]}, ["y"], {})
    model = te.load_model(path)
    assert model.inputs[0].dims == (None, None, "n", "n")
    assert model(te.ones(1, 2, 3, 3)).shape == (1, 2, 3, 3)
    with pytest.raises(ShapeError):
        model(te.ones(1, 2, 3, 4))


def recurrent(path: Path, w: Any, r: Any, limit: bool) -> Path:
    """A loop over the rows of x, as a while loop of other frameworks: the body counts, and says whether it goes on."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "t"], ["row"], axis=0),
            helper.make_node("MatMul", ["row", "w_in"], ["a"]),
            helper.make_node("MatMul", ["h", "r"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["c"]),
            helper.make_node("Tanh", ["c"], ["h_next"]),
            helper.make_node("Add", ["t", "one"], ["t_next"]),
            helper.make_node("Less", ["t_next", "rows"], ["goes"]),
            helper.make_node("Identity", ["w_in"], ["w_out"]),
        ],
        "body",
        [value("i", INT64, []), value("go", 9, []), value("t", INT64, []), value("h", FLOAT, None),
         value("w_in", FLOAT, None)],
        [value("goes", 9, []), value("t_next", INT64, []), value("h_next", FLOAT, None), value("w_out", FLOAT, None),
         value("c", FLOAT, None)],
        [onnx.numpy_helper.from_array(r, "r")],
    )  # fmt: skip
    nodes = [
        helper.make_node("Shape", ["x"], ["lengths"]),
        helper.make_node("Gather", ["lengths", "zero"], ["rows"], axis=0),
        helper.make_node("Less", ["zero", "rows"], ["begins"]),
        helper.make_node("Loop", ["most" if limit else "", "begins", "zero", "start", "w"],
                         ["steps", "last", "", "sums"], body=body),
    ]  # fmt: skip
    weights = {"zero": np.array(0), "one": np.array(1), "most": np.array(3), "w": w, "start": np.zeros((2, 4), "f")}
    return write(path, nodes, {"x": ["n", 2, 3]}, ["last", "sums", "steps"], weights)


@pytest.mark.parametrize("limit", [False, True])
def test_loops(tmp_path: Path, backend: Backend, limit: bool) -> None:
    w, r, x = weight(3, 4), weight(4, 4), weight(5, 2, 3)
    path = recurrent(tmp_path / "a.onnx", w, r, limit)
    model = te.load_model(path)
    for call in (model, te.compile(model)):
        for rows in (x, x[:2], x):
            h, sums = np.zeros((2, 4), np.float32), []
            for row in rows[: 3 if limit else None]:
                sums.append(row @ w + h @ r)
                h = np.tanh(sums[-1])
            last, found, steps = call(te.tensor(rows))
            np.testing.assert_allclose(last.detach().numpy(), h, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found.detach().numpy(), np.stack(sums), rtol=1e-4, atol=1e-5)
            assert steps.item() == len(sums)
    model(te.tensor(x))[0].square().sum().backward()
    own = {name: te.tensor(array).requires_grad_() for name, array in (("w", w), ("r", r))}
    h = te.zeros(2, 4)
    for row in x[: 3 if limit else None]:
        h = te.tanh(te.tensor(row) @ own["w"] + h @ own["r"])
    h.square().sum().backward()
    for name, param in model.named_parameters():
        np.testing.assert_allclose(param.grad.numpy(), own[name].grad.numpy(), rtol=1e-3, atol=1e-4)
    with te.no_grad():
        model.get_parameter("r").mul_(0.5)
    model.save(tmp_path / "b.onnx")
    assert len((tmp_path / "b.onnx").read_bytes()) == len(path.read_bytes())
    again = te.load_model(tmp_path / "b.onnx")
    np.testing.assert_array_equal(again.get_parameter("r").detach().numpy(), r * np.float32(0.5))
    np.testing.assert_array_equal(again(te.tensor(x))[0].detach().numpy(), model(te.tensor(x))[0].detach().numpy())
    with pytest.raises(ShapeError, match="at least one step"):
        model(te.zeros(0, 2, 3))


def test_loops_without_end_are_stopped(tmp_path: Path, reference: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MAX_STEPS", 50)
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Add", ["t", "one"], ["next"])], "body",
        [helper.make_tensor_value_info(name, 0, None) for name in ("i", "go", "t")],
        [helper.make_tensor_value_info(name, 0, None) for name in ("goes", "next")],
    )  # fmt: skip
    nodes = [
        helper.make_node("Loop", ["", "go_on", "zero"], ["n"], body=body),
        helper.make_node("Add", ["x", "n"], ["y"]),
    ]
    weights = {"zero": np.float32(0), "one": np.float32(1), "go_on": np.array(True)}
    model = te.load_model(write(tmp_path / "a.onnx", nodes, {"x": [1]}, ["y"], weights))
    with pytest.raises(ArgumentError, match="at most 50 steps"):
        model(te.ones(1))


def test_bombs_are_refused(tmp_path: Path, reference: Backend) -> None:
    """A few bytes that ask for memory without end."""
    big = np.array([2**20, 2**20])
    for nodes in (
        [helper.make_node("ConstantOfShape", ["big"], ["y"])],
        [helper.make_node("Expand", ["one", "big"], ["y"])],
        [helper.make_node("Tile", ["one", "big"], ["y"])],
        [helper.make_node("Range", ["zero", "end", "step"], ["y"])],
        [
            helper.make_node("Expand", ["one", "long"], ["a"]),
            helper.make_node("Transpose", ["a"], ["b"]),
            helper.make_node("Max", ["a", "b"], ["y"]),
        ],
    ):
        weights = {
            "long": np.array([2**20, 1]),
            "big": big, "one": np.ones((1, 1), np.int64), "zero": np.array(0), "end": np.array(2**60),
            "step": np.array(1),
        }  # fmt: skip
        with pytest.raises(ModelFormatError, match="cannot be computed"):
            te.load_model(write(tmp_path / "a.onnx", nodes, {"x": [1]}, ["y"], weights))


def test_names_that_are_no_text(tmp_path: Path, reference: Backend) -> None:
    """Protobuf gives their bytes."""
    inner = branch("t", [helper.make_node("Neg", ["x"], ["onename"])], "onename")
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    path = write(tmp_path / "a.onnx", nodes, {"x": ["asymbol"], "c": (9, [])}, ["y"], {})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"asymbol", b"\xff\xfesymbo"))
    assert te.load_model(path).inputs[0].dims == (None,)
    path.write_bytes(content.replace(b"onename", b"\xff\xfenames"))
    with pytest.raises(ModelFormatError, match="no UTF-8"):
        te.load_model(path)


def test_a_host_value_that_cannot_be(tmp_path: Path, reference: Backend) -> None:
    """What the file computes of an input's shape may make no sense, which a call shows."""
    node = helper.make_node
    nodes = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"], axis=0),
             node("Concat", ["n", "n"], ["to"], axis=0), node("Reshape", ["x", "to"], ["y"])]  # fmt: skip
    path = write(tmp_path / "a.onnx", nodes, {"x": ["n", 3]}, ["y"], {"zero": np.array(0)})
    with pytest.raises(ArgumentError, match="values that Concat 'Concat_3' can compute with on the host"):
        te.load_model(path)(te.zeros(2, 3))


def test_a_result_without_a_name(tmp_path: Path, reference: Backend) -> None:
    path = write(tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": [2]}, ["y", ""], {})
    with pytest.raises(ModelFormatError, match="the outputs: one has no name"):
        te.load_model(path)


def test_an_op_set_that_is_named_twice(tmp_path: Path, reference: Backend) -> None:
    """Files that were put together of two have it; two versions of it are refused."""
    path = write(tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": [2]}, ["y"], {})
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("", 17))
    path.write_bytes(model.SerializeToString())
    assert te.load_model(path)(te.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
    model.opset_import.append(helper.make_opsetid("ai.onnx", 18))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match="opset_import"):
        te.load_model(path)


def test_mutated_files(tmp_path: Path, reference: Backend) -> None:
    """Each loads, or is refused by name: no other error, and no hang."""
    content = network(tmp_path / "a.onnx").read_bytes()
    check_mutations(content, tmp_path / "b.onnx", 300, 0)
    for change in (with_other_words, messages_mutator(onnx.ModelProto.FromString)):
        check_mutations(content, tmp_path / "b.onnx", 200, 1, change=change)


@pytest.mark.slow
def test_many_mutated_files(tmp_path: Path, reference: Backend) -> None:
    content = network(tmp_path / "a.onnx").read_bytes()
    for seed in range(1, 11):
        check_mutations(content, tmp_path / "b.onnx", 1000, seed)
        for change in (with_other_words, messages_mutator(onnx.ModelProto.FromString)):
            check_mutations(content, tmp_path / "b.onnx", 500, seed, change=change)


def test_images_far_from_zero_are_normalised(tmp_path: Path, backend: Backend) -> None:
    """The variance is not the difference of two large numbers, which can be negative."""
    node = helper.make_node("MeanVarianceNormalization", ["x"], ["y"])
    x = (weight(2, 3, 8, 8) * np.float32(0.1) + np.float32(1000.3)).astype(np.float32)
    x[:, 1] = np.float32(1000.3)
    model = te.load_model(write(tmp_path / "a.onnx", [node], {"x": [2, 3, 8, 8]}, ["y"], {}))
    wide = x.astype(np.float64)
    centred = wide - wide.mean((0, 2, 3), keepdims=True)
    wanted = centred / (np.sqrt((centred**2).mean((0, 2, 3), keepdims=True)) + 1e-9)
    y = model(te.tensor(x)).numpy()
    np.testing.assert_allclose(y[:, ::2], wanted[:, ::2], atol=5e-3)
    assert np.isfinite(y).all()
