"""Ops of ONNX Runtime's own domain and Fourier transforms, against ONNX Runtime, and by hand where it is absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import ShapeError, UnsupportedOpError

onnx = pytest.importorskip("onnx")
helper = onnx.helper
RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def drawn(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
IDS, SEGMENTS = RNG.integers(0, 9, (2, 5)).astype(np.int32), RNG.integers(0, 2, (2, 5)).astype(np.int32)
TABLES = {"words": drawn(9, 8), "positions": drawn(6, 8), "segments": drawn(2, 8), "gamma": drawn(8), "beta": drawn(8)}
X = drawn(2, 5, 8)
NORM = {"x": X, "skip": drawn(2, 5, 8), "gamma": drawn(8), "beta": drawn(8), "bias": drawn(8)}
HEADS = {"x": X, "weight": drawn(8, 24), "bias": drawn(24)}
IMAGE = {"x": drawn(1, 2, 6, 6), "w": drawn(3, 2, 3, 3), "b": drawn(3)}
PRODUCT = {"a": drawn(2, 3, 4), "b": drawn(2, 5, 3)}
CACHES = {"cos": np.cos(RNG.uniform(0, 6, (9, 4))).astype(np.float32),
          "sin": np.sin(RNG.uniform(0, 6, (9, 4))).astype(np.float32)}  # fmt: skip
LENGTHS = {"past k": None, "past v": None, "lengths": np.full(2, 4, np.int32), "total": np.array(5, np.int32)}
GROUPED = {"x": drawn(2, 5, 64), "k": drawn(2, 5, 32), "v": drawn(2, 5, 32), **LENGTHS}
WIDE = {name: np.concatenate([array, array[::-1]], 1) for name, array in CACHES.items()}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Gelu": ("Gelu", {"x": X}, {}),
    "BiasGelu": ("BiasGelu", {"x": X, "b": drawn(8)}, {}),
    "FastGelu": ("FastGelu", {"x": X, "b": drawn(8)}, {}),
    "QuickGelu": ("QuickGelu", {"x": X}, {"alpha": 1.5}),
    "FusedMatMul": ("FusedMatMul", PRODUCT, {"transA": 1, "transB": 1, "alpha": 0.5}),
    "FusedConv": ("FusedConv", IMAGE, {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    "FusedConv, clipped": ("FusedConv", IMAGE, {"activation": "Clip", "activation_params": [-0.5, 0.5]}),
    "FusedConv, leaky": ("FusedConv", IMAGE,
                         {"activation": "LeakyRelu", "activation_params": [0.3], "strides": [2, 2]}),
    "FusedGemm": ("FusedGemm", {"a": drawn(3, 4), "b": drawn(5, 4), "c": drawn(5)},
                  {"transB": 1, "activation": "LeakyRelu", "activation_alpha": 0.2}),
    "SkipLayerNormalization": ("SkipLayerNormalization", NORM, {"epsilon": 1e-5}),
    "SkipSimplifiedLayerNormalization": ("SkipSimplifiedLayerNormalization",
                                         {key: NORM[key] for key in ("x", "skip", "gamma")}, {"epsilon": 1e-5}),
    "EmbedLayerNormalization": ("EmbedLayerNormalization",
                                {"ids": IDS, "segment_ids": SEGMENTS, **TABLES, "mask": MASK}, {"epsilon": 1e-5}),
    "Attention": ("Attention", HEADS, {"num_heads": 2}),
    "Attention, masked": ("Attention", {**HEADS, "mask": MASK}, {"num_heads": 4}),
    "Attention, lengths": ("Attention", {**HEADS, "mask": np.array([3, 5], np.int32)}, {"num_heads": 2}),
    "MultiHeadAttention": ("MultiHeadAttention", {"q": X, "k": X, "v": drawn(2, 5, 8), "bias": drawn(24)},
                           {"num_heads": 2, "scale": 0.3}),
    "MultiHeadAttention, masked": ("MultiHeadAttention", {"q": drawn(2, 3, 8), "k": X, "v": X, "": None, "mask": MASK,
                                                          "added": drawn(1, 2, 3, 5)}, {"num_heads": 2}),
    "MultiHeadAttention, past": ("MultiHeadAttention", {
        "q": X, "k": X, "v2": X, "": None, "no mask": None, "none added": None, "past k": drawn(2, 2, 3, 4),
        "past v": drawn(2, 2, 3, 4)}, {"num_heads": 2, "unidirectional": 1}),
    "MultiHeadAttention, crossed": ("MultiHeadAttention", {
        "q": X, "k": drawn(2, 2, 3, 4), "v": drawn(2, 2, 3, 4)}, {"num_heads": 2}),
    "Attention, causal": ("Attention", HEADS, {"num_heads": 2, "unidirectional": 1}),
    "RotaryEmbedding": ("RotaryEmbedding", {"x": drawn(2, 5, 16), "ids": (IDS % 7).astype(np.int64), **CACHES},
                        {"num_heads": 2}),
    "RotaryEmbedding, partly": ("RotaryEmbedding", {"x": drawn(2, 3, 5, 12), "ids": np.array([2]), **CACHES},
                                {"num_heads": 3, "rotary_embedding_dim": 8, "interleaved": 1}),
    "GroupQueryAttention": ("GroupQueryAttention", GROUPED, {"num_heads": 4, "kv_num_heads": 2}),
    "GroupQueryAttention, turned": ("GroupQueryAttention", {**GROUPED, **WIDE},
                                    {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1, "scale": 0.3}),
    "GroupQueryAttention, in one": ("GroupQueryAttention", {
        "x": drawn(2, 5, 128), "k": None, "v": None, **LENGTHS, **WIDE},
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1, "rotary_interleaved": 1}),
    "GroupQueryAttention, past": ("GroupQueryAttention", {
        **{name: array if array is None else array[:1] for name, array in GROUPED.items() if name != "total"},
        "past k": drawn(1, 2, 3, 16), "past v": drawn(1, 2, 3, 16), "lengths": np.full(1, 7, np.int32),
        "total": np.array(8, np.int32), **WIDE},
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1, "local_window_size": 3, "softcap": 5.0}),
}  # fmt: skip
KINDS = {"float32": 1, "int32": 6, "int64": 7}
COUNTS = {"EmbedLayerNormalization": 2, "MultiHeadAttention, past": 3}
COUNTS |= {case: 3 for case in CASES if case.startswith("Group")}


@pytest.mark.parametrize("case", CASES)
def test_it_computes_as_onnx_runtime(tmp_path: Path, backend: Backend, case: str) -> None:
    op, values, attributes = CASES[case]
    inputs = [
        name
        for name in values
        if name in ("x", "a", "ids", "segment_ids", "mask", "skip", "q") and values[name] is not None
    ]
    outputs = ["y", "second", "third"][: COUNTS.get(case, 1)]
    given = [name if values[name] is not None else "" for name in values]
    graph = helper.make_graph(
        [helper.make_node(op, given, outputs, domain="com.microsoft", **attributes)], "g",
        [helper.make_tensor_value_info(name, KINDS[values[name].dtype.name], values[name].shape) for name in inputs],
        [helper.make_tensor_value_info(name, 1, None) for name in (outputs if op[0] == "G" else outputs[:1])],
        [onnx.numpy_helper.from_array(values[name], name) for name in given if name and name not in inputs],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    content = helper.make_model(graph, opset_imports=sets, ir_version=9).SerializeToString()
    (tmp_path / "a.onnx").write_bytes(content)
    model = te.load_model(tmp_path / "a.onnx")
    found = model(*[te.tensor(values[name]) for name in inputs])
    y, *more = found if isinstance(found, tuple) else (found,)
    runtime: Any = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    wanted, *rest = session.run(None, {name: values[name] for name in inputs})
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=2e-4, atol=2e-5 if "Fast" not in op else 1e-4)
    for part, array in zip(more, rest, strict=True):
        np.testing.assert_allclose(part.detach().numpy(), array, rtol=2e-4, atol=2e-5)
    if list(model.parameters()):
        y.square().sum().backward()
        assert all(param.grad is not None for param in model.parameters())


def test_pasts_of_several_lengths_are_refused(tmp_path: Path, reference: Backend) -> None:
    values = {**GROUPED, "past k": drawn(2, 2, 3, 16), "past v": drawn(2, 2, 3, 16), "total": np.array(8, np.int32)}
    graph = helper.make_graph(
        [helper.make_node("GroupQueryAttention", list(values), ["y", "k2", "v2"], domain="com.microsoft", num_heads=4,
                          kv_num_heads=2)], "g",
        [helper.make_tensor_value_info("lengths", 6, [2])], [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in values.items() if name != "lengths"],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    (tmp_path / "a.onnx").write_bytes(helper.make_model(graph, opset_imports=sets).SerializeToString())
    model = te.load_model(tmp_path / "a.onnx")
    model(te.tensor(np.array([7, 7], np.int32)))
    with pytest.raises(ShapeError, match="3 earlier tokens and 5 new ones in each sample"):
        model(te.tensor(np.array([7, 6], np.int32)))
    for key in ("past k", "past v"):
        next(t for t in graph.initializer if t.name == key).dims[:] = [4, 3, 16]
        (tmp_path / "b.onnx").write_bytes(helper.make_model(graph, opset_imports=sets).SerializeToString())
        with pytest.raises(ShapeError, match=r"a past of keys and values \(2, 2, earlier, 16\)"):
            te.load_model(tmp_path / "b.onnx")(te.tensor(np.array([7, 7], np.int32)))


def test_other_domains_are_refused(tmp_path: Path, reference: Backend) -> None:
    graph = helper.make_graph(
        [helper.make_node("Rfft", ["x"], ["y"], domain="com.microsoft")], "g",
        [helper.make_tensor_value_info("x", 1, [2, 4])], [helper.make_tensor_value_info("y", 1, None)],
    )  # fmt: skip
    (tmp_path / "a.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(UnsupportedOpError, match=r"Rfft of the domain com\.microsoft"):
        te.load_model(tmp_path / "a.onnx")


def test_a_spectrogram(tmp_path: Path, backend: Backend) -> None:
    """Frames, a window that is computed, and the weights of mel bins; NumPy's own transform is the reference."""
    node, signal = helper.make_node, drawn(2, 100)
    nodes = [
        node("HannWindow", ["size"], ["window"]),
        node("STFT", ["x", "step", "window", "size"], ["spectrum"]),
        node("ReduceSumSquare", ["spectrum", "last"], ["power"], keepdims=0),
        node("MelWeightMatrix", ["bins", "size", "rate", "low", "high"], ["mels"]),
        node("MatMul", ["power", "mels"], ["y"]),
    ]
    numbers = {"size": np.array(16), "step": np.array(6), "last": np.array([-1]), "bins": np.array(4),
               "rate": np.array(8000), "low": np.float32(0), "high": np.float32(4000)}  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [2, "n"])],
        [helper.make_tensor_value_info(name, 1, None) for name in ("spectrum", "mels", "y")],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in numbers.items()],
    )  # fmt: skip
    (tmp_path / "a.onnx").write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    )
    spectrum, mels, y = te.load_model(tmp_path / "a.onnx")(te.tensor(signal).requires_grad_())
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(16) / 16)
    frames = np.stack([signal[:, start : start + 16] for start in range(0, 85, 6)], 1) * window
    wanted = np.fft.rfft(frames)
    found = spectrum.detach().numpy()
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], wanted, atol=1e-4)
    assert mels.shape == (9, 4)
    assert (np.asarray(mels.numpy()).max(0) > 0).all()
    np.testing.assert_allclose(y.detach().numpy(), (np.abs(wanted) ** 2) @ mels.numpy(), rtol=1e-3, atol=1e-3)
    y.sum().backward()
