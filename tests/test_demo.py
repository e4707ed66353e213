"""The demo, as a user runs it, for one pass over the data on the reference backend and on OpenCL."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinyedge as te
from tinyedge.backends import Backend

DEMO = Path(__file__).parents[1] / "examples" / "finetune_digits.py"


def test_finetune_digits(backend: Backend, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(DEMO), "--backend", backend.name, "--output", str(tmp_path), "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"device: {backend.name}" in done.stdout
    assert "epoch 1 of 1: 100%" in done.stderr
    found = re.search(r"held-out digits 5-9: ([\d.]+)% before, ([\d.]+)% after", done.stdout)
    assert found
    before, after = (float(text) for text in found.groups())
    assert before < 50
    assert after > 88  # one pass; the full demo reaches 97
    assert re.search(r"time: [\d.]+ ms a sample", done.stdout)
    assert re.search(r"memory: [1-9]\d* KiB", done.stdout)

    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    start = te.load(tmp_path / "pretrained.safetensors")
    end = te.load(tmp_path / "finetuned.safetensors")
    assert set(start) == set(end)
    changed = {name for name in start if start[name].tolist() != end[name].tolist()}
    trained = {name for name in start if name.startswith(("features.3.", "classifier.")) and "running" not in name}
    assert changed == {name for name in trained if "num_batches" not in name}
