"""ONNX files whose numbers lie in other files: read below the model's folder alone, and written as one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_onnx import FLOAT, helper, network, onnx, weight
from tinyedge.backends import Backend
from tinyedge.errors import ModelFormatError


def test_external_data(tmp_path: Path, reference: Backend) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "data.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")

    def load(location: str, **entries: str) -> Any:
        tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)
        node = helper.make_node("Add", ["x", "w"], ["y"])
        info = [helper.make_tensor_value_info("x", FLOAT, [4])]
        graph = helper.make_graph([node], "g", info, [helper.make_tensor_value_info("y", FLOAT, [4])], [tensor])
        (folder / "a.onnx").write_bytes(helper.make_model(graph).SerializeToString())
        return te.load_model(folder / "a.onnx")

    assert load("data.bin")(te.zeros(4)).tolist() == [0.0, 1.0, 2.0, 3.0]
    for location in (
        "../secret.bin",
        "/etc/passwd",
        str(tmp_path / "secret.bin"),
        "link.bin",
        "",
        "a/../../secret.bin",
    ):
        with pytest.raises(ModelFormatError, match=r"folder|cannot be read"):
            load(location)
    for entries in ({"offset": "-4"}, {"offset": "8"}, {"length": "99"}, {"offset": "x"}, {"offset": str(2**70)}):
        with pytest.raises(ModelFormatError):
            load("data.bin", **entries)
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelFormatError, match="cannot be read"):
        load("pipe")


def test_numbers_of_other_files_are_written_into_the_tuned_one(tmp_path: Path, backend: Backend) -> None:
    """Weights, constants of nodes, and what no training changes; the tuned file needs no other one."""
    from onnx.external_data_helper import convert_model_to_external_data

    path = network(tmp_path / "a.onnx")
    proto = onnx.load(path)
    node = helper.make_node("Constant", [], ["shift"], value=onnx.numpy_helper.from_array(weight(5), "shift"))
    proto.graph.node.insert(0, node)
    proto.graph.node.append(helper.make_node("Add", ["y", "shift"], ["z"]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", FLOAT, ["n", 5]))
    onnx.save(proto, tmp_path / "whole.onnx")
    convert_model_to_external_data(proto, location="data.bin", size_threshold=0, convert_attribute=True)
    (tmp_path / "parts").mkdir()
    onnx.save(proto, tmp_path / "parts" / "a.onnx")
    assert len((tmp_path / "parts" / "a.onnx").read_bytes()) < (tmp_path / "parts" / "data.bin").stat().st_size * 4
    x = te.tensor(weight(2, 3, 6, 6))
    whole, model = (te.load_model(tmp_path / name) for name in ("whole.onnx", "parts/a.onnx"))
    for each in (whole, model):
        each.eval()
        each(x).square().sum().backward()
        with te.no_grad():
            for param in each.parameters():
                param.sub_(param.grad * 0.01)
        each.save(tmp_path / f"tuned {each is whole}.onnx")
    (tmp_path / "parts" / "data.bin").unlink()
    tuned = tmp_path / "tuned False.onnx"
    assert b"data.bin" not in tuned.read_bytes()
    np.testing.assert_array_equal(te.load_model(tuned).eval()(x).detach().numpy(), model(x).detach().numpy())
    np.testing.assert_array_equal(model(x).detach().numpy(), whole(x).detach().numpy())
    with pytest.raises(ModelFormatError, match="external data cannot be read"):
        model.save(tmp_path / "again.onnx")
    runtime: Any = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(tuned), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_same_bytes_for_many_tensors(tmp_path: Path, reference: Backend) -> None:
    """A small file that asks for memory without end."""
    (tmp_path / "data.bin").write_bytes(bytes(4000))
    tensors = []
    for number in range(9):
        tensors.append(onnx.TensorProto(name=f"w{number}", data_type=1, dims=[1000], data_location=1))
        tensors[-1].external_data.add(key="location", value="data.bin")
    nodes = [helper.make_node("Sum", ["x", *(tensor.name for tensor in tensors)], ["y"])]
    info = [helper.make_tensor_value_info(name, FLOAT, [1000]) for name in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:], tensors))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match="again and again"):
        te.load_model(tmp_path / "a.onnx")
