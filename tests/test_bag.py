"""EmbeddingBag, Bilinear, dropout of channels: values, gradients, layers, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, ShapeError, TinyedgeError


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_any_length(backend: Backend, mode: str) -> None:
    random = np.random.default_rng(0)
    table, index = random.standard_normal((7, 4)).astype(np.float32), np.array([1, 2, 4, 5, 4, 3, 2, 6])
    starts = np.array([0, 3, 3, 7])
    layer = nn.EmbeddingBag.from_pretrained(te.tensor(table), freeze=False, mode=mode)
    y = layer(te.tensor(index), te.tensor(starts))
    parts = [table[index[a:b]] for a, b in zip(starts, [*starts[1:], 8], strict=True)]
    reduce: Any = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode]
    expected = np.array([reduce(part, 0) if len(part) else np.zeros(4) for part in parts])
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-5)
    factor = random.standard_normal(y.shape).astype(np.float32)
    (y * te.tensor(factor)).sum().backward()
    wanted = np.zeros_like(table)
    for bag, (a, b) in enumerate(zip(starts, [*starts[1:], 8], strict=True)):
        for k in range(a, b):
            if mode == "max":
                wanted[index[k]] += factor[bag] * (table[index[k]] == expected[bag].astype(np.float32))
            else:
                wanted[index[k]] += factor[bag] / (b - a if mode == "mean" else 1)
    assert layer.weight.grad is not None
    np.testing.assert_allclose(layer.weight.grad.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_bags_are_refused_that_do_not_fit(backend: Backend) -> None:
    table = te.zeros(3, 2)
    with pytest.raises(ShapeError, match="offsets"):
        F.embedding_bag(te.tensor([1, 2]), table)
    with pytest.raises(ArgumentError, match="ascend from 0"):
        F.embedding_bag(te.tensor([1, 2]), table, te.tensor([1]))
    with pytest.raises(TinyedgeError):
        F.embedding_bag(te.tensor([[3]]), table, mode="sum")
    assert repr(nn.EmbeddingBag(3, 2, padding_idx=-1)) == "EmbeddingBag(3, 2, mode='mean', padding_idx=2)"


def test_bilinear(backend: Backend) -> None:
    layer = nn.Bilinear(3, 4, 2)
    x, y = te.randn(5, 3), te.randn(5, 4)
    assert layer.bias is not None
    expected = np.einsum("bi,oij,bj->bo", x.numpy(), layer.weight.detach().numpy(), y.numpy())
    found = te.compile(layer)(x, y).detach().numpy()
    np.testing.assert_allclose(found, expected + layer.bias.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert repr(layer) == "Bilinear(in1_features=3, in2_features=4, out_features=2, bias=True)"


@pytest.mark.parametrize("name", ["Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"])
def test_channels_go_as_a_whole(backend: Backend, name: str) -> None:
    layer = getattr(nn, name)(0.5)
    shape = (64, 8, *(3,) * {"Dropout1d": 1, "Dropout3d": 3}.get(name, 2))
    for call in (layer, te.compile(lambda x: layer(x))):
        y = call(te.ones(*shape)).numpy().reshape(64 * 8, -1)
        assert (y == y[:, :1]).all()
        assert 0.4 < (y[:, 0] == y.min()).mean() < 0.6
    assert (layer.eval()(te.ones(*shape)) == 1).all()


def test_alpha_dropout_keeps_moments(backend: Backend) -> None:
    te.manual_seed(0)
    y = nn.AlphaDropout(0.3)(te.randn(40000))
    assert y.mean().item() == pytest.approx(0, abs=0.03)
    assert y.std().item() == pytest.approx(1, abs=0.03)


def test_gumbel_softmax(backend: Backend) -> None:
    te.manual_seed(0)
    logits = te.tensor([0.0, 1.0]).expand(20000, 2).contiguous().requires_grad_()
    y = F.gumbel_softmax(logits, hard=True)
    share = y.detach().mean(0)
    assert ((y == 0) | (y == 1)).all()
    assert share[1].item() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.02)
    (y * te.tensor([1.0, 2.0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum().item() > 0
