"""Normalization of each channel over the batch, and what ``te.compile`` computes the gradients of a frozen one by."""

from __future__ import annotations

from math import prod
from random import Random
from typing import Any, NamedTuple

import numpy as np

from tinyedge.autograd.dispatch import execute
from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import public
from tinyedge.autograd.scope import may_change
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import FORWARD, ErrorSample, Op, Sample, Step, sum_of
from tinyedge.ir.values import Layout, Slot, Spec
from tinyedge.kernels.lowering import gradient_kernels, pointwise_kernel
from tinyedge.ops.normalize import AFFINE, mean_of, require_fitting, sample_affine
from tinyedge.ops.promotion import floating
from tinyedge.ops.rows import row_launch, shared_rows
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call, call_all


class _Parts(NamedTuple):
    """How the elements of each channel are cut for a sum in two stages, and how a kernel walks them all."""

    sizes: dict[str, int]
    parts: int  # of one channel
    channels: int
    per_channel: int  # elements of one channel
    global_size: Shape
    local_size: Shape
    walk: dict[str, int]

    @classmethod
    def of(cls, full: Shape, device: Device) -> _Parts:
        batch, channels, length = full[0], full[1], prod(full[2:])
        if length == 1:  # neighbours in memory are then channels
            chunk = max(MOST_CACHED_SAMPLES, -(-batch // 64))
            sections = -(-batch // chunk)
            sizes = {"parts": sections, "channels": channels, "sections": sections, "length": batch, "chunk": chunk}
            width = device.vector_width if device.is_cpu and channels >= device.vector_width else 1
            items, group = sections * -(-channels // width), device.group()
            if device.is_cpu:  # groups of one item would do too, but cost more to hand out
                group = max(1, min(group, items // (4 * device.compute_units)))
            walk = {"lanes": 1, "width": width, "columns": 1}
            return cls(sizes, sections, channels, batch, *grid(items, group), walk)
        # Long enough that the group's own sum is cheap, short enough to stay in the first cache for the second pass.
        chunk = max(1024 if not device.is_cpu else 4096, -(-batch * length // 64))
        sections = -(-length // chunk)
        parts, chunk = batch * sections, min(chunk, max(length, 1))
        sizes = {"parts": parts, "channels": channels, "sections": sections, "length": length, "chunk": chunk}
        global_size, local_size, walk = row_launch(device, parts * channels, chunk)
        return cls(sizes, parts, channels, batch * length, global_size, local_size, {**walk, "columns": 0})

    def scratch(self, ctype: str, *names: str) -> tuple[Scratch, ...]:
        return tuple(Scratch(name, ctype, self.parts * self.channels) for name in names)


MOST_CACHED_SAMPLES = 64
"""That a work-item reads, one line of memory each, before it reads them again."""
TEMPLATE = "batch_norm.cl.jinja"


def _sum_kernels(step: Step, device: Device, full: Shape, center: bool) -> list[KernelSpec]:
    """Kernels for dweight and dbias, and with ``center`` for the channel's means that dx needs."""
    parts = _Parts.of(full, device)
    ctype = step.slots["dy"].dtype.ctype
    scaled = center or step.wants("dweight")
    names = ("plain_parts", "scaled_parts") if scaled else ("plain_parts",)
    scratch = parts.scratch(ctype, *names)
    first = KernelSpec(
        "batch_norm_sums",
        TEMPLATE,
        ("dy", *(("x", "mean") if scaled else ()), *names),
        parts.global_size,
        parts.local_size,
        parts.sizes,
        constants={"real": ctype, **parts.walk},
        scratch=scratch,
        hooked=("dy", "x"),
        **shared_rows(ctype, parts.walk),
    )
    means = ("plain_mean", "slope") if center else ()
    second = KernelSpec(
        "batch_norm_join_sums",
        TEMPLATE,
        (
            *names,
            *(("var",) if scaled else ()),
            *(name for name in ("dweight", "dbias") if step.wants(name)),
            *means,
        ),
        *grid(parts.channels, device.group()),
        {"parts": parts.parts, "channels": parts.channels, "count": parts.per_channel},
        AFFINE,
        constants={"real": ctype, "lanes": 1, "width": 1, "columns": 0},
        scratch=(*scratch, *(Scratch(name, ctype, parts.channels) for name in means)),
        hooked=("dweight", "dbias"),
    )
    return [first, second]


def _walk_kernel(
    step: Step, device: Device, kernel: str, full: Shape, buffers: tuple[str, ...], scratch: tuple[Scratch, ...] = ()
) -> KernelSpec:
    """A kernel that goes over every element, part by part."""
    parts = _Parts.of(full, device)
    ctype = step.slots[buffers[0]].dtype.ctype
    return KernelSpec(
        kernel, TEMPLATE, buffers, parts.global_size, parts.local_size, parts.sizes, AFFINE,
        constants={"real": ctype, **parts.walk}, scratch=scratch, hooked=buffers,
        **shared_rows(ctype, parts.walk, joins=False),
    )  # fmt: skip


def _by_channel(step: Step) -> Step:
    """The step with everything that has one value a channel shaped so that it broadcasts."""
    rank = len(step.slots["x" if step.direction == FORWARD else "dy"].shape)
    slots = {
        name: slot.alias(Layout((*slot.shape, *(1,) * (rank - 2)), (*slot.strides, *(0,) * (rank - 2)), slot.offset))
        if isinstance(slot, Slot) and len(slot.shape) == 1
        else slot
        for name, slot in step.slots.items()
    }
    return step.over(slots)


def _present(step: Step, *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if step.slots[name] is not None)


def _channel(values: Any, rank: int) -> Any:
    return values.reshape(-1, *(1,) * (rank - 2))


def _sample_image(random: Random, smallest: int) -> Shape:
    rank = random.randint(2, 5)
    shape = [
        random.choice((1, 2, 3)),
        random.choice((1, 2, 5)),
        *(random.choice((1, 2, 3, 7)) for _ in range(rank - 2)),
    ]
    if shape[0] * prod(shape[2:]) < smallest:
        shape[0] = smallest
    return tuple(shape)


class BatchNorm(Op):
    """Normalization by the mean and variance of the input itself."""

    signature = "(n,c,...),(c),(c)->(n,c,...)"
    operations = 8  # mean, variance, normalization, and the affine map
    domain = {"x": (-2.0, 2.0), "weight": (0.5, 1.5), "bias": (-1.0, 1.0)}
    outputs = ("y", "mean", "var")
    hidden = ("mean", "var")
    differentiable = ("x", "weight", "bias")
    saves = ("x", "weight", "mean", "var")
    scalars = AFFINE
    rtol = 1e-4  # dx is what is left of dy after two projections
    atol = 1e-5
    errors = (
        ErrorSample(
            lambda te: te.batch_norm(te.full((1, 3), 1.0), None, None, training=True), ShapeError, "more than one value"
        ),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x = inputs[0]
        assert x is not None
        channel = Spec(x.dtype.computes, (x.shape[1],))
        return x, channel, channel

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        return cls.saves if "x" in needed else ("x", "mean", "var") if "weight" in needed else ()

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        full = step.slots["x"].shape
        ctype = step.slots["x"].dtype.ctype
        parts = _Parts.of(full, device)
        scratch = parts.scratch(ctype, "averages", "spreads")
        first = KernelSpec(
            "batch_norm_parts",
            TEMPLATE,
            ("x", "averages", "spreads"),
            parts.global_size,
            parts.local_size,
            parts.sizes,
            constants={"real": ctype, **parts.walk},
            scratch=scratch,
            hooked=("x",),
            **shared_rows(ctype, parts.walk),
        )
        second = KernelSpec(
            "batch_norm_join",
            TEMPLATE,
            ("averages", "spreads", "mean", "var"),
            *grid(parts.channels, device.group()),
            parts.sizes,
            constants={"real": ctype, "lanes": 1, "width": 1, "columns": 0},
            scratch=scratch,
        )
        buffers = ("x", "mean", "var", *_present(step, "weight", "bias"), "y")
        return [first, second, _walk_kernel(step, device, "batch_norm_forward", full, buffers)]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        full = step.slots["dy"].shape
        center = step.wants("dx")
        kernels = _sum_kernels(step, device, full, center)
        if center:
            buffers = ("dy", "x", "mean", "var", *_present(step, "weight"), "plain_mean", "slope", "dx")
            kernels.append(_walk_kernel(step, device, "batch_norm_backward", full, buffers, kernels[-1].scratch))
        return kernels

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        axes = (0, *range(2, x.ndim))
        count = max(x.shape[0] * prod(x.shape[2:]), 1)
        mean = mean_of(x, axes).reshape(-1)
        var = sum_of(np.square(x - _channel(mean, x.ndim)), axes) / count
        y = (x - _channel(mean, x.ndim)) / np.sqrt(_channel(var, x.ndim) + x.dtype.type(eps))
        y = y if weight is None else y * _channel(weight, x.ndim)
        return y if bias is None else y + _channel(bias, x.ndim), mean, var

    @staticmethod
    def backward(
        dy: Any, dmean: Any, dvar: Any, x: Any, weight: Any, mean: Any, var: Any, *, eps: float, needs: tuple[bool, ...]
    ) -> Any:
        axes = (0, *range(2, dy.ndim))
        dbias = sum_of(dy, axes)
        if x is None or not (needs[0] or needs[1]):
            return None, None, dbias
        std = np.sqrt(_channel(var, dy.ndim) + dy.dtype.type(eps))
        xhat = (x - _channel(mean, dy.ndim)) / std
        dweight = sum_of(dy * xhat, axes)
        if not needs[0]:
            return None, dweight, dbias
        g = dy if weight is None else dy * _channel(weight, dy.ndim)
        count = max(dy.shape[0] * prod(dy.shape[2:]), 1)
        dx = g - mean_of(g, axes) - xhat * sum_of(g * xhat, axes, True) / count
        return dx / std, dweight, dbias

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = _sample_image(random, 3)
        return Sample((shape, *sample_affine(random, (shape[1],))), {"eps": random.choice((1e-5, 0.1))})


class FrozenBatchNorm(Op):
    """Normalization by given statistics: an affine map of each channel."""

    signature = "(n,c,...),(c),(c),(c),(c)->(n,c,...)"
    operations = 2
    domain = {"x": (-2.0, 2.0), "mean": (-1.0, 1.0), "var": (0.5, 2.0), "weight": (0.5, 1.5), "bias": (-1.0, 1.0)}
    differentiable = ("x", "weight", "bias")
    saves = ("x", "mean", "var", "weight")
    scalars = AFFINE
    strided = True

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        assert inputs[0] is not None
        return (inputs[0],)

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        kept = {"x": ("var", "weight"), "weight": ("x", "mean", "var"), "bias": ()}
        return tuple(name for name in cls.saves if any(name in kept[gradient] for gradient in needed))

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        shift = " + bias" if _present(step, "bias") else ""
        return [
            pointwise_kernel(_by_channel(step), device, {"y": f"(x - mean) * {cls.scale(step)}{shift}"}, cls.scalars)
        ]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        texts = {
            "dx": f"dy * {cls.scale(step)}",
            "dweight": "dy * (x - mean) * rsqrt(var + eps)",
            "dbias": "dy",
        }
        wanted = {name: texts[name] for name in step.writes}
        return gradient_kernels(_by_channel(step), device, wanted, step.slots["dy"].shape, cls.scalars)

    @classmethod
    def scale(cls, step: Step) -> str:
        return "(weight * rsqrt(var + eps))" if _present(step, "weight") else "rsqrt(var + eps)"

    @staticmethod
    def forward(x: Any, mean: Any, var: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        y = (x - _channel(mean, x.ndim)) / np.sqrt(_channel(var, x.ndim) + x.dtype.type(eps))
        y = y if weight is None else y * _channel(weight, x.ndim)
        return y if bias is None else y + _channel(bias, x.ndim)

    @staticmethod
    def backward(dy: Any, x: Any, mean: Any, var: Any, weight: Any, *, eps: float, needs: tuple[bool, ...]) -> Any:
        axes = (0, *range(2, dy.ndim))
        dx = dweight = None
        if needs[0]:
            dx = dy / np.sqrt(_channel(var, dy.ndim) + dy.dtype.type(eps))
            dx = dx if weight is None else dx * _channel(weight, dy.ndim)
        if needs[1]:
            dweight = sum_of(dy * (x - _channel(mean, dy.ndim)), axes) / np.sqrt(var + dy.dtype.type(eps))
        return dx, dweight, sum_of(dy, axes) if needs[2] else None

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = _sample_image(random, 0)
        channels = (shape[1],)
        affine = sample_affine(random, channels)
        return Sample((shape, channels, channels, *affine), {"eps": random.choice((1e-5, 0.1))})


class NormScale(Elementwise):
    """A linear map's weight times the scale of the frozen norm behind it: together they are one linear map.

    ``compile`` computes the norm's gradients through this: from the weight's gradient, and not from the norm's input.
    """

    signature = "(),(),()->()"
    domain = {"weight": (-2.0, 2.0), "gamma": (0.5, 1.5), "var": (0.5, 2.0)}
    rtol, atol = 1e-4, 1e-5  # dgamma is a sum that may cancel, of roots that devices round differently
    scalars = AFFINE
    saves = ("weight", "gamma", "var")
    choices = {"eps": (1e-5, 0.1)}
    kernel_forward = {"y": "weight * (gamma * rsqrt(var + eps))"}
    kernel_backward = {"dweight": "dy * (gamma * rsqrt(var + eps))", "dgamma": "dy * weight * rsqrt(var + eps)"}

    @staticmethod
    def forward(weight: Any, gamma: Any, var: Any, *, eps: float) -> Any:
        return weight * gamma / np.sqrt(var + eps)

    @staticmethod
    def backward(dy: Any, weight: Any, gamma: Any, var: Any, *, eps: float) -> Any:
        rstd = 1 / np.sqrt(var + eps)
        return dy * gamma * rstd, dy * weight * rstd


class NormShift(Elementwise):
    """The bias of that linear map."""

    signature = "(),(),(),()->()"
    domain = {"bias": (-1.0, 1.0), "mean": (-1.0, 1.0), "gamma": (0.5, 1.5), "var": (0.5, 2.0)}
    rtol, atol = 1e-4, 1e-5
    scalars = AFFINE
    saves = ("mean", "gamma", "var")
    choices = {"eps": (1e-5, 0.1)}
    kernel_forward = {"y": "bias - mean * (gamma * rsqrt(var + eps))"}
    kernel_backward = {"dbias": "dy", "dgamma": "-dy * mean * rsqrt(var + eps)"}

    @staticmethod
    def forward(bias: Any, mean: Any, gamma: Any, var: Any, *, eps: float) -> Any:
        return bias - mean * gamma / np.sqrt(var + eps)

    @staticmethod
    def backward(dy: Any, mean: Any, gamma: Any, var: Any, *, eps: float) -> Any:
        return dy, -dy * mean / np.sqrt(var + eps)


class RunningAverage(Elementwise):
    """A running statistic moved towards a new one; ``batch_norm`` writes it over the old."""

    signature = "(),()->()"
    domain = {"running": (-2.0, 2.0), "new": (-2.0, 2.0)}
    scalars = {"momentum": "real", "correction": "real"}
    choices = {"momentum": (0.1, 0.5, 1.0), "correction": (1.0, 1.25)}
    kernel_forward = {"y": "running + momentum * (correction * new - running)"}

    @staticmethod
    def forward(running: Any, new: Any, *, momentum: float, correction: float) -> Any:
        kind = running.dtype.type
        return (1 - kind(momentum)) * running + kind(momentum) * (kind(correction) * new)


def move_running(running: Tensor | None, new: Tensor, momentum: float, correction: float) -> None:
    """Move a running statistic in place, on its device and outside autograd."""
    if running is None or not may_change(running._slot.storage):
        return
    slot = running._slot
    scalars = {"momentum": float(momentum), "correction": correction}
    slots = {"running": slot, "new": new._slot, "y": slot}
    execute(Step(RunningAverage, FORWARD, {}, scalars, slots, ("running", "new"), ("y",)))
    slot.storage.version += 1


@public(functional=True)
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``(input - mean) / sqrt(var + eps) * weight + bias`` for each channel.

    In training the mean and variance are the input's own, and the running ones, where given, move towards them in place
    by ``momentum`` (with the unbiased variance); else they are the running ones, and do not change.

    Shapes: input (batch, channels, ...); all others (channels,).
    Saves:  input and weight, with the statistics; in evaluation the input only if weight needs a gradient.
    Errors: ShapeError if a channel has only one value in training; ArgumentError without statistics in evaluation, and
            for an eps below 0, or of 0 in training.
    Source: Ioffe and Szegedy, arXiv:1502.03167.
    """
    input = floating("batch_norm", input)
    if eps < 0 or (training and eps == 0):
        raise ArgumentError("batch_norm", "eps must be above 0" if training else "eps must be at least 0", f"got {eps}")
    if input.ndim < 2 and input.numel():
        raise ShapeError("batch_norm", "input (batch, channels, ...)", f"got {input.shape}")
    channels = input.shape[1:2] or (0,)
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for argument, value in given.items():
        require_fitting("batch_norm", argument, value, channels, input)
    if input.ndim < 2:
        return input.clone()
    if not training:
        if running_mean is None or running_var is None:
            raise ArgumentError(
                "batch_norm",
                "running_mean and running_var are needed when training=False",
                "got None",
                "Pass training=True to use the statistics of the input.",
            )
        return call(FrozenBatchNorm, input, running_mean, running_var, weight, bias, scalars={"eps": float(eps)})
    count = input.shape[0] * prod(input.shape[2:])
    if count == 1:
        raise ShapeError(
            "batch_norm", "more than one value a channel when training", f"got {input.shape}", "Use training=False."
        )
    y, mean, var = call_all(BatchNorm, input, weight, bias, scalars={"eps": float(eps)})
    if count:
        move_running(running_mean, mean, momentum, 1.0)
        move_running(running_var, var, momentum, count / (count - 1))
    return y
