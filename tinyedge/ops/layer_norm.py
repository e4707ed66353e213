"""Normalization of each sample by itself: over its last dims, over groups of channels, over each channel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from random import Random
from typing import Any

import numpy as np

from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.registry import public
from tinyedge.errors import DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step, sum_of
from tinyedge.ir.values import Spec
from tinyedge.ops.batch_norm import batch_norm, move_running
from tinyedge.ops.normalize import AFFINE, mean_of, require_fitting, sample_affine
from tinyedge.ops.promotion import floating
from tinyedge.ops.rows import row_launch, shared_rows
from tinyedge.tensor import Tensor, call, call_all


class LayerNorm(Op):
    """Normalization over the last ``dims`` dims."""

    signature = "(...,k),(k),(k)->(...,k)"
    operations = 8  # mean, variance, normalization, and the affine map
    domain = {"x": (-2.0, 2.0), "weight": (0.5, 1.5), "bias": (-1.0, 1.0)}
    outputs = ("y", "mean", "rstd")
    hidden = ("mean", "rstd")
    differentiable = ("x", "weight", "bias")
    saves = ("x", "weight", "mean", "rstd")
    scalars = AFFINE
    rtol = 1e-4  # dx is what is left of dy after two projections
    atol = 1e-5
    errors = (
        ErrorSample(lambda te: te.layer_norm(te.full((2, 3), 1.0), (2,)), ShapeError, "normalized_shape"),
        ErrorSample(lambda te: te.layer_norm(te.full((2, 3), 1), (3,)), DtypeError, "floating-point"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x = inputs[0]
        assert x is not None
        row = Spec(x.dtype.computes, x.shape[: len(x.shape) - attrs["dims"]])
        return x, row, row

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        return cls.saves if "x" in needed else ("x", "mean", "rstd") if "weight" in needed else ()

    @classmethod
    def _rows(cls, step: Step, name: str) -> tuple[int, int]:
        shape = step.slots[name].shape
        kept = len(shape) - step.attrs["dims"]
        return prod(shape[:kept]), prod(shape[kept:])

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        rows, length = cls._rows(step, "x")
        global_size, local_size, walk = row_launch(device, rows, length)
        return [
            KernelSpec(
                "layer_norm_forward",
                "layer_norm.cl.jinja",
                (*step.read_names(), "y", "mean", "rstd"),
                global_size,
                local_size,
                {"rows": rows, "length": length},
                AFFINE,
                constants={"real": step.slots["x"].dtype.ctype, **walk},
                hooked=(*step.read_names(), "y", "mean", "rstd"),
                in_place={"y": ("x",)},
                **shared_rows(step.slots["x"].dtype.ctype, walk),
            )
        ]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        rows, length = cls._rows(step, "dy")
        ctype = step.slots["dy"].dtype.ctype
        kernels = []
        if step.wants("dx"):
            global_size, local_size, walk = row_launch(device, rows, length)
            weight = ("weight",) if step.slots["weight"] is not None else ()
            kernels.append(
                KernelSpec(
                    "layer_norm_backward",
                    "layer_norm.cl.jinja",
                    ("dy", "x", *weight, "mean", "rstd", "dx"),
                    global_size,
                    local_size,
                    {"rows": rows, "length": length},
                    constants={"real": ctype, **walk},
                    hooked=("dy", "x", *weight, "mean", "rstd", "dx"),
                    in_place={"dx": ("dy", "x")},
                    **shared_rows(ctype, walk),
                )
            )
        outputs = tuple(name for name in ("dweight", "dbias") if step.wants(name))
        return kernels + (cls._kernels_of_columns(step, device, outputs, rows, length) if outputs else [])

    @staticmethod
    def _kernels_of_columns(
        step: Step, device: Device, outputs: tuple[str, ...], rows: int, length: int
    ) -> list[KernelSpec]:
        """The gradients of weight and bias: sums over all rows."""
        ctype = step.slots["dy"].dtype.ctype
        # Enough parts that the device has work, each long enough to be worth joining.
        width = device.vector_width if device.is_cpu and length >= device.vector_width else 1
        items = -(-length // width)
        wanted = (4 if device.is_cpu else 256) * device.compute_units
        parts = max(1, min(-(-rows // 16), -(-wanted // max(items, 1))))
        chunk = max(1, -(-rows // parts))
        targets = outputs if parts == 1 else tuple(name + "_parts" for name in outputs)
        scratch = () if parts == 1 else tuple(Scratch(name, ctype, parts * length) for name in targets)
        names = dict(zip(outputs, targets, strict=True))
        (global_0,), (local_0,) = grid(items, min(4, device.group()) if width > 1 else device.group())
        source = ("x", "mean", "rstd") if "dweight" in outputs else ()
        kernels = [
            KernelSpec(
                "layer_norm_columns",
                "layer_norm.cl.jinja",
                ("dy", *source, *targets),
                (global_0, parts),
                (local_0, 1),
                {"rows": rows, "length": length, "chunk": chunk},
                constants={
                    "real": ctype,
                    "lanes": 1,
                    "width": width,
                    "dweight": names.get("dweight", ""),
                    "dbias": names.get("dbias", ""),
                },
                scratch=scratch,
                hooked=("dy", *source),
            )
        ]
        if parts > 1:
            kernels.append(
                KernelSpec(
                    "layer_norm_join",
                    "layer_norm.cl.jinja",
                    (*targets, *outputs),
                    *grid(length, device.group()),
                    {"length": length, "parts": parts},
                    constants={"real": ctype, "lanes": 1, "width": 1, "outputs": outputs},
                    scratch=scratch,
                    hooked=outputs,
                )
            )
        return kernels

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any, *, eps: float, dims: int) -> Any:
        axes = tuple(range(x.ndim - dims, x.ndim))
        mean = mean_of(x, axes)
        var = mean_of(np.square(x - mean), axes)
        rstd = 1 / np.sqrt(var + x.dtype.type(eps))
        y = (x - mean) * rstd
        y = y if weight is None else y * weight
        rows = x.shape[: x.ndim - dims]
        return y if bias is None else y + bias, mean.reshape(rows), rstd.reshape(rows)

    @staticmethod
    def backward(
        dy: Any, dmean: Any, drstd: Any, x: Any, weight: Any, mean: Any, rstd: Any, *,
        eps: float, dims: int, needs: tuple[bool, ...],
    ) -> Any:  # fmt: skip
        kept = tuple(range(dy.ndim - dims))
        axes = tuple(range(dy.ndim - dims, dy.ndim))
        dbias = sum_of(dy, kept)
        if x is None or not (needs[0] or needs[1]):
            return None, None, dbias
        inverse = rstd.reshape(*rstd.shape, *(1,) * dims)
        xhat = (x - mean.reshape(inverse.shape)) * inverse
        dweight = sum_of(dy * xhat, kept)
        if not needs[0]:
            return None, dweight, dbias
        g = dy if weight is None else dy * weight
        dx = g - mean_of(g, axes) - xhat * mean_of(g * xhat, axes)
        return dx * inverse, dweight, dbias

    @classmethod
    def sample(cls, random: Random) -> Sample:
        lead = tuple(random.choice((1, 2, 5)) for _ in range(random.randint(0, 2)))
        tail = tuple(random.choice((1, 3, 17)) for _ in range(random.randint(1, 2)))
        if prod(tail) < 3:
            tail = (*tail[:-1], 7)
        attrs = {"eps": random.choice((1e-5, 0.1)), "dims": len(tail)}
        return Sample((lead + tail, *sample_affine(random, tail)), attrs)


@public(functional=True)
def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """``(input - mean) / sqrt(var + eps) * weight + bias`` over the last dims, those of ``normalized_shape``.

    Shapes: input (..., *normalized_shape); weight and bias normalized_shape.
    Saves:  input and weight, with mean and 1 / sqrt(var + eps) of each row.
    Errors: ShapeError if input does not end in normalized_shape, or weight or bias has another shape.
    Source: Ba et al., arXiv:1607.06450.
    """
    input = floating("layer_norm", input)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(int(n) for n in normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ShapeError(
            "layer_norm", f"input must end in the dims normalized_shape={shape}, at least one", f"it is {input.shape}"
        )
    require_fitting("layer_norm", "weight", weight, shape, input)
    require_fitting("layer_norm", "bias", bias, shape, input)
    return call(LayerNorm, input, weight, bias, scalars={"eps": float(eps)}, dims=len(shape))


@public(functional=True)
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalization over groups of channels of each sample, then a scale and a shift of each channel.

    ``eps`` is added to the variance.

    Shapes: input (batch, channels, ...); weight and bias (channels,).
    Errors: ShapeError if the channels are no multiple of ``num_groups``, or there is one element to normalize.
    Source: Wu and He, arXiv:1803.08494.
    """
    input = floating("group_norm", input)
    if input.ndim < 2:
        raise ShapeError("group_norm", "input (batch, channels, ...)", f"got {input.shape}")
    batch, channels = input.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise ShapeError("group_norm", f"channels must be a multiple of num_groups={num_groups}", f"got {input.shape}")
    if 0 in input.shape[1:] or prod(input.shape) == num_groups:
        raise ShapeError("group_norm", "more than one element in a group", f"got {input.shape} in {num_groups} groups")
    require_fitting("group_norm", "weight", weight, (channels,), input)
    require_fitting("group_norm", "bias", bias, (channels,), input)
    rows = input.reshape(batch, num_groups, channels // num_groups * prod(input.shape[2:]))
    y = call(LayerNorm, rows, None, None, scalars={"eps": float(eps)}, dims=1)
    return _scale_channels(y.reshape(input.shape), weight, bias)


@public(functional=True)
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``batch_norm`` of each sample by itself; running statistics move towards the batch's average.

    Without ``use_input_stats`` it normalises by ``running_mean`` and ``running_var``; these move by ``momentum``.
    ``weight`` and ``bias`` are a scale and a shift of each channel, and ``eps`` is added to the variance.

    Shapes: input (batch, channels, ...); all others (channels,).
    Errors: ShapeError if a channel of a sample has only one value.
    Source: Ulyanov et al., arXiv:1607.08022.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    input = floating("instance_norm", input)
    if input.ndim < 2:
        raise ShapeError("instance_norm", "input (batch, channels, ...)", f"got {input.shape}")
    count = prod(input.shape[2:])
    if count == 1:
        raise ShapeError("instance_norm", "more than one value a channel of a sample", f"got {input.shape}")
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for argument, value in given.items():
        require_fitting("instance_norm", argument, value, (input.shape[1],), input)
    rows = input.reshape(input.shape[0], input.shape[1], count)
    y, mean, rstd = call_all(LayerNorm, rows, None, None, scalars={"eps": float(eps)}, dims=1)
    if input.numel() and (running_mean is not None or running_var is not None):
        with no_grad():
            var = rstd.square().reciprocal() - eps
            move_running(running_mean, mean.mean(0), momentum, 1.0)
            move_running(running_var, var.mean(0), momentum, count / (count - 1))
    return _scale_channels(y.reshape(input.shape), weight, bias)


def _scale_channels(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (-1, *(1,) * (y.ndim - 2))
    if weight is not None:
        y = y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)
