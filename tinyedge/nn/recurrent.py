"""Recurrent layers, and their cells."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.nn import init
from tinyedge.nn.arguments import Device, new_parameter
from tinyedge.nn.module import Module
from tinyedge.nn.utils.rnn import PackedSequence, packed_steps, padded_steps
from tinyedge.ops import (
    gru_cell,
    index_select,
    lstm_cell,
    rnn_relu_cell,
    rnn_tanh_cell,
    squeeze,
    transpose,
    unsqueeze,
    zeros,
)
from tinyedge.ops.recurrence import GATES
from tinyedge.ops.recurrent import Stack, recurrent_layers
from tinyedge.shapes import Shape
from tinyedge.tensor import Parameter, Tensor, tensor

Pair = tuple[Tensor, Tensor]


class RNNBase(Module):
    """Base of the recurrent layers: PyTorch's parameters, by its names, and the call of one kind of cell.

    ``mode`` is "RNN_TANH", "RNN_RELU", "GRU" or "LSTM". For the other arguments see ``LSTM``.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for what, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if not isinstance(value, int):
                raise DtypeError(name, f"{what} must be an int", f"got {type(value).__name__}")
            if value < 1:
                raise ArgumentError(name, f"{what} above 0", f"got {value}")
        for what, value in (("bias", bias), ("batch_first", batch_first)):
            if not isinstance(value, bool):
                raise DtypeError(name, f"{what} must be a bool", f"got {type(value).__name__}")
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ArgumentError(name, "dropout must be a probability, in [0, 1]", f"got {dropout!r}")
        if proj_size and mode != "LSTM":
            raise ArgumentError(name, "proj_size, which only LSTM has, must be 0", f"got {proj_size}")
        if not 0 <= proj_size < hidden_size:
            raise ArgumentError(name, f"proj_size in [0, hidden_size={hidden_size})", f"got {proj_size}")
        if dropout and num_layers == 1:
            text = f"dropout={dropout} is of the results of all layers but the last, so one layer has none"
            warnings.warn(text, stacklevel=3)
        self.mode = mode
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self._names: list[str] = []
        state, wide = proj_size or hidden_size, GATES[self._kind] * hidden_size
        directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            size = input_size if layer == 0 else state * len(directions)
            for suffix in directions:
                shapes: dict[str, Shape] = {"weight_ih": (wide, size), "weight_hh": (wide, state)}
                if bias:
                    shapes |= {"bias_ih": (wide,), "bias_hh": (wide,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for kind, shape in shapes.items():
                    setattr(self, f"{kind}_l{layer}{suffix}", new_parameter(shape, device, dtype))
                    self._names.append(f"{kind}_l{layer}{suffix}")
        self.reset_parameters()

    @property
    def _kind(self) -> str:
        return {"RNN_TANH": "tanh", "RNN_RELU": "relu", "GRU": "gru", "LSTM": "lstm"}[self.mode]

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: there is one way in which parameters lie in memory."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        each = len(self._names) // (self.num_layers * (2 if self.bidirectional else 1))
        found = [getattr(self, name) for name in self._names]
        return [found[k : k + each] for k in range(0, len(found), each)]

    def _checked(self, input: Tensor, dims: tuple[int, ...]) -> None:
        name = type(self).__name__
        if input.ndim not in dims:
            expected = f"an input of {' or '.join(str(n) for n in dims)} dims"
            raise ShapeError(name, expected, f"got {input.shape}")
        if input.shape[-1] != self.input_size:
            raise ShapeError(name, f"an input whose last dim is input_size={self.input_size}", f"got {input.shape}")

    def _states(self, like: Tensor, samples: int, hx: Any, is_single: bool, order: Tensor | None) -> list[Tensor]:
        """The first states, (layers * directions, batch, size) each; zeros for None."""
        name, count = type(self).__name__, self.num_layers * (2 if self.bidirectional else 1)
        names, sizes = ["hx"], [self.proj_size or self.hidden_size]
        if self.mode == "LSTM":
            names, sizes = ["h_0", "c_0"], [*sizes, self.hidden_size]
        if hx is None:
            return [zeros(count, samples, size, dtype=like.dtype, device=like.backend) for size in sizes]
        given = [hx] if self.mode != "LSTM" else hx
        if isinstance(given, Tensor) or len(given) != len(names):
            raise ArgumentError(name, f"hx: {' and '.join(names)}", f"got {type(hx).__name__}")
        states = []
        for what, state, size in zip(names, given, sizes, strict=True):
            if not isinstance(state, Tensor):
                raise DtypeError(name, f"{what}: a tensor", f"got {type(state).__name__}", "Convert it with te.tensor.")
            expected = (count, size) if is_single else (count, samples, size)
            if state.shape != expected:
                raise ShapeError(name, f"{what} of shape {expected}", f"got {state.shape}")
            state = unsqueeze(state, 1) if is_single else state
            states.append(state if order is None else index_select(state, 1, order))
        return states

    def _run(self, input: Any, hx: Any) -> tuple[Any, list[Tensor]]:
        """Results, and the last states."""
        packed = input if isinstance(input, PackedSequence) else None
        if packed is None and not isinstance(input, Tensor):
            raise DtypeError(
                type(self).__name__,
                "a tensor or a PackedSequence",
                f"got {type(input).__name__}",
                "Convert it with te.tensor.",
            )
        is_single, lengths, order = False, None, None
        if packed is not None:
            self._checked(packed.data, (2,))
            x, order = padded_steps(packed), packed.sorted_indices
            if packed.sizes[0] != packed.sizes[-1]:
                lengths = tensor(packed.lengths(), device=x.backend)
        else:
            self._checked(input, (2, 3))
            is_single = input.ndim == 2
            x = unsqueeze(input, 1) if is_single else transpose(input, 0, 1) if self.batch_first else input
        if not x.shape[0]:
            raise ShapeError(type(self).__name__, "a sequence of at least one step", f"got {x.shape}")
        states = self._states(x, x.shape[1], hx, is_single, order)
        params = [getattr(self, name) for name in self._names]
        dropout = self.dropout if self.training else 0.0
        stack = Stack(type(self).__name__, self._kind, self.num_layers, self.bias, self.bidirectional, dropout)
        y, last, last_cell = recurrent_layers(stack, x, states, params, lengths)
        lasts = [last] if last_cell is None else [last, last_cell]
        if packed is not None:
            back = packed.unsorted_indices
            return packed_steps(y, packed), [x if back is None else index_select(x, 1, back) for x in lasts]
        if is_single:
            return squeeze(y, 1), [squeeze(x, 1) for x in lasts]
        return transpose(y, 0, 1) if self.batch_first else y, lasts

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        standard = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False,
        }  # fmt: skip
        return text + "".join(f", {k}={getattr(self, k)}" for k, value in standard.items() if getattr(self, k) != value)


class RNN(RNNBase):
    """Layers of ``h' = tanh(x weight_ih.T + bias_ih + h weight_hh.T + bias_hh)``, or of relu; see ``te.rnn_tanh``.

    ``num_layers`` layers are stacked: each takes the results of the one below. ``dropout`` is the probability with
    which, in training, an element of these results becomes 0. ``bidirectional`` adds to each layer a second one, from
    the last step to the first, and concatenates the results of both: ``directions`` is 2 then, else 1. ``bias=False``
    leaves out both biases. ``nonlinearity`` is "tanh" or "relu". All parameters start uniform, within one over the root
    of ``hidden_size``.

    Shapes: input (times, batch, input_size), (batch, times, input_size) with ``batch_first``, (times, input_size), or a
            PackedSequence; hx (num_layers * directions, batch, hidden_size), zeros if it is left out. Returns (times,
            batch, directions * hidden_size), and the last states, of hx's shape.
    Errors: ArgumentError for another ``nonlinearity`` than "tanh" and "relu"; ShapeError if input or hx do not fit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError("RNN", 'nonlinearity must be "tanh" or "relu"', f"got {nonlinearity!r}")
        super().__init__(
            f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, 0, device, dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        y, (last,) = self._run(input, hx)
        return y, last


class GRU(RNNBase):
    """Layers of gated recurrent units; see ``te.gru``.

    ``num_layers`` layers are stacked: each takes the results of the one below. ``dropout`` is the probability with
    which, in training, an element of these results becomes 0. ``bidirectional`` adds to each layer a second one, from
    the last step to the first, and concatenates the results of both: ``directions`` is 2 then, else 1. ``bias=False``
    leaves out both biases. All parameters start uniform, within one over the root of ``hidden_size``.

    Shapes: input (times, batch, input_size), (batch, times, input_size) with ``batch_first``, (times, input_size), or a
            PackedSequence; hx (num_layers * directions, batch, hidden_size), zeros if it is left out. Returns (times,
            batch, directions * hidden_size), and the last states, of hx's shape.
    Errors: ShapeError if input or hx do not fit.
    Source: Cho et al., arXiv:1406.1078.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        y, (last,) = self._run(input, hx)
        return y, last


class LSTM(RNNBase):
    """Layers of long short-term memory; see ``te.lstm``.

    ``num_layers`` layers are stacked: each takes the results of the one below. ``dropout`` is the probability with
    which, in training, an element of these results becomes 0. ``bidirectional`` adds to each layer a second one, from
    the last step to the first, and concatenates the results of both: ``directions`` is 2 then, else 1. ``bias=False``
    leaves out both biases. ``proj_size`` projects the states, but not the cell states, to that size; 0: not. All
    parameters start uniform, within one over the root of ``hidden_size``.

    Shapes: input (times, batch, input_size), (batch, times, input_size) with ``batch_first``, (times, input_size), or a
            PackedSequence; hx a pair of states and cell states, (num_layers * directions, batch, proj_size or
            hidden_size) and (num_layers * directions, batch, hidden_size), zeros if it is left out. Returns (times,
            batch, directions * (proj_size or hidden_size)), and the last states, a pair as hx.
    Errors: ArgumentError unless proj_size is in [0, hidden_size); ShapeError if input or hx do not fit.
    Source: Hochreiter and Schmidhuber, Long short-term memory (1997).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device,
            dtype,
        )  # fmt: skip

    def forward(self, input: Any, hx: Pair | None = None) -> tuple[Any, Pair]:
        y, (last, last_cell) = self._run(input, hx)
        return y, (last, last_cell)


# A step


class RNNCellBase(Module):
    """Base of the cells: parameters ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh``.

    ``num_chunks`` is how many times ``hidden_size`` rows the weights have; for the other arguments see ``RNNCell``.
    """

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None
    states: ClassVar[int] = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Device = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        wide = num_chunks * hidden_size
        self.weight_ih = new_parameter((wide, input_size), device, dtype)
        self.weight_hh = new_parameter((wide, hidden_size), device, dtype)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, new_parameter((wide,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _given(self, input: Tensor, hx: Any) -> list[Tensor]:
        """The states: as given, or zeros."""
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise DtypeError(name, "a tensor", f"got {type(input).__name__}", "Convert it with te.tensor.")
        if input.ndim not in (1, 2):
            raise ShapeError(name, "an input of 1 or 2 dims", f"got {input.shape}")
        if input.shape[-1] != self.input_size:
            raise ShapeError(name, f"an input whose last dim is input_size={self.input_size}", f"got {input.shape}")
        shape = (*input.shape[:-1], self.hidden_size)
        if hx is None:
            return [zeros(*shape, dtype=input.dtype, device=input.backend)] * self.states
        states = [hx] if self.states == 1 else hx
        if isinstance(states, Tensor) or len(states) != self.states:
            raise ArgumentError(name, f"hx: {self.states} states", f"got {type(hx).__name__}")
        for state in states:
            if not isinstance(state, Tensor):
                raise DtypeError(name, "hx: a tensor", f"got {type(state).__name__}", "Convert it with te.tensor.")
            if state.shape != shape:
                raise ShapeError(name, f"hx of shape {shape}", f"got {state.shape}")
        return list(states)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        text += "" if self.bias else f", bias={self.bias}"
        kind = getattr(self, "nonlinearity", "tanh")
        return text if kind == "tanh" else f"{text}, nonlinearity={kind}"


class RNNCell(RNNCellBase):
    """One step of ``RNN``.

    ``nonlinearity`` is "tanh" or "relu"; ``bias=False`` leaves out both biases.

    Shapes: input (batch, input_size) or (input_size,); hx (batch, hidden_size) or (hidden_size,), zeros if it is left
            out. Returns hx's shape.
    Errors: ShapeError if input or hx do not fit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise ArgumentError("RNNCell", 'nonlinearity must be "tanh" or "relu"', f"got {self.nonlinearity!r}")
        (state,) = self._given(input, hx)
        step = rnn_tanh_cell if self.nonlinearity == "tanh" else rnn_relu_cell
        return step(input, state, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)


class GRUCell(RNNCellBase):
    """One step of ``GRU``.

    ``bias=False`` leaves out both biases.

    Shapes: input (batch, input_size) or (input_size,); hx (batch, hidden_size) or (hidden_size,), zeros if it is left
            out. Returns hx's shape.
    Errors: ShapeError if input or hx do not fit.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Device = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        (state,) = self._given(input, hx)
        return gru_cell(input, state, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)


class LSTMCell(RNNCellBase):
    """One step of ``LSTM``.

    ``bias=False`` leaves out both biases.

    Shapes: input (batch, input_size) or (input_size,); hx a pair of state and cell state, both (batch, hidden_size) or
            (hidden_size,), zeros if it is left out. Returns such a pair.
    Errors: ShapeError if input or hx do not fit.
    """

    states = 2

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Device = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: Pair | None = None) -> Pair:
        states = self._given(input, hx)
        return lstm_cell(input, states, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
