"""Resizing with a filter as wide as a result's share of the input: interpolate with ``antialias``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from tinyedge.ir.spec import Device, KernelSpec, lines_grid
from tinyedge.ir.step import Op, Step
from tinyedge.ir.values import Spec
from tinyedge.tensor import Tensor, call, tensor

Array = np.ndarray[Any, Any]

REACH = {"linear": 1.0, "cubic": 2.0}
"""How far each filter reaches, in elements of the input or in steps between results, whichever are longer."""


class Bands(NamedTuple):
    """The rows of a banded matrix: row r has ``weights[r, k - begins[r]]`` in column k, below ``ends[r]``."""

    begins: Array
    ends: Array
    weights: Array


def _filter(kind: str, distances: Array) -> Array:
    d = np.abs(distances)
    if kind == "linear":
        return np.asarray(np.maximum(1 - d, 0))
    a = -0.5
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    return np.asarray(np.where(d < 1, near, np.where(d < 2, a * (d**3 - 5 * d**2 + 8 * d - 4), 0)))


def bands_of(size: int, outputs: int, kind: str, step: float) -> Bands:
    """How much of each of ``size`` elements is in each result, whose places are ``step`` apart (NumPy)."""
    wide = max(step, 1.0)
    reach = REACH[kind] * wide
    places = step * (np.arange(outputs) + 0.5)
    begins = np.maximum((places - reach + 0.5).astype(np.int64), 0)
    ends = np.minimum((places + reach + 0.5).astype(np.int64), size)
    taps = begins[:, None] + np.arange(max(int((ends - begins).max()), 1))
    weights = np.where(taps < ends[:, None], _filter(kind, (taps - places[:, None] + 0.5) / wide), 0)
    totals = weights.sum(1, keepdims=True)
    return Bands(begins, ends, np.divide(weights, totals, out=weights, where=totals != 0))


def turned_bands(bands: Bands, size: int) -> Bands:
    """The transpose, of ``size`` rows: those that have a column stand together, since places ascend (NumPy)."""
    columns = np.arange(size)
    begins = np.searchsorted(bands.ends, columns, side="right")
    ends = np.maximum(np.searchsorted(bands.begins, columns, side="right"), begins)
    rows = begins[:, None] + np.arange(max(int((ends - begins).max()), 1))
    at = np.minimum(rows, len(bands.begins) - 1)
    taps = columns[:, None] - bands.begins[at]
    weights = bands.weights[at, np.clip(taps, 0, bands.weights.shape[1] - 1)]
    return Bands(begins, ends, np.where(rows < ends[:, None], weights, 0))


def _product(x: Array, axis: int, begins: Array, ends: Array, weights: Array) -> Array:
    """NumPy: tap by tap, so that an infinite element reaches only the results that have a weight for it."""
    lines = np.moveaxis(x, axis, -1)
    y = np.zeros((*lines.shape[:-1], len(begins)), x.dtype)
    for tap, weight in enumerate(weights.T):
        places = begins + tap
        inside = places < ends
        y[..., inside] += lines[..., places[inside]] * weight[inside]
    return np.moveaxis(y, -1, axis)


class Banded(Op):
    """A banded matrix times ``x`` along ``axis``. The operands in ``turned_`` hold its transpose, for the gradient."""

    signature = "(...),(out),(out),(out,taps),(in),(in),(in,spread)->(...)"
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    saves = (
        "begins",
        "ends",
        "weights",
        "turned_begins",
        "turned_ends",
        "turned_weights",
    )  # all, for its transpose's own

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, begins, *_ = inputs
        assert x is not None
        assert begins is not None
        axis = attrs["axis"]
        return (Spec(x.dtype, (*x.shape[:axis], *begins.shape, *x.shape[axis + 1 :])),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return [cls.kernel(step, device, "x", "y", "")]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return [cls.kernel(step, device, "dy", "dx", "turned_")]

    @classmethod
    def kernel(cls, step: Step, device: Device, source: str, target: str, prefix: str) -> KernelSpec:
        axis, shape, made = step.attrs["axis"], step.slots[source].shape, step.slots[target].shape
        names = {name: prefix + name for name in Bands._fields}
        inner = prod(shape[axis + 1 :])
        lines, columns = prod(shape[:axis]), made[axis] * inner
        return KernelSpec(
            "banded", "banded.cl.jinja", (source, *names.values(), target),
            *lines_grid(lines, columns, device.group()),
            {
                "lines": lines, "columns": columns, "inner": inner, "length": shape[axis],
                "taps": step.slots[names["weights"]].shape[1],
            },
            constants={"real": step.slots[source].dtype.ctype, "source": source, "target": target, **names},
            hooked=(source, target),
        )  # fmt: skip

    @staticmethod
    def forward(
        x: Array, begins: Array, ends: Array, weights: Array, turned_begins: Array, turned_ends: Array,
        turned_weights: Array, *, axis: int,
    ) -> Array:  # fmt: skip
        return _product(x, axis, begins, ends, weights)

    @staticmethod
    def backward(
        dy: Array, begins: Array, ends: Array, weights: Array, turned_begins: Array, turned_ends: Array,
        turned_weights: Array, *, axis: int,
    ) -> tuple[Array]:  # fmt: skip
        return (_product(dy, axis, turned_begins, turned_ends, turned_weights),)

    sample: Any = classmethod(vars(Op)["sample"].__func__)  # drawn bands would be no transposes of each other


def resized(input: Tensor, size: Sequence[int], kind: str, steps: Sequence[float]) -> Tensor:
    """The last dims of ``input``, as many as ``size`` has numbers, resized to it."""
    real = input.dtype.computes.numpy
    for axis, count, step in reversed([*zip(range(input.ndim - len(size), input.ndim), size, steps, strict=True)]):
        bands = bands_of(input.shape[axis], count, kind, step)
        operands = [
            tensor(part.astype(real if part.dtype.kind == "f" else np.int32), device=input.backend)
            for part in (*bands, *turned_bands(bands, input.shape[axis]))
        ]
        input = call(Banded, input, *operands, axis=axis)
    return input
