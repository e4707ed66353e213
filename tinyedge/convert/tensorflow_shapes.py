"""TensorFlow's ops that move, pick and make values, each as ONNX's."""

from __future__ import annotations

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.graph import Dims
from tinyedge.convert.layouts import FIRST, LAST, UnsupportedUse
from tinyedge.convert.tensorflow_file import DTYPES, TfNode, value_name
from tinyedge.convert.tensorflow_handlers import host_strided_slice
from tinyedge.convert.tensorflow_lowering import Lowering, lowers
from tinyedge.convert.tensorflow_ops import broadcast_dims, elementwise

CAST = {1: 1, 2: 11, 3: 6, 4: 2, 5: 5, 6: 3, 9: 7, 10: 9, 14: 16, 19: 10}
"""ONNX's numbers of element types by TensorFlow's."""


@lowers("Const")
def const(b: Lowering, op: TfNode) -> None:
    array, lying = b.tensors.read(op.attribute("value", "tensor", None), op.name)
    b.constant(op.name, array)
    if lying is not None:
        b.result.lying[op.name] = lying


@lowers("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "PlaceholderWithDefault", "Snapshot",
        "EnsureShape", "BitcastIdentity")  # fmt: skip
def identity(b: Lowering, op: TfNode) -> None:
    b.alias(op, b.ref(op, 0))


@lowers("IdentityN")
def identity_n(b: Lowering, op: TfNode) -> None:
    for number in range(len(op.inputs)):
        b.alias(op, b.ref(op, number), number)


@lowers("Reshape")
def reshape(b: Lowering, op: TfNode) -> None:
    x, shape = b.name(op, 0), b.name(op, 1)
    y = b.emit("Reshape", [b.last(x), b.last(shape)], allowzero=1)
    known, held = b.known.get(shape), b.shapes.get(shape)
    dims: Dims | None = None
    if known is not None:
        dims = tuple(int(size) if size >= 0 else None for size in known.reshape(-1))
        given = b.shapes.get(x)
        if dims.count(None) == 1 and given is not None and all(isinstance(size, int) for size in given):
            whole, rest = int(np.prod(given)), int(np.prod([size for size in dims if size is not None]))  # type: ignore[arg-type]
            dims = tuple((whole // rest if rest else 0) if size is None else size for size in dims)
    elif held is not None and len(held) == 1 and isinstance(held[0], int) and held[0] <= 16:
        dims = (None,) * held[0]
    b.finish(op, y, False, dims)


@lowers("Squeeze")
def squeeze(b: Lowering, op: TfNode) -> None:
    x, axes = b.name(op, 0), op.ints("squeeze_dims", ())
    dims = b.shapes.get(x)
    whole: Dims | None = None
    if dims is not None and axes:
        gone = {axis % len(dims) for axis in axes} if dims else set()
        whole = tuple(size for n, size in enumerate(dims) if n not in gone)
    elif dims is not None and all(isinstance(size, int) for size in dims):
        whole = tuple(size for size in dims if size != 1)
    b.shapes[op.name] = whole
    b.squeezed(op.name, x, axes)


@lowers("ExpandDims")
def expand_dims(b: Lowering, op: TfNode) -> None:
    axes, dims = b.numbers(op, 1), b.shapes.get(b.name(op, 0))
    if len(axes) != 1:
        raise ValueError(f"it has {len(axes)} axes")
    y = b.emit("Unsqueeze", [b.last(b.name(op, 0)), b.host(axes)])
    whole = None
    if dims is not None:
        place = axes[0] % (len(dims) + 1)
        whole = (*dims[:place], 1, *dims[place:])
    b.finish(op, y, False, whole)


@lowers("Transpose")
def transpose(b: Lowering, op: TfNode) -> None:
    x, perm = b.name(op, 0), b.name(op, 1)
    dims = b.shapes.get(x)
    known = b.known.get(perm)
    if known is None:
        b.finish(op, b.emit("Permute", [b.last(x), b.last(perm)]), False, None if dims is None else (None,) * len(dims))
        return
    order = tuple(int(axis) for axis in known.reshape(-1))
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"its dims are {order}")
    b.shapes[op.name] = (
        (None,) * len(order) if dims is None or len(dims) != len(order) else tuple(dims[n] for n in order)
    )
    b.transposed(op.name, x, order)


@lowers("Pad", "PadV2", "MirrorPad")
def pad(b: Lowering, op: TfNode) -> None:
    x, dims, value = b.name(op, 0), b.shapes.get(b.name(op, 0)), None
    mode = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}[op.text("mode")] if op.op == "MirrorPad" else "constant"
    if op.op == "PadV2":
        value = float(b.value(op, 2).reshape(()))
    if b.name(op, 1) not in b.known:
        if mode != "constant" or value:
            raise UnsupportedUse("whose padding is computed")
        turned = b.emit("Reshape", [b.emit("Transpose", [b.last(b.name(op, 1))], perm=(1, 0)), b.host([-1])])
        b.finish(op, b.emit("Pad", [b.last(x), turned]), False, None if dims is None else (None,) * len(dims))
        return
    pads = np.asarray(b.value(op, 1), np.int64).reshape(-1, 2)
    rank = b.rank(x)
    if (rank is not None and len(pads) != rank) or (pads < 0).any():
        raise ValueError(f"it has paddings {pads.tolist()} for {rank} dims")
    given = dims if dims is not None else (None,) * len(pads)
    b.shapes[op.name] = tuple(
        size + int(before + after) if isinstance(size, int) else None for size, (before, after) in zip(given, pads)
    )
    b.padded(op.name, x, pads, mode, value)


@lowers("ConcatV2", "Concat")
def concat(b: Lowering, op: TfNode) -> None:
    names = b.names(op)
    place = len(names) - 1 if op.op == "ConcatV2" else 0
    axis = b.numbers(op, place)[0]
    del names[place]
    y, first = b.joined(names, axis)
    shapes = [b.shapes.get(name) for name in names]
    dims: Dims | None = None
    if first or all(shape is not None for shape in shapes):
        known = [shape if shape is not None else (None,) * 4 for shape in shapes]
        rank = len(known[0])
        along = [shape[axis % rank] for shape in known if len(shape) == rank]
        total = sum(along) if all(isinstance(size, int) for size in along) else None  # type: ignore[arg-type]
        dims = tuple(
            total if n == axis % rank else next((s[n] for s in known if isinstance(s[n], int)), None)
            for n in range(rank)
        )
    b.finish(op, y, first, dims)


@lowers("Split", "SplitV")
def split(b: Lowering, op: TfNode) -> None:
    whole = op.op == "Split"
    x, axis, count = b.name(op, 1 if whole else 0), b.numbers(op, 0 if whole else 2)[0], op.number("num_split")
    if not 1 <= count <= 1024:
        raise ValueError(f"it makes {count} parts")
    dims = b.shapes.get(x)
    sizes: list[int | None] = [None] * count
    if dims is not None:
        size = dims[axis % len(dims)]
        if isinstance(size, int):
            if whole and size % count:
                raise ValueError(f"{count} equal parts of {size}")
            sizes = [size // count] * count
    given = ""
    if not whole:
        values = list(b.numbers(op, 1))
        size = None if dims is None else dims[axis % len(dims)]
        if -1 in values:
            if not isinstance(size, int) or values.count(-1) > 1:
                raise UnsupportedUse("whose parts are not known")
            values[values.index(-1)] = size - sum(values) - 1
        sizes, given = list(values), b.host(values)
    outputs = [value_name((op.name, number)) for number in range(count)]
    for output, size in zip(outputs, sizes):
        b.shapes[output] = None if dims is None else tuple(
            size if n == axis % len(dims) else own for n, own in enumerate(dims)
        )  # fmt: skip
    b.parted(outputs, x, given, axis)


@lowers("Slice")
def slice_(b: Lowering, op: TfNode) -> None:
    x, start, size = b.names(op)
    dims, known = b.shapes.get(x), b.known.get(size)
    if known is not None and start in b.known and b.is_first(x) and known.size == 4:
        order = list(FIRST)
        places = b.host(b.known[start].reshape(-1)[order]), b.host(known.reshape(-1)[order])
        y, first = b.emit("SizedSlice", [b.turned[x], *places]), True
    else:
        y, first = b.emit("SizedSlice", [b.last(x), b.last(start), b.last(size)]), False
    whole: Dims | None = None
    if dims is not None:
        counts = [-1] * len(dims) if known is None else [int(count) for count in known.reshape(-1)]
        whole = tuple(count if count >= 0 else None for count in counts)
    b.finish(op, y, first, whole)


@lowers("StridedSlice")
def strided_slice(b: Lowering, op: TfNode) -> None:
    x, parts = b.name(op, 0), [b.name(op, n) for n in (1, 2, 3)]
    ellipsis, new, shrink = (op.number(f"{name}_mask", 0) for name in ("ellipsis", "new_axis", "shrink_axis"))
    masks = (op.number("begin_mask", 0), op.number("end_mask", 0), ellipsis, new, shrink)
    y = b.emit("StridedSlice", [b.last(x), *(b.last(part) for part in parts)], masks=masks)
    dims, count = b.shapes.get(x), b.shapes.get(parts[0])
    whole: Dims | None = None
    if dims is not None and None not in dims and all(part in b.known for part in parts):
        empty = np.broadcast_to(np.zeros((), np.int8), dims)  # type: ignore[arg-type]
        whole = host_strided_slice(empty, *(b.known[part] for part in parts), masks=masks).shape
    elif dims is not None and count is not None and len(count) == 1 and isinstance(count[0], int) and count[0] <= 32:
        bits = range(count[0])
        rank = len(dims) + sum(new >> n & 1 for n in bits)
        rank -= sum(shrink >> n & 1 and not (new >> n & 1) and not (ellipsis >> n & 1) for n in bits)
        whole = (None,) * max(rank, 0)
        if not ellipsis | new | shrink and len(dims) == 4 and count[0] < 4:
            whole = (*whole[:3], dims[3])
    b.finish(op, y, False, whole)


@lowers("Gather", "GatherV2", "ResourceGather")
def gather(b: Lowering, op: TfNode) -> None:
    x, indices = b.name(op, 0), b.name(op, 1)
    axis = b.numbers(op, 2)[0] if len(op.inputs) > 2 else 0
    batch = op.number("batch_dims", 0)
    values = [b.last(x), b.last(indices)]
    if batch:
        y = b.emit("BatchGather", values, axis=axis, batch_dims=batch)
    else:
        y = b.emit("Gather", values, axis=axis)
    dims, own = b.shapes.get(x), b.shapes.get(indices)
    whole = None
    if dims is not None and own is not None and dims and not batch:
        place = axis % len(dims)
        whole = (*dims[:place], *own, *dims[place + 1 :])
    elif dims is not None and own is not None:
        whole = (None,) * max(len(dims) - 1 + len(own) - batch, 0)
    b.finish(op, y, False, whole)


@lowers("GatherNd")
def gather_nd(b: Lowering, op: TfNode) -> None:
    b.finish(op, b.emit("GatherND", [b.last(name) for name in b.names(op)]), False)


@lowers("Pack")
def pack(b: Lowering, op: TfNode) -> None:
    names, axis = b.names(op), op.number("axis", 0)
    dims = b.shapes.get(names[0])
    if dims is not None:
        place = axis % (len(dims) + 1)
        b.shapes[op.name] = (*dims[:place], len(names), *dims[place:])
    b.packed(op.name, names, axis)


@lowers("Unpack")
def unpack(b: Lowering, op: TfNode) -> None:
    x, axis, count = b.name(op, 0), op.number("axis", 0), op.number("num")
    if not 1 <= count <= 4096:
        raise ValueError(f"it makes {count} parts")
    dims = b.shapes.get(x)
    outputs = [value_name((op.name, number)) for number in range(count)]
    for output in outputs if dims else ():
        assert dims is not None  # it has dims
        b.shapes[output] = tuple(size for n, size in enumerate(dims) if n != axis % len(dims))
    b.unpacked(outputs, x, axis)


@lowers("Tile")
def tile(b: Lowering, op: TfNode) -> None:
    dims = b.shapes.get(b.name(op, 0))
    y = b.emit("Tile", [b.last(b.name(op, 0)), b.last(b.name(op, 1))])
    b.finish(op, y, False, None if dims is None else (None,) * len(dims))


@lowers("BroadcastTo")
def broadcast_to(b: Lowering, op: TfNode) -> None:
    held = b.shapes.get(b.name(op, 1))
    y = b.emit("Broadcast", [b.last(b.name(op, 0)), b.last(b.name(op, 1))])
    known = held is not None and len(held) == 1 and isinstance(held[0], int) and held[0] <= 16
    b.finish(op, y, False, (None,) * held[0] if known and held is not None else None)  # type: ignore[operator]


@lowers("ResizeBilinear", "ResizeNearestNeighbor")
def resize(b: Lowering, op: TfNode) -> None:
    x, sizes = b.name(op, 0), b.name(op, 1)
    mode = "linear" if op.op == "ResizeBilinear" else "nearest"
    dims, known = b.shapes.get(x) or (None,) * 4, b.known.get(sizes)
    middle = (None, None) if known is None or known.size != 2 else tuple(int(size) for size in known.reshape(-1))
    b.shapes[op.name] = (dims[0], *middle, dims[3])
    b.resized(op.name, x, b.last(sizes), mode, op.flag("align_corners"), op.flag("half_pixel_centers"))


@lowers("SpaceToDepth", "DepthToSpace")
def space_to_depth(b: Lowering, op: TfNode) -> None:
    x, layout, size = b.name(op, 0), op.text("data_format", "NHWC"), op.number("block_size")
    if layout not in ("NHWC", "NCHW"):
        raise UnsupportedUse(f"with the data_format {layout}")
    nchw = layout == "NCHW"
    y = b.emit(op.op, [b.last(x) if nchw else b.first(x)], blocksize=size)
    b.finish(op, y, not nchw, (None, None, None, None))


@lowers("Cast")
def cast(b: Lowering, op: TfNode) -> None:
    to = op.kind("DstT")
    if to not in CAST:
        raise UnsupportedUse("to an element type that is not read")
    if (x := b.name(op, 0)) in b.complex:  # of complex numbers the real part
        b.finish(op, b.emit("Cast", [b.complex[x][0]], to=CAST[to]), False, b.shapes.get(x))
        return
    elementwise(b, op, "Cast", to=CAST[to])


@lowers("Shape")
def shape(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    dims = b.shapes.get(x)
    kind = np.int64 if op.kind("out_type", 3) == 9 else np.int32
    if dims is not None and all(isinstance(size, int) for size in dims):
        b.constant(op.name, np.array(dims, kind))
        return
    if b.is_first(x) and x not in b.plain:
        y = b.emit("Gather", [b.emit("Shape", [b.turned[x]]), b.host(LAST)])
    else:
        y = b.emit("Shape", [b.last(x)])
    whole = (len(dims),) if dims is not None else (4,) if b.is_first(x) else None
    b.finish(op, b.emit("Cast", [y], to=7 if kind is np.int64 else 6), False, whole)


@lowers("Size")
def size(b: Lowering, op: TfNode) -> None:
    y = b.emit("Size", [b.last(b.name(op, 0))])
    b.finish(op, b.emit("Cast", [y], to=CAST[op.kind("out_type", 3)]), False, ())


@lowers("Rank")
def rank(b: Lowering, op: TfNode) -> None:
    known = b.rank(b.name(op, 0))
    if known is not None:
        b.constant(op.name, np.array(known, np.int32))
        return
    b.finish(op, b.emit("Cast", [b.emit("Rank", [b.last(b.name(op, 0))])], to=6), False, ())


@lowers("Fill")
def fill(b: Lowering, op: TfNode) -> None:
    held = b.shapes.get(b.name(op, 0))
    y = b.emit("Filled", [b.last(b.name(op, 0)), b.last(b.name(op, 1))])
    known = held is not None and len(held) == 1 and isinstance(held[0], int) and held[0] <= 16
    b.finish(op, y, False, (None,) * held[0] if known and held is not None else None)  # type: ignore[operator]


@lowers("Range")
def range_(b: Lowering, op: TfNode) -> None:
    b.finish(op, b.emit("Range", [b.last(name) for name in b.names(op)]), False, (None,))


@lowers("OneHot")
def one_hot(b: Lowering, op: TfNode) -> None:
    indices, depth, on, off = b.names(op)
    axis, dims = op.number("axis", -1), b.shapes.get(indices)
    y = b.emit("OneHotAt", [b.last(indices), b.last(depth), b.last(on), b.last(off)], axis=axis)
    b.finish(op, y, False, None if dims is None else (None,) * (len(dims) + 1))


@lowers("Select", "SelectV2")
def select(b: Lowering, op: TfNode) -> None:
    names = b.names(op)
    dims = broadcast_dims(b, names)
    condition = b.shapes.get(names[0])
    if op.op == "Select" and (condition is None or len(condition) == 1):  # which may choose rows
        b.finish(op, b.emit("RowSelect", [b.last(name) for name in names]), False, b.shapes.get(names[1]))
        return
    values, first = b.together(*names)
    b.finish(op, b.emit("Where", values), first, dims)


@lowers("ReverseV2")
def reverse(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    b.finish(op, b.emit("Reverse", [b.last(x), b.last(b.name(op, 1))]), False, b.shapes.get(x))


@lowers("ReverseSequence")
def reverse_sequence(b: Lowering, op: TfNode) -> None:
    x = b.name(op, 0)
    values = [b.last(x), b.last(b.name(op, 1))]
    y = b.emit("ReverseSequence", values, time_axis=op.number("seq_dim"), batch_axis=op.number("batch_dim", 0))
    b.finish(op, y, False, b.shapes.get(x))


@lowers("ScatterNd")
def scatter_nd(b: Lowering, op: TfNode) -> None:
    kind = op.kind("T", 1)
    if kind not in DTYPES:
        raise UnsupportedUse("of an element type that is not read")
    nothing = b.emit("Filled", [b.last(b.name(op, 2)), b.host(0, dtypes.resolve(DTYPES[kind]).numpy)])
    values = [nothing, b.last(b.name(op, 0)), b.last(b.name(op, 1))]
    known = b.known.get(b.name(op, 2))
    dims = None if known is None else tuple(int(size) for size in known.reshape(-1))
    b.finish(op, b.emit("ScatterND", values, reduction="add"), False, dims)
