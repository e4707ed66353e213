"""The client: trains the model on its own data, and sends what changed.

In: a message with the server's weights. Out: a reply with the change of the trained parameters. What must live until
the next round (the optimizer's state, what rounding left over, buffers, the position in the random numbers) lies in
Flower's context, since each message may come to a new process.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from tinyedge.autograd.modes import no_grad
from tinyedge.compiler.api import compile
from tinyedge.errors import ArgumentError, UpdateError
from tinyedge.federated.delta import Delta, decode, digest, encode, require_precision, trained, weights_of
from tinyedge.federated.flower import ARRAYS, WIRE, flower
from tinyedge.nn.module import Module
from tinyedge.ops.random import default_generator, manual_seed
from tinyedge.optim import Optimizer
from tinyedge.tensor import Parameter, Tensor, tensor

Data = tuple[Sequence[Any], Sequence[Any]]
OPTIMIZER, NUMBERS, BUFFERS, REST = "tinyedge.optimizer", "tinyedge.numbers", "tinyedge.buffers", "tinyedge.rest"


def make_model(model_fn: Callable[[], Module], seed: int) -> Module:
    """The model from which both sides begin."""
    manual_seed(seed)
    model = model_fn()
    if not trained(model):
        raise ArgumentError("model_fn", "a model with parameters that require gradients", "all are frozen")
    return model


def put_into(params: Mapping[str, Parameter], weights: Mapping[str, Any]) -> None:
    """Set parameters to checked weights."""
    with no_grad():
        for name, param in params.items():
            param.copy_(tensor(weights[name], device=param.backend).to(param.dtype))


class Client:
    """What ``client_app`` makes: one for a process, which may play several clients one after the other."""

    def __init__(
        self,
        model_fn: Callable[[], Module],
        data_fn: Callable[[Mapping[str, Any]], Data],
        loss: Callable[..., Tensor],
        optimizer_fn: Callable[[list[Parameter]], Optimizer],
        metric: Callable[..., Any] | None,
        epochs: int,
        precision: str,
        max_norm: float | None,
        seed: int,
    ) -> None:
        require_precision("client_app", precision)
        if epochs < 1:
            raise ArgumentError("client_app", "epochs of 1 or more", f"got {epochs}")
        self.model_fn = model_fn
        self.data_fn = data_fn
        self.loss = loss
        self.optimizer_fn = optimizer_fn
        self.metric = metric
        self.epochs = epochs
        self.precision = precision
        self.max_norm = max_norm
        self.seed = seed
        self._made = False

    def _make(self) -> None:
        """Build the model, its optimizer, and the compiled step, once for the process."""
        if self._made:
            return
        gc.freeze()  # Flower's modules are many objects: each full collection would take 0.1 s to walk them
        self.model = make_model(self.model_fn, self.seed)
        self.params = trained(self.model)
        self.shapes = {name: param.shape for name, param in self.params.items()}
        self.base = weights_of(self.model)
        self.digest = digest(self.base)
        self.optimizer = self.optimizer_fn(list(self.params.values()))
        self.begun = self.optimizer.state_dict()
        self.buffers = {name: buffer.numpy().copy() for name, buffer in self.model.named_buffers()}
        model, loss = self.model, self.loss

        def step(*sample: Any) -> Tensor:
            value = loss(model, *sample)
            value.backward()
            return value

        self.step = compile(step)
        self._made = True

    # Messages

    def wire(self, message: Any, context: Any, call_next: Callable[..., Any]) -> Any:
        """Between the wire and Flower's mods, which see plain weights: the outermost mod."""
        f = flower()
        self._make()
        call = f"client of node {context.node_id}"
        content = message.content
        said = content.config_records.get(WIRE)
        if said is None or ARRAYS not in content.array_records:
            raise UpdateError(call, "a message of te.federated.server_app", f"got records {sorted(content)}")
        if said.get("base") != self.digest:
            raise UpdateError(
                call,
                "the server's model to begin with the same weights",
                "they differ",
                "model_fn must give the same model on both sides: the same code, files, and seed.",
            )
        if said.get("precision") != self.precision:
            raise UpdateError(call, f"precision {self.precision}", f"the server has {said.get('precision')!r}")
        arrived = {name: array.numpy() for name, array in content.array_records[ARRAYS].items()}
        change = decode(call, arrived, self.shapes, self.precision)
        weights = {name: self.base[name] + change[name] for name in self.shapes}
        plain = {key: record for key, record in content.items() if key not in (WIRE, ARRAYS)}
        message.content = f.RecordDict({ARRAYS: f.arrays(weights), **plain})
        reply = call_next(message, context)
        if reply.has_error() or ARRAYS not in reply.content.array_records:
            return reply
        after = {name: array.numpy() for name, array in reply.content.array_records[ARRAYS].items()}
        after = decode(call, encode(after, "float32"), self.shapes, "float32")  # a mod may have spoilt it
        rest = context.state.array_records.get(REST)
        delta: Delta = {}
        for name in self.shapes:
            delta[name] = after[name] - weights[name]
            if rest is not None and rest[name].numpy().shape == delta[name].shape:
                delta[name] = delta[name] + rest[name].numpy()
        coded = encode(delta, self.precision)
        sent = decode(call, coded, self.shapes, self.precision, self.max_norm)
        # What rounding left over is sent next time (error feedback).
        context.state[REST] = f.arrays({name: delta[name] - sent[name] for name in self.shapes})
        reply.content[ARRAYS] = f.arrays(coded)
        reply.content[WIRE] = f.ConfigRecord({"base": self.digest, "precision": self.precision})
        return reply

    def train(self, message: Any, context: Any) -> Any:
        """Train on the client's data, from the server's weights."""
        f = flower()
        samples, round_number = self._begin(message, context)[0], int(self._config(message).get("server-round", 0))
        if not len(samples):
            raise ArgumentError("data_fn", "samples to train on", "got none")
        self._load(context)
        self.model.train()
        random = np.random.default_rng([self.seed, round_number, self._number(context) % 2**32])
        total = 0.0
        try:
            for _ in range(self.epochs):
                for k in random.permutation(len(samples)):
                    total += self.step(*samples[int(k)]).item()
                    self.optimizer.step()
            self.optimizer.flush() if self.optimizer.accumulate is not None else None
        finally:
            self.optimizer.discard()
        after = weights_of(self.model)
        if not math.isfinite(total) or not all(np.isfinite(values).all() for values in after.values()):
            raise UpdateError(
                f"client of node {context.node_id}", "finite weights after training", "got NaN or infinity"
            )
        self._store(context)
        count = len(samples)
        metrics = f.MetricRecord({"num-examples": count, "loss": total / (count * self.epochs)})
        return f.Message(f.RecordDict({ARRAYS: f.arrays(after), "metrics": metrics}), reply_to=message)

    def evaluate(self, message: Any, context: Any) -> Any:
        """The loss, and the metric, of the server's weights on the client's test data."""
        f = flower()
        samples = self._begin(message, context)[1]
        self._load(context)
        self.model.eval()
        measures = {"loss": self.loss, **({} if self.metric is None else {"metric": self.metric})}
        totals = dict.fromkeys(measures, 0.0)
        with no_grad():
            for k in range(len(samples)):
                for name, measure in measures.items():
                    totals[name] += float(measure(self.model, *samples[k]))
        count = max(len(samples), 1)
        metrics = f.MetricRecord({"num-examples": count, **{name: value / count for name, value in totals.items()}})
        return f.Message(f.RecordDict({"metrics": metrics}), reply_to=message)

    # What lives between the messages

    @staticmethod
    def _config(message: Any) -> Mapping[str, Any]:
        return next(iter(message.content.config_records.values()), {})

    def _begin(self, message: Any, context: Any) -> Data:
        self._make()
        weights = {name: array.numpy() for name, array in message.content.array_records[ARRAYS].items()}
        weights = decode(f"client of node {context.node_id}", encode(weights, "float32"), self.shapes, "float32")
        data = self.data_fn(dict(context.node_config))
        put_into(self.params, weights)
        return data

    @staticmethod
    def _number(context: Any) -> int:
        return int(context.node_config.get("partition-id", context.node_id))

    def _load(self, context: Any) -> None:
        state = context.state
        arrays, numbers = state.array_records.get(OPTIMIZER, {}), state.config_records.get(NUMBERS, {})
        loaded: dict[int, dict[str, Any]] = {}
        for key, value in [*((key, array.numpy()) for key, array in arrays.items()), *numbers.items()]:
            position, _, name = key.partition("/")
            if position.isdigit():
                loaded.setdefault(int(position), {})[name] = value
        self.optimizer.load_state_dict({**self.begun, "state": loaded})
        kept = state.array_records.get(BUFFERS, {})
        with no_grad():
            for name, buffer in self.model.named_buffers():
                value = kept[name].numpy() if name in kept else self.buffers[name]
                buffer.copy_(tensor(value, device=buffer.backend).to(buffer.dtype))
        if "generator" in numbers:
            first, second = str(numbers["generator"]).split()
            default_generator.set_state((int(first), int(second)))
        else:
            own = sha256(f"{self.seed} {self._number(context)}".encode()).digest()
            manual_seed(int.from_bytes(own[:4], "little"))

    def _store(self, context: Any) -> None:
        f = flower()
        arrays: Delta = {}
        numbers: dict[str, Any] = {"generator": " ".join(map(str, default_generator.get_state()))}
        for position, state in self.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    arrays[f"{position}/{name}"] = value.numpy()
                else:
                    numbers[f"{position}/{name}"] = value
        context.state[OPTIMIZER] = f.arrays(arrays)
        context.state[NUMBERS] = f.ConfigRecord(numbers)
        context.state[BUFFERS] = f.arrays({name: buffer.numpy() for name, buffer in self.model.named_buffers()})


def client_app(
    model_fn: Callable[[], Module],
    data_fn: Callable[[Mapping[str, Any]], Data],
    *,
    loss: Callable[..., Tensor],
    optimizer_fn: Callable[[list[Parameter]], Optimizer],
    metric: Callable[..., Any] | None = None,
    epochs: int = 1,
    precision: str = "float32",
    max_norm: float | None = None,
    mods: Sequence[Any] = (),
    seed: int = 0,
) -> Any:
    """A Flower ``ClientApp`` that trains ``model_fn()`` on the device's own data.

    ``model_fn`` gives the same model here and at the server (``seed`` is set before); what is frozen in it stays, and
    only the change of what requires gradients travels: as ``precision`` "float32", "float16" or "int8", of which the
    latter two carry over to the next round what rounding left. ``data_fn(node_config)`` gives samples to train and to
    evaluate on: two sequences of tuples. ``loss(model, *sample)`` and ``metric(model, *sample)`` return numbers.
    ``optimizer_fn(parameters)`` makes the optimizer, with ``accumulate`` for minibatches; its state, the buffers and
    the position in the random numbers stay with the client from round to round.

    ``mods`` are Flower's, in its order, such as ``fixedclipping_mod`` or ``LocalDpMod``: they see plain weights.
    What arrives is checked before it is used; ``max_norm`` bounds what is sent. A client that fails keeps its state.

    Errors: MissingPackageError without Flower; ArgumentError for options out of range. In a round, UpdateError.
    """
    f = flower()
    client = Client(model_fn, data_fn, loss, optimizer_fn, metric, epochs, precision, max_norm, seed)
    app = f.ClientApp(mods=[client.wire, *mods])
    app.train()(client.train)
    app.evaluate()(client.evaluate)
    return app
