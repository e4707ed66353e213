"""Tensors that NumPy's functions take: an op's NumPy backward, called with them, becomes calls of differentiable ops.

In: a gradient formula in NumPy. Out: tensors with a history. What has no counterpart here raises ``Untraceable``, so
that nothing is computed behind autograd's back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyedge.autograd.registry import functions
from tinyedge.tensor import Tensor, full, tensor

UFUNCS = {
    "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "negative": "neg", "power": "pow",
    "absolute": "abs", "fabs": "abs", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
    "equal": "eq", "not_equal": "ne", "invert": "logical_not", "bitwise_and": "logical_and",
    "bitwise_or": "logical_or", "arctan2": "atan2", "arctan": "atan", "arcsin": "asin", "arccos": "acos",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
}  # fmt: skip
"""NumPy's names of elementwise functions that are others here."""

SAME = {
    "add", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "square", "reciprocal", "sign", "sin",
    "cos", "tan", "sinh", "cosh", "tanh", "maximum", "minimum", "fmax", "fmin", "isnan", "isinf", "isfinite", "floor",
    "ceil", "trunc", "logical_and", "logical_or", "logical_not", "hypot", "logaddexp", "copysign", "matmul",
}  # fmt: skip


OF_TENSORS = {"logical_and", "logical_or", "logaddexp", "maximum", "minimum", "fmax", "fmin", "hypot", "atan2"}
"""Functions that take no numbers."""


class Untraceable(Exception):
    """A formula does what no differentiable op here does."""


def plain(value: Any) -> Any:
    """The tensor or number that a formula holds."""
    if isinstance(value, Traced):
        return value.tensor
    if isinstance(value, np.generic):
        return value.item()
    return value


def _axes(axis: Any, rank: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(rank))
    return (int(axis),) if isinstance(axis, (int, np.integer)) else tuple(axis)


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """A tensor in a NumPy formula."""

    def __init__(self, value: Tensor) -> None:
        self.tensor = value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def ndim(self) -> int:
        return self.tensor.ndim

    @property
    def size(self) -> int:
        return self.tensor.numel()

    @property
    def dtype(self) -> Any:
        return self.tensor.dtype.computes.numpy

    @property
    def T(self) -> Traced:
        return Traced(self.tensor.T)

    def __len__(self) -> int:
        return len(self.tensor)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise Untraceable("the values themselves")

    def __bool__(self) -> bool:
        raise Untraceable("a choice by a value")

    def __float__(self) -> float:
        raise Untraceable("a value as a number")

    def __iter__(self) -> Any:
        raise Untraceable("elements one by one")

    def __setitem__(self, index: Any, value: Any) -> None:
        raise Untraceable("a change in place")

    def __getattr__(self, name: str) -> Any:
        raise Untraceable(f"ndarray.{name}")

    def __getitem__(self, index: Any) -> Traced:
        parts = index if isinstance(index, tuple) else (index,)
        if not all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts):
            raise Untraceable("an index of arrays")
        return Traced(self.tensor[index])

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = UFUNCS.get(ufunc.__name__, ufunc.__name__ if ufunc.__name__ in SAME else "")
        if method != "__call__" or kwargs or name not in functions:
            raise Untraceable(f"np.{ufunc.__name__}")
        tensors = [item for item in inputs if isinstance(item, Traced)]
        given = []
        for item in inputs:
            value = plain(item)
            like = tensors[0].tensor
            if isinstance(value, np.ndarray) or (name in OF_TENSORS and not isinstance(value, Tensor)):
                dtype = None if isinstance(value, (np.ndarray, bool)) else like.dtype
                value = tensor(value, dtype=dtype, device=like.backend)
            given.append(value)
        return Traced(functions[name](*given))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        found = COUNTERPARTS.get(function.__name__)
        if found is None:
            raise Untraceable(f"np.{function.__name__}")
        return found(*args, **kwargs)

    # ndarray's methods

    def sum(self, axis: Any = None, keepdims: bool = False) -> Traced:
        axes = _axes(axis, self.ndim)
        return Traced(functions["sum"](self.tensor, axes, keepdim=keepdims)) if axes else self

    def reshape(self, *shape: Any) -> Traced:
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return Traced(functions["reshape"](self.tensor, tuple(sizes)))

    def swapaxes(self, a: int, b: int) -> Traced:
        return Traced(functions["transpose"](self.tensor, a, b))

    def transpose(self, *axes: Any) -> Traced:
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return Traced(functions["permute"](self.tensor, tuple(order) or tuple(reversed(range(self.ndim)))))

    def astype(self, dtype: Any, copy: bool = True) -> Traced:
        return Traced(self.tensor.to(np.dtype(dtype)))


def _where(condition: Any, a: Any, b: Any) -> Traced:
    tensors = [item.tensor for item in (condition, a, b) if isinstance(item, Traced)]
    chosen = plain(condition)
    if not isinstance(chosen, Tensor):
        chosen = tensor(np.asarray(chosen), device=tensors[0].backend)
    return Traced(functions["where"](chosen, plain(a), plain(b)))


def _filled(value: float) -> Callable[..., Traced]:
    def like(x: Traced, dtype: Any = None) -> Traced:
        return Traced(full(x.shape, value, dtype=dtype or x.tensor.dtype, device=x.tensor.backend))

    return like


def _broadcast_arrays(*items: Any) -> list[Traced]:
    return [Traced(item) for item in functions["broadcast_tensors"](*[plain(item) for item in items])]


COUNTERPARTS: dict[str, Callable[..., Any]] = {
    "where": _where,
    "broadcast_to": lambda x, shape: Traced(functions["expand"](x.tensor, tuple(shape))),
    "broadcast_arrays": _broadcast_arrays,
    "swapaxes": lambda x, a, b: x.swapaxes(a, b),
    "sum": lambda x, axis=None, keepdims=False: x.sum(axis, keepdims),
    "zeros_like": _filled(0),
    "ones_like": _filled(1),
    "expand_dims": lambda x, axis: Traced(functions["unsqueeze"](x.tensor, axis)),
    "moveaxis": lambda x, a, b: Traced(functions["movedim"](x.tensor, a, b)),
    "flip": lambda x, axis: Traced(functions["flip"](x.tensor, _axes(axis, x.ndim))),
    "cumsum": lambda x, axis: Traced(functions["cumsum"](x.tensor, axis)),
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, axes=(): x.transpose(*axes),
    "shape": lambda x: x.shape,
    "ndim": lambda x: x.ndim,
    "clip": lambda x, low, high: Traced(functions["clamp"](x.tensor, low, high)),
}
"""NumPy's other functions."""
