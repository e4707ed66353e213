"""TensorFlow's layers and arithmetic, each as ONNX's ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.convert.build import Raw
from tinyedge.convert.graph import Array, Dims
from tinyedge.convert.layouts import FIRST, UnsupportedUse
from tinyedge.convert.tensorflow_file import TfNode, value_name
from tinyedge.convert.tensorflow_lowering import Lowering, lowers
from tinyedge.convert.windows import same_pads

IMAGE_LAYOUTS = ("NHWC", "NCHW")


def _is_nchw(op: TfNode) -> bool:
    layout = op.text("data_format", "NHWC")
    if layout not in IMAGE_LAYOUTS:
        raise UnsupportedUse(f"with the data_format {layout}")
    return layout == "NCHW"


def _images(b: Lowering, op: TfNode, position: int = 0) -> str:
    """An input with channels first, whichever way the file has it."""
    name = b.name(op, position)
    if not _is_nchw(op):
        return b.first(name)
    if b.rank(name) not in (4, None):
        raise UnsupportedUse(f"of an input of the shape {b.shapes[name]}")
    return b.last(name)


def _spatial(op: TfNode, name: str, default: int | None = None) -> tuple[int, int]:
    """An attribute of four dims: that of height and width."""
    values = op.ints(name, None if default is None else (default,) * 4)
    if len(values) != 4:
        raise ValueError(f"its {name} are {len(values)} numbers")
    if not _is_nchw(op):
        batch, height, width, channels = values
    else:
        batch, channels, height, width = values
    if batch != 1 or channels != 1:
        raise UnsupportedUse(f"with {name} over the batch or the channels")
    return height, width


def _padding(op: TfNode) -> dict[str, Any]:
    """ONNX's arguments for it."""
    padding = op.text("padding")
    if padding in ("SAME", "VALID"):
        return {"auto_pad": "SAME_UPPER" if padding == "SAME" else "VALID"}
    given = op.ints("explicit_paddings", ())
    if padding != "EXPLICIT" or len(given) != 8:
        raise ValueError(f"its padding is {padding!r} with {len(given)} numbers")
    pairs = [given[n : n + 2] for n in range(0, 8, 2)]
    if _is_nchw(op):
        pairs = [pairs[0], pairs[2], pairs[3], pairs[1]]
    if pairs[0] != (0, 0) or pairs[3] != (0, 0):
        raise UnsupportedUse("with padding of the batch or the channels")
    return {"auto_pad": "NOTSET", "pads": (pairs[1][0], pairs[2][0], pairs[1][1], pairs[2][1])}


def _image_dims(
    b: Lowering, op: TfNode, channels: int | None, kernel: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Dims:  # fmt: skip
    """The dims of what windows make of images."""
    given = b.shapes.get(b.name(op, 0)) or (None,) * 4
    nchw, padding = _is_nchw(op), op.text("padding")
    sizes: list[int | None] = []
    for n, (k, s, d) in enumerate(zip(kernel, stride, dilation)):
        size = given[(2 if nchw else 1) + n]
        if not isinstance(size, int) or s < 1 or padding == "EXPLICIT":
            sizes.append(None)
        else:
            sizes.append(-(-size // s) if padding == "SAME" else (size - (k - 1) * d - 1) // s + 1)
    return (given[0], channels, *sizes) if nchw else (given[0], *sizes, channels)


def _channels(b: Lowering, op: TfNode) -> int | None:
    dims = b.shapes.get(b.name(op, 0))
    size = None if dims is None else dims[1 if _is_nchw(op) else 3]
    return size if isinstance(size, int) else None


def _kernel(b: Lowering, name: str) -> tuple[int, int, int, int]:
    """The shape of a weight of convolutions."""
    dims = b.shapes.get(name)
    if dims is None or len(dims) != 4 or not all(isinstance(size, int) for size in dims):
        raise UnsupportedUse(f"whose weight has the shape {dims}")
    return dims  # type: ignore[return-value]


@lowers("Conv2D", "_FusedConv2D")
def conv_2d(b: Lowering, op: TfNode) -> None:
    w, nchw = b.name(op, 1), _is_nchw(op)
    height, width, deep, filters = _kernel(b, w)
    stride, dilation = _spatial(op, "strides"), _spatial(op, "dilations", 1)
    group = (_channels(b, op) or deep) // max(deep, 1)
    arguments = {"strides": stride, "dilations": dilation, "group": group, **_padding(op)}
    x, weight = _images(b, op), b.weight(w, (3, 2, 0, 1))
    y = b.emit("Conv", [x, weight], **arguments)
    dims = _image_dims(b, op, filters, (height, width), stride, dilation)
    _remember_dilated(b, op, weight, (height, width), group, filters)
    if op.op == "_FusedConv2D":
        y = _fused(b, op, y, nchw)
    b.finish(op, y, not nchw, dims)


@lowers("DepthwiseConv2dNative")
def depthwise_conv_2d(b: Lowering, op: TfNode) -> None:
    w, nchw = b.name(op, 1), _is_nchw(op)
    height, width, deep, times = _kernel(b, w)
    stride, dilation = _spatial(op, "strides"), _spatial(op, "dilations", 1)
    weight = b.weight(w, (2, 3, 0, 1))
    if times != 1:
        weight = b.emit("Reshape", [weight, b.host([deep * times, 1, height, width])])
    y = b.emit("Conv", [_images(b, op), weight], strides=stride, dilations=dilation, group=deep, **_padding(op))
    _remember_dilated(b, op, weight, (height, width), deep, deep * times)
    b.finish(op, y, not nchw, _image_dims(b, op, deep * times, (height, width), stride, dilation))


ACTIVATIONS = {"Relu": "Relu", "Elu": "Elu", "Tanh": "Tanh", "Sigmoid": "Sigmoid"}


def _fused(b: Lowering, op: TfNode, y: str, nchw: bool) -> str:
    """What an optimiser of graphs has put into a convolution or a product."""
    for number, name in enumerate(op.texts("fused_ops")):
        if name == "BiasAdd" and number == 0:
            raw = b.makers[y]
            y = b.emit(raw.op, [*raw.inputs, b.last(b.name(op, 2))], **raw.arguments)
        elif name == "Relu6":
            y = b.emit("Clip", [y, b.host(0.0, np.float32), b.host(6.0, np.float32)])
        elif name == "LeakyRelu":
            y = b.emit("LeakyRelu", [y], alpha=op.real("leakyrelu_alpha", 0.2))
        elif name in ACTIVATIONS:
            y = b.emit(ACTIVATIONS[name], [y])
        else:
            raise UnsupportedUse(f"fused with {name}")
    return y


# Dilated convolutions, spelled out: space to batch, a convolution, batch to space


@lowers("SpaceToBatchND")
def space_to_batch(b: Lowering, op: TfNode) -> None:
    x, block, pads = b.names(op)
    y = b.emit("SpaceToBatch", [b.last(x), b.last(block), b.last(pads)])
    dims = b.shapes.get(x)
    b.finish(
        op, y, False, None if dims is None else (None,) * len(dims) if len(dims) != 4 else (None, None, None, dims[3])
    )
    if block in b.known and pads in b.known and b.known[block].shape == (2,) and b.known[pads].shape == (2, 2):
        b.batched[op.name] = x, b.known[block], b.known[pads]


def _remember_dilated(b: Lowering, op: TfNode, weight: str, kernel: tuple[int, int], group: int, filters: int) -> None:
    """How this convolution of what SpaceToBatchND made is a dilated one."""
    given = b.batched.get(b.name(op, 0))
    plain = _spatial(op, "strides") == _spatial(op, "dilations", 1) == (1, 1)
    if given is None or not plain or _is_nchw(op) or op.text("padding") not in ("VALID", "SAME"):
        return
    x, block, pads = given
    same = [same_pads(1, k, 1, 1) if op.text("padding") == "SAME" else (0, 0) for k in kernel]

    def convolved(block_after: Array, crops: Array) -> str | None:
        if not np.array_equal(block, block_after) or crops.shape != (2, 2):
            return None
        around = [
            (int(before - cut) + own[0] * int(size), int(after - end) + own[1] * int(size))
            for (before, after), (cut, end), own, size in zip(pads, crops, same, block)
        ]
        sizes = tuple(int(size) for size in block)
        explicit = (around[0][0], around[1][0], around[0][1], around[1][1])
        return b.emit("Conv", [b.first(x), weight], dilations=sizes, group=group, pads=explicit)

    b.dilated[op.name] = convolved


@lowers("BatchToSpaceND")
def batch_to_space(b: Lowering, op: TfNode) -> None:
    x, block, crops = b.names(op)
    dims = b.shapes.get(x)
    channels = None if dims is None or len(dims) != 4 else dims[3]
    known = block in b.known and crops in b.known
    y = b.dilated[x](b.known[block], b.known[crops]) if known and x in b.dilated else None
    if y is not None:
        b.finish(op, y, True, (None, None, None, channels))
        return
    y = b.emit("BatchToSpace", [b.last(x), b.last(block), b.last(crops)])
    b.finish(op, y, False, None if dims is None else (*(None,) * (len(dims) - 1), dims[-1]) if dims else None)


@lowers("Conv2DBackpropInput")
def conv_2d_backprop_input(b: Lowering, op: TfNode) -> None:
    w, nchw = b.name(op, 1), _is_nchw(op)
    out = _kernel(b, w)[2]
    padding = _padding(op)
    sizes = b.emit("Slice", [b.last(b.name(op, 0)), b.host([2 if nchw else -3]), b.host([4 if nchw else -1])])
    pads = padding.get("pads", ())
    y = b.emit(
        "ConvTransposeTo", [_images(b, op, 2), b.weight(w, (3, 2, 0, 1)), sizes], strides=_spatial(op, "strides"),
        dilations=_spatial(op, "dilations", 1), same=int(padding["auto_pad"] == "SAME_UPPER"),
        pads=(pads[0], pads[2], pads[1], pads[3]) if pads else (),
    )  # fmt: skip
    known = b.known.get(b.name(op, 0))
    middle = (None, None) if known is None else tuple(int(size) for size in (known[2:4] if nchw else known[-3:-1]))
    b.finish(op, y, not nchw, (None, out, *middle) if nchw else (None, *middle, out))


@lowers("MaxPool", "AvgPool")
def pool(b: Lowering, op: TfNode) -> None:
    kernel, stride = _spatial(op, "ksize"), _spatial(op, "strides")
    kind = "MaxPool" if op.op == "MaxPool" else "AveragePool"
    y = b.emit(kind, [_images(b, op)], strides=stride, kernel_shape=kernel, **_padding(op))
    b.finish(op, y, not _is_nchw(op), _image_dims(b, op, _channels(b, op), kernel, stride))


@lowers("MaxPoolWithArgmax")
def max_pool_with_argmax(b: Lowering, op: TfNode) -> None:
    kernel, stride = _spatial(op, "ksize"), _spatial(op, "strides")
    names = [f"{value_name((op.name, number))} found" for number in (0, 1)]
    b.emit(
        "MaxPoolPlaces", [b.first(b.name(op, 0))], outputs=names, kernel_shape=kernel, strides=stride,
        auto_pad=_padding(op)["auto_pad"], counts="batch" if op.flag("include_batch_in_index") else "image",
    )  # fmt: skip
    dims = _image_dims(b, op, _channels(b, op), kernel, stride)
    b.finish(op, names[0], True, dims)
    b.shapes[value_name((op.name, 1))] = dims
    wide = op.kind("Targmax", 9) == 9
    b.done(value_name((op.name, 1)), names[1] if wide else b.emit("Cast", [names[1]], to=6), True)


# Products and biases


@lowers("MatMul", "_FusedMatMul")
def matmul(b: Lowering, op: TfNode) -> None:
    a, w = b.name(op, 0), b.name(op, 1)
    turn_a, turn_b = op.flag("transpose_a"), op.flag("transpose_b")
    wide = b.shapes.get(w)
    if w in b.result.arrays and wide is not None and len(wide) == 2:
        weight = b.last(w) if turn_b else b.weight(w, (1, 0))
        y = b.emit("Gemm", [b.last(a), weight], transB=1, transA=int(turn_a))
        filters = wide[0 if turn_b else 1]
    else:
        y, filters = b.matmul(a, w, turn_a, turn_b), None
    if op.op == "_FusedMatMul":
        if b.makers[y].op != "Gemm":
            raise UnsupportedUse("of two computed values")
        y = _fused(b, op, y, False)
    dims = b.shapes.get(a)
    b.finish(op, y, False, (None if dims is None or len(dims) != 2 else dims[int(turn_a)], filters))


@lowers("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def batch_matmul(b: Lowering, op: TfNode) -> None:
    a, c = b.name(op, 0), b.name(op, 1)
    y = b.matmul(a, c, op.flag("adj_x"), op.flag("adj_y"))
    first, second = b.shapes.get(a), b.shapes.get(c)
    known = first is not None and second is not None and len(first) == len(second)
    b.finish(op, y, False, (None,) * len(first) if known and first is not None else None)


@lowers("Einsum")
def einsum(b: Lowering, op: TfNode) -> None:
    b.finish(op, b.emit("Einsum", [b.last(name) for name in b.names(op)], equation=op.text("equation")), False)


def _with_bias(b: Lowering, op: TfNode, position: int, bias: str) -> tuple[str, bool] | None:
    """A convolution or product whose result only this reads, with the bias in it."""
    name, dims = b.name(op, position), b.shapes.get(bias)
    raw: Raw | None = b.origins.get(name)
    if raw is None or dims is None or len(dims) != 1 or bias in b.turns:
        return None
    whole = b.shapes.get(name)
    first = b.is_first(name)
    filters = whole[-1] if whole else None
    fits = filters == dims[0] and ((raw.op == "Conv" and first) or (raw.op == "Gemm" and not first))
    if raw.op == "ConvTransposeTo" and first and len(raw.inputs) == 3 and filters == dims[0]:
        return b.emit(raw.op, [*raw.inputs, b.last(bias)], **raw.arguments), True
    if not fits or len(raw.inputs) != 2 or not b.only_user(op, position):
        return None
    return b.emit(raw.op, [*raw.inputs, b.last(bias)], **raw.arguments), first


@lowers("BiasAdd", "BiasAddV1")
def bias_add(b: Lowering, op: TfNode) -> None:
    x, bias = b.name(op, 0), b.name(op, 1)
    dims = b.shapes.get(x)
    if b.shapes.get(bias) is None:
        b.shapes[bias] = (None,)
    layout = op.text("data_format", "NHWC")
    if layout not in IMAGE_LAYOUTS:
        raise UnsupportedUse(f"with the data_format {layout}")
    if x in b.dilated and layout == "NHWC":
        inner = b.dilated[x]
        held = b.last(bias)

        def convolved(block: Array, crops: Array) -> str | None:
            y = inner(block, crops)
            return None if y is None else b.emit("Conv", [*b.makers[y].inputs, held], **b.makers[y].arguments)

        b.dilated[op.name] = convolved
    if layout == "NCHW":
        if dims is None:
            raise UnsupportedUse("of an input of unknown rank")
        raw = b.origins.get(x)
        if raw is not None and raw.op == "Conv" and len(raw.inputs) == 2 and b.only_user(op, 0) and not b.is_first(x):
            b.finish(op, b.emit("Conv", [*raw.inputs, b.last(bias)], **raw.arguments), False, dims)
            return
        wide = b.emit("Unsqueeze", [b.last(bias), b.host(range(1, len(dims) - 1))]) if len(dims) > 2 else b.last(bias)
        b.finish(op, b.emit("Add", [b.last(x), wide]), False, dims)
        return
    fused = _with_bias(b, op, 0, bias)
    if fused is not None:
        b.finish(op, *fused, dims)
        return
    values, first = b.together(x, bias)
    b.finish(op, b.emit("Add", values), first, dims)


# Norms


@lowers("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def fused_batch_norm(b: Lowering, op: TfNode) -> None:
    x, nchw = b.name(op, 0), _is_nchw(op)
    epsilon = op.real("epsilon", 1e-4)
    scale, bias, mean, var = (b.last(b.name(op, n)) for n in range(1, 5))
    value = _images(b, op)
    if op.flag("is_training", True):
        y = b.emit("ChannelNorm", [value, "", "", scale, bias], epsilon=epsilon)
    else:
        y = b.emit("BatchNormalization", [value, scale, bias, mean, var], epsilon=epsilon)
    b.finish(op, y, not nchw, b.shapes.get(x))


def _vector(b: Lowering, name: str) -> str:
    """The constant of one dim that a value is, or was before it got leading dims of 1; "" if it is none."""
    node, inner = b.nodes.get(name), name
    if name not in b.result.arrays and node is not None and node.op == "Reshape":
        inner, sizes = b.name(node, 0), b.known.get(b.name(node, 1))
        if sizes is None or sizes.ndim != 1 or (sizes[:-1] != 1).any():
            return ""
    dims = b.shapes.get(inner)
    return inner if inner in b.result.arrays and dims is not None and len(dims) == 1 and inner not in b.turns else ""


def _spelled_out(b: Lowering, op: TfNode) -> bool:
    """``x * m + (beta - mean * m)`` with ``m = rsqrt(var + epsilon) * gamma`` is a batch norm. Whether it was that."""
    for number in (0, 1):
        product, rest = b.maker(op.inputs[number]), b.maker(op.inputs[1 - number])
        if product is None or rest is None or product.op != "Mul" or rest.op != "Sub":
            continue
        shift = b.maker(rest.inputs[1])
        if shift is None or shift.op != "Mul":
            continue
        for side in (0, 1):
            factor = b.ref(product, 1 - side)
            if factor in (b.ref(shift, 0), b.ref(shift, 1)):
                mean = b.name(shift, 1 if b.ref(shift, 0) == factor else 0)
                if _as_norm(b, op, b.name(product, side), mean, b.name(rest, 0), b.maker(factor)):
                    return True
    return False


def _as_norm(b: Lowering, op: TfNode, x: str, mean: str, beta: str, factor: TfNode | None) -> bool:
    gamma, root = "", factor
    if factor is not None and factor.op == "Mul":
        for side in (0, 1):
            root, gamma = b.maker(factor.inputs[side]), b.name(factor, 1 - side)
            if root is not None and root.op == "Rsqrt":
                break
    if root is None or root.op != "Rsqrt":
        return False
    total = b.maker(root.inputs[0])
    if total is None or total.op not in ("Add", "AddV2"):
        return False
    var, epsilon = b.name(total, 0), b.name(total, 1)
    if b.known.get(var, np.zeros(2)).size == 1:
        var, epsilon = epsilon, var
    known = b.known.get(epsilon)
    vectors = [_vector(b, name) for name in (mean, var, beta, *([gamma] if gamma else []))]
    if known is None or known.size != 1 or not all(vectors):
        return False
    rank = b.rank(x)
    if rank not in (2, 4):
        return False
    value = b.first(x) if rank == 4 else b.last(x)
    mean, var, beta, *scale = (b.last(name) for name in vectors)
    number = float(known.reshape(()))
    if scale:
        y = b.emit("BatchNormalization", [value, *scale, beta, mean, var], epsilon=number)
    else:
        y = b.emit("ChannelNorm", [value, mean, var, "", beta], epsilon=number)
    b.finish(op, y, rank == 4, b.shapes.get(x))
    return True


# Elementwise


def broadcast_dims(b: Lowering, names: list[str]) -> Dims | None:
    """The dims of what broadcasts, where they are known."""
    shapes = [b.shapes.get(name) for name in names]
    if any(dims is None for dims in shapes):
        return None
    rank = max(len(dims or ()) for dims in shapes)
    result: list[int | str | None] = []
    for place in range(rank):
        sizes = {
            dims[place - rank + len(dims)] for dims in shapes if dims is not None and place - rank + len(dims) >= 0
        }
        known = {size for size in sizes if isinstance(size, int) and size != 1}  # what is open is this, or 1
        large = known or sizes - {1}
        result.append(1 if not large else large.pop() if len(large) == 1 else None)
    return tuple(result)


BINARY = {
    "Add": "Add", "AddV2": "Add", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div", "Div": "Div", "TruncateDiv": "Div",
    "Maximum": "Max", "Minimum": "Min", "Pow": "Pow", "FloorDiv": "FloorDiv", "FloorMod": "FloorMod",
    "DivNoNan": "DivNoNan", "Greater": "Greater", "GreaterEqual": "GreaterOrEqual", "Less": "Less",
    "LessEqual": "LessOrEqual", "Equal": "Equal", "LogicalAnd": "And", "LogicalOr": "Or", "BitwiseAnd": "BitwiseAnd",
    "BitwiseOr": "BitwiseOr", "BitwiseXor": "BitwiseXor", "Atan2": "Atan2",
}  # fmt: skip


@lowers(*BINARY)
def binary(b: Lowering, op: TfNode) -> None:
    names = [b.name(op, 0), b.name(op, 1)]
    dims = broadcast_dims(b, names)
    if BINARY[op.op] == "Add":
        if _spelled_out(b, op):
            return
        for position in (0, 1):
            fused = _with_bias(b, op, position, names[1 - position])
            if fused is not None:
                b.finish(op, *fused, dims)
                return
    values, first = b.together(*names)
    b.finish(op, b.emit(BINARY[op.op], values), first, dims)


@lowers("NotEqual", "SquaredDifference", "Mod", "TruncateMod")
def composed(b: Lowering, op: TfNode) -> None:
    names = [b.name(op, 0), b.name(op, 1)]
    values, first = b.together(*names)
    if op.op == "NotEqual":
        y = b.emit("Not", [b.emit("Equal", values)])
    elif op.op == "SquaredDifference":
        difference = b.emit("Sub", values)
        y = b.emit("Mul", [difference, difference])
    else:
        y = b.emit("Mod", values, fmod=1)
    b.finish(op, y, first, broadcast_dims(b, names))


@lowers("AddN")
def add_n(b: Lowering, op: TfNode) -> None:
    names = b.names(op)
    values, first = b.together(*names)
    b.finish(op, b.emit("Sum", values), first, broadcast_dims(b, names))


UNARY = {
    "Relu": "Relu", "Elu": "Elu", "Selu": "Selu", "Sigmoid": "Sigmoid", "Tanh": "Tanh", "Softplus": "Softplus",
    "Softsign": "Softsign", "Abs": "Abs", "Neg": "Neg", "Exp": "Exp", "Expm1": "Expm1", "Log": "Log", "Log1p": "Log1p",
    "Sqrt": "Sqrt", "Rsqrt": "Rsqrt", "Floor": "Floor", "Ceil": "Ceil", "Round": "Round", "Rint": "Round",
    "Sign": "Sign", "Sin": "Sin", "Cos": "Cos", "Tan": "Tan", "Asin": "Asin", "Acos": "Acos", "Atan": "Atan",
    "Sinh": "Sinh", "Cosh": "Cosh", "Asinh": "Asinh", "Acosh": "Acosh", "Atanh": "Atanh", "Erf": "Erf",
    "Reciprocal": "Reciprocal", "Inv": "Reciprocal", "LogicalNot": "Not", "IsNan": "IsNaN", "IsInf": "IsInf",
    "ZerosLike": "ZerosLike", "OnesLike": "OnesLike", "Invert": "BitwiseNot",
}  # fmt: skip


def elementwise(b: Lowering, op: TfNode, kind: str, *more: str, **arguments: Any) -> None:
    """An op of one input that leaves every element where it is."""
    x = b.name(op, 0)
    first = b.is_first(x)
    y = b.emit(kind, [b.turned[x] if first else b.last(x), *more], **arguments)
    b.finish(op, y, first, b.shapes.get(x))


@lowers(*UNARY)
def unary(b: Lowering, op: TfNode) -> None:
    elementwise(b, op, UNARY[op.op])


@lowers("Relu6")
def relu6(b: Lowering, op: TfNode) -> None:
    elementwise(b, op, "Clip", b.host(0.0, np.float32), b.host(6.0, np.float32))


@lowers("ClipByValue")
def clip_by_value(b: Lowering, op: TfNode) -> None:
    low, high = b.value(op, 1), b.value(op, 2)
    if low.size != 1 or high.size != 1:
        raise UnsupportedUse("with bounds for each element")
    elementwise(b, op, "Clip", b.host(low.reshape(()), low.dtype), b.host(high.reshape(()), high.dtype))


@lowers("LeakyRelu")
def leaky_relu(b: Lowering, op: TfNode) -> None:
    elementwise(b, op, "LeakyRelu", alpha=op.real("alpha", 0.2))


@lowers("Square")
def square(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    first = b.is_first(x)
    value = b.turned[x] if first else b.last(x)
    b.finish(op, b.emit("Mul", [value, value]), first, b.shapes.get(x))


@lowers("Softmax", "LogSoftmax")
def softmax(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    first = b.is_first(x)
    y = b.emit(op.op, [b.turned[x] if first else b.last(x)], axis=1 if first else -1)
    b.finish(op, y, first, b.shapes.get(x))


@lowers("LRN")
def lrn(b: Lowering, op: TfNode) -> None:
    size = 2 * op.number("depth_radius", 5) + 1
    arguments: dict[str, Any] = {
        "alpha": op.real("alpha", 1.0) * size,
        "beta": op.real("beta", 0.5),
        "bias": op.real("bias", 1.0),
    }
    b.finish(op, b.emit("LRN", [_images(b, op)], size=size, **arguments), True, b.shapes.get(b.name(op, 0)))


# Reductions

REDUCTIONS = {"Mean": "ReduceMean", "Sum": "ReduceSum", "Max": "ReduceMax", "Min": "ReduceMin", "Prod": "ReduceProd",
              "Any": "AnyOf", "All": "AnyOf"}  # fmt: skip


@lowers(*REDUCTIONS)
def reduction(b: Lowering, op: TfNode) -> None:
    x, keep, given = b.name(op, 0), op.flag("keep_dims"), b.shapes.get(b.name(op, 0))
    axes, rank = b.numbers(op, 1), b.rank(b.name(op, 0))
    if rank is not None:
        axes = tuple(sorted({axis % rank if rank else axis for axis in axes}))
    first = b.is_first(x) and (keep or axes == (1, 2))
    places = b.host([FIRST.index(axis) if first else axis for axis in axes])
    kind: dict[str, Any] = {"noop_with_empty_axes": 1}
    if REDUCTIONS[op.op] == "AnyOf":
        kind = {"every": int(op.op == "All")}
    y = b.emit(REDUCTIONS[op.op], [b.turned[x] if first else b.last(x), places], keepdims=int(keep), **kind)
    dims: Dims | None = None
    if given is not None:
        gone = [n in axes for n in range(len(given))]
        dims = tuple(1 if out else size for size, out in zip(given, gone) if keep or not out)
    b.finish(op, y, first and keep, dims)


@lowers("ArgMax", "ArgMin")
def arg_extreme(b: Lowering, op: TfNode) -> None:
    x, dims = b.name(op, 0), b.shapes.get(b.name(op, 0))
    axis = b.numbers(op, 1)[0]
    first = b.is_first(x) and axis in (3, -1)  # then the result lies as in the file
    y = b.emit(op.op, [b.turned[x] if first else b.last(x)], axis=1 if first else axis, keepdims=0)
    if op.kind("output_type", 9) == 3:
        y = b.emit("Cast", [y], to=6)
    whole = None if dims is None else tuple(size for n, size in enumerate(dims) if n != axis % len(dims))
    b.finish(op, y, False, whole)


@lowers("Cumsum")
def cumsum(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    y = b.emit(
        "CumSum",
        [b.last(x), b.last(b.name(op, 1))],
        exclusive=int(op.flag("exclusive")),
        reverse=int(op.flag("reverse")),
    )
    b.finish(op, y, False, b.shapes.get(x))


@lowers("TopKV2")
def top_k(b: Lowering, op: TfNode) -> None:
    names = [f"{op.name}:values part", f"{op.name}:indices part"]
    k = b.emit("Reshape", [b.last(b.name(op, 1)), b.host([1])])
    b.emit("TopK", [b.last(b.name(op, 0)), k], outputs=names, axis=-1)
    dims = b.shapes.get(b.name(op, 0))
    open_dims = None if dims is None else (*dims[:-1], None)
    b.finish(op, names[0], False, open_dims)
    b.finish(op, b.emit("Cast", [names[1]], to=6), False, open_dims, 1)


@lowers("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")
def fake_quant(b: Lowering, op: TfNode) -> None:
    x, bits = b.name(op, 0), op.number("num_bits", 8)
    if not 2 <= bits <= 16:
        raise UnsupportedUse(f"of {bits} bits")
    if op.op.endswith("Args"):
        ends = [b.host(op.real("min", -6.0), np.float32), b.host(op.real("max", 6.0), np.float32)]
    else:
        ends = [b.host(b.value(op, 1), np.float32), b.host(b.value(op, 2), np.float32)]
    narrow, b.shapes[op.name] = int(op.flag("narrow_range")), b.shapes.get(x)
    if op.op.endswith("Channel"):  # of the last dim
        b.finish(op, b.emit("FakeQuant", [b.last(x), *ends], bits=bits, narrow=narrow), False, b.shapes.get(x))
    else:
        b.unary(op.name, x, lambda value: b.emit("FakeQuant", [value, *ends], bits=bits, narrow=narrow))


@lowers("NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5")
def non_max_suppression(b: Lowering, op: TfNode) -> None:
    version = op.op.removeprefix("NonMaxSuppression")
    if version == "V5" and float(b.value(op, 5).reshape(-1)[0]) != 0:
        raise UnsupportedUse("that lowers scores, instead of leaving boxes out")
    values = [b.last(b.name(op, n)) for n in range(min(len(op.inputs), 5))]
    if not version:
        values.append(b.host(op.real("iou_threshold", 0.5), np.float32))
    padded = int(version in ("V4", "V5") and op.flag("pad_to_max_output_size"))
    names = [f"{op.name}:{n} found" for n in range(3 if version == "V5" else 2)]
    b.emit("SelectBoxes", values, outputs=names, padded=padded, scored=int(version == "V5"))
    for n, name in enumerate(names if version in ("V4", "V5") else names[:1]):
        b.finish(op, name, False, (None,) if n < len(names) - 1 else (), n)
