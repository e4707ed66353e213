"""Where floats are delicate: cancellation, overflow in between, kinks, and values at which a slope is infinite.

What is expected is what PyTorch gives, or the exact number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import IndexRangeError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor

Array = np.ndarray[Any, Any]
Call = Callable[..., Tensor]
compiled = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


def gradients(call: Call, *inputs: Any, compiled: bool = False) -> tuple[Array, list[Array]]:
    """The result, and the gradients of its sum; compiled, those of a replay."""
    tensors = [te.tensor(np.asarray(x, np.float32), requires_grad=True) for x in inputs]

    def step() -> Tensor:
        y = call(*tensors)
        y.backward(te.ones_like(y))
        return y

    run = te.compile(step) if compiled else step
    y = run()
    if compiled:
        for tensor in tensors:
            tensor.grad = None
        y = run()
    found = []
    for tensor in tensors:
        assert tensor.grad is not None
        found.append(tensor.grad.numpy())
    return y.detach().numpy(), found


def assert_gradients(call: Call, inputs: Sequence[Any], wanted: Sequence[Any], compiled: bool) -> None:
    _, got = gradients(call, *inputs, compiled=compiled)
    for mine, expected in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, np.asarray(expected, np.float32), rtol=2e-6, atol=0, equal_nan=True)


# Kinks, and what is flat

KINKS = {
    "relu": (te.relu, [-1, 0, 1], [0, 0, 1]),
    "relu6": (F.relu6, [-1, 0, 3, 6, 7], [0, 0, 1, 0, 0]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.5), [-1, 0, 1], [0.5, 0.5, 1]),
    "elu": (lambda x: F.elu(x, 0.5), [0, 1], [0.5, 1]),
    "hardsigmoid": (F.hardsigmoid, [-4, -3, 0, 3, 4], [0, 0, 1 / 6, 0, 0]),
    "hardswish": (F.hardswish, [-4, -3, 0, 3, 4], [0, 0, 0.5, 1, 1]),
    "abs": (te.abs, [-2, 0, 2], [-1, 0, 1]),
    "clamp": (lambda x: te.clamp(x, -1, 2), [-2, -1, 0, 2, 3], [0, 0, 1, 0, 0]),
    "softplus": (lambda x: F.softplus(x, threshold=3.0), [3, 4], [1 / (1 + math.exp(-3)), 1]),
    "sign": (te.sign, [-1, 0, 2, math.inf], [0, 0, 0, 0]),
    "floor": (te.floor, [-1.5, 0, 2.5], [0, 0, 0]),
    "trunc": (te.trunc, [-1.5, 0, 2.5], [0, 0, 0]),
    "sqrt": (te.sqrt, [0, 4], [math.inf, 0.25]),
    "rsqrt": (te.rsqrt, [0, 4], [-math.inf, -0.0625]),
    "power of 0": (lambda x: x**0.0, [-1, 0, 2], [0, 0, 0]),
    "power of 0.5": (lambda x: x**0.5, [0, 4], [math.inf, 0.25]),
    "power of 1.5": (lambda x: x**1.5, [0, 4], [0, 3]),
    "power of 3": (lambda x: x**3.0, [-1, 0, 2], [3, 0, 12]),
    "amax": (lambda x: te.amax(x, 0), [1, 3, 3, 2, 3], [0, 1 / 3, 1 / 3, 0, 1 / 3]),
    "amin": (lambda x: te.amin(x, 0), [1, 3, 1, 2], [0.5, 0, 0.5, 0]),
    "max of all": (te.max, [3, 1, 3], [0.5, 0, 0.5]),
    "max of a dim": (lambda x: te.max(x, 0)[0], [3, 1, 3], [1, 0, 0]),
    "huber": (lambda x: F.huber_loss(x, te.zeros_like(x), "none"), [-2, -1, 0, 1, 2], [-1, -1, 0, 1, 1]),
    "smooth_l1": (lambda x: F.smooth_l1_loss(x, te.zeros_like(x), reduction="none"), [-1, 0, 1], [-1, 0, 1]),
    "l1": (lambda x: F.l1_loss(x, te.zeros_like(x), reduction="none"), [-1, 0, 1], [-1, 0, 1]),
}
TWO = {
    "maximum": (te.maximum, [1, 2, 3], [2, 2, 2], [0, 0.5, 1], [1, 0.5, 0]),
    "minimum": (te.minimum, [1, 2, 3], [2, 2, 2], [1, 0.5, 0], [0, 0.5, 1]),
    "pow": (te.pow, [0, 2], [2, 0], [0, 0], [0, math.log(2)]),
    "remainder": (
        te.remainder,
        [5.5, -5.5, 1e9, 5],
        [2, 2, 3.14159274, math.inf],
        [1, 1, 1, 1],
        [-2, 3, -318309888, 0],
    ),
    "floor_divide": (te.floor_divide, [5, -5, 1], [2, 2, 0], [0, 0, 0], [0, 0, 0]),
    "div, floor": (lambda a, b: te.div(a, b, rounding_mode="floor"), [5, -5, 1], [2, 2, 0], [0, 0, 0], [0, 0, 0]),
    "div, trunc": (lambda a, b: te.div(a, b, rounding_mode="trunc"), [5, -5, 1], [2, 2, 0], [0, 0, 0], [0, 0, 0]),
    "where": (lambda a, b: te.where(a > 0, a, b), [-1, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 0]),
    "div": (te.div, [1e20, 1e-15, 1], [1e20, 1e-25, 0], [1e-20, 1e25, math.inf], [-1e-20, -1e35, -math.inf]),
}


@compiled
@pytest.mark.parametrize("name", KINKS)
def test_one_sided(name: str, backend: Backend, compiled: bool) -> None:
    call, x, wanted = KINKS[name]
    assert_gradients(call, [x], [wanted], compiled)


@compiled
@pytest.mark.parametrize("name", TWO)
def test_two_sided(name: str, backend: Backend, compiled: bool) -> None:
    call, a, b, da, db = TWO[name]
    assert_gradients(call, [a, b], [da, db], compiled)


@compiled
def test_overflow_in_between(backend: Backend, compiled: bool) -> None:
    """Slopes that float32 holds, though a square of what they are made of is beyond it."""
    assert_gradients(te.reciprocal, [[1e18, 1e-18]], [[-1e-36, -1e36]], compiled)
    assert_gradients(te.rsqrt, [[1e20, 1e-20]], [[-0.5e-30, -0.5e30]], compiled)
    assert_gradients(te.sqrt, [[1e30, 1e-30]], [[0.5e-15, 0.5e15]], compiled)
    assert_gradients(te.log, [[1e30, 1e-30]], [[1e-30, 1e30]], compiled)
    assert_gradients(lambda x: F.log_softmax(x, 0), [[200, -200]], [[-1, 1]], compiled)
    assert_gradients(lambda x: te.logsumexp(x, 0), [[3e38, 0]], [[1, 0]], compiled)
    assert_gradients(te.sigmoid, [[100, -100]], [[0, 0]], compiled)
    assert_gradients(te.tanh, [[1e30, -1e30]], [[0, 0]], compiled)
    assert_gradients(F.gelu, [[1e20, -1e20]], [[1, 0]], compiled)
    assert_gradients(F.silu, [[1e20, -100]], [[1, 0]], compiled)


# Remainders and quotients

DIVIDED = [
    (1e9, 3.14159274), (5, math.inf), (-5, math.inf), (5, -math.inf), (1, 0.1), (-1, 0.1), (7.5, -2), (-7.5, -2),
    (6, 3), (0.3, 0.1), (1e-30, 3e30), (1, 0), (math.inf, 2), (math.nan, 2), (0, 2),
]  # fmt: skip


@compiled
@pytest.mark.parametrize("fused", [False, True], ids=["alone", "fused"])
def test_remainder_and_quotient(backend: Backend, compiled: bool, fused: bool) -> None:
    """Python's own on float32, whose quotient and remainder fit each other."""
    a, b = np.array(DIVIDED, np.float32).T
    with np.errstate(all="ignore"):
        quotient, remainder = np.floor_divide(a, b), np.mod(a, b)

    def step(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        if fused:
            a, b = a * 1.0, b * 1.0
        return te.floor_divide(a, b), te.remainder(a, b)

    run = te.compile(step) if compiled else step
    for _ in range(2):
        got = run(te.tensor(a), te.tensor(b))
    np.testing.assert_array_equal(got[0].numpy(), quotient)
    np.testing.assert_array_equal(got[1].numpy(), remainder)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal((te.tensor(a) % 3.14159274).numpy(), np.mod(a, np.float32(3.14159274)))


# Means of equal numbers, and what is computed from them

VALUES = [(1000, 100.1), (4096, 1000.1), (1, 7.3), (7, -0.1), (40, 1e30), (10000, 1e-30)]


@compiled
@pytest.mark.parametrize(("count", "value"), VALUES)
def test_norms_of_equal_numbers(backend: Backend, count: int, value: float, compiled: bool) -> None:
    """They are 0, and the gradient is that of the mean's removal, to rounding: not rounding times 1 / sqrt(eps)."""
    random = np.random.default_rng(count)
    weight = random.uniform(0.5, 1.5, count)
    x = np.full((3, count), value)
    y, (dx, dweight) = gradients(lambda x, w: F.layer_norm(x, (count,), w), x, weight, compiled=compiled)
    g = np.asarray(weight, np.float32).astype(np.float64)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(dweight, 0)
    wanted = np.broadcast_to((g - g.mean()) / math.sqrt(1e-5), x.shape)
    np.testing.assert_allclose(dx, wanted, rtol=1e-5, atol=2e-4 if count > 1 else 0)
    if count > 1:
        y, (dx,) = gradients(lambda x: F.batch_norm(x.T, None, None, training=True), x, compiled=compiled)
        np.testing.assert_array_equal(y, 0)
        y, _ = gradients(lambda x: F.group_norm(x.reshape(3, 1, -1), 1), x, compiled=compiled)
        np.testing.assert_array_equal(y, 0)
        y, _ = gradients(lambda x: F.instance_norm(x.reshape(3, 1, -1)), x, compiled=compiled)
        np.testing.assert_array_equal(y, 0)


@compiled
def test_batch_norm_of_equal_images(backend: Backend, compiled: bool) -> None:
    x = np.full((8, 3, 31, 31), 100.1)
    y, (dx,) = gradients(lambda x: F.batch_norm(x, None, None, training=True), x, compiled=compiled)
    np.testing.assert_array_equal(y, 0)
    assert np.abs(dx).max() < 2e-4


@compiled
@pytest.mark.parametrize(("count", "value"), VALUES)
@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("call", [te.var, te.std])
def test_deviation_of_equal_numbers(
    backend: Backend, call: Call, axis: int | None, count: int, value: float, compiled: bool
) -> None:
    y, (dx,) = gradients(lambda x: call(x, axis, correction=0), np.full((2, count), value), compiled=compiled)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(dx, 0)


def test_deviation_of_one_number(backend: Backend) -> None:
    for call in (te.var, te.std):
        y, (dx,) = gradients(call, [5.0])
        assert np.isnan(y)
        assert np.isnan(dx).all()


@pytest.mark.parametrize("shape", [(3, 1000), (2, 40000), (40000, 2), (3, 5, 700), (50, 20000)])
@pytest.mark.parametrize("axis", [0, -1])
def test_mean_of_equal_numbers(backend: Backend, shape: tuple[int, ...], axis: int) -> None:
    got = te.mean(te.full(shape, 100.1), axis).numpy()
    np.testing.assert_allclose(got, np.float32(100.1), rtol=1.2e-7)


def test_mean_with_infinity(backend: Backend) -> None:
    x = np.ones((4, 30), np.float32)
    x[0, 0], x[1, 7], x[2, 0], x[2, 1] = math.inf, math.inf, math.inf, -math.inf
    np.testing.assert_array_equal(te.mean(te.tensor(x), 1).numpy(), [math.inf, math.inf, math.nan, 1])


# Labels and losses


@compiled
@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize(
    ("labels", "ignored"),
    [([-1, -100, 2], -100), ([-1, -100, -100], -100), ([255, 30, 0], 255), ([30, 255, -1], 255), ([5, 1, 1], -100)],
)
def test_a_wrong_label_beside_an_ignored_one(
    backend: Backend, loss: Call, labels: list[int], ignored: int, compiled: bool
) -> None:
    def step(x: Tensor, labels: Tensor) -> Tensor:
        y = loss(x, labels, ignore_index=ignored)
        y.backward()
        return y

    x = te.zeros(3, 5, requires_grad=True)
    run = te.compile(step) if compiled else step
    fine = te.tensor([ignored, 1, 4])
    for _ in range(2 if compiled else 1):
        assert math.isfinite(run(x, fine).item())
    with pytest.raises(IndexRangeError):
        run(x, te.tensor(labels))
    assert math.isfinite(run(x, fine).item())


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss])
def test_a_target_of_another_shape(backend: Backend, loss: Call) -> None:
    with pytest.warns(UserWarning, match=r"target of shape \(4,\) for an input of shape \(4, 1\) is broadcast"):
        assert loss(te.zeros(4, 1), te.zeros(4), reduction="none").shape == (4, 4)
    with pytest.raises(ShapeError):
        loss(te.zeros(4), te.zeros(3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss(te.zeros(4, 1), te.zeros(4, 1))
    assert not [item for item in caught if "broadcast" in str(item.message)]


@pytest.mark.parametrize("loss", [F.binary_cross_entropy, F.binary_cross_entropy_with_logits])
def test_binary_cross_entropy_takes_no_other_shape(backend: Backend, loss: Call) -> None:
    with pytest.raises(ShapeError):
        loss(te.full((4, 1), 0.5), te.zeros(4))


def test_masked_fill_keeps_the_dtype(backend: Backend) -> None:
    mask = te.tensor([True, False])
    assert te.tensor([1, 2]).masked_fill(mask, 1.5).tolist() == [1, 2]
    assert te.tensor([1, 2]).masked_fill(mask, 1.5).dtype is te.int64
    assert te.tensor([False, False]).masked_fill(mask, 2).tolist() == [True, False]


LONG = 100_000
TENTH = float(np.float32(0.1))
LONG_SUMS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], float]] = {
    "all": (te.sum, (4, LONG), 4 * LONG * TENTH),
    "rows": (lambda x: x.sum(1), (3, LONG), LONG * TENTH),
    "many rows": (lambda x: x.sum(1), (64, LONG // 4), LONG // 4 * TENTH),
    "columns": (lambda x: x.sum(0), (LONG, 7), LONG * TENTH),
    "many columns": (lambda x: x.sum(0), (LONG, 40), LONG * TENTH),
    "the middle": (lambda x: x.sum(1), (3, LONG, 8), LONG * TENTH),
    "short lines": (lambda x: x.transpose(0, 1).sum((1, 2)), (LONG, 3, 19), 19 * LONG * TENTH),
    "a loss": (lambda x: F.l1_loss(x, te.zeros_like(x), reduction="sum"), (LONG, 4), 4 * LONG * TENTH),
    "a loss of classes": (
        lambda x: F.nll_loss(x, te.zeros(LONG, dtype=te.int64), reduction="sum"),
        (LONG, 2),
        -LONG * TENTH,
    ),
    "a gradient": (
        lambda x: te.autograd.grad((x * (b := te.ones(16, requires_grad=True))).sum(), b)[0],
        (LONG, 16),
        LONG * TENTH,
    ),
    "a norm": (te.linalg.vector_norm, (LONG, 3), math.sqrt(3 * LONG) * TENTH),
}
LONG_PRODUCTS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], float]] = {
    "a row times columns": (lambda x: te.ones(LONG) @ x, (LONG, 40), LONG * TENTH),
    "rows times a column": (lambda x: x @ te.ones(LONG), (16, LONG), LONG * TENTH),
    "a product": (lambda x: x @ te.ones(LONG, 24), (24, LONG), LONG * TENTH),
}


@pytest.mark.parametrize("name", [*LONG_SUMS, *LONG_PRODUCTS])
def test_long_sums(name: str, any_backend: Backend) -> None:
    """Rounding must not grow with the number of terms: equal numbers, added one after the other, lose digits (1e-3).

    Of products, BLAS and a GPU's work-items add up some hundred terms in a row.
    """
    call, shape, expected = (LONG_SUMS | LONG_PRODUCTS)[name]
    result = call(te.full(shape, 0.1)).numpy().astype(np.float64)
    np.testing.assert_allclose(result, expected, rtol=2e-5 if name in LONG_SUMS else 2e-4)


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_long_sums_with_infinity(dim: int | None, value: float, any_backend: Backend) -> None:
    x = te.ones(300, 300)
    x[7, 5] = value
    result = te.sum(x, dim).numpy()
    expected = np.sum(x.numpy(), dim)
    np.testing.assert_array_equal(result, expected)


# The parts of floats, and what is near 0 or 1


def test_parts_of_floats(backend: Backend) -> None:
    x = np.array([0, 1, -1, 0.5, 3, 1e-20, -7e20, 3e38, np.inf, -np.inf, np.nan], np.float32)
    mantissa, exponent = te.frexp(te.tensor(x, requires_grad=True))
    np.testing.assert_array_equal(mantissa.detach().numpy(), np.frexp(x)[0])
    np.testing.assert_array_equal(exponent.numpy(), np.where(np.isfinite(x), np.frexp(x)[1], 0))
    leaf = te.tensor([3.0, 0.0, -0.1], requires_grad=True)
    te.frexp(leaf).mantissa.sum().backward()
    assert leaf.grad.tolist() == [0.25, 1.0, 8.0]
    near = te.nextafter(te.tensor([1.0, 1.0, -2.0]), te.tensor([2.0, 0.0, -2.0]))
    assert near.tolist() == [1 + 2.0**-23, 1 - 2.0**-24, -2.0]
    with pytest.raises(te.DtypeError, match="float32 or float64"):
        te.nextafter(te.zeros(2).half(), te.zeros(2).half())


def test_histograms(backend: Backend) -> None:
    x = np.array([1, 2, 1, 4, 4, -3], np.float32)
    for bins, limits in ((4, None), (3, (0.0, 2.0)), (np.array([-1.0, 1.0, 1.5, 4.0], np.float32), None)):
        given = te.tensor(bins) if isinstance(bins, np.ndarray) else bins
        for density in (False, True):
            hist, edges = te.histogram(te.tensor(x), given, range=limits, density=density, weight=te.tensor(x + 4))
            wanted = np.histogram(x, bins, limits, density=density, weights=x + 4)
            np.testing.assert_allclose(hist.numpy(), wanted[0], rtol=1e-6)
            np.testing.assert_allclose(edges.numpy(), wanted[1], rtol=1e-6)
    assert te.histogram(te.tensor([3.0, 3.0]), 2).bin_edges.tolist() == [2.5, 3.0, 3.5]


def test_the_inverse_of_the_normal_distribution_has_tails(backend: Backend) -> None:
    """Of 1e-10 it was -inf, and of 1e-8 off by 5e-3: 2 p - 1 has no digits of a small p."""
    p = [1e-30, 1e-10, 3e-8, 1e-4, 0.05, 0.5, 0.99]
    wanted = [NormalDist().inv_cdf(float(np.float32(each))) for each in p]
    y, (slope,) = gradients(te.special.ndtri, p)
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(slope, math.sqrt(2 * math.pi) * np.exp(np.square(wanted) / 2), rtol=3e-5)
    ends = te.special.ndtri(te.tensor([0.0, 1.0, -0.1, 1.1])).numpy()
    np.testing.assert_array_equal(ends, [-np.inf, np.inf, np.nan, np.nan])


def test_sinc_is_flat_at_0(backend: Backend) -> None:
    x = te.tensor([0.0, 1e-6, 1e-3, 0.1], requires_grad=True)
    (slope,) = te.autograd.grad(te.sinc(x).sum(), x, create_graph=True)
    np.testing.assert_allclose(slope.detach().numpy(), [0, -3.2898681e-6, -3.2898649e-3, -0.32575126], rtol=1e-6)
    (bend,) = te.autograd.grad(slope.sum(), x)
    np.testing.assert_allclose(bend.numpy(), [-3.2898681, -3.2898681, -3.2898584, -3.1930295], rtol=1e-6)


def test_resizing_does_not_spread_what_is_not_finite(backend: Backend) -> None:
    x = te.tensor([[[np.nan, 1.0, 2.0, np.inf]]])
    np.testing.assert_array_equal(F.interpolate(x, 3).numpy(), [[[np.nan, 1, 2]]])
    np.testing.assert_array_equal(F.interpolate(x, 3, mode="linear").numpy(), [[[np.nan, 1.5, np.inf]]])
