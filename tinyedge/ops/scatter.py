"""Elements put, or added, where an index says: scatter, scatter_add, index_add, index_copy.

Sums have one order on every device, that of the index; of equal indices the last one's element stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from random import Random
from typing import Any, ClassVar

import numpy as np

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import bool_
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Layout, Spec
from tinyedge.ops.indexing import Gather, row_sums, select_forward
from tinyedge.ops.indices import check_index, check_indices, check_range
from tinyedge.ops.movement import expand, narrow, reshape
from tinyedge.shapes import Shape
from tinyedge.tensor import Number, Tensor, call, full

TEMPLATE = "scatter.cl.jinja"


class Placing(Op):
    """Base of both: ``source`` has the shape of ``index``."""

    operations = 0
    domain = {"x": (-4.0, 4.0), "source": (-4.0, 4.0)}
    kinds = "if"
    differentiable: ClassVar[tuple[str, ...]] = ("x", "source")
    saves = ("index",)
    combine: ClassVar[str] = "put"

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, index, source = inputs
        assert x is not None
        assert index is not None
        assert source is not None
        return (x,)

    @classmethod
    def _walk(cls, step: Step, kernel: str, target: str) -> tuple[int, dict[str, int], dict[str, Shape]]:
        """Count, sizes and tables for a kernel that walks the index: its lines, or its elements."""
        dim, index = step.attrs["dim"], step.slots["index"]
        whole = step.slots[target].shape
        steps = (shapes.contiguous_strides(whole), shapes.contiguous_strides(index.shape))
        sizes = {"rows": whole[dim], "step": steps[0][dim]}
        if kernel == "scatter_read":
            strides = (*steps[0][:dim], 0, *steps[0][dim + 1 :])
            shape, (x_strides,) = shapes.collapse(index.shape, strides)
            return index.numel, {**sizes, "rank": len(shape)}, {"shape": shape, "x_strides": x_strides}
        others = [axis for axis in range(len(whole)) if axis != dim]
        shape, (x_strides, index_strides) = shapes.collapse(
            tuple(index.shape[axis] for axis in others), *(tuple(s[axis] for axis in others) for s in steps)
        )
        sizes |= {"length": index.shape[dim], "index_step": steps[1][dim], "rank": len(shape)}
        tables = {"shape": shape, "x_strides": x_strides, "index_strides": index_strides}
        return prod(shape) if index.numel else 0, sizes, tables

    @classmethod
    def _claims(cls, step: Step, device: Device, kernel: str, lines: int) -> bool:
        """Whether few lines of the index are so long that it is walked in no order, by who owns a place."""
        length = step.slots["index"].shape[step.attrs["dim"]]
        is_put = kernel == "scatter_lines" and step.attrs.get("combine", cls.combine) == "put"
        return is_put and not device.is_cpu and length >= 64 and 0 < lines < 64 * device.compute_units

    @classmethod
    def _placed(
        cls, step: Step, device: Device, kernels: tuple[str, str], buffers: tuple[str, ...], source: str, target: str
    ) -> list[KernelSpec]:
        slot = step.slots[target]
        scratch: tuple[Scratch, ...] = (Scratch("result", slot.dtype.ctype, slot.numel),)
        group = device.group()
        count, sizes, tables = cls._walk(step, kernels[1], target)
        claims = cls._claims(step, device, kernels[1], count)
        if claims:
            scratch = (*scratch, Scratch("owners", "int", slot.numel))
        start, store = (
            KernelSpec(
                kernel, TEMPLATE, names, *grid(slot.numel, group), {"count": slot.numel}, scratch=scratch,
                constants={"target": target, "claims": claims},
            )
            for kernel, names in (
                (kernels[0], (source, "result", *(("owners",) if claims else ()))),
                ("scatter_store", ("result", target)),
            )
        )  # fmt: skip
        if claims:
            count, sizes, tables = cls._walk(step, "scatter_read", target)
            claim, own = (
                KernelSpec(
                    kernel, TEMPLATE, names, *grid(count, group), {**sizes, "count": count}, {}, tables,
                    scratch=scratch,
                )
                for kernel, names in (
                    ("scatter_claim", ("index", "owners")), ("scatter_own", ("index", "source", "owners", "result")),
                )
            )  # fmt: skip
            return [start, claim, own, store]
        lines = KernelSpec(
            kernels[1], TEMPLATE, (*buffers, "result"), *grid(count, group), {**sizes, "count": count}, {}, tables,
            {"combine": step.attrs.get("combine", cls.combine)}, scratch, reports=step.attrs["caller"],
        )  # fmt: skip
        return [start, lines, store] if count else [start, store]

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._placed(step, device, ("scatter_start", "scatter_lines"), ("index", "source"), "x", "y")

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        kernels = []
        if step.wants("dx"):
            kernels += cls._placed(step, device, ("scatter_clear", "scatter_zero"), ("index",), "dy", "dx")
        if step.wants("dsource") and step.slots["dsource"].numel:
            count, sizes, tables = cls._walk(step, "scatter_read", "dy")
            kernels.append(
                KernelSpec(
                    "scatter_read", TEMPLATE, ("dy", "index", "dsource"), *grid(count, device.group()),
                    {**sizes, "count": count}, {}, tables, reports=step.attrs["caller"],
                )
            )  # fmt: skip
        return kernels

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5, 19)) for _ in range(random.randint(1, 4)))
        dim = random.randrange(len(shape))
        index = [random.randint(1, size) for size in shape]
        index[dim] = cls.drawn_length(random)
        return Sample((shape, tuple(index), tuple(index)), {"dim": dim, "caller": cls.name}, {"index": shape[dim]})

    @classmethod
    def drawn_length(cls, random: Random) -> int:
        return 1  # of equal indices one wins, and PyTorch's gradient is no derivative then


class Scatter(Placing):
    signature = "(...),(...),(...)->(...)"
    errors = (
        ErrorSample(
            lambda te: te.scatter(te.zeros(2, 3), 0, te.zeros(2, 3), te.zeros(2, 3)), DtypeError, "int64 or int32"
        ),
        ErrorSample(lambda te: te.scatter(te.zeros(2, 3), 0, te.tensor([1]), 1.0), ShapeError, "as many dims"),
        ErrorSample(
            lambda te: te.scatter(te.zeros(2), 0, te.tensor([1]), te.zeros(1, dtype=te.float64, device="numpy")),
            DtypeError,
            "of the input's dtype",
        ),
    )

    @staticmethod
    def forward(x: Any, index: Any, source: Any, *, dim: int, caller: str) -> Any:
        check_range(caller, index, x.shape[dim])
        y = x.copy()
        y[Gather.places(index, dim)] = source  # of equal places the last stays
        return y

    @staticmethod
    def backward(dy: Any, index: Any, *, dim: int, caller: str) -> tuple[Any, ...]:
        places = Gather.places(index, dim)
        dx = dy.copy()
        dx[places] = 0
        return dx, dy[places]


class ScatterAdd(Placing):
    signature = "(...),(...),(...)->(...)"
    combine = "sum"
    errors = (
        ErrorSample(
            lambda te: te.scatter_add(te.zeros(2), 0, te.tensor([1, 0, 1]), te.zeros(2)), ShapeError, "at most as long"
        ),
    )

    @classmethod
    def gradient_view(cls, index: int, dy: Layout, shape: Shape, attrs: Mapping[str, Any]) -> Layout | None:
        return dy if index == 0 else None

    @staticmethod
    def forward(x: Any, index: Any, source: Any, *, dim: int, caller: str) -> Any:
        check_range(caller, index, x.shape[dim])
        y = x.copy()
        np.add.at(y, Gather.places(index, dim), source)
        return y

    @staticmethod
    def backward(dy: Any, index: Any, *, dim: int, caller: str) -> tuple[Any, ...]:
        return dy, dy[Gather.places(index, dim)]

    @classmethod
    def drawn_length(cls, random: Random) -> int:
        return random.choice((0, 1, 4, 9))


class IndexAdd(Op):
    """Whole slices of ``source``, so a 1-d index says where each goes."""

    signature = "(...),(p),(...)->(...)"
    operations = 1
    domain = {"x": (-4.0, 4.0), "source": (-4.0, 4.0)}
    kinds = "if"
    differentiable = ("x", "source")
    saves = ("index",)

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, index, source = inputs
        assert x is not None
        assert index is not None
        assert source is not None
        return (x,)

    @classmethod
    def gradient_view(cls, index: int, dy: Layout, shape: Shape, attrs: Mapping[str, Any]) -> Layout | None:
        return dy if index == 0 else None

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return row_sums(step, device, "source", "y", step.attrs["dim"], "x")

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return select_forward(step, device, "dy", step.attrs["dim"], "dsource") if step.wants("dsource") else []

    @staticmethod
    def forward(x: Any, index: Any, source: Any, *, dim: int, caller: str) -> Any:
        check_range(caller, index, x.shape[dim])
        y = x.copy()
        np.add.at(np.moveaxis(y, dim, 0), index, np.moveaxis(source, dim, 0))
        return y

    @staticmethod
    def backward(dy: Any, index: Any, *, dim: int, caller: str) -> tuple[Any, ...]:
        return dy, np.take(dy, index, axis=dim)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5, 19)) for _ in range(random.randint(1, 4)))
        dim, count = random.randrange(len(shape)), random.choice((0, 1, 4, 9))
        source = (*shape[:dim], count, *shape[dim + 1 :])
        return Sample((shape, (count,), source), {"dim": dim, "caller": cls.name}, {"index": shape[dim]})


def require_same(name: str, input: Tensor, source: Tensor) -> None:
    """Refuse a source of another dtype."""
    if source.dtype is not input.dtype:
        raise DtypeError(
            name,
            "a source of the input's dtype",
            f"got {source.dtype.name} and {input.dtype.name}",
            "Convert it with .to(dtype).",
        )


def placed(name: str, op: type[Op], input: Tensor, dim: int, index: Tensor, src: Tensor, **attrs: Any) -> Tensor:
    """``op`` on what PyTorch lets an index and a source be."""
    check_index(name, index._slot.spec)
    axis = shapes.normalize_axis(name, dim, input.ndim)
    require_same(name, input, src)
    x, index, src = (item if item.ndim else reshape(item, (1,)) for item in (input, index, src))
    if x.ndim != index.ndim or (x.ndim != src.ndim and index.numel()):
        raise ShapeError(
            name, "as many dims of input, index and source", f"got {x.shape}, {index.shape} and {src.shape}"
        )
    if not index.numel():
        return input.clone()
    for k, (size, given, wanted) in enumerate(zip(x.shape, src.shape, index.shape)):
        if wanted > given or (k != axis and wanted > size):
            raise ShapeError(
                name, f"an index at most as long as source, and as input in every dim but {axis}",
                f"got {index.shape}, {src.shape} and {x.shape}",
            )  # fmt: skip
    for k, wanted in enumerate(index.shape):
        if wanted != src.shape[k]:
            src = narrow(src, k, 0, wanted)
    check_indices(name, index, x.shape[axis])
    if x.dtype is bool_:
        y = call(op, x.to("uint8"), index, src.to("uint8"), dim=axis, caller=name, **attrs).to(bool_)
    else:
        y = call(op, x, index, src, dim=axis, caller=name, **attrs)
    return y if input.ndim else reshape(y, ())


@public(method=True, inplace=True)
def scatter(input: Tensor, dim: int, index: Tensor, src: Tensor | Number, *, reduce: str | None = None) -> Tensor:
    """``input`` with ``src``, a tensor or a number, at each element's own place in ``index``, but at ``index`` along
    ``dim``. Of equal places the last stays; with ``reduce="add"`` all are added, with "multiply" multiplied.

    Shapes: index has input's rank, and is nowhere longer but along ``dim``, and nowhere longer than src; returns
            input's shape.
    Saves:  index.
    Errors: IndexRangeError if an index is outside [0, size); if a device computed it, at the next read of a value.
            ArgumentError for another reduce.
    """
    if reduce not in (None, "add", "multiply"):
        raise ArgumentError("scatter", 'reduce=None, "add" or "multiply"', f"got {reduce!r}")
    if not isinstance(src, Tensor):
        src = full(index.shape, src, dtype=input.dtype, device=input.backend)
    if reduce == "multiply":
        product: Tensor = functions["scatter_reduce"](input, dim, index, src, "prod")
        return product
    return placed("scatter", Scatter if reduce is None else ScatterAdd, input, dim, index, src)


@public(method=True, inplace=True)
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``input`` with ``src`` added at each element's own place in ``index``, but at ``index`` along ``dim``.

    Shapes: as ``scatter``.
    Saves:  index.
    Errors: IndexRangeError if an index is outside [0, size); if a device computed it, at the next read of a value.
    """
    return placed("scatter_add", ScatterAdd, input, dim, index, src)


def along(name: str, op: type[Op], input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``op`` of a 1-d index into ``dim``, and of the slices of ``source`` that belong to it."""
    axis = shapes.normalize_axis(name, dim, input.ndim)
    if index.ndim > 1:
        raise ShapeError(name, "a 1-d index", f"it is {index.shape}")
    if not input.ndim:
        x, source = reshape(input, (1,)), reshape(source, (1,)) if source.numel() == 1 else source
        return reshape(along(name, op, x, 0, index, source), ())
    wanted = (*input.shape[:axis], index.numel(), *input.shape[axis + 1 :])
    if source.ndim == 0 and wanted == (1,):
        source = reshape(source, (1,))
    if source.shape != wanted:
        raise ShapeError(name, f"a source of shape {wanted}", f"it is {source.shape}")
    check_indices(name, index, input.shape[axis])
    if op is IndexAdd and input.dtype is not bool_ and source.numel():
        require_same(name, input, source)
        check_index(name, index._slot.spec)
        return call(IndexAdd, input, reshape(index, (index.numel(),)), source, dim=axis, caller=name)
    column = reshape(index, (*(1,) * axis, index.numel(), *(1,) * (input.ndim - axis - 1)))
    return placed(name, ScatterAdd if op is IndexAdd else op, input, axis, expand(column, wanted), source)


@public(method=True, inplace=True)
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
    """``input`` with ``alpha * source`` added: entry k of source along ``dim`` to entry ``index[k]``.

    Shapes: index (n,) int64 or int32; source has input's shape with n in place of ``dim``; returns input's shape.
    Saves:  index.
    Errors: as ``scatter_add``.
    """
    return along("index_add", IndexAdd, input, dim, index, source if alpha == 1 else source * alpha)


@public(method=True, inplace=True)
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``input`` with entry k of ``source`` along ``dim`` in the place of entry ``index[k]``.

    Shapes: index (n,) int64 or int32; source has input's shape with n in place of ``dim``; returns input's shape.
    Saves:  index.
    Errors: as ``scatter``.
    """
    return along("index_copy", Scatter, input, dim, index, source)
