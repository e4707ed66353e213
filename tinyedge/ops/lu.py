"""Triangular factors of matrices, with rows changing places: lu, and the systems that they solve.

The factors are computed on the device, a work-group a matrix. Their gradient is composed of systems of triangles.
"""

from __future__ import annotations

from math import prod
from random import Random
from typing import Any, NamedTuple

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import int32
from tinyedge.errors import DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.creation import arange, eye, tril, triu
from tinyedge.ops.indexing import take_along_dim
from tinyedge.ops.indices import check_range
from tinyedge.ops.matmul import matmul
from tinyedge.ops.movement import cat, expand, narrow, reshape, unsqueeze
from tinyedge.ops.solve import linalg_solve_triangular, matrices, require, square, turned
from tinyedge.ops.with_gradient import with_gradient
from tinyedge.tensor import Tensor, call, call_all

TEMPLATE = "lu.cl.jinja"


class LU(Op):
    """``y`` holds both factors; row k of their product is row ``order[k]`` of ``a``."""

    name = "lu"
    signature = "(l,m,n)->(l,m,n),(l,k),(l,m),(l)"
    outputs = ("y", "pivots", "order", "info")
    domain = {"a": (-4.0, 4.0)}
    errors = (ErrorSample(lambda te: te.linalg.lu(te.zeros(3)), ShapeError, "matrices in the last two dims"),)

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (a,) = inputs
        assert a is not None
        batch, rows, columns = a.shape
        return a, Spec(int32, (batch, min(rows, columns))), Spec(int32, (batch, rows)), Spec(int32, (batch,))

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        a = step.slots["a"]
        batch, rows, columns = a.shape
        lanes = 1 if device.is_cpu else device.group()
        return [
            KernelSpec(
                "lu", TEMPLATE, ("a", "y", "pivots", "order", "info", "work", "places"), (batch * lanes,), (lanes,),
                {"count": batch, "rows": rows, "columns": columns},
                constants={"real": a.dtype.ctype, "lanes": lanes, "pivot": step.attrs["pivot"]},
                scratch=(Scratch("work", a.dtype.ctype, a.numel), Scratch("places", "int", batch * rows)),
                grouped=lanes > 1,
            )
        ]  # fmt: skip

    @staticmethod
    def forward(a: Any, *, pivot: bool) -> Any:
        y = a.copy()
        batch, rows, columns = a.shape
        steps = min(rows, columns)
        pivots = np.zeros((batch, steps), np.int32)
        order = np.tile(np.arange(rows, dtype=np.int32), (batch, 1))
        info = np.zeros(batch, np.int32)
        for matrix in range(batch):
            for p in range(steps):
                best = p + (int(np.argmax(np.abs(y[matrix, p:, p]))) if pivot else 0)
                pivots[matrix, p] = best + 1
                for moved in (y, order):
                    moved[matrix, [p, best]] = moved[matrix, [best, p]]
                row = y[matrix, p]
                if row[p] == 0:
                    info[matrix] = info[matrix] or p + 1
                    continue
                below = y[matrix, p + 1 :]
                below[:, p] /= row[p]
                below[:, p + 1 :] -= np.outer(below[:, p], row[p + 1 :])
        return y, pivots, order, info

    sample: Any = classmethod(vars(Op)["sample"].__func__)  # another rounding may choose another pivot


class LUOrder(Op):
    """Where each of ``rows`` rows was, before those changed places that ``pivots`` name, from 0 on."""

    name = "lu_order"
    signature = "(l,k)->(l,m)"
    outputs = ("order",)
    operations = 0

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (pivots,) = inputs
        assert pivots is not None
        return (Spec(int32, (pivots.shape[0], attrs["rows"])),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        batch, steps = step.slots["pivots"].shape
        rows = step.attrs["rows"]
        return [
            KernelSpec(
                "lu_order", TEMPLATE, ("pivots", "order", "places"), *grid(batch, device.group()),
                {"count": batch, "rows": rows, "steps": steps}, scratch=(Scratch("places", "int", batch * rows),),
                reports=step.attrs["caller"],
            )
        ]  # fmt: skip

    @staticmethod
    def forward(pivots: Any, *, rows: int, caller: str) -> Any:
        check_range(caller, pivots, rows)
        order = np.tile(np.arange(rows, dtype=np.int32), (len(pivots), 1))
        for line, given in zip(order, pivots, strict=True):
            for k, other in enumerate(given):
                line[[k, other]] = line[[other, k]]
        return order

    @classmethod
    def sample(cls, random: Random) -> Sample:
        rows = random.choice((1, 2, 5))
        shape = (random.choice((0, 1, 3)), random.randint(0, rows))
        return Sample((shape,), {"rows": rows, "caller": "lu_solve"}, {"pivots": rows})


class Factors(NamedTuple):
    """What ``linalg.lu`` returns."""

    P: Tensor
    L: Tensor
    U: Tensor


class Packed(NamedTuple):
    """What ``linalg.lu_factor`` returns."""

    LU: Tensor
    pivots: Tensor


class PackedAndInfo(NamedTuple):
    """What ``linalg.lu_factor_ex`` returns."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class _Found(NamedTuple):
    packed: Tensor
    pivots: Tensor
    order: Tensor
    info: Tensor


def _identity(A: Tensor, n: int) -> Tensor:
    return eye(n, dtype=A.dtype, device=A.backend)


def _factors(name: str, A: Any, pivot: bool) -> _Found:
    A = matrices(name, A)
    rows, columns = A.shape[-2:]
    lead = A.shape[:-2]
    found = call_all(LU, reshape(A.detach(), (prod(lead), rows, columns)), pivot=bool(pivot))
    packed, pivots, order, info = (reshape(part, (*lead, *part.shape[1:])) for part in found)
    if A.requires_grad and A.numel():
        turned_rows = take_along_dim(A, unsqueeze(order, -1), -2)
        packed = with_gradient(
            packed,
            _tangent(packed, turned_rows),
            "lu" if rows == columns else "lu of a rectangular matrix",
            turned_rows,
        )
    elif A.requires_grad:
        packed = packed + A * 0
    return _Found(packed, pivots, order, info)


def _tangent(packed: Tensor, turned_rows: Tensor) -> Tensor:
    """The factors' change, linear in the matrix whose rows have changed places."""
    rows, columns = packed.shape[-2:]
    k = min(rows, columns)
    square_part = narrow(narrow(packed, -2, 0, k), -1, 0, k)
    L, U = tril(square_part, -1) + _identity(packed, k), triu(square_part)
    upper_rows = narrow(turned_rows, -2, 0, k)
    right = linalg_solve_triangular(L, upper_rows, upper=False, unitriangular=True)
    middle = linalg_solve_triangular(U, narrow(right, -1, 0, k), upper=True, left=False)
    low = tril(middle, -1)
    of_U = matmul(triu(middle), U)
    tangent = matmul(L, low) + of_U
    if columns > k:
        rest = narrow(packed, -1, k, columns - k)
        return cat([tangent, narrow(right, -1, k, columns - k) - matmul(low, rest)], -1)
    if rows > k:
        rest = narrow(turned_rows, -2, k, rows - k) - matmul(narrow(packed, -2, k, rows - k), of_U)
        return cat([tangent, linalg_solve_triangular(U, rest, upper=True, left=False)], -2)
    return tangent


def _unpacked(packed: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = packed.shape[-2:]
    k = min(rows, columns)
    low = tril(narrow(packed, -1, 0, k), -1)
    return low + eye(rows, k, dtype=packed.dtype, device=packed.backend), triu(narrow(packed, -2, 0, k))


def _permutation(order: Tensor, like: Tensor) -> Tensor:
    """The matrices that put each row where it was."""
    rows = arange(order.shape[-1], dtype=int32, device=order.backend)
    found: Tensor = (unsqueeze(rows, -1) == unsqueeze(order, -2)).to(like.dtype)
    return found


@public(top=False, space="linalg")
def linalg_lu(A: Tensor, *, pivot: bool = True) -> Factors:
    """(P, L, U) with ``A = P @ L @ U``: P changes the places of rows, L is a lower triangle with ones, U an upper one.

    Without ``pivot`` the rows stay, and P is empty.

    Shapes: (..., m, n) gives (..., m, m), (..., m, k) and (..., k, n), k = min(m, n).
    Errors: ShapeError unless there are matrices.
    """
    found = _factors("linalg.lu", A, pivot)
    empty = functions["zeros"](0, dtype=found.packed.dtype, device=found.packed.backend)
    return Factors(_permutation(found.order, found.packed) if pivot else empty, *_unpacked(found.packed))


@public(top=False, space="linalg")
def linalg_lu_factor(A: Tensor, *, pivot: bool = True) -> Packed:
    """(LU, pivots): both factors of ``linalg.lu`` in one, without the ones; and with which row, from 1 on, each row in
    turn has changed places.

    Shapes: (..., m, n) gives the same, and (..., min(m, n)) int32.
    Errors: as ``linalg.lu``.
    """
    return Packed(*_factors("linalg.lu_factor", A, pivot)[:2])


@public(top=False, space="linalg")
def linalg_lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> PackedAndInfo:
    """(LU, pivots, info) of ``linalg.lu_factor``: info is 0, or the number of the first pivot that is 0.

    Shapes: (..., m, n) gives the same, (..., min(m, n)) and (...), these two int32.
    Errors: with ``check_errors`` ArgumentError if a pivot is 0, for which te.compile does not look.
    """
    found = _factors("linalg.lu_factor_ex", A, pivot)
    if check_errors:
        require("linalg.lu_factor_ex", found.info, "matrices whose pivots are not 0")
    return PackedAndInfo(found.packed, found.pivots, found.info)


@public(method=True)
def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> Packed | PackedAndInfo:
    """As ``linalg.lu_factor``; with ``get_infos`` as ``linalg.lu_factor_ex``.

    Shapes: as those.
    Errors: as ``linalg.lu``.
    """
    found = _factors("lu", A, pivot)
    return PackedAndInfo(found.packed, found.pivots, found.info) if get_infos else Packed(found.packed, found.pivots)


def _order_of(name: str, LU: Tensor, pivots: Any) -> Tensor:
    """Where each row was, of what ``linalg.lu_factor`` returned."""
    if not isinstance(pivots, Tensor) or pivots.dtype is not int32:
        found = pivots.dtype.name if isinstance(pivots, Tensor) else type(pivots).__name__
        raise DtypeError(name, "int32 pivots", f"got {found}", "Pass those of linalg.lu_factor.")
    rows, columns = LU.shape[-2:]
    if pivots.shape != (*LU.shape[:-2], min(rows, columns)):
        raise ShapeError(
            name, f"pivots of shape {(*LU.shape[:-2], min(rows, columns))}", f"got {pivots.shape} for LU {LU.shape}"
        )
    flat = reshape(pivots, (prod(pivots.shape[:-1]), pivots.shape[-1]))
    return reshape(call(LUOrder, flat - 1, rows=rows, caller=name), (*LU.shape[:-2], rows))


@public
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> Factors:
    """(P, L, U) of ``linalg.lu``, from what ``linalg.lu_factor`` returned; what is not asked for is empty.

    Shapes: LU (..., m, n), pivots (..., k), k = min(m, n); returns (..., m, m), (..., m, k) and (..., k, n).
    Errors: DtypeError unless the pivots are int32; ShapeError unless the shapes fit; IndexRangeError for a pivot
            outside [1, m].
    """
    LU_data = matrices("lu_unpack", LU_data)
    order = _order_of("lu_unpack", LU_data, LU_pivots)
    empty = functions["zeros"](0, dtype=LU_data.dtype, device=LU_data.backend)
    L, U = _unpacked(LU_data) if unpack_data else (empty, empty)
    return Factors(_permutation(order, LU_data) if unpack_pivots else empty, L, U)


def _lu_solve(name: str, LU: Any, pivots: Any, B: Any, left: bool, adjoint: bool) -> Tensor:
    LU, B = square(name, LU), matrices(name, B)
    if LU.dtype is not B.dtype:
        raise DtypeError(name, f"B of {LU.dtype.name}, as LU", f"got {B.dtype.name}")
    order = _order_of(name, LU, pivots)
    if not left:
        B = turned(B)
    n = LU.shape[-1]
    if B.shape[-2] != n:
        raise ShapeError(name, f"B of {n} {'rows' if left else 'columns'}", f"got {turned(B).shape} for LU {LU.shape}")
    lead = shapes.broadcast(name, LU.shape[:-2], B.shape[:-2])
    LU, B, order = expand(LU, (*lead, n, n)), expand(B, (*lead, *B.shape[-2:])), expand(order, (*lead, n))
    if adjoint == left:
        B = linalg_solve_triangular(turned(LU), B, upper=False)
        B = linalg_solve_triangular(turned(LU), B, upper=True, unitriangular=True)
        X = take_along_dim(B, unsqueeze(functions["argsort"](order, -1), -1), -2)
    else:
        B = take_along_dim(B, unsqueeze(order, -1), -2)
        X = linalg_solve_triangular(LU, B, upper=False, unitriangular=True)
        X = linalg_solve_triangular(LU, X, upper=True)
    return X if left else turned(X)


@public(top=False, space="linalg")
def linalg_lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """The X with ``A @ X = B``, of what ``linalg.lu_factor(A)`` returned; with ``left=False`` ``X @ A = B``; with
    ``adjoint`` A's transpose in A's place.

    Shapes: LU (..., n, n), pivots (..., n), B (..., n, k), or (..., k, n) with left=False; the batches broadcast;
            returns B's.
    Errors: DtypeError unless the pivots are int32; ShapeError unless the shapes fit; IndexRangeError for a pivot
            outside [1, n]. A 0 on the diagonal gives NaN or infinity.
    """
    return _lu_solve("linalg.lu_solve", LU, pivots, B, left, adjoint)


@public(method=True)
def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """As ``linalg.lu_solve``, with the arguments in another order.

    Shapes: b (..., n, k), LU (..., n, n), pivots (..., n); the batches broadcast; returns b's.
    Errors: as ``linalg.lu_solve``.
    """
    return _lu_solve("lu_solve", LU_data, LU_pivots, b, True, False)
