"""Recurrent layers: long and wide ones, packed sequences, compiled, stored in 16 bits, and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests import properties
from tests.strategies import call_of
from tests.test_lowerings import otherwise, prepared_otherwise  # noqa: F401
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, CaptureError, DtypeError, ShapeError, TinyedgeError
from tinyedge.ir.step import Sample
from tinyedge.nn.utils import rnn
from tinyedge.ops.recurrence import GATES, Recurrence

LAYERS: list[Callable[..., Any]] = [nn.RNN, nn.GRU, nn.LSTM]
every_layer = pytest.mark.parametrize("layer", LAYERS)


def wide_call(kind: str, size: int, samples: int = 5, times: int = 3, projected: int = 0) -> Any:
    wide, state = GATES[kind] * size, projected or size
    is_lstm = kind == "lstm"
    shapes = (
        (times, samples, wide), (samples, state), (wide, state), (samples, size) if is_lstm else None, (wide,),
        (state, size) if projected else None, (samples,),
    )  # fmt: skip
    call = call_of(Recurrence, Sample(shapes, {"kind": kind, "reverse": True}, {"lengths": times + 1}), 3)
    for name in ("weight", "projection"):  # sums of so many terms would saturate every gate
        if call.inputs[name] is not None:
            call.inputs[name][...] *= 8 / size  # type: ignore[index]
    return call


@pytest.mark.parametrize("kind", GATES)
def test_states_that_local_memory_does_not_hold(kind: str, opencl: Backend, reference: Backend) -> None:
    call = wide_call(kind, 700)
    properties.assert_forward_agrees(call, opencl, reference)
    properties.assert_backward_agrees(call, opencl, reference)
    properties.assert_repeats(call, opencl)


@pytest.mark.parametrize(("size", "projected"), [(1100, 0), (1100, 300), (65, 0), (130, 64)])
def test_states_as_other_devices_take_them(
    size: int,
    projected: int,
    otherwise: Backend,  # noqa: F811
    reference: Backend,
) -> None:
    call = wide_call("lstm", size, projected=projected)
    properties.assert_forward_agrees(call, otherwise, reference)
    properties.assert_backward_agrees(call, otherwise, reference)


@every_layer
def test_a_sample_does_not_depend_on_the_others(layer: Callable[..., Any], backend: Backend) -> None:
    model, x = layer(3, 20), te.randn(6, 7, 3)
    together, (alone, *_) = model(x)[0], [model(x[:, k : k + 1])[0] for k in (5,)]
    np.testing.assert_allclose(together[:, 5:6].detach().numpy(), alone.detach().numpy(), rtol=1e-5, atol=1e-6)


@every_layer
def test_padding_is_not_read(layer: Callable[..., Any], backend: Backend) -> None:
    model = layer(3, 5, 2, bidirectional=True)
    values = np.random.default_rng(0).standard_normal((6, 4, 3)).astype(np.float32)
    lengths = [2, 6, 1, 4]
    for k, length in enumerate(lengths):
        values[length:, k] = np.nan
    x = te.tensor(values, requires_grad=True)
    y, last = model(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
    padded, found = rnn.pad_packed_sequence(y)
    padded.sum().backward()
    assert found.tolist() == lengths
    assert np.isfinite(padded.detach().numpy()).all()
    assert x.grad is not None
    assert np.isfinite(x.grad.numpy()).all()
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters() if p.grad is not None)
    own = last if isinstance(last, te.Tensor) else last[0]
    for k, length in enumerate(lengths):
        _, alone = model(te.tensor(values[:length, k]))
        alone = alone if isinstance(alone, te.Tensor) else alone[0]
        np.testing.assert_allclose(own[:, k].detach().numpy(), alone.detach().numpy(), rtol=1e-5, atol=1e-6)


@every_layer
def test_compiled_is_eager(layer: Callable[..., Any], backend: Backend) -> None:
    model = layer(3, 20, 2, bidirectional=True)
    twin = copy.deepcopy(model)

    def step(model: Any, x: te.Tensor) -> te.Tensor:
        y, _ = model(x)
        packed, _ = model(rnn.pack_padded_sequence(x, [7, 3, 2]))
        loss = (y * y).sum() + rnn.pad_packed_sequence(packed)[0].sum()
        loss.backward()
        return loss

    compiled = te.compile(lambda x: step(twin, x))
    for _ in range(3):
        x = te.randn(7, 3, 3)
        assert compiled(x).item() == pytest.approx(step(model, x).item(), rel=1e-5)
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert own.grad is not None
        assert other.grad is not None
        np.testing.assert_allclose(own.grad.numpy(), other.grad.numpy(), rtol=1e-4, atol=1e-4)


def test_dropout_between_layers(backend: Backend) -> None:
    model, x = nn.LSTM(3, 8, 2, dropout=0.5), te.randn(5, 2, 3)
    assert not np.array_equal(model(x)[0].detach().numpy(), model(x)[0].detach().numpy())
    model.eval()
    np.testing.assert_array_equal(model(x)[0].detach().numpy(), model(x)[0].detach().numpy())
    model.train()
    model.dropout = 1.0
    np.testing.assert_array_equal(model(x)[0].detach().numpy(), model(x * 2)[0].detach().numpy())
    with pytest.warns(UserWarning, match="one layer has none"):
        nn.GRU(3, 4, dropout=0.1)


@every_layer
@pytest.mark.parametrize("dtype", [te.float16, te.bfloat16], ids=lambda dtype: dtype.name)
def test_stored_in_16_bits(layer: Callable[..., Any], dtype: Any, backend: Backend) -> None:
    model = layer(3, 20)
    small = copy.deepcopy(model).to(dtype)
    x = te.randn(9, 2, 3)
    y, found = model(x)[0].detach().numpy(), small(x.to(dtype))[0]
    assert found.dtype is dtype
    found.sum().backward()
    np.testing.assert_allclose(found.detach().float().numpy(), y, atol=0.05)


@every_layer
def test_no_samples(layer: Callable[..., Any], backend: Backend) -> None:
    model = layer(3, 4, bidirectional=True)
    y, last = model(te.zeros(5, 0, 3))
    y.sum().backward()
    assert y.shape == (5, 0, 8)
    assert (last if isinstance(last, te.Tensor) else last[1]).shape == (2, 0, 4)
    assert all(not p.grad.numpy().any() for p in model.parameters() if p.grad is not None)


@every_layer
def test_layers_are_copied_and_pickled(layer: Callable[..., Any], backend: Backend) -> None:
    model, x = layer(3, 4, 2), te.randn(5, 2, 3)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin(x)[0].detach().numpy(), model(x)[0].detach().numpy())
    packed = rnn.pack_sequence([te.ones(3), te.zeros(2)])
    again = pickle.loads(pickle.dumps(packed))
    assert again.sizes == packed.sizes == (2, 2, 1)


def test_names_and_repr() -> None:
    model = nn.LSTM(3, 4, 1, bidirectional=True, proj_size=2)
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
    assert list(model.state_dict()) == [f"{name}_l0{suffix}" for suffix in ("", "_reverse") for name in names]
    assert repr(model) == "LSTM(3, 4, proj_size=2, bidirectional=True)"
    assert repr(nn.RNN(3, 4, 2, "relu", False)) == "RNN(3, 4, num_layers=2, bias=False)"
    assert repr(nn.RNNCell(3, 4, nonlinearity="relu")) == "RNNCell(3, 4, nonlinearity=relu)"
    assert [len(weights) for weights in model.all_weights] == [5, 5]


X = te.zeros
REFUSED: list[tuple[Callable[[], Any], type[TinyedgeError], str]] = [
    (lambda: nn.LSTM(3, 0), ArgumentError, "hidden_size above 0"),
    (lambda: nn.LSTM(3, 4.0), DtypeError, "hidden_size must be an int"),  # type: ignore[arg-type]
    (lambda: nn.LSTM(0, 4), ArgumentError, "input_size above 0"),
    (lambda: nn.LSTM(3, 4, bias=1), DtypeError, "bias must be a bool"),  # type: ignore[arg-type]
    (lambda: nn.GRU(3, 4, 0), ArgumentError, "num_layers above 0"),
    (lambda: nn.GRU(3, 4, dropout=1.5), ArgumentError, "a probability"),
    (lambda: nn.RNN(3, 4, nonlinearity="sigmoid"), ArgumentError, '"tanh" or "relu"'),
    (lambda: nn.LSTM(3, 4, proj_size=4), ArgumentError, "proj_size in"),
    (lambda: nn.LSTM(3, 4, proj_size=-1), ArgumentError, "proj_size in"),
    (lambda: nn.LSTM(3, 4)(X(0, 2, 3)), ShapeError, "at least one step"),
    (lambda: nn.LSTM(3, 4)(X(5)), ShapeError, "2 or 3 dims"),
    (lambda: nn.LSTM(3, 4)(X(5, 2, 4)), ShapeError, "input_size=3"),
    (lambda: nn.LSTM(3, 4)(X(5, 2, 3), X(1, 2, 4)), ArgumentError, "h_0 and c_0"),
    (lambda: nn.LSTM(3, 4)(X(5, 2, 3), (X(1, 2, 4), X(1, 3, 4))), ShapeError, "c_0 of shape"),
    (lambda: nn.GRU(3, 4)(X(5, 2, 3), X(2, 2, 4)), ShapeError, "hx of shape"),
    (lambda: nn.GRU(3, 4)(X(5, 3), X(1, 1, 4)), ShapeError, "hx of shape"),
    (lambda: nn.GRU(3, 4)(X(5, 2, 3).double()), DtypeError, "one floating-point dtype"),
    (lambda: nn.GRU(3, 4)([X(5, 3)]), DtypeError, "a tensor or a PackedSequence"),
    (lambda: nn.GRUCell(3, 4)(X(5, 2, 3)), ShapeError, "1 or 2 dims"),
    (lambda: nn.GRUCell(3, 4)(X(5, 2)), ShapeError, "input_size=3"),
    (lambda: nn.RNNCell(3, 4)(X(5, 3), X(4, 4)), ShapeError, "hx of shape"),
    (lambda: nn.RNNCell(3, 4, nonlinearity="gelu")(X(5, 3)), ArgumentError, '"tanh" or "relu"'),
    (lambda: nn.LSTMCell(3, 4)(X(5, 3), X(5, 4)), ArgumentError, "2 states"),
    (lambda: te.gru(X(5, 2, 3), X(1, 2, 4), [X(12, 3)], False, 1, 0.0, False, False, False), ArgumentError, "params"),
    (lambda: te.lstm_cell(X(2, 3), (X(2, 4), X(2, 4)), X(12, 3), X(16, 4)), ShapeError, "weight_ih of shape"),
    (lambda: rnn.pack_padded_sequence(X(4, 2, 3), [2, 3]), ArgumentError, "enforce_sorted=False"),
    (lambda: rnn.pack_padded_sequence(X(4, 2, 3), [3, 0]), ArgumentError, "lengths in [1, 4]"),
    (lambda: rnn.pack_padded_sequence(X(4, 2, 3), [5, 1]), ArgumentError, "lengths in [1, 4]"),
    (lambda: rnn.pack_padded_sequence(X(4, 2, 3), [3]), ShapeError, "lengths of 2"),
    (lambda: rnn.pack_padded_sequence(X(4, 0, 3), []), ShapeError, "at least one element"),
    (lambda: rnn.PackedSequence(X(4, 3), [1, 3]), ArgumentError, "descend"),
    (lambda: rnn.pad_packed_sequence(rnn.pack_sequence([X(3)]), total_length=2), ArgumentError, "at least 3"),
    (lambda: rnn.pad_sequence([]), ArgumentError, "at least one sequence"),
    (lambda: rnn.pad_sequence([X(2, 3), X(2, 4)]), ShapeError, "first dim alone"),
    (lambda: rnn.pad_sequence([X(2)], padding_side="up"), ArgumentError, "padding_side"),
    (lambda: rnn.unpad_sequence(X(4, 2), [1]), ShapeError, "lengths of 2"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_refused(case: tuple[Callable[[], Any], type[TinyedgeError], str], backend: Backend) -> None:
    call, error, text = case
    with pytest.raises(error) as raised:
        call()
    assert text in str(raised.value)


def test_lengths_that_are_tensors_are_not_looked_at_in_a_program(backend: Backend) -> None:
    packed = te.compile(lambda x, lengths: rnn.pack_padded_sequence(x, lengths).data)
    with pytest.raises(CaptureError, match="pass them as a list of ints"):
        packed(te.zeros(3, 2, 1), te.tensor([3, 2]))
