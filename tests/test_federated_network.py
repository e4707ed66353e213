"""A real SuperLink with SuperNodes on loopback, of which most misbehave: the result is that of the others."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_federated import Network
from tinyedge.federated import delta as wire
from tinyedge.federated.flower import flower

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "federated_digits"
HONEST = 3
BAD = ("nan", "names", "shape", "dtype", "large", "late", "process dies", "device dies")
ROUNDS = 3

APP = '''\
"""Digits, of clients that misbehave as ROUGH says, each in its own way."""

import json
import os
import signal
import time

import numpy as np
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

import tinyedge as te
from federated_digits import app
from tinyedge.federated.flower import ARRAYS, flower

HONEST, BAD = json.loads(os.environ["ROUGH"])


def data_fn(node):
    return app.data_fn({"partition-id": int(node["partition-id"]) % HONEST, "num-partitions": HONEST})


good = te.federated.client_app(app.make_model, data_fn, loss=app.loss, optimizer_fn=app.optimizer_fn)


def spoil(kind, reply):
    values = {name: array.numpy().copy() for name, array in reply.content[ARRAYS].items()}
    first, last = list(values)[0], list(values)[-1]
    if kind == "nan":
        values[last][0] = np.nan
    elif kind == "names":
        values["0.other"] = values.pop(last)
    elif kind == "shape":
        values[last] = values[last][:-1]
    elif kind == "dtype":
        values[last] = values[last].astype(np.int32)
    elif kind == "large":
        values[first][:] = 1e4
    reply.content[ARRAYS] = flower().arrays(values)
    return reply


client = ClientApp()


@client.train()
def train(message, context):
    number = int(context.node_config["partition-id"]) - HONEST
    if number < 0:
        return good(message, context)
    kind = BAD[number]
    if kind == "late":
        time.sleep(120)
    elif kind == "process dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "device dies":
        os.killpg(0, signal.SIGKILL)
    return spoil(kind, good(message, context))


def done(model, report):
    np.savez(os.environ["ROUGH_WEIGHTS"], **{name: p.detach().numpy() for name, p in model.named_parameters()})
    app.write(model, report)


server = te.federated.server_app(
    app.make_model, strategy=lambda config: FedAvg(fraction_evaluate=0.0), wait_for=HONEST + len(BAD),
    evaluate_fn=lambda model: {"accuracy": app.accuracy(model)}, done=done, timeout=40,
)
'''  # fmt: skip


def write_app(folder: Path) -> Path:
    root = folder / "rough"
    (root / "rough").mkdir(parents=True)
    text = (DIGITS / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(text.replace("federated_digits", "rough").replace("federated-digits", "rough"))
    (root / "rough" / "__init__.py").write_text("")
    (root / "rough" / "app.py").write_text(APP)
    return root


def of_the_honest(app: Any) -> tuple[dict[str, Any], Any]:
    """What a run of the honest clients alone gives, in this process."""
    client = te.federated.client_app(app.make_model, app.data_fn, loss=app.loss, optimizer_fn=app.optimizer_fn)
    network = Network([client] * HONEST)
    for k, context in enumerate(network.contexts):
        context.node_config.update({"partition-id": k, "num-partitions": HONEST})
    found: dict[str, Any] = {}
    server = te.federated.server_app(
        app.make_model, rounds=ROUNDS, strategy=flower().FedAvg(fraction_evaluate=0.0),
        evaluate_fn=lambda model: {"accuracy": app.accuracy(model)},
        done=lambda model, report: found.update(weights=wire.weights_of(model), report=report),
    )  # fmt: skip
    server(network, SimpleNamespace(run_config={}, state=None, run_id=1, node_id=0, node_config={}))
    return found["weights"], found["report"]


@pytest.mark.slow
def test_clients_that_lie_die_and_come_late_on_a_real_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flwr")
    from flwr.supercore.task_identity import TaskIdentity

    monkeypatch.setattr(sys, "path", [str(DIGITS), *sys.path])
    spec = importlib.util.spec_from_file_location("run_digits", DIGITS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    weights_at = tmp_path / "weights.npz"
    monkeypatch.setenv("ROUGH", json.dumps([HONEST, BAD]))
    monkeypatch.setenv("ROUGH_WEIGHTS", str(weights_at))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, DIGITS))))
    folder = tmp_path / "run"
    folder.mkdir()
    report = script.deployed(HONEST + len(BAD), ROUNDS, folder, app=write_app(tmp_path))
    assert report["answered"] == [HONEST] * ROUNDS

    for name in ("task_id", "run_id", "node_id"):  # messages say from where they come
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)
    weights, honest = of_the_honest(importlib.import_module("federated_digits.app"))
    with np.load(weights_at) as found:
        for name, values in weights.items():
            np.testing.assert_allclose(found[name], values, atol=1e-4)
    for number, metrics in honest.metrics.items():
        assert report["metrics"][str(number)]["accuracy"] == pytest.approx(metrics["accuracy"], abs=0.006)

    log = (folder / "run.log").read_text()
    nodes = []
    for k in range(HONEST + len(BAD)):
        found_id = re.search(r"SuperNode ID: (\d+)", (folder / f"supernode{k}.log").read_text())
        assert found_id is not None
        nodes.append(int(found_id[1]))
    expected = {
        "nan": "finite numbers in 7.bias", "names": "unexpected ['0.other']", "shape": "7.bias of shape (10,)",
        "dtype": "got int32", "large": "a norm of at most", "late": "", "process dies": "", "device dies": "",
    }  # fmt: skip
    for kind, node in zip(BAD, nodes[HONEST:], strict=True):
        mine = [(number, reason) for number, by, reason in report["refused"] if by == node]
        assert mine, kind
        assert [number for number, _ in mine] == list(range(1, (len(mine) if kind == "device dies" else ROUNDS) + 1)), (
            kind
        )
        assert all(expected[kind] in reason for _, reason in mine), (kind, mine)
        assert f"node {node} is left out" in log, kind
    assert not {node for _, node, _ in report["refused"]} & set(nodes[:HONEST])
