"""The exponential of matrices."""

from __future__ import annotations

import math

from tinyedge.autograd.recorder import recorder
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import float64
from tinyedge.ops.creation import eye
from tinyedge.ops.matmul import matmul
from tinyedge.ops.movement import expand, unsqueeze
from tinyedge.ops.reduce import amax
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.selection import where
from tinyedge.ops.solve import square
from tinyedge.tensor import Tensor

TERMS = 16
"""Of the series: below a norm of 1 the rest is less than 1e-13, below 0.5 less than 1e-18."""

SQUARINGS = 24
"""The most in te.compile, where nobody looks at the norm. In larger matrices no digit of float32 would be left."""


def _series(A: Tensor, unit: Tensor) -> Tensor:
    """The first TERMS terms of the exponential's series, in powers of ``A ** 4``."""
    second = matmul(A, A)
    powers = [unit, A, second, matmul(second, A)]
    fourth = matmul(second, second)
    result = None
    for start in reversed(range(0, TERMS, 4)):
        part = unit * (1 / math.factorial(start))
        for k in range(1, 4):
            part = part + powers[k] * (1 / math.factorial(start + k))
        result = part if result is None else part + matmul(result, fourth)
    assert isinstance(result, Tensor)
    return result


def _matrix_exp(name: str, A: Tensor) -> Tensor:
    A = square(name, A)
    if not A.numel():
        return A * 1
    limit = 0.5 if A.dtype is float64 else 1.0
    norms = amax(total(functions["abs"](A.detach()), -2), -1)
    halvings = functions["ceil"](functions["log2"](functions["clamp"](norms / limit, min=1.0)))
    if recorder() is None:
        most = float(functions["where"](functions["isfinite"](halvings), halvings, 0.0).max().item())
        steps = int(most)
    else:
        steps = SQUARINGS
    halvings = unsqueeze(unsqueeze(halvings, -1), -1)
    unit = expand(eye(A.shape[-1], dtype=A.dtype, device=A.backend), A.shape)
    y = _series(A * functions["exp2"](-halvings), unit)
    for step in range(steps):
        y = where(halvings > step, matmul(y, y), y)
    return where(halvings > steps, float("nan"), y) if recorder() is not None else y


@public(top=False, space="linalg")
def linalg_matrix_exp(A: Tensor) -> Tensor:
    """The sum of ``A ** k / k!`` over all k, of each matrix.

    It is summed for the matrix halved until its norm is small, and squared as often; in te.compile 24 times at most,
    above which the result is NaN.

    Shapes: (..., n, n) gives the same.
    Errors: ShapeError unless the matrices are square.
    """
    return _matrix_exp("linalg.matrix_exp", A)


@public(method=True)
def matrix_exp(input: Tensor) -> Tensor:
    """As ``linalg.matrix_exp``.

    Shapes: (..., n, n) gives the same.
    Errors: as ``linalg.matrix_exp``.
    """
    return _matrix_exp("matrix_exp", input)
