"""QFP folders: what is written, that it comes back, and folders from strangers."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.convert import from_qfp, to_qfp
from tinyedge.errors import ArgumentError, CheckpointError, NumberRangeError


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5))


@pytest.mark.parametrize("bits", [16, 32])
def test_there_and_back(bits: int, tmp_path: Path, backend: Backend) -> None:
    first, second = model(), model()
    first[1].num_batches_tracked.fill_(7)
    to_qfp(first, tmp_path / "weights", bits=bits)
    second.load_state_dict(from_qfp(tmp_path / "weights"))
    for name, value in first.state_dict().items():
        wanted = value.numpy().astype(f"float{bits}").astype(value.numpy().dtype)
        np.testing.assert_array_equal(second.state_dict()[name].numpy(), wanted)
        raw = np.fromfile(tmp_path / "weights" / f"{name.replace('.', '_')}.qfp{bits}", f"<f{bits // 8}")
        np.testing.assert_array_equal(raw.reshape(value.shape), wanted)
    entries = {e["name"]: e for e in json.loads((tmp_path / "weights" / "manifest.json").read_text())["tensors"]}
    assert entries["0.weight"] == {
        "name": "0.weight", "file": f"0_weight.qfp{bits}", "shape": [3, 2, 3, 3], "dtype": f"float{bits}",
        "tensor_dtype": "float32", "layout": "OIHW",
        "sha256": hashlib.sha256((tmp_path / "weights" / f"0_weight.qfp{bits}").read_bytes()).hexdigest(),
    }  # fmt: skip
    assert entries["3.weight"]["layout"] == "OI"
    assert entries["3.bias"]["layout"] == "C"
    assert os.listdir(tmp_path) == ["weights"]


def test_names_and_dtypes(tmp_path: Path, reference: Backend) -> None:
    state = {
        "a.b": te.tensor([1.0]), "a_b": te.tensor([2.0]), "A/b": te.tensor([3.0]), "../x:0": te.tensor([4.0]),
        "half": te.tensor([1.5], dtype=te.float16), "brain": te.tensor([1.5], dtype=te.bfloat16),
        "double": te.tensor([0.5], dtype=te.float64), "count": te.tensor(3), "yes": te.tensor([True, False]),
        "none": te.zeros((0, 3)), "array": np.array([5, -6], np.int8), "x" * 300: te.tensor([1.0]),
    }  # fmt: skip
    to_qfp(state, tmp_path / "w")
    assert {"a_b.qfp16", "a_b_2.qfp16", "A_b_3.qfp16", "___x_0.qfp16"} <= set(os.listdir(tmp_path / "w"))
    back = from_qfp(tmp_path / "w")
    assert list(back) == list(state)
    for name, value in state.items():
        value = te.tensor(value) if isinstance(value, np.ndarray) else value
        assert back[name].dtype is value.dtype
        np.testing.assert_array_equal(back[name].numpy(), value.numpy())


def test_what_does_not_fit_is_refused(tmp_path: Path, reference: Backend) -> None:
    for bits, value in ((16, te.tensor([1e6])), (16, te.tensor([2049])), (32, te.tensor([2**24 + 1])),
                        (32, te.tensor([2**60 + 1])), (32, te.tensor([1e60], dtype=te.float64))):  # fmt: skip
        with pytest.raises(NumberRangeError, match=f"'w' must fit float{bits}"):
            to_qfp({"good": te.tensor([1.0]), "w": value}, tmp_path / "w", bits=bits)
        assert os.listdir(tmp_path) == []  # nothing is left behind
    to_qfp({"w": te.tensor([np.inf, np.nan])}, tmp_path / "w")
    assert np.isinf(from_qfp(tmp_path / "w")["w"].numpy()[0])
    with pytest.raises(ArgumentError, match="new folder"):
        to_qfp({}, tmp_path / "w")
    with pytest.raises(ArgumentError, match="bits=16 or bits=32"):
        to_qfp({}, tmp_path / "v", bits=8)
    with pytest.raises(ArgumentError, match="a model or a state dict"):
        to_qfp([1.0], tmp_path / "v")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        from_qfp(tmp_path / "v")


CHANGES: list[tuple[str, Any, str]] = [
    ("file", "../b.qfp32", "has the file"), ("file", "/etc/passwd", "has the file"),
    ("file", "c.qfp32", "cannot be read"), ("file", "b.qfp32", "another content"), ("file", "link.qfp32", "link leads"),
    ("file", None, "lacks one of"), ("dtype", "float16", "has the file"), ("shape", [3], "bytes, and 12"),
    ("shape", [-2], "the shape"), ("shape", [2**30, 2**30], "the shape"), ("shape", [True, 2], "the shape"),
    ("shape", "2", "the shape"), ("sha256", "0" * 64, "another content"), ("tensor_dtype", "int32", "none of int32"),
    ("tensor_dtype", "object", "tensor_dtype"), ("name", "b", "stands there twice"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "text"), CHANGES)
def test_folders_from_strangers(key: str, value: Any, text: str, tmp_path: Path, reference: Backend) -> None:
    folder = tmp_path / "w"
    to_qfp({"b": te.tensor([5.0, 6.0]), "a": te.tensor([1.5, 2.5])}, folder, bits=32)
    (tmp_path / "out.qfp32").write_bytes((folder / "a.qfp32").read_bytes())
    os.symlink(tmp_path / "out.qfp32", folder / "link.qfp32")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tensors"][1][key] = value
    if value == "b.qfp32":
        manifest["tensors"].pop(0)
    (folder / "manifest.json").write_text(json.dumps(manifest if value != "b.qfp32" else {
        **manifest, "tensors": [{**manifest["tensors"][0], key: value}]}))  # fmt: skip
    with pytest.raises(CheckpointError, match=text):
        from_qfp(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": "qfp", "version": 2}', "[" * 100_000,
                                     '{"format": "qfp", "version": 1, "tensors": {}}',
                                     '{"format": "qfp", "version": 1, "tensors": [1]}'])  # fmt: skip
def test_manifests_from_strangers(content: str, tmp_path: Path, reference: Backend) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError):
        from_qfp(tmp_path)
