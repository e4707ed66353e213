"""Decompositions of matrices that the host computes, by NumPy: qr, eigh, svd, pinv, lstsq, matrix_rank.

Matrices are copied to the host and the results back, so these are refused inside ``te.compile``. The gradients are
composed of ops of the device: each result is linked to an expression whose gradient is its own.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import bool_, int64
from tinyedge.errors import ArgumentError, AutogradError, DtypeError, ShapeError
from tinyedge.ops.creation import eye, tril
from tinyedge.ops.matmul import matmul
from tinyedge.ops.movement import expand, narrow, pad, reshape, unsqueeze
from tinyedge.ops.rearrange import diagonal
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.selection import where
from tinyedge.ops.solve import inverse_of, matrices, square, turned
from tinyedge.ops.with_gradient import with_gradient
from tinyedge.tensor import Tensor, tensor

Array = np.ndarray[Any, Any]


def _on_host(name: str, A: Tensor) -> Array:
    forbid_in_recording(name, "it is computed on the host")
    values = A.detach().numpy().astype(A.dtype.computes.numpy, copy=False)
    if not np.isfinite(values).all():
        raise ArgumentError(name, "finite matrices", "one element is NaN or infinite")
    return values


def _back(values: Any, like: Tensor) -> Tensor:
    return tensor(np.ascontiguousarray(values), dtype=like.dtype, device=like.backend)


def _on_diagonal(A: Tensor) -> Tensor:
    return diagonal(A, 0, -2, -1)


def _columns(v: Tensor) -> Tensor:
    """A vector, for a product with each column's own."""
    return unsqueeze(v, -2)


# Q R


class QR(NamedTuple):
    """What ``qr`` returns."""

    Q: Tensor
    R: Tensor


def _qr(name: str, A: Any, mode: str) -> QR:
    A = matrices(name, A)
    if mode not in ("reduced", "complete", "r"):
        raise ArgumentError(name, "mode must be reduced, complete or r", f"got {mode!r}")
    rows, columns = A.shape[-2:]
    if A.requires_grad and (mode == "r" or (mode == "complete" and rows > columns)):
        raise AutogradError(name, "a gradient through both results of mode='reduced'", f"got mode={mode!r}", "")
    values = _on_host(name, A)
    if mode == "r":
        Q = functions["zeros"](0, dtype=A.dtype, device=A.backend)
        return QR(Q, _back(np.linalg.qr(values, mode="r"), A))
    q, r = np.linalg.qr(values, mode=cast("Any", mode))
    Q, R = _back(q, A), _back(r, A)
    if not A.requires_grad:
        return QR(Q, R)
    first = narrow(A, -1, 0, min(rows, columns))
    inverse = inverse_of(narrow(R, -1, 0, min(rows, columns)))
    W = matmul(turned(Q), matmul(first, inverse))
    low = tril(W, -1)
    turn = low - turned(low)
    linked = with_gradient(Q, matmul(first, inverse) - matmul(Q, W - turn), "q", A)
    return QR(linked, with_gradient(R, matmul(turned(Q), A) - matmul(turn, R), "r", linked, A))


@public(top=False, space="linalg")
def linalg_qr(A: Tensor, mode: str = "reduced") -> QR:
    """(Q, R) with ``A = Q @ R``, Q with orthonormal columns and R an upper triangle; computed on the host.

    Shapes: (..., m, n) gives (..., m, k) and (..., k, n), k = min(m, n), or m with mode="complete"; with mode="r" Q is
            empty.
    Errors: AutogradError where no gradient is defined; CaptureError inside te.compile.
    """
    return _qr("linalg.qr", A, mode)


@public(method=True)
def qr(input: Tensor, some: bool = True) -> QR:
    """As ``linalg.qr``; without ``some``, with mode="complete".

    Shapes: as ``linalg.qr``.
    Errors: as ``linalg.qr``.
    """
    return _qr("qr", input, "reduced" if some else "complete")


# Eigenvalues of symmetric matrices


class Eigen(NamedTuple):
    """What ``linalg.eigh`` returns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def _eigh(name: str, A: Any, UPLO: str) -> Eigen:
    A = square(name, A)
    if UPLO not in ("L", "U", "l", "u"):
        raise ArgumentError(name, 'UPLO must be "L" or "U"', f"got {UPLO!r}")
    w, v = np.linalg.eigh(_on_host(name, A), UPLO=cast("Any", UPLO.upper()))
    values, vectors = _back(w, A), _back(v, A)
    if not A.requires_grad:
        return Eigen(values, vectors)
    turn = matmul(turned(vectors), matmul((A + turned(A)) * 0.5, vectors))  # the gradient is symmetric as A is
    apart = _columns(values) - unsqueeze(values, -1)
    same = eye(A.shape[-1], dtype=bool_, device=A.backend)
    slope = matmul(vectors, where(same, 0.0, turn / where(same, 1.0, apart)))
    linked = with_gradient(vectors, slope, "eigenvectors", A)
    return Eigen(with_gradient(values, _on_diagonal(turn), "eigenvalues", linked, A), linked)


@public(top=False, space="linalg")
def linalg_eigh(A: Tensor, UPLO: str = "L") -> Eigen:
    """(eigenvalues, eigenvectors) of symmetric matrices, in ascending order; computed on the host.

    One triangle is read, the one that ``UPLO`` says. The sign of a vector is not determined, and where eigenvalues are
    equal the gradients of the vectors are not finite.

    Shapes: (..., n, n) gives (..., n) and (..., n, n), the vectors as columns.
    Errors: ShapeError unless the matrices are square; CaptureError inside te.compile.
    """
    return _eigh("linalg.eigh", A, UPLO)


@public(top=False, space="linalg")
def linalg_eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, in ascending order; computed on the host.

    Shapes: (..., n, n) gives (..., n).
    Errors: as ``linalg.eigh``.
    """
    return _eigh("linalg.eigvalsh", A, UPLO).eigenvalues


# Singular values


class SVD(NamedTuple):
    """What ``linalg.svd`` returns."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class OldSVD(NamedTuple):
    """What ``svd`` returns."""

    U: Tensor
    S: Tensor
    V: Tensor


def _svd(name: str, A: Any, full_matrices: bool) -> SVD:
    A = matrices(name, A)
    values = _on_host(name, A)
    if 0 in A.shape[-2:]:
        rows, columns = A.shape[-2:]
        lead = A.shape[:-2]
        u, v = (np.broadcast_to(np.eye(n, n if full_matrices else 0), (*lead, n, n if full_matrices else 0))
                for n in (rows, columns))  # fmt: skip
        U, S, Vh = (_back(part, A) for part in (u, np.zeros((*lead, 0)), np.swapaxes(v, -1, -2)))
    else:
        U, S, Vh = (_back(part, A) for part in np.linalg.svd(values, full_matrices=full_matrices))
    if not A.requires_grad:
        return SVD(U, S, Vh)
    k = min(A.shape[-2:])
    left, right = narrow(U, -1, 0, k), turned(narrow(Vh, -2, 0, k))
    inner = matmul(turned(left), matmul(A, right))
    same = eye(k, dtype=bool_, device=A.backend)
    apart = where(same, 1.0, _columns(S * S) - unsqueeze(S * S, -1))
    columns, rows = _columns(S), unsqueeze(S, -1)

    def turn(of: Tensor) -> Tensor:
        return where(same, 0.0, of / apart)

    outer_u = matmul(A, right) - matmul(left, inner)
    outer_v = matmul(turned(A), left) - matmul(right, turned(inner))
    dU = matmul(left, turn(inner * columns + rows * turned(inner))) + outer_u / columns
    dV = matmul(right, turn(rows * inner + turned(inner) * columns)) + outer_v / columns
    dU, dV = (pad(part, (0, whole - k)) for part, whole in ((dU, U.shape[-1]), (dV, Vh.shape[-2])))
    U, Vh = with_gradient(U, dU, "left_vectors", A), with_gradient(Vh, turned(dV), "right_vectors", A)
    return SVD(U, with_gradient(S, _on_diagonal(inner), "singular_values", U, Vh, A), Vh)


@public(top=False, space="linalg")
def linalg_svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """(U, S, Vh) with ``A = U @ diag(S) @ Vh``: S in descending order, U and Vh orthonormal; computed on the host.

    The signs of U and Vh are not determined, and where singular values are equal or 0 their gradients are not finite.
    Of ``full_matrices`` only the columns of U and rows of Vh that belong to a singular value have one.

    Shapes: (..., m, n) gives (..., m, m), (..., k) and (..., n, n), k = min(m, n); without full_matrices (..., m, k),
            (..., k) and (..., k, n).
    Errors: CaptureError inside te.compile; ArgumentError of a driver, as there is one.
    """
    if driver is not None:
        raise ArgumentError("linalg.svd", "driver must be None", f"got {driver!r}")
    return _svd("linalg.svd", A, full_matrices)


@public(method=True)
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> OldSVD:
    """(U, S, V) with ``input = U @ diag(S) @ V.mT``, as ``linalg.svd``; without ``compute_uv``, U and V are zeros.

    Shapes: as ``linalg.svd`` with full_matrices=not some, V transposed.
    Errors: as ``linalg.svd``.
    """
    U, S, Vh = _svd("svd", input, not some)
    if not compute_uv:
        rows, columns = input.shape[-2:]
        lead = input.shape[:-2]
        zeros = functions["zeros"]
        return OldSVD(
            zeros(*lead, rows, rows, dtype=S.dtype, device=S.backend), S,
            zeros(*lead, columns, columns, dtype=S.dtype, device=S.backend),
        )  # fmt: skip
    return OldSVD(U, S, turned(Vh))


@public(top=False, space="linalg")
def linalg_svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values of matrices, in descending order; computed on the host.

    Shapes: (..., m, n) gives (..., min(m, n)).
    Errors: as ``linalg.svd``.
    """
    if driver is not None:
        raise ArgumentError("linalg.svdvals", "driver must be None", f"got {driver!r}")
    return _svd("linalg.svdvals", A, False).S


# Inverses of what has none, and ranks


def _cuts(A: Tensor, atol: Any, rtol: Any, largest: Array) -> Array:
    """Below which singular values count as 0."""

    def number(value: Any) -> Any:
        return value.detach().numpy() if isinstance(value, Tensor) else value

    atol, rtol = number(atol), number(rtol)
    if rtol is None:
        default = max(A.shape[-2:]) * float(np.finfo(A.dtype.numpy).eps)
        rtol = np.where(np.asarray(atol) > 0, 0.0, default) if atol is not None else default
    return np.asarray(np.maximum(0.0 if atol is None else atol, np.asarray(rtol) * largest))


def _pinv(name: str, A: Any, atol: Any, rtol: Any, hermitian: bool) -> Tensor:
    A = square(name, A) if hermitian else matrices(name, A)
    values = _on_host(name, A)
    if not A.numel():
        result = functions["zeros"](*A.shape[:-2], A.shape[-1], A.shape[-2], dtype=A.dtype, device=A.backend)
        return result + turned(A) * 0 if A.requires_grad else result  # type: ignore[no-any-return]
    if hermitian:
        w, u = np.linalg.eigh(values)
        s, vh = np.abs(w), np.swapaxes(u * np.sign(w)[..., None, :], -1, -2)
    else:
        u, s, vh = np.linalg.svd(values, full_matrices=False)
    cut = _cuts(A, atol, rtol, s.max(-1))
    with np.errstate(divide="ignore"):
        inverse = np.where(s > cut[..., None], 1 / s, 0)
    P = _back(np.swapaxes(vh, -1, -2) @ (inverse[..., None] * np.swapaxes(u, -1, -2)), A)
    if not A.requires_grad:
        return P
    plain, rows, columns = A.detach(), A.shape[-2], A.shape[-1]
    left = eye(columns, dtype=A.dtype, device=A.backend) - matmul(P, plain)
    right = eye(rows, dtype=A.dtype, device=A.backend) - matmul(plain, P)
    slope = matmul(matmul(P, turned(P)), matmul(turned(A), right)) - matmul(matmul(P, A), P)
    tangent = slope + matmul(matmul(left, turned(A)), matmul(turned(P), P))
    return with_gradient(P, tangent, "pseudoinverse", A)


@public(top=False, space="linalg")
def linalg_pinv(
    A: Tensor,
    rcond: float | Tensor | None = None,
    hermitian: bool = False,
    *,
    atol: float | Tensor | None = None,
    rtol: float | Tensor | None = None,
) -> Tensor:
    """The pseudoinverse of matrices, by their singular values; those below a limit count as 0. Computed on the host.

    ``rcond`` is an older name of ``rtol``.

    Shapes: (..., m, n) gives (..., n, m).
    Errors: CaptureError inside te.compile; ArgumentError for rcond and another limit.
    """
    if rcond is not None:
        if atol is not None or rtol is not None:
            raise ArgumentError("linalg.pinv", "rcond alone, or atol and rtol", f"got {rcond}, {atol} and {rtol}")
        rtol = rcond
    return _pinv("linalg.pinv", A, atol, rtol, hermitian)


@public(method=True)
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """As ``linalg.pinv`` with ``rtol=rcond``.

    Shapes: (..., m, n) gives (..., n, m).
    Errors: as ``linalg.pinv``.
    """
    return _pinv("pinverse", input, None, rcond, False)


@public(top=False, space="linalg")
def linalg_matrix_rank(
    A: Tensor,
    tol: Any = None,
    *,
    atol: float | Tensor | None = None,
    rtol: float | Tensor | None = None,
    hermitian: bool = False,
) -> Tensor:
    """How many singular values of each matrix are above a limit, int64; computed on the host.

    Shapes: (..., m, n) gives (...).
    Errors: CaptureError inside te.compile.
    """
    name = "linalg.matrix_rank"
    A = square(name, A) if hermitian else matrices(name, A)
    values = _on_host(name, A)
    if tol is not None:
        atol, rtol = tol, 0.0
    if not A.numel():
        return cast("Tensor", functions["zeros"](A.shape[:-2], dtype=int64, device=A.backend))
    s = np.abs(np.linalg.eigvalsh(values)) if hermitian else np.linalg.svd(values, compute_uv=False)
    cut = _cuts(A, atol, rtol, s.max(-1))
    return tensor((s > cut[..., None]).sum(-1), dtype=int64, device=A.backend)


class LeastSquares(NamedTuple):
    """What ``linalg.lstsq`` returns."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


@public(top=False, space="linalg")
def linalg_lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> LeastSquares:
    """(solution, residuals, rank, singular_values) of the X for which ``A @ X - B`` is least; computed on the host.

    The solution is the shortest one, by the pseudoinverse, whatever ``driver`` says; that says which results there are:
    "gels" gives no rank, "gelsd" and "gelss" give singular values, "gelsy", the default, no residuals. These are there
    if every A has full rank and more rows than columns.

    Shapes: A (..., m, n), B (..., m, k), or (..., m) if it has one dim less; returns (..., n, k).
    Errors: ShapeError unless the shapes fit; ArgumentError for another driver; CaptureError inside te.compile.
    """
    name = "linalg.lstsq"
    A = matrices(name, A)
    if not isinstance(B, Tensor) or B.dtype is not A.dtype:
        found = B.dtype.name if isinstance(B, Tensor) else type(B).__name__
        raise DtypeError(name, f"B of {A.dtype.name}, as A", f"got {found}")
    driver = "gelsy" if driver is None else driver
    if driver not in DRIVERS:
        raise ArgumentError(name, f"driver must be one of {', '.join(DRIVERS)}", f"got {driver!r}")
    is_vector = A.ndim - 1 == B.ndim and A.shape[:-1] == B.shape
    right = unsqueeze(B, -1) if is_vector else B
    if right.ndim < 2 or right.shape[-2] != A.shape[-2]:
        raise ShapeError(name, f"B of {A.shape[-2]} rows", f"got {B.shape} for A {A.shape}")
    lead = shapes.broadcast(name, A.shape[:-2], right.shape[:-2])
    A, right = expand(A, (*lead, *A.shape[-2:])), expand(right, (*lead, *right.shape[-2:]))
    solution = matmul(_pinv(name, A, None, rcond, False), right)
    ranks = linalg_matrix_rank(A.detach(), rtol=rcond)
    none = functions["zeros"](0, dtype=A.dtype, device=A.backend)
    residuals = none
    if driver != "gelsy" and A.shape[-2] > A.shape[-1] and bool((ranks.numpy() == A.shape[-1]).all()):
        rest = matmul(A, solution) - right
        residuals = total(rest * rest, -2)
    values = linalg_svdvals(A.detach()) if driver in ("gelsd", "gelss") else none
    if driver == "gels":
        ranks = functions["zeros"](0, dtype=int64, device=A.backend)
    return LeastSquares(reshape(solution, solution.shape[:-1]) if is_vector else solution, residuals, ranks, values)


# Norms of matrices and what needs them


def _matrix_norm(name: str, A: Tensor, ord: Any, dim: Any, keepdim: bool, dtype: Any) -> Tensor:
    if not isinstance(A, Tensor) or A.ndim < 2:
        found = A.shape if isinstance(A, Tensor) else type(A).__name__
        raise ShapeError(name, "a tensor of at least 2 dims", f"got {found}")
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise ArgumentError(name, "two dims", f"got dim={dim}")
    if dtype is not None:
        A = A.to(dtype)
    if not A.is_floating_point():
        raise DtypeError(name, "a floating-point tensor", f"got {A.dtype.name}", "Convert it with .float().")
    rows, columns = (shapes.normalize_axis(name, axis, A.ndim) for axis in dim)
    if rows == columns:
        raise ArgumentError(name, "two different dims", f"got dim={tuple(dim)}")
    if ord == "fro":
        return cast("Tensor", functions["vector_norm"](A, 2, (rows, columns), keepdim))
    if ord in (1, -1, math.inf, -math.inf):
        summed, chosen = (rows, columns) if abs(ord) == 1 else (columns, rows)
        sums = total(functions["abs"](A), summed, True)
        result = functions["amax" if ord > 0 else "amin"](sums, chosen, True)
    elif ord in (2, -2, "nuc"):
        moved = functions["movedim"](A, (rows, columns), (-2, -1))
        S = _svd(name, moved, False).S
        if ord == "nuc":
            reduced = total(S, -1)
        else:
            reduced = functions["amax" if ord > 0 else "amin"](S, -1)
        result = reshape(reduced, shapes.reduced(A.shape, (rows, columns), keepdim=True))
    else:
        raise ArgumentError(name, 'ord must be "fro", "nuc", inf, -inf, 1, -1, 2 or -2', f"got {ord!r}")
    return reshape(result, shapes.reduced(A.shape, (rows, columns), keepdim))


@public(top=False, space="linalg")
def matrix_norm(
    A: Tensor, ord: float | str = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The norm of matrices: "fro" of the elements, 1 and inf of columns and rows, 2 and "nuc" of singular values.

    A negative one is the least in place of the largest. Singular values are computed on the host.

    Shapes: (..., m, n) gives (...); with ``keepdim`` the lengths of dim are 1.
    Errors: ArgumentError for another ord; for 2, -2 and "nuc" CaptureError inside te.compile.
    """
    return _matrix_norm("linalg.matrix_norm", A, ord, dim, keepdim, dtype)


@public(top=False, space="linalg")
def linalg_norm(
    A: Tensor, ord: float | str | None = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The vector norm over one dim, or without ``ord`` over any; the matrix norm over two.

    Shapes: any; returns it without the dims ``dim`` (with ``keepdim`` their length is 1), () without ``dim``.
    Errors: as ``linalg.vector_norm`` and ``linalg.matrix_norm``.
    """
    if not isinstance(A, Tensor):
        raise DtypeError("linalg.norm", "a tensor", f"got {type(A).__name__}", "Convert it with te.tensor.")
    dims = None if dim is None else tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if ord is None:
        return cast("Tensor", functions["vector_norm"](A, 2, dims, keepdim, dtype=dtype))
    if dims is None and A.ndim > 2:
        raise ShapeError("linalg.norm", "at most 2 dims with ord and without dim", f"got {A.shape}")
    if isinstance(ord, str) or (A.ndim if dims is None else len(dims)) == 2:
        both = (-2, -1) if dims is None else dims
        return _matrix_norm("linalg.norm", A, ord, both, keepdim, dtype)
    return cast("Tensor", functions["vector_norm"](A, ord, dims, keepdim, dtype=dtype))


@public(top=False, space="linalg")
def linalg_cond(A: Tensor, p: float | str | None = None) -> Tensor:
    """The condition number of matrices: their norm times that of their inverse, or by singular values without ``p``.

    Shapes: (..., m, n) gives (...); for other p than 2 and -2 matrices must be square.
    Errors: as ``linalg.matrix_norm`` and ``linalg.inv``.
    """
    name = "linalg.cond"
    A = matrices(name, A)
    if p in (None, 2, -2):
        S = _svd(name, A, False).S
        first, last = (narrow(S, -1, place, 1) for place in (0, S.shape[-1] - 1))
        ratio = last / first if p == -2 else first / last
        return reshape(ratio, ratio.shape[:-1])
    A = square(name, A)
    inverse, info = functions["linalg_inv_ex"](A)
    size = _matrix_norm(name, A, p, (-2, -1), False, None) * _matrix_norm(name, inverse, p, (-2, -1), False, None)
    return where(info == 0, size, math.inf)
