"""Recurrent networks: layers over each other, in one direction or both; and their cells, a step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.matmul import linear
from tinyedge.ops.movement import reshape, select, squeeze, transpose, unsqueeze
from tinyedge.ops.recurrence import GATES, Recurrence
from tinyedge.tensor import Tensor, call_all

Pair = tuple[Tensor, Tensor]


def _require_alike(name: str, tensors: dict[str, Tensor | None]) -> None:
    given = {key: value for key, value in tensors.items() if value is not None}
    for key, value in given.items():
        if not isinstance(value, Tensor):
            raise DtypeError(name, f"{key}: a tensor", f"got {type(value).__name__}", "Convert it with te.tensor.")
    found = {key: value.dtype for key, value in given.items()}
    first = next(iter(found.values()))
    if not first.is_floating_point or len(set(found.values())) > 1:
        listed = ", ".join(f"{key} {dtype.name}" for key, dtype in found.items())
        raise DtypeError(name, "tensors of one floating-point dtype", f"got {listed}", "Convert them with .float().")


def _direction(
    name: str, kind: str, input: Tensor, hidden: Tensor, cell: Tensor | None, params: Sequence[Tensor | None],
    lengths: Tensor | None, reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Results, last state and last cell state of one layer in one direction; ``input`` is (times, batch, size)."""
    weight_ih, weight_hh, bias_ih, bias_hh, weight_hr = params
    assert weight_ih is not None
    assert weight_hh is not None
    named = {
        "input": input, "hx": hidden, "cx": cell, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih,
        "bias_hh": bias_hh, "weight_hr": weight_hr,
    }  # fmt: skip
    _require_alike(name, named)
    size = weight_hh.shape[0] // GATES[kind]
    wide, state = GATES[kind] * size, size if weight_hr is None else weight_hr.shape[0]
    samples = input.shape[1]
    expected = {
        "hx": (samples, state), "cx": (samples, size), "weight_ih": (wide, input.shape[2]), "weight_hh": (wide, state),
        "bias_ih": (wide,), "bias_hh": (wide,), "weight_hr": (state, size),
    }  # fmt: skip
    for key, shape in expected.items():
        value = named[key]
        if value is not None and value.shape != shape:
            raise ShapeError(name, f"{key} of shape {shape} for an input of {input.shape}", f"got {value.shape}")
    y, last, last_cell, *_ = call_all(
        Recurrence, linear(input, weight_ih, bias_ih), hidden, weight_hh, cell, bias_hh, weight_hr, lengths, kind=kind,
        reverse=reverse,
    )  # fmt: skip
    return y, last, last_cell


@dataclass(frozen=True)
class Stack:
    """A recurrent network apart from its weights: layers over each other, each in one direction or in both.

    ``caller`` stands in errors. ``dropout``: the probability with which an element between two layers becomes 0.
    """

    caller: str
    kind: str
    num_layers: int
    has_biases: bool
    bidirectional: bool
    dropout: float


def recurrent_layers(
    stack: Stack, input: Tensor, hx: Sequence[Tensor], params: Sequence[Tensor], lengths: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All layers on an input (times, batch, size): results, and the last states of each layer and direction.

    A sample ends after its ``lengths`` steps: later results are 0, and the last state is that of its last step. All
    samples take as many steps as the longest.
    """
    name, kind, has_biases = stack.caller, stack.kind, stack.has_biases
    directions = 2 if stack.bidirectional else 1
    count = stack.num_layers * directions
    if count < 1 or not params or len(params) % count:
        raise ArgumentError(name, f"params: as many for each of {count} layers and directions", f"got {len(params)}")
    each = len(params) // count
    has_projection = each == (5 if has_biases else 3)
    if each != (4 if has_biases else 2) + has_projection or (has_projection and kind != "lstm"):
        raise ArgumentError(name, "params: two weights a layer, two biases with has_biases", f"got {each}")
    if input.ndim != 3:
        raise ShapeError(name, "an input (times, batch, size)", f"got {input.shape}")
    if not input.shape[0]:
        raise ShapeError(name, "a sequence of at least one step", f"got {input.shape}")
    for state in hx:
        if state.ndim != 3 or state.shape[0] != count:
            raise ShapeError(name, f"states of 3 dims for {count} layers and directions", f"got {state.shape}")
    lasts, cells = [], []
    for layer in range(stack.num_layers):
        results = []
        for direction in range(directions):
            k = layer * directions + direction
            own: list[Tensor | None] = list(params[k * each : (k + 1) * each])
            projection = own.pop() if has_projection else None
            own += [None] * (4 - len(own))
            cell = select(hx[1], 0, k) if kind == "lstm" else None
            y, last, last_cell = _direction(
                name, kind, input, select(hx[0], 0, k), cell, (*own, projection), lengths, direction == 1
            )
            results.append(y)
            lasts.append(last)
            cells.append(last_cell)
        input = results[0] if directions == 1 else functions["cat"](results, 2)
        if stack.dropout and layer < stack.num_layers - 1:
            input = functions["dropout"](input, stack.dropout, True)
    stacked = functions["stack"]
    return input, stacked(lasts), stacked(cells) if kind == "lstm" else None


def _layers(
    stack: Stack, input: Tensor, hx: Sequence[Tensor], params: Sequence[Tensor], batch_first: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    if batch_first and input.ndim == 3:
        input = transpose(input, 0, 1)
    y, last, cell = recurrent_layers(stack, input, hx, params)
    return transpose(y, 0, 1) if batch_first else y, last, cell


@public
def rnn_tanh(
    input: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Pair:
    """Layers of ``h' = tanh(x weight_ih.T + bias_ih + h weight_hh.T + bias_hh)``: results, and the last states.

    ``num_layers`` layers are stacked; in training (``train``), ``dropout`` is the probability with which an element
    between two of them becomes 0. ``bidirectional`` adds to each a layer from the last step to the first.
    ``has_biases`` says whether params has biases.

    Shapes: input (times, batch, size), or (batch, times, size) with batch_first; hx (layers * directions, batch,
            hidden); params weight_ih, weight_hh, bias_ih, bias_hh of each layer and direction; returns (times, batch,
            directions * hidden) and the shape of hx.
    Saves:  the states of all steps.
    Errors: ShapeError if the shapes do not fit, or there is no step; ArgumentError for another number of params.
    """
    stack = Stack("rnn_tanh", "tanh", num_layers, has_biases, bidirectional, dropout if train else 0.0)
    y, last, _ = _layers(stack, input, (hx,), params, batch_first)
    return y, last


@public
def rnn_relu(
    input: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Pair:
    """Layers of ``h' = relu(x weight_ih.T + bias_ih + h weight_hh.T + bias_hh)``: results, and the last states.

    The other arguments are those of ``rnn_tanh``.

    Shapes: those of ``rnn_tanh``.
    Saves:  the states of all steps.
    Errors: ShapeError if the shapes do not fit, or there is no step; ArgumentError for another number of params.
    """
    stack = Stack("rnn_relu", "relu", num_layers, has_biases, bidirectional, dropout if train else 0.0)
    y, last, _ = _layers(stack, input, (hx,), params, batch_first)
    return y, last


@public
def gru(
    input: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Pair:
    """Layers of gated recurrent units: results, and the last states. The weights' rows are those of r, z and n:
    ``h' = (1 - z) n + z h``, where ``n = tanh(x + r (h weight.T + bias))``.

    The other arguments are those of ``rnn_tanh``.

    Shapes: those of ``rnn_tanh``, with 3 * hidden rows in the weights.
    Saves:  the states and gates of all steps.
    Errors: ShapeError if the shapes do not fit, or there is no step; ArgumentError for another number of params.
    Source: Cho et al., arXiv:1406.1078.
    """
    stack = Stack("gru", "gru", num_layers, has_biases, bidirectional, dropout if train else 0.0)
    y, last, _ = _layers(stack, input, (hx,), params, batch_first)
    return y, last


@public
def lstm(
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Layers of long short-term memory: results, the last states, and the last cell states. The weights' rows are those
    of i, f, g and o: ``c' = f c + i g`` and ``h' = o tanh(c')``, which the last of ``params``, if there is one more,
    projects.

    The other arguments are those of ``rnn_tanh``.

    Shapes: those of ``rnn_tanh``, with 4 * hidden rows in the weights; hx has two states; a projection (proj, hidden)
            makes states and results of size proj, but for the cell states.
    Saves:  the states, cell states and gates of all steps.
    Errors: ShapeError if the shapes do not fit, or there is no step; ArgumentError for another number of params.
    Source: Hochreiter and Schmidhuber, Long short-term memory (1997).
    """
    if isinstance(hx, Tensor) or len(hx) != 2:
        raise ArgumentError("lstm", "hx: a state and a cell state", f"got {type(hx).__name__}")
    stack = Stack("lstm", "lstm", num_layers, has_biases, bidirectional, dropout if train else 0.0)
    y, last, cell = _layers(stack, input, hx, params, batch_first)
    assert cell is not None
    return y, last, cell


# A step


def _cell(
    name: str, kind: str, input: Tensor, hx: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> Pair:  # fmt: skip
    if input.ndim not in (1, 2) or any(state.ndim != input.ndim for state in hx):
        shapes = " and ".join(str(x.shape) for x in (input, *hx))
        raise ShapeError(name, "input and states of 1 dim, or of 2", f"got {shapes}")
    is_single = input.ndim == 1
    x = reshape(input, (1, 1, input.shape[0])) if is_single else unsqueeze(input, 0)
    states = [unsqueeze(state, 0) if is_single else state for state in hx]
    cell = states[1] if kind == "lstm" else None
    _, last, last_cell = _direction(name, kind, x, states[0], cell, (w_ih, w_hh, b_ih, b_hh, None), None, False)
    if not is_single:
        return last, last_cell
    return squeeze(last, 0), squeeze(last_cell, 0) if kind == "lstm" else last_cell


@public
def rnn_tanh_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """``tanh(input w_ih.T + b_ih + hx w_hh.T + b_hh)``, one step of ``rnn_tanh``.

    Shapes: input (batch, size) or (size,); hx (batch, hidden) or (hidden,); returns the shape of hx.
    Errors: ShapeError if the shapes do not fit.
    """
    return _cell("rnn_tanh_cell", "tanh", input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


@public
def rnn_relu_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """``relu(input w_ih.T + b_ih + hx w_hh.T + b_hh)``, one step of ``rnn_relu``.

    Shapes: input (batch, size) or (size,); hx (batch, hidden) or (hidden,); returns the shape of hx.
    Errors: ShapeError if the shapes do not fit.
    """
    return _cell("rnn_relu_cell", "relu", input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


@public
def gru_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """One step of ``gru``.

    ``w_ih`` and ``b_ih`` are the weight and bias of the input, ``w_hh`` and ``b_hh`` those of the state.

    Shapes: input (batch, size) or (size,); hx (batch, hidden) or (hidden,); returns the shape of hx.
    Errors: ShapeError if the shapes do not fit.
    """
    return _cell("gru_cell", "gru", input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


@public
def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Pair:
    """One step of ``lstm``: the state, and the cell state.

    ``w_ih`` and ``b_ih`` are the weight and bias of the input, ``w_hh`` and ``b_hh`` those of the state.

    Shapes: input (batch, size) or (size,); hx two of (batch, hidden) or (hidden,); returns two of that shape.
    Errors: ShapeError if the shapes do not fit; ArgumentError unless hx has two states.
    """
    if isinstance(hx, Tensor) or len(hx) != 2:
        raise ArgumentError("lstm_cell", "hx: a state and a cell state", f"got {type(hx).__name__}")
    return _cell("lstm_cell", "lstm", input, hx, w_ih, w_hh, b_ih, b_hh)
