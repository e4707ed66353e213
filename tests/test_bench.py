"""``tinyedge bench``: what it measures is what it says, and what it cannot do it says with a remedy."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tinyedge as te
from tinyedge import cli
from tinyedge.backends import Backend
from tinyedge.bench import ops, roofline, startup, turns
from tinyedge.bench.ops import CASES, Case
from tinyedge.bench.workloads import INFERENCE, TRAINING, WORKLOADS, Run
from tinyedge.errors import MissingPackageError
from tinyedge.op import BACKWARD, FORWARD, functions, registry


def test_bench_of_a_workload(reference: Backend, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    results, pictures = tmp_path / "results.json", tmp_path / "pictures"
    arguments = ["bench", "lenet5", "--rounds", "2", "--json", str(results), "--out", str(pictures)]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "tinyedge eager ms" in text
    assert "saved for backward" in text
    found = json.loads(results.read_text())[TRAINING]["lenet5"]
    assert set(found["median_ms"]) == {"tinyedge eager", "tinyedge"}
    assert found["launches"] > 20
    assert found["parameter_bytes"] == 4 * 61706
    assert 0 < found["saved_bytes"] < found["peak_bytes"]
    assert (pictures / "training-step.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["bench", "lenet5", "--rounds", "1", "--inference", "--json", str(results)]) == 0
    inference = json.loads(results.read_text())[INFERENCE]["lenet5"]
    assert inference["saved_bytes"] == 0
    assert inference["flops"] < found["flops"] / 2


def test_bench_of_ops(backend: Backend, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    small = (Case("matmul 64", "matmul", ((64, 64), (64, 64))), Case("relu", "relu", ((64, 64),)))
    monkeypatch.setattr(ops, "CASES", small)
    monkeypatch.setattr(roofline, "COPY_BYTES", 2**16)
    monkeypatch.setattr(roofline, "LONG_ENOUGH_NS", 0)
    monkeypatch.setattr(roofline, "measure_ceilings", lambda backend: roofline.Ceilings(10.0, 100.0))
    results = tmp_path / "results.json"
    arguments = ["bench", "--ops", "--rounds", "2", "--json", str(results), "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert "100 GFLOP/s" in capsys.readouterr().out
    rates = json.loads(results.read_text())["ops"]["rates"]
    flops = {(rate["label"], rate["direction"]): rate["flops"] for rate in rates}
    flops.setdefault(("relu", BACKWARD), 64**2)  # it may be fused with forward
    assert flops == {
        ("matmul 64", FORWARD): 2 * 64**3,
        ("matmul 64", BACKWARD): 4 * 64**3,
        ("relu", FORWARD): 64**2,
        ("relu", BACKWARD): 64**2,
    }
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_ceilings(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "COPY_BYTES", 2**20)
    monkeypatch.setattr(roofline, "LONG_ENOUGH_NS", 0)
    monkeypatch.setattr(roofline, "WIDTHS", (4,))
    found = roofline.measure_ceilings(backend)
    assert found.gbytes > 0.01
    assert found.gflops > 0.01
    rate = ops.Rate("", "", FORWARD, 1, 100.0, int(25 * found.gflops), int(50 * found.gbytes))
    assert found.reached(rate) == pytest.approx(0.5, rel=0.2)


def test_cases_name_ops_and_functions() -> None:
    for case in CASES:
        assert case.op in registry
        assert (case.function or case.op) in functions
    assert max(Counter(case.label for case in CASES).values()) == 1


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_can_be_built(name: str, reference: Backend) -> None:
    x, y = WORKLOADS[name].sample()
    assert x.shape == WORKLOADS[name].shape
    assert y.max() < WORKLOADS[name].classes


def test_turns_are_taken() -> None:
    order: list[str] = []
    times = turns.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    assert order[2 * turns.WARM_UP :] == ["a", "b"] * 3


def test_a_process_of_its_own(reference: Backend) -> None:
    times = turns._in_process("tinyedge", WORKLOADS["lenet5"], INFERENCE, 2, None)
    assert {name: len(values) for name, values in times.items()} == {"tinyedge eager": 2, "tinyedge": 2}


def test_startup(reference: Backend) -> None:
    found = startup.measure("lenet5")
    assert set(found) == {"cold", "warm"}
    parts = ["import", "device", "model", "first step", "second step", "third step"]
    assert list(found["cold"]) == list(found["warm"]) == parts


def test_a_run_is_what_it_says(reference: Backend) -> None:
    step = Run(WORKLOADS["lenet5"], TRAINING, True)
    for _ in range(2):
        step()
    assert all(parameter.grad is not None for parameter in step.model.parameters())
    assert step.program.name == "training_step"


def test_what_is_refused(capsys: Any, reference: Backend) -> None:
    assert cli.main(["bench", "lenet"]) == 1
    error = capsys.readouterr().err
    assert "'lenet'" in error
    assert all(name in error for name in WORKLOADS)
    assert cli.main(["bench", "lenet5", "--rounds", "0"]) == 1
    assert "--rounds of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["torch", "tinygrad"])
def test_an_absent_opponent(other: str, capsys: Any, monkeypatch: pytest.MonkeyPatch, reference: Backend) -> None:
    monkeypatch.setitem(sys.modules, other, None)
    assert cli.main(["bench", "lenet5", "--against", other]) == 1
    captured = capsys.readouterr()
    assert f"pip install {other}" in captured.err
    assert not captured.out


def test_pictures_without_matplotlib(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, reference: Backend
) -> None:
    """It is said before anything is measured."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["bench", "lenet5", "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert 'pip install "tinyedge[demo]"' in captured.err
    assert not captured.out
    assert issubclass(MissingPackageError, ImportError)


@pytest.mark.torch
@pytest.mark.parametrize("name", WORKLOADS)
def test_torch_runs_the_same_model(name: str, reference: Backend) -> None:
    from tinyedge.bench import torch_side

    ours = sum(p.numel() for p in Run(WORKLOADS[name], TRAINING, False).model.parameters())
    assert sum(p.numel() for p in torch_side.build(WORKLOADS[name]).parameters()) == ours
    assert te.get_backend() is reference
