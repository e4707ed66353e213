"""``tinyedge bench``: what it measures is what it says, and what it cannot do it says with a remedy."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import tinyedge as te
from tinyedge import cli
from tinyedge.autograd.registry import functions
from tinyedge.backends import Backend
from tinyedge.bench import command, ops, processes, roofline, scripts, startup, sustained
from tinyedge.bench.ops import CASES, Case
from tinyedge.bench.processes import PEERS
from tinyedge.bench.scripts import SCRIPTS
from tinyedge.bench.workloads import INFERENCE, TRAINING, WORKLOADS, Run
from tinyedge.errors import BackendError, MissingPackageError
from tinyedge.ir.step import BACKWARD, FORWARD, registry


def test_bench_of_a_workload(reference: Backend, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(processes, "PROCESSES", 1)
    results, pictures = tmp_path / "results.json", tmp_path / "pictures"
    arguments = ["bench", "lenet5", "--rounds", "2", "--json", str(results), "--out", str(pictures)]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "tinyedge eager ms" in text
    assert "saved for backward" in text
    found = json.loads(results.read_text())[TRAINING]["lenet5"]
    assert set(found["median_ms"]) == set(found["timings"]) == {"tinyedge eager", "tinyedge"}
    assert found["timings"]["tinyedge"]["process_medians_ms"] == [found["median_ms"]["tinyedge"]]
    assert found["launches"] > 20
    assert found["parameter_bytes"] == 4 * 61706
    assert 0 < found["saved_bytes"] < found["peak_bytes"]
    assert (pictures / "training-step.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["bench", "lenet5", "--rounds", "1", "--inference", "--markdown", "--json", str(results)]) == 0
    assert "|  | tinyedge eager ms | tinyedge ms |\n| --- | --- | --- |\n| lenet5 | " in capsys.readouterr().out
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


def fake_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer of two ways, of which the second is faster; both write down that they ran, and in what environment."""
    log = tmp_path / "log"

    def in_process(what: str, arguments: list[str]) -> Any:
        with log.open("a") as file:
            file.write(f"{what}\n")
        if arguments[0] == "about":
            return "a peer", {"peer": ["slow", "fast"]}
        return {"slow": [4.0, 6.0], "fast": [1.0, 3.0, 2.0], "": [8.0]}[arguments[3]]

    monkeypatch.setattr(processes, "_in_process", in_process)
    monkeypatch.setitem(PEERS, "torch", type("Side", (), {"require": lambda side: None}))


def test_processes_follow_each_other_and_the_best_way_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Backend
) -> None:
    fake_peer(tmp_path, monkeypatch)
    description, cases = processes.cases_of("torch")
    assert description == "a peer"
    found = processes.measure(WORKLOADS["lenet5"], TRAINING, [*processes.OURS, *cases], 3)
    turn = ["tinyedge eager", "tinyedge", "peer slow", "peer fast"]
    assert (tmp_path / "log").read_text().splitlines() == ["torch", *turn * processes.PROCESSES]
    assert (found["peer"].way, found["peer"].median_ms) == ("fast", 2.0)
    assert found["peer"].process_medians_ms == [2.0] * processes.PROCESSES
    assert found["peer"].ways_ms == {"slow": 5.0, "fast": 2.0}


def test_a_table_with_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Backend, capsys: Any) -> None:
    fake_peer(tmp_path, monkeypatch)
    assert cli.main(["bench", "lenet5", "--against", "torch", "--markdown"]) == 0
    text = capsys.readouterr().out
    assert "| lenet5 | 8.000 | 8.000 | 2.000 (fast) | 4.00 |" in text


def test_a_process_of_its_own_has_the_environment_of_the_user(
    monkeypatch: pytest.MonkeyPatch, reference: Backend
) -> None:
    """Nothing is set for a library's threads: that made some several times slower than their users see them."""
    given = []
    run = processes.subprocess.run

    def spy(*args: Any, **kwargs: Any) -> Any:
        given.append(kwargs.get("env"))
        return run(*args, **kwargs)

    monkeypatch.setattr(processes.subprocess, "run", spy)
    times = processes._in_process("tinyedge", ["measure", "tinyedge", "tinyedge", "", "lenet5", INFERENCE, "2"])
    assert len(times) >= 2
    assert given == [None]


def test_a_process_that_fails_says_why(reference: Backend) -> None:
    with pytest.raises(BackendError, match="no_such_side"):
        processes._in_process("a peer", ["about", "no_such_side"])


def test_times_are_those_of_warm_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WARM_UP_SECONDS", 0)
    monkeypatch.setattr(processes, "LEAST_SECONDS", 0)
    calls: list[int] = []
    assert len(processes.times_of(lambda: calls.append(1), 5)) == 5
    assert len(calls) == processes.WARM_UP_CALLS + 5


def test_startup(reference: Backend) -> None:
    found = startup.measure("lenet5")
    assert set(found) == {"cold", "warm"}
    parts = ["import", "device", "model", "first step", "second step", "third step"]
    assert list(found["cold"]) == list(found["warm"]) == parts


def test_a_run_is_what_it_says(reference: Backend) -> None:
    step = Run(WORKLOADS["lenet5"], TRAINING, True)
    for _ in range(2):
        step()
    assert all(parameter.grad is not None for parameter in step.parameters())
    assert step.program.name == "training_step"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_train(name: str, reference: Backend) -> None:
    """Compiled they give the losses of eager calls, and these fall."""
    losses = []
    for compiled in (False, True):
        te.manual_seed(0)
        training = SCRIPTS[name].make(**SCRIPTS[name].small)
        step = te.compile(training.step) if compiled else training.step
        batch = [te.tensor(array) for array in training.batch]
        losses.append([step(*batch).item() for _ in range(4)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert name == "dcgan" or losses[0][-1] < losses[0][0]  # two that play against each other


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_the_same_everywhere(name: str, backend: Backend, reference: Backend) -> None:
    losses = []
    for device in (backend, reference):
        with te.use_backend(device):
            te.manual_seed(0)
            training = SCRIPTS[name].make(**SCRIPTS[name].small)
            step = te.compile(training.step)
            batch = [te.tensor(array) for array in training.batch]
            losses.append([step(*batch).item() for _ in range(4)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)


def test_bench_of_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Backend, capsys: Any) -> None:
    """A peer that does not run scripts has no column's value there; with several rows there is a geometric mean."""
    fake_peer(tmp_path, monkeypatch)
    small = {name: scripts.Script(name, partial(item.make, **item.small), {}) for name, item in SCRIPTS.items()}
    two = {name: small[name] for name in ("mlp", "vae")}
    monkeypatch.setattr(command, "SCRIPTS", two)
    monkeypatch.setattr(command, "workload", {**WORKLOADS, **two}.__getitem__)
    arguments = ["bench", "lenet5", "--scripts", "--against", "torch", "--markdown"]
    assert cli.main([*arguments, "--json", str(tmp_path / "json")]) == 0
    text = capsys.readouterr().out
    assert "| lenet5 | 8.000 | 8.000 | 2.000 (fast) | 4.00 |" in text
    assert "| vae | 8.000 | 8.000 | 2.000 (fast) | 4.00 |" in text
    assert "| geometric mean |  |  |  | 4.00 |" in text
    assert set(json.loads((tmp_path / "json").read_text())["scripts"]) == {"mlp", "vae"}
    assert processes.has("torch", two["mlp"])
    assert not processes.has("jax", two["mlp"])
    assert processes.has("jax", WORKLOADS["lenet5"])
    assert cli.main(["bench", "mlp", "--inference"]) == 1
    assert "mlp is a script, which trains" in capsys.readouterr().err


def rapl(folder: Path, microjoules: str) -> None:
    zone = folder / "powercap/intel-rapl:0"
    for place in (zone, folder / "powercap/intel-rapl:0:0"):
        place.mkdir(parents=True)
        (place / "name").write_text("package-0\n")
        (place / "max_energy_range_uj").write_text("1000000\n")
        (place / "energy_uj").write_text(microjoules)


def test_sustained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Backend, capsys: Any) -> None:
    rapl(tmp_path, "500000\n")
    monkeypatch.setattr(sustained, "SYSTEM", tmp_path)
    monkeypatch.setattr(sustained, "MINUTE", 0.2)
    monkeypatch.setattr(sustained, "nvidia_meters", list)
    path = tmp_path / "json"
    assert cli.main(["bench", "lenet5", "--minutes", "2.5", "--json", str(path)]) == 0
    assert "RAPL package-0 W" in capsys.readouterr().out
    minutes = json.loads(path.read_text())["sustained"]["lenet5"]
    assert len(minutes) == 3
    for minute in minutes:
        assert 0 < minute["p50_ms"] <= minute["p99_ms"]
        assert minute["joules"] == {"RAPL package-0": 0}
        assert minute["steps"] * minute["p50_ms"] < 2000 * minute["seconds"]
    assert cli.main(["bench", "lenet5", "--minutes", "0"]) == 1
    assert "--minutes above 0" in capsys.readouterr().err


def test_energy_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter begins again at its range; one that cannot be read, or is not there, is said."""
    monkeypatch.setattr(sustained, "SYSTEM", tmp_path)
    monkeypatch.setattr(sustained, "nvidia_meters", list)
    assert sustained.meters() == ([], [mock.ANY])
    assert "no RAPL zone" in sustained.meters()[1][0]
    rapl(tmp_path, "900000\n")
    (meter,), missing = sustained.meters()
    assert not missing
    assert meter.joules() == 0.9
    assert meter.since(0.9, 0.2) == pytest.approx(0.3)
    assert meter.since(0.2, 0.9) == pytest.approx(0.7)
    (tmp_path / "powercap/intel-rapl:0/energy_uj").write_text("")
    found, (text,) = sustained.meters()
    assert not found
    assert "may need root" in text


def test_no_nvidia_driver() -> None:
    assert sustained.nvidia_meters("libnone.so") == []


def test_quantiles() -> None:
    assert sustained.quantiles([float(n) for n in range(1, 201)]) == (100.5, 198.0)
    assert sustained.quantiles([3.0]) == (3.0, 3.0)


def test_what_is_refused(capsys: Any, reference: Backend) -> None:
    assert cli.main(["bench", "lenet"]) == 1
    error = capsys.readouterr().err
    assert "'lenet'" in error
    assert all(name in error for name in WORKLOADS)
    assert cli.main(["bench", "lenet5", "--rounds", "0"]) == 1
    assert "--rounds of at least 1" in capsys.readouterr().err
    assert cli.main(["bench", "lenet5", "--against", "onnxruntime"]) == 1
    assert "--inference" in capsys.readouterr().err


@pytest.mark.parametrize("other", PEERS)
def test_an_absent_opponent(other: str, capsys: Any, monkeypatch: pytest.MonkeyPatch, reference: Backend) -> None:
    package = other.partition("-")[0]
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["bench", "lenet5", "--inference", "--against", other]) == 1
    captured = capsys.readouterr()
    assert f"--against {other}" in captured.err
    assert f"pip install {package}" in captured.err
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

    ours = sum(p.numel() for p in Run(WORKLOADS[name], TRAINING, False).parameters())
    assert sum(p.numel() for p in torch_side.build(WORKLOADS[name]).parameters()) == ours
    assert te.get_backend() is reference


@pytest.mark.torch
@pytest.mark.parametrize("name", SCRIPTS)
def test_torch_has_the_same_losses(name: str, reference: Backend) -> None:
    import torch

    from tinyedge.bench import torch_side

    te.manual_seed(0)
    ours = SCRIPTS[name].make(**SCRIPTS[name].small)
    theirs = torch_side.training_of(SCRIPTS[name], small=True)
    for module, copy in zip(ours.modules, theirs.modules, strict=True):
        copy.load_state_dict({key: torch.tensor(value.numpy()) for key, value in module.state_dict().items()})
    step = te.compile(ours.step)
    batch, copies = [te.tensor(array) for array in ours.batch], [torch.tensor(array) for array in theirs.batch]
    losses = [[step(*batch).item(), theirs.step(*copies).item()] for _ in range(4)]
    np.testing.assert_allclose(*np.transpose(losses), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
def test_jax_runs_the_same_model(name: str, reference: Backend) -> None:
    """From the same parameters: the same loss, and the same gradient of each of them."""
    jax = pytest.importorskip("jax")
    from tinyedge.bench import jax_side

    workload = WORKLOADS[name]
    te.manual_seed(0)
    apply, parameters, statistics = jax_side.build(workload)
    x, y = workload.sample()
    loss, gradients = jax.value_and_grad(partial(jax_side.loss_of, apply))(parameters, statistics, x, y)
    step = Run(workload, TRAINING, False)  # it starts from the same seed
    ours = step.function(step.x, step.y)
    assert float(loss) == pytest.approx(ours.item(), rel=1e-4)
    for number, (parameter, gradient) in enumerate(zip(step.parameters(), gradients, strict=True)):
        got, wanted = np.asarray(gradient), parameter.grad.numpy()
        # In all: an activation that rounds to the other side of zero changes a few entries more.
        assert np.linalg.norm(got - wanted) <= 5e-3 * np.linalg.norm(wanted) + 1e-6, f"parameter {number}"
