"""What the arguments of layers mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError
from tinyedge.nn import init
from tinyedge.shapes import repeated
from tinyedge.tensor import Parameter, full

Device = str | Backend | None


Size = int | tuple[int, ...]


def new_parameter(shape: Sequence[int], device: Device, dtype: Any) -> Parameter:
    """A parameter of zeros, for ``reset_parameters`` to fill."""
    return Parameter(full(shape, 0.0, dtype=dtype, device=device))


def require_positive(call: str, **values: int) -> None:
    """Refuse sizes that are no ints of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ArgumentError(call, f"{name} must be an int of at least 1", f"got {value!r}")


def reset_weight_and_bias(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's defaults: both uniform, within one over the root of the fan in."""
    if weight.numel() == 0:
        return
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in, _ = init._calculate_fan_in_and_fan_out(weight)
        bound = 1 / math.sqrt(fan_in)
        init.uniform_(bias, -bound, bound)


def sizes_of(call: str, dims: int, name: str, value: Size, minimum: int = 0) -> tuple[int, ...]:
    """``value`` for each of ``dims``."""
    return repeated(call, name, value, dims, minimum)
