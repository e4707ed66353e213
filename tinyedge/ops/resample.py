"""Resizing: interpolate, of sequences, images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod
from random import Random
from typing import Any, cast

import numpy as np

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, DtypeError, NumberRangeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, lines_grid
from tinyedge.ir.step import FORWARD, ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.antialias import resized
from tinyedge.shapes import INT_MAX, Shape
from tinyedge.tensor import Tensor, call

Array = np.ndarray[Any, Any]
AXES = "dhw"

KINDS = {"nearest": "nearest", "nearest-exact": "nearest-exact", "area": "area"}
KINDS |= {"linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}
"""What each mode does along a dim."""

RANKS = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}
"""How many dims are resized by the modes that say it."""


def resample_taps(
    size: int, outputs: int, mode: str, aligned: bool, scale: float, dtype: Any
) -> list[tuple[Array, Array]]:
    """From which elements each result is made, and how much of each: a place and a weight for each result (NumPy)."""
    real = dtype.type
    o, step, half = np.arange(outputs).astype(dtype), real(scale), real(0.5)
    if mode.startswith("nearest"):
        places = o * step if mode == "nearest" else (o + half) * step
        return [(np.minimum(np.floor(places).astype(np.int64), size - 1), np.ones(outputs, dtype))]
    places = o * step if aligned else (o + half) * step - half
    if mode == "linear":
        places = np.maximum(places, 0)
    base = np.minimum(np.floor(places).astype(np.int64), size - 1)
    t = np.clip(places - base, 0, 1).astype(dtype)
    if mode == "linear":
        taps = [(0, 1 - t), (1, t)]
    else:
        a = -0.75

        def near(d: Array) -> Array:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1

        def far(d: Array) -> Array:
            return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a

        taps = [(-1, far(t + 1)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))]
    return [(np.clip(base + shift, 0, size - 1), weight.astype(dtype)) for shift, weight in taps]


def resample_weights(size: int, outputs: int, *how: Any) -> Array:
    """(outputs, size): how much of each element is in each result; ``how`` as for ``resample_taps`` (NumPy)."""
    taps = resample_taps(size, outputs, *how)
    found = np.zeros((outputs, size), taps[0][1].dtype)
    for place, weight in taps:
        np.add.at(found, (np.arange(outputs), place), weight)
    return found


class Resample(Op):
    """The last dims, as many as ``size`` has numbers, are resized to it. ``scale_d``, ``scale_h`` and ``scale_w`` are
    the input's steps from a result to the next, ``scale_w`` is the last dim's.
    """

    signature = "(n,c,...)->(n,c,...)"
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    scalars = {f"scale_{axis}": "real" for axis in AXES}
    rtol = 1e-4
    atol = 2e-5  # a compiler may join the steps that find a place, which rounds it in another way

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        return (Spec(x.dtype, (*x.shape[: -len(attrs["size"])], *attrs["size"])),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.stages(step, device, "x", "y", "x", step.attrs["mode"] != "cubic")

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls.stages(step, device, "dy", "dx", "dx", step.attrs["mode"].startswith("nearest"))

    @classmethod
    def stages(cls, step: Step, device: Device, source: str, target: str, x: str, together: bool) -> list[KernelSpec]:
        """One kernel for all dims ``together``, or one for each dim from the last: so a sum over windows of k elements
        in each of d dims has d * k terms, and not k ** d.
        """
        ctype, rank = step.slots[x].dtype.ctype, len(step.attrs["size"])
        shape, wanted = step.slots[source].shape, step.slots[target].shape
        lead, end = len(shape) - rank, len(shape)
        spans = [(lead, end)] if together else [(axis, axis + 1) for axis in reversed(range(lead, end))]
        shapes = [(*shape[:first], *wanted[first:]) for first, _ in spans]
        names = [f"between_{k}" for k in range(len(spans) - 1)]
        scratch = tuple(Scratch(name, ctype, prod(after)) for name, after in zip(names, shapes))
        kernels = []
        for span, before, after, taken, made in zip(
            spans, [shape, *shapes], shapes, [source, *names], [*names, target]
        ):
            kernels.append(cls.stage(step, device, ctype, span, before, after, taken, made, scratch))
        return kernels

    @classmethod
    def stage(
        cls, step: Step, device: Device, ctype: str, span: tuple[int, int], before: Shape, after: Shape, source: str,
        target: str, scratch: tuple[Scratch, ...],
    ) -> KernelSpec:  # fmt: skip
        """The kernel that makes the dims ``span`` of ``before`` as long as in ``after``."""
        first, last = span
        axes = "".join(AXES[axis - len(after)] for axis in range(first, last))
        inner = prod(after[last:])
        columns = after[last - 1] * inner
        lines = prod(after[: last - 1])
        sizes = {"lines": lines, "columns": columns, "inner": inner}
        ends = (before, after) if step.direction == FORWARD else (after, before)
        for name, shape in zip(("in", "out"), ends):
            sizes |= {f"{name}_{axis}": size for axis, size in zip(axes, shape[first:last])}
        return KernelSpec(
            f"resample_{step.direction}", "resample.cl.jinja", (source, target),
            *lines_grid(lines, columns, device.group()), sizes, {f"scale_{axis}": "real" for axis in axes},
            constants={
                "real": ctype, "axes": axes, "mode": step.attrs["mode"], "aligned": step.attrs["aligned"],
                "in_runs": inner > 1, "source": source, "target": target,
            },
            scratch=scratch,
            hooked=tuple(name for name in (source, target) if name in step.slots),
        )  # fmt: skip

    @staticmethod
    def forward(
        x: Array, *, size: Shape, mode: str, aligned: bool, scale_d: float, scale_h: float, scale_w: float
    ) -> Array:
        scales = (scale_d, scale_h, scale_w)[-len(size) :]
        for axis, (count, scale) in enumerate(zip(size, scales), x.ndim - len(size)):
            taps = resample_taps(x.shape[axis], count, mode, aligned, scale, x.dtype)
            last = np.moveaxis(x, axis, -1)  # a product with all weights would spread NaN and inf over the whole line
            parts: list[Array] = [last.take(place, -1) * weight for place, weight in taps]
            x = np.moveaxis(np.add.reduce(parts), -1, axis)
        return x

    @staticmethod
    def backward(
        dy: Array, *, size: Shape, mode: str, aligned: bool, scale_d: float, scale_h: float, scale_w: float,
        shapes: dict[str, Shape],
    ) -> tuple[Array]:  # fmt: skip
        shape, scales = shapes["dx"], (scale_d, scale_h, scale_w)[-len(size) :]
        for axis, (count, scale) in enumerate(zip(size, scales), dy.ndim - len(size)):
            weights = resample_weights(shape[axis], count, mode, aligned, scale, dy.dtype)
            dy = np.moveaxis(np.moveaxis(dy, axis, -1) @ weights, -1, axis)
        return (dy,)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        mode = random.choice(("nearest", "nearest-exact", "linear", "cubic"))
        rank = random.choice((1, 2, 2, 3))
        shape = tuple(random.choice((1, 2, 3, 5, 8)) for _ in range(rank))
        size = tuple(random.choice((1, 2, 4, 7, 13)) for _ in range(rank))
        aligned = mode in ("linear", "cubic") and random.random() < 0.5
        scales = tuple(_scale(a, b, aligned, None) for a, b in zip(shape, size))
        attrs = {"size": size, "mode": mode, "aligned": aligned, **_named(scales)}
        return Sample(((random.choice((0, 1, 2)), random.choice((1, 3)), *shape),), attrs)


def _named(scales: tuple[float, ...]) -> dict[str, float]:
    return {f"scale_{axis}": scale for axis, scale in zip(AXES, (*(1.0,) * (len(AXES) - len(scales)), *scales))}


def _scale(size: int, outputs: int, aligned: bool, factor: float | None) -> float:
    if aligned:
        return (size - 1) / (outputs - 1) if outputs > 1 else 0.0
    return 1 / factor if factor else size / outputs


@public(functional=True)
def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """``input`` resized to ``size``, or by ``scale_factor``.

    ``mode`` is "nearest", "nearest-exact" or "area" for one to three dims, "linear" for one, "bilinear" or "bicubic"
    for two, "trilinear" for three. ``align_corners`` lays the corner elements of input and result on each other. With
    ``antialias`` a result is made from its whole share of the input, where the input is the larger one, as in Pillow.

    ``recompute_scale_factor``: the scale follows from the sizes, which are whole numbers.

    Shapes: input (N, C, ...) with one to three dims more; returns (N, C, *size).
    Errors: ArgumentError unless either size or scale_factor is given, for a mode that does not fit, for align_corners
            or antialias with a mode that has none. ShapeError for an empty input or result.
    """
    name, rank = "interpolate", input.ndim - 2
    if mode not in KINDS:
        raise ArgumentError(name, f"mode must be one of {', '.join(KINDS)}", f"got {mode!r}")
    if rank not in (1, 2, 3) or RANKS.get(mode, rank) != rank:
        raise ShapeError(
            name, f"an input (N, C, ...) with {RANKS.get(mode, '1 to 3')} dims to resize for mode {mode!r}",
            f"got {input.shape}",
        )  # fmt: skip
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ArgumentError(
            name, "antialias is for bilinear and bicubic", f"got mode {mode!r}", "Leave it out, or use mode='area'."
        )
    if align_corners is not None and KINDS[mode] not in ("linear", "cubic"):
        raise ArgumentError(
            name, "align_corners is for linear modes and bicubic", f"got mode {mode!r}", "Leave it out."
        )
    if not input.is_floating_point():
        raise DtypeError(name, "a floating-point input", f"got {input.dtype.name}", "Convert it with .float().")
    if (size is None) == (scale_factor is None):
        raise ArgumentError(name, "either size or scale_factor", "got both" if size is not None else "got none")
    if recompute_scale_factor and size is not None:
        raise ArgumentError(name, "recompute_scale_factor is for scale_factor", f"got size={size}")
    lengths = input.shape[2:]
    factors: tuple[float, ...] | None = None
    if scale_factor is not None:
        factors = tuple(float(item) for item in _each(name, "scale_factor", scale_factor, rank, (int, float)))
        if not all(0 < item < math.inf for item in factors):
            raise ArgumentError(name, "scale_factor must be positive", f"got {scale_factor}")
        wanted = tuple(math.floor(length * item) for length, item in zip(lengths, factors))
        if recompute_scale_factor:
            factors = None
    else:
        wanted = tuple(int(item) for item in _each(name, "size", size, rank, int))
    if 0 in input.shape[1:] or min(wanted) < 1:
        raise ShapeError(
            name, "an input and a result of at least one element, empty at most in N",
            f"got input {input.shape} and size {wanted}",
        )  # fmt: skip
    if max((length + 8) * (count + 8) for length, count in zip(lengths, wanted)) > INT_MAX:
        raise NumberRangeError(name, "lengths that multiply to less than 2**31", f"got {lengths} and {wanted}")
    if mode == "area":
        return cast("Tensor", functions[f"adaptive_avg_pool{rank}d"](input, wanted))
    aligned = bool(align_corners)
    scales = tuple(_scale(a, b, aligned, f) for a, b, f in zip(lengths, wanted, factors or (None,) * rank))
    if antialias:
        return resized(input, wanted, KINDS[mode], scales)
    return call(Resample, input, size=wanted, mode=KINDS[mode], aligned=aligned, scalars=_named(scales))


def _each(call_name: str, name: str, value: Any, rank: int, kinds: Any) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    if len(values) != rank or not all(isinstance(item, kinds) and not isinstance(item, bool) for item in values):
        raise ArgumentError(call_name, f"{name} of one number, or {rank}", f"got {value!r}")
    return values


Resample.errors = (
    ErrorSample(
        lambda te: te.interpolate(te.zeros(1, 1, 4, 4), 2, mode="area", antialias=True),
        ArgumentError,
        "antialias is for",
    ),
    ErrorSample(lambda te: te.interpolate(te.zeros(1, 1, 4), 2, mode="bilinear"), ShapeError, "2 dims to resize"),
    ErrorSample(lambda te: te.interpolate(te.zeros(1, 1, 4), 2, 2.0), ArgumentError, "either size or scale_factor"),
    ErrorSample(
        lambda te: te.interpolate(te.zeros(1, 1, 4), 2, align_corners=True), ArgumentError, "align_corners is for"
    ),
    ErrorSample(lambda te: te.interpolate(te.zeros(1, 1, 4), scale_factor=0.1), ShapeError, "at least one element"),
)


@public(functional=True)
def upsample(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """The older name of ``interpolate``.

    Shapes: as ``interpolate``.
    Errors: as ``interpolate``.
    """
    return interpolate(input, size, scale_factor, mode, align_corners)


@public(functional=True)
def upsample_nearest(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """``interpolate`` with mode "nearest".

    Shapes: as ``interpolate``.
    Errors: as ``interpolate``.
    """
    return interpolate(input, size, scale_factor)


@public(functional=True)
def upsample_bilinear(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """``interpolate`` with mode "bilinear" and ``align_corners=True``.

    Shapes: as ``interpolate``.
    Errors: as ``interpolate``.
    """
    return interpolate(input, size, scale_factor, "bilinear", True)
