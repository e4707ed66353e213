"""ONNX's recurrent ops: RNN, GRU and LSTM, in each direction."""

from __future__ import annotations

from typing import Any

from tinyedge import dtypes, ops
from tinyedge.convert.onnx_registry import ONNX, Floats
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.recurrence import Recurrence
from tinyedge.tensor import Tensor, call_all

Strs = tuple[str, ...]

ORDERS = {"lstm": (0, 2, 3, 1), "gru": (1, 0, 2), "tanh": (0,), "relu": (0,)}
"""Where our gates are among ONNX's."""

DEFAULTS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh")}
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def _ordered(weight: Tensor, kind: str) -> Tensor:
    """Rows of a weight in our order of gates."""
    order = ORDERS[kind]
    if order == tuple(range(len(order))):
        return weight
    parts = ops.chunk(weight, len(order), 0)
    return ops.cat([parts[n] for n in order], 0)


class _Layer:
    """One op of a file."""

    def __init__(
        self,
        name: str,
        direction: str,
        layout: int,
        activations: Strs | None,
        alpha: Floats | None,
        beta: Floats | None,
        clip: float | None,
    ) -> None:
        if direction not in DIRECTIONS:
            raise ArgumentError(name, "direction forward, reverse or bidirectional", f"got {direction!r}")
        self.name, self.layout, self.clip = name, layout, clip
        self.reverses = DIRECTIONS[direction]
        count = len(self.reverses)
        given = None if activations is None else tuple(text.lower() for text in activations)
        if name == "RNN":
            self.kinds = given or ("tanh",) * count
            is_known = len(self.kinds) >= count and all(kind in ("tanh", "relu") for kind in self.kinds)
        else:
            self.kinds = (name.lower(),) * count
            is_known = given is None or given == DEFAULTS[name] * count
        if not is_known or alpha or beta:
            raise ArgumentError(name, "the activations that ONNX takes by default", f"got {activations}")

    def run(
        self,
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None,
        lengths: Tensor | None,
        states: list[Tensor | None],
        peepholes: Tensor | None = None,
        before_reset: int = 1,
        input_forget: int = 0,
    ) -> tuple[Tensor, ...]:
        """Results, and last states."""
        if self.layout:
            x = ops.transpose(x, 0, 1)
            states = [None if state is None else ops.transpose(state, 0, 1) for state in states]
        self._require_shapes(x, {"W": w, "R": r, "B": b, "sequence_lens": lengths, "P": peepholes}, states)
        size, samples = r.shape[2], x.shape[1]
        results, lasts = [], []
        lengths = None if lengths is None else lengths.to(dtypes.int64)
        plain = self.clip is None and peepholes is None and before_reset and not input_forget
        for n, reverse in enumerate(self.reverses):
            kind = self.kinds[n]
            own = [
                ops.zeros(samples, size, dtype=x.dtype, device=x.backend) if state is None else state[n]
                for state in states
            ]
            shifts = [None, None] if b is None else [_ordered(part, kind) for part in ops.chunk(b[n], 2, 0)]
            weights = [_ordered(weight[n], kind) for weight in (w, r)]
            inputs = ops.linear(x, weights[0], shifts[0])
            if plain:
                cell = own[1] if kind == "lstm" else None
                y, *last = call_all(
                    Recurrence, inputs, own[0], weights[1], cell, shifts[1], None, lengths, kind=kind, reverse=reverse
                )
                last = last[: len(states)]
            else:
                holes = None if peepholes is None else ops.chunk(peepholes[n], 3, 0)
                y, last = self._stepped(
                    kind, inputs, own, weights[1], shifts[1], lengths, reverse, holes, before_reset, input_forget
                )
            results.append(y)
            lasts.append(last)
        y = ops.stack(results, 1)
        ends = [ops.stack([last[k] for last in lasts]) for k in range(len(states))]
        if self.layout:
            return (ops.permute(y, (2, 0, 1, 3)), *[ops.transpose(end, 0, 1) for end in ends])
        return (y, *ends)

    def _require_shapes(self, x: Tensor, given: dict[str, Tensor | None], states: list[Tensor | None]) -> None:
        """Errors: ShapeError, DtypeError. The kernels of a recurrence believe the shapes."""
        r = given["R"]
        assert r is not None
        if x.ndim != 3 or r.ndim != 3 or not x.shape[0]:
            raise ShapeError(
                self.name, "an input (steps, batch, features) of at least one step", f"got {x.shape}, {r.shape}"
            )
        count, size, gates = len(self.reverses), r.shape[2], len(ORDERS[self.kinds[0]])
        wanted = {
            "W": (count, gates * size, x.shape[2]), "R": (count, gates * size, size), "B": (count, 2 * gates * size),
            "sequence_lens": (x.shape[1],), "P": (count, 3 * size), "states": (count, x.shape[1], size),
        }  # fmt: skip
        for key, value in (*given.items(), *(("states", state) for state in states)):
            if value is None:
                continue
            if value.shape != wanted[key]:
                raise ShapeError(self.name, f"{key} of the shape {wanted[key]} for {x.shape}", f"got {value.shape}")
            if key != "sequence_lens" and value.dtype is not x.dtype:
                raise DtypeError(self.name, f"{key} of the input's type, {x.dtype.name}", f"got {value.dtype.name}")

    def _stepped(
        self,
        kind: str,
        inputs: Tensor,
        states: list[Tensor],
        weight: Tensor,
        bias: Tensor | None,
        lengths: Tensor | None,
        reverse: bool,
        peepholes: Any,
        before_reset: int,
        input_forget: int,
    ) -> tuple[Tensor, list[Tensor]]:
        """What our own op does not compute, step by step."""
        times = range(inputs.shape[0])
        found: dict[int, Tensor] = {}
        for t in reversed(times) if reverse else times:
            if kind == "lstm":
                new = self._lstm(inputs[t], states, weight, bias, peepholes, input_forget)
            elif kind == "gru":
                new = [self._gru(inputs[t], states[0], weight, bias, before_reset)]
            else:
                sums = self._clipped(inputs[t] + ops.linear(states[0], weight, bias))
                new = [ops.tanh(sums) if kind == "tanh" else ops.relu(sums)]
            if lengths is None:
                states, found[t] = new, new[0]
            else:
                runs = ops.unsqueeze(lengths > t, 1)
                states = [ops.where(runs, after, before) for after, before in zip(new, states)]
                found[t] = ops.where(runs, new[0], ops.zeros_like(new[0]))
        return ops.stack([found[t] for t in times]), states

    def _clipped(self, x: Tensor) -> Tensor:
        return x if self.clip is None else ops.clamp(x, -self.clip, self.clip)

    def _lstm(
        self, x: Tensor, states: list[Tensor], weight: Tensor, bias: Tensor | None, peepholes: Any, input_forget: int
    ) -> list[Tensor]:
        hidden, cell = states
        i, f, g, o = ops.chunk(x + ops.linear(hidden, weight, bias), 4, 1)
        if peepholes is not None:
            i, f = i + peepholes[0] * cell, f + peepholes[2] * cell
        i = ops.sigmoid(self._clipped(i))
        f = 1 - i if input_forget else ops.sigmoid(self._clipped(f))
        cell = f * cell + i * ops.tanh(self._clipped(g))
        if peepholes is not None:
            o = o + peepholes[1] * cell
        return [ops.sigmoid(self._clipped(o)) * ops.tanh(cell), cell]

    def _gru(self, x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, before_reset: int) -> Tensor:
        own, size = ops.chunk(x, 3, 1), hidden.shape[1]
        sums = ops.linear(hidden, weight[: 2 * size], None if bias is None else bias[: 2 * size])
        r, z = (ops.sigmoid(self._clipped(a + b)) for a, b in zip(own, ops.chunk(sums, 2, 1)))
        new, shift = weight[2 * size :], None if bias is None else bias[2 * size :]
        part = r * ops.linear(hidden, new, shift) if before_reset else ops.linear(r * hidden, new, shift)
        n = ops.tanh(self._clipped(own[2] + part))
        return (1 - z) * n + z * hidden


@ONNX.op("RNN", since=7, trained=("w", "r", "b"))
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Strs | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    count: int,
) -> Any:
    layer = _Layer("RNN", direction, layout, activations, activation_alpha, activation_beta, clip)
    return layer.run(x, w, r, b, sequence_lens, [initial_h])[:count]


@ONNX.op("GRU", since=7, trained=("w", "r", "b"))
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Strs | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    count: int,
) -> Any:
    layer = _Layer("GRU", direction, layout, activations, activation_alpha, activation_beta, clip)
    return layer.run(x, w, r, b, sequence_lens, [initial_h], before_reset=linear_before_reset)[:count]


@ONNX.op("LSTM", since=7, trained=("w", "r", "b", "p"))
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Strs | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    count: int,
) -> Any:
    layer = _Layer("LSTM", direction, layout, activations, activation_alpha, activation_beta, clip)
    states = [initial_h, initial_c]
    return layer.run(x, w, r, b, sequence_lens, states, p, input_forget=input_forget)[:count]


__all__: list[str] = []
