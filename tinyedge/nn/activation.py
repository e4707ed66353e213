"""Activations as layers."""

from __future__ import annotations

from typing import Any

from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.nn.arguments import Device, require_positive
from tinyedge.nn.module import Module
from tinyedge.tensor import Parameter, Tensor, full


class _AlongDim(Module):
    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        if dim is None:
            raise ArgumentError(type(self).__name__, "a dim to go along", "got none", "Say dim=-1 for the last one.")
        if isinstance(dim, bool) or not isinstance(dim, int):
            raise ArgumentError(type(self).__name__, "a dim that is an int", f"got {dim!r}")
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """Positive values that sum to 1 along ``dim``.

    Shapes: any; returns the same.
    Errors: ArgumentError without ``dim``, for which PyTorch only warns; AxisError if there is no such dim.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class LogSoftmax(_AlongDim):
    """The logarithm of softmax along ``dim``; see ``Softmax``.

    Shapes: any; returns the same.
    Errors: AxisError if there is no such dim.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


class Softmin(_AlongDim):
    """The softmax of the negated input along ``dim``; see ``Softmax``.

    Shapes: any; returns the same.
    Errors: AxisError if there is no such dim.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim)


class Softmax2d(Module):
    """Softmax over the channels at each place.

    Shapes: (batch, channels, height, width) or (channels, height, width); returns the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ShapeError("Softmax2d", "an input of 3 or 4 dims", f"got {input.shape}")
        return F.softmax(input, -3)


class PReLU(Module):
    """The input where it is positive, else the input times a trained weight: one, or one for each channel.

    ``num_parameters`` is 1 or the number of channels, and ``init`` the value with which the weights start.

    Shapes: (batch, channels, ...), or any with one weight; weight (num_parameters,); returns the input's shape.
    Errors: ShapeError if the channels are not num_parameters.
    Source: He et al., arXiv:1502.01852.
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        require_positive("PReLU", num_parameters=num_parameters)
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(full((num_parameters,), float(init), dtype=dtype, device=device))

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Hardshrink(Module):
    """The input, but 0 within [-lambd, lambd].

    Shapes: any; returns the same.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Softshrink(Module):
    """The input brought nearer to 0 by ``lambd``, and 0 within [-lambd, lambd].

    Shapes: any; returns the same.
    Errors: ArgumentError if lambd is negative.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class RReLU(Module):
    """Leaky ReLU with slopes that are drawn from [``lower``, ``upper``) in training, and are their mean in evaluation.

    Shapes: any; returns the same.
    Errors: ArgumentError if lower is above upper.
    Source: Xu et al., arXiv:1505.00853.
    """

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")
