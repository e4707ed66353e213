"""The transformer's layers against PyTorch's: names of parameters, results, weights and gradients."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # PyTorch warns about its own nested tensors

LENGTH, KEYS, BATCH, WIDTH = 5, 7, 3, 8
Array = np.ndarray[Any, Any]


def compare(mine: Any, theirs: Any, inputs: list[Array], options: dict[str, Any], shared: bool = False) -> None:
    """One call of both, forward and backward; with ``shared`` the first input stands for all three."""
    torch = pytest.importorskip("torch")
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict({name: te.tensor(value.numpy()) for name, value in theirs.state_dict().items()})
    given = [torch.tensor(x, requires_grad=True) for x in inputs]
    taken = [te.tensor(x, requires_grad=True) for x in inputs]

    def arrays(convert: Any) -> dict[str, Any]:
        return {name: convert(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}

    expected = theirs(*(given * 3 if shared else given), **arrays(torch.tensor))
    got = mine(*(taken * 3 if shared else taken), **arrays(te.tensor))
    if isinstance(expected, tuple):
        assert (got[1] is None) == (expected[1] is None)
        if expected[1] is not None:
            np.testing.assert_allclose(got[1].detach().numpy(), expected[1].detach().numpy(), rtol=1e-4, atol=2e-5)
        got, expected = got[0], expected[0]
    np.testing.assert_allclose(got.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=2e-5)
    dy = np.random.default_rng(1).standard_normal(got.shape).astype(np.float32)
    expected.backward(torch.tensor(dy))
    got.backward(te.tensor(dy))
    parameters = dict(theirs.named_parameters())
    pairs = [*zip(taken, given, strict=True), *((p, parameters[name]) for name, p in mine.named_parameters())]
    for x, wanted in pairs:
        if wanted.grad is None:
            assert x.grad is None or not x.grad.numpy().any()
        else:
            np.testing.assert_allclose(x.grad.numpy(), wanted.grad.numpy(), rtol=1e-4, atol=2e-4)
    mine.zero_grad()
    theirs.zero_grad()


def sample(*shape: int, batch_first: bool = False) -> Array:
    shape = (shape[1], shape[0], *shape[2:]) if batch_first else shape
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


PADDING = np.array([[False] * 4 + [True] * 3, [False] * 7, [False] * 7])
CAUSAL = np.triu(np.ones((LENGTH, LENGTH), bool), 1)
MASKS: list[dict[str, Any]] = [
    {},
    {"key_padding_mask": PADDING},
    {"attn_mask": sample(LENGTH, KEYS)},
    {"attn_mask": sample(BATCH * 2, LENGTH, KEYS), "key_padding_mask": sample(BATCH, KEYS)},
    {"attn_mask": sample(LENGTH, KEYS) > 1, "key_padding_mask": PADDING},
]


@pytest.mark.parametrize(("bias", "add_bias_kv"), list(product((True, False), repeat=2)))
@pytest.mark.parametrize("add_zero_attn", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("kdim", "vdim"), [(None, None), (6, 10)])
def test_attention(
    backend: Backend,
    bias: bool,
    add_bias_kv: bool,
    add_zero_attn: bool,
    batch_first: bool,
    kdim: int | None,
    vdim: int | None,
) -> None:
    torch = pytest.importorskip("torch")
    options = {"bias": bias, "add_bias_kv": add_bias_kv, "add_zero_attn": add_zero_attn, "batch_first": batch_first}
    options |= {"kdim": kdim, "vdim": vdim}
    mine, theirs = (place.MultiheadAttention(WIDTH, 2, **options) for place in (nn, torch.nn))
    sizes = ((LENGTH, WIDTH), (KEYS, kdim or WIDTH), (KEYS, vdim or WIDTH))
    inputs = [sample(length, BATCH, width, batch_first=batch_first) for length, width in sizes]
    ways = ({"need_weights": True}, {"average_attn_weights": False}, {"need_weights": False})
    for masks, way in product(MASKS, ways):
        compare(mine, theirs, inputs, {**masks, **way})
    if kdim is None:
        for way in ways:
            compare(mine, theirs, inputs[:1], {**way, "attn_mask": CAUSAL}, shared=True)
        compare(mine, theirs, [sample(LENGTH, WIDTH)], {}, shared=True)
        if not (add_bias_kv or add_zero_attn):
            causal = {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}
            compare(mine, theirs, inputs[:1], causal, shared=True)


@pytest.mark.parametrize(("norm_first", "batch_first", "bias"), list(product((True, False), repeat=3)))
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_transformer(backend: Backend, norm_first: bool, batch_first: bool, bias: bool, activation: str) -> None:
    torch = pytest.importorskip("torch")
    options: dict[str, Any] = {"dropout": 0.0, "norm_first": norm_first, "batch_first": batch_first, "bias": bias}
    mine, theirs = (
        place.Transformer(WIDTH, 2, 2, 2, 16, activation=base.tanh if activation == "tanh" else activation, **options)
        for base, place in ((te, nn), (torch, torch.nn))
    )
    mask = torch.nn.Transformer.generate_square_subsequent_mask(LENGTH).numpy()
    np.testing.assert_array_equal(nn.Transformer.generate_square_subsequent_mask(LENGTH).numpy(), mask)
    inputs = [sample(length, BATCH, WIDTH, batch_first=batch_first) for length in (KEYS, LENGTH)]
    compare(mine, theirs, inputs, {})
    masks = {"tgt_mask": mask, "tgt_is_causal": True}
    compare(mine, theirs, inputs, {**masks, "src_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING})
