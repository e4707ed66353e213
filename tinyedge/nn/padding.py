"""Layers that pad."""

from __future__ import annotations

from collections.abc import Sequence

from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor


class _Pad(Module):
    dims = 1
    mode = "constant"

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        amounts = (padding,) * (2 * self.dims) if isinstance(padding, int) else tuple(padding)
        if len(amounts) != 2 * self.dims or not all(isinstance(amount, int) for amount in amounts):
            raise ArgumentError(
                type(self).__name__, f"padding must be an int, or {2 * self.dims}", f"got {padding!r}"
            )  # fmt: skip
        self.padding = amounts

    def forward(self, input: Tensor) -> Tensor:
        if self.mode != "constant" and input.ndim not in (self.dims + 1, self.dims + 2):
            raise ShapeError(
                type(self).__name__, f"an input of {self.dims + 1} or {self.dims + 2} dims", f"got {input.shape}"
            )
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return str(self.padding)


class _ConstantPad(_Pad):
    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """``value`` around the last dim.

    ``padding`` is an int, or (left, right). A negative one takes elements away.

    Shapes: (...); returns each dim longer by what is added to it.
    """


class ConstantPad2d(_ConstantPad):
    """``value`` around the last two dims.

    ``padding`` is an int, or (left, right, top, bottom). A negative one takes elements away.

    Shapes: (...); returns each dim longer by what is added to it.
    """

    dims = 2


class ConstantPad3d(_ConstantPad):
    """``value`` around the last three dims.

    ``padding`` is an int, or (left, right, top, bottom, front, back). A negative one takes elements away.

    Shapes: (...); returns each dim longer by what is added to it.
    """

    dims = 3


class ZeroPad1d(_Pad):
    """Zeros around the last dim.

    ``padding`` is an int, or (left, right). A negative one takes elements away.

    Shapes: (...); returns each dim longer by what is added to it.
    """


class ZeroPad2d(_Pad):
    """Zeros around the last two dims.

    ``padding`` is an int, or (left, right, top, bottom). A negative one takes elements away.

    Shapes: (...); returns each dim longer by what is added to it.
    """

    dims = 2


class ZeroPad3d(_Pad):
    """Zeros around the last three dims.

    ``padding`` is an int, or (left, right, top, bottom, front, back). A negative one takes elements away.

    Shapes: (...); returns each dim longer by what is added to it.
    """

    dims = 3


class ReflectionPad1d(_Pad):
    """The input's own elements, mirrored at the outermost ones, around the last dim.

    ``padding`` is an int, or (left, right). A negative one takes elements away.

    Shapes: (batch, channels, length), or without batch; returns each dim longer by what is added to it.
    Errors: ArgumentError unless each padding is smaller than the dim that it is added to.
    """

    mode = "reflect"


class ReflectionPad2d(_Pad):
    """The input's own elements, mirrored at the outermost ones, around the last two dims.

    ``padding`` is an int, or (left, right, top, bottom). A negative one takes elements away.

    Shapes: (batch, channels, height, width), or without batch; returns each dim longer by what is added to it.
    Errors: ArgumentError unless each padding is smaller than the dim that it is added to.
    """

    dims = 2
    mode = "reflect"


class ReflectionPad3d(_Pad):
    """The input's own elements, mirrored at the outermost ones, around the last three dims.

    ``padding`` is an int, or (left, right, top, bottom, front, back). A negative one takes elements away.

    Shapes: (batch, channels, depth, height, width), or without batch; returns each dim longer by what is added to it.
    Errors: ArgumentError unless each padding is smaller than the dim that it is added to.
    """

    dims = 3
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """The outermost elements again, around the last dim.

    ``padding`` is an int, or (left, right). A negative one takes elements away.

    Shapes: (batch, channels, length), or without batch; returns each dim longer by what is added to it.
    """

    mode = "replicate"


class ReplicationPad2d(_Pad):
    """The outermost elements again, around the last two dims.

    ``padding`` is an int, or (left, right, top, bottom). A negative one takes elements away.

    Shapes: (batch, channels, height, width), or without batch; returns each dim longer by what is added to it.
    """

    dims = 2
    mode = "replicate"


class ReplicationPad3d(_Pad):
    """The outermost elements again, around the last three dims.

    ``padding`` is an int, or (left, right, top, bottom, front, back). A negative one takes elements away.

    Shapes: (batch, channels, depth, height, width), or without batch; returns each dim longer by what is added to it.
    """

    dims = 3
    mode = "replicate"


class CircularPad1d(_Pad):
    """The elements from the other end, around the last dim.

    ``padding`` is an int, or (left, right). A negative one takes elements away.

    Shapes: (batch, channels, length), or without batch; returns each dim longer by what is added to it.
    Errors: ArgumentError unless each padding is at most the dim that it is added to.
    """

    mode = "circular"


class CircularPad2d(_Pad):
    """The elements from the other end, around the last two dims.

    ``padding`` is an int, or (left, right, top, bottom). A negative one takes elements away.

    Shapes: (batch, channels, height, width), or without batch; returns each dim longer by what is added to it.
    Errors: ArgumentError unless each padding is at most the dim that it is added to.
    """

    dims = 2
    mode = "circular"


class CircularPad3d(_Pad):
    """The elements from the other end, around the last three dims.

    ``padding`` is an int, or (left, right, top, bottom, front, back). A negative one takes elements away.

    Shapes: (batch, channels, depth, height, width), or without batch; returns each dim longer by what is added to it.
    Errors: ArgumentError unless each padding is at most the dim that it is added to.
    """

    dims = 3
    mode = "circular"
