"""Which call reads which file: what is none of its formats is refused with what to do instead."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, CheckpointError, ModelFormatError

ZIP = b"PK\x03\x04" + bytes(60)


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite", "model.pb"])
def test_load_of_a_model_file_names_load_model(name: str, tmp_path: Path, reference: Backend) -> None:
    (tmp_path / name).write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match=r"use te\.load_model"):
        te.load(tmp_path / name)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.bin"])
@pytest.mark.parametrize("content", [ZIP, pickle.dumps({"weight": 1}, 2), pickle.dumps({"weight": 1}, 4)])
def test_pickles_are_refused_with_a_recipe(name: str, content: bytes, tmp_path: Path, reference: Backend) -> None:
    (tmp_path / name).write_bytes(content)
    for call, error in ((te.load, CheckpointError), (te.load_model, ModelFormatError)):
        with pytest.raises(error, match="can run any code") as caught:  # type: ignore[call-overload]
            call(tmp_path / name)  # type: ignore[operator]
        lines = str(caught.value).splitlines()
        assert "torch.load(" in lines[1]
        assert "safetensors.torch.save_file(" in lines[2]
        assert "model.safetensors" in lines[2]


def test_a_file_of_weights_names_load(tmp_path: Path, reference: Backend) -> None:
    te.save({"w": te.tensor([1.0])}, tmp_path / "w.safetensors")
    with pytest.raises(ArgumentError, match=r"te\.load\(path\)"):
        te.load_model(tmp_path / "w.safetensors")
    (tmp_path / "w.what").write_bytes(bytes(100))
    with pytest.raises(ModelFormatError, match="says what it is"):
        te.load_model(tmp_path / "w.what")


def test_an_archive_is_to_be_unpacked(tmp_path: Path, reference: Backend) -> None:
    """MediaPipe's tasks are zip archives of TFLite files, and no pickles."""
    (tmp_path / "hand.task").write_bytes(ZIP)
    with pytest.raises(
        ModelFormatError, match=r"an archive of files.*Unpack it, python -m zipfile -e hand\.task folder"
    ):
        te.load_model(tmp_path / "hand.task")
