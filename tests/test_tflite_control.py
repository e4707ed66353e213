"""TFLite's branches, Fourier transforms, and ops whose sizes a call chooses, against LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_tflite_ops import check
from tests.test_tflite_states import drawn, run_lite
from tests.tflite_files import Draft
from tinyedge.backends import Backend
from tinyedge.errors import CaptureError, UnsupportedOpError

pytest.importorskip("tflite")
Array = np.ndarray[Any, Any]


def branching(path: Path, weights: tuple[Array, Array], shared: bool = False) -> bytes:
    """A product with one of two weights, chosen by the sign of the first input's sum; the second output is shifted."""
    d = Draft()
    d.op("SUM", [d.value("x", (2, 3)), d.constant("axes", np.array([0, 1], np.int32))], [d.value("s", ())],
         "ReducerOptions", KeepDims=False)  # fmt: skip
    d.op("GREATER", ["s", d.constant("zero", np.zeros((), np.float32))], [d.value("c", (), "bool")])
    d.op("IF", ["c", "x"], [d.value("y", (2, 4)), d.value("z", (2, 3))], "IfOptions", ThenSubgraphIndex=1,
         ElseSubgraphIndex=1 if shared else 2)  # fmt: skip
    graphs = []
    for name, w in zip(("then", "else"), weights):
        part = Draft()
        names = [part.value("given", (2, 3)), part.constant(f"{name}/w", w)]
        part.op("FULLY_CONNECTED", names, [part.value("y", (2, 4))], "FullyConnectedOptions")
        part.op("ADD", ["given", part.constant("shift", np.float32(1 if name == "then" else 2))],
                [part.value("z", (2, 3))], "AddOptions")  # fmt: skip
        graphs.append((part, ["given"], ["y", "z"]))
    content = d.content(["x"], ["y", "z"], graphs)
    path.write_bytes(content)
    return content


def test_branches(tmp_path: Path, backend: Backend) -> None:
    weights = drawn(4, 3), drawn(4, 3)
    content = branching(tmp_path / "a.tflite", weights)
    model = te.load_model(tmp_path / "a.tflite")
    assert {name for name, _ in model.named_parameters()} == {"then/w", "else/w"}
    for sign, name in ((1, "then/w"), (-1, "else/w")):
        x = np.abs(drawn(2, 3)) * np.float32(sign)
        results = model(te.tensor(x))
        for found, wanted in zip(results, run_lite(content, [x])[0], strict=True):
            np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
        results[0].sum().backward()
        grads = {key: param.grad for key, param in model.named_parameters()}
        assert [key for key, grad in grads.items() if grad is not None] == [name]
        np.testing.assert_allclose(grads[name].numpy(), np.repeat(x.sum(0)[None], 4, 0), rtol=1e-4, atol=1e-5)
        model.zero_grad()
    with te.no_grad():
        for param in model.parameters():
            param.mul_(2.0)
    model.save(tmp_path / "b.tflite")
    tuned = run_lite((tmp_path / "b.tflite").read_bytes(), [x])[0]
    np.testing.assert_allclose(model(te.tensor(x))[0].detach().numpy(), tuned[0], rtol=1e-4, atol=1e-5)


def test_branches_of_one_graph_are_refused(tmp_path: Path, reference: Backend) -> None:
    branching(tmp_path / "a.tflite", (drawn(4, 3), drawn(4, 3)), True)
    with pytest.raises(UnsupportedOpError, match="the graph 1, which another one calls too"):
        te.load_model(tmp_path / "a.tflite")


@pytest.mark.replays("looks at what cannot be replayed")
def test_branches_are_not_compiled(tmp_path: Path, backend: Backend) -> None:
    branching(tmp_path / "a.tflite", (drawn(4, 3), drawn(4, 3)))
    function = te.compile(te.load_model(tmp_path / "a.tflite"))
    with pytest.raises(CaptureError, match="a branch by the condition 'c' of the model"):
        function(te.ones(2, 3))


def test_constants_without_elements(tmp_path: Path, reference: Backend) -> None:
    """A shape of no dims: the file holds nothing of it."""
    d = Draft()
    d.op("RESHAPE", [d.value("x", (1, 1)), d.constant("shape", np.zeros(0, np.int32))], [d.value("y", ())],
         "ReshapeOptions")  # fmt: skip
    x = drawn(1, 1)
    check(tmp_path, d, x, "y", x.reshape(()))


def test_variables_in_loops_are_refused(tmp_path: Path, reference: Backend) -> None:
    d = Draft()
    names = [d.constant("n", np.array(3, np.int32)), d.value("x", (1, 3))]
    d.op("WHILE", names, [d.value("m", (), "int32"), d.value("y", (1, 3))], "WhileOptions", CondSubgraphIndex=1,
         BodySubgraphIndex=2)  # fmt: skip
    more, body = Draft(), Draft()
    more.op("GREATER", [more.value("i", (), "int32"), more.constant("zero", np.array(0, np.int32))],
            [more.value("goes", (), "bool")])  # fmt: skip
    body.op("SUB", [body.value("i", (), "int32"), body.constant("one", np.array(1, np.int32))],
            [body.value("j", (), "int32")], "SubOptions")  # fmt: skip
    body.op("VAR_HANDLE", [], [body.value("h", (), "resource")], "VarHandleOptions", SharedName="a")
    body.op("READ_VARIABLE", ["h"], [body.value("r", (1, 3))], "ReadVariableOptions")
    body.op("ADD", ["r", body.value("v", (1, 3))], [body.value("w", (1, 3))], "AddOptions")
    body.op("ASSIGN_VARIABLE", ["h", "w"], [], "AssignVariableOptions")
    others = [(more, ["i", more.value("v", (1, 3))], ["goes"]), (body, ["i", "v"], ["j", "w"])]
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"], others))
    with pytest.raises(UnsupportedOpError, match="READ_VARIABLE on a variable, inside a loop"):
        te.load_model(tmp_path / "a.tflite")


@pytest.mark.parametrize(("shape", "sizes"), [((2, 3, 1, 16), (1, 16)), ((1, 8, 12), (4, 16)), ((2, 1, 20), (1, 16))])
def test_fourier_transforms(tmp_path: Path, backend: Backend, shape: tuple[int, ...], sizes: tuple[int, int]) -> None:
    """Amplitudes of what is a spectrogram's row, and of an image; samples are added or cut off."""
    x, d = drawn(*shape), Draft()
    x.reshape(-1)[: shape[-1]] = 0
    made = (*shape[:-2], sizes[0], sizes[1] // 2 + 1)
    names = [d.value("x", shape), d.constant("sizes", np.array(sizes, np.int32))]
    d.op("RFFT2D", names, [d.value("f", made, "complex64")], "Rfft2dOptions")
    flat = (int(np.prod(made[:-1])), made[-1])
    d.op("RESHAPE", ["f", d.constant("to", np.array(flat, np.int32))], [d.value("g", flat, "complex64")],
         "ReshapeOptions")  # fmt: skip
    d.op("COMPLEX_ABS", ["g"], [d.value("a", flat)])
    for part in ("REAL", "IMAG"):
        d.op(part, ["g"], [d.value(part, flat)])
    d.op("CONCATENATION", ["a", "REAL", "IMAG"], [d.value("y", (flat[0], 3 * flat[1]))], "ConcatenationOptions", Axis=1)
    wanted = np.fft.rfft2(x, sizes).reshape(flat)
    model = check(tmp_path, d, x, "y", np.concatenate([np.abs(wanted), wanted.real, wanted.imag], 1))
    given = te.tensor(x, requires_grad=True)
    model(given).sum().backward()
    assert np.isfinite(given.grad.numpy()).all()


def test_complex_numbers_elsewhere_are_refused(tmp_path: Path, reference: Backend) -> None:
    d = Draft()
    names = [d.value("x", (1, 8)), d.constant("sizes", np.array([1, 8], np.int32))]
    d.op("RFFT2D", names, [d.value("f", (1, 5), "complex64")], "Rfft2dOptions")
    d.op("MUL", ["f", "f"], [d.value("y", (1, 5), "complex64")], "MulOptions")
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    with pytest.raises(UnsupportedOpError, match="MUL of complex numbers"):
        te.load_model(tmp_path / "a.tflite")


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-7])
def test_short_vectors_are_normalised(tmp_path: Path, backend: Backend, scale: float) -> None:
    """Those that are shorter than 1e-6 stay short."""
    x, d = drawn(3, 4) * np.float32(scale), Draft()
    d.op("L2_NORMALIZATION", [d.value("x", (3, 4))], [d.value("y", (3, 4))], "L2NormOptions")
    check(tmp_path, d, x, "y", x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6))


def test_products_of_open_dims(tmp_path: Path, reference: Backend) -> None:
    """A product that keeps two dims whose lengths a call chooses, and a reshape by the output's dims."""
    w, x, d = drawn(4, 3), drawn(2, 5, 3), Draft()
    d.open_dims = {"x": (-1, -1, 3), "p": (-1, -1, 4), "y": (-1, 2, 2)}
    d.op("FULLY_CONNECTED", [d.value("x", (1, 1, 3)), d.constant("w", w)], [d.value("p", (1, 1, 4))],
         "FullyConnectedOptions", KeepNumDims=True)  # fmt: skip
    d.op("RESHAPE", ["p"], [d.value("y", (1, 2, 2))], "ReshapeOptions")
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["p", "y"]))
    p, y = te.load_model(tmp_path / "a.tflite")(te.tensor(x))
    np.testing.assert_allclose(p.detach().numpy(), x @ w.T, rtol=1e-4, atol=1e-5)
    assert y.shape == (10, 2, 2)
