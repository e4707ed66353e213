"""``tinyedge info``, ``convert``, ``extract`` and ``compare``: text, JSON and exit codes, for files of each format."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.gguf_files import of_model
from tests.llama_configs import FAMILIES
from tests.test_tflite import network
from tests.tflite_files import Draft
from tinyedge import cli
from tinyedge.backends import Backend

pytest.importorskip("tflite")
onnx = pytest.importorskip("onnx")
RNG = np.random.default_rng(0)
DATA = Path(__file__).parents[2] / "shared" / "data" / "models"


def weight(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def onnx_file(path: Path) -> Path:
    """A convolution, a norm, a mean, a product and a softmax, for batches of any size."""
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Conv", ["x", "conv.weight", "conv.bias"], ["c"], "/conv", pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"], "/bn"),
        make("Relu", ["b"], ["r"], "/relu"), make("GlobalAveragePool", ["r"], ["p"], "/pool"),
        make("Flatten", ["p"], ["f"], "/flat"), make("Gemm", ["f", "fc.weight", "fc.bias"], ["z"], "/fc", transB=1),
        make("Softmax", ["z"], ["y"], "/softmax"),
    ]  # fmt: skip
    head = weight(4, 8) * np.float32(0.2)
    weights = {"conv.weight": weight(8, 3, 3, 3), "conv.bias": weight(8), "bn.weight": weight(8), "bn.bias": weight(8),
               "bn.mean": weight(8), "bn.var": np.abs(weight(8)) + np.float32(0.5), "fc.weight": head,
               "fc.bias": weight(4)}  # fmt: skip
    graph = onnx.helper.make_graph(
        nodes, "graph", [info("x", 1, ["n", 3, 12, 12])], [info("y", 1, ["n", 4])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def unsupported(path: Path) -> Path:
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [make("Strange", ["x"], ["a"], "one", domain="own"), make("Odd", ["a"], ["y"], "two", domain="own")]
    graph = onnx.helper.make_graph(nodes, "graph", [info("x", 1, [1])], [info("y", 1, [1])])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def run(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    status = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def run_json(capsys: Any, *arguments: object) -> tuple[int, Any]:
    status, out, _ = run(capsys, *arguments, "--json")
    return status, json.loads(out)


# info


def test_info(tmp_path: Path, capsys: Any, backend: Backend) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    status, found = run_json(capsys, "info", path)
    assert status == 0
    assert found["supported"] is True
    assert found["inputs"] == [{"name": "x", "shape": [1, 3, 12, 12], "dtype": "float32", "dims": ["n", 3, 12, 12]}]
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "dims": ["n", 4], "shape": [1, 4]}]
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["/conv"] == {
        "name": "/conv", "op": "Conv", "output": [1, 8, 12, 12], "parameters": 8 * 27 + 8, "macs": 12 * 12 * 8 * 27
    }  # fmt: skip
    assert layers["/fc"]["macs"] == 4 * 8
    assert layers["/bn"]["parameters"] == 16
    assert found["parameters"] == found["trainable"] == 8 * 27 + 8 + 16 + 36
    assert found["macs"] == 12 * 12 * 8 * 27 + 32
    trained = {entry["policy"]: entry["trained"] for entry in found["policies"]}
    assert trained == {"all": 276, "bias": 8 + 8 + 36, "head": 36}
    totals = [entry["total_bytes"] for entry in found["policies"]]
    assert totals[0] == max(totals)
    assert totals[-1] == min(totals)
    status, text, _ = run(capsys, "info", path)
    assert status == 0
    for part in ("/conv", "1x8x12x12", "parameters: 276", "multiply-adds of a call: 0.03 million", "not supported: no"):
        assert part in text
    assert [line.split()[0] for line in text.splitlines()[-3:]] == ["all", "bias", "head"]


def test_info_of_open_shapes(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    path = tmp_path / "a.onnx"
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [make("MatMul", ["x", "w"], ["y"], "/m")]
    weights = [onnx.numpy_helper.from_array(weight(6, 2), "w")]
    graph = onnx.helper.make_graph(nodes, "graph", [info("x", 1, ["a", "b"])], [info("y", 1, ["a", 2])], weights)
    opsets = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    status, found = run_json(capsys, "info", path)
    assert status == 0
    assert "give others with --shape" in found["problems"][0]
    assert found["policies"] == []
    assert found["layers"][0]["parameters"] == 12
    for shape in ("5,6", "x=5,6"):
        status, found = run_json(capsys, "info", path, "--shape", shape)
        assert (status, found["macs"], found["problems"]) == (0, 5 * 12, [])
    assert "inputs of the model: x" in run(capsys, "info", path, "--shape", "z=1,2")[2]
    for command in ("info", "compare"):
        status, _, error = run(capsys, command, onnx_file(tmp_path / "b.onnx"), "--shape", "2,3,10,12")
        assert status == 1
        assert "what the file leaves open of x (n, 3, 12, 12) float32, but got 2,3,10,12" in error


def test_info_lists_all_that_is_lacking(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    path = unsupported(tmp_path / "a.onnx")
    status, text, _ = run(capsys, "info", path)
    assert status == 1
    assert "Strange" in text
    assert "Odd" in text
    status, found = run_json(capsys, "info", path)
    assert status == 1
    assert found["supported"] is False
    assert len(found["unsupported"]) == 2


def test_what_is_no_model(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nonsense")
    for command in (["info", tmp_path / "a.onnx"], ["compare", tmp_path / "a.onnx"], ["info", tmp_path / "b.onnx"]):
        status, out, err = run(capsys, *command)
        assert (status, out) == (1, "")
        assert err.startswith("tinyedge: ")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["info"])
    with pytest.raises(SystemExit, match="2"):
        cli.main(["info", "a.onnx", "--shape", "1,x"])
    capsys.readouterr()


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_help_explains(command: str, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert len(text) > 100
    if command in ("info", "convert", "extract", "compare", "finetune"):
        assert f"examples:\n  tinyedge {command} " in text


def test_documents_show_commands_that_are_there() -> None:
    """README's, and those of each command's help."""
    parser = cli.make_parser()
    shown = (Path(__file__).parents[1] / "README.md").read_text()
    shown += "\n".join(module.EXAMPLES for module in (cli.info, cli.comparing, cli.finetuning))
    shown += cli.converting.CONVERT_EXAMPLES + cli.converting.EXTRACT_EXAMPLES
    names = "|".join(cli.COMMANDS)
    found = re.findall(rf"^ *tinyedge ((?:{names})\b.*?)(?: *[#>].*)?$", shown, re.MULTILINE)
    assert len(found) >= 20
    for line in found:
        assert parser.parse_args(line.split()).run


# convert and extract


def test_weights_to_safetensors_and_back(tmp_path: Path, capsys: Any, backend: Backend) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    state = te.load_model(path).state_dict()
    status, found = run_json(capsys, "convert", path, tmp_path / "a.safetensors")
    assert status == 0
    assert found["bytes"] == (tmp_path / "a.safetensors").stat().st_size
    loaded = te.load(tmp_path / "a.safetensors")
    assert loaded.keys() == state.keys()
    assert all((loaded[name].numpy() == state[name].numpy()).all() for name in state)
    assert run(capsys, "convert", tmp_path / "a.safetensors", tmp_path / "q", "--bits", "32")[0] == 0
    assert run(capsys, "convert", tmp_path / "q", tmp_path / "b.safetensors")[0] == 0
    again = te.load(tmp_path / "b.safetensors")
    assert all((again[name].numpy() == state[name].numpy()).all() for name in state)
    assert run(capsys, "convert", tmp_path / "q", tmp_path / "h.safetensors", "--bits", "16")[0] == 0
    assert {value.dtype for value in te.load(tmp_path / "h.safetensors").values()} == {te.float16}


def test_extract(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    network(tmp_path / "a.tflite")
    status, text, _ = run(capsys, "extract", tmp_path / "a.tflite", tmp_path / "q", "--bits", "16")
    assert status == 0
    assert "8 files" in text
    entries = {entry["name"]: entry for entry in json.loads((tmp_path / "q" / "manifest.json").read_text())["tensors"]}
    assert entries["conv/w"]["layout"] == "OIHW"
    assert entries["conv/w"]["shape"] == [4, 2, 3, 3]
    assert (tmp_path / "q" / entries["conv/w"]["file"]).stat().st_size == 2 * 4 * 2 * 9
    status, _, err = run(capsys, "extract", tmp_path / "a.tflite", tmp_path / "q")
    assert status == 1
    assert "is there" in err


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_whole_models_to_onnx(tmp_path: Path, capsys: Any, reference: Backend, kind: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / f"a.{kind}"
    if kind == "onnx":
        onnx_file(path)
    else:
        network(path)
    assert run(capsys, "convert", path, tmp_path / "b.onnx")[0] == 0
    model = te.load_model(path)
    x = weight(3, 3, 12, 12) if kind == "onnx" else weight(1, 7, 7, 2)
    session = runtime.InferenceSession(str(tmp_path / "b.onnx"), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_outputs()] == [port.name for port in model.outputs]
    wanted = model(te.tensor(x))
    for there, here in zip(session.run(None, {"x": x}), wanted if isinstance(wanted, tuple) else (wanted,)):
        np.testing.assert_allclose(there, here.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_converted(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    (tmp_path / "p.pth").write_bytes(b"\x80\x02}q\x00.")
    te.save({"w": te.ones(2) * 1e6}, tmp_path / "large.safetensors")
    te.save({"w": te.ones(2), "n": [te.ones(1)]}, tmp_path / "nested.safetensors")
    for arguments, text in (
        ((path, tmp_path / "a.tflite"), "only written from the .tflite file"),
        ((path, tmp_path / "a.gguf"), "GGUF files are read, and not written"),
        ((path, tmp_path / "a.doc"), "got '.doc'"),
        ((path, path), "it is there"),
        ((path, path, "--overwrite"), "it is the same one"),
        ((tmp_path / "p.pth", tmp_path / "b.safetensors"), "torch.load"),
        ((tmp_path / "large.safetensors", tmp_path / "b.onnx"), "weights alone"),
        ((tmp_path / "large.safetensors", tmp_path / "b.safetensors", "--bits", "16"), "some are too large"),
        ((tmp_path / "nested.safetensors", tmp_path / "b.safetensors"), "'n' is none"),
        ((tmp_path / "absent.onnx", tmp_path / "b.safetensors"), "No such file"),
    ):
        status, _, err = run(capsys, "convert", *arguments)
        assert status == 1, arguments
        assert text in err
        assert not (tmp_path / "b.safetensors").exists()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["convert", str(path), "b.safetensors", "--bits", "8"])
    capsys.readouterr()


# compare


def test_compare_onnx(tmp_path: Path, capsys: Any, backend: Backend) -> None:
    pytest.importorskip("onnxruntime")
    path = onnx_file(tmp_path / "a.onnx")
    status, found = run_json(capsys, "compare", path)
    assert status == 0
    assert found["against"] == "ONNX Runtime"
    assert [entry["op"] for entry in found["layers"]] == [
        "Conv", "BatchNormalization", "Relu", "GlobalAveragePool", "Flatten", "Gemm", "Softmax",
    ]  # fmt: skip
    assert found["largest"] < 1e-5
    np.save(tmp_path / "x.npy", weight(5, 3, 12, 12))
    status, found = run_json(capsys, "compare", path, "--input", tmp_path / "x.npy")
    assert status == 0
    assert found["outputs"][0]["shape"] == [5, 4]
    np.savez(tmp_path / "x.npz", x=weight(2, 3, 12, 12))
    assert run(capsys, "compare", path, "--input", tmp_path / "x.npz")[0] == 0
    np.savez(tmp_path / "z.npz", z=weight(2, 3, 12, 12))
    assert "an array for the input 'x'" in run(capsys, "compare", path, "--input", tmp_path / "z.npz")[2]


def test_compare_tells_what_differs(tmp_path: Path, capsys: Any, reference: Backend, monkeypatch: Any) -> None:
    pytest.importorskip("onnxruntime")
    path = onnx_file(tmp_path / "a.onnx")
    load = cli.models.load_model

    def wrong(path: Any, **more: Any) -> Any:
        model = load(path, **more)
        with te.no_grad():
            model.get_parameter("fc.weight").mul_(-1.0)
        return model

    monkeypatch.setattr(cli.models, "load_model", wrong)
    status, text, _ = run(capsys, "compare", path)
    assert status == 1
    assert "DIFFERS" in text
    status, found = run_json(capsys, "compare", path)
    assert found["agrees"] is False
    differences = {entry["op"]: entry["difference"] for entry in found["layers"]}
    assert differences["Flatten"] < 1e-5 < differences["Gemm"]
    assert run(capsys, "compare", path, "--tolerance", "50")[0] == 0


def test_compare_tflite(tmp_path: Path, capsys: Any, backend: Backend) -> None:
    pytest.importorskip("ai_edge_litert")
    network(tmp_path / "a.tflite")
    status, found = run_json(capsys, "compare", tmp_path / "a.tflite")
    assert (status, found["against"]) == (0, "LiteRT")
    assert {"a", "c", "s", "t", "m", "y"} == {entry["name"] for entry in found["layers"]}
    assert max(entry["difference"] for entry in found["layers"]) < 1e-5


def test_compare_of_half(tmp_path: Path, capsys: Any, reference: Backend) -> None:
    """What rounds in 16 bits differs by more; a quantised file is told of the option that reads it."""
    pytest.importorskip("onnxruntime")
    model = te.nn.Linear(6, 3).half()
    te.convert.to_onnx(model, te.zeros(2, 6, dtype=te.float16), tmp_path / "a.onnx")
    status, found = run_json(capsys, "compare", tmp_path / "a.onnx")
    assert (status, found["tolerance"]) == (0, 1e-3)
    assert run_json(capsys, "compare", tmp_path / "a.onnx", "--tolerance", "0.5")[1]["tolerance"] == 0.5
    d = Draft()
    d.scales["x"] = [0.5], [0], 0
    d.op("RELU", [d.value("x", (1, 4), "int8")], [d.value("y", (1, 4), "int8")])
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    assert "Pass --dequantize" in run(capsys, "compare", tmp_path / "a.tflite")[2]


def test_compare_without_the_runtime(tmp_path: Path, capsys: Any, reference: Backend, monkeypatch: Any) -> None:
    network(tmp_path / "a.tflite")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = run(capsys, "compare", tmp_path / "a.tflite")
    assert status == 1
    assert "pip install ai-edge-litert" in err
    assert "pip install onnxruntime" in run(capsys, "compare", onnx_file(tmp_path / "a.onnx"))[2]


@pytest.mark.parametrize(
    "name", ["mlperf_cifar10_resnet8_float.tflite", "mobilenet_v1_0.25_224_float.tflite", "mnist_cntk.onnx"]
)
def test_real_files(name: str, tmp_path: Path, capsys: Any, opencl: Backend) -> None:
    if not (DATA / name).exists():
        pytest.skip("no real files are here")
    pytest.importorskip("ai_edge_litert" if name.endswith("tflite") else "onnxruntime")
    status, found = run_json(capsys, "info", DATA / name)
    assert status == 0
    assert found["problems"] == []
    assert {"all", "bias", "head"} <= {entry["policy"] for entry in found["policies"]}
    status, found = run_json(capsys, "compare", DATA / name)
    assert status == 0
    assert len(found["layers"]) >= 9
    assert max(entry["difference"] for entry in found["layers"]) < 1e-4
    assert run(capsys, "extract", DATA / name, tmp_path / "q")[0] == 0


def test_failures_as_json(tmp_path: Path, reference: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine reads what was wrong where it reads results."""
    (tmp_path / "a.onnx").write_bytes(b"damaged")
    for path, words in (
        (tmp_path / "a.onnx", "ONNX file"),
        (tmp_path / "b.onnx", "No such file"),
        (tmp_path, "config"),
    ):
        assert cli.main(["info", str(path), "--json"]) == 1
        assert words in json.loads(capsys.readouterr().out)["error"]


def test_a_quantised_decoder_and_a_scalar_input(
    tmp_path: Path, reference: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    te.manual_seed(0)
    (tmp_path / "a.gguf").write_bytes(of_model(te.models.llama(FAMILIES["llama"]), "llama", quantised="Q8_0"))
    assert cli.main(["info", str(tmp_path / "a.gguf"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    held = te.load_model(tmp_path / "a.gguf").parameters()
    assert found["parameter_bytes"] == sum(param.nbytes for param in te.load_model(tmp_path / "a.gguf").parameters())
    assert 0 < found["trainable"] == sum(param.numel() for param in held if param.dtype.blocks is None)
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [make("Mul", ["x", "s"], ["y"])], "g", [info("x", 1, [1, 3]), info("s", 1, [])], [info("y", 1, None)]
    )
    (tmp_path / "a.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    assert cli.main(["info", str(tmp_path / "a.onnx"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["inputs"][1]["shape"], found["outputs"][0]["shape"]) == ([], [1, 3])
