"""Convolutions, and transposed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.nn.arguments import Device, Size, new_parameter, require_positive, reset_weight_and_bias, sizes_of
from tinyedge.nn.module import Module
from tinyedge.tensor import Parameter, Tensor

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Windowed(Module):
    """What convolutions and transposed ones have in common: channels in groups, a kernel, and how it moves."""

    dims = 2
    weight: Parameter
    bias: Parameter | None

    def _set(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size, dilation: Size, groups: int,
        padding_mode: str, modes: Sequence[str], remedy: str,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        require_positive(call, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(
                call,
                "groups must divide both channel counts",
                f"got {in_channels}, {out_channels} and groups={groups}",
            )
        if padding_mode not in modes:
            expected = " or ".join(f'"{mode}"' for mode in modes)
            raise ArgumentError(call, f"padding_mode must be {expected}", f"got {padding_mode!r}", remedy)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sizes_of(call, self.dims, "kernel_size", kernel_size, 1)
        self.stride = sizes_of(call, self.dims, "stride", stride, 1)
        self.dilation = sizes_of(call, self.dims, "dilation", dilation, 1)
        self.groups = groups
        self.padding_mode = padding_mode

    def _make(self, taken: int, given: int, bias: bool, device: Device, dtype: Any) -> None:
        """The parameters: a kernel for each of ``taken`` channels, from ``given / groups`` channels each."""
        self.weight = new_parameter((taken, given // self.groups, *self.kernel_size), device, dtype)
        self.register_parameter("bias", new_parameter((self.out_channels,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        reset_weight_and_bias(self.weight, self.bias)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        none, once = (0,) * self.dims, (1,) * self.dims
        usual = {"padding": none, "dilation": once, "output_padding": none, "groups": 1}
        for name, value in usual.items():
            if getattr(self, name, value) != value:
                text += f", {name}={getattr(self, name)}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"


class _Conv(_Windowed):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._set(in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode, PADDING_MODES, "")
        call = type(self).__name__
        self.padding: tuple[int, ...] | str
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ArgumentError(call, 'padding must be "same", "valid", or ints', f"got {padding!r}")
            if padding == "same" and self.stride != (1,) * self.dims:
                raise ArgumentError(
                    call, 'padding="same" needs stride 1', f"got stride={self.stride}", "Pass the padding as numbers."
                )
            self.padding = padding
        else:
            self.padding = sizes_of(call, self.dims, "padding", padding)
        self._make(out_channels, in_channels, bias, device, dtype)

    def _amounts(self) -> list[int]:
        """How much ``F.pad`` puts before and after each dim, from the last."""
        if isinstance(self.padding, tuple):
            return [amount for amount in reversed(self.padding) for _ in range(2)]
        spans = [dilation * (size - 1) for dilation, size in zip(self.dilation, self.kernel_size, strict=True)]
        if self.padding == "valid":
            spans = [0] * self.dims
        return [amount for span in reversed(spans) for amount in (span // 2, span - span // 2)]

    def _placed(self, input: Tensor) -> tuple[Tensor, tuple[int, ...] | str]:
        """The input as it is convolved, and the zeros that the convolution puts around it."""
        if self.padding_mode == "zeros":
            return input, self.padding
        if input.ndim not in (self.dims + 1, self.dims + 2):
            raise ShapeError(
                type(self).__name__, f"an input of {self.dims + 1} or {self.dims + 2} dims", f"got {input.shape}"
            )
        return F.pad(input, self._amounts(), self.padding_mode), (0,) * self.dims


class Conv1d(_Conv):
    """One-dimensional convolution (cross-correlation).

    ``kernel_size``, ``stride`` (from one window to the next), ``padding`` (places added at either end) and ``dilation``
    (from one tap of the kernel to the next) are ints; ``padding`` is also "valid" (none) or "same" (as many as keep the
    size). ``padding_mode`` says what is put there: "zeros", or as in ``F.pad`` "reflect", "replicate" or "circular".
    With ``groups`` the channels are divided into so many groups, each of which is convolved by itself. ``bias=False``
    leaves out the number that is added to each output channel.

    Shapes: x (batch, in_channels, length), or without batch; weight (out_channels, in_channels / groups, *kernel_size);
            bias (out_channels,). Returns (batch, out_channels, ...), where each dim has (size + 2 * padding - dilation
            * (kernel_size - 1) - 1) // stride + 1 places.
    Errors: ArgumentError for padding="same" with a stride, for channels that are no multiple of ``groups``, or where
            "reflect" or "circular" have more to put around the input than there is. ShapeError if x does not fit.
    """

    dims = 1

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._placed(input)
        return F.conv1d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv2d(_Conv):
    """Two-dimensional convolution (cross-correlation).

    ``kernel_size``, ``stride`` (from one window to the next), ``padding`` (places added at either end) and ``dilation``
    (from one tap of the kernel to the next) are an int or 2 ints; ``padding`` is also "valid" (none) or "same" (as many
    as keep the size). ``padding_mode`` says what is put there: "zeros", or as in ``F.pad`` "reflect", "replicate" or
    "circular". With ``groups`` the channels are divided into so many groups, each of which is convolved by itself.
    ``bias=False`` leaves out the number that is added to each output channel.

    Shapes: x (batch, in_channels, height, width), or without batch; weight (out_channels, in_channels / groups,
            *kernel_size); bias (out_channels,). Returns (batch, out_channels, ...), where each dim has (size + 2 *
            padding - dilation * (kernel_size - 1) - 1) // stride + 1 places.
    Errors: ArgumentError for padding="same" with a stride, for channels that are no multiple of ``groups``, or where
            "reflect" or "circular" have more to put around the input than there is. ShapeError if x does not fit.
    """

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._placed(input)
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv3d(_Conv):
    """Three-dimensional convolution (cross-correlation).

    ``kernel_size``, ``stride`` (from one window to the next), ``padding`` (places added at either end) and ``dilation``
    (from one tap of the kernel to the next) are an int or 3 ints; ``padding`` is also "valid" (none) or "same" (as many
    as keep the size). ``padding_mode`` says what is put there: "zeros", or as in ``F.pad`` "reflect", "replicate" or
    "circular". With ``groups`` the channels are divided into so many groups, each of which is convolved by itself.
    ``bias=False`` leaves out the number that is added to each output channel.

    Shapes: x (batch, in_channels, depth, height, width), or without batch; weight (out_channels, in_channels / groups,
            *kernel_size); bias (out_channels,). Returns (batch, out_channels, ...), where each dim has (size + 2 *
            padding - dilation * (kernel_size - 1) - 1) // stride + 1 places.
    Errors: ArgumentError for padding="same" with a stride, for channels that are no multiple of ``groups``, or where
            "reflect" or "circular" have more to put around the input than there is. ShapeError if x does not fit.
    """

    dims = 3

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._placed(input)
        return F.conv3d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _ConvTranspose(_Windowed):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._set(
            in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode, ("zeros",),
            "PyTorch has no other."
        )  # fmt: skip
        call = type(self).__name__
        self.padding = sizes_of(call, self.dims, "padding", padding)
        self.output_padding = sizes_of(call, self.dims, "output_padding", output_padding)
        self._make(in_channels, out_channels, bias, device, dtype)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """``output_size`` chooses ``output_padding`` so that the result has these lengths."""
        return self._function()(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding if output_size is None else self._output_padding(input, output_size),
            self.groups,
            self.dilation,
        )

    def _function(self) -> Callable[..., Tensor]:
        raise NotImplementedError

    def _output_padding(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        call, sizes = type(self).__name__, tuple(output_size)
        if len(sizes) == input.ndim:
            sizes = sizes[-self.dims :]
        if len(sizes) != self.dims:
            raise ArgumentError(call, f"output_size of {self.dims} or {input.ndim} ints", f"got {tuple(output_size)}")
        least = [
            (size - 1) * stride - 2 * cut + spread * (taps - 1) + 1
            for size, stride, cut, spread, taps in zip(
                input.shape[-self.dims :], self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        ]
        most = [size + stride - 1 for size, stride in zip(least, self.stride)]
        if any(not low <= size <= high for low, size, high in zip(least, sizes, most)):
            raise ArgumentError(call, f"output_size between {tuple(least)} and {tuple(most)}", f"got {sizes}")
        return tuple(size - low for size, low in zip(sizes, least))


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution: the gradient of ``Conv1d`` for its input, as a layer.

    ``kernel_size``, ``stride``, ``padding``, ``dilation`` and ``groups`` are those of that convolution: a larger stride
    makes the result larger, a larger padding makes it smaller. ``output_padding`` is added at its far end, since with a
    stride several sizes have one convolved size. ``bias=False`` leaves out the number that is added to each channel.
    ``padding_mode`` is "zeros".

    Shapes: x (batch, in_channels, length), or without batch; weight (in_channels, out_channels / groups, *kernel_size);
            bias (out_channels,). Returns (batch, out_channels, ...), where each dim has (size - 1) * stride - 2 *
            padding + dilation * (kernel_size - 1) + output_padding + 1 places.
    Errors: ArgumentError for another ``padding_mode``, or channels that are no multiple of ``groups``; ShapeError if x
            does not fit.
    """

    dims = 1

    def _function(self) -> Callable[..., Tensor]:
        return F.conv_transpose1d


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution: the gradient of ``Conv2d`` for its input, as a layer.

    ``kernel_size``, ``stride``, ``padding``, ``dilation`` and ``groups`` are those of that convolution: a larger stride
    makes the result larger, a larger padding makes it smaller. ``output_padding`` is added at its far end, since with a
    stride several sizes have one convolved size. ``bias=False`` leaves out the number that is added to each channel.
    ``padding_mode`` is "zeros".

    Shapes: x (batch, in_channels, height, width), or without batch; weight (in_channels, out_channels / groups,
            *kernel_size); bias (out_channels,). Returns (batch, out_channels, ...), where each dim has (size - 1) *
            stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1 places.
    Errors: ArgumentError for another ``padding_mode``, or channels that are no multiple of ``groups``; ShapeError if x
            does not fit.
    """

    def _function(self) -> Callable[..., Tensor]:
        return F.conv_transpose2d


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution: the gradient of ``Conv3d`` for its input, as a layer.

    ``kernel_size``, ``stride``, ``padding``, ``dilation`` and ``groups`` are those of that convolution: a larger stride
    makes the result larger, a larger padding makes it smaller. ``output_padding`` is added at its far end, since with a
    stride several sizes have one convolved size. ``bias=False`` leaves out the number that is added to each channel.
    ``padding_mode`` is "zeros".

    Shapes: x (batch, in_channels, depth, height, width), or without batch; weight (in_channels, out_channels / groups,
            *kernel_size); bias (out_channels,). Returns (batch, out_channels, ...), where each dim has (size - 1) *
            stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1 places.
    Errors: ArgumentError for another ``padding_mode``, or channels that are no multiple of ``groups``; ShapeError if x
            does not fit.
    """

    dims = 3

    def _function(self) -> Callable[..., Tensor]:
        return F.conv_transpose3d
