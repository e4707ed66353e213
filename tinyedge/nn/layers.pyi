# Written by tools/stubs.py: run make stubs.

from collections.abc import Callable, Sequence
from typing import Any

from tinyedge.nn.module import Module
from tinyedge.ops.ctc import Lengths
from tinyedge.ops.windows import Size
from tinyedge.tensor import Tensor

class AdaptiveAvgPool1d(Module):
    """The mean over windows that split the last dim into ``output_size``."""

    output_size: int | Sequence[int]
    def __init__(self, output_size: int | Sequence[int]) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class AdaptiveAvgPool2d(Module):
    """The mean over windows that split the input into ``output_size``; None keeps the input's size."""

    output_size: int | Sequence[int | None] | None
    def __init__(self, output_size: int | Sequence[int | None] | None) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class AdaptiveAvgPool3d(Module):
    """The mean over windows that split the input into ``output_size``; None keeps the input's size."""

    output_size: int | Sequence[int | None] | None
    def __init__(self, output_size: int | Sequence[int | None] | None) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class AdaptiveMaxPool1d(Module):
    """The maximum over windows that split the last dim into ``output_size``."""

    output_size: int | Sequence[int]
    return_indices: bool
    def __init__(self, output_size: int | Sequence[int], return_indices: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Any: ...

class AdaptiveMaxPool2d(Module):
    """The maximum over windows that split the input into ``output_size``; None keeps the input's size."""

    output_size: int | Sequence[int | None] | None
    return_indices: bool
    def __init__(self, output_size: int | Sequence[int | None] | None, return_indices: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Any: ...

class AdaptiveMaxPool3d(Module):
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

class CELU(Module):
    """``input`` where positive, else ``alpha * (exp(input / alpha) - 1)``."""

    alpha: float
    inplace: bool
    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class CTCLoss(Module):
    """Minus the log-probability that a sequence of classes, without repeats and blanks, gives the target."""

    blank: int
    reduction: str
    zero_infinity: bool
    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None: ...
    def forward(
        self,
        log_probs: Tensor,
        targets: Tensor,
        input_lengths: Lengths,
        target_lengths: Lengths,
    ) -> Tensor: ...

class ChannelShuffle(Module):
    """The channels of ``groups`` groups in turns: the first of each group, then the second of each."""

    groups: int
    def __init__(self, groups: int) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class CosineEmbeddingLoss(Module):
    """Mean of ``1 - cosine`` where target is 1, and of ``max(0, cosine - margin)`` where it is -1."""

    margin: float
    size_average: bool | None
    reduce: bool | None
    reduction: str
    def __init__(
        self,
        margin: float = 0.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None: ...
    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor: ...

class CosineSimilarity(Module):
    """The cosine of the angle between vectors along ``dim``; lengths count as at least ``eps``."""

    dim: int
    eps: float
    def __init__(self, dim: int = 1, eps: float = 1e-08) -> None: ...
    def forward(self, x1: Tensor, x2: Tensor) -> Tensor: ...

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

class Fold(Module):
    """Images in which each pixel is the sum of all elements that ``unfold`` takes from there."""

    output_size: Size
    kernel_size: Size
    dilation: Size
    padding: Size
    stride: Size
    def __init__(
        self,
        output_size: Size,
        kernel_size: Size,
        dilation: Size = 1,
        padding: Size = 0,
        stride: Size = 1,
    ) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class GELU(Module):
    """``input * Phi(input)``, with the normal distribution function; or its tanh approximation."""

    approximate: str
    def __init__(self, approximate: str = "none") -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class GLU(Module):
    """The first half of ``input`` along ``dim`` times the sigmoid of the second."""

    dim: int
    def __init__(self, dim: int = -1) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class GaussianNLLLoss(Module):
    """Mean of ``(log(var) + (input - target) ** 2 / var) / 2``; ``full`` adds the constant ``log(2 pi) / 2``."""

    full: bool
    eps: float
    reduction: str
    def __init__(self, *, full: bool = False, eps: float = 1e-06, reduction: str = "mean") -> None: ...
    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor: ...

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

class Hardtanh(Module):
    """``input`` limited to [min_val, max_val]; at both and beyond them the gradient is 0."""

    min_val: float
    max_val: float
    inplace: bool
    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class HingeEmbeddingLoss(Module):
    """Mean of the distance ``input`` where target is 1, and of ``max(0, margin - input)`` where it is -1."""

    margin: float
    size_average: bool | None
    reduce: bool | None
    reduction: str
    def __init__(
        self,
        margin: float = 1.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None: ...
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

class LogSigmoid(Module):
    """``log(sigmoid(input))`` without underflow."""

    def __init__(self) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class MSELoss(Module):
    """Mean of ``(input - target) ** 2``; the function also takes ``weight``, for a weighted mean."""

    reduction: str
    def __init__(self, reduction: str = "mean") -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class MarginRankingLoss(Module):
    """Mean of ``max(0, -target * (input1 - input2) + margin)``; target is 1 where the first shall be larger, else
    -1.
    """

    margin: float
    size_average: bool | None
    reduce: bool | None
    reduction: str
    def __init__(
        self,
        margin: float = 0.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None: ...
    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor: ...

class Mish(Module):
    """``input * tanh(softplus(input))``."""

    inplace: bool
    def __init__(self, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class MultiLabelMarginLoss(Module):
    """Sum over a sample's classes, and over all others, of ``max(0, 1 - input[class] + input[other])``, over
    classes.
    """

    size_average: bool | None
    reduce: bool | None
    reduction: str
    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class MultiLabelSoftMarginLoss(Module):
    """Mean over classes and samples of the negative log-likelihood of ``target`` under ``sigmoid(input)``."""

    weight: Tensor | None
    size_average: bool | None
    reduce: bool | None
    reduction: str
    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class MultiMarginLoss(Module):
    """Mean over the other classes of ``max(0, margin - input[target] + input[other]) ** p``, times target's weight."""

    p: int
    margin: float
    weight: Tensor | None
    size_average: bool | None
    reduce: bool | None
    reduction: str
    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class NLLLoss(Module):
    """``cross_entropy`` of log-probabilities: minus the input at each target."""

    weight: Tensor | None
    ignore_index: int
    reduction: str
    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean") -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class PairwiseDistance(Module):
    """The p-norm of ``x1 - x2 + eps`` along the last dim."""

    p: float
    eps: float
    keepdim: bool
    def __init__(self, p: float = 2.0, eps: float = 1e-06, keepdim: bool = False) -> None: ...
    def forward(self, x1: Tensor, x2: Tensor) -> Tensor: ...

class PixelShuffle(Module):
    """r * r channels as blocks of r * r pixels, r being ``upscale_factor``."""

    upscale_factor: int
    def __init__(self, upscale_factor: int) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class PixelUnshuffle(Module):
    """Blocks of r * r pixels as r * r channels, r being ``downscale_factor``."""

    downscale_factor: int
    def __init__(self, downscale_factor: int) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class PoissonNLLLoss(Module):
    """Negative log-likelihood of the count ``target`` under a Poisson distribution of mean ``exp(input)``."""

    log_input: bool
    full: bool
    size_average: bool | None
    eps: float
    reduce: bool | None
    reduction: str
    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: bool | None = None,
        eps: float = 1e-08,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None: ...
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

class SELU(Module):
    """``elu`` with the alpha, and times the factor, that keep mean 0 and variance 1."""

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

class SoftMarginLoss(Module):
    """Mean of ``log(1 + exp(-target * input))``, without overflow; target is 1 or -1."""

    size_average: bool | None
    reduce: bool | None
    reduction: str
    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...

class Softplus(Module):
    """``log(1 + exp(beta * input)) / beta``; the identity above ``threshold``."""

    beta: float
    threshold: float
    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class Softsign(Module):
    """``input / (1 + abs(input))``."""

    def __init__(self) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class Tanh(Module):
    """Hyperbolic tangent."""

    def __init__(self) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class Tanhshrink(Module):
    """``input - tanh(input)``."""

    def __init__(self) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class Threshold(Module):
    """``input`` where it is above ``threshold``, else ``value``."""

    threshold: float
    value: float
    inplace: bool
    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...

class TripletMarginLoss(Module):
    """Mean of ``max(0, distance(anchor, positive) - distance(anchor, negative) + margin)``."""

    margin: float
    p: float
    eps: float
    swap: bool
    size_average: bool | None
    reduce: bool | None
    reduction: str
    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-06,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None: ...
    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor: ...

class TripletMarginWithDistanceLoss(Module):
    """Mean of ``max(0, distance(anchor, positive) - distance(anchor, negative) + margin)``, by any distance."""

    distance_function: Callable[[Tensor, Tensor], Tensor] | None
    margin: float
    swap: bool
    reduction: str
    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None: ...
    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor: ...

class Unfold(Module):
    """Every window of each image as a column."""

    kernel_size: Size
    dilation: Size
    padding: Size
    stride: Size
    def __init__(self, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> None: ...
    def forward(self, input: Tensor) -> Tensor: ...
