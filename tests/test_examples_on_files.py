"""The examples that tune model files, as a user runs them, in a short form."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyedge as te
from tests.test_cli_finetune import tflite_file
from tests.test_cli_models import DATA
from tinyedge.backends import Backend

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*arguments: object) -> str:
    command = [sys.executable, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def real(name: str, *packages: str) -> Path:
    for package in ("sklearn", "PIL", *packages):
        pytest.importorskip(package)
    if not (DATA / name).exists():
        pytest.skip("no real files are here")
    return DATA / name


def accuracies(text: str) -> tuple[float, float]:
    found = re.search(r"accuracy on held-out \w+: ([\d.]+)% before, ([\d.]+)% after", text)
    assert found
    before, after = map(float, found.groups())
    return before, after


def test_tflite(tmp_path: Path, opencl: Backend) -> None:
    model = real("mlperf_cifar10_resnet8_float.tflite", "tflite", "ai_edge_litert")
    text = run(EXAMPLES / "finetune_tflite.py", model, "--output", tmp_path, "--pixels", "0..255", "--epochs", 2)
    before, after = accuracies(text)
    assert before < 30 < 60 < after
    assert f"accuracy of the tuned file in LiteRT: {after}%" in text
    tuned, original = (te.load_model(p) for p in (tmp_path / "mlperf_cifar10_resnet8_float-tuned.tflite", model))
    changed = {
        name for name, value in original.state_dict().items()
        if (tuned.state_dict()[name].numpy() != value.numpy()).any()
    }  # fmt: skip
    assert changed == {name for layer in original.layers()[-5:] for name in layer.parameters}


def test_onnx(tmp_path: Path, opencl: Backend) -> None:
    model = real("pytorch_cifar10_cnn.onnx", "onnx", "onnxruntime")
    text = run(EXAMPLES / "finetune_onnx.py", model, "--output", tmp_path, "--epochs", 2, "--most", 30)
    before, after = accuracies(text)
    assert before < 30 < 70 < after
    assert f"accuracy of the tuned file in ONNX Runtime: {after}%" in text


def test_pb(tmp_path: Path, opencl: Backend) -> None:
    model = real("kws_DS_CNN_S.pb", "tensorboard")
    text = run(EXAMPLES / "finetune_pb.py", model, "--output", tmp_path, "--epochs", 5, "--count", 30)
    before, after = accuracies(text)
    assert before < 30 < 60 < after
    assert f"read again, its accuracy is {after}%" in text


def test_coefficients_are_those_that_the_model_was_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spectrum of noise is flat, and a tone's is not; the first coefficient is the loudness."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    finetune_pb = __import__("finetune_pb")
    time = np.arange(16_000) / 16_000
    loud, soft = (np.float32(gain * np.sin(2 * np.pi * 800 * time)) for gain in (0.5, 0.05))
    a, b = finetune_pb.cepstra(loud), finetune_pb.cepstra(soft)
    assert a.shape == (49, 10)
    np.testing.assert_allclose(a[:, 1:], b[:, 1:], atol=0.05)
    np.testing.assert_allclose((a - b)[:, 0], np.log(10) * 40 * np.sqrt(2 / 40), rtol=1e-3)


def test_transfer(tmp_path: Path, opencl: Backend) -> None:
    for package in ("sklearn", "PIL", "matplotlib", "tflite"):
        pytest.importorskip(package)
    model = tflite_file(tmp_path / "a.tflite")
    options = ["--most", 6, "--epochs", 1, "--rates", 1e-3, "--block", 2, "--rank", 2, "--output", tmp_path]
    text = run(EXAMPLES / "transfer_mobilenet.py", model, *options)
    rows = {line[:16].strip(): line[16:].split() for line in text.splitlines() if line.endswith(tuple("0123456789"))}
    trained = {name: int(row[0].replace(",", "")) for name, row in rows.items()}
    head = 8 * 10 + 10
    conv = 8 * 27 + 8
    assert trained == {
        "all": conv + head, "last block": conv + head, "bias only": 8 + head, "LoRA": 2 * (27 + 8) + head, "head": head
    }  # fmt: skip
    for name in ("transfer.png", "transfer_images.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_transfer_of_a_real_mobilenet(tmp_path: Path, opencl: Backend) -> None:
    model = real("mobilenet_v1_0.25_224_float.tflite", "tflite", "matplotlib")
    options = ["--most", 8, "--epochs", 1, "--rates", 1e-3, "--policies", "head", "LoRA", "--output", tmp_path]
    text = run(EXAMPLES / "transfer_mobilenet.py", model, *options)
    peaks = {line[:16].strip(): float(line.split()[-1]) for line in text.splitlines() if "% " in line}
    assert 0 < peaks["head"] < peaks["LoRA"] < 8
