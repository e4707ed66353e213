"""Products of several matrices: powers, chains, products of batches; systems of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import bool_
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.contraction import addmm
from tinyedge.ops.creation import eye
from tinyedge.ops.matmul import matmul
from tinyedge.ops.movement import expand, reshape, unsqueeze
from tinyedge.ops.promotion import require_tensors
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.solve import linalg_inv, linalg_solve, square
from tinyedge.tensor import Number, Tensor


def _power(name: str, A: Any, n: int) -> Tensor:
    A = square(name, A)
    if not isinstance(n, int):
        raise DtypeError(name, "an int as n", f"got {type(n).__name__}")
    if n == 0:
        identity = eye(A.shape[-1], dtype=A.dtype, device=A.backend)
        return expand(identity, A.shape).clone() + A * 0 if A.requires_grad else expand(identity, A.shape).clone()
    if n < 0:
        A, n = linalg_inv(A), -n
    result: Tensor | None = None
    while n:
        if n & 1:
            result = A if result is None else matmul(result, A)
        n >>= 1
        if n:
            A = matmul(A, A)
    assert result is not None
    return result.clone() if result is A else result


@public(method=True, space="linalg")
def matrix_power(input: Tensor, n: int) -> Tensor:
    """Square matrices to the integer power ``n``; a negative one is that of the inverse.

    Shapes: (..., m, m) gives the same.
    Errors: ShapeError unless the matrices are square; for n < 0 as ``linalg.inv``.
    """
    return _power("matrix_power", input, n)


def _chain(items: Sequence[Tensor]) -> Tensor:
    """The product of matrices in the order that takes the least multiplications."""
    sizes = [items[0].shape[0], *(item.shape[1] for item in items)]
    count = len(items)
    cost = [[0] * count for _ in range(count)]
    split = [[0] * count for _ in range(count)]
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            cost[i][j], split[i][j] = min(
                (cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            )

    def product(i: int, j: int) -> Tensor:
        return items[i] if i == j else matmul(product(i, split[i][j]), product(split[i][j] + 1, j))

    return product(0, count - 1)


def _of_one_dtype(name: str, items: Sequence[Any]) -> None:
    require_tensors(name, *items)
    for item in items[1:]:
        if item.dtype is not items[0].dtype:
            raise DtypeError(name, "tensors of one dtype", f"got {items[0].dtype.name} and {item.dtype.name}")


@public(top=False, space="linalg")
def linalg_multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of matrices in the order that takes the least work; the first and the last may be vectors.

    Shapes: (n,) or (m, n), ..., (k,) or (k, l); returns what their product has.
    Errors: ShapeError unless they fit; ArgumentError for less than two.
    """
    name = "linalg.multi_dot"
    items = list(tensors)
    if len(items) < 2:
        raise ArgumentError(name, "at least two tensors", f"got {len(items)}")
    _of_one_dtype(name, items)
    first, last = items[0], items[-1]
    if not 1 <= first.ndim <= 2 or not 1 <= last.ndim <= 2 or any(item.ndim != 2 for item in items[1:-1]):
        raise ShapeError(name, "matrices, the first and last may be vectors", f"got {[i.shape for i in items]}")
    left, right = first.ndim == 1, last.ndim == 1
    items[0] = reshape(first, (1, first.numel())) if left else first
    items[-1] = reshape(last, (last.numel(), 1)) if right else last
    for a, b in pairwise(items):
        if a.shape[1] != b.shape[0]:
            raise ShapeError(name, "matrices that fit each other", f"got {a.shape} and {b.shape}")
    product = _chain(items)
    wanted = (*(() if left else product.shape[:1]), *(() if right else product.shape[1:]))
    return product if wanted == product.shape else reshape(product, wanted)


@public
def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of matrices in the order that takes the least work.

    Shapes: (m, n), (n, k), ... give (m, ...).
    Errors: ShapeError unless they fit; ArgumentError for none.
    """
    items = list(matrices[0]) if len(matrices) == 1 and isinstance(matrices[0], (tuple, list)) else list(matrices)
    if not items:
        raise ArgumentError("chain_matmul", "at least one matrix", "got none")
    _of_one_dtype("chain_matmul", items)
    for item in items:
        if item.ndim != 2:
            raise ShapeError("chain_matmul", "matrices", f"one is {item.shape}")
    return items[0] if len(items) == 1 else linalg_multi_dot(items)


@public(method=True, inplace=True)
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """``beta * input + alpha *`` the sum of the products of a batch.

    Shapes: batch1 (b, m, k), batch2 (b, k, n), input broadcasts to (m, n); returns (m, n).
    Errors: ShapeError unless the shapes are such; DtypeError unless all are of one floating-point type.
    """
    _of_one_dtype("addbmm", [input, batch1, batch2])
    if batch1.ndim != 3 or batch2.ndim != 3 or batch1.shape[::2] != (batch2.shape[0], batch2.shape[1]):
        raise ShapeError("addbmm", "batches (b, m, k) and (b, k, n)", f"got {batch1.shape} and {batch2.shape}")
    b, m, k = batch1.shape
    rows = reshape(functions["permute"](batch1, (1, 0, 2)), (m, b * k))  # one product, whose sums run over the batch
    return addmm(input, rows, reshape(batch2, (b * k, batch2.shape[2])), beta=beta, alpha=alpha)


@public(method=True, inplace=True)
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``.

    Shapes: vec1 (n,), vec2 (m,), input broadcasts to (n, m); returns (n, m).
    Errors: ShapeError unless the shapes are such.
    """
    require_tensors("addr", input, vec1, vec2)
    if vec1.ndim != 1 or vec2.ndim != 1:
        raise ShapeError("addr", "two vectors", f"got {vec1.shape} and {vec2.shape}")
    shape = (vec1.shape[0], vec2.shape[0])
    if shapes.broadcast("addr", input.shape, shape) != shape:
        raise ShapeError("addr", f"an input that broadcasts to {shape}", f"got {input.shape}")
    product = unsqueeze(vec1, 1) * vec2
    product = product if alpha == 1 else product * alpha
    whole = product if beta == 0 else product + (input if beta == 1 else input * beta)
    return whole.to(bool_) if all(x.dtype is bool_ for x in (input, vec1, vec2)) else whole


@public(top=False, space="linalg")
def linalg_vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The scalar products of vectors along ``dim``.

    Shapes: x and y broadcast; returns what they broadcast to without ``dim``.
    Errors: DtypeError unless both are of one dtype; AxisError if there is no such dim.
    """
    _of_one_dtype("linalg.vecdot", [x, y])
    return total(x * y, dim).to(x.dtype)


@public(top=False, space="linalg")
def linalg_matmul(input: Tensor, other: Tensor) -> Tensor:
    """As ``te.matmul``.

    Shapes: as ``te.matmul``.
    Errors: as ``te.matmul``.
    """
    return matmul(input, other)


@public(top=False, space="linalg")
def linalg_tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of ``A`` as a map of tensors: its first ``ind`` dims are the result's, the others the argument's.

    Shapes: (*a, *b) with as many elements in a as in b; returns (*b, *a).
    Errors: ArgumentError unless ind > 0; ShapeError unless the sizes fit; else as ``linalg.inv``.
    """
    if ind <= 0:
        raise ArgumentError("linalg.tensorinv", "ind above 0", f"got {ind}")
    require_tensors("linalg.tensorinv", A)
    front, back = A.shape[:ind], A.shape[ind:]
    if prod(front) != prod(back):
        raise ShapeError("linalg.tensorinv", "as many elements in front as behind", f"got {front} and {back}")
    return reshape(linalg_inv(reshape(A, (prod(front), prod(back)))), (*back, *front))


@public(top=False, space="linalg")
def linalg_tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """The X with ``tensordot(A, X, X.ndim) = B``; ``dims`` of A are moved to the end before.

    Shapes: A (*B's, *X's) with as many elements in both; returns X's.
    Errors: ShapeError unless the sizes fit; else as ``linalg.solve``.
    """
    require_tensors("linalg.tensorsolve", A, B)
    if dims is not None:
        chosen = [shapes.normalize_axis("linalg.tensorsolve", axis, A.ndim) for axis in dims]
        A = functions["permute"](A, [axis for axis in range(A.ndim) if axis not in chosen] + chosen)
    back = A.shape[B.ndim :]
    if prod(A.shape[: B.ndim]) != prod(back) or prod(back) != B.numel():
        raise ShapeError("linalg.tensorsolve", "as many unknowns as elements of B", f"got {A.shape} and {B.shape}")
    return reshape(linalg_solve(reshape(A, (B.numel(), prod(back))), reshape(B, (B.numel(),))), back)
