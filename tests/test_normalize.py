"""Normalizations and softmax against the formulas in PyTorch's documentation, written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, AutogradError, AxisError, DtypeError, ShapeError

RNG = np.random.default_rng(7)


def uniform(*shape: int) -> np.ndarray:
    return RNG.uniform(-2, 2, shape).astype(np.float32)


def leaf(array: np.ndarray) -> te.Tensor:
    return te.tensor(array, requires_grad=True)


def close(got: te.Tensor | None, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    assert got is not None
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


def channelwise(values: np.ndarray, rank: int) -> np.ndarray:
    return values.reshape(-1, *(1,) * (rank - 2)).astype(np.float64)


def normalized_gradient(g: np.ndarray, xhat: np.ndarray, std: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return (g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, keepdims=True)) / std


# Long enough for every part, section and tail of the kernels: 1, 4096 and 9000 elements a channel.
@pytest.mark.parametrize("shape", [(4, 3), (1, 5, 7), (2, 3, 4, 5), (1, 2, 90, 100), (3, 1, 64, 64), (70, 20)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_in_training(backend: Backend, shape: tuple[int, ...], affine: bool) -> None:
    x, dy = uniform(*shape), uniform(*shape)
    channels = shape[1]
    w, b = uniform(channels), uniform(channels)
    running_mean, running_var = te.tensor(np.zeros(channels, np.float32)), te.tensor(np.ones(channels, np.float32))
    tx, tw, tb = leaf(x), leaf(w), leaf(b)
    extra = (tw, tb) if affine else (None, None)
    y = te.batch_norm(tx, running_mean, running_var, *extra, training=True, momentum=0.25, eps=1e-3)
    y.backward(te.tensor(dy))

    axes = (0, *range(2, len(shape)))
    wide = x.astype(np.float64)
    mean, var = wide.mean(axes), wide.var(axes)
    std = np.sqrt(channelwise(var, len(shape)) + 1e-3)
    xhat = (wide - channelwise(mean, len(shape))) / std
    scale, shift = (channelwise(w, len(shape)), channelwise(b, len(shape))) if affine else (1.0, 0.0)
    count = x.size // channels
    close(y, xhat * scale + shift)
    close(running_mean, 0.25 * mean)
    close(running_var, 0.75 + 0.25 * var * count / (count - 1))
    close(tx.grad, normalized_gradient(dy * scale, xhat, std, axes))
    if affine:
        close(tw.grad, (dy * xhat).sum(axes), 1e-3)
        close(tb.grad, dy.sum(axes), 1e-3)


@pytest.mark.parametrize("shape", [(4, 3), (1, 5, 7), (2, 3, 4, 5), (1, 2, 90, 100)])
@pytest.mark.parametrize("needs", ["xwb", "x", "w", "b"])
def test_batch_norm_with_frozen_statistics(backend: Backend, shape: tuple[int, ...], needs: str) -> None:
    x, dy = uniform(*shape), uniform(*shape)
    channels = shape[1]
    w, b, mean, var = uniform(channels), uniform(channels), uniform(channels), np.abs(uniform(channels)) + 0.1
    tx, tw, tb = te.tensor(x), te.tensor(w), te.tensor(b)
    for name, tensor in (("x", tx), ("w", tw), ("b", tb)):
        tensor.requires_grad_(name in needs)
    running_mean, running_var = te.tensor(mean), te.tensor(var)
    y = te.batch_norm(tx, running_mean, running_var, tw, tb)
    y.backward(te.tensor(dy))

    rank = len(shape)
    axes = (0, *range(2, rank))
    std = np.sqrt(channelwise(var, rank) + 1e-5)
    xhat = (x - channelwise(mean, rank)) / std
    close(y, xhat * channelwise(w, rank) + channelwise(b, rank))
    close(running_mean, mean, 0)
    close(running_var, var, 0)
    for tensor, name, gradient in (
        (tx, "x", dy * channelwise(w, rank) / std),
        (tw, "w", (dy * xhat).sum(axes)),
        (tb, "b", dy.sum(axes)),
    ):
        if name in needs:
            close(tensor.grad, gradient, 1e-3)
        else:
            assert tensor.grad is None


def test_frozen_batch_norm_keeps_its_input_only_for_the_weight(backend: Backend) -> None:
    def kept(weight_needs: bool) -> set[str]:
        x = leaf(uniform(2, 3, 4))
        ones = te.tensor(np.ones(3, np.float32))
        weight = te.tensor(np.ones(3, np.float32), requires_grad=weight_needs)
        saved = te.batch_norm(x, ones, ones, weight).grad_fn.saved
        return {name for name, (slot, _) in saved.items() if slot is not None}

    assert kept(False) == {"var", "weight"}
    assert kept(True) == {"x", "mean", "var", "weight"}


def test_variance_is_right_far_from_zero(backend: Backend) -> None:
    x = (10000 + RNG.uniform(-0.5, 0.5, (1, 1, 100, 100))).astype(np.float32)
    expected = (x.astype(np.float64) - x.mean(dtype=np.float64)) / x.std(dtype=np.float64)
    close(te.batch_norm(te.tensor(x), None, None, training=True), expected, 1e-2)
    close(te.layer_norm(te.tensor(x.reshape(1, -1)), (10000,)), expected.reshape(1, -1), 1e-2)


def test_moving_running_statistics_counts_as_a_change(backend: Backend) -> None:
    mean, var = te.tensor(np.zeros(3, np.float32)), te.tensor(np.ones(3, np.float32))
    frozen = te.batch_norm(leaf(uniform(2, 3, 4)), mean, var)
    te.batch_norm(leaf(uniform(2, 3, 4)), mean, var, training=True)
    with pytest.raises(AutogradError, match="changed in place"):
        frozen.sum().backward()


def test_batch_norm_of_nothing(backend: Backend) -> None:
    mean, var = te.tensor(np.zeros(3, np.float32)), te.tensor(np.ones(3, np.float32))
    weight = leaf(np.ones(3, np.float32))
    y = te.batch_norm(leaf(np.zeros((0, 3, 4), np.float32)), mean, var, weight, training=True)
    y.sum().backward()
    assert y.shape == (0, 3, 4)
    close(weight.grad, np.zeros(3))
    close(mean, np.zeros(3))
    close(var, np.ones(3))


def test_batch_norm_refuses(backend: Backend) -> None:
    x, c = te.tensor(uniform(2, 3, 4)), te.tensor(np.ones(3, np.float32))
    with pytest.raises(ArgumentError, match="training=True"):
        te.batch_norm(x, None, None)
    with pytest.raises(ShapeError, match=r"weight must have the shape \(3,\)"):
        te.batch_norm(x, c, c, te.tensor(np.ones(4, np.float32)))
    with pytest.raises(ShapeError, match="batch, channels"):
        te.batch_norm(c, c, c)
    with pytest.raises(DtypeError, match="floating-point"):
        te.batch_norm(te.tensor([[1, 2], [3, 4]]), None, None, training=True)


@pytest.mark.parametrize(("shape", "dims"), [((3, 4), 1), ((2, 3, 5), 2), ((5,), 1), ((200, 40), 1), ((2, 3, 300), 1)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(backend: Backend, shape: tuple[int, ...], dims: int, affine: bool) -> None:
    tail = shape[-dims:]
    x, dy, w, b = uniform(*shape), uniform(*shape), uniform(*tail), uniform(*tail)
    tx, tw, tb = leaf(x), leaf(w), leaf(b)
    y = te.layer_norm(tx, tail, *((tw, tb) if affine else ()), eps=1e-3)
    y.backward(te.tensor(dy))

    axes = tuple(range(len(shape) - dims, len(shape)))
    kept = tuple(range(len(shape) - dims))
    std = np.sqrt(x.var(axes, keepdims=True) + 1e-3)
    xhat = (x - x.mean(axes, keepdims=True)) / std
    close(y, xhat * w + b if affine else xhat)
    close(tx.grad, normalized_gradient(dy * w if affine else dy, xhat, std, axes))
    if affine:
        close(tw.grad, (dy * xhat).sum(kept), 1e-3)
        close(tb.grad, dy.sum(kept), 1e-3)


def test_group_norm(backend: Backend) -> None:
    x, dy, w, b = uniform(2, 6, 5), uniform(2, 6, 5), uniform(6), uniform(6)
    tx, tw, tb = leaf(x), leaf(w), leaf(b)
    y = te.group_norm(tx, 2, tw, tb)
    y.backward(te.tensor(dy))
    groups = x.reshape(2, 2, 15)
    std = np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
    xhat = ((groups - groups.mean(-1, keepdims=True)) / std).reshape(x.shape)
    g = (dy * w[:, None]).reshape(groups.shape)
    close(y, xhat * w[:, None] + b[:, None])
    close(tx.grad, normalized_gradient(g, xhat.reshape(groups.shape), std, (2,)).reshape(x.shape))
    close(tw.grad, (dy * xhat).sum((0, 2)))
    close(tb.grad, dy.sum((0, 2)))
    with pytest.raises(ShapeError, match="multiple of num_groups=4"):
        te.group_norm(tx, 4)


def test_instance_norm(backend: Backend) -> None:
    x = uniform(2, 3, 5)
    mean, var = te.tensor(np.zeros(3, np.float32)), te.tensor(np.ones(3, np.float32))
    y = te.instance_norm(te.tensor(x), mean, var, momentum=0.5)
    close(y, (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5))
    close(mean, 0.5 * x.mean(2).mean(0))
    close(var, 0.5 + 0.5 * x.var(2, ddof=1).mean(0))


@pytest.mark.parametrize(
    ("shape", "dim"),
    [((5,), 0), ((3, 70), 1), ((3, 70), 0), ((2, 3, 4), 1), ((4, 40, 9), -2), ((), 0), ((2, 0), 1), ((1, 1000), 1)],
)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_softmax(backend: Backend, shape: tuple[int, ...], dim: int, name: str) -> None:
    x = np.asarray(uniform(*shape), np.float32)
    dy = np.asarray(uniform(*shape), np.float32)
    tx = leaf(x)
    y = getattr(te, name)(tx, dim)
    y.backward(te.tensor(dy))
    sign = -1.0 if name == "softmin" else 1.0
    if x.ndim:
        e = np.exp(sign * x.astype(np.float64))
        p = e / e.sum(dim, keepdims=True)
        along = {"axis": dim, "keepdims": True}
    else:
        p, along = np.ones(()), {}
    if name == "log_softmax":
        close(y, np.log(p))
        close(tx.grad, dy - p * dy.sum(**along))
    else:
        close(y, p)
        close(tx.grad, sign * p * (dy - (dy * p).sum(**along)))


def test_softmax_of_extremes(backend: Backend) -> None:
    inf = np.inf
    x = te.tensor(np.array([[1e4, 0, -1e4], [-inf, 0, 0], [-inf, -inf, -inf], [np.nan, 0, 0]], np.float32))
    p = te.softmax(x, 1).numpy()
    np.testing.assert_array_equal(p[:2], np.array([[1, 0, 0], [0, 0.5, 0.5]], np.float32))
    assert np.isnan(p[2:]).all()
    close(te.log_softmax(x, 1)[0], np.array([0, -1e4, -2e4]))


def test_softmax_converts_first_and_guesses_dim_as_pytorch(backend: Backend) -> None:
    assert te.softmax(te.tensor([1, 2]), 0, dtype=te.float32).dtype is te.float32
    for shape in ((3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)):
        x = te.tensor(uniform(*shape))
        dim = 0 if len(shape) in (1, 3) else 1
        close(te.softmax(x), te.softmax(x, dim).numpy(), 0)
    with pytest.raises(DtypeError, match="floating-point"):
        te.softmax(te.tensor([1, 2]), 0)
    with pytest.raises(AxisError, match="dim"):
        te.softmax(te.tensor([1.0]), 1)
