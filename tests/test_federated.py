"""Federated learning: what travels, what is refused, and clients that misbehave."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import cli, nn, optim
from tinyedge.errors import ArgumentError, MissingPackageError, UpdateError
from tinyedge.federated import delta as wire
from tinyedge.federated.flower import ARRAYS, WIRE, flower
from tinyedge.federated.server import WireGrid

SHAPES = {"a": (3, 4), "b": (5,), "c": (), "d": (0, 2), "e": (2, 3, 2)}


def some(seed: int = 0, scale: float = 1.0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {name: np.asarray(random.standard_normal(shape) * scale, np.float32) for name, shape in SHAPES.items()}


# What travels, without Flower


@pytest.mark.parametrize(("precision", "error"), [("float32", 0.0), ("float16", 1e-3), ("int8", 0.5 / 127)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4])
def test_there_and_back(precision: str, error: float, scale: float) -> None:
    given = some(scale=scale)
    back = wire.decode("test", wire.encode(given, precision), SHAPES, precision)
    for name, values in given.items():
        assert back[name].dtype == np.float32
        assert back[name].shape == values.shape
        largest = np.abs(values).max(initial=0)
        bound = error * largest * 1.001 + (1e-7 if precision == "float16" else 0)
        np.testing.assert_allclose(back[name], values, rtol=0, atol=bound)


def test_int8_has_a_scale_a_row() -> None:
    values = np.array([[1.0, -127.0], [0.001, 0.0005], [0.0, 0.0]], np.float32)
    coded = wire.encode({"a": values}, "int8")["a"]
    assert coded.nbytes == 3 * 4 + 6
    np.testing.assert_allclose(wire.decode("test", {"a": coded}, {"a": (3, 2)}, "int8")["a"], values, rtol=0.01)


@given(seed=st.integers(0, 99), rounds=st.integers(1, 20))
def test_nothing_is_lost_with_error_feedback(seed: int, rounds: int) -> None:
    """The sum of what was sent is the sum of what was to be sent, but for one rounding."""
    rest, sent, meant = some(seed, 0.0), some(seed, 0.0), some(seed, 0.0)
    for number in range(rounds):
        for name, values in some(seed + number).items():
            meant[name] = meant[name] + values
            rest[name] = rest[name] + values
        back = wire.decode("test", wire.encode(rest, "int8"), SHAPES, "int8")
        for name in SHAPES:
            rest[name], sent[name] = rest[name] - back[name], sent[name] + back[name]
    for name in SHAPES:
        np.testing.assert_allclose(sent[name] + rest[name], meant[name], atol=1e-4)
        assert np.abs(rest[name]).max(initial=0) < 0.05


@pytest.mark.parametrize("precision", wire.PRECISIONS)
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda coded: coded.pop("a"), r"missing \['a'\]"),
        (lambda coded: coded.update(z=coded["a"]), r"unexpected \['z'\]"),
        (lambda coded: coded.update(a=coded["a"].astype(np.int64)), "got int64"),
        (lambda coded: coded.update(a=coded["a"].reshape(-1)[:-1]), "a of shape"),
        (lambda coded: coded.update(a=[1.0]), "got list"),
    ],
)
def test_what_does_not_fit_is_refused(precision: str, change: Callable[[Any], Any], text: str) -> None:
    coded = wire.encode(some(), precision)
    change(coded)
    with pytest.raises(UpdateError, match=text):
        wire.decode("test", coded, SHAPES, precision)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    coded = wire.encode(some(), "float32")
    coded["b"][1] = bad
    with pytest.raises(UpdateError, match="finite numbers in b"):
        wire.decode("test", coded, SHAPES, "float32")
    rows = wire.encode(some(), "int8")
    rows["b"] = np.frombuffer(np.float32(bad).tobytes() + rows["b"].tobytes()[4:], np.uint8)
    with pytest.raises(UpdateError, match="finite numbers in b"):
        wire.decode("test", rows, SHAPES, "int8")


def test_a_norm(reference: Any) -> None:
    given = some()
    norm = wire.norm_of(given)
    wire.decode("test", given, SHAPES, "float32", norm * 1.01)
    with pytest.raises(UpdateError, match="a norm of at most"):
        wire.decode("test", given, SHAPES, "float32", norm * 0.99)


# Rounds, with Flower


def model_fn() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    return model


def data_fn(node: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    random = np.random.default_rng(int(node["partition-id"]))
    images = random.standard_normal((24, 1, 4)).astype(np.float32)
    samples = [(te.tensor(x), te.tensor([int(x[0, :3].argmax())])) for x in images]
    return samples[:16], samples[16:]


def loss(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    return F.cross_entropy(model(x), y)


def optimizer_fn(params: list[Any]) -> optim.Optimizer:
    return optim.Adam(params, lr=0.02, accumulate=4)


class Network:
    """A grid of clients in this process. ``spoil(round, node, reply)`` returns another reply, None for none, or
    a list of several.
    """

    def __init__(self, clients: list[Any], spoil: Callable[[int, int, Any], Any] | None = None) -> None:
        f = flower()
        from flwr.app import Context

        self.clients = clients
        self.spoil = spoil or (lambda number, node, reply: reply)
        self.contexts = [Context(1, k, {"partition-id": k}, f.RecordDict(), {}) for k in range(len(clients))]
        self.round = 0
        self.sent: list[Any] = []

    def get_node_ids(self) -> list[int]:
        return list(range(len(self.clients)))

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        f = flower()
        from flwr.app import Error

        replies = []
        trains = False
        for message in messages:
            trains = message.metadata.message_type == f.MessageType.TRAIN
            self.sent.append(message.content)
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = f"{self.round} {node}"  # as the real one does
            try:
                reply = self.clients[node](message, self.contexts[node])
            except Exception as error:
                reply = f.Message(Error(1, f"{type(error).__name__}: {error}"), reply_to=message)
            if trains:
                reply = self.spoil(self.round, node, reply)
            replies += reply if isinstance(reply, list) else [] if reply is None else [reply]
        self.round += trains
        return replies


def run(network: Network, rounds: int = 4, **options: Any) -> tuple[dict[str, Any], Any]:
    done: dict[str, Any] = {}

    def keep(model: nn.Module, report: Any) -> None:
        done.update(weights=wire.weights_of(model), report=report)

    app = te.federated.server_app(model_fn, rounds=rounds, done=keep, **options)
    app(network, SimpleNamespace(run_config={}, state=None, run_id=1, node_id=0, node_config={}))
    return done["weights"], done["report"]


def clients(count: int = 4, **options: Any) -> list[Any]:
    app = te.federated.client_app(model_fn, data_fn, loss=loss, optimizer_fn=optimizer_fn, **options)
    return [app] * count


@pytest.fixture
def flwr(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = pytest.importorskip("flwr")
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("task_id", "run_id", "node_id"):  # messages say from where they come
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)
    return found


def mean_loss(model: nn.Module) -> dict[str, float]:
    with te.no_grad():
        tests = [sample for k in range(4) for sample in data_fn({"partition-id": k})[1]]
        return {"loss": float(np.mean([loss(model, *sample).item() for sample in tests]))}


@pytest.mark.parametrize("precision", wire.PRECISIONS)
def test_rounds(flwr: Any, reference: Any, precision: str) -> None:
    network = Network(clients(precision=precision))
    weights, report = run(network, rounds=6, precision=precision, evaluate_fn=mean_loss)
    assert sorted(weights) == ["2.bias", "2.weight"]
    assert report.answered == [4] * 6
    assert not report.refused
    assert report.metrics[6]["loss"] < report.metrics[0]["loss"] - 0.15
    record = network.sent[-1]
    assert set(record[ARRAYS]) == {"2.bias", "2.weight"}
    states = [context.state for context in network.contexts]
    assert all(state["tinyedge.numbers"]["0/step"] == 24 for state in states)
    assert len({str(state["tinyedge.numbers"]["generator"]) for state in states}) == 4
    expected, _ = run(Network(clients()), rounds=6)
    tolerance = {"float32": 1e-6, "float16": 2e-3, "int8": 3e-2}[precision]
    for name, values in weights.items():
        np.testing.assert_allclose(values, expected[name], atol=tolerance)


def test_one_process_or_many(flwr: Any, reference: Any) -> None:
    """A process that plays all clients gives what a process for each gives: nothing leaks from one to another."""
    one, _ = run(Network(clients()), rounds=3)
    apart, _ = run(Network([app for _ in range(4) for app in clients(1)]), rounds=3)
    for name, values in one.items():
        np.testing.assert_array_equal(values, apart[name])


def changed(reply: Any, change: Callable[[dict[str, Any]], Any]) -> Any:
    values = {name: array.numpy().copy() for name, array in reply.content[ARRAYS].items()}
    change(values)
    reply.content[ARRAYS] = flower().arrays(values)
    return reply


def with_number(reply: Any, name: str, value: float) -> Any:
    reply.content["metrics"][name] = value
    return reply


def without(reply: Any, name: str) -> Any:
    del reply.content[name]
    return reply


def without_number(reply: Any, name: str) -> Any:
    del reply.content["metrics"][name]
    return reply


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda reply: None, "a reply within 600 s"),
        (lambda reply: changed(reply, lambda v: v["2.bias"].fill(np.nan)), "finite numbers in 2.bias"),
        (lambda reply: changed(reply, lambda v: v["2.weight"].fill(1e6)), "a norm of at most"),
        (lambda reply: changed(reply, lambda v: v.pop("2.bias")), "missing"),
        (lambda reply: changed(reply, lambda v: v.update({"0.bias": v["2.bias"]})), "unexpected"),
        (lambda reply: changed(reply, lambda v: v.update({"2.bias": v["2.bias"][:1]})), "of shape"),
        (lambda reply: changed(reply, lambda v: v.update({"2.bias": v["2.bias"].astype(np.int32)})), "int32"),
        (lambda reply: with_number(reply, "num-examples", -5), "num-examples above 0"),
        (lambda reply: with_number(reply, "loss", float("nan")), "finite metrics"),
        (lambda reply: without(reply, "metrics"), "got none"),
        (lambda reply: without_number(reply, "loss"), "the metrics ['loss', 'num-examples']"),
        (lambda reply: without(reply, WIRE), "changes of the same base"),
        (lambda reply: without(reply, ARRAYS), "arrays"),
    ],
    ids=[
        "late",
        "nan",
        "large",
        "less",
        "more",
        "shape",
        "dtype",
        "examples",
        "loss",
        "metrics",
        "no loss",
        "wire",
        "arrays",
    ],
)
def test_a_client_that_misbehaves_harms_nothing(flwr: Any, reference: Any, spoil: Any, text: str) -> None:
    """The result is that of the other three."""
    bad = Network(clients(), lambda number, node, reply: spoil(reply) if node == 1 else reply)
    weights, report = run(bad, rounds=2)
    without_it, _ = run(Network(clients(), lambda number, node, reply: None if node == 1 else reply), rounds=2)
    assert report.answered == [3, 3]
    for name, values in weights.items():
        np.testing.assert_array_equal(values, without_it[name])
    assert report.asked == [4, 4]
    assert [(number, node) for number, node, _ in report.refused] == [(1, 1), (2, 1)]
    assert all(text in reason for _, _, reason in report.refused)


def test_a_client_that_says_more_does_not_end_the_run(flwr: Any, reference: Any) -> None:
    """Flower's strategies raise where the replies of a round have unlike records or metrics."""
    from flwr.serverapp.strategy import FedAvg

    (app,) = clients(1)

    def talks(message: Any, context: Any) -> Any:
        reply = app(message, context)
        reply.content["metrics"]["mood"] = 1.0
        reply.content["other"] = flower().MetricRecord({"num-examples": 1.0})
        return reply

    for others in (1, 3):
        weights, report = run(Network([app] * others + [talks]), rounds=2, strategy=FedAvg())
        honest, _ = run(Network([app] * (others + 1)), rounds=2)
        assert report.answered == [others + 1] * 2
        assert set(report.result.evaluate_metrics_clientapp[2]) == {"loss"}
        for name, values in weights.items():
            np.testing.assert_array_equal(values, honest[name])


def test_one_of_two_that_goes_wild(flwr: Any, reference: Any) -> None:
    """Two have no median of their own: they are compared with the round before. What overflows is never used."""

    def wild(number: int, node: int, reply: Any) -> Any:
        return reply if node == 0 or not number else changed(reply, lambda v: v["2.weight"].fill(1e20))

    weights, report = run(Network(clients(2), wild), rounds=2)
    assert report.answered == [2, 1]
    assert "the median of this round and the last" in report.refused[0][2]
    assert max(float(np.abs(values).max()) for values in weights.values()) < 2
    large = {name: np.full(values.shape, 3e38, np.float32) for name, values in weights.items()}
    grid = WireGrid(None, weights, "float32", None, report)
    reply = SimpleNamespace(
        metadata=SimpleNamespace(src_node_id=3),
        content=flower().RecordDict(
            {
                ARRAYS: flower().arrays(large), "metrics": flower().MetricRecord({"num-examples": 1}),
                WIRE: flower().ConfigRecord({"base": grid.digest, "precision": "float32"}),
            }
        ),
    )  # fmt: skip
    with pytest.raises(UpdateError, match=r"changes that leave 2\.weight finite, but the sum overflows"):
        grid._delta(reply, large)


def test_a_client_that_answers_twice_counts_once(flwr: Any, reference: Any) -> None:
    twice = Network(clients(), lambda number, node, reply: [reply] * 2 if node == 1 else reply)
    weights, report = run(twice, rounds=2)
    honest, _ = run(Network(clients()), rounds=2)
    assert report.answered == [4, 4]
    assert [(number, node) for number, node, _ in report.refused] == [(1, 1), (2, 1)]
    assert "a second one" in report.refused[0][2]
    for name, values in weights.items():
        np.testing.assert_array_equal(values, honest[name])


def test_a_node_that_was_not_asked_counts_for_nothing(flwr: Any, reference: Any) -> None:
    def intrudes(number: int, node: int, reply: Any) -> Any:
        if node != 1:
            return reply
        reply.metadata._src_node_id = 77
        return reply

    weights, report = run(Network(clients(), intrudes), rounds=1)
    without_it, _ = run(Network(clients(), lambda number, node, reply: None if node == 1 else reply), rounds=1)
    assert report.answered == [3]
    assert "was not asked" in report.refused[0][2]
    for name, values in weights.items():
        np.testing.assert_array_equal(values, without_it[name])


def test_of_a_device_that_is_gone_the_superlink_says_so(flwr: Any, reference: Any) -> None:
    """Such an error comes from the SuperLink's own node; the report names the device."""
    from flwr.app import Error

    def gone(number: int, node: int, reply: Any) -> Any:
        if node != 2:
            return reply
        reply._content, reply._error = None, Error(5, "Node Unavailable")
        reply.metadata._src_node_id = 10**6
        return reply

    weights, report = run(Network(clients(), gone), rounds=1)
    without_it, _ = run(Network(clients(), lambda number, node, reply: None if node == 2 else reply), rounds=1)
    assert report.answered == [3]
    assert report.refused == [(1, 2, "Node Unavailable")]
    for name, values in weights.items():
        np.testing.assert_array_equal(values, without_it[name])


def test_the_server_waits_for_nodes_before_the_first_round_alone(flwr: Any, reference: Any) -> None:
    """Where one is gone later, the rounds go on without it."""
    network = Network(clients())
    looks: list[int] = []

    def there() -> list[int]:
        looks.append(len(looks))
        return [0, 1, 2, 3] if looks[-1] in (1, 2, 3) else [0, 1, 2]

    network.get_node_ids = there  # type: ignore[method-assign]
    _, report = run(network, rounds=2, wait_for=lambda config: 4)
    assert looks[:2] == [0, 1]
    assert report.asked == [4, 3]
    with pytest.raises(ArgumentError, match="wait_for of 1 or more"):
        te.federated.server_app(model_fn, wait_for=0)


def test_a_client_that_boasts_counts_little_more(flwr: Any, reference: Any) -> None:
    def boast(number: int, node: int, reply: Any) -> Any:
        return with_number(reply, "num-examples", 10**9) if node == 1 else reply

    boasts = Network(clients(), boast)
    weights, report = run(boasts, rounds=1)
    honest, _ = run(Network(clients()), rounds=1)
    alone, _ = run(Network(clients(), lambda number, node, reply: reply if node == 1 else None), rounds=1)
    assert report.answered == [4]
    away = max(float(np.abs(weights[name] - alone[name]).max()) for name in weights)
    assert away > 0.2 * max(float(np.abs(honest[name] - alone[name]).max()) for name in weights)


def test_a_client_that_dies_and_a_round_of_none(flwr: Any, reference: Any) -> None:
    def fails(node: Mapping[str, Any]) -> Any:
        raise OSError("no data here")

    dead = te.federated.client_app(model_fn, fails, loss=loss, optimizer_fn=optimizer_fn)
    weights, report = run(Network([*clients(3), dead]), rounds=2)
    assert report.answered == [3, 3]
    assert all("no data here" in reason for _, _, reason in report.refused)
    network = Network([dead, dead])
    weights, report = run(network, rounds=1)
    te.manual_seed(0)
    for name, values in wire.weights_of(model_fn()).items():
        np.testing.assert_array_equal(weights[name], values)
    assert report.answered == [0]


def test_a_client_refuses_what_does_not_fit(flwr: Any, reference: Any) -> None:
    other = te.federated.client_app(model_fn, data_fn, loss=loss, optimizer_fn=optimizer_fn, seed=1)
    _, report = run(Network([*clients(2), other]), rounds=1)
    assert "the server's model to begin with the same weights" in report.refused[0][2]
    network = Network(clients(2, precision="int8"))
    _, report = run(network, rounds=1)
    assert "the server has 'float32'" in report.refused[0][2]
    assert not network.contexts[0].state
    nothing = te.federated.client_app(
        model_fn, data_fn, loss=lambda model, x, y: loss(model, x, y) * float("nan"), optimizer_fn=optimizer_fn
    )
    network = Network([nothing, nothing])
    _, report = run(network, rounds=1)
    assert "finite weights after training" in report.refused[0][2]
    assert not network.contexts[0].state


def test_clipping_and_noise_by_flowers_mods(flwr: Any, reference: Any) -> None:
    from flwr.clientapp.mod import fixedclipping_mod
    from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg

    te.manual_seed(0)
    base = wire.weights_of(model_fn())
    for norm, noise in ((1e-3, 0.0), (1e-3, 1.0)):
        strategy = DifferentialPrivacyClientSideFixedClipping(
            FedAvg(fraction_evaluate=0.0), noise_multiplier=noise, clipping_norm=norm, num_sampled_clients=4
        )
        weights, _ = run(Network(clients(mods=[fixedclipping_mod])), rounds=1, strategy=strategy)
        moved = wire.norm_of({name: weights[name] - base[name] for name in base})
        assert moved <= norm * 1.01 if noise == 0 else norm / 10 < moved < norm * 10


@pytest.mark.parametrize("name", ["FedMedian", "Krum", "FedTrimmedAvg"])
def test_flowers_robust_strategies_withstand_a_liar_within_bounds(flwr: Any, reference: Any, name: str) -> None:
    """Its update has a norm that is near the others', so that checks let it through, and points the other way."""
    from flwr.serverapp import strategy

    def lie(number: int, node: int, reply: Any) -> Any:
        return changed(reply, lambda v: [values.__imul__(-3) for values in v.values()]) if node == 1 else reply

    def made(kind: str) -> Any:
        options = {"Krum": {"num_malicious_nodes": 1}, "FedTrimmedAvg": {"beta": 0.25}}.get(kind, {})
        return getattr(strategy, kind)(fraction_evaluate=0.0, **options)

    honest, _ = run(Network(clients()), rounds=3, strategy=made(name))
    robust, report = run(Network(clients(), lie), rounds=3, strategy=made(name))
    average, _ = run(Network(clients(), lie), rounds=3, strategy=made("FedAvg"))
    assert report.answered == [4] * 3

    def away(weights: dict[str, Any]) -> float:
        return float(wire.norm_of({key: weights[key] - honest[key] for key in honest}))

    assert away(robust) < 0.8 * away(average)


def test_local_differential_privacy_by_flowers_mod(flwr: Any, reference: Any) -> None:
    """Each client clips and adds noise to what it sends; the noise is seen, and passes the checks."""
    from flwr.clientapp.mod import LocalDpMod

    te.manual_seed(0)
    base = wire.weights_of(model_fn())
    moved = []
    for epsilon in (1e6, 5.0):
        private = LocalDpMod(clipping_norm=0.05, sensitivity=0.05, epsilon=epsilon, delta=1e-5)
        weights, report = run(Network(clients(mods=[private], precision="int8")), rounds=1, precision="int8")
        assert report.answered == [4]
        moved.append(wire.norm_of({name: weights[name] - base[name] for name in base}))
    assert moved[0] <= 0.05 * 1.01
    assert moved[1] > 2 * moved[0]


def test_evaluation_by_clients(flwr: Any, reference: Any) -> None:
    from flwr.serverapp.strategy import FedAvg

    def right(model: nn.Module, x: te.Tensor, y: te.Tensor) -> bool:
        return bool(model(x).argmax(1).item() == y.item())

    network = Network(clients(metric=right))
    _, report = run(network, rounds=2, strategy=FedAvg())
    measured = report.result.evaluate_metrics_clientapp[2]
    assert 0 <= measured["metric"] <= 1
    assert measured["loss"] > 0


def test_options_out_of_range(flwr: Any) -> None:
    with pytest.raises(ArgumentError, match="precision must be one of float32, float16, int8"):
        clients(precision="int4")
    with pytest.raises(ArgumentError, match="epochs"):
        clients(epochs=0)
    with pytest.raises(ArgumentError, match="rounds"):
        te.federated.server_app(model_fn, rounds=0)


def test_a_new_app(
    flwr: Any, reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the command line writes runs."""
    assert cli.main(["federated", "new", str(tmp_path / "my-app")]) == 0
    assert "app.py" in capsys.readouterr().out
    if sys.version_info >= (3, 11):
        import tomllib

        content = tomllib.loads((tmp_path / "my-app" / "pyproject.toml").read_text())
        assert content["tool"]["flwr"]["app"]["components"]["clientapp"] == "my_app.app:client"
    monkeypatch.syspath_prepend(str(tmp_path / "my-app"))
    monkeypatch.chdir(tmp_path)
    app = importlib.import_module("my_app.app")
    network = Network([app.client] * 2)
    context = SimpleNamespace(run_config={"clients": 2}, state=None, run_id=1, node_id=0, node_config={})
    app.server(network, context)
    assert (tmp_path / "tuned.safetensors").exists()
    assert "refused: []" in capsys.readouterr().out


def test_where_no_app_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert cli.main(["federated", "new", str(tmp_path / "full")]) == 1
    assert "a folder that is new or empty" in capsys.readouterr().err
    assert cli.main(["federated", "new", str(tmp_path / "1st")]) == 1
    assert not (tmp_path / "1st").exists()


def test_without_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    flower.cache_clear()
    try:
        with pytest.raises(MissingPackageError, match=r"tinyedge\[federated\]"):
            te.federated.server_app(model_fn)
    finally:
        flower.cache_clear()
