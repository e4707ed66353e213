"""Philox against its published answers, the same draws on every backend, and dropout."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.nn import functional as F
from tinyedge.ops.random import Dropout, Generator, default_generator, philox
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


MAKERS: dict[str, Callable[[te.Tensor], te.Tensor]] = {
    "rand": lambda x: te.rand(2, 3) * x,
    "rand, returned": lambda x: te.rand(2, 3),
    "rand of float64 on numpy": lambda x: te.rand(3, dtype=te.float64, device="numpy").float().sum().to(x.backend) + x,
    "randn": lambda x: te.randn(3) + x,
    "randint": lambda x: te.randint(-5, 100, (2, 3)) + x,
    "randperm": lambda x: te.randperm(3) * x,
    "randperm as an index": lambda x: x[:, te.randperm(3)],
    "rand_like": lambda x: te.rand_like(x) - x,
    "randn_like": lambda x: te.randn_like(x) - x,
    "bernoulli": lambda x: te.bernoulli(te.full((2, 3), 0.5)) * x,
    "uniform_": lambda x: te.uniform_(te.zeros(2, 3), -1, 1) + x,
    "normal_": lambda x: te.normal_(te.zeros(5), 1, 2).sum() + x,
    "changed in place": lambda x: te.rand(2, 3).mul_(2).add_(x),
    "several, and dropout between": lambda x: F.dropout(te.rand(2, 3) + x, 0.5) + te.randn(3) + F.dropout(x, 0.5),
    "one that is not used": lambda x: (te.rand(4), F.dropout(x, 0.5), te.rand(2, 3) + x)[2],
    "alpha_dropout": lambda x: x * te.rand(()) if not hasattr(F, "alpha_dropout") else F.alpha_dropout(x, 0.3, True),
}


@pytest.mark.parametrize("name", MAKERS)
def test_replays_draw_what_eager_calls_would(name: str, backend: Backend) -> None:
    """The same counters in the same order, equal but for what fusion rounds once less; and the stream goes on there."""
    if "float64" in name and backend.name != "numpy":
        pytest.skip("a program runs on one backend")
    function, x = MAKERS[name], te.arange(6.0).reshape(2, 3)

    def stream(call: Callable[[te.Tensor], te.Tensor]) -> list[Any]:
        te.manual_seed(3)
        return [*[call(x).tolist() for _ in range(4)], te.rand(2).tolist()]

    compiled = te.compile(function)
    eager = stream(function)
    assert len({str(values) for values in eager[:4]}) > 1
    for _ in range(2):
        for got, wanted in zip(stream(compiled), eager, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6)
    compiled.prepare(x)
    te.manual_seed(3)
    np.testing.assert_allclose(compiled(x).tolist(), eager[0], rtol=1e-6)


def test_each_backward_has_the_numbers_of_its_call(backend: Backend) -> None:
    """Also where two calls come before the first backward; and those of a generator of one's own."""
    w = te.ones(3, requires_grad=True)
    generator = te.Generator()

    def noisy(x: te.Tensor) -> te.Tensor:
        return ((te.rand(3, generator=generator) * w + F.dropout(x, 0.5, generator=generator)) * w).sum()

    def gradients(call: Callable[[te.Tensor], te.Tensor]) -> list[Any]:
        generator.manual_seed(7)
        found: list[Any] = []
        for _ in range(3):
            w.grad = None
            losses = [call(te.ones(3)), call(te.ones(3))]
            for loss in losses:
                loss.backward()
            assert w.grad is not None
            found += [loss.item() for loss in losses] + w.grad.tolist()
        return found

    np.testing.assert_allclose(gradients(te.compile(noisy)), gradients(noisy), rtol=1e-6)


def test_random_numbers_in_a_part_that_is_computed_again(backend: Backend) -> None:
    w = te.ones(3, requires_grad=True)

    def part(x: te.Tensor) -> te.Tensor:
        return te.exp(x * te.rand(3)) * w

    def step(x: te.Tensor) -> Any:
        te.checkpoint(part, x).sum().backward()
        gradient, w.grad = w.grad, None
        return gradient

    def stream(call: Callable[[te.Tensor], te.Tensor]) -> list[Any]:
        te.manual_seed(3)
        return [call(te.ones(3)).tolist() for _ in range(4)]

    np.testing.assert_allclose(stream(te.compile(step)), stream(step), rtol=1e-6)


def test_a_random_tensor_that_is_kept_is_refused(backend: Backend) -> None:
    kept: list[te.Tensor] = []

    def keeps(x: te.Tensor) -> te.Tensor:
        kept.append(te.rand(3))
        return x * 2

    compiled = te.compile(keeps, constant=["kept"])
    with pytest.raises(te.CaptureError, match=r"of random numbers.* is still held"):
        compiled(te.ones(3))


def test_a_random_index_is_checked_at_each_replay(backend: Backend) -> None:
    """As in eager calls: the numbers came from the host. A compiled call that fails draws none."""

    def picks(x: te.Tensor) -> te.Tensor:
        return te.index_select(x, 0, te.randint(0, 6, (4,)))

    compiled, x = te.compile(picks), te.arange(5.0)
    found: list[Any] = []
    for function in (picks, compiled):
        te.manual_seed(0)
        found.append([])
        for _ in range(3):  # the third is outside
            state = default_generator.get_state()
            try:
                found[-1].append(function(x).tolist())
            except te.IndexRangeError as error:
                found[-1].append(str(error))
    assert found[0] == found[1]
    assert "[0, 5)" in found[0][2]
    assert default_generator.get_state() == state
