"""Matrices made of diagonals and blocks, indices of triangles, grids of points."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from math import prod
from typing import Any, cast

import numpy as np

from tinyedge import dtypes, shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.backends import Backend
from tinyedge.dtypes import bool_, int64
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.movement import cat, expand, pad, permute, reshape, stack, unsqueeze
from tinyedge.ops.promotion import require_tensors
from tinyedge.ops.rearrange import diagonal, roll
from tinyedge.ops.selection import where
from tinyedge.tensor import Number, Tensor, tensor

Target = str | Backend | None


@public(method=True)
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices of zeros with the last dim of ``input`` on the diagonal, ``offset`` to the right of the main one.

    Shapes: (..., n) gives (..., m, m) with m = n + abs(offset), the two at dim1 and dim2.
    Errors: ShapeError of a 0-d tensor; AxisError if there is no such dim; ArgumentError if both dims are the same.
    """
    require_tensors("diag_embed", input)
    if not input.ndim:
        raise ShapeError("diag_embed", "a tensor of at least one dim", "got a 0-d tensor")
    rank = input.ndim + 1
    a, b = (shapes.normalize_axis("diag_embed", dim, rank) for dim in (dim1, dim2))
    if a == b:
        raise ArgumentError("diag_embed", "two different dims", f"got {dim1} and {dim2}")
    size = input.shape[-1] + abs(offset)
    mask = tensor(np.eye(size, k=offset, dtype=bool), device=input.backend)
    # Its own row in the matrix, or with a negative offset its own column: what is not on the diagonal does not matter.
    rows = unsqueeze(pad(input, (0, abs(offset)) if offset > 0 else (abs(offset), 0) if offset else (0, 0)), -1)
    wide = where(mask, rows, False if input.dtype is bool_ else 0)
    if (a, b) == (rank - 2, rank - 1):
        return wide
    order = iter(range(rank - 2))
    return permute(wide, [rank - 2 if k == a else rank - 1 if k == b else next(order) for k in range(rank)])


@public(method=True)
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrix with a vector on its diagonal, or the diagonal of a matrix.

    Shapes: (n,) gives (m, m) with m = n + abs(diagonal); (n, m) gives (length of the diagonal,).
    Errors: ShapeError for other dims.
    """
    require_tensors("diag", input)
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise ShapeError("diag", "a vector or a matrix", f"got {input.shape}")
    return cast("Tensor", functions["diagonal"](input, diagonal)).clone()


@public(method=True)
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix with the elements of ``input``, in C order, on its diagonal.

    Shapes: any of n elements; returns (m, m) with m = n + abs(offset).
    """
    require_tensors("diagflat", input)
    return diag_embed(reshape(input, (input.numel(),)), offset)


@public(top=False, space="linalg")
def linalg_diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """``te.diagonal`` of the last two dims, unless told otherwise. A view.

    Shapes: (..., n, m) gives (..., length of the diagonal).
    Errors: as ``te.diagonal``.
    """
    return diagonal(A, offset, dim1, dim2)


@public
def block_diag(*tensors: Tensor) -> Tensor:
    """The matrix with ``tensors`` as blocks along its diagonal, zeros elsewhere.

    Shapes: (n, m), (m,) as (1, m) and () as (1, 1); returns (sum of n, sum of m).
    Errors: ShapeError for more than 2 dims.
    """
    if not tensors:
        return cast("Tensor", functions["zeros"](1, 0))
    require_tensors("block_diag", *tensors)
    for item in tensors:
        if item.ndim > 2:
            raise ShapeError("block_diag", "tensors of at most 2 dims", f"one is {item.shape}")
    blocks = [reshape(item, (*(1,) * (2 - item.ndim), *item.shape)) for item in tensors]
    width = sum(block.shape[1] for block in blocks)
    rows, start = [], 0
    for block in blocks:
        rows.append(pad(block, (start, width - start - block.shape[1])))
        start += block.shape[1]
    return cat(rows, 0)


@public(method=True)
def kron(input: Tensor, other: Tensor) -> Tensor:
    """Kronecker's product: each element of ``input`` times the whole of ``other``.

    Shapes: (..., n) and (..., m) give (..., n * m); of the one with less dims, those that lack are 1.
    """
    require_tensors("kron", input, other)
    rank = max(input.ndim, other.ndim)
    left, right = ((*(1,) * (rank - item.ndim), *item.shape) for item in (input, other))
    a = reshape(input, tuple(size for n in left for size in (n, 1)))
    b = reshape(other, tuple(size for n in right for size in (1, n)))
    return reshape(a * b, tuple(n * m for n, m in zip(left, right, strict=True)))


@public(method=True)
def adjoint(input: Tensor) -> Tensor:
    """The transpose of each matrix, which for real numbers is the adjoint. A view.

    Shapes: (..., n, m) gives (..., m, n).
    Errors: ShapeError for less than 2 dims.
    """
    if input.ndim < 2:
        raise ShapeError("adjoint", "a tensor of at least 2 dims", f"got {input.shape}")
    return cast("Tensor", functions["transpose"](input, -2, -1))


def _cross(name: str, input: Tensor, other: Tensor, dim: int | None) -> Tensor:
    require_tensors(name, input, other)
    if input.ndim != other.ndim and dim is not None:
        raise ShapeError(name, "as many dims of both", f"got {input.shape} and {other.shape}")
    shape = shapes.broadcast(name, input.shape, other.shape)
    if dim is None:
        if 3 not in shape:
            raise ShapeError(name, "a dim of length 3", f"got {input.shape} and {other.shape}")
        dim = shape.index(3)
    axis = shapes.normalize_axis(name, dim, len(shape))
    for item in (input, other):
        if item.ndim != len(shape) or item.shape[axis] != 3:
            raise ShapeError(name, f"a length of 3 in dim {dim}", f"got {input.shape} and {other.shape}")
    a, b = ((roll(item, -1, axis), roll(item, -2, axis)) for item in (input, other))
    return a[0] * b[1] - a[1] * b[0]


@public(method=True)
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along ``dim``, or along the first dim of length 3.

    Shapes: (..., 3, ...) and the like, which broadcast; returns what they broadcast to.
    Errors: ShapeError unless the length is 3; AxisError if there is no such dim.
    """
    return _cross("cross", input, other, dim)


@public(top=False, space="linalg")
def linalg_cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector product along ``dim``.

    Shapes: (..., 3, ...) and the like, which broadcast; returns what they broadcast to.
    Errors: ShapeError unless the length is 3; AxisError if there is no such dim.
    """
    return _cross("linalg.cross", input, other, dim)


# Indices


def _triangle(call_name: str, found: Any, row: int, col: int, dtype: Any, device: Target) -> Tensor:
    if row < 0 or col < 0:
        raise ShapeError(call_name, "sizes of at least 0", f"got {row} and {col}")
    wanted = int64 if dtype is None else dtypes.resolve(dtype, call_name)
    return tensor(np.stack(found()), dtype=wanted, device=device)


@public
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Target = None) -> Tensor:
    """The indices of the lower triangle of a (row, col) matrix, in C order: rows above columns.

    Shapes: returns (2, count).
    Errors: ShapeError of negative sizes.
    """
    return _triangle("tril_indices", lambda: np.tril_indices(row, offset, col), row, col, dtype, device)


@public
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Target = None) -> Tensor:
    """The indices of the upper triangle of a (row, col) matrix, in C order: rows above columns.

    Shapes: returns (2, count).
    Errors: ShapeError of negative sizes.
    """
    return _triangle("triu_indices", lambda: np.triu_indices(row, offset, col), row, col, dtype, device)


@public
def unravel_index(indices: Tensor, shape: int | Sequence[int]) -> tuple[Tensor, ...]:
    """The coordinates of flat ``indices`` in a tensor of ``shape``.

    Shapes: any; returns one of the same for each dim of ``shape``.
    Errors: DtypeError unless indices are integers; ShapeError of negative sizes.
    """
    require_tensors("unravel_index", indices)
    if indices.dtype.limits is None:
        raise DtypeError("unravel_index", "integers", f"got {indices.dtype.name}", "Convert it with .long().")
    sizes = (shape,) if isinstance(shape, int) else tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise ShapeError("unravel_index", "sizes of at least 0", f"got {sizes}")
    strides = shapes.contiguous_strides(sizes)
    indices = indices.to(int64)
    return tuple(indices // stride % size for size, stride in zip(sizes, strides, strict=True))


# Grids


@public
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of every point of a grid: for each of ``tensors``, its own element at each point. Views.

    Shapes: (n,), (m,), ... give as many (n, m, ...); with indexing="xy" (m, n, ...).
    Errors: ShapeError for more than one dim; DtypeError unless all are of one dtype; ArgumentError for another
            indexing than "ij" and "xy".
    """
    items = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else list(tensors)
    require_tensors("meshgrid", *items)
    if not items:
        raise ArgumentError("meshgrid", "at least one tensor", "got none")
    if indexing is None:
        warnings.warn('meshgrid: pass indexing="ij", the default, or "xy"', stacklevel=2)
        indexing = "ij"
    if indexing not in ("ij", "xy"):
        raise ArgumentError("meshgrid", 'indexing must be "ij" or "xy"', f"got {indexing!r}")
    for item in items:
        if item.ndim > 1:
            raise ShapeError("meshgrid", "tensors of at most one dim", f"one is {item.shape}")
        if item.dtype is not items[0].dtype:
            raise DtypeError(
                "meshgrid",
                "tensors of one dtype",
                f"got {items[0].dtype.name} and {item.dtype.name}",
                "Convert one of them with .to(dtype).",
            )
    turned = indexing == "xy" and len(items) > 1
    order = [1, 0, *range(2, len(items))] if turned else list(range(len(items)))
    sizes = [items[k].numel() for k in order]
    found = []
    for k, item in enumerate(items):
        at = order.index(k)
        column = reshape(item, tuple(item.numel() if axis == at else 1 for axis in range(len(items))))
        found.append(expand(column, sizes))
    return tuple(found)


@public
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """Every choice of an element of each vector, as rows; of one vector, itself.

    Shapes: (n,), (m,), ... give (n * m * ..., number of vectors).
    Errors: ShapeError unless all have one dim.
    """
    require_tensors("cartesian_prod", *tensors)
    if not tensors or any(item.ndim != 1 for item in tensors):
        raise ShapeError("cartesian_prod", "vectors", f"got {[item.shape for item in tensors]}")
    if len(tensors) == 1:
        return tensors[0]
    grids = meshgrid(*tensors, indexing="ij")
    return stack([reshape(grid, (prod(grid.shape),)) for grid in grids], 1)


@public
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Every choice of ``r`` elements of a vector, in order, as rows.

    Shapes: (n,) gives (count, r).
    Errors: ShapeError unless there is one dim; ArgumentError if r < 0.
    """
    require_tensors("combinations", input)
    if input.ndim != 1:
        raise ShapeError("combinations", "a vector", f"got {input.shape}")
    if r < 0:
        raise ArgumentError("combinations", "r of at least 0", f"got {r}")
    if r == 0:
        return cast("Tensor", functions["zeros"](0, dtype=input.dtype, device=input.backend))
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(input.shape[0]), r)), np.int64).reshape(-1, r)
    places = tensor(rows.reshape(-1), dtype=int64, device=input.backend)
    return reshape(functions["index_select"](input, 0, places), rows.shape)


@public(top=False, inplace=True)
def fill_diagonal(input: Tensor, fill_value: Number, wrap: bool = False) -> Tensor:
    """``fill_value`` on the main diagonal; with ``wrap`` it starts again one below the bottom of each square.

    Shapes: (n, m), or more dims of one length; returns the same.
    Errors: ShapeError for other dims.
    """
    if input.ndim < 2 or (input.ndim > 2 and len(set(input.shape)) > 1):
        raise ShapeError("fill_diagonal_", "a matrix, or dims of one length", f"got {input.shape}")
    mask = np.zeros(input.shape, bool)
    if mask.size:
        np.fill_diagonal(mask, True, wrap)
    return cast("Tensor", functions["masked_fill"](input, tensor(mask, device=input.backend), fill_value))
