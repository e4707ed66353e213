"""Gradients of values that were computed apart from them (``ops/with_gradient.py``), as differentiable calls.

In: the gradient of a value, the value, and the inputs of its formula, with their histories. Out: the inputs' gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinyedge.autograd.registry import functions
from tinyedge.ops import eye, matmul, transpose, tril, triu, unsqueeze
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


FORMULAS: dict[str, Callable[..., Sequence[Tensor]]] = {
    "cholesky": _cholesky,
    "determinant": _determinant,
    "inverse": _inverse,
    "log_determinant": _log_determinant,
    "lu": _lu,
    "solve": _solve,
}
