"""Views, indexing and recurrences as ONNX's nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.onnx_emit import Emitter, V, emits
from tinyedge.convert.onnx_emit_arithmetic import number, refuse_if
from tinyedge.shapes import Shape

END = np.iinfo(np.int64).max


@emits("clone")
def clone(b: Emitter, x: V) -> Any:
    return x.name


@emits("flip")
def flip(b: Emitter, x: V, axes: tuple[int, ...]) -> Any:
    if not axes:
        return x.name
    count = len(axes)
    return b.node("Slice", x, b.const([-1] * count), b.const([-END] * count), b.const(axes), b.const([-1] * count))


def _trilu(upper: int) -> Any:
    def convert(b: Emitter, x: V, diagonal: int) -> Any:
        if x.dtype is not dtypes.bool_:
            return b.node("Trilu", x, b.const(diagonal), upper=upper)
        return b.cast(b.node("Trilu", b.cast(x, dtypes.int32), b.const(diagonal), upper=upper), dtypes.bool_)

    return convert


emits("tril")(_trilu(0))
emits("triu")(_trilu(1))


@emits("embedding")
def embedding(b: Emitter, index: V, weight: V, ignored: int, by_frequency: bool) -> Any:
    return b.node("Gather", weight, index, axis=0)


@emits("index_select")
def index_select(b: Emitter, x: V, index: V, dim: int, caller: str) -> Any:
    return b.node("Gather", x, index, axis=dim)


@emits("gather")
def gather(b: Emitter, x: V, index: V, dim: int) -> Any:
    for axis in range(x.ndim):  # GatherElements wants equal sizes; an index may be shorter
        if axis != dim and x.shape[axis] != index.shape[axis]:
            refuse_if(x.varies(axis) or index.varies(axis), "of lengths that follow the inputs'")
            x = x._replace(name=b.node("Slice", x, b.const([0]), b.const([index.shape[axis]]), b.const([axis])))
    return b.node("GatherElements", x, index, axis=dim)


@emits("wrap_index")
def wrap_index(b: Emitter, index: V, size: int, caller: str) -> Any:
    return b.node("Where", b.node("Less", index, number(b, 0)), b.node("Add", index, number(b, size)), index)


@emits("one_hot")
def one_hot(b: Emitter, index: V, num_classes: int) -> Any:
    equal = b.node("Equal", b.node("Unsqueeze", index, b.const([-1])), b.const(np.arange(num_classes), index.dtype))
    return b.cast(equal, dtypes.int64)


def _scattered(b: Emitter, x: V, index: V, source: V, dim: int, reduction: str | None) -> Any:
    for axis in range(source.ndim):
        if source.shape[axis] != index.shape[axis]:
            refuse_if(source.varies(axis) or index.varies(axis), "of lengths that follow the inputs'")
            source = source._replace(
                name=b.node("Slice", source, b.const([0]), b.const([index.shape[axis]]), b.const([axis]))
            )
    return b.node("ScatterElements", x, index, source, axis=dim, reduction=reduction)


@emits("scatter")
def scatter(b: Emitter, x: V, index: V, source: V, dim: int, caller: str) -> Any:
    return _scattered(b, x, index, source, dim, None)


@emits("scatter_add")
def scatter_add(b: Emitter, x: V, index: V, source: V, dim: int, caller: str) -> Any:
    return _scattered(b, x, index, source, dim, "add")


@emits("index_add")
def index_add(b: Emitter, x: V, index: V, source: V, dim: int, caller: str) -> Any:
    column = b.node("Unsqueeze", index, b.const([axis for axis in range(len(x.shape)) if axis != dim]))
    places = b.node("Expand", column, b.node("Shape", source))
    return b.node("ScatterElements", x, places, source, axis=dim, reduction="add")


@emits("scatter_reduce")
def scatter_reduce(b: Emitter, x: V, index: V, source: V, dim: int, caller: str, combine: str) -> Any:
    return _scattered(b, x, index, source, dim, {"prod": "mul", "amax": "max", "amin": "min"}[combine])


@emits("rotary_embedding")
def rotary_embedding(
    b: Emitter, x: V, positions: V | None, frequencies: V, interleaved: bool, seq_dim: int, offset: int, factor: float
) -> Any:
    half, features = frequencies.shape[0], x.shape[-1]
    if positions is None:
        if x.varies(seq_dim):
            count = b.node("Squeeze", b.length(x.name, seq_dim), b.const([0]))
            ends = b.node("Add", count, b.const(offset))
            places = b.cast(b.node("Range", b.const(offset), ends, b.const(1)), x.dtype)
        else:
            places = b.const(np.arange(x.shape[seq_dim]) + offset, x.dtype)
        rank = 1
    else:
        places, rank = b.as_dtype(positions, x.dtype).name, positions.ndim
    after = x.ndim - 2 - seq_dim
    between = list(range(1, 1 + seq_dim - (rank - 1))) if rank == 2 else []
    for axis in between:
        places = b.node("Unsqueeze", places, b.const([axis]))
    axes = [-1 - n for n in range(after + 1)]
    places = b.node("Unsqueeze", places, b.const(sorted(axes)))
    angles = b.node("Mul", places, b.as_dtype(frequencies, x.dtype))
    cos, sin = (b.node("Mul", b.node(op, angles), number(b, factor)) for op in ("Cos", "Sin"))

    def part(first: int, last: int, step: int) -> str:
        return str(b.node("Slice", x, b.const([first]), b.const([last]), b.const([-1]), b.const([step])))

    if interleaved:
        one, other = part(0, 2 * half, 2), part(1, 2 * half, 2)
    else:
        one, other = part(0, half, 1), part(half, 2 * half, 1)
    turned = [
        b.node("Sub", b.node("Mul", one, cos), b.node("Mul", other, sin)),
        b.node("Add", b.node("Mul", other, cos), b.node("Mul", one, sin)),
    ]
    if interleaved:
        pairs = b.node("Concat", *[b.node("Unsqueeze", y, b.const([-1])) for y in turned], axis=-1)
        shape, twin = ((*s[:-1], 2 * half) for s in (x.shape, x.twin))
        turned = [b.reshape(pairs, shape, twin)]
    rest = [part(2 * half, features, 1)] if features > 2 * half else []
    return turned[0] if len(turned) + len(rest) == 1 else b.node("Concat", *turned, *rest, axis=-1)


# Views


@emits("permute")
def permute(b: Emitter, x: V, dims: Shape) -> Any:
    return b.node("Transpose", x, perm=dims) if tuple(dims) != tuple(range(x.ndim)) else x.name


@emits("reshape")
def reshape(b: Emitter, x: V, shape: Shape) -> Any:
    out = b.out[0]
    return x.name if out.shape == x.shape and out.twin == x.twin else b.reshape(x, out.shape, out.twin)


@emits("expand")
def expand(b: Emitter, x: V, shape: Shape) -> Any:
    out = b.out[0]
    if out.shape == x.shape and out.twin == x.twin:
        return x.name
    lead = len(out.shape) - x.ndim
    kept = [
        n >= lead and x.shape[n - lead] == out.shape[n] and x.twin[n - lead] == out.twin[n] for n in range(out.ndim)
    ]
    sizes, twins = ([1 if keep else size for keep, size in zip(kept, s)] for s in (out.shape, out.twin))
    return b.node("Expand", x, b.sizes(tuple(sizes), tuple(twins)))


@emits("diagonal")
def diagonal(b: Emitter, x: V, axes: tuple[int, int], offset: int) -> Any:
    first, second = axes
    out = b.out[0]
    refuse_if(any(x.varies(axis) for axis in axes), "of dims whose lengths follow the inputs'")
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    y = b.node("Transpose", x, perm=[*rest, first, second])
    wide = x.shape[second]
    shape, twin = ((*(s[axis] for axis in rest), s[first] * s[second]) for s in (x.shape, x.twin))
    down, right = max(-offset, 0), max(offset, 0)
    places = (np.arange(out.shape[-1]) + down) * wide + np.arange(out.shape[-1]) + right
    return b.node("Gather", b.reshape(y, shape, twin), b.const(places), axis=-1)


def sliced(b: Emitter, x: V, ranges: Any, twins: Any) -> Any:
    """``x[start : start + length * step : step]`` of each dim. Of another example the ranges are ``twins``."""
    starts: list[int | str] = []
    ends: list[int | str] = []
    axes, steps = [], []
    for axis, (own, other) in enumerate(zip(ranges, twins)):
        size, twin = x.shape[axis], x.twin[axis]
        if own == (0, size, 1) and other == (0, twin, 1):
            continue
        step = own[2]
        refuse_if(step != other[2] or step < 1, "with a step that follows the inputs' lengths")
        last, twin_last = _last(own), _last(other)
        to_end = last + step > size and twin_last + step > twin  # no further element would be there
        starts.append(_bound(b, own[0], other[0], size, twin))
        ends.append(END if to_end and last != twin_last else _bound(b, last, twin_last, size, twin))
        axes.append(axis)
        steps.append(step)
    if not axes:
        return x.name
    parts = [_vector(b, starts), _vector(b, ends), b.const(axes)]
    return b.node("Slice", x, *parts, *([b.const(steps)] if set(steps) != {1} else []))


def _last(part: tuple[int, int, int]) -> int:
    """Behind the last element of a range."""
    start, length, step = part
    return start + (length - 1) * step + 1 if length else start


def _bound(b: Emitter, value: int, other: int, size: int, twin: int) -> int | str:
    """A place in a dim of the length ``size``, or ``twin``: a number, or from the end, or a length (1,)."""
    if value == other:
        return value
    if (value, other) == (size, twin):
        return END
    return value - size if value - size == other - twin else b.size(value, other)


def _vector(b: Emitter, values: list[int | str]) -> str:
    if all(isinstance(value, int) for value in values):
        return b.const(values)
    parts = [b.const([value]) if isinstance(value, int) else value for value in values]
    return str(b.node("Concat", *parts, axis=0))


# Recurrences

ORDERS = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "tanh": (0,), "relu": (0,)}
"""Where ONNX's gates are among ours."""


def _gates(b: Emitter, value: V | str, kind: str, size: int) -> str:
    """Rows of a weight in ONNX's order of gates, with a dim for the direction."""
    order = ORDERS[kind]
    name = value.name if isinstance(value, V) else value
    if len(order) > 1:
        parts = b.node("Split", value, b.const([size] * len(order)), axis=0, count=len(order))
        name = b.node("Concat", *[parts[n] for n in order], axis=0)
    return str(b.node("Unsqueeze", name, b.const([0])))


def _inputs(b: Emitter, x: V) -> tuple[str, str, str | None] | None:
    """The input, weight and bias of which ``x`` is the product, if it is one."""
    node = b.makers.get(x.name)
    while node is not None and node.op_type == "Reshape":
        node = b.makers.get(node.input[0])
    if node is None or node.op_type != "Gemm" or node.input[1] not in b.arrays:
        return None
    rows, wide = b.arrays[node.input[1]][0].shape
    if rows != x.shape[2]:
        return None
    given = b.reshape(node.input[0], (*x.shape[:2], wide), (*x.twin[:2], wide))
    return given, node.input[1], node.input[2] if len(node.input) > 2 else None


@emits("recurrence")
def recurrence(
    b: Emitter,
    x: V,
    hidden: V,
    weight: V,
    cell: V | None,
    bias: V | None,
    projection: V | None,
    lengths: V | None,
    kind: str,
    reverse: bool,
) -> Any:
    refuse_if(projection is not None, "with a projection")
    size = hidden.shape[1]
    op = {"lstm": "LSTM", "gru": "GRU"}.get(kind, "RNN")
    rows = len(ORDERS[kind]) * size
    inputs = _inputs(b, x)
    if inputs is None:  # x holds products already: a weight only orders them
        order = np.concatenate([np.arange(gate * size, gate * size + size) for gate in ORDERS[kind]])
        given: Any = x
        own, own_bias = b.cast(b.const(np.eye(rows, dtype=np.int64)[order][None]), x.dtype), None
    else:
        given, weight_ih, own_bias = inputs
        own = _gates(b, weight_ih, kind, size)
    shift = None
    if bias is not None or own_bias is not None:
        parts = [
            b.filled((1, rows), 0, x.dtype) if part is None else _gates(b, part, kind, size)
            for part in (own_bias, bias)
        ]
        shift = b.node("Concat", *parts, axis=1)
    ends = None if lengths is None else b.as_dtype(lengths, dtypes.int32)
    states = [b.node("Unsqueeze", state, b.const([0])) for state in (hidden, cell) if state is not None]
    found = b.node(
        op, given, own, _gates(b, weight, kind, size), shift, ends, *states, hidden_size=size,
        direction="reverse" if reverse else "forward", activations=["Relu"] if kind == "relu" else None,
        linear_before_reset=1 if kind == "gru" else None, count=3 if kind == "lstm" else 2,
    )  # fmt: skip
    y = b.node("Squeeze", found[0], b.const([1]))
    lasts = [b.node("Squeeze", last, b.const([0])) for last in found[1:]]
    return y, lasts[0], lasts[1] if kind == "lstm" else None, None, None, None


__all__ = ["sliced"]
