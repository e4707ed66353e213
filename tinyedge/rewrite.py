"""Recorded steps in another form, which needs less memory and gives the same but for rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinyedge.op import BACKWARD, FORWARD, Layout
from tinyedge.ops.conv import Conv2d
from tinyedge.ops.matmul import Linear
from tinyedge.ops.normalize import FrozenBatchNorm, NormScale, NormShift
from tinyedge.shapes import Shape, contiguous_strides
from tinyedge.tape import Slot, Step

Make = Callable[[Slot, Shape], Slot]
"""Makes a contiguous temporary of the dtype of a slot and of a shape."""


def norm_gradients(steps: Sequence[Step], make: Make) -> list[Step]:
    """Let a frozen norm behind a convolution or linear layer get its weight's gradient from that layer's.

    z = weight * (W x - mean) / sd + bias is one linear map of x, with the weight W' = W weight / sd. Its gradient dW'
    is needed for W's anyway, and gives the norm's: the sum of W dW' / sd for each channel. So W x, which only that
    gradient was kept for, need not be saved.
    """
    made_by = {slot.storage.number: step for step in steps if step.direction == FORWARD for slot in step.written()}
    users_of: dict[int, list[Step]] = {}  # who reads or writes each storage
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
            continue  # what else adds to the layer's gradient is not the norm's
        back = users[1]
        if back.op is layer.op and back.wants("dweight") and norm.slots["dy"].contiguous and norm.slots["weight"]:
            replaced[norm.number] = [_only(norm, "dx")] if back.wants("dx") else []
            replaced[back.number] = _folded(layer, norm, back, make)
    return [other for step in steps for other in replaced.get(step.number, [step])]


def _only(step: Step, *names: str) -> Step:
    """The step, writing these alone."""
    slots = {name: slot for name, slot in step.slots.items() if name in names or name not in step.writes}
    return Step(
        step.op, step.direction, step.attrs, step.scalars, slots, step.reads, names, step.accumulate.intersection(names)
    )


def _folded(layer: Step, norm: Step, back: Step, make: Make) -> list[Step]:
    """The layer's backward on the norm's ``dy``, and what turns that into the gradients of both."""
    weight, channels = layer.slots["weight"], norm.slots["weight"].shape
    dweight, dbias = make(weight, weight.shape), make(weight, channels)
    plain = {name: slot for name, slot in back.slots.items() if name in back.reads}
    plain |= {"dy": norm.slots["dy"], "dweight": dweight, "dbias": dbias}
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
        *([_only(back, "dx")] if back.wants("dx") else []),
        Step(back.op, BACKWARD, back.attrs, back.scalars, plain, back.reads, ("dweight", "dbias")),
        Step(NormShift, BACKWARD, {}, norm.scalars, shift, ("dy", "mean", "gamma", "var"), shifted, frozenset(adds)),
        Step(
            NormScale, BACKWARD, {}, norm.scalars, scale, ("dy", "weight", "gamma", "var"), ("dweight", "dgamma"),
            frozenset({"dgamma", *(back.accumulate & {"dweight"})}),
        ),
    ]  # fmt: skip
