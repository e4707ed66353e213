"""Elements at places between elements: grid_sample, and affine_grid, which makes such places."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from random import Random
from typing import Any, NamedTuple, cast

import numpy as np

from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call, tensor

Array = np.ndarray[Any, Any]
AXES = "dhw"
MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")
TEMPLATE = "grid_sample.cl.jinja"


class _Taps(NamedTuple):
    """For NumPy, along one axis, (batch, positions, taps): the elements about each place."""

    at: Array  # clipped to the input
    inside: Array
    part: Array
    slope: Array  # the derivatives of ``part`` by the grid's value


def _reflected(places: Array, size: int, aligned: bool) -> tuple[Array, Array]:
    """``places`` mirrored at the borders, and the derivative."""
    low, span = (0.0, size - 1) if aligned else (-0.5, size)
    if span == 0:
        return np.zeros_like(places), np.zeros_like(places)
    far = np.abs(places - low)
    even = np.floor(far / span) % 2 == 0
    extra = np.fmod(far, span)
    turn = np.where(places < low, -1, 1) * np.where(even, 1, -1)
    return np.where(even, extra, span - extra) + low, turn


def _clipped(places: Array, size: int) -> tuple[Array, Array]:
    return np.fmin(np.fmax(places, 0), size - 1), (places > 0) & (places < size - 1)


def _taps(given: Array, size: int, mode: str, padding: str, aligned: bool) -> _Taps:
    where = np.where(np.isnan(given), -1, given).astype(given.dtype)
    places = (where + 1) / 2 * (size - 1) if aligned else ((where + 1) * size - 1) / 2
    turn = np.full_like(places, (size - 1 if aligned else size) / 2)
    if mode != "bicubic":
        if padding == "reflection":
            places, sign = _reflected(places, size, aligned)
            turn = turn * sign
        if padding != "zeros":
            places, is_free = _clipped(places, size)
            turn = turn * is_free
    far = 2.0**24 if mode == "bicubic" and padding != "zeros" else 0
    places = np.fmin(np.fmax(places, -(far or 4)), far or size + 4)
    base = np.rint(places) if mode == "nearest" else np.floor(places)
    t = places - base
    one = np.ones_like(t)
    if mode == "nearest":
        first, parts, slopes = 0, [one], [0 * one]
    elif mode == "bilinear":
        first, parts, slopes = 0, [1 - t, t], [-one, one]
    else:
        a = -0.75
        distances = [t + 1, t, 1 - t, 2 - t]
        first = -1
        parts = [
            a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if k in (0, 3) else (a + 2) * d**3 - (a + 3) * d**2 + 1
            for k, d in enumerate(distances)
        ]
        slopes = [
            (1 if k < 2 else -1)
            * (3 * a * d**2 - 10 * a * d + 8 * a if k in (0, 3) else 3 * (a + 2) * d**2 - 2 * (a + 3) * d)
            for k, d in enumerate(distances)
        ]
    at = base[..., None] + first + np.arange(len(parts))
    if mode == "bicubic" and padding != "zeros":
        if padding == "reflection":
            at, _ = _reflected(at, size, aligned)
        at, _ = _clipped(at, size)
    at = at.astype(np.int64)
    return _Taps(
        np.clip(at, 0, size - 1), (at >= 0) & (at < size), np.stack(parts, -1).astype(given.dtype),
        (np.stack(slopes, -1) * turn[..., None]).astype(given.dtype),
    )  # fmt: skip


def _axes_of(
    shape: Shape, grid: Array, mode: str, padding: str, aligned: bool
) -> tuple[list[_Taps], list[tuple[int, ...]]]:
    """The taps of each axis, for positions in one dim; and the numbers of the taps that a sum goes over."""
    flat = grid.reshape(grid.shape[0], prod(grid.shape[1:-1]), grid.shape[-1])
    rank = len(shape)
    taps = [_taps(flat[..., rank - 1 - k], shape[k], mode, padding, aligned) for k in range(rank)]
    count = taps[0].at.shape[-1]
    return taps, list(product(range(count), repeat=rank))


def _term(taps: list[_Taps], ks: tuple[int, ...], shape: Shape, sloping: int = -1) -> tuple[Array, Array]:
    """(batch, positions): the flat element with the tap numbers ``ks``, and its weight."""
    flat: Any = 0
    weight: Any = 1
    for axis, (tap, k) in enumerate(zip(taps, ks)):
        flat = flat * shape[axis] + tap.at[..., k]
        weight = weight * (tap.slope if axis == sloping else tap.part)[..., k] * tap.inside[..., k]
    return flat, weight


class GridSample(Op):
    signature = "(n,c,h,w),(n,p,q,2)->(n,c,p,q)"
    domain = {"x": (-4.0, 4.0), "grid": (-1.4, 1.4)}
    differentiable = ("x", "grid")
    saves = ("x", "grid")
    rtol = 1e-4
    atol = 1e-4  # a place is rounded, and the slope there multiplies that

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, grid = inputs
        assert x is not None
        assert grid is not None
        return (Spec(x.dtype, (*x.shape[:2], *grid.shape[1:-1])),)

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        return cls.saves if "grid" in needed else ("grid",)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return [cls.kernel(step, device, "grid_sample_forward", ("x", "grid", "y"), "x", "y")]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        kernels = []
        if step.wants("dx"):
            kernels.append(cls.kernel(step, device, "grid_sample_input", ("dy", "grid", "sums", "dx"), "dx", "dy"))
        if step.wants("dgrid"):
            kernels.append(cls.kernel(step, device, "grid_sample_places", ("dy", "x", "grid", "dgrid"), "x", "dy"))
        return kernels

    @classmethod
    def kernel(cls, step: Step, device: Device, kernel: str, buffers: tuple[str, ...], x: str, y: str) -> KernelSpec:
        shape = step.slots[x].shape
        n, c, *size = shape
        axes = AXES[-len(size) :]
        positions = prod(step.slots[y].shape[2:])
        count = n * positions
        sizes = {"channels": c, "positions": positions, **{f"size_{axis}": k for axis, k in zip(axes, size)}}
        scratch: tuple[Scratch, ...] = ()
        if kernel == "grid_sample_input":
            # Every item walks over all positions: no more of them than keep the device busy.
            wanted = (4 if device.is_cpu else 64) * device.compute_units
            rows = -(-size[0] // max(1, min(size[0], -(-wanted // max(n * c, 1)))))
            sizes |= {"rows": rows, "bands": -(-size[0] // rows)}
            count = n * c * sizes["bands"]
            scratch = (Scratch("sums", step.slots["dx"].dtype.ctype, prod(shape)),)
        return KernelSpec(
            kernel, TEMPLATE, buffers, *grid(count, device.group()), {"count": count, **sizes},
            constants={"real": step.slots[x].dtype.ctype, "axes": axes, **step.attrs}, scratch=scratch,
            hooked=tuple(name for name in buffers if name != "sums"),
        )  # fmt: skip

    @staticmethod
    def forward(x: Array, grid: Array, *, mode: str, padding: str, aligned: bool) -> Array:
        shape = x.shape[2:]
        taps, sums = _axes_of(shape, grid, mode, padding, aligned)
        flat = x.reshape(*x.shape[:2], prod(shape))
        y = np.zeros((*x.shape[:2], prod(grid.shape[1:-1])), x.dtype)
        for ks in sums:
            at, weight = _term(taps, ks, shape)
            y += np.take_along_axis(flat, at[:, None], 2) * weight[:, None]
        return np.asarray(y.reshape(*x.shape[:2], *grid.shape[1:-1]))

    @staticmethod
    def backward(
        dy: Array, x: Array, grid: Array, *, mode: str, padding: str, aligned: bool, needs: tuple[bool, ...],
        shapes: dict[str, Shape],
    ) -> tuple[Any, ...]:  # fmt: skip
        n, c = dy.shape[:2]
        errors = dy.reshape(n, c, prod(dy.shape[2:]))
        dx = dgrid = None
        if needs[0]:
            shape = shapes["dx"][2:]
            taps, sums = _axes_of(shape, grid, mode, padding, aligned)
            dx = np.zeros((n, c, prod(shape)), dy.dtype)
            places: Any = (np.arange(n)[:, None, None], np.arange(c)[None, :, None])
            for ks in sums:
                at, weight = _term(taps, ks, shape)
                np.add.at(dx, (*places, at[:, None]), errors * weight[:, None])
            dx = dx.reshape(shapes["dx"])
        if needs[1]:
            shape = x.shape[2:]
            taps, sums = _axes_of(shape, grid, mode, padding, aligned)
            flat = x.reshape(n, c, prod(shape))
            dgrid = np.zeros(grid.shape, dy.dtype)
            of_positions = dgrid.reshape(n, errors.shape[2], len(shape))
            for ks in sums:
                at, _ = _term(taps, ks, shape)
                met = (np.take_along_axis(flat, at[:, None], 2) * errors).sum(1)
                for axis in range(len(shape)):
                    _, slope = _term(taps, ks, shape, axis)
                    of_positions[..., len(shape) - 1 - axis] += met * slope
        return dx, dgrid

    @classmethod
    def sample(cls, random: Random) -> Sample:
        rank = random.choice((2, 2, 3))
        mode = random.choice(MODES if rank == 2 else MODES[:2])
        n, c = random.choice((0, 1, 2)), random.choice((1, 3))
        shape = tuple(random.choice((1, 2, 3, 6)) for _ in range(rank))
        positions = tuple(random.choice((1, 2, 5)) for _ in range(rank))
        attrs = {"mode": mode, "padding": random.choice(PADDINGS), "aligned": random.random() < 0.5}
        return Sample(((n, c, *shape), (n, *positions, rank)), attrs)


@public(functional=True)
def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """``input`` at the places that ``grid`` names, by their x, y and z, which go from -1 to 1 over the input.

    ``mode`` is "bilinear", "nearest" or, for images, "bicubic"; ``padding_mode`` "zeros", "border" or "reflection" says
    what is outside. With ``align_corners`` -1 and 1 are the middles of the outermost elements, else their borders. The
    gradient of input is a sum in the order of the grid.

    Shapes: input (N, C, H, W), grid (N, P, Q, 2), returns (N, C, P, Q); or input (N, C, D, H, W), grid (N, O, P, Q, 3),
            returns (N, C, O, P, Q).
    Saves:  grid, and input for the gradient of grid.
    Errors: ShapeError unless the shapes fit, DtypeError unless both are floats of one dtype, ArgumentError for another
            mode.
    """
    name = "grid_sample"
    if mode not in MODES:
        raise ArgumentError(name, f"mode must be one of {', '.join(MODES)}", f"got {mode!r}")
    if padding_mode not in PADDINGS:
        raise ArgumentError(name, f"padding_mode must be one of {', '.join(PADDINGS)}", f"got {padding_mode!r}")
    if input.dtype is not grid.dtype or not input.is_floating_point():
        raise DtypeError(
            name,
            "input and grid of one floating-point dtype",
            f"got {input.dtype.name} and {grid.dtype.name}",
            "Convert one of them with .to(dtype).",
        )
    if (
        input.ndim not in (4, 5)
        or input.ndim != grid.ndim
        or grid.shape[0] != input.shape[0]
        or grid.shape[-1] != input.ndim - 2
    ):
        raise ShapeError(
            name, "input (N, C, H, W) and grid (N, P, Q, 2), or input (N, C, D, H, W) and grid (N, O, P, Q, 3)",
            f"got {input.shape} and {grid.shape}",
        )  # fmt: skip
    if 0 in input.shape[2:]:
        raise ShapeError(name, "an input of at least one element a channel", f"got {input.shape}")
    if mode == "bicubic" and input.ndim == 5:
        raise ArgumentError(name, 'mode="bicubic" is for images, (N, C, H, W)', f"got {input.shape}", "Use bilinear.")
    return call(GridSample, input, grid, mode=mode, padding=padding_mode, aligned=bool(align_corners))


@public(functional=True)
def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid for ``grid_sample`` that maps each place of a result of ``size`` by the matrix ``theta``.

    ``align_corners``: -1 and 1 are the centres of the outermost places, and not their outer edges.

    Shapes: theta (N, 2, 3) for size (N, C, H, W), returns (N, H, W, 2); theta (N, 3, 4) for size (N, C, D, H, W),
            returns (N, D, H, W, 3).
    Errors: ShapeError unless these fit, DtypeError for integers.
    """
    name, sizes = "affine_grid", tuple(int(item) for item in size)
    rank = len(sizes) - 2
    if not theta.is_floating_point():
        raise DtypeError(name, "a floating-point theta", f"got {theta.dtype.name}", "Convert it with .float().")
    if rank not in (2, 3) or min(sizes) < 1:
        raise ShapeError(name, "size (N, C, H, W) or (N, C, D, H, W) of positive ints", f"got {sizes}")
    if theta.shape != (sizes[0], rank, rank + 1):
        raise ShapeError(name, f"theta of shape {(sizes[0], rank, rank + 1)} for size {sizes}", f"got {theta.shape}")
    lines = []
    for count in sizes[2:]:
        line = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
        lines.append(line if align_corners else line * (count - 1) / count)
    places = np.meshgrid(*lines, indexing="ij")
    base = np.stack([*reversed(places), np.ones(sizes[2:])], -1).reshape(-1, rank + 1)
    made = functions["matmul"](tensor(base, dtype=theta.dtype, device=theta.backend), theta.transpose(1, 2))
    return cast("Tensor", made.reshape(sizes[0], *sizes[2:], rank))


GridSample.errors = (
    ErrorSample(
        lambda te: te.grid_sample(te.zeros(1, 2, 3, 3), te.zeros(1, 2, 2, 3)), ShapeError, "grid (N, P, Q, 2)"
    ),
    ErrorSample(
        lambda te: te.grid_sample(te.zeros(1, 2, 3, 3, 3), te.zeros(1, 2, 2, 2, 3), "bicubic"),
        ArgumentError, "is for images",
    ),
    ErrorSample(lambda te: te.grid_sample(te.zeros(1, 2, 3, 3), te.zeros(1, 2, 2, 2), "cubic"), ArgumentError, "mode"),
    ErrorSample(lambda te: te.affine_grid(te.zeros(1, 2, 2), (1, 1, 3, 3)), ShapeError, "theta of shape"),
)  # fmt: skip
