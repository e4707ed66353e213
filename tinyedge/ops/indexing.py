"""Elements by integer index: embedding, index_select, gather, one_hot.

An index outside its range reads nothing, and raises IndexRangeError (``indices``): at once where it is known, from the
host and on the numpy backend, else when a value is read next.
"""

from __future__ import annotations

from math import prod
from random import Random
from typing import Any

import numpy as np

from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import int64
from tinyedge.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.indices import check_index, check_indices, check_range, wrapped
from tinyedge.shapes import Shape, broadcast, collapse, contiguous_strides, normalize_axis
from tinyedge.tensor import Tensor, call

Array = np.ndarray[Any, Any]
TEMPLATE = "indexing.cl.jinja"
FEW_POSITIONS = 2048
"""For so many a GPU compares all with all: fewer reads than a launch takes time. More are sorted."""

RUN = 256
"""Positions whose ranks are found by comparing all with all, before runs of them are merged."""


def _caller(step: Step) -> str:
    """In whose name a wrong index is reported."""
    return str(step.attrs.get("caller", step.op.name))


def _constants(step: Step, device: Device, name: str, inner: int) -> dict[str, Any]:
    """What the templates know of the elements of slot ``name``, that lie in runs of ``inner``."""
    dtype = step.slots[name].dtype
    width = device.vector_width if inner >= device.vector_width else 1
    return {"element": dtype.ctype, "missing": "NAN" if dtype.is_floating_point else "0", "width": width}


def select_forward(step: Step, device: Device, table: str, dim: int, out: str = "y") -> list[KernelSpec]:
    """``out`` = the rows of ``table`` along ``dim`` that ``index`` names."""
    shape = step.slots[table].shape
    rows, inner = shape[dim], prod(shape[dim + 1 :])
    constants = {**_constants(step, device, table, inner), "table": table, "out": out}
    blocks = -(-inner // constants["width"])
    sizes = {"rows": rows, "positions": step.slots["index"].numel, "inner": inner, "blocks": blocks}
    count = prod(shape[:dim]) * sizes["positions"] * blocks
    global_size, local_size = grid(count, device.group())
    buffers = (table, "index", out)
    sizes["count"] = count
    return [
        KernelSpec(
            "index_select_forward",
            TEMPLATE,
            buffers,
            global_size,
            local_size,
            sizes,
            constants=constants,
            hooked=(out,),
            reports=_caller(step),
        )
    ]


def select_backward(
    step: Step, device: Device, table: str, dim: int, ignored: int = -1, by_frequency: bool = False
) -> list[KernelSpec]:
    """The gradient of ``table``, sums of the rows of ``dy``."""
    return row_sums(step, device, "dy", "d" + table, dim, None, ignored, by_frequency)


def _sorting_kernels(positions: int, group: int, scratch: tuple[Scratch, ...]) -> tuple[str, list[KernelSpec]]:
    """Kernels that sort the positions by their index, by merging runs; and the scratch buffer in which they end."""

    def sorting(kernel: str, run: int, buffers: tuple[str, ...], source: str, target: str) -> KernelSpec:
        return KernelSpec(
            kernel,
            TEMPLATE,
            buffers,
            *grid(positions, group),
            sizes={"positions": positions, "run": run},
            constants={"source": source, "target": target},
            scratch=scratch,
        )

    order, other, run = "order", "merged", RUN
    kernels = [sorting("index_start", run, ("index", order), "", order)]
    while run < positions:
        kernels.append(sorting("index_merge", run, ("index", order, other), order, other))
        order, other, run = other, order, 2 * run
    return order, kernels


def row_sums(
    step: Step,
    device: Device,
    source: str,
    target: str,
    dim: int,
    base: str | None = None,
    ignored: int = -1,
    by_frequency: bool = False,
) -> list[KernelSpec]:
    """Each row of ``target`` along ``dim`` is the sum of that of ``base`` and of those rows of ``source`` whose index
    it is: first the positions of each row are linked, then each is summed along its chain.
    """
    shape = step.slots[target].shape
    rows, inner = shape[dim], prod(shape[dim + 1 :])
    positions = step.slots["index"].numel
    scratch: tuple[Scratch, ...] = (Scratch("heads", "int", rows), Scratch("links", "int", positions))
    group = device.group()
    sorts = not device.is_cpu and positions > FEW_POSITIONS
    if sorts:
        scratch = (*scratch, *(Scratch(name, "int", positions) for name in ("order", "merged")))
    kernels = [
        KernelSpec("index_heads", TEMPLATE, ("heads",), *grid(rows, group), sizes={"rows": rows}, scratch=scratch)
    ]
    order = ""
    if sorts:
        order, sorting = _sorting_kernels(positions, group, scratch)
        kernels += sorting
    kernels.append(
        KernelSpec(
            "index_links",
            TEMPLATE,
            ("index", *((order,) if order else ()), "heads", "links"),
            *grid(1 if device.is_cpu else positions, group),
            sizes={"rows": rows, "positions": positions, "ignored": ignored},
            constants={"serial": device.is_cpu, "order": order},
            scratch=scratch,
            reports=_caller(step),
        )
    )
    constants = {
        **_constants(step, device, target, inner),
        "source": source,
        "target": target,
        "base": base,
        "by_frequency": by_frequency,
    }
    blocks = -(-inner // constants["width"])
    # A CPU's work-item does a whole row: most rows of a large table have no position, and are left at once.
    constants["whole"] = device.is_cpu
    count = prod(shape[:dim]) * rows * (1 if device.is_cpu else blocks)
    kernels.append(
        KernelSpec(
            "index_select_backward",
            TEMPLATE,
            (*((base,) if base else ()), source, "heads", "links", target),
            *grid(count, group),
            sizes={"count": count, "rows": rows, "positions": positions, "inner": inner, "blocks": blocks},
            constants=constants,
            scratch=scratch,
        )
    )
    return kernels


class Embedding(Op):
    signature = "(...),(v,d)->(...,d)"
    operations = 0
    domain = {"weight": (-4.0, 4.0)}
    differentiable = ("weight",)
    saves = ("index",)
    quantised = ("weight",)
    errors = (
        ErrorSample(lambda te: te.embedding(te.zeros(2), te.zeros(3, 4)), DtypeError, "int64 or int32"),
        ErrorSample(
            lambda te: te.embedding(te.tensor([1]), te.zeros(3)), ShapeError, "(num_embeddings, embedding_dim)"
        ),
        ErrorSample(lambda te: te.embedding(te.tensor([1]), te.zeros(3, 2), 3), ArgumentError, "padding_idx"),
        ErrorSample(
            lambda te: te.embedding(te.tensor([3], device="numpy"), te.zeros(3, 2, device="numpy")),
            IndexRangeError,
            "[0, 3)",
        ),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        index, weight = inputs
        assert index is not None
        assert weight is not None
        check_index(cls.name, index)
        if len(weight.shape) != 2:
            raise ShapeError(cls.name, "weight must be (num_embeddings, embedding_dim)", f"it is {weight.shape}")
        dtype = weight.dtype if weight.dtype.blocks is None else weight.dtype.computes
        return (Spec(dtype, (*index.shape, weight.shape[1])),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return select_forward(step, device, "weight", 0)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return select_backward(step, device, "weight", 0, **step.attrs)

    @staticmethod
    def forward(index: Array, weight: Array, *, ignored: int, by_frequency: bool) -> Array:
        check_range("embedding", index, len(weight))
        return np.asarray(weight[index])

    @staticmethod
    def backward(
        dy: Array, index: Array, *, ignored: int, by_frequency: bool, shapes: dict[str, Shape]
    ) -> tuple[Array]:
        dweight = np.zeros(shapes["dweight"], dy.dtype)
        kept = index != ignored
        np.add.at(dweight, index[kept], dy[kept])
        if by_frequency:
            times = np.bincount(index[kept], minlength=len(dweight))
            dweight /= np.maximum(times, 1)[:, None].astype(dy.dtype)
        return (dweight,)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        rows = random.randint(1, 9)
        index = tuple(
            random.choice((0, 1, 2, 5) if random.random() < 0.2 else (1, 3, 7)) for _ in range(random.randint(0, 3))
        )
        attrs = {"ignored": -1, "by_frequency": False}  # with either, the gradient is no derivative
        return Sample((index, (rows, random.choice((1, 3, 16, 35)))), attrs, {"index": rows})


@public(functional=True)
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Row ``input[...]`` of ``weight`` for each index; the row ``padding_idx`` gets no gradient. Rows of a quantised
    weight are unpacked to float32. With ``max_norm``, rows whose ``norm_type`` norm is larger are shortened to it
    first, in ``weight`` itself.

    Shapes: input (...) int64 or int32; weight (num_embeddings, embedding_dim); returns (..., embedding_dim).
    Saves:  input.
    Errors: IndexRangeError if an index is outside [0, num_embeddings); if a device computed it, at the next read of a
            value. ArgumentError for sparse gradients, which there are none of.
    """
    if sparse:
        raise ArgumentError("embedding", "sparse gradients are not supported", "got sparse=True", "Leave it out.")
    ignored = -1
    if padding_idx is not None and weight.shape:
        if not -weight.shape[0] <= padding_idx < weight.shape[0]:
            limits = f"padding_idx must be in [{-weight.shape[0]}, {weight.shape[0]})"
            raise ArgumentError("embedding", limits, f"got {padding_idx}")
        ignored = padding_idx % weight.shape[0]
    check_indices("embedding", input, weight.shape[0] if weight.shape else 0)
    if max_norm is not None and input.numel():
        _shorten(weight, input, max_norm, norm_type)
    return call(Embedding, input, weight, ignored=ignored, by_frequency=bool(scale_grad_by_freq))


def _shorten(weight: Tensor, index: Tensor, most: float, order: float) -> None:
    """Shorten those rows of ``weight`` that ``index`` names to the norm ``most``, in place."""
    with no_grad():
        table, places = weight.detach(), index.detach().reshape(-1)
        rows = index_select(table, 0, places)
        norms = functions["norm"](rows, order, -1, True)
        factors = functions["where"](norms > most, most / (norms + 1e-7), 1.0)
        table.index_copy_(0, places, rows * factors)


class IndexSelect(Op):
    signature = "(...),(p)->(...)"
    kinds = "bif"
    operations = 0
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    saves = ("index",)
    errors = (
        ErrorSample(lambda te: te.index_select(te.zeros(3), 0, te.zeros(2)), DtypeError, "int64 or int32"),
        ErrorSample(lambda te: te.index_select(te.zeros(3), 0, te.tensor([[1]])), ShapeError, "1-d"),
        ErrorSample(
            lambda te: te.index_select(te.zeros(3, device="numpy"), 0, te.tensor([-1], device="numpy")),
            IndexRangeError,
            "[0, 3)",
        ),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, index = inputs
        assert x is not None
        assert index is not None
        check_index(cls.name, index)
        if len(index.shape) > 1:
            raise ShapeError(cls.name, "a 1-d index", f"it is {index.shape}", "Use te.gather, or flatten it.")
        dim = attrs["dim"]
        return (Spec(x.dtype, (*x.shape[:dim], prod(index.shape), *x.shape[dim + 1 :])),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return select_forward(step, device, "x", step.attrs["dim"])

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return select_backward(step, device, "x", step.attrs["dim"])

    @staticmethod
    def forward(x: Array, index: Array, *, dim: int, caller: str) -> Array:
        check_range(caller, index, x.shape[dim])
        return np.take(x, index.reshape(-1), axis=dim)

    @staticmethod
    def backward(dy: Array, index: Array, *, dim: int, caller: str, shapes: dict[str, Shape]) -> tuple[Array]:
        dx = np.zeros(shapes["dx"], dy.dtype)
        np.add.at(np.moveaxis(dx, dim, 0), index.reshape(-1), np.moveaxis(dy, dim, 0))
        return (dx,)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5, 19)) for _ in range(random.randint(1, 4)))
        dim = random.randrange(len(shape))
        attrs = {"dim": dim, "caller": cls.name}
        return Sample((shape, (random.choice((0, 1, 4, 9)),)), attrs, {"index": shape[dim]})


@public(method=True)
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries of ``input`` along ``dim`` that ``index`` names, in its order.

    Shapes: index (n,) or () of int64 or int32; returns input's shape with n in place of ``dim``.
    Saves:  index.
    Errors: IndexRangeError if an index is outside [0, size); if a device computed it, at the next read of a value.
    """
    return _selected("index_select", input, dim, index)


def _selected(caller: str, input: Tensor, dim: int, index: Tensor) -> Tensor:
    dim = normalize_axis(caller, dim, input.ndim)
    if input.ndim == 0:
        return _selected(caller, input.reshape(1), 0, index).reshape(())
    check_indices(caller, index, input.shape[dim])
    return call(IndexSelect, input, index, dim=dim, caller=caller)


class Gather(Op):
    signature = "(...),(...)->(...)"
    kinds = "bif"
    operations = 0
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    saves = ("index",)
    errors = (
        ErrorSample(lambda te: te.gather(te.zeros(2, 3), 0, te.zeros(2, 3)), DtypeError, "int64 or int32"),
        ErrorSample(lambda te: te.gather(te.zeros(2, 3), 0, te.tensor([1])), ShapeError, "as many dims"),
        ErrorSample(lambda te: te.gather(te.zeros(1, 3), 1, te.tensor([[1], [2]])), ShapeError, "at most as long"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, index = inputs
        assert x is not None
        assert index is not None
        check_index(cls.name, index)
        if len(x.shape) != len(index.shape):
            raise ShapeError(cls.name, "an index with as many dims as the input", f"got {index.shape} and {x.shape}")
        for axis, (size, wanted) in enumerate(zip(x.shape, index.shape)):
            if axis != attrs["dim"] and wanted > size:
                raise ShapeError(
                    cls.name,
                    f"an index at most as long as the input in every dim but {attrs['dim']}",
                    f"got {index.shape} and {x.shape}",
                )
        return (Spec(x.dtype, index.shape),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        dim = step.attrs["dim"]
        x, index = step.slots["x"], step.slots["index"]
        strides = contiguous_strides(x.shape)
        shape, (x_strides,) = collapse(index.shape, (*strides[:dim], 0, *strides[dim + 1 :]))
        sizes = {"count": index.numel, "rows": x.shape[dim], "step": strides[dim], "rank": len(shape)}
        return [
            KernelSpec(
                "gather_forward",
                TEMPLATE,
                ("x", "index", "y"),
                *grid(index.numel, device.group()),
                sizes=sizes,
                tables={"shape": shape, "x_strides": x_strides},
                constants=_constants(step, device, "x", 1),
                reports=cls.name,
            )
        ]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        dim = step.attrs["dim"]
        dx, index = step.slots["dx"], step.slots["index"]
        steps = (contiguous_strides(dx.shape), contiguous_strides(index.shape))
        others = [axis for axis in range(len(dx.shape)) if axis != dim]
        shape, (x_strides, index_strides) = collapse(
            tuple(index.shape[axis] for axis in others), *(tuple(strides[axis] for axis in others) for strides in steps)
        )
        lines = prod(shape) if index.numel else 0
        sizes = {
            "lines": lines,
            "length": index.shape[dim],
            "rows": dx.shape[dim],
            "step": steps[0][dim],
            "index_step": steps[1][dim],
            "rank": len(shape),
        }
        scratch = (Scratch("sums", dx.dtype.ctype, dx.numel),)
        clear, store = (
            KernelSpec(
                kernel,
                TEMPLATE,
                buffers,
                *grid(dx.numel, device.group()),
                sizes={"count": dx.numel},
                scratch=scratch,
            )
            for kernel, buffers in (("gather_clear", ("sums",)), ("gather_store", ("sums", "dx")))
        )
        add = KernelSpec(
            "gather_backward",
            TEMPLATE,
            ("dy", "index", "sums"),
            *grid(lines, device.group()),
            sizes=sizes,
            tables={"shape": shape, "x_strides": x_strides, "index_strides": index_strides},
            scratch=scratch,
            reports=cls.name,
        )
        return [clear, add, store]

    @staticmethod
    def forward(x: Array, index: Array, *, dim: int) -> Array:
        check_range("gather", index, x.shape[dim])
        return np.asarray(x[Gather.places(index, dim)])

    @staticmethod
    def backward(dy: Array, index: Array, *, dim: int, shapes: dict[str, Shape]) -> tuple[Array]:
        dx = np.zeros(shapes["dx"], dy.dtype)
        np.add.at(dx, Gather.places(index, dim), dy)
        return (dx,)

    @staticmethod
    def places(index: Array, dim: int) -> tuple[Array, ...]:
        """NumPy's index arrays: each element's own coordinates, but ``index`` along ``dim``."""
        own: tuple[Array, ...] = np.indices(index.shape, sparse=True)
        return (*own[:dim], index, *own[dim + 1 :])

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5, 19)) for _ in range(random.randint(1, 4)))
        dim = random.randrange(len(shape))
        index = [random.randint(1, size) for size in shape]
        index[dim] = random.choice((0, 1, 4, 9))
        return Sample((shape, tuple(index)), {"dim": dim}, {"index": shape[dim]})


@public(method=True)
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """``input``'s elements at each element's own place in ``index``, but at ``index`` along ``dim``.

    Shapes: index has input's rank, and is nowhere longer but along ``dim``; returns index's shape.
    Saves:  index.
    Errors: IndexRangeError if an index is outside [0, size); if a device computed it, at the next read of a value.
    """
    dim = normalize_axis("gather", dim, input.ndim)
    if input.ndim <= 1 and index.ndim <= 1:  # one line: index_select sums its gradient in parallel
        return _selected("gather", input.reshape(-1), 0, index.reshape(-1)).reshape(index.shape)
    check_indices("gather", index, input.shape[dim])
    return call(Gather, input, index, dim=dim)


@public(method=True)
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """``gather`` after both were broadcast in every dim but ``dim``; negative indices count from the end.

    Without ``dim``, from the flat input by the flat indices.

    Shapes: input and indices broadcast but along ``dim``; returns what they broadcast to, with indices' length there.
    Errors: as ``gather``; ShapeError unless both have as many dims.
    """
    if dim is None:
        return take_along_dim(input.reshape(-1), indices.reshape(-1), 0)
    if input.ndim != indices.ndim:
        raise ShapeError("take_along_dim", "as many dims on both", f"got {input.shape} and {indices.shape}")
    dim = normalize_axis("take_along_dim", dim, input.ndim)

    def with_dim(shape: Shape, size: int) -> Shape:
        return (*shape[:dim], size, *shape[dim + 1 :])

    common = broadcast("take_along_dim", with_dim(input.shape, 1), with_dim(indices.shape, 1))
    wide = input.expand(with_dim(common, input.shape[dim]))
    indices = wrapped("take_along_dim", indices, input.shape[dim])
    return gather(wide, dim, indices.expand(with_dim(common, indices.shape[dim])))


class OneHot(Op):
    signature = "(...)->(...,k)"
    operations = 0
    errors = (
        ErrorSample(lambda te: te.one_hot(te.zeros(2), 3), DtypeError, "int64 or int32"),
        ErrorSample(lambda te: te.one_hot(te.tensor([1]), 0), ArgumentError, "num_classes"),
        ErrorSample(lambda te: te.one_hot(te.tensor([3], device="numpy"), 3), IndexRangeError, "[0, 3)"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (index,) = inputs
        assert index is not None
        check_index(cls.name, index)
        return (Spec(int64, (*index.shape, attrs["num_classes"])),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        count = step.slots["y"].numel
        sizes = {"count": count, "classes": step.attrs["num_classes"]}
        return [
            KernelSpec("one_hot", TEMPLATE, ("index", "y"), *grid(count, device.group()), sizes=sizes, reports=cls.name)
        ]

    @staticmethod
    def forward(index: Array, *, num_classes: int) -> Array:
        check_range("one_hot", index, num_classes)
        return np.asarray(index[..., None] == np.arange(num_classes))

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 5)) for _ in range(random.randint(0, 3)))
        classes = random.randint(1, 7)
        return Sample((shape,), {"num_classes": classes}, {"index": classes})


@public(functional=True)
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the class of each element, else 0, as int64.

    Without ``num_classes`` it is one more than the largest class, which is read from the device.

    Shapes: tensor (...) int64 or int32; returns (..., num_classes).
    Errors: IndexRangeError if a class is outside [0, num_classes); if a device computed it, at the next read of a
            value.
    """
    check_index("one_hot", tensor._slot.spec)
    if num_classes == -1:
        if tensor.numel() == 0:
            raise ArgumentError("one_hot", "num_classes must be given for an empty tensor", f"got shape {tensor.shape}")
        values = tensor.numpy()
        check_range("one_hot", values, 2**31)
        num_classes = int(values.max()) + 1
    if num_classes < 1:
        raise ArgumentError("one_hot", "num_classes must be at least 1, or -1", f"got {num_classes}")
    check_indices("one_hot", tensor, num_classes)
    return call(OneHot, tensor, num_classes=num_classes)
