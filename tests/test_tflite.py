"""TFLite files as models: outputs in the file's layout, weights in tinyedge's, writing back, files from strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.mutations import check_mutations, with_other_words
from tests.tflite_files import Draft
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, ModelFormatError, NumberRangeError, UnsupportedOpError
from tinyedge.nn import functional as F

pytest.importorskip("tflite")
RNG = np.random.default_rng(0)


def weight(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(dtype)


def network(path: Path, half: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Two convolutions, a sum, a mean over images and a head; the file's weights by name."""
    dtype = np.float16 if half else np.float32
    weights = {
        "conv/w": weight(4, 3, 3, 2, dtype=dtype), "conv/b": weight(4, dtype=dtype),
        "deep/w": weight(1, 3, 3, 4, dtype=dtype), "deep/b": weight(4, dtype=dtype),
        "head/w": weight(5, 4, dtype=dtype), "head/b": weight(5, dtype=dtype), "shift": weight(4, dtype=dtype),
    }  # fmt: skip
    d = Draft()
    d.value("x", (1, 7, 7, 2))
    for name, array in weights.items():
        d.constant(f"{name}16" if half else name, array)
        if half:
            d.value(name, array.shape)
            d.op("DEQUANTIZE", [f"{name}16"], [name])
    d.value("a", (1, 4, 4, 4))
    one = {"DilationHFactor": 1, "DilationWFactor": 1}
    d.op("CONV_2D", ["x", "conv/w", "conv/b"], ["a"], "Conv2DOptions", Padding=0, StrideH=2, StrideW=2,
         FusedActivationFunction=3, **one)  # fmt: skip
    d.value("c", (1, 4, 4, 4))
    d.op("DEPTHWISE_CONV_2D", ["a", "deep/w", "deep/b"], ["c"], "DepthwiseConv2DOptions", Padding=0, StrideH=1,
         StrideW=1, DepthMultiplier=1, **one)  # fmt: skip
    d.value("s", (1, 4, 4, 4))
    d.op("ADD", ["c", "a"], ["s"], "AddOptions", FusedActivationFunction=1)
    d.value("t", (1, 4, 4, 4))
    d.op("ADD", ["s", "shift"], ["t"], "AddOptions")
    d.value("m", (1, 4))
    d.constant("axes", np.array([1, 2], np.int32))
    d.op("MEAN", ["t", "axes"], ["m"], "ReducerOptions", KeepDims=0)
    d.value("y", (1, 5))
    d.op("FULLY_CONNECTED", ["m", "head/w", "head/b"], ["y"], "FullyConnectedOptions")
    path.write_bytes(d.content(["x"], ["y", "t"]))
    return weights


def by_hand(x: te.Tensor, w: dict[str, Any]) -> tuple[te.Tensor, te.Tensor]:
    """The same with channels first."""
    w = {name: te.tensor(array.astype(np.float32)) for name, array in w.items()}
    x = F.pad(x.permute((0, 3, 1, 2)), (1, 1, 1, 1))
    a = F.relu6(F.conv2d(x, w["conv/w"].permute((0, 3, 1, 2)), w["conv/b"], stride=2))
    c = F.conv2d(a, w["deep/w"].permute((3, 0, 1, 2)), w["deep/b"], padding=1, groups=4)
    t = F.relu(c + a) + w["shift"].reshape((4, 1, 1))
    return F.linear(t.mean((2, 3)), w["head/w"], w["head/b"]), t.permute((0, 2, 3, 1))


@pytest.mark.parametrize("half", [False, True])
def test_a_network_computes_as_by_hand(tmp_path: Path, backend: Backend, half: bool) -> None:
    weights = network(tmp_path / "a.tflite", half)
    model = te.load_model(tmp_path / "a.tflite")
    x = te.tensor(weight(1, 7, 7, 2))
    for found, wanted in zip(model(x), by_hand(x, weights)):
        np.testing.assert_allclose(found.detach().numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert {name for name, _ in model.named_parameters()} == set(weights)
    assert model.get_parameter("conv/w").shape == (4, 2, 3, 3)
    assert sum(node.op == "Transpose" for node in model._nodes) == 2  # the input and the second output
    model(x)[0].sum().backward()
    assert all(param.grad is not None for param in model.parameters())


def test_layers_have_the_files_names(tmp_path: Path, reference: Backend) -> None:
    network(tmp_path / "a.tflite")
    model = te.load_model(tmp_path / "a.tflite")
    x = te.tensor(weight(1, 7, 7, 2))
    features = model.cut(at="a")(x).detach()  # after the activation
    assert features.shape == (1, 4, 4, 4)
    assert 0 <= features.numpy().min() <= features.numpy().max() <= 6
    np.testing.assert_array_equal(model.cut(at="y")(x).detach().numpy(), model(x)[0].detach().numpy())
    model.freeze(except_=["a", "y"])
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    assert trained == {"conv/w", "conv/b", "head/w", "head/b"}


@pytest.mark.parametrize("half", [False, True])
def test_written_back(tmp_path: Path, reference: Backend, half: bool) -> None:
    path = tmp_path / "a.tflite"
    weights = network(path, half)
    model = te.load_model(path)
    model.save(tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == path.read_bytes()
    with te.no_grad():
        model.get_parameter("conv/w").mul_(0.5)
    model.save(tmp_path / "tuned.tflite")
    before, after = path.read_bytes(), (tmp_path / "tuned.tflite").read_bytes()
    assert len(before) == len(after)
    array = weights["conv/w"]
    assert after == before.replace(array.tobytes(), (array * array.dtype.type(0.5)).tobytes())
    with pytest.raises(ArgumentError, match="another name"):
        model.save(path, overwrite=True)
    if half:
        with te.no_grad():
            model.get_parameter("head/b").fill_(1e6)
        with pytest.raises(NumberRangeError, match="float16 in the file"):
            model.save(tmp_path / "b.tflite")
        assert not (tmp_path / "b.tflite").exists()


def test_all_that_is_lacking_is_listed(tmp_path: Path, reference: Backend) -> None:
    d = Draft()
    d.value("x", (1, 4))
    d.op("HASHTABLE", ["x"], [d.value("a", (1, 4))])
    d.op("SKIP_GRAM", ["a"], [d.value("y", (1, 4))])
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    with pytest.raises(UnsupportedOpError, match=r"HASHTABLE \(makes 'a'\)\n  SKIP_GRAM \(makes 'y'\)"):
        te.load_model(tmp_path / "a.tflite")


def sparse_weight(path: Path) -> np.ndarray[Any, Any]:
    """A product with a weight of 4 x 8 whose blocks of 1 x 4 are sparse, in float16; the dense weight."""
    dense = weight(4, 8, dtype=np.float16)
    kept = [(0, 1), (2, 0), (2, 1), (3, 0)]  # blocks
    mask = np.zeros((4, 2, 4), bool)
    for row, block in kept:
        mask[row, block] = True
    dense[~mask.reshape(4, 8)] = 0
    values = np.concatenate([dense[row, 4 * block : 4 * block + 4] for row, block in kept])
    d = Draft()
    d.value("x", (2, 8))
    d.constant("w16", dense)
    d.sparse["w16"] = [0, 1, 2], [1], [4, ([0, 1, 1, 3, 4], [1, 0, 1, 0]), 4], values
    d.op("DENSIFY", ["w16"], [d.value("wd", (4, 8), "float16")])
    d.op("DEQUANTIZE", ["wd"], [d.value("w", (4, 8))])
    d.op("FULLY_CONNECTED", ["x", "w"], [d.value("y", (2, 4))], "FullyConnectedOptions")
    path.write_bytes(d.content(["x"], ["y"]))
    return dense


def test_sparse_weights(tmp_path: Path, backend: Backend) -> None:
    path = tmp_path / "a.tflite"
    dense, x = sparse_weight(path), weight(2, 8)
    model = te.load_model(path)
    y = model(te.tensor(x)).detach().numpy()
    np.testing.assert_allclose(y, x @ dense.astype(np.float32).T, rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == path.read_bytes()
    with te.no_grad():
        model.get_parameter("w").mul_(2.0)
    model.save(tmp_path / "tuned.tflite")
    doubled = te.load_model(tmp_path / "tuned.tflite").get_parameter("w").detach().numpy()
    np.testing.assert_array_equal(doubled, dense.astype(np.float32) * 2)
    before = model.get_parameter("w").detach().numpy()
    optimizer = te.optim.Adam(model.parameters(), lr=0.1)
    model(te.tensor(x)).sum().backward()  # what the file leaves out stays 0
    optimizer.step()
    model.save(tmp_path / "trained.tflite")
    after = te.load_model(tmp_path / "trained.tflite").get_parameter("w").detach().numpy()
    np.testing.assert_allclose(after - before, np.where(dense == 0, 0, np.sign(-x.sum(0)) * 0.1), atol=2e-3)
    with te.no_grad():
        model.get_parameter("w").add_(1.0)
    with pytest.raises(ArgumentError, match="zeros where the sparse weight 'w'"):
        model.save(tmp_path / "b.tflite")
    check_mutations(path.read_bytes(), tmp_path / "c.tflite", 200, 0)


def test_mediapipes_transposed_convolution(tmp_path: Path, backend: Backend) -> None:
    """It says where its images' ends are cut off as TFLite's own does."""
    w, b, x = weight(3, 2, 2, 4), weight(3), weight(1, 5, 6, 4)
    d = Draft()
    d.value("x", (1, 5, 6, 4))
    d.op("Convolution2DTransposeBias", ["x", d.constant("w", w), d.constant("b", b)], [d.value("y", (1, 10, 12, 3))],
         custom=np.array([1, 2, 2], "<i4").tobytes())  # fmt: skip
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    y = te.load_model(tmp_path / "a.tflite")(te.tensor(x)).detach().numpy()
    turned = te.tensor(w).permute((3, 0, 1, 2)), te.tensor(b)
    wanted = F.conv_transpose2d(te.tensor(x).permute((0, 3, 1, 2)), *turned, stride=2).permute((0, 2, 3, 1))
    np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_a_weight_that_is_read_in_two_orders(tmp_path: Path, backend: Backend) -> None:
    """A convolution turns its weight; a sum reads it as it lies in the file."""
    w, x = weight(3, 1, 1, 3), weight(1, 4, 4, 3)
    for first in (True, False):
        d = Draft()
        d.value("x", (1, 4, 4, 3))
        d.constant("w", w)
        d.constant("b", np.zeros(3, np.float32))
        d.value("c", (1, 4, 4, 3))
        d.value("s", (3, 1, 1, 3))

        def conv(d: Draft = d) -> None:
            d.op("CONV_2D", ["x", "w", "b"], ["c"], "Conv2DOptions", Padding=0, StrideH=1, StrideW=1,
                 DilationHFactor=1, DilationWFactor=1)  # fmt: skip

        if first:
            conv()
        d.op("ADD", ["w", "w"], ["s"], "AddOptions")
        if not first:
            conv()
        (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["c", "s"]))
        model = te.load_model(tmp_path / "a.tflite")
        c, s = model(te.tensor(x))
        np.testing.assert_allclose(c.detach().numpy(), x @ w[:, 0, 0].T, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(s.detach().numpy(), w + w)
        (c.sum() + s.sum()).backward()
        assert model.get_parameter("w").grad is not None
        model.save(tmp_path / "b.tflite", overwrite=True)
        assert (tmp_path / "b.tflite").read_bytes() == (tmp_path / "a.tflite").read_bytes()


def test_mutated_files(tmp_path: Path, reference: Backend) -> None:
    """Each loads, or is refused by name: no other error, and no hang."""
    network(tmp_path / "a.tflite", True)
    check_mutations((tmp_path / "a.tflite").read_bytes(), tmp_path / "b.tflite", 300, 0)
    check_mutations((tmp_path / "a.tflite").read_bytes(), tmp_path / "b.tflite", 300, 1, change=with_other_words)


@pytest.mark.slow
def test_many_mutated_files(tmp_path: Path, reference: Backend) -> None:
    network(tmp_path / "a.tflite", True)
    content = (tmp_path / "a.tflite").read_bytes()
    for seed in range(1, 11):
        check_mutations(content, tmp_path / "b.tflite", 1000, seed)
        check_mutations(content, tmp_path / "b.tflite", 1000, seed, change=with_other_words)


def quantised(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A product of int8; the weight as stored, and what it means."""
    stored = RNG.integers(-127, 128, (3, 4)).astype(np.int8)
    scales = [0.5, 0.25, 0.125]
    d = Draft()
    d.value("x", (2, 4), "int8")
    d.constant("w", stored)
    d.constant("b", np.array([10, -20, 30], np.int32))
    d.value("y", (2, 3), "int8")
    d.scales = {"x": ([0.1], [3], 0), "w": (scales, [0, 0, 0], 0), "b": ([0.05, 0.025, 0.0125], [0, 0, 0], 0)}
    d.scales["y"] = [1.0], [0], 0
    d.op("FULLY_CONNECTED", ["x", "w", "b"], ["y"], "FullyConnectedOptions")
    path.write_bytes(d.content(["x"], ["y"]))
    return stored, stored * np.array(scales, np.float32).reshape(3, 1)


def test_quantised_models(tmp_path: Path, backend: Backend) -> None:
    path = tmp_path / "a.tflite"
    stored, means = quantised(path)
    with pytest.raises(UnsupportedOpError, match="dequantize=True"):
        te.load_model(path)
    model = te.load_model(path, dequantize=True)
    x = weight(2, 4)
    wanted = x @ means.T + np.array([0.5, -0.5, 0.375], np.float32)
    np.testing.assert_allclose(model(te.tensor(x)).detach().numpy(), wanted, rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == path.read_bytes()
    with te.no_grad():
        model.get_parameter("w").mul_(2.0)
    model.save(tmp_path / "tuned.tflite")
    doubled = np.clip(stored.astype(np.int32) * 2, -128, 127).astype(np.int8)
    assert (tmp_path / "tuned.tflite").read_bytes() == path.read_bytes().replace(stored.tobytes(), doubled.tobytes())


def test_scales_that_no_float_can_hold(tmp_path: Path, reference: Backend) -> None:
    d = Draft()
    d.value("x", (2, 4))
    d.constant("w", np.full((3, 4), 100, np.int8))
    d.scales["w"] = [3e38], [0], 0
    d.op("FULLY_CONNECTED", ["x", "w"], [d.value("y", (2, 3))], "FullyConnectedOptions")
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    with pytest.raises(ModelFormatError, match="w: its scale"):
        te.load_model(tmp_path / "a.tflite", dequantize=True)


def test_weights_that_share_their_place_stay_one(tmp_path: Path, reference: Backend) -> None:
    d = Draft()
    d.value("x", (1, 3))
    d.constant("w16", weight(3, dtype=np.float16))
    for name in ("first", "second"):
        d.op("DEQUANTIZE", ["w16"], [d.value(name, (3,))])
    d.op("MUL", ["x", "first"], [d.value("a", (1, 3))], "MulOptions")
    d.op("ADD", ["a", "second"], [d.value("y", (1, 3))], "AddOptions")
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    model = te.load_model(tmp_path / "a.tflite")
    assert model.get_parameter("first") is model.get_parameter("second")
    assert len(list(model.parameters())) == 1
    with te.no_grad():
        model.get_parameter("second").fill_(2.0)
    model.save(tmp_path / "b.tflite")
    assert te.load_model(tmp_path / "b.tflite").get_parameter("first").tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("last", ["LOGISTIC", "SOFTMAX"])
def test_logits_lie_as_the_outputs_do(tmp_path: Path, backend: Backend, last: str) -> None:
    """What comes after a softmax or a sigmoid, and moves its results, stays."""
    d, w = Draft(), weight(3, 1, 1, 2)
    d.op("CONV_2D", [d.value("x", (1, 4, 5, 2)), d.constant("w", w)], [d.value("c", (1, 4, 5, 3))], "Conv2DOptions",
         StrideH=1, StrideW=1, DilationHFactor=1, DilationWFactor=1)  # fmt: skip
    d.op(last, ["c"], [d.value("p", (1, 4, 5, 3))], *(["SoftmaxOptions"] if last == "SOFTMAX" else []),
         **({"Beta": 1.0} if last == "SOFTMAX" else {}))  # fmt: skip
    output = "p"
    if last == "SOFTMAX":
        d.op("RESHAPE", ["p", d.constant("to", np.array([20, 3], np.int32))], [d.value("y", (20, 3))], "ReshapeOptions")
        output = "y"
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], [output]))
    model = te.load_model(tmp_path / "a.tflite")
    x = te.tensor(weight(1, 4, 5, 2))
    y = model.logits()(x)
    wanted = x.numpy() @ w.reshape(3, 2).T
    np.testing.assert_allclose(y.detach().numpy(), wanted.reshape(y.shape), rtol=1e-4, atol=1e-5)
    assert y.shape == model(x).shape
    found = y.softmax(-1) if last == "SOFTMAX" else y.sigmoid()
    np.testing.assert_allclose(found.detach().numpy(), model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    y.sum().backward()
    assert model.get_parameter("w").grad is not None


def test_gates_of_several_images(tmp_path: Path, backend: Backend) -> None:
    """A number for each channel of each image, beside images: in the file the batch is 1, and any in a call."""
    d, w, x = Draft(), weight(3, 3), weight(2, 4, 5, 3)
    d.value("x", (1, 4, 5, 3))
    d.open_dims["x"] = (-1, 4, 5, 3)
    d.op("RELU", ["x"], [d.value("r", (1, 4, 5, 3))])
    d.op("AVERAGE_POOL_2D", ["r"], [d.value("s", (1, 4, 5, 3))], "Pool2DOptions", FilterHeight=1, FilterWidth=1,
         StrideH=1, StrideW=1)  # fmt: skip
    d.op("MEAN", ["x", d.constant("axes", np.array([1, 2], np.int32))], [d.value("m", (1, 3))], "ReducerOptions")
    d.op("FULLY_CONNECTED", ["m", d.constant("w", w)], [d.value("f", (1, 3))], "FullyConnectedOptions")
    d.op("RESHAPE", ["f", d.constant("sizes", np.array([-1, 1, 1, 3], np.int32))], [d.value("g", (1, 1, 1, 3))])
    d.op("MUL", ["s", "g"], [d.value("y", (1, 4, 5, 3))], "MulOptions")
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    y = te.load_model(tmp_path / "a.tflite")(te.tensor(x))
    wanted = np.maximum(x, 0) * (x.mean((1, 2)) @ w.T)[:, None, None]
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_numbers_of_channels_are_not_turned_round(tmp_path: Path, backend: Backend) -> None:
    """Factors of the shape (1, 1, 1, channels), as folded norms leave them, cost no transposition."""
    d, w, factors, x = Draft(), weight(3, 1, 1, 2), weight(1, 1, 1, 3), weight(1, 4, 5, 2)
    d.op("CONV_2D", [d.value("x", x.shape), d.constant("w", w)], [d.value("c", (1, 4, 5, 3))], "Conv2DOptions",
         StrideH=1, StrideW=1, DilationHFactor=1, DilationWFactor=1)  # fmt: skip
    d.op("MUL", ["c", d.constant("factors", factors)], [d.value("y", (1, 4, 5, 3))], "MulOptions")
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    model = te.load_model(tmp_path / "a.tflite")
    assert [node.op for node in model.nodes].count("Transpose") == 2  # at the ends
    y = model(te.tensor(x))
    np.testing.assert_allclose(y.detach().numpy(), x @ w.reshape(3, 2).T * factors, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    assert all(param.grad is not None for param in model.parameters())
    assert model.get_parameter("factors").shape == (1, 1, 1, 3)
