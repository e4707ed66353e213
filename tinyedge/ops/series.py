"""Of neighbours and of samples: differences, slopes, areas under points, covariances; powers of a vector; renorm."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, cast

from tinyedge import shapes
from tinyedge.autograd.recorder import recorder
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import int64
from tinyedge.errors import ArgumentError, AxisError, DtypeError, ShapeError
from tinyedge.ops.creation import arange
from tinyedge.ops.movement import cat, narrow, reshape, unshared, unsqueeze
from tinyedge.ops.promotion import require_tensors
from tinyedge.ops.reduce import mean
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.scan import cumsum
from tinyedge.ops.selection import clamp, where
from tinyedge.ops.statistics import vector_norm
from tinyedge.tensor import Number, Tensor


@public(method=True)
def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """The differences of neighbours along ``dim``, ``n`` times over; of bools, whether they differ.

    Shapes: (..., k, ...) gives (..., k - n, ...), where prepend and append add to k.
    Errors: AxisError if there is no such dim; ArgumentError if n < 0; ShapeError of a 0-d tensor.
    """
    require_tensors("diff", input)
    if not input.ndim:
        raise ShapeError("diff", "a tensor of at least one dim", "got a 0-d tensor")
    axis = shapes.normalize_axis("diff", dim, input.ndim)
    if n < 0:
        raise ArgumentError("diff", "n of at least 0", f"got {n}")
    parts = [part for part in (prepend, input, append) if part is not None]
    require_tensors("diff", *parts)
    if n and len(parts) > 1:
        if any(part.ndim != input.ndim for part in parts):
            raise ShapeError("diff", "parts of as many dims", f"got {[part.shape for part in parts]}")
        input = cat(parts, axis)
    for _ in range(builtins.min(n, input.shape[axis])):
        size = input.shape[axis]
        later, sooner = narrow(input, axis, 1, size - 1), narrow(input, axis, 0, size - 1)
        input = functions["logical_xor"](later, sooner) if input.dtype.name == "bool" else later - sooner
    return input if n else unshared(input, input)


def _areas(name: str, y: Tensor, x: Tensor | None, dx: Number, dim: int) -> tuple[Tensor, int]:
    """Of the trapezoid between each two neighbours."""
    require_tensors(name, y)
    if not y.ndim:
        raise AxisError(name, "a tensor of at least one dim", "got a 0-d tensor")
    axis = shapes.normalize_axis(name, dim, y.ndim)
    size = y.shape[axis]
    steps: Any = dx
    if isinstance(x, Tensor):
        if x.ndim == 1 and x.numel() != size and x.numel() != 1:
            raise ShapeError(name, f"{size} points", f"got {x.numel()}")
        if not x.ndim:
            raise ShapeError(name, "points of at least one dim", "got a 0-d tensor")
        along = 0 if x.ndim == 1 else axis - y.ndim + x.ndim
        if not 0 <= along < x.ndim or x.shape[along] not in (size, 1):
            raise ShapeError(name, f"points that fit {y.shape} along dim {axis}", f"got {x.shape}")
        if x.shape[along] == 1 and size != 1:
            x = functions["expand"](x, tuple(size if k == along else n for k, n in enumerate(x.shape)))
        steps = diff(x, dim=along) if size else x
        if x.ndim == 1:
            steps = reshape(steps, (steps.numel(), *(1,) * (y.ndim - 1 - axis)))
    length = builtins.max(size - 1, 0)
    later = narrow(y, axis, builtins.min(1, size), length)
    return (later + narrow(y, axis, 0, length)) * steps / 2.0, axis


def _second(name: str, x: Any, dx: Any) -> tuple[Any, Any]:
    if x is not None and dx is not None:
        raise ArgumentError(name, "x or dx", "got both")
    return (x, 1) if dx is None else (None, dx)


@public
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Number | None = None, dim: int = -1) -> Tensor:
    """The area below the points ``y`` along ``dim``, that lie at ``x`` or ``dx`` (1) apart, by the trapezoidal rule.

    Shapes: y (..., n, ...), x broadcasts to it; returns it without ``dim``.
    Errors: ShapeError unless x fits; AxisError if there is no such dim.
    """
    areas, axis = _areas("trapezoid", y, *_second("trapezoid", x, dx), dim)
    return total(areas, axis)


@public
def trapz(y: Tensor, x: Tensor | None = None, *, dx: Number | None = None, dim: int = -1) -> Tensor:
    """Another name of ``trapezoid``.

    Shapes: as ``trapezoid``.
    Errors: as ``trapezoid``.
    """
    return trapezoid(y, x, dx=dx, dim=dim)


@public
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Number | None = None, dim: int = -1) -> Tensor:
    """The areas that ``trapezoid`` adds up, up to each point but the first.

    Shapes: y (..., n, ...), x broadcasts to it; returns (..., n - 1, ...).
    Errors: as ``trapezoid``.
    """
    areas, axis = _areas("cumulative_trapezoid", y, *_second("cumulative_trapezoid", x, dx), dim)
    return cumsum(areas, axis)


def _slopes(y: Tensor, at: Tensor | Number, axis: int, edge_order: int) -> Tensor:
    """The derivative along one dim, whose points lie at the vector ``at``, or that far apart."""
    size = y.shape[axis]

    def part(start: int, length: int) -> Tensor:
        return narrow(y, axis, start, length)

    if not isinstance(at, Tensor):
        inner = (part(2, size - 2) - part(0, size - 2)) / (2 * at)
        first, last = (part(1, 1) - part(0, 1)) / at, (part(size - 1, 1) - part(size - 2, 1)) / at
        if edge_order == 2:
            first = (part(0, 1) * -1.5 + part(1, 1) * 2 + part(2, 1) * -0.5) / at
            last = (part(size - 1, 1) * 1.5 + part(size - 2, 1) * -2 + part(size - 3, 1) * 0.5) / at
        return cat([first, inner, last], axis)
    steps = reshape(diff(at.to(y.dtype)), (size - 1, *(1,) * (y.ndim - 1 - axis)))
    before, after = steps[:-1], steps[1:]
    slopes = diff(y, dim=axis) / steps
    lower, upper = narrow(slopes, axis, 0, size - 2), narrow(slopes, axis, 1, size - 2)
    inner = (lower * after + upper * before) / (before + after)
    first, last = narrow(slopes, axis, 0, 1), narrow(slopes, axis, size - 2, 1)
    if edge_order == 2:
        turns = (upper - lower) / (before + after)
        first = first - narrow(turns, axis, 0, 1) * steps[:1]
        last = last + narrow(turns, axis, size - 3, 1) * steps[-1:]
    return cat([first, inner, last], axis)


@public
def gradient(
    input: Tensor, *, spacing: Any = 1, dim: int | Sequence[int] | None = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """The derivatives of ``input`` along ``dim``, or along every dim, by differences of neighbours.

    ``spacing`` is how far points lie apart, one number or one for each dim, or for each dim a vector of where they lie.
    ``edge_order`` is the order of accuracy at both ends, 1 or 2.

    Shapes: for each dim one of the input's shape.
    Errors: ArgumentError unless there is one spacing, or one for each dim; ShapeError for a dim of edge_order or fewer.
    """
    name = "gradient"
    require_tensors(name, input)
    axes = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = [shapes.normalize_axis(name, axis, input.ndim) for axis in axes]
    if len(set(axes)) != len(axes):
        raise ArgumentError(name, "each dim once", f"got {dim}")
    if edge_order not in (1, 2):
        raise ArgumentError(name, "edge_order must be 1 or 2", f"got {edge_order}")
    given = list(spacing) if isinstance(spacing, (tuple, list)) else [spacing] * len(axes)
    if len(given) != len(axes) or (isinstance(spacing, Tensor) and spacing.ndim):
        raise ArgumentError(name, f"a spacing for each of {len(axes)} dims", f"got {len(given)}")
    x = input if input.is_floating_point() else input.float()
    for axis, at in zip(axes, given):
        size = input.shape[axis]
        if size <= edge_order:
            raise ShapeError(name, f"more than {edge_order} points along dim {axis}", f"got {size}")
        if isinstance(at, Tensor) and at.ndim and at.shape != (size,):
            raise ShapeError(name, f"a vector of {size} places for dim {axis}", f"got {at.shape}")
    found = []
    for axis, at in zip(axes, given):
        number = isinstance(at, Tensor) and not at.ndim
        found.append(_slopes(x, at.item() if number else at, axis, edge_order))
    return tuple(found)


@public(method=True)
def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """The covariances of variables, which are rows, over samples, which are columns.

    ``fweights`` (integers) say how often each sample counts, ``aweights`` how much.

    It divides by the number of samples less ``correction``.

    Shapes: (variables, samples) gives (variables, variables), () of one; (samples,) gives (); weights (samples,).
    Errors: ShapeError for other shapes; DtypeError for bools, or fweights that are no integers; ArgumentError for
            negative weights, for which a te.compile does not look.
    """
    require_tensors("cov", input)
    if input.ndim > 2 or input.dtype.name == "bool":
        raise ShapeError("cov", "numbers of at most 2 dims", f"got {input.dtype.name} of {input.shape}")
    x = reshape(input, (1, -1)) if input.ndim < 2 else input
    x = x if x.is_floating_point() else x.float()
    samples = x.shape[1]
    weights: Tensor | None = None
    for name, given in (("fweights", fweights), ("aweights", aweights)):
        if given is None:
            continue
        if given.ndim > 1 or given.numel() != samples:
            raise ShapeError("cov", f"{name} of shape ({samples},)", f"got {given.shape}")
        if name == "fweights" and given.dtype.limits is None:
            raise DtypeError("cov", "fweights of integers", f"got {given.dtype.name}", "Convert it with .long().")
        if name == "aweights" and not given.is_floating_point():
            raise DtypeError("cov", "aweights of floats", f"got {given.dtype.name}", "Convert it with .float().")
        _require_at_least_zero(name, given)
        own = reshape(given, (-1,)).to(x.dtype)
        weights = own if weights is None else weights * own
    if not x.numel():
        average: Any = functions["full"]((x.shape[0], 1), float("nan"), dtype=x.dtype, device=x.backend)
    elif weights is None:
        average = mean(x, 1, True)
    else:
        average = total(x * weights, 1, True) / total(weights)
    centred = x - average
    if weights is None:
        scaled, divisor = centred, float(builtins.max(samples - correction, 0))
        result = functions["matmul"](centred, functions["t"](scaled)) / divisor
    else:
        summed = total(weights)
        if aweights is not None and correction:
            divisor_t = summed - correction * total(weights * reshape(aweights, (-1,)).to(x.dtype)) / summed
        else:
            divisor_t = summed - correction
        result = functions["matmul"](centred, functions["t"](centred * weights)) / clamp(divisor_t, min=0.0)
    return cast("Tensor", reshape(result, ()) if result.shape == (1, 1) else result)


def _require_at_least_zero(name: str, weights: Tensor) -> None:
    if recorder() is not None or not weights.numel():  # a replay would not look
        return
    least = weights.detach().numpy().min()
    if least < 0:
        raise ArgumentError("cov", f"{name} of at least 0", f"one is {least}")


@public(method=True)
def corrcoef(input: Tensor) -> Tensor:
    """The correlations of variables, which are rows, over samples, which are columns.

    Shapes: (variables, samples) gives (variables, variables), () of one; (samples,) gives ().
    Errors: as ``cov``.
    """
    require_tensors("corrcoef", input)
    if input.ndim > 2:
        raise ShapeError("corrcoef", "numbers of at most 2 dims", f"got {input.shape}")
    c = cov(input)
    if not c.ndim:
        return c / c
    deviation = functions["sqrt"](functions["diagonal"](c))
    return clamp(c / unsqueeze(deviation, 1) / deviation, -1.0, 1.0)


@public(method=True, inplace=True)
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Each slice along ``dim`` whose p-norm is above ``maxnorm`` scaled down to that.

    Shapes: any of at least 2 dims; returns the same.
    Errors: ArgumentError unless p > 0 and maxnorm >= 0; ShapeError for less dims; AxisError if there is no such dim.
    """
    require_tensors("renorm", input)
    if p <= 0 or maxnorm < 0:
        raise ArgumentError("renorm", "p above 0 and maxnorm of at least 0", f"got {p} and {maxnorm}")
    if input.ndim < 2:
        raise ShapeError("renorm", "a tensor of at least 2 dims", f"got {input.shape}")
    axis = shapes.normalize_axis("renorm", dim, input.ndim)
    others = tuple(k for k in range(input.ndim) if k != axis)
    size = vector_norm(input, p, others, True)
    return input * where(size > maxnorm, maxnorm / (size + 1e-7), 1.0)  # composed


def _powers(name: str, x: Tensor, n: int | None, increasing: bool, checked: Callable[[], None]) -> Tensor:
    require_tensors(name, x)
    checked()
    count = x.shape[-1] if n is None else n
    if count < 0:
        raise ArgumentError(name, "a number of columns of at least 0", f"got {count}")
    x = x.to(int64) if x.dtype.name == "bool" else x
    x = x if x.ndim else reshape(x, (1,))
    places = arange(count, device=x.backend)
    powers = places if increasing else count - 1 - places
    return cast("Tensor", functions["pow"](unsqueeze(x, -1), powers))


@public
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of a vector as columns, the highest first unless ``increasing``.

    Shapes: x (n,); returns (n, N), N = n if it is left out.
    Errors: ShapeError unless x is a vector; ArgumentError if N < 0.
    """

    def checked() -> None:
        if x.ndim != 1:
            raise ShapeError("vander", "a vector", f"got {x.shape}")

    return _powers("vander", x, N, increasing, checked)


@public(top=False, space="linalg")
def linalg_vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """The powers 0, 1, ... of vectors as columns.

    Shapes: x (..., n); returns (..., n, N), N = n if it is left out.
    Errors: ShapeError of a 0-d tensor without N; ArgumentError if N < 2.
    """

    def checked() -> None:
        if not x.ndim and N is None:
            raise ShapeError("linalg.vander", "at least one dim", "got a 0-d tensor")
        if N is not None and N <= 1:
            raise ArgumentError("linalg.vander", "N must be above 1", f"got {N}")

    return _powers("linalg.vander", x, N, True, checked)
