"""Quantised ONNX files: they compute what they stand for, train, and go back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.float_twins import float_twin
from tests.mutations import check_mutations, messages_mutator
from tinyedge import optim
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, UnsupportedOpError

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
node = onnx.helper.make_node
RNG = np.random.default_rng(0)


def write(path: Path, nodes: list[Any], x: Any, weights: dict[str, Any], result: int = 1, typed: bool = False) -> Path:
    info = onnx.helper.make_tensor_value_info
    tensors = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    if typed:
        tensors = [
            onnx.helper.make_tensor(t.name, t.data_type, t.dims, onnx.numpy_helper.to_array(t).reshape(-1).tolist())
            for t in tensors
        ]
    graph = onnx.helper.make_graph(nodes, "g", [info("x", *x)], [info("y", result, None)], tensors)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def run(path: Path, x: Any) -> Any:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def integers(*shape: int, dtype: Any = np.int8) -> Any:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min + 1, limits.max, shape).astype(dtype)


def qdq(path: Path, typed: bool = False, last: bool = False) -> Path:
    """A convolution whose rectifier is where its integers end, and a dense head; weights with a scale a channel."""
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]), node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0),
        node("DequantizeLinear", ["b", "sb"], ["bd"], axis=0), node("Conv", ["xd", "wd", "bd"], ["c"]),
        node("QuantizeLinear", ["c", "sc", "zc"], ["cq"]),
        node("MaxPool", ["cq"], ["mq"], kernel_shape=[2, 2], strides=[2, 2]),
        node("DequantizeLinear", ["mq", "sc", "zc"], ["m"]), node("Flatten", ["m"], ["f"]),
        node("DequantizeLinear", ["v", "sv"], ["vd"]), node("MatMul", ["f", "vd"], ["z" if last else "y"]),
    ]  # fmt: skip
    if last:
        nodes.append(node("QuantizeLinear", ["z", "sx", "zx"], ["y"]))
    weights = {
        "sx": np.float32(0.05), "zx": np.int8(3), "w": integers(4, 2, 3, 3), "zw": np.zeros(4, np.int8),
        "sw": RNG.uniform(0.002, 0.004, 4).astype(np.float32), "b": integers(4, dtype=np.int32) // 2**24,
        "sb": np.full(4, 0.01, np.float32), "sc": np.float32(0.02), "zc": np.uint8(0), "v": integers(16, 3),
        "sv": np.float32(0.01),
    }  # fmt: skip
    return write(path, nodes, (1, [1, 2, 6, 6]), weights, 3 if last else 1, typed)


def test_without_the_word_it_is_refused(tmp_path: Path, reference: Backend) -> None:
    with pytest.raises(UnsupportedOpError, match=r"QuantizeLinear \(node [^)]*\)(.|\n)*Pass dequantize=True"):
        te.load_model(qdq(tmp_path / "a.onnx"))


@pytest.mark.parametrize("typed", [False, True])
def test_a_qdq_model_computes_trains_and_goes_back(tmp_path: Path, backend: Backend, typed: bool) -> None:
    path = qdq(tmp_path / "a.onnx", typed)
    model = te.load_model(path, dequantize=True)
    assert {name for name, _ in model.named_parameters()} == {"w", "b", "v"}
    x = RNG.standard_normal((1, 2, 6, 6)).astype(np.float32)
    wanted = run(path, x)
    np.testing.assert_allclose(model(te.tensor(x)).detach().numpy(), wanted, atol=0.1 * np.abs(wanted).max())
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == path.read_bytes()
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(3):
        loss = (model(te.tensor(x)) - 1.0).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save(tmp_path / "b.onnx")
    tuned = run(tmp_path / "b.onnx", x)
    assert np.abs(tuned - 1).sum() < np.abs(wanted - 1).sum()
    now = model(te.tensor(x)).detach().numpy()
    np.testing.assert_allclose(now, tuned, atol=0.3 * max(np.abs(tuned).max(), 1))
    model.replace_head(5)
    assert model(te.tensor(x)).shape == (1, 5)
    with pytest.raises(ArgumentError, match="the scales of another head are not known"):
        model.save(tmp_path / "c.onnx")


def test_results_are_what_they_stand_for(tmp_path: Path, backend: Backend) -> None:
    path = qdq(tmp_path / "a.onnx", last=True)
    model = te.load_model(path, dequantize=True)
    x = RNG.standard_normal((1, 2, 6, 6)).astype(np.float32)
    wanted = (run(path, x).astype(np.float32) - 3) * 0.05
    np.testing.assert_allclose(model(te.tensor(x)).detach().numpy(), wanted, atol=0.15)


def test_qlinear_ops(tmp_path: Path, backend: Backend) -> None:
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["q"]),
        node("QLinearConv", ["q", "sx", "zx", "w", "sw", "zw", "sc", "zc", "b"], ["c"]),
        node("Reshape", ["c", "shape"], ["r"]),
        node("QLinearMatMul", ["r", "sc", "zc", "v", "sv", "zv", "sy", "zy"], ["p"]),
        node("DequantizeLinear", ["p", "sy", "zy"], ["y"]),
    ]
    weights = {
        "sx": np.float32(0.05), "zx": np.uint8(120), "w": integers(4, 2, 3, 3), "zw": np.zeros(4, np.int8),
        "sw": RNG.uniform(0.002, 0.004, 4).astype(np.float32), "b": integers(4, dtype=np.int32) // 2**21,
        "sc": np.float32(0.04), "zc": np.uint8(100), "shape": np.array([1, -1]), "v": integers(64, 3),
        "sv": np.float32(0.02), "zv": np.int8(2), "sy": np.float32(0.1), "zy": np.uint8(128),
    }  # fmt: skip
    path = write(tmp_path / "a.onnx", nodes, (1, [1, 2, 6, 6]), weights)
    model = te.load_model(path, dequantize=True)
    assert {name for name, _ in model.named_parameters()} == {"w", "b", "v"}
    x = RNG.standard_normal((1, 2, 6, 6)).astype(np.float32)
    wanted = run(path, x)
    found = model(te.tensor(x))
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=0.4)
    assert np.abs(wanted).max() > 1.5
    found.sum().backward()
    model.save(tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == path.read_bytes()


def test_dynamic_quantisation(tmp_path: Path, backend: Backend) -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("MatMulInteger", ["q", "w", "z", "zw"], ["i"]),
        node("Cast", ["i"], ["f"], to=1), node("Mul", ["s", "sw"], ["scale"]), node("Mul", ["f", "scale"], ["y"]),
    ]  # fmt: skip
    weights = {"w": integers(8, 3), "zw": np.int8(0), "sw": np.float32(0.01)}
    path = write(tmp_path / "a.onnx", nodes, (1, [2, 8]), weights)
    model = te.load_model(path, dequantize=True)
    x = te.tensor(RNG.standard_normal((2, 8)).astype(np.float32), requires_grad=True)
    y = model(x)
    np.testing.assert_allclose(y.detach().numpy(), run(path, x.detach().numpy()), atol=0.03)
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), np.tile(weights["w"].sum(1) * 0.01, (2, 1)), rtol=1e-4, atol=1e-6)


def dynamic(path: Path, per_channel: bool) -> Path:
    """As ONNX Runtime's dynamic quantisation writes a network: an embedding, a convolution with a bias, a product."""
    each = (4,) if per_channel else ()
    nodes = [
        node("Gather", ["table", "x"], ["rows"]), node("DequantizeLinear", ["rows", "st", "zt"], ["e"]),
        node("Transpose", ["e"], ["t"], perm=[0, 2, 1]),
        node("DynamicQuantizeLinear", ["t"], ["tq", "ts", "tz"]), node("Mul", ["ts", "sw"], ["s1"]),
        node("Div", ["bias", "s1"], ["b1"]), node("Floor", ["b1"], ["b2"]), node("Cast", ["b2"], ["b3"], to=6),
        node("ConvInteger", ["tq", "w", "tz", "zw"], ["c"]), node("Reshape", ["b3", "column"], ["b4"]),
        node("Add", ["c", "b4"], ["ci"]), node("Cast", ["ci"], ["cf"], to=1),
        node("Reshape", ["s1", "column" if per_channel else "one"], ["s2"]), node("Mul", ["cf", "s2"], ["y1"]),
        node("Relu", ["y1"], ["r"]), node("GlobalAveragePool", ["r"], ["g"]), node("Flatten", ["g"], ["f"]),
        node("DynamicQuantizeLinear", ["f"], ["fq", "fs", "fz"]), node("Mul", ["fs", "sv"], ["s3"]),
        node("MatMulInteger", ["fq", "v", "fz", "zv"], ["m"]), node("Cast", ["m"], ["mf"], to=1),
        node("Mul", ["mf", "s3"], ["p"]), node("Add", ["p", "b"], ["y"]),
    ]  # fmt: skip
    weights = {
        "table": integers(9, 6, dtype=np.uint8), "st": np.float32(0.02), "zt": np.uint8(128), "w": integers(4, 6, 3),
        "zw": np.int8(0), "sw": RNG.uniform(0.002, 0.004, each).astype(np.float32),
        "bias": RNG.standard_normal(4).astype(np.float32), "column": np.array([1, 4, 1]), "one": np.array([1, 1, 1]),
        "v": integers(4, 3, dtype=np.uint8), "zv": np.full(3, 127, np.uint8), "sv": np.full(3, 0.01, np.float32),
        "b": RNG.standard_normal(3).astype(np.float32),
    }  # fmt: skip
    return write(path, nodes, (7, [2, 7]), weights)


@pytest.mark.parametrize("per_channel", [False, True])
def test_what_dynamic_quantisation_wrote_is_trained(tmp_path: Path, backend: Backend, per_channel: bool) -> None:
    """Every weight and bias is a parameter, in the numbers that it stands for, and goes back."""
    path, x = dynamic(tmp_path / "a.onnx", per_channel), RNG.integers(0, 9, (2, 7))
    model = te.load_model(path, dequantize=True)
    assert {name for name, _ in model.named_parameters()} == {"table", "w", "bias", "v", "b"}
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    scale = arrays["sw"].reshape(-1, 1, 1) if per_channel else arrays["sw"]
    np.testing.assert_allclose(model.get_parameter("w").detach().numpy(), arrays["w"] * scale, rtol=1e-6)
    np.testing.assert_allclose(model.get_parameter("v").detach().numpy(), (arrays["v"] - 127.0) * 0.01, rtol=1e-6)

    def twin(path: Path) -> Any:
        (tmp_path / "twin.onnx").write_bytes(float_twin(path.read_bytes()))
        return run(tmp_path / "twin.onnx", x)

    y = model(te.tensor(x))
    np.testing.assert_allclose(y.detach().numpy(), twin(path), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(path, x), y.detach().numpy(), atol=0.1)
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == path.read_bytes()
    y.square().sum().backward()
    with te.no_grad():
        for param in model.parameters():
            assert param.grad is not None
            assert param.grad.numpy().any()
            param.sub_(
                param.grad * float(0.1 * np.abs(param.detach().numpy()).max() / np.abs(param.grad.numpy()).max())
            )
    model.save(tmp_path / "b.onnx")
    again = te.load_model(tmp_path / "b.onnx", dequantize=True)(te.tensor(x)).detach().numpy()
    np.testing.assert_allclose(again, twin(tmp_path / "b.onnx"), rtol=1e-4, atol=1e-5)
    assert np.abs(again - y.detach().numpy()).max() > 0.05
    assert np.abs(run(tmp_path / "b.onnx", x) - again).max() < 0.1


@pytest.mark.parametrize("op", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_fused_integer_products(tmp_path: Path, backend: Backend, op: str) -> None:
    quantised = node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    names = ["x", "w", "sw", "zw", "b"] if op == "DynamicQuantizeMatMul" else ["q", "w", "s", "sw", "z", "zw", "b"]
    nodes = [quantised][: op != "DynamicQuantizeMatMul"] + [node(op, names, ["y"], domain="com.microsoft")]
    weights = {"w": integers(8, 3), "zw": np.array([3, 0, 5], np.int8), "b": np.float32([1, 2, 3]),
               "sw": np.array([0.01, 0.02, 0.03], np.float32)}  # fmt: skip
    path = write(tmp_path / "a.onnx", nodes, (1, [2, 8]), weights)
    model, x = te.load_model(path, dequantize=True), RNG.standard_normal((2, 8)).astype(np.float32)
    y = model(te.tensor(x))
    wanted = x @ ((weights["w"].astype(np.float32) - weights["zw"]) * weights["sw"]) + weights["b"]
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(path, x), wanted, atol=0.2)
    y.sum().backward()
    assert all(param.grad is not None for param in model.parameters())
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == path.read_bytes()


def test_integers_as_inputs(tmp_path: Path, backend: Backend) -> None:
    nodes = [node("DequantizeLinear", ["x", "s", "z"], ["d"]), node("Relu", ["d"], ["y"])]
    path = write(tmp_path / "a.onnx", nodes, (2, [2, 8]), {"s": np.float32(0.5), "z": np.uint8(7)})
    model = te.load_model(path, dequantize=True)
    x = integers(2, 8, dtype=np.uint8)
    np.testing.assert_array_equal(model(te.tensor(x)).numpy(), run(path, x))


@pytest.mark.parametrize("per", ["layer", "gate"])
def test_a_quantised_lstm(tmp_path: Path, backend: Backend, per: str) -> None:
    """ONNX Runtime rounds what it multiplies to 8 bits at each step; its plain LSTM of the same numbers is exact."""
    size, width, shape = 4, 3, (2, 1) if per == "layer" else (2, 16)
    stored = {"w": integers(2, width, 4 * size), "r": integers(2, size, 4 * size)}
    scales = {f"{name}s": RNG.uniform(0.003, 0.006, shape).astype(np.float32) for name in stored}
    zeros = {f"{name}z": np.full(shape, 5 if per == "layer" else 0, np.int8) for name in stored}
    if per == "layer":
        scales, zeros = ({name: array[:, 0] for name, array in part.items()} for part in (scales, zeros))
    b = RNG.standard_normal((2, 8 * size)).astype(np.float32)
    names = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    lstm = node(
        "DynamicQuantizeLSTM", names, ["y"], domain="com.microsoft", hidden_size=size, direction="bidirectional"
    )
    path = write(tmp_path / "a.onnx", [lstm], (1, [5, 2, width]), {**stored, **scales, **zeros, "b": b})
    x = RNG.standard_normal((5, 2, width)).astype(np.float32)
    with pytest.raises(UnsupportedOpError, match=r"DynamicQuantizeLSTM(.|\n)*Pass dequantize=True"):
        te.load_model(path)
    model = te.load_model(path, dequantize=True)
    y = model(te.tensor(x))
    meant = {
        name: (array.astype(np.int32) - zeros[f"{name}z"].reshape(2, 1, -1)) * scales[f"{name}s"].reshape(2, 1, -1)
        for name, array in stored.items()
    }
    plain = {name: array.swapaxes(1, 2).astype(np.float32) for name, array in meant.items()}
    exact = node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=size, direction="bidirectional")
    wanted = run(write(tmp_path / "b.onnx", [exact], (1, [5, 2, width]), {**plain, "b": b}), x)
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(path, x), wanted, atol=0.1)
    y.square().sum().backward()
    with te.no_grad():
        for param in model.parameters():
            assert param.grad is not None
            param.sub_(param.grad * 0.01)
    model.save(tmp_path / "c.onnx")
    tuned = te.load_model(tmp_path / "c.onnx", dequantize=True)(te.tensor(x)).detach().numpy()
    assert np.abs(tuned - wanted).max() > 0.005
    np.testing.assert_allclose(run(tmp_path / "c.onnx", x), tuned, atol=0.1)


def nibbles(name: str, array: Any, kind: int = 21) -> Any:
    """A tensor of 4 bits: two elements to a byte."""
    flat = np.append(array.reshape(-1), np.zeros(array.size % 2, array.dtype)).astype(np.uint8) & 15
    return onnx.helper.make_tensor(name, kind, array.shape, (flat[0::2] | flat[1::2] << 4).tobytes(), raw=True)


def packed(values: Any, bits: int) -> Any:
    """Rows of elements of a few bits as bytes, the lowest bits first."""
    parts = values.reshape(*values.shape[:-1], -1, 8 // bits).astype(np.uint8) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(parts, -1)


def few_bits(path: Path, op: str, bits: int, zeros: bool) -> tuple[Path, Any]:
    """A product or an embedding with weights of a few bits in blocks of 16, of which the last one is not whole; what
    they stand for.
    """
    rows, width, block = 6, 40 if op == "MatMulNBits" else 48, 16
    count = -(-width // block)
    whole = RNG.integers(0, 2**bits, (rows, count, block))
    scales = RNG.uniform(0.01, 0.02, (rows, count)).astype(np.float32)
    shift = RNG.integers(0, 2**bits, (rows, count)) if zeros else np.full((rows, count), 2 ** (bits - 1))
    content = packed(whole, bits)
    weights = {"w": content if op == "MatMulNBits" else content.reshape(rows, -1), "s": scales}
    if zeros:
        wide = np.zeros((rows, -(-count * bits // 8) * 8 // bits), int)
        wide[:, :count] = shift
        weights["z"] = packed(wide, bits)
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    names = ["x", "w", "s"] if op == "MatMulNBits" else ["w", "x", "s"]
    given = {"K": width, "N": rows} if op == "MatMulNBits" else {"gather_axis": 0, "quantize_axis": 1}
    made = node(op, names + ["z"] * zeros, ["y"], domain="com.microsoft", bits=bits, block_size=block, **given)
    info = onnx.helper.make_tensor_value_info
    x = info("x", 1, ["n", width]) if op == "MatMulNBits" else info("x", 7, ["n"])
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    graph = onnx.helper.make_graph([made], "g", [x], [info("y", 1, None)], tensors)
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path, ((whole - shift[..., None]) * scales[..., None]).reshape(rows, -1)[:, :width]


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("op", "bits"), [("MatMulNBits", 4), ("MatMulNBits", 8), ("MatMulNBits", 2),
                                          ("GatherBlockQuantized", 4), ("GatherBlockQuantized", 8)])  # fmt: skip
def test_weights_of_few_bits(tmp_path: Path, backend: Backend, op: str, bits: int, zeros: bool) -> None:
    path, meant = few_bits(tmp_path / "a.onnx", op, bits, zeros)
    with pytest.raises(UnsupportedOpError, match=rf"{op}(.|\n)*Pass dequantize=True"):
        te.load_model(path)
    model = te.load_model(path, dequantize=True)
    np.testing.assert_allclose(model.get_parameter("w").detach().numpy(), meant, rtol=1e-5)
    x = RNG.standard_normal((3, 40)).astype(np.float32) if op == "MatMulNBits" else np.array([5, 0, 3])
    y = model(te.tensor(x))
    wanted = x @ meant.T if op == "MatMulNBits" else meant[x]
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(path, x), wanted, rtol=1e-3, atol=1e-3)
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == path.read_bytes()
    y.square().sum().backward()
    grad = model.get_parameter("w").grad
    assert grad is not None
    with te.no_grad():
        model.get_parameter("w").sub_(grad * float(0.05 / np.abs(grad.numpy()).max()))
    model.save(tmp_path / "b.onnx")
    tuned = te.load_model(tmp_path / "b.onnx", dequantize=True)
    now = tuned(te.tensor(x)).detach().numpy()
    assert np.abs(now - wanted).max() > 0.01
    np.testing.assert_allclose(run(tmp_path / "b.onnx", x), now, rtol=1e-3, atol=1e-3)
    reached = np.abs(tuned.get_parameter("w").detach().numpy() - model.get_parameter("w").detach().numpy())
    assert (reached <= 0.011).mean() > 0.8  # half of a scale; what the bits do not reach is cut off


@pytest.mark.parametrize("kind", [21, 22])
def test_weights_of_four_bit_types(tmp_path: Path, backend: Backend, kind: int) -> None:
    low = 0 if kind == 21 else -8
    stored = RNG.integers(low, low + 16, (5, 3)).astype(np.uint8 if kind == 21 else np.int8)
    scale = np.array([0.5, 0.25, 0.125], np.float32)
    zero = np.array([1, 2, 3], np.int8) if kind == 22 else np.array([8, 7, 9], np.uint8)
    info = onnx.helper.make_tensor_value_info
    nodes = [node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1), node("MatMul", ["x", "d"], ["y"])]
    graph = onnx.helper.make_graph(
        nodes, "g", [info("x", 1, [2, 5])], [info("y", 1, None)],
        [nibbles("w", stored, kind), nibbles("z", zero, kind), onnx.numpy_helper.from_array(scale, "s")],
    )  # fmt: skip
    content = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    (tmp_path / "a.onnx").write_bytes(content.SerializeToString())
    model = te.load_model(tmp_path / "a.onnx", dequantize=True)
    meant = (stored.astype(int) - zero) * scale
    np.testing.assert_array_equal(model.get_parameter("w").detach().numpy(), meant)
    x = RNG.standard_normal((2, 5)).astype(np.float32)
    found = model(te.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, x @ meant, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(tmp_path / "a.onnx", x), found, atol=0.1)  # the runtime rounds x to 8 bits
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()
    with te.no_grad():
        model.get_parameter("w").add_(te.tensor(scale * 20))
    model.save(tmp_path / "b.onnx")
    again = te.load_model(tmp_path / "b.onnx", dequantize=True)
    np.testing.assert_array_equal(
        again.get_parameter("w").detach().numpy(), ((low + 15 - zero) * scale)[None].repeat(5, 0)
    )
    rounded = [node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    graph = onnx.helper.make_graph(
        rounded, "g", [info("x", 1, [2, 3])], [info("y", 1, None)],
        [nibbles("z", zero, kind), onnx.numpy_helper.from_array(scale, "s")],
    )  # fmt: skip
    content = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    (tmp_path / "c.onnx").write_bytes(content.SerializeToString())
    with pytest.raises(UnsupportedOpError, match="QuantizeLinear to 4 bits"):
        te.load_model(tmp_path / "c.onnx", dequantize=True)


MAKERS = {"qdq": qdq, "dynamic": lambda path: dynamic(path, True),
          "bits": lambda path: few_bits(path, "MatMulNBits", 4, True)[0],
          "table": lambda path: few_bits(path, "GatherBlockQuantized", 4, True)[0]}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_mutated_files(tmp_path: Path, reference: Backend, name: str) -> None:
    """Each loads, or is refused by name."""
    content = MAKERS[name](tmp_path / "a.onnx").read_bytes()
    check_mutations(content, tmp_path / "b.onnx", 60, 0, dequantize=True)
    change = messages_mutator(onnx.ModelProto.FromString)
    check_mutations(content, tmp_path / "b.onnx", 100, 7, change=change, dequantize=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_many_mutated_files(tmp_path: Path, reference: Backend, name: str) -> None:
    content = MAKERS[name](tmp_path / "a.onnx").read_bytes()
    check_mutations(content, tmp_path / "b.onnx", 1500, 1, dequantize=True)
    change = messages_mutator(onnx.ModelProto.FromString)
    check_mutations(content, tmp_path / "b.onnx", 1500, 7, change=change, dequantize=True)
