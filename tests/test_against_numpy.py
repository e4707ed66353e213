"""Functions against NumPy: values, gradients against central differences of NumPy's, compiled; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import CaptureError, TinyedgeError

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Case = tuple[str, Callable[..., Any], Callable[..., Any], tuple[Shape, ...]]

CASES: list[Case] = [
    ("flip", lambda x: te.flip(x, (0, -1)), lambda x: np.flip(x, (0, -1)), ((2, 3, 4),)),
    ("fliplr", te.fliplr, np.fliplr, ((2, 3),)),
    ("flipud", te.flipud, np.flipud, ((3,),)),
    ("rot90", lambda x: te.rot90(x, -1, (1, 2)), lambda x: np.rot90(x, -1, (1, 2)), ((2, 3, 4),)),
    ("rot90_once", te.rot90, np.rot90, ((2, 3),)),
    ("roll", lambda x: te.roll(x, (-1, 5), (0, 1)), lambda x: np.roll(x, (-1, 5), (0, 1)), ((3, 4),)),
    ("roll_flat", lambda x: te.roll(x, 2), lambda x: np.roll(x, 2), ((3, 4),)),
    ("repeat", lambda x: x.repeat(2, 1, 3), lambda x: np.tile(x, (2, 1, 3)), ((2, 3),)),
    ("repeat_none", lambda x: x.repeat(2, 0), lambda x: np.tile(x, (2, 0)), ((2, 3),)),
    ("repeat_many", lambda x: x.repeat(2, 2, 2, 2, 2), lambda x: np.tile(x, (2, 2, 2, 2, 2)), ((1, 2, 1, 2, 2),)),
    ("tile", lambda x: te.tile(x, (2,)), lambda x: np.tile(x, 2), ((2, 3),)),
    ("repeat_interleave", lambda x: te.repeat_interleave(x, 2, -1), lambda x: np.repeat(x, 2, -1), ((2, 3),)),
    ("movedim", lambda x: te.movedim(x, (0, 1), (-1, 0)), lambda x: np.moveaxis(x, (0, 1), (-1, 0)), ((2, 3, 4),)),
    ("swapaxes", lambda x: te.swapaxes(x, 0, -1), lambda x: np.swapaxes(x, 0, -1), ((2, 3, 4),)),
    ("diagonal", lambda x: te.diagonal(x, -1, 2, 0), lambda x: np.diagonal(x, -1, 2, 0), ((3, 2, 4),)),
    ("diagonal_none", lambda x: te.diagonal(x, 9), lambda x: np.diagonal(x, 9), ((3, 2),)),
    ("diagonal_turned", lambda x: te.diagonal(x.T, 1), lambda x: np.diagonal(x.T, 1), ((3, 5),)),
    (
        "unfold",
        lambda x: x.unfold(0, 3, 2),
        lambda x: np.moveaxis(np.lib.stride_tricks.sliding_window_view(x, 3, 0)[::2], -1, -1),
        ((7, 2),),
    ),
    (
        "as_strided_windows",
        lambda x: te.as_strided(x, (3, 4), (2, 1), 1),
        lambda x: np.lib.stride_tricks.sliding_window_view(x.reshape(-1), 4)[1:7:2],
        ((3, 4),),
    ),
    ("gradient", lambda x: te.gradient(x, spacing=0.5)[0], lambda x: np.gradient(x, 0.5)[0], ((4, 3),)),
    (
        "gradient_apart",
        lambda x: te.gradient(x, spacing=(te.tensor([0.0, 1.0, 3.0, 4.5]),), dim=1, edge_order=2)[0],
        lambda x: np.gradient(x, [0.0, 1.0, 3.0, 4.5], axis=1, edge_order=2),
        ((2, 4),),
    ),
    (
        "gradient_to_the_ends",
        lambda x: te.gradient(x, dim=-1, edge_order=2)[0],
        lambda x: np.gradient(x, axis=-1, edge_order=2),
        ((2, 5),),
    ),
    ("ravel", lambda x: te.ravel(x.T), lambda x: x.T.reshape(-1), ((2, 3),)),
    ("hstack", lambda a, b: te.hstack([a, b]), lambda a, b: np.hstack([a, b]), ((2, 3), (2, 1))),
    ("vstack", lambda a, b: te.vstack([a, b]), lambda a, b: np.vstack([a, b]), ((3,), (2, 3))),
    ("dstack", lambda a, b: te.dstack([a, b]), lambda a, b: np.dstack([a, b]), ((2, 3), (2, 3))),
    ("column_stack", lambda a, b: te.column_stack([a, b]), lambda a, b: np.column_stack([a, b]), ((2,), (2, 3))),
    ("tensor_split", lambda x: te.tensor_split(x, 3)[1], lambda x: np.array_split(x, 3)[1], ((7, 2),)),
    ("hsplit", lambda x: te.hsplit(x, (1, 3))[1], lambda x: np.hsplit(x, (1, 3))[1], ((2, 5),)),
    ("outer", te.outer, np.outer, ((3,), (4,))),
    ("inner", te.inner, np.inner, ((2, 3), (4, 3))),
    ("tensordot", lambda a, b: te.tensordot(a, b, 1), lambda a, b: np.tensordot(a, b, 1), ((2, 3), (3, 4))),
    (
        "tensordot_lists",
        lambda a, b: te.tensordot(a, b, ([0, 2], [1, 0])),
        lambda a, b: np.tensordot(a, b, ([0, 2], [1, 0])),
        ((2, 3, 4), (4, 2, 5)),
    ),
    ("trace", te.trace, np.trace, ((3, 4),)),
    (
        "addmm",
        lambda c, a, b: te.addmm(c, a, b, beta=2, alpha=0.5),
        lambda c, a, b: 2 * c + a @ b / 2,
        ((4,), (2, 3), (3, 4)),
    ),
    ("addmv", te.addmv, lambda c, a, b: c + a @ b, ((2,), (2, 3), (3,))),
    ("baddbmm", te.baddbmm, lambda c, a, b: c + a @ b, ((2, 1, 4), (2, 2, 3), (2, 3, 4))),
]
CASES += [
    ("prod", te.prod, np.prod, ((2, 3),)),
    ("prod_dim", lambda x: te.prod(x, 0, True), lambda x: np.prod(x, 0, keepdims=True), ((5, 3),)),
    (
        "var_mean",
        lambda x: te.stack(te.var_mean(x)),
        lambda x: np.array([x.var(ddof=1), x.mean()]),
        ((2, 5),),
    ),
    (
        "std_mean",
        lambda x: te.stack(te.std_mean(x)),
        lambda x: np.array([x.std(ddof=1), x.mean()]),
        ((2, 5),),
    ),
    ("aminmax", lambda x: te.stack(te.aminmax(x)), lambda x: np.stack([x.min(), x.max()]), ((2, 5),)),
    ("nanmean", lambda x: te.nanmean(x, 0), lambda x: x.mean(0), ((2, 5),)),
    ("median", te.median, lambda x: np.sort(x.reshape(-1))[4], ((2, 5),)),
    ("median_dim", lambda x: te.median(x, 1).values, lambda x: np.sort(x, 1)[:, 2], ((2, 6),)),
    ("topk", lambda x: te.topk(x.T, 3, 0).values, lambda x: -np.sort(-x.T, 0)[:3], ((2, 40),)),
    ("kthvalue", lambda x: te.kthvalue(x, 2, 0, True).values, lambda x: np.sort(x, 0)[1:2], ((3, 2),)),
    ("sort", lambda x: te.sort(x, 0).values, lambda x: np.sort(x, 0), ((70, 2),)),
    ("cumsum", lambda x: te.cumsum(x.T, -1), lambda x: np.cumsum(x.T, -1), ((5, 2),)),
    ("cumprod", lambda x: te.cumprod(x, 0), lambda x: np.cumprod(x, 0), ((5, 2),)),
]
CASES += [
    (
        f"norm_{order}",
        lambda x, order=order: te.linalg.vector_norm(x, order, 1),
        lambda x, order=order: np.linalg.norm(x, order, 1),
        ((2, 4),),
    )
    for order in (0.5, 1, 2, 3, -1, np.inf, -np.inf)
]
EQUATIONS: list[tuple[str, tuple[Shape, ...]]] = [
    ("ij,jk->ik", ((2, 3), (3, 4))),
    ("bij,bkj->bik", ((2, 3, 4), (2, 5, 4))),
    ("...ij,...jk->...ki", ((2, 3, 4), (4, 5))),
    ("ii->i", ((3, 3),)),
    ("ii", ((3, 3),)),
    ("ij->ji", ((2, 3),)),
    ("ij->", ((2, 3),)),
    ("i,j->ij", ((2,), (3,))),
    ("i,i", ((3,), (3,))),
    ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 2))),
    ("abc,bd,ce->ade", ((2, 3, 4), (3, 2), (4, 3))),
    ("ij,kl->", ((2, 3), (3, 2))),
    ("ij,ij->ij", ((2, 3), (2, 3))),
    ("ba,b", ((2, 3), (2,))),
]
CASES += [
    (
        "einsum_" + equation,
        lambda *xs, equation=equation: te.einsum(equation, *xs),
        lambda *xs, equation=equation: np.einsum(equation, *xs),
        shapes,
    )
    for equation, shapes in EQUATIONS
]


def values_of(shapes: tuple[Shape, ...]) -> list[Array]:
    random = np.random.default_rng(0)
    return [random.uniform(-2, 2, shape) for shape in shapes]


def gradients(function: Callable[..., Any], arrays: list[Array], dtype: Any) -> tuple[Array, list[Array]]:
    """The result, and the gradients of its elements' sum with weights 1, 2, ..."""
    leaves = [te.tensor(array.astype(dtype), requires_grad=True) for array in arrays]
    y = function(*leaves)
    weights = np.arange(1, y.numel() + 1, dtype=dtype).reshape(y.shape)
    y.backward(te.tensor(weights))
    return y.detach().numpy(), [
        np.zeros(leaf.shape, dtype) if leaf.grad is None else leaf.grad.numpy() for leaf in leaves
    ]


def differences(function: Callable[..., Any], arrays: list[Array]) -> list[Array]:
    """Central differences of the same sum, of NumPy's function."""

    def weighted(items: list[Array]) -> float:
        y = np.asarray(function(*items))
        return float((y.reshape(-1) * np.arange(1, y.size + 1)).sum())

    found = []
    for k, array in enumerate(arrays):
        gradient = np.zeros(array.shape)
        for place in np.ndindex(*array.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = array.copy()
                moved[place] += step
                sides.append(weighted([*arrays[:k], moved, *arrays[k + 1 :]]))
            gradient[place] = (sides[0] - sides[1]) / 2e-5
        found.append(gradient)
    return found


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_values_and_gradients(case: Case, backend: Backend) -> None:
    _, function, expected, shapes = case
    arrays = values_of(shapes)
    y, grads = gradients(function, arrays, np.float32)
    wanted = np.asarray(expected(*arrays))
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    for grad, right in zip(grads, differences(expected, arrays)):
        np.testing.assert_allclose(grad, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_compiled(case: Case, backend: Backend) -> None:
    _, function, expected, shapes = case
    compiled = te.compile(lambda *xs: function(*xs) * 2)
    for shift in (0.0, 1.0, -1.0):
        arrays = [array + shift for array in values_of(shapes)]
        y = compiled(*(te.tensor(array.astype(np.float32)) for array in arrays))
        np.testing.assert_allclose(y.numpy(), 2 * np.asarray(expected(*arrays)), rtol=1e-4, atol=1e-4)


def test_what_the_host_must_know(backend: Backend) -> None:
    values = np.array([[0.0, 1.5, 0.0], [2.0, 0.0, -1.0]], np.float32)
    x = te.tensor(values, requires_grad=True)
    assert te.nonzero(x).tolist() == np.argwhere(values).tolist()
    assert [part.tolist() for part in te.nonzero(x, as_tuple=True)] == [p.tolist() for p in np.nonzero(values)]
    y = te.masked_select(x, x.detach() > 0)
    assert y.tolist() == [1.5, 2.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == (values > 0).astype(float).tolist()
    twice = te.repeat_interleave(x.detach(), te.tensor([2, 0, 1]), 1)
    assert twice.tolist() == np.repeat(values, [2, 0, 1], 1).tolist()
    for name, function in (
        ("nonzero", te.nonzero),
        ("masked_select", lambda x: te.masked_select(x, x > 0)),
        ("repeat_interleave", lambda x: te.repeat_interleave(x, (x[0] > 0).long(), 1)),
    ):
        with pytest.raises(CaptureError, match=name):
            te.compile(function)(x.detach())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: te.roll(x, (1, 2), 0),
        lambda x: te.rot90(x, 1, (0, 0)),
        lambda x: x.repeat(2),
        lambda x: te.movedim(x, (0, 1), (0,)),
        lambda x: te.diagonal(x, 0, 0, -2),
        lambda x: x.unfold(0, 5, 1),
        lambda x: te.tensor_split(x, 0),
        lambda x: te.hsplit(x, 2),
        lambda x: te.einsum("ijk", x),
        lambda x: te.einsum("ij->ijj", x),
        lambda x: te.einsum("ij,jk", x, x),
        lambda x: te.tensordot(x, x, 1),
        lambda x: te.addmm(te.zeros(5), x, x.T),
        lambda x: te.outer(x, x),
    ],
)
def test_refused(function: Callable[..., Any], backend: Backend) -> None:
    with pytest.raises(TinyedgeError):
        function(te.zeros(2, 3))


def test_zero_sizes(backend: Backend) -> None:
    x = te.zeros(0, 3)
    for y, shape in (
        (te.flip(x, (0, 1)), (0, 3)),
        (te.roll(x, 1), (0, 3)),
        (te.roll(x, 1, 1), (0, 3)),
        (x.repeat(2, 2), (0, 6)),
        (te.einsum("ij,ik->jk", x, x), (3, 3)),
        (te.diagonal(x), (0,)),
        (te.nonzero(x), (0, 2)),
        (te.masked_select(x, x > 0), (0,)),
    ):
        assert y.shape == shape
        assert y.numel() == 0 or not y.numpy().any()


@pytest.mark.parametrize("zeros", [(), (1,), (0,), (3,), (1, 3)])
def test_products_with_zeros(zeros: tuple[int, ...], backend: Backend) -> None:
    x = np.array([2.0, -3.0, 0.5, 4.0])
    x[list(zeros)] = 0
    for function, expected in ((te.prod, np.prod), (lambda x: te.cumprod(x, 0), np.cumprod)):
        _, (grad,) = gradients(function, [x], np.float32)
        np.testing.assert_allclose(grad, differences(expected, [x])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 33, 1000])
@pytest.mark.parametrize("descending", [False, True])
def test_sort_is_stable_and_nan_is_the_largest(length: int, descending: bool, backend: Backend) -> None:
    random = np.random.default_rng(length)
    values = random.integers(0, 9, (length, 2)).astype(np.float32)
    values[random.random(values.shape) < 0.1] = np.nan
    y, index = te.sort(te.tensor(values), 0, descending)
    key = np.where(np.isnan(values), np.inf, values)
    wanted = np.argsort(-key if descending else key, 0, kind="stable")
    np.testing.assert_array_equal(index.numpy(), wanted)
    np.testing.assert_array_equal(y.numpy(), np.take_along_axis(values, wanted, 0))
    assert te.argsort(te.tensor(values), 0, descending).tolist() == wanted.tolist()


def test_cumsum_of_many_is_accurate(backend: Backend) -> None:
    values = np.full(100_000, 0.1, np.float32)
    y = te.cumsum(te.tensor(values), 0).numpy()
    np.testing.assert_allclose(y, values.cumsum(dtype=np.float64), rtol=2e-5)
    assert te.cumsum(te.tensor([1, 2, 3], dtype=te.int32), 0).dtype is te.int64


def test_reductions_at_ties_zeros_and_nan(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0, 2.0, 5.0], requires_grad=True)
    te.median(x).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0.5, 0.5, 0]
    for order in (0.5, 1, 2, 3):
        zero = te.zeros(3, requires_grad=True)
        te.norm(zero, order).backward()
        assert zero.grad is not None
        assert zero.grad.tolist() == [0, 0, 0]
    nan = te.tensor([1.0, float("nan"), 3.0])
    assert te.nansum(nan).item() == 4.0
    assert te.nanmean(nan).item() == 2.0
    assert np.isnan(te.median(nan).item())
    assert te.median(nan, 0).indices.item() == 1
    assert te.count_nonzero(te.tensor([[0, 2], [3, 0]]), 1).tolist() == [1, 1]
    assert te.prod(te.tensor([2, 3])).dtype is te.int64
    assert te.prod(te.zeros(0, 2), 0).tolist() == [1, 1]


def test_agreement(backend: Backend) -> None:
    a = te.tensor([1.0, float("inf"), float("nan")])
    b = te.tensor([1.000001, float("inf"), float("nan")])
    assert te.isclose(a, b).tolist() == [True, True, False]
    assert te.allclose(a, b, equal_nan=True)
    assert not te.allclose(a, b)
    assert te.equal(a[:2], a[:2])
    assert not te.equal(a, a)
    assert not te.equal(a, a[:2])


def test_scatter_keeps_the_last_and_adds_all(backend: Backend) -> None:
    x = te.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    index = te.tensor([[0, 0, 2, 0]])
    source = te.tensor([[10.0, 20.0, 30.0, 40.0]], requires_grad=True)
    y = te.scatter(x, 1, index, source)
    assert y.tolist() == [[40, 2, 30], [4, 5, 6]]
    y.backward(te.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert x.grad is not None
    assert source.grad is not None
    assert x.grad.tolist() == [[0, 2, 0], [4, 5, 6]]
    assert source.grad.tolist() == [[1, 1, 3, 1]]  # as PyTorch, where places are equal
    x.grad = source.grad = None
    y = x.scatter_add(1, index, source)
    assert y.tolist() == [[71, 2, 33], [4, 5, 6]]
    y.backward(te.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert x.grad is not None
    assert source.grad is not None
    assert x.grad.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert source.grad.tolist() == [[1, 1, 3, 1]]
    assert te.scatter(x, 1, index, 7.0, reduce="add").tolist() == [[22, 2, 10], [4, 5, 6]]
    with pytest.raises(TinyedgeError, match="reduce"):
        te.scatter(x, 1, index, source, reduce="mean")


def test_index_add_and_copy(backend: Backend) -> None:
    random = np.random.default_rng(0)
    x, source = random.normal(size=(3, 4, 2)), random.normal(size=(3, 5, 2))
    index = np.array([3, 0, 0, 1, 3])

    def added(x: Array, source: Array) -> Array:
        y = x.copy()
        np.add.at(y, (slice(None), index), -2 * source)
        return y

    y, grads = gradients(
        lambda x, source: te.index_add(x, 1, te.tensor(index), source, alpha=-2), [x, source], np.float32
    )
    np.testing.assert_allclose(y, added(x, source), rtol=1e-5, atol=1e-5)
    for grad, right in zip(grads, differences(added, [x, source])):
        np.testing.assert_allclose(grad, right, rtol=1e-4, atol=1e-3)
    copied = te.index_copy(te.tensor(x), 1, te.tensor([2, 0]), te.tensor(source[:, :2]))
    expected = x.copy()
    expected[:, [2, 0]] = source[:, :2]
    assert copied.tolist() == expected.tolist()
    compiled = te.compile(lambda x, index, source: te.index_add(x, 0, index, source))
    for places in ([0, 1, 1], [2, 2, 2]):
        y = compiled(te.zeros(3), te.tensor(places), te.tensor([1.0, 2.0, 4.0]))
        assert y.tolist() == np.bincount(places, [1.0, 2.0, 4.0], 3).tolist()
