"""Rewrites of recorded steps, which need less memory and give the same results, but for rounding.

In: the steps of forward and of backward. Out: other steps. ``saved_masks`` saves one byte per element where backward
needs only the piece of a piecewise-linear activation; ``norm_gradients`` computes a frozen norm's weight gradient from
that of the layer before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from tinyedge.dtypes import DType, int8
from tinyedge.ir.step import BACKWARD, FORWARD, Op, Step
from tinyedge.ir.values import Layout, Slot, Value
from tinyedge.ops.batch_norm import FrozenBatchNorm, NormScale, NormShift
from tinyedge.ops.conv import Conv2d
from tinyedge.ops.matmul import Linear
from tinyedge.shapes import Shape, contiguous_strides

Make = Callable[[DType, Shape], Slot]
"""Makes a contiguous temporary."""


def norm_gradients(forward: Sequence[Step], backward: Sequence[Step], make: Make) -> list[Step]:
    """Compute the weight gradient of a frozen norm from that of the convolution or linear layer before it.

    z = weight * (W x - mean) / sd + bias is one linear map of x, with the weight W' = W weight / sd. Its gradient dW'
    is needed for W's anyway, and gives the norm's: the sum of W dW' / sd for each channel. So W x, which was saved only
    for that gradient, need not be saved.
    """
    steps = [*forward, *backward]
    made_by = {slot.storage.number: step for step in steps if step.direction == FORWARD for slot in step.written()}
    users_of: dict[int, list[Step]] = {}  # the steps that read or write each storage
    for step in steps:
        for number in {slot.storage.number for slot in (*step.read(), *step.written()) if isinstance(slot, Slot)}:
            users_of.setdefault(number, []).append(step)
    replaced: dict[int, list[Step]] = {}
    for norm in steps:
        if norm.op is not FrozenBatchNorm or norm.direction != BACKWARD or not {"dx", "dweight"} <= set(norm.writes):
            continue
        layer = made_by.get(norm.slots["x"].storage.number)
        users = users_of[norm.slots["dx"].storage.number]
        if layer is None or layer.op not in (Conv2d, Linear) or layer.slots["bias"] is not None or len(users) != 2:
            continue  # something else adds to the layer's output gradient
        if not _has_rows(layer, norm):
            continue
        back = users[1]
        if back.op is layer.op and back.wants("dweight") and norm.slots["dy"].contiguous and norm.slots["weight"]:
            replaced[norm.number] = [_only(norm, "dx")] if back.wants("dx") else []
            replaced[back.number] = _folded(layer, norm, back, make)
    return [other for step in backward for other in replaced.get(step.number, [step])]


def _has_rows(layer: Step, norm: Step) -> bool:
    """Whether the norm's channels are the rows of the layer's weight, wherever a view lies between the two."""
    y, x = layer.slots["y"], norm.slots["x"]
    alike = y.shape[:2] == x.shape[:2] and y.numel == x.numel and y.offset == x.offset
    return alike and y.contiguous and x.contiguous and (layer.op is Conv2d or len(y.shape) == 2)


def _only(step: Step, *names: str) -> Step:
    """The step, restricted to these outputs."""
    slots = {name: slot for name, slot in step.slots.items() if name in names or name not in step.writes}
    return Step(
        step.op, step.direction, step.attrs, step.scalars, slots, step.reads, names, step.accumulate.intersection(names)
    )


def _folded(layer: Step, norm: Step, back: Step, make: Make) -> list[Step]:
    """The layer's backward on the norm's ``dy``, and the steps that turn its result into the gradients of both."""
    weight, channels = layer.slots["weight"], norm.slots["weight"].shape
    dweight, dbias = make(weight.dtype, weight.shape), make(weight.dtype, channels)
    plain = {name: slot for name, slot in back.slots.items() if name in back.reads}
    shape, dy = layer.slots["y"].shape, norm.slots["dy"]  # a Conv1d's norm has one dim less
    dy = dy.alias(Layout(shape, contiguous_strides(shape), dy.offset))
    plain |= {"dy": dy, "dweight": dweight, "dbias": dbias}
    over_rows = (*channels, *(1,) * (len(weight.shape) - 1))

    def by_row(slot: Slot) -> Slot:
        return slot.alias(Layout(over_rows, contiguous_strides(over_rows), slot.offset))

    gamma, dgamma = norm.slots["weight"], norm.slots["dweight"]
    mean, var = norm.slots["mean"], norm.slots["var"]
    shift = {"dy": dbias, "mean": mean, "gamma": gamma, "var": var, "dgamma": dgamma}
    scale = {"dy": dweight, "weight": weight, "gamma": by_row(gamma), "var": by_row(var)}
    scale |= {"dweight": back.slots["dweight"], "dgamma": by_row(dgamma)}
    shifted: tuple[str, ...] = ("dgamma",)
    adds = {"dgamma"} if "dweight" in norm.accumulate else set()
    if norm.wants("dbias"):
        shift["dbias"] = norm.slots["dbias"]
        shifted = ("dbias", "dgamma")
        adds |= norm.accumulate & {"dbias"}
    return [
        Step(back.op, BACKWARD, back.attrs, back.scalars, plain, back.reads, ("dweight", "dbias")),
        Step(NormShift, BACKWARD, {}, norm.scalars, shift, ("dy", "mean", "gamma", "var"), shifted, frozenset(adds)),
        Step(
            NormScale, BACKWARD, {}, norm.scalars, scale, ("dy", "weight", "gamma", "var"), ("dweight", "dgamma"),
            frozenset({"dgamma", *(back.accumulate & {"dweight"})}),
        ),
        *([_only(back, "dx")] if back.wants("dx") else []),
    ]  # fmt: skip


def saved_masks(
    forward: Sequence[Step], backward: Sequence[Step], temporary: Mapping[int, int], make: Make
) -> tuple[list[Step], list[Step]]:
    """Saved masks: save one byte per element for backward, where the op says that its backward needs no more.

    ``temporary`` gives the bytes of storages that exist only inside the program. A value that another step of backward
    reads is saved anyway, and a mask would only take more memory.
    """
    steps = [*forward, *backward]
    reads: dict[int, list[tuple[int, str]]] = defaultdict(list)  # by storage: positions of steps, names
    written: dict[int, int] = {}  # by storage: the position of the last step that writes it
    for position, step in enumerate(steps):
        for name in step.read_names():
            if not step.is_value(name):
                reads[step.slots[name].storage.number].append((position, name))
        written.update({slot.storage.number: position for slot in step.written()})
    after_step: dict[int, list[Step]] = defaultdict(list)
    for number, at in written.items():
        waiting = [(p, name) for p, name in reads[number] if _waits(steps[p], name)]
        others = [p for p, name in reads[number] if not _waits(steps[p], name)]
        if number not in temporary or not all(at < p for p, _ in waiting):
            continue
        if at < len(forward) and any(p >= len(forward) for p in others):
            continue  # forward steps are computed again from it (a checkpoint)
        if not all(_takes_mask(steps[p], name) for p, name in waiting):
            continue
        users: dict[tuple[Any, Layout, tuple[float, ...]], list[tuple[int, str]]] = defaultdict(list)
        for p, name in waiting:
            op = _masks_of(steps[p])[name]
            assert isinstance(op, type)
            numbers = tuple(steps[p].slots[other].number for other in op.inputs if other != name)
            users[op, steps[p].slots[name].layout(), numbers].append((p, name))
        if sum(prod(layout.shape) for _, layout, _ in users) >= temporary[number]:
            continue
        for (op, layout, _), places in users.items():
            like = steps[places[0][0]].slots
            byte = make(int8, layout.shape)
            slots = {**{name: like[name] for name in op.inputs}, op.outputs[0]: byte}
            after_step[at].append(Step(op, FORWARD, {}, {}, slots, op.inputs, op.outputs))
            for p, name in places:
                steps[p] = _with_mask(steps[p], name, byte)
    before, after = (
        [each for p in part for each in (steps[p], *after_step[p])]
        for part in (range(len(forward)), range(len(forward), len(steps)))
    )
    return before, after


def _waits(step: Step, name: str) -> bool:
    """Whether ``name`` is a value that ``step`` saved for backward."""
    return step.direction == BACKWARD and name in step.op.saves


def _masks_of(step: Step) -> Mapping[str, type[Op] | float]:
    return step.op.saved_masks_for(frozenset(name[1:] for name in step.writes))


def _takes_mask(step: Step, name: str) -> bool:
    """Whether a backward step can take a mask for ``name``, and all else that the mask depends on is a number."""
    instead = _masks_of(step)
    op = instead.get(name)
    if not isinstance(op, type):
        return False
    numbers = {other for other, less in instead.items() if not isinstance(less, type)}
    return all(step.is_value(other) for other in numbers.union(op.inputs) - {name})


def _with_mask(step: Step, name: str, byte: Slot) -> Step:
    """The step with the mask ``byte`` for ``name``, and with the numbers that replace other saved values."""
    numbers = {
        other: Value(less, step.slots[other].dtype)
        for other, less in _masks_of(step).items()
        if not isinstance(less, type)
    }
    return step.over({**step.slots, **numbers, name: byte})
