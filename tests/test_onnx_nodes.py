"""ONNX's own tests of each op: the outputs are the published ones, or the op is refused by name."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.convert.onnx_quantised import QUANTISED
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.errors import TinyedgeError

pytestmark = pytest.mark.onnx

ROUNDED = QUANTISED - {"DequantizeLinear"}
"""Ops whose results are integers in the file, and floats here: test_onnx_quantised.py has their tests."""

RANDOM = {"Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}

NUMBERS = {"f": 1e-4, "i": 0, "u": 0, "b": 0}
"""How far a result may be off, relative to the largest number, by kind of type."""


def cases() -> list[Any]:
    """The node tests of the ops that there are."""
    onnx = pytest.importorskip("onnx")
    from onnx.backend.test.case.node import collect_testcases

    assert onnx
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of infinities on purpose
        return [case for case in collect_testcases(None) if case.model is not None]


def outcome(case: Any, folder: Path) -> str:
    """ "agree", "refused: ..." or "wrong: ..."."""
    path = folder / "model.onnx"
    path.write_bytes(case.model.SerializeToString())
    try:
        model = te.convert.from_onnx(path, dequantize=True)
        for inputs, wanted in case.data_sets:
            given = model(*[
                [te.tensor(each) for each in array] if isinstance(array, list) else te.tensor(np.asarray(array))
                for array in inputs
            ])  # fmt: skip
            results = given if isinstance(given, tuple) else (given,)
            assert len(results) == len(wanted)
            rows: list[tuple[int, Any, Any]] = []
            for number, (result, array) in enumerate(zip(results, wanted)):
                if isinstance(array, list) is not isinstance(result, list) or (
                    isinstance(array, list) and len(array) != len(result)
                ):
                    return f"wrong: output {number} is another list of tensors"
                pairs = zip(result, array) if isinstance(array, list) else [(result, array)]
                rows += [(number, own, each) for own, each in pairs]
            for number, result, array in rows:
                found, array = result.detach().numpy(), np.asarray(array)
                if found.shape != array.shape or found.dtype != array.dtype:
                    return f"wrong: output {number} is {found.dtype} {found.shape}, not {array.dtype} {array.shape}"
                bound = 2e-3 if array.dtype == np.float16 else NUMBERS[array.dtype.kind]
                scale = float(np.abs(array[np.isfinite(array)]).max(initial=1e-3)) if array.size else 1.0
                if not np.allclose(found, array, rtol=bound, atol=bound * scale, equal_nan=True):
                    return f"wrong: output {number} is off by {np.abs(found.astype(float) - array).max():.3g}"
    except TinyedgeError as error:
        return f"refused: {type(error).__name__}: {str(error).splitlines()[-1][:150]}"
    return "agree"


def is_float(case: Any) -> bool:
    """Whether the first input is of 16 to 64 bits of float."""
    given = [array for inputs, _ in case.data_sets[:1] for array in inputs]
    given = [each for array in given for each in (array if isinstance(array, list) else [array])]
    return any(isinstance(array, np.ndarray) and array.dtype.kind == "f" for array in given)


def test_node_cases(tmp_path: Path, record_property: Any, capsys: Any) -> None:
    """No wrong answer, and at least 95 % of the float cases of the ops that there are agree."""
    counts: Counter[str] = Counter()
    lines = []
    with te.use_backend("numpy"):
        for case in cases():
            ops = {node.op_type for node in case.model.graph.node}
            if not ops <= {*ONNX.names(), "Constant", "If"} or not is_float(case) or ops & (ROUNDED | RANDOM):
                continue
            result = outcome(case, tmp_path)
            counts[result.partition(":")[0]] += 1
            if result != "agree":
                lines.append(f"{case.name}: {result}")
    with capsys.disabled():
        print("\n" + "\n".join(lines) + f"\n{dict(counts)}")
    assert not counts["wrong"]
    assert counts["agree"] >= 0.95 * sum(counts.values())
