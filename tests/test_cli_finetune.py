"""``tinyedge finetune``: models of each format, data of each kind, what is trained, and what is refused."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.tensorflow_files import Graph
from tests.test_cli_models import onnx_file, run
from tests.tflite_files import Draft
from tinyedge import cli
from tinyedge.backends import Backend
from tinyedge.cli import datasets, models

pytest.importorskip("tflite")
pytest.importorskip("onnx")
RNG = np.random.default_rng(0)
CLASSES = ("blue", "green", "red")


def weight(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def tflite_file(path: Path) -> Path:
    d = Draft()
    d.value("x", (1, 12, 12, 3))
    d.constant("conv/w", weight(8, 3, 3, 3))
    d.constant("conv/b", weight(8))
    d.value("a", (1, 6, 6, 8))
    d.op("CONV_2D", ["x", "conv/w", "conv/b"], ["a"], "Conv2DOptions", Padding=0, StrideH=2, StrideW=2,
         DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=1)  # fmt: skip
    d.constant("axes", np.array([1, 2], np.int32))
    d.op("MEAN", ["a", "axes"], [d.value("m", (1, 8))], "ReducerOptions", KeepDims=0)
    d.constant("head/w", weight(5, 8))
    d.constant("head/b", weight(5))
    d.op("FULLY_CONNECTED", ["m", "head/w", "head/b"], [d.value("z", (1, 5))], "FullyConnectedOptions")
    d.op("SOFTMAX", ["z"], [d.value("y", (1, 5))], "SoftmaxOptions", Beta=1.0)
    path.write_bytes(d.content(["x"], ["y"]))
    return path


def pb_file(path: Path, classes: int) -> Path:
    pytest.importorskip("tensorboard")
    g = Graph()
    g.placeholder("x", (-1, 4))
    g.const("w", weight(4, classes))
    g.const("b", weight(classes))
    g.node("MatMul", "m", ["x", "w"], T=np.dtype("float32"), transpose_a=False, transpose_b=False)
    g.node("BiasAdd", "z", ["m", "b"], T=np.dtype("float32"))
    g.node("Softmax", "y", ["z"], T=np.dtype("float32"))
    path.write_bytes(g.content())
    return path


def images(folder: Path, count: int = 12) -> Path:
    """Of three colours, in two formats and in several sizes."""
    image = pytest.importorskip("PIL.Image")
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = RNG.integers(0, 120, (10 + k, 14, 3)).astype(np.uint8)
            pixels[..., 2 - number] += 120
            image.fromarray(pixels).save(folder / name / f"{k:02}.{'png' if k % 2 else 'bmp'}")
    (folder / "red" / "notes.txt").write_text("no image")
    return folder


def arrays(path: Path, kind: Any = np.uint8) -> Path:
    labels = np.arange(36) % 3
    pixels = RNG.integers(0, 120, (36, 12, 12, 3)).astype(kind)
    pixels[np.arange(36), :, :, labels] += kind(120)
    np.savez(path, x=pixels, y=labels)
    return path


def table(path: Path, header: bool) -> Path:
    rng = np.random.default_rng(1)  # the same whichever tests ran before
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(["label", "a", "b", "c", "d"])
        for k in range(40):
            values = [f"{value:.4f}" for value in rng.standard_normal(4) + 4 * (k % 2)]
            name = ("no", "yes")[k % 2]
            writer.writerow([name, *values] if header else [*values, name])
    return path


def tune(capsys: Any, *arguments: object) -> dict[str, Any]:
    """The result as JSON."""
    status, out, err = run(capsys, "finetune", *arguments, "--json")
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("what", ["head", "last:2", "all", "bias", "lora:2"])
def test_a_folder_of_images(tmp_path: Path, capsys: Any, opencl: Backend, what: str) -> None:
    path, data, out = tflite_file(tmp_path / "a.tflite"), images(tmp_path / "data"), tmp_path / "b.tflite"
    before = path.read_bytes()
    found = tune(capsys, path, data, "--out", out, "--train", what, "--lr", "0.03", "--epochs", "4", "--accumulate", 4)
    assert found["classes"] == list(CLASSES)
    assert (found["samples"], found["held_out"]) == (30, 6)
    assert len(found["accuracies"]) == 5
    assert found["accuracies"][-1] >= 0.8
    assert found["saved_accuracy"] == found["accuracies"][-1]
    assert found["losses"][-1] < found["losses"][0]
    assert found["peak_bytes"] > 0
    assert path.read_bytes() == before
    tuned, original = te.load_model(out), te.load_model(path)
    changed = set()
    for name, value in original.state_dict().items():
        there = tuned.get_parameter(name).detach().numpy()
        if there.shape == value.shape and (there != value.numpy()).any():
            changed.add(name)
    assert changed == {
        "head": set(), "last:2": {"conv/w", "conv/b"}, "all": {"conv/w", "conv/b"}, "bias": {"conv/b"},
        "lora:2": {"conv/w"},
    }[what]  # fmt: skip
    assert tuned.outputs[0].dims == (1, 3)


def test_litert_runs_what_was_tuned(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    path, data, out = tflite_file(tmp_path / "a.tflite"), images(tmp_path / "data"), tmp_path / "b.tflite"
    found = tune(capsys, path, data, "--out", out, "--train", "all", "--lr", "0.03", "--accumulate", 4)
    runtime = interpreter.Interpreter(str(out))
    runtime.allocate_tensors()
    model = te.load_model(path)
    samples = datasets.read(str(data), model.inputs[0], *layout_and_scaling(model))
    _, held = samples.split(0.2, 0)
    right = 0
    for number in held:
        runtime.set_tensor(runtime.get_input_details()[0]["index"], samples.sample(number, np.float32))
        runtime.invoke()
        y = runtime.get_tensor(runtime.get_output_details()[0]["index"])
        right += int(y.argmax() == samples.labels[number])
    assert right / len(held) == found["saved_accuracy"]


def layout_and_scaling(model: Any) -> tuple[datasets.Layout, datasets.Scaling]:
    layout = datasets.layout_of(model.inputs[0], model.suffix, None)
    assert layout is not None
    return layout, datasets.scaling_of(layout, model.suffix, False, None, None, None)


def test_arrays_and_text(tmp_path: Path, capsys: Any, opencl: Backend) -> None:
    path, out = onnx_file(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    options = ["--train", "all", "--lr", "0.02", "--accumulate", "4", "--epochs", "3", "--optimizer", "sgd"]
    data = arrays(tmp_path / "a.npz")
    status, text, _ = run(capsys, "finetune", path, data, "--out", out, *options, "--mean", "0.4")
    assert status == 0
    for part in (
        "36 samples of 3 classes: 0, 1, 2; 30 to train on, 6 held out",
        "(pixel * 0.00392157 - 0.4) / 0.229,0.224,0.225",
        "all: trains", "of device memory", "before: ", "epoch 3: loss", "read again, its accuracy is", "ms a sample",
    ):  # fmt: skip
        assert part in text
    assert te.load_model(out).outputs[0].dims == ("n", 3)


def test_the_curve(tmp_path: Path, capsys: Any, reference: Backend, monkeypatch: Any) -> None:
    path, data = onnx_file(tmp_path / "a.onnx"), arrays(tmp_path / "a.npz")
    if "matplotlib" in sys.modules or pytest.importorskip("matplotlib"):
        found = tune(capsys, path, data, "--out", tmp_path / "b.onnx", "--epochs", "1")
        assert Path(found["curve"]).read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, text, _ = run(capsys, "finetune", path, data, "--out", tmp_path / "c.onnx", "--epochs", "1")
    assert status == 0
    assert "no curve is drawn" in text
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize("header", [False, True])
def test_tables_and_frozen_graphs(tmp_path: Path, capsys: Any, opencl: Backend, header: bool) -> None:
    path, out = pb_file(tmp_path / "a.pb", 2), tmp_path / "b.pb"
    data = table(tmp_path / "a.csv", header)
    found = tune(capsys, path, data, "--out", out, "--lr", "0.1", "--accumulate", 4)
    assert found["classes"] == ["no", "yes"]
    assert found["saved_accuracy"] >= 0.8
    found = tune(capsys, path, data, "--out", out, "--overwrite", "--head", "keep", "--lr", "1e-9", "--epochs", "1")
    kept = te.load_model(path).get_parameter("w").detach().numpy()
    np.testing.assert_allclose(te.load_model(out).get_parameter("w").detach().numpy(), kept, atol=1e-5)
    status, _, err = run(capsys, "finetune", pb_file(tmp_path / "c.pb", 5), data, "--out", tmp_path / "d.pb")
    assert status == 1
    assert "data of 5 classes, as a .pb file takes no new layer" in err


def test_a_budget(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    path, data = onnx_file(tmp_path / "a.onnx"), arrays(tmp_path / "a.npz")
    whole = tune(capsys, path, data, "--out", tmp_path / "b.onnx", "--epochs", "1", "--train", "all")
    less = whole["planned_bytes"] - 1
    found = tune(
        capsys, path, data, "--out", tmp_path / "c.onnx", "--epochs", "1", "--train", "all", "--budget", f"{less}B"
    )
    assert found["planned_bytes"] <= less
    assert found["trained"] < whole["trained"]
    status, _, err = run(capsys, "finetune", path, data, "--out", tmp_path / "d.onnx", "--budget", "10B")
    assert status == 1
    assert "a budget of at least" in err


def test_the_same_run_twice(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    path, data = onnx_file(tmp_path / "a.onnx"), arrays(tmp_path / "a.npz")
    for name in ("b", "c"):
        tune(capsys, path, data, "--out", tmp_path / f"{name}.onnx", "--epochs", "1")
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()


def test_what_is_refused(tmp_path: Path, capsys: Any, reference: Backend, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    path, data = onnx_file(tmp_path / "a.onnx"), arrays(tmp_path / "a.npz")
    np.savez(tmp_path / "names.npz", a=np.ones(3), b=np.ones(3))
    np.savez(tmp_path / "few.npz", x=np.zeros((3, 12, 12, 3), np.uint8), y=np.array([0, 0, 1]))
    np.savez(tmp_path / "one.npz", x=np.zeros((3, 12, 12, 3), np.uint8), y=np.zeros(3, int))
    np.savez(tmp_path / "shape.npz", x=np.zeros((4, 7), np.float32), y=np.array([0, 0, 1, 1]))
    np.savez(tmp_path / "floats.npz", x=np.zeros((4, 3, 12, 12), np.float32), y=np.array([0, 0, 1, 1]))
    (tmp_path / "bad.csv").write_text("1,2,a\n3,x,b\n")
    (tmp_path / "short.csv").write_text("1,2,a\n3,b\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken.onnx").write_bytes(b"mine")
    (tmp_path / "link.onnx").symlink_to(path)
    for arguments, text in (
        ((path, data, "--out", path), "it is the same file"),
        ((path, data, "--out", path, "--overwrite"), "it is the same file"),
        ((path, data, "--out", "link.onnx", "--overwrite"), "it is the same file"),
        ((path, data, "--out", "taken.onnx"), "'taken.onnx' is there"),
        ((path, data, "--out", "b.tflite"), "--out that ends in .onnx"),
        ((path, data, "--out", "nowhere/b.onnx"), "there is no"),
        ((path, "absent.npz"), "absent.npz: No such file"),
        ((path, "names.npz"), "there are a, b"),
        ((path, "few.npz"), "'1' has 1"),
        ((path, "one.npz"), "two classes or more"),
        ((path, "shape.npz"), "each has the shape (7,)"),
        ((path, "floats.npz", "--scale", "1"), "these samples are numbers already"),
        ((path, "bad.csv"), "row 2: could not convert"),
        ((path, "short.csv"), "row 2 has 2"),
        ((path, "empty"), "a folder of images for each class"),
        ((path, "a.onnx"), "DATA that is a folder of images"),
        ((path, data, "--head", "keep"), "data of 4 classes, as the model has"),
        ((path, data, "--train", "last:9"), "a number of layers in"),
        ((path, data, "--mean", "1,2"), "--mean of one number, or 3"),
        ((path, data, "--std", "0"), "--std without 0"),
        ((path, data, "--lr", "1e38", "--optimizer", "sgd", "--accumulate", "1"), "Pass a smaller --lr"),
    ):
        status, _, err = run(capsys, "finetune", *arguments)
        assert status == 1, arguments
        assert text in err, err
        assert not (tmp_path / "a-tuned.onnx").exists()
    assert (tmp_path / "taken.onnx").read_bytes() == b"mine"
    for option, value in (
        ("--epochs", "0"), ("--lr", "-1"), ("--held-out", "1"), ("--train", "some"), ("--accumulate", "x"),
        ("--train", "last:x"),
    ):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            cli.main(["finetune", str(path), str(data), option, value])
    capsys.readouterr()


def test_without_pillow(tmp_path: Path, capsys: Any, reference: Backend, monkeypatch: Any) -> None:
    path, data = tflite_file(tmp_path / "a.tflite"), images(tmp_path / "data", 2)
    monkeypatch.setitem(sys.modules, "PIL", None)
    status, _, err = run(capsys, "finetune", path, data, "--out", tmp_path / "b.tflite")
    assert status == 1
    assert 'pip install "tinyedge[images]"' in err


def test_a_file_that_is_no_image(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    path, data = tflite_file(tmp_path / "a.tflite"), images(tmp_path / "data", 2)
    (data / "red" / "bad.png").write_bytes(b"\x89PNG nonsense")
    status, _, err = run(capsys, "finetune", path, data, "--out", tmp_path / "b.tflite")
    assert status == 1
    assert "bad.png" in err


def test_logits(tmp_path: Path, backend: Backend) -> None:
    model = te.load_model(onnx_file(tmp_path / "a.onnx"))
    x = te.tensor(weight(2, 3, 12, 12))
    logits = model.logits()
    assert logits is not model
    np.testing.assert_allclose(logits(x).softmax(1).detach().numpy(), model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert model.head_parameters() == ["fc.weight", "fc.bias"]
    assert models.head_names(model) == ["fc.weight", "fc.bias"]
