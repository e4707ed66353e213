"""Rearranging: flips, rolls, repeats, windows, diagonals; joins and splits by their other names.

Most are composed of the views and copies of ``movement``.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from random import Random
from typing import Any, cast

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import int32, int64
from tinyedge.errors import ArgumentError, AxisError, DtypeError, ShapeError
from tinyedge.ir.spec import MAX_RANK, Device, KernelSpec, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Layout, Spec
from tinyedge.ops.movement import (
    View,
    broadcast_to,
    cat,
    expand,
    flatten,
    narrow,
    permute,
    reshape,
    transpose,
    unshared,
    unsqueeze,
    view,
)
from tinyedge.tensor import Tensor, call, tensor


def _tensor(name: str, input: Any) -> Tensor:
    if not isinstance(input, Tensor):
        raise DtypeError(name, "a tensor", f"got {type(input).__name__}", "Convert it with te.tensor.")
    return input


def _ints(name: str, value: Any) -> tuple[int, ...]:
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, np.integer)):
            raise DtypeError(name, "ints", f"got {type(item).__name__}")
    return tuple(int(item) for item in items)


def _axes(name: str, dims: Any, rank: int) -> tuple[int, ...]:
    """``dims`` counted from the front, in their order; each once."""
    given = _ints(name, dims)
    axes = tuple(shapes.normalize_axis(name, axis, rank) for axis in given)
    if len(set(axes)) != len(axes):
        raise ArgumentError(name, "each dim once", f"got dims={given}")
    return axes


class Flip(Op):
    """The attribute ``axes`` are reversed."""

    signature = "(...)->(...)"
    operations = 0
    domain = {"x": (-4.0, 4.0)}
    kinds = "bif"
    differentiable = ("x",)
    errors = (
        ErrorSample(lambda te: te.flip(te.zeros(2, 3), (0, 0)), ArgumentError, "each dim once"),
        ErrorSample(lambda te: te.flip(te.zeros(2, 3), (2,)), AxisError, "[-2, 1]"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        return (x,)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "x", "y")

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.kernel(step, device, "dy", "dx")

    @classmethod
    def kernel(cls, step: Step, device: Device, source: str, target: str) -> list[KernelSpec]:
        slot, axes = step.slots[target], step.attrs["axes"]
        strides = shapes.contiguous_strides(slot.shape)
        signed = tuple(-stride if axis in axes else stride for axis, stride in enumerate(strides))
        start = sum((slot.shape[axis] - 1) * strides[axis] for axis in axes)
        shape, (steps,) = shapes.collapse(slot.shape, signed)
        return [
            KernelSpec(
                "flip",
                "flip.cl.jinja",
                (source, target),
                *grid(slot.numel, device.group()),
                sizes={"count": slot.numel, "start": start, "rank": len(shape)},
                tables={"shape": shape, "steps": steps},
                constants={"source": source, "target": target},
                hooked=(source, target),
            )
        ]

    @staticmethod
    def forward(x: Any, *, axes: tuple[int, ...]) -> Any:
        return np.flip(x, axes)

    @staticmethod
    def backward(dy: Any, *, axes: tuple[int, ...]) -> tuple[Any, ...]:
        return (np.flip(dy, axes),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5, 17)) for _ in range(random.randint(1, 4)))
        axes = tuple(axis for axis in range(len(shape)) if random.random() < 0.5)
        return Sample((shape,), {"axes": axes or (0,)})


@public(variadic=True)
def flip(input: Tensor, dims: Sequence[int]) -> Tensor:
    """The elements in reverse order along ``dims``: a copy.

    Shapes: any; returns the same.
    Errors: AxisError if there is no such dim; ArgumentError if one is there twice.
    """
    axes = tuple(sorted(_axes("flip", dims, _tensor("flip", input).ndim)))
    if not input.ndim or not axes:
        return input.clone()
    return call(Flip, input, axes=axes)


@public(method=True)
def fliplr(input: Tensor) -> Tensor:
    """The columns in reverse order.

    Shapes: (n, m, ...); returns the same.
    Errors: ShapeError for less than 2 dims.
    """
    if input.ndim < 2:
        raise ShapeError("fliplr", "a tensor of at least two dims", f"got {input.shape}")
    return flip(input, (1,))


@public(method=True)
def flipud(input: Tensor) -> Tensor:
    """The rows in reverse order.

    Shapes: (n, ...); returns the same.
    Errors: ShapeError for a 0-d tensor.
    """
    if input.ndim < 1:
        raise ShapeError("flipud", "a tensor of at least one dim", f"got {input.shape}")
    return flip(input, (0,))


@public(method=True)
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """``input`` turned by ``k`` quarters in the plane of ``dims``, from the first towards the second.

    Shapes: (..., n, ..., m, ...) gives (..., m, ..., n, ...) for an odd k, else the same.
    Errors: ArgumentError unless dims are two different ones; AxisError if there is no such dim.
    """
    if len(dims) != 2 or input.ndim < 2:
        raise ArgumentError("rot90", "two dims of a tensor that has them", f"got dims={dims}, shape {input.shape}")
    a, b = _axes("rot90", tuple(dims), input.ndim)
    (turns,) = _ints("rot90", k)
    turns %= 4
    if turns == 0:
        return input.clone()
    if turns == 2:
        return flip(input, (a, b))
    return transpose(flip(input, (b,)), a, b) if turns == 1 else flip(transpose(input, a, b), (b,))


@public(method=True)
def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """The elements moved by ``shifts`` along ``dims``; those that leave at the end come back at the start.

    Without ``dims`` the flat elements are moved.

    Shapes: any; returns the same.
    Errors: ArgumentError unless there are as many shifts as dims; AxisError if there is no such dim.
    """
    moves = _ints("roll", shifts)
    if not moves:
        raise ArgumentError("roll", "at least one shift", "got none")
    if dims is None or (isinstance(dims, (tuple, list)) and not dims):
        if len(moves) != 1:
            raise ArgumentError("roll", "as many shifts as dims", f"got {len(moves)} and 0")
        return reshape(roll(flatten(input), moves, 0), input.shape)
    axes = _ints("roll", dims)
    if len(axes) != len(moves):
        raise ArgumentError("roll", "as many shifts as dims", f"got {len(moves)} and {len(axes)}")
    if not input.ndim:
        raise AxisError("roll", "a tensor of at least one dim", "got a 0-d tensor", "Leave dims out.")
    axes = tuple(shapes.normalize_axis("roll", axis, input.ndim) for axis in axes)
    result = input
    for move, axis in zip(moves, axes) if input.numel() else ():
        size = input.shape[axis]
        first = -move % size
        if first:
            result = cat([narrow(result, axis, first, size - first), narrow(result, axis, 0, first)], axis)
    return input.clone() if result is input else result


# Repeats


@public(top=False, variadic=True)
def repeat(input: Tensor, repeats: Sequence[int]) -> Tensor:
    """Copies beside each other: ``repeats`` says how many along each dim; further ones are new dims, in front.

    Shapes: (n, m) gives (..., a * n, b * m).
    Errors: ShapeError for fewer repeats than dims, or negative ones.
    """
    times = _ints("repeat", tuple(repeats))
    if len(times) < input.ndim or builtins.any(time < 0 for time in times):
        raise ShapeError("repeat", f"at least {input.ndim} numbers, none below 0", f"got {times}")
    shape = (1,) * (len(times) - input.ndim) + input.shape
    result = input if shape == input.shape else reshape(input, shape)
    if 2 * len(shape) <= MAX_RANK:
        return unshared(_repeated(result, times), input)
    for axis, time in enumerate(times):  # one by one, so that kernels need not walk so many dims
        result = _repeated(result, tuple(time if k == axis else 1 for k in range(len(times))))
    return unshared(result, input)


def _repeated(input: Tensor, times: Sequence[int]) -> Tensor:
    apart: list[int] = []
    wide: list[int] = []
    for size, time in zip(input.shape, times):
        apart += [size] if time == 1 else [1, size]
        wide += [size] if time == 1 else [time, size]
    final = tuple(size * time for size, time in zip(input.shape, times))
    return reshape(expand(reshape(input, apart), wide), final)


@public(variadic=True)
def tile(input: Tensor, dims: Sequence[int]) -> Tensor:
    """As ``repeat``, where missing numbers in front are 1.

    Shapes: (n, m) gives (..., a * n, b * m).
    Errors: ShapeError for negative numbers.
    """
    times = _ints("tile", tuple(dims))
    if builtins.any(time < 0 for time in times):
        raise ShapeError("tile", "numbers of at least 0", f"got {times}")
    return repeat(input, (1,) * (input.ndim - len(times)) + times)


@public(method=True)
def repeat_interleave(
    input: Tensor, repeats: int | Tensor, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element along ``dim`` (of the flat tensor without it) ``repeats`` times in a row.

    A tensor of repeats, one for each element or one for all, is read on the host.

    Shapes: (..., n, ...) gives (..., sum of the repeats, ...); without ``dim`` (sum of the repeats,).
    Errors: ArgumentError for negative repeats; ShapeError unless they fit; DtypeError unless they are integers.
            Inside te.compile, repeats must be an int: the length of the result is known on the host only.
    """
    if dim is None:
        input, dim = flatten(input), 0
    if not input.ndim:
        input = reshape(input, (1,))
    axis = shapes.normalize_axis("repeat_interleave", dim, input.ndim)
    size = input.shape[axis]
    if isinstance(repeats, (tuple, list)):
        repeats = tensor(repeats, device=input.backend)
    if isinstance(repeats, Tensor):
        if repeats.dtype not in (int32, int64):
            raise DtypeError(
                "repeat_interleave", "int64 or int32 repeats", f"got {repeats.dtype.name}", "Convert it with .long()."
            )
        if repeats.ndim > 1 or (repeats.numel() != size and repeats.numel() != 1):
            raise ShapeError("repeat_interleave", f"one number, or {size} of them", f"got shape {repeats.shape}")
        forbid_in_recording("repeat_interleave", "the values of repeats are read on the host; pass an int")
        times = np.broadcast_to(repeats.numpy().reshape(-1), (size,))
        if size and times.min() < 0:
            raise ArgumentError("repeat_interleave", "repeats of at least 0", f"one is {times.min()}")
        places = np.repeat(np.arange(size), times)
        result = functions["index_select"](input, axis, tensor(places, dtype=int64, device=input.backend))
    else:
        (time,) = _ints("repeat_interleave", repeats)
        if time < 0:
            raise ArgumentError("repeat_interleave", "repeats of at least 0", f"got {time}")
        before, after = input.shape[:axis], input.shape[axis + 1 :]
        wide = expand(unsqueeze(input, axis + 1), (*before, size, time, *after))
        result = reshape(wide, (*before, size * time, *after))
    if output_size is not None and output_size != result.shape[axis]:
        raise ArgumentError("repeat_interleave", f"output_size must be {result.shape[axis]}", f"got {output_size}")
    return unshared(result, input)


# Dims moved


@public(method=True)
def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dims ``source`` moved to the places ``destination``; the others keep their order. A view.

    Shapes: any; returns the lengths in the new order.
    Errors: AxisError if there is no such dim; ArgumentError unless both name as many dims, each once.
    """
    return _moved("movedim", input, source, destination)


def _moved(name: str, input: Tensor, source: Any, destination: Any) -> Tensor:
    a, b = _axes(name, source, input.ndim), _axes(name, destination, input.ndim)
    if len(a) != len(b):
        raise ArgumentError(name, "as many destinations as sources", f"got {len(b)} and {len(a)}")
    if not input.ndim:
        return view(input, ())
    rest = iter(axis for axis in range(input.ndim) if axis not in a)
    found = dict(zip(b, a))
    return permute(input, tuple(found[axis] if axis in found else next(rest) for axis in range(input.ndim)))


@public(method=True)
def moveaxis(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Another name of ``movedim``.

    Shapes: any; returns the lengths in the new order.
    Errors: as ``movedim``.
    """
    return _moved("moveaxis", input, source, destination)


@public(method=True)
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Another name of ``transpose``.

    Shapes: (..., a, ..., b, ...) gives (..., b, ..., a, ...).
    Errors: AxisError if there is no such dim.
    """
    return transpose(input, axis0, axis1)


@public(method=True)
def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Another name of ``transpose``.

    Shapes: (..., a, ..., b, ...) gives (..., b, ..., a, ...).
    Errors: AxisError if there is no such dim.
    """
    return transpose(input, dim0, dim1)


class Diagonal(View):
    """The attributes ``axes`` are two; their diagonal becomes the last."""

    signature = "(...)->(...)"

    @classmethod
    def view(cls, layout: Layout, **attrs: Any) -> Layout:
        (a, b), offset = attrs["axes"], attrs["offset"]
        shape, strides, start = layout
        down, right = max(-offset, 0), max(offset, 0)
        length = max(min(shape[a] - down, shape[b] - right), 0)
        if length:
            start += down * strides[a] + right * strides[b]
        kept = [axis for axis in range(len(shape)) if axis not in (a, b)]
        return Layout(
            (*(shape[axis] for axis in kept), length),
            (*(strides[axis] for axis in kept), strides[a] + strides[b]),
            start,
        )


@public(method=True)
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of dims ``dim1`` and ``dim2``, ``offset`` to the right of the main one, as the last dim. A view.

    Shapes: (..., n, ..., m, ...) gives (..., length of the diagonal).
    Errors: AxisError if there is no such dim; ArgumentError if both are the same.
    """
    a = shapes.normalize_axis("diagonal", dim1, input.ndim)
    b = shapes.normalize_axis("diagonal", dim2, input.ndim)
    if a == b or input.ndim < 2:
        raise ArgumentError("diagonal", "two different dims", f"got {dim1} and {dim2} of shape {input.shape}")
    return call(Diagonal, input, axes=(a, b), offset=int(offset))


Diagonal.errors = (ErrorSample(lambda te: te.diagonal(te.zeros(2, 3), 0, 1, 1), ArgumentError, "two different dims"),)


@public(top=False)
def sliding_windows(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Every window of ``size`` elements along ``dimension``, ``step`` apart, as a new last dim: a copy.

    Shapes: (..., n, ...) gives (..., (n - size) // step + 1, ..., size).
    Errors: ArgumentError unless size fits and step is positive; AxisError if there is no such dim.
    """
    axis = shapes.normalize_axis("unfold", dimension, input.ndim)
    length = input.shape[axis] if input.ndim else 1
    if not 0 <= size <= length or step <= 0:
        raise ArgumentError("unfold", f"a size in [0, {length}] and a positive step", f"got {size} and {step}")
    if not input.ndim:
        return reshape(input, (1,)) if size else narrow(reshape(input, (1,)), 0, 0, 0)
    windows = (length - size) // step + 1
    places = (np.arange(windows)[:, None] * step + np.arange(size)).reshape(-1)
    taken = functions["index_select"](input, axis, tensor(places, dtype=int64, device=input.backend))
    apart = reshape(taken, (*input.shape[:axis], windows, size, *input.shape[axis + 1 :]))
    return movedim(apart, axis + 1, -1)


# Shapes like others


@public(method=True)
def ravel(input: Tensor) -> Tensor:
    """The elements in one dim; a view where possible.

    Shapes: any; returns (number of elements,).
    """
    return reshape(input, (input.numel(),))


@public(top=False, method=True)
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """As ``reshape(other.shape)``.

    Shapes: any; returns the shape of other.
    Errors: ShapeError unless that has as many elements.
    """
    return reshape(input, other.shape)


@public
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Each of ``tensors`` expanded to the shape to which all broadcast. Views.

    Shapes: any that broadcast; returns as many tensors of that shape.
    Errors: ShapeError if they do not broadcast.
    """
    items = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    shape = shapes.broadcast("broadcast_tensors", *(_tensor("broadcast_tensors", item).shape for item in items))
    return tuple(broadcast_to(item, shape) for item in items)


def _at_least(name: str, tensors: tuple[Any, ...], rank: int) -> Any:
    several = len(tensors) != 1 or isinstance(tensors[0], (tuple, list))
    items = tensors[0] if len(tensors) == 1 and several else tensors

    def widened(x: Tensor) -> Tensor:
        missing = rank - _tensor(name, x).ndim
        if missing <= 0:
            return x
        if rank == 3 and x.ndim:  # PyTorch puts rows and columns in front of the new dim
            return view(x, (*(1,) * (missing - 1), *x.shape, 1))
        return view(x, (*(1,) * missing, *x.shape))

    return tuple(widened(item) for item in items) if several else widened(items[0])


@public
def atleast_1d(*tensors: Any) -> Any:
    """A 0-d tensor as one of one dim; of several tensors, a tuple.

    Shapes: any; () gives (1,).
    """
    return _at_least("atleast_1d", tensors, 1)


@public
def atleast_2d(*tensors: Any) -> Any:
    """A tensor with dims of length one in front until there are two; of several tensors, a tuple.

    Shapes: any; () gives (1, 1), (n,) gives (1, n).
    """
    return _at_least("atleast_2d", tensors, 2)


@public
def atleast_3d(*tensors: Any) -> Any:
    """A tensor with dims of length one until there are three; of several tensors, a tuple.

    Shapes: any; () gives (1, 1, 1), (n,) gives (1, n, 1), (n, m) gives (n, m, 1).
    """
    return _at_least("atleast_3d", tensors, 3)


# Joins


@public
def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Another name of ``cat``.

    Shapes: (..., n, ...) and (..., m, ...) give (..., n + m, ...).
    Errors: as ``cat``.
    """
    return cat(tensors, dim)


@public
def concatenate(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Another name of ``cat``.

    Shapes: (..., n, ...) and (..., m, ...) give (..., n + m, ...).
    Errors: as ``cat``.
    """
    return cat(tensors, dim)


def _items(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(tensors, Tensor):
        raise DtypeError(name, "a sequence of tensors", "got one tensor", "Put it in a list.")
    items = [_tensor(name, item) for item in tensors]
    if not items:
        raise ArgumentError(name, "at least one tensor", "got none")
    return items


@public
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """``tensors`` joined along dim 1, or along dim 0 of 1-d tensors.

    Shapes: (a, n, ...) and (a, m, ...) give (a, n + m, ...).
    Errors: ShapeError if other sizes differ; ArgumentError for no tensors.
    """
    items = [_at_least("hstack", (item,), 1) for item in _items("hstack", tensors)]
    return cat(items, 0 if items[0].ndim == 1 else 1)


@public
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """``tensors`` joined along dim 0, 1-d tensors as rows.

    Shapes: (n, ...) and (m, ...) give (n + m, ...).
    Errors: ShapeError if other sizes differ; ArgumentError for no tensors.
    """
    return cat([_at_least("vstack", (item,), 2) for item in _items("vstack", tensors)], 0)


@public
def row_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Another name of ``vstack``.

    Shapes: (n, ...) and (m, ...) give (n + m, ...).
    Errors: as ``vstack``.
    """
    return vstack(tensors)


@public
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """``tensors`` joined along dim 2, after ``atleast_3d``.

    Shapes: (a, b, n, ...) and (a, b, m, ...) give (a, b, n + m, ...).
    Errors: ShapeError if other sizes differ; ArgumentError for no tensors.
    """
    return cat([_at_least("dstack", (item,), 3) for item in _items("dstack", tensors)], 2)


@public
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """``tensors`` joined along dim 1, 1-d tensors as columns.

    Shapes: (a, n, ...) and (a, m, ...) give (a, n + m, ...).
    Errors: ShapeError if other sizes differ; ArgumentError for no tensors.
    """
    items = _items("column_stack", tensors)
    return cat([reshape(item, (item.numel(), 1)) if item.ndim <= 1 else item for item in items], 1)


# Splits


@public(method=True)
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views along ``dim``: so many, the first of them one longer where they do not fit; or split before the indices.

    Shapes: (..., n, ...) gives several (..., length, ...).
    Errors: ArgumentError for less than one section; AxisError if there is no such dim.
    """
    return _split_at("tensor_split", input, indices_or_sections, dim)


def _split_at(name: str, input: Tensor, where: Any, dim: int) -> tuple[Tensor, ...]:
    if not input.ndim:
        raise AxisError(name, "a tensor of at least one dim", "got a 0-d tensor")
    axis = shapes.normalize_axis(name, dim, input.ndim)
    size = input.shape[axis]
    if isinstance(where, Tensor):
        if where.dtype is not int64 or where.ndim > 1:
            raise DtypeError(
                name,
                "int64 indices of at most one dim",
                f"got {where.dtype.name} of {where.shape}",
                "Convert them with .long() and .flatten().",
            )
        forbid_in_recording(name, "the values of a tensor of indices are read on the host; pass ints")
        where = where.tolist()
    if isinstance(where, (tuple, list)):
        bounds = [0, *(slice(int(place), None).indices(size)[0] for place in where), size]
    else:
        (sections,) = _ints(name, where)
        if sections < 1:
            raise ArgumentError(name, "at least one section", f"got {sections}")
        whole, more = divmod(size, sections)
        bounds = [k * whole + min(k, more) for k in range(sections + 1)]
    return tuple(narrow(input, axis, a, max(b - a, 0)) for a, b in pairwise(bounds))


def _even_split(name: str, input: Tensor, where: Any, dim: int, rank: int) -> tuple[Tensor, ...]:
    if input.ndim < rank:
        raise ShapeError(name, f"a tensor of at least {rank} dims", f"got {input.shape}")
    if isinstance(where, (int, np.integer)) and where > 0 and input.shape[dim] % where:
        raise ArgumentError(name, f"a divisor of {input.shape[dim]}, the length of dim {dim}", f"got {where}")
    return _split_at(name, input, where, dim)


@public(method=True)
def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Views along dim 1, or dim 0 of a 1-d tensor: so many of equal length, or split before the indices.

    Shapes: (a, n, ...) gives several (a, length, ...).
    Errors: ShapeError for a 0-d tensor; ArgumentError unless the sections divide n.
    """
    return _even_split("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1, 1)


@public(method=True)
def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Views along dim 0: so many of equal length, or split before the indices.

    Shapes: (n, ...) gives several (length, ...).
    Errors: ShapeError for less than 2 dims; ArgumentError unless the sections divide n.
    """
    return _even_split("vsplit", input, indices_or_sections, 0, 2)


@public(method=True)
def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Views along dim 2: so many of equal length, or split before the indices.

    Shapes: (a, b, n, ...) gives several (a, b, length, ...).
    Errors: ShapeError for less than 3 dims; ArgumentError unless the sections divide n.
    """
    return _even_split("dsplit", input, indices_or_sections, 2, 3)


# Elements that a mask names: how many there are is known on the host only


@public(method=True)
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of the elements that are not 0, in C order; they are found on the host.

    Shapes: any; returns (count, number of dims) int64, or with ``as_tuple`` for each dim (count,).
    Errors: CaptureError inside te.compile, where no size depends on values: use te.where.
    """
    forbid_in_recording("nonzero", "how many elements it gives is known on the host only; use te.where")
    values = input.detach().numpy()
    if as_tuple:
        return tuple(tensor(found, dtype=int64, device=input.backend) for found in np.nonzero(np.atleast_1d(values)))
    places = np.argwhere(values).astype(np.int64)
    return tensor(places, dtype=int64, device=input.backend)


@public(method=True)
def argwhere(input: Tensor) -> Tensor:
    """As ``nonzero``.

    Shapes: any; returns (count, number of dims) int64.
    Errors: as ``nonzero``.
    """
    return cast("Tensor", nonzero(input))


@public(method=True)
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where ``mask`` is true, in C order; which these are is found on the host.

    Shapes: input and mask broadcast; returns (count,).
    Errors: DtypeError unless mask is bool; CaptureError inside te.compile, where no size depends on values: use
            te.where.
    """
    if mask.dtype.name != "bool":
        raise DtypeError("masked_select", "a bool mask", f"got {mask.dtype.name}", "Compare first, e.g. x > 0.")
    forbid_in_recording("masked_select", "how many elements it gives is known on the host only; use te.where")
    shape = shapes.broadcast("masked_select", input.shape, mask.shape)
    places = np.flatnonzero(np.broadcast_to(mask.detach().numpy(), shape))
    flat = reshape(broadcast_to(input, shape), (prod(shape),))
    return cast("Tensor", functions["index_select"](flat, 0, tensor(places, dtype=int64, device=input.backend)))
