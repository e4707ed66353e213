"""Every function with each of its sizes 0 in turn: what PyTorch says, forward and backward, or an error by name.

A gradient that no term reaches must still be written: as zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import TinyedgeError
from tinyedge.tensor import Tensor

Array = np.ndarray[Any, Any]
SIZES = dict(zip("nmkcohwbpqrs", (2, 3, 5, 4, 6, 7, 8, 2, 3, 4, 5, 6), strict=True))
"""The size that a letter stands for."""

Case = tuple[str, Callable[..., Any]]
CASES: dict[str, Case] = {
    "linear": ("m k, o k, o", lambda p, x, w, b: p.nn.functional.linear(x, w, b)),
    "linear_without_bias": ("m k, o k", lambda p, x, w: p.nn.functional.linear(x, w)),
    "linear_of_three_dims": ("n m k, o k, o", lambda p, x, w, b: p.nn.functional.linear(x, w, b)),
    "linear_to_one": ("m k, k", lambda p, x, w: p.nn.functional.linear(x, w)),
    "matmul": ("m k, k o", lambda p, a, b: p.matmul(a, b)),
    "matmul_row": ("k, k o", lambda p, a, b: p.matmul(a, b)),
    "matmul_column": ("m k, k", lambda p, a, b: p.matmul(a, b)),
    "matmul_batches": ("n m k, n k o", lambda p, a, b: p.matmul(a, b)),
    "matmul_broadcast": ("n m k, k o", lambda p, a, b: p.matmul(a, b)),
    "matmul_transposed": ("m k, o k", lambda p, a, b: p.matmul(a, b.T)),
    "mm": ("m k, k o", lambda p, a, b: p.mm(a, b)),
    "bmm": ("n m k, n k o", lambda p, a, b: p.bmm(a, b)),
    "mv": ("m k, k", lambda p, a, b: p.mv(a, b)),
    "dot": ("k, k", lambda p, a, b: p.dot(a, b)),
    "conv2d": ("n c h w, o c 3 3, o", lambda p, x, w, b: p.nn.functional.conv2d(x, w, b, padding=1)),
    "conv2d_one_by_one": ("n c h w, o c 1 1, o", lambda p, x, w, b: p.nn.functional.conv2d(x, w, b)),
    "conv2d_strided": ("n c h w, o c 3 3", lambda p, x, w: p.nn.functional.conv2d(x, w, stride=2)),
    "conv2d_grouped": ("n 4 h w, 6 2 3 3, 6", lambda p, x, w, b: p.nn.functional.conv2d(x, w, b, groups=2)),
    "conv2d_depthwise": ("n 4 h w, 4 1 3 3, 4", lambda p, x, w, b: p.nn.functional.conv2d(x, w, b, groups=4)),
    "conv2d_without_batch": ("c h w, o c 3 3, o", lambda p, x, w, b: p.nn.functional.conv2d(x, w, b)),
    "conv1d": ("n c w, o c 3, o", lambda p, x, w, b: p.nn.functional.conv1d(x, w, b)),
    "conv1d_depthwise": ("n 4 w, 4 1 3", lambda p, x, w: p.nn.functional.conv1d(x, w, groups=4)),
    "conv3d": ("n c h w s, o c 3 3 3, o", lambda p, x, w, b: p.nn.functional.conv3d(x, w, b, padding=1)),
    "conv_transpose1d": ("n c w, c o 3, o", lambda p, x, w, b: p.nn.functional.conv_transpose1d(x, w, b)),
    "conv_transpose2d": ("n c h w, c o 3 3, o", lambda p, x, w, b: p.nn.functional.conv_transpose2d(x, w, b, 2, 1)),
    "conv_transpose3d": ("n c h w s, c o 2 3 2", lambda p, x, w: p.nn.functional.conv_transpose3d(x, w)),
    "unfold": ("n c h w", lambda p, x: p.nn.functional.unfold(x, 2)),
    "fold": ("n 4 9", lambda p, x: p.nn.functional.fold(x, 4, 2)),
    "interpolate": ("n c h w", lambda p, x: p.nn.functional.interpolate(x, 3, mode="bilinear")),
    "pixel_shuffle": ("n 4 h w", lambda p, x: p.nn.functional.pixel_shuffle(x, 2)),
    "pixel_unshuffle": ("n c 4 6", lambda p, x: p.nn.functional.pixel_unshuffle(x, 2)),
    "grid_sample": ("n c h w, n p q 2", lambda p, x, g: p.nn.functional.grid_sample(x, g, align_corners=False)),
    "max_pool3d": ("n c h w s", lambda p, x: p.nn.functional.max_pool3d(x, 2)),
    "avg_pool3d": ("n c h w s", lambda p, x: p.nn.functional.avg_pool3d(x, 2)),
    "adaptive_avg_pool3d": ("n c h w s", lambda p, x: p.nn.functional.adaptive_avg_pool3d(x, 2)),
    "local_response_norm": ("n c h", lambda p, x: p.nn.functional.local_response_norm(x, 3)),
    "rms_norm": ("n m k, k", lambda p, x, w: p.nn.functional.rms_norm(x, x.shape[-1:], w)),
    "max_pool2d": ("n c h w", lambda p, x: p.nn.functional.max_pool2d(x, 2)),
    "max_pool1d": ("n c w", lambda p, x: p.nn.functional.max_pool1d(x, 2)),
    "avg_pool2d": ("n c h w", lambda p, x: p.nn.functional.avg_pool2d(x, 2)),
    "avg_pool1d": ("n c w", lambda p, x: p.nn.functional.avg_pool1d(x, 2)),
    "adaptive_avg_pool2d": ("n c h w", lambda p, x: p.nn.functional.adaptive_avg_pool2d(x, 2)),
    "adaptive_max_pool2d": ("n c h w", lambda p, x: p.nn.functional.adaptive_max_pool2d(x, 2)),
    "batch_norm": ("n c h w, c, c", lambda p, x, w, b: p.nn.functional.batch_norm(x, None, None, w, b, True)),
    "batch_norm_of_two_dims": ("n c, c, c", lambda p, x, w, b: p.nn.functional.batch_norm(x, None, None, w, b, True)),
    "batch_norm_frozen": (
        "n c h, c, c",
        lambda p, x, w, b: p.nn.functional.batch_norm(x, w.detach(), b.detach() * b.detach(), w, b),
    ),
    "instance_norm": ("n c h", lambda p, x: p.nn.functional.instance_norm(x)),
    "group_norm": ("n 4 h, 4, 4", lambda p, x, w, b: p.nn.functional.group_norm(x, 2, w, b)),
    "layer_norm": ("n m k, k, k", lambda p, x, w, b: p.nn.functional.layer_norm(x, x.shape[-1:], w, b)),
    "layer_norm_of_two_dims": ("n m k, m k", lambda p, x, w: p.nn.functional.layer_norm(x, x.shape[1:], w)),
    "softmax": ("n m k", lambda p, x: p.softmax(x, 1)),
    "softmax_last": ("n m k", lambda p, x: p.softmax(x, -1)),
    "log_softmax": ("n m", lambda p, x: p.log_softmax(x, 1)),
    "logsumexp": ("n m", lambda p, x: p.logsumexp(x, 1)),
    "sum": ("n m k", lambda p, x: p.sum(x, 1)),
    "sum_of_all": ("n m", lambda p, x: p.sum(x)),
    "mean": ("n m k", lambda p, x: p.mean(x, 1)),
    "mean_of_all": ("n m", lambda p, x: p.mean(x)),
    "var": ("n m k", lambda p, x: p.var(x, 1)),
    "std": ("n m k", lambda p, x: p.std(x, 1)),
    "std_of_all": ("n m", lambda p, x: p.std(x)),
    "amax": ("n m k", lambda p, x: p.amax(x, 1)),
    "amin": ("n m k", lambda p, x: p.amin(x, (0, 1))),
    "max": ("n m k", lambda p, x: p.max(x, 1)[0]),
    "max_of_all": ("n m", lambda p, x: p.max(x)),
    "min": ("n m k", lambda p, x: p.min(x, 1)[0]),
    "argmax": ("n m k", lambda p, x: p.argmax(x, 1)),
    "argmin_of_all": ("n m", lambda p, x: p.argmin(x)),
    "any": ("n m", lambda p, x: p.any(x, 1)),
    "all": ("n m", lambda p, x: p.all(x, 1)),
    "add": ("n m, m", lambda p, a, b: a + b),
    "div": ("n m, n 1", lambda p, a, b: a / b),
    "pow": ("n m, 1", lambda p, a, b: (a * a + 1) ** b),
    "remainder": ("n m, m", lambda p, a, b: p.remainder(a, b * b + 1)),
    "floor_divide": ("n m, m", lambda p, a, b: p.div(a, b * b + 1, rounding_mode="floor")),
    "maximum": ("n m, m", lambda p, a, b: p.maximum(a, b)),
    "where": ("n m, m", lambda p, a, b: p.where(a > 0, a, b)),
    "masked_fill": ("n m, m", lambda p, a, b: a.masked_fill(b > 0, 2.0)),
    "clamp": ("n m, m, 1", lambda p, x, a, b: p.clamp(x, a, b)),
    "relu": ("n m", lambda p, x: p.relu(x)),
    "hardswish": ("n m", lambda p, x: p.nn.functional.hardswish(x)),
    "floor": ("n m", lambda p, x: p.floor(x)),
    "mse_loss": ("n m, n m", lambda p, a, b: p.nn.functional.mse_loss(a, b)),
    "mse_loss_none": ("n m, n m", lambda p, a, b: p.nn.functional.mse_loss(a, b, reduction="none")),
    "l1_loss": ("n m, n m", lambda p, a, b: p.nn.functional.l1_loss(a, b, reduction="sum")),
    "huber_loss": ("n m, n m", lambda p, a, b: p.nn.functional.huber_loss(a, b)),
    "smooth_l1_loss": ("n m, n m", lambda p, a, b: p.nn.functional.smooth_l1_loss(a, b)),
    "bce": ("n m, n m", lambda p, a, b: p.nn.functional.binary_cross_entropy(p.sigmoid(a), p.sigmoid(b))),
    "bce_with_logits": ("n m, n m", lambda p, a, b: p.nn.functional.binary_cross_entropy_with_logits(a, p.sigmoid(b))),
    "kl_div": ("n m, n m", lambda p, a, b: p.nn.functional.kl_div(a, p.sigmoid(b), reduction="sum")),
    "cross_entropy": ("n m", lambda p, x: p.nn.functional.cross_entropy(x, x.detach()[:, 0].long() * 0)),
    "cross_entropy_sum": (
        "n m",
        lambda p, x: p.nn.functional.cross_entropy(x, x.detach().sum(1).long() * 0, reduction="sum"),
    ),
    "cross_entropy_none": (
        "n m h",
        lambda p, x: p.nn.functional.cross_entropy(x, x.detach().sum(1).long() * 0, reduction="none"),
    ),
    "cross_entropy_soft": ("n m, n m", lambda p, x, t: p.nn.functional.cross_entropy(x, t)),
    "nll_loss": ("n m", lambda p, x: p.nn.functional.nll_loss(x, x.detach().sum(1).long() * 0, reduction="sum")),
    "embedding": ("n m, k 5", lambda p, i, w: p.nn.functional.embedding(i.detach().long() * 0, w)),
    "gather": ("n m, n m", lambda p, x, i: p.gather(x, 1, i.detach().long() * 0)),
    "index_select": ("n m, k", lambda p, x, i: p.index_select(x, 1, i.detach().long() * 0)),
    "one_hot": ("n m", lambda p, x: p.nn.functional.one_hot(x.detach().long() * 0, 3)),
    "cat": ("n m, n k", lambda p, a, b: p.cat([a, b], 1)),
    "stack": ("n m, n m", lambda p, a, b: p.stack([a, b], 1)),
    "pad": ("n m", lambda p, x: p.nn.functional.pad(x, (1, 2), value=3.0)),
    "flatten": ("n m k", lambda p, x: p.flatten(x, 1)),
    "transpose": ("n m k", lambda p, x: p.transpose(x, 0, 2)),
    "expand": ("1 m", lambda p, x: x.expand(4, -1)),
    "squeeze": ("n 1 m", lambda p, x: p.squeeze(x, 1)),
    "narrow": ("n m", lambda p, x: p.narrow(x, 1, 0, 1)),
    "select": ("n m", lambda p, x: p.select(x, 1, 0)),
    "split": ("n m", lambda p, x: p.split(x, 2, 1)[0]),
    "chunk": ("n m", lambda p, x: p.chunk(x, 2, 1)[0]),
    "slice": ("n m", lambda p, x: x[:, ::2]),
    "tril": ("n m", lambda p, x: p.tril(x)),
}


def zero_calls(name: str) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """The letters of a case's shapes, and its shapes with the size of each 0 in turn."""
    text = CASES[name][0]
    for letter in dict.fromkeys(item for item in text if item.isalpha()):
        sizes = {**SIZES, letter: 0}
        yield letter, [tuple(sizes[s] if s.isalpha() else int(s) for s in part.split()) for part in text.split(",")]


PARAMS = [
    pytest.param(name, letter, shapes, id=f"{name}-{letter}") for name in CASES for letter, shapes in zero_calls(name)
]


def arrays(shapes: list[tuple[int, ...]]) -> list[Array]:
    random = np.random.default_rng(0)
    return [np.asarray(random.standard_normal(shape), np.float32) for shape in shapes]


def outcome(package: Any, name: str, shapes: list[tuple[int, ...]], inputs: list[Any]) -> list[Array]:
    """The result, and after backward every input's gradient; the calls' own exceptions."""
    y = CASES[name][1](package, *inputs)
    if y.requires_grad:
        y.backward(package.ones_like(y))
    found = [y.detach().numpy()]
    for x in inputs:
        found.append(np.zeros(tuple(x.shape), np.float32) if x.grad is None else x.grad.numpy())
    return found


def on_tinyedge(
    name: str, shapes: list[tuple[int, ...]], backend: Backend, compiled: bool = False
) -> list[Array] | str:
    """What comes, or the name of tinyedge's own error."""
    inputs = [te.tensor(array, device=backend, requires_grad=True) for array in arrays(shapes)]
    run: Any = outcome
    if compiled:

        def step(*inputs: Tensor) -> Tensor:
            y: Tensor = CASES[name][1](te, *inputs)
            if y.requires_grad:
                y.backward(te.ones_like(y))
            return y

        program = te.compile(step)

        def run(package: Any, name: str, shapes: list[tuple[int, ...]], inputs: list[Any]) -> list[Array]:
            for _ in range(2):
                for x in inputs:
                    x.grad = None
                y = program(*inputs)
            grads = [np.zeros(x.shape, np.float32) if x.grad is None else x.grad.numpy() for x in inputs]
            return [y.detach().numpy(), *grads]

    try:
        return run(te, name, shapes, inputs)
    except TinyedgeError as error:
        return type(error).__name__


def assert_same(got: list[Array] | str, expected: list[Array] | str) -> None:
    if isinstance(got, str) or isinstance(expected, str):
        assert got == expected
        return
    for number, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
        what = "the result" if number == 0 else f"gradient {number - 1}"
        assert mine.shape == theirs.shape, what
        np.testing.assert_allclose(mine, theirs, 1e-4, 1e-5, err_msg=what)


@pytest.mark.parametrize(("name", "letter", "shapes"), PARAMS)
def test_opencl_is_numpy(
    name: str, letter: str, shapes: list[tuple[int, ...]], opencl: Backend, reference: Backend
) -> None:
    expected = on_tinyedge(name, shapes, reference)
    assert_same(on_tinyedge(name, shapes, opencl), expected)


@pytest.mark.parametrize(("name", "letter", "shapes"), PARAMS)
def test_compiled_is_eager(name: str, letter: str, shapes: list[tuple[int, ...]], backend: Backend) -> None:
    assert_same(on_tinyedge(name, shapes, backend, compiled=True), on_tinyedge(name, shapes, backend))


UNLIKE = {"conv2d-c", "conv2d_one_by_one-c", "conv2d_strided-c", "conv2d_without_batch-c", "conv1d-c", "conv3d-c"}
"""A convolution of no channels is its bias; PyTorch's has no channels either."""
UNLIKE |= {"pixel_shuffle-n", "pixel_shuffle-h", "pixel_shuffle-w", "pixel_unshuffle-n", "pixel_unshuffle-c"}
"""Nothing rearranged is nothing; PyTorch looks for a size of -1 among no elements, and fails."""
UNLIKE |= {"batch_norm-c", "batch_norm_of_two_dims-c", "batch_norm_frozen-c"}
"""Of no channels, which PyTorch fails at in a select."""
UNLIKE |= {"group_norm-h"}
"""Gradients that are sums of nothing are 0; PyTorch multiplies them by the mean of nothing, which is NaN."""


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "letter", "shapes"), PARAMS)
def test_it_is_pytorchs(name: str, letter: str, shapes: list[tuple[int, ...]], backend: Backend) -> None:
    """Values, gradients and shapes are PyTorch's; what it refuses is refused."""
    torch = pytest.importorskip("torch")
    if f"{name}-{letter}" in UNLIKE:
        pytest.skip("unlike PyTorch on purpose")
    got = on_tinyedge(name, shapes, backend)
    inputs = [torch.tensor(array, requires_grad=True) for array in arrays(shapes)]
    expected: list[Array] | None
    try:
        expected = outcome(torch, name, shapes, inputs)
    except (RuntimeError, IndexError, ValueError):
        expected = None
    if expected is None:
        assert isinstance(got, str), "PyTorch refuses it"
    else:
        assert_same(got, expected)


def test_empty_batches_among_others_of_a_compiled_model(backend: Backend) -> None:
    """The gradient between two layers is empty: nothing fills it, and a kernel gets it as an argument."""
    model = te.nn.Sequential(te.nn.Linear(3, 5), te.nn.Tanh(), te.nn.Linear(5, 2))
    forward = te.compile(lambda x: model(x).sum())
    found = []
    for size in (0, 2, 0, 2, 0):
        model.zero_grad()
        forward(te.ones(size, 3)).backward()
        found.append([param.grad.tolist() for param in model.parameters() if param.grad is not None])
    assert found[1] == found[3] != found[0]
    assert found[0] == found[2] == found[4]
    assert not np.concatenate([np.ravel(gradient) for gradient in found[0]]).any()
