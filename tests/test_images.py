"""Ops on images and volumes against their formulas, as PyTorch documents them; each eager and compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F

Array = np.ndarray[Any, Any]


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compiled_and_eager(function: Callable[..., Any], *arrays: Array) -> Array:
    """What ``function`` gives, which is the same eagerly, recorded and replayed; and so are the gradients."""
    found: list[list[Array]] = []
    for is_compiled in (False, True):
        inputs = [te.tensor(array, requires_grad=True) for array in arrays]

        def forward_and_back(*inputs: Any) -> Any:
            y = function(*inputs)
            (y * y).sum().backward()
            return y.detach()

        run = te.compile(forward_and_back, constant=["function"]) if is_compiled else forward_and_back
        for _ in range(3 if is_compiled else 1):
            for x in inputs:
                x.grad = None
            y = run(*inputs)
            found.append([y.numpy(), *(x.grad.numpy() for x in inputs if x.grad is not None)])
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            np.testing.assert_allclose(got, expected, 1e-4, 1e-4)
    return found[0][0]


def dot(a: Any, b: Any) -> float:
    return float((a.double() * b.double()).sum().item()) if hasattr(a, "double") else float((a * b).sum())


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "padding", "more", "dilation", "groups"),
    [(1, 0, 0, 1, 1), (2, 1, 1, 1, 2), (3, 2, 1, 2, 1), (1, 1, 1, 2, 2), (2, 0, 2, 3, 1)],
)
def test_transposed_convolution_is_the_adjoint(
    backend: Backend, rank: int, stride: int, padding: int, more: int, dilation: int, groups: int
) -> None:
    """<conv(y, w), x> = <y, conv_transpose(x, w)>, where y is as large as the result."""
    x, weight, bias = drawn(2, 4, *[4] * rank), drawn(4, 3, *[3, 2, 3][:rank], seed=1), drawn(3 * groups, seed=2)
    transpose, convolve = getattr(F, f"conv_transpose{rank}d"), getattr(F, f"conv{rank}d")

    def function(x: Any, w: Any, b: Any) -> Any:
        return transpose(x, w, b, stride, padding, more, groups, dilation)

    y = compiled_and_eager(function, x, weight, bias)
    sizes = [(4 - 1) * stride - 2 * padding + dilation * (k - 1) + more + 1 for k in (3, 2, 3)[:rank]]
    assert y.shape == (2, 3 * groups, *sizes)
    other = drawn(*y.shape, seed=3)
    there = convolve(te.tensor(other), te.tensor(weight), None, stride, padding, dilation, groups).numpy()
    there = there[(..., *[slice(4)] * rank)]
    without = y - bias.reshape(-1, *[1] * rank)
    assert math.isclose(dot(without, other), dot(x, there), rel_tol=1e-3, abs_tol=1e-2)


def test_conv3d_sums_over_its_windows(backend: Backend) -> None:
    x, weight, bias = drawn(2, 4, 5, 4, 6), drawn(6, 2, 2, 3, 2, seed=1), drawn(6, seed=2)
    stride, padding, dilation = (2, 1, 2), (1, 0, 1), (2, 1, 1)
    y = compiled_and_eager(lambda x, w, b: F.conv3d(x, w, b, stride, padding, dilation, 2), x, weight, bias)
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    for n, o, *at in np.ndindex(*y.shape):
        window = padded[
            (n, slice(2 * (o // 3), 2 * (o // 3) + 2), *(
                slice(a * s, a * s + d * (k - 1) + 1, d)
                for a, s, d, k in zip(at, stride, dilation, weight.shape[2:], strict=True)
            ))
        ]  # fmt: skip
        assert math.isclose(y[(n, o, *at)], (window * weight[o]).sum() + bias[o], rel_tol=1e-3, abs_tol=1e-4)


def test_conv3d_keeps_sizes(backend: Backend) -> None:
    x, weight = te.tensor(drawn(3, 5, 6, 7)), te.tensor(drawn(2, 3, 2, 4, 3))
    assert F.conv3d(x, weight, padding="same").shape == (2, 5, 6, 7)
    assert F.conv3d(x, weight, padding="valid").shape == (2, 4, 3, 5)
    with pytest.raises(ArgumentError, match="needs stride 1"):
        F.conv3d(x, weight, padding="same", stride=2)


def test_an_output_size_chooses_the_output_padding(reference: Backend) -> None:
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    x = te.tensor(drawn(1, 2, 4, 4))
    assert layer(x).shape == (1, 3, 7, 7)
    assert layer(x, (8, 7)).shape == (1, 3, 8, 7)
    assert layer(x, (1, 3, 7, 8)).shape == (1, 3, 7, 8)
    with pytest.raises(ArgumentError, match="between"):
        layer(x, (9, 7))


def test_fold_counts_what_unfold_takes(backend: Backend) -> None:
    size, kernel, options = (5, 6), (2, 3), {"dilation": (2, 1), "padding": (1, 0), "stride": (1, 2)}
    x = drawn(2, 3, *size)
    columns = compiled_and_eager(lambda x: F.unfold(x, kernel, **options), x)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    places = [(i, j) for i in range(5) for j in range(0, 4, 2)]
    assert columns.shape == (2, 18, len(places))
    for number, (i, j) in enumerate(places):
        np.testing.assert_array_equal(columns[:, :, number], padded[:, :, i : i + 3 : 2, j : j + 3].reshape(2, 18))
    folded = compiled_and_eager(lambda c: F.fold(c, size, kernel, **options), columns)
    ones = F.fold(F.unfold(te.ones(2, 3, *size), kernel, **options), size, kernel, **options)
    np.testing.assert_allclose(folded, x * ones.numpy(), 1e-5, 1e-5)


def resized(x: Array, places: Array, kernel: Callable[[Array], Array]) -> Array:
    """Sums over the last dim with weights ``kernel(distance)``, of elements that the border repeats."""
    size = x.shape[-1]
    result = np.zeros((*x.shape[:-1], len(places)))
    for k, place in enumerate(places):
        for at in range(math.floor(place) - 2, math.floor(place) + 4):
            result[..., k] += kernel(np.asarray(abs(place - at))) * x[..., min(max(at, 0), size - 1)]
    return result


KERNELS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda d: np.maximum(1 - d, 0),
    "bicubic": lambda d: np.where(
        d < 1, 1.25 * d**3 - 2.25 * d**2 + 1, np.where(d < 2, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4), 0)
    ),
}


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "outputs"), [(5, 9), (8, 3), (4, 4), (1, 3), (6, 1)])
@pytest.mark.parametrize("mode", ["linear", "bicubic"])
def test_interpolate_weighs_by_distance(
    backend: Backend, mode: str, size: int, outputs: int, align_corners: bool
) -> None:
    x = drawn(2, 3, size) if mode == "linear" else drawn(2, 3, 2, size)
    wanted: Any = outputs if mode == "linear" else (2, outputs)
    y = compiled_and_eager(lambda x: F.interpolate(x, wanted, mode=mode, align_corners=align_corners), x)
    o = np.arange(outputs)
    if align_corners:
        places = o * (size - 1) / max(outputs - 1, 1)
    else:
        places = (o + 0.5) * size / outputs - 0.5
    np.testing.assert_allclose(y, resized(x, places, KERNELS[mode]), 1e-4, 1e-5)


def test_interpolate_takes_the_nearest(backend: Backend) -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 6)
    assert compiled_and_eager(lambda x: F.interpolate(x, 4), x).tolist() == [[[0, 1, 3, 4]]]
    assert compiled_and_eager(lambda x: F.interpolate(x, 4, mode="nearest-exact"), x).tolist() == [[[0, 2, 3, 5]]]
    twice = compiled_and_eager(lambda x: F.interpolate(x, scale_factor=2.0), x.reshape(1, 1, 2, 3))
    np.testing.assert_array_equal(twice, x.reshape(1, 1, 2, 3).repeat(2, -1).repeat(2, -2))
    area = compiled_and_eager(lambda x: F.interpolate(x, 3, mode="area"), x)
    assert area.tolist() == [[[0.5, 2.5, 4.5]]]


def test_volumes_are_interpolated_dim_by_dim(backend: Backend) -> None:
    x = drawn(1, 2, 3, 4, 2)
    y = compiled_and_eager(lambda x: F.interpolate(x, (5, 2, 7), mode="trilinear"), x)
    for axis, outputs in enumerate((5, 2, 7), 2):
        places = (np.arange(outputs) + 0.5) * x.shape[axis] / outputs - 0.5
        x = np.moveaxis(resized(np.moveaxis(x, axis, -1), places, KERNELS["linear"]), -1, axis)
    np.testing.assert_allclose(y, x, 1e-4, 1e-5)


def test_a_given_scale_factor_is_the_scale(backend: Backend) -> None:
    x = drawn(1, 1, 5)
    y = compiled_and_eager(lambda x: F.interpolate(x, scale_factor=1.5, mode="linear"), x)
    again = compiled_and_eager(
        lambda x: F.interpolate(x, scale_factor=1.5, mode="linear", recompute_scale_factor=True), x
    )
    for got, scale in ((y, 1 / 1.5), (again, 5 / 7)):
        np.testing.assert_allclose(got, resized(x, (np.arange(7) + 0.5) * scale - 0.5, KERNELS["linear"]), 1e-4, 1e-5)


ANTIALIASED = {  # of the squares of 0 to 11 as (3, 4): to (2, 2), and to (2, 3) with align_corners, by PyTorch
    "bilinear": (
        [[9.142857, 18.571430], [56.285717, 81.428574]],
        [[18.517859, 29.714287, 40.357143], [57.625, 80.444450, 99.833336]],
    ),
    "bicubic": (
        [[5.730080, 15.735954], [56.383415, 86.559357]],
        [[16.180130, 27.659857, 39.433716], [62.344494, 88.855949, 112.491402]],
    ),
}


@pytest.mark.parametrize("mode", ANTIALIASED)
def test_interpolate_with_antialias(backend: Backend, mode: str) -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4) ** 2
    y = compiled_and_eager(lambda x: F.interpolate(x, (2, 2), mode=mode, antialias=True), x)
    np.testing.assert_allclose(y[0, 0], ANTIALIASED[mode][0], 1e-5)
    y = compiled_and_eager(lambda x: F.interpolate(x, (2, 3), mode=mode, align_corners=True, antialias=True), x)
    np.testing.assert_allclose(y[0, 0], ANTIALIASED[mode][1], 1e-5)
    large = drawn(2, 3, 70, 65)
    y = compiled_and_eager(lambda x: F.interpolate(x, (16, 130), mode=mode, antialias=True), large)
    flat = F.interpolate(te.full((1, 1, 70, 65), 2.0), (16, 130), mode=mode, antialias=True)
    np.testing.assert_allclose(flat.numpy(), np.full((1, 1, 16, 130), 2), 1e-5)
    twice = F.interpolate(te.tensor(large).transpose(2, 3), (130, 16), mode=mode, antialias=True)
    np.testing.assert_allclose(twice.transpose(2, 3).numpy(), y, 1e-4, 1e-5)
    large[0, 0, 0, 0] = math.inf  # which only the results near it see
    far = F.interpolate(te.tensor(large), (16, 130), mode=mode, antialias=True)[0, 0, 8:].numpy()
    np.testing.assert_array_equal(far, y[0, 0, 8:])
    empty = F.interpolate(te.zeros(0, 3, 7, 5), (2, 9), mode=mode, antialias=True)
    assert empty.shape == (0, 3, 2, 9)


@pytest.mark.parametrize("mode", ANTIALIASED)
def test_gradients_of_antialias(mode: str) -> None:
    x = te.tensor(drawn(1, 2, 7, 5).astype(np.float64), device="numpy", requires_grad=True)
    for size in ((3, 8), (1, 1), (14, 2)):

        def resize(x: te.Tensor) -> te.Tensor:
            return F.interpolate(x, size, mode=mode, antialias=True)  # noqa: B023

        assert te.autograd.gradcheck(resize, (x,))
        assert te.autograd.gradgradcheck(resize, (x,))


def test_pixels_and_channels_change_places(backend: Backend) -> None:
    x = drawn(2, 8, 3, 2)
    y = compiled_and_eager(lambda x: F.pixel_shuffle(x, 2), x)
    deep = compiled_and_eager(lambda x: F.depth_to_space(x, 2), x)
    for n, c, h, w in np.ndindex(*y.shape):
        block = 2 * (h % 2) + w % 2
        assert y[n, c, h, w] == x[n, 4 * c + block, h // 2, w // 2]
        assert deep[n, c, h, w] == x[n, 2 * block + c, h // 2, w // 2]
    np.testing.assert_array_equal(F.pixel_unshuffle(te.tensor(y), 2).numpy(), x)
    np.testing.assert_array_equal(F.space_to_depth(te.tensor(deep), 2).numpy(), x)
    shuffled = compiled_and_eager(lambda x: F.channel_shuffle(x, 4), x)
    np.testing.assert_array_equal(shuffled, x[:, [0, 2, 4, 6, 1, 3, 5, 7]])
    with pytest.raises(ShapeError, match="that 9 divides"):
        F.pixel_shuffle(te.tensor(x), 3)


def test_volumes_are_pooled_over_their_windows(backend: Backend) -> None:
    x = drawn(2, 3, 4, 5, 6)
    largest = compiled_and_eager(lambda x: F.max_pool3d(x, (2, 3, 2), (2, 1, 2)), x)
    _, indices = F.max_pool3d(te.tensor(x), (2, 3, 2), (2, 1, 2), return_indices=True)
    average = compiled_and_eager(lambda x: F.avg_pool3d(x, (2, 3, 2), (2, 1, 2), (1, 0, 1), True, False), x)
    for n, c, *at in np.ndindex(*largest.shape):
        i, j, k = (a * s for a, s in zip(at, (2, 1, 2), strict=True))
        window = x[n, c, i : i + 2, j : j + 3, k : k + 2]
        assert largest[(n, c, *at)] == window.max()
        assert x[n, c].reshape(-1)[indices.numpy()[(n, c, *at)]] == window.max()
    for n, c, *at in np.ndindex(*average.shape):
        i, j, k = (a * s - p for a, s, p in zip(at, (2, 1, 2), (1, 0, 1), strict=True))
        window = x[n, c, max(i, 0) : i + 2, j : j + 3, max(k, 0) : k + 2]
        assert math.isclose(average[(n, c, *at)], window.mean(), rel_tol=1e-4, abs_tol=1e-5)


def test_unpooling_puts_elements_back(backend: Backend) -> None:
    x = drawn(2, 3, 6, 4)
    y, indices = F.max_pool2d(te.tensor(x), 2, return_indices=True)
    back = compiled_and_eager(lambda y: F.max_unpool2d(y, indices, 2), y.numpy())
    expected = np.where(x == y.numpy().repeat(2, -1).repeat(2, -2), x, 0)
    np.testing.assert_array_equal(back, expected)
    assert F.max_unpool2d(y, indices, 2, output_size=(7, 5)).shape == (2, 3, 7, 5)
    with pytest.raises(ArgumentError, match="within stride"):
        F.max_unpool2d(y, indices, 2, output_size=(9, 5))


def test_pooling_by_the_norm(backend: Backend) -> None:
    x = np.abs(drawn(2, 3, 6, 4)) + 0.5
    y = compiled_and_eager(lambda x: F.lp_pool2d(x, 3.0, 2), x)
    windows = x.reshape(2, 3, 3, 2, 2, 2)
    np.testing.assert_allclose(y, (windows**3).sum((3, 5)) ** (1 / 3), 1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_local_response_norm(backend: Backend, size: int) -> None:
    x = drawn(2, 5, 3)
    y = compiled_and_eager(lambda x: F.local_response_norm(x, size, 0.5, 0.7, 2.0), x)
    for c in range(5):
        near = x[:, max(c - size // 2, 0) : c + (size - 1) // 2 + 1]
        np.testing.assert_allclose(y[:, c], x[:, c] / (2 + 0.5 * (near**2).sum(1) / size) ** 0.7, 1e-4)


def test_the_identity_grid_gives_the_input(backend: Backend) -> None:
    for rank, mode, align_corners in ((2, "bilinear", True), (2, "bicubic", False), (3, "nearest", False)):
        x = drawn(2, 3, *(4, 5, 3)[:rank])
        theta = np.eye(rank, rank + 1, dtype=np.float32)[None].repeat(2, 0)

        def function(x: Any, theta: Any, mode: str = mode, align_corners: bool = align_corners) -> Any:
            return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners), mode, "border", align_corners)

        y = compiled_and_eager(function, x, theta)
        np.testing.assert_allclose(y, x, 1e-4, 1e-5)


@pytest.mark.parametrize(
    ("padding_mode", "expected"),
    [("zeros", [0, 0.5, 1.5, 2, 0]), ("border", [1, 1, 1.5, 4, 4]), ("reflection", [1.5, 1, 1.5, 4, 3.5])],
)
def test_what_is_outside_of_a_grid(backend: Backend, padding_mode: str, expected: list[float]) -> None:
    x = te.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    places = [-1.5, -1.0, -0.5, 1.0, 1.5]  # of borders at -1 and 1: elements lie at -0.75, -0.25, 0.25, 0.75
    grid = te.tensor([[[[place, 0.0] for place in places]]])
    y = F.grid_sample(x, grid, padding_mode=padding_mode, align_corners=False)
    np.testing.assert_allclose(y.numpy().reshape(-1), expected, atol=1e-5)


def test_places_that_are_no_numbers_or_huge(backend: Backend) -> None:
    grid = te.tensor([[[[math.nan, math.nan], [1e30, 0.0], [-math.inf, math.inf]]]], requires_grad=True)
    x = te.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], requires_grad=True)
    for padding_mode, expected in (("zeros", [1, 0, 0]), ("border", [1, 3, 3])):
        y = F.grid_sample(x, grid, padding_mode=padding_mode, align_corners=True)
        np.testing.assert_allclose(y.detach().numpy().reshape(-1), expected)
        y.sum().backward()
        assert x.grad is not None
        assert grid.grad is not None
        assert np.isfinite(x.grad.numpy()).all()
        assert np.isfinite(grid.grad.numpy()).all()


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ZeroPad1d((1, 2)), [0, 1, 2, 3, 0, 0]),
        (nn.ConstantPad1d((1, -1), 7.0), [7, 1, 2]),
        (nn.ReflectionPad1d((1, 2)), [2, 1, 2, 3, 2, 1]),
        (nn.ReplicationPad1d((1, 2)), [1, 1, 2, 3, 3, 3]),
        (nn.CircularPad1d((1, 2)), [3, 1, 2, 3, 1, 2]),
    ],
)
def test_layers_that_pad(layer: Any, expected: list[float], backend: Backend) -> None:
    assert layer(te.tensor([[[1.0, 2.0, 3.0]]])).tolist() == [[expected]]


def test_symmetric_padding_repeats_the_outermost(backend: Backend) -> None:
    x = drawn(1, 3, 4)
    y = compiled_and_eager(lambda x: F.pad(x, (4, 1, 2, 0), "symmetric"), x)
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (2, 0), (4, 1)), "symmetric"))


def test_padding_wants_as_many_amounts_as_sides(reference: Backend) -> None:
    with pytest.raises(ArgumentError, match="an int, or 4"):
        nn.ZeroPad2d((1, 2))
    with pytest.raises(ShapeError, match="3 or 4 dims"):
        nn.ReflectionPad2d(1)(te.zeros(3, 3))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_dropout_drops_channels(backend: Backend, rank: int) -> None:
    te.manual_seed(0)
    layer = getattr(nn, f"Dropout{rank}d")(0.25)
    x = te.ones(20, 30, *[2] * rank, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    channels = y.detach().numpy().reshape(600, -1)
    assert (channels == channels[:, :1]).all()
    assert set(np.unique(channels)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((channels == 0).mean() - 0.25) < 0.06
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    assert layer.eval()(x) is x


def test_each_replay_drops_other_channels(backend: Backend) -> None:
    layer = nn.Dropout2d(0.5)
    program = te.compile(lambda x: layer(x))
    x = te.ones(4, 16, 1, 1)
    draws = {program(x).numpy().tobytes() for _ in range(4)}
    assert len(draws) == 4


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_instance_norm_layers(backend: Backend, rank: int) -> None:
    x = drawn(2, 3, *[4] * rank) * 3 + 1
    axes = tuple(range(2, 2 + rank))
    layer = getattr(nn, f"InstanceNorm{rank}d")(3, affine=True, track_running_stats=True)
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer(te.tensor(x)).detach().numpy(), expected, 1e-3, 1e-4)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * x.mean(axes).mean(0), 1e-3, 1e-5)
    one = getattr(nn, f"InstanceNorm{rank}d")(3)
    assert not one.state_dict()
    np.testing.assert_allclose(one(te.tensor(x[0])).numpy(), expected[0], 1e-3, 1e-4)


def test_rms_norm(backend: Backend) -> None:
    x, weight = drawn(2, 4, 3), drawn(4, 3, seed=1)
    y = compiled_and_eager(lambda x, w: F.rms_norm(x, (4, 3), w, 1e-3), x, weight)
    np.testing.assert_allclose(y, x / np.sqrt((x**2).mean((1, 2), keepdims=True) + 1e-3) * weight, 1e-4, 1e-5)
    assert nn.RMSNorm(3)(te.tensor(x)).shape == (2, 4, 3)
    with pytest.raises(ShapeError, match="normalized_shape"):
        F.rms_norm(te.tensor(x), (4,))


def test_reprs_are_pytorchs(reference: Backend) -> None:
    for layer, text in (
        (
            nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2, bias=False, dilation=2),
            "ConvTranspose2d(2, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), "
            "output_padding=(1, 1), groups=2, bias=False)",
        ),
        (nn.Conv3d(1, 2, 3, padding=1), "Conv3d(1, 2, kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1))"),
        (nn.Upsample(scale_factor=(2, 3)), "Upsample(scale_factor=(2.0, 3.0), mode='nearest')"),
        (nn.UpsamplingBilinear2d(3), "UpsamplingBilinear2d(size=3, mode='bilinear')"),
        (nn.ConstantPad1d(2, 3.5), "ConstantPad1d(padding=(2, 2), value=3.5)"),
        (nn.ZeroPad2d(1), "ZeroPad2d((1, 1, 1, 1))"),
        (nn.AvgPool3d(2), "AvgPool3d(kernel_size=2, stride=2, padding=0)"),
        (nn.LPPool2d(2, 3), "LPPool2d(norm_type=2, kernel_size=3, stride=None, ceil_mode=False)"),
        (nn.MaxUnpool2d(2), "MaxUnpool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0))"),
        (nn.LocalResponseNorm(3), "LocalResponseNorm(3, alpha=0.0001, beta=0.75, k=1.0)"),
        (nn.RMSNorm((3, 4)), "RMSNorm((3, 4), eps=None, elementwise_affine=True)"),
        (nn.Dropout2d(0.3), "Dropout2d(p=0.3, inplace=False)"),
        (
            nn.InstanceNorm2d(3),
            "InstanceNorm2d(3, eps=1e-05, momentum=0.1, affine=False, bias=False, track_running_stats=False)",
        ),
    ):
        assert repr(layer) == text
