"""Ops of TensorFlow and TFLite that are none of ONNX's, each in tinyedge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyedge import dtypes, ops
from tinyedge.convert import windows
from tinyedge.convert.build import folded_size
from tinyedge.convert.graph import Array
from tinyedge.convert.handlers import Handlers
from tinyedge.convert.norms import How, batch_norm
from tinyedge.convert.onnx_registry import Ints, ints
from tinyedge.convert.onnx_resize import Sampling, resized
from tinyedge.errors import ShapeError
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, tensor

TENSORFLOW = Handlers()

# Slices


def strided_index(rank: int, begin: Ints, end: Ints, strides: Ints, masks: Ints) -> tuple[list[Any], list[int]]:
    """NumPy's index for TensorFlow's strided slice, and the axes of its result that are then put in with length 1.

    ``masks`` are those of begin, end, ellipsis, new axis and shrink axis.
    """
    begins, ends, ellipsis, new, shrink = masks
    count = len(begin)
    if not count == len(end) == len(strides) or 0 in strides or count > 32 or bin(ellipsis).count("1") > 1:
        raise ShapeError("StridedSlice", "as many begins, ends and strides, none 0", f"got {begin, end, strides}")
    after = [n for n in range(count) if not (ellipsis >> n & 1) and not (new >> n & 1)]
    rest = rank - len(after)
    if rest < 0:
        raise ShapeError("StridedSlice", f"at most {rank} slices", f"got {len(after)}")
    index: list[Any] = []
    fresh: list[int] = []
    made = 0  # dims of the result so far
    for n in range(count):
        if ellipsis >> n & 1:
            index += [slice(None)] * rest
            made += rest
        elif new >> n & 1:
            fresh.append(made)
            made += 1
        elif shrink >> n & 1:
            index.append(0 if begins >> n & 1 else begin[n])
        else:
            first = None if begins >> n & 1 else begin[n]
            last = None if ends >> n & 1 else end[n]
            index.append(slice(first, last, strides[n]))
            made += 1
    return index, fresh


def _with_axes(shape: Sequence[int], fresh: list[int]) -> Ints:
    sizes = list(shape)
    for place in fresh:
        sizes.insert(place, 1)
    return tuple(sizes)


@TENSORFLOW.op("StridedSlice", host=("begin", "end", "strides"), passes=True)
def strided_slice(x: Tensor, begin: Array, end: Array, strides: Array, *, masks: Ints) -> Tensor:
    wanted, fresh = strided_index(x.ndim, ints(begin), ints(end), ints(strides), masks)
    gone = []
    for dim, part in enumerate(wanted):
        lead = [slice(None)] * dim
        if isinstance(part, int):
            if not -x.shape[dim] <= part < x.shape[dim]:
                raise ShapeError("StridedSlice", f"an index of {x.shape[dim]} places", f"got {part}")
            part = part % x.shape[dim]
            index = (*lead, slice(part, part + 1))
            x = x[index]
            gone.append(dim)
            continue
        start, stop, step = part.indices(x.shape[dim])
        count = len(range(start, stop, step))
        if step < 0 and count:  # the same elements upwards, and then turned round
            lowest = start + (count - 1) * step
            index = (*lead, slice(lowest, start + 1, -step))
            x = ops.flip(x[index], (dim,))
        elif count < x.shape[dim]:
            index = (*lead, slice(start, stop, step) if count else slice(0, 0))
            x = x[index]
    sizes = [size for dim, size in enumerate(x.shape) if dim not in gone]
    return x.reshape(_with_axes(sizes, fresh)) if gone or fresh else x


@TENSORFLOW.on_host("StridedSlice")
def host_strided_slice(x: Array, begin: Array, end: Array, strides: Array, *, masks: Ints) -> Array:
    index, fresh = strided_index(x.ndim, ints(begin), ints(end), ints(strides), masks)
    y = np.asarray(x[tuple(index)])
    return y.reshape(_with_axes(y.shape, fresh))


@TENSORFLOW.op("SizedSlice", host=("begin", "size"), passes=True)
def sized_slice(x: Tensor, begin: Array, size: Array) -> Tensor:
    """From ``begin`` on, ``size`` elements of each dim; -1 for all that there are."""
    for dim, part in enumerate(sized_index(x.shape, begin, size)):
        if part != slice(0, x.shape[dim]):
            index = (*[slice(None)] * dim, part)
            x = x[index]
    return x


def sized_index(shape: Sequence[int], begin: Array, size: Array) -> list[slice]:
    """The slices of each dim."""
    starts, counts = ints(begin), ints(size)
    if not len(starts) == len(counts) == len(shape):
        raise ShapeError("Slice", f"a begin and a size for each dim of {tuple(shape)}", f"got {starts} and {counts}")
    found = []
    for whole, start, count in zip(shape, starts, counts):
        stop = whole if count == -1 else start + count
        if not 0 <= start <= stop <= whole:
            raise ShapeError("Slice", f"parts of {tuple(shape)}", f"got {counts} from {starts} on")
        found.append(slice(start, stop))
    return found


@TENSORFLOW.on_host("SizedSlice")
def host_sized_slice(x: Array, begin: Array, size: Array) -> Array:
    return x[tuple(sized_index(x.shape, begin, size))]


@TENSORFLOW.op("BatchGather")
def batch_gather(x: Tensor, indices: Tensor, *, axis: int, batch_dims: int) -> Tensor:
    """Gather along ``axis``, for each place of the first ``batch_dims`` dims on its own."""
    axis = axis + x.ndim if axis < 0 else axis
    batch_dims = batch_dims + indices.ndim if batch_dims < 0 else batch_dims
    if not 0 <= batch_dims <= axis < x.ndim or x.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise ShapeError("Gather", "indices with the batch dims of the data", f"got {indices.shape} for {x.shape}")
    lead, middle, rest = x.shape[:batch_dims], x.shape[batch_dims:axis], x.shape[axis + 1 :]
    groups, size = math.prod(lead), x.shape[axis]
    turned = ops.movedim(x, axis, batch_dims).reshape((groups * size, *middle, *rest))
    wanted = indices.to(dtypes.int64).reshape((groups, math.prod(indices.shape[batch_dims:])))
    offset = ops.arange(groups, device=x.backend).reshape((-1, 1)) * size
    picked = ops.index_select(turned, 0, (wanted + offset).reshape((-1,)))
    own = indices.shape[batch_dims:]
    picked = picked.reshape((*lead, *own, *middle, *rest))
    for place in range(len(middle)):  # before the indices' own dims, where the file has them
        picked = ops.movedim(picked, batch_dims + len(own) + place, batch_dims + place)
    return picked


@TENSORFLOW.op("MatrixTranspose", passes=True)
def matrix_transpose(x: Tensor) -> Tensor:
    """The last two dims exchanged."""
    return ops.transpose(x, -1, -2)


@TENSORFLOW.op("Permute", host=("perm",), passes=True)
def permute(x: Tensor, perm: Array) -> Tensor:
    """Dims in an order that is known when the model is called."""
    return ops.permute(x, ints(perm))


@TENSORFLOW.on_host("Permute")
def host_permute(x: Array, perm: Array) -> Array:
    return np.transpose(x, ints(perm))


# Images


@TENSORFLOW.op("ConvTransposeTo", host=("sizes",), trained=("weight", "bias"))
def conv_transpose_to(
    x: Tensor,
    weight: Tensor,
    sizes: Array,
    bias: Tensor | None = None,
    *,
    strides: Ints,
    dilations: Ints = (1, 1),
    same: int,
    pads: Ints = (),
) -> Tensor:
    """The gradient of a convolution of images of ``sizes``, as TensorFlow transposes one: what padding by name does
    not divide evenly is after the end.
    """
    kernel, wanted = weight.shape[2:], ints(sizes)
    if len(wanted) != 2 or x.ndim != 4:
        raise ShapeError("conv_transpose", "images and the sizes of two dims", f"got {x.shape} and {wanted}")
    around = []
    for n, (size, k, s, d) in enumerate(zip(wanted, kernel, strides, dilations)):
        whole = (x.shape[2 + n] - 1) * s + (k - 1) * d + 1
        before = windows.same_pads(size, k, s, d)[0] if same else pads[2 * n] if pads else 0
        fits = -(-size // s) if same else (size + sum(pads[2 * n : 2 * n + 2]) - (k - 1) * d - 1) // s + 1
        if fits != x.shape[2 + n]:
            raise ShapeError("conv_transpose", f"a size from which {x.shape[2 + n]} windows come", f"got {size}")
        around.append((before, whole - size - before))
    return windows.conv_transpose(x, weight, bias, tuple(strides), around, (0, 0), tuple(dilations), 1)


@TENSORFLOW.op("SpaceToBatch", host=("block", "pads"))
def space_to_batch(x: Tensor, block: Array, pads: Array) -> Tensor:
    """Each ``block`` of the dims after the first goes to the batch, after padding."""
    sizes, pairs = ints(block), np.asarray(pads, np.int64).reshape(-1, 2).tolist()
    count = len(sizes)
    if len(pairs) != count or x.ndim < 1 + count or any(size < 1 for size in sizes):
        raise ShapeError("SpaceToBatch", "a block and padding for dims that there are", f"got {sizes} and {pairs}")
    flat = [pad for pair in reversed(pairs) for pad in pair]
    rest = x.ndim - 1 - count
    x = F.pad(x, [0, 0] * rest + flat) if any(flat) else x
    shape = [x.shape[0]]
    for n, size in enumerate(sizes):
        if x.shape[1 + n] % size:
            raise ShapeError("SpaceToBatch", f"dims that {sizes} divides", f"got {x.shape}")
        shape += [x.shape[1 + n] // size, size]
    tail = x.shape[1 + count :]
    y = x.reshape((*shape, *tail))
    order = [*range(2, 1 + 2 * count, 2), 0, *range(1, 1 + 2 * count, 2), *range(1 + 2 * count, y.ndim)]
    return ops.permute(y, tuple(order)).reshape((shape[0] * math.prod(sizes), *shape[1::2], *tail))


@TENSORFLOW.op("BatchToSpace", host=("block", "crops"))
def batch_to_space(x: Tensor, block: Array, crops: Array) -> Tensor:
    """What ``SpaceToBatch`` put into the batch goes back, and ``crops`` are cut off."""
    sizes, pairs = ints(block), np.asarray(crops, np.int64).reshape(-1, 2).tolist()
    count, whole = len(sizes), math.prod(sizes)
    if len(pairs) != count or x.ndim < 1 + count or whole < 1 or x.shape[0] % whole:
        raise ShapeError("BatchToSpace", "a batch that the block divides", f"got {x.shape} for {sizes}")
    tail = x.shape[1 + count :]
    y = x.reshape((*sizes, x.shape[0] // whole, *x.shape[1:]))
    order = [count]
    for n in range(count):
        order += [count + 1 + n, n]
    order += range(2 * count + 1, y.ndim)
    spread = [x.shape[1 + n] * size for n, size in enumerate(sizes)]
    y = ops.permute(y, tuple(order)).reshape((x.shape[0] // whole, *spread, *tail))
    for n, (before, after) in enumerate(pairs):
        if before < 0 or after < 0 or before + after > spread[n]:
            raise ShapeError("BatchToSpace", f"crops of {spread}", f"got {pairs}")
        if before or after:
            index = (*[slice(None)] * (1 + n), slice(before, spread[n] - after))
            y = y[index]
    return y


@TENSORFLOW.op("SymmetricPad", host=("pads",))
def symmetric_pad(x: Tensor, pads: Array) -> Tensor:
    """Padding by a mirror that stands outside the last element, which is seen twice."""
    sizes = ints(pads)
    for dim in range(x.ndim):
        before, after = sizes[dim], sizes[dim + x.ndim]
        if not 0 <= before <= x.shape[dim] or not 0 <= after <= x.shape[dim]:
            raise ShapeError("MirrorPad", f"padding within {x.shape}", f"got {sizes}")
        if before or after:
            index = np.pad(np.arange(x.shape[dim]), (before, after), mode="symmetric")
            x = ops.index_select(x, dim, tensor(index, device=x.backend))
    return x


@TENSORFLOW.op("ChannelNorm", trained=("scale", "bias"), kept=("mean", "var"))
def channel_norm(
    x: Tensor,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float,
    training: How,
) -> Tensor:
    """Batch norm that lacks a scale, a bias, or statistics of its own."""
    return batch_norm("ChannelNorm", x, mean, var, scale, bias, epsilon, 0.1, training)


# Numbers


@TENSORFLOW.op("FloorDiv")
def floor_div(a: Tensor, b: Tensor) -> Tensor:
    return ops.div(a, b, rounding_mode="floor")


@TENSORFLOW.on_host("FloorDiv")
def host_floor_div(a: Array, b: Array) -> Array:
    if a.dtype.kind != "f" and not b.all():
        raise ValueError("an integer is divided by 0")
    folded_size(np.broadcast_shapes(a.shape, b.shape))
    return np.asarray(np.floor_divide(a, b))


@TENSORFLOW.op("FloorMod")
def floor_mod(a: Tensor, b: Tensor) -> Tensor:
    return ops.remainder(a, b)


@TENSORFLOW.on_host("FloorMod")
def host_floor_mod(a: Array, b: Array) -> Array:
    if a.dtype.kind != "f" and not b.all():
        raise ValueError("an integer is divided by 0")
    folded_size(np.broadcast_shapes(a.shape, b.shape))
    return np.asarray(np.mod(a, b))


@TENSORFLOW.op("DivNoNan")
def div_no_nan(a: Tensor, b: Tensor) -> Tensor:
    """0 where ``b`` is 0."""
    nothing = b == 0
    y = a / ops.where(nothing, ops.ones_like(b), b)
    return ops.where(nothing, ops.zeros_like(y), y)


@TENSORFLOW.op("Atan2")
def atan2(a: Tensor, b: Tensor) -> Tensor:
    return ops.atan2(a, b)


@TENSORFLOW.op("ComplexAbs")
def complex_abs(real: Tensor, imaginary: Tensor) -> Tensor:
    """The gradient of 0 is 0."""
    nothing = ops.logical_and(real == 0, imaginary == 0)
    length = ops.hypot(ops.where(nothing, ops.ones_like(real), real), imaginary)
    return ops.where(nothing, ops.zeros_like(length), length)


@TENSORFLOW.op("Rsqrt")
def rsqrt(x: Tensor) -> Tensor:
    return ops.rsqrt(x)


@TENSORFLOW.on_host("Rsqrt")
def host_rsqrt(x: Array) -> Array:
    return np.asarray(1 / np.sqrt(x), x.dtype)


@TENSORFLOW.op("Log1p")
def log1p(x: Tensor) -> Tensor:
    return ops.log1p(x)


@TENSORFLOW.op("Expm1")
def expm1(x: Tensor) -> Tensor:
    return ops.expm1(x)


@TENSORFLOW.op("Erfc")
def erfc(x: Tensor) -> Tensor:
    return ops.erfc(x)


@TENSORFLOW.op("Xlogy")
def xlogy(a: Tensor, b: Tensor) -> Tensor:
    return ops.xlogy(a, b)


@TENSORFLOW.op("Xdivy")
def xdivy(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``; 0 where ``a`` is 0."""
    nothing = a == 0
    return ops.where(nothing, ops.zeros_like(a * b), a / ops.where(nothing, ops.ones_like(b), b))


@TENSORFLOW.op("Roll", host=("shifts", "dims"))
def roll(x: Tensor, shifts: Array, dims: Array) -> Tensor:
    return ops.roll(x, ints(shifts), ints(dims))


@TENSORFLOW.op("BroadcastShapes", host=("a", "b"))
def broadcast_shapes(a: Array, b: Array) -> Array:
    return np.array(np.broadcast_shapes(ints(a), ints(b)), a.dtype)


@TENSORFLOW.on_host("BroadcastShapes")
def host_broadcast_shapes(a: Array, b: Array) -> Array:
    return broadcast_shapes(a, b)


@TENSORFLOW.op("ResizeBicubic", host=("sizes",))
def resize_bicubic(x: Tensor, sizes: Array, *, half: int) -> Tensor:
    """TensorFlow takes the weights from a table of 1024 places between two elements."""
    whole = (*x.shape[:2], *ints(sizes))
    factors = tuple(size / max(n, 1) for size, n in zip(whole, x.shape, strict=True))
    if half:
        return resized(x, whole, factors, Sampling("cubic", "half_pixel", cubic=-0.5, inside=True, places=1024))
    return resized(x, whole, factors, Sampling("cubic", "asymmetric", places=1024))


@TENSORFLOW.op("Reverse", host=("axes",))
def reverse(x: Tensor, axes: Array) -> Tensor:
    dims = ints(axes)
    return ops.flip(x, dims) if dims else x


@TENSORFLOW.on_host("Reverse")
def host_reverse(x: Array, axes: Array) -> Array:
    return np.flip(x, ints(axes))


@TENSORFLOW.op("Broadcast", host=("shape",))
def broadcast(x: Tensor, shape: Array) -> Tensor:
    return ops.broadcast_to(x, ints(shape))


@TENSORFLOW.on_host("Broadcast")
def host_broadcast(x: Array, shape: Array) -> Array:
    return np.array(np.broadcast_to(x, folded_size(ints(shape))))


@TENSORFLOW.op("LinSpace", host=("first", "last", "count"))
def linspace(first: Array, last: Array, count: Array) -> Array:
    """So many numbers, evenly spaced."""
    (size,) = folded_size((int(count.item()),))
    return np.asarray(np.linspace(float(first.item()), float(last.item()), size), first.dtype)


@TENSORFLOW.on_host("LinSpace")
def host_linspace(first: Array, last: Array, count: Array) -> Array:
    return linspace(first, last, count)


@TENSORFLOW.op("Filled", host=("shape", "value"))
def filled(shape: Array, value: Array) -> Array:
    if value.size != 1:
        raise ShapeError("Fill", "one number", f"got the shape {value.shape}")
    return np.full(folded_size(ints(shape)), value.reshape(()))


@TENSORFLOW.on_host("Filled")
def host_filled(shape: Array, value: Array) -> Array:
    return filled(shape, value)


@TENSORFLOW.op("ZerosLike")
def zeros_like(x: Tensor) -> Tensor:
    return ops.zeros_like(x)


@TENSORFLOW.on_host("ZerosLike")
def host_zeros_like(x: Array) -> Array:
    return np.zeros_like(x)


@TENSORFLOW.op("OnesLike")
def ones_like(x: Tensor) -> Tensor:
    return ops.ones_like(x)


@TENSORFLOW.op("Rank", makes_host=True)
def rank(x: Tensor) -> Array:
    return np.array(x.ndim, np.int64)


@TENSORFLOW.op("AnyOf", host=("axes",))
def any_of(x: Tensor, axes: Array, *, keepdims: int, every: int) -> Tensor:
    """Whether any of the booleans along ``axes``, or every one, is true."""
    dims = ints(axes)
    return (ops.all if every else ops.any)(x, dims, bool(keepdims)) if dims else x


@TENSORFLOW.op("RowSelect")
def row_select(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Choose; a condition of one dim chooses rows."""
    if condition.ndim == 1 and a.ndim > 1:
        condition = condition.reshape((-1, *(1,) * (a.ndim - 1)))
    return ops.where(condition, a, b)


@TENSORFLOW.op("OneHotAt", host=("depth",))
def one_hot_at(indices: Tensor, depth: Array, on: Tensor, off: Tensor, *, axis: int) -> Tensor:
    """``on`` at the place that an index names, if there is such a place, and ``off`` elsewhere."""
    count = int(depth.item())
    if not 0 <= count < 2**31 or not -1 <= axis <= indices.ndim:
        raise ShapeError("OneHot", f"a depth, and an axis of {indices.ndim + 1} dims", f"got {count} and {axis}")
    place = indices.ndim if axis == -1 else axis
    wanted = ops.unsqueeze(indices.to(dtypes.int64), place)
    classes = ops.arange(count, device=indices.backend).reshape((-1, *(1,) * (indices.ndim - place)))
    return ops.where(wanted == classes, on, off)


# Sequences


def _normed(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Layer norm of one gate."""
    return F.layer_norm(x, scale.shape, scale, None, 1e-8) + bias


@TENSORFLOW.op("SequenceLSTM", weights=True)
def sequence_lstm(x: Tensor, *given: Tensor | None, time_major: int, cell_clip: float, proj_clip: float) -> Tensor:
    """TFLite's LSTM over a sequence: the gates i, f, g and o with weights of their own; i may be ``1 - f``."""
    given = (*given, *(None,) * (21 - len(given)))
    ins, backs, peeks = given[0:4], given[4:8], given[8:11]
    biases, (projection, shift), norms = given[11:15], given[15:17], given[17:21]
    x = x if time_major else ops.transpose(x, 0, 1)
    back = backs[3]
    if back is None or any(part is None for part in (*ins[1:], *backs[1:], *biases[1:])):
        raise ShapeError("LSTM", "weights and a bias of each gate", "some are left out")
    cells, width, batch = int(back.shape[0]), int(back.shape[1]), x.shape[1]
    state = ops.zeros((batch, width), dtype=x.dtype, device=x.backend)
    cell = ops.zeros((batch, cells), dtype=x.dtype, device=x.backend)
    plain = not (cell_clip or proj_clip) and shift is None and all(part is None for part in (*peeks, *norms))
    if plain and ins[0] is not None and backs[0] is not None and biases[0] is not None:
        weights = [ops.cat([part for part in parts if part is not None], 0) for parts in (ins, backs, biases)]
        params = [*weights, ops.zeros_like(weights[2]), *([] if projection is None else [projection])]
        hx = (ops.unsqueeze(state, 0), ops.unsqueeze(cell, 0))
        y = ops.lstm(x, hx, params, True, 1, 0.0, False, False, False)[0]
        return y if time_major else ops.transpose(y, 0, 1)
    results = []
    for step in range(x.shape[0]):
        state, cell = _lstm_step(
            x[step], state, cell, ins, backs, peeks, biases, (projection, shift), norms, (cell_clip, proj_clip)
        )
        results.append(state)
    return ops.stack(results, 0 if time_major else 1)


def _lstm_step(
    x: Tensor, state: Tensor, cell: Tensor, ins: Sequence[Tensor | None], backs: Sequence[Tensor | None],
    peeks: Sequence[Tensor | None], biases: Sequence[Tensor | None], projected: Sequence[Tensor | None],
    norms: Sequence[Tensor | None], clips: tuple[float, float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    def gate(number: int, peek: Tensor | None, seen: Tensor) -> Tensor:
        own, back, bias, norm = ins[number], backs[number], biases[number], norms[number]
        assert own is not None  # it was asked before
        assert back is not None
        assert bias is not None
        if norm is None:
            y = F.linear(x, own, bias) + F.linear(state, back)
            return y if peek is None else y + seen * peek
        y = F.linear(x, own) + F.linear(state, back)
        return _normed(y if peek is None else y + seen * peek, norm, bias)

    forget = ops.sigmoid(gate(1, peeks[1], cell))
    enter = 1 - forget if ins[0] is None else ops.sigmoid(gate(0, peeks[0], cell))
    cell = forget * cell + enter * ops.tanh(gate(2, None, cell))
    cell = ops.clamp(cell, -clips[0], clips[0]) if clips[0] else cell
    state = ops.sigmoid(gate(3, peeks[2], cell)) * ops.tanh(cell)
    if projected[0] is not None:
        state = F.linear(state, projected[0], projected[1])
        state = ops.clamp(state, -clips[1], clips[1]) if clips[1] else state
    return state, cell


@TENSORFLOW.op("SequenceRNN", trained=("weight", "back", "bias"))
def sequence_rnn(x: Tensor, weight: Tensor, back: Tensor, bias: Tensor, *, time_major: int, activation: int) -> Tensor:
    """TFLite's RNN over a sequence."""
    x = x if time_major else ops.transpose(x, 0, 1)
    state = ops.zeros((x.shape[1], weight.shape[0]), dtype=x.dtype, device=x.backend)
    results = []
    for part in F.linear(x, weight, bias).unbind(0):
        state = part + F.linear(state, back)
        if activation == 4:
            state = ops.tanh(state)
        elif activation in (1, 3):
            state = F.relu(state) if activation == 1 else F.relu6(state)
        results.append(state)
    return ops.stack(results, 0 if time_major else 1)


@TENSORFLOW.op("FakeQuant", host=("low", "high"))
def fake_quant(x: Tensor, low: Array, high: Array, *, bits: int, narrow: int) -> Tensor:
    """Rounded to ``2 ** bits`` numbers between ``low`` and ``high``, of which 0 is one; the gradient passes as if it
    were only cut off there.
    """
    least, most = (1 if narrow else 0), 2**bits - 1
    low, high = (np.asarray(value, np.float32) for value in (low, high))
    with np.errstate(all="ignore"):
        scale = (high - low) / np.float32(most - least)
        shift = np.clip(np.floor(least - low / scale + np.float32(0.5)), least, most)
        bounds = [np.asarray((end - shift) * scale, np.float32) for end in (least, most)]
    if not all(np.isfinite(value).all() for value in (scale, *bounds)) or (scale <= 0).any():
        raise ShapeError("FakeQuant", "a range of finite numbers that is not empty", f"got {low} to {high}")
    if scale.ndim == 0:
        inside = ops.clamp(x, float(bounds[0]), float(bounds[1]))
        steps = ops.floor((inside.detach() - float(bounds[0])) * float(1 / scale) + 0.5)
        return inside + (steps * float(scale) + float(bounds[0]) - inside.detach())
    first, last, size = (tensor(value, device=x.backend) for value in (*bounds, np.asarray(scale, np.float32)))
    inside = ops.minimum(ops.maximum(x, first), last)
    steps = ops.floor((inside.detach() - first) / size + 0.5)
    return inside + (steps * size + first - inside.detach())


__all__ = ["TENSORFLOW", "host_strided_slice"]
