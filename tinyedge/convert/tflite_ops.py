"""TFLite's ops, each as ONNX's."""

from __future__ import annotations

import struct

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.layouts import FIRST, UnsupportedUse
from tinyedge.convert.tflite_file import Operator
from tinyedge.convert.tflite_lowering import Lowering, lowers


def _auto_pad(padding: int) -> str:
    return "SAME_UPPER" if padding == 0 else "VALID"


@lowers("CONV_2D")
def conv_2d(b: Lowering, op: Operator) -> None:
    o = op.options("Conv2DOptions")
    x, w = b.name(op, 0), b.name(op, 1)
    group = b.size(x, 3) // max(b.size(w, 3), 1)
    inputs = [b.first(x), b.weight(w, FIRST), *filter(None, [b.optional(op, 2)])]
    y = b.emit(
        "Conv", inputs, auto_pad=_auto_pad(o.Padding()), strides=(o.StrideH(), o.StrideW()),
        dilations=(o.DilationHFactor(), o.DilationWFactor()), group=group,
    )  # fmt: skip
    b.finish(op, y, True, o.FusedActivationFunction())


@lowers("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(b: Lowering, op: Operator) -> None:
    o = op.options("DepthwiseConv2DOptions")
    x = b.name(op, 0)
    inputs = [b.first(x), b.weight(b.name(op, 1), (3, 0, 1, 2)), *filter(None, [b.optional(op, 2)])]
    y = b.emit(
        "Conv", inputs, auto_pad=_auto_pad(o.Padding()), strides=(o.StrideH(), o.StrideW()),
        dilations=(o.DilationHFactor(), o.DilationWFactor()), group=b.size(x, 3),
    )  # fmt: skip
    b.finish(op, y, True, o.FusedActivationFunction())


@lowers("TRANSPOSE_CONV")
def transpose_conv(b: Lowering, op: Operator) -> None:
    o = op.options("TransposeConvOptions")
    sizes = b.emit("Slice", [b.last(b.name(op, 0)), b.host([1]), b.host([3])])
    x, weight = b.first(b.name(op, 2)), b.weight(b.name(op, 1), (3, 0, 1, 2))
    inputs = [x, weight, sizes, *filter(None, [b.optional(op, 3)])]
    y = b.emit("ConvTransposeTo", inputs, strides=(o.StrideH(), o.StrideW()), same=int(o.Padding() == 0))
    b.finish(op, y, True, o.FusedActivationFunction())


@lowers("custom Convolution2DTransposeBias")
def transpose_conv_bias(b: Lowering, op: Operator) -> None:
    """MediaPipe's: its options are TFLite's structure as it lies in memory, padding, stride of width and of height."""
    if len(op.custom_options) < 12:
        raise UnsupportedUse("without its options")
    padding, across, down = struct.unpack("<iii", op.custom_options[:12])
    if padding not in (1, 2):
        raise UnsupportedUse(f"with the padding {padding}")
    sizes = b.host([b.size(b.output(op), 1), b.size(b.output(op), 2)])
    x, weight = b.first(b.name(op, 0)), b.weight(b.name(op, 1), (3, 0, 1, 2))
    inputs = [x, weight, sizes, *filter(None, [b.optional(op, 2)])]
    b.finish(op, b.emit("ConvTransposeTo", inputs, strides=(down, across), same=int(padding == 1)), True)


@lowers("FULLY_CONNECTED")
def fully_connected(b: Lowering, op: Operator) -> None:
    o = op.options("FullyConnectedOptions")
    if o.WeightsFormat():
        raise UnsupportedUse("with shuffled weights")
    x = given = b.last(b.name(op, 0))
    bias = b.optional(op, 2)
    w = b.last(b.name(op, 1))
    wide = b.size(w, 1)
    kept = o.KeepNumDims() and b.rank(x) != 2
    if b.rank(x) != 2 or b.size(x, 1) != wide:
        x = b.emit("Reshape", [x, b.host([-1, wide])])
    y = b.emit("Gemm", [x, w, *([b.last(bias)] if bias else [])], transB=1)
    if kept:
        dims = [-1 if size is None else size for size in b.graph.tensors[op.outputs[0]].dims]
        sizes = b.host(dims)
        if dims.count(-1) > 1:
            lead = b.emit("Slice", [b.emit("Shape", [given]), b.host([0]), b.host([-1])])
            sizes = b.emit("Concat", [lead, b.host([b.size(w, 0)])], axis=0)
        y = b.emit("Reshape", [y, sizes])
    b.finish(op, y, False, o.FusedActivationFunction())


@lowers("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool_2d(b: Lowering, op: Operator) -> None:
    o = op.options("Pool2DOptions")
    y = b.emit(
        "AveragePool" if op.op == "AVERAGE_POOL_2D" else "MaxPool", [b.first(b.name(op, 0))],
        auto_pad=_auto_pad(o.Padding()), strides=(o.StrideH(), o.StrideW()),
        kernel_shape=(o.FilterHeight(), o.FilterWidth()),
    )  # fmt: skip
    b.finish(op, y, True, o.FusedActivationFunction())


BINARY = {
    "ADD": ("Add", "AddOptions"), "SUB": ("Sub", "SubOptions"), "MUL": ("Mul", "MulOptions"),
    "DIV": ("Div", "DivOptions"), "MAXIMUM": ("Max", ""), "MINIMUM": ("Min", ""), "POW": ("Pow", ""),
    "SQUARED_DIFFERENCE": ("Sub", ""), "FLOOR_DIV": ("FloorDiv", ""), "FLOOR_MOD": ("FloorMod", ""),
}  # fmt: skip


@lowers(*BINARY)
def binary(b: Lowering, op: Operator) -> None:
    name, table = BINARY[op.op]
    activation = op.options(table).FusedActivationFunction() if table else 0
    values, first = b.together(b.name(op, 0), b.name(op, 1))
    y = b.emit(name, values)
    if op.op == "SQUARED_DIFFERENCE":
        y = b.emit("Mul", [y, y])
    b.finish(op, y, first, activation)


UNARY = {
    "RELU": "Relu", "TANH": "Tanh", "LOGISTIC": "Sigmoid", "HARD_SWISH": "HardSwish", "ELU": "Elu", "ABS": "Abs",
    "EXP": "Exp", "SQRT": "Sqrt", "NEG": "Neg", "LOG": "Log", "SIN": "Sin", "COS": "Cos", "FLOOR": "Floor",
    "CEIL": "Ceil", "ROUND": "Round", "SIGN": "Sign", "LOGICAL_NOT": "Not", "RSQRT": "Rsqrt", "ZEROS_LIKE": "ZerosLike",
}  # fmt: skip


@lowers(*UNARY)
def unary(b: Lowering, op: Operator) -> None:
    b.unary(b.output(op), b.name(op, 0), lambda x: b.emit(UNARY[op.op], [x]))


BOUNDS = {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}


@lowers(*BOUNDS)
def bounded_relu(b: Lowering, op: Operator) -> None:
    low, high = (b.host(bound, np.float32) for bound in BOUNDS[op.op])
    b.unary(b.output(op), b.name(op, 0), lambda x: b.emit("Clip", [x, low, high]))


@lowers("SQUARE")
def square(b: Lowering, op: Operator) -> None:
    b.unary(b.output(op), b.name(op, 0), lambda x: b.emit("Mul", [x, x]))


@lowers("LEAKY_RELU")
def leaky_relu(b: Lowering, op: Operator) -> None:
    b.unary(
        b.output(op), b.name(op, 0), lambda x: b.emit("LeakyRelu", [x], alpha=op.options("LeakyReluOptions").Alpha())
    )


@lowers("GELU")
def gelu(b: Lowering, op: Operator) -> None:
    kind = "tanh" if op.options("GeluOptions").Approximate() else "none"
    b.unary(b.output(op), b.name(op, 0), lambda x: b.emit("Gelu", [x], approximate=kind))


@lowers("PRELU")
def prelu(b: Lowering, op: Operator) -> None:
    x, slope = b.name(op, 0), b.name(op, 1)
    first = b.is_first(x)
    y = b.emit("PRelu", [b.turned[x], b.operand(slope)] if first else [b.last(x), b.last(slope)])
    b.finish(op, y, first)


@lowers("DEQUANTIZE")
def dequantize(b: Lowering, op: Operator) -> None:
    x, tensor = b.name(op, 0), b.graph.tensors[op.inputs[0]]
    if x not in b.result.arrays and tensor.scale is not None:
        b.finish(op, b.last(x), False)
        return
    if (tensor.dtype is not dtypes.float16 and tensor.scale is None) or x not in b.result.arrays:
        raise UnsupportedUse("of what is neither quantised nor a float16 constant")
    _same_weight(b, op, x)


def _same_weight(b: Lowering, op: Operator, x: str) -> None:
    """The weight has the name that its users read, and lies where the file holds it."""
    name = b.output(op)
    if name in b.plain:
        b.place.refuse(name, "two ops compute it")
    if x in b.turns:
        raise UnsupportedUse("of a weight that is used in two ways")
    b.constant(name, b.result.arrays[x])
    b.source.places[name] = b.source.places[x]


@lowers("DENSIFY")
def densify(b: Lowering, op: Operator) -> None:
    x = b.name(op, 0)
    if x not in b.source.places:
        raise UnsupportedUse("of what is no constant")
    _same_weight(b, op, x)  # it was read with its zeros


@lowers("QUANTIZE")
def quantize(b: Lowering, op: Operator) -> None:
    b.finish(op, b.last(b.name(op, 0)), False)  # only with dequantize: the floats go on as they are


@lowers("SOFTMAX", "LOG_SOFTMAX")
def softmax(b: Lowering, op: Operator) -> None:
    soft = op.op == "SOFTMAX"
    beta = op.options("SoftmaxOptions").Beta() if soft else 1.0

    def compute(x: str, axis: int) -> str:
        x = x if beta == 1.0 else b.emit("Mul", [x, b.host(beta, np.float32)])
        return b.emit("Softmax" if soft else "LogSoftmax", [x], axis=axis)

    b.over_channels(b.output(op), b.name(op, 0), compute)


REDUCTIONS = {"MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin",
              "REDUCE_PROD": "ReduceProd"}  # fmt: skip


@lowers(*REDUCTIONS)
def reduction(b: Lowering, op: Operator) -> None:
    axes = [int(axis) for axis in b.value(op, 1).reshape(-1)]
    b.reduced(b.output(op), REDUCTIONS[op.op], b.name(op, 0), axes, bool(op.options("ReducerOptions").KeepDims()))


@lowers("REDUCE_ANY", "REDUCE_ALL")
def reduce_any(b: Lowering, op: Operator) -> None:
    keep = int(bool(op.options("ReducerOptions").KeepDims()))
    values = [b.last(b.name(op, 0)), b.last(b.name(op, 1))]
    b.finish(op, b.emit("AnyOf", values, keepdims=keep, every=int(op.op == "REDUCE_ALL")), False)


@lowers("ARG_MAX", "ARG_MIN")
def arg_extreme(b: Lowering, op: Operator) -> None:
    x, axis = b.name(op, 0), int(b.value(op, 1).reshape(-1)[0])
    first = b.is_first(x) and axis in (3, -1)  # then the result lies as in the file
    kind = "ArgMax" if op.op == "ARG_MAX" else "ArgMin"
    y = b.emit(kind, [b.turned[x] if first else b.last(x)], axis=1 if first else axis, keepdims=0)
    wide = b.graph.tensors[op.outputs[0]].dtype is dtypes.int64
    b.finish(op, y if wide else b.emit("Cast", [y], to=6), False)


@lowers("CUMSUM")
def cumsum(b: Lowering, op: Operator) -> None:
    o = op.options("CumsumOptions")
    values = [b.last(b.name(op, 0)), b.last(b.name(op, 1))]
    b.finish(op, b.emit("CumSum", values, exclusive=int(o.Exclusive()), reverse=int(o.Reverse())), False)


@lowers("TOPK_V2")
def top_k(b: Lowering, op: Operator) -> None:
    names = [f"{b.output(op)} part", f"{b.output(op, 1)} part"]
    k = b.emit("Reshape", [b.last(b.name(op, 1)), b.host([1])])
    b.emit("TopK", [b.last(b.name(op, 0)), k], outputs=names, axis=-1)
    b.done(b.output(op), names[0], False)
    b.done(b.output(op, 1), b.emit("Cast", [names[1]], to=6), False)


@lowers("BATCH_MATMUL")
def batch_matmul(b: Lowering, op: Operator) -> None:
    o = op.options("BatchMatMulOptions")
    b.finish(op, b.matmul(b.name(op, 0), b.name(op, 1), bool(o.AdjX()), bool(o.AdjY())), False)


COMPARISONS = {
    "EQUAL": "Equal", "NOT_EQUAL": "Equal", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual", "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual", "LOGICAL_AND": "And", "LOGICAL_OR": "Or",
}  # fmt: skip


@lowers(*COMPARISONS)
def comparison(b: Lowering, op: Operator) -> None:
    values, first = b.together(b.name(op, 0), b.name(op, 1))
    y = b.emit(COMPARISONS[op.op], values)
    b.finish(op, b.emit("Not", [y]) if op.op == "NOT_EQUAL" else y, first)


@lowers("ADD_N")
def add_n(b: Lowering, op: Operator) -> None:
    values, first = b.together(*(b.name(op, n) for n in range(len(op.inputs))))
    b.finish(op, b.emit("Sum", values), first)


@lowers("L2_NORMALIZATION")
def l2_normalization(b: Lowering, op: Operator) -> None:
    x = b.last(b.name(op, 0))
    squares = b.emit("ReduceSum", [b.emit("Mul", [x, x]), b.host([-1])])
    size = b.emit("Sqrt", [b.emit("Max", [squares, b.host(1e-12, np.float32)])])  # the length is at least 1e-6
    b.finish(op, b.emit("Div", [x, size]), False, op.options("L2NormOptions").FusedActivationFunction())


@lowers("LOCAL_RESPONSE_NORMALIZATION")
def local_response_normalization(b: Lowering, op: Operator) -> None:
    o = op.options("LocalResponseNormalizationOptions")
    size = 2 * o.Radius() + 1
    y = b.emit("LRN", [b.first(b.name(op, 0))], size=size, alpha=o.Alpha() * size, beta=o.Beta(), bias=o.Bias())
    b.finish(op, y, True)


@lowers("FAKE_QUANT")
def fake_quant(b: Lowering, op: Operator) -> None:
    o = op.options("FakeQuantOptions")
    if not 2 <= o.NumBits() <= 16:
        raise UnsupportedUse(f"of {o.NumBits()} bits")
    ends = [b.host(o.Min(), np.float32), b.host(o.Max(), np.float32)]
    bits, narrow = int(o.NumBits()), int(o.NarrowRange())
    b.unary(b.output(op), b.name(op, 0), lambda x: b.emit("FakeQuant", [x, *ends], bits=bits, narrow=narrow))


@lowers("L2_POOL_2D")
def l2_pool_2d(b: Lowering, op: Operator) -> None:
    o, x = op.options("Pool2DOptions"), b.first(b.name(op, 0))
    y = b.emit(
        "AveragePool", [b.emit("Mul", [x, x])], auto_pad=_auto_pad(o.Padding()), strides=(o.StrideH(), o.StrideW()),
        kernel_shape=(o.FilterHeight(), o.FilterWidth()),
    )  # fmt: skip
    b.finish(op, b.emit("Sqrt", [y]), True, o.FusedActivationFunction())


TO_FIRST, TO_LAST = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)
"""The permutations of volumes."""


@lowers("CONV_3D")
def conv_3d(b: Lowering, op: Operator) -> None:
    o = op.options("Conv3DOptions")
    x = b.emit("Transpose", [b.last(b.name(op, 0))], perm=TO_FIRST)
    inputs = [x, b.weight(b.name(op, 1), (4, 3, 0, 1, 2)), *filter(None, [b.optional(op, 2)])]
    y = b.emit(
        "Conv", inputs, auto_pad=_auto_pad(o.Padding()), strides=(o.StrideD(), o.StrideH(), o.StrideW()),
        dilations=(o.DilationDFactor(), o.DilationHFactor(), o.DilationWFactor()),
        group=b.size(b.name(op, 0), 4) // max(b.size(b.name(op, 1), 3), 1),
    )  # fmt: skip
    y = b.activated(y, o.FusedActivationFunction())
    b.finish(op, b.emit("Transpose", [y], perm=TO_LAST), False)


@lowers("ATAN2")
def atan2(b: Lowering, op: Operator) -> None:
    values, first = b.together(b.name(op, 0), b.name(op, 1))
    b.finish(op, b.emit("Atan2", values), first)
