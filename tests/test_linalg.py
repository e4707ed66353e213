"""Systems, determinants, triangles and decompositions: both backends, batches, gradients, compiled, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, CaptureError, TinyedgeError

Array = np.ndarray[Any, Any]


def matrices(*shape: int, seed: int = 0) -> Array:
    """Well-conditioned: a diagonal that outweighs the rest."""
    n = shape[-1]
    values = np.random.default_rng(seed).standard_normal(shape) + n * np.eye(shape[-2], n)
    return values.astype(np.float32)


def definite(*shape: int) -> Array:
    a = matrices(*shape)
    return np.asarray(a @ np.swapaxes(a, -1, -2))


ON_DEVICE: list[tuple[str, Callable[..., Any], Callable[..., Any], Callable[..., Array]]] = [
    ("inv", te.linalg.inv, np.linalg.inv, matrices),
    ("det", te.det, np.linalg.det, matrices),
    ("logdet", lambda a: te.slogdet(a).logabsdet, lambda a: np.linalg.slogdet(a)[1], matrices),
    ("solve", lambda a: te.linalg.solve(a, a * a), lambda a: np.linalg.solve(a, a * a), matrices),
    ("cholesky", te.linalg.cholesky, np.linalg.cholesky, definite),
    (
        "triangular",
        lambda a: te.linalg.solve_triangular(a, a, upper=True),
        lambda a: np.linalg.solve(np.triu(a), a),
        matrices,
    ),
    (
        "unitriangular",
        lambda a: te.linalg.solve_triangular(a / 9, a, upper=False, unitriangular=True),
        lambda a: np.linalg.solve(np.tril(a / 9, -1) + np.eye(a.shape[-1]), a),
        matrices,
    ),
]
by_name = pytest.mark.parametrize(
    ("call", "reference", "drawn"), [c[1:] for c in ON_DEVICE], ids=[c[0] for c in ON_DEVICE]
)


@by_name
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 7, 7), (2, 1, 70, 70), (3, 0, 5, 5)], ids=str)
def test_values(backend: Backend, call: Any, reference: Any, drawn: Any, shape: tuple[int, ...]) -> None:
    a = drawn(*shape)
    expected = reference(a.astype(np.float64))
    if np.abs(expected).max(initial=0) < 1e30:
        np.testing.assert_allclose(call(te.tensor(a)).numpy(), expected, rtol=2e-3, atol=1e-4)


@by_name
def test_gradients_are_central_differences(reference: Any, call: Any, drawn: Any) -> None:
    with te.use_backend("numpy"):
        a = drawn(2, 3, 3).astype(np.float64)
        random = np.random.default_rng(1)
        direction, factor = random.standard_normal(a.shape), random.standard_normal(np.shape(reference(a)))
        if call is te.linalg.cholesky:  # of symmetric matrices
            direction = direction + np.swapaxes(direction, -1, -2)
        x = te.tensor(a, requires_grad=True)
        (call(x) * te.tensor(factor)).sum().backward()
        step = 1e-6
        change = sum(side * (reference(a + side * step * direction) * factor).sum() for side in (1, -1)) / (2 * step)
        assert x.grad is not None
        assert (x.grad.numpy() * direction).sum() == pytest.approx(change, rel=1e-6)


@by_name
def test_gradients_agree(opencl: Backend, call: Any, reference: Any, drawn: Any) -> None:
    found = []
    for name in ("numpy", opencl.name):
        x = te.tensor(drawn(2, 5, 5), device=name, requires_grad=True)
        call(x).sum().backward()
        assert x.grad is not None
        found.append(x.grad.numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4 * np.abs(found[0]).max())


@by_name
def test_compiled(backend: Backend, call: Any, reference: Any, drawn: Any) -> None:
    compiled = te.compile(lambda x: call(x * 1.0))
    for seed in range(3):
        a = drawn(2, 4, 4) + np.float32(seed) * np.eye(4, dtype=np.float32)
        np.testing.assert_allclose(compiled(te.tensor(a)).numpy(), call(te.tensor(a)).numpy(), rtol=1e-5, atol=1e-6)


def test_what_has_no_inverse_is_refused(backend: Backend) -> None:
    a = te.tensor([[1.0, 2.0], [2.0, 4.0]])
    with pytest.raises(ArgumentError, match="pivot 2 of matrix 0"):
        te.linalg.inv(a)
    with pytest.raises(ArgumentError, match="positive-definite"):
        te.linalg.cholesky(-te.eye(2))
    inverse, info = te.linalg.inv_ex(a)
    assert info.item() == 2
    assert np.isnan(inverse.numpy()).all()
    assert te.det(a).item() == 0
    assert te.slogdet(a).sign.item() == 0
    assert np.isnan(te.compile(lambda x: te.linalg.inv(x))(a).numpy()).all()


@pytest.mark.parametrize(
    "call", [te.linalg.qr, te.linalg.eigh, te.linalg.svd, te.linalg.pinv, lambda a: te.linalg.matrix_norm(a, "nuc")]
)
def test_what_the_host_computes_is_refused_inside_compile(backend: Backend, call: Any) -> None:
    with pytest.raises(CaptureError):
        te.compile(lambda x: call(x))(te.tensor(definite(3, 3)))


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)], ids=str)
@pytest.mark.parametrize("name", ["qr", "svd", "pinv", "lstsq"])
def test_decompositions_give_the_matrix_and_its_gradient(name: str, shape: tuple[int, int]) -> None:
    """What is composed of the factors is the matrix again, whose gradient is known."""
    with te.use_backend("numpy"):
        a = matrices(*shape).astype(np.float64)
        x = te.tensor(a, requires_grad=True)
        if name == "qr":
            y = te.matmul(*te.linalg.qr(x))
        elif name == "svd":
            U, S, Vh = te.linalg.svd(x, full_matrices=False)
            y = te.matmul(U * S, Vh)
        elif name == "pinv":
            y = te.matmul(x, te.matmul(te.linalg.pinv(x), x))
        else:
            y = te.matmul(x, te.linalg.lstsq(x, x).solution)
        factor = np.random.default_rng(2).standard_normal(shape)
        np.testing.assert_allclose(y.detach().numpy(), a, atol=1e-9)
        (y * te.tensor(factor)).sum().backward()
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), factor, atol=1e-8)


def test_shapes_that_do_not_fit_are_refused(backend: Backend) -> None:
    for call in (
        lambda: te.linalg.solve(te.eye(2), te.zeros(3, 1)),
        lambda: te.det(te.zeros(2, 3)),
        lambda: te.linalg.cholesky(te.zeros(2)),
        lambda: te.linalg.multi_dot([te.zeros(2, 3), te.zeros(2, 3)]),
        lambda: te.linalg.inv(te.tensor([[1, 2], [3, 4]])),
        lambda: te.linalg.norm(te.zeros(2, 2), "other"),
    ):
        with pytest.raises(TinyedgeError):
            call()


@pytest.mark.parametrize("pivot", [True, False])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (2, 3, 5), (1, 1), (2, 0, 3), (0, 3, 3), (70, 70)], ids=str)
def test_triangular_factors(backend: Backend, shape: tuple[int, ...], pivot: bool) -> None:
    a = matrices(*shape) if pivot is False else np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    P, L, U = te.linalg.lu(te.tensor(a), pivot=pivot)
    product = (P @ L @ U if pivot else L @ U).numpy()
    np.testing.assert_allclose(product, a, rtol=1e-4, atol=1e-4)
    assert not np.tril(U.numpy(), -1).any()
    assert np.abs(L.numpy()).max(initial=0) <= (1 if pivot else 9)
    packed, pivots, info = te.linalg.lu_factor_ex(te.tensor(a), pivot=pivot)
    assert not info.numpy().any()
    again = te.lu_unpack(packed, pivots)
    np.testing.assert_array_equal(again.L.numpy(), L.numpy())
    np.testing.assert_allclose((again.P @ again.L @ again.U).numpy(), a, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("adjoint", [True, False])
def test_systems_of_triangular_factors(backend: Backend, left: bool, adjoint: bool) -> None:
    a = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)
    b = np.random.default_rng(1).standard_normal((3, 4, 4)).astype(np.float32)

    @te.compile
    def solved(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        return te.linalg.lu_solve(*te.linalg.lu_factor(a), b, left=left, adjoint=adjoint)

    of = np.swapaxes(a, -1, -2) if adjoint else a
    for _ in range(3):
        x = solved(te.tensor(a), te.tensor(b)).numpy()
        np.testing.assert_allclose(of @ x if left else x @ of, np.broadcast_to(b, x.shape), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 4), (4, 2)], ids=str)
def test_gradients_of_triangular_factors(shape: tuple[int, ...]) -> None:
    a = te.tensor(np.random.default_rng(3).standard_normal(shape), device="numpy", requires_grad=True)
    assert te.autograd.gradcheck(lambda a: te.linalg.lu(a)[1:], (a,))
    assert te.autograd.gradcheck(lambda a: te.linalg.lu_factor(a).LU, (a,))
    if shape[-1] == shape[-2]:
        b = te.tensor(np.random.default_rng(4).standard_normal((3, 2)), device="numpy", requires_grad=True)
        assert te.autograd.gradcheck(lambda a, b: te.linalg.lu_solve(*te.linalg.lu_factor(a), b), (a, b))


def test_triangular_factors_refuse(backend: Backend) -> None:
    packed, pivots, info = te.linalg.lu_factor_ex(te.tensor([[1.0, 2.0], [2.0, 4.0]]))
    assert info.item() == 2
    with pytest.raises(ArgumentError, match="pivot 2 of matrix 0"):
        te.linalg.lu_factor_ex(te.ones(2, 2), check_errors=True)
    with pytest.raises(TinyedgeError, match="int32 pivots"):
        te.lu_solve(te.ones(2, 1), packed, pivots.long())
    with pytest.raises(TinyedgeError, match="pivots of shape"):
        te.lu_unpack(packed, pivots[:1])
    with pytest.raises(te.IndexRangeError):
        te.lu_unpack(packed, pivots + 5).P.numpy()
    with pytest.raises(AttributeError, match=r"eigvals is not in tinyedge; use linalg\.eigvalsh"):
        _ = te.linalg.eigvals


def _exponential(a: Array) -> Array:
    """By 60 terms, in float64."""
    term = total = np.broadcast_to(np.eye(a.shape[-1]), a.shape)
    for k in range(1, 60):
        term = term @ a / k
        total = total + term
    return total


def test_exponentials_of_matrices(backend: Backend) -> None:
    exponential = te.compile(te.linalg.matrix_exp)
    for shape in ((1, 1), (3, 3), (2, 5, 5), (0, 2, 2), (2, 0, 0)):
        for scale in (1e-6, 1, 4):
            a = (scale * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
            expected = _exponential(a.astype(np.float64))
            for y in (te.linalg.matrix_exp(te.tensor(a)), exponential(te.tensor(a)), exponential(te.tensor(a))):
                largest = np.abs(expected).max(initial=0)
                np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5 * largest)
    turn = te.tensor([[0.0, -1000.0], [1000.0, 0.0]])
    np.testing.assert_allclose(te.matrix_exp(turn).numpy()[0, 0], np.cos(1000), atol=2e-3)
    assert np.isnan(te.matrix_exp(turn * np.nan).numpy()).all()
    assert np.isnan(exponential(turn * 1e6).numpy()).all()


def test_gradients_of_exponentials_of_matrices() -> None:
    a = te.tensor(np.random.default_rng(0).standard_normal((2, 3, 3)), device="numpy", requires_grad=True)
    assert te.autograd.gradcheck(te.matrix_exp, (a,))
    assert te.autograd.gradgradcheck(te.matrix_exp, (a,))
