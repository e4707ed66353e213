"""TFLite's ops that move, pick and make values, each as ONNX's."""

from __future__ import annotations

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.layouts import FIRST, UnsupportedUse
from tinyedge.convert.tflite_file import Operator
from tinyedge.convert.tflite_lowering import Lowering, lowers


@lowers("RESHAPE")
def reshape(b: Lowering, op: Operator) -> None:
    if b.optional(op, 1):
        shape = b.last(b.name(op, 1))
    else:  # it has become a part of the output
        shape = b.host([-1 if size is None else size for size in b.graph.tensors[op.outputs[0]].dims])
    if not b.of_parts(b.output(op), b.name(op, 0), lambda x: b.emit("Reshape", [x, shape], allowzero=1)):
        b.finish(op, b.emit("Reshape", [b.last(b.name(op, 0)), shape], allowzero=1), False)


@lowers("SQUEEZE")
def squeeze(b: Lowering, op: Operator) -> None:
    o = op.options("SqueezeOptions")
    axes = [int(o.SqueezeDims(n)) for n in range(min(o.SqueezeDimsLength(), 8))]
    places = [b.host(axes)] if axes else []
    if not b.of_parts(b.output(op), b.name(op, 0), lambda x: b.emit("Squeeze", [x, *places])):
        b.squeezed(b.output(op), b.name(op, 0), axes)


@lowers("EXPAND_DIMS")
def expand_dims(b: Lowering, op: Operator) -> None:
    axes = b.host(b.value(op, 1).reshape(-1))
    if not b.of_parts(b.output(op), b.name(op, 0), lambda x: b.emit("Unsqueeze", [x, axes])):
        b.finish(op, b.emit("Unsqueeze", [b.last(b.name(op, 0)), axes]), False)


@lowers("CONCATENATION")
def concatenation(b: Lowering, op: Operator) -> None:
    o = op.options("ConcatenationOptions")
    y, first = b.joined([b.name(op, n) for n in range(len(op.inputs))], o.Axis())
    b.finish(op, y, first, o.FusedActivationFunction())


@lowers("PAD", "PADV2", "MIRROR_PAD")
def pad(b: Lowering, op: Operator) -> None:
    pads = np.asarray(b.value(op, 1), np.int64).reshape(-1, 2)
    mode, value = "constant", None
    if op.op == "MIRROR_PAD":
        mode = "reflect" if op.options("MirrorPadOptions").Mode() == 0 else "symmetric"
    elif op.op == "PADV2":
        value = float(b.value(op, 2).reshape(()))
    b.padded(b.output(op), b.name(op, 0), pads, mode, value)


@lowers("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(b: Lowering, op: Operator) -> None:
    linear = op.op == "RESIZE_BILINEAR"
    o = op.options("ResizeBilinearOptions" if linear else "ResizeNearestNeighborOptions")
    mode, sizes = "linear" if linear else "nearest", b.last(b.name(op, 1))
    b.resized(b.output(op), b.name(op, 0), sizes, mode, bool(o.AlignCorners()), bool(o.HalfPixelCenters()))


@lowers("TRANSPOSE")
def transpose(b: Lowering, op: Operator) -> None:
    b.transposed(b.output(op), b.name(op, 0), tuple(int(axis) for axis in b.value(op, 1).reshape(-1)))


@lowers("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def depth_to_space(b: Lowering, op: Operator) -> None:
    deep = op.op == "DEPTH_TO_SPACE"
    size = op.options("DepthToSpaceOptions" if deep else "SpaceToDepthOptions").BlockSize()
    y = b.emit("DepthToSpace" if deep else "SpaceToDepth", [b.first(b.name(op, 0))], blocksize=size)
    b.finish(op, y, True)


@lowers("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND")
def space_to_batch(b: Lowering, op: Operator) -> None:
    kind = "SpaceToBatch" if op.op == "SPACE_TO_BATCH_ND" else "BatchToSpace"
    b.finish(op, b.emit(kind, [b.last(b.name(op, n)) for n in range(3)]), False)


@lowers("SLICE")
def slice_(b: Lowering, op: Operator) -> None:
    x = b.name(op, 0)
    start, size = b.name(op, 1), b.name(op, 2)
    if b.is_first(x) and start in b.known and size in b.known:
        places = [b.host(b.known[name].reshape(-1)[list(FIRST)]) for name in (start, size)]
        b.finish(op, b.emit("SizedSlice", [b.turned[x], *places]), True)
    else:
        b.finish(op, b.emit("SizedSlice", [b.last(x), b.last(start), b.last(size)]), False)


@lowers("STRIDED_SLICE")
def strided_slice(b: Lowering, op: Operator) -> None:
    o = op.options("StridedSliceOptions")
    values = [b.last(b.name(op, n)) for n in range(4)]
    if o.Offset():  # ends count from the begins
        values[2] = b.emit("Add", values[1:3])
    masks = (o.BeginMask(), o.EndMask(), o.EllipsisMask(), o.NewAxisMask(), o.ShrinkAxisMask())
    b.finish(op, b.emit("StridedSlice", values, masks=masks), False)


@lowers("SPLIT", "SPLIT_V")
def split(b: Lowering, op: Operator) -> None:
    whole = op.op == "SPLIT"
    x, axis = b.name(op, 1 if whole else 0), int(b.value(op, 0 if whole else 2).item())
    outputs = [b.output(op, n) for n in range(len(op.outputs))]
    sizes = ""
    if not whole:
        dims = [b.shapes[output] for output in outputs]  # one of the lengths may be left open
        sizes = b.host([dim[axis] for dim in dims if dim is not None])
    b.parted(outputs, x, sizes, axis)


@lowers("PACK")
def pack(b: Lowering, op: Operator) -> None:
    b.packed(b.output(op), [b.name(op, n) for n in range(len(op.inputs))], op.options("PackOptions").Axis())


@lowers("UNPACK")
def unpack(b: Lowering, op: Operator) -> None:
    outputs = [b.output(op, n) for n in range(len(op.outputs))]
    b.unpacked(outputs, b.name(op, 0), op.options("UnpackOptions").Axis())


@lowers("GATHER")
def gather(b: Lowering, op: Operator) -> None:
    o = op.options("GatherOptions")
    values = [b.last(b.name(op, 0)), b.last(b.name(op, 1))]
    if o.BatchDims():
        b.finish(op, b.emit("BatchGather", values, axis=o.Axis(), batch_dims=o.BatchDims()), False)
    else:
        b.finish(op, b.emit("Gather", values, axis=o.Axis()), False)


@lowers("EMBEDDING_LOOKUP")
def embedding_lookup(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("Gather", [b.last(b.name(op, 1)), b.last(b.name(op, 0))], axis=0), False)


@lowers("GATHER_ND")
def gather_nd(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("GatherND", [b.last(b.name(op, 0)), b.last(b.name(op, 1))]), False)


@lowers("SHAPE")
def shape(b: Lowering, op: Operator) -> None:
    y = b.emit("Shape", [b.last(b.name(op, 0))])
    wide = b.graph.tensors[op.outputs[0]].dtype is dtypes.int64
    b.finish(op, y if wide else b.emit("Cast", [y], to=6), False)


@lowers("RANK")
def rank(b: Lowering, op: Operator) -> None:
    b.constant(b.output(op), np.array(b.rank(b.name(op, 0)), np.int32))


CAST = {dtypes.float32: 1, dtypes.uint8: 2, dtypes.int8: 3, dtypes.int16: 5, dtypes.int32: 6, dtypes.int64: 7,
        dtypes.bool_: 9}  # fmt: skip


@lowers("CAST")
def cast(b: Lowering, op: Operator) -> None:
    to = b.graph.tensors[op.outputs[0]].dtype
    if to not in CAST:
        raise UnsupportedUse("to an element type that is not read")
    x = b.name(op, 0)
    if x in b.complex:  # of complex numbers the real part
        b.finish(op, b.emit("Cast", [b.complex[x][0]], to=CAST[to]), False)
    else:
        b.unary(b.output(op), x, lambda x: b.emit("Cast", [x], to=CAST[to]))


@lowers("SELECT", "SELECT_V2")
def select(b: Lowering, op: Operator) -> None:
    names = [b.name(op, n) for n in range(3)]
    if op.op == "SELECT" and b.rank(names[0]) == 1:
        b.finish(op, b.emit("RowSelect", [b.last(name) for name in names]), False)
        return
    values, first = b.together(*names)
    b.finish(op, b.emit("Where", values), first)


@lowers("WHERE")
def where(b: Lowering, op: Operator) -> None:
    """The places of what is not 0, which a call computes on the host."""
    b.finish(op, b.emit("Transpose", [b.emit("NonZero", [b.last(b.name(op, 0))])], perm=(1, 0)), False)


@lowers("UNIQUE")
def unique(b: Lowering, op: Operator) -> None:
    """The different values in the order in which they come, and which of them each one is."""
    names = [f"{b.output(op, n)} found" for n in range(2)]
    b.emit("Unique", [b.last(b.name(op, 0))], outputs=[names[0], f"{names[0]} first", names[1]], sorted=0)
    b.done(b.output(op), names[0], False)
    wide = b.graph.tensors[op.outputs[1]].dtype is dtypes.int64
    b.done(b.output(op, 1), names[1] if wide else b.emit("Cast", [names[1]], to=6), False)


@lowers("RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL")
def random(b: Lowering, op: Operator) -> None:
    """Other numbers than TFLite's: a seed says nothing of these."""
    zeros = b.emit("Filled", [b.last(b.name(op, 0)), b.host(0, np.float32)])
    kind = "RandomUniformLike" if op.op == "RANDOM_UNIFORM" else "RandomNormalLike"
    b.finish(op, b.emit(kind, [zeros]), False)


@lowers("BROADCAST_ARGS")
def broadcast_args(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("BroadcastShapes", [b.last(b.name(op, 0)), b.last(b.name(op, 1))]), False)


@lowers("TILE")
def tile(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("Tile", [b.last(b.name(op, 0)), b.last(b.name(op, 1))]), False)


@lowers("BROADCAST_TO")
def broadcast_to(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("Broadcast", [b.last(b.name(op, 0)), b.last(b.name(op, 1))]), False)


@lowers("FILL")
def fill(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("Filled", [b.last(b.name(op, 0)), b.last(b.name(op, 1))]), False)


@lowers("RANGE")
def range_(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("Range", [b.last(b.name(op, n)) for n in range(3)]), False)


@lowers("ONE_HOT")
def one_hot(b: Lowering, op: Operator) -> None:
    axis = op.options("OneHotOptions").Axis()
    b.finish(op, b.emit("OneHotAt", [b.last(b.name(op, n)) for n in range(4)], axis=axis), False)


@lowers("REVERSE_V2")
def reverse(b: Lowering, op: Operator) -> None:
    b.finish(op, b.emit("Reverse", [b.last(b.name(op, 0)), b.last(b.name(op, 1))]), False)


@lowers("REVERSE_SEQUENCE")
def reverse_sequence(b: Lowering, op: Operator) -> None:
    o = op.options("ReverseSequenceOptions")
    values = [b.last(b.name(op, 0)), b.last(b.name(op, 1))]
    b.finish(op, b.emit("ReverseSequence", values, time_axis=o.SeqDim(), batch_axis=o.BatchDim()), False)


@lowers("SCATTER_ND")
def scatter_nd(b: Lowering, op: Operator) -> None:
    dtype = b.graph.tensors[op.outputs[0]].dtype
    if dtype is None:
        raise UnsupportedUse("of an element type that is not read")
    nothing = b.emit("Filled", [b.last(b.name(op, 2)), b.host(0, dtype.numpy)])
    values = [nothing, b.last(b.name(op, 0)), b.last(b.name(op, 1))]
    b.finish(op, b.emit("ScatterND", values, reduction="add"), False)
