"""TFLite's ops over sequences, and its filters over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tflite_file import Operator
from tinyedge.convert.tflite_lowering import Lowering, lowers, meant


def _states(b: Lowering, op: Operator, positions: tuple[int, ...]) -> None:
    """States are zeros before the first step, if nothing else sets them."""
    for position in positions:
        name = b.name(op, position)
        if name in b.plain or name in b.turned:
            raise UnsupportedUse("with a state that is given")


def _absent(b: Lowering, op: Operator, positions: Sequence[int]) -> None:
    if any(b.optional(op, position) for position in positions):
        raise UnsupportedUse("with an auxiliary input")


def _backward(b: Lowering, x: str, time_major: bool, op: str, values: list[str], **arguments: Any) -> str:
    """A layer that begins at the end of the sequence; its results lie in the sequence's order."""
    axes = b.host([0 if time_major else 1])
    y = b.emit(op, [b.emit("Reverse", [x, axes]), *values], time_major=int(time_major), **arguments)
    return b.emit("Reverse", [y, axes])


def _finish_both(b: Lowering, op: Operator, results: list[str], merged: bool) -> None:
    """Both directions side by side, or as two outputs."""
    if len(op.outputs) != (1 if merged else 2):
        raise UnsupportedUse(f"with {len(op.outputs)} outputs")
    if merged:
        b.finish(op, b.emit("Concat", results, axis=-1), False)
        return
    for number, y in enumerate(results):
        b.held.add(y)
        b.done(b.output(op, number), y, False)


LSTM_INPUTS = (*range(1, 18), *range(20, 24))


@lowers("UNIDIRECTIONAL_SEQUENCE_LSTM")
def sequence_lstm(b: Lowering, op: Operator) -> None:
    o = op.options("UnidirectionalSequenceLSTMOptions")
    if o.FusedActivationFunction() != 4 or o.DiagonalRecurrentTensors():
        raise UnsupportedUse("with another activation than tanh, or diagonal weights")
    _states(b, op, (18, 19))
    names = [b.optional(op, n) for n in LSTM_INPUTS]
    values = [b.last(b.name(op, 0)), *[b.last(name) if name else "" for name in names]]
    y = b.emit("SequenceLSTM", values, time_major=int(o.TimeMajor()), cell_clip=o.CellClip(), proj_clip=o.ProjClip())
    b.finish(op, y, False)


@lowers("BIDIRECTIONAL_SEQUENCE_LSTM")
def bidirectional_lstm(b: Lowering, op: Operator) -> None:
    o = op.options("BidirectionalSequenceLSTMOptions")
    if o.FusedActivationFunction() != 4:
        raise UnsupportedUse("with another activation than tanh")
    _states(b, op, (35, 36, 37, 38))
    _absent(b, op, range(39, 48))
    x, timed, clips = b.last(b.name(op, 0)), bool(o.TimeMajor()), {"cell_clip": o.CellClip(), "proj_clip": o.ProjClip()}
    ahead, back = (
        [b.last(name) if name else "" for name in (b.optional(op, n) for n in range(start, start + 17))]
        for start in (1, 18)
    )
    results = [
        b.emit("SequenceLSTM", [x, *ahead], time_major=int(timed), **clips),
        _backward(b, x, timed, "SequenceLSTM", back, **clips),
    ]
    _finish_both(b, op, results, bool(o.MergeOutputs()))


def _rnn_kind(kind: int) -> int:
    if kind not in (0, 1, 3, 4):
        raise UnsupportedUse(f"with the activation {kind}")
    return kind


@lowers("UNIDIRECTIONAL_SEQUENCE_RNN")
def sequence_rnn(b: Lowering, op: Operator) -> None:
    o = op.options("SequenceRNNOptions")
    _states(b, op, (4,))
    values = [b.last(b.name(op, n)) for n in range(4)]
    kind = _rnn_kind(o.FusedActivationFunction())
    b.finish(op, b.emit("SequenceRNN", values, time_major=int(o.TimeMajor()), activation=kind), False)


@lowers("BIDIRECTIONAL_SEQUENCE_RNN")
def bidirectional_rnn(b: Lowering, op: Operator) -> None:
    o = op.options("BidirectionalSequenceRNNOptions")
    _states(b, op, (4, 8))
    _absent(b, op, (9, 10, 11))
    x, timed, kind = b.last(b.name(op, 0)), bool(o.TimeMajor()), _rnn_kind(o.FusedActivationFunction())
    ahead, back = ([b.last(b.name(op, n)) for n in range(start, start + 3)] for start in (1, 5))
    results = [
        b.emit("SequenceRNN", [x, *ahead], time_major=int(timed), activation=kind),
        _backward(b, x, timed, "SequenceRNN", back, activation=kind),
    ]
    _finish_both(b, op, results, bool(o.MergeOutputs()))


@lowers("SVDF")
def svdf(b: Lowering, op: Operator) -> None:
    """A product, then for each filter a sum over its last results, which stay from call to call; ``rank`` filters make
    one unit.
    """
    o = op.options("SVDFOptions")
    weight, times, held = b.name(op, 1), b.name(op, 2), b.graph.tensors[op.inputs[4]] if len(op.inputs) > 4 else None
    filters, memory, rank = b.size(times, 0), b.size(times, 1), int(o.Rank())
    if held is None or op.inputs[4] < 0 or held.data is not None or rank < 1 or filters % rank:
        raise UnsupportedUse("without a state, or of other ranks than its filters have")
    before = b.emit("Reshape", [b.last(b.state(held.name, held.shape, meant(held))), b.host([-1, filters, memory])])
    y = b.emit("Gemm", [b.last(b.name(op, 0)), b.last(weight)], transB=1)
    rest = b.emit("Slice", [before, b.host([1]), b.host([memory]), b.host([2])])
    rows = b.emit("Concat", [rest, b.emit("Unsqueeze", [y, b.host([2])])], axis=2)
    after = b.emit("Reshape", [rows, b.host([-1, filters * memory])], f"{held.name} after {b.layer}")
    b.plain.add(after)
    b.variables[held.name] = after
    sums = b.emit("ReduceSum", [b.emit("Mul", [rows, b.last(times)]), b.host([2])], keepdims=0)
    parts = b.emit("Reshape", [sums, b.host([-1, filters // rank, rank])])
    y = b.emit("ReduceSum", [parts, b.host([2])], keepdims=0)
    bias = b.optional(op, 3)
    y = b.emit("Add", [y, b.last(bias)]) if bias else y
    b.finish(op, y, False, o.FusedActivationFunction())


__all__: list[str] = []
