"""Gradients of values that were computed apart from them (``ops/with_gradient.py``), as differentiable calls.

In: the gradient of a value, the value, and the inputs of its formula, with their histories. Out: the inputs' gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinyedge.autograd.registry import functions
from tinyedge.dtypes import bool_
from tinyedge.ops import cat, eye, matmul, transpose, tril, triu, unsqueeze, where
from tinyedge.tensor import Tensor


def _turned(A: Tensor) -> Tensor:
    return transpose(A, -2, -1)


def _inverse_of(A: Tensor) -> Tensor:
    found: Tensor = functions["linalg_inv_ex"](A).inverse
    return found


def _inverse(g: Tensor, y: Tensor, A: Tensor) -> Sequence[Tensor]:
    return (-matmul(matmul(_turned(y), g), _turned(y)),)


def _solve(g: Tensor, x: Tensor, A: Tensor, B: Tensor) -> Sequence[Tensor]:
    of_right: Tensor = functions["linalg_solve_ex"](_turned(A), g).result
    return -matmul(of_right, _turned(x)), of_right


def _log_determinant(g: Tensor, y: Tensor, A: Tensor) -> Sequence[Tensor]:
    return (_turned(_inverse_of(A)) * unsqueeze(unsqueeze(g, -1), -1),)


def _determinant(g: Tensor, y: Tensor, A: Tensor) -> Sequence[Tensor]:
    return _log_determinant(g * y, y, A)


def _cholesky(g: Tensor, L: Tensor, A: Tensor) -> Sequence[Tensor]:
    inverse = _inverse_of(L)
    middle = matmul(_turned(L), tril(g))
    half = tril(middle) - middle * (eye(L.shape[-1], dtype=L.dtype, device=L.backend) * 0.5)
    found = matmul(matmul(_turned(inverse), half), inverse)
    return ((found + _turned(found)) * 0.5,)


def _lu(g: Tensor, packed: Tensor, rows: Tensor) -> Sequence[Tensor]:
    """Of square matrices, whose rows have changed places already."""
    L = tril(packed, -1) + eye(packed.shape[-1], dtype=packed.dtype, device=packed.backend)
    U = triu(packed)
    middle = tril(matmul(_turned(L), tril(g, -1)), -1) + triu(matmul(triu(g), _turned(U)))
    return (matmul(matmul(_turned(_inverse_of(L)), middle), _turned(_inverse_of(U))),)


def _pseudoinverse(g: Tensor, P: Tensor, A: Tensor) -> Sequence[Tensor]:
    left = eye(A.shape[-1], dtype=A.dtype, device=A.backend) - matmul(P, A)
    right = eye(A.shape[-2], dtype=A.dtype, device=A.backend) - matmul(A, P)
    found = matmul(matmul(right, _turned(g)), matmul(P, _turned(P)))
    found = found + matmul(matmul(_turned(P), P), matmul(_turned(g), left))
    return (found - matmul(matmul(_turned(P), g), _turned(P)),)


def _divided(of: Tensor, R: Tensor) -> Tensor:
    return matmul(of, _turned(_inverse_of(R)))


def _mirrored(A: Tensor) -> Tensor:
    """The symmetric matrix with the upper triangle of ``A``."""
    return triu(A) + _turned(triu(A, 1))


def _q(g: Tensor, Q: Tensor, A: Tensor) -> Sequence[Tensor]:
    k = Q.shape[-1]
    first = A[..., :k]
    found = _divided(g - matmul(Q, _mirrored(matmul(_turned(Q), g))), matmul(_turned(Q), first))
    return (cat([found, A[..., k:] * 0.0], -1),)


def _r(g: Tensor, R: Tensor, Q: Tensor, A: Tensor) -> Sequence[Tensor | None]:
    k = Q.shape[-1]
    first, rest = g[..., :k], g[..., k:]
    of_Q = matmul(A[..., k:], _turned(rest))
    middle = matmul(triu(first), _turned(R[..., :k])) - matmul(_turned(Q), of_Q)
    found = _divided(of_Q + matmul(Q, _mirrored(middle)), R[..., :k])
    return None, cat([found, matmul(Q, rest)], -1)


def _apart(squares: Tensor) -> tuple[Tensor, Tensor]:
    """Where a pair of columns is one with itself; and the differences of the pairs, there 1."""
    same = eye(squares.shape[-1], dtype=bool_, device=squares.backend)
    return same, where(same, 1.0, unsqueeze(squares, -2) - unsqueeze(squares, -1))


def _symmetric(A: Tensor) -> Tensor:
    return (A + _turned(A)) * 0.5


def _eigenvalues(g: Tensor, w: Tensor, V: Tensor, A: Tensor) -> Sequence[Tensor | None]:
    return None, matmul(V * unsqueeze(g, -2), _turned(V))


def _eigenvectors(g: Tensor, V: Tensor, A: Tensor) -> Sequence[Tensor]:
    values = (V * matmul(_symmetric(A), V)).sum(-2)  # as a function of V and A, so that no results hold each other
    same, apart = _apart(values)
    middle = where(same, 0.0, matmul(_turned(V), g) / apart)
    return (_symmetric(matmul(matmul(V, middle), _turned(V))),)


def _singular_values(g: Tensor, S: Tensor, U: Tensor, Vh: Tensor, A: Tensor) -> Sequence[Tensor | None]:
    k = S.shape[-1]
    return None, None, matmul(U[..., :k] * unsqueeze(g, -2), Vh[..., :k, :])


def _left_vectors(g: Tensor, U: Tensor, A: Tensor) -> Sequence[Tensor]:
    k = min(A.shape[-2:])
    g, U = g[..., :k], U[..., :k]
    scaled = matmul(_turned(A), U)  # V, its columns times their singular values
    squares = (scaled * scaled).sum(-2)
    same, apart = _apart(squares)
    inner = matmul(_turned(U), g)
    middle = where(same, 0.0, (inner - _turned(inner)) / apart)
    outer = (g - matmul(U, inner)) / unsqueeze(squares, -2)
    return (matmul(matmul(U, middle) + outer, _turned(scaled)),)


def _right_vectors(g: Tensor, Vh: Tensor, A: Tensor) -> Sequence[Tensor]:
    (found,) = _left_vectors(_turned(g), _turned(Vh), _turned(A))
    return (_turned(found),)


def _i0(g: Tensor, y: Tensor, x: Tensor) -> Sequence[Tensor]:
    return (g * functions["special_i1"](x),)


def _i1(g: Tensor, y: Tensor, x: Tensor) -> Sequence[Tensor]:
    zero = x == 0
    return (g * (functions["i0"](x) - where(zero, 0.5, y / where(zero, 1.0, x))),)


def _i0e(g: Tensor, y: Tensor, x: Tensor) -> Sequence[Tensor]:
    return (g * (functions["special_i1e"](x) - functions["sign"](x) * y),)


def _i1e(g: Tensor, y: Tensor, x: Tensor) -> Sequence[Tensor]:
    zero = x == 0
    slope = functions["special_i0e"](x) - where(zero, 0.5, y / where(zero, 1.0, x))
    return (g * (slope - functions["sign"](x) * y),)


THROUGH = "through"
"""The formula of a value whose gradient is that of its tangent also where it has one itself."""

FORMULAS: dict[str, Callable[..., Sequence[Tensor | None]]] = {
    "cholesky": _cholesky,
    "determinant": _determinant,
    "eigenvalues": _eigenvalues,
    "eigenvectors": _eigenvectors,
    "i0": _i0,
    "i0e": _i0e,
    "i1": _i1,
    "i1e": _i1e,
    "inverse": _inverse,
    "left_vectors": _left_vectors,
    "log_determinant": _log_determinant,
    "lu": _lu,
    "pseudoinverse": _pseudoinverse,
    "q": _q,
    "r": _r,
    "right_vectors": _right_vectors,
    "singular_values": _singular_values,
    "solve": _solve,
}
