"""ONNX's Resize with antialias and of crops, against ONNX's reference and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_onnx import helper, onnx, write
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError

RNG = np.random.default_rng(0)


def check(path: Path, x: Any, constants: dict[str, Any], **attributes: Any) -> Any:
    """The result, after it was compared."""
    names = [name if name in constants else "" for name in ("roi", "scales", "sizes")]
    node = helper.make_node("Resize", ["x", *names], ["y"], **attributes)
    dims = [None, *x.shape[1:]] if "roi" in constants else list(x.shape)
    write(path, [node], {"x": dims}, ["y"], constants, 19)
    from onnx.reference import ReferenceEvaluator

    given = te.tensor(x, requires_grad=True)
    y = te.load_model(path)(given)
    wanted = ReferenceEvaluator(onnx.load(path)).run(None, {"x": x})[0]
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-4)
    runtime = pytest.importorskip("onnxruntime")
    model = onnx.load(path)
    model.ir_version, model.graph.output[0].type.tensor_type.elem_type = 8, 1  # what older runtimes need
    onnx.save(model, path)
    wanted = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-4)
    return given, y


@pytest.mark.parametrize("outside", [0, 1])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(3, 5), (9, 17), (4, 20), (1, 1)])
def test_antialias(tmp_path: Path, backend: Backend, mode: str, size: tuple[int, int], outside: int) -> None:
    x = RNG.standard_normal((2, 3, 9, 11)).astype(np.float32)
    constants = {"sizes": np.array([2, 3, *size])}
    given, y = check(tmp_path / "a.onnx", x, constants, mode=mode, antialias=1, exclude_outside=outside)
    y.sum().backward()
    if min(size) < 9:
        np.testing.assert_allclose(given.grad.numpy().sum(), y.numel(), rtol=1e-4)  # each output's weights are 1 in all


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_crops(tmp_path: Path, backend: Backend, mode: str) -> None:
    x = RNG.standard_normal((1, 2, 6, 7)).astype(np.float32)
    roi = np.array([0, 0, 0.2, -0.25, 1, 1, 0.9, 1.2], np.float32)
    constants = {"roi": roi, "sizes": np.array([1, 2, 5, 9])}
    given, y = check(
        tmp_path / "a.onnx", x, constants, mode=mode, coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.0,
    )  # fmt: skip
    assert (y.detach().numpy() == 7).any()
    y.sum().backward()
    assert np.isfinite(given.grad.numpy()).all()


def test_crops_need_sizes(tmp_path: Path, reference: Backend) -> None:
    node = helper.make_node(
        "Resize", ["x", "roi", "scales"], ["y"], coordinate_transformation_mode="tf_crop_and_resize"
    )
    weights = {"roi": np.zeros(8, np.float32), "scales": np.ones(4, np.float32)}
    model = te.load_model(write(tmp_path / "a.onnx", [node], {"x": [1, 2, 6, 7]}, ["y"], weights))
    with pytest.raises(ArgumentError, match="tf_crop_and_resize"):
        model(te.randn(1, 2, 6, 7))
