"""Matrix products: matmul and its kin, and linear."""

from __future__ import annotations

from math import prod
from random import Random
from typing import Any

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import bool_, float32
from tinyedge.errors import DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import FORWARD, ErrorSample, Op, Sample, Step, sum_of
from tinyedge.ir.values import Slot, Spec
from tinyedge.kernels.gemm import Matrix, gemm_kernels
from tinyedge.kernels.lowering import reduce_kernels
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call


def _matrix(name: str, slot: Slot) -> Matrix:
    """The last two axes as a matrix, those before them as its batch."""
    *batch, row, col = slot.strides
    return Matrix(name, row, col, tuple(batch), quantised=slot.dtype.blocks is not None)


class Matmul(Op):
    """Both operands have at least two axes and equal batch axes; broadcasting is done by views before."""

    signature = "(m,k),(k,n)->(m,n)"
    domain = {"a": (-2.0, 2.0), "b": (-2.0, 2.0)}
    differentiable = ("a", "b")
    saves = ("a", "b")
    quantised = ("b",)
    atol = 1e-5  # sums over k in different orders

    @classmethod
    def walks(cls, strides: Shape) -> bool:
        return 1 in strides[-2:]

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        a, b = inputs
        assert a is not None
        assert b is not None
        return (Spec(a.dtype, (*a.shape[:-1], b.shape[-1])),)

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        return tuple(name for name, other in (("a", "b"), ("b", "a")) if other in needed)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._product(step, device, "a", "b", "y")

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        kernels = []
        if step.wants("da"):
            kernels += cls._product(step, device, "dy", "b", "da", transpose="b")
        if step.wants("db"):
            kernels += cls._product(step, device, "a", "dy", "db", transpose="a")
        return kernels

    @classmethod
    def _product(
        cls, step: Step, device: Device, a: str, b: str, c: str, transpose: str | None = None
    ) -> list[KernelSpec]:
        left, right = _matrix(a, step.slots[a]), _matrix(b, step.slots[b])
        out = step.slots[c]
        k = step.slots[a].shape[-1]
        if transpose == "a":
            left, k = left.T, step.slots[a].shape[-2]
        if transpose == "b":
            right = right.T
        *batch, m, n = out.shape
        return gemm_kernels(device, left, right, _matrix(c, out), m, n, k, ctype=out.dtype.ctype, batch=tuple(batch))

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return a @ b

    @staticmethod
    def backward(dy: Any, a: Any, b: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        da = dy @ np.swapaxes(b, -1, -2) if needs[0] else None
        db = np.swapaxes(a, -1, -2) @ dy if needs[1] else None
        return da, db

    @classmethod
    def sample(cls, random: Random) -> Sample:
        m, k, n = (random.choice((1, 2, 5, 8, 19, 37)) for _ in range(3))
        batch = tuple(random.choice((1, 2, 3)) for _ in range(random.choice((0, 0, 1, 2))))
        return Sample(((*batch, m, k), (*batch, k, n)))

    @classmethod
    def flops(cls, step: Step) -> int:
        if step.direction == FORWARD:
            return 2 * int(step.slots["y"].numel) * int(step.slots["a"].shape[-1])
        # Each gradient is a product with dy, along the axis of dy that it does not have.
        inner = {"da": step.slots["dy"].shape[-1], "db": step.slots["dy"].shape[-2]}
        return sum(2 * int(step.slots[name].numel) * int(inner[name]) for name in step.writes)


def check_quantised(name: str, input: Tensor, weight: Tensor, dims: int = 2) -> None:
    """Errors: DtypeError unless ``input`` is of a type with which kernels multiply what they unpack of ``weight``;
    ShapeError unless that has so many dims.
    """
    if not input.is_floating_point() or input.dtype.computes is not float32 or input.dtype.blocks is not None:
        raise DtypeError(
            name, f"float32, float16 or bfloat16 beside a weight of {weight.dtype.name}", f"got {input.dtype.name}",
            "Convert it with .float(); dequantize() gives the weight in float32.",
        )  # fmt: skip
    if weight.ndim != dims:
        raise ShapeError(name, f"a quantised weight of {dims} dims", f"got {weight.shape}", "Call dequantize() on it.")


@public(method=True, operators=("__matmul__",))
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product; the axes before the last two broadcast.

    Shapes: (..., m, k) and (..., k, n) give (..., m, n); a 1-d operand counts as a row (left) or a column (right) and
            leaves its axis out.
            A quantised matrix may be the second operand: the kernels unpack it where they load it.
            Integers are added up in 64 bits, then cut off to their type.
    Errors: ShapeError if the two k differ; DtypeError unless both are of one dtype other than bool.
    """
    for x in (input, other):
        if not isinstance(x, Tensor):
            raise DtypeError("matmul", "two tensors", f"got {type(x).__name__}", "Convert it with te.tensor.")
    quantised = other.dtype.blocks is not None
    if input.dtype.blocks is not None:
        raise DtypeError(
            "matmul", "a quantised tensor as the second operand alone", f"the first is of {input.dtype.name}",
            "Multiply from the other side, (b.T @ a.T).T, or call dequantize() on it.",
        )  # fmt: skip
    if quantised:
        check_quantised("matmul", input, other)
    if input.dtype is bool_ or (input.dtype is not other.dtype and not quantised):
        raise DtypeError(
            "matmul", "two tensors of one dtype other than bool", f"got {input.dtype.name} and {other.dtype.name}",
            "Convert them with .float().",
        )  # fmt: skip
    if input.ndim == 0 or other.ndim == 0:
        raise ShapeError("matmul", "operands of at least one dim", f"got {input.shape} and {other.shape}", "Use *.")
    a = functions["unsqueeze"](input, 0) if input.ndim == 1 else input
    b = functions["unsqueeze"](other, 1) if other.ndim == 1 else other
    if a.shape[-1] != b.shape[-2]:
        fits = f" Try a @ b.{'T' if b.ndim == 2 else 'mT'}." if a.shape[-1] == b.shape[-1] else ""
        raise ShapeError(
            "matmul(a, b)", "signature (m,k),(k,n)->(m,n) needs equal k", f"a is {input.shape} and b is {other.shape}",
            fits.strip(),
        )  # fmt: skip
    if not input.is_floating_point():
        y = _of_integers(a, b)
    elif b.ndim == 2 and a.ndim > 2 and a.is_contiguous():
        # One product with the rows of every batch below each other: the weight's gradient is then one kernel.
        rows = functions["reshape"](a, (prod(a.shape[:-1]), a.shape[-1]))
        y = functions["reshape"](call(Matmul, rows, b), (*a.shape[:-1], b.shape[-1]))
    else:
        if a.shape[:-2] != b.shape[:-2]:
            batch = shapes.broadcast("matmul", a.shape[:-2], b.shape[:-2])
            a, b = (x if x.shape[:-2] == batch else functions["expand"](x, (*batch, *x.shape[-2:])) for x in (a, b))
        y = call(Matmul, a, b)
    if input.ndim == 1:
        y = functions["squeeze"](y, -2)
    if other.ndim == 1:
        y = functions["squeeze"](y, -1)
    return y


def _of_integers(a: Tensor, b: Tensor) -> Tensor:
    """The product, of a part of the rows at a time: the terms of all at once take too much memory."""
    rows = max(_TERMS // max(prod(b.shape) * prod(a.shape[:-2]), 1), 1)
    columns = functions["unsqueeze"](b, -3)
    parts = [
        functions["sum"](functions["unsqueeze"](a[..., k : k + rows, :], -1) * columns, -2).to(a.dtype)
        for k in range(0, max(a.shape[-2], 1), rows)
    ]
    found: Tensor = parts[0] if len(parts) == 1 else functions["cat"](parts, -2)
    return found


_TERMS = 1 << 22
"""Products of integers that are in memory at a time: 32 MiB of int64."""


def _checked(name: str, input: Tensor, other: Tensor, ranks: tuple[int, int]) -> Tensor:
    if (input.ndim, other.ndim) != ranks:
        raise ShapeError(name, f"operands of {ranks[0]} and {ranks[1]} dims", f"got {input.shape} and {other.shape}")
    if name == "bmm" and input.shape[0] != other.shape[0]:
        raise ShapeError(name, "equal batches", f"got {input.shape} and {other.shape}")
    return matmul(input, other)


@public(method=True)
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices.

    Shapes: (m, k) and (k, n) give (m, n).
    Errors: ShapeError unless both have 2 dims, and the two k are equal.
    """
    return _checked("mm", input, mat2, (2, 2))


@public(method=True)
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices.

    Shapes: (b, m, k) and (b, k, n) give (b, m, n).
    Errors: ShapeError unless both have 3 dims, and the two b and the two k are equal.
    """
    return _checked("bmm", input, mat2, (3, 3))


@public(method=True)
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector.

    Shapes: (m, k) and (k,) give (m,).
    Errors: ShapeError unless the shapes are such.
    """
    return _checked("mv", input, vec, (2, 1))


@public(method=True)
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The scalar product of two vectors.

    Shapes: (k,) and (k,) give ().
    Errors: ShapeError unless the shapes are such.
    """
    return _checked("dot", input, tensor, (1, 1))


class Linear(Op):
    """``x`` has two axes; the public function folds the others into the first."""

    signature = "(m,k),(n,k),(n)?->(m,n)"
    domain = {"x": (-2.0, 2.0), "weight": (-2.0, 2.0), "bias": (-2.0, 2.0)}
    differentiable = ("x", "weight", "bias")
    saves = ("x", "weight")
    quantised = ("weight",)
    atol = 1e-5  # sums over k in different orders

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, weight, _ = inputs
        assert x is not None
        assert weight is not None
        return (Spec(x.dtype, (x.shape[0], weight.shape[0])),)

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        return tuple(name for name, other in (("x", "weight"), ("weight", "x")) if other in needed)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        (m, k), n = step.slots["x"].shape, step.slots["weight"].shape[0]
        bias = "bias" if step.slots["bias"] is not None else None
        weight = Matrix("weight", 1, k, quantised=step.slots["weight"].dtype.blocks is not None)
        return gemm_kernels(
            device, Matrix("x", k, 1), weight, Matrix("y", n, 1), m, n, k,
            ctype=step.slots["y"].dtype.ctype, bias=bias,
        )  # fmt: skip

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        m, n = step.slots["dy"].shape
        ctype = step.slots["dy"].dtype.ctype
        kernels = []
        if step.wants("dx"):
            k = step.slots["dx"].shape[1]
            weight = Matrix("weight", k, 1, quantised=step.slots["weight"].dtype.blocks is not None)
            kernels += gemm_kernels(device, Matrix("dy", n, 1), weight, Matrix("dx", k, 1), m, k, n, ctype=ctype)
        if step.wants("dweight"):
            k = step.slots["dweight"].shape[1]
            kernels += gemm_kernels(
                device, Matrix("dy", 1, n), Matrix("x", k, 1), Matrix("dweight", k, 1), n, k, m, ctype=ctype
            )
        if step.wants("dbias"):
            kernels += reduce_kernels(step, device, "sum", {"dbias": "dy"}, (m, n), (0,))
        return kernels

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any = None) -> Any:
        y = x @ weight.T
        return y if bias is None else y + bias

    @staticmethod
    def backward(dy: Any, x: Any, weight: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        return dy @ weight if needs[0] else None, dy.T @ x if needs[1] else None, sum_of(dy, (0,))

    @classmethod
    def sample(cls, random: Random) -> Sample:
        m, k, n = (random.choice((1, 2, 5, 8, 19, 37)) for _ in range(3))
        return Sample(((m, k), (n, k), random.choice((None, (n,)))))

    @classmethod
    def flops(cls, step: Step) -> int:
        if step.direction == FORWARD:
            return 2 * int(step.slots["y"].numel) * int(step.slots["x"].shape[-1])
        m, n = step.slots["dy"].shape
        each = {"dx": 2 * n, "dweight": 2 * m, "dbias": m}
        return sum(int(step.slots[name].numel) * each[name] for name in step.writes)


@public(functional=True)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``.

    ``weight`` may be quantised: the kernels unpack it where they load it, and it gets no gradient.

    Shapes: input (..., k), weight (n, k) or (k,), bias (n,) or none; returns (..., n).
    Errors: ShapeError if k or n differ.
    """
    if weight.ndim == 1:
        y = matmul(input, weight)
        return y if bias is None else y + bias
    rest: Shape = input.shape[:-1]
    if (
        weight.ndim != 2
        or input.ndim == 0
        or input.shape[-1] != weight.shape[1]
        or (bias is not None and bias.shape != (weight.shape[0],))
    ):
        raise ShapeError(
            "linear", "signature (...,k),(n,k),(n)->(...,n)",
            f"input is {input.shape}, weight {weight.shape}" + ("" if bias is None else f", bias {bias.shape}"),
        )  # fmt: skip
    rows = input if input.ndim == 2 else functions["reshape"](input, (prod(rest), input.shape[-1]))
    if weight.dtype.blocks is not None:
        check_quantised("linear", input, weight)
        kinds = {input.dtype} if bias is None else {input.dtype, bias.dtype}
    else:
        kinds = {x.dtype for x in (input, weight, bias) if x is not None}
    if len(kinds) > 1:
        raise DtypeError(
            "linear",
            "input, weight and bias of one dtype",
            f"got {', '.join(x.dtype.name for x in (input, weight, bias) if x is not None)}",
            "Convert one of them with .to(dtype).",
        )
    y = call(Linear, rows, weight, bias)
    return y if input.ndim == 2 else functions["reshape"](y, (*rest, weight.shape[0]))


Matmul.errors = (
    ErrorSample(lambda te: te.matmul(te.zeros(1, 784), te.zeros(128, 784)), ShapeError, "Try a @ b.T"),
    ErrorSample(
        lambda te: te.matmul(te.zeros(2, 3), te.tensor([[1], [2], [3]])), DtypeError, "two tensors of one dtype"
    ),
    ErrorSample(lambda te: te.matmul(te.tensor(1.0), te.zeros(3)), ShapeError, "at least one dim"),
)
Linear.errors = (
    ErrorSample(lambda te: te.linear(te.zeros(2, 3), te.zeros(4, 5)), ShapeError, "(...,k),(n,k),(n)->(...,n)"),
)
