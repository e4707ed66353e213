"""The server: between Flower's strategy, which sees plain weights, and the clients, to whom changes travel."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from tinyedge.errors import ArgumentError, UpdateError
from tinyedge.federated.client import make_model, put_into
from tinyedge.federated.delta import Delta, decode, digest, encode, norm_of, require_precision, trained, weights_of
from tinyedge.federated.flower import ARRAYS, WIRE, flower
from tinyedge.nn.module import Module

log = logging.getLogger("flwr")
OUTLIER = 10.0  # times the median: a norm beyond it is refused, a number of examples counts as that


@dataclass
class Report:
    """What a run of ``server_app`` did."""

    bytes_down: list[int] = field(default_factory=list)
    """By round: to all clients together, for training."""
    bytes_up: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    """By round: the clients that were asked to train."""
    answered: list[int] = field(default_factory=list)
    """By round: the updates that were used."""
    refused: list[tuple[int, int, str]] = field(default_factory=list)
    """Round, node, and reason: updates that were not, and clients that failed or did not answer in time."""
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    """By round, 0 before the first: what ``evaluate_fn`` said."""
    full_bytes: int = 0
    """The bytes of all parameters of the model, as float32."""
    result: Any = None
    """Flower's ``Result``."""


class WireGrid:
    """A Flower ``Grid`` that encodes what goes out, and checks and decodes what comes in."""

    def __init__(
        self, grid: Any, base: Mapping[str, Any], precision: str, max_norm: float | None, report: Report
    ) -> None:
        self.grid = grid
        self.base = base
        self.shapes = {name: values.shape for name, values in base.items()}
        self.digest = digest(base)
        self.precision = precision
        self.max_norm = max_norm
        self.report = report
        self.norms: list[float] = []  # of the updates that the last round used

    def __getattr__(self, name: str) -> Any:
        return getattr(self.grid, name)

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        """As Flower's, with the replies that passed all checks and those that are errors."""
        f = flower()
        sent: dict[int, tuple[Any, Any, Delta]] = {}  # by the record that it encodes
        outgoing = []
        trains, weights, down = False, None, 0
        for message in messages:
            content = message.content
            record = content.array_records[ARRAYS]
            if id(record) not in sent:
                values = {name: array.numpy().astype(np.float32) for name, array in record.items()}
                change = {name: values[name] - self.base[name] for name in self.shapes}
                sent[id(record)] = record, f.arrays(encode(change, self.precision)), values
            _, coded, weights = sent[id(record)]
            said = f.ConfigRecord({"base": self.digest, "precision": self.precision})
            rest = {key: item for key, item in content.items() if key != ARRAYS}
            message.content = f.RecordDict({ARRAYS: coded, WIRE: said, **rest})
            trains = message.metadata.message_type.startswith(f.MessageType.TRAIN)
            down += coded.count_bytes()
            outgoing.append(message)
        number = len(self.report.answered) + 1 if trains else max(len(self.report.answered), 1)
        arrived = self.grid.send_and_receive(outgoing, timeout=timeout)
        answers = self._one_each(number, arrived, outgoing)
        asked = {message.metadata.dst_node_id for message in outgoing}
        for node in sorted(asked - set(answers)):
            within = "" if timeout is None else f" within {timeout:g} s"
            self._refuse(number, node, UpdateError(f"update of node {node}", f"a reply{within}", "got none"))
        errors = {node: reply for node, reply in answers.items() if reply.has_error()}
        for node, reply in errors.items():
            self._refuse(number, node, str(reply.error.reason)[:200])
        replies = [reply for node, reply in answers.items() if node not in errors]
        if not trains or weights is None:
            measured = [reply for reply in replies if self._has_numbers(number, reply)]
            return [*self._agreed(number, measured), *errors.values()]
        self.report.asked.append(len(asked))
        return [*self._checked(number, replies, weights, down), *errors.values()]

    def _one_each(self, number: int, replies: Iterable[Any], sent: list[Any]) -> dict[int, Any]:
        """The first reply of each node that was asked: one that answers twice must not count twice."""
        asked = {message.metadata.dst_node_id for message in sent}
        by_message = {message.metadata.message_id: message.metadata.dst_node_id for message in sent}
        kept: dict[int, Any] = {}
        for reply in replies:
            node = reply.metadata.src_node_id
            if reply.has_error() and node not in asked:  # of a device that is gone the SuperLink says so
                node = by_message.get(reply.metadata.reply_to_message_id, node)
            if node in asked and node not in kept:
                kept[node] = reply
            else:
                got = "a second one" if node in kept else "one of a node that was not asked"
                error = UpdateError(f"update of node {node}", "one reply of each node that was asked", f"got {got}")
                self._refuse(number, node, error)
        return kept

    def _checked(self, number: int, replies: list[Any], weights: Delta, down: int) -> list[Any]:
        """The replies whose updates may be used, with plain weights in them."""
        f = flower()
        report = self.report
        up = 0
        good, deltas = [], []
        for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):  # sums have one order
            try:
                delta = self._delta(reply, weights)
            except Exception as error:  # whatever a stranger sends
                self._refuse(number, reply.metadata.src_node_id, error)
                continue
            up += reply.content.array_records[ARRAYS].count_bytes()
            good.append(reply)
            deltas.append(delta)
        norms = [norm_of(delta) for delta in deltas]
        known = [*norms, *self.norms]
        limit = OUTLIER * median(known) if len(known) >= 3 else math.inf
        used, self.norms = [], []
        for reply, delta, norm in zip(good, deltas, norms, strict=True):
            if norm > limit > 0:
                node = reply.metadata.src_node_id
                expected = f"a norm of at most {limit:.4g}, {OUTLIER:g} times the median of this round and the last"
                self._refuse(number, node, UpdateError(f"update of node {node}", expected, f"got {norm:.4g}"))
                continue
            values = {name: weights[name] + delta[name] for name in self.shapes}
            reply.content = f.RecordDict({ARRAYS: f.arrays(values), "metrics": self._metrics(reply)})
            used.append(reply)
            self.norms.append(norm)
        used = self._agreed(number, used)
        counts = [reply.content["metrics"]["num-examples"] for reply in used]
        most = OUTLIER * median(counts) if counts else 0
        for reply in used:
            reply.content["metrics"]["num-examples"] = min(reply.content["metrics"]["num-examples"], most)
        report.bytes_down.append(down)
        report.bytes_up.append(up)
        report.answered.append(len(used))
        return used

    def _refuse(self, number: int, node: int, reason: Exception | str) -> None:
        self.report.refused.append((number, node, str(reason)))
        log.warning("round %d: node %d is left out: %s", number, node, reason)

    def _agreed(self, number: int, replies: list[Any]) -> list[Any]:
        """The replies with the metrics that most of them have: Flower's strategies end the run where they differ."""
        named = Counter(frozenset(reply.content["metrics"]) for reply in replies)
        kept = []
        for reply in replies:
            wanted = max(named, key=lambda names: (named[names], -len(names), sorted(names)))
            metrics = reply.content["metrics"]
            if missing := sorted(wanted - set(metrics)):
                node = reply.metadata.src_node_id
                error = UpdateError(f"update of node {node}", f"the metrics {sorted(wanted)}", f"no {missing}")
                self._refuse(number, node, error)
                continue
            for name in set(metrics) - wanted:
                del metrics[name]
            kept.append(reply)
        return kept

    def _delta(self, reply: Any, weights: Delta) -> Delta:
        call = f"update of node {reply.metadata.src_node_id}"
        said = reply.content.config_records.get(WIRE, {})
        if said.get("base") != self.digest or said.get("precision") != self.precision:
            raise UpdateError(call, f"changes of the same base, in {self.precision}", f"got {dict(said)}")
        self._metrics(reply)
        arrived = {name: array.numpy() for name, array in reply.content.array_records[ARRAYS].items()}
        delta = decode(call, arrived, self.shapes, self.precision, self.max_norm)
        with np.errstate(over="ignore"):
            wide = [name for name in self.shapes if not np.isfinite(weights[name] + delta[name]).all()]
        if wide:
            raise UpdateError(call, f"changes that leave {wide[0]} finite", "the sum overflows")
        return delta

    def _metrics(self, reply: Any) -> Any:
        """The numbers of a reply, checked.

        Errors: UpdateError if there are none, or one is not finite, or it has no examples.
        """
        f = flower()
        metrics = reply.content.metric_records.get("metrics")
        if metrics is None:
            raise UpdateError("update", "metrics", "got none")
        numbers = {str(name): float(np.asarray(value).reshape(()).item()) for name, value in metrics.items()}
        if not all(map(math.isfinite, numbers.values())) or not numbers.get("num-examples", 0) > 0:
            raise UpdateError("update", "finite metrics, and num-examples above 0", f"got {numbers}")
        return f.MetricRecord({name: numbers[name] for name in sorted(numbers)})

    def _has_numbers(self, number: int, reply: Any) -> bool:
        """Whether a reply has metrics, which are then all that it has."""
        try:
            reply.content = flower().RecordDict({"metrics": self._metrics(reply)})
        except Exception as error:  # whatever a stranger sends
            self._refuse(number, reply.metadata.src_node_id, error)
            return False
        return True


def _wait(grid: Any, count: int) -> None:
    """Return when ``count`` nodes are there."""
    said = -1
    while (there := len(list(grid.get_node_ids()))) < count:
        if there != said:
            log.info("waiting for nodes: %d of %d are there", there, count)
            said = there
        time.sleep(0.5)


def server_app(
    model_fn: Callable[[], Module],
    *,
    rounds: int | None = None,
    strategy: Any = None,
    precision: str = "float32",
    max_norm: float | None = None,
    evaluate_fn: Callable[[Module], Mapping[str, float]] | None = None,
    done: Callable[[Module, Report], None] | None = None,
    timeout: float = 600.0,
    wait_for: int | Callable[[Mapping[str, Any]], int] = 1,
    seed: int = 0,
) -> Any:
    """A Flower ``ServerApp`` that joins what clients of ``client_app`` send, for some rounds.

    ``model_fn``, ``precision`` and ``seed`` are those of the clients. ``strategy`` is one of Flower's, or a function
    of the run's config that makes it: FedAvg over all nodes without; wrapped for differential privacy, or a robust one
    (``FedMedian``, ``Krum``) if clients may lie within bounds. It sees plain weights. ``rounds`` without a number is
    the run's ``num-server-rounds``. ``evaluate_fn(model)`` returns numbers, before the first round and after each.
    ``done(model, report)`` gets the tuned model, and a ``Report`` with bytes and refusals.

    Before the first round the server waits until ``wait_for`` nodes are there: a number, or a function of the run's
    config. A strategy's ``min_available_nodes`` is for all rounds: where one device fewer is left, Flower waits for it
    without end.

    What arrives is checked before it is used: names, shapes, dtypes, NaN, the base from which it was computed, a norm
    of at most ``max_norm``, and of ten times the median of this round's and the last, where these are three or more.
    Metrics are those that most clients sent. Updates that do not pass are left
    out and reported, as are clients that failed or did not answer within ``timeout`` seconds. A number of examples
    counts as ten times the median at most. A round without an update changes nothing.

    Errors: MissingPackageError without Flower; ArgumentError for options out of range.
    """
    f = flower()
    require_precision("server_app", precision)
    if rounds is not None and rounds < 1:
        raise ArgumentError("server_app", "rounds of 1 or more", f"got {rounds}")
    if not callable(wait_for) and wait_for < 1:
        raise ArgumentError("server_app", "wait_for of 1 or more", f"got {wait_for}")

    def main(grid: Any, context: Any) -> None:
        model = make_model(model_fn, seed)
        params = trained(model)
        base = weights_of(model)
        report = Report(full_bytes=sum(4 * param.numel() for param in model.parameters()))
        chosen = strategy(dict(context.run_config)) if callable(strategy) else strategy
        if chosen is None:
            chosen = f.FedAvg(fraction_evaluate=0.0)

        def evaluated(number: int, arrays: Any) -> Any:
            put_into(params, {name: array.numpy() for name, array in arrays.items()})
            assert evaluate_fn is not None
            model.eval()
            report.metrics[number] = {name: float(value) for name, value in evaluate_fn(model).items()}
            return f.MetricRecord(report.metrics[number])

        _wait(grid, int(wait_for(dict(context.run_config)) if callable(wait_for) else wait_for))
        report.result = chosen.start(
            grid=WireGrid(grid, base, precision, max_norm, report),
            initial_arrays=f.arrays(base),
            num_rounds=rounds or int(context.run_config.get("num-server-rounds", 3)),
            timeout=timeout,
            evaluate_fn=None if evaluate_fn is None else evaluated,
        )
        if len(report.result.arrays):
            put_into(params, {name: array.numpy() for name, array in report.result.arrays.items()})
        if done is not None:
            done(model, report)

    app = f.ServerApp()
    app.main()(main)
    return app
