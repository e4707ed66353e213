"""Calls of an op, drawn from its own ``sample`` and ``domain``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyedge import dtypes
from tinyedge.autograd.dispatch import new_slot
from tinyedge.backends import Backend
from tinyedge.dtypes import DType
from tinyedge.ir.step import Op, Sample
from tinyedge.ir.values import Layout, Slot, Storage
from tinyedge.tensor import Tensor

Array = np.ndarray[Any, Any]
GRID = 0.5
"""Values on this grid meet each other, and the kinks of most functions, exactly."""


@dataclass(frozen=True)
class Call:
    """One call of an op: its inputs as arrays, its keyword arguments, and the seed of whatever else is random."""

    op: type[Op]
    inputs: Mapping[str, Array | None]
    attrs: Mapping[str, Any]
    scalars: Mapping[str, Any]
    seed: int
    strided: bool = False
    packed: DType | None = None  # in which the float32 inputs are stored, where that is another type

    def dtype_of(self, array: Array) -> DType:
        """The type in which an input is stored."""
        return self.packed if self.packed is not None and array.dtype == np.float32 else stored(array)

    def tolerances(self) -> tuple[float, float]:
        """Relative and absolute: those of the op, or two units in the last place of what is stored."""
        unit = {"": 0.0, "half": 2.0**-10, "bfloat16": 2.0**-7}["" if self.packed is None else self.packed.packed]
        return max(self.op.rtol, 2 * unit), max(self.op.atol, unit / 4)

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{name}: {None if array is None else f'{array.dtype}{array.shape}'}" for name, array in self.inputs.items()
        )
        keywords = {**self.attrs, **self.scalars}
        kind = "" if self.packed is None else f", stored as {self.packed.name}"
        return f"<{self.op.name}({shapes}; {keywords}), seed={self.seed}, strided={self.strided}{kind}>"

    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def differentiable(self) -> list[str]:
        """The inputs present whose gradients the op has."""
        return [n for n in self.op.differentiable if (a := self.inputs[n]) is not None and a.dtype.kind == "f"]

    def as_float64(self) -> Call:
        """The same call in double precision."""
        inputs = {
            n: a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for n, a in self.inputs.items()
        }
        attrs = {name: dtypes.float64 if value is dtypes.float32 else value for name, value in self.attrs.items()}
        return replace(self, inputs=inputs, attrs=attrs)


INTEGERS = (dtypes.int64, dtypes.int32, dtypes.int16, dtypes.int8, dtypes.uint8)


def dtypes_of(op: type[Op]) -> list[DType]:
    """Of what an op takes, all but float32."""
    return [*(INTEGERS if "i" in op.kinds else ()), *((dtypes.bool_,) if "b" in op.kinds else ())]


def whole_numbers(dtype: DType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Integers of ``dtype``: the ends and their neighbours, what float32 and int32 do not hold, small ones, and any."""
    if dtype is dtypes.bool_:
        return np.asarray(random.integers(0, 2, shape), bool)
    assert dtype.limits is not None
    low, high = dtype.limits
    corners = [low, low + 1, high - 1, high, 0, 1, -1, 2**24 + 1, -(2**24) - 1, 2**31, 2**32 + 1, -(2**31) - 1]
    corners = [corner for corner in corners if low <= corner <= high]
    kind = random.integers(0, 3, shape)
    chosen = np.array(corners, dtype.numpy)[random.integers(0, len(corners), shape)]
    small = random.integers(max(low, -9), 10, shape).astype(dtype.numpy)
    anything = random.integers(low, high, shape, dtype.numpy, endpoint=True)
    return np.asarray(np.where(kind == 0, chosen, np.where(kind == 1, small, anything)), dtype.numpy)


def values(
    op: type[Op],
    name: str,
    shape: tuple[int, ...],
    sample: Sample,
    random: np.random.Generator,
    grid: bool,
    dtype: DType = dtypes.float32,
) -> Array:
    """Values for one input: indices below their bound, bools for a domain of the ints 0 and 1, else of ``dtype``."""
    if name in sample.integers:
        return np.asarray(random.integers(0, max(sample.integers[name], 1), shape))
    low, high = op.domain.get(name, (-2.0, 2.0))
    if isinstance(low, int) and isinstance(high, int) and (low, high) == (0, 1):
        return np.asarray(random.integers(0, 2, shape), bool)
    if dtype is not dtypes.float32:
        return whole_numbers(dtype, shape, random)
    drawn = np.asarray(random.uniform(low, high, shape))
    if grid:
        drawn = np.clip(np.round(drawn / GRID) * GRID, low, high)
    return np.asarray(drawn, np.float32)


def call_of(
    op: type[Op],
    sample: Sample,
    seed: int,
    grid: bool = False,
    strided: bool = False,
    dtype: DType = dtypes.float32,
) -> Call:
    if "f" not in op.kinds and dtype is dtypes.float32:
        dtype = INTEGERS[seed % len(INTEGERS)]
    random = np.random.default_rng(seed)
    inputs = {
        name: None if shape is None else values(op, name, shape, sample, random, grid, dtype)
        for name, shape in zip(op.inputs, sample.shapes, strict=True)
    }
    attrs = {name: value for name, value in sample.attrs.items() if name not in op.scalars}
    scalars = {name: value for name, value in sample.attrs.items() if name in op.scalars}
    return Call(op, inputs, attrs, scalars, seed, strided)


@st.composite
def calls(draw: st.DrawFn, op: type[Op], grid: bool = True, strided: bool = True) -> Call:
    """Calls of ``op``. Some have values on a grid, to meet kinks and ties; some have inputs that are not contiguous."""
    random: Random = draw(st.randoms(use_true_random=False))
    return call_of(
        op,
        op.sample(random),
        random.getrandbits(32),
        grid=grid and random.random() < 0.25,
        strided=strided and random.random() < 0.3,
    )


def stored(array: Array) -> DType:
    return dtypes.resolve(array.dtype)


def place(array: Array, backend: Backend, requires_grad: bool = False, dtype: DType | None = None) -> Slot:
    """A contiguous slot with the values of ``array``."""
    slot = new_slot(backend, dtype or stored(array), array.shape)
    backend.write(slot.storage, np.ascontiguousarray(slot.dtype.pack(array)))
    slot.requires_grad = requires_grad
    return slot


def place_strided(
    array: Array,
    backend: Backend,
    random: np.random.Generator,
    requires_grad: bool = False,
    dtype: DType | None = None,
) -> Slot:
    """A slot with the values of ``array`` whose axes are permuted, spaced, and start at an offset."""
    dtype = dtype or stored(array)
    order = random.permutation(array.ndim)
    spacing = random.integers(1, 3, array.ndim)
    starts = random.integers(0, 3, array.ndim)
    sizes = np.array(array.shape, int)[order] * spacing + starts
    base = dtype.pack(np.full(sizes, np.nan if array.dtype.kind == "f" else 1, array.dtype))
    cut = base[(*(slice(start, None, step) for start, step in zip(starts, spacing, strict=True)), ...)]
    view = cut.transpose(np.argsort(order))
    view[...] = dtype.pack(array)
    offset = (
        (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // base.itemsize
        if array.size
        else 0
    )
    storage = Storage(backend, base.nbytes)
    backend.write(storage, base)
    strides = tuple(stride // base.itemsize for stride in view.strides)
    slot = Slot(storage, dtype, Layout(array.shape, strides, offset))
    slot.requires_grad = requires_grad
    return slot


def read(slot: Slot) -> Array:
    """The values of a slot, in the type that kernels compute with."""
    tensor = Tensor._wrap(slot.alias()).contiguous()
    return slot.dtype.unpack(tensor.backend.read(tensor._slot))
