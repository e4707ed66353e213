"""The examples of personalisation in a short form, with small models for the files'; with a real one: ``-m wheels``."""

from __future__ import annotations

import importlib.util
import os
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend

ROOT = Path(__file__).parents[1]
PNG = b"\x89PNG"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Segmenter(nn.Module):
    """A mask for each image, channels last, from colours and what is around them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 9, stride=8, padding=4)
        self.second = nn.ConvTranspose2d(4, 1, 8, stride=8)

    def forward(self, x: te.Tensor) -> te.Tensor:
        return self.second(self.first(x.permute(0, 3, 1, 2)).relu()).sigmoid().permute(0, 2, 3, 1)


def test_segmentation(reference: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    te.manual_seed(0)
    monkeypatch.setattr(te, "load_model", lambda path: Segmenter())
    command = ["model.tflite", "--frames", "24", "--budget", "150", "--every", "2", "--output", str(tmp_path)]
    found = example("personalize_segmentation").main(command)
    assert found["steps"] > 0
    assert 0 <= found["before"] <= 1
    assert 0 <= found["after"] <= 1
    assert (tmp_path / "segmentation.png").read_bytes().startswith(PNG)


def test_a_video_has_the_masks_of_its_frames() -> None:
    pytest.importorskip("PIL")
    module = example("personalize_segmentation")
    portrait, cut = np.ones((256, 256, 3), np.float32), np.ones((256, 256, 1), np.float32)
    frames, masks = module.video(portrait, cut, np.zeros((256, 512, 3), np.float32), 5)
    assert frames.shape == (5, 256, 256, 3)
    assert all(module.iou(frame[..., :1], mask) > 0.99 for frame, mask in zip(frames, masks, strict=True))
    assert all(mask[0].any() and not mask[-1].any() for mask in masks), "upside down: the body is at the top"
    assert module.iou(masks[0], 1 - masks[0]) == 0


@pytest.mark.wheels
def test_segmentation_with_media_pipes_model(opencl: Backend, tmp_path: Path) -> None:
    for package in ("tflite", "sklearn", "matplotlib"):
        pytest.importorskip(package)
    wheels = sorted(Path(os.environ.get("TINYEDGE_WHEELS", "/nowhere")).glob("mediapipe-*.whl"))
    if not wheels:
        pytest.skip("there is no wheel of mediapipe in TINYEDGE_WHEELS")
    name = "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite"
    zipfile.ZipFile(wheels[-1]).extract(name, tmp_path)
    with te.use_backend(opencl):
        command = [str(tmp_path / name), "--frames", "80", "--budget", "400", "--every", "2"]
        found = example("personalize_segmentation").main([*command, "--output", str(tmp_path)])
    assert found["after"] > found["before"] + 0.2


class Spotter(nn.Module):
    """Words from MFCCs, with the layers' names and the calls of a model from a file."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(490, 16), nn.Tanh())
        self.head = nn.Linear(16, 12)

    def replace_head(self, classes: int) -> Spotter:
        self.head = nn.Linear(16, classes)
        return self

    def freeze(self, except_: Any = (), live_statistics: bool = False) -> Spotter:
        super().freeze(except_=["head"])
        return self

    def forward(self, x: te.Tensor) -> te.Tensor:
        return self.head(self.body(x / 30))


def test_keyword(reference: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    te.manual_seed(0)
    monkeypatch.setattr(te.convert, "from_tensorflow", lambda path, inputs, outputs: Spotter())
    command = ["model.pb", "--each", "4", "--epochs", "3", "--steps", "12", "--lr", "0.2", "--output", str(tmp_path)]
    curves = example("personalize_keyword").main(command)
    (_, _, alone), (_, new, rehearsed) = curves["new recordings alone"][-1], curves["with rehearsal"][-1]
    assert new >= 0
    assert rehearsed >= alone
    assert (tmp_path / "keyword.png").read_bytes().startswith(PNG)


def test_recordings_in_place_of_synthesised_words(reference: Backend, tmp_path: Path) -> None:
    module = example("personalize_keyword")
    sound = module.spoken("sea", np.random.default_rng(0))
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((np.clip(sound, -1, 1)[:12000] * 32767).astype(np.int16).tobytes())
    read = module.recorded(tmp_path / "a.wav")
    assert read.shape == (16000,)
    np.testing.assert_allclose(read[:12000], np.clip(sound[:12000], -1, 1), atol=1e-4)
    assert not read[12000:].any()
    found = module.mfcc(read)
    assert found.shape == (1, 49, 10)
    assert found.dtype == np.float32
    silence = np.sqrt(2 / 40) * 40 * np.log(1e-12)  # all of 40 bands at the floor, in the first coefficient
    np.testing.assert_allclose(module.mfcc(np.zeros(16000))[0, :, 0], silence, rtol=1e-5)
    np.testing.assert_allclose(module.mfcc(np.zeros(16000))[0, :, 1:], 0, atol=1e-4)
