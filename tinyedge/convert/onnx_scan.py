"""ONNX's Scan: a loop over the places of its inputs along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinyedge import ops
from tinyedge.convert.build import Raw, RawBody, RawLoop, loop_raw
from tinyedge.convert.graph import Array
from tinyedge.convert.nodes import Guards
from tinyedge.convert.onnx_shapes import axis_of
from tinyedge.convert.tensorflow_handlers import TENSORFLOW
from tinyedge.errors import ShapeError
from tinyedge.tensor import Tensor


class Scanned(NamedTuple):
    """Along which axes, and whether from the end: each input that is scanned, and each output that is put together."""

    axes: tuple[int, ...]
    reverses: tuple[bool, ...]
    made_axes: tuple[int, ...]
    made_reverses: tuple[bool, ...]


@TENSORFLOW.op("ScanLength", makes_host=True)
def scan_length(*scanned: Tensor, axes: tuple[int, ...]) -> Array:
    """How many steps a scan has."""
    sizes = {x.shape[axis_of("Scan", axis, x.ndim)] for x, axis in zip(scanned, axes)}
    if len(sizes) != 1:
        raise ShapeError("Scan", "inputs of one length along their axes", f"got {sorted(sizes)}")
    return np.array(sizes.pop(), np.int64)


@TENSORFLOW.op("ScanStep", host=("step",))
def scan_step(x: Tensor, step: Array, *, axis: int, reverse: int) -> Tensor:
    """What a step reads."""
    axis = axis_of("Scan", axis, x.ndim)
    place = int(step.reshape(()))
    return ops.squeeze(ops.narrow(x, axis, x.shape[axis] - 1 - place if reverse else place, 1), axis)


@TENSORFLOW.op("ScanResult")
def scan_result(rows: Tensor, *, axis: int, reverse: int) -> Tensor:
    """What the steps made, put together; it lies along the first dim so far."""
    rows = ops.flip(rows, (0,)) if reverse else rows
    return ops.movedim(rows, 0, axis_of("Scan", axis, rows.ndim))


def scan_raws(
    name: str, states: Sequence[str], scanned: Sequence[str], outputs: Sequence[str], body: RawBody, how: Scanned,
    guards: Guards,
) -> list[Raw]:  # fmt: skip
    """The loop that a Scan is. ``body`` is given the states, and a part of each input."""

    def raw(op: str, inputs: tuple[str, ...], output: str, guards: Guards = guards, **arguments: object) -> Raw:
        return Raw(op, f"{name}:{op}", inputs, (output,), TENSORFLOW.own(op), dict(arguments), None, None, guards)

    count, step, length = len(states), f"{name}:step", f"{name}:length"
    reads = [
        raw("ScanStep", (x, step), part, (), axis=axis, reverse=int(reverse))
        for x, part, axis, reverse in zip(scanned, body.inputs[count:], how.axes, how.reverses)
    ]
    inner = RawBody([*reads, *body.raws], (step, "", *body.inputs[:count]), ("", *body.outputs))
    rows = [f"{output}:rows" for output in outputs[count:]]
    loop = loop_raw(name, [length, "", *states], [*outputs[:count], *rows], RawLoop(inner, None), guards)
    results = [
        raw("ScanResult", (row,), output, axis=axis, reverse=int(reverse))
        for row, output, axis, reverse in zip(rows, outputs[count:], how.made_axes, how.made_reverses)
    ]
    return [raw("ScanLength", tuple(scanned), length, axes=how.axes), *loop, *results]


__all__ = ["Scanned", "scan_raws"]
