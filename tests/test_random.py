"""Philox against its published answers, the same draws on every backend, and dropout."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.ops.random import Dropout, Generator, philox
from tinyedge.tensor import call


def test_philox_gives_the_published_words() -> None:
    # Random123's kat_vectors.
    assert philox(1, 0, 0)[0].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_philox_is_the_scalar_algorithm() -> None:
    seed, offset = 0xA4093822299F31D0, 0x0370734413198A2E
    for block, words in enumerate(philox(3, offset, seed)):
        counter = [block, 0, offset & 0xFFFFFFFF, offset >> 32]
        key = [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
            counter = [
                second >> 32 ^ counter[1] ^ key[0],
                second & 0xFFFFFFFF,
                first >> 32 ^ counter[3] ^ key[1],
                first & 0xFFFFFFFF,
            ]
            key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
        assert words.tolist() == counter


def test_draws_are_the_same_on_every_backend(opencl: Backend, reference: Backend) -> None:
    def draws(backend: Backend) -> list[bytes]:
        te.manual_seed(2**40 + 3)
        with te.use_backend(backend):
            x = te.ones(7, 5, requires_grad=True)
            y = te.dropout(x, 0.3)
            y.backward(te.ones(7, 5))
            made = [te.rand(3, 5), te.randn(7), te.randint(-4, 9, (6,)), te.randperm(9), y, x.grad]
            return [tensor.detach().numpy().tobytes() for tensor in made]

    assert draws(opencl) == draws(reference)


def test_the_stream_goes_on_and_starts_again() -> None:
    with te.use_backend("numpy"):
        te.manual_seed(5)
        first, second = te.rand(4).tolist(), te.rand(4).tolist()
        assert first != second
        te.manual_seed(5)
        assert te.rand(4).tolist() == first
        own = Generator().manual_seed(5)
        assert te.rand(4, generator=own).tolist() == first
        state = own.get_state()
        assert te.rand(4, generator=own).tolist() == second
        assert te.rand(4, generator=own.set_state(state)).tolist() == second
    assert te.initial_seed() == 5
    with pytest.raises(te.ArgumentError, match="64"):
        te.manual_seed(2**64)


def test_distributions() -> None:
    generator = Generator().manual_seed(1)
    uniform, normal = generator.uniform((40_000,)), generator.normal((40_001,))
    assert uniform.min() >= 0
    assert uniform.astype(np.float32).max() < 1
    assert abs(uniform.mean() - 0.5) < 5 * sqrt(1 / 12 / 40_000)
    assert abs(normal.mean()) < 5 / 200
    assert abs(normal.std() - 1) < 0.02
    assert abs((np.abs(normal) < 1).mean() - 0.6827) < 0.015
    with te.use_backend("numpy"):
        integers = te.randint(3, 6, (3000,), generator=generator).numpy()
        order = te.randperm(50, generator=generator).numpy()
    assert integers.dtype == np.int64
    assert np.all(np.abs(np.bincount(integers, minlength=6)[3:] - 1000) < 150)
    assert set(integers) == {3, 4, 5}
    assert sorted(order) == list(range(50))


def test_dropout_keeps_its_share_and_its_mean(backend: Backend) -> None:
    te.manual_seed(0)
    x = te.ones(200, 201, requires_grad=True)
    y = te.dropout(x, 0.25)
    assert y.grad_fn.saved == {}
    values = y.detach().numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert abs((values == 0).mean() - 0.25) < 0.012
    te.dropout(x, 0.25)  # another draw in between changes nothing
    y.backward(te.ones(200, 201))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), values)
    assert not np.array_equal(te.dropout(x, 0.25).detach().numpy(), values)


def test_dropout_at_its_ends(backend: Backend) -> None:
    x = te.tensor([1.0, -2.0], requires_grad=True)
    assert te.dropout(x, 0.0) is x
    assert te.dropout(x, 0.5, training=False) is x
    y = te.dropout(x, 1.0)
    y.backward(te.ones(2))
    assert x.grad is not None
    assert y.tolist() == [0, 0]
    assert x.grad.tolist() == [0, 0]
    z = te.ones(100)
    assert te.dropout(z, 0.5, inplace=True) is z
    assert 0 in z.tolist()


def test_a_threshold_is_compared_exactly(backend: Backend) -> None:
    words = philox(1, 7, 9)[0]
    scalars = {"seed_low": 9, "seed_high": 0, "offset_low": 7, "offset_high": 0, "scale": 1.0}
    for threshold in (int(words[1]), int(words[1]) + 1):
        x = te.tensor([1.0] * 4)
        kept = call(Dropout, x, scalars={**scalars, "threshold": threshold})
        assert kept.tolist() == [float(word >= threshold) for word in words]


def test_filling(backend: Backend) -> None:
    x = te.zeros(4, 500)
    te.uniform_(x, 2.0, 3.0)
    assert 2.0 <= x.numpy().min() < x.numpy().max() <= 3.0
    te.normal_(x, 10.0, 0.5)
    assert abs(x.numpy().mean() - 10) < 0.06
    p = te.tensor([0.0, 1.0, 0.5])
    drawn = te.bernoulli(p).tolist()
    assert drawn[:2] == [0, 1]
    assert drawn[2] in (0, 1)
