"""Frozen TensorFlow graphs as models: outputs, weights, writing back, parts of graphs, files from strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.mutations import check_mutations, messages_mutator, with_other_words
from tests.tensorflow_files import Graph
from tinyedge.backends import Backend
from tinyedge.errors import (
    ArgumentError,
    BackendError,
    ModelFormatError,
    NumberRangeError,
    ShapeError,
    UnsupportedOpError,
)
from tinyedge.nn import functional as F

graph_pb2 = pytest.importorskip("tensorboard.compat.proto.graph_pb2")
RNG = np.random.default_rng(0)
Weights = dict[str, np.ndarray[Any, Any]]


def weight(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(dtype)


def network(path: Path, dtype: Any = np.float32) -> Weights:
    """Two convolutions, a batch norm that is spelled out, a mean over images and a head; not in order."""
    w: Weights = {
        "conv/w": weight(3, 3, 2, 4, dtype=dtype), "conv/b": weight(4, dtype=dtype),
        "deep/w": weight(3, 3, 4, 1, dtype=dtype), "norm/gamma": weight(4, dtype=dtype),
        "norm/beta": weight(4, dtype=dtype), "norm/mean": weight(4, dtype=dtype),
        "norm/var": np.abs(weight(4, dtype=dtype)) + dtype(0.5), "head/w": weight(4, 5, dtype=dtype),
        "head/b": weight(5, dtype=dtype),
    }  # fmt: skip
    g = Graph()
    g.node("Softmax", "y", ["head"])
    g.placeholder("x", (-1, 7, 7, 2), np.dtype(dtype).name)
    for name, array in w.items():
        g.node("Identity", f"{name}/read", [g.const(name, array)])
    g.node("Conv2D", "conv", ["x", "conv/w/read"], strides=(1, 2, 2, 1), padding="SAME")
    g.node("BiasAdd", "conv/add", ["conv", "conv/b/read"])
    g.node("DepthwiseConv2dNative", "deep", ["conv/add", "deep/w/read"], strides=(1, 1, 1, 1), padding="VALID")
    g.node("AddV2", "norm/sum", ["norm/var/read", g.const("eps", np.array(0.01, dtype))])
    g.node("Rsqrt", "norm/root", ["norm/sum"])
    g.node("Mul", "norm/factor", ["norm/root", "norm/gamma/read"])
    g.node("Mul", "norm/scaled", ["deep", "norm/factor"])
    g.node("Mul", "norm/shift", ["norm/mean/read", "norm/factor"])
    g.node("Sub", "norm/rest", ["norm/beta/read", "norm/shift"])
    g.node("AddV2", "norm", ["norm/scaled", "norm/rest"])
    g.node("Relu6", "act", ["norm"])
    g.node("Mean", "pool", ["act", g.const("axes", np.array([1, 2], np.int32))], keep_dims=False)
    g.node("MatMul", "product", ["pool", "head/w/read"])
    g.node("BiasAdd", "head", ["product", "head/b/read"])
    g.node("NoOp", "nothing", ["^y"])
    path.write_bytes(g.content())
    return w


def by_hand(x: te.Tensor, w: Weights) -> te.Tensor:
    """The same with channels first."""
    t = {name: te.tensor(array.astype(np.float32)) for name, array in w.items()}
    x = F.pad(x.permute((0, 3, 1, 2)), (1, 1, 1, 1))
    x = F.conv2d(x, t["conv/w"].permute((3, 2, 0, 1)), t["conv/b"], stride=2)
    x = F.conv2d(x, t["deep/w"].permute((2, 3, 0, 1)), groups=4)
    x = F.batch_norm(x, t["norm/mean"], t["norm/var"], t["norm/gamma"], t["norm/beta"], eps=0.01)
    return F.softmax(F.relu6(x).mean((2, 3)) @ t["head/w"] + t["head/b"], dim=-1)


def test_a_network_computes_as_by_hand(tmp_path: Path, backend: Backend) -> None:
    w = network(tmp_path / "a.pb")
    model = te.load_model(tmp_path / "a.pb")
    x = te.tensor(weight(3, 7, 7, 2))
    np.testing.assert_allclose(model(x).detach().numpy(), by_hand(x, w).numpy(), rtol=1e-4, atol=1e-6)
    assert [node.op for node in model._nodes if node.op != "Identity"] == [
        "Transpose", "Conv", "Conv", "BatchNormalization", "Clip", "ReduceMean", "Gemm", "Softmax",
    ]  # fmt: skip
    names = {name for name, _ in model.named_parameters()}
    assert names == set(w) - {"norm/mean", "norm/var"}
    assert {name for name, _ in model.named_buffers()} >= {"norm/mean", "norm/var"}
    assert model.get_parameter("conv/w").shape == (4, 2, 3, 3)
    model(x)[:, 0].sum().backward()
    assert all(param.grad is not None for param in model.parameters())
    model.freeze(except_="head")
    assert {name for name, param in model.named_parameters() if param.requires_grad} == {"head/w", "head/b"}
    with pytest.raises(ShapeError, match="x"):
        model(te.tensor(weight(3, 8, 7, 2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_written_back(tmp_path: Path, reference: Backend, dtype: Any) -> None:
    path = tmp_path / "a.pb"
    w = network(path, dtype)
    model = te.load_model(path)
    model.save(tmp_path / "same.pb")
    assert (tmp_path / "same.pb").read_bytes() == path.read_bytes()
    with te.no_grad():
        model.get_parameter("conv/w").mul_(0.5)
        model.get_buffer("norm/mean").mul_(2.0)
    model.save(tmp_path / "tuned.pb")
    wanted = path.read_bytes()
    for name, factor in (("conv/w", 0.5), ("norm/mean", 2.0)):
        wanted = wanted.replace(w[name].tobytes(), (w[name] * dtype(factor)).tobytes())
    assert (tmp_path / "tuned.pb").read_bytes() == wanted
    with pytest.raises(ArgumentError, match="another name"):
        model.save(path, overwrite=True)
    if dtype is np.float16:
        single = te.load_model(path, dtype=te.float32)
        with te.no_grad():
            single.get_parameter("head/b").fill_(1e6)
        with pytest.raises(NumberRangeError, match="float16 in the file"):
            single.save(tmp_path / "b.pb")
        assert not (tmp_path / "b.pb").exists()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("numbers", [0, 1, 3, 6])
def test_constants_of_each_encoding(tmp_path: Path, reference: Backend, dtype: Any, numbers: int) -> None:
    g, array = Graph(), weight(2, 3, dtype=dtype)
    g.placeholder("x", (-1, 3), np.dtype(dtype).name)
    g.node("MatMul", "y", ["x", g.const("w", array, numbers)], transpose_b=True)
    (tmp_path / "a.pb").write_bytes(g.content())
    flat = array.reshape(-1).copy()
    flat[numbers:] = flat[numbers - 1] if numbers else 0
    model = te.load_model(tmp_path / "a.pb")
    np.testing.assert_array_equal(model.get_parameter("w").detach().numpy(), flat.reshape(2, 3))
    model.save(tmp_path / "same.pb")
    assert (tmp_path / "same.pb").read_bytes() == g.content()
    new = weight(2, 3, dtype=dtype)
    with te.no_grad():
        model.get_parameter("w").copy_(te.tensor(new.astype(np.float32 if dtype is np.float16 else dtype)))
    model.save(tmp_path / "tuned.pb")
    again = te.load_model(tmp_path / "tuned.pb")
    np.testing.assert_array_equal(again.get_parameter("w").detach().numpy(), new)
    assert len((tmp_path / "tuned.pb").read_bytes()) <= len(g.content()) + new.nbytes + 16


@pytest.mark.parametrize("gamma", [True, False])
def test_norms_over_a_minibatch_of_single_samples(tmp_path: Path, backend: Backend, gamma: bool) -> None:
    """A batch norm that is spelled out, with a scale and without: N samples at batch 1 equal a batch of N."""
    g = Graph()
    g.placeholder("x", (-1, 5, 5, 2))
    g.node("Conv2D", "c", ["x", g.const("w", weight(3, 3, 2, 4))], strides=(1, 1, 1, 1), padding="SAME")
    g.node("AddV2", "sum", [g.const("var", np.abs(weight(4)) + 0.5), g.const("eps", np.array(0.01, np.float32))])
    g.node("Rsqrt", "root", ["sum"])
    factor = "root"
    if gamma:
        g.node("Mul", "factor", ["root", g.const("gamma", weight(4))])
        factor = "factor"
    g.node("Mul", "scaled", ["c", factor])
    g.node("Mul", "shift", [g.const("mean", weight(4)), factor])
    g.node("Sub", "rest", [g.const("beta", weight(4)), "shift"])
    g.node("AddV2", "n", ["scaled", "rest"])
    g.node("Relu", "y", ["n"])
    (tmp_path / "a.pb").write_bytes(g.content())
    model, one = te.load_model(tmp_path / "a.pb"), te.load_model(tmp_path / "a.pb")
    assert sum(node.op == ("BatchNormalization" if gamma else "ChannelNorm") for node in model._nodes) == 1
    for each in (model, one):
        each.freeze_batch_norm_statistics(False)
    images = weight(3, 5, 5, 2)

    def loss(model: Any, x: te.Tensor) -> te.Tensor:
        return model(x).square().mean()

    found = te.adapt.minibatch_norm(model, 3).backward(loss, [(te.tensor(images[k : k + 1]),) for k in range(3)])
    wanted = loss(one, te.tensor(images))
    wanted.backward()
    np.testing.assert_allclose(found.item(), wanted.item(), rtol=1e-5)
    for name, param in one.named_parameters():
        got = model.get_parameter(name).grad.numpy()
        np.testing.assert_allclose(got, param.grad.numpy(), rtol=1e-3, atol=1e-5, err_msg=name)
    for name in ("mean", "var"):
        got = model.get_buffer(name).numpy()
        np.testing.assert_allclose(got, one.get_buffer(name).numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_channels_first_graphs(tmp_path: Path, backend: Backend) -> None:
    g, w, b = Graph(), weight(3, 3, 4, 5), weight(5)
    g.placeholder("x", (2, 4, 6, 7))
    g.node("Conv2D", "c", ["x", g.const("w", w)], strides=(1, 1, 2, 1), padding="EXPLICIT", data_format="NCHW",
           explicit_paddings=(0, 0, 0, 0, 1, 2, 0, 1))  # fmt: skip
    g.node("BiasAdd", "b", ["c", g.const("bias", b)], data_format="NCHW")
    names = [g.const(name, np.abs(weight(5)) + 1) for name in ("scale", "offset", "mean", "var")]
    g.node("FusedBatchNormV3", "n", ["b", *names], is_training=False, epsilon=0.1, data_format="NCHW")
    g.node("MaxPool", "y", ["n"], ksize=(1, 1, 2, 2), strides=(1, 1, 2, 2), padding="SAME", data_format="NCHW")
    (tmp_path / "a.pb").write_bytes(g.content())
    model, x = te.load_model(tmp_path / "a.pb"), te.tensor(weight(2, 4, 6, 7))
    t = {name: model.state_dict()[name] for name in ("scale", "offset", "mean", "var")}
    y = F.conv2d(F.pad(x, (0, 1, 1, 2)), te.tensor(w).permute((3, 2, 0, 1)), te.tensor(b), stride=(2, 1))
    y = F.batch_norm(y, t["mean"], t["var"], t["scale"], t["offset"], eps=0.1)
    y = F.max_pool2d(F.pad(y, (0, y.shape[3] % 2, 0, y.shape[2] % 2), value=-1e30), 2)
    np.testing.assert_allclose(model(x).detach().numpy(), y.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert not any(node.op == "Transpose" for node in model._nodes)


def test_a_compiled_step_is_the_eager_one(tmp_path: Path, backend: Backend) -> None:
    """With a shape that is computed from the input's, and another batch later."""
    g = Graph()
    g.placeholder("x", (-1, 4, 4, 2))
    g.node("Conv2D", "c", ["x", g.const("w", weight(3, 3, 2, 3))], strides=(1, 1, 1, 1), padding="SAME")
    g.node("Shape", "shape", ["c"])
    parts = [g.const(name, np.array([n], np.int32)) for name, n in (("zero", 0), ("one", 1), ("step", 1))]
    g.node("StridedSlice", "batch", ["shape", *parts], shrink_axis_mask=1)
    g.node("Pack", "to", ["batch", g.const("rest", np.array(48, np.int32))], axis=0)
    g.node("Reshape", "flat", ["c", "to"])
    g.node("MatMul", "y", ["flat", g.const("head", weight(48, 5))])
    (tmp_path / "a.pb").write_bytes(g.content())
    model, other = te.load_model(tmp_path / "a.pb"), te.load_model(tmp_path / "a.pb")

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        loss = model(x).square().sum()
        loss.backward()
        return loss

    for batch in (1, 1, 3, 3):
        x = te.tensor(weight(batch, 4, 4, 2))
        found, wanted = step(x), other(x).square().sum()
        wanted.backward()
        np.testing.assert_allclose(found.item(), wanted.item(), rtol=1e-4)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-3, atol=1e-3)


def test_branches_with_a_constant_condition(tmp_path: Path, reference: Backend) -> None:
    """Dropout of old graphs: the branch that draws random numbers is not taken."""
    g = Graph()
    g.placeholder("x", (2, 3))
    g.node("PlaceholderWithDefault", "training", [g.const("no", np.array(False))])
    g.node("Switch", "switch", ["x", "training"])
    g.node("Identity", "taken", ["switch:1"])
    g.node("RandomGamma", "noise", ["shape", "^taken"])
    g.node("Neg", "end", ["dropped"])  # an output of the branch that is not taken
    g.const("shape", np.array([2, 3], np.int32))
    g.node("Mul", "dropped", ["switch:1", "noise"])
    g.node("Neg", "kept", ["switch"])
    g.node("Merge", "y", ["dropped", "kept"])
    (tmp_path / "a.pb").write_bytes(g.content())
    x = weight(2, 3)
    np.testing.assert_array_equal(te.load_model(tmp_path / "a.pb")(te.tensor(x)).numpy(), -x)
    with pytest.raises(UnsupportedOpError, match="RandomGamma"):
        te.convert.from_tensorflow(tmp_path / "a.pb", inputs=["x", "training"])


def branching(path: Path, a: Any, b: Any) -> None:
    """A product with one of two weights, and a number that is a constant in one branch."""
    g = Graph()
    g.placeholder("x", (2, 3))
    g.node("Sum", "total", ["x", g.const("axes", np.array([0, 1], np.int32))])
    g.node("Greater", "positive", ["total", g.const("zero", np.float32(0))])
    for name, array in (("x", None), ("a", a), ("b", b)):
        g.node("Switch", f"{name} switch", [name if array is None else g.const(name, array), "positive"])
    g.node("MatMul", "then", ["x switch:1", "a switch:1"])
    g.node("MatMul", "else", ["x switch", "b switch"])
    g.node("Neg", "inside", ["then"])  # nothing reads it, and not every call computes it
    g.node("Merge", "y", ["else", "then"])
    g.node("Sum", "else total", ["x switch", "axes"])
    g.node("Merge", "z", ["else total", g.const("two", np.float32(2))])
    g.node("Mul", "yz", ["y", "z"])
    path.write_bytes(g.content())


def test_branches_that_a_call_chooses(tmp_path: Path, backend: Backend) -> None:
    a, b = weight(3, 4), weight(3, 4)
    branching(tmp_path / "a.pb", a, b)
    model = te.load_model(tmp_path / "a.pb")
    assert [port.name for port in model.outputs] == ["yz"]
    for sign, name, w in ((1, "a", a), (-1, "b", b)):
        x = np.abs(weight(2, 3)) * np.float32(sign)
        y = model(te.tensor(x))
        factor = 2 if sign > 0 else x.sum()
        np.testing.assert_allclose(y.detach().numpy(), x @ w * factor, rtol=1e-4, atol=1e-5)
        y.sum().backward()
        grads = {key: param.grad for key, param in model.named_parameters()}
        assert [key for key, grad in grads.items() if grad is not None] == [name]
        model.zero_grad()
    with te.no_grad():
        model.get_parameter("b").mul_(2.0)
    model.save(tmp_path / "b.pb")
    y = te.load_model(tmp_path / "b.pb")(te.tensor(x))
    np.testing.assert_allclose(y.detach().numpy(), x @ b * 2 * x.sum(), rtol=1e-4, atol=1e-5)
    with pytest.raises(UnsupportedOpError, match="an output of a branch that is not taken, or not always"):
        te.convert.from_tensorflow(tmp_path / "a.pb", outputs=["then"])


def test_a_missing_device_is_not_the_files_fault(tmp_path: Path, reference: Backend) -> None:
    branching(tmp_path / "a.pb", weight(3, 4), weight(3, 4))
    with pytest.raises(BackendError):
        te.load_model(tmp_path / "a.pb", device="opencl:97")


def test_spectra(tmp_path: Path, backend: Backend) -> None:
    """Amplitudes, of samples that are added or cut off; other uses of complex numbers are refused by name."""
    g, x = Graph(), weight(2, 12)
    g.placeholder("x", (2, 12))
    g.node("RFFT", "f", ["x", g.const("length", np.array([16], np.int32))])
    g.node("ComplexAbs", "y", ["f"])
    g.node("Cast", "real", ["f"], SrcT=8, DstT=np.dtype("float32"))
    (tmp_path / "a.pb").write_bytes(g.content())
    given = te.tensor(x, requires_grad=True)
    real, y = te.convert.from_tensorflow(tmp_path / "a.pb", outputs=["real", "y"])(given)
    np.testing.assert_allclose(y.detach().numpy(), np.abs(np.fft.rfft(x, 16)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(real.detach().numpy(), np.fft.rfft(x, 16).real, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    assert np.isfinite(given.grad.numpy()).all()
    g.node("Conj", "z", ["f"])
    g.node("Mul", "product", ["f", "f"])
    (tmp_path / "a.pb").write_bytes(g.content())
    with pytest.raises(UnsupportedOpError, match=r"(?s)Conj.*Mul of complex numbers"):
        te.load_model(tmp_path / "a.pb")


def test_volumes(tmp_path: Path, backend: Backend) -> None:
    g, x, w, b = Graph(), weight(1, 4, 5, 6, 2), weight(2, 3, 3, 2, 4), weight(4)
    g.placeholder("x", x.shape)
    g.node("Conv3D", "c", ["x", g.const("w", w)], strides=(1, 1, 2, 1, 1), padding="SAME")
    g.node("BiasAdd", "y", ["c", g.const("b", b)])
    g.node("MaxPool3D", "p", ["y"], ksize=(1, 2, 2, 2, 1), strides=(1, 2, 2, 2, 1), padding="VALID")
    (tmp_path / "a.pb").write_bytes(g.content())
    model = te.load_model(tmp_path / "a.pb")
    first = te.tensor(x).permute((0, 4, 1, 2, 3))
    y = F.conv3d(
        F.pad(first, (1, 1, 1, 1, 0, 1)), te.tensor(w).permute((4, 3, 0, 1, 2)), te.tensor(b), stride=(1, 2, 1)
    )
    wanted = F.max_pool3d(y, 2, 2).permute((0, 2, 3, 4, 1))
    found = model(te.tensor(x))
    np.testing.assert_allclose(found.detach().numpy(), wanted.numpy(), rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert {name for name, param in model.named_parameters() if param.grad is not None} == {"w", "b"}
    with te.no_grad():
        for param in model.parameters():
            param.mul_(2.0)
    model.save(tmp_path / "b.pb")
    tuned = te.load_model(tmp_path / "b.pb")(te.tensor(x))
    np.testing.assert_allclose(tuned.detach().numpy(), 2 * wanted.numpy(), rtol=1e-4, atol=1e-4)


def training(path: Path, kind: str) -> None:
    """One branch for training, and one else, by a boolean placeholder; and a factor that is another placeholder."""
    g = Graph()
    g.placeholder("x", (2, 3))
    g.placeholder("phase_train", ())
    g.proto.node[-1].attr["dtype"].type = 10
    g.placeholder("keep", ())
    g.node("Identity", "cond/pred_id", ["phase_train"])
    if kind == "not":
        g.node("LogicalNot", "cond/not", ["cond/pred_id"])
        g.node("LogicalNot", "cond/again", ["cond/not"])
    g.node("Switch", "switch", ["x", "cond/pred_id" if kind == "plain" else "cond/again"])
    g.node("Mul", "scaled", ["switch:1", "keep"])
    g.node("Neg", "kept", ["switch"])
    g.node("Merge", "y", ["kept", "scaled"])
    path.write_bytes(g.content())


@pytest.mark.parametrize("kind", ["plain", "not"])
def test_a_placeholder_that_chooses_branches(tmp_path: Path, reference: Backend, kind: str) -> None:
    training(tmp_path / "a.pb", kind)
    x = weight(2, 3)
    with pytest.warns(UserWarning, match="'phase_train' chooses branches and is taken as False"):
        model = te.load_model(tmp_path / "a.pb")
    assert [port.name for port in model.inputs] == ["x"]
    np.testing.assert_array_equal(model(te.tensor(x)).numpy(), -x)
    model = te.convert.from_tensorflow(tmp_path / "a.pb", fixed={"phase_train": True, "keep": 0.5})
    np.testing.assert_array_equal(model(te.tensor(x)).numpy(), x / 2)
    model = te.convert.from_tensorflow(tmp_path / "a.pb", inputs=["x"], fixed={"phase_train": False})
    np.testing.assert_array_equal(model(te.tensor(x)).numpy(), -x)
    for wrong in ({"phase": True}, {"y": 1.0}, {"keep": "a"}):
        with pytest.raises(ArgumentError, match="fixed="):
            te.convert.from_tensorflow(tmp_path / "a.pb", fixed=wrong)


@pytest.mark.parametrize("kind", ["Args", "Vars", "VarsPerChannel"])
def test_fake_quantisation(tmp_path: Path, backend: Backend, kind: str) -> None:
    low, high = np.array([-1.0, 0.0, -2.0], np.float32), np.array([1.5, 6.0, 2.0], np.float32)
    if kind != "VarsPerChannel":
        low, high = low[0], high[0]
    g, x = Graph(), weight(2, 4, 5, 3) * 3
    g.placeholder("x", (2, 4, 5, 3))
    g.node("Conv2D", "c", ["x", g.const("w", np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3))], padding="SAME",
           strides=(1, 1, 1, 1))  # fmt: skip
    if kind == "Args":
        g.node("FakeQuantWithMinMaxArgs", "y", ["c"], min=float(low), max=float(high), num_bits=6)
    else:
        names = ["c", g.const("low", low), g.const("high", high)]
        g.node(f"FakeQuantWithMinMax{kind}", "y", names, num_bits=6, narrow_range=True)
    (tmp_path / "a.pb").write_bytes(g.content())
    given = te.tensor(x).requires_grad_()
    y = te.load_model(tmp_path / "a.pb")(given)
    least = int(kind != "Args")
    scale = (high - low) / (63 - least)
    shift = np.round(least - low / scale)
    first, last = (least - shift) * scale, (63 - shift) * scale
    wanted = np.round((np.clip(x, first, last) - first) / scale) * scale + first
    np.testing.assert_allclose(y.detach().numpy(), wanted, atol=1e-4)
    y.sum().backward()
    np.testing.assert_array_equal(given.grad.numpy(), (x >= first) & (x <= last))


def test_the_best_boxes(tmp_path: Path, backend: Backend) -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6], [0, 1, 2, 3]], np.float32)
    scores = np.array([0.5, 0.9, 0.1, 0.6], np.float32)
    g = Graph()
    g.placeholder("boxes", (4, 4))
    g.placeholder("scores", (4,))
    names = ["boxes", "scores", g.const("most", np.array(3, np.int32)), g.const("overlap", np.float32(0.5))]
    g.node("NonMaxSuppressionV2", "two", names)
    g.node("NonMaxSuppressionV3", "three", [*names, g.const("least", np.float32(0.2))])
    g.node("NonMaxSuppressionV4", "four", [*names, "least"], pad_to_max_output_size=True)
    g.node("Identity", "padded", ["four"])
    g.node("Identity", "count", ["four:1"])
    g.node("GatherV2", "chosen", ["boxes", "three", g.const("axis", np.array(0, np.int32))])
    (tmp_path / "a.pb").write_bytes(g.content())
    model = te.convert.from_tensorflow(tmp_path / "a.pb", outputs=["two", "three", "padded", "count", "chosen"])
    two, three, padded, count, chosen = model(te.tensor(boxes), te.tensor(scores))
    assert (two.tolist(), three.tolist(), padded.tolist(), count.item()) == ([1, 3, 2], [1, 3], [1, 3, 0], 2)
    np.testing.assert_array_equal(chosen.numpy(), boxes[[1, 3]])


def test_groups_behind_a_sum(tmp_path: Path, backend: Backend) -> None:
    """A convolution in groups of what is added to values of open lengths, as in ConvNeXt."""
    g, x, w = Graph(), weight(2, 5, 5, 4), weight(3, 3, 1, 4)
    g.placeholder("x", (-1, 5, 5, 4))
    g.node("Shape", "sizes", ["x"], out_type=np.dtype("int32"))
    g.node("Relu", "flat", ["x"])
    g.node("Reshape", "open", ["flat", "sizes"])
    g.node("AddV2", "sum", ["open", "x"])
    g.node("Conv2D", "y", ["sum", g.const("w", w)], strides=(1, 1, 1, 1), padding="VALID")
    (tmp_path / "a.pb").write_bytes(g.content())
    y = te.load_model(tmp_path / "a.pb")(te.tensor(x))
    images = te.tensor((x + np.maximum(x, 0)).transpose(0, 3, 1, 2).copy())
    wanted = F.conv2d(images, te.tensor(w.transpose(3, 2, 0, 1).copy()), groups=4).permute(0, 2, 3, 1)
    np.testing.assert_allclose(y.detach().numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_parts_of_a_graph(tmp_path: Path, reference: Backend) -> None:
    w = network(tmp_path / "a.pb")
    part = te.convert.from_tensorflow(tmp_path / "a.pb", inputs=["pool"], outputs=["head", "product"])
    x = weight(2, 4)
    head, product = part(te.tensor(x))
    np.testing.assert_allclose(product.detach().numpy(), x @ w["head/w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head.detach().numpy(), x @ w["head/w"] + w["head/b"], rtol=1e-5, atol=1e-6)
    assert {name for name, _ in part.named_parameters()} == {"head/w", "head/b"}
    with pytest.raises(ArgumentError, match="names of nodes"):
        te.convert.from_tensorflow(tmp_path / "a.pb", outputs=["haed"])
    with pytest.raises(ArgumentError, match="a list of names"):
        te.convert.from_tensorflow(tmp_path / "a.pb", outputs="head")


def test_all_that_is_lacking_is_listed(tmp_path: Path, reference: Backend) -> None:
    g = Graph()
    g.placeholder("x", None)
    g.node("DecodeJpeg", "a", ["x"])
    g.node("Mfcc", "b", ["a:1"])
    g.node("Unused", "c", ["b"])
    g.node("Relu", "y", ["b"])
    (tmp_path / "a.pb").write_bytes(g.content())
    with pytest.raises(UnsupportedOpError, match=r"DecodeJpeg \(node 'a'\)\n  Mfcc \(node 'b'\)"):
        te.convert.from_tensorflow(tmp_path / "a.pb", outputs=["y"])
    y = te.convert.from_tensorflow(tmp_path / "a.pb", inputs=["b"], outputs=["y"])(te.tensor([-1.0, 2.0]))
    assert y.tolist() == [0.0, 2.0]


def test_damaged_graphs_are_refused(tmp_path: Path, reference: Backend) -> None:
    def refused(g: Graph, text: str) -> None:
        (tmp_path / "a.pb").write_bytes(g.content())
        with pytest.raises(ModelFormatError, match=text):
            te.load_model(tmp_path / "a.pb")

    g = Graph()
    g.node("Relu", "y", ["x"])
    refused(g, "'x' is no node")
    g = Graph()
    g.node("Relu", "a", ["b"])
    g.node("Relu", "b", ["a"])
    g.node("Relu", "y", ["a"])
    refused(g, "reads what it computes")
    g = Graph()
    g.placeholder("x", (2, 3))
    g.placeholder("x", (2, 3))
    refused(g, "two nodes")
    g = Graph()
    g.placeholder("x", (2, 3))
    g.node("Add", "y", ["x", g.const("w", np.zeros(3, np.float32))])
    g.proto.node[1].attr["value"].tensor.tensor_content = b"123"
    refused(g, "3 bytes")
    g.proto.node[1].attr["value"].tensor.tensor_content = b""
    g.proto.node[1].attr["value"].tensor.tensor_shape.dim[0].size = 2**28
    refused(g, "too often")
    (tmp_path / "a.pb").write_bytes(b"\xff\xff")
    with pytest.raises(ModelFormatError, match="protobuf"):
        te.load_model(tmp_path / "a.pb")


def test_mutated_files(tmp_path: Path, reference: Backend) -> None:
    """Each loads, or is refused by name: no other error, and no hang."""
    network(tmp_path / "a.pb")
    content = (tmp_path / "a.pb").read_bytes()
    check_mutations(content, tmp_path / "b.pb", 300, 0)
    for change in (with_other_words, messages_mutator(graph_pb2.GraphDef.FromString)):
        check_mutations(content, tmp_path / "b.pb", 200, 1, change=change)


@pytest.mark.slow
def test_many_mutated_files(tmp_path: Path, reference: Backend) -> None:
    network(tmp_path / "a.pb")
    for seed in range(1, 11):
        check_mutations((tmp_path / "a.pb").read_bytes(), tmp_path / "b.pb", 1000, seed)
        for change in (with_other_words, messages_mutator(graph_pb2.GraphDef.FromString)):
            check_mutations((tmp_path / "a.pb").read_bytes(), tmp_path / "b.pb", 500, seed, change=change)


def recurrent(path: Path, w: Any, r: Any, lists: bool) -> None:
    """A recurrent layer over the rows of x as a while loop: tensor arrays as of old, or lists."""
    g = Graph()
    g.placeholder("x", (-1, 2, 3))
    zero = g.const("zero", np.array(0, np.int32))
    one = g.const("one", np.array(1, np.int32))
    g.node("Shape", "shape", ["x"])
    ends = [g.const("begin", np.array([0], np.int32)), g.const("end", np.array([1], np.int32))]
    g.node("StridedSlice", "rows", ["shape", *ends, g.const("stride", np.array([1], np.int32))], shrink_axis_mask=1)
    g.const("start", np.zeros((2, 4), np.float32))
    g.const("w", w)
    g.const("r", r)
    if lists:
        g.node("TensorListFromTensor", "read", ["x", g.const("element", np.array([2, 3], np.int32))])
        g.node("TensorListReserve", "write", ["element", "rows"])
        flows = ["read", "write"]
    else:
        g.node("Range", "range", [zero, "rows", one])
        g.node("TensorArrayV3", "source", ["rows"])
        g.node("TensorArrayV3", "sink", ["rows"])
        g.node("TensorArrayScatterV3", "read", ["source", "range", "x", "source:1"])
        flows = ["read", "sink:1"]

    def enter(name: str, given: str, constant: bool) -> str:
        return g.node("Enter", f"while/{name}", [given], frame_name="while", is_constant=constant)

    for name, given in (("e_t", zero), ("e_h", "start"), ("e_out", flows[1])):
        enter(name, given, False)
    for name, given in (("e_rows", "rows"), ("e_w", "w"), ("e_r", "r"), ("e_in", flows[0])):
        enter(name, given, True)
    if not lists:
        for name, given in (("e_source", "source"), ("e_sink", "sink")):
            enter(name, given, True)
    for name in ("t", "h", "out"):
        g.node("Merge", f"while/m_{name}", [f"while/e_{name}", f"while/n_{name}"])
        g.node("Switch", f"while/s_{name}", [f"while/m_{name}", "while/cond"])
        g.node("Identity", f"while/{name}", [f"while/s_{name}:1"])
        g.node("Exit", f"while/x_{name}", [f"while/s_{name}"])
    g.node("Less", "while/less", ["while/m_t", "while/e_rows"])
    g.node("LoopCond", "while/cond", ["while/less"])
    if lists:
        g.node("TensorListGetItem", "while/row", ["while/e_in", "while/t", "element"])
    else:
        g.node("TensorArrayReadV3", "while/row", ["while/e_source", "while/t", "while/e_in"])
    g.node("MatMul", "while/a", ["while/row", "while/e_w"])
    g.node("MatMul", "while/b", ["while/h", "while/e_r"])
    g.node("AddV2", "while/c", ["while/a", "while/b"])
    g.node("Tanh", "while/h_next", ["while/c"])
    if lists:
        g.node("TensorListSetItem", "while/out_next", ["while/out", "while/t", "while/c"])
    else:
        g.node("TensorArrayWriteV3", "while/out_next", ["while/e_sink", "while/t", "while/c", "while/out"])
    g.node("AddV2", "while/t_next", ["while/t", g.const("while/one", np.array(1, np.int32))])
    for name in ("t", "h", "out"):
        g.node("NextIteration", f"while/n_{name}", [f"while/{name}_next"])
    if lists:
        g.node("TensorListStack", "sums", ["while/x_out", "element"])
    else:
        g.node("TensorArraySizeV3", "size", ["sink", "while/x_out"])
        g.node("Range", "all", [zero, "size", one])
        g.node("TensorArrayGatherV3", "sums", ["sink", "all", "while/x_out"])
    g.node("Neg", "last", ["while/x_h"])
    path.write_bytes(g.content())


@pytest.mark.parametrize("lists", [False, True])
def test_while_loops(tmp_path: Path, backend: Backend, lists: bool) -> None:
    w, r, x = weight(3, 4), weight(4, 4) / 2, weight(5, 2, 3)
    recurrent(tmp_path / "a.pb", w, r, lists)
    model = te.convert.from_tensorflow(tmp_path / "a.pb", outputs=["last", "sums", "while/x_t"])
    assert [port.name for port in model.inputs] == ["x"]
    for call in (model, te.compile(model)):
        for given in (x, x[:2]):
            h, sums = np.zeros((2, 4), np.float32), []
            for row in given:
                sums.append(row @ w + h @ r)
                h = np.tanh(sums[-1])
            last, found, steps = call(te.tensor(given))
            np.testing.assert_allclose(last.detach().numpy(), -h, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found.detach().numpy(), np.stack(sums), rtol=1e-4, atol=1e-5)
            assert steps.item() == len(given)
    model(te.tensor(x))[0].square().sum().backward()
    names = dict(model.named_parameters())
    assert sorted(names) == ["r", "w"]
    assert all(param.grad is not None for param in names.values())
    with te.no_grad():
        names["r"].mul_(0.5)
    model.save(tmp_path / "b.pb")
    content = (tmp_path / "a.pb").read_bytes()
    assert (tmp_path / "b.pb").read_bytes() == content.replace(r.tobytes(), (r * np.float32(0.5)).tobytes())
    check_mutations(content, tmp_path / "c.pb", 300, 0)
    whole = te.load_model(tmp_path / "a.pb")  # its counter is no output
    assert len(whole.outputs) == 2


def test_numbers_that_no_slice_can_have(tmp_path: Path, reference: Backend) -> None:
    g = Graph()
    g.placeholder("x", (2, 3))
    ends = [g.const(name, np.array([n], np.int32)) for n, name in enumerate(("a", "b", "c"))]
    g.node("StridedSlice", "s", [g.const("v", np.array([5, 6], np.int32)), ends[0], ends[1], "a"], shrink_axis_mask=1)
    g.node("Reshape", "y", ["x", "s"])
    (tmp_path / "a.pb").write_bytes(g.content())
    with pytest.raises(ModelFormatError, match="StridedSlice 's'"):
        te.load_model(tmp_path / "a.pb")


def test_rows_that_are_reversed_and_scattered(tmp_path: Path, reference: Backend) -> None:
    g, x = Graph(), weight(2, 4)
    g.placeholder("x", (2, 4))
    lengths = g.const("n", np.array([3, 1], np.int32))
    g.node("ReverseSequence", "y", ["x", lengths], seq_dim=1, batch_dim=0)
    names = [g.const("at", np.array([[1], [1]], np.int32)), "x", g.const("shape", np.array([3, 4], np.int32))]
    g.node("ScatterNd", "z", names)
    g.proto.node[-1].attr["T"].type = 1
    g.node("Atan2", "a", ["x", "y"])
    (tmp_path / "a.pb").write_bytes(g.content())
    y, z, a = (
        found.numpy() for found in te.convert.from_tensorflow(tmp_path / "a.pb", outputs=["y", "z", "a"])(te.tensor(x))
    )
    np.testing.assert_array_equal(y, np.stack([x[0][[2, 1, 0, 3]], x[1]]))
    np.testing.assert_allclose(z, np.stack([x[0] * 0, x.sum(0), x[0] * 0]), rtol=1e-6)
    np.testing.assert_allclose(a, np.arctan2(x, y), rtol=1e-5)


def test_weights_that_are_reshaped(tmp_path: Path, backend: Backend) -> None:
    """A bias, and a norm along a named axis, as newer exporters write them: nothing is turned round inside."""
    g, x, w = Graph(), weight(2, 5, 6, 3), {name: weight(4) for name in ("bias", "gamma", "beta", "mean")}
    w |= {"var": np.abs(weight(4)) + np.float32(0.5), "w": weight(1, 1, 3, 4)}
    g.placeholder("x", x.shape)
    g.const("wide", np.array([1, 1, 1, 4], np.int32))
    for name, array in w.items():
        g.const(name, array)
        g.node("Reshape", f"{name} wide", [name, "wide"]) if name != "w" else None
    g.node("Squeeze", "narrow", ["bias wide"])
    g.node("BiasAdd", "c", [g.node("Conv2D", "conv", ["x", "w"], strides=(1, 1, 1, 1), padding="SAME"), "narrow"])
    g.node("AddV2", "total", ["var wide", g.const("epsilon", np.float32(1e-3))])
    g.node("Mul", "factor", [g.node("Rsqrt", "root", ["total"]), "gamma wide"])
    g.node("Sub", "shift", ["beta wide", g.node("Mul", "part", ["mean wide", "factor"])])
    g.node("AddV2", "norm", [g.node("Mul", "scaled", ["c", "factor"]), "shift"])
    g.node("Relu", "y", ["norm"])
    (tmp_path / "a.pb").write_bytes(g.content())
    model = te.load_model(tmp_path / "a.pb")
    y = model(te.tensor(x))
    c = x @ w["w"][0, 0] + w["bias"]
    wanted = (c - w["mean"]) / np.sqrt(w["var"] + 1e-3) * w["gamma"] + w["beta"]
    np.testing.assert_allclose(y.detach().numpy(), np.maximum(wanted, 0), rtol=1e-4, atol=1e-4)
    assert {name for name, _ in model.named_parameters()} == {"w", "bias", "gamma", "beta"}
    assert {name for name, _ in model.named_buffers()} >= {"mean", "var"}
    ops = [node.op for node in model.nodes]
    assert ops.count("BatchNormalization") == 1
    assert ops.count("Transpose") == 2  # at the ends
    assert "Add" not in ops
    y.square().sum().backward()
    assert all(param.grad is not None and param.grad.numpy().any() for param in model.parameters())
    model.train().freeze_batch_norm_statistics(False)
    model(te.tensor(x))
    assert not np.array_equal(model.get_buffer("mean").numpy(), w["mean"])
    model.save(tmp_path / "b.pb")
    tuned = te.load_model(tmp_path / "b.pb")
    np.testing.assert_array_equal(tuned.get_buffer("mean").numpy(), model.get_buffer("mean").numpy())
