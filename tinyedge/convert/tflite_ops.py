"""TFLite's ops, each as ONNX's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.tflite_file import Operator
from tinyedge.convert.tflite_lowering import FIRST, Lowering, UnsupportedUse, lowers


def _auto_pad(padding: int) -> str:
    return "SAME_UPPER" if padding == 0 else "VALID"


@lowers("CONV_2D")
def conv_2d(b: Lowering, op: Operator) -> None:
    o = op.options("Conv2DOptions")
    x, w = b.name(op, 0), b.name(op, 1)
    group = b.shapes[x][3] // max(b.shapes[w][3], 1)
    inputs = [b.first(x), b.weight(w, FIRST), *filter(None, [b.optional(op, 2)])]
    y = b.emit(
        "Conv", inputs, auto_pad=_auto_pad(o.Padding()), strides=(o.StrideH(), o.StrideW()),
        dilations=(o.DilationHFactor(), o.DilationWFactor()), group=group,
    )  # fmt: skip
    b.done(b.output(op), y, True, o.FusedActivationFunction())


@lowers("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(b: Lowering, op: Operator) -> None:
    o = op.options("DepthwiseConv2DOptions")
    x = b.name(op, 0)
    inputs = [b.first(x), b.weight(b.name(op, 1), (3, 0, 1, 2)), *filter(None, [b.optional(op, 2)])]
    y = b.emit(
        "Conv", inputs, auto_pad=_auto_pad(o.Padding()), strides=(o.StrideH(), o.StrideW()),
        dilations=(o.DilationHFactor(), o.DilationWFactor()), group=b.shapes[x][3],
    )  # fmt: skip
    b.done(b.output(op), y, True, o.FusedActivationFunction())


@lowers("TRANSPOSE_CONV")
def transpose_conv(b: Lowering, op: Operator) -> None:
    o = op.options("TransposeConvOptions")
    shape = tuple(int(size) for size in b.value(op, 0))
    inputs = [b.first(b.name(op, 2)), b.weight(b.name(op, 1), (3, 0, 1, 2)), *filter(None, [b.optional(op, 3)])]
    y = b.emit(
        "ConvTranspose", inputs, auto_pad="SAME_UPPER", strides=(o.StrideH(), o.StrideW()), output_shape=shape[1:3]
    )
    b.done(b.output(op), y, True, o.FusedActivationFunction())


@lowers("FULLY_CONNECTED")
def fully_connected(b: Lowering, op: Operator) -> None:
    o = op.options("FullyConnectedOptions")
    if o.WeightsFormat():
        raise UnsupportedUse("with shuffled weights")
    x, w, bias = b.last(b.name(op, 0)), b.last(b.name(op, 1)), b.optional(op, 2)
    wide = b.shapes[w][1]
    kept = o.KeepNumDims() and b.rank(x) != 2
    if b.rank(x) != 2 or b.shapes[x][1] != wide:
        x = b.emit("Reshape", [x, b.host([-1, wide])])
    y = b.emit("Gemm", [x, w, *([b.last(bias)] if bias else [])], transB=1)
    if kept:
        y = b.emit("Reshape", [y, b.host([*[-1 if d is None else d for d in _dims(b, op)]])])
    b.done(b.output(op), y, False, o.FusedActivationFunction())


def _dims(b: Lowering, op: Operator) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in b.graph.tensors[op.outputs[0]].dims]


@lowers("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool_2d(b: Lowering, op: Operator) -> None:
    o = op.options("Pool2DOptions")
    y = b.emit(
        "AveragePool" if op.op == "AVERAGE_POOL_2D" else "MaxPool", [b.first(b.name(op, 0))],
        auto_pad=_auto_pad(o.Padding()), strides=(o.StrideH(), o.StrideW()),
        kernel_shape=(o.FilterHeight(), o.FilterWidth()),
    )  # fmt: skip
    b.done(b.output(op), y, True, o.FusedActivationFunction())


BINARY = {
    "ADD": ("Add", "AddOptions"), "SUB": ("Sub", "SubOptions"), "MUL": ("Mul", "MulOptions"),
    "DIV": ("Div", "DivOptions"), "MAXIMUM": ("Max", ""), "MINIMUM": ("Min", ""), "POW": ("Pow", ""),
    "SQUARED_DIFFERENCE": ("Sub", ""),
}  # fmt: skip


@lowers(*BINARY)
def binary(b: Lowering, op: Operator) -> None:
    name, table = BINARY[op.op]
    activation = op.options(table).FusedActivationFunction() if table else 0
    names = [b.name(op, 0), b.name(op, 1)]
    first = len(b.shapes[b.output(op)]) == 4 and any(b.is_first(n) for n in names)
    values = [_operand(b, n) if first else b.last(n) for n in names]
    y = b.emit(name, values)
    if op.op == "SQUARED_DIFFERENCE":
        y = b.emit("Mul", [y, y])
    b.done(b.output(op), y, first, activation)


def _operand(b: Lowering, name: str) -> str:
    """An operand beside one with channels first."""
    shape = b.shapes[name]
    if len(shape) == 4:
        return b.first(name)
    if int(np.prod(shape)) == 1 and not shape:
        return b.last(name)
    wide = b.emit("Reshape", [b.last(name), b.host([*(1,) * (4 - len(shape)), *shape])])
    return b.emit("Transpose", [wide], perm=FIRST)


UNARY = {
    "RELU": "Relu", "TANH": "Tanh", "LOGISTIC": "Sigmoid", "HARD_SWISH": "HardSwish", "ELU": "Elu", "ABS": "Abs",
    "EXP": "Exp", "SQRT": "Sqrt", "NEG": "Neg", "LOG": "Log", "SIN": "Sin", "COS": "Cos", "FLOOR": "Floor",
    "CEIL": "Ceil", "ROUND": "Round", "SIGN": "Sign", "LOGICAL_NOT": "Not",
}  # fmt: skip


def _unary(b: Lowering, op: Operator, compute: Callable[[str], str]) -> None:
    x = b.name(op, 0)
    first = b.is_first(x)
    b.done(b.output(op), compute(b.turned[x] if first else b.last(x)), first)


@lowers(*UNARY)
def unary(b: Lowering, op: Operator) -> None:
    _unary(b, op, lambda x: b.emit(UNARY[op.op], [x]))


@lowers("RELU6", "RELU_N1_TO_1")
def bounded_relu(b: Lowering, op: Operator) -> None:
    _unary(b, op, lambda x: b.activated(x, 3 if op.op == "RELU6" else 2))


@lowers("RSQRT")
def rsqrt(b: Lowering, op: Operator) -> None:
    _unary(b, op, lambda x: b.emit("Reciprocal", [b.emit("Sqrt", [x])]))


@lowers("SQUARE")
def square(b: Lowering, op: Operator) -> None:
    _unary(b, op, lambda x: b.emit("Mul", [x, x]))


@lowers("LEAKY_RELU")
def leaky_relu(b: Lowering, op: Operator) -> None:
    _unary(b, op, lambda x: b.emit("LeakyRelu", [x], alpha=op.options("LeakyReluOptions").Alpha()))


@lowers("GELU")
def gelu(b: Lowering, op: Operator) -> None:
    kind = "tanh" if op.options("GeluOptions").Approximate() else "none"
    _unary(b, op, lambda x: b.emit("Gelu", [x], approximate=kind))


@lowers("PRELU")
def prelu(b: Lowering, op: Operator) -> None:
    x, slope = b.name(op, 0), b.name(op, 1)
    first = b.is_first(x)
    y = b.emit("PRelu", [b.turned[x], _operand(b, slope)] if first else [b.last(x), b.last(slope)])
    b.done(b.output(op), y, first)


@lowers("DEQUANTIZE")
def dequantize(b: Lowering, op: Operator) -> None:
    x, tensor = b.name(op, 0), b.graph.tensors[op.inputs[0]]
    if x not in b.result.arrays and tensor.scale is not None:
        b.done(b.output(op), b.last(x), False)
        return
    if (tensor.dtype is not dtypes.float16 and tensor.scale is None) or x not in b.result.arrays:
        raise UnsupportedUse("of what is neither quantised nor a float16 constant")
    name = b.output(op)  # the weight has the name that its users read, and lies where the 16 bits do
    if name in b.plain:
        b.place.refuse(name, "two ops compute it")
    b.constant(name, b.result.arrays[x])
    b.source.places[name] = b.source.places[x]
    if x in b.turns:
        raise UnsupportedUse("of a weight that is used in two ways")


@lowers("QUANTIZE")
def quantize(b: Lowering, op: Operator) -> None:
    b.done(b.output(op), b.last(b.name(op, 0)), False)  # only with dequantize: the floats go on as they are


@lowers("SOFTMAX", "LOG_SOFTMAX")
def softmax(b: Lowering, op: Operator) -> None:
    beta = op.options("SoftmaxOptions").Beta() if op.op == "SOFTMAX" else 1.0
    x = b.last(b.name(op, 0))
    x = x if beta == 1.0 else b.emit("Mul", [x, b.host(beta, np.float32)])
    b.done(b.output(op), b.emit("Softmax" if op.op == "SOFTMAX" else "LogSoftmax", [x], axis=-1), False)


@lowers("RESHAPE")
def reshape(b: Lowering, op: Operator) -> None:
    x = b.last(b.name(op, 0))
    if b.optional(op, 1):
        y = b.emit("Reshape", [x, b.last(b.name(op, 1))], allowzero=1)
    else:
        y = b.emit("Reshape", [x, b.host(b.shapes[b.output(op)])], allowzero=1)
    b.done(b.output(op), y, False)


@lowers("SQUEEZE")
def squeeze(b: Lowering, op: Operator) -> None:
    o, x = op.options("SqueezeOptions"), b.name(op, 0)
    axes = [int(o.SqueezeDims(n)) for n in range(min(o.SqueezeDimsLength(), 8))]
    b.done(b.output(op), b.emit("Squeeze", [b.last(x), *([b.host(axes)] if axes else [])]), False)


@lowers("EXPAND_DIMS")
def expand_dims(b: Lowering, op: Operator) -> None:
    axes = b.host(b.value(op, 1).reshape(-1))
    b.done(b.output(op), b.emit("Unsqueeze", [b.last(b.name(op, 0)), axes]), False)


def _axis(axis: int, first: bool) -> int:
    """Where an axis of the file lies."""
    return FIRST.index(axis % 4) if first else axis


@lowers("CONCATENATION")
def concatenation(b: Lowering, op: Operator) -> None:
    o = op.options("ConcatenationOptions")
    names = [b.name(op, n) for n in range(len(op.inputs))]
    first = b.rank(names[0]) == 4 and any(b.is_first(n) for n in names)
    values = [b.first(n) if first else b.last(n) for n in names]
    y = b.emit("Concat", values, axis=_axis(o.Axis(), first))
    b.done(b.output(op), y, first, o.FusedActivationFunction())


@lowers("PAD", "PADV2", "MIRROR_PAD")
def pad(b: Lowering, op: Operator) -> None:
    x, pads = b.name(op, 0), np.asarray(b.value(op, 1), np.int64).reshape(-1, 2)
    first = b.is_first(x)
    pads = pads[list(FIRST)] if first else pads
    value = b.turned[x] if first else b.last(x)
    if op.op == "MIRROR_PAD":
        if op.options("MirrorPadOptions").Mode() != 0:
            raise UnsupportedUse("that is symmetric")
        y = b.emit("Pad", [value, b.host(pads.T.reshape(-1))], mode="reflect")
    else:
        fill = [b.host(b.value(op, 2), np.float32)] if op.op == "PADV2" else []
        y = b.emit("Pad", [value, b.host(pads.T.reshape(-1)), *fill])
    b.done(b.output(op), y, first)


@lowers("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(b: Lowering, op: Operator) -> None:
    linear = op.op == "RESIZE_BILINEAR"
    o = op.options("ResizeBilinearOptions" if linear else "ResizeNearestNeighborOptions")
    half = "half_pixel" if linear else "tf_half_pixel_for_nn"
    how = "align_corners" if o.AlignCorners() else half if o.HalfPixelCenters() else "asymmetric"
    y = b.emit(
        "Resize", [b.first(b.name(op, 0)), "", "", b.host(b.value(op, 1))], axes=(2, 3),
        mode="linear" if linear else "nearest", coordinate_transformation_mode=how,
        nearest_mode="round_prefer_ceil" if o.AlignCorners() else "floor",
    )  # fmt: skip
    b.done(b.output(op), y, True)


REDUCTIONS = {"MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin",
              "REDUCE_PROD": "ReduceProd"}  # fmt: skip


@lowers(*REDUCTIONS)
def reduction(b: Lowering, op: Operator) -> None:
    x, keep = b.name(op, 0), bool(op.options("ReducerOptions").KeepDims())
    axes = [int(axis) % max(b.rank(x), 1) for axis in b.value(op, 1).reshape(-1)]
    first = b.is_first(x) and (keep or sorted(axes) == [1, 2])
    value = b.turned[x] if first else b.last(x)
    places = b.host([_axis(axis, first) for axis in axes])
    y = b.emit(REDUCTIONS[op.op], [value, places], keepdims=int(keep), noop_with_empty_axes=1)
    b.done(b.output(op), y, first and keep)


@lowers("TRANSPOSE")
def transpose(b: Lowering, op: Operator) -> None:
    perm = tuple(int(axis) for axis in b.value(op, 1))
    b.done(b.output(op), b.emit("Transpose", [b.last(b.name(op, 0))], perm=perm), False)


@lowers("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def depth_to_space(b: Lowering, op: Operator) -> None:
    deep = op.op == "DEPTH_TO_SPACE"
    size = op.options("DepthToSpaceOptions" if deep else "SpaceToDepthOptions").BlockSize()
    y = b.emit("DepthToSpace" if deep else "SpaceToDepth", [b.first(b.name(op, 0))], blocksize=size)
    b.done(b.output(op), y, True)


@lowers("SLICE")
def slice_(b: Lowering, op: Operator) -> None:
    starts, sizes = b.value(op, 1).reshape(-1), b.value(op, 2).reshape(-1)
    ends = [2**31 if size == -1 else int(start) + int(size) for start, size in zip(starts, sizes, strict=True)]
    b.done(b.output(op), b.emit("Slice", [b.last(b.name(op, 0)), b.host(starts), b.host(ends)]), False)


@lowers("STRIDED_SLICE")
def strided_slice(b: Lowering, op: Operator) -> None:
    o = op.options("StridedSliceOptions")
    if o.EllipsisMask() or o.NewAxisMask():
        raise UnsupportedUse("with an ellipsis or a new axis")
    parts = zip(*[[int(v) for v in b.value(op, n).reshape(-1)] for n in (1, 2, 3)], strict=True)
    starts, ends, steps, gone = [], [], [], []
    for axis, (begin, end, step) in enumerate(parts):
        if o.ShrinkAxisMask() >> axis & 1:
            gone.append(axis)
            begin, end, step = begin, begin + 1 if begin != -1 else 2**31, 1
        else:
            begin = (0 if step > 0 else 2**31) if o.BeginMask() >> axis & 1 else begin
            end = (2**31 if step > 0 else -(2**31)) if o.EndMask() >> axis & 1 else end
        starts.append(begin)
        ends.append(end)
        steps.append(step)
    axes = b.host(range(len(starts)))
    y = b.emit("Slice", [b.last(b.name(op, 0)), b.host(starts), b.host(ends), axes, b.host(steps)])
    b.done(b.output(op), b.emit("Squeeze", [y, b.host(gone)]) if gone else y, False)


@lowers("SPLIT", "SPLIT_V")
def split(b: Lowering, op: Operator) -> None:
    whole = op.op == "SPLIT"
    x, axis = b.name(op, 1 if whole else 0), int(b.value(op, 0 if whole else 2).item())
    names = [f"{b.output(op, n)} part" for n in range(len(op.outputs))]
    sizes = [] if whole else [b.host(b.value(op, 1))]
    b.emit("Split", [b.last(x), *sizes], outputs=names, axis=axis)
    for number, name in enumerate(names):
        b.done(b.output(op, number), name, False)


@lowers("PACK")
def pack(b: Lowering, op: Operator) -> None:
    axis = op.options("PackOptions").Axis()
    axes = b.host([axis])
    values = [b.emit("Unsqueeze", [b.last(b.name(op, n)), axes]) for n in range(len(op.inputs))]
    b.done(b.output(op), b.emit("Concat", values, axis=axis), False)


@lowers("UNPACK")
def unpack(b: Lowering, op: Operator) -> None:
    axis = op.options("UnpackOptions").Axis()
    names = [f"{b.output(op, n)} part" for n in range(len(op.outputs))]
    b.emit("Split", [b.last(b.name(op, 0))], outputs=names, axis=axis)
    for number, name in enumerate(names):
        b.done(b.output(op, number), b.emit("Squeeze", [name, b.host([axis])]), False)


@lowers("BATCH_MATMUL")
def batch_matmul(b: Lowering, op: Operator) -> None:
    o = op.options("BatchMatMulOptions")
    values = []
    for name, turn in ((b.name(op, 0), o.AdjX()), (b.name(op, 1), o.AdjY())):
        rank = b.rank(name)
        perm = (*range(rank - 2), rank - 1, rank - 2)
        values.append(b.emit("Transpose", [b.last(name)], perm=perm) if turn else b.last(name))
    b.done(b.output(op), b.emit("MatMul", values), False)


@lowers("GATHER")
def gather(b: Lowering, op: Operator) -> None:
    o = op.options("GatherOptions")
    if o.BatchDims():
        raise UnsupportedUse("with batch dims")
    values = [b.last(b.name(op, 0)), b.last(b.name(op, 1))]
    b.done(b.output(op), b.emit("Gather", values, axis=o.Axis()), False)


@lowers("SHAPE")
def shape(b: Lowering, op: Operator) -> None:
    b.done(b.output(op), b.emit("Shape", [b.last(b.name(op, 0))]), False)


CAST = {dtypes.float32: 1, dtypes.uint8: 2, dtypes.int8: 3, dtypes.int16: 5, dtypes.int32: 6, dtypes.int64: 7,
        dtypes.bool_: 9}  # fmt: skip


@lowers("CAST")
def cast(b: Lowering, op: Operator) -> None:
    to = b.graph.tensors[op.outputs[0]].dtype
    if to not in CAST:
        raise UnsupportedUse("to an element type that is not read")
    _unary(b, op, lambda x: b.emit("Cast", [x], to=CAST[to]))


COMPARISONS = {
    "EQUAL": "Equal", "NOT_EQUAL": "Equal", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual", "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual", "LOGICAL_AND": "And", "LOGICAL_OR": "Or",
}  # fmt: skip


@lowers(*COMPARISONS)
def comparison(b: Lowering, op: Operator) -> None:
    y = b.emit(COMPARISONS[op.op], [b.last(b.name(op, 0)), b.last(b.name(op, 1))])
    b.done(b.output(op), b.emit("Not", [y]) if op.op == "NOT_EQUAL" else y, False)


@lowers("SELECT_V2")
def select(b: Lowering, op: Operator) -> None:
    b.done(b.output(op), b.emit("Where", [b.last(b.name(op, n)) for n in range(3)]), False)


@lowers("TILE")
def tile(b: Lowering, op: Operator) -> None:
    b.done(b.output(op), b.emit("Tile", [b.last(b.name(op, 0)), b.host(b.value(op, 1))]), False)


@lowers("L2_NORMALIZATION")
def l2_normalization(b: Lowering, op: Operator) -> None:
    x = b.last(b.name(op, 0))
    squares = b.emit("ReduceSum", [b.emit("Mul", [x, x]), b.host([-1])])
    size = b.emit("Sqrt", [b.emit("Max", [squares, b.host(1e-6, np.float32)])])
    b.done(b.output(op), b.emit("Div", [x, size]), False, op.options("L2NormOptions").FusedActivationFunction())
