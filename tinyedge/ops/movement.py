"""Movement: ops that change where elements stand, not what they are.

Reshape, permute, expand and slices are views: they share the memory, and run no kernel. Their gradients are views of
the output's gradient where that is possible. Only ``cat`` and ``pad`` write memory: they copy into slices of the
result.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.dispatch import link, new_slot, write_into
from tinyedge.autograd.registry import also, functions, public
from tinyedge.dtypes import DType, bool_, fitting, promote
from tinyedge.errors import ArgumentError, AxisError, BackendError, DtypeError, IndexRangeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import ErrorSample, Op, Step, unbroadcast
from tinyedge.ir.values import Layout, Slot, Value
from tinyedge.kernels.lowering import gradient_kernels
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call, tensor

Range = tuple[int, int, int]  # start, length, step


class View(Op):
    """Base of the ops that run nothing: the output lies in the input's memory."""

    differentiable = ("x",)
    is_view = True
    scatters = True

    @staticmethod
    def forward(x: Any, **attrs: Any) -> Any:
        return x  # never run


class Reshape(View):
    signature = "(...)->(...)"

    @classmethod
    def view(cls, layout: Layout, **attrs: Any) -> Layout:
        strides = shapes.view_strides(layout.shape, layout.strides, attrs["shape"])
        assert strides is not None
        return Layout(attrs["shape"], strides, layout.offset)

    @classmethod
    def check_quantised(cls, layout: Layout, **attrs: Any) -> None:
        rows = attrs["shape"][:1] == layout.shape[:1]
        if not rows or not shapes.is_contiguous(layout.shape, layout.strides):
            super().check_quantised(layout, **attrs)

    @classmethod
    def gradient_view(cls, index: int, dy: Layout, shape: Shape, attrs: Mapping[str, Any]) -> Layout | None:
        strides = shapes.view_strides(dy.shape, dy.strides, shape)
        return None if strides is None else Layout(shape, strides, dy.offset)


class Permute(View):
    signature = "(...)->(...)"

    @classmethod
    def check_quantised(cls, layout: Layout, **attrs: Any) -> None:
        if len(layout.shape) != 2:
            super().check_quantised(layout, **attrs)

    @classmethod
    def view(cls, layout: Layout, **attrs: Any) -> Layout:
        shape, strides, offset = layout
        return Layout(tuple(shape[d] for d in attrs["dims"]), tuple(strides[d] for d in attrs["dims"]), offset)

    @classmethod
    def gradient_view(cls, index: int, dy: Layout, shape: Shape, attrs: Mapping[str, Any]) -> Layout | None:
        back = tuple(int(axis) for axis in np.argsort(attrs["dims"]))
        return cls.view(dy, dims=back)


class Slice(View):
    """The attribute ``ranges`` has a (start, length, step) for each axis."""

    signature = "(...)->(...)"

    @classmethod
    def view(cls, layout: Layout, **attrs: Any) -> Layout:
        ranges: tuple[Range, ...] = attrs["ranges"]
        _, strides, offset = layout
        start = builtins.sum(first * stride for (first, _, _), stride in zip(ranges, strides, strict=True))
        return Layout(
            tuple(length for _, length, _ in ranges),
            tuple(stride * step for (_, _, step), stride in zip(ranges, strides, strict=True)),
            offset + start,
        )


class Strided(View):
    """A part of a contiguous tensor that lies anywhere in it: what a view is of memory that was changed in place."""

    signature = "(...)->(...)"

    @classmethod
    def view(cls, layout: Layout, **attrs: Any) -> Layout:
        return Layout(attrs["shape"], attrs["strides"], layout.offset + attrs["offset"])


class Expand(View):
    signature = "(...)->(...)"
    scatters = False  # one element of the input is many of the output: the gradient is a sum
    strided = True

    @classmethod
    def check_quantised(cls, layout: Layout, **attrs: Any) -> None:
        """Any will do: rows stay as they are."""

    @classmethod
    def view(cls, layout: Layout, **attrs: Any) -> Layout:
        shape = attrs["shape"]
        return Layout(shape, shapes.broadcast_strides(layout.shape, layout.strides, shape), layout.offset)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        full = step.slots["dy"].shape
        return gradient_kernels(step, device, {"dx": "dy"}, full, {})

    @staticmethod
    def backward(dy: Any, *, shape: Shape, shapes: dict[str, Shape]) -> tuple[Any, ...]:
        return (unbroadcast(dy, shapes["dx"]),)


class Cat(Op):
    """Its inputs are any number; copies into slices of the output are its forward, slices of ``dy`` its gradients."""

    signature = "(...),...->(...)"

    @staticmethod
    def forward(x: Any, **attrs: Any) -> Any:
        return x  # never run

    @classmethod
    def gradient_view(cls, index: int, dy: Layout, shape: Shape, attrs: Mapping[str, Any]) -> Layout | None:
        return Slice.view(dy, ranges=attrs["parts"][index])


# Shapes


@public(variadic=True)
def reshape(input: Tensor, shape: Sequence[int]) -> Tensor:
    """The same elements in C order under another shape; one size may be -1. A view where possible, else a copy.

    Shapes: any; returns ``shape``.
    Errors: ShapeError unless that has as many elements.
    """
    target = shapes.infer_reshape("reshape", input.numel(), shape)
    slot = input._slot
    if not slot.contiguous and shapes.view_strides(slot.shape, slot.strides, target) is None:
        input = input.contiguous()
    return call(Reshape, input, shape=target)


@public(variadic=True)
def view(input: Tensor, shape: Sequence[int]) -> Tensor:
    """As ``reshape``, but never a copy.

    Shapes: any; returns ``shape``.
    Errors: ShapeError if the strides do not allow it: use reshape. NotImplementedError for a dtype: bits have one.
    """
    if len(shape) == 1 and isinstance(shape[0], DType):
        raise NotImplementedError(
            "view: a shape; bytes are not seen as another dtype. Use .to(dtype), or NumPy's view."
        )
    target = shapes.infer_reshape("view", input.numel(), shape)
    slot = input._slot
    if shapes.view_strides(slot.shape, slot.strides, target) is None:
        raise ShapeError(
            "view", f"strides that allow {target} without a copy", f"the tensor has {slot.shape} with strides "
            f"{slot.strides}", "Use reshape().",
        )  # fmt: skip
    return call(Reshape, input, shape=target)


@public(method=True)
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dims ``start_dim`` to ``end_dim`` merged into one; a 0-d tensor becomes 1-d.

    Shapes: (..., a, b, ...) gives (..., a * b, ...).
    Errors: AxisError if there is no such dim; ArgumentError if start_dim comes after end_dim.
    """
    first = shapes.normalize_axis("flatten", start_dim, input.ndim)
    last = shapes.normalize_axis("flatten", end_dim, input.ndim)
    if first > last:
        raise ArgumentError("flatten", "start_dim must not come after end_dim", f"got {start_dim} and {end_dim}")
    if input.ndim == 0:
        return reshape(input, (1,))
    merged = prod(input.shape[first : last + 1])
    return reshape(input, (*input.shape[:first], merged, *input.shape[last + 1 :]))


@public(method=True)
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Dim ``dim`` split into ``sizes``, of which one may be -1.

    Shapes: (..., n, ...) gives (..., *sizes, ...).
    Errors: ShapeError unless the sizes multiply to n; AxisError if there is no such dim.
    """
    axis = shapes.normalize_axis("unflatten", dim, input.ndim)
    parts = shapes.infer_reshape("unflatten", input.shape[axis], sizes)
    return reshape(input, (*input.shape[:axis], *parts, *input.shape[axis + 1 :]))


@public(method=True)
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the dims of length one, or without those of ``dim`` that have it.

    Shapes: (..., 1, ...) gives (..., ...).
    Errors: AxisError if there is no such dim.
    """
    if dim is None:
        chosen: tuple[int, ...] = tuple(range(input.ndim))
    elif isinstance(dim, int):
        chosen = (shapes.normalize_axis("squeeze", dim, input.ndim),)
    else:
        chosen = tuple(shapes.normalize_axis("squeeze", axis, input.ndim) for axis in dim)
    return view(input, tuple(n for axis, n in enumerate(input.shape) if axis not in chosen or n != 1))


@public(method=True)
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dim of length one inserted at ``dim``.

    Shapes: (..., ...) gives (..., 1, ...).
    Errors: AxisError unless dim is in [-ndim - 1, ndim].
    """
    axis = shapes.normalize_axis("unsqueeze", dim, input.ndim + 1)
    return view(input, (*input.shape[:axis], 1, *input.shape[axis:]))


@public(variadic=True)
def permute(input: Tensor, dims: Sequence[int]) -> Tensor:
    """The dims in another order: dim i of the result is ``dims[i]`` of the input. A view.

    Shapes: any; returns the lengths in the order of ``dims``.
    Errors: AxisError unless ``dims`` names each dim once.
    """
    order = tuple(shapes.normalize_axis("permute", int(axis), input.ndim) for axis in dims)
    if sorted(order) != list(range(input.ndim)):
        raise AxisError("permute", f"each of the {input.ndim} dims once", f"got dims={tuple(dims)}")
    return call(Permute, input, dims=order)


@public(method=True)
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dims swapped. A view.

    ``dim0`` and ``dim1`` are these two.

    Shapes: (..., a, ..., b, ...) gives (..., b, ..., a, ...).
    Errors: AxisError if there is no such dim.
    """
    order = list(range(input.ndim))
    a = shapes.normalize_axis("transpose", dim0, input.ndim)
    b = shapes.normalize_axis("transpose", dim1, input.ndim)
    if order:
        order[a], order[b] = order[b], order[a]
    return call(Permute, input, dims=tuple(order))


@public(method=True)
def t(input: Tensor) -> Tensor:
    """The transpose of a tensor of at most two dims.

    Shapes: (n, m) gives (m, n); (n,) and () stay.
    Errors: ShapeError for more dims.
    """
    if input.ndim > 2:
        raise ShapeError("t", "a tensor of at most two dims", f"got shape {input.shape}", "Use transpose or permute.")
    return permute(input, tuple(reversed(range(input.ndim))))


@public(variadic=True)
def expand(input: Tensor, sizes: Sequence[int]) -> Tensor:
    """Dims of length one repeated to ``sizes``; -1 keeps a dim. A view: the repeats share the memory.

    Shapes: any; returns ``sizes``, which may have more dims, in front.
    Errors: ShapeError unless the input broadcasts to ``sizes``.
    """
    lead = len(sizes) - input.ndim
    if lead < 0:
        raise ShapeError("expand", f"at least {input.ndim} sizes for shape {input.shape}", f"got {tuple(sizes)}")
    target = []
    for axis, wanted in enumerate(sizes):
        size = input.shape[axis - lead] if axis >= lead else None
        wanted = int(wanted)
        if wanted == -1 and size is not None:
            wanted = size
        if wanted < 0 or (size is not None and size != 1 and size != wanted):
            raise ShapeError("expand", f"sizes that {input.shape} broadcasts to", f"got {tuple(sizes)}")
        target.append(wanted)
    return call(Expand, input, shape=tuple(target))


@public(method=True)
def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """``input`` expanded to ``shape``.

    Shapes: any; returns ``shape``.
    Errors: as ``expand``.
    """
    return expand(input, shape)


# Slices


def whole(shape: Shape) -> list[Range]:
    """For each dim the range of all its places."""
    return [(0, size, 1) for size in shape]


@public(method=True)
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """``length`` elements of dim ``dim`` from ``start`` on. A view.

    Shapes: (..., n, ...) gives (..., length, ...).
    Errors: IndexRangeError if the elements are not all there; AxisError if there is no such dim.
    """
    axis = shapes.normalize_axis("narrow", dim, input.ndim)
    size = _size("narrow", input, axis)
    if isinstance(start, Tensor) and (start.ndim or start.dtype is bool_ or start.is_floating_point()):
        raise DtypeError(
            "narrow",
            "start must be an int or a 0-d integer tensor",
            f"got {start.dtype.name} of shape {start.shape}",
            "Convert it with .long().",
        )
    start, length = (_whole_number("narrow", item) for item in (start, length))
    first = start + size if start < 0 else start
    if not (0 <= first <= size and 0 <= length <= size - first):
        raise IndexRangeError(
            "narrow", f"a part of dim {dim}, which has {size} elements", f"got start={start} and length={length}"
        )
    ranges = whole(input.shape)
    ranges[axis] = (first, length, 1)
    return call(Slice, input, ranges=tuple(ranges))


@public(method=True)
def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """As ``narrow``, with memory of its own.

    Shapes: (..., n, ...) gives (..., length, ...).
    Errors: as ``narrow``.
    """
    return narrow(input, dim, start, length).clone()


def _whole_number(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise DtypeError(name, "integers", f"got {type(value).__name__}") from None


def _size(name: str, input: Tensor, axis: int) -> int:
    if not input.ndim:
        raise AxisError(name, "a tensor of at least one dim", "got a 0-d tensor")
    return input.shape[axis]


@public(method=True)
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """Element ``index`` of dim ``dim``, without that dim. A view.

    Shapes: (..., n, ...) gives (..., ...).
    Errors: IndexRangeError if there is no such element; AxisError if there is no such dim.
    """
    axis = shapes.normalize_axis("select", dim, input.ndim)
    size = _size("select", input, axis)
    if not -size <= index < size:
        raise IndexRangeError("select", f"an index in [{-size}, {size - 1}] for dim {dim}", f"got {index}")
    part = narrow(input, axis, int(index) % size, 1)
    return view(part, (*input.shape[:axis], *input.shape[axis + 1 :]))


@public
def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of equal length (the last may be shorter), or of the given lengths, along ``dim``.

    Shapes: (..., n, ...) gives several (..., length, ...).
    Errors: ArgumentError unless the length is positive, or the lengths add up to n; AxisError if there is no such dim.
    """
    axis = shapes.normalize_axis("split", dim, tensor.ndim)
    size = _size("split", tensor, axis)
    if isinstance(split_size_or_sections, int):
        step = split_size_or_sections
        if step < 0 or (step == 0 and size):
            raise ArgumentError("split", "a positive split_size", f"got {step}")
        lengths = [min(step, size - start) for start in range(0, size, step)] if size else [0]
    else:
        lengths = [int(length) for length in split_size_or_sections]
        if builtins.sum(lengths) != size or builtins.any(length < 0 for length in lengths):
            raise ArgumentError("split", f"lengths that add up to {size}", f"got {lengths}")
    starts = np.cumsum([0, *lengths])
    return tuple(narrow(tensor, axis, int(start), length) for start, length in zip(starts, lengths))


unsafe_split = also("unsafe_split", split)


@public(method=True)
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal length along ``dim``.

    Shapes: (..., n, ...) gives several (..., ceil(n / chunks), ...).
    Errors: ArgumentError if chunks < 1; AxisError if there is no such dim.
    """
    if chunks < 1:
        raise ArgumentError("chunk", "at least one chunk", f"got {chunks}")
    axis = shapes.normalize_axis("chunk", dim, input.ndim)
    size = _size("chunk", input, axis)
    if size == 0:
        return tuple(narrow(input, axis, 0, 0) for _ in range(chunks))
    return split(input, -(-size // chunks), axis)


unsafe_chunk = also("unsafe_chunk", chunk)


@public(method=True)
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Every slice along ``dim``, without that dim.

    Shapes: (..., n, ...) gives n times (..., ...).
    Errors: AxisError if there is no such dim.
    """
    axis = shapes.normalize_axis("unbind", dim, input.ndim)
    return tuple(select(input, axis, index) for index in range(_size("unbind", input, axis)))


# Joining and padding


def place(op: type[Op], inputs: Sequence[Tensor], out: Slot, parts: tuple[tuple[Range, ...], ...]) -> Tensor:
    """Copy each input into its part of ``out``, whose history that is."""
    for source, part in zip(inputs, parts, strict=True):
        write_into(source._slot, out.alias(Slice.view(out.layout(), ranges=part)))
    link(op, [source._slot for source in inputs], (out,), {"parts": parts})
    return Tensor._wrap(out)


@public
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """``tensors`` joined along ``dim``; their other sizes must be equal. An empty 1-d tensor is skipped.

    Shapes: (..., n, ...) and (..., m, ...) give (..., n + m, ...).
    Errors: ShapeError if other sizes differ; ArgumentError for no tensors; DtypeError for what is no tensor.
    """
    items = list(tensors)
    if not items:
        raise ArgumentError("cat", "at least one tensor", "got none")
    for item in items:
        if not isinstance(item, Tensor):
            raise DtypeError("cat", "tensors", f"one is {type(item).__name__}", "Convert it with te.tensor.")
        if item.backend is not items[0].backend:
            raise BackendError(
                "cat", "all tensors must be on one backend", f"got {items[0].device} and {item.device}",
                f'Move one, e.g. x.to("{items[0].device}").',
            )  # fmt: skip
    kept = [item for item in items if item.shape != (0,)] or items[:1]
    first = kept[0]
    axis = shapes.normalize_axis("cat", dim, first.ndim)
    _size("cat", first, axis)
    dtype = first.dtype
    for item in kept[1:]:
        dtype = promote(dtype, item.dtype)
        rest = [(a, b) for k, (a, b) in enumerate(zip(first.shape, item.shape)) if k != axis]
        if item.ndim != first.ndim or builtins.any(a != b for a, b in rest):
            raise ShapeError(
                "cat", f"equal shapes but for dim {dim}", "got " + " and ".join(str(t.shape) for t in items)
            )
    kept = [item.to(dtype) for item in kept]
    parts, start = [], 0
    for item in kept:
        part = whole(item.shape)
        part[axis] = (start, item.shape[axis], 1)
        parts.append(tuple(part))
        start += item.shape[axis]
    shape = (*first.shape[:axis], start, *first.shape[axis + 1 :])
    return place(Cat, kept, new_slot(first.backend, dtype, shape), tuple(parts))


@public
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """``tensors`` of one shape joined along a new dim.

    Shapes: n times (..., ...) give (..., n, ...).
    Errors: ShapeError unless the shapes are equal; ArgumentError for no tensors.
    """
    items = list(tensors)
    if not items:
        raise ArgumentError("stack", "at least one tensor", "got none")
    if builtins.any(item.shape != items[0].shape for item in items):
        raise ShapeError("stack", "equal shapes", "got " + " and ".join(str(item.shape) for item in items))
    return cat([unsqueeze(item, dim) for item in items], shapes.normalize_axis("stack", dim, items[0].ndim + 1))


@public(functional=True)
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """``value`` (0) around ``input``: pad = (before, after) of the last dim, then of the one before it, and so on.

    Negative amounts cut. ``mode`` "reflect", "replicate" or "circular" puts the input's own elements there instead;
    "symmetric", which PyTorch has not, mirrors them with the outermost ones.

    Shapes: (..., n) gives (..., before + n + after).
    Errors: ArgumentError for another mode, or if one but "replicate" needs more elements than there are.
    """
    if mode not in ("constant", *PAD_MODES):
        raise ArgumentError("pad", f"mode must be one of constant, {', '.join(PAD_MODES)}", f"got {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ArgumentError("pad", f"pairs for at most {input.ndim} dims", f"got pad={tuple(pad)}")
    amounts = [(0, 0)] * input.ndim
    for k in range(len(pad) // 2):
        amounts[input.ndim - 1 - k] = (int(pad[2 * k]), int(pad[2 * k + 1]))
    if mode != "constant":
        return _pad_with_own(input, amounts, mode)
    inside = [
        (max(-before, 0), n + min(before, 0) + min(after, 0), 1) for n, (before, after) in zip(input.shape, amounts)
    ]
    if builtins.any(length < 0 for _, length, _ in inside):
        raise ShapeError("pad", "sizes of at least 0 after padding", f"got shape {input.shape} and pad={tuple(pad)}")
    if builtins.any(min(pair) < 0 for pair in amounts):
        input = call(Slice, input, ranges=tuple(inside))
    added = [(max(before, 0), max(after, 0)) for before, after in amounts]
    if not builtins.any(before or after for before, after in added):
        return input.clone()
    shape = tuple(n + before + after for n, (before, after) in zip(input.shape, added))
    out = new_slot(input.backend, input.dtype, shape)
    number = value or 0
    if not input.is_floating_point():
        number = fitting("pad", bool(number) if input.dtype is bool_ else int(number), input.dtype)
    write_into(Value(number, input.dtype), out)
    part = tuple((before, n, 1) for n, (before, _) in zip(input.shape, added))
    return place(Cat, [input], out, (part,))


PAD_MODES = ("reflect", "replicate", "circular", "symmetric")


def _pad_with_own(input: Tensor, amounts: Sequence[tuple[int, int]], mode: str) -> Tensor:
    for axis, (before, after) in enumerate(amounts):
        if not before and not after:
            continue
        size = input.shape[axis]
        limit = {"reflect": size - 1, "circular": size, "symmetric": size}.get(mode, max(before, after) if size else 0)
        if max(before, after) > limit:
            raise ArgumentError("pad", f"at most {limit} around dim {axis} for mode {mode!r}", f"got {before}, {after}")
        around = (max(before, 0), max(after, 0))
        if mode == "circular":  # PyTorch cuts first here, and wraps what is left
            places = np.pad(np.arange(max(-before, 0), size - max(-after, 0)), around, "wrap")
        else:
            numpys: Any = "edge" if mode == "replicate" else mode
            places = np.pad(np.arange(size), around, numpys)
            places = places[max(-before, 0) : len(places) - max(-after, 0)]
        input = functions["index_select"](input, axis, tensor(places, device=input.backend))
    return input


Reshape.errors = (
    ErrorSample(lambda te: te.zeros(2, 3).reshape(4, 2), ShapeError, "the input has 6 elements"),
    ErrorSample(lambda te: te.zeros(2, 3).T.view(6), ShapeError, "Use reshape()"),
)
Permute.errors = (ErrorSample(lambda te: te.zeros(2, 3).permute(0, 0), AxisError, "each of the 2 dims once"),)
Expand.errors = (ErrorSample(lambda te: te.zeros(2, 3).expand(4, 3), ShapeError, "broadcasts to"),)
Cat.errors = (ErrorSample(lambda te: te.cat([te.zeros(2, 3), te.zeros(2, 4)]), ShapeError, "equal shapes but for"),)


def unshared(result: Tensor, input: Tensor) -> Tensor:
    """``result``, or a copy if it is a view of ``input``: for functions whose results have memory of their own."""
    if result._slot.storage is not input._slot.storage:
        return result
    copy: Tensor = functions["clone"](result)
    return copy
