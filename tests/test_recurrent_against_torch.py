"""Recurrent layers and cells against PyTorch's: results, last states and all gradients. Run with ``-m torch``."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import TinyedgeError
from tinyedge.nn.utils import rnn

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

RTOL, ATOL = 1e-5, 1e-6
GRADIENTS = 5e-6
"""Absolute, of a gradient's largest element: sums over steps and samples in other orders."""

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("RNN", {}), "relu": ("RNN", {"nonlinearity": "relu"}), "gru": ("GRU", {}), "lstm": ("LSTM", {}),
    "projected": ("LSTM", {"proj_size": 7}),
}  # fmt: skip


def parts(found: Any) -> list[Any]:
    """Results and states, in one list."""
    if isinstance(found, (tuple, list)):
        return [part for each in found for part in parts(each)]
    return [found]


def compare(torch: Any, own: Any, theirs: Any, call: Any, *arrays: np.ndarray[Any, Any]) -> None:
    """``call`` gets a module, which library it is of, and its tensors."""
    own.load_state_dict({name: te.tensor(value.numpy()) for name, value in theirs.state_dict().items()})
    given = [te.tensor(array, requires_grad=True) for array in arrays]
    wanted_of = [torch.tensor(array, requires_grad=True) for array in arrays]
    got, wanted = parts(call(own, te, *given)), parts(call(theirs, torch, *wanted_of))
    random = np.random.default_rng(1)
    for results, library in ((got, te), (wanted, torch)):
        random = np.random.default_rng(1)
        factors = [library.tensor(random.standard_normal(tuple(y.shape)).astype(np.float32)) for y in results]
        sum((y * factor).sum() for y, factor in zip(results, factors, strict=True)).backward()
    for y, expected in zip(got, wanted, strict=True):
        assert y.shape == tuple(expected.shape)
        np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), RTOL, ATOL)
    pairs = [(x.grad, y.grad) for x, y in zip(given, wanted_of, strict=True)]
    named = dict(theirs.named_parameters())
    pairs += [(parameter.grad, named[name].grad) for name, parameter in own.named_parameters()]
    for gradient, expected in pairs:
        assert (gradient is None) == (expected is None)
        if expected is not None:
            least = GRADIENTS * max(float(expected.abs().max()), 1)
            np.testing.assert_allclose(gradient.numpy(), expected.numpy(), RTOL, least)


def states(kind: str, count: int, samples: int, size: int) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(2)
    shapes = [(count, samples, 7 if kind == "projected" else size)]
    shapes += [(count, samples, size)] if kind in ("lstm", "projected") else []
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers(kind: str, layers: int, bidirectional: bool, backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    name, arguments = KINDS[kind]
    random = np.random.default_rng(0)
    for samples, times, size in itertools.product((1, 5), (1, 13), (8, 40)):
        keywords = {**arguments, "num_layers": layers, "bidirectional": bidirectional, "batch_first": samples == 5}
        own, theirs = (getattr(library.nn, name)(6, size, **keywords) for library in (te, torch))
        shape = (samples, times, 6) if samples == 5 else (times, samples, 6)
        x = random.standard_normal(shape).astype(np.float32)
        compare(torch, own, theirs, lambda module, _, x: module(x), x)
        given = states(kind, layers * (1 + bidirectional), samples, size)

        def call(module: Any, _: Any, x: Any, *hx: Any) -> Any:
            return module(x, hx if len(hx) == 2 else hx[0])

        compare(torch, own, theirs, call, x, *given)
        single = x[0] if samples == 5 else x[:, 0]
        compare(torch, own, theirs, call, single, *(state[:, 0] for state in given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[4, 9, 1, 9, 3], [5, 4, 2], [3, 3], [1], [6]], ids=str)
def test_packed(kind: str, lengths: list[int], backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    name, arguments = KINDS[kind]
    keywords = {**arguments, "num_layers": 2, "bidirectional": True, "bias": len(lengths) != 2}
    own, theirs = (getattr(library.nn, name)(6, 20, **keywords) for library in (te, torch))
    x = np.random.default_rng(0).standard_normal((max(lengths) + 1, len(lengths), 6)).astype(np.float32)
    is_sorted = lengths == sorted(lengths, reverse=True)

    def call(module: Any, library: Any, x: Any, *hx: Any) -> Any:
        tools: Any = rnn if library is te else library.nn.utils.rnn
        packed = tools.pack_padded_sequence(x, lengths, enforce_sorted=is_sorted)
        found, last = module(packed, hx if len(hx) == 2 else hx[0])
        padded, sizes = tools.pad_packed_sequence(found, padding_value=0.5, total_length=len(x))
        assert sizes.tolist() == lengths
        return found.data, padded, last

    compare(torch, own, theirs, call, x, *states(kind, 4, len(lengths), 20))


@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize("bias", [False, True])
def test_cells(name: str, bias: bool, backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    kinds: list[dict[str, Any]] = [{}, {"nonlinearity": "relu"}] if name == "RNNCell" else [{}]
    for keywords, shape in itertools.product(kinds, ((5,), (1,), ())):
        own, theirs = (getattr(library.nn, name)(6, 20, bias, **keywords) for library in (te, torch))
        given = [random.standard_normal((*shape, 20)).astype(np.float32) for _ in range(1 + (name == "LSTMCell"))]
        x = random.standard_normal((*shape, 6)).astype(np.float32)

        def call(module: Any, _: Any, x: Any, *hx: Any) -> Any:
            return module(x, hx if len(hx) == 2 else hx[0])

        compare(torch, own, theirs, call, x, *given)
        compare(torch, own, theirs, lambda module, _, x: module(x), x)


def test_sequences(backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    tools = torch.nn.utils.rnn
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((length, 3)).astype(np.float32) for length in (4, 2, 5)]
    own, theirs = [te.tensor(x) for x in arrays], [torch.tensor(x) for x in arrays]
    for side, first in itertools.product(("left", "right"), (False, True)):
        expected = tools.pad_sequence(theirs, first, -1.0, side)
        np.testing.assert_array_equal(rnn.pad_sequence(own, first, -1.0, side).numpy(), expected.numpy())
    found, wanted = rnn.pack_sequence(own, False), tools.pack_sequence(theirs, False)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    for a, b in zip(rnn.unpack_sequence(found), tools.unpack_sequence(wanted), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    for a, b in zip(rnn.unpad_sequence(rnn.pad_sequence(own), [4, 2, 5]), theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def own_value(value: Any) -> Any:
    """PyTorch's tensors in ``value`` as tinyedge's."""
    if hasattr(value, "batch_sizes"):
        return rnn.PackedSequence(*[None if part is None else te.tensor(part.numpy()) for part in value])
    if hasattr(value, "detach"):
        return te.tensor(value.detach().numpy())
    return tuple(own_value(part) for part in value) if isinstance(value, (tuple, list)) else value


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_inputs_of_torch(name: str, backend: Backend) -> None:
    """PyTorch's own inputs of the module, and those that it refuses."""
    torch = pytest.importorskip("torch")
    modules = pytest.importorskip("torch.testing._internal.common_modules")
    (info,) = (info for info in modules.module_db if info.module_cls is getattr(torch.nn, name))
    keywords = {"device": "cpu", "dtype": torch.float32, "requires_grad": False, "training": False}

    def made(given: Any) -> Any:
        named = {key: value for key, value in given.kwargs.items() if key not in ("device", "dtype")}
        return getattr(te.nn, name)(*given.args, **named)

    def called(module: Any, given: Any) -> Any:
        named = {key: own_value(value) for key, value in given.kwargs.items()}
        return module(*map(own_value, given.args), **named)

    for given in info.module_inputs_func(info, **keywords):
        own, theirs = (
            made(given.constructor_input),
            info.module_cls(*given.constructor_input.args, **given.constructor_input.kwargs),
        )
        own.load_state_dict({key: te.tensor(value.numpy()) for key, value in theirs.state_dict().items()})
        expected = theirs(*given.forward_input.args, **given.forward_input.kwargs)
        for got, wanted in zip(parts(called(own, given.forward_input)), parts(expected), strict=True):
            if wanted is not None and wanted.dtype is torch.float32:
                np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), RTOL, ATOL)
    for case in info.module_error_inputs_func(info, **keywords) if info.module_error_inputs_func else ():
        given = case.module_error_input
        with pytest.raises(TinyedgeError):
            called(made(given.constructor_input), given.forward_input)
