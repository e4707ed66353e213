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
from tinyedge.shapes import Shape

if TYPE_CHECKING:
    from tinyedge.ir.step import Step

SPLIT_ELEMENTS = 8192
"""Reductions of more elements into few outputs run in two stages, so that all cores have work."""


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
    used = used_names(step, tuple(expressions.values()))
    arrays = [name for name in used if not step.is_value(name)]
    operands = [*arrays, *outputs]
    written = {step.slots[name].dtype.computes for name in outputs}
    floats = len(written) == 1 and next(iter(written)).is_floating_point
    read = {step.slots[name].dtype.computes for name in used} - written
    width = device.vector_width if floats and not read else 1
    strides = [shapes.broadcast_strides(step.slots[n].shape, step.slots[n].strides, shape) for n in operands]
    lengths, collapsed = shapes.collapse(shape, *strides)
    values = tuple(name for name in used if step.is_value(name))
    constants: dict[str, Any] = {
        "real": step.slots[outputs[0]].dtype.ctype,
        "width": width,
        "inputs": tuple(arrays),
        "values": values,
        "expressions": tuple(expressions.items()),
        "streams": 0,
    }
    described: dict[str, Any] = {"hooked": tuple(operands)}
    real = {dtype for dtype in read | written if dtype.is_floating_point}
    if len(real) == 1 and written <= real | {int8} and read <= real | set(SMALL):
        by_name = dict(zip(operands, strides, strict=True))
        # Inlined into another kernel, a bool is loaded as a number.
        masks = "|".join(name for name in arrays if step.slots[name].dtype is bool_) or "(?!)"
        texts = {
            name: re.sub(rf"WHERE\(\s*({masks})\s*,", r"WHERE(\1 != 0,", text) for name, text in expressions.items()
        }
        described["pointwise"] = Pointwise(shape, texts, tuple(arrays), values, by_name, extra, next(iter(real)).ctype)
    read_from = {step.slots[name].storage for name in arrays}
    beside_inputs = all(step.slots[name].storage not in read_from for name in outputs)
    packed = any(step.slots[name].dtype.packed for name in outputs)
    if device.is_cpu and "pointwise" in described and step.direction == "forward" and beside_inputs and not packed:
        constants["streams"] = STREAM_BYTES // (8 if constants["real"] == "double" else 4)
    buffers = (*used, *outputs)
    named = used_scalars(tuple(expressions.values()), scalars or {})
    if len(lengths) <= 1 and all(stride in ((), (1,)) for stride in collapsed):
        numel = prod(shape)
        return KernelSpec(
            "pointwise_flat",
            "elementwise.cl.jinja",
            buffers,
            *grid(-(-numel // width), device.group()),
            {"n": numel, **extra},
            named,
            {},
            constants,
            **described,
        )
    inner = lengths[-1] if lengths else 1
    outer = prod(lengths[:-1])
    global_size: Shape
    local_size: Shape
    if device.is_cpu:
        chunk = min(inner, ITEM_ELEMENTS)
        rows = max(1, min(ITEM_ELEMENTS // max(chunk, 1), -(-outer // (4 * device.compute_units))))
        global_size, local_size = (-(-inner // max(chunk, 1)), -(-outer // rows)), (1, 1)
    else:
        chunk, rows = width, 1
        (across,), (lanes,) = grid(-(-inner // width), device.group())
        global_size, local_size = (across, outer), (lanes, 1)
    tables = {"outer_shape": lengths[:-1]}
    sizes = {"inner": inner, "outer": outer, "chunk": chunk, "rows": rows, "outer_rank": max(len(lengths) - 1, 0)}
    sizes |= extra
    for name, steps in zip(operands, collapsed, strict=True):
        tables[name + "_strides"] = steps[:-1]
        sizes[name + "_step"] = steps[-1] if steps else 0
    return KernelSpec(
        "pointwise_strided",
        "elementwise.cl.jinja",
        buffers,
        global_size,
        local_size,
        sizes,
        named,
        tables,
        {**constants, "operands": tuple(operands), "on_cpu": device.is_cpu},
        **described,
    )


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
    outputs = tuple(expressions)
    alike = all(full[len(full) - len(step.slots[name].shape) :] == step.slots[name].shape for name in outputs)
    if alike and all(full[axis] == 1 for axis in axes):  # each reduction has one element
        return [pointwise_kernel(step, device, expressions, scalars, shape=full)]
    texts = tuple(expressions.values())
    used = used_names(step, texts)
    arrays = [name for name in used if not step.is_value(name)]
    kept = [axis for axis in range(len(full)) if axis not in axes]

    def walk(chosen: Sequence[int]) -> tuple[Shape, tuple[Shape, ...]]:
        strides = [shapes.broadcast_strides(step.slots[n].shape, step.slots[n].strides, full) for n in arrays]
        return shapes.collapse(
            tuple(full[axis] for axis in chosen), *(tuple(stride[axis] for axis in chosen) for stride in strides)
        )

    kept_shape, kept_strides = walk(kept)
    run_shape, run_strides = walk(list(axes))
    count, length = prod(kept_shape), prod(run_shape)
    ctype = step.slots[outputs[0]].dtype.ctype
    tables = {"kept_shape": kept_shape, "run_shape": run_shape}
    sizes = {"count": count, "length": length, "kept_rank": len(kept_shape), "run_rank": len(run_shape)}
    for name, kept_steps, run_steps in zip(arrays, kept_strides, run_strides, strict=True):
        tables[name + "_kept"], tables[name + "_run"] = kept_steps, run_steps
        sizes[name + "_step"] = run_steps[-1] if run_steps else 0
    # A CPU's work-item reads in vectors, if each operand is contiguous or constant along the last reduced axis.
    steps = {name: run_steps[-1] if run_steps else 0 for name, run_steps in zip(arrays, run_strides, strict=True)}
    line = run_shape[-1] if run_shape else 1
    together = {step.slots[name].dtype.ctype for name in used} == {ctype} and ctype in ("float", "double")
    adds = kind in ("sum", "mean")
    wide = device.is_cpu and together and set(steps.values()) <= {0, 1}
    wide = wide and line >= device.native_width and length >= 2 * device.native_width
    constants: dict[str, Any] = {
        "real": ctype,
        "kind": kind,
        "inputs": tuple(arrays),
        "values": tuple(name for name in used if step.is_value(name)),
        "expressions": tuple(expressions.items()),
        "width": device.native_width if wide else 1,
        "steps": tuple(steps.items()) if wide else (),
    }
    template = "reduce.cl.jinja"

    def joined(names: Iterable[str], lanes: int, rows: int = 1) -> tuple[LocalArray, ...]:
        return tuple(LocalArray(f"joined_{name}", ctype, (lanes * rows,)) for name in names) if lanes > 1 else ()

    if wide:
        sizes["line"] = line
    named = used_scalars(texts, scalars or {})
    hooked = (*arrays, *outputs)
    parts = min(-(-length // 2048), max(1, 4 * max(device.compute_units, 16) // max(count, 1)))
    if length > SPLIT_ELEMENTS and parts > 1:
        chunk = -(-length // parts)
        parts = -(-length // chunk)
        partial = tuple(Scratch(f"{output}_partial", ctype, count * parts) for output in outputs)
        between = tuple(item.name for item in partial)
        lanes = 1 if device.is_cpu else device.group()
        first = KernelSpec(
            "reduce_rows",
            template,
            (*used, *between),
            (lanes * count * parts,),
            (lanes,),
            {**sizes, "chunk": chunk, "parts": parts},
            named,
            tables,
            {**constants, "lanes": lanes, "rows": 1, "expressions": tuple(zip(between, texts))},
            partial,
            tuple(arrays),
            local=joined(between, lanes),
            grouped=True,
        )
        second = KernelSpec(
            "reduce_parts",
            template,
            (*between, *outputs),
            *grid(count, device.group()),
            {"count": count, "parts": parts, **({"chunk": chunk, "length": length} if kind == "mean" else {})},
            {},
            {},
            {"real": ctype, "kind": kind, "inputs": between, "expressions": tuple(zip(outputs, between))},
            partial,
            outputs,
        )
        return [first, second]
    # One work-item per output if there are many outputs or few elements in each; else a work-group, or a part of one.
    rows = 1
    if constants["width"] > 1:
        lanes = 1
    elif length <= 16 or count >= 64 * device.compute_units * (1 if device.is_cpu else 32):
        # A CPU's work-item computes a vector of outputs, if each operand is contiguous or constant across them.
        inner = kept_shape[-1] if kept_shape else 1
        across = {name: strides[-1] if strides else 0 for name, strides in zip(arrays, kept_strides, strict=True)}
        items, group = count, device.group()
        if device.is_cpu and adds and together and set(across.values()) <= {0, 1} and inner >= device.native_width:
            width = device.native_width
            constants |= {"width": width, "steps": tuple(across.items())}
            sizes["inner"] = inner
            items = count // inner * -(-inner // width)
            group = max(1, min(group, items // (8 * device.compute_units)))
        return [
            KernelSpec(
                "reduce_columns",
                template,
                (*used, *outputs),
                *grid(items, group),
                sizes,
                named,
                tables,
                constants,
                (),
                hooked,
            )
        ]
    else:
        lanes = min(device.group(), power_of_two(-(-length // 4)))
        rows = device.group() // lanes
    return [
        KernelSpec(
            "reduce_rows",
            template,
            (*used, *outputs),
            (lanes * round_up(count, rows),),
            (lanes * rows,),
            {**sizes, "chunk": length, "parts": 1},
            named,
            tables,
            {**constants, "lanes": lanes, "rows": rows},
            (),
            hooked,
            local=joined(outputs, lanes, rows),
            grouped=True,
        )
    ]


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
