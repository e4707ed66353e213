"""Pooling layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F
from tinyedge.nn.arguments import Size, sizes_of
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor

# Pooling


class _MaxPool(Module):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest value in each window of the last dim.

    ``kernel_size``, ``stride`` (from one window to the next; None: ``kernel_size``), ``padding`` (places of minus
    infinity at either end) and ``dilation`` (from one place of a window to the next) are ints. ``ceil_mode`` also takes
    a last window that goes over the end. With ``return_indices`` the result is a pair: the values, and where in its
    channel each was found, for ``MaxUnpool1d``.

    Shapes: input (batch, channels, length), or without batch; returns (batch, channels, ...), where each dim has (size
            + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1 places.
    Errors: ArgumentError if padding is more than half of the kernel; ShapeError if no window fits.
    """

    def forward(self, input: Tensor) -> Any:
        return F.max_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


class MaxPool2d(_MaxPool):
    """The largest value in each window of the last two dims.

    ``kernel_size``, ``stride`` (from one window to the next; None: ``kernel_size``), ``padding`` (places of minus
    infinity at either end) and ``dilation`` (from one place of a window to the next) are an int or 2 ints.
    ``ceil_mode`` also takes a last window that goes over the end. With ``return_indices`` the result is a pair: the
    values, and where in its channel each was found, for ``MaxUnpool2d``.

    Shapes: input (batch, channels, height, width), or without batch; returns (batch, channels, ...), where each dim has
            (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1 places.
    Errors: ArgumentError if padding is more than half of the kernel; ShapeError if no window fits.
    """

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


class MaxPool3d(_MaxPool):
    """The largest value in each window of the last three dims.

    ``kernel_size``, ``stride`` (from one window to the next; None: ``kernel_size``), ``padding`` (places of minus
    infinity at either end) and ``dilation`` (from one place of a window to the next) are an int or 3 ints.
    ``ceil_mode`` also takes a last window that goes over the end. With ``return_indices`` the result is a pair: the
    values, and where in its channel each was found, for ``MaxUnpool3d``.

    Shapes: input (batch, channels, depth, height, width), or without batch; returns (batch, channels, ...), where each
            dim has (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1 places.
    Errors: ArgumentError if padding is more than half of the kernel; ShapeError if no window fits.
    """

    def forward(self, input: Tensor) -> Any:
        return F.max_pool3d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


class AvgPool1d(Module):
    """The mean of each window of the last dim.

    ``kernel_size``, ``stride`` (from one window to the next; None: ``kernel_size``) and ``padding`` (zeros at either
    end) are ints; these zeros count in the mean unless ``count_include_pad=False``. ``ceil_mode`` also takes a last
    window that goes over the end.

    Shapes: input (batch, channels, length), or without batch; returns (batch, channels, ...), where each dim has (size
            + 2 * padding - kernel_size) // stride + 1 places.
    Errors: ArgumentError if padding is more than half of the kernel; ShapeError if no window fits.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = sizes_of("AvgPool1d", 1, "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else sizes_of("AvgPool1d", 1, "stride", stride, 1)
        self.padding = sizes_of("AvgPool1d", 1, "padding", padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The mean of each window of the last two dims.

    ``kernel_size``, ``stride`` (from one window to the next; None: ``kernel_size``) and ``padding`` (zeros at either
    end) are an int or 2 ints; these zeros count in the mean unless ``count_include_pad=False``. ``ceil_mode`` also
    takes a last window that goes over the end. ``divisor_override`` divides by that number, whatever the window's size.

    Shapes: input (batch, channels, height, width), or without batch; returns (batch, channels, ...), where each dim has
            (size + 2 * padding - kernel_size) // stride + 1 places.
    Errors: ArgumentError if padding is more than half of the kernel; ShapeError if no window fits.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AvgPool3d(_AvgPool):
    """The mean of each window of the last three dims.

    ``kernel_size``, ``stride`` (from one window to the next; None: ``kernel_size``) and ``padding`` (zeros at either
    end) are an int or 3 ints; these zeros count in the mean unless ``count_include_pad=False``. ``ceil_mode`` also
    takes a last window that goes over the end. ``divisor_override`` divides by that number, whatever the window's size.

    Shapes: input (batch, channels, depth, height, width), or without batch; returns (batch, channels, ...), where each
            dim has (size + 2 * padding - kernel_size) // stride + 1 places.
    Errors: ArgumentError if padding is more than half of the kernel; ShapeError if no window fits.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool3d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class _LPPool(Module):
    def __init__(
        self, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """The p-norm of each window of the last dim, where p is ``norm_type``: (sum of x ** p) ** (1 / p).

    ``kernel_size``, ``stride`` (from one window to the next; None: ``kernel_size``) are ints. ``ceil_mode`` also takes
    a last window that goes over the end.

    Shapes: input (batch, channels, length), or without batch; returns (batch, channels, ...), where each dim has (size
            - kernel_size) // stride + 1 places.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool1d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool2d(_LPPool):
    """The p-norm of each window of the last two dims, where p is ``norm_type``: (sum of x ** p) ** (1 / p).

    ``kernel_size``, ``stride`` (from one window to the next; None: ``kernel_size``) are an int or 2 ints. ``ceil_mode``
    also takes a last window that goes over the end.

    Shapes: input (batch, channels, height, width), or without batch; returns (batch, channels, ...), where each dim has
            (size - kernel_size) // stride + 1 places.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool2d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool3d(_LPPool):
    """The p-norm of each window of the last three dims, where p is ``norm_type``: (sum of x ** p) ** (1 / p).

    ``kernel_size``, ``stride`` (from one window to the next; None: ``kernel_size``) are an int or 3 ints. ``ceil_mode``
    also takes a last window that goes over the end.

    Shapes: input (batch, channels, depth, height, width), or without batch; returns (batch, channels, ...), where each
            dim has (size - kernel_size) // stride + 1 places.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool3d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class _MaxUnpool(Module):
    dims = 1

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        call = type(self).__name__
        self.kernel_size = sizes_of(call, self.dims, "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else sizes_of(call, self.dims, "stride", stride, 1)
        self.padding = sizes_of(call, self.dims, "padding", padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Zeros, with each element where ``MaxPool1d`` found it.

    ``kernel_size``, ``stride`` (None: ``kernel_size``) and ``padding`` are those of that pooling.

    Shapes: input and indices (batch, channels, length), or without batch, as ``MaxPool1d`` with ``return_indices``
            gives them; returns the size that was pooled, or ``output_size``, if it is given.
    Errors: IndexRangeError for an index outside the result.
    """

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return F.max_unpool1d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(_MaxUnpool):
    """Zeros, with each element where ``MaxPool2d`` found it.

    ``kernel_size``, ``stride`` (None: ``kernel_size``) and ``padding`` are those of that pooling.

    Shapes: input and indices (batch, channels, height, width), or without batch, as ``MaxPool2d`` with
            ``return_indices`` gives them; returns the size that was pooled, or ``output_size``, if it is given.
    Errors: IndexRangeError for an index outside the result.
    """

    dims = 2

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool3d(_MaxUnpool):
    """Zeros, with each element where ``MaxPool3d`` found it.

    ``kernel_size``, ``stride`` (None: ``kernel_size``) and ``padding`` are those of that pooling.

    Shapes: input and indices (batch, channels, depth, height, width), or without batch, as ``MaxPool3d`` with
            ``return_indices`` gives them; returns the size that was pooled, or ``output_size``, if it is given.
    Errors: IndexRangeError for an index outside the result.
    """

    dims = 3

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return F.max_unpool3d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class _Fractional(Module):
    dims = 2

    def __init__(
        self, kernel_size: Size, output_size: Size | None = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        if (output_size is None) == (output_ratio is None):
            given = "got both" if output_size is not None else "got none"
            raise ArgumentError(name, "output_size or output_ratio", given)
        self.kernel_size = self._each(kernel_size)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else self._each(output_size)
        self.output_ratio = None if output_ratio is None else self._each(output_ratio)
        if self.output_ratio is not None and not all(0 < ratio < 1 for ratio in self.output_ratio):
            raise ArgumentError(name, "an output_ratio between 0 and 1", f"got {output_ratio}")

    def _each(self, value: Any) -> tuple[Any, ...]:
        return (value,) * self.dims if isinstance(value, (int, float)) else tuple(value)

    def _options(self) -> tuple[Any, ...]:
        return self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples


class FractionalMaxPool2d(_Fractional):
    """The maxima of windows of ``kernel_size`` whose places are drawn at each call; see ``F.fractional_max_pool2d``.

    How many there are is said by ``output_size``, or as a part of the input's size by ``output_ratio``. With
    ``return_indices`` the places of the maxima come out too. ``_random_samples`` are numbers to use for drawn ones.

    Shapes: input (batch, channels, height, width), or without batch; returns the same with ``output_size``.
    """

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool2d(input, *self._options())


class FractionalMaxPool3d(_Fractional):
    """The maxima of windows of ``kernel_size`` whose places are drawn at each call; see ``F.fractional_max_pool3d``.

    How many there are is said by ``output_size``, or as a part of the input's size by ``output_ratio``. With
    ``return_indices`` the places of the maxima come out too. ``_random_samples`` are numbers to use for drawn ones.

    Shapes: input (batch, channels, depth, height, width), or without batch; returns the same with ``output_size``.
    """

    dims = 3

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool3d(input, *self._options())
