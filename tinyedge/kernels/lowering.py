"""The two lowerings that most ops share: a pointwise kernel over elements, and a reduction over axes.

In: C expressions over the slots of a step, with any strides. Out: KernelSpecs. Because a reduction computes an
expression at its loads, a gradient that is summed over broadcast axes, a bias gradient and a mean of squares are one
kernel each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from tinyedge import shapes
from tinyedge.dtypes import SMALL, bool_, int8
from tinyedge.ir.spec import Device, KernelSpec, LocalArray, Pointwise, Scratch, grid, power_of_two, round_up
from tinyedge.kernels.sums import cascades
from tinyedge.shapes import Shape

if TYPE_CHECKING:
    from tinyedge.ir.step import Step

SPLIT_ELEMENTS = 8192
"""Reductions of more elements into few outputs run in two stages."""


STREAM_BYTES = 1 << 25
"""Results of so many bytes, which few caches hold, are stored past the cache: adding two inputs of 64 MiB took two
thirds of the time, and less where the three buffers were aligned badly to each other.
"""

ITEM_ELEMENTS = 4096
"""Elements of a strided pointwise kernel for one work-item of a CPU: a few microseconds' work."""


def mentions(text: str, name: str) -> bool:
    """Whether the C expression ``text`` uses the identifier ``name``."""
    return re.search(rf"\b{name}\b", text) is not None


def used_names(step: Step, expressions: Sequence[str]) -> list[str]:
    """The slots of ``step`` that the expressions use."""
    return [
        name
        for name, slot in step.slots.items()
        if slot is not None and any(mentions(text, name) for text in expressions)
    ]


def used_scalars(expressions: Sequence[str], scalars: Mapping[str, str]) -> dict[str, str]:
    """Those of ``scalars`` that the expressions mention."""
    return {name: ctype for name, ctype in scalars.items() if any(mentions(text, name) for text in expressions)}


def broadcast_axes(shape: Shape, full: Shape) -> tuple[int, ...]:
    """The axes of ``full`` along which an array of ``shape`` is broadcast."""
    lead = len(full) - len(shape)
    return tuple(axis for axis, size in enumerate(full) if axis < lead or (shape[axis - lead] == 1 and size != 1))


def pointwise_kernel(
    step: Step,
    device: Device,
    expressions: Mapping[str, str],
    scalars: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
    shape: Shape | None = None,
) -> KernelSpec:
    """A pointwise kernel: it stores, for each output, the value of its expression at each element.

    ``shape`` is what the operands broadcast to: that of the outputs, or one with more axes of length one.
    """
    extra = dict(sizes or {})
    outputs = tuple(expressions)
    shape = step.slots[outputs[0]].shape if shape is None else shape
    texts = tuple(expressions.values())
    used = used_names(step, texts)
    arrays = tuple(name for name in used if not step.is_value(name))
    values = tuple(name for name in used if step.is_value(name))
    operands = (*arrays, *outputs)
    strides = [shapes.broadcast_strides(step.slots[n].shape, step.slots[n].strides, shape) for n in operands]
    lengths, collapsed = shapes.collapse(shape, *strides)
    by_name = dict(zip(operands, strides, strict=True))
    described: dict[str, Any] = {
        "hooked": operands,
        "pointwise": _fusible(step, expressions, arrays, values, shape, by_name, extra),
    }
    written = {step.slots[name].dtype.computes for name in outputs}
    floats = len(written) == 1 and next(iter(written)).is_floating_point
    width = device.vector_width if floats and {step.slots[name].dtype.computes for name in used} <= written else 1
    real = step.slots[outputs[0]].dtype.ctype
    streams = described["pointwise"] is not None and device.is_cpu and _may_stream(step, arrays, outputs)
    constants: dict[str, Any] = {
        "real": real,
        "width": width,
        "inputs": arrays,
        "values": values,
        "expressions": tuple(expressions.items()),
        "streams": STREAM_BYTES // (8 if real == "double" else 4) if streams else 0,
    }
    buffers = (*used, *outputs)
    named = used_scalars(texts, scalars or {})
    if len(lengths) <= 1 and all(stride in ((), (1,)) for stride in collapsed):
        numel = prod(shape)
        return KernelSpec(
            "pointwise_flat", "elementwise.cl.jinja", buffers, *grid(-(-numel // width), device.group()),
            {"n": numel, **extra}, named, {}, constants, **described,
        )  # fmt: skip
    global_size, local_size, chunk, rows = _strided_grid(device, lengths, width)
    tables = {"outer_shape": lengths[:-1]}
    all_sizes = {"inner": lengths[-1] if lengths else 1, "outer": prod(lengths[:-1]), "chunk": chunk, "rows": rows}
    all_sizes |= {"outer_rank": max(len(lengths) - 1, 0), **extra}
    for name, steps in zip(operands, collapsed, strict=True):
        tables[name + "_strides"] = steps[:-1]
        all_sizes[name + "_step"] = steps[-1] if steps else 0
    return KernelSpec(
        "pointwise_strided",
        "elementwise.cl.jinja",
        buffers,
        global_size,
        local_size,
        all_sizes,
        named,
        tables,
        {**constants, "operands": operands, "on_cpu": device.is_cpu},
        **described,
    )


def _fusible(
    step: Step,
    expressions: Mapping[str, str],
    arrays: tuple[str, ...],
    values: tuple[str, ...],
    shape: Shape,
    strides: Mapping[str, Shape],
    sizes: Mapping[str, int],
) -> Pointwise | None:
    """What ``te.compile`` needs to compute a pointwise op inside another kernel; None where it computes with several
    types, or with integers.
    """
    written = {step.slots[name].dtype.computes for name in expressions}
    read = {step.slots[name].dtype.computes for name in (*arrays, *values)} - written
    real = {dtype for dtype in read | written if dtype.is_floating_point}
    if len(real) != 1 or not (written <= real | {int8} and read <= real | set(SMALL)):
        return None
    # Inlined into another kernel, a bool is loaded as a number.
    masks = "|".join(name for name in arrays if step.slots[name].dtype is bool_) or "(?!)"
    texts = {name: re.sub(rf"WHERE\(\s*({masks})\s*,", r"WHERE(\1 != 0,", text) for name, text in expressions.items()}
    return Pointwise(shape, texts, arrays, values, strides, sizes, next(iter(real)).ctype)


def _may_stream(step: Step, arrays: Iterable[str], outputs: Iterable[str]) -> bool:
    """Whether large results may be stored past the cache: those that are only stored, apart from what is read."""
    read_from = {step.slots[name].storage for name in arrays}
    apart = all(step.slots[name].storage not in read_from for name in outputs)
    packed = any(step.slots[name].dtype.packed for name in outputs)
    return not step.may_accumulate and apart and not packed


def _strided_grid(device: Device, lengths: Shape, width: int) -> tuple[Shape, Shape, int, int]:
    """The geometry of a strided pointwise kernel: global and local size, and of each work-item the elements along the
    last axis and the rows.
    """
    inner = lengths[-1] if lengths else 1
    outer = prod(lengths[:-1])
    if device.is_cpu:
        chunk = min(inner, ITEM_ELEMENTS)
        rows = max(1, min(ITEM_ELEMENTS // max(chunk, 1), -(-outer // (4 * device.compute_units))))
        return (-(-inner // max(chunk, 1)), -(-outer // rows)), (1, 1), chunk, rows
    (across,), (lanes,) = grid(-(-inner // width), device.group())
    return (across, outer), (lanes, 1), width, 1


def parts_of(device: Device, count: int, length: int) -> int:
    """Into how many parts each of ``count`` runs of ``length`` elements is split, so that all cores have work."""
    if length <= SPLIT_ELEMENTS:
        return 1
    return min(-(-length // 2048), max(1, 4 * max(device.compute_units, 16) // max(count, 1)))


def reduce_kernels(
    step: Step,
    device: Device,
    kind: str,
    expressions: Mapping[str, str],
    full: Shape,
    axes: Sequence[int],
    scalars: Mapping[str, str] | None = None,
) -> list[KernelSpec]:
    """Kernels that reduce, for each output, its expression over ``axes`` of ``full``. The outputs are contiguous.

    ``kind`` is sum, mean, max or min.
    """
    alike = all(full[len(full) - len(step.slots[name].shape) :] == step.slots[name].shape for name in expressions)
    if alike and all(full[axis] == 1 for axis in axes):  # each reduction has one element
        return [pointwise_kernel(step, device, expressions, scalars, shape=full)]
    reduction = _Reduction(step, device, kind, expressions, full, axes, scalars or {})
    count, length = reduction.count, reduction.length
    parts = parts_of(device, count, length)
    if parts > 1:
        return reduction.in_two_stages(parts)
    # One work-item per output if there are many outputs or few elements in each; else a work-group, or a part of one.
    if reduction.width > 1:
        return [reduction.by_rows(1, 1)]
    if length <= 16 or count >= 64 * device.compute_units * (1 if device.is_cpu else 32):
        return [reduction.by_columns()]
    lanes = min(device.group(), power_of_two(-(-length // 4)))
    return [reduction.by_rows(lanes, device.group() // lanes)]


class _Reduction:
    """A reduction, and the kernels that can compute it.

    ``count``: how many elements come out; ``length``: how many are reduced to each. ``width``: how many of these a
    work-item reads at once.
    """

    TEMPLATE = "reduce.cl.jinja"

    def __init__(
        self,
        step: Step,
        device: Device,
        kind: str,
        expressions: Mapping[str, str],
        full: Shape,
        axes: Sequence[int],
        scalars: Mapping[str, str],
    ) -> None:
        self.device, self.kind = device, kind
        self.outputs, self.texts = tuple(expressions), tuple(expressions.values())
        self.used = used_names(step, self.texts)
        self.arrays = tuple(name for name in self.used if not step.is_value(name))
        self.named = used_scalars(self.texts, scalars)
        self.ctype = step.slots[self.outputs[0]].dtype.ctype
        strides = [shapes.broadcast_strides(step.slots[n].shape, step.slots[n].strides, full) for n in self.arrays]

        def walk(chosen: Sequence[int]) -> tuple[Shape, tuple[Shape, ...]]:
            lengths = tuple(full[axis] for axis in chosen)
            return shapes.collapse(lengths, *(tuple(stride[axis] for axis in chosen) for stride in strides))

        self.kept_shape, kept_strides = walk([axis for axis in range(len(full)) if axis not in axes])
        run_shape, run_strides = walk(list(axes))
        self.count, self.length = prod(self.kept_shape), prod(run_shape)
        self.tables = {"kept_shape": self.kept_shape, "run_shape": run_shape}
        self.sizes = {"count": self.count, "length": self.length}
        self.sizes |= {"kept_rank": len(self.kept_shape), "run_rank": len(run_shape)}
        for name, kept_steps, run_steps in zip(self.arrays, kept_strides, run_strides, strict=True):
            self.tables[name + "_kept"], self.tables[name + "_run"] = kept_steps, run_steps
            self.sizes[name + "_step"] = run_steps[-1] if run_steps else 0
        # A CPU's work-item reads in vectors, if each operand is contiguous or constant along the last reduced axis.
        steps = {name: strides[-1] if strides else 0 for name, strides in zip(self.arrays, run_strides, strict=True)}
        self.across = {
            name: strides[-1] if strides else 0 for name, strides in zip(self.arrays, kept_strides, strict=True)
        }
        line = run_shape[-1] if run_shape else 1
        types = {step.slots[name].dtype.ctype for name in self.used}
        together = types == {self.ctype} and self.ctype in ("float", "double")
        self.vectors = device.is_cpu and kind in ("sum", "mean") and together
        wide = device.is_cpu and together and set(steps.values()) <= {0, 1}
        wide = wide and line >= device.native_width and self.length >= 2 * device.native_width
        self.width = device.native_width if wide else 1
        if wide:
            self.sizes["line"] = line
        self.constants: dict[str, Any] = {
            "real": self.ctype,
            "kind": kind,
            "inputs": self.arrays,
            "values": tuple(name for name in self.used if step.is_value(name)),
            "expressions": tuple(expressions.items()),
            "width": self.width,
            "steps": tuple(steps.items()) if wide else (),
        }

    def _joined(self, names: Iterable[str], lanes: int, rows: int = 1) -> tuple[LocalArray, ...]:
        return tuple(LocalArray(f"joined_{name}", self.ctype, (lanes * rows,)) for name in names) if lanes > 1 else ()

    def _cascades(self, terms: int, items: int) -> bool:
        return self.kind in ("sum", "mean") and self.ctype in ("float", "double") and cascades(-(-terms // items))

    def in_two_stages(self, parts: int) -> list[KernelSpec]:
        """A kernel that reduces about ``parts`` parts of each run, and one that reduces what it gives."""
        chunk = -(-self.length // parts)
        parts = -(-self.length // chunk)
        partial = tuple(Scratch(f"{output}_partial", self.ctype, self.count * parts) for output in self.outputs)
        between = tuple(item.name for item in partial)
        lanes = 1 if self.device.is_cpu else self.device.group()
        first = KernelSpec(
            "reduce_rows",
            self.TEMPLATE,
            (*self.used, *between),
            (lanes * self.count * parts,),
            (lanes,),
            {**self.sizes, "chunk": chunk, "parts": parts},
            self.named,
            self.tables,
            {
                **self.constants,
                "lanes": lanes,
                "rows": 1,
                "expressions": tuple(zip(between, self.texts)),
                "cascades": self._cascades(chunk, lanes * self.width),
            },
            partial,
            self.arrays,
            local=self._joined(between, lanes),
            grouped=True,
        )
        mean_of = {"chunk": chunk, "length": self.length} if self.kind == "mean" else {}
        second = KernelSpec(
            "reduce_parts",
            self.TEMPLATE,
            (*between, *self.outputs),
            *grid(self.count, self.device.group()),
            {"count": self.count, "parts": parts, **mean_of},
            {},
            {},
            {
                "real": self.ctype,
                "kind": self.kind,
                "inputs": between,
                "expressions": tuple(zip(self.outputs, between)),
                "cascades": False,
            },
            partial,
            self.outputs,
        )
        return [first, second]

    def by_columns(self) -> KernelSpec:
        """A work-item for each output. A CPU's computes a vector of outputs, if each operand is contiguous or constant
        across them.
        """
        inner = self.kept_shape[-1] if self.kept_shape else 1
        items, group, width = self.count, self.device.group(), self.device.native_width
        constants, sizes = {**self.constants, "cascades": self._cascades(self.length, 1)}, self.sizes
        if self.vectors and set(self.across.values()) <= {0, 1} and inner >= width:
            constants |= {"width": width, "steps": tuple(self.across.items())}
            sizes = {**sizes, "inner": inner}
            items = self.count // inner * -(-inner // width)
            group = max(1, min(group, items // (8 * self.device.compute_units)))
        return KernelSpec(
            "reduce_columns",
            self.TEMPLATE,
            (*self.used, *self.outputs),
            *grid(items, group),
            sizes,
            self.named,
            self.tables,
            constants,
            (),
            (*self.arrays, *self.outputs),
        )

    def by_rows(self, lanes: int, rows: int) -> KernelSpec:
        """``lanes`` work-items for each output, and ``rows`` outputs for each work-group."""
        return KernelSpec(
            "reduce_rows",
            self.TEMPLATE,
            (*self.used, *self.outputs),
            (lanes * round_up(self.count, rows),),
            (lanes * rows,),
            {**self.sizes, "chunk": self.length, "parts": 1},
            self.named,
            self.tables,
            {
                **self.constants,
                "lanes": lanes,
                "rows": rows,
                "cascades": self._cascades(self.length, lanes * self.width),
            },
            (),
            (*self.arrays, *self.outputs),
            local=self._joined(self.outputs, lanes, rows),
            grouped=True,
        )


def gradient_kernels(
    step: Step, device: Device, expressions: Mapping[str, str], full: Shape, scalars: Mapping[str, str]
) -> list[KernelSpec]:
    """Kernels for gradients that are expressions over ``full``.

    The gradient of an input of the full shape is a pointwise kernel; that of a broadcast input sums the same
    expression.
    """
    by_axes: dict[tuple[int, ...], dict[str, str]] = {}
    for name, text in expressions.items():
        by_axes.setdefault(broadcast_axes(step.slots[name].shape, full), {})[name] = text
    kernels = []
    for axes, texts in by_axes.items():
        if axes:
            kernels += reduce_kernels(step, device, "sum", texts, full, axes, scalars)
        else:
            kernels.append(pointwise_kernel(step, device, texts, scalars))
    return kernels
