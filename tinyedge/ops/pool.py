"""Pooling of (N, C, H, W) and (C, H, W): maximum and average, over sliding windows and over adaptive ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from random import Random
from typing import Any, NamedTuple

import numpy as np

from tinyedge.autograd.registry import public
from tinyedge.dtypes import DType, bool_, int8, int64
from tinyedge.errors import ArgumentError, DtypeError, NumberRangeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, grid, lines_grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.reduce import mean
from tinyedge.shapes import INT_MAX, Shape, pair, repeated, window_outputs
from tinyedge.tensor import Tensor, call, call_all

Array = np.ndarray[Any, Any]
Size = int | Sequence[int]
Pair = tuple[int, int]

LINES_OF_GROUP = 8
"""Rows of results that a CPU's work-group makes: as many groups as there are rows would cost more than the rows."""

SPAN = 128
"""Elements of a row whose gradients a CPU's work-item sums before it adds them to what is there."""

TAP_ROW = 16
"""Between the rows of a window, where its places are numbered in a byte: taken apart without a division."""


class _Axis(NamedTuple):
    """For NumPy: the input positions of each window along one axis, and which of them lie inside the input."""

    positions: Array  # (windows, taps), clipped to the input
    inside: Array  # (windows, taps)
    extent: Array  # (windows,): what divides an average


def _sliding(size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int, padded: bool) -> _Axis:
    starts = np.arange(outputs) * stride - padding
    positions = starts[:, None] + np.arange(kernel) * dilation
    inside = (positions >= 0) & (positions < size)
    counted = positions < size + padding if padded else inside
    return _Axis(np.clip(positions, 0, size - 1), inside, counted.sum(axis=1))


def _adapting(size: int, outputs: int) -> _Axis:
    edges = np.arange(outputs)
    starts = edges * size // max(outputs, 1)
    stops = -(-(edges + 1) * size // max(outputs, 1))
    positions = starts[:, None] + np.arange(max(stops - starts, default=0))
    inside = positions < stops[:, None]
    return _Axis(np.minimum(positions, size - 1), inside, stops - starts)


def _taps(rows: _Axis, columns: _Axis) -> Any:
    """Each place in a window: row and column indices that broadcast to the outputs, and whether they count."""
    for i in range(rows.positions.shape[1]):
        for j in range(columns.positions.shape[1]):
            inside = rows.inside[:, i, None] & columns.inside[None, :, j]
            yield rows.positions[:, i, None], columns.positions[None, :, j], inside


def _max_forward(x: Array, rows: _Axis, columns: _Axis, numbered: bool = False) -> tuple[Array, Array]:
    shape = (*x.shape[:-2], len(rows.positions), len(columns.positions))
    y = np.full(shape, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, x.dtype)
    indices = np.full(shape, -1, np.int32)
    for number, (row, column, inside) in zip(_tap_numbers(rows, columns), _taps(rows, columns)):
        value = x[..., row, column]
        better = inside & ((value > y) | (value != value) | (indices < 0))
        y = np.where(better, value, y)
        indices = np.where(better, number if numbered else row * x.shape[-1] + column, indices)
    return y, indices


def _tap_numbers(rows: _Axis, columns: _Axis) -> list[int]:
    """The number of each place in a window: its row and column in one byte."""
    return [i * TAP_ROW + j for i in range(rows.positions.shape[1]) for j in range(columns.positions.shape[1])]


def _positions(taps: Array, rows: _Axis, columns: _Axis, width: int) -> Array:
    """The flat position in the input of each window's place number ``taps``."""
    positions = np.full(taps.shape, -1, np.int32)
    for number, (row, column, _) in zip(_tap_numbers(rows, columns), _taps(rows, columns)):
        positions = np.where(taps == number, row * width + column, positions)
    return positions


def _max_backward(dy: Array, indices: Array, shape: Shape) -> Array:
    dx = np.zeros((prod(shape[:-2]), shape[-2] * shape[-1]), dy.dtype)
    planes, targets = np.arange(len(dx))[:, None], indices.reshape(len(dx), prod(dy.shape[-2:]))
    np.add.at(dx, (planes, np.maximum(targets, 0)), np.where(targets >= 0, dy.reshape(targets.shape), 0))
    return dx.reshape(shape)


def _avg_forward(x: Array, rows: _Axis, columns: _Axis, divisor: int) -> Array:
    y = np.zeros((*x.shape[:-2], len(rows.positions), len(columns.positions)), x.dtype)
    for row, column, inside in _taps(rows, columns):
        y += np.where(inside, x[..., row, column], 0)
    return np.asarray(y / _divisor(rows, columns, divisor).astype(x.dtype))


def _divisor(rows: _Axis, columns: _Axis, divisor: int) -> Array:
    return np.asarray(divisor or np.outer(rows.extent, columns.extent))


def _avg_backward(dy: Array, rows: _Axis, columns: _Axis, divisor: int, shape: Shape) -> Array:
    dx = np.zeros(shape, dy.dtype)
    share = dy / _divisor(rows, columns, divisor).astype(dy.dtype)
    count = prod(shape[:-2])
    planes, share = dx.reshape(count, *shape[-2:]), share.reshape(count, *share.shape[-2:])
    for row, column, inside in _taps(rows, columns):
        place: Any = (slice(None), row, column)
        np.add.at(planes, place, np.where(inside, share, 0))
    return dx


def _planes(call_name: str, x: Spec) -> Shape:
    """The leading dims of an input that can be pooled."""
    if len(x.shape) not in (3, 4) or 0 in x.shape[-3:]:
        raise ShapeError(
            call_name,
            "an input (N, C, H, W) or (C, H, W), empty at most in N",
            f"got {x.shape}",
            "Reshape or unsqueeze it.",
        )
    return x.shape[:-2]


def _floating(call_name: str, x: Spec) -> None:
    if not x.dtype.is_floating_point:
        raise DtypeError(call_name, "a floating-point input", f"got {x.dtype.name}", "Convert it with .float().")


def _ordered(call_name: str, x: Spec) -> None:
    if x.dtype is bool_:
        raise DtypeError(call_name, "an input of numbers", "got bool", "Convert it with .float().")


def _lanes(device: Device, dtype: DType, columns: int) -> int:
    """How many results of a row a work-item makes at a time; 1: one, and it does no more."""
    if not device.is_cpu or dtype.itemsize != 4:
        return 1
    return next((lanes for lanes in (16, 8, 4) if columns > lanes // 2), 1)


def _kernel(
    step: Step, device: Device, kernel: str, buffers: tuple[str, ...], window: dict[str, int]
) -> list[KernelSpec]:
    """One work-item an element of what is written: of y, or of dx. Without a ``window`` they are adaptive."""
    forward = step.wants("y")
    x, y = (step.slots["x"], step.slots["y"]) if forward else (step.slots["dx"], step.slots["dy"])
    ends = {"in_h": x.shape[-2], "in_w": x.shape[-1], "out_h": y.shape[-2], "out_w": y.shape[-1]}
    constants: dict[str, Any] = {"real": x.dtype.ctype, "width": 1}
    constants["window"] = ", ".join(f"{name} = {value}" for name, value in window.items())
    constants["tap_row"] = TAP_ROW if "indices" in buffers and step.slots["indices"].dtype is int8 else 0
    columns, lines = (y if forward else x).shape[-1], prod((y if forward else x).shape[:-1])
    sizes, hooked = {"lines": lines, **ends}, buffers
    global_size: Shape
    local_size: Shape
    if kernel == "max_pool_backward" and device.is_cpu:
        kernel, sizes, hooked = "max_pool_planes", ends, ("dy",)
        constants["span"] = SPAN
        global_size, local_size = (prod(x.shape[:-2]),), (1,)
    elif forward and window.get("stride_w") in (1, 2) and (lanes := _lanes(device, x.dtype, columns)) > 1:
        constants |= {"width": lanes, "stride": window["stride_w"]}
        global_size, local_size = grid(lines, min(LINES_OF_GROUP, device.group()))
    else:
        global_size, local_size = lines_grid(lines, columns, device.group())
    return [
        KernelSpec(kernel, "pool.cl.jinja", buffers, global_size, local_size, sizes, constants=constants, hooked=hooked)
    ]


class MaxPool2d(Op):
    signature = "(n,c,h,w)->(n,c,p,q),(n,c,p,q)"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    outputs = ("y", "indices")
    differentiable = ("x",)
    saves = ("indices",)
    errors = (
        ErrorSample(lambda te: te.max_pool2d(te.zeros(1, 1, 4, 4), 2, padding=2), ArgumentError, "half"),
        ErrorSample(lambda te: te.max_pool2d(te.zeros(1, 1, 4, 4), 5), ShapeError, "at least 1"),
        ErrorSample(lambda te: te.max_pool2d(te.zeros(4, 4), 2), ShapeError, "(N, C, H, W)"),
        ErrorSample(lambda te: te.max_pool2d(te.zeros(1, 1, 4, 4), 2, stride=0), ArgumentError, "stride"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        _ordered(cls.name, x)
        taps = attrs.pop("taps")  # the places of the maxima in their windows, not in the input
        shape = _planes(cls.name, x) + _outputs(cls.name, x.shape, **attrs)
        return (Spec(x.dtype, shape), Spec(int8 if taps else int64, shape))

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "max_pool_forward", ("x", "y", "indices"), _max_window(**step.attrs))

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "max_pool_backward", ("dy", "indices", "dx"), _max_window(**step.attrs))

    @staticmethod
    def forward(
        x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool, taps: bool
    ) -> Any:
        outputs = _outputs("max_pool2d", x.shape, kernel_size, stride, padding, dilation, ceil_mode)
        rows, columns = (
            _sliding(x.shape[k - 2], outputs[k], kernel_size[k], stride[k], padding[k], dilation[k], False)
            for k in (0, 1)
        )
        return _max_forward(x, rows, columns, taps)

    @staticmethod
    def backward(
        dy: Array,
        dindices: None,
        indices: Array,
        *,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        ceil_mode: bool,
        taps: bool,
        shapes: dict[str, Shape],
    ) -> tuple[Array]:
        shape = shapes["dx"]
        if taps:
            rows, columns = (
                _sliding(shape[k - 2], dy.shape[k - 2], kernel_size[k], stride[k], padding[k], dilation[k], False)
                for k in (0, 1)
            )
            indices = _positions(indices, rows, columns, shape[-1])
        return (_max_backward(dy, indices, shape),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape, attrs = _sample(random)
        dilation = (random.choice((1, 1, 2)), random.choice((1, 2)))
        spans = tuple((k - 1) * d + 1 for k, d in zip(attrs["kernel_size"], dilation))
        shape = (*shape[:-2], shape[-2] + spans[0], shape[-1] + spans[1])
        return Sample((shape,), {**attrs, "dilation": dilation, "taps": random.random() < 0.5})


def _outputs(
    call_name: str,
    shape: Shape,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
) -> Shape:
    if any(p > k // 2 for p, k in zip(padding, kernel_size)):
        raise ArgumentError(
            call_name,
            "padding must be at most half of kernel_size",
            f"got padding={padding} and kernel_size={kernel_size}",
            "Pad the input first.",
        )
    result = tuple(
        window_outputs(shape[a - 2], kernel_size[a], stride[a], padding[a], padding[a], dilation[a], ceil_mode)
        for a in (0, 1)
    )
    if min(result) < 1:
        raise ShapeError(
            call_name,
            "the output must be at least 1 high and wide",
            f"input {shape} with kernel_size={kernel_size}, stride={stride}, padding={padding}, dilation={dilation} "
            f"gives {result}",
            "Use a smaller kernel_size, or pad the input.",
        )
    return result


def _window(
    kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1), ceil_mode: bool = False
) -> dict[str, int]:
    named = {"kernel": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    return {f"{name}_{axis}": values[k] for name, values in named.items() for k, axis in enumerate("hw")}


def _max_window(taps: bool, **attrs: Any) -> dict[str, int]:
    return _window(**attrs)


def _sample(random: Random) -> tuple[Shape, dict[str, Any]]:
    """An input that is too small by one window, and the arguments of one."""
    kernel = (random.randint(1, 4), random.randint(1, 3))
    lead = random.choice(((1, 2), (2, 3), (3,), (0, 2)))
    attrs = {
        "kernel_size": kernel,
        "stride": (random.randint(1, 3), random.randint(1, 4)),
        "padding": (random.randint(0, kernel[0] // 2), random.randint(0, kernel[1] // 2)),
        "ceil_mode": random.random() < 0.5,
    }
    return (*lead, random.randint(0, 6), random.randint(0, 9)), attrs


def _is_left_out(stride: Size | None) -> bool:
    return stride is None or (not isinstance(stride, int) and len(stride) == 0)


def window_sizes(
    call_name: str, rank: int, kernel_size: Size, stride: Size | None, padding: Size = 0, dilation: Size = 1
) -> tuple[Shape, Shape, Shape, Shape]:
    """Of windows over ``rank`` dims the kernel, the stride (left out, they lie side by side), padding and dilation."""
    kernel = repeated(call_name, "kernel_size", kernel_size, rank, 1)
    steps = kernel if stride is None or _is_left_out(stride) else repeated(call_name, "stride", stride, rank, 1)
    around = repeated(call_name, "padding", padding, rank)
    return kernel, steps, around, repeated(call_name, "dilation", dilation, rank, 1)


@public(functional=True)
def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window; padding counts as -infinity, NaN wins.

    ``stride`` is from one window to the next (None: ``kernel_size``), ``padding`` is at either end, ``dilation`` from
    one place of a window to the next. ``ceil_mode`` also takes a last window that goes over the end.

    Shapes: input (N, C, H, W) or (C, H, W); returns (N, C, H', W'), and with ``return_indices`` also the flat
            position of each maximum in H * W (the first of equal ones), int64.
    Saves:  of each maximum which place of its window it was, a byte; or with ``return_indices`` the positions.
    Errors: ArgumentError if the padding is more than half of the kernel size. ShapeError if no window fits.
    """
    kernel, steps, around, spread = window_sizes("max_pool2d", 2, kernel_size, stride, padding, dilation)
    height, width = kernel
    attrs: dict[str, Any] = {"kernel_size": kernel, "stride": steps, "padding": around, "dilation": spread}
    taps = not return_indices and width <= TAP_ROW and height * TAP_ROW <= 128
    y, indices = call_all(MaxPool2d, input, **attrs, ceil_mode=bool(ceil_mode), taps=taps)
    return (y, indices) if return_indices else y


@public(functional=True)
def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """``max_pool2d`` along the last dim of (N, C, L) or (C, L).

    ``stride`` is from one window to the next (None: ``kernel_size``), ``padding`` is at either end, ``dilation`` from
    one place of a window to the next. ``ceil_mode`` also takes a last window that goes over the end.

    Shapes: input (N, C, L) or (C, L); returns (N, C, L') or (C, L'), and with ``return_indices`` the positions.
    Errors: as ``max_pool2d``.
    """
    call_name = "max_pool1d"
    result = max_pool2d(
        _row(call_name, input),
        _wide(call_name, "kernel_size", kernel_size, 1),
        None if _is_left_out(stride) else _wide(call_name, "stride", stride, 1),
        _wide(call_name, "padding", padding, 0),
        _wide(call_name, "dilation", dilation, 1),
        ceil_mode,
        return_indices,
    )
    return tuple(item.squeeze(-2) for item in result) if return_indices else result.squeeze(-2)


def _row(call_name: str, input: Tensor) -> Tensor:
    """(N, C, L) or (C, L) as an image of height one."""
    if input.ndim not in (2, 3):
        raise ShapeError(call_name, "an input (N, C, L) or (C, L)", f"got {input.shape}", "Reshape or unsqueeze it.")
    return input.unsqueeze(-2)


def _wide(call_name: str, name: str, value: Any, beside: int) -> Pair:
    """A number along the last dim, with ``beside`` for the height of one."""
    values = (value,) if isinstance(value, int) else tuple(value)
    if len(values) != 1:
        raise ArgumentError(call_name, f"{name} must be an int", f"got {value!r}")
    return beside, values[0]


class AvgPool2d(Op):
    signature = "(n,c,h,w)->(n,c,p,q)"
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    errors = (
        ErrorSample(lambda te: te.avg_pool2d(te.zeros(1, 1, 4, 4), 2, padding=2), ArgumentError, "half"),
        ErrorSample(lambda te: te.avg_pool2d(te.zeros(1, 1, 4, 4), 5), ShapeError, "at least 1"),
        ErrorSample(lambda te: te.avg_pool2d(te.zeros(1, 1, 4, 4), 2, divisor_override=0), ArgumentError, "divisor"),
        ErrorSample(lambda te: te.avg_pool2d(te.zeros(1, 1, 4, 4).int(), 2), DtypeError, "floating"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        _floating(cls.name, x)
        window = (attrs["kernel_size"], attrs["stride"], attrs["padding"], (1, 1), attrs["ceil_mode"])
        return (Spec(x.dtype, _planes(cls.name, x) + _outputs(cls.name, x.shape, *window)),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "avg_pool_forward", ("x", "y"), cls.window(**step.attrs))

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "avg_pool_backward", ("dy", "dx"), cls.window(**step.attrs))

    @staticmethod
    def window(
        kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool, divisor: int
    ) -> dict[str, int]:
        rows, columns = padding if count_include_pad else (0, 0)
        return {**_window(kernel_size, stride, padding), "margin_h": rows, "margin_w": columns, "divisor": divisor}

    @staticmethod
    def forward(
        x: Array,
        *,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor: int,
    ) -> Array:
        outputs = _outputs("avg_pool2d", x.shape, kernel_size, stride, padding, (1, 1), ceil_mode)
        rows, columns = (
            _sliding(x.shape[k - 2], outputs[k], kernel_size[k], stride[k], padding[k], 1, count_include_pad)
            for k in (0, 1)
        )
        return _avg_forward(x, rows, columns, divisor)

    @staticmethod
    def backward(
        dy: Array,
        *,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor: int,
        shapes: dict[str, Shape],
    ) -> tuple[Array]:
        shape = shapes["dx"]
        rows, columns = (
            _sliding(shape[k - 2], dy.shape[k - 2], kernel_size[k], stride[k], padding[k], 1, count_include_pad)
            for k in (0, 1)
        )
        return (_avg_backward(dy, rows, columns, divisor, shape),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape, attrs = _sample(random)
        kernel = attrs["kernel_size"]
        attrs["count_include_pad"] = random.random() < 0.5
        attrs["divisor"] = random.choice((0, 0, 3))
        return Sample(((*shape[:-2], shape[-2] + kernel[0], shape[-1] + kernel[1]),), attrs)


@public(functional=True)
def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window, padding counted as zeros (or not at all); ``divisor_override`` replaces the count.

    ``stride`` is from one window to the next (None: ``kernel_size``), ``padding`` is at either end, and counts unless
    ``count_include_pad=False``. ``ceil_mode`` also takes a last window that goes over the end.

    Shapes: input (N, C, H, W) or (C, H, W); returns (N, C, H', W').
    Errors: ArgumentError if the padding is more than half of the kernel size. ShapeError if no window fits.
    """
    if divisor_override is not None and divisor_override == 0:
        raise ArgumentError("avg_pool2d", "divisor_override must not be 0", "got 0", "Leave it out for the mean.")
    if abs(divisor_override or 0) > INT_MAX:
        raise NumberRangeError("avg_pool2d", f"divisor_override of at most {INT_MAX}", f"got {divisor_override}")
    kernel, steps, around, _ = window_sizes("avg_pool2d", 2, kernel_size, stride, padding)
    return call(
        AvgPool2d,
        input,
        kernel_size=kernel,
        stride=steps,
        padding=around,
        ceil_mode=bool(ceil_mode),
        count_include_pad=bool(count_include_pad),
        divisor=int(divisor_override or 0),
    )


@public(functional=True)
def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """``avg_pool2d`` along the last dim of (N, C, L) or (C, L).

    ``stride`` is from one window to the next (None: ``kernel_size``), ``padding`` is at either end, and counts unless
    ``count_include_pad=False``. ``ceil_mode`` also takes a last window that goes over the end.

    Shapes: input (N, C, L) or (C, L); returns (N, C, L') or (C, L').
    Errors: as ``avg_pool2d``.
    """
    call_name = "avg_pool1d"
    return avg_pool2d(
        _row(call_name, input),
        _wide(call_name, "kernel_size", kernel_size, 1),
        None if _is_left_out(stride) else _wide(call_name, "stride", stride, 1),
        _wide(call_name, "padding", padding, 0),
        ceil_mode,
        count_include_pad,
    ).squeeze(-2)


def _adaptive_outputs(call_name: str, x: Spec, output_size: Pair) -> Shape:
    planes = _planes(call_name, x)
    for size, count in zip(x.shape[-2:], output_size):
        if (size + 1) * (count + 1) >= 2**31:
            raise ShapeError(call_name, "input and output size multiply to less than 2**31", f"got {size} and {count}")
    return planes + output_size


def _output_size(call_name: str, input: Tensor, output_size: Any) -> Pair:
    """An int, or two, each may be None: the input's own."""
    wanted = (output_size, output_size) if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(wanted) == 2 and input.ndim >= 2:
        wanted = tuple(size if item is None else item for size, item in zip(input.shape[-2:], wanted))
    return pair(call_name, "output_size", wanted)


class AdaptiveAvgPool2d(Op):
    signature = "(n,c,h,w)->(n,c,p,q)"
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    errors = (
        ErrorSample(lambda te: te.adaptive_avg_pool2d(te.zeros(4, 4), 2), ShapeError, "(N, C, H, W)"),
        ErrorSample(lambda te: te.adaptive_avg_pool2d(te.zeros(1, 4, 4), -1), ArgumentError, "output_size"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        _floating(cls.name, x)
        return (Spec(x.dtype, _adaptive_outputs(cls.name, x, attrs["output_size"])),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "avg_pool_forward", ("x", "y"), {})

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "avg_pool_backward", ("dy", "dx"), {})

    @staticmethod
    def forward(x: Array, *, output_size: Pair) -> Array:
        rows, columns = (_adapting(x.shape[k - 2], output_size[k]) for k in (0, 1))
        return _avg_forward(x, rows, columns, 0)

    @staticmethod
    def backward(dy: Array, *, output_size: Pair, shapes: dict[str, Shape]) -> tuple[Array]:
        rows, columns = (_adapting(shapes["dx"][k - 2], output_size[k]) for k in (0, 1))
        return (_avg_backward(dy, rows, columns, 0, shapes["dx"]),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        lead = random.choice(((1, 2), (2, 3), (3,), (0, 2)))
        shape = (*lead, random.randint(1, 9), random.randint(1, 9))
        return Sample((shape,), {"output_size": (random.randint(0, 7), random.randint(1, 11))})


@public(functional=True, module="AdaptiveAvgPool2d", arguments="output_size")
def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """The mean over windows that split the input into ``output_size``; None keeps the input's size.

    Shapes: input (N, C, H, W) or (C, H, W); returns (N, C, *output_size).
    Errors: ArgumentError unless output_size is one or two ints of at least 0 or None.
    """
    size = _output_size("adaptive_avg_pool2d", input, output_size)
    if size == (1, 1) and input.is_floating_point():
        _planes("adaptive_avg_pool2d", input._slot.spec)
        return mean(input, (-2, -1), keepdim=True)
    return call(AdaptiveAvgPool2d, input, output_size=size)


class AdaptiveMaxPool2d(Op):
    signature = "(n,c,h,w)->(n,c,p,q),(n,c,p,q)"
    kinds = "if"
    domain = {"x": (-4.0, 4.0)}
    outputs = ("y", "indices")
    differentiable = ("x",)
    saves = ("indices",)
    errors = (ErrorSample(lambda te: te.adaptive_max_pool2d(te.zeros(4, 4), 2), ShapeError, "(N, C, H, W)"),)

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        _ordered(cls.name, x)
        shape = _adaptive_outputs(cls.name, x, attrs["output_size"])
        return (Spec(x.dtype, shape), Spec(int64, shape))

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "max_pool_forward", ("x", "y", "indices"), {})

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _kernel(step, device, "max_pool_backward", ("dy", "indices", "dx"), {})

    @staticmethod
    def forward(x: Array, *, output_size: Pair) -> Any:
        rows, columns = (_adapting(x.shape[k - 2], output_size[k]) for k in (0, 1))
        return _max_forward(x, rows, columns)

    @staticmethod
    def backward(
        dy: Array, dindices: None, indices: Array, *, output_size: Pair, shapes: dict[str, Shape]
    ) -> tuple[Array]:
        return (_max_backward(dy, indices, shapes["dx"]),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        return AdaptiveAvgPool2d.sample(random)


@public(functional=True, module="AdaptiveMaxPool2d", arguments="output_size, return_indices", shown="output_size")
def adaptive_max_pool2d(
    input: Tensor, output_size: int | Sequence[int | None] | None, return_indices: bool = False
) -> Any:
    """The maximum over windows that split the input into ``output_size``; None keeps the input's size.

    Shapes: input (N, C, H, W) or (C, H, W); returns (N, C, *output_size), and with ``return_indices`` the positions.
    Saves:  the positions.
    """
    size = _output_size("adaptive_max_pool2d", input, output_size)
    y, indices = call_all(AdaptiveMaxPool2d, input, output_size=size)
    return (y, indices) if return_indices else y
