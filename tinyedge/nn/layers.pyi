# Written by tools/stubs.py: run make stubs.

from collections.abc import Sequence
from typing import Any

from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor

class AdaptiveAvgPool2d(Module):
    """The mean over windows that split the input into ``output_size``; None keeps the input's size."""

    output_size: int | Sequence[int | None] | None
    def __init__(self, output_size: int | Sequence[int | None] | None) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class AdaptiveMaxPool2d(Module):
    """The maximum over windows that split the input into ``output_size``; None keeps the input's size."""

    output_size: int | Sequence[int | None] | None
    return_indices: bool
    def __init__(self, output_size: int | Sequence[int | None] | None, return_indices: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Any: ...

class BCELoss(Module):
    """Negative log-likelihood of ``target`` under the probability ``input``."""

    weight: Tensor | None
    reduction: str
    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean") -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class BCEWithLogitsLoss(Module):
    """Negative log-likelihood of ``target`` under the probability ``sigmoid(input)``, without overflow."""

    weight: Tensor | None
    reduction: str
    pos_weight: Tensor | None
    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class CrossEntropyLoss(Module):
    """Negative log-likelihood of ``target`` under ``softmax(input)`` over the classes."""

    weight: Tensor | None
    ignore_index: int
    reduction: str
    label_smoothing: float
    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class ELU(Module):
    """``input`` where positive, else ``alpha * (exp(input) - 1)``."""

    alpha: float
    inplace: bool
    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class GELU(Module):
    """``input * Phi(input)``, with the normal distribution function; or its tanh approximation."""

    approximate: str
    def __init__(self, approximate: str = "none") -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class Hardsigmoid(Module):
    """``relu6(input + 3) / 6``."""

    inplace: bool
    def __init__(self, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class Hardswish(Module):
    """``input * relu6(input + 3) / 6``."""

    inplace: bool
    def __init__(self, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class HuberLoss(Module):
    """Mean of half the squared distance up to ``delta``, and of ``delta * (distance - delta / 2)`` beyond."""

    reduction: str
    delta: float
    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class L1Loss(Module):
    """Mean of ``abs(input - target)``; the function also takes ``weight``, for a weighted mean."""

    reduction: str
    def __init__(self, reduction: str = "mean") -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class LeakyReLU(Module):
    """``input`` where positive, else ``negative_slope * input``."""

    negative_slope: float
    inplace: bool
    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class MSELoss(Module):
    """Mean of ``(input - target) ** 2``; the function also takes ``weight``, for a weighted mean."""

    reduction: str
    def __init__(self, reduction: str = "mean") -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class NLLLoss(Module):
    """``cross_entropy`` of log-probabilities: minus the input at each target."""

    weight: Tensor | None
    ignore_index: int
    reduction: str
    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean") -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class ReLU(Module):
    """``max(input, 0)``."""

    inplace: bool
    def __init__(self, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class ReLU6(Module):
    """``min(max(input, 0), 6)``."""

    inplace: bool
    def __init__(self, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class SiLU(Module):
    """``input * sigmoid(input)``."""

    inplace: bool
    def __init__(self, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class Sigmoid(Module):
    """``1 / (1 + exp(-input))``."""

    def __init__(self) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class SmoothL1Loss(Module):
    """``huber_loss`` with delta=beta, divided by beta; ``l1_loss`` if beta is 0."""

    reduction: str
    beta: float
    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class Softplus(Module):
    """``log(1 + exp(beta * input)) / beta``; the identity above ``threshold``."""

    beta: float
    threshold: float
    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class Tanh(Module):
    """Hyperbolic tangent."""

    def __init__(self) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...
