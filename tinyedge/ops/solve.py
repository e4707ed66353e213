"""Linear systems on the device: solve, inv, determinants, Cholesky's triangle, systems of triangles.

Matrices are small here: a work-group takes one. The values are computed by ops without a gradient of their own; the
gradient is that of an expression which is linear in the inputs, composed of matrix products with the inverse.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.recorder import recorder
from tinyedge.autograd.registry import public
from tinyedge.dtypes import int64
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import ErrorSample, Op, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.creation import eye, tril, triu
from tinyedge.ops.matmul import matmul
from tinyedge.ops.movement import expand, reshape, transpose, unsqueeze
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.selection import where
from tinyedge.ops.with_gradient import with_gradient
from tinyedge.tensor import Tensor, call, call_all


class Elimination(Op):
    """Base of these ops: ``a`` is (batch, n, n), ``b`` (batch, n, columns)."""

    domain = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
    kernel: str = ""

    @classmethod
    def _kernel(
        cls, step: Step, device: Device, buffers: tuple[str, ...], scratch: tuple[Scratch, ...], **constants: Any
    ) -> list[KernelSpec]:
        a = step.slots["a"]
        sizes = {"count": a.shape[0], "n": a.shape[1]}
        if "b" in step.slots:
            sizes["columns"] = step.slots["b"].shape[2]
        if cls.kernel == "triangular":
            sizes["count"] *= sizes["columns"]
            launch, lanes = grid(sizes["count"], device.group()), 1
        else:
            lanes = 1 if device.is_cpu else device.group()
            launch = (a.shape[0] * lanes,), (lanes,)
        return [
            KernelSpec(
                cls.kernel, "elimination.cl.jinja", buffers, *launch, sizes, scratch=scratch, grouped=lanes > 1,
                constants={"real": a.dtype.ctype, "lanes": lanes, **constants},
            )
        ]  # fmt: skip

    @classmethod
    def copy_of(cls, step: Step, name: str, of: str) -> Scratch:
        slot = step.slots[of]
        return Scratch(name, slot.dtype.ctype, slot.numel)

    sample: Any = classmethod(vars(Op)["sample"].__func__)  # drawn matrices may be nearly singular


def _zero_pivot(a: Any) -> int:
    """The number of the first pivot that is 0, from 1 on, or 0."""
    a = a.copy()
    for p in range(len(a)):
        best = p + int(np.argmax(np.abs(a[p:, p])))
        a[[p, best]] = a[[best, p]]
        if a[p, p] == 0:
            return p + 1
        a[p + 1 :] -= np.outer(a[p + 1 :, p] / a[p, p], a[p])
    return 0


class Solve(Elimination):
    signature = "(l,n,n),(l,n,k)->(l,n,k),(l)"
    outputs = ("x", "info")
    kernel = "solve"
    errors = (
        ErrorSample(lambda te: te.linalg.solve(te.zeros(2, 3), te.zeros(2, 1)), ShapeError, "square"),
        ErrorSample(lambda te: te.linalg.inv(te.zeros(2, 2)), ArgumentError, "pivot"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        _, b = inputs
        assert b is not None
        return b, Spec(int64, b.shape[:1])

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        scratch = (cls.copy_of(step, "work", "a"), cls.copy_of(step, "right", "b"))
        return cls._kernel(step, device, ("a", "b", "x", "info", "work", "right"), scratch)

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        x, info = np.full_like(b, np.nan), np.zeros(len(a), np.int64)
        for k in range(len(a)):
            info[k] = _zero_pivot(a[k])
            if not info[k]:
                x[k] = np.linalg.solve(a[k], b[k])
        return x, info


class Determinant(Elimination):
    signature = "(l,n,n)->(l),(l),(l)"
    outputs = ("det", "sign", "logabs")
    kernel = "determinant"

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (a,) = inputs
        assert a is not None
        return (Spec(a.dtype, a.shape[:1]),) * 3

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, ("a", "det", "sign", "logabs", "work"), (cls.copy_of(step, "work", "a"),))

    @staticmethod
    def forward(a: Any) -> Any:
        return np.linalg.det(a), *np.linalg.slogdet(a)


class Cholesky(Elimination):
    signature = "(l,n,n)->(l,n,n),(l)"
    outputs = ("y", "info")
    kernel = "cholesky"

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (a,) = inputs
        assert a is not None
        return a, Spec(int64, a.shape[:1])

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, ("a", "y", "info", "work"), (cls.copy_of(step, "work", "a"),))

    @staticmethod
    def forward(a: Any) -> Any:
        y, info = np.zeros_like(a), np.zeros(len(a), np.int64)
        for k, matrix in enumerate(a):
            for p in range(len(matrix)):
                square = matrix[p, p] - y[k, p, :p] @ y[k, p, :p]
                if not square > 0 and not info[k]:
                    info[k] = p + 1
                y[k, p, p] = np.nan if info[k] else np.sqrt(square)
                y[k, p + 1 :, p] = (matrix[p + 1 :, p] - y[k, p + 1 :, :p] @ y[k, p, :p]) / y[k, p, p]
        return y, info


class Triangular(Elimination):
    """The attributes say whether ``a`` is the ``upper`` triangle, and whether its diagonal counts as 1, ``unit``."""

    signature = "(l,n,n),(l,n,k)->(l,n,k)"
    outputs = ("x",)
    kernel = "triangular"

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        _, b = inputs
        assert b is not None
        return (b,)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, ("a", "b", "x", "work"), (cls.copy_of(step, "work", "b"),), **step.attrs)

    @staticmethod
    def forward(a: Any, b: Any, *, upper: bool, unit: bool) -> Any:
        n = a.shape[1]
        x = np.zeros_like(b)
        for row in reversed(range(n)) if upper else range(n):
            rest = b[:, row] - np.einsum("lk,lkc->lc", a[:, row], x)  # x is 0 where it is not known yet
            x[:, row] = rest if unit else rest / a[:, row, row, None]
        return x


# Arguments


def square(name: str, A: Any) -> Tensor:
    """``A``, which must be square matrices of a floating-point type."""
    A = matrices(name, A)
    if A.shape[-1] != A.shape[-2]:
        raise ShapeError(name, "square matrices", f"got {A.shape}")
    return A  # type: ignore[no-any-return]


def matrices(name: str, A: Any) -> Tensor:
    """``A``, which must be matrices of a floating-point type."""
    if not isinstance(A, Tensor):
        raise DtypeError(name, "a tensor", f"got {type(A).__name__}", "Convert it with te.tensor.")
    if A.ndim < 2:
        raise ShapeError(name, "matrices in the last two dims", f"got {A.shape}")
    if not A.is_floating_point():
        raise DtypeError(name, "a floating-point tensor", f"got {A.dtype.name}", "Convert it with .float().")
    return A


def turned(A: Tensor) -> Tensor:
    """The transpose of each matrix."""
    return transpose(A, -2, -1)


def _batch(A: Tensor) -> Tensor:
    return reshape(A.detach(), (prod(A.shape[:-2]), *A.shape[-2:]))


def _identity(A: Tensor) -> Tensor:
    n = A.shape[-1]
    return expand(eye(n, dtype=A.dtype, device=A.backend), (*A.shape[:-2], n, n))


def _solved(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """(solution, info) without a gradient; both have the same batch."""
    x, info = call_all(Solve, _batch(A), _batch(B))
    return reshape(x, B.shape), reshape(info, B.shape[:-2])


def inverse_of(A: Tensor) -> Tensor:
    """The inverse of each matrix; NaN if it has none."""
    return _solved(A, _identity(A))[0]


def require(name: str, info: Tensor, what: str) -> None:
    """Refuse matrices that have no result: eagerly alone, since a replay does not look at values."""
    if recorder() is not None or not info.numel():
        return
    numbers = info.numpy().reshape(-1)
    if numbers.any():
        first = int(np.flatnonzero(numbers)[0])
        found = f"pivot {numbers[first]} of matrix {first} is not"
        raise ArgumentError(name, what, found, "Add a little to the diagonal, or use pinv or lstsq.")


# Inverses and systems


class Result(NamedTuple):
    """What ``linalg.solve_ex`` returns."""

    result: Tensor
    info: Tensor


class Inverse(NamedTuple):
    """What ``linalg.inv_ex`` returns."""

    inverse: Tensor
    info: Tensor


def _inv(name: str, A: Any, checked: bool) -> Inverse:
    A = square(name, A)
    value, info = _solved(A, _identity(A))
    if checked:
        require(name, info, "matrices whose pivots are not 0")
    if A.requires_grad:
        value = with_gradient(value, -matmul(matmul(value, A), value), "inverse", A)
    return Inverse(value, info)


@public(top=False, space="linalg")
def linalg_inv(A: Tensor) -> Tensor:
    """The inverse of each matrix.

    Shapes: (..., n, n) gives the same.
    Errors: ArgumentError if a matrix is singular, for which te.compile does not look: there the result is NaN.
    """
    return _inv("linalg.inv", A, True).inverse


@public(method=True)
def inverse(input: Tensor) -> Tensor:
    """The inverse of each matrix; ``linalg.inv``.

    Shapes: (..., n, n) gives the same.
    Errors: as ``linalg.inv``.
    """
    return _inv("inverse", input, True).inverse


@public(top=False, space="linalg")
def linalg_inv_ex(A: Tensor, *, check_errors: bool = False) -> Inverse:
    """(inverse, info) of each matrix: info is 0, or the number of the pivot that is 0, and the inverse is NaN.

    Shapes: (..., n, n) gives the same and (...).
    Errors: with ``check_errors`` as ``linalg.inv``.
    """
    found = _inv("linalg.inv_ex", A, check_errors)
    return Inverse(found.inverse, found.info.int())


def _solve(name: str, A: Any, B: Any, left: bool, checked: bool) -> Result:
    A = square(name, A)
    if not isinstance(B, Tensor) or B.dtype is not A.dtype:
        found = B.dtype.name if isinstance(B, Tensor) else type(B).__name__
        raise DtypeError(name, f"B of {A.dtype.name}, as A", f"got {found}")
    is_vector = B.ndim == 1 or (B.ndim == A.ndim - 1 and B.shape == A.shape[:-1])
    if is_vector:
        if not left:
            raise ArgumentError(name, "matrices B with left=False", f"got {B.shape}")
        B = unsqueeze(B, -1)
    if not left:
        A, B = turned(A), turned(B)
    if B.shape[-2] != A.shape[-1]:
        raise ShapeError(name, f"B of {A.shape[-1]} {'rows' if left else 'columns'}", f"got {B.shape} for A {A.shape}")
    lead = shapes.broadcast(name, A.shape[:-2], B.shape[:-2])
    A, B = expand(A, (*lead, *A.shape[-2:])), expand(B, (*lead, *B.shape[-2:]))
    x, info = _solved(A, B)
    if checked:
        require(name, info, "matrices whose pivots are not 0")
    if A.requires_grad or B.requires_grad:
        x = with_gradient(x, matmul(inverse_of(A), B - matmul(A, x)), "solve", A, B)
    if not left:
        x = turned(x)
    return Result(reshape(x, x.shape[:-1]) if is_vector else x, info)


@public(top=False, space="linalg")
def linalg_solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The X with ``A @ X = B``, or with ``left=False`` ``X @ A = B``.

    Shapes: A (..., n, n), B (..., n, k), (n,) or A's shape without its last dim; the batches broadcast; returns B's.
    Errors: ShapeError unless the shapes fit; ArgumentError if a matrix is singular, for which te.compile does not look:
            there the result is NaN.
    """
    return _solve("linalg.solve", A, B, left, True).result


@public(top=False, space="linalg")
def linalg_solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Result:
    """(result, info) of ``linalg.solve``: info is 0, or the number of the pivot that is 0, and the result is NaN.

    Shapes: as ``linalg.solve``, and the batch.
    Errors: as ``linalg.solve``; of singular matrices only with ``check_errors``.
    """
    found = _solve("linalg.solve_ex", A, B, left, check_errors)
    return Result(found.result, found.info.int())


# Determinants


class SignAndLogarithm(NamedTuple):
    """What ``slogdet`` returns."""

    sign: Tensor
    logabsdet: Tensor


def _determinant(name: str, A: Any) -> tuple[Tensor, Tensor, Tensor]:
    A = square(name, A)
    det, sign, logabs = (reshape(part, A.shape[:-2]) for part in call_all(Determinant, _batch(A)))
    if not A.shape[-1]:
        det = det * 0 + 1  # of nothing
    if A.requires_grad:
        slope = turned(inverse_of(A))
        of_log = total(A * slope, (-2, -1))
        det = with_gradient(det, of_log * det, "determinant", A)
        logabs = with_gradient(logabs, of_log, "log_determinant", A)
    return det, sign, logabs


@public(method=True, space="linalg")
def det(A: Tensor) -> Tensor:
    """The determinant of each matrix. Of a singular one it is 0, and its gradient NaN.

    Shapes: (..., n, n) gives (...).
    Errors: ShapeError unless the matrices are square.
    """
    return _determinant("det", A)[0]


@public(method=True, space="linalg")
def slogdet(A: Tensor) -> SignAndLogarithm:
    """(sign, logabsdet): the sign of the determinant of each matrix, and the logarithm of its size.

    Shapes: (..., n, n) gives two of (...).
    Errors: ShapeError unless the matrices are square.
    """
    return SignAndLogarithm(*_determinant("slogdet", A)[1:])


@public(method=True)
def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant of each matrix: NaN where it is negative, -inf where it is 0.

    Shapes: (..., n, n) gives (...).
    Errors: ShapeError unless the matrices are square.
    """
    _, sign, logabs = _determinant("logdet", input)
    return where(sign < 0, float("nan"), logabs)


# Cholesky


class Factor(NamedTuple):
    """What ``linalg.cholesky_ex`` returns."""

    L: Tensor
    info: Tensor


def _cholesky(name: str, A: Any, upper: bool, checked: bool) -> Factor:
    A = square(name, A)
    value, info = call_all(Cholesky, _batch(turned(A) if upper else A))
    value, info = reshape(value, A.shape), reshape(info, A.shape[:-2])
    if checked:
        require(name, info, "positive-definite matrices, whose pivots are above 0")
    if A.requires_grad:
        inverse = _triangle(value, _identity(A), False, False)
        middle = matmul(matmul(inverse, (A + turned(A)) * 0.5), turned(inverse))
        half = tril(middle) - middle * (_identity(A) * 0.5)
        value = with_gradient(value, matmul(value, half), "cholesky", A)
    return Factor(turned(value) if upper else value, info)


@public(top=False, space="linalg")
def linalg_cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower triangle L of each symmetric matrix with ``A = L @ L.mT``, or with ``upper`` its transpose.

    Of A one triangle is read.

    Shapes: (..., n, n) gives the same.
    Errors: ArgumentError if a matrix is not positive-definite, for which te.compile does not look: there the result is
            NaN.
    """
    return _cholesky("linalg.cholesky", A, upper, True).L


@public(method=True)
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """As ``linalg.cholesky``.

    Shapes: (..., n, n) gives the same.
    Errors: as ``linalg.cholesky``.
    """
    return _cholesky("cholesky", input, upper, True).L


@public(top=False, space="linalg")
def linalg_cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Factor:
    """(L, info) of ``linalg.cholesky``: info is 0, or the number of the pivot that is not positive.

    Shapes: (..., n, n) gives the same and (...).
    Errors: with ``check_errors`` as ``linalg.cholesky``.
    """
    found = _cholesky("linalg.cholesky_ex", A, upper, check_errors)
    return Factor(found.L, found.info.int())


def _triangle(A: Tensor, B: Tensor, upper: bool, unit: bool) -> Tensor:
    """Without a gradient; both have the same batch."""
    return reshape(call(Triangular, _batch(A), _batch(B), upper=upper, unit=unit), B.shape)


def _solve_triangular(name: str, A: Any, B: Any, upper: bool, left: bool, unit: bool) -> Tensor:
    A, B = square(name, A), matrices(name, B)
    if A.dtype is not B.dtype:
        raise DtypeError(name, "matrices of one dtype", f"got {A.dtype.name} and {B.dtype.name}")
    if B.shape[-2 if left else -1] != A.shape[-1]:
        raise ShapeError(name, f"B of {A.shape[-1]} {'rows' if left else 'columns'}", f"got {B.shape} for A {A.shape}")
    lead = shapes.broadcast(name, A.shape[:-2], B.shape[:-2])
    A, B = expand(A, (*lead, *A.shape[-2:])), expand(B, (*lead, *B.shape[-2:]))
    if not left:
        return turned(_solve_triangular(name, turned(A), turned(B), not upper, True, unit))
    x = _triangle(A, B, upper, unit)
    if A.requires_grad or B.requires_grad:
        inverse = _triangle(A, _identity(A), upper, unit)
        part = triu(A, int(unit)) if upper else tril(A, -int(unit))
        whole = part + _identity(A) if unit else part
        x = with_gradient(x, matmul(inverse, B - matmul(part, x)), "solve", whole, B)
    return x


@public(top=False, space="linalg")
def linalg_solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """The X with ``A @ X = B``, or with ``left=False`` ``X @ A = B``, of triangles: the other triangle is not read.

    With ``unitriangular`` the diagonal counts as 1.

    Shapes: A (..., n, n), B (..., n, k); the batches broadcast; returns B's.
    Errors: ShapeError unless the shapes fit. A 0 on the diagonal gives NaN or infinity.
    """
    return _solve_triangular("linalg.solve_triangular", A, B, upper, left, unitriangular)


class Solution(NamedTuple):
    """What ``triangular_solve`` returns."""

    solution: Tensor
    cloned_coefficient: Tensor


@public(method=True)
def triangular_solve(
    input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Solution:
    """(solution, A): as ``linalg.solve_triangular``, with the arguments the other way round.

    Shapes: A (..., n, n), input (..., n, k); the batches broadcast; returns input's, and A's.
    Errors: as ``linalg.solve_triangular``.
    """
    a = square("triangular_solve", A)
    if transpose:
        return Solution(_solve_triangular("triangular_solve", turned(a), input, not upper, True, unitriangular), A)
    return Solution(_solve_triangular("triangular_solve", a, input, upper, True, unitriangular), A)


@public(method=True)
def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """The X with ``L @ L.mT @ X = input``; with ``upper``, L is the transpose of that triangle.

    Shapes: L (..., n, n), input (..., n, k); the batches broadcast; returns input's.
    Errors: ShapeError unless the shapes fit.
    """
    return _cholesky_solve("cholesky_solve", input, square("cholesky_solve", L), upper)


def _cholesky_solve(name: str, B: Tensor, L: Tensor, upper: bool) -> Tensor:
    lower = turned(L) if upper else L

    def solved(right: Tensor) -> Tensor:
        middle = _solve_triangular(name, lower.detach(), right.detach(), False, True, False)
        return _solve_triangular(name, turned(lower.detach()), middle, True, True, False)

    x = solved(B)
    if not (B.requires_grad or L.requires_grad):
        return x
    # As PyTorch, the gradient of L is that of the whole matrix, not of its triangle.
    tangent = matmul(solved(_identity(L)), B - matmul(lower, matmul(turned(lower), x)))
    return with_gradient(x, tangent, "solve", matmul(lower, turned(lower)), B)


@public(method=True)
def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The inverse of ``L @ L.mT``, where ``input`` is L, or with ``upper`` its transpose.

    Shapes: (..., n, n) gives the same.
    Errors: ShapeError unless the matrices are square.
    """
    L = square("cholesky_inverse", input)
    return _cholesky_solve("cholesky_inverse", _identity(L), L, upper)
