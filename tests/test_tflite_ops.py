"""TFLite's rarer ops, by hand and against LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_tflite_states import drawn, run_lite
from tests.tflite_files import Draft
from tinyedge.backends import Backend

pytest.importorskip("tflite")
Array = np.ndarray[Any, Any]


def check(tmp_path: Path, d: Draft, x: Array, output: str, wanted: Array | None = None) -> Any:
    """The model, whose result is LiteRT's, and ``wanted``."""
    content = d.content(["x"], [output])
    (tmp_path / "a.tflite").write_bytes(content)
    model = te.load_model(tmp_path / "a.tflite")
    found = model(te.tensor(x)).detach().numpy()
    if wanted is not None:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found, run_lite(content, [x])[0][0], rtol=1e-4, atol=1e-5)
    return model


def test_reversed_sequences(tmp_path: Path, backend: Backend) -> None:
    x, d = drawn(2, 4, 3), Draft()
    d.op("REVERSE_SEQUENCE", [d.value("x", (2, 4, 3)), d.constant("n", np.array([3, 1], np.int32))],
         [d.value("y", (2, 4, 3))], "ReverseSequenceOptions", SeqDim=1, BatchDim=0)  # fmt: skip
    check(tmp_path, d, x, "y", np.stack([x[0][[2, 1, 0, 3]], x[1]]))


def test_scattered_rows(tmp_path: Path, backend: Backend) -> None:
    x, d = drawn(3, 2), Draft()
    names = [d.constant("at", np.array([[1], [4], [1]], np.int32)), d.value("x", (3, 2)),
             d.constant("shape", np.array([5, 2], np.int32))]  # fmt: skip
    d.op("SCATTER_ND", names, [d.value("y", (5, 2))], "ScatterNdOptions")
    wanted = np.zeros((5, 2), np.float32)
    wanted[1], wanted[4] = x[0] + x[2], x[1]
    check(tmp_path, d, x, "y", wanted)


def test_angles(tmp_path: Path, backend: Backend) -> None:
    x, other, d = drawn(2, 3), drawn(2, 3), Draft()
    d.op("ATAN2", [d.value("x", (2, 3)), d.constant("c", other)], [d.value("y", (2, 3))])
    check(tmp_path, d, x, "y", np.arctan2(x, other))


def test_different_values(tmp_path: Path, backend: Backend) -> None:
    x, d = np.array([3, 1, 3, 2, 1], np.float32), Draft()
    d.op(
        "UNIQUE",
        [d.value("x", (5,))],
        [d.value("u", (3,)), d.value("at", (5,), "int32")],
        "UniqueOptions",
        IdxOutType=2,
    )
    d.op("GATHER", ["u", "at"], [d.value("y", (5,))], "GatherOptions")
    check(tmp_path, d, x, "y", x)


def test_the_real_part_of_a_spectrum(tmp_path: Path, backend: Backend) -> None:
    x, d = drawn(2, 1, 8), Draft()
    d.op("RFFT2D", [d.value("x", x.shape), d.constant("n", np.array([1, 8], np.int32))],
         [d.value("f", (2, 1, 5), "complex64")])  # fmt: skip
    d.op("CAST", ["f"], [d.value("y", (2, 1, 5))], "CastOptions")
    check(tmp_path, d, x, "y", np.fft.rfft(x).real)


@pytest.mark.parametrize("padding", [0, 1])
def test_root_mean_squares(tmp_path: Path, backend: Backend, padding: int) -> None:
    x, d, side = drawn(1, 5, 5, 2), Draft(), 3 if padding == 0 else 2
    d.op("L2_POOL_2D", [d.value("x", (1, 5, 5, 2))], [d.value("y", (1, side, side, 2))], "Pool2DOptions",
         Padding=padding, StrideW=2, StrideH=2, FilterWidth=2, FilterHeight=2)  # fmt: skip
    check(tmp_path, d, x, "y")


@pytest.mark.parametrize("padding", [0, 1])
def test_volumes(tmp_path: Path, backend: Backend, padding: int) -> None:
    x, d, sizes = drawn(1, 4, 5, 6, 2), Draft(), (4, 3, 3) if padding == 0 else (3, 2, 2)
    names = [d.value("x", x.shape), d.constant("w", drawn(2, 2, 3, 2, 4)), d.constant("b", drawn(4))]
    d.op("CONV_3D", names, [d.value("y", (1, *sizes, 4))], "Conv3DOptions", Padding=padding, StrideD=1, StrideH=2,
         StrideW=2, DilationDFactor=1, DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=1)  # fmt: skip
    model = check(tmp_path, d, x, "y")
    model(te.tensor(x)).sum().backward()
    with te.no_grad():
        for param in model.parameters():
            assert param.grad is not None
            param.mul_(0.5)
    model.save(tmp_path / "b.tflite")
    tuned = run_lite((tmp_path / "b.tflite").read_bytes(), [x])[0][0]
    np.testing.assert_allclose(model(te.tensor(x)).detach().numpy(), tuned, rtol=1e-4, atol=1e-5)
